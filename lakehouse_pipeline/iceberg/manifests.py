"""Manifests: the lists of data files that a snapshot is made of, read and written at size.

Entries are plain Avro records (dicts with the spec's own field names) from end to end: reading, marking and writing
them again never builds an object per statistic. Nothing here talks to a catalog.

Source: https://iceberg.apache.org/spec/#manifests
"""

import hashlib
import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import fastavro
from pyiceberg.avro.codecs import AvroCompressionCodec
from pyiceberg.conversions import to_bytes
from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    ManifestContent,
    ManifestFile,
    PartitionFieldStats,
    PartitionFieldSummary,
    data_file_with_partition,
    manifest_entry_schema_with_data_file,
)
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.typedef import Properties
from pyiceberg.types import IcebergType, IntegerType, NestedField, PrimitiveType, StructType
from pyiceberg.utils.schema_conversion import AvroSchemaConversion

from lakehouse_pipeline.errors import ConfigurationError, SafetyError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.event_time import Entry, EventTime, HourSpan, avro_name
from lakehouse_pipeline.ledger.records import PartitionBounds, SealedManifest

EXISTING, ADDED, DELETED = 0, 1, 2  # ManifestEntryStatus
FORMAT_VERSION: Literal[2] = 2
UNASSIGNED = -1  # a sequence number that the manifest list's writer fills in with the commit's

DATA, POSITION_DELETES, EQUALITY_DELETES = 0, 1, 2  # DataFileContent
DELETED_FILE_PATH = 2147483546  # the field of position deletes that names the data file

SHOWN = 5  # files that an error names

# Iceberg's names of write.avro.compression-codec, and Avro's own. (PyIceberg needs a C library more for snappy.)
_CODECS: dict[str, AvroCompressionCodec] = {"gzip": "deflate", "zstd": "zstandard", "uncompressed": "null"}


@dataclass(frozen=True)
class LiveFile:
    """A data or delete file that a snapshot reaches.

    Attributes:
        path: where it lies.
        content: 0 data, 1 position deletes, 2 equality deletes.
        rows: records in it.
        bytes: its size on storage.
        span: the hours that its rows can be of.
        spec_id: the partition spec that it was written for.
        partition: its values in that spec, as text: equal for files of one partition.
        sequence_number: of its data: deletes that are younger (or, of positions, as old) may take rows of it.
        refers_to: of position deletes, the one data file that they are of; empty where they may be of several.
        equality_ids: of equality deletes, the fields that are compared.
        row_groups: how many it has; 0 where that is not told.
        sort_order_id: the order that its rows are in; 0 or None where they are in none.
        nans: NaN values by field id, as far as they are known.
        file_format: PARQUET, ORC, AVRO or PUFFIN.
        values: its values in its spec, by field.
    """

    path: str
    content: int
    rows: int
    bytes: int
    span: HourSpan
    spec_id: int
    partition: str
    sequence_number: int = 0
    refers_to: str = ""
    equality_ids: tuple[int, ...] = ()
    row_groups: int = 0
    sort_order_id: int | None = None
    nans: Mapping[int, int] = field(default_factory=dict, compare=False)
    file_format: str = "PARQUET"
    values: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def hour(self) -> int | None:
        """The hour of all its rows, as Iceberg counts hours; None where they may be of several."""
        return self.span.hour


def digest(paths: Iterable[str]) -> str:
    """Give one string for a set of files: the same set, the same string. The empty set has one too."""
    return hashlib.sha256("\n".join(sorted(paths)).encode()).hexdigest()[:32]


def live_files(
    metadata: TableMetadata,
    files: FileIO,
    snapshot_id: int | None,
    event_time: EventTime,
    hours: Collection[int] | None = None,
) -> Iterator[LiveFile]:
    """Go through the files that a snapshot reaches, deletes included, manifest by manifest.

    (`Table.scan().plan_files()` raises at equality deletes: apache/iceberg-python#6568.)

    Args:
        metadata: of the table.
        files: the store.
        snapshot_id: whose; of None there are none.
        event_time: tells of which hours a file's rows can be.
        hours: only files that may have rows of these, as Iceberg counts hours; None is all.
    """
    for manifest in manifests_of(metadata, files, snapshot_id):
        if hours is not None and not event_time.in_manifest(manifest).meets(hours):
            continue
        span_of = event_time.in_entries_of(manifest.partition_spec_id)
        for entry in read_entries(files, manifest):
            if entry["status"] == DELETED:
                continue
            span = span_of(entry)
            if hours is None or span.meets(hours):
                yield live_file(entry, span, manifest.partition_spec_id)


def refuse_straddling(files: Iterable[LiveFile]) -> None:
    """Hold files that an hour reaches against the rule that each is of one hour alone.

    Raises:
        SafetyError: names those that are not.
    """
    names = sorted(file.path for file in files if file.hour is None)
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise SafetyError(
            f"{len(names)} files of an earlier partition spec hold rows of this hour and of others, or may; replacing "
            f"the hour would lose the others: {', '.join(names[:SHOWN])}{more}. Rewrite them to the current spec first "
            "(in Spark: CALL system.rewrite_data_files(table => ..., options => map('rewrite-all', 'true', "
            "'remove-dangling-deletes', 'true'))), or delete their rows"
        )


def manifests_of(metadata: TableMetadata, files: FileIO, snapshot_id: int | None) -> list[ManifestFile]:
    """List the manifests of a snapshot; none for a table without snapshots.

    Raises:
        SafetyError: the metadata does not know the snapshot.
    """
    if snapshot_id is None:
        return []
    snapshot = metadata.snapshot_by_id(snapshot_id)
    if snapshot is None:
        raise SafetyError(f"snapshot {snapshot_id} is not in the table's metadata (expired?)")
    return snapshot.manifests(files)


def live_file(entry: Entry, span: HourSpan, spec_id: int) -> LiveFile:
    """Reduce an entry of a manifest of a spec to what decisions are made of."""
    data_file = entry["data_file"]
    return LiveFile(
        path=data_file["file_path"],
        content=data_file.get("content") or 0,
        rows=data_file["record_count"],
        bytes=data_file["file_size_in_bytes"],
        span=span,
        spec_id=spec_id,
        partition=repr(data_file["partition"]),
        sequence_number=entry.get("sequence_number") or 0,
        refers_to=_refers_to(data_file) if data_file.get("content") == POSITION_DELETES else "",
        equality_ids=tuple(data_file.get("equality_ids") or ()),
        row_groups=len(data_file.get("split_offsets") or ()),
        sort_order_id=data_file.get("sort_order_id"),
        nans={item["key"]: item["value"] for item in data_file.get("nan_value_counts") or ()},
        file_format=data_file["file_format"].upper(),
        values=data_file["partition"],
    )


def _refers_to(data_file: Entry) -> str:
    """Give the one data file that a file of position deletes is of, where its metadata tell."""
    if data_file.get("referenced_data_file"):
        return str(data_file["referenced_data_file"])
    low, high = (
        {item["key"]: item["value"] for item in data_file.get(name) or ()}.get(DELETED_FILE_PATH)
        for name in ("lower_bounds", "upper_bounds")
    )
    return low.decode() if low and low == high else ""


def read_entries(files: FileIO, manifest: ManifestFile) -> Iterator[Entry]:
    """Read a manifest's entries, DELETED ones included, with what they inherit from the manifest list filled in.

    Source: https://iceberg.apache.org/spec/#sequence-number-inheritance
    """
    for entry in _records(files, manifest.manifest_path):
        if entry.get("snapshot_id") is None:
            entry["snapshot_id"] = manifest.added_snapshot_id
        inherits = entry["status"] == ADDED or manifest.sequence_number == 0
        for name in ("sequence_number", "file_sequence_number"):
            if entry.get(name) is None and inherits:
                entry[name] = manifest.sequence_number
        yield entry


def read_sealed(files: FileIO, manifest: SealedManifest) -> Iterator[Entry]:
    """Read the entries of a manifest that no snapshot knows yet."""
    return _records(files, manifest.path)


def _records(files: FileIO, path: str) -> Iterator[Entry]:
    with files.new_input(path).open() as stream:
        body = io.BytesIO(stream.read())
    for record in fastavro.reader(body):
        yield dict(record)  # type: ignore[arg-type]  # manifests hold records only


def schema_for(metadata: TableMetadata, spec_id: int) -> Schema:
    """Give the newest schema that has all columns of a partition spec: the current one may have dropped some.

    Raises:
        SafetyError: there is none left.
    """
    wanted = {field.source_id for field in metadata.specs()[spec_id].fields}
    earlier = sorted(metadata.schemas, key=lambda schema: schema.schema_id, reverse=True)
    for schema in (metadata.schema(), *earlier):
        if wanted <= schema.field_ids:
            return schema
    raise SafetyError(
        f"the table has files of partition spec {spec_id}, and no schema is left that has all of its columns: "
        "rewrite them to the current spec first"
    )


def partition_type(spec: PartitionSpec, schema: Schema) -> StructType:
    """Give the type of a spec's partition tuples; every field is optional, as Iceberg's spec has it."""
    fields = spec.partition_type(schema).fields
    return StructType(*(NestedField(f.field_id, f.name, f.field_type, required=False) for f in fields))


@cache
def _entry_schema(spec_json: str, schema_json: str) -> Any:
    spec, schema = PartitionSpec.model_validate_json(spec_json), Schema.model_validate_json(schema_json)
    data_file = data_file_with_partition(partition_type(spec, schema), FORMAT_VERSION)
    entry = manifest_entry_schema_with_data_file(FORMAT_VERSION, data_file)
    return fastavro.parse_schema(AvroSchemaConversion().iceberg_to_avro(entry, schema_name="manifest_entry"))


def encode_entry(entry: Entry, spec: PartitionSpec, schema: Schema) -> bytes:
    """Turn an entry into bytes that travel from a task to the driver."""
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, _entry_schema(spec.model_dump_json(), schema.model_dump_json()), entry)
    return buffer.getvalue()


def decode_entry(body: bytes, spec: PartitionSpec, schema: Schema) -> Entry:
    """Undo `encode_entry`."""
    avro = _entry_schema(spec.model_dump_json(), schema.model_dump_json())
    return dict(fastavro.schemaless_reader(io.BytesIO(body), avro, None))  # type: ignore[arg-type]


def write_manifest(
    files: FileIO,
    path: str,
    entries: list[Entry],
    *,
    spec: PartitionSpec,
    schema: Schema,
    content: ManifestContent,
    codec: AvroCompressionCodec,
    snapshot_id: int | None = None,
) -> ManifestFile:
    """Write a manifest of `entries` at `path` and give its line of the manifest list.

    Args:
        files: where to.
        path: a name that nothing has yet.
        entries: Avro records; ADDED ones without sequence numbers inherit them from the manifest list.
        spec: the partition spec of every file in it.
        schema: of the table.
        content: data or deletes.
        codec: Avro's name of the compression (see `codec_of`).
        snapshot_id: the snapshot that the manifest is written for; None while that is not known (a seal).

    Raises:
        FileExistsError: the name is taken.
    """
    avro = _entry_schema(spec.model_dump_json(), schema.model_dump_json())
    body = io.BytesIO()
    fastavro.writer(
        body,
        avro,
        entries,
        codec=codec,
        metadata={
            "schema": schema.model_dump_json(),
            "schema-id": str(schema.schema_id),
            "partition-spec": f"[{','.join(field.model_dump_json() for field in spec.fields)}]",
            "partition-spec-id": str(spec.spec_id),
            "format-version": str(FORMAT_VERSION),
            "content": "deletes" if content == ManifestContent.DELETES else "data",
        },
    )
    with files.new_output(path).create(overwrite=False) as stream:
        stream.write(body.getbuffer().tobytes())
    length = len(body.getbuffer())
    return manifest_file(path, length, entries, spec=spec, schema=schema, content=content, snapshot_id=snapshot_id)


def manifest_file(
    path: str,
    length: int,
    entries: Iterable[Entry],
    *,
    spec: PartitionSpec,
    schema: Schema,
    content: ManifestContent,
    snapshot_id: int | None,
) -> ManifestFile:
    """Sum a manifest's entries up into its line of the manifest list."""
    files, rows = [0, 0, 0], [0, 0, 0]
    partitions = [_statistics(field.field_type) for field in partition_type(spec, schema).fields]
    sequence_numbers = []
    for entry in entries:
        status, data_file = entry["status"], entry["data_file"]
        files[status] += 1
        rows[status] += data_file["record_count"]
        for values, part in zip(partitions, spec.fields, strict=True):
            values.update(data_file["partition"][avro_name(part)])
        if status != DELETED and entry.get("sequence_number") is not None:
            sequence_numbers.append(entry["sequence_number"])
    return ManifestFile.from_args(
        manifest_path=path,
        manifest_length=length,
        partition_spec_id=spec.spec_id,
        content=content,
        sequence_number=UNASSIGNED,
        min_sequence_number=min(sequence_numbers, default=UNASSIGNED),
        added_snapshot_id=snapshot_id,
        added_files_count=files[ADDED],
        existing_files_count=files[EXISTING],
        deleted_files_count=files[DELETED],
        added_rows_count=rows[ADDED],
        existing_rows_count=rows[EXISTING],
        deleted_rows_count=rows[DELETED],
        partitions=[values.to_summary() for values in partitions],
        key_metadata=None,
    )


def _statistics(field_type: IcebergType) -> PartitionFieldStats:
    assert isinstance(field_type, PrimitiveType)  # noqa: S101  # a partition value is never nested
    return PartitionFieldStats(field_type)


def partition_bounds(manifest: ManifestFile) -> tuple[PartitionBounds, ...]:
    """Give what a seal keeps of a manifest's partition tuples."""
    return tuple(
        PartitionBounds(
            null=summary.contains_null,
            nan=bool(summary.contains_nan),
            lower=summary.lower_bound,
            upper=summary.upper_bound,
        )
        for summary in manifest.partitions or ()
    )


def sealed_manifest_file(
    manifest: SealedManifest, hour: HourWindow, spec_id: int, snapshot_id: int, as_of: int | None
) -> ManifestFile:
    """Give the manifest list's line of a manifest that was sealed before its snapshot was known.

    Args:
        manifest: as it was sealed.
        hour: of its files.
        spec_id: of its files.
        snapshot_id: of the commit.
        as_of: the sequence number that its files have; None where they have the commit's.
    """
    hours = to_bytes(IntegerType(), hour.ordinal)
    # Seals of earlier versions have no bounds: their tables were partitioned by the hour alone.
    bounds = manifest.partitions or (PartitionBounds(lower=hours, upper=hours),)
    return ManifestFile.from_args(
        manifest_path=manifest.path,
        manifest_length=manifest.length,
        partition_spec_id=spec_id,
        content=ManifestContent.DATA,
        sequence_number=UNASSIGNED,
        min_sequence_number=UNASSIGNED if as_of is None else as_of,
        added_snapshot_id=snapshot_id,
        added_files_count=manifest.files,
        existing_files_count=0,
        deleted_files_count=0,
        added_rows_count=manifest.rows,
        existing_rows_count=0,
        deleted_rows_count=0,
        partitions=[PartitionFieldSummary(each.null, each.nan, each.lower, each.upper) for each in bounds],
        key_metadata=None,
    )


def codec_of(properties: Properties) -> AvroCompressionCodec:
    """Give Avro's name of the compression of the table's manifests and manifest lists.

    Raises:
        ConfigurationError: it is none that can be written.
    """
    name = properties.get("write.avro.compression-codec", "gzip")
    codec = _CODECS.get(name.lower())
    if codec is None:
        raise ConfigurationError(f"write.avro.compression-codec: {name!r} is not supported; set {' or '.join(_CODECS)}")
    return codec

"""Manifests as they are written: entries encoded once, summed up on the way, compressed block by block.

Entries are plain Avro records, as `manifests` reads them. Nothing here talks to a catalog.

Source: https://iceberg.apache.org/spec/#manifests
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import fastavro
from fastavro.schema import to_parsing_canonical_form
from fastavro.write import Writer
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
from pyiceberg.types import IcebergType, IntegerType, ListType, NestedField, PrimitiveType, StringType, StructType
from pyiceberg.utils.schema_conversion import AvroSchemaConversion

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.event_time import Entry, avro_name
from lakehouse_pipeline.iceberg.manifest_lists import FORMAT_VERSION
from lakehouse_pipeline.iceberg.manifests import ADDED, DELETED, EXISTING, schema_for
from lakehouse_pipeline.ledger.records import PartitionBounds, SealedManifest

UNASSIGNED = -1  # a sequence number that the manifest list's writer fills in with the commit's
_SUMMED = {"partition", "record_count"}  # of a data file
_DATA_FILE = "data_file"  # the last field of an entry

MANIFEST_BYTES = 8 * 1024**2  # Iceberg's default of commit.manifest.target-size-bytes
BLOCK_BYTES = 16_000  # of entries that are compressed together; fastavro's default

# Iceberg's names of write.avro.compression-codec, and Avro's own. (PyIceberg needs a C library more for snappy.)
_CODECS: dict[str, AvroCompressionCodec] = {"gzip": "deflate", "zstd": "zstandard", "uncompressed": "null"}


def partition_type(spec: PartitionSpec, schema: Schema) -> StructType:
    """Give the type of a spec's partition tuples; every field is optional, as Iceberg's spec has it."""
    fields = spec.partition_type(schema).fields
    return StructType(*(NestedField(f.field_id, f.name, f.field_type, required=False) for f in fields))


@dataclass(frozen=True)
class ManifestKind:
    """What all entries of a manifest have in common.

    Attributes:
        spec: the partition spec of every file in it.
        schema: has all columns of the spec.
        content: data or deletes.
    """

    spec: PartitionSpec
    schema: Schema
    content: ManifestContent = ManifestContent.DATA

    @classmethod
    def of(cls, metadata: TableMetadata, manifest: ManifestFile) -> "ManifestKind":
        """Give the kind of a manifest of a table."""
        spec_id = manifest.partition_spec_id
        return cls(metadata.specs()[spec_id], schema_for(metadata, spec_id), manifest.content)

    @cached_property
    def avro(self) -> Any:
        """The Avro schema of its entries."""
        deletes = self.content == ManifestContent.DELETES
        return _entry_schema(self.spec.model_dump_json(), self.schema.model_dump_json(), deletes=deletes)

    @cached_property
    def header(self) -> Mapping[str, str]:
        """What an Avro file of them says of itself."""
        return {
            "schema": self.schema.model_dump_json(),
            "schema-id": str(self.schema.schema_id),
            "partition-spec": f"[{','.join(field.model_dump_json() for field in self.spec.fields)}]",
            "partition-spec-id": str(self.spec.spec_id),
            "format-version": str(FORMAT_VERSION),
            "content": "deletes" if self.content == ManifestContent.DELETES else "data",
        }

    def encode(self, entry: Entry) -> bytes:
        """Turn an entry into bytes, as they travel from a task to the driver, and stand in a manifest."""
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, self.avro, entry)
        return buffer.getvalue()

    def encodes_as(self, written: Any) -> bool:
        """Tell whether entries of another Avro schema are the same bytes."""
        return bool(to_parsing_canonical_form(written) == self._canonical)

    @cached_property
    def _canonical(self) -> str:
        return to_parsing_canonical_form(self.avro)

    # Avro writes the fields of a record one after the other and nothing between them: a schema that ends earlier reads
    # where an entry begins, and leaves alone its statistics, which are most of it.

    def decode_summed(self, body: bytes) -> Entry:
        """Give what the manifest list sums up of an encoded entry."""
        return dict(fastavro.schemaless_reader(io.BytesIO(body), self._summed, None))  # type: ignore[arg-type]

    def marked(self, body: bytes, marks: Entry) -> bytes:
        """Give an encoded entry another status, snapshot and sequence numbers; its data file stays as it is."""
        encoded, head = io.BytesIO(body), io.BytesIO()
        fastavro.schemaless_reader(encoded, self._head, None)
        fastavro.schemaless_writer(head, self._head, marks)
        return head.getvalue() + encoded.read()

    @cached_property
    def _summed(self) -> Any:
        *head, data_file = self.avro["fields"]
        parts = data_file["type"]["fields"]
        names = [part["name"] for part in parts]
        told = parts[: max(map(names.index, _SUMMED)) + 1]
        return _part_of(self.avro, [*head, {**data_file, "type": {**data_file["type"], "fields": told}}])

    @cached_property
    def _head(self) -> Any:
        return _part_of(self.avro, [field for field in self.avro["fields"] if field["name"] != _DATA_FILE])


def _part_of(schema: Any, fields: Sequence[Any]) -> Any:
    parsed = {key: value for key, value in schema.items() if not key.startswith("__")}
    return fastavro.parse_schema({**parsed, "fields": fields})


@cache
def _entry_schema(spec_json: str, schema_json: str, *, deletes: bool) -> Any:
    spec, schema = PartitionSpec.model_validate_json(spec_json), Schema.model_validate_json(schema_json)
    data_file = data_file_with_partition(partition_type(spec, schema), FORMAT_VERSION)
    if deletes:
        data_file = _of_deletes(data_file)
    entry = manifest_entry_schema_with_data_file(FORMAT_VERSION, data_file)
    return fastavro.parse_schema(AvroSchemaConversion().iceberg_to_avro(entry, schema_name="manifest_entry"))


def _of_deletes(data_file: StructType) -> StructType:
    """Give the type of delete files as the spec has it; PyIceberg has long field ids and no `referenced_data_file`."""
    ids = NestedField(135, "equality_ids", ListType(136, IntegerType(), element_required=True), required=False)
    refers_to = NestedField(143, "referenced_data_file", StringType(), required=False)
    return StructType(*(ids if field.field_id == ids.field_id else field for field in data_file.fields), refers_to)


@dataclass
class _Block:
    """Encoded entries as fastavro's writer takes them; the names are fastavro's."""

    num_records: int = 0
    bytes_: io.BytesIO = field(default_factory=io.BytesIO)


class OpenManifest:
    """A manifest that is being written: in memory, compressed, until it is put."""

    def __init__(self, kind: ManifestKind, codec: AvroCompressionCodec, block_bytes: int = BLOCK_BYTES) -> None:
        """Begin with its header; entries go together into blocks of so many bytes, before they are compressed."""
        self._kind, self._body, self._sums = kind, io.BytesIO(), ManifestSums(kind.spec, kind.schema)
        self._writer = Writer(self._body, kind.avro, codec, metadata=dict(kind.header))
        self._block, self._block_bytes = _Block(), block_bytes

    @property
    def length(self) -> int:
        """Bytes so far; a block that is not full yet does not count."""
        return self._body.tell()

    def add(self, body: bytes) -> None:
        """Write an encoded entry behind the others."""
        self._sums.add(self._kind.decode_summed(body))
        self._block.num_records += 1
        self._block.bytes_.write(body)
        if self._block.bytes_.tell() >= self._block_bytes:
            self._end_block()

    def _end_block(self) -> None:
        if self._block.num_records:
            self._writer.write_block(self._block)
            self._block = _Block()

    def put(self, files: FileIO, path: str, snapshot_id: int | None) -> ManifestFile:
        """Write the file, and give its line of the manifest list.

        Args:
            files: where to.
            path: a name that nothing has yet.
            snapshot_id: the snapshot that it is written for; None while that is not known (a seal).

        Raises:
            FileExistsError: the name is taken.
        """
        self._end_block()
        with files.new_output(path).create(overwrite=False) as stream:
            stream.write(self._body.getvalue())
        return self._sums.line(path, self.length, self._kind.content, snapshot_id)


def manifest_bytes(properties: Properties) -> int:
    """Give the bytes that a manifest of a table is to have, about."""
    return int(properties.get("commit.manifest.target-size-bytes", MANIFEST_BYTES))


def header_bytes(kind: ManifestKind, codec: AvroCompressionCodec) -> int:
    """Give the length of a manifest of no entries: of wide tables it is not small."""
    return OpenManifest(kind, codec).length


def listed_anew(manifest: ManifestFile, snapshot_id: int) -> ManifestFile:
    """Give the line of a manifest of live entries for the list of another commit, which is the first to have it."""
    return ManifestFile.from_args(
        manifest_path=manifest.manifest_path,
        manifest_length=manifest.manifest_length,
        partition_spec_id=manifest.partition_spec_id,
        content=manifest.content,
        sequence_number=UNASSIGNED,
        min_sequence_number=manifest.min_sequence_number,
        added_snapshot_id=snapshot_id,
        added_files_count=manifest.added_files_count,
        existing_files_count=manifest.existing_files_count,
        deleted_files_count=manifest.deleted_files_count,
        added_rows_count=manifest.added_rows_count,
        existing_rows_count=manifest.existing_rows_count,
        deleted_rows_count=manifest.deleted_rows_count,
        partitions=manifest.partitions,
        key_metadata=manifest.key_metadata,
    )


class ManifestSums:
    """What the manifest list says of the entries of a manifest."""

    def __init__(self, spec: PartitionSpec, schema: Schema) -> None:
        """Begin without entries."""
        self._spec_id = spec.spec_id
        self._names = [avro_name(part) for part in spec.fields]
        self._partitions = [_statistics(field.field_type) for field in partition_type(spec, schema).fields]
        self._files, self._rows = [0, 0, 0], [0, 0, 0]
        self._least: int | None = None

    def add(self, entry: Entry) -> None:
        """Count an entry."""
        status, data_file = entry["status"], entry["data_file"]
        self._files[status] += 1
        self._rows[status] += data_file["record_count"]
        for values, name in zip(self._partitions, self._names, strict=True):
            values.update(data_file["partition"][name])
        number = entry.get("sequence_number")
        if status != DELETED and number is not None and (self._least is None or number < self._least):
            self._least = number

    def line(self, path: str, length: int, content: ManifestContent, snapshot_id: int | None) -> ManifestFile:
        """Give the manifest's line of the list."""
        return ManifestFile.from_args(
            manifest_path=path,
            manifest_length=length,
            partition_spec_id=self._spec_id,
            content=content,
            sequence_number=UNASSIGNED,
            min_sequence_number=UNASSIGNED if self._least is None else self._least,
            added_snapshot_id=snapshot_id,
            added_files_count=self._files[ADDED],
            existing_files_count=self._files[EXISTING],
            deleted_files_count=self._files[DELETED],
            added_rows_count=self._rows[ADDED],
            existing_rows_count=self._rows[EXISTING],
            deleted_rows_count=self._rows[DELETED],
            partitions=[values.to_summary() for values in self._partitions],
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

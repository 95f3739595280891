"""Manifests: the lists of data files that a snapshot is made of, read at size; `manifest_files` writes them.

Entries are plain Avro records (dicts with the spec's own field names) from end to end: reading, marking and writing
them again never builds an object per statistic. Nothing here talks to a catalog.

Source: https://iceberg.apache.org/spec/#manifests
"""

import hashlib
import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from heapq import nlargest
from typing import Any

import fastavro
from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    ManifestFile,
)
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata

from lakehouse_pipeline.errors import SafetyError
from lakehouse_pipeline.iceberg.event_time import Entry, EventTime, HourSpan
from lakehouse_pipeline.iceberg.manifest_lists import body_of, read_list
from lakehouse_pipeline.ledger.records import SealedManifest

EXISTING, ADDED, DELETED = 0, 1, 2  # ManifestEntryStatus

DATA, POSITION_DELETES, EQUALITY_DELETES = 0, 1, 2  # DataFileContent
DELETED_FILE_PATH = 2147483546  # the field of position deletes that names the data file

SHOWN = 5  # files that an error names
SCHEMAS_KEPT = 64  # of manifests: a table has as many as it has partition specs and schemas

_OF_FILES = {"file_path", "content", "file_size_in_bytes"}  # of a data file


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


def live_entries(
    metadata: TableMetadata,
    files: FileIO,
    snapshot_id: int | None,
    event_time: EventTime,
    hours: Collection[int] | None = None,
    *,
    newest: int | None = None,
) -> Iterator[tuple[Entry, HourSpan, int]]:
    """Give the entry of each file that a snapshot reaches, the hours of its rows, and its partition spec.

    (`Table.scan().plan_files()` raises at equality deletes: apache/iceberg-python#6568.)

    Args:
        metadata: of the table.
        files: the store.
        snapshot_id: whose; of None there are none.
        event_time: tells of which hours a file's rows can be.
        hours: only files that may have rows of these, as Iceberg counts hours; None is all.
        newest: only files of so many manifests, those that were added last; None is all.
    """
    listed = manifests_of(metadata, files, snapshot_id)
    if newest is not None:
        listed = nlargest(newest, listed, key=lambda manifest: manifest.sequence_number or 0)
    for manifest in listed:
        if hours is not None and not event_time.in_manifest(manifest).meets(hours):
            continue
        span_of = event_time.in_entries_of(manifest.partition_spec_id)
        for entry in read_entries(files, manifest):
            if entry["status"] == DELETED:
                continue
            span = span_of(entry)
            if hours is None or span.meets(hours):
                yield entry, span, manifest.partition_spec_id


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
    return list(read_list(files, snapshot.manifest_list))


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
        yield _inherited(entry, manifest)


def read_encoded(files: FileIO, manifest: ManifestFile) -> tuple[Any, Iterator[tuple[Entry, bytes]]]:
    """Give the Avro schema that a manifest was written in, and its entries as above, each beside its own bytes."""
    blocks = fastavro.block_reader(io.BytesIO(body_of(files, manifest.manifest_path)))
    return blocks.writer_schema, ((_inherited(entry, manifest), body) for entry, body in _encoded(blocks))


def _encoded(blocks: Iterable[Any]) -> Iterator[tuple[Entry, bytes]]:
    for block in blocks:
        body: io.BytesIO = block.bytes_  # as `write_block` takes it
        told, start = body.getbuffer(), 0
        for record in block:
            end = body.tell()
            yield dict(record), bytes(told[start:end])
            start = end


def _inherited(entry: Entry, manifest: ManifestFile) -> Entry:
    """Fill in, in its place, what an entry inherits."""
    if entry.get("snapshot_id") is None:
        entry["snapshot_id"] = manifest.added_snapshot_id
    inherits = entry["status"] == ADDED or manifest.sequence_number == 0
    for name in ("sequence_number", "file_sequence_number"):
        if entry.get(name) is None and inherits:
            entry[name] = manifest.sequence_number
    return entry


def read_sealed(files: FileIO, manifest: SealedManifest) -> Iterator[Entry]:
    """Read the entries of a manifest that no snapshot knows yet."""
    return _records(files, manifest.path)


def live_paths(files: FileIO, manifest: str) -> Iterator[tuple[str, int, int]]:
    """Give path, content and size of the data and delete files that a manifest has and has not marked DELETED.

    Nothing else of an entry is decoded, which takes half the time.
    """
    body = io.BytesIO(body_of(files, manifest))
    written = fastavro.reader(body).metadata["avro.schema"]
    body.seek(0)
    for entry in fastavro.reader(body, _schema_of_paths(written)):
        status, file = _status_and_file(entry)
        if status != DELETED:
            yield file["file_path"], file.get("content") or DATA, file["file_size_in_bytes"]


def _status_and_file(entry: Any) -> tuple[int, Entry]:
    return entry["status"], entry["data_file"]


@lru_cache(maxsize=SCHEMAS_KEPT)
def _schema_of_paths(written: str) -> Any:
    """Give the part of a manifest's schema that tells of files as such; names of its records are the writer's."""
    schema = json.loads(written)
    fields = {field["name"]: field for field in schema["fields"]}
    data_file = fields["data_file"]["type"]
    told = [field for field in data_file["fields"] if field["name"] in _OF_FILES]
    part = {**fields["data_file"], "type": {**data_file, "fields": told}}
    return fastavro.parse_schema({**schema, "fields": [fields["status"], part]})


def _records(files: FileIO, path: str) -> Iterator[Entry]:
    for record in fastavro.reader(io.BytesIO(body_of(files, path))):
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

"""Manifests: entries as they were written, sums that are right, and nothing that PyIceberg's reader sees otherwise."""

import io
import json
from datetime import date
from pathlib import Path
from typing import Any

import fastavro
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile, ManifestContent, ManifestFile
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import HourTransform, IdentityTransform
from pyiceberg.types import DateType, IntegerType, NestedField, StringType, TimestamptzType

from lakehouse_pipeline.errors import ConfigurationError, SafetyError
from lakehouse_pipeline.iceberg.data_files import WrittenFile
from lakehouse_pipeline.iceberg.manifest_files import ManifestKind, ManifestSums, codec_of
from lakehouse_pipeline.iceberg.manifests import (
    ADDED,
    DELETED,
    EXISTING,
    digest,
    live_paths,
    manifests_of,
    read_entries,
)
from lakehouse_pipeline.iceberg.sealed_hours import SealedHour
from lakehouse_pipeline.iceberg.seals import seal_files
from tests.iceberg.entries import decode_entry
from tests.iceberg.lake import ELEVEN, TEN, TWELVE, Lake, events, in_bucket

SCHEMA = Schema(
    NestedField(1, "at", TimestamptzType(), required=True),
    NestedField(2, "carrier", StringType(), required=False),
    NestedField(3, "day", DateType(), required=False),
    NestedField(4, "loaded", TimestamptzType(), required=False),
)
HOURLY = PartitionField(1, 1000, HourTransform(), "at_hour")
BY_CARRIER = PartitionField(2, 1001, IdentityTransform(), "carrier")
OTHER_HOUR = PartitionField(4, 1003, HourTransform(), "loaded_hour")
BY_DAY = PartitionField(3, 1002, IdentityTransform(), "the-day")


def header(lake: Lake, path: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Read an Avro file plainly: its metadata and its records."""
    reader = fastavro.reader(io.BytesIO(lake.now.files.get(path).body))
    return dict(reader.metadata), [dict(record) for record in reader]  # type: ignore[arg-type]  # records only


def manifests(lake: Lake) -> list[ManifestFile]:
    """List the manifests of the current snapshot, with PyIceberg's own reader."""
    table = lake.now.table
    snapshot = table.current_snapshot()
    assert snapshot is not None
    return snapshot.manifests(table.io)


def spread(lake: Lake, count: int) -> list[WrittenFile]:
    """Write so many files of one attempt, one per bucket."""
    return lake.write(TEN, [in_bucket(bucket, events(TEN, [bucket])) for bucket in range(count)], "A")


def plain(data_file: DataFile) -> dict[str, Any]:
    """Give a data file as PyIceberg read it, by the spec's names; what is unset is left out."""
    names = [
        *("content", "file_path", "file_format", "record_count", "file_size_in_bytes", "column_sizes"),
        *("value_counts", "null_value_counts", "nan_value_counts", "lower_bounds", "upper_bounds"),
        *("split_offsets", "sort_order_id"),
    ]
    found = {name: getattr(data_file, name) for name in names}
    found |= {"content": found["content"].value, "file_format": found["file_format"].value}
    return {**found, "partition": data_file.partition[0]}


def expected(lake: Lake, file: WrittenFile) -> dict[str, Any]:
    """Give the same of a written file."""
    table = lake.now.table
    found: dict[str, Any] = decode_entry(file.entry, table.spec(), table.schema())["data_file"]
    for name, value in found.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            found[name] = {item["key"]: item["value"] for item in value}
    found["nan_value_counts"] = found["nan_value_counts"] or {}
    found["partition"] = found["partition"]["at_hour"]
    return found


def test_entries_travel_unchanged(lake: Lake) -> None:
    """An entry decoded and encoded again is the same bytes, and says what the file is."""
    (file,) = lake.write(TEN, [in_bucket(3, events(TEN, [1, 2]))])
    table = lake.now.table
    entry = decode_entry(file.entry, table.spec(), table.schema())
    assert ManifestKind(table.spec(), table.schema()).encode(entry) == file.entry
    found = entry["data_file"]
    assert (entry["status"], found["file_path"], found["record_count"], found["file_size_in_bytes"]) == (
        ADDED,
        file.path,
        file.rows,
        file.size,
    )


def test_a_sealed_manifest_knows_no_snapshot(lake: Lake) -> None:
    """Sequence numbers and snapshot ids are null until a manifest list gives them, so that a commit may be repeated."""
    sealed = lake.seal(TEN, [1])
    metadata, records = header(lake, sealed.seal.manifests[0].path)
    assert [(r["status"], r["snapshot_id"], r["sequence_number"], r["file_sequence_number"]) for r in records] == [
        (ADDED, None, None, None)
    ]
    assert {name: metadata[name] for name in ("format-version", "content", "partition-spec-id", "schema-id")} == {
        "format-version": "2",
        "content": "data",
        "partition-spec-id": "0",
        "schema-id": "0",
    }


def test_the_header_is_pyicebergs(lake: Lake) -> None:
    """Schema and partition spec stand in our manifests as PyIceberg writes them into its own."""
    lake.append(events(TEN, [1]))
    sealed = lake.seal(ELEVEN, [2])
    theirs, ours = (header(lake, path)[0] for path in (manifests(lake)[0].manifest_path, sealed.seal.manifests[0].path))
    names = ("schema", "partition-spec", "partition-spec-id", "format-version", "content", "avro.codec")
    assert {name: ours[name] for name in names} == {name: theirs[name] for name in names}


def test_pyiceberg_reads_the_same_entries(lake: Lake) -> None:
    """Every field of every file comes through a seal and a commit, with what it inherits from the manifest list."""
    lake.put(ELEVEN, [9])
    table, written = lake.now, spread(lake, 3)
    seal = seal_files(table.table, "A", written, rows_read=3, rejected=0)
    replaced = lake.replace(SealedHour(TEN, "A", digest([]), seal))
    entries = [entry for entry in lake.entries() if entry.data_file.partition[0] == TEN.ordinal]
    assert [plain(entry.data_file) for entry in entries] == [
        {name: expected(lake, file)[name] for name in plain(entries[0].data_file)} for file in written
    ]
    assert {(e.snapshot_id, e.sequence_number, e.file_sequence_number) for e in entries} == {
        (replaced.snapshot_id, 2, 2)
    }


@pytest.mark.parametrize(("target", "most", "least"), [(1, 100, 100), (8000, 9, 2), (8 * 1024**2, 1, 1)])
def test_manifests_are_of_the_tables_size(catalog: Catalog, target: int, most: int, least: int) -> None:
    """`commit.manifest.target-size-bytes` splits an attempt's files over manifests; none is lost."""
    lake = Lake.create(catalog, properties={"commit.manifest.target-size-bytes": str(target)})
    written = spread(lake, 100)
    seal = seal_files(lake.now.table, "A", written, rows_read=100, rejected=1)
    *full, last = seal.manifests
    assert least <= len(seal.manifests) <= most
    assert all(target <= manifest.length < 1.3 * target for manifest in full if manifest.files > 1)
    assert [sum(m.files for m in (*full, last)), sum(m.rows for m in (*full, last))] == [100, 100]
    assert (seal.files, seal.rows, seal.bytes, seal.rejected) == (100, 100, sum(file.size for file in written), 1)
    assert seal.digest == digest(file.path for file in written)
    lake.replace(SealedHour(TEN, "A", digest([]), seal))
    assert lake.files(TEN) == {file.path for file in written}
    assert [manifest.manifest_length for manifest in manifests(lake)] == [m.length for m in seal.manifests]


def test_a_seal_is_written_once(lake: Lake) -> None:
    """Sealing an attempt again does not overwrite its manifests."""
    table, written = lake.now.table, spread(lake, 1)
    seal_files(table, "A", written, rows_read=None, rejected=0)
    with pytest.raises(FileExistsError):
        seal_files(table, "A", written, rows_read=None, rejected=0)


def test_an_empty_attempt_has_no_manifest(lake: Lake) -> None:
    """There is nothing to list, and Iceberg knows no empty manifests."""
    assert lake.seal(TEN, []).seal.manifests == ()


def test_manifest_lists_say_which_hours_are_where(lake: Lake) -> None:
    """Bounds of the hours in the manifest list are those of the entries: for seals, copies and PyIceberg's own."""
    lake.append(events(TEN, [1]), events(ELEVEN, [2]), events(TWELVE, [3]))
    lake.put(ELEVEN, [4])
    lake.put(TWELVE, [])
    io_, found = lake.now.table.io, []
    for manifest in manifests(lake):
        (summary,) = manifest.partitions or []
        entries = manifest.fetch_manifest_entry(io_, discard_deleted=False)
        hours = sorted(entry.data_file.partition[0] for entry in entries)  # PyIceberg groups in threads
        assert summary.lower_bound is not None
        assert summary.upper_bound is not None
        bounds = [from_bytes(IntegerType(), bound) for bound in (summary.lower_bound, summary.upper_bound)]
        assert (bounds, summary.contains_null) == ([min(hours), max(hours)], False)
        found.append(hours)
    assert sorted(found) == [[TEN.ordinal, TWELVE.ordinal], [ELEVEN.ordinal]]


def test_counts_of_a_copied_manifest_are_its_entries(lake: Lake) -> None:
    """Added, existing and deleted files and rows are counted apart, and the least sequence number is of live files."""
    lake.append(events(TEN, [1, 2]), events(ELEVEN, [3, 4, 5]))
    lake.put(TEN, [6])
    copy = next(manifest for manifest in manifests(lake) if manifest.deleted_files_count)
    assert (copy.added_files_count, copy.existing_files_count, copy.deleted_files_count) == (0, 1, 1)
    assert (copy.added_rows_count, copy.existing_rows_count, copy.deleted_rows_count) == (0, 3, 2)
    assert (copy.sequence_number, copy.min_sequence_number) == (2, 1)


def entry(status: int, *, rows: int = 1, sequence: int | None = None, **partition: Any) -> dict[str, Any]:
    """Make as much of an entry as sums are made of."""
    data_file = {"record_count": rows, "partition": partition}
    return {"status": status, "sequence_number": sequence, "data_file": data_file}


def summed(spec: PartitionSpec, *entries: dict[str, Any]) -> ManifestFile:
    """Sum entries up."""
    sums = ManifestSums(spec, SCHEMA)
    for each in entries:
        sums.add(each)
    return sums.line("x.avro", 7, ManifestContent.DELETES, 5)


def test_sums_of_specs_with_more_fields() -> None:
    """Files of an older spec with other fields beside the hour are summed up by each field's own type."""
    spec = PartitionSpec(HOURLY, BY_CARRIER, BY_DAY, spec_id=3)
    line = summed(
        spec,
        entry(EXISTING, sequence=4, at_hour=7, carrier="UA", the_x2Dday=date(2013, 1, 2)),
        entry(DELETED, sequence=2, at_hour=5, carrier=None, the_x2Dday=date(2013, 1, 1)),
    )
    assert line.partitions is not None
    assert [(part.contains_null, part.lower_bound, part.upper_bound) for part in line.partitions] == [
        (False, (5).to_bytes(4, "little"), (7).to_bytes(4, "little")),
        (True, b"UA", b"UA"),
        (False, (15706).to_bytes(4, "little"), (15707).to_bytes(4, "little")),
    ]
    assert (line.content, line.partition_spec_id, line.min_sequence_number) == (ManifestContent.DELETES, 3, 4)


def test_sums_without_live_entries_leave_the_sequence_number_open() -> None:
    """A manifest whose files are all DELETED or new gets its least sequence number from the commit."""
    spec = PartitionSpec(HOURLY)
    assert summed(spec, entry(DELETED, sequence=2, at_hour=1), entry(ADDED, at_hour=1)).min_sequence_number == -1


def test_live_files_are_the_hours_own(lake: Lake) -> None:
    """Of manifests with several hours, and files deleted since, only what the hour has now is listed."""
    lake.append(events(TEN, [1]), events(ELEVEN, [2, 3]))
    lake.put(TEN, [4])
    (file,) = lake.now.live(ELEVEN)
    assert (file.content, file.rows, file.hour) == (0, 2, ELEVEN.ordinal)
    assert lake.now.live(TWELVE) == []


def test_an_expired_snapshot_is_said(lake: Lake) -> None:
    """Asking for a snapshot that the metadata does not know is refused."""
    with pytest.raises(SafetyError, match="snapshot 5 is not in the table's metadata"):
        manifests_of(lake.now.table.metadata, lake.now.table.io, 5)


def test_reading_fills_in_what_is_inherited(lake: Lake) -> None:
    """ADDED entries get the manifest's sequence number and snapshot; our reading equals PyIceberg's."""
    lake.append(events(TEN, [1]), events(ELEVEN, [2]))
    lake.put(TEN, [3])
    ours = [
        (entry["status"], entry["snapshot_id"], entry["sequence_number"], entry["file_sequence_number"])
        for manifest in manifests(lake)
        for entry in read_entries(lake.now.table.io, manifest)
    ]
    theirs = [
        (entry.status.value, entry.snapshot_id, entry.sequence_number, entry.file_sequence_number)
        for entry in lake.entries()
    ]
    assert ours == theirs


def test_paths_are_read_without_the_rest_of_an_entry(lake: Lake) -> None:
    """Those of live files, as PyIceberg's reader names them; DELETED ones are left out."""
    lake.append(events(TEN, [1]), events(ELEVEN, [2]))
    lake.put(TEN, [3])
    found = [file for manifest in manifests(lake) for file in live_paths(lake.now.table.io, manifest.manifest_path)]
    entries = [entry for entry in lake.entries() if entry.status.value != DELETED]
    files = [entry.data_file for entry in entries]
    live = [(file.file_path, file.content.value, file.file_size_in_bytes) for file in files]
    assert len(live) < len(lake.entries())
    assert found == live


@pytest.mark.parametrize(
    ("codec", "avro"),
    [("gzip", "deflate"), ("zstd", "zstandard"), ("uncompressed", "null"), ("GZIP", "deflate")],
)
def test_the_codec_is_the_tables(catalog: Catalog, codec: str, avro: str) -> None:
    """Manifests and manifest lists are compressed as the table says, and are read again by us and by PyIceberg."""
    lake = Lake.create(catalog, properties={"write.avro.compression-codec": codec})
    lake.put(TEN, [1])
    lake.put(ELEVEN, [2])
    lake.put(TEN, [3])
    found = {header(lake, path)[0]["avro.codec"] for path in lake.stored("metadata")}
    assert (found, lake.rows()) == ({avro}, {TEN.key: [3], ELEVEN.key: [2]})


@pytest.mark.parametrize("codec", ["snappy", "lz4"])
def test_another_codec_is_refused(codec: str) -> None:
    """A codec that cannot be written names the property and what can be."""
    with pytest.raises(ConfigurationError, match=f"write.avro.compression-codec: '{codec}' is not .* set gzip or zstd"):
        codec_of({"write.avro.compression-codec": codec})


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        pytest.param(["a", "b"], ["b", "a"], True, id="order"),
        pytest.param(["a"], ["b"], False, id="other"),
        pytest.param([], [], True, id="empty"),
        pytest.param([], ["a"], False, id="empty and not"),
        pytest.param(["a", "b"], ["ab"], False, id="joined"),
    ],
)
def test_a_digest_stands_for_a_set_of_files(one: list[str], two: list[str], *, same: bool) -> None:
    """The same files, the same digest, in whatever order."""
    assert (digest(one) == digest(two)) is same


@pytest.mark.parametrize("spelled", ["by us", "by PyIceberg", "with a field more"])
def test_what_a_commit_marks_says_all_that_it_said(lake: Lake, spelled: str) -> None:
    """Entries that are marked DELETED or EXISTING keep their statistics, whatever Avro schema they were written in."""
    lake.append(events(TEN, [1, 2]), events(ELEVEN, [3]), events(TWELVE, [5]))
    (manifest,) = manifests(lake)
    if spelled == "by us":
        lake.put(TWELVE, [])
    if spelled == "with a field more":
        written_with_a_field_more(Path(manifest.manifest_path.removeprefix("file://")))
    before = {e.data_file.file_path: e for e in lake.entries() if e.status.value != DELETED}
    lake.put(TEN, [4])
    after = [entry for entry in lake.entries() if entry.data_file.file_path in before]
    assert [entry.status.value for entry in after] == [
        DELETED if entry.data_file.partition[0] == TEN.ordinal else EXISTING for entry in after
    ]
    for entry in after:
        earlier = before[entry.data_file.file_path]
        assert plain(entry.data_file) == plain(earlier.data_file)
        assert (entry.sequence_number, entry.file_sequence_number) == (1, 1)
        if entry.status.value == EXISTING:
            assert entry.snapshot_id == earlier.snapshot_id


def written_with_a_field_more(path: Path) -> None:
    """Write a manifest anew as version 3 of the format does, with a field that version 2 does not know."""
    reader = fastavro.reader(io.BytesIO(path.read_bytes()))
    schema: Any = json.loads(reader.metadata["avro.schema"])
    more = {"name": "first_row_id", "type": ["null", "long"], "default": None, "field-id": 142}
    schema["fields"][-1]["type"]["fields"].append(more)
    told = {key: text for key, text in reader.metadata.items() if not key.startswith("avro.")}
    with path.open("wb") as body:
        fastavro.writer(body, schema, list(reader), "deflate", metadata=told)

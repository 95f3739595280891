"""Partition fields beside the hour: rows go to their partition's files, and all files of an attempt are found."""

import math
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.conversions import from_bytes
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import HourTransform, IdentityTransform, VoidTransform, parse_transform
from pyiceberg.types import NestedField, PrimitiveType, StringType, StructType, TimestamptzType

from lakehouse_pipeline.backfill.close import close_landed, forget, remove_left
from lakehouse_pipeline.errors import DataError, SafetyError, TransientError
from lakehouse_pipeline.iceberg import data_files
from lakehouse_pipeline.iceberg.claims import Claim, claim, claims_in
from lakehouse_pipeline.iceberg.data_files import BUCKET, WrittenFile
from lakehouse_pipeline.iceberg.partitions import Partitions
from lakehouse_pipeline.iceberg.schemas import arrow_schema, arrow_schema_of, schema_of
from lakehouse_pipeline.iceberg.sealed_hours import SealedHour
from lakehouse_pipeline.ledger.records import Marker
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from tests.iceberg.entries import decode_entry
from tests.iceberg.lake import ELEVEN, EVENTS, MEGABYTE, TEN, Lake, columns, events, in_bucket, sealed_by
from tests.iceberg.test_hourly import attempt_of, commit

TYPES = {
    **EVENTS,
    "region": "string",
    "day": "date",
    "moment": "timestamp",
    "instant": "timestamptz",
    "money": "decimal(9,2)",
    "flag": "boolean",
    "ratio": "double",
    "raw": "binary",
}
VALUES: dict[str, list[Any]] = {
    "region": ["eu", "us", "", "null", "a/b=c d%2F+ü", None],
    "day": [date(1969, 12, 31), date(2013, 1, 1), None],
    "moment": [datetime(1960, 1, 1, 3), datetime(2013, 1, 1, 10, 30), None],  # noqa: DTZ001
    "instant": [datetime(1960, 1, 1, 3, tzinfo=UTC), datetime(2013, 1, 1, 10, 30, tzinfo=UTC), None],
    "money": [Decimal("-1.50"), Decimal("1234567.89"), None],
    "flag": [True, False, None],
    "ratio": [1.5, math.nan, None],
    "raw": [b"", b"\xff\0", None],
}
FIELDS = [
    "region",
    "bucket(4, id)",
    "truncate(1, region)",
    "bucket(3, money)",
    "truncate(100, money)",
    "day",
    "month(day)",
    "year(moment)",
    "day(instant)",
    "instant",
    "flag",
    "ratio",
    "raw",
]


def rows_of(count: int) -> pa.RecordBatch:
    """Make rows with all those values, in changing company."""
    rows = [
        {
            "at": TEN.start + timedelta(seconds=number),
            "id": number,
            "name": f"row {number}",
            **{
                name: values[number // (place + 1) % len(values)] for place, (name, values) in enumerate(VALUES.items())
            },
        }
        for number in range(count)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=arrow_schema_of(columns(TYPES)))


def partitions_of(lake: Lake) -> list[dict[str, Any]]:
    """Give the partition tuples of the table's entries, as PyIceberg's reader has them."""
    fields = [field.name for field in lake.now.table.spec().fields]
    return [{name: entry.data_file.partition[n] for n, name in enumerate(fields)} for entry in lake.entries()]


@pytest.mark.parametrize("field", FIELDS)
def test_rows_lie_in_the_files_of_their_partition(catalog: Catalog, field: str) -> None:
    """Every transform, computed for a row on its own, gives the tuple of the row's file; PyIceberg's reader agrees."""
    lake = Lake.create(catalog, TYPES, partition=[field])
    rows = rows_of(36)
    lake.replace(sealed_by(lake, TEN, [in_bucket(0, rows.slice(0, 20)), in_bucket(0, rows.slice(20))]))
    table = lake.now.table
    (other,) = [each for each in table.spec().fields if each.name != "at_hour"]
    kind = table.schema().find_field(other.source_id).field_type
    compute = other.transform.transform(kind)
    found: dict[str, set[str]] = {}
    for entry in lake.entries():
        content = pq.read_table(pa.BufferReader(lake.now.files.get(entry.data_file.file_path).body))
        source = content[table.schema().find_column_name(other.source_id)].to_pylist()
        assert entry.data_file.partition[0] == TEN.ordinal
        found.setdefault(repr(entry.data_file.partition[1]), set()).update(map(repr, map(_plain(compute), source)))
    assert all(len(computed) == 1 for computed in found.values())
    assert len(found) > 1
    assert sorted(lake.rows()[TEN.key]) == list(range(36))


def _plain(compute: Any) -> Any:
    return lambda value: None if value is None else compute(value)


def test_several_fields_make_one_tuple(catalog: Catalog) -> None:
    """Each combination has its own file; the manifest's line sums every field up, the hour first."""
    lake = Lake.create(catalog, TYPES, partition=["region", "bucket(2, id)", "day"])
    lake.replace(sealed_by(lake, TEN, [in_bucket(0, rows_of(36))]))
    tuples = [tuple(each.values()) for each in partitions_of(lake)]
    assert len(set(tuples)) == len(tuples) > 6
    snapshot = lake.now.table.current_snapshot()
    assert snapshot
    (manifest,) = snapshot.manifests(lake.now.table.io)
    types = [field.field_type for field in lake.now.table.spec().partition_type(lake.now.table.schema()).fields]
    bounds = [
        (each.contains_null, from_bytes(kind, each.lower_bound or b""), from_bytes(kind, each.upper_bound or b""))
        for each, kind in zip(manifest.partitions or (), types, strict=True)
        if isinstance(kind, PrimitiveType)
    ]
    assert bounds == [
        (False, TEN.ordinal, TEN.ordinal),
        (True, "", "us"),
        (False, 0, 1),
        (True, -1, 15706),
    ]


def test_nan_is_one_partition(catalog: Catalog) -> None:
    """NaN, unlike itself, is in one file nevertheless, batch after batch, and the summary says so."""
    lake = Lake.create(catalog, TYPES, partition=["ratio"])
    lake.replace(sealed_by(lake, TEN, [in_bucket(0, rows_of(36)), in_bucket(0, rows_of(36))]))
    assert sorted(map(repr, (each["ratio"] for each in partitions_of(lake)))) == ["1.5", "None", "nan"]
    snapshot = lake.now.table.current_snapshot()
    assert snapshot
    _, summary = snapshot.manifests(lake.now.table.io)[0].partitions or []
    assert (summary.contains_nan, summary.contains_null) == (True, True)


def test_an_hour_is_replaced_whatever_its_other_fields(catalog: Catalog) -> None:
    """All files of the hour go, of partitions that the new rows do not have too; the neighbour stays."""
    lake = Lake.create(catalog, partition=["bucket(8, id)"])
    lake.put(TEN, range(20))
    lake.put(ELEVEN, [50])
    assert len(lake.files(TEN)) == 8
    lake.put(TEN, [3])
    assert lake.rows() == {TEN.key: [3], ELEVEN.key: [50]}
    lake.put(TEN, [])
    assert lake.rows() == {ELEVEN.key: [50]}


@pytest.mark.parametrize(
    ("properties", "shape"),
    [
        ({}, "data/{entropy}/at_hour=2013-01-01-10/region=a%2Fb%3Dc+d%252F%2B%C3%BC/{name}"),
        (
            {"write.object-storage.enabled": "false"},
            "data/at_hour=2013-01-01-10/region=a%2Fb%3Dc+d%252F%2B%C3%BC/{name}",
        ),
    ],
    ids=["entropy", "plain"],
)
def test_keys_have_the_whole_partition_path(any_catalog: Catalog, properties: dict[str, str], shape: str) -> None:
    """The path is as Iceberg spells it, whatever a value holds, on local disk and on S3; and the file is read again."""
    if any_catalog.properties["type"] == "rest":
        properties = {**properties, "write.data.path": f"s3://plain/{uuid.uuid4().hex}/data"}  # a plain bucket takes it
    lake = Lake.create(any_catalog, TYPES, partition=["region"], properties=properties)
    lake.replace(sealed_by(lake, TEN, [in_bucket(0, rows_of(12))]))
    (path,) = [path for path in lake.files(TEN) if "region=a" in path]
    head, _, tail = shape.format(entropy="|", name=path.rpartition("/")[2]).partition("|")
    root = properties.get("write.data.path", f"{lake.now.location}/data").removesuffix("/data")
    assert path.startswith(f"{root}/{head}")
    assert path.endswith(tail)
    assert lake.rows()[TEN.key] == list(range(12))


def test_names_are_counted_by_bucket_where_keys_have_no_path(catalog: Catalog) -> None:
    """Without paths in keys, files of different partitions must not share a name."""
    properties = {"write.object-storage.partitioned-paths": "false"}
    lake = Lake.create(catalog, partition=["bucket(4, id)"], properties=properties)
    written = lake.write(TEN, [in_bucket(7, events(TEN, range(40)))], "A")
    assert sorted(file.path.rpartition("-A-")[2] for file in written) == [f"{n}-0.parquet" for n in range(4)]
    assert {url.rpartition("/")[2] for url in claims(lake)} == {"00007-2-1.json", "00007-4-1.json"}


# ---------------------------------------------------------------------------------------------------------------------
# Bounded memory and files
# ---------------------------------------------------------------------------------------------------------------------


def random_rows(count: int, each: int) -> Iterator[pa.RecordBatch]:
    """Make batches whose names do not compress."""
    random = np.random.default_rng(3)
    for number in range(count // each):
        rows = events(TEN, range(number * each, (number + 1) * each))
        yield in_bucket(0, rows.set_column(2, "name", pa.array([random.bytes(50).hex() for _ in range(each)])))


def test_all_partitions_together_are_buffered_within_a_row_group(catalog: Catalog) -> None:
    """With 16 files open, a task holds no more rows than with one."""
    properties = {"write.parquet.row-group-size-bytes": str(MEGABYTE)}
    lake = Lake.create(catalog, partition=["bucket(16, id)"], properties=properties)
    held = []

    def watched() -> Iterator[pa.RecordBatch]:
        before = pa.total_allocated_bytes()
        for batch in random_rows(240_000, 1000):
            held.append(pa.total_allocated_bytes() - before)
            yield batch

    written = lake.write(TEN, watched(), file_size=20 * MEGABYTE)
    assert (len(written), sum(file.rows for file in written)) == (16, 240_000)
    assert sum(file.size for file in written) > 12 * MEGABYTE
    assert max(held) < 7 * MEGABYTE


def named(names: list[str]) -> pa.RecordBatch:
    """Make rows of one second with these names."""
    rows = events(TEN, range(len(names)))
    return in_bucket(0, rows.set_column(2, "name", pa.array(names)))


def test_sorted_partitions_may_be_any_number(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a partition's rows come together, its file is finished when too many are open."""
    monkeypatch.setattr(data_files, "MAX_OPEN", 3)
    lake = Lake.create(catalog, partition=["name"])
    lake.replace(
        sealed_by(
            lake, TEN, [named([f"{number // 2:02d}" for number in range(place, place + 9)]) for place in (0, 9, 18)]
        )
    )
    assert [each["name"] for each in partitions_of(lake)] == [f"{number:02d}" for number in range(14)]


def test_too_many_mixed_partitions_are_refused(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than a flood of tiny files: the fields are named, with the way out."""
    monkeypatch.setattr(data_files, "MAX_OPEN", 3)
    lake = Lake.create(catalog, partition=["name"])
    with pytest.raises(DataError, match=r"more than 3 partitions \(at_hour, name\) .*/name=a\. Sort the table by"):
        lake.write(TEN, [named(["a", "b", "c", "d"]), named(["a"])])


@pytest.mark.parametrize(
    ("partition", "way_out"),
    [
        pytest.param(["bucket(16, id)"], r"\(id_bucket is bucket\[16\]\), .*: write a smaller n$", id="hash"),
        pytest.param(
            ["name", "bucket(16, id)"], "write a smaller n, and sort the table by the columns of name$", id="both"
        ),
    ],
)
def test_no_sort_brings_the_rows_of_a_bucket_together(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, partition: list[str], way_out: str
) -> None:
    """So the error does not advise it: fewer buckets are the way out."""
    monkeypatch.setattr(data_files, "MAX_OPEN", 3)
    lake = Lake.create(catalog, partition=partition)
    with pytest.raises(DataError, match="no sort brings their rows together") as caught:
        lake.write(TEN, [named(["a"] * 32), named(["a"] * 32)])
    assert "Sort the table by the columns that it is partitioned by" not in str(caught.value)
    assert re.search(way_out, str(caught.value))


def test_files_of_a_sorted_table_are_checked_one_by_one(catalog: Catalog) -> None:
    """Each partition's rows have to be in order, and only they."""
    lake = Lake.create(catalog, sort=["id"], partition=["name"])
    rows = named(["a", "b", "a", "b"])
    rows = rows.set_column(1, rows.schema.field("id"), pa.array([5, 1, 6, 2]))
    assert len(lake.write(TEN, [rows])) == 2
    with pytest.raises(SafetyError, match="out of order"):
        lake.write(TEN, [rows, rows])


# ---------------------------------------------------------------------------------------------------------------------
# Claims
# ---------------------------------------------------------------------------------------------------------------------


def claims(lake: Lake) -> set[str]:
    """Name the claims that lie in the ledger's folder."""
    return {url for url in lake.stored("_lakehouse") if "/claims/" in url}


def entries_of(lake: Lake, written: list[WrittenFile]) -> list[dict[str, Any]]:
    """Decode the files' entries."""
    table = lake.now.table
    return [decode_entry(file.entry, table.spec(), table.schema()) for file in written]


LAYOUTS = {
    "entropy": {},
    "plain": {"write.object-storage.enabled": "false"},
    "no paths": {"write.object-storage.partitioned-paths": "false"},
}


@pytest.mark.parametrize("named", [True, False], ids=["of this version", "of an earlier one"])
@pytest.mark.parametrize("properties", LAYOUTS.values(), ids=LAYOUTS)
def test_a_failed_attempts_files_are_removed_by_name(
    catalog: Catalog, properties: dict[str, str], *, named: bool
) -> None:
    """Files of every bucket, partition, number and try go, with the claims that say where; others stay."""
    lake = Lake.create(catalog, TYPES, partition=["region", "bucket(3, id)"], properties=properties)
    lake.replace(sealed_by(lake, ELEVEN, []))
    kept = sealed_by(lake, TEN, [in_bucket(0, rows_of(30))])
    lake.replace(kept)
    lake.now.ledger.mark(Marker(hour=TEN.key, attempt=attempt_of(kept)))  # else its claims are nobody's
    before = lake.stored("data") | lake.stored("metadata") | lake.stored("_lakehouse")
    sealed = sealed_by(lake, TEN, [in_bucket(bucket, rows_of(30)) for bucket in (0, 2)])
    lake.write(TEN, [in_bucket(2, rows_of(7))], sealed.attempt)  # a second try of the task, with other rows
    attempt = attempt_of(sealed).model_copy(update={"buckets": 3, "named": named})
    marker = Marker(hour=TEN.key, attempt=attempt, closed=True)
    assert len(lake.stored("data") - before) > 30
    assert (remove_left(lake.now, marker) > 30) != named  # of names nobody asks what there is
    forget(lake.now, marker)
    assert lake.stored("data") | lake.stored("metadata") | lake.stored("_lakehouse") == before


def test_files_are_claimed_before_they_are_put(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever a task dies, what it put is at a path that it claimed; one claim tells of many paths."""
    lake = Lake.create(catalog, partition=["bucket(4, id)"])
    target = lake.now.target(TEN, "A", MEGABYTE)
    put, seen = LakehouseFileIO.put, []

    def watched(self: LakehouseFileIO, url: str, *given: Any, **named: Any) -> Any:
        if url.endswith(".parquet"):
            (said,) = claims_in(self, target.claims)
            assert said.bucket == 7
            assert any(f"/{path}/" in url for path in said.paths)
            seen.append(url)
        return put(self, url, *given, **named)

    monkeypatch.setattr(LakehouseFileIO, "put", watched)
    lake.write(TEN, [in_bucket(7, events(TEN, range(40)))], "A")
    assert (len(seen), len(claims(lake))) == (4, 1)


def test_nothing_is_put_where_no_claim_could_be(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not take the claim gets no file."""
    lake = Lake.create(catalog, partition=["bucket(4, id)"])
    put = LakehouseFileIO.put

    def refuse(self: LakehouseFileIO, url: str, *given: Any, **named: Any) -> Any:
        if "/claims/" in url:
            raise TransientError(url)
        return put(self, url, *given, **named)

    monkeypatch.setattr(LakehouseFileIO, "put", refuse)
    with pytest.raises(TransientError):
        lake.write(TEN, [in_bucket(0, events(TEN, [1]))], "A")
    assert lake.stored("data") == set()


def test_a_claim_may_be_made_twice(lake: Lake) -> None:
    """Another try of the task claims the same, and more; all is read back, be it told by name or by content."""
    files, folder = lake.now.files, f"{lake.now.location}/claims"
    claims = [
        Claim(bucket=3, paths=("a", "b")),
        Claim(bucket=3, paths=("a",), files=4, tries=2),
        Claim(bucket=3, files=4, tries=2),
        Claim(bucket=123456, files=2),
        Claim(bucket=4, again=True),
        Claim(fence="f"),
        Claim(replaces=("x",)),
    ]
    for said in (*claims, *claims):
        claim(files, folder, said)
    assert sorted(claims_in(files, folder), key=claims.index) == claims


@pytest.mark.parametrize("partition", [(), ("bucket(4, id)",)], ids=["hour alone", "more"])
def test_claims_end_with_the_attempt(catalog: Catalog, partition: tuple[str, ...]) -> None:
    """Once the files are the table's nobody needs to find them by name; tables by the hour alone never claim."""
    lake = Lake.create(catalog, partition=partition)
    sealed = lake.seal(TEN, range(20))
    assert len(claims(lake)) == len(partition)
    commit(lake, attempt_of(sealed))
    close_landed(lake.now, TEN, attempt_of(sealed), sealed.seal, epoch=0)
    assert claims(lake) == set()
    assert lake.rows() == {TEN.key: list(range(20))}


def test_an_attempt_of_an_earlier_spec_is_removed(catalog: Catalog) -> None:
    """Partition fields may come between an attempt and its close, be it the first one beside the hour."""
    lake = Lake.create(catalog)
    first = lake.seal(TEN, range(9))
    with lake.now.table.update_spec() as update:
        update.add_field("id", parse_transform("bucket[3]"), "id_bucket")
    second = lake.seal(TEN, range(9))
    with lake.now.table.update_spec() as update:
        update.add_field("name", IdentityTransform(), "name")
    for sealed in (first, second):
        lake.now.ledger.mark(Marker(hour=TEN.key, attempt=attempt_of(sealed)))
    for sealed in (first, second):
        marker = Marker(hour=TEN.key, attempt=attempt_of(sealed), closed=True)
        remove_left(lake.now, marker)
        forget(lake.now, marker)
    assert (lake.stored("data"), claims(lake)) == (set(), set())


def test_an_attempt_of_an_earlier_spec_is_committed(catalog: Catalog) -> None:
    """A sealed attempt keeps its spec: its manifests' lines sum up the fields of that."""
    lake = Lake.create(catalog, partition=["bucket(2, id)"])
    sealed = lake.seal(TEN, range(9))
    with lake.now.table.update_spec() as update:
        update.add_field("name", IdentityTransform(), "name")
    lake.put(ELEVEN, [5])
    lake.replace(SealedHour(TEN, sealed.attempt, sealed.replaces, sealed.seal))
    lake.put(ELEVEN, [6, 7])
    assert lake.rows() == {TEN.key: list(range(9)), ELEVEN.key: [6, 7]}
    scan = lake.now.table.scan(row_filter="id == 3 and at < '2013-01-01T11:00:00+00:00'")
    assert scan.to_arrow()["id"].to_pylist() == [3]


# ---------------------------------------------------------------------------------------------------------------------
# Odd specs
# ---------------------------------------------------------------------------------------------------------------------

NESTED = Schema(
    NestedField(4, "place", StructType(NestedField(9, "city", StringType(), required=False)), required=False),
    NestedField(2, "at", TimestamptzType(), required=True),
)


def test_a_field_within_a_struct_is_partitioned_by() -> None:
    """The column of a partition field may be within a struct; where that is null, so is the field."""
    spec = PartitionSpec(
        PartitionField(9, 1000, IdentityTransform(), "city"), PartitionField(2, 1001, HourTransform(), "h")
    )
    partitions = Partitions(spec, NESTED, 2, TEN.ordinal)
    cities = [{"city": "Köln"}, None, {"city": None}, {"city": "Köln"}]
    rows = pa.RecordBatch.from_pylist(
        [{"place": each, "at": TEN.start} for each in cities], schema=arrow_schema(NESTED)
    )
    parts = list(partitions.split(pa.array([0] * 4, pa.int32()), rows))
    assert [(values, part.num_rows) for _, values, part in parts] == [(("Köln",), 2), ((None,), 2)]
    assert partitions.path(("Köln",)) == "city=K%C3%B6ln/h=2013-01-01-10"
    assert partitions.record(("Köln",)) == {"city": "Köln", "h": TEN.ordinal}


def test_a_void_field_is_null() -> None:
    """Fields that were dropped while a table was of version 1 stay as void."""
    schema = schema_of(columns(EVENTS))
    spec = PartitionSpec(
        PartitionField(2, 1000, VoidTransform(), "gone"), PartitionField(1, 1001, HourTransform(), "h")
    )
    partitions = Partitions(spec, schema, 1, TEN.ordinal)
    ((_, values, _),) = partitions.split(pa.array([0, 0], pa.int32()), events(TEN, [1, 2]))
    assert (values, partitions.path(values)) == ((None,), "gone=null/h=2013-01-01-10")


def test_rows_keep_their_order_and_buckets(catalog: Catalog) -> None:
    """Buckets and partitions may come mixed in every batch; each file's rows are in the order that they came in."""
    lake = Lake.create(catalog, partition=["name"])
    rows = named([f"{number % 3}" for number in range(30)]).drop_columns([BUCKET])
    rows = rows.append_column(BUCKET, pa.array([number % 2 for number in range(30)], pa.int32()))
    written = lake.write(TEN, [rows.slice(0, 11), rows.slice(11)])
    assert len(written) == 6
    for file in written:
        ids = pq.read_table(pa.BufferReader(lake.now.files.get(file.path).body))["id"].to_pylist()
        assert ids == sorted(ids)
        assert len({(number % 2, number % 3) for number in ids}) == 1
    assert sum(entry["data_file"]["record_count"] for entry in entries_of(lake, written)) == 30

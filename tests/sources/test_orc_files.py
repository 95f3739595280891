"""ORC: its rows are those of Parquet, in its own types, by stripes; broken files are named in the same words."""

import io as streams
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pyarrow import orc

from lakehouse_pipeline.errors import DataError, TransientError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources import orc_files
from lakehouse_pipeline.sources.listing import SourceObject
from lakehouse_pipeline.sources.readers import read_split
from lakehouse_pipeline.sources.splits import Split, plan_splits
from lakehouse_pipeline.sources.stored_rows import stored_schema

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Read = Callable[..., Any]
Land = Callable[[str, bytes], SourceObject]

UTC_US = pa.timestamp("us", "UTC")
TEN = datetime(2013, 1, 1, 10, tzinfo=UTC)


def written(table: pa.Table, **options: Any) -> bytes:
    """Write an ORC file."""
    body = streams.BytesIO()
    orc.write_table(table, body, **options)
    return body.getvalue()


MANY = pa.table({"n": list(range(200_000)), "s": [f"s{n * 7919 % 100_003}" for n in range(200_000)]})
COLUMNS = {
    "boolean": (pa.array([True, None]), pa.bool_(), True),
    "tiny": (pa.array([-1, None], pa.int8()), pa.int32(), -1),
    "long to int": (pa.array([7, None]), pa.int32(), 7),
    "float": (pa.array([0.5, None], pa.float32()), pa.float64(), 0.5),
    "decimal": (pa.array([Decimal("1.50"), None]), pa.decimal128(9, 2), Decimal("1.50")),
    "date": (pa.array([date(1500, 1, 1), None]), pa.date32(), date(1500, 1, 1)),
    "instant": (pa.array([TEN, None], UTC_US), UTC_US, TEN),
    "local": (pa.array([TEN.replace(tzinfo=None), None]), UTC_US, TEN),
    "string": (pa.array(["ü", None]), pa.string(), "ü"),
    "binary": (pa.array([b"\xff", None]), pa.binary(), b"\xff"),
    "list": (pa.array([[1, None], None]), pa.list_(pa.int64()), [1, None]),
    "struct": (pa.array([{"a": 1, "b": "x"}, None]), pa.struct([("b", pa.string())]), {"b": "x"}),
    "map": (
        pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int32())),
        pa.map_(pa.string(), pa.int64()),
        [("a", 1)],
    ),
}


@pytest.mark.parametrize(("values", "kind", "expected"), COLUMNS.values(), ids=COLUMNS)
def test_types_arrive(read: Read, values: pa.Array, kind: pa.DataType, expected: object) -> None:
    """A column of each type gives its values, and its nulls."""
    found = read("a.orc", written(pa.table({"x": values})), pa.schema([("x", kind)]))
    assert found.rows == [{"x": expected}, {"x": None}]
    assert found.faults == []


@pytest.mark.parametrize("compression", ["uncompressed", "zlib", "snappy", "lz4", "zstd"])
def test_stripes_have_positions(read: Read, compression: str) -> None:
    """Whatever the compression, rows are numbered through stripes and splits."""
    body = written(MANY, stripe_size=50_000, compression=compression)
    schema = pa.schema([("s", pa.string()), ("n", pa.int64())])
    found = read("a.orc", body, schema, provenance=True, target_bytes=len(body) // 3)
    assert found.table["n"].to_pylist() == list(range(200_000))
    assert found.table["_position"].to_pylist() == [n + 1 for n in range(200_000)]


def test_the_tail_gives_the_stripes(io: LakehouseFileIO, land: Land) -> None:
    """Rows and bytes of stripes, which pyarrow does not tell, are those of the file."""
    source = land("a.orc", written(MANY, stripe_size=50_000))
    with orc_files.opened(io, source.url, source.etag, source.size) as file:
        given = [sum(batch.num_rows for batch in file.batches(part, ["n"])) for part in range(len(file.rows))]
        assert len(given) > 1
        assert file.rows == tuple(given)
        assert 0.9 * source.size < sum(file.sizes) < source.size


def test_bad_values_have_their_place(read: Read) -> None:
    """A value that does not fit is a bad row under its number in the file."""
    numbers = pa.table({"n": [2**40 if n == 150_000 else n for n in range(200_000)]})
    found = read("a.orc", written(numbers, stripe_size=50_000), pa.schema([("n", pa.int32())]))
    assert found.faults == [(150_001, "n", "1099511627776 does not fit an int")]
    assert found.table.num_rows == 199_999


def test_missing_columns_are_named(read: Read) -> None:
    """The words are those of Parquet."""
    with pytest.raises(DataError, match=r'a\.orc has no column "x" \(it has n, s\)'):
        read("a.orc", written(MANY.slice(0, 1)), pa.schema([("x", pa.int64())]))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"ORC", id="magic only"),
        pytest.param(b"n,s\n1,a\n", id="csv"),
        pytest.param(written(MANY)[:-1], id="truncated by a byte"),
        pytest.param(written(MANY)[:1000], id="truncated"),
        pytest.param(b"ORC" + b"\xff" * 2000 + written(MANY)[2003:], id="damaged stripe"),
    ],
)
def test_files_that_are_no_orc_are_named(read: Read, body: bytes) -> None:
    """A broken file is one error that names it."""
    with pytest.raises(DataError, match=r"a\.orc is no ORC, truncated or damaged \(.*\): land it again"):
        read("a.orc", body, pa.schema([("n", pa.int64()), ("s", pa.string())]))


def test_times_that_pyarrow_cannot_give_are_named(read: Read) -> None:
    """Pyarrow reads ORC's timestamps as nanoseconds: those of other centuries are an error, with the way out."""
    body = written(pa.table({"at": pa.array([datetime(1500, 1, 1, tzinfo=UTC)], UTC_US)}))
    with pytest.raises(DataError, match=r"a\.orc has a timestamp that .*land it as Parquet, or within the years 1678"):
        read("a.orc", body, pa.schema([("at", UTC_US)]))


def test_a_gone_file_is_transient(io: LakehouseFileIO) -> None:
    """An object that was removed after it was listed is for the next attempt."""
    split = Split("file:///nowhere/a.orc", "e", 10, "orc", None, 0, 10, None)
    with pytest.raises(TransientError, match="was listed but is gone"):
        list(read_split(io, split, pa.schema([("x", pa.int64())]), provenance=False, on_bad=print))


def test_a_changed_file_is_transient(io: LakehouseFileIO, land: Land) -> None:
    """What was listed is read, or nothing."""
    (split,) = plan_splits(io, [land("a.orc", written(MANY))], "orc", target_bytes=1 << 40)
    land("a.orc", written(MANY.slice(1)))
    with pytest.raises(TransientError, match=r"a\.orc"):
        list(read_split(io, split, pa.schema([("n", pa.int64())]), provenance=False, on_bad=print))


def test_the_schema_is_in_our_types(io: LakehouseFileIO, land: Land) -> None:
    """Columns of every kind become those that the readers know."""
    body = written(pa.table({name: values for name, (values, _, _) in COLUMNS.items()}))
    found = stored_schema(io, land("a.orc", body), "orc")
    assert [str(field.type) for field in found] == [
        *("bool", "int32", "int64", "float", "decimal128(3, 2)", "date32[day]"),
        *("timestamp[us, tz=UTC]", "timestamp[us]", "string", "binary"),
        *("list<item: int64>", "struct<a: int64, b: string>", "map<string, int32>"),
    ]


def test_spark_writes_what_we_read(read: Read, spark: "SparkSession", tmp_path: Path) -> None:
    """Files of another writer, with its own tail and its own time zones, give the same rows."""
    query = "SELECT id, TIMESTAMP '2013-01-01 10:00:00Z' AS at, "
    nested = "array(named_struct('a', id)) AS l, map('k', CAST(id AS STRING)) AS m FROM range(3)"
    spark.sql(query + nested).coalesce(1).write.orc(f"{tmp_path}/spark")
    (file,) = (tmp_path / "spark").glob("*.orc")
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("at", UTC_US),
            ("l", pa.list_(pa.struct([("a", pa.int64())]))),
            ("m", pa.map_(pa.string(), pa.string())),
        ]
    )
    found = read("a.orc", file.read_bytes(), schema)
    assert found.rows == [{"id": n, "at": TEN, "l": [{"a": n}], "m": [("k", str(n))]} for n in range(3)]

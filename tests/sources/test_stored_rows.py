"""Parquet, and what ORC shares: what casts without loss, what bad values are called, which files are refused whole."""

import io as streams
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse_pipeline.errors import DataError, TransientError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources.listing import SourceObject
from lakehouse_pipeline.sources.readers import read_split
from lakehouse_pipeline.sources.splits import Split, plan_splits
from lakehouse_pipeline.sources.stored_rows import stored_schema

Read = Callable[..., Any]
Land = Callable[[str, bytes], SourceObject]

UTC_US = pa.timestamp("us", "UTC")
SECOND = 10**9
TEN = datetime(2013, 1, 1, 10, tzinfo=UTC)
TEN_NS = int(TEN.timestamp()) * SECOND
BERLIN = pa.timestamp("ms", "Europe/Berlin")


def parquet(table: pa.Table, **options: Any) -> bytes:
    """Write a Parquet file."""
    body = streams.BytesIO()
    pq.write_table(table, body, **options)
    return body.getvalue()


def column(values: list[Any], kind: pa.DataType) -> bytes:
    """Write a file of one column `x`."""
    return parquet(pa.table({"x": pa.array(values, kind)}))


GOOD = [
    ("bool", pa.array([True]), pa.bool_(), True),
    ("int8", pa.array([-1], pa.int8()), pa.int32(), -1),
    ("uint64", pa.array([7], pa.uint64()), pa.int64(), 7),
    ("long to int", pa.array([7]), pa.int32(), 7),
    ("long to double", pa.array([2**53]), pa.float64(), float(2**53)),
    ("long to decimal", pa.array([7]), pa.decimal128(3, 1), Decimal("7.0")),
    ("double to long", pa.array([7.0]), pa.int64(), 7),
    ("double to float", pa.array([0.1]), pa.float32(), 0.10000000149011612),
    ("half", pa.array([0.5], pa.float16()), pa.float64(), 0.5),
    ("infinity", pa.array([float("inf")]), pa.float32(), float("inf")),
    ("decimal to decimal", pa.array([Decimal("1.50")]), pa.decimal128(9, 1), Decimal("1.5")),
    ("decimal to long", pa.array([Decimal("7.00")]), pa.int64(), 7),
    ("decimal to double", pa.array([Decimal("1.50")]), pa.float64(), 1.5),
    ("date", pa.array([date(2013, 1, 1)]), pa.date32(), date(2013, 1, 1)),
    ("date to timestamp", pa.array([date(2013, 1, 1)]), UTC_US, datetime(2013, 1, 1, tzinfo=UTC)),
    ("nanoseconds", pa.array([TEN_NS], pa.timestamp("ns")), pa.timestamp("us"), TEN.replace(tzinfo=None)),
    ("seconds, no zone", pa.array([TEN_NS // SECOND], pa.timestamp("s")), UTC_US, TEN),
    ("other zone", pa.array([TEN_NS // 10**6], BERLIN), UTC_US, TEN),
    ("other zone, none", pa.array([TEN_NS // 10**6], BERLIN), pa.timestamp("us"), TEN.replace(tzinfo=None)),
    ("dictionary", pa.array(["a"]).dictionary_encode(), pa.string(), "a"),
    ("large string", pa.array(["ü"], pa.large_string()), pa.string(), "ü"),
    ("string view", pa.array(["ü"], pa.string_view()), pa.string(), "ü"),
    ("binary to string", pa.array(["ü".encode()]), pa.string(), "ü"),
    ("string to binary", pa.array(["ü"]), pa.binary(), "ü".encode()),
    ("fixed size", pa.array([b"ab"], pa.binary(2)), pa.binary(), b"ab"),
    ("fixed size to string", pa.array([b"ab"], pa.binary(2)), pa.string(), "ab"),
    ("null to string", pa.nulls(1), pa.string(), None),
    ("null to decimal", pa.nulls(1), pa.decimal128(5, 2), None),
    ("null to timestamptz", pa.nulls(1), UTC_US, None),
]
BAD = [
    (pa.array([2**31]), pa.int32(), "2147483648 does not fit an int"),
    (pa.array([2**63], pa.uint64()), pa.int64(), "9223372036854775808 does not fit a long"),
    (pa.array([2**53 + 1]), pa.float64(), "9007199254740993 does not fit a double"),
    (pa.array([100]), pa.decimal128(3, 1), "100 does not fit a decimal(3, 1)"),
    (pa.array([1.5]), pa.int64(), "1.5 does not fit a long"),
    (pa.array([float("nan")]), pa.int64(), "NaN does not fit a long"),
    (pa.array([1e39]), pa.float32(), "1e+39 does not fit a float"),
    (pa.array([Decimal("1.55")]), pa.decimal128(9, 1), '"1.55" does not fit a decimal(9, 1)'),
    (pa.array([Decimal("1.50")]), pa.int64(), '"1.50" does not fit a long'),
    (pa.array([2**62], pa.timestamp("us")), UTC_US, "4611686018427387904 does not fit a timestamptz"),
    (pa.array([2**62], pa.timestamp("ms")), UTC_US, "4611686018427387904 does not fit a timestamptz"),
    (pa.array([-800_000], pa.date32()), pa.date32(), "-800000 does not fit a date"),
    (pa.array([b"a\xff"]), pa.string(), '"a\\\\xff" does not fit a string'),
]
REFUSED = [
    (pa.string(), pa.int64(), 'has the column "x" as string, which is no long'),
    (pa.int64(), pa.string(), 'has the column "x" as int64, which is no string'),
    (pa.bool_(), pa.int32(), 'has the column "x" as bool, which is no int'),
    (pa.int64(), pa.bool_(), 'has the column "x" as int64, which is no boolean'),
    (pa.float64(), pa.decimal128(5, 2), 'has the column "x" as double, which is no decimal'),
    (pa.int64(), UTC_US, 'has the column "x" as int64, which is no timestamptz'),
    (UTC_US, pa.date32(), 'has the column "x" as timestamp.us, tz=UTC., which is no date'),
    (pa.list_(pa.string()), pa.string(), 'has the column "x" as list<.*>, which is no string'),
    (pa.struct([("y", pa.int64())]), pa.int64(), 'has the column "x" as struct<y: int64>, which is no long'),
    (pa.time64("us"), UTC_US, 'has the column "x" as time64.us., which is no timestamptz'),
]


@pytest.mark.parametrize(("values", "kind", "expected"), [g[1:] for g in GOOD], ids=[g[0] for g in GOOD])
def test_values_cast_without_loss(read: Read, values: pa.Array, kind: pa.DataType, expected: object) -> None:
    """A column takes what its type holds exactly."""
    found = read("a.parquet", parquet(pa.table({"x": values})), pa.schema([("x", kind)]))
    assert found.rows == [{"x": expected}]
    assert found.faults == []


def test_nanoseconds_that_are_no_microseconds_are_bad(read: Read) -> None:
    """A timestamp that would be cut is bad."""
    body = column([TEN_NS, TEN_NS + 1], pa.timestamp("ns"))
    found = read("a.parquet", body, pa.schema([("x", UTC_US)]))
    assert found.faults == [(2, "x", '"2013-01-01 10:00:00.000000001" does not fit a timestamptz')]
    assert found.rows == [{"x": TEN}]


@pytest.mark.parametrize(("values", "kind", "reason"), BAD, ids=lambda value: str(value)[:40].replace("\n", ""))
def test_values_that_do_not_fit_are_bad(read: Read, values: pa.Array, kind: pa.DataType, reason: str) -> None:
    """Overflow, truncation and broken text make a bad row; its neighbours stay."""
    body = parquet(pa.table({"x": pa.concat_arrays([pa.nulls(1, values.type), values, pa.nulls(1, values.type)])}))
    found = read("a.parquet", body, pa.schema([("x", kind)]))
    assert found.faults == [(2, "x", reason)]
    assert found.rows == [{"x": None}, {"x": None}]


@pytest.mark.parametrize(("stored", "wanted", "message"), REFUSED, ids=lambda value: str(value)[:30])
def test_columns_of_another_kind_are_refused(
    read: Read, stored: pa.DataType, wanted: pa.DataType, message: str
) -> None:
    """A column whose values could not be meant is a mistake of the whole file."""
    with pytest.raises(DataError, match=rf"a\.parquet {message}"):
        read("a.parquet", column([], stored), pa.schema([("x", wanted)]))


def test_missing_columns_name_those_there_are(read: Read) -> None:
    """The message has every missing column and what the file has."""
    body = parquet(pa.table({"a": [1], "b": [2]}))
    with pytest.raises(DataError, match=r'has no column "x" \(it has a, b\); has no column "y"'):
        read("a.parquet", body, pa.schema([("x", pa.int64()), ("a", pa.int64()), ("y", pa.int64())]))


def test_a_column_that_stands_twice_is_refused(read: Read) -> None:
    """Which of two columns of one name is meant is not ours to say."""
    body = parquet(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"]))
    with pytest.raises(DataError, match='has the column "x" twice'):
        read("a.parquet", body, pa.schema([("x", pa.int64())]))


def test_required_nulls_are_bad(read: Read) -> None:
    """A null where a value is required is bad, and the row is shown with all its wanted columns."""
    table = pa.table({"x": [1, None], "y": ["a", "b"], "z": [0, 0]})
    schema = pa.schema([pa.field("x", pa.int64(), nullable=False), ("y", pa.string())])
    found = read("a.parquet", parquet(table), schema)
    assert found.faults == [(2, "x", "null, but the column is required")]
    assert found.bad[0].raw == '{"x": null, "y": "b"}'


def test_positions_go_through_row_groups_and_splits(read: Read) -> None:
    """The position is the row's number in the file, whichever split has it."""
    body = parquet(pa.table({"x": list(range(100_000))}), row_group_size=7_000)
    found = read("a.parquet", body, pa.schema([("x", pa.int32())]), provenance=True, target_bytes=60_000)
    assert found.table["_position"].to_pylist() == [n + 1 for n in range(100_000)]
    assert found.table["x"].to_pylist() == list(range(100_000))


def test_bad_rows_are_found_among_many(read: Read) -> None:
    """Every bad row of a large file is found, in its order, under its number."""
    numbers = [2**40 if n % 999 == 0 else n for n in range(150_000)]
    found = read("a.parquet", column(numbers, pa.int64()), pa.schema([("x", pa.int32())]), provenance=True)
    assert [position for position, _, _ in found.faults] == list(range(1, 150_001, 999))
    assert found.table["_position"].to_pylist() == [n + 1 for n in range(150_000) if n % 999]


def test_only_wanted_columns_are_read(read: Read) -> None:
    """A damaged column that nobody wants does no harm; where it is wanted, its checksum tells."""
    table = pa.table({"x": [1], "y": ["Y" * 100]})
    body = parquet(table, compression=None, use_dictionary=False, write_page_checksum=True, write_statistics=False)
    damaged = body.replace(b"YY", b"YN")
    assert read("a.parquet", damaged, pa.schema([("x", pa.int64())])).rows == [{"x": 1}]
    with pytest.raises(DataError, match=r"a\.parquet is no Parquet, truncated or damaged \(.*CRC"):
        read("a.parquet", damaged, pa.schema([("y", pa.string())]))


def test_large_strings_come_in_small_batches(io: LakehouseFileIO, land: Land) -> None:
    """Batches are of about 4 MiB, however long the rows are."""
    source = land("a.parquet", column([str(n) * 20_000 for n in range(2_000)], pa.string()))
    (split,) = plan_splits(io, [source], "parquet", target_bytes=1 << 40)
    schema = pa.schema([("x", pa.string())])
    sizes = [batch.nbytes for batch in read_split(io, split, schema, provenance=True, on_bad=print)]
    assert max(sizes) < 5 * 1024 * 1024


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"PAR1", id="magic only"),
        pytest.param(b"n,s\n1,a\n", id="csv"),
        pytest.param(column([1] * 1000, pa.int64())[:-1], id="truncated by a byte"),
        pytest.param(column([1] * 1000, pa.int64())[:200], id="truncated"),
        pytest.param(column([1], pa.int64())[:-12] + b"xxxx" + column([1], pa.int64())[-8:], id="damaged footer"),
    ],
)
def test_files_that_are_no_parquet_are_named(read: Read, body: bytes) -> None:
    """A broken file is one error that names it."""
    with pytest.raises(DataError, match=r"a\.parquet is no Parquet, truncated or damaged \(.*\): land it again"):
        read("a.parquet", body, pa.schema([("x", pa.int64())]))


def test_a_gone_file_is_transient(io: LakehouseFileIO) -> None:
    """An object that was removed after it was listed is for the next attempt."""
    split = Split("file:///nowhere/a.parquet", "e", 10, "parquet", None, 0, 10, None)
    with pytest.raises(TransientError, match="was listed but is gone"):
        list(read_split(io, split, pa.schema([("x", pa.int64())]), provenance=False, on_bad=print))


class ThrottledAfterOpening:
    """A store whose file opens, and whose later reads fail."""

    def __init__(self, body: bytes, error: Exception) -> None:
        """Hold the file, and what will happen to it."""
        self.body = body
        self.error = error

    def open_read(self, url: str, *, etag: str | None = None, size: int | None = None) -> Any:  # noqa: ARG002  # its face
        """Give a stream that reads the end of the file only."""
        body, error = self.body, self.error

        class Stream(streams.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                if self.tell() < len(body) // 2:
                    raise error
                return super().read(size)

        return Stream(body)


@pytest.mark.parametrize(
    "error", [TransientError("503"), OSError(5, "Input/output error")], ids=["translated", "local disk"]
)
def test_errors_of_the_store_stay_as_they_are(error: Exception) -> None:
    """A throttle that outlasts its retries is not taken for a damaged file, even below Arrow's threads."""
    body = column([hash((n, "salt")) for n in range(200_000)], pa.int64())
    split = Split("s3://raw/a.parquet", "e", len(body), "parquet", None, 0, len(body), None)
    schema = pa.schema([("x", pa.int64())])
    with pytest.raises(type(error), match=str(error.args[-1])):
        list(read_split(ThrottledAfterOpening(body, error), split, schema, provenance=False, on_bad=print))


def test_the_schema_of_a_file_is_in_our_types(io: LakehouseFileIO, land: Land) -> None:
    """Small, large, unsigned and dictionary types become those that the readers know; nullability stays."""
    stored = pa.schema(
        [
            pa.field("b", pa.bool_(), nullable=False),
            ("i8", pa.int8()),
            ("u16", pa.uint16()),
            ("u32", pa.uint32()),
            ("u64", pa.uint64()),
            ("f2", pa.float16()),
            ("f8", pa.float64()),
            ("dec", pa.decimal128(9, 2)),
            ("day", pa.date64()),
            ("ns", pa.timestamp("ns")),
            ("ms", BERLIN),
            ("ls", pa.large_string()),
            ("d", pa.dictionary(pa.int32(), pa.string())),
            ("fb", pa.binary(4)),
        ]
    )
    assert stored_schema(io, land("a.parquet", parquet(stored.empty_table())), "parquet") == pa.schema(
        [
            pa.field("b", pa.bool_(), nullable=False),
            ("i8", pa.int32()),
            ("u16", pa.int32()),
            ("u32", pa.int64()),
            ("u64", pa.int64()),
            ("f2", pa.float32()),
            ("f8", pa.float64()),
            ("dec", pa.decimal128(9, 2)),
            ("day", pa.date32()),
            ("ns", pa.timestamp("us")),
            ("ms", UTC_US),
            ("ls", pa.string()),
            ("d", pa.string()),
            ("fb", pa.binary()),
        ]
    )


def test_columns_that_no_reader_knows_are_named(io: LakehouseFileIO, land: Land) -> None:
    """All columns at fault stand in one message."""
    stored = pa.schema([("l", pa.list_(pa.duration("us"))), ("x", pa.int64()), ("t", pa.time32("ms"))])
    source = land("a.parquet", parquet(stored.empty_table()))
    with pytest.raises(DataError, match=r'a\.parquet: these columns .* "l" has the type list<.*>; "t" has the type t'):
        stored_schema(io, source, "parquet")


def test_a_file_of_its_own_schema_reads(io: LakehouseFileIO, land: Land, read: Read) -> None:
    """What `stored_schema` says can be asked for."""
    body = parquet(pa.table({"a": pa.array([1], pa.uint8()), "b": pa.array([TEN_NS], pa.timestamp("ns"))}))
    found = read("a.parquet", body, stored_schema(io, land("a.parquet", body), "parquet"))
    assert found.rows == [{"a": 1, "b": TEN.replace(tzinfo=None)}]


def test_old_int96_timestamps_do_not_wrap(read: Read) -> None:
    """Timestamps of old Spark outside of the years 1677-2262 arrive as they are."""
    old = datetime(1500, 1, 1, tzinfo=UTC)
    body = parquet(pa.table({"x": pa.array([old], UTC_US)}), use_deprecated_int96_timestamps=True)
    assert read("a.parquet", body, pa.schema([("x", UTC_US)])).rows == [{"x": old}]

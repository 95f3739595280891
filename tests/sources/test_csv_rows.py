"""CSV: what a header line, a record and a field are, and what each kind of bad record is called."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from lakehouse_pipeline.errors import DataError

Read = Callable[..., Any]

TYPES = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "decimal(5, 2)": pa.decimal128(5, 2),
    "decimal(38, 10)": pa.decimal128(38, 10),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "string": pa.string(),
    "binary": pa.binary(),
}
TEN = datetime(2013, 1, 1, 10, tzinfo=UTC)
GOOD = [
    ("boolean", "True", True),
    ("boolean", "0", False),
    ("int", "007", 7),
    ("int", "+7", 7),
    ("long", '"-9223372036854775808"', -9223372036854775808),
    ("float", "0.1", 0.10000000149011612),
    ("double", ".5", 0.5),
    ("double", "1e-400", 0.0),
    ("decimal(5, 2)", "-999.99", Decimal("-999.99")),
    ("decimal(38, 10)", "1234567890123456789012345678.0123456789", Decimal("1234567890123456789012345678.0123456789")),
    ("date", "2012-02-29", date(2012, 2, 29)),
    ("timestamp", "2013-01-01T12:00:00+02:00", datetime(2013, 1, 1, 10)),  # noqa: DTZ001  # a column without a zone
    ("timestamptz", "2013-01-01T10:00:00Z", TEN),
    ("timestamptz", "2013-01-01 10:00:00", TEN),
    ("string", '""', ""),
    ("string", "NA", "NA"),
    ("string", "null", "null"),
    ("string", " a ", " a "),
    ("string", '"a,b"', "a,b"),
    ("string", '"say ""a"""', 'say "a"'),
    ("string", 'a"b', 'a"b'),
    ("string", '"a"b', "ab"),
    ("string", "x\\", "x\\"),
    ("binary", "é", b"\xc3\xa9"),
    *((name, "", None) for name in TYPES),
]
BAD = [
    ("boolean", "yes", '"yes" is not a boolean'),
    ("int", "1.0", '"1.0" is not an int'),
    ("int", "0x10", '"0x10" is not an int'),
    ("int", " 1", '" 1" is not an int'),
    ("int", "NA", '"NA" is not an int'),
    ("int", '""', '"" is not an int'),
    ("int", "2147483648", '"2147483648" is out of range for an int'),
    ("float", "1e39", '"1e39" is out of range for a float'),
    ("double", "nan", '"nan" is not a double'),
    ("double", "-inf", '"-inf" is not a double'),
    ("double", "1e400", '"1e400" is out of range for a double'),
    ("decimal(5, 2)", "1000", '"1000" is out of range for a decimal(5, 2)'),
    ("decimal(38, 10)", "9" * 38, '"' + "9" * 38 + '" is out of range for a decimal(38, 10)'),
    ("decimal(38, 10)", str(2**256 + 1), f'"{2**256 + 1}" is out of range for a decimal(38, 10)'),
    ("date", "20130101", '"20130101" is not a date'),
    ("timestamptz", "2013-01-01T25:00", '"2013-01-01T25:00" is not a timestamptz'),
    ("timestamptz", "1357034400", '"1357034400" is not a timestamptz'),
]
SCHEMA = pa.schema([pa.field("n", pa.int64(), nullable=False), ("s", pa.string())])


@pytest.mark.parametrize(("kind", "value", "expected"), GOOD, ids=str)
def test_values_arrive_exactly(read: Read, kind: str, value: str, expected: object) -> None:
    """A column takes the text of its own kind; an empty field is null."""
    found = read("a.csv", b"x,y\n%b,1\n" % value.encode(), pa.schema([("x", TYPES[kind])]))
    assert found.rows == [{"x": expected}]
    assert found.faults == []


@pytest.mark.parametrize(("kind", "value", "reason"), BAD, ids=lambda value: str(value)[:40])
def test_values_of_another_kind_are_bad(read: Read, kind: str, value: str, reason: str) -> None:
    """Everything else makes a bad row that says so; its neighbours stay."""
    found = read("a.csv", b"y,x\n1,\n1,%b\n1,\n" % value.encode(), pa.schema([("x", TYPES[kind])]))
    assert found.faults == [(3, "x", reason)]
    assert found.rows == [{"x": None}, {"x": None}]


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        pytest.param(b"1", None, "has not 2 fields but 1", id="too few"),
        pytest.param(b"1,a,b", None, "has not 2 fields but 3", id="too many"),
        pytest.param(b"  ", None, "has not 2 fields but 1", id="blanks"),
        pytest.param(b'1,"a', None, "a quote is not closed on its line", id="open quote"),
        pytest.param(b'1,"a"",b', None, "a quote is not closed on its line", id="open quote after a doubled one"),
        pytest.param(b",a", "n", "null, but the column is required", id="null where required"),
        pytest.param(b"1,\xff", None, "is no UTF-8 at byte 3 of the line", id="bad UTF-8"),
        pytest.param(b"\xef\xbb\xbf1,a", "n", '"\ufeff1" is not a long', id="mark within"),
    ],
)
def test_records_that_are_no_rows_are_bad(read: Read, line: bytes, column: str | None, reason: str) -> None:
    """A record with other fields than the header line, or without a required value, is bad."""
    found = read("a.csv", b"n,s\n1,a\n%b\n3,c\n" % line, SCHEMA)
    assert found.faults == [(3, column, reason)]
    assert [row["n"] for row in found.rows] == [1, 3]


@pytest.mark.parametrize("last", [b'1,"a', b'1,x"y\n2,"a\n', b'1,"a\nb",'], ids=["open", "even quotes", "closed later"])
def test_a_record_does_not_span_lines(read: Read, last: bytes) -> None:
    """A line feed in quotes makes bad records, at the end of the file too, where Arrow alone would take them."""
    found = read("a.csv", b"n,s\n" + last, SCHEMA)
    assert "a quote is not closed on its line" in [reason for _, _, reason in found.faults]
    assert not [row for row in found.rows if row["s"] and "a" in row["s"]]


@pytest.mark.parametrize(
    ("body", "positions"),
    [
        pytest.param(b"n,s\n", [], id="header line only"),
        pytest.param(b"n,s", [], id="header line without line feed"),
        pytest.param(b"n,s\n1,a", [2], id="no line feed at the end"),
        pytest.param(b"n,s\n\n1,a\n\n2,b\n\n", [3, 5], id="empty lines count"),
        pytest.param(b"n,s\r\n1,a\r\n\r\n2,b\r\n", [2, 4], id="carriage returns"),
        pytest.param(b"\xef\xbb\xbfn,s\n1,a\n", [2], id="byte order mark"),
        pytest.param(b'"n","s"\n"1","a"\n', [2], id="all in quotes"),
        pytest.param(b"s,,n\na,x,1\n", [2], id="other columns and order"),
    ],
)
def test_positions_are_line_numbers(read: Read, body: bytes, positions: list[int]) -> None:
    """The header line is line 1, and empty lines are skipped but counted."""
    found = read("a.csv", body, SCHEMA, provenance=True)
    assert [row["_position"] for row in found.rows] == positions
    assert found.faults == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"", "is empty: it has no header line", id="empty"),
        pytest.param(b"\xef\xbb\xbf", "is empty: it has no header line", id="mark only"),
        pytest.param(b"n\n1\n", r'has no column "s" in its header line \(it has n\)', id="missing"),
        pytest.param(b"\n1,a\n", r'has no column "n", "s" in its header line \(it has \)', id="empty header line"),
        pytest.param(b"n;s\n1;a\n", r'has no column "n", "s" in its header line \(it has n;s\)', id="other delimiter"),
        pytest.param(b"n,s,n\n1,a,2\n", "the header line names columns twice: n", id="twice"),
        pytest.param(b'n,"s\n1,a\n', "the header line cannot be read: a quote is not closed", id="open quote"),
        pytest.param(b"n,\xff\n1,a\n", "the header line cannot be read: 'utf-8'", id="bad UTF-8"),
    ],
)
@pytest.mark.parametrize("target_bytes", [1 << 40, 3], ids=["whole", "split"])
def test_header_lines_that_do_not_fit_name_the_file(read: Read, body: bytes, message: str, target_bytes: int) -> None:
    """Without its header line a file cannot be read, whatever becomes of bad rows."""
    with pytest.raises(DataError, match=rf"a\.csv:? {message}"):
        read("a.csv", body, SCHEMA, target_bytes=target_bytes)


def test_later_splits_know_the_header_line(read: Read) -> None:
    """Each byte range reads the header line for itself, and no range takes it for a record."""
    body = b"\xef\xbb\xbfs,n\n" + b"".join(b"x%d,%d\n" % (n, n) for n in range(100))
    found = read("a.csv", body, SCHEMA, provenance=True, target_bytes=50)
    assert found.table["n"].to_pylist() == list(range(100))
    assert [body[at : at + 2] for at in found.table["_position"].to_pylist()] == [b"x%d" % n for n in range(10)] + [
        b"x%d" % (n // 10) for n in range(10, 100)
    ]


def test_a_split_within_one_record_reads_nothing(read: Read) -> None:
    """A record belongs to the range in which it begins, however many ranges it crosses."""
    found = read("a.csv", b"n,s\n1," + b"x" * 100 + b"\n2,y\n", SCHEMA, target_bytes=10)
    assert found.table["n"].to_pylist() == [1, 2]


def test_mixed_offsets_are_read_exactly(read: Read) -> None:
    """Timestamps with and without an offset may stand in one column."""
    body = b"x\n2013-01-01T10:00:00\n2013-01-01T10:00:00Z\n2013-01-01T12:00:00+02:00\n"
    assert read("a.csv", body, pa.schema([("x", pa.timestamp("us", "UTC"))])).rows == [{"x": TEN}] * 3

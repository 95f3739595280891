"""JSON lines: what each kind of column takes, and what each kind of bad line is called."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import pyarrow as pa
import pytest

from lakehouse_pipeline.sources import json_lines, lines
from lakehouse_pipeline.sources.columns import Rows
from lakehouse_pipeline.sources.lines import Block
from lakehouse_pipeline.sources.text_rows import quickest

Read = Callable[..., Any]

_EXACT = json_lines.exact

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
    ("boolean", "true", True),
    ("int", "-0", 0),
    ("int", "2147483647", 2147483647),
    ("long", "-9223372036854775808", -9223372036854775808),
    ("float", "0.1", 0.10000000149011612),
    ("float", "16777217", 16777216.0),
    ("float", "7.038531e-26", 7.038530691851209e-26),
    ("double", "1", 1.0),
    ("double", "1e-400", 0.0),
    ("double", "123456789012345678901234567890", 1.2345678901234568e29),
    ("decimal(5, 2)", "1.5", Decimal("1.50")),
    ("decimal(5, 2)", "999.99", Decimal("999.99")),
    ("decimal(5, 2)", '"-1.50"', Decimal("-1.50")),
    ("decimal(5, 2)", "1.5e2", Decimal("150.00")),
    ("decimal(5, 2)", "1." + "0" * 300, Decimal("1.00")),
    ("decimal(38, 10)", "1234567890123456789012345678.0123456789", Decimal("1234567890123456789012345678.0123456789")),
    ("date", '"2012-02-29"', date(2012, 2, 29)),
    ("timestamp", '"2013-01-01T10:00:00+02:00"', datetime(2013, 1, 1, 8)),  # noqa: DTZ001  # a column without a zone
    ("timestamptz", '"2013-01-01T10:00:00Z"', TEN),
    ("timestamptz", '"2013-01-01T10:00:00"', TEN),
    ("timestamptz", '"2013-01-01 10:00"', TEN),
    ("timestamptz", '"2013-01-01T12:00:00.000+0200"', TEN),
    ("timestamptz", '"2013-01-01T05:00:00.000000000-05"', TEN),
    ("timestamptz", '"9999-12-31T23:59:59.999999Z"', datetime.max.replace(tzinfo=UTC)),
    ("string", '"\\u00e9\\ud83d\\ude00\\n"', "é😀\n"),
    ("string", '""', ""),
    ("binary", '"é"', b"\xc3\xa9"),
    *((name, "null", None) for name in TYPES),
]
BAD = [
    ("boolean", "1", "1 is not a boolean"),
    ("boolean", '"true"', '"true" is not a boolean'),
    ("int", "1.5", "1.5 is not an int"),
    ("int", "1.0", "1.0 is not an int"),
    ("int", "1e3", "1e3 is not an int"),
    ("int", '"1"', '"1" is not an int'),
    ("int", "true", "true is not an int"),
    ("int", "2147483648", "2147483648 is out of range for an int"),
    ("long", "9223372036854775808", "9223372036854775808 is out of range for a long"),
    ("long", "9" * 5000, "9" * 100 + "… is out of range for a long"),
    ("long", "{}", "an object is not a long"),
    ("long", "[1]", "an array is not a long"),
    ("float", "1e39", "1e39 is out of range for a float"),
    ("double", '"late"', '"late" is not a double'),
    ("double", "1e400", "1e400 is out of range for a double"),
    ("double", "false", "false is not a double"),
    ("decimal(5, 2)", "1000", "1000 is out of range for a decimal(5, 2)"),
    ("decimal(5, 2)", "1.005", "1.005 is out of range for a decimal(5, 2)"),
    ("decimal(5, 2)", "true", "true is not a decimal(5, 2)"),
    ("decimal(5, 2)", '"1_0"', '"1_0" is not a decimal(5, 2)'),
    ("decimal(5, 2)", '"NaN"', '"NaN" is not a decimal(5, 2)'),
    ("decimal(38, 10)", "9" * 38, "9" * 38 + " is out of range for a decimal(38, 10)"),
    ("decimal(38, 10)", str(2**128 + 1), f"{2**128 + 1} is out of range for a decimal(38, 10)"),
    ("decimal(38, 10)", str(2**256 + 1), f"{2**256 + 1} is out of range for a decimal(38, 10)"),
    ("date", "1", "1 is not a date"),
    ("date", '"2013-02-29"', '"2013-02-29" is not a date'),
    ("date", '"2013-01-01T00:00:00"', '"2013-01-01T00:00:00" is not a date'),
    ("timestamptz", "1357034400", "1357034400 is not a timestamptz"),
    ("timestamptz", '"late"', '"late" is not a timestamptz'),
    ("timestamptz", '"2013-01-01T24:00:00"', '"2013-01-01T24:00:00" is not a timestamptz'),
    ("timestamptz", '"2013-01-01T10:00:00.0000001"', '"2013-01-01T10:00:00.0000001" is out of range for a timestamptz'),
    ("timestamptz", '"2013-01-01T10:00+01:60"', '"2013-01-01T10:00+01:60" is not a timestamptz'),
    ("timestamptz", '"0000-01-01"', '"0000-01-01" is not a timestamptz'),
    ("timestamptz", '"0001-01-01T00:00+01"', '"0001-01-01T00:00+01" is out of range for a timestamptz'),
    ("string", "1", "1 is not a string"),
    ("string", "{}", "an object is not a string"),
    ("string", '"\\ud800"', '"\\ud800" is not a string'),
    ("binary", "true", "true is not a binary"),
]
SCHEMA = pa.schema([pa.field("n", pa.int64(), nullable=False), ("s", pa.string())])


@pytest.mark.parametrize(("kind", "value", "expected"), GOOD, ids=str)
def test_values_arrive_exactly(read: Read, kind: str, value: str, expected: object) -> None:
    """A column takes the JSON values of its own kind, with nothing lost."""
    found = read("a.jsonl", b'{"x": %b}\n' % value.encode(), pa.schema([("x", TYPES[kind])]))
    assert found.rows == [{"x": expected}]
    assert found.faults == []


@pytest.mark.parametrize(("kind", "value", "reason"), BAD, ids=lambda value: str(value)[:40])
def test_values_of_another_kind_are_bad(read: Read, kind: str, value: str, reason: str) -> None:
    """Everything else makes a bad row that says so; its neighbours stay."""
    body = b'{"x": null}\n{"x": %b}\n{}' % value.encode()
    found = read("a.jsonl", body, pa.schema([("x", TYPES[kind])]))
    assert found.faults == [(2, "x", reason)]
    assert found.rows == [{"x": None}, {"x": None}]


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        pytest.param(b'{"n": 1', None, "is no JSON at character 8: Expecting ',' delimiter", id="cut off"),
        pytest.param(b'{"n": 1}{"n": 2}', None, "is no JSON at character 9: Extra data", id="two objects"),
        pytest.param(b'{"n": 1},', None, "is no JSON at character 9: Extra data", id="comma behind"),
        pytest.param(b'{"n": NaN}', None, "is no JSON: NaN is no number of JSON", id="NaN"),
        pytest.param(b'{"n": 1, "y": [-Infinity]}', None, "is no JSON: -Infinity is no number of JSON", id="unwanted"),
        pytest.param(b'{"n": 1, "y": Inf}', None, "is no JSON at character 15: Expecting value", id="Arrow's Inf"),
        pytest.param(b"[1]", None, "is no JSON object", id="array"),
        pytest.param(b"null", None, "is no JSON object", id="null"),
        pytest.param(b"1", None, "is no JSON object", id="number"),
        pytest.param(b'{"n": 1, "n": 1}', "n", "stands twice in the row", id="duplicate key"),
        pytest.param(b'{"n": 1, "\\u006e": 1}', "n", "stands twice in the row", id="duplicate key, escaped"),
        pytest.param(b'{"n": null}', "n", "null, but the column is required", id="null where required"),
        pytest.param(b'{"s": "x"}', "n", "null, but the column is required", id="missing where required"),
        pytest.param(b'{"n": 1, "s": "\xff"}', None, "is no UTF-8 at byte 16 of the line", id="bad UTF-8"),
        pytest.param(b'{"n": 1, "y": "\xff"}', None, "is no UTF-8 at byte 16 of the line", id="bad UTF-8, unwanted"),
        pytest.param(
            b'{"n": 1, "s": "a\tb"}', None, "is no JSON at character 17: Invalid control character at", id="tab"
        ),
        pytest.param(b'\xef\xbb\xbf{"n": 1}', None, "is no JSON at character 1: Expecting value", id="mark within"),
        pytest.param(
            b'{"n": ' + b"[" * 5000 + b"]" * 5000 + b"}",
            None,
            "is nested too deeply: it has more than 400 levels",
            id="deep",
        ),
    ],
)
def test_lines_that_are_no_rows_are_bad(read: Read, line: bytes, column: str | None, reason: str) -> None:
    """A line that is not one JSON object with the required columns is bad, wherever its fault is."""
    found = read("a.jsonl", b'{"n": 1}\n%b\n{"n": 3}\n' % line, SCHEMA)
    assert found.faults == [(2, column, reason)]
    assert [row["n"] for row in found.rows] == [1, 3]


def test_a_file_that_begins_with_null_is_read(read: Read) -> None:
    """Arrow's parser crashes the process there (pyarrow 26.0), so it must not see such a block."""
    found = read("a.jsonl", b'null\n{"n": 1}\n', SCHEMA)
    assert found.faults == [(1, None, "is no JSON object")]
    assert [row["n"] for row in found.rows] == [1]


@pytest.mark.parametrize(
    "body",
    [b'{"n": 1}{"s":\n"x", "n": 2}\n', b'{"n": 1}{"y":\n{"n": 2}}\n', b'{"n": 1}{"y": {}\n, "n": 2}\n'],
    ids=["before a value", "before a bracket", "behind a bracket"],
)
def test_rows_that_share_and_span_lines_do_not_pass(read: Read, body: bytes) -> None:
    """Two lines that make two objects, one of them across the line's end, are two bad lines."""
    found = read("a.jsonl", body, pa.schema([("n", pa.int64())]))
    assert [position for position, _, _ in found.faults] == [1, 2]
    assert found.rows == []


@pytest.mark.parametrize(
    ("body", "positions"),
    [
        pytest.param(b"", [], id="empty file"),
        pytest.param(b"\n\n", [], id="blank lines only"),
        pytest.param(b'{"n": 1}', [1], id="no line feed at the end"),
        pytest.param(b'\n{"n": 1}\n \t\n{"n": 2}\n\n', [2, 4], id="blank lines count"),
        pytest.param(b'{"n": 1}\r\n\r\n{"n": 2}\r\n', [1, 3], id="carriage returns"),
        pytest.param(b'\xef\xbb\xbf{"n": 1}\n{"n": 2}\n', [1, 2], id="byte order mark"),
        pytest.param(b' {"n": 1} \n{"n": 2}\n', [1, 2], id="blanks around"),
    ],
)
def test_blank_lines_are_skipped_but_counted(read: Read, body: bytes, positions: list[int]) -> None:
    """Positions are line numbers as an editor shows them."""
    found = read("a.jsonl", body, SCHEMA, provenance=True)
    assert [row["_position"] for row in found.rows] == positions
    assert found.faults == []


def test_keys_come_in_any_order_with_others_between(read: Read) -> None:
    """Fields go by name; those that nobody wants are ignored, whatever they hold and even twice."""
    body = b'{"y": {"n": "x"}, "s": "a", "y": [1e999], "n": 1}\n'
    assert read("a.jsonl", body, SCHEMA).rows == [{"n": 1, "s": "a"}]


def test_the_first_column_at_fault_is_named(read: Read) -> None:
    """A row is bad once, for the first wanted column in the schema's order."""
    assert read("a.jsonl", b'{"s": 1, "n": "x"}', SCHEMA).faults == [(1, "n", '"x" is not a long')]


def test_a_bad_row_keeps_its_line(read: Read) -> None:
    """The line is kept as it stands, cut at 1,000 characters."""
    body = json.dumps({"n": "é" * 2000}, ensure_ascii=False)
    (bad,) = read("a.jsonl", body.encode(), SCHEMA).bad
    assert bad.raw == body[:1000]


def test_bytes_that_are_no_text_stay_visible(read: Read) -> None:
    """What cannot be decoded is kept escaped."""
    (bad,) = read("a.jsonl", b'{"n": "\xff"}', SCHEMA).bad
    assert bad.raw == '{"n": "\\xff"}'


@pytest.mark.parametrize("bad", [{0}, {59_999}, {30_000, 30_001}, set(range(0, 60_000, 7_000))], ids=str)
def test_bad_lines_are_found_among_many(read: Read, bad: set[int]) -> None:
    """Every bad line of a large file is found, in its order, under its number, and every good one stays."""
    lines = [b"{" if n in bad else b'{"n": %d, "s": "%b"}' % (n, b"x" * 200) for n in range(60_000)]
    found = read("a.jsonl", b"\n".join(lines), SCHEMA, provenance=True)
    assert [position for position, _, _ in found.faults] == [n + 1 for n in sorted(bad)]
    assert found.table["n"].to_pylist() == [n for n in range(60_000) if n not in bad]
    assert found.table["_position"].to_pylist() == [n + 1 for n in found.table["n"].to_pylist()]


def test_a_bad_line_costs_few_slow_ones() -> None:
    """Around a bad line at most some hundred lines are read line by line."""
    lines = [b"{" if n == 12_345 else b"{}" for n in range(30_000)]
    block = Block(b"\n".join(lines), len(lines), 1, at_byte=False)
    slow: list[Block] = []

    def exactly(part: Block) -> Rows:
        slow.append(part)
        return json_lines.exact(part, schema, "u", print)

    schema = pa.schema([("n", pa.int64())])
    rows, _ = quickest(block, partial(json_lines.quick, schema=schema), exactly)
    assert len(rows) == 29_999
    assert [(part.first <= 12_346 < part.first + part.count, part.count < 512) for part in slow] == [(True, True)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("target_bytes", [pytest.param(1 << 40, id="whole"), pytest.param(1 << 20, id="split")])
def test_a_bad_line_amid_many_blocks_costs_itself(
    read: Read, name: str, target_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a file of many blocks a malformed line leaves every other block to the quick way, and every other row."""
    monkeypatch.setattr(lines, "BLOCK_BYTES", 64 * 1024)
    slow: list[int] = []

    def exact(block: Block, *args: Any, **kwargs: Any) -> Rows:
        slow.append(block.count)
        return _EXACT(block, *args, **kwargs)

    monkeypatch.setattr(json_lines, "exact", exact)
    rows = [b'{"n": %d, "s": "%b"}' % (n, b"x" * 150) for n in range(30_000)]
    rows[17_000] = b'{"n": 17000, "s": "never closed'
    body = b"\n".join(rows)
    found = read(name, gzip.compress(body, 1) if name.endswith(".gz") else body, SCHEMA, target_bytes=target_bytes)
    assert found.table["n"].to_pylist() == [n for n in range(30_000) if n != 17_000]
    ((position, column, reason),) = found.faults
    assert (column, reason[:13]) == (None, "is no JSON at")
    split = target_bytes < len(body) and not name.endswith(".gz")
    assert position == (len(b"\n".join(rows[:17_000])) + 1 if split else 17_001)
    assert sum(slow) < 512

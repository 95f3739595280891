"""Bad and odd inputs of every format: each gives rows, rejects or one error that names the file and the way out.

The table is format by oddity. What is not here is elsewhere: lines above 64 MiB, damaged checksums and other kinds of
files in `test_lines`, types that do not cast in `test_stored_rows`, values of every type in `test_json_lines` and
`test_csv_rows`, names of objects in `test_listing`; hours of the same files on every engine in `tests/conformance`.
"""

import gzip
import io as streams
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import orc

from lakehouse_pipeline.errors import DataError
from lakehouse_pipeline.sources import json_lines

Read = Callable[..., Any]
Fault = tuple[int, str | None, str]

AT = pa.timestamp("us", "UTC")
NS = pa.timestamp("ns", "UTC")
SCHEMA = pa.schema([pa.field("n", pa.int64(), nullable=False), ("s", pa.string())])
TIMES = pa.schema([("t", AT)])
REAL = pa.schema([("d", pa.float64())])
TEXT = pa.schema([("s", pa.string())])
ODD_NAMES = ("naïve 東京 😀", "a b", "a.b", "a,b", 'a"b', "a'b", "`", "[0]", "a/b", "%H", "a\tb", "select")
HUGE = "x" * 5_000_000  # more than a block of text
DEEP = json_lines.DEPTH - 1  # levels below the row's own

WAY_OUT = re.compile(r"land it|Land |rename|take it away")


@dataclass(frozen=True)
class Cell:
    """One input.

    Attributes:
        body: the file.
        rows: the good rows.
        faults: position, column and the beginning of the reason of each bad row.
        error: what the failure says behind the file's name, as an expression; else there is none.
        schema: the wanted columns.
    """

    body: bytes
    rows: Sequence[dict[str, Any]] = ()
    faults: Sequence[Fault] = ()
    error: str = ""
    schema: pa.Schema = SCHEMA


def row(n: int, s: str | None = None) -> dict[str, Any]:
    """Make a row of the usual columns."""
    return {"n": n, "s": s}


def parquet(table: pa.Table, **options: Any) -> bytes:
    """Write a Parquet file."""
    body = streams.BytesIO()
    pq.write_table(table, body, **options)
    return body.getvalue()


def orc_file(table: pa.Table) -> bytes:
    """Write an ORC file."""
    body = streams.BytesIO()
    orc.write_table(table, body)
    return body.getvalue()


def packed(codec: str, text: bytes) -> bytes:
    """Compress."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(text)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def moment(text: str) -> dict[str, Any]:
    """Make a row of a time."""
    return {"t": datetime.fromisoformat(text).astimezone(UTC)}


# Texts of a timestamptz, and what they are: an instant, or the reason why not.
MOMENTS = {
    "pre-epoch": ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999+00:00"),
    "first year": ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00"),
    "Julian day": ("1582-10-10T00:00:00Z", "1582-10-10T00:00:00+00:00"),
    "last year": ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999+00:00"),
    "year 0": ("0000-12-31T23:59:59Z", "is not a timestamptz"),
    "year 10000": ("10000-01-01T00:00:00Z", "is not a timestamptz"),
    "before the first year": ("0001-01-01T00:00:00+01:00", "is out of range for a timestamptz"),
    "beyond the last year": ("9999-12-31T23:59:59-01:00", "is out of range for a timestamptz"),
    "hour that DST skips, no zone": ("2013-03-10T02:30:00", "2013-03-10T02:30:00+00:00"),
    "hour that DST skips": ("2013-03-10T02:30:00-05:00", "2013-03-10T07:30:00+00:00"),
    "first of DST's two hours": ("2013-11-03T01:30:00-04:00", "2013-11-03T05:30:00+00:00"),
    "second of DST's two hours": ("2013-11-03T01:30:00-05:00", "2013-11-03T06:30:00+00:00"),
    "quarter of an hour": ("2013-01-01T10:00:00+05:45", "2013-01-01T04:15:00+00:00"),
    "named zone": ("2013-01-01T10:00:00[Europe/Berlin]", "is not a timestamptz"),
    "leap second": ("2016-12-31T23:59:60Z", "is not a timestamptz"),
    "hour 24": ("2013-01-01T24:00:00Z", "is not a timestamptz"),
    "nanoseconds": ("2013-01-01T10:00:00.000000001Z", "is out of range for a timestamptz"),
    "seconds since 1970": ("1357034400", "is not a timestamptz"),
}
OFFSETS = ("2013-01-01T10:00:00Z", "2013-01-01T12:00:00+02:00", "2013-01-01T10:00:00", "2013-01-01 05:00-05")


def told(text: str, position: int, found: str) -> dict[str, Any]:
    """Say what becomes of a text of `MOMENTS`, as fields of a cell."""
    if found.startswith("is "):
        return {"faults": [(position, "t", f"{json.dumps(text)} {found}")]}
    return {"rows": [moment(found)]}


def of_json() -> Iterator[tuple[str, Cell]]:
    """JSON lines."""
    one = b'{"n": 1}\n'
    yield "empty", Cell(b"")
    yield "blank lines", Cell(b"\n \n\r\n\t\n")
    yield (
        "truncated",
        Cell(one + b'{"n": 2, "s": "ab', [row(1)], [(2, None, "is no JSON at character 15: Unterminated")]),
    )
    yield (
        "truncated in a character",
        Cell(one + b'{"n": 2, "s": "\xf0\x9f', [row(1)], [(2, None, "is no UTF-8 at byte 16")]),
    )
    yield "Latin-1", Cell(b'{"n": 1, "s": "\xe9"}\n' + one, [row(1)], [(1, None, "is no UTF-8 at byte 16 of the line")])
    yield "overlong UTF-8", Cell(b'{"n": 1, "s": "\xc0\xaf"}\n', [], [(1, None, "is no UTF-8 at byte 16")])
    yield "surrogate in UTF-8", Cell(b'{"n": 1, "s": "\xed\xa0\x80"}\n', [], [(1, None, "is no UTF-8 at byte 16")])
    yield "UTF-16", Cell('{"n": 1}\n'.encode("utf-16"), error="is UTF-16: land it as UTF-8")
    yield "UTF-32", Cell('{"n": 1}\n'.encode("utf-32"), error="is UTF-16: land it as UTF-8")
    yield "zeros", Cell(b"\0" * 100, error="is no UTF-8 text but UTF-16 or binary: land it as UTF-8")
    yield "Parquet", Cell(b"PAR1\x15\x04", error="is Parquet in spite of its format: .*land it as text")
    yield "ORC", Cell(b"ORC\x08\x03", error="is ORC in spite of its format: .*land it as text")
    yield "BOM", Cell(b"\xef\xbb\xbf" + one, [row(1)])
    yield "BOM twice", Cell(b"\xef\xbb\xbf" * 2 + one * 2, [row(1)], [(1, None, "is no JSON at character 1")])
    yield "BOM of a joined file", Cell(one + b"\xef\xbb\xbf" + one, [row(1)], [(2, None, "is no JSON at character 1")])
    yield "CRLF", Cell(b'{"n": 1}\r\n{"n": 2}\r\n', [row(1), row(2)])
    yield "CR alone", Cell(b'{"n": 1}\r{"n": 2}\r', [], [(1, None, "is no JSON at character 10: Extra data")])
    yield "one array", Cell(b'[{"n": 1},\n{"n": 2}]\n', [], [(1, None, "is no JSON at"), (2, None, "is no JSON at")])
    yield "indented", Cell(b'{\n  "n": 1\n}\n', [], [(n, None, "is no JSON") for n in (1, 2, 3)])
    yield "an error page", Cell(b"<html>403</html>", [], [(1, None, "is no JSON at character 1")])
    yield "huge field", Cell(json.dumps(row(1, HUGE)).encode(), [row(1, HUGE)])
    yield "huge number", Cell(b'{"n": %b}' % (b"9" * 5_000), [], [(1, "n", "9" * 100 + "… is out of range for a long")])
    yield "huge key", Cell(b'{"%b": 1, "n": 1}' % HUGE.encode(), [row(1)])
    yield "deep and unwanted", Cell(b'{"n": 1, "y": %b}\n' % (b"[" * DEEP + b"]" * DEEP), [row(1)])
    yield (
        "too deep and unwanted",
        Cell(b'{"n": 1, "y": %b}\n' % (b"[" * (DEEP + 1) + b"]" * (DEEP + 1)), [], [(1, None, "is nested too deeply")]),
    )
    yield "deep and open", Cell(b'{"n": ' + b'{"a":' * 100_000, [], [(1, None, "is nested too deeply")])
    yield "brackets in a text", Cell(b'{"n": 1, "s": "%b\\"["}\n' % (b"[{" * 900), [row(1, "[{" * 900 + '"[')])
    yield "long flat list", Cell(b'{"n": 1, "y": [%b{}]}\n' % (b"[]," * 900), [row(1)])
    yield "key twice", Cell(b'{"n": 1, "s": "a", "s": "b"}\n', [], [(1, "s", "stands twice in the row")])
    yield "unwanted key twice", Cell(b'{"n": 1, "y": 1, "y": 2}\n', [row(1)])
    for word in ("NaN", "Infinity", "-Infinity"):
        found = [(1, None, f"is no JSON: {word} is no number of JSON")]
        yield word, Cell(b'{"d": %b}\n{"d": 1}' % word.encode(), [{"d": 1.0}], found, schema=REAL)
    yield "NaN as text", Cell(b'{"d": "NaN"}\n', [], [(1, "d", '"NaN" is not a double')], schema=REAL)
    yield "too large a double", Cell(b'{"d": 1e400}\n', [], [(1, "d", "1e400 is out of range")], schema=REAL)
    for name, (text, outcome) in MOMENTS.items():
        yield name, Cell(json.dumps({"t": text}).encode(), schema=TIMES, **told(text, 1, outcome))
    yield (
        "mixed offsets",
        Cell(b"\n".join(b'{"t": "%b"}' % text.encode() for text in OFFSETS), [moment(OFFSETS[0])] * 4, schema=TIMES),
    )
    yield (
        "epoch as a number",
        Cell(b'{"t": 1357034400}', [], [(1, "t", "1357034400 is not a timestamptz")], schema=TIMES),
    )
    yield "more keys", Cell(one + b'{"y": {"z": [1]}, "n": 2}', [row(1), row(2)])
    yield "fewer keys", Cell(b'{"n": 1, "s": "a"}\n{"n": 2}\n', [row(1, "a"), row(2)])
    yield "required key gone", Cell(b'{"s": "a"}\n' + one, [row(1)], [(1, "n", "null, but the column is required")])
    yield "key in another case", Cell(b'{"N": 1}\n', [], [(1, "n", "null, but the column is required")])
    yield "number became text", Cell(b'{"n": 1}\n{"n": "2"}\n', [row(1)], [(2, "n", '"2" is not a long')])
    yield "text became a number", Cell(b'{"n": 1, "s": 5}\n', [], [(1, "s", "5 is not a string")])
    yield "text became an object", Cell(b'{"n": 1, "s": {"a": 1}}\n', [], [(1, "s", "an object is not a string")])
    yield "number became a double", Cell(b'{"n": 1.0}\n', [], [(1, "n", "1.0 is not a long")])
    odd = dict.fromkeys(ODD_NAMES, 1)
    yield "odd names", Cell(json.dumps(odd).encode(), [odd], schema=pa.schema([(name, pa.int64()) for name in odd]))
    yield "empty name", Cell(b'{"": 1}', [{"": 1}], schema=pa.schema([("", pa.int64())]))


def of_csv() -> Iterator[tuple[str, Cell]]:
    """CSV."""
    yield "empty", Cell(b"", error="is empty: it has no header line; land it")
    yield "BOM alone", Cell(b"\xef\xbb\xbf", error="is empty: it has no header line")
    yield "blank line alone", Cell(b"\n", error='has no column "n", "s" in its header line')
    yield "header alone", Cell(b"n,s\n")
    yield "truncated", Cell(b"n,s\n1,a\n2", [row(1, "a")], [(3, None, "has not 2 fields but 1")])
    yield "truncated header", Cell(b"n", error='has no column "s" in its header line')
    yield "Latin-1", Cell(b"n,s\n1,\xe9\n2,b\n", [row(2, "b")], [(2, None, "is no UTF-8 at byte 3 of the line")])
    yield "Latin-1 header", Cell(b"n,s,\xe9\n1,a,b\n", error="the header line cannot be read: .*land it")
    yield "UTF-16", Cell("n,s\n1,a\n".encode("utf-16"), error="is UTF-16: land it as UTF-8")
    yield "zeros", Cell(b"\0" * 100, error="is no UTF-8 text but UTF-16 or binary: land it as UTF-8")
    yield "Parquet", Cell(b"PAR1\x15\x04", error="is Parquet in spite of its format: .*land it as text")
    yield "ORC", Cell(b"ORC\x08\x03", error="is ORC in spite of its format: .*land it as text")
    yield "BOM", Cell(b"\xef\xbb\xbfn,s\n1,a\n", [row(1, "a")])
    yield "BOM twice", Cell(b"\xef\xbb\xbf" * 2 + b"n,s\n1,a\n", error=r'has no column "n" .*\(it has .{2}ufeffn., s\)')
    yield "CRLF", Cell(b"n,s\r\n1,a\r\n", [row(1, "a")])
    yield "CR alone", Cell(b"n,s\r1,a\r2,b\r", error=r"has no column \"s\" .*\(it has n, 's.r1', 'a.r2', b\)")
    yield "NUL", Cell(b"n,s\n1,a\0b\n", [row(1, "a\0b")])
    yield "huge field", Cell(b"n,s\n1,%b\n" % HUGE.encode(), [row(1, HUGE)])
    yield (
        "huge number",
        Cell(b"n,s\n%b,a\n" % (b"9" * 5_000), [], [(2, "n", f'"{"9" * 99}… is out of range for a long')]),
    )
    wide = ",".join(f"c{n}" for n in range(5_000))
    yield "very wide", Cell(f"{wide},n,s\n{',' * 5_000}1,a\n".encode(), [row(1, "a")])
    yield "very wide and other", Cell(f"{wide}\n".encode(), error=r"has no column .*c19, … 5,000 in all\)")
    yield "name twice", Cell(b"n,s,s\n1,a,b\n", error="the header line names columns twice: s; rename")
    for word in ("NaN", "Infinity", "-inf"):
        found = [(2, "d", f'"{word}" is not a double')]
        yield word, Cell(b"d,x\n%b,1\n1,1\n" % word.encode(), [{"d": 1.0}], found, schema=REAL)
    for name, (text, outcome) in MOMENTS.items():
        yield name, Cell(f"t,x\n{text},1\n".encode(), schema=TIMES, **told(text, 2, outcome))
    mixed = "\n".join(f"{text},1" for text in OFFSETS)
    yield "mixed offsets", Cell(f"t,x\n{mixed}\n".encode(), [moment(OFFSETS[0])] * 4, schema=TIMES)
    yield "more columns", Cell(b"y,n,s,z\n9,1,a,9\n", [row(1, "a")])
    yield "other order", Cell(b"s,n\na,1\n", [row(1, "a")])
    yield "column gone", Cell(b"n,y\n1,a\n", error=r'has no column "s" in its header line \(it has n, y\)\. Land')
    yield "column in another case", Cell(b"N,s\n1,a\n", error='has no column "n" .*Land')
    yield "blanks around a name", Cell(b"n, s\n1,a\n", error='has no column "s" .*Land')
    yield "no header", Cell(b"1,a\n2,b\n", error=r'has no column "n", "s" .*\(it has 1, a\)\. Land')
    yield "other delimiter", Cell(b"n;s\n1;a\n", error=r'has no column "n", "s" .*\(it has n;s\)\. Land')
    yield "number became text", Cell(b"n,s\n1,a\nx,b\n", [row(1, "a")], [(3, "n", '"x" is not a long')])
    yield "required field empty", Cell(b"n,s\n,a\n", [], [(2, "n", "null, but the column is required")])
    yield "a field more", Cell(b"n,s\n1,a,\n", [], [(2, None, "has not 2 fields but 3")])
    yield "a formula", Cell(b"n,s\n=1+1,a\n2,=1+1\n", [row(2, "=1+1")], [(2, "n", '"=1+1" is not a long')])
    header = ",".join('"' + name.replace('"', '""') + '"' for name in ODD_NAMES)
    odd = dict.fromkeys(ODD_NAMES, 1)
    body = f"{header}\n{','.join('1' for _ in odd)}\n".encode()
    yield "odd names", Cell(body, [odd], schema=pa.schema([(name, pa.int64()) for name in odd]))


def of_quotes() -> Iterator[tuple[str, Cell]]:
    """CSV: quotes, and what only they make part of a field."""
    yield "truncated in quotes", Cell(b'n,s\n1,a\n2,"b', [row(1, "a")], [(3, None, "a quote is not closed")])
    yield (
        "open quote",
        Cell(b'n,s\n1,"a,2\n2,b\n3,"c""\n', [row(2, "b")], [(n, None, "a quote is not closed") for n in (2, 4)]),
    )
    yield "text behind a quote", Cell(b'n,s\n"1"0,a\n2,"x"y\n3,"x" \n', [row(10, "a"), row(2, "xy"), row(3, "x ")])
    yield "quote within", Cell(b'n,s\n1,a"b\n2, "c"\n', [row(1, 'a"b'), row(2, ' "c"')])
    yield (
        "quotes in quotes",
        Cell(b'n,s\n1,"a ""b"", c"\n2,""""\n3,""\n', [row(1, 'a "b", c'), row(2, '"'), row(3, "")]),
    )
    yield "CR within", Cell(b"n,s\n1,a\r2,b\n2,a\rb\n", [row(2, "a\rb")], [(2, None, "has not 2 fields but 3")])
    yield "CR in quotes", Cell(b'n,s\n1,"a\rb"\n', [row(1, "a\rb")])
    yield "NUL in quotes", Cell(b'n,s\n1,"a\0b"\n', [row(1, "a\0b")])
    yield (
        "line feed in quotes",
        Cell(
            b'n,s\n1,"a\nb"\n2,c\n', [row(2, "c")], [(2, None, "a quote is not closed"), (3, None, "has not 2 fields")]
        ),
    )


def of_stored(write: Callable[[pa.Table], bytes], what: str, *, far: bool) -> Iterator[tuple[str, Cell]]:
    """Cells of a format that brings its own types; `far`: it takes times of every year."""
    table = pa.table({"n": [1, 2], "s": ["a", None]})
    body = write(table)
    broken = f"is no {what}, truncated or damaged .*: land it again"
    yield "empty", Cell(b"", error=broken)
    yield "zeros", Cell(b"\0" * 1_000, error=broken)
    yield "text", Cell(b'{"n": 1}\n' * 9, error=broken)
    yield "gzip", Cell(gzip.compress(body), error=broken)
    yield "truncated", Cell(body[: len(body) // 2], error=broken)
    yield "truncated by a byte", Cell(body[:-1], error=broken)
    yield "joined with text", Cell(body + b"\n", error=broken)
    yield "without rows", Cell(write(table.slice(0, 0)))
    yield "without columns", Cell(write(pa.table({})), error=r'has no column "n" \(it has \); has no column "s"')
    yield "huge field", Cell(write(pa.table({"n": [1], "s": [HUGE]})), [row(1, HUGE)])
    numbers = [1.5, math.inf, -math.inf]
    yield "infinity", Cell(write(pa.table({"d": numbers})), [{"d": each} for each in numbers], schema=REAL)
    yield (
        "NaN as a long",
        Cell(write(pa.table({"n": [math.nan, 1.0], "s": ["", ""]})), [row(1, "")], [(1, "n", "NaN does")]),
    )
    twice = pa.Table.from_arrays([pa.array([1]), pa.array(["a"]), pa.array(["b"])], names=["n", "s", "s"])
    yield "name twice", Cell(write(twice), error='has the column "s" twice. Land')
    cased = pa.table({"n": [1], "s": ["a"], "N": [2], "S": ["b"]})
    yield "names that differ in case", Cell(write(cased), [row(1, "a")])
    latin = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a\xe9", b"b"]).buffers())
    yield "Latin-1", Cell(write(pa.table({"s": latin})), [{"s": "b"}], [(1, "s", '"a')], schema=TEXT)
    yield from _stored_times(write, far=far)
    yield from _stored_drift(write, table)
    odd = dict.fromkeys(ODD_NAMES, 1)
    yield (
        "odd names",
        Cell(
            write(pa.table({name: [1] for name in odd})), [odd], schema=pa.schema([(name, pa.int64()) for name in odd])
        ),
    )
    beside = pa.table({"a.b": [1], "a": [{"b": 2}]})
    yield "a name that is another's path", Cell(write(beside), [{"a.b": 1}], schema=pa.schema([("a.b", pa.int64())]))
    kind, value = pa.int64(), 7
    for _ in range(20):  # as many as a spec may have
        kind, value = pa.list_(kind), [value]  # type: ignore[assignment]  # deeper
    yield "deep", Cell(write(pa.table({"l": pa.array([value], kind)})), [{"l": value}], schema=pa.schema([("l", kind)]))


def _stored_times(write: Callable[[pa.Table], bytes], *, far: bool) -> Iterator[tuple[str, Cell]]:
    times = ["1969-12-31T23:59:59.999999+00:00", "1883-11-18T12:03:57+00:00", "1677-09-22T00:00:00+00:00"]
    times += ["2013-03-10T02:30:00+00:00", "2016-12-31T23:59:59.999999+00:00"]
    far_times = ["0001-01-01T00:00:00+00:00", "1582-10-10T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00"]
    moments = [moment(text) for text in times]
    yield "times", Cell(write(pa.table({"t": pa.array([each["t"] for each in moments], AT)})), moments, schema=TIMES)
    local = pa.array([each["t"].replace(tzinfo=None) for each in moments], pa.timestamp("us"))
    yield "times without a zone", Cell(write(pa.table({"t": local})), moments, schema=TIMES)
    berlin = pa.array([each["t"] for each in moments], pa.timestamp("us", "Europe/Berlin"))
    yield "times of another zone", Cell(write(pa.table({"t": berlin})), moments, schema=TIMES)
    moments = [moment(text) for text in far_times]
    old = write(pa.table({"t": pa.array([each["t"] for each in moments], AT)}))
    never = "has a timestamp that .*: land it as Parquet"
    yield "far times", Cell(old, moments if far else [], error="" if far else never, schema=TIMES)
    beyond = pa.array([2**62, None], pa.int64()).cast(AT)
    found = [(1, "t", "4611686018427387904 does not fit a timestamptz")] if far else []
    rows: list[dict[str, Any]] = [{"t": None}] if far else []
    yield "year 146000", Cell(write(pa.table({"t": beyond})), rows, found, "" if far else never, TIMES)
    sharp = write(pa.table({"t": pa.array([1, 1_000], NS)}))
    rows = [{"t": datetime(1970, 1, 1, microsecond=1, tzinfo=UTC)}]
    yield "nanoseconds", Cell(sharp, rows, [(1, "t", '"1970-01-01 00:00:00.000000001')], schema=TIMES)


def _stored_drift(write: Callable[[pa.Table], bytes], table: pa.Table) -> Iterator[tuple[str, Cell]]:
    yield "more columns", Cell(write(table.append_column("y", pa.array([[1], []]))), [row(1, "a"), row(2)])
    yield "other order", Cell(write(table.select(["s", "n"])), [row(1, "a"), row(2)])
    yield "column gone", Cell(write(table.drop_columns(["s"])), error=r'has no column "s" \(it has n\)\. Land')
    wide = pa.table({f"c{n}": [1] for n in range(200)})
    yield "very wide and other", Cell(write(wide), error=r"has no column .*c19, … 200 in all\)")
    yield (
        "required null",
        Cell(
            write(pa.table({"n": [None, 2], "s": ["a", "b"]})),
            [row(2, "b")],
            [(1, "n", "null, but the column is required")],
        ),
    )
    narrow = pa.table({"n": pa.array([1], pa.int8()), "s": ["a"]})
    yield "number became narrower", Cell(write(narrow), [row(1, "a")])
    yield (
        "number became a double",
        Cell(write(pa.table({"n": [1.0, 1.5], "s": ["a", "b"]})), [row(1, "a")], [(2, "n", "1.5 does not fit a long")]),
    )
    wrong = pa.table({"n": ["1"], "s": ["a"]})
    yield "number became text", Cell(write(wrong), error='has the column "n" as string, which is no long. Land')


CODECS = {"gz": "gzip", "bz2": "bz2", "zst": "zstd", "lz4": "lz4", "br": "brotli"}


def of_packed(form: str, text: bytes, codec: str) -> Iterator[tuple[str, Cell]]:
    """Compressed text, of any codec."""
    body = packed(codec, text)
    again = ".*: land it again"
    nothing = "is empty: it has no header line" if form == "csv" else ""
    yield "0 bytes", Cell(b"", error=f"is empty, which no {codec} file is: land it again")
    yield "nothing packed", Cell(packed(codec, b""), error=nothing)
    yield "truncated", Cell(body[:-3], error="is truncated: land it again")
    yield "not packed", Cell(text, error=f"is damaged or no {codec} file{again}")
    yield "zeros", Cell(b"\0" * 100, error=f"is damaged or no {codec} file{again}")
    yield "zeros behind", Cell(body + b"\0" * 512, error=f"is damaged or no {codec} file{again}")
    yield "packed twice", Cell(packed(codec, gzip.compress(text)), error="is gzip in spite of its name: land it")
    yield "BOM", Cell(packed(codec, b"\xef\xbb\xbf" + text), [row(1, "a")])
    yield "joined", Cell(body + packed(codec, b'{"n": 2}\n' if form == "jsonl" else b"2,\n"), [row(1, "a"), row(2)])


def cells() -> dict[str, Cell]:
    """Give the whole table, by `format-oddity`."""
    found: dict[str, Cell] = {}
    stored = {
        "parquet": of_stored(parquet, "Parquet", far=True),
        "orc": of_stored(orc_file, "ORC", far=False),
    }
    for form, of_form in {"jsonl": of_json(), "csv": chain(of_csv(), of_quotes()), **stored}.items():
        found |= {f"{form}-{oddity}": cell for oddity, cell in of_form}
    for form, text in (("jsonl", b'{"n": 1, "s": "a"}\n'), ("csv", b"n,s\n1,a\n")):
        for suffix, codec in CODECS.items():
            found |= {f"{form}.{suffix}-{oddity}": cell for oddity, cell in of_packed(form, text, codec)}
    return found


CELLS = cells()
TEXTS = {name: cell for name, cell in CELLS.items() if name.startswith(("csv-", "jsonl-"))}
READ_TO_THE_END = {name: cell for name, cell in TEXTS.items() if not cell.error}


def assert_is(found: Any, cell: Cell) -> None:
    """Hold rows and bad rows against a cell."""
    assert found.rows == list(cell.rows)
    assert [(position, column) for position, column, _ in found.faults] == [fault[:2] for fault in cell.faults]
    for (_, _, reason), (_, _, begins) in zip(found.faults, cell.faults, strict=True):
        assert reason.startswith(begins)


@pytest.mark.parametrize("name", CELLS)
def test_input_is_rows_rejects_or_a_clear_error(read: Read, name: str) -> None:
    """Nothing is lost, nothing is guessed, and no other library's error comes through."""
    cell, file = CELLS[name], name.partition("-")[0]
    if cell.error:
        with pytest.raises(DataError, match=rf"/a\.{re.escape(file)}:? {cell.error}") as raised:
            read(f"a.{file}", cell.body, cell.schema)
        assert WAY_OUT.search(str(raised.value))
    else:
        assert_is(read(f"a.{file}", cell.body, cell.schema), cell)


@pytest.mark.parametrize("name", READ_TO_THE_END)
def test_a_bad_line_beside_changes_nothing(read: Read, name: str) -> None:
    """A block that has to be read line by line gives the same rows as the quick way."""
    cell, form = READ_TO_THE_END[name], name.partition("-")[0]
    body = cell.body + b"\n" * (not cell.body.endswith(b"\n") and bool(cell.body))
    found = read(f"a.{form}", body + (b'"\n' if form == "csv" else b"{\n"), cell.schema)
    last = (body.count(b"\n") + 1, None, "a quote is not closed" if form == "csv" else "is no JSON at character 2")
    assert_is(found, replace(cell, faults=[*cell.faults, last]))


@pytest.mark.parametrize("name", TEXTS)
def test_splits_give_the_same(read: Read, name: str) -> None:
    """Text that is read in ranges gives the same rows, as many rejects, or an error of the same class."""
    cell, form = TEXTS[name], name.partition("-")[0]
    target = max(len(cell.body) // 5, 7)
    if cell.error:
        with pytest.raises(DataError, match=rf"/a\.{form}"):
            read(f"a.{form}", cell.body, cell.schema, target_bytes=target)
        return
    found = read(f"a.{form}", cell.body, cell.schema, target_bytes=target)
    assert found.rows == list(cell.rows)
    assert [column for _, column, _ in found.faults] == [column for _, column, _ in cell.faults]


NATURAL = {
    "jsonl": b'{"n": 1, "s": "a"}\n{"n": 2, "s": null}\n',
    "csv": b'n,s\n1,a\n2,"b,c"\n',
    "jsonl.gz": gzip.compress(b'{"n": 1, "s": "a"}\n' * 50, mtime=0),
    "csv.zst": packed("zstd", b"n,s\n" + b"1,a\n" * 50),
}  # text only: a footer with some bits flipped may abort the process in Arrow itself (pyarrow 26.0)


@pytest.mark.parametrize("form", NATURAL)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_rows_rejects_or_a_clear_error(read: Read, form: str, data: st.DataObject) -> None:
    """Whatever bytes of a text are changed, cut out or put in, no other library's error comes through."""
    body = NATURAL[form]
    at = data.draw(st.integers(0, len(body)))
    cut = data.draw(st.integers(0, 4) | st.just(len(body)))
    put = data.draw(st.binary(max_size=4) | st.sampled_from([b"\0" * 9, b'"', b"{", b"\xef\xbb\xbf", b"\r", b"NaN"]))
    try:
        found = read(f"a.{form}", body[:at] + put + body[at + cut :], SCHEMA)
    except DataError as error:
        assert f"/a.{form}" in str(error)  # noqa: PT017  # either is right
        assert WAY_OUT.search(str(error))  # noqa: PT017
    else:
        assert all(reason for _, _, reason in found.faults)

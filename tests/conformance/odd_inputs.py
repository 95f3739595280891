"""Odd inputs that an engine, or a reader of its own, could take otherwise: a part of `tests/sources/test_corpus.py`.

What our readers make of a file is the same wherever they run, so each kind of outcome stands here once. `reader: spark`
is Spark's, and Sail's: there every cell that could differ stands.
"""

import gzip
import json
import math
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from tests.conformance.cases import (
    AT,
    FILE,
    SMALL_TABLE,
    TEXT_AT,
    Case,
    Row,
    csv,
    jsonl,
    orc,
    parquet,
    table,
    through_sql,
)
from tests.conformance.cases import CASES as COMMON

UTC_US = pa.timestamp("us", "UTC")
NO_READER = {"sail": "sail has no reader for .*`reader: arrow`"}
AT_NS = int(AT.timestamp()) * 10**9
BEYOND = r'2013-01-01-10\.\w+ "x": a time .*`reader: arrow` tells the row'
UNLIKE = r'2013-01-01-10\.\w+ has the column "x" as .*which is no .*`reader: arrow` casts'

TIMES = [
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(1582, 10, 10, tzinfo=UTC),
    datetime(1883, 11, 18, 12, 3, 57, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2013, 3, 10, 2, 30, tzinfo=UTC),
    datetime(2016, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
]
TIME_COLUMNS = {
    "t": pa.array(TIMES, UTC_US),
    "l": pa.array([each.replace(tzinfo=None) for each in TIMES], pa.timestamp("us")),
    "d": pa.array([each.date() for each in TIMES]),
}
TIME_ROWS: list[Row] = [
    {"id": n, "t": each, "l": each.replace(tzinfo=None), "d": each.date()} for n, each in enumerate(TIMES)
]
TIME_TEXTS: list[Row] = [
    {"t": each.isoformat(), "l": each.replace(tzinfo=None).isoformat(), "d": each.date().isoformat()} for each in TIMES
]
TIME_TYPES = "t: timestamptz, l: timestamp, d: date"
OFFSETS = ["2013-01-01T10:00:00Z", "2013-01-01T12:00:00+02:00", "2013-01-01T10:00:00", "2013-03-10T02:30:00-05:00"]
ZONED = [AT, AT, AT, datetime(2013, 3, 10, 7, 30, tzinfo=UTC)]
REALS = [math.nan, math.inf, -math.inf]
ODD_NAMES = ("naïve 東京", "a-b", "select", "a b", "a'b", 'q"q', "1x", "%H")
DEEP = jsonl([{"size": 1.5}]).replace(b"}", b', "y": %b}' % (b"[" * 900 + b"]" * 900))


def by_spark(case: Case) -> Case:
    """Let the engine's own reader read a case; Sail has that of Parquet only."""
    parquets = next(iter(case.files)).endswith(".parquet")
    return replace(
        case,
        name=f"{case.name}_by_spark",
        source="reader: spark",
        refused={} if parquets else NO_READER,
    )


def lost(name: str, stored: pa.Array, error: str, kind: str = "", form: str = "parquet") -> Case:
    """Make a case of a column `x` that the engine's own reader would change; `kind` is wanted of it."""
    body = {"parquet": parquet, "orc": orc}[form](table({"x": stored}))
    keys = {"columns": f"{{at: timestamptz!, id: long!, x: {kind}}}"} if kind else {}
    return by_spark(Case(f"{name}_{form}", {f"{FILE}.{form}": body}, error=error, keys=keys))


def drifted(
    name: str, first: pa.Array | None, second: pa.Array | None, rows: list[Any] | None, error: str
) -> list[Case]:
    """Make cases of two files whose column `x` differs, or is not there, for our reader and for Spark's.

    Where there are rows and an error, the rows are our reader's.
    """
    files = {
        f"{FILE}.{file}.parquet": parquet(table({"y": pa.array([1])} | ({} if x is None else {"x": x})))
        for file, x in (("a", first), ("b", second))
    }
    found = rows and [{"id": 0, "y": 1} | ({} if first is None else {"x": x}) for x in rows]
    case = Case(name, files, rows=found, error="" if found else error, suffix=".*.parquet")
    spark = replace(case, rows=None, error=error) if error else case
    return [case, by_spark(spark)]


_TIMES = Case("odd_times", {f"{FILE}.parquet": parquet(table(TIME_COLUMNS))}, rows=TIME_ROWS)
_TIME_TEXTS = Case("odd_time_texts", {f"{FILE}.jsonl": jsonl(TIME_TEXTS)}, TIME_TYPES, TIME_ROWS)
_OFFSETS = Case(
    "mixed_offsets",
    {f"{FILE}.csv": csv("t", *OFFSETS)},
    "t: timestamptz",
    [{"id": n, "t": each} for n, each in enumerate(ZONED)],
)
_REALS = Case(
    "odd_doubles",
    {f"{FILE}.parquet": parquet(table({"x": pa.array(REALS)}))},
    rows=[{"id": n, "x": each} for n, each in enumerate(REALS)],
)
_NAMES = {name: pa.array([1]) for name in ODD_NAMES}
_NAMED = Case("odd_names", {f"{FILE}.parquet": parquet(table(_NAMES))}, rows=[{"id": 0, **dict.fromkeys(ODD_NAMES, 1)}])
_HUGE = "x" * 3_000_000
_BOM = Case("odd_bom", {f"{FILE}.csv": b"\xef\xbb\xbf" + csv("size", "1.5")}, "size: double", [{"id": 0, "size": 1.5}])
_LATIN = Case(
    "latin_1",
    {f"{FILE}.csv": csv("s", "a", "b").replace(b"b\n", b"\xe9\n")},
    "s: string",
    error=r"10\.csv.*is no UTF-8",
)
_LATIN_JSON = Case(
    "latin_1_json",
    {f"{FILE}.jsonl": jsonl([{"s": "a"}, {"s": "b"}]).replace(b'"b"', b'"\xe9"')},
    "s: string",
    error=r"10\.jsonl.*is no UTF-8",
)
_TWICE = Case(
    "key_twice_in_a_line",
    {f"{FILE}.jsonl": jsonl([{"size": 1.5}]).replace(b"}", b', "size": 2.5}')},
    "size: double",
    error=r'10\.jsonl:1.*"size"',
)
_CUT = Case("cut_off_file", {f"{FILE}.parquet": parquet(SMALL_TABLE)[:-20]}, error=r"10\.parquet .*truncated")
_CUT_CSV = Case(
    "cut_off_csv",
    {f"{FILE}.csv.gz": gzip.compress(csv("size", *["1.5"] * 99))[:-40]},
    "size: double",
    error=r"10\.csv\.gz.*truncated",
)
_ILL_QUOTED = r"10\.csv: a quote that is not closed on its line.*`reader: arrow` takes more, and tells"
_OPEN = r"10\.csv:\d: a quote is not closed on its line"
_GOOD_QUOTES = ['a "b", c', "", '"', 'd"e', ' "f"', "g", "h"]
_LONE_RETURN = r"10\.csv: a carriage return that ends no line"


def quoted(name: str, *lines: str, rows: list[str] | None = None, error: str = "", spark: str = "") -> list[Case]:
    """Make cases of CSV lines with a text `s`, for our reader and for Spark's.

    Args:
        name: of the case.
        lines: behind `at` and `id`; the last one without its end.
        rows: what our reader finds in `s`; Spark's, too, where it says nothing.
        error: what our reader says.
        spark: what Spark's says.
    """
    found = None if rows is None else [{"id": number, "s": text} for number, text in enumerate(rows)]
    case = Case(name, {f"{FILE}.csv": csv("s", *lines).removesuffix(b"\n")}, "s: string", found, error)
    return [case, by_spark(replace(case, rows=None, error=spark) if spark else case)]


_LEAP = Case(
    "leap_second", {f"{FILE}.csv": csv("t", "2016-12-31T23:59:60Z")}, "t: timestamptz", error=r"10\.csv.*23:59:60"
)
_YEAR = Case(
    "year_10000", {f"{FILE}.jsonl": jsonl([{"x": "10000-01-01T00:00:00Z"}])}, "x: timestamptz", error=r'jsonl(:1)? "x"'
)

ODD = [
    # What goes through an engine, or its reader, arrives as it is.
    through_sql(_TIMES, TIME_TYPES),
    by_spark(_TIMES),
    through_sql(_TIME_TEXTS, TIME_TYPES),
    by_spark(_TIME_TEXTS),
    _OFFSETS,
    by_spark(_OFFSETS),
    through_sql(_REALS, "x: double"),
    by_spark(_REALS),
    through_sql(_NAMED, ", ".join(f"{json.dumps(name, ensure_ascii=False)}: long" for name in ODD_NAMES)),
    by_spark(_NAMED),
    through_sql(
        Case("huge_field", {f"{FILE}.jsonl": jsonl([{"s": _HUGE}])}, "s: string", [{"id": 0, "s": _HUGE}]), "s: string"
    ),
    _BOM,
    by_spark(_BOM),
    # What is no row.
    _LATIN,
    by_spark(replace(_LATIN, error=r'10\.csv "s": a character U\+FFFD, which Spark puts in place')),
    _LATIN_JSON,
    by_spark(replace(_LATIN_JSON, error=r"10\.jsonl: \[MALFORMED_RECORD")),
    _TWICE,
    by_spark(replace(_TWICE, rows=[{"id": 0, "size": 2.5}], error="")),  # as docs/configuration.md says
    _CUT,
    by_spark(_CUT),
    _CUT_CSV,
    by_spark(replace(_CUT_CSV, error=r"10\.csv\.gz: \[FAILED_READ_FILE")),
    *quoted("cut_off_in_quotes", "a", '"b', error=_OPEN, spark=_ILL_QUOTED),
    *quoted("cut_off_in_doubled_quotes", "a", '"b""', error=_OPEN, spark=_ILL_QUOTED),
    *quoted("cut_off_text", "a", "b", rows=["a", "b"]),  # which nobody can tell from a whole one
    *quoted("open_quote", '"a,2', "b", error=_OPEN, spark=_ILL_QUOTED),
    *quoted("line_feed_in_quotes", f'"a\n{TEXT_AT},1,b"', "c", error=_OPEN, spark=_ILL_QUOTED),
    *quoted("return_in_quotes", f'"a\r{TEXT_AT},1,b"', rows=[f"a\r{TEXT_AT},1,b"], spark=_LONE_RETURN),
    *quoted("return_within", f"a\r{TEXT_AT},1,b", "c", error=r"10\.csv:2: has not 3 fields", spark=_LONE_RETURN),
    *quoted("nul_in_quotes", '"a\0b"', rows=["a\0b"], spark=_ILL_QUOTED),
    *quoted("text_behind_a_quote", '"x"y', '"x" ', rows=["xy", "x "], spark=_ILL_QUOTED),
    *quoted("good_quotes", '"a ""b"", c"', '""', '""""', 'd"e', ' "f"', '"g"\r', "h", rows=_GOOD_QUOTES),
    _LEAP,
    by_spark(_LEAP),
    _YEAR,
    by_spark(_YEAR),
    Case("too_deep", {f"{FILE}.jsonl": DEEP}, "size: double", error=r"10\.jsonl:1: is nested too deeply"),
    Case(
        "too_deep_rejected",
        {f"{FILE}.jsonl": DEEP + jsonl([{"size": 2.5}])},
        "size: double",
        [{"id": 0, "size": 2.5}],
        source="bad_rows: reject",
    ),
    # What Spark's readers give as something else, without a word.
    lost("far_instant", pa.array([2**62], pa.int64()).cast(UTC_US), BEYOND),
    lost("far_day", pa.array([-800_000], pa.int32()).cast(pa.date32()), BEYOND),
    lost("julian_day", pa.array([date(1582, 10, 14)]), BEYOND, form="orc"),
    lost("nanoseconds", pa.array([AT_NS + 1], pa.timestamp("ns", "UTC")), UNLIKE),
    lost("unsigned", pa.array([2**63], pa.uint64()), UNLIKE),
    *(
        lost(name, stored, UNLIKE, kind, form)
        for form in ("parquet", "orc")
        for name, stored, kind in (
            ("too_long", pa.array([2**40]), "int"),
            ("no_text", pa.array([b"\xff"]), "string"),
            ("cut_off", pa.array([1.5]), "long"),
        )
    ),
    # Schema drift, both ways.
    *drifted("more_columns", None, pa.array([1]), [None, None], ""),
    *drifted(
        "fewer_columns", pa.array([1]), None, None, r'10\.b\.parquet has no column "x" \(it has at, id, y\)\. Land'
    ),
    *drifted("became_text", pa.array([1]), pa.array(["1"]), None, r'10\.b\.parquet has the column "x" as string'),
    *drifted(
        "became_longer", pa.array([1], pa.int32()), pa.array([2]), [1, 2], r'10\.b\.parquet has the column "x" as int64'
    ),
    *drifted("became_nulls", pa.array([1]), pa.nulls(1), [1, None], ""),
    # What is no file.
    *(
        case
        for form in ("csv", "csv.gz", "jsonl.gz", "parquet", "orc")
        for given in [
            Case(
                f"nothing_{form.replace('.', '_')}",
                {f"{FILE}.{form}": b""},
                "" if form in {"parquet", "orc"} else "size: double",
                error=rf"10\.{form}(:| is) (empty|no) ?.*: (land it|it has)",
            )
        ]
        # Without `columns` a file is asked for its own before anybody reads it.
        for case in (given, replace(by_spark(given), refused=NO_READER if given.columns else {}))
    ),
    Case("nothing_jsonl", {f"{FILE}.jsonl": b""}, "size: double", []),
    Case(
        "a_folder",
        {f"{FILE}.jsonl/part-0": jsonl([{}])},
        error=r"10\.jsonl is a folder, no object; write .*10\.jsonl/\*",
        suffix=".jsonl",
    ),
]

CASES = {case.name: case for case in (*COMMON.values(), *ODD)}

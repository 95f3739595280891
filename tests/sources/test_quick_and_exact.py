"""Arrow's quick way and the exact way agree: what the quick one accepts, the exact one accepts with the same values."""

from collections.abc import Iterable
from typing import TypeVar

import pyarrow as pa
from hypothesis import event, given, settings
from hypothesis import strategies as st

from lakehouse_pipeline.sources import csv_rows, json_lines
from lakehouse_pipeline.sources.bad_rows import BadRow
from lakehouse_pipeline.sources.columns import Rows
from lakehouse_pipeline.sources.lines import Block

T = TypeVar("T")

EXAMPLES = 500  # of each property; hundreds of thousands were run while this was written

TYPES = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "money": pa.decimal128(10, 2),
    "ratio": pa.decimal128(38, 10),
    "share": pa.decimal128(38, 38),
    "day": pa.date32(),
    "local": pa.timestamp("us"),
    "at": pa.timestamp("us", "UTC"),
    "text": pa.string(),
    "bytes": pa.binary(),
}


def mostly(one: st.SearchStrategy[T], other: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """Seven times out of eight the first."""
    return st.integers(0, 7).flatmap(lambda number: one if number else other)


ODD_NUMBERS = st.sampled_from(
    [
        *("-0", "1.0", "01", "+1", "1.", ".5", "1e", "0x10", "0XF", "1_0", " 1", "1 ", "-", "1E-2", "1.500"),
        *("NaN", "nan", "-NaN", "Inf", "inf", "-Infinity", "1e400", "-1e400", "1e39", "1e-400", "5e-324"),
        *("3.4028235677973366e+38", "3.40282356779733e+38", "16777217", "2147483648", "-2147483648"),
        *("9223372036854775807", "9223372036854775808", str(2**128 + 1), str(2**256 + 1), "1." + "0" * 260),
    ]
)
WHOLE = st.integers(-1000, 1000).map(str)
NUMBERS = (
    WHOLE
    | st.from_regex(r"0\.[0-9]{2}", fullmatch=True)
    | st.from_regex(r"-?(0|[1-9][0-9]{0,44})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)
    | ODD_NUMBERS
)
DAYS = st.from_regex(r"(0000|0001|1969|2012|9999)-(0[0-9]|1[0-3])-([012][0-9]|3[0-2])", fullmatch=True)
TIMES = DAYS | st.from_regex(
    r"(0001|2012|9999)-(01|12)-(01|31)[Tt ](0[0-9]|1[0-9]|2[0-5])(:[0-6][0-9](:[0-6][0-9](\.[0-9]{1,9})?)?)?"
    r"([Zz]|[+-][0-2][0-9](:?[0-6][0-9])?)?",
    fullmatch=True,
)
TEXTS = st.lists(
    st.sampled_from(
        [*'ab \\",é😀\t\r\0{}[]/\x7f\ufeff', "NaN", ": Inf", "null", "\\u00e9", "\\ud800", "\\ud83d\\ude00"]
    ),
    max_size=4,
).map("".join)


def of_column(name: str) -> st.SearchStrategy[str]:
    """Texts that the column may take, and near misses."""
    if name == "boolean":
        return st.sampled_from(["true", "false", "True", "tRUE", "1", "0", "yes", "\u017f", "null"])
    if name in ("local", "at"):
        return TIMES
    if name == "day":
        return DAYS
    if name in ("int", "long"):
        return mostly(WHOLE, NUMBERS)
    return TEXTS if name in ("text", "bytes", "other") else NUMBERS


def in_quotes(text: str) -> str:
    """Quote as JSON does, leaving the text's own escapes, right or wrong."""
    return f'"{text}"'


def json_value(name: str) -> st.SearchStrategy[str]:
    """JSON for the column, mostly of its kind."""
    value = of_column(name)
    proper = value.map(in_quotes) if name in ("day", "local", "at", "text", "bytes", "other") else value
    odd = st.sampled_from(["null", "true", "{}", "[]", "[null]", '{"int":1,"int":2}', "nul", "'a'", '"'])
    return mostly(proper, value.map(in_quotes) | odd)


BLANKS = mostly(st.just(""), st.sampled_from([" ", "\r", "\t", "\x0b"]))
ODD_LINES = st.sampled_from(
    ["", " ", "null", "[1]", "{}{}", "{}null", '{}{"other":', "}", '{"other":[{}', "]}", "\ufeff{}", "{} {"]
)


def json_line(names: list[str]) -> st.SearchStrategy[str]:
    """An object of some of the fields, mostly."""
    known = st.lists(st.sampled_from([*names, "other"]), max_size=3, unique=True)
    some = mostly(known, st.lists(st.sampled_from([*TYPES, "other"]), max_size=3))
    pairs = some.flatmap(lambda found: st.tuples(*(st.tuples(st.just(n), json_value(n), BLANKS) for n in found)))
    line = pairs.map(lambda found: "{" + ",".join(f'{blank}"{n}":{blank}{v}' for n, v, blank in found) + "}")
    return st.tuples(mostly(line, ODD_LINES), BLANKS).map("".join)


def csv_field(name: str) -> st.SearchStrategy[str]:
    """A field for the column, sometimes in quotes, sometimes wrongly."""
    value = of_column(name)
    doubled = value.map(lambda text: '"' + text.replace('"', '""') + '"')
    odd = st.sampled_from(["", '""', 'a"b', '"a"b', '"a""b"', '"a', 'a""', '"a"" ', '"x"y"', "NA"])
    return mostly(mostly(value, doubled), odd)


def block_of(lines: Iterable[str], encoding_errors: str, *, at_end: bool, at_byte: bool) -> Block:
    """Join lines to a block; surrogates become broken UTF-8, or question marks."""
    data = "\n".join(lines).encode(errors=encoding_errors) + (b"" if at_end else b"\n")
    data = data or b"\n"
    return Block(data, data.count(b"\n") + (not data.endswith(b"\n")), 7, at_byte)


SCHEMAS = st.lists(st.sampled_from(list(TYPES)), min_size=1, max_size=3, unique=True).flatmap(
    lambda names: st.lists(
        mostly(st.just(value=True), st.just(value=False)), min_size=len(names), max_size=len(names)
    ).map(lambda nullable: pa.schema([pa.field(n, TYPES[n], b) for n, b in zip(names, nullable, strict=True)]))
)


def assert_agree(quick: Rows | None, exact: Rows, bad: list[BadRow]) -> None:
    """Where the quick way answers, it is the exact way's answer, without a bad row."""
    event("quick" if quick else "exact only")
    for column in exact[0].columns:
        column.validate(full=True)
    if quick is not None:
        assert bad == []
        assert quick[0].schema == exact[0].schema
        assert repr(quick[0].to_pydict()) == repr(exact[0].to_pydict())  # minus zero is not zero
        assert quick[0].equals(exact[0])
        assert quick[1].equals(exact[1])


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), schema=SCHEMAS, at_end=st.booleans(), at_byte=st.booleans())
def test_json_lines_agree(data: st.DataObject, schema: pa.Schema, *, at_end: bool, at_byte: bool) -> None:
    """Good and bad JSON lines: the way that reads a block does not show in its rows."""
    lines = data.draw(st.lists(json_line(schema.names), min_size=1, max_size=2))
    broken = data.draw(st.sampled_from(["replace", "surrogatepass"]))
    block = block_of(lines, broken, at_end=at_end, at_byte=at_byte)
    bad: list[BadRow] = []
    exact = json_lines.exact(block, schema, "u", bad.extend)
    assert_agree(json_lines.quick(block, schema), exact, bad)


@settings(max_examples=EXAMPLES // 4, deadline=None)  # each one builds more than a flat one
@given(data=st.data(), inner=SCHEMAS, required=st.booleans())
def test_nested_json_agrees(data: st.DataObject, inner: pa.Schema, *, required: bool) -> None:
    """Structs, and lists of structs, good and bad: the way that reads a block does not show in its rows."""
    struct = pa.struct(list(inner))
    items = pa.list_(pa.field("element", struct, nullable=not required))
    schema = pa.schema([pa.field("one", struct, nullable=not required), ("many", items)])
    value = mostly(json_line(inner.names), st.sampled_from(["null", "[]", "1"]))
    several = mostly(st.lists(value, max_size=2).map(lambda found: f"[{','.join(found)}]"), st.just("null"))
    line = st.tuples(value, several).map(lambda found: f'{{"one":{found[0]},"many":{found[1]}}}')
    lines = data.draw(st.lists(mostly(line, st.just("{}")), min_size=1, max_size=2))
    block = block_of(lines, "replace", at_end=False, at_byte=False)
    bad: list[BadRow] = []
    exact = json_lines.exact(block, schema, "u", bad.extend)
    assert_agree(json_lines.quick(block, schema), exact, bad)


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), schema=SCHEMAS, at_end=st.booleans(), at_byte=st.booleans())
def test_csv_records_agree(data: st.DataObject, schema: pa.Schema, *, at_end: bool, at_byte: bool) -> None:
    """Good and bad CSV records: the way that reads a block does not show in its rows."""
    names = tuple(data.draw(st.permutations([*schema.names, *data.draw(st.sampled_from([[], ["other"]]))])))
    record = st.tuples(*map(csv_field, names)).map(",".join)
    line = st.tuples(mostly(record, st.sampled_from(["a,b", "", '"'])), mostly(st.just(""), st.just("\r"))).map("".join)
    lines = data.draw(st.lists(line, min_size=1, max_size=2))
    block = block_of(lines, "replace", at_end=at_end, at_byte=at_byte)
    bad: list[BadRow] = []
    exact = csv_rows.exact(block, names, schema, "u", bad.extend)
    assert_agree(csv_rows.quick(block, names, schema), exact, bad)

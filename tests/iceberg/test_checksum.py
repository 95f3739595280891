"""The content checksum: the same for the same rows, and for no others."""

from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from lakehouse_pipeline.iceberg.checksum import Checksum, checksum, checksum_of, row_hashes
from lakehouse_pipeline.iceberg.schemas import arrow_schema

SCHEMA = Schema(
    NestedField(1, "number", LongType()),
    NestedField(2, "other", LongType()),
    NestedField(3, "text", StringType()),
    NestedField(4, "size", DoubleType()),
    NestedField(5, "is_on", BooleanType()),
    NestedField(6, "tags", ListType(7, StringType(), element_required=False)),
    NestedField(8, "place", StructType(NestedField(9, "x", IntegerType()), NestedField(10, "y", IntegerType()))),
    NestedField(11, "names", MapType(12, StringType(), 13, LongType(), value_required=False)),
)
ARROW = arrow_schema(SCHEMA)

longs = st.none() | st.integers(-(2**63), 2**63 - 1)
ints = st.none() | st.integers(-(2**31), 2**31 - 1)
texts = st.none() | st.text(max_size=4)
rows = st.fixed_dictionaries(
    {
        "number": longs,
        "other": longs,
        "text": texts,
        "size": st.none() | st.floats(),
        "is_on": st.none() | st.booleans(),
        "tags": st.none() | st.lists(texts, max_size=3),
        "place": st.none() | st.fixed_dictionaries({"x": ints, "y": ints}),
        "names": st.none() | st.dictionaries(st.text(max_size=3), longs, max_size=3),
    }
)
Row = dict[str, Any]
ROW: Row = {
    "number": 1,
    "other": 2,
    "text": "a",
    "size": 0.5,
    "is_on": True,
    "tags": ["a", "b"],
    "place": {"x": 1, "y": 2},
    "names": {"a": 1, "b": 2},
}


LONG = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!?.,;:-+*/"  # nine words of eight bytes


def batch(*told: Row) -> pa.RecordBatch:
    """Make a batch of rows."""
    return pa.RecordBatch.from_pylist(list(told), schema=ARROW)


def of(*told: Row) -> Checksum:
    """Add rows up."""
    return checksum(batch(*told), SCHEMA.fields)


@given(st.lists(rows, max_size=12), st.randoms(), st.integers(0, 12))
def test_neither_order_nor_batches_count(told: list[Row], chance: Any, cut: int) -> None:
    """Shuffled, and cut anywhere, also out of a larger batch, rows add up to the same."""
    whole = of(*told)
    assert whole.rows == len(told)
    shuffled = list(told)
    chance.shuffle(shuffled)
    made = batch(*shuffled)
    assert checksum_of([made.slice(0, cut), made.slice(cut)], SCHEMA.fields) == whole


@given(st.lists(rows, min_size=1, max_size=6), rows)
def test_another_row_is_another_sum(told: list[Row], more: Row) -> None:
    """One more, and the same one twice more, are told apart: equal rows do not cancel each other out."""
    sums = {of(*told), of(*told, more), of(*told, more, more)}
    assert len(sums) == 3
    assert len({each.total for each in sums}) == 3


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"number": 2, "other": 1}, "cells that changed places"),
        ({"text": None}, "null"),
        ({"text": ""}, "an empty text"),
        ({"size": -0.5}, "a sign"),
        ({"is_on": False}, "a truth"),
        ({"tags": ["b", "a"]}, "the order of a list"),
        ({"tags": ["a"]}, "a shorter list"),
        ({"tags": []}, "an empty list"),
        ({"tags": None}, "no list"),
        ({"tags": ["a", None]}, "null in a list"),
        ({"place": {"x": 2, "y": 1}}, "a struct's values that changed places"),
        ({"place": {"x": None, "y": None}}, "a struct of nulls"),
        ({"place": None}, "no struct"),
        ({"names": {"a": 2, "b": 1}}, "a map's values that changed places"),
        ({"names": {}}, "an empty map"),
        ({"names": None}, "no map"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_shows(change: Row, what: str) -> None:
    """Any change of a cell does."""
    assert of(ROW | change) != of(ROW), what


def test_what_is_the_same() -> None:
    """Zeros, NaNs, and entries of a map in another order."""
    assert of(ROW | {"size": 0.0}) == of(ROW | {"size": -0.0})
    nans = pa.array([0x7FF8000000000000, 0x7FF8000000000001], pa.int64()).view(pa.float64())
    one, two = (
        checksum(batch(ROW).set_column(3, ARROW.field(3), nans.slice(place, 1)), SCHEMA.fields) for place in range(2)
    )
    assert one == two
    assert of(ROW | {"names": [("a", 1), ("b", 2)]}) == of(ROW | {"names": [("b", 2), ("a", 1)]})


def sums(column: pa.Array) -> list[int]:
    """Add each value up by itself, out of the whole array."""
    columns = [NestedField(1, "value", BinaryType())]
    whole = pa.record_batch({"value": column})
    return [checksum(whole.slice(place, 1), columns).total for place in range(len(column))]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        pytest.param(DateType(), pa.array([-1, 0, 1, None], pa.int32()), id="date"),
        pytest.param(TimeType(), pa.array([0, 1, 86_399_999_999, None]), id="time"),
        pytest.param(TimestamptzType(), pa.array([-1, 0, 1, None]), id="timestamptz"),
        pytest.param(DecimalType(9, 2), pa.array(["-1.10", "1.10", "0.00", None]), id="small decimal"),
        pytest.param(
            DecimalType(38, 3), pa.array([f"{'9' * 35}.999", f"-{'9' * 35}.999", "0.001", None]), id="decimal"
        ),
        pytest.param(FixedType(3), pa.array([b"abc", b"abd", b"\0\0\0", None], pa.binary(3)), id="fixed"),
        pytest.param(FixedType(20), pa.array([b"a" * 20, b"a" * 19 + b"b", None], pa.binary(20)), id="long fixed"),
        pytest.param(BinaryType(), pa.array([b"", b"\0", b"\0\0", None], pa.binary()), id="binary"),
        pytest.param(StringType(), pa.array(["", "\0", "a", "a\0", None]), id="string"),
        pytest.param(UUIDType(), pa.array([bytes(16), bytes(15) + b"\1", None], pa.binary(16)), id="uuid"),
    ],
)
def test_every_type_is_taken(kind: Any, values: pa.Array) -> None:
    """Values of each are told apart, wherever they lie in an array, and null from all of them."""
    column = values.cast(arrow_schema(Schema(NestedField(1, "value", kind))).field(0).type)
    found = sums(column)
    assert len(set(found)) == len(values)
    assert sums(pa.concat_arrays([column, column]).slice(len(column))) == found


@pytest.mark.parametrize("size", [1, 7, 8, 9, 15, 16, 17, 63, 64, 65, len(LONG)])
def test_a_byte_at_any_place(size: int) -> None:
    """A text that differs in one byte, is shorter by one or longer by a zero is another text."""
    text = LONG[:size]
    changed = [text[:place] + b"#" + text[place + 1 :] for place in range(size)]
    swapped = [text[:place] + text[place : place + 2][::-1] + text[place + 2 :] for place in range(size - 1)]
    zeros = [text + bytes(count) for count in range(1, 10)]
    texts = [text, text[:-1], *changed, *swapped, *zeros]
    assert len(set(sums(pa.array(texts, pa.binary())))) == len(set(texts)) == len(texts)


def test_words_that_changed_places() -> None:
    """Words count by their places, also where one is another's value plus the distance of the places."""
    texts = [b"iXXXXXXXaYYYYYYY", b"iYYYYYYYaXXXXXXX", b"aXXXXXXXiYYYYYYY", b"aYYYYYYYiXXXXXXX"]
    assert len(set(sums(pa.array(texts, pa.binary())))) == len(texts)


def test_short_values() -> None:
    """All of up to two bytes are told apart: a length is not taken for a value."""
    values = [
        b"",
        *(bytes([one]) for one in range(256)),
        *(bytes([one, two]) for one in range(256) for two in range(256)),
    ]
    hashes = row_hashes(
        pa.record_batch({"value": pa.array(values, pa.binary())}), [NestedField(1, "value", BinaryType())]
    )
    assert len(set(hashes.tolist())) == len(values)


@given(st.lists(st.none() | st.text(max_size=40), max_size=20), st.integers(0, 20), st.integers(0, 20))
def test_however_text_is_held(texts: list[str | None], start: int, count: int) -> None:
    """Wide, as a dictionary, as bytes, or as a slice of more: the sum is that of the text."""
    column = pa.array(texts, pa.string())
    plain = sums(pa.array(texts[start : start + count], pa.string()))
    for held in (column, column.cast(pa.large_string()), column.dictionary_encode(), column.cast(pa.large_binary())):
        assert sums(held.slice(start, count)) == plain


@given(st.lists(st.none() | st.binary(min_size=3, max_size=3), max_size=20), st.integers(0, 20))
def test_fixed_is_as_binary(values: list[bytes | None], start: int) -> None:
    """Bytes are the same whether their length is told by the type or not."""
    assert sums(pa.array(values, pa.binary(3)).slice(start)) == sums(pa.array(values[start:], pa.binary()))


@given(st.lists(rows, max_size=20), st.sets(st.integers(0, 20)))
def test_any_cut_gives_the_same(told: list[Row], cuts: set[int]) -> None:
    """Batches of any sizes, empty ones too, add up to the same, however they are held in memory."""
    whole = batch(*told)
    places = [0, *sorted(min(cut, len(told)) for cut in cuts), len(told)]
    parts = [whole.slice(start, end - start) for start, end in pairwise(places)]
    copies = [pa.RecordBatch.from_pylist(part.to_pylist(), schema=ARROW) for part in parts]
    assert checksum_of(parts, SCHEMA.fields) == checksum_of(copies, SCHEMA.fields) == checksum(whole, SCHEMA.fields)


def test_many_rows() -> None:
    """More than are added up at once are the sum of their rows."""
    column = pa.array([f"text {number}" * (number % 11) for number in range(40_000)])
    whole = pa.record_batch({"value": column})
    columns = [NestedField(1, "value", StringType())]
    assert checksum(whole, columns).total == int(row_hashes(whole, columns).sum(dtype="u8"))
    assert checksum(whole, columns) == checksum_of([whole.slice(0, 17), whole.slice(17)], columns)


def test_nothing_is_zero() -> None:
    """No rows add nothing."""
    assert checksum_of([], SCHEMA.fields) == of() == Checksum()

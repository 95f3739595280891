"""The content checksum: the same for the same rows, and for no others."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.schema import Schema
from pyiceberg.types import (
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
)

from lakehouse_pipeline.iceberg.checksum import Checksum, checksum, checksum_of
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


def batch(*told: Row) -> pa.RecordBatch:
    """Make a batch of rows."""
    return pa.RecordBatch.from_pylist(list(told), schema=ARROW)


def of(*told: Row) -> Checksum:
    """Add rows up."""
    return checksum(batch(*told), SCHEMA)


@given(st.lists(rows, max_size=12), st.randoms(), st.integers(0, 12))
def test_neither_order_nor_batches_count(told: list[Row], chance: Any, cut: int) -> None:
    """Shuffled, and cut anywhere, also out of a larger batch, rows add up to the same."""
    whole = of(*told)
    assert whole.rows == len(told)
    shuffled = list(told)
    chance.shuffle(shuffled)
    made = batch(*shuffled)
    assert checksum_of([made.slice(0, cut), made.slice(cut)], SCHEMA) == whole


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
    one, two = (checksum(batch(ROW).set_column(3, ARROW.field(3), nans.slice(place, 1)), SCHEMA) for place in range(2))
    assert one == two
    assert of(ROW | {"names": [("a", 1), ("b", 2)]}) == of(ROW | {"names": [("b", 2), ("a", 1)]})


@pytest.mark.parametrize("kind", [DateType(), TimestamptzType(), DecimalType(22, 3), FixedType(3)], ids=str)
def test_every_type_is_taken(kind: Any) -> None:
    """Values of each are told apart."""
    schema = Schema(NestedField(1, "value", kind))
    arrow = arrow_schema(schema).field(0).type
    values = [b"abc", b"abd"] if isinstance(kind, FixedType) else [1, 2]
    base = pa.array(values, pa.binary(3) if isinstance(kind, FixedType) else pa.int64())
    if isinstance(kind, DateType):
        base = base.cast(pa.int32())
    column = base.cast(arrow)
    sums = {checksum(pa.record_batch({"value": column.slice(place, 1)}), schema).total for place in range(2)}
    assert len(sums) == 2


def test_nothing_is_zero() -> None:
    """No rows add nothing."""
    assert checksum_of([], SCHEMA) == of() == Checksum()

"""Where rows stand in an order: what the writer's check takes for sorted, for values of every type."""

from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given

from lakehouse_pipeline.iceberg.row_order import order_of
from lakehouse_pipeline.iceberg.sorted_rows import first_out_of_order
from tests.iceberg.test_sorted_rows import Case, cases


@given(cases())
def test_rows_in_their_order_pass_the_check(case: Case) -> None:
    """Rows taken in the order are all there, and in order."""
    order = order_of(case.batch(case.rows), case.columns)
    assert sorted(order) == list(range(len(case.rows)))
    assert first_out_of_order(case.batch(case.rows).take(pa.array(order)), case.columns) is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(
            ["12345678b", "12345678", "12345678a"], ["12345678", "12345678a", "12345678b"], id="beyond a word"
        ),
        pytest.param(["a\0\0", "a", "a\0"], ["a", "a\0", "a\0\0"], id="zeros at the end"),
        pytest.param(["x" * 90 + "b", "x" * 90 + "a"], ["x" * 90 + "a", "x" * 90 + "b"], id="many words alike"),
    ],
)
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.string())])
def test_texts_are_compared_to_their_ends(kind: pa.DataType, given: list[str], expected: list[str]) -> None:
    """Texts that begin alike are told apart by what follows, and by their length at last."""
    values = pa.array(["first", *given, "last"]).slice(1, len(given))
    rows = pa.record_batch({"c": values.dictionary_encode() if pa.types.is_dictionary(kind) else values.cast(kind)})
    assert [given[place] for place in order_of(rows, (("c", False),))] == expected


@pytest.mark.parametrize(
    ("kind", "below"),
    [
        (pa.string(), list("edcba")),
        (pa.large_binary(), list("edcba")),
        (pa.binary(1), list("edcba")),
        (pa.decimal128(30, 2), [Decimal(number) for number in (5, 4, 3, 2, 1)]),
        (pa.int64(), [5, 4, 3, 2, 1]),
    ],
    ids=str,
)
def test_what_stands_below_a_null_does_not_count(kind: pa.DataType, below: list[object]) -> None:
    """Engines leave there what they have computed with: rows of nulls are told apart by the next column."""
    nulls = pa.Array.from_buffers(kind, len(below), [pa.py_buffer(b"\0"), *pa.array(below, kind).buffers()[1:]])
    assert nulls.null_count == len(below)
    rows = pa.record_batch({"a": nulls, "b": pa.array(range(len(below)))})
    assert list(order_of(rows, (("a", False), ("b", False)))) == [0, 1, 2, 3, 4]

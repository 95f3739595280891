"""Where rows stand in an order: what the writer's check takes for sorted, for values of every type."""

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

"""The order check agrees with Python's own sort on Iceberg's and Spark's order, wherever batches end."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.table.sorting import SortOrder

from lakehouse_pipeline.errors import SafetyError
from lakehouse_pipeline.iceberg.sorted_rows import OrderCheck, first_out_of_order, said

DOUBLES = st.sampled_from([-math.inf, -1.5, -0.0, 0.0, 1.5, math.inf, math.nan])
VALUES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "boolean": (pa.bool_(), st.booleans()),
    "long": (pa.int64(), st.integers(-2, 2)),
    "double": (pa.float64(), DOUBLES),
    "float": (pa.float32(), DOUBLES),
    "string": (pa.string(), st.text(alphabet="\0aZ~é\ud7ff\ue000\uffff😀", max_size=2)),
    "binary": (pa.binary(), st.binary(max_size=2)),
    "date": (pa.date32(), st.dates(date(1969, 12, 30), date(1970, 1, 2))),
    "timestamptz": (
        pa.timestamp("us", "UTC"),
        st.sampled_from([datetime(1969, 12, 31, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)]),
    ),
    "decimal": (pa.decimal128(5, 2), st.sampled_from([Decimal("-1.10"), Decimal("0.00"), Decimal("2.00")])),
}


@dataclass(frozen=True)
class Case:
    """Rows of some columns and the order they should be in."""

    types: tuple[str, ...]
    descending: tuple[bool, ...]
    rows: list[tuple[Any, ...]]
    cuts: list[int]

    @property
    def columns(self) -> tuple[tuple[str, bool], ...]:
        """The sort columns, as the check has them."""
        return tuple((f"c{place}", descending) for place, descending in enumerate(self.descending))

    def batch(self, rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
        """Make Arrow data of rows."""
        arrays = [pa.array([row[place] for row in rows], VALUES[name][0]) for place, name in enumerate(self.types)]
        return pa.RecordBatch.from_arrays(arrays, names=[name for name, _ in self.columns])

    def batches(self, rows: Sequence[tuple[Any, ...]]) -> list[pa.RecordBatch]:
        """Cut rows into batches, empty ones among them."""
        cuts = [0, *sorted(min(cut, len(rows)) for cut in self.cuts), len(rows)]
        return [self.batch(rows[start:end]) for start, end in pairwise(cuts)]

    def before(self, one: tuple[Any, ...], two: tuple[Any, ...]) -> bool:
        """Tell whether a row may stand right ahead of another."""
        for left, right, descending in zip(one, two, self.descending, strict=True):
            if key(left) != key(right):
                return (key(left) > key(right)) is descending
        return True


def key(value: object) -> tuple[Any, ...]:
    """Give what a value sorts by, ascending: null first, NaN last, text by its UTF-8 bytes."""
    if value is None:
        return (0,)
    if isinstance(value, float):
        return (1, math.isnan(value), 0.0 if math.isnan(value) else value)
    return (1, value.encode() if isinstance(value, str) else value)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw up to three sort columns of any types and some rows."""
    types = tuple(draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3)))
    descending = tuple(draw(st.booleans()) for _ in types)
    rows = draw(st.lists(st.tuples(*(st.none() | VALUES[name][1] for name in types)), max_size=12))
    return Case(types, descending, rows, draw(st.lists(st.integers(0, 12), max_size=3)))


def sorted_rows(case: Case) -> list[tuple[Any, ...]]:
    """Sort with Python, the last column first: its sort is stable."""
    rows = case.rows
    for place in reversed(range(len(case.types))):
        rows = sorted(rows, key=lambda row: key(row[place]), reverse=case.descending[place])
    return rows


def feed(case: Case, rows: Sequence[tuple[Any, ...]]) -> None:
    """Send rows through a check in the case's batches."""
    check = OrderCheck(1, case.columns)
    for batch in case.batches(rows):
        check.feed(batch)


@given(cases())
def test_sorted_rows_pass(case: Case) -> None:
    """Rows that Python sorted are in order, wherever the batches end."""
    feed(case, sorted_rows(case))


@given(cases())
def test_any_other_order_is_refused(case: Case) -> None:
    """Rows pass if, and only if, every row may stand right ahead of the next; the first that may not is found."""
    wrong = [place for place, (one, two) in enumerate(pairwise(case.rows)) if not case.before(one, two)]
    assert first_out_of_order(case.batch(case.rows), case.columns) == (wrong[0] if wrong else None)
    if wrong:
        with pytest.raises(SafetyError, match="out of order"):
            feed(case, case.rows)
    else:
        feed(case, case.rows)


@pytest.mark.parametrize(
    ("values", "descending", "holds"),
    [
        pytest.param([None, -math.inf, 0.0, math.inf, math.nan], False, True, id="ascending: null, numbers, NaN"),
        pytest.param([math.nan, math.inf, 0.0, -math.inf, None], True, True, id="descending: NaN, numbers, null"),
        pytest.param([0.0, None], False, False, id="ascending: null last"),
        pytest.param([None, 0.0], True, False, id="descending: null first"),
        pytest.param([math.nan, 1.0], False, False, id="ascending: NaN first"),
        pytest.param([0.0, -0.0, 0.0], False, True, id="zeros are equal, as Spark sorts them"),
        pytest.param([math.nan, struct.unpack("<d", b"\x01\0\0\0\0\0\xf8\xff")[0]], False, True, id="NaNs are equal"),
    ],
)
def test_nulls_and_nans_have_their_places(values: list[float | None], *, descending: bool, holds: bool) -> None:
    """Null is least and NaN greatest; descending is the reverse of ascending."""
    rows = pa.RecordBatch.from_pydict({"c": pa.array(values, pa.float64())})
    assert (first_out_of_order(rows, (("c", descending),)) is None) is holds


def test_the_message_shows_both_rows() -> None:
    """A refusal says which row came after which, also where they stand in different batches."""
    check = OrderCheck(1, (("n", False),))
    check.feed(pa.RecordBatch.from_pydict({"n": [1, 7], "other": ["a", "b"]}))
    with pytest.raises(SafetyError, match=r"\{'n': '3'\} after \{'n': '7'\}"):
        check.feed(pa.RecordBatch.from_pydict({"n": [3], "other": ["c"]}))


def test_an_unsorted_table_takes_any_order() -> None:
    """Without a sort order nothing is checked, and the files are marked unsorted."""
    check = OrderCheck.of(SortOrder(order_id=0), schema=None)  # type: ignore[arg-type]  # not asked for
    check.feed(pa.RecordBatch.from_pydict({"n": [3, 1, 2]}))
    assert check.sort_order_id == 0


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param(pa.scalar(1_357_034_400_000_000_000, pa.timestamp("us", "UTC")), "1357034400000000000", id="late"),
        pytest.param(pa.scalar(0, pa.timestamp("us", "UTC")), "1970-01-01 00:00:00+00:00", id="usual"),
        pytest.param(pa.scalar(None, pa.string()), "None", id="null"),
    ],
)
def test_every_value_can_be_shown(value: pa.Scalar, shown: str) -> None:
    """Instants that Python has no date for are shown as plain numbers."""
    assert said(pa.RecordBatch.from_arrays([pa.array([value])], names=["x"]), 0) == {"x": shown}

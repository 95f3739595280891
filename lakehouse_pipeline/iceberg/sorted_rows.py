"""Whether rows really come in the table's sort order: checked as they are written, never assumed.

The order is Iceberg's and Spark's: nulls first ascending and last descending, NaN above every number, strings by their
UTF-8 bytes.
"""

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import SortDirection, SortOrder

from lakehouse_pipeline.errors import SafetyError


@dataclass
class OrderCheck:
    """Follows the rows of one bucket, batch after batch.

    Attributes:
        sort_order_id: the order that the rows hold; 0 is unsorted.
        columns: name and whether it descends, the leading one first.
        last: the last row seen.
    """

    sort_order_id: int
    columns: tuple[tuple[str, bool], ...]
    last: pa.RecordBatch | None = field(default=None)

    @classmethod
    def of(cls, order: SortOrder, schema: Schema) -> "OrderCheck":
        """Check for the table's sort order; an unsorted table holds any."""
        columns = tuple(
            (schema.find_column_name(item.source_id) or "", item.direction == SortDirection.DESC)
            for item in order.fields
        )
        return cls(order.order_id if columns else 0, columns)

    def feed(self, rows: pa.RecordBatch) -> None:
        """Take the next rows.

        Raises:
            SafetyError: a row sorts before the one ahead of it.
        """
        if not self.columns or not rows.num_rows:
            return
        keys = rows.select([name for name, _ in self.columns])
        joined = keys if self.last is None else pa.concat_batches([self.last, keys])
        place = first_out_of_order(joined, self.columns)
        if place is not None:
            raise SafetyError(
                f"rows reached the writer out of order: {said(joined, place + 1)} after {said(joined, place)}; "
                "the engine dropped or changed the sort"
            )
        self.last = keys.slice(keys.num_rows - 1)


def first_out_of_order(rows: pa.RecordBatch, columns: tuple[tuple[str, bool], ...]) -> int | None:
    """Find the first row whose successor should have come before it."""
    if rows.num_rows < 2:  # noqa: PLR2004  # one row is in order
        return None
    undecided = pa.array([True] * (rows.num_rows - 1))
    wrong = pc.invert(undecided)
    for name, descending in columns:
        less, greater = _compare(rows.column(name))
        if descending:
            less, greater = greater, less
        wrong = pc.or_(wrong, pc.and_(undecided, greater))
        undecided = pc.and_(undecided, pc.invert(pc.or_(less, greater)))
    place = int(pc.index(wrong, True).as_py())
    return None if place < 0 else place


def said(rows: pa.RecordBatch, place: int) -> dict[str, str]:
    """Give a row as people read it; instants that Python has no date for as plain numbers."""
    row = {name: column[place] for name, column in zip(rows.schema.names, rows.columns, strict=True)}
    return {name: _said(value) for name, value in row.items()}


def _said(value: pa.Scalar) -> str:
    try:
        return str(value.as_py())
    except OverflowError:
        return str(value.value)


def _compare(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Compare each row with its successor, ascending: (comes before it, comes after it)."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    one, two = column.slice(0, len(column) - 1), column.slice(1)
    less = pc.fill_null(pc.less(one, two), False)
    greater = pc.fill_null(pc.greater(one, two), False)
    for test in (pc.is_null, _is_nan) if pa.types.is_floating(column.type) else (pc.is_null,):
        first, second = test(one), test(two)
        only_first, only_second = pc.and_not(first, second), pc.and_not(second, first)
        if test is pc.is_null:  # null sorts below everything
            less, greater = pc.or_(less, only_first), pc.or_(greater, only_second)
        else:  # NaN sorts above every number, but not above null, which was decided before
            valid = pc.and_(pc.is_valid(one), pc.is_valid(two))
            less = pc.or_(less, pc.and_(valid, only_second))
            greater = pc.or_(greater, pc.and_(valid, only_first))
    return less, greater


def _is_nan(values: pa.Array) -> pa.Array:
    return pc.fill_null(pc.is_nan(values), False)

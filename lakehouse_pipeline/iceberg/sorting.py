"""A sort of any number of rows in bounded memory: sorted runs on disk, and then one range of keys after the other.

The order is that of `sorted_rows.py`. No samples are kept: runs are sorted and mapped, so that the ranges are
found in them by quicksort's own means: a pivot, and a binary search for it in every run.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from lakehouse_pipeline.iceberg.row_order import Columns, order_of
from lakehouse_pipeline.iceberg.spill import Spill

ROWS_AT_ONCE = 65_536
COPIES = 2  # rows are put side by side before they are sorted: for a moment there are the old ones and the new ones
INDEX_BYTES = 24  # of a row while it is sorted: its place, and a word that it sorts by, twice
RANK_BYTES = 2  # of a row for each column with nulls
MOST_BYTES = 2**31 - 2**24  # of rows side by side: strings have offsets of 32 bits; more are spilled, memory or not


def sorted_batches(
    batches: Iterable[pa.RecordBatch], columns: Columns, *, memory: int, folder: Path
) -> Iterator[pa.RecordBatch]:
    """Sort rows as `sorted_rows.OrderCheck` wants them; rows that are equal in all columns come in any order.

    Args:
        batches: of one schema.
        columns: name and whether it descends, the leading one first; none is no sort.
        memory: bytes of Arrow data at most, without the batch that the source and the reader have in hand.
        folder: exists; takes what is more, until the generator ends or is closed.

    Raises:
        TransientError: the folder did not take it.
    """
    if not columns:
        yield from batches
        return
    memory = min(memory, COPIES * MOST_BYTES)
    with Spill(folder) as spill:
        runs: list[_Run] = []
        held: list[pa.RecordBatch] = []
        free = memory
        for batch in pieces(batches, memory // 4):
            cost = _cost(batch, columns)
            if held and cost > free:
                runs.append(_Run.of(spill.table(batch.schema, _sorted(held, columns, memory)), columns))
                free = memory
            held.append(batch)
            free -= cost
        if not runs:
            yield from _sorted(held, columns, memory)
            return
        if held:
            runs.append(_Run.of(spill.table(held[0].schema, _sorted(held, columns, memory)), columns))
        yield from _merged(runs, columns, memory)


def pieces(batches: Iterable[pa.RecordBatch], most: int) -> Iterator[pa.RecordBatch]:
    """Cut batches into such of so many bytes at most, about; a row is not cut. Empty ones are left out."""
    for batch in batches:
        rows = _rows_of(batch, most)
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def _rows_of(rows: pa.RecordBatch | pa.Table, size: int) -> int:
    """Tell how many of these rows are so many bytes, about: a row at least, and no more than a batch."""
    return max(1, min(ROWS_AT_ONCE, int(rows.num_rows * size // max(rows.nbytes, 1))))


def _cost(rows: pa.RecordBatch | pa.Table, columns: Columns) -> int:
    """Give the bytes that it takes to sort rows, about."""
    return int(COPIES * rows.nbytes + (INDEX_BYTES + RANK_BYTES * len(columns)) * rows.num_rows)


def _sorted(held: list[pa.RecordBatch], columns: Columns, memory: int) -> Iterator[pa.RecordBatch]:
    """Sort in memory. Rows are taken out of the list, and given batch by batch, so that there is no third copy."""
    if not held:
        return
    rows = pa.concat_batches(held)
    held.clear()
    order = pa.array(order_of(rows, columns))
    step = _rows_of(rows, memory // 16)
    for start in range(0, len(order), step):
        yield rows.take(order.slice(start, step))


@dataclass(frozen=True)
class _Run:
    """Sorted rows on disk, or a part of them.

    Attributes:
        rows: mapped.
        keys: a column and whether it descends.
        start: of the part.
        stop: of the part.
    """

    rows: pa.Table
    keys: tuple[tuple[pa.ChunkedArray, bool], ...]
    start: int
    stop: int

    @classmethod
    def of(cls, rows: pa.Table, columns: Columns) -> "_Run":
        return cls(rows, tuple((rows.column(name), descending) for name, descending in columns), 0, rows.num_rows)

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def table(self) -> pa.Table:
        return self.rows.slice(self.start, len(self))

    def key(self, place: int) -> tuple[Any, ...]:
        """Give what a row sorts by, as something that Python compares."""
        return tuple(
            _Descending(_value(column[place])) if descending else _value(column[place])
            for column, descending in self.keys
        )

    def split(self, key: tuple[Any, ...]) -> tuple["_Run", "_Run", "_Run"]:
        """Split it into the rows below a key, those that equal it, and those above it."""
        places = range(self.stop)
        low = bisect_left(places, key, self.start, key=self.key)
        high = bisect_right(places, key, low, key=self.key)
        return self._part(self.start, low), self._part(low, high), self._part(high, self.stop)

    def _part(self, start: int, stop: int) -> "_Run":
        return _Run(self.rows, self.keys, start, stop)


def _merged(runs: Sequence[_Run], columns: Columns, memory: int) -> Iterator[pa.RecordBatch]:
    """Sort runs together: at once if they fit, or else what is below a row in the middle, and then what is above it."""
    runs = [run for run in runs if len(run)]
    tables = [run.table for run in runs]
    if len(runs) <= 1:
        yield from _streamed(tables, memory)
    elif sum(_cost(table, columns) for table in tables) <= memory:
        yield from _sorted([batch for table in tables for batch in table.to_batches()], columns, memory)
    else:
        pivot = _middle(runs)
        below, equal, above = zip(*(run.split(pivot) for run in runs), strict=True)
        yield from _merged(below, columns, memory)
        # Rows of one key need no sort, however many they are; and as there is at least one, this comes to an end.
        yield from _streamed([run.table for run in equal], memory)
        yield from _merged(above, columns, memory)


def _middle(runs: Sequence[_Run]) -> tuple[Any, ...]:
    """Find a key with at least a quarter of all rows on either side, itself among them: the median of the medians."""
    middles = sorted(((run.key((run.start + run.stop) // 2), len(run)) for run in runs), key=lambda each: each[0])
    left = sum(map(len, runs)) // 2
    for key, rows in middles:  # noqa: B007  # the last is as good as any
        left -= rows
        if left <= 0:
            break
    return key


def _streamed(tables: Iterable[pa.Table], memory: int) -> Iterator[pa.RecordBatch]:
    for table in tables:
        yield from pieces(table.to_batches(), memory // 4)


@dataclass(frozen=True)
class _Descending:
    """A value that sorts before those that it is greater than."""

    value: tuple[Any, ...]

    def __lt__(self, other: "_Descending") -> bool:
        return other.value < self.value


def _value(value: pa.Scalar) -> tuple[Any, ...]:
    """Give what a value sorts by, ascending: null first, NaN last, text by its UTF-8 bytes, instants as numbers."""
    if not value.is_valid:
        return (0,)
    if pa.types.is_temporal(value.type):  # Python has no date for some of them
        return (1, value.value)
    plain = value.as_py()
    if isinstance(plain, str):
        return (1, plain.encode())
    return (1, plain) if plain == plain else (2,)  # noqa: PLR0124  # only NaN is not itself

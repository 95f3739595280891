"""Rows along a curve through several columns: files of neighbours, so that a filter on any of these opens few files.

This is what Iceberg's `zorder(a, b)` is for, and better at it, twice. A column counts by a value's place among all
values, and not by its bits, of which the leading ones are often the same: those of a common prefix, or of a type whose
range is hardly used. And the curve is Hilbert's, whose next step is always to a neighbour, where that of Z jumps: a
file of rows ahead of a jump and of others behind it would cover almost all of a column.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.iceberg.keys import Words, codes, is_coded, plain, refuse
from lakehouse_pipeline.iceberg.sorting import sorted_batches
from lakehouse_pipeline.iceberg.spill import Spill, SpillFile

Parts = npt.NDArray[np.uint16]

PLACE = "__place__"  # on the curve
BITS = 12  # of a column: 4,096 parts of equally many rows, far more than an hour has files
KEY_BITS = 64  # of all of them
SAMPLE_ROWS = 65_536  # a bound is off by less than 0.4 % of the rows, two standard deviations


@dataclass(frozen=True)
class Bounds:
    """What divides the values of columns into parts of equally many rows.

    Attributes:
        columns: name and bounds, ascending; a value that is frequent is several of them.
    """

    columns: tuple[tuple[str, pa.Array], ...]


@dataclass
class Sample:
    """Rows picked at random while a stream goes by: the same ones each time, and so many or twice as many.

    Attributes:
        columns: that are kept of them.
        share: of the rows, that are picked.
        picked: so far.
    """

    columns: Sequence[str]
    share: float = 1.0
    picked: pa.Table | None = None
    _random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def feed(self, rows: pa.RecordBatch) -> None:
        """Pick some rows.

        Raises:
            ConfigurationError: a column is nested or missing; names each.
        """
        if self.picked is None:
            refuse(rows.schema, self.columns, "a z-order")
        more = self._thinned(pa.table(rows.select(self.columns)), self.share)
        self.picked = more if self.picked is None else pa.concat_tables([self.picked, more])
        while self.picked.num_rows > 2 * SAMPLE_ROWS:
            self.share /= 2
            self.picked = self._thinned(self.picked, 0.5).combine_chunks()

    def bounds(self) -> Bounds:
        """Divide what was picked."""
        picked = pa.table({}) if self.picked is None else self.picked
        return Bounds(tuple((name, _quantiles(_whole(picked.column(name)))) for name in picked.column_names))

    def _thinned(self, rows: pa.Table, share: float) -> pa.Table:
        return rows if share == 1 else rows.filter(pa.array(self._random.random(rows.num_rows) < share))


def sample_bounds(batches: Iterable[pa.RecordBatch], columns: Sequence[str]) -> Bounds:
    """Find bounds from rows, or from some that stand for all of them.

    Raises:
        ConfigurationError: a column is nested or missing; names each.
    """
    sample = Sample(columns)
    for batch in batches:
        sample.feed(batch)
    return sample.bounds()


def curve_values(rows: pa.RecordBatch | pa.Table, bounds: Bounds) -> pa.Array:
    """Give where each row is on the curve: an unsigned number of 64 bits.

    Raises:
        ConfigurationError: there are more columns than bits.
    """
    if len(bounds.columns) > KEY_BITS:
        raise ConfigurationError(f"a z-order takes {KEY_BITS} columns at most, and not {len(bounds.columns)}")
    bits = min(BITS, KEY_BITS // max(len(bounds.columns), 1))
    axes = np.zeros((len(bounds.columns), rows.num_rows), np.uint16)
    for axis, (name, limits) in zip(axes, bounds.columns, strict=True):
        axis[:] = _parts(_whole(rows.column(name)), limits) >> (BITS - bits)
    _bend(axes, bits)
    total = np.zeros(rows.num_rows, np.uint64)
    for place, axis in enumerate(axes):
        total |= _spread(bits, len(axes), place)[axis]
    return pa.array(total)


def z_ordered(
    batches: Iterable[pa.RecordBatch],
    columns: Sequence[str],
    *,
    memory: int,
    folder: Path,
    bounds: Bounds | None = None,
) -> Iterator[pa.RecordBatch]:
    """Sort rows along the curve; rows that are equal in all columns come in any order.

    Args:
        batches: of one schema.
        columns: of plain values; each counts as much as the others.
        memory: as for `sorted_batches`.
        folder: as for `sorted_batches`.
        bounds: from a sample. Without them rows are read to their end first, and wait in the folder if they are many.

    Raises:
        ConfigurationError: a column is nested or missing; names each.
        TransientError: the folder did not take what is more than the memory.
    """
    with Spill(folder) as spill:
        rows: Iterable[pa.RecordBatch] = batches
        if bounds is None:
            bounds, rows = _read(batches, columns, memory // 4, spill)
        placed = (_placed(batch, columns, bounds) for batch in rows)
        for batch in sorted_batches(placed, ((PLACE, False),), memory=memory, folder=folder):
            yield batch.select(batch.schema.names[:-1])


def _placed(batch: pa.RecordBatch, columns: Sequence[str], bounds: Bounds) -> pa.RecordBatch:
    refuse(batch.schema, columns, "a z-order")
    return batch.append_column(PLACE, curve_values(batch, bounds))


def _read(
    batches: Iterable[pa.RecordBatch], columns: Sequence[str], memory: int, spill: Spill
) -> tuple[Bounds, Iterator[pa.RecordBatch]]:
    """Find bounds, and give the rows again: from memory, or once they are too many from disk."""
    sample = Sample(columns)
    held: list[pa.RecordBatch] = []
    file: SpillFile | None = None
    free = memory
    for batch in batches:
        sample.feed(batch)
        held.append(batch)
        free -= batch.nbytes
        if free < 0:
            file = file or spill.file(batch.schema)
            _emptied(held, file)
    bounds = sample.bounds()
    if file is None:
        return bounds, _drained(held)
    return bounds, file.batches()


def _emptied(held: list[pa.RecordBatch], file: SpillFile) -> None:
    for batch in _drained(held):
        file.write(batch)


def _drained(held: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Give batches, and let go of each."""
    held.reverse()
    while held:
        yield held.pop()


def _whole(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return plain(values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values)


def _quantiles(values: pa.Array) -> pa.Array:
    """Give the values that divide values into 2^BITS parts of as many, in their order."""
    values = values.drop_null()
    ordered = values.take(pc.sort_indices(values))
    return ordered.take(pa.array((np.arange(1, 2**BITS) * len(ordered)) >> BITS)) if len(ordered) else ordered


def _parts(values: pa.Array, limits: pa.Array) -> Parts:
    """Tell in which part each value is: how many bounds are below it; null is in the first part."""
    if not len(limits):  # no value was seen that is not null
        return np.zeros(len(values), np.uint16)
    if is_coded(values.type):
        parts = np.searchsorted(codes(limits), codes(values)).astype(np.uint16)
    else:
        # Sorted together, which takes values of any type; the sort is stable, so a bound is behind what equals it.
        order = pc.sort_indices(pa.concat_arrays([values, limits])).to_numpy()
        parts = np.empty(len(order), np.uint16)
        parts[order] = np.cumsum(order >= len(values))
    return np.where(values.is_null().to_numpy(zero_copy_only=False), np.uint16(0), parts[: len(values)])


def _bend(axes: Parts, bits: int) -> None:
    """Turn coordinates, in place, into those whose interleaved bits are the place on Hilbert's curve.

    Source: John Skilling, Programming the Hilbert curve, AIP Conference Proceedings 707 (2004): AxestoTranspose.
    """
    for level in range(bits - 1, 0, -1):
        for place in range(len(axes)):
            flip = _below(axes[place], level)
            swap = (axes[0] ^ axes[place]) & (np.uint16((1 << level) - 1) & ~flip)  # of the first with itself: nothing
            axes[0] ^= flip ^ swap
            axes[place] ^= swap if place else np.uint16(0)
    for place in range(1, len(axes)):
        axes[place] ^= axes[place - 1]
    turn = np.zeros(axes.shape[1], np.uint16)
    for level in range(bits - 1, 0, -1):
        turn ^= _below(axes[-1], level)
    np.bitwise_xor(axes, turn, out=axes)


def _below(axis: Parts, level: int) -> Parts:
    """Set all bits below one that is set."""
    bit = (axis >> np.uint16(level)) & np.uint16(1)
    below: Parts = bit * np.uint16((1 << level) - 1)
    return below


def _spread(bits: int, columns: int, place: int) -> Words:
    """Give each number of so many bits with these spread out, to where a column's are among all columns' bits."""
    numbers, spread = np.arange(2**bits, dtype=np.uint64), np.zeros(2**bits, np.uint64)
    for bit in range(bits):
        spread |= ((numbers >> np.uint64(bit)) & np.uint64(1)) << np.uint64(bit * columns + columns - 1 - place)
    return spread

"""The latest row of each key, in bounded memory: rows of which many are versions of the same thing, reconciled.

Rows are grouped by a hash of their key, which is checked: should two keys meet, they are hashed anew. What does not fit
into memory is reduced first, and then divided by hash into files on disk, each of which is reduced in the same way.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.iceberg.keys import Words, codes, hashes, is_coded, plain, refuse, same
from lakehouse_pipeline.iceberg.sorting import MOST_BYTES, ROWS_AT_ONCE, pieces
from lakehouse_pipeline.iceberg.spill import Spill, SpillFile

Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]

BUCKET_BITS = 6  # 64 files at once; what is still too much in one of them is divided by the next bits
LEVELS = 64 // BUCKET_BITS
ROW_BYTES = (
    56  # of a row while it is reduced: its hash, its place in the order of hashes, its version, twice; and marks
)
COPIES = 2  # of a row: keys are put side by side, and winners copied


@dataclass(frozen=True)
class Counts:
    """What became of the rows.

    Attributes:
        rows: that came in.
        keys: different ones.
        deleted: keys whose latest row says so; they are left out.
        winners: keys whose latest row was given.
    """

    rows: int
    keys: int
    deleted: int
    winners: int


def latest_by_key(
    batches: Iterable[pa.RecordBatch],
    key: Sequence[str],
    version: str | None,
    deleted: str | None,
    *,
    memory: int,
    folder: Path,
) -> "Merge":
    """Keep the row with the greatest version of each key, unless that row is marked as deleted.

    A null version is lowest, NaN highest; of rows of one version, or where there is no version, the last of the stream
    wins. Keys are the same as `keys.same` has it.

    Args:
        batches: of one schema; read once.
        key: names of columns of plain values.
        version: name of a column of plain values.
        deleted: name of a boolean column; null is false.
        memory: bytes of Arrow data and of what is worked out from them, at most, without the batch in hand.
        folder: exists; takes what is more, until the rows end or are closed.
    """
    return Merge(batches, tuple(key), version, deleted, memory=memory, folder=folder)


class Merge:
    """Rows under way: read them once to the end, and then there are counts."""

    def __init__(
        self,
        batches: Iterable[pa.RecordBatch],
        key: tuple[str, ...],
        version: str | None,
        deleted: str | None,
        *,
        memory: int,
        folder: Path,
    ) -> None:
        """Read nothing yet: see `latest_by_key`."""
        self._batches, self._key, self._version, self._deleted = batches, key, version, deleted
        self._memory, self._folder = min(memory, COPIES * MOST_BYTES), folder
        self._rows = self._keys = self._gone = 0
        self._done = False

    @property
    def counts(self) -> Counts:
        """Tell what became of the rows, once they are all read."""
        if not self._done:
            raise RuntimeError("the rows have to be read to their end before they are counted")
        return Counts(self._rows, self._keys, self._gone, self._keys - self._gone)

    def rows(self) -> Iterator[pa.RecordBatch]:
        """Give the winners: in the order of the stream if all fit into memory, and else in no order.

        Raises:
            ConfigurationError: a column is not there, or is not of the right kind; names each.
            TransientError: the folder did not take what is more than the memory.
        """
        with Spill(self._folder) as spill:
            rows = pieces(self._checked(), self._memory // 4)
            yield from _gathered(self._latest(rows, spill, 0), self._memory // 8)
        self._done = True

    def _checked(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            if not self._rows:
                refuse(batch.schema, self._key, "a merge's key")
                refuse(batch.schema, [name for name in (self._version, self._deleted) if name] or self._key, "a merge")
                if self._deleted and not pa.types.is_boolean(batch.schema.field(self._deleted).type):
                    raise ConfigurationError(f"the column that says what is deleted, {self._deleted}, is not boolean")
            self._rows += batch.num_rows
            yield batch

    def _latest(self, batches: Iterable[pa.RecordBatch], spill: Spill, level: int) -> Iterator[pa.RecordBatch]:
        """Reduce rows; those that are too many are divided by bits of their hash, others at every level."""
        held: list[pa.RecordBatch] = []
        buckets: dict[int, SpillFile] = {}
        free = self._memory
        for batch in batches:
            if held and _cost(batch) > free:
                held, found = self._reduced(held)
                if sum(map(_cost, held)) > self._memory // 2 and level < LEVELS:
                    _divide(held, found, spill, buckets, level)
                    held = []
                free = self._memory - sum(map(_cost, held))
            held.append(batch)
            free -= _cost(batch)
        held, found = self._reduced(held)
        if not buckets:
            yield from self._living(held)
            return
        _divide(held, found, spill, buckets, level)
        held = []
        for _, file in sorted(buckets.items()):
            yield from self._latest(pieces(file.batches(), self._memory // 4), spill, level + 1)

    def _reduced(self, held: list[pa.RecordBatch]) -> tuple[list[pa.RecordBatch], Words]:
        """Keep the latest row of each key, in their order, and their hashes."""
        if not held:
            return [], np.empty(0, np.uint64)
        found, order, repeats = _grouped(held, self._key)
        if not repeats.any():
            return held, found
        wins = _wins(held, self._version, order, repeats)
        ends = np.cumsum([batch.num_rows for batch in held])
        kept = [batch.filter(pa.array(mask)) for batch, mask in zip(held, np.split(wins, ends[:-1]), strict=True)]
        return [batch for batch in kept if batch.num_rows], found[wins]

    def _living(self, held: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Give what is not deleted: only now, as a tombstone takes all rows of its key that are older."""
        for batch in held:
            self._keys += batch.num_rows
            if self._deleted is None:
                yield batch
                continue
            living = batch.filter(pc.invert(pc.fill_null(batch.column(self._deleted), False)))
            self._gone += batch.num_rows - living.num_rows
            yield living


def _cost(batch: pa.RecordBatch) -> int:
    return int(COPIES * batch.nbytes + ROW_BYTES * batch.num_rows)


def _grouped(held: Sequence[pa.RecordBatch], key: Sequence[str]) -> tuple[Words, Places, Mask]:
    """Put rows of one key side by side.

    Returns:
        The rows' hashes; where they stand in the order of hashes; and which of these have the key of the one before.
    """
    first = _hashed(held, key, 0)  # files are chosen by it: another would differ between chunks
    found = first
    for seed in count(1):
        order: Places = np.argsort(found)
        ordered = found[order]
        repeats = np.concatenate([[False], ordered[1:] == ordered[:-1]])
        later = np.flatnonzero(repeats)
        if _all_same(held, key, order[later - 1], order[later]):
            return first, order, repeats
        found = _hashed(held, key, seed)  # two keys have one hash: that takes some billions of them, about
    raise AssertionError("seeds do not end")


def _hashed(held: Sequence[pa.RecordBatch], key: Sequence[str], seed: int) -> Words:
    return np.concatenate([hashes(batch, key, seed) for batch in held])


def _all_same(held: Sequence[pa.RecordBatch], key: Sequence[str], one: Places, two: Places) -> bool:
    """Tell whether the keys of rows at places are those of rows at others."""
    for name in key if len(one) else ():
        values = pa.concat_arrays([batch.column(name) for batch in held])
        if not same(values.take(pa.array(one)), values.take(pa.array(two))):
            return False
    return True


def _wins(held: Sequence[pa.RecordBatch], version: str | None, order: Places, repeats: Mask) -> Mask:
    """Mark the rows that win: those of a key of their own, and of others the greatest version, or the last of them."""
    shared = repeats.copy()
    shared[:-1] |= repeats[1:]
    places, starts = order[shared], np.flatnonzero(~repeats[shared])
    wins = np.ones(len(order), np.bool_)
    wins[places] = False
    if version is not None:
        numbers, valid = _versions([batch.column(version) for batch in held], places)
        greatest = np.repeat(np.maximum.reduceat(numbers, starts), np.diff(starts, append=len(places)))
        # Null's number may be that of a value: what is a value counts for more than the last place.
        places = np.where(numbers == greatest, places + valid * len(order), -1)
    wins[np.maximum.reduceat(places, starts) % len(order)] = True
    return wins


def _versions(arrays: Sequence[pa.Array], places: Places) -> tuple[Words, Mask]:
    """Give numbers that sort as the values at these places do, and which of them are values."""
    if is_coded(plain(arrays[0]).type):
        numbers = np.concatenate([codes(values) for values in arrays])[places]
    else:
        numbers = codes(pa.concat_arrays(arrays).take(pa.array(places)))
    valid = np.concatenate([values.is_valid().to_numpy(zero_copy_only=False) for values in arrays])[places]
    return numbers, valid


def _divide(
    held: Sequence[pa.RecordBatch], found: Words, spill: Spill, buckets: dict[int, SpillFile], level: int
) -> None:
    """Append rows to the files of their hashes; rows of one key stay in their order."""
    start = 0
    for batch in held:
        bits = found[start : start + batch.num_rows] >> np.uint64(level * BUCKET_BITS)
        start += batch.num_rows
        chosen = (bits & np.uint64(2**BUCKET_BITS - 1)).astype(np.uint8)
        ordered = batch.take(pa.array(np.argsort(chosen, kind="stable")))
        ends = np.cumsum(np.bincount(chosen, minlength=2**BUCKET_BITS))
        for bucket in np.unique(chosen).tolist():
            if bucket not in buckets:
                buckets[bucket] = spill.file(batch.schema)
            first = int(ends[bucket - 1]) if bucket else 0
            buckets[bucket].write(ordered.slice(first, int(ends[bucket]) - first))


def _gathered(batches: Iterable[pa.RecordBatch], most: int) -> Iterator[pa.RecordBatch]:
    """Put what is left of batches together, so that few rows do not come in many batches; of so many bytes, about."""
    held: list[pa.RecordBatch] = []
    rows, size = 0, 0
    for batch in batches:
        held.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= ROWS_AT_ONCE or (rows and size >= most):
            yield pa.concat_batches(held)
            held, rows, size = [], 0, 0
    if rows:
        yield pa.concat_batches(held)

"""The writing anew of one group of files, wherever a worker does it: its rows in new files, and the proof of them.

No catalog, no ledger and no commit are known here. A group is read once, row group by row group; rows that are sorted
or merged and do not fit into memory go by local disk.
"""

import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse_pipeline.config.compaction import CompactSettings, Strategy
from lakehouse_pipeline.engines.workers import check_wanted
from lakehouse_pipeline.errors import SafetyError
from lakehouse_pipeline.iceberg.checksum import Checksum, Columns, Hashes, checksum, row_hashes
from lakehouse_pipeline.iceberg.copied_files import NotCopiedError, copy_files, packed
from lakehouse_pipeline.iceberg.data_files import BUCKET, WrittenFile, write_files
from lakehouse_pipeline.iceberg.rows import StoredTable
from lakehouse_pipeline.iceberg.sorting import sorted_batches
from lakehouse_pipeline.iceberg.write_target import WriteTarget
from lakehouse_pipeline.maintenance.compaction_plan import FileGroup
from lakehouse_pipeline.maintenance.merging import latest_by_key
from lakehouse_pipeline.maintenance.zorder import z_ordered
from lakehouse_pipeline.object_store.counts import RequestCounts, counting

MEMORY_BYTES = 128 * 1024**2  # of Arrow data that a group's sort or merge holds before it goes by disk

# One group at a time holds a row group in memory; others read back and upload meanwhile.
_ENCODING = threading.Lock()


class ProofError(SafetyError):
    """The rows that were written are not those that were read; nothing was committed, and nothing is left."""


@dataclass(frozen=True)
class GroupTask:
    """All that a worker needs to write a group anew; small and picklable.

    Attributes:
        number: of the group in its attempt, from 0; stands in its files' names.
        hour: for messages.
        stored: reads the table's files.
        target: writes the attempt's.
        group: the files.
        settings: how.
        least: bytes that a file of copied row groups should have.
        most: bytes that it may have.
        order: of the table: names, and whether they descend.
        key: columns that tell rows apart, for `merge`.
    """

    number: int
    hour: str
    stored: StoredTable
    target: WriteTarget
    group: FileGroup
    settings: CompactSettings
    least: int
    most: int
    order: tuple[tuple[str, bool], ...]
    key: tuple[str, ...]


@dataclass(frozen=True)
class Rewritten:
    """A group in its new files.

    Attributes:
        files: that were written.
        strategy: how; `rewrite` or `sort` where footers told that row groups could not be copied.
        reason: why so.
        rows_read: live rows of the group.
        bytes_apart: bytes on storage that were copied by the store itself.
        requests: sent to the store.
    """

    files: tuple[WrittenFile, ...]
    strategy: Strategy
    reason: str
    rows_read: int
    bytes_apart: int
    requests: RequestCounts


def rewrite_group(task: GroupTask) -> Rewritten:
    """Write a group's rows into new files, and prove that they are the same, or the right ones.

    Raises:
        ProofError: they are not. Files that were written are left for whoever closes the attempt.
        SafetyError: a file is gone, or damaged.
        LakehouseError: as the store and the files have it.
    """
    group, strategy, reason = task.group, task.group.strategy, task.group.reason
    with counting() as counter:
        if strategy == "copy":
            try:
                packs = packed(group.files, task.least, task.most)
                files = copy_files(task.target, packs, task.number, check_wanted)
                rows = sum(file.rows for file in group.files)
            except NotCopiedError as error:
                strategy, reason = ("sort" if task.order else "rewrite"), str(error)
        if strategy != "copy":
            files, rows = _written(task, strategy)
    counts = counter.snapshot()
    return Rewritten(tuple(files), strategy, reason, rows, counts.bytes_copied, counts)


@dataclass
class _Sum:
    """Rows that went by, added up."""

    columns: Columns
    total: Checksum = field(default_factory=Checksum)

    def add(self, batch: pa.RecordBatch) -> None:
        self.total += checksum(batch, self.columns)

    def over(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            check_wanted()
            self.add(batch)
            yield batch


def _written(task: GroupTask, strategy: Strategy) -> tuple[list[WrittenFile], int]:
    """Decode the live rows and encode them again; gives the files, and how many rows were read."""
    group, columns = task.group, task.stored.columns
    read, given, written = _Sum(columns), _Sum(columns), _Sum(columns)
    rows = read.over(task.stored.live_batches(group.files, group.deletes))
    with tempfile.TemporaryDirectory(prefix="lakehouse-") as folder:
        target = task.target
        if strategy == "merge":
            keys = _Keys(task)
            rows = given.over(keys.latest(rows, Path(folder)))
        if order := _order(task, strategy):
            rows = sorted_batches(rows, order, memory=MEMORY_BYTES, folder=Path(folder))
        if strategy == "zorder":
            rows = z_ordered(rows, task.settings.columns, memory=MEMORY_BYTES, folder=Path(folder))
        if order != task.order:
            target = target.unsorted()
        files = write_files(target, (_numbered(batch, task.number) for batch in rows), written.add, _ENCODING)
    _prove_count(task, read.total.rows)
    if strategy == "merge":
        keys.prove()
    else:
        given = read
    if given.total != written.total:
        raise ProofError(
            f"{task.hour}: {given.total.rows} rows were read and {written.total.rows} written, with checksums "
            f"{given.total.total:016x} and {written.total.total:016x}: nothing is committed. Report this as a defect"
        )
    return files, read.total.rows


def _order(task: GroupTask, strategy: Strategy) -> tuple[tuple[str, bool], ...]:
    """Give the columns that rows are sorted by; merged rows get the table's order back."""
    if strategy == "sort" and task.settings.columns:
        return tuple((name, False) for name in task.settings.columns)
    return task.order if strategy in {"sort", "merge"} else ()


def _numbered(batch: pa.RecordBatch, number: int) -> pa.RecordBatch:
    check_wanted()  # sorts and merges have read everything by now
    return batch.append_column(BUCKET, pa.array(np.full(batch.num_rows, number, np.int32)))


def _prove_count(task: GroupTask, read: int) -> None:
    """Hold the rows that were read against those that metadata tell of; how many rows deletes take they do not."""
    live = sum(file.rows for file in task.group.files)
    if read != live and (read > live or not task.group.deletes):
        raise ProofError(
            f"{task.hour}: the files have {live} rows and {read} were read: nothing is committed. "
            "Report this as a defect"
        )


class _Keys:
    """A merge, and the proof that each key of the rows that were read has one row, kept or dropped as deleted.

    Keys are told apart by a checksum, of as many of them as fit: those below a limit that falls.
    """

    def __init__(self, task: GroupTask) -> None:
        self._task = task
        self._columns = [column for column in task.stored.columns if column.name in task.key]
        self._read, self._kept = _Sample(distinct=True), _Sample(distinct=False)

    def latest(self, rows: Iterable[pa.RecordBatch], folder: Path) -> Iterator[pa.RecordBatch]:
        settings = self._task.settings
        merge = latest_by_key(
            self._read.over(rows, self._columns),
            self._task.key,
            settings.version,
            None,  # dropped below, so that their keys are counted
            memory=MEMORY_BYTES,
            folder=folder,
        )
        for batch in self._kept.over(merge.rows(), self._columns):
            left = batch
            if settings.deleted:
                left = batch.filter(pc.invert(pc.fill_null(batch.column(settings.deleted), False)))
            if left.num_rows:
                yield left

    def prove(self) -> None:
        limit = min(self._read.limit, self._kept.limit)
        read, kept = _distinct(self._read.below(limit)), np.sort(self._kept.below(limit))
        if not np.array_equal(read, kept):
            raise ProofError(
                f"{self._task.hour}: {len(read)} keys were read and {len(kept)} rows kept of them: "
                "nothing is committed. Report this as a defect"
            )


class _Sample:
    """Checksums of keys below a limit, which falls so that no more than twice so many are held."""

    most = 2**20

    def __init__(self, *, distinct: bool) -> None:
        """Hold each checksum once, or as often as it comes."""
        self.limit, self._held, self._kept_count, self._distinct = 2**64 - 1, list[Hashes](), 0, distinct

    def over(self, batches: Iterable[pa.RecordBatch], columns: Columns) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self._add(row_hashes(batch, columns))
            yield batch

    def _add(self, hashes: Hashes) -> None:
        self._held.append(hashes[hashes <= np.uint64(self.limit)])
        self._kept_count += len(self._held[-1])
        if self._kept_count > 2 * self.most and self._distinct:
            self._hold(_distinct(self.below(self.limit)))
        while self._kept_count > 2 * self.most:
            self.limit //= 2
            self._hold(self.below(self.limit))

    def _hold(self, hashes: Hashes) -> None:
        self._held, self._kept_count = [hashes], len(hashes)

    def below(self, limit: int) -> Hashes:
        held: Hashes = np.concatenate([*self._held, np.zeros(0, np.uint64)])
        return held[held <= np.uint64(limit)]


def _distinct(hashes: Hashes) -> Hashes:
    """Give each once, in order; NumPy's own `unique` goes by a hash table, which takes many times as long."""
    ordered = np.sort(hashes)
    found: Hashes = ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]
    return found

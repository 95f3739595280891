"""Which bucket a row goes to: how many there are, and the ranges of the sort order that they are.

A sorted hour of several files is cut into ranges by bounds that come from the files of an hour beside it, or from a
sample, never from an engine's range partitioning: Spark's runs the whole plan a second time for it, and Sail's does not
partition by range. Bounds that do not suit an hour cost balance, and never its order.
"""

import math
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse_pipeline.backfill.views import task_count
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.hours import HOUR, HourWindow
from lakehouse_pipeline.iceberg.keys import hashes
from lakehouse_pipeline.iceberg.row_order import Columns, leading_word, order_of

SAMPLED_ROWS_A_BUCKET = 2_000  # a bucket then misses its share by some 5 %, whatever the distribution
MOST_RANGES = 1_000  # of an hour: of more, what a task packs for each is too little; a range has any number of files
BYTES_A_ROW = 50  # on storage; a guess that only the size of the sample depends on

Buckets = npt.NDArray[np.int64]

_FLAG = ""  # no column is called that


def bucket_count(spec: TableSpec, hour: HourWindow, size: int, cores: int) -> int:
    """Give the number that every `_bucket` of an hour is below, so that its files can be named.

    Args:
        spec: its sort order and file size.
        hour: the hour.
        size: bytes of the source: the best guess there is at the bytes of the files.
        cores: tasks that run at once.
    """
    if not spec.sort:
        return task_count(size, cores)
    return min(MOST_RANGES, max(1, math.ceil(size * share_of(spec, hour) / spec.file_size)))


def share_of(spec: TableSpec, hour: HourWindow) -> float:
    """Guess the share of its source that is an hour's: files may hold a day's hours, or all of a table's."""
    span = spec.source.span(hour)
    if span is None:
        span = (spec.start.start, spec.end.start if spec.end else spec.start.start + timedelta(days=1))
    return HOUR / max(span[1] - span[0], HOUR)


@dataclass(frozen=True)
class Ranges:
    """The buckets of a sorted hour.

    Attributes:
        order: columns and whether they descend, the leading one first.
        bounds: rows of these columns, in order; where a key stands several times, its rows are many.
    """

    order: Columns
    bounds: pa.RecordBatch

    @property
    def count(self) -> int:
        """How many buckets there are."""
        return int(self.bounds.num_rows) + 1

    def buckets(self, rows: pa.RecordBatch) -> Buckets:
        """Give each row its bucket: the number of bounds that do not come after it.

        Rows of a key that several bounds have are spread over the buckets that begin with it, by what else is in them:
        a task that runs again gives each the same bucket, and one hot key is no giant task.
        """
        passed = self._passed(rows, equal=True)
        if not self.repeats:
            return passed
        spread = passed - self._passed(rows, equal=False)
        hot = np.flatnonzero(spread > 1)
        if not len(hot):
            return passed
        names = [field.name for field in rows.schema if not pa.types.is_nested(field.type)]
        found = hashes(rows.select(names).take(pa.array(hot)), names)
        passed[hot] -= (found % spread[hot].astype(np.uint64)).astype(np.int64)
        return passed

    @cached_property
    def repeats(self) -> bool:
        """Whether a key has several bounds."""
        found = hashes(self.bounds, self.bounds.schema.names)
        return bool(np.any(found[1:] == found[:-1]))

    def _passed(self, rows: pa.RecordBatch, *, equal: bool) -> Buckets:
        """Count the bounds that come before each row, or that equal it."""
        name, descending = self.order[0]
        words = leading_word(rows.column(name), descending=descending)
        bounds = leading_word(self.bounds.column(name).cast(rows.column(name).type), descending=descending)
        passed = np.searchsorted(bounds, words)
        unsure = np.flatnonzero(passed < np.searchsorted(bounds, words, side="right"))
        if len(unsure):
            keys = rows.select([name for name, _ in self.order]).take(pa.array(unsure))
            passed[unsure] = self._passed_wholly(keys, equal=equal)
        return passed

    def _passed_wholly(self, rows: pa.RecordBatch, *, equal: bool) -> Buckets:
        """Count them by all of the sort columns."""
        bounds, count = self.bounds, self.bounds.num_rows
        columns = [
            pa.concat_arrays([bounds.column(name).cast(rows.column(name).type), rows.column(name)])
            for name, _ in self.order
        ]
        # Of what is equal, bounds come first where they count.
        flags = np.repeat([not equal, equal], [count, rows.num_rows])
        both = pa.record_batch([*columns, pa.array(flags)], [*(name for name, _ in self.order), _FLAG])
        order = order_of(both, (*self.order, (_FLAG, False)))
        passed = np.empty(len(order), np.int64)
        passed[order] = np.cumsum(order < count)
        return passed[count:]


def sort_order(spec: TableSpec) -> Columns:
    """Give the sort order of a table; none is no order."""
    return tuple((field.column, field.descending) for field in spec.sort)


def whole(order: Columns) -> Ranges:
    """Give the one bucket of an hour that is not cut."""
    return Ranges(order, pa.record_batch([pa.nulls(0) for _ in order], [name for name, _ in order]))


def sampled(sample: pa.RecordBatch, order: Columns, buckets: int) -> Ranges:
    """Cut a sample into equal parts, each of which begins a bucket.

    Args:
        sample: rows in any order.
        order: the sort order.
        buckets: that are wanted.
    """
    rows = sample.num_rows
    cuts = [rows * part // buckets for part in range(1, buckets)] if rows else []
    keys = sample.select([name for name, _ in order])
    return Ranges(order, keys.take(pa.array(order_of(keys, order)[cuts], pa.int64())))

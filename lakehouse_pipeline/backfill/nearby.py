"""Bounds of a sorted hour that come from the files of an hour beside it. The driver's: tasks need not know of tables.

Bounds that do not suit an hour cost balance, and never its order.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from lakehouse_pipeline.backfill.placement import Buckets, Ranges
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.row_order import Columns, order_of
from lakehouse_pipeline.iceberg.sorted_files import SortedFile, sorted_files

UNEVEN = 3  # times its share that a bucket may have; with bounds that made a larger one, the next hour is sampled
NEARBY = (0, -1, 1, -2, 2, -3, 3)  # hours whose bounds may do, the best first


def recent(files: Sequence[SortedFile], order: Columns, kind: pa.DataType, buckets: int) -> Ranges | None:
    """Cut by the leading column, where files of an earlier hour begin; None where that would cut badly.

    Args:
        files: of the hour.
        order: the sort order.
        kind: of its leading column.
        buckets: that are wanted.
    """
    if len(files) < buckets or any(file.first is None for file in files):
        return None
    leading = order[:1]
    firsts = pa.record_batch([pa.array([file.first for file in files], kind)], [leading[0][0]])
    places = order_of(firsts, leading)
    before = np.cumsum([0, *(files[place].rows for place in places)])
    cuts = _nearest(before, buckets)
    if max(np.diff([0, *before[cuts], before[-1]])) * buckets > UNEVEN * before[-1]:
        return None
    ranges = Ranges(leading, firsts.take(pa.array(places[cuts])))
    return None if ranges.repeats else ranges  # what is alike in the leading column is told apart by the others


def _nearest(before: Buckets, buckets: int) -> list[int]:
    """Choose files, each another one, before which there are about as many rows as before each bucket but the first."""
    cuts = [0]
    for bucket in range(1, buckets):
        wanted = before[-1] * bucket / buckets
        above = int(np.searchsorted(before, wanted))
        nearest = above if before[above] - wanted < wanted - before[above - 1] else above - 1
        cuts.append(min(max(nearest, cuts[-1] + 1), len(before) - 1 - (buckets - bucket)))
    return cuts[1:]


def ranges_nearby(table: HourlyTable, hour: HourWindow, buckets: int) -> Ranges | None:
    """Cut an hour where the files of the hour itself, or of one beside it, begin; None where a sample is better.

    Args:
        table: with a sort order.
        hour: the hour.
        buckets: that are wanted, two at least.
    """
    kind = table.arrow_schema.field(table.order[0][0]).type
    for offset in NEARBY:
        files = sorted_files(table.table, table.hour, HourWindow.from_ordinal(hour.ordinal + offset))
        if files:
            return recent(files, table.order, kind, buckets)
    return None

"""Windows: the hours of a table part by part, where its live files are too many to be looked at in one go.

Told from the manifest list alone. A tick of a sensor looks at one window; a run looks at one after the other, and has
the files of no more in memory.
"""

import math
from collections.abc import Sequence

from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.regrouping import HeadManifest, head_manifests

# That a window has, about: manifests are read one after the other, and a tick has 60 s for all that it does; a live
# file takes a kilobyte of memory.
MANIFESTS, FILES = 500, 200_000

HOURS = 300_000  # 34 years: a table whose hours are further apart has times that are none

Window = Sequence[HourWindow] | None  # in time order; None is all that the table has


def windows(table: HourlyTable) -> list[Window]:
    """Cut the hours of a table into windows, in time order, each hour in one; there is always one.

    Where files may be of any hour, or a row's time is far from all others, there is one window, whatever its size:
    nothing tells them apart.
    """
    found = [each for each in head_manifests(table.table, table.hour) if each.span.low <= each.span.high]
    if _fits(found) or max(each.span.high for each in found) - min(each.span.low for each in found) > HOURS:
        return [None]
    parts, last, manifests, files = [list[HourWindow]()], -math.inf, 0, 0
    for each in sorted(found, key=lambda each: (each.span.low, each.span.high)):
        if parts[-1] and (manifests >= MANIFESTS or files >= FILES) and each.span.high > last:
            parts.append([])
            manifests = files = 0
        first = int(max(each.span.low, last + 1))
        parts[-1] += [HourWindow.from_ordinal(hour) for hour in range(first, int(each.span.high) + 1)]
        last, manifests, files = max(last, each.span.high), manifests + 1, files + each.live
    return [*parts]


def window_at(table: HourlyTable, cursor: str | None) -> tuple[Window, str | None]:
    """Give the window that a cursor is in, the first where it is beyond all, and the cursor of the next."""
    parts, at = windows(table), int(cursor or 0)
    window = next((part for part in parts if part is None or part[-1].ordinal >= at), parts[0])
    return window, None if window is None else str(window[-1].ordinal + 1)


def _fits(manifests: Sequence[HeadManifest]) -> bool:
    return len(manifests) <= MANIFESTS and sum(each.live for each in manifests) <= FILES

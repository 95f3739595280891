"""Hours whose source has changed since they were committed: files that landed late, or were written again."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from lakehouse_pipeline.backfill.plan import observe_inputs, source_of
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.errors import DataError
from lakehouse_pipeline.hours import HourRange, HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.side_by_side import side_by_side

LOOKS_AT_ONCE = 16


def late_window(spec: TableSpec, now: datetime | None = None) -> HourRange | None:
    """Give the hours of a table whose source is watched: as far back as its `late` says; None where there are none."""
    moment = (now or datetime.now(UTC)).replace(minute=0, second=0, microsecond=0)
    over = spec.hours_over(moment)
    if spec.late is None or over is None:
        return None
    first = max(over.first, HourWindow(moment - spec.late))
    return HourRange(first, over.last) if first <= over.last else None


def changed_hours(
    spec: TableSpec, table: HourlyTable, files: LakehouseFileIO, hours: Sequence[HourWindow]
) -> Mapping[HourWindow, str]:
    """Find committed hours whose source is another now; gives its fingerprint by hour.

    Hours that are under way are left to their run. An hour whose objects are all gone has not changed: raw files are
    removed after a while, and that must not empty the table.

    Raises:
        TransientError: the store did not answer.
    """

    def look(hour: HourWindow) -> str | None:
        record = table.ledger.hour(hour).record
        if record.attempt is not None or record.committed is None:
            return None
        try:
            inputs = observe_inputs(spec, files, hour)
        except DataError:
            return None  # nothing is there
        now = source_of(spec, inputs)
        return now if inputs.source and now != record.committed.source else None

    # Of an hour without a record there is nothing to ask: all that are known need not be listed.
    found = zip(hours, side_by_side(look, hours, LOOKS_AT_ONCE), strict=True)
    return {hour: fingerprint for hour, fingerprint in found if fingerprint}

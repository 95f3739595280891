"""What there is to know of a table's hours before a backfill: their objects, which need not run, what others took."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lakehouse_pipeline.backfill.plan import HourInputs, TableState, list_inputs, plan_hour
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.hours import HourRange, HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.manifests import digest
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.ledger.records import Committed, HourRecord
from lakehouse_pipeline.object_store.side_by_side import side_by_side

READS_AT_ONCE = 16
MEASURED_HOURS = 48  # the last ones of other ranges, where none of those asked for was run yet


@dataclass(frozen=True)
class KnownHours:
    """What was seen.

    Attributes:
        inputs: objects by hour; none where nobody looked.
        table: None while there is none.
        there: hours that a run skips.
        sealed: hours that only wait for their commit.
        measured: hours of the table that were run, as they were committed.
    """

    inputs: Mapping[HourWindow, HourInputs] = field(default_factory=dict)
    table: HourlyTable | None = None
    there: frozenset[HourWindow] = frozenset()
    sealed: frozenset[HourWindow] = frozenset()
    measured: Mapping[HourWindow, Committed] = field(default_factory=dict)


def look_at(spec: TableSpec, warehouse: Warehouse, hours: HourRange, *, force: bool = False) -> KnownHours:
    """Look at what a backfill would find; nothing is written.

    Args:
        spec: the table's.
        warehouse: where it is.
        hours: to run.
        force: as a backfill is asked to run unchanged hours, too.

    Raises:
        ConfigurationError: a bucket is not there.
        TransientError: the store did not answer.
    """
    inputs, table = list_inputs(spec, warehouse.files, hours), warehouse.find(spec)
    if table is None:
        return KnownHours(inputs)
    known = sorted(table.ledger.known())
    records = _records(table, [hour for hour in known if hour in hours])
    live = _live(table, records)
    steps = {
        hour: plan_hour(
            spec, hour, inputs[hour], record, TableState(table.uuid, table.schema_id, live[hour]), force=force
        ).step
        for hour, record in records.items()
    }
    return KnownHours(
        inputs,
        table,
        there=frozenset(hour for hour, step in steps.items() if step == "skip"),
        sealed=frozenset(hour for hour, step in steps.items() if step == "resume"),
        measured=_committed(records) or _committed(_records(table, known[-MEASURED_HOURS:])),
    )


def _records(table: HourlyTable, hours: Sequence[HourWindow]) -> dict[HourWindow, HourRecord]:
    read = side_by_side(lambda hour: table.ledger.hour(hour).record, hours, READS_AT_ONCE)
    return dict(zip(hours, read, strict=True))


def _committed(records: Mapping[HourWindow, HourRecord]) -> dict[HourWindow, Committed]:
    return {hour: record.committed for hour, record in records.items() if record.committed}


def _live(table: HourlyTable, records: Mapping[HourWindow, HourRecord]) -> dict[HourWindow, str]:
    """Give the digest of each hour's live files; one that may be of several counts in each."""
    told = table.as_sealed({hour: record.seals for hour, record in records.items()})
    found: dict[HourWindow, list[str]] = {hour: [] for hour in records if hour not in told}
    for file in table.all_live(found) if found else ():
        only = file.span.hour
        for hour in found if only is None else [HourWindow.from_ordinal(only)]:
            if hour in found and file.span.meets([hour.ordinal]):
                found[hour].append(file.path)
    return told | {hour: digest(paths) for hour, paths in found.items()}

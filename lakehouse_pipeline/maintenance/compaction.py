"""Compaction of an hour: its rows in fewer files, proved to be the same before they take the place of the old ones.

It is an attempt like any other (004): marked, leased, sealed, committed, resumed or closed by the same code. What it is
made from is told as what the hour's run was made from, so that the hour is still unchanged for a backfill.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pyarrow as pa

from lakehouse_pipeline.backfill.attempts import HourInHand
from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.errors import CommitConflictError, LakehouseError, SafetyError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.checksum import Checksum, checksum, checksum_of
from lakehouse_pipeline.iceberg.data_files import BUCKET, WrittenFile, write_batches, written_files
from lakehouse_pipeline.iceberg.hourly import HourlyTable, Warehouse
from lakehouse_pipeline.iceberg.manifests import digest
from lakehouse_pipeline.iceberg.sorted_rows import in_order
from lakehouse_pipeline.ledger.records import Attempt, Committed, new_attempt_id
from lakehouse_pipeline.maintenance.plan import DATA, CompactionPlan, HourToCompact, Rules, plan_compaction
from lakehouse_pipeline.object_store.side_by_side import side_by_side

HOURS_AT_ONCE = 2
ROWS_AT_ONCE = 65_536
RECORDS_AT_ONCE = 32
SORTED_BYTES = 128 * 1024**2  # on storage, of an hour whose rows are sorted


class ProofError(SafetyError):
    """The rows that were written are not those that were read; nothing was committed, and nothing is left."""


@dataclass(frozen=True)
class Compacted:
    """How the compaction of an hour ended.

    Attributes:
        hour: the hour.
        files_before: live ones.
        bytes_before: of them.
        committed: what it is now; None where it did not come to that.
        error: why not. A CommitConflictError means that it stepped aside: somebody else has, or has changed, the hour.
    """

    hour: HourWindow
    files_before: int
    bytes_before: int
    committed: Committed | None = None
    error: LakehouseError | None = None


def look(
    settings: MaintenanceSettings, table: HourlyTable, hours: Sequence[HourWindow] | None = None
) -> CompactionPlan:
    """Plan the compaction of a table; reads metadata and the ledger, and changes nothing.

    Args:
        settings: how long hours have to be over.
        table: loaded now.
        hours: of these only.
    """
    marked = list({each.hour for each in table.ledger.marked()})  # whatever is under way has a marker
    records = side_by_side(lambda hour: table.ledger.hour(hour).record, marked, RECORDS_AT_ONCE)
    busy = {hour for hour, record in zip(marked, records, strict=True) if record.attempt is not None}
    wanted = None if hours is None else {hour.ordinal for hour in hours}
    live = (file for file in table.all_live() if wanted is None or file.hour in wanted)
    rules = Rules.of(table.table.properties)
    if table.order:  # rows of all files are sorted together, in memory
        rules = replace(rules, max_group_bytes=SORTED_BYTES)
    return plan_compaction(live, busy, rules, datetime.now(UTC), settings.compact_after)


def compact(warehouse: Warehouse, spec: TableSpec, plan: CompactionPlan, run_id: str) -> list[Compacted]:
    """Compact the hours of a plan, some of them at once; one that fails does not stop the others."""

    def one(todo: HourToCompact) -> Compacted:
        before = Compacted(todo.hour, len(todo.files), todo.bytes)
        try:
            return replace(before, committed=compact_hour(warehouse, spec, todo, run_id))
        except LakehouseError as error:
            return replace(before, error=error)

    return side_by_side(one, plan.hours, HOURS_AT_ONCE)


def compact_hour(warehouse: Warehouse, spec: TableSpec, todo: HourToCompact, run_id: str) -> Committed:
    """Write an hour's rows into fewer files, prove that they are the same, and commit.

    Raises:
        CommitConflictError: somebody else has the hour, or has changed it since the plan; nothing is left of this.
        ProofError: the rows are not the same.
        TransientError: the store or the catalog did not answer. What was sealed is committed by a later run.
    """
    table = warehouse.find(spec)
    if table is None:
        raise CommitConflictError(f"{spec.table} is gone")
    held = table.ledger.hour(todo.hour)
    table = warehouse.find(spec) or table  # not older than the record
    committed, live = held.record.committed, tuple(file.path for file in table.live(todo.hour))
    if held.record.attempt is not None or digest(live) != digest(file.path for file in todo.files):
        raise CommitConflictError(f"{todo.hour} has changed since the plan was made")
    ours = committed if committed and committed.seal.digest == digest(live) else None
    hand = HourInHand(table, todo.hour, held, run_id)
    hand.open(
        Attempt(
            id=new_attempt_id(),
            run_id=run_id,
            opened_at=datetime.now(UTC),
            opened_on=table.head,
            replaces=digest(live),
            # Where somebody else has written into the hour, a backfill finds it changed, as it would have before.
            source=ours.source if ours else "",
            recipe=ours.recipe if ours else "",
            buckets=1,
            layout=table.layout,
            rewrites=True,
        )
    )
    try:
        with hand.renewing(lambda: "compact"):
            files = _rewritten(table, todo, hand.attempt.id)
            before = ours.seal if ours else None
            seal = table.seal(
                hand.attempt.id,
                files,
                rows_read=before.rows_read if before else None,
                rejected=before.rejected if before else 0,
                left=before.left if before else None,
            )
            hand.seal(seal.model_copy(update={"at": datetime.now(UTC)}))
    except BaseException as error:
        hand.close(error)
        raise
    with hand.renewing(lambda: "commit"):
        return hand.commit()


def _rewritten(table: HourlyTable, todo: HourToCompact, attempt: str) -> list[WrittenFile]:
    """Write the rows again; what was written is read back and held against what was read."""
    schema, rules = table.schema, Rules.of(table.table.properties)
    data, read = [file for file in todo.files if file.content == DATA], Checksum()

    def rows() -> Iterator[pa.RecordBatch]:
        nonlocal read
        for batch in table.batches({file.path for file in data}, todo.hour):
            read += checksum(batch, schema)
            yield batch.append_column(BUCKET, pa.array([0] * batch.num_rows, pa.int32()))

    columns = table.order
    batches = in_order(pa.Table.from_batches(rows()), columns).to_batches(ROWS_AT_ONCE) if columns else rows()
    files = written_files(write_batches(table.target(todo.hour, attempt, rules.target_bytes), batches))
    written = checksum_of(table.written(files), schema)
    # How many rows delete files take, and whether some of them do so twice, their metadata do not tell.
    live = sum(file.rows for file in data) if len(data) == len(todo.files) else read.rows
    if read != written or read.rows != live:
        raise ProofError(
            f"{todo.hour}: {live} rows are live, {read.rows} were read and {written.rows} written, with checksums "
            f"{read.total:016x} and {written.total:016x}: nothing is committed. Report this as a defect"
        )
    return files

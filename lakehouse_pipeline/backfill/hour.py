"""One hour from its objects to its snapshot: attempt, ETL, seal, commit, close.

Up to the seal a failure throws the attempt away and removes its files by name; from the seal on the files are kept and
the next run resumes at the commit.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill.arrange import new_columns
from lakehouse_pipeline.backfill.attempts import HourInHand, TakenError, commit_together, note_failure
from lakehouse_pipeline.backfill.halt import Halt
from lakehouse_pipeline.backfill.hour_result import HourResult, Stages, emit_ended
from lakehouse_pipeline.backfill.hour_run import Bench, HourRun
from lakehouse_pipeline.backfill.plan import TableState, observe_inputs, plan_hour
from lakehouse_pipeline.config.types import Column
from lakehouse_pipeline.errors import LakehouseError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.manifests import digest
from lakehouse_pipeline.ledger.records import HourRecord
from lakehouse_pipeline.object_store.counts import RequestCounter, counting

logger = logging.getLogger(__name__)


def run_hour(bench: Bench, hour: HourWindow, *, force: bool = False) -> HourResult:
    """Bring one hour to the state that its objects and its spec describe, or leave the table as it is.

    Where another run holds the hour, this one waits until that has ended or its lease is over.

    Raises:
        DataError: the objects are not what the spec says; nothing changed.
        ConfigurationError: the spec, the transform and the table do not fit; nothing changed.
        CommitConflictError: somebody else took or changed the hour.
        CommitStateUnknownError: the commit may have landed; the next run finds out first.
        TransientError: the store or the catalog did not answer within the retries.
    """
    work = seal_hour(bench, hour, force=force)
    if isinstance(work, HourResult):
        return work
    outcome = commit_hours([work])[hour]
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def seal_hour(bench: Bench, hour: HourWindow, *, force: bool = False, halt: Halt | None = None) -> HourResult | HourRun:
    """Take an hour as far as it goes without a commit: skipped, or sealed and in hand, its lease renewed.

    Args:
        bench: what the hours of a run share.
        hour: the hour.
        force: run the ETL of an hour that is unchanged, too.
        halt: ends the hour, whatever it is at.

    Raises:
        HaltedError: by `halt`, which may also name another error.
        LakehouseError: as `run_hour`.
    """
    halt = halt or Halt()
    with _failing(bench, hour), counting() as counter:
        work = _sealed(bench, hour, counter, halt, force=force)
    if isinstance(work, HourResult):
        events.emit("hour.finished", bench.spec.table, hour.key, work.attempt, result=work)
    return work


def commit_hours(
    runs: Sequence[HourRun], others: Sequence[HourInHand] = ()
) -> dict[HourWindow, HourResult | LakehouseError]:
    """Commit sealed hours of one table in one snapshot; gives, by hour, what became of it.

    Args:
        runs: of this process.
        others: what other runs have sealed, and wait for.
    """
    began, share = time.monotonic(), 1 / (len(runs) + len(others))
    with ExitStack() as leases, counting() as counter:
        for run in runs:
            leases.push(run.lease)
            run.stages.now = "commit"
        for hand in others:
            leases.enter_context(hand.renewing(lambda: "commit"))
        outcomes = commit_together([*(run.hand for run in runs), *others])
    for place, run in enumerate(runs):
        # What many hours have cost together is shared out among them.
        run.stages.seconds["commit"] = round((time.monotonic() - began) * share, 3)
        run.of_tasks += counter.snapshot().part(place, len(runs) + len(others))
    return {run.hand.hour: run.ended(outcomes[run.hand.hour]) for run in runs}


@contextmanager
def _failing(bench: Bench, hour: HourWindow) -> Iterator[None]:
    """Say how an hour failed: as an event, and in its record where no attempt of it has come that far."""
    try:
        yield
    except BaseException as error:
        with suppress(LakehouseError):  # the first error is the one to hear of
            if table := next(iter(bench.loaded), None) or bench.warehouse.find(bench.spec):
                note_failure(table, hour, bench.run_id, error)
        emit_ended(bench.spec.table, hour, error)
        raise


def _sealed(
    bench: Bench, hour: HourWindow, counter: RequestCounter, halt: Halt, *, force: bool
) -> HourResult | HourRun:
    stages = Stages()
    while True:
        with stages.timed("plan"):
            work = _planned(bench, hour, stages, counter, halt, force=force)
        try:
            if result := _carried_out(work):
                return result
        except TakenError:
            logger.warning("%s: its record was written by another run just now; looking again", hour)


def _carried_out(work: HourRun) -> HourResult | HourRun | None:
    """Do what was planned; None where what another run did has to be planned for anew."""
    if work.plan.step == "skip":
        return work.skip()
    with work.stages.timed("wait"):
        if work.waits():
            return None  # there may be nothing left to do
    if work.plan.step == "resume" and work.is_whole():
        return work.resume()
    return work.run() if work.may_open() else None


def _planned(
    bench: Bench, hour: HourWindow, stages: Stages, counter: RequestCounter, halt: Halt, *, force: bool
) -> "HourRun":
    spec, warehouse = bench.spec, bench.warehouse
    halt.check()
    declared = spec.target_columns
    # Before anything can fail, where it can be made: the table's ledger is where failures are kept.
    table = _table_of(bench, lambda: declared) if declared else None
    inputs = observe_inputs(spec, warehouse.files, hour)
    table = table or _table_of(bench, lambda: new_columns(spec, warehouse.files, inputs.source))
    held = table.ledger.hour(hour)
    if not _knows(table, hour, held.record):
        table = warehouse.table(spec) or table
    live = table.as_sealed({hour: held.record.seals}).get(hour) or digest(file.path for file in table.live(hour))
    plan = plan_hour(spec, hour, inputs, held.record, TableState(table.uuid, table.schema_id, live), force=force)
    events.emit("hour.planned", spec.table, hour.key, step=plan.step, why=plan.why)
    hand = HourInHand(table, hour, held, bench.run_id)
    return HourRun(bench, table, hand, plan, stages, live, counter, halt)


def _knows(table: HourlyTable, hour: HourWindow, record: HourRecord) -> bool:
    """Tell whether a table that was loaded before a record was read has what the record knows of."""
    committed = record.committed
    if record.attempt is not None:  # it may have landed, or be landing
        return False
    if committed is None:
        return True
    if committed.snapshot_id is not None and table.table.metadata.snapshot_by_id(committed.snapshot_id) is not None:
        return True
    return table.as_sealed({hour: record.seals}).get(hour) == committed.seal.digest  # its snapshot has expired


def _table_of(bench: Bench, columns: Callable[[], tuple[Column, ...]]) -> HourlyTable:
    """Load the table, or make it with these columns."""
    with bench.creating:
        table = bench.warehouse.table(bench.spec) or bench.warehouse.create(bench.spec, columns())
        bench.loaded[:] = [table]
        return table

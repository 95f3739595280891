"""One hour from its objects to its snapshot: attempt, ETL, seal, commit, close.

Up to the seal a failure throws the attempt away and removes its files by name; from the seal on the files are kept and
the next run resumes at the commit.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from pyspark.sql import SparkSession

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill.arrange import new_columns
from lakehouse_pipeline.backfill.checks import Check, check_rows
from lakehouse_pipeline.backfill.close import remove_files
from lakehouse_pipeline.backfill.etl import run_etl
from lakehouse_pipeline.backfill.inputs import Aside
from lakehouse_pipeline.backfill.keys import check_keys
from lakehouse_pipeline.backfill.placement import bucket_count
from lakehouse_pipeline.backfill.plan import HourPlan, TableState, observe_inputs, plan_hour
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.engines.capabilities import capabilities
from lakehouse_pipeline.engines.failures import translated
from lakehouse_pipeline.engines.preflight import check_tasks
from lakehouse_pipeline.engines.sessions import cores_of
from lakehouse_pipeline.engines.tasks import ended_with
from lakehouse_pipeline.errors import CommitConflictError, LakehouseError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.commit import RivalsWonError
from lakehouse_pipeline.iceberg.hourly import HourlyTable, Warehouse
from lakehouse_pipeline.iceberg.manifests import digest
from lakehouse_pipeline.ledger import Attempt, Committed, HourLedger, Outcome, Seal, new_attempt_id

logger = logging.getLogger(__name__)

SAMPLE_KEYS = 2


@dataclass(frozen=True)
class Bench:
    """What every hour of a run shares.

    Attributes:
        spec: the table's spec.
        warehouse: the catalog and its store.
        session: gives the Spark session; not asked for unless an hour has to run.
        run_id: of the orchestrator.
    """

    spec: TableSpec
    warehouse: Warehouse
    session: Callable[[], SparkSession]
    run_id: str


@dataclass(frozen=True)
class HourResult:
    """How an hour ended well.

    Attributes:
        hour: the hour.
        attempt: whose files are live now.
        step: `run`, `resume` or `skip`.
        why: why that step.
        snapshot_id: of the commit; None where an empty hour replaced nothing.
        seal: counts of the live files.
        location: of the table.
        source: fingerprint of the hour's objects.
        seconds: by stage.
        sample_keys: some of the files; none for a hour that was not written now.
        checks: what was checked before the seal; none for an hour that was not written now.
    """

    hour: HourWindow
    attempt: str
    step: str
    why: str
    snapshot_id: int | None
    seal: Seal
    location: str
    source: str
    seconds: Mapping[str, float]
    sample_keys: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()


@dataclass
class _Stages:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = round(time.monotonic() - started, 3)


def run_hour(bench: Bench, hour: HourWindow, *, force: bool = False) -> HourResult:
    """Bring one hour to the state that its objects and its spec describe, or leave the table as it is.

    Raises:
        DataError: the objects are not what the spec says; nothing changed.
        ConfigurationError: the spec, the transform and the table do not fit; nothing changed.
        CommitConflictError: somebody else took or changed the hour.
        CommitStateUnknownError: the commit may have landed; the next run finds out first.
        TransientError: the store or the catalog did not answer within the retries.
    """
    try:
        result = _run_hour(bench, hour, force=force)
    except BaseException as error:
        events.emit("hour.failed", bench.spec.table, hour.key, error=type(error).__name__, message=str(error))
        raise
    events.emit("hour.finished", bench.spec.table, hour.key, result.attempt, result=result)
    return result


def _run_hour(bench: Bench, hour: HourWindow, *, force: bool) -> HourResult:
    stages = _Stages()
    spec, warehouse = bench.spec, bench.warehouse
    with stages.timed("plan"):
        inputs = observe_inputs(spec, warehouse.files, hour)
        table = warehouse.table(spec) or warehouse.create(spec, new_columns(spec, warehouse.files, inputs.source))
        held = table.ledger.hour(hour)
        live = tuple(file.path for file in table.live(hour))
        plan = plan_hour(spec, hour, inputs, held.record, TableState(table.uuid, table.schema_id, live), force=force)
    events.emit("hour.planned", spec.table, hour.key, step=plan.step, why=plan.why)
    attempt = _AttemptOfHour(bench, table, held, plan, stages)
    if plan.step == "skip":
        return attempt.skip()
    return attempt.resume() if plan.step == "resume" else attempt.run(digest(live))


@dataclass
class _AttemptOfHour:
    """One attempt, from its opening to its close."""

    bench: Bench
    table: HourlyTable
    held: HourLedger
    plan: HourPlan
    stages: _Stages
    checks: tuple[Check, ...] = ()
    sample_keys: tuple[str, ...] = ()
    attempt_id: str = ""
    tasks_may_go_on: bool = False

    def skip(self) -> HourResult:
        """Leave the hour as it is. Nothing is written: somebody else may be at work on it, forced to."""
        committed = self.held.record.committed
        if committed is None:
            raise LakehouseError(f"{self.plan.hour} was never committed and cannot be skipped")
        self.attempt_id = committed.attempt
        return self._result(committed)

    def resume(self) -> HourResult:
        """Take a sealed attempt to its commit; its files are as good as on the day they were written."""
        self.attempt_id = self._attempt().id
        return self._commit()

    def run(self, replaces: str) -> HourResult:
        """Open an attempt, write it, seal it and commit it."""
        inputs = self.plan.inputs
        # `missing: empty`: an hour without objects is an hour without rows, and needs no engine.
        session = self.bench.session() if inputs.source else None
        if session:
            # What a late task writes after the hour has failed is removed before the hour is written again.
            self.tasks_may_go_on = not capabilities(session).local_tasks
            objects = [(self.table.files, self.table.metadata_url)]
            if self.bench.spec.source.reader == "arrow":  # tasks read it, with what may be another principal
                objects.append((self.bench.warehouse.files, inputs.source[0].url))
            check_tasks(session, self.table.location, objects)
        attempt = Attempt(
            id=new_attempt_id(),
            run_id=self.bench.run_id,
            opened_at=datetime.now(UTC),
            opened_on=self.table.head,
            replaces=replaces,
            source=self.plan.source,
            recipe=self.plan.recipe,
            buckets=bucket_count(self.bench.spec, self.plan.hour, inputs.bytes, cores_of(session)) if session else 0,
        )
        self.attempt_id, earlier = attempt.id, self.held.record
        self.held.advance(epoch=earlier.epoch + 1, state="open", attempt=attempt, outcome=None)
        self._emit("attempt.opened")
        if earlier.attempt and earlier.state != "committing":
            # It can be neither sealed nor sent any more: both are said in the record first, and that is ours now.
            self._remove(earlier.attempt)
        try:
            if session:
                with ended_with(session, attempt.id):
                    seal = self._write(session, attempt)
            else:
                seal = self._empty(attempt)
            self.held.advance(state="sealed", attempt=attempt.model_copy(update={"seal": seal}))
        except BaseException as error:
            self._close(attempt, error, keep=self.tasks_may_go_on)
            raise
        self._emit("attempt.sealed", files=seal.files, rows=seal.rows)
        return self._commit()

    def _empty(self, attempt: Attempt) -> Seal:
        return self.table.seal(attempt.id, (), rows_read=0, rejected=0, left=0)

    def _write(self, session: SparkSession, attempt: Attempt) -> Seal:
        table, plan, spec = self.table, self.plan, self.bench.spec
        aside = Aside(table.files, table.ledger.rejects_url(plan.hour, attempt.id))
        target = table.target(plan.hour, attempt.id, spec.file_size)
        with self.stages.timed("etl"):
            etl = run_etl(
                session,
                spec,
                plan,
                self.bench.warehouse.files,
                columns=table.columns,
                aside=aside,
                target=target,
                buckets=attempt.buckets,
            )
        written, rows_read = etl.files, etl.rows_read
        with self.stages.timed("check"), translated(f"{spec.name} {plan.hour}"):
            self.checks = (check_rows(spec, sum(file.rows for file in written), rows_read, etl.rejected, etl.left),)
            if spec.key:
                self.checks += (check_keys(session, spec, written, table),)
        self.sample_keys = tuple(file.path for file in written[:SAMPLE_KEYS])
        with self.stages.timed("seal"):
            return table.seal(attempt.id, written, rows_read=rows_read, rejected=etl.rejected, left=etl.left)

    def _commit(self) -> HourResult:
        attempt = self._attempt()
        if attempt.seal is None:
            raise LakehouseError(f"attempt {attempt.id} of {self.plan.hour} is not sealed")

        def record(base: int | None, snapshot_id: int) -> None:
            sent = attempt.model_copy(update={"base": base, "snapshot_id": snapshot_id})
            self.held.advance(state="committing", attempt=sent)

        try:
            with self.stages.timed("commit"):
                replaced = self.table.replace(self.plan.hour, attempt, before_send=record)
        except RivalsWonError as error:
            self._keep_sealed(error)
            raise
        except CommitConflictError as error:
            self._close(attempt, error)  # none of its commits landed, or can
            raise
        except BaseException as error:
            self._keep_sealed(error)
            raise
        committed = Committed(
            attempt=attempt.id,
            at=datetime.now(UTC),
            snapshot_id=replaced.snapshot_id,
            source=attempt.source,
            recipe=attempt.recipe,
            seal=attempt.seal,
        )
        self.held.advance(state="idle", attempt=None, committed=committed, outcome=self._outcome("committed"))
        self._emit("attempt.committed", snapshot_id=replaced.snapshot_id)
        return self._result(committed)

    def _close(self, attempt: Attempt, error: BaseException, *, keep: bool = False) -> None:
        """Remove what an attempt wrote that is not part of the table, and say what cannot be removed now.

        With `keep` the record goes on to name the attempt, so that the next one removes its files once more.

        The record comes first: whoever still means to commit the attempt is refused from then on. Where it is not this
        run's any more, or the answer to the writing of the seal was lost, somebody may have taken the attempt further.
        """
        with _told(f"attempt {attempt.id} of {self.plan.hour}"):
            try:
                kept = attempt if keep else None
                self.held.advance(state="idle", attempt=kept, outcome=self._outcome("failed", error))
            except CommitConflictError:
                if self._is_recorded(attempt) or self.table.was_committed(attempt.id):
                    return
            if attempt.snapshot_id is None:
                self._remove(attempt, final=not keep)
            else:  # an earlier run sent it: it may have landed in a snapshot that was expired since
                logger.warning("%s: the files of attempt %s stay: it was sent before", self.plan.hour, attempt.id)
        self._emit("attempt.closed", error=type(error).__name__)

    def _remove(self, attempt: Attempt, *, final: bool = True) -> None:
        with _told(f"attempt {attempt.id} of {self.plan.hour}"):
            remove_files(self.table, self.plan.hour, attempt, final=final)

    def _is_recorded(self, attempt: Attempt) -> bool:
        """Tell whether the hour's record, as it is now, holds an attempt."""
        record = self.table.ledger.hour(self.plan.hour).record
        held = record.attempt.id if record.attempt else None
        return attempt.id in (held, record.committed.attempt if record.committed else None)

    def _keep_sealed(self, error: BaseException) -> None:
        with _told(f"attempt {self._attempt().id} of {self.plan.hour}"):
            self.held.advance(outcome=self._outcome("failed", error))

    def _attempt(self) -> Attempt:
        if self.held.record.attempt is None:
            raise LakehouseError(f"{self.plan.hour} has no attempt")
        return self.held.record.attempt

    def _outcome(
        self, kind: Literal["committed", "failed", "cancelled"], error: BaseException | None = None
    ) -> Outcome:
        if error is not None and not isinstance(error, Exception):
            kind = "cancelled"  # KeyboardInterrupt, and Dagster's own interruption of a run
        return Outcome(
            kind=kind,
            at=datetime.now(UTC),
            run_id=self.bench.run_id,
            error=type(error).__name__ if error else "",
            message=str(error) if error else "",
        )

    def _result(self, committed: Committed) -> HourResult:
        return HourResult(
            hour=self.plan.hour,
            attempt=committed.attempt,
            step=self.plan.step,
            why=self.plan.why,
            snapshot_id=committed.snapshot_id,
            seal=committed.seal,
            location=self.table.location,
            source=committed.source,
            seconds=dict(self.stages.seconds),
            sample_keys=self.sample_keys,
            checks=self.checks,
        )

    def _emit(self, name: str, **fields: object) -> None:
        events.emit(name, self.bench.spec.table, self.plan.hour.key, self.attempt_id, **fields)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Let an earlier error pass even where closing up after it fails too."""
    try:
        yield
    except LakehouseError as error:
        logger.warning("%s could not be closed: %s", what, error)

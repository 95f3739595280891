"""One hour from its objects to its snapshot: attempt, ETL, seal, commit, close.

Up to the seal a failure throws the attempt away and removes its files by name; from the seal on the files are kept and
the next run resumes at the commit.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pyspark.sql import SparkSession

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill.arrange import new_columns
from lakehouse_pipeline.backfill.attempts import SEALED, HourInHand, TakenError, commit_together, note_failure
from lakehouse_pipeline.backfill.checks import Check, check_rows
from lakehouse_pipeline.backfill.close import RunIsOver, is_free
from lakehouse_pipeline.backfill.etl import run_etl
from lakehouse_pipeline.backfill.halt import Halt
from lakehouse_pipeline.backfill.inputs import Aside
from lakehouse_pipeline.backfill.keys import check_keys
from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.backfill.nearby import ranges_nearby
from lakehouse_pipeline.backfill.order import check_order
from lakehouse_pipeline.backfill.placement import Ranges, bucket_count
from lakehouse_pipeline.backfill.plan import HourPlan, TableState, observe_inputs, plan_hour
from lakehouse_pipeline.backfill.pulse import Pulse
from lakehouse_pipeline.backfill.staging import remove_staged, stage
from lakehouse_pipeline.backfill.staging_choice import DIRECT, StagingChoice, choose_staging
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.types import Column
from lakehouse_pipeline.engines.capabilities import capabilities
from lakehouse_pipeline.engines.failures import translated
from lakehouse_pipeline.engines.preflight import check_tasks
from lakehouse_pipeline.engines.sessions import cores_of
from lakehouse_pipeline.engines.tasks import NO_JOBS, Running, ended_with
from lakehouse_pipeline.errors import CommitConflictError, LakehouseError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable, Warehouse
from lakehouse_pipeline.iceberg.manifests import digest
from lakehouse_pipeline.ledger.leases import LEASE
from lakehouse_pipeline.ledger.records import Attempt, Committed, Seal, new_attempt_id
from lakehouse_pipeline.object_store.counts import NO_REQUESTS, RequestCounter, RequestCounts, counting
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

logger = logging.getLogger(__name__)

SAMPLE_KEYS = 2
LOOK_AGAIN_S = 1.0  # at the record of an hour that another run holds


@dataclass(frozen=True)
class Bench:
    """What every hour of a run shares.

    Attributes:
        spec: the table's spec.
        warehouse: the catalog and its store.
        session: gives the Spark session; not asked for unless an hour has to run.
        run_id: of the orchestrator.
        is_over: tells of another run's id whether the orchestrator knows that the run has ended.
        creating: held while the table is made: of hours that begin together one makes it, and nothing is astray.
    """

    spec: TableSpec
    warehouse: Warehouse
    session: Callable[[], SparkSession]
    run_id: str
    is_over: RunIsOver = lambda _run_id: False  # nobody knows
    creating: threading.Lock = field(default_factory=threading.Lock)


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
        requests: sent to S3 for the hour, by this process and by tasks.
        sample_keys: some of the files; none for a hour that was not written now.
        checks: what was checked before the seal; none for an hour that was not written now.
        staging: whether its objects were copied first, and why, in lines; none where the spec leaves it at reading.
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
    requests: RequestCounts = NO_REQUESTS
    sample_keys: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    staging: tuple[str, ...] = ()


@dataclass
class _Stages:
    """What an hour's run is at, and how long each stage took."""

    now: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        started, self.now = time.monotonic(), stage
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.monotonic() - started, 3)


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


def seal_hour(
    bench: Bench, hour: HourWindow, *, force: bool = False, halt: Halt | None = None
) -> "HourResult | SealedHourRun":
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
    runs: "Sequence[SealedHourRun]", others: Sequence[HourInHand] = ()
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
            if table := bench.warehouse.find(bench.spec):
                note_failure(table, hour, bench.run_id, error)
        _emit_ended(bench.spec.table, hour, error)
        raise


def _emit_ended(table: str, hour: HourWindow, error: BaseException) -> None:
    name = "hour.failed" if isinstance(error, Exception) else "hour.cancelled"
    events.emit(name, table, hour.key, error=type(error).__name__, message=str(error))


def _sealed(
    bench: Bench, hour: HourWindow, counter: RequestCounter, halt: Halt, *, force: bool
) -> "HourResult | SealedHourRun":
    stages = _Stages()
    while True:
        with stages.timed("plan"):
            work = _planned(bench, hour, stages, counter, halt, force=force)
        try:
            if result := _carried_out(work):
                return result
        except TakenError:
            logger.warning("%s: its record was written by another run just now; looking again", hour)


def _carried_out(work: "SealedHourRun") -> "HourResult | SealedHourRun | None":
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
    bench: Bench, hour: HourWindow, stages: _Stages, counter: RequestCounter, halt: Halt, *, force: bool
) -> "SealedHourRun":
    spec, warehouse = bench.spec, bench.warehouse
    halt.check()
    declared = spec.target_columns
    # Before anything can fail, where it can be made: the table's ledger is where failures are kept.
    table = _table_of(bench, lambda: declared) if declared else None
    inputs = observe_inputs(spec, warehouse.files, hour)
    table = table or _table_of(bench, lambda: new_columns(spec, warehouse.files, inputs.source))
    held = table.ledger.hour(hour)
    table = warehouse.table(spec) or table  # not older than the record: what that knows of is in it
    live = table.as_sealed({hour: held.record.seals}).get(hour) or digest(file.path for file in table.live(hour))
    plan = plan_hour(spec, hour, inputs, held.record, TableState(table.uuid, table.schema_id, live), force=force)
    events.emit("hour.planned", spec.table, hour.key, step=plan.step, why=plan.why)
    hand = HourInHand(table, hour, held, bench.run_id)
    return SealedHourRun(bench, table, hand, plan, stages, live, counter, halt)


def _table_of(bench: Bench, columns: Callable[[], tuple[Column, ...]]) -> HourlyTable:
    """Load the table, or make it with these columns."""
    with bench.creating:
        return bench.warehouse.table(bench.spec) or bench.warehouse.create(bench.spec, columns())


@dataclass
class SealedHourRun:
    """One hour's way from its plan to its seal, and then what waits for its commit.

    Attributes:
        hand: the hour.
        lease: renewed from the seal to the commit.
        offered: the attempt that another run may commit.
        staging: whether its objects are copied first, and why.
        copies: of objects, so far.
        lost: set once another run has the hour.
    """

    bench: Bench
    table: HourlyTable
    hand: HourInHand
    plan: HourPlan
    stages: _Stages
    replaces: str
    counter: RequestCounter
    halt: Halt
    of_tasks: RequestCounts = NO_REQUESTS
    checks: tuple[Check, ...] = ()
    sample_keys: tuple[str, ...] = ()
    lease: ExitStack = field(default_factory=ExitStack)
    offered: str = ""
    staging: StagingChoice = DIRECT
    copies: int = 0
    lost: threading.Event = field(default_factory=threading.Event)

    def skip(self) -> HourResult:
        """Leave the hour as it is; somebody else may be at work on it, forced to."""
        committed = self.hand.held.record.committed
        self.hand.recover()
        if committed is None:
            raise LakehouseError(f"{self.plan.hour} was never committed and cannot be skipped")
        return self._result(committed)

    def waits(self) -> bool:
        """Wait for another run that holds the hour; tell whether there was one."""
        held, waited = self.hand.held, False
        while not is_free(held, self.bench.run_id, self.bench.is_over):
            if not waited:
                attempt = self.hand.attempt
                logger.warning(
                    "%s is held by run %s (%s, attempt %s); waiting until that ends, or its lease of %.0f s is over",
                    self.plan.hour,
                    attempt.run_id,
                    held.record.stage or held.record.state,
                    attempt.id,
                    LEASE.total_seconds(),
                )
                events.emit("hour.waits", self.bench.spec.table, self.plan.hour.key, attempt.id, run=attempt.run_id)
            waited = True
            self.halt.wait(LOOK_AGAIN_S)
            held.read()
        return waited

    def is_whole(self) -> bool:
        """Tell whether all files of the sealed attempt are still there; give it up if not."""
        seal = self.hand.attempt.seal
        gone = self.table.missing_files(seal) if seal else []
        if not gone:
            return True
        why = f"{len(gone)} of its files are gone or changed: {', '.join(gone[:SAMPLE_KEYS])}"
        logger.warning("%s: attempt %s cannot be resumed: %s", self.plan.hour, self.hand.attempt.id, why)
        self.hand.abandon(why)
        return False

    def may_open(self) -> bool:
        """Give up what was sealed and shall not be resumed; False if it had landed, which is to be planned anew."""
        if self.hand.held.record.state not in SEALED:
            return True
        return self.hand.abandon(f"run again: {self.plan.why}") is None

    def resume(self) -> "SealedHourRun":
        """Take a sealed attempt in hand; its files are as good as on the day they were written."""
        self.hand.resume()
        return self._waiting()

    def run(self) -> "SealedHourRun":
        """Open an attempt, write it and seal it."""
        inputs = self.plan.inputs
        self._choose_staging()
        # `missing: empty`: an hour without objects is an hour without rows, and needs no engine.
        session = self.bench.session() if inputs.source else None
        if session:
            objects = [(self.table.files, self.table.metadata_url)]
            if (
                self.bench.spec.source.reader == "arrow" and not self.staging.copies
            ):  # tasks read it, with what may be another principal
                objects.append((self.bench.warehouse.files, inputs.source[0].url))
            check_tasks(session, self.table.location, objects)
        attempt_id = new_attempt_id()  # not before the session: its time is when the hour's own work begins
        attempt = Attempt(
            id=attempt_id,
            run_id=self.bench.run_id,
            opened_at=datetime.now(UTC),
            opened_on=self.table.head,
            replaces=self.replaces,
            source=self.plan.source,
            recipe=self.plan.recipe,
            buckets=bucket_count(self.bench.spec, self.plan.hour, inputs.bytes, cores_of(session)) if session else 0,
            remote=session is not None and not capabilities(session).local_tasks,
            layout=self.table.layout,
            named=True,
            staging=self._staging_folder(attempt_id) if self.staging.copies else "",
        )
        superseded = self.hand.open(attempt)
        try:
            tasks = ended_with(session, attempt.id) if session else nullcontext(NO_JOBS)
            with (
                self.halt.ending(tasks) as jobs,
                (pulse := self._pulse(attempt, jobs)).watched(),
                self.hand.renewing(lambda: self.stages.now, lambda: self._lost(jobs), lambda: pulse.idle),
            ):
                try:  # before what an earlier attempt has copied is removed
                    sources = self._sources(attempt, superseded)
                finally:
                    self._close_earlier(superseded)
                seal = self._write(session, attempt, sources) if session else self._empty(attempt)
                sent = self.counter.snapshot() + self.of_tasks
                told = {"at": datetime.now(UTC), "requests": sent.requests, "throttles": sent.throttles}
                self.hand.seal(seal.model_copy(update=told))
                self._remove_copies(attempt)
        except BaseException as error:
            self.hand.close(error)
            raise
        return self._waiting()

    def _lost(self, jobs: Running) -> None:
        """End what is done for an hour that another run has: the engine's jobs, and copies."""
        self.lost.set()
        jobs.interrupt()

    def _pulse(self, attempt: Attempt, jobs: Running) -> Pulse:
        """Look whether the attempt gets on while it is written."""
        table, hour = self.table.identifier, self.hand.hour

        def told(idle: timedelta) -> None:
            events.emit("hour.stalled" if idle else "hour.moving", table, hour.key, attempt.id)

        return Pulse(f"{table} {hour}", lambda: (self.stages.now, self.copies, jobs.signs()), told)

    def _choose_staging(self) -> None:
        spec, hour = self.bench.spec, self.plan.hour
        self.staging = choose_staging(spec, self.table, self.bench.warehouse.files, self.plan.inputs)
        if self.staging.why:
            logger.info("%s: staging: %s", hour, "\n  ".join(self.staging.why))
            events.emit("hour.staging", spec.table, hour.key, copies=self.staging.copies, why=self.staging.why)

    def _staging_folder(self, attempt: str) -> str:
        return self.table.ledger.staging_url(self.plan.hour, attempt, self.bench.spec.staging_prefix)

    def _sources(self, attempt: Attempt, earlier: Attempt | None) -> LakehouseFileIO:
        """Give the store that the ETL reads: where objects are copied first, with their copies in it."""
        files = self.bench.warehouse.files
        if not attempt.staging:
            return files

        def copied() -> None:
            self.copies += 1
            events.emit("object.copied", self.bench.spec.table, self.plan.hour.key, attempt.id)
            self.halt.check()
            if self.lost.is_set():
                raise CommitConflictError(f"another run took {self.plan.hour} while its objects were copied")

        with self.stages.timed("stage"):
            made = earlier.staging if earlier else ""
            return stage(files, self.plan.inputs.source, attempt.staging, copied, made)

    def _remove_copies(self, attempt: Attempt) -> None:
        """Remove what nobody reads after the seal: the commit may be days away. What stays is left to the closing."""
        if attempt.staging:
            try:
                remove_staged(self.bench.warehouse.files, attempt.staging)
            except LakehouseError as error:
                logger.warning("%s: copies stay until its attempt is closed: %s", self.plan.hour, error)

    def _waiting(self) -> "SealedHourRun":
        self.stages.now = "waits for its commit"
        self.lease.enter_context(self.hand.renewing(lambda: self.stages.now))
        return self

    def _close_earlier(self, superseded: Attempt | None) -> None:
        """Do for the hour what a sensor does for all: there need not be one."""
        if superseded:
            self.hand.close_superseded(superseded)

        try:
            close_attempts(self.table, self.bench.is_over, hour=self.plan.hour, but=self.hand.attempt.id)
        except LakehouseError as error:
            logger.warning("%s: what earlier attempts left stays for now: %s", self.plan.hour, error)

    def _empty(self, attempt: Attempt) -> Seal:
        return self.table.seal(attempt.id, (), rows_read=0, rejected=0, left=0)

    def _write(self, session: SparkSession, attempt: Attempt, sources: LakehouseFileIO) -> Seal:
        table, plan, spec = self.table, self.plan, self.bench.spec
        aside = Aside(table.files, table.ledger.rejects_url(plan.hour, attempt.id))
        target = table.target(plan.hour, attempt.id, spec.file_size)
        with self.stages.timed("etl"):
            etl = run_etl(
                session,
                spec,
                plan,
                sources,
                columns=table.columns,
                aside=aside,
                target=target,
                buckets=attempt.buckets,
                ranges=self._ranges(attempt),
            )
        written, rows_read = etl.files, etl.rows_read
        self.of_tasks += etl.requests
        with self.stages.timed("check"), translated(f"{spec.name} {plan.hour}"):
            self.checks = (check_rows(spec, sum(file.rows for file in written), rows_read, etl.rejected, etl.left),)
            if spec.key:
                self.checks += (check_keys(session, spec, written, table),)
            if spec.check_order:
                self.checks += (check_order(session, spec, written, table),)
        self.sample_keys = tuple(file.path for file in written[:SAMPLE_KEYS])
        with self.stages.timed("seal"):
            return table.seal(attempt.id, written, rows_read=rows_read, rejected=etl.rejected, left=etl.left)

    def _ranges(self, attempt: Attempt) -> Ranges | None:
        """Find where to cut a sorted hour in what is known of others; None where it is to be sampled, or is not cut."""
        if not self.table.order or attempt.buckets <= 1:
            return None
        ranges = ranges_nearby(self.table, self.plan.hour, attempt.buckets)
        bounds = "known" if ranges else "sampled"
        events.emit("hour.bounds", self.bench.spec.table, self.plan.hour.key, attempt.id, bounds=bounds)
        return ranges

    def offer(self) -> None:
        """Leave the commit to another run.

        Raises:
            CommitConflictError: another run has the hour.
        """
        self.lease.close()
        self.offered = self.hand.attempt.id
        self.hand.offer()

    def take_back(self) -> None:
        """Take the hour in hand again, if it is still there.

        Raises:
            TakenError: another run was faster.
            SafetyError: it is being abandoned.
        """
        self.hand.resume()
        self._waiting()

    def ended(self, outcome: Committed | LakehouseError) -> HourResult | LakehouseError:
        """Say how the hour ended."""
        table, hour = self.bench.spec.table, self.hand.hour
        if isinstance(outcome, LakehouseError):
            _emit_ended(table, hour, outcome)
            return outcome
        result = self._result(outcome)
        events.emit("hour.finished", table, hour.key, result.attempt, result=result)
        return result

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
            requests=self.counter.snapshot() + self.of_tasks,
            sample_keys=self.sample_keys,
            checks=self.checks,
            staging=self.staging.why,
        )

"""What an hour's run does and knows: skips, waits, resumes, or opens an attempt, writes it and seals it.

What is done in which order, and what is committed with what, stands in `hour`.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pyspark.sql import SparkSession

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill.attempts import SEALED, HourInHand
from lakehouse_pipeline.backfill.checks import Check, check_rows
from lakehouse_pipeline.backfill.close import RunIsOver, is_free
from lakehouse_pipeline.backfill.etl import run_etl
from lakehouse_pipeline.backfill.halt import Halt
from lakehouse_pipeline.backfill.hour_result import HourResult, Stages, emit_ended
from lakehouse_pipeline.backfill.inputs import Aside
from lakehouse_pipeline.backfill.keys import check_keys
from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.backfill.nearby import ranges_nearby
from lakehouse_pipeline.backfill.order import check_order
from lakehouse_pipeline.backfill.placement import Ranges, bucket_count
from lakehouse_pipeline.backfill.plan import HourPlan
from lakehouse_pipeline.backfill.pulse import Pulse
from lakehouse_pipeline.backfill.staging import remove_staged, stage
from lakehouse_pipeline.backfill.staging_choice import DIRECT, StagingChoice, choose_staging
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.engines.capabilities import capabilities
from lakehouse_pipeline.engines.failures import translated
from lakehouse_pipeline.engines.preflight import check_tasks
from lakehouse_pipeline.engines.sessions import cores_of
from lakehouse_pipeline.engines.tasks import NO_JOBS, Running, ended_with
from lakehouse_pipeline.errors import CommitConflictError, LakehouseError
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.ledger.leases import LEASE
from lakehouse_pipeline.ledger.records import Attempt, Committed, Seal, new_attempt_id
from lakehouse_pipeline.object_store.counts import NO_REQUESTS, RequestCounter, RequestCounts
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
        loaded: the table as it was loaded last: its ledger takes failures also while the catalog is away.
    """

    spec: TableSpec
    warehouse: Warehouse
    session: Callable[[], SparkSession]
    run_id: str
    is_over: RunIsOver = lambda _run_id: False  # nobody knows
    creating: threading.Lock = field(default_factory=threading.Lock)
    loaded: list[HourlyTable] = field(default_factory=list)


@dataclass(eq=False)
class HourRun:
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
    stages: Stages
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

    def resume(self) -> "HourRun":
        """Take a sealed attempt in hand; its files are as good as on the day they were written."""
        self.hand.resume()
        return self._waiting()

    def run(self) -> "HourRun":
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

    def _waiting(self) -> "HourRun":
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
                self.checks += (check_order(session, spec, written, table, etl.content),)
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
            emit_ended(table, hour, outcome)
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

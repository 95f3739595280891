"""Many hours of a table in one process: hours overlap, sealed hours are committed together, each ends by itself.

Workers take hours as far as their seal, each in a thread and a session of its own; the caller's thread commits what is
sealed and reports every hour as it ends. A failed hour never stops another.

Hours in flight cost little memory: the engine runs as many tasks at a time as it has cores, of however many hours.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from pyspark.sql import SparkSession

from lakehouse_pipeline.backfill.attempts import HourInHand
from lakehouse_pipeline.backfill.close import is_free
from lakehouse_pipeline.backfill.halt import Halt
from lakehouse_pipeline.backfill.hour import commit_hours, seal_hour
from lakehouse_pipeline.backfill.hour_result import HourResult
from lakehouse_pipeline.backfill.hour_run import Bench, HourRun
from lakehouse_pipeline.backfill.sealed import offered_by_others
from lakehouse_pipeline.config.backfill import BackfillSettings
from lakehouse_pipeline.errors import CommitConflictError, LakehouseError, TransientError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.ledger.leases import RENEW_EVERY, Renewal

ENDS_WITHIN_S = 20.0  # workers that are to end; one that waits for a store that is away may take longer, and is left
LOOK_EVERY_S = 0.5  # at deadlines, and at how long hours wait for their commit
COMMITTER = "committer"  # the turn to commit
ROUNDS = 10  # of commits in one turn, as long as other runs offer more

logger = logging.getLogger(__name__)

Heard = Callable[[HourWindow, HourResult | LakehouseError], object]


class HourDeadlineError(LakehouseError):
    """An hour took longer than `backfill.hour_deadline`."""


class UnexpectedError(LakehouseError):
    """A fault of this software, or of the transform, in one hour."""


def run_range(
    bench: Bench,
    hours: Sequence[HourWindow],
    settings: BackfillSettings,
    heard: Heard,
    *,
    apart: Callable[[], SparkSession],
    force: bool = False,
    apart_s: float = 0.0,
) -> None:
    """Bring hours to the state that their objects and their spec describe; those that fail are left as they are.

    Args:
        bench: what the hours share.
        hours: each once.
        settings: how many at once, and how many in a commit.
        heard: told in this thread how each hour ended, once, as soon as it has.
        apart: makes another session, with views of its own.
        force: run the ETL of hours that are unchanged, too.
        apart_s: seconds between the begins of the first hours, so that they do not all write at once.

    Raises:
        BaseException: what interrupted this thread. Attempts are then closed or sealed, as far as the store answers.
    """
    _Range(bench, settings, heard, apart, force, apart_s, deque(hours)).run()


def hours_in_flight(settings: BackfillSettings, hours: int) -> int:
    """Give how many hours are worked on at once, of so many."""
    return max(1, min(settings.most_in_flight, hours))


@dataclass(eq=False)
class _Worker:
    """A place for one hour at a time.

    Attributes:
        bench: with a session of its own.
        hour: that it has.
        halt: ends that.
        began: by the monotonic clock.
        ended: what became of the hour.
    """

    bench: Bench
    hour: HourWindow
    halt: Halt
    began: float
    ended: HourResult | HourRun | BaseException | None = None


@dataclass
class _Range:
    """A range on its way.

    Attributes:
        apart_s: seconds between the begins of the first hours.
        waiting: hours that nobody has begun.
        at_work: workers that have an hour, or have ended one that was not looked at.
        sealed: hours that wait for their commit, until it is known what became of that.
        sealed_at: when the first of them was sealed.
        offered: sealed hours that another run commits.
        looked_at: when it was looked at what became of those.
        ended: workers that have ended their hour.
        places: benches that have had no hour yet, and the moment from which on each may have one.
    """

    bench: Bench
    settings: BackfillSettings
    heard: Heard
    apart: Callable[[], SparkSession]
    force: bool
    apart_s: float
    waiting: deque[HourWindow]
    at_work: list[_Worker] = field(default_factory=list)
    sealed: list[HourRun] = field(default_factory=list)
    sealed_at: float = 0.0
    offered: list[HourRun] = field(default_factory=list)
    looked_at: float = 0.0
    ended: "queue.SimpleQueue[_Worker]" = field(default_factory=queue.SimpleQueue)
    places: deque[tuple[float, Bench]] = field(default_factory=deque)

    def run(self) -> None:
        """Run to the end, or until this thread is interrupted."""
        try:
            began = time.monotonic()
            for place in range(hours_in_flight(self.settings, len(self.waiting))):
                bench = self.bench if place == 0 else replace(self.bench, session=_once(self.apart))
                self.places.append((began + place * self.apart_s, bench))
            self._begin_due()
            while self.at_work or self.sealed or self.offered:
                self._take()
                self._begin_due()
                self._look_at_deadlines()
                if self._commit_is_due():
                    self._commit()
                self._look_at_offered()
        except BaseException as error:
            self._end(error)
            raise

    def _begin_due(self) -> None:
        """Begin hours in the places whose time has come."""
        while self.places and (self.places[0][0] <= time.monotonic() or not self.at_work):
            self._begin(self.places.popleft()[1])

    def _begin(self, bench: Bench) -> None:
        """Let a worker take the next hour, if there is one."""
        if not self.waiting:
            return
        worker = _Worker(bench, self.waiting.popleft(), Halt(), time.monotonic())
        self.at_work.append(worker)
        # A daemon: one that waits for a store that is away must not keep the process from ending.
        threading.Thread(target=self._work, args=(worker,), name=f"hour {worker.hour}", daemon=True).start()

    def _work(self, worker: _Worker) -> None:
        try:
            worker.ended = seal_hour(worker.bench, worker.hour, force=self.force, halt=worker.halt)
        except BaseException as error:  # noqa: BLE001  # it is told in the caller's thread
            worker.ended = error
        self.ended.put(worker)

    def _take(self) -> None:
        """Wait a while for an hour to end, and begin the next."""
        try:
            worker = self.ended.get(timeout=LOOK_EVERY_S)
        except queue.Empty:
            return
        ended = worker.ended
        if isinstance(ended, HourRun):
            self.sealed_at = self.sealed_at if self.sealed else time.monotonic()
            self.sealed.append(ended)
        self.at_work.remove(worker)  # not before: this thread may be interrupted anywhere, and then looks for seals
        self._begin(worker.bench)
        if isinstance(ended, HourRun):
            return
        if isinstance(ended, HourResult | LakehouseError):
            self.heard(worker.hour, ended)
        elif isinstance(ended, Exception):
            logger.error("%s failed", worker.hour, exc_info=ended)
            self.heard(worker.hour, UnexpectedError(f"{type(ended).__name__}: {ended}"))
        elif ended is not None:
            raise ended

    def _look_at_deadlines(self) -> None:
        deadline = self.settings.hour_deadline
        for worker in self.at_work:
            if deadline and time.monotonic() - worker.began > deadline.total_seconds():
                worker.halt.set(HourDeadlineError(f"{worker.hour} took longer than backfill.hour_deadline, {deadline}"))

    def _commit_is_due(self) -> bool:
        every = self.settings.commit_every
        waited = time.monotonic() - self.sealed_at
        is_last = not self.at_work  # nothing will join them
        return bool(self.sealed) and (is_last or len(self.sealed) >= every.hours or waited >= every.seconds)

    def _commit(self) -> None:
        """Commit for all runs of the table, if it is this one's turn; else leave what is sealed to whose it is."""
        table = (self.sealed or self.offered)[0].table
        turn = table.ledger.turn(COMMITTER, self.bench.run_id)
        try:
            mine = turn.take(self.bench.is_over)
        except LakehouseError as error:
            logger.warning("%s is committed to without asking whose turn it is: %s", table.identifier, error)
            mine = True  # rivals cost tries, and nothing else
        if not mine:
            self._offer()
            return
        with Renewal(turn.renew, lambda: None, f"{table.identifier}'s committer"):
            self._take_back()
            for _ in range(ROUNDS):
                in_hand = {run.hand.hour for run in self.sealed}
                others = offered_by_others(table, self.bench.run_id, self.bench.is_over, but=in_hand)
                if not self.sealed and not others:
                    break
                runs = self.sealed[: self.settings.commit_every.hours]
                outcomes = self._outcomes(runs, others)
                self.sealed = self.sealed[len(runs) :]
                for hour, outcome in outcomes.items():
                    self.heard(hour, outcome)
        turn.give_back()

    def _outcomes(
        self, runs: Sequence[HourRun], others: Sequence[HourInHand]
    ) -> dict[HourWindow, HourResult | LakehouseError]:
        try:
            return commit_hours(runs, others)
        except Exception as error:  # a fault of this software costs these hours, which stay sealed, and not the others
            logger.exception("a commit of %d hours failed", len(runs) + len(others))
            said = UnexpectedError(f"{type(error).__name__}: {error}")
            return {run.hand.hour: run.ended(said) for run in runs}

    def _offer(self) -> None:
        for run in self.sealed:
            try:
                # It may be said nevertheless, and have been taken before the answer came: the next look tells.
                with suppress(TransientError, CommitConflictError):
                    run.offer()
                self.offered.append(run)
            except LakehouseError as error:
                self.heard(run.hand.hour, run.ended(error))
        self.sealed = []

    def _take_back(self) -> None:
        """Take in hand again what nobody has committed yet."""
        for run in tuple(self.offered):
            with suppress(LakehouseError):  # it is committed, or somebody was faster: the next look tells
                run.hand.held.read()
                if is_free(run.hand.held, self.bench.run_id, self.bench.is_over):
                    run.take_back()
                    self.sealed.append(run)
                    self.offered.remove(run)

    def _look_at_offered(self) -> None:
        """Hear what became of what others commit; where they are gone, do it."""
        if not self.offered or time.monotonic() - self.looked_at < LOOK_EVERY_S:
            return
        self.looked_at = time.monotonic()
        for run in tuple(self.offered):
            try:
                outcome = run.hand.became(run.offered)
            except TransientError:
                outcome = None
            except LakehouseError as error:
                outcome = error
            if outcome is None:
                self._renew(run)
            else:
                self.offered.remove(run)
                self.heard(run.hand.hour, run.ended(outcome))
        held = [run for run in self.offered if not is_free(run.hand.held, self.bench.run_id, self.bench.is_over)]
        if len(held) < len(self.offered):
            self._commit()

    def _renew(self, run: HourRun) -> None:
        """Say that somebody waits for what was offered: else it is taken for what an ended run has left."""
        held = run.hand.held
        mine = held.record.attempt is not None and held.record.attempt.run_id == self.bench.run_id
        if mine and held.age > RENEW_EVERY:
            with suppress(LakehouseError):  # somebody has taken it just now
                held.renew(run.offered, "waits for a committer")

    def _end(self, error: BaseException) -> None:
        """End what is under way: open attempts are closed by their workers, sealed ones stay for the next run."""
        until = time.monotonic() + ENDS_WITHIN_S
        said = [_saying(run, error) for run in dict.fromkeys([*self.sealed, *self.offered])]
        while True:
            for worker in self.at_work:
                worker.halt.set()
            ended = [worker for worker in self.at_work if worker.ended is not None]
            said += [_saying(worker.ended, error) for worker in ended if isinstance(worker.ended, HourRun)]
            self.at_work = [worker for worker in self.at_work if worker not in ended]
            if not self.at_work or time.monotonic() > until:
                break
            with suppress(queue.Empty):
                self.ended.get(timeout=LOOK_EVERY_S)
        # The store may be away, and a stop must not wait for it.
        for each in said:
            each.join(max(0.0, until - time.monotonic()))
        for worker in self.at_work:
            logger.warning("%s did not end within %.0f s; its lease will", worker.hour, ENDS_WITHIN_S)


def _saying(run: HourRun, error: BaseException) -> threading.Thread:
    """Say that a run has ended, and left what it has sealed; in a thread, since the store may not answer."""

    def say() -> None:
        run.lease.close()
        if run.hand.held.record.attempt is not None:  # else what became of it was said just now
            run.hand.ends("cancelled", error)

    thread = threading.Thread(target=say, name=f"end of {run.hand.hour}", daemon=True)
    thread.start()
    return thread


def _once(make: Callable[[], SparkSession]) -> Callable[[], SparkSession]:
    """Make a session when it is first asked for, and give the same from then on; one thread asks at a time."""
    made: list[SparkSession] = []

    def get() -> SparkSession:
        if not made:
            made.append(make())
        return made[0]

    return get

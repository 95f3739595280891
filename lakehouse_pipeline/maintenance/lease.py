"""The maintenance lease: of compaction, sweeps, expiry and manifest rewrites one is at work on a table at a time.

Each of them is safe beside the others by itself; together they would undo each other's work, or wait for it in vain.
Closing an attempt by its ledger needs no lease.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lakehouse_pipeline import events
from lakehouse_pipeline.errors import CommitConflictError
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.ledger.leases import LEASE, LeaseHeldError, Renewal
from lakehouse_pipeline.ledger.turns import Turn

logger = logging.getLogger(__name__)

MAINTENANCE = "maintenance"
_STEP = "/"  # between a run's id and what it does


@dataclass(frozen=True)
class Held:
    """The lease in a run's hands.

    Attributes:
        turn: its record.
        run_id: the holder's.
        epoch: goes up with every holder.
    """

    turn: Turn
    run_id: str
    epoch: int
    _lost: threading.Event = field(default_factory=threading.Event, repr=False)

    def check(self) -> None:
        """Go on only as long as the lease is held, as the store has it now: called before whatever cannot be undone.

        A process may have been stopped for longer than its lease, and its renewal with it.

        Raises:
            CommitConflictError: another run has it, or may take it at any moment.
            TransientError: the store did not answer.
        """
        if self._lost.is_set() or not self.turn.holds():
            raise CommitConflictError(f"another run has taken the maintenance lease over from epoch {self.epoch}")


@contextmanager
def maintaining(
    table: HourlyTable, doing: str, run_id: str, is_over: Callable[[str], bool] = lambda _run_id: False
) -> Iterator[Held]:
    """Hold the maintenance lease of a table for as long as the block runs.

    Args:
        table: loaded at any time.
        doing: what, in a word: who has to wait reads it.
        run_id: of the orchestrator or the command.
        is_over: tells of a run's id whether the run is known to have ended; a lease that has lapsed tells it, too.

    Raises:
        LeaseHeldError: another run has it; says what it does, and since when it was not heard of.
        TransientError: the store did not answer.
    """
    # Not the run alone: two of its steps may do different things at once.
    turn = table.ledger.turn(MAINTENANCE, f"{run_id}{_STEP}{doing}")
    if not turn.take(lambda holder: is_over(_run_of(holder)), doing):
        raise LeaseHeldError(f"{table.identifier}: {holder_of(turn)}")
    held = Held(turn, run_id, turn.record.epoch)
    name = f"{table.identifier}'s maintenance"
    events.emit("maintenance.began", table.identifier, doing=doing, run_id=run_id, epoch=held.epoch)
    try:
        with Renewal(turn.renew, held._lost.set, name):  # noqa: SLF001  # the same module's
            yield held
    finally:
        events.emit("maintenance.ended", table.identifier, doing=doing, run_id=run_id, epoch=held.epoch)
        turn.give_back()


def at_work(table: HourlyTable, is_over: Callable[[str], bool]) -> str:
    """Say who maintains a table now; empty where the lease is free. Changes nothing."""
    turn = table.ledger.turn(MAINTENANCE, "")
    holder = turn.read().run_id
    return holder_of(turn) if holder and turn.age <= LEASE and not is_over(_run_of(holder)) else ""


def holder_of(turn: Turn) -> str:
    """Say whose a turn is, and what to do about it."""
    record, seconds = turn.record, turn.age.total_seconds()
    return (
        f"run {_run_of(record.run_id)} has the maintenance lease ({record.doing}, heard of {seconds:.0f} s ago); "
        f"try again when it has ended, or its lease of {LEASE.total_seconds():.0f} s is over"
    )


def _run_of(holder: str) -> str:
    return holder.partition(_STEP)[0]

"""The attempts of one hour: opened, sealed, committed, closed or abandoned. No engine, and no data, is known here.

Every step is said in the hour's record first, by a compare-and-swap: whoever loses one holds the hour no longer. What
is in the record decides what may be removed:

- *open*: nothing can reach its files; they go as soon as the record no longer names the attempt.
- *sealed*, *committing*: its files stay, whatever becomes of its run, until it is committed or abandoned.
- *aborting*: no commit of it may land any more. `main` is moved off every snapshot that one of them asserts, and only
  then is the table asked whether one has landed.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Literal

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill.close import close, close_landed
from lakehouse_pipeline.errors import CommitConflictError, LakehouseError, SafetyError, TransientError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.commit import Replaced, RivalsWonError
from lakehouse_pipeline.iceberg.hourly import HeldAttempt, HourlyTable
from lakehouse_pipeline.iceberg.sealed_hours import HoursLostError
from lakehouse_pipeline.ledger.hours import HourLedger
from lakehouse_pipeline.ledger.leases import Renewal
from lakehouse_pipeline.ledger.records import Attempt, Committed, HourRecord, Marker, Outcome, Seal
from lakehouse_pipeline.object_store.side_by_side import side_by_side

logger = logging.getLogger(__name__)

SEALED = ("sealed", "committing", "aborting")  # states in which an attempt may be in the table, or still get there

RECORDS_AT_ONCE = 16  # that a commit of many hours writes

Ended = Literal["committed", "failed", "cancelled", "abandoned"]


class TakenError(CommitConflictError):
    """Somebody wrote the hour's record before this run could take it; nothing was done yet, so look again."""


@dataclass
class HourInHand:
    """One hour of a table, as one process works on it.

    Attributes:
        table: as it was loaded.
        hour: the hour.
        held: its record.
        run_id: of the orchestrator.
        sealing: whether the attempt may be sealed: its record was sent, and the answer was lost.
        prepared: whether a commit was begun since the hour was taken: it writes files before it is sent.
    """

    table: HourlyTable
    hour: HourWindow
    held: HourLedger
    run_id: str
    sealing: bool = False
    prepared: bool = False

    @property
    def attempt(self) -> Attempt:
        """The attempt under way."""
        if self.held.record.attempt is None:
            raise LakehouseError(f"{self.hour} has no attempt")
        return self.held.record.attempt

    def open(self, attempt: Attempt) -> Attempt | None:
        """Begin an attempt in the place of an open one, or of none; gives that one, for `close_superseded`.

        Raises:
            TakenError: another run was faster, or the holder renewed its lease just now.
            SafetyError: an attempt of the hour is sealed; `abandon` it first.
        """
        earlier, epoch = self.held.record.attempt, self.held.record.epoch + 1
        if self.held.record.state in SEALED:
            raise SafetyError(f"attempt {self.attempt.id} of {self.hour} is {self.held.record.state}")
        opened = attempt.model_copy(update={"epoch": epoch, "run_id": self.run_id})
        # Marked before anything else: whatever an attempt may have left is found by its marker.
        marker = Marker(hour=self.hour.key, attempt=opened)
        self.table.ledger.mark(marker)
        try:
            self._take(epoch=epoch, state="open", attempt=opened, stage="opened", idle_s=0, outcome=None)
        except TakenError:
            with self._told(opened):
                # Nothing was written by this run, but whoever takes it for a stray may be fencing it right now.
                self.table.ledger.mark(marker.model_copy(update={"closed": True, "sealed": True, "epoch": epoch}))
            raise
        self._emit("attempt.opened", opened)
        return earlier

    def close_superseded(self, attempt: Attempt) -> None:
        """Remove the files of an open attempt whose place was taken: it can no longer be sealed.

        It may take longer than a lease, so that the new one has to be renewed meanwhile.
        """
        with self._told(attempt):
            close(self.table, Marker(hour=self.hour.key, attempt=attempt, closed=True, epoch=attempt.epoch))

    def seal(self, seal: Seal) -> None:
        """Say that all files of the attempt are written and checked.

        Raises:
            CommitConflictError: another run has the hour.
        """
        try:
            self.held.advance(state="sealed", attempt=self.attempt.model_copy(update={"seal": seal}))
        except TransientError:
            self.sealing = True
            raise
        self._emit("attempt.sealed", self.attempt, files=seal.files, rows=seal.rows)

    def offer(self) -> None:
        """Leave the sealed attempt to whoever commits for the table now; this run no longer renews it.

        Raises:
            CommitConflictError: another run has the hour.
        """
        epoch, changes = self.held.record.epoch, dict[str, object](offered=True)
        if not self.prepared and self.attempt.preparing >= epoch:
            changes["unprepared"] = epoch  # whoever commits it need not look for files of ours
        self.held.advance(attempt=self.attempt.model_copy(update=changes))

    def became(self, attempt: str) -> Committed | LakehouseError | None:
        """Look what another run has made of an attempt that was offered; None while it is sealed.

        Raises:
            TransientError: the store did not answer.
        """
        record = self.held.read()
        if record.committed and record.committed.attempt == attempt:
            return record.committed
        if record.attempt and record.attempt.id == attempt:
            return None
        said = record.outcome.message if record.outcome else ""
        return CommitConflictError(said or f"attempt {attempt} of {self.hour} was given up by another run")

    def resume(self) -> None:
        """Take the hour with its sealed attempt.

        Raises:
            TakenError: another run was faster, or the holder renewed its lease just now.
            SafetyError: it is being abandoned, and may have lost files already.
        """
        if self.held.record.state == "aborting":
            raise SafetyError(f"attempt {self.attempt.id} of {self.hour} is being abandoned; run the hour again")
        taken = self.attempt.model_copy(update={"run_id": self.run_id, "offered": False})
        self.prepared = False
        self._take(epoch=self.held.record.epoch + 1, attempt=taken, outcome=None)

    def commit(self) -> Committed:
        """Make the sealed attempt the hour; called once for each taking of the hour.

        Raises:
            CommitConflictError: somebody else took the hour, or changed it: the attempt is then closed.
            CommitStateUnknownError: the commit may have landed; the next holder finds out first.
            TransientError: the store or the catalog did not answer within the retries; the attempt stays sealed.
        """
        outcome = commit_together([self])[self.hour]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _committed(self, snapshot_id: int | None) -> Committed:
        attempt, epoch, earlier = self.attempt, self.held.record.epoch, self.held.record.committed
        if attempt.seal is None:
            raise LakehouseError(f"attempt {attempt.id} of {self.hour} is not sealed")
        ran = attempt.id if attempt.rewrites is None else earlier.rejects if earlier else ""
        committed = Committed(
            attempt=attempt.id,
            at=datetime.now(UTC),
            snapshot_id=snapshot_id,
            source=attempt.source,
            recipe=attempt.recipe,
            seal=attempt.seal.of_hour,
            rewritten=attempt.rewrites is not None,
            run=ran,
        )
        outcome = self._outcome("committed")
        self.held.advance(state="idle", attempt=None, stage="", committed=committed, outcome=outcome)
        self._emit("attempt.committed", attempt, snapshot_id=snapshot_id)
        with self._told(attempt):
            close_landed(self.table, self.hour, attempt, attempt.seal, epoch, rerun=earlier is not None)
        return committed

    def settle(self, outcome: Replaced | LakehouseError) -> Committed | LakehouseError:
        """Say in the record what became of its commit."""
        if isinstance(outcome, Replaced):
            try:
                return self._committed(outcome.snapshot_id)
            except LakehouseError as error:
                return error
        if isinstance(outcome, CommitConflictError) and not isinstance(outcome, RivalsWonError):
            self._close(outcome)  # none of its commits landed, or can
        else:
            self.ends("failed", outcome)
        return outcome

    def close(self, error: BaseException) -> None:
        """Remove what the attempt wrote and say why it ended; one that may be sealed is left as it is."""
        if self.sealing or self.attempt.seal is not None:
            self.ends(_kind(error), error)
        else:
            self._close(error)

    def _close(self, error: BaseException) -> None:
        """Take the attempt out of the record, and remove its files.

        Where the record was lost nobody knows whether somebody took the attempt further, and has a commit of it on its
        way: what is sealed is fenced first.
        """
        attempt, epoch, sealed = self.attempt, self.held.record.epoch, self.attempt.seal is not None
        with self._told(attempt):
            try:
                self.held.advance(state="idle", attempt=None, stage="", outcome=self._outcome(_kind(error), error))
            except CommitConflictError:
                record = self.table.ledger.hour(self.hour).record
                if _names(record, attempt) or (
                    sealed and record.epoch <= epoch and self._landed_unseen(attempt)  # else: whoever took it fenced it
                ):
                    return
            marker = Marker(hour=self.hour.key, attempt=attempt, closed=True, sealed=sealed, epoch=epoch)
            close(self.table, marker)

    def renewing(
        self,
        stage: Callable[[], str],
        lost: Callable[[], object] = lambda: None,
        idle: Callable[[], timedelta] = timedelta,
    ) -> Renewal:
        """Renew the lease for as long as the block runs.

        Args:
            stage: tells what the run is at.
            lost: ends it where the lease is lost.
            idle: tells for how long it has not got on.
        """
        attempt, what = self.attempt.id, f"{self.table.identifier} {self.hour}"
        return Renewal(lambda: self.held.renew(attempt, stage(), idle()), lost, what)

    def ends(self, kind: Ended, error: BaseException | None) -> None:
        """Say how the run ended, and leave its attempt as it is."""
        try:
            self.held.advance(outcome=self._outcome(kind, error))
        except LakehouseError as unsaid:
            logger.warning("%s: its record does not say that it %s: %s", self.hour, kind, unsaid)

    def recover(self) -> None:
        """Take back what the record says of a failure, since the hour is as it should be; not while it is held."""
        record = self.held.record
        if record.attempt is None and record.outcome and record.outcome.kind != "committed":
            with suppress(LakehouseError):
                self.held.advance(outcome=self._outcome("committed"))

    def abandon(self, why: str) -> Committed | None:
        """Give a sealed attempt up, or find that it has landed.

        Raises:
            SafetyError: there is nothing to abandon.
            TakenError: another run was faster, or the holder renewed its lease just now.
            CommitConflictError: another run took the hour since.
            CommitStateUnknownError: `main` could not be moved, or read back; nothing was removed.
            TransientError: the store or the catalog did not answer; nothing is lost, call again.
        """
        attempt, state = self.attempt, self.held.record.state
        if state not in SEALED:
            raise SafetyError(f"attempt {attempt.id} of {self.hour} is {state}, and only a sealed one can be abandoned")
        epoch = self.held.record.epoch + 1
        self._take(epoch=epoch, state="aborting", attempt=attempt.model_copy(update={"run_id": self.run_id}))
        self._emit("attempt.aborting", attempt, why=why)
        self.table.fence(attempt, epoch=epoch)
        if (landed := self.table.landed(self.hour, attempt)) is not None:
            return self._committed(landed)
        marker = Marker(hour=self.hour.key, attempt=attempt, closed=True, sealed=True, epoch=epoch)
        close(self.table, marker)
        outcome = self._outcome("abandoned").model_copy(update={"message": why})
        self.held.advance(state="idle", attempt=None, stage="", outcome=outcome)
        return None

    def _take(self, **changes: object) -> None:
        try:
            self.held.advance(**changes)
        except CommitConflictError as error:
            raise TakenError(str(error)) from None

    def _landed_unseen(self, attempt: Attempt) -> bool:
        """Tell whether a commit of an attempt that no record names is in the table; from here on none gets there."""
        self.table.fence_head(self.hour, attempt)
        return self.table.landed(self.hour, attempt) is not None

    def _outcome(self, kind: Ended, error: BaseException | None = None) -> Outcome:
        return Outcome(
            kind=kind,
            at=datetime.now(UTC),
            run_id=self.run_id,
            error=type(error).__name__ if error else "",
            message=str(error) if error else "",
        )

    def _emit(self, name: str, attempt: Attempt, **fields: object) -> None:
        events.emit(name, self.table.identifier, self.hour.key, attempt.id, **fields)

    @contextmanager
    def _told(self, attempt: Attempt) -> Iterator[None]:
        """Let an earlier error, or a success, pass even where tidying up after it fails: markers tell what is left."""
        try:
            yield
        except (LakehouseError, OSError) as error:  # what was read may have been expired by somebody else
            logger.warning("%s: attempt %s is not tidied up yet: %s", self.hour, attempt.id, error)


def note_failure(table: HourlyTable, hour: HourWindow, run_id: str, error: BaseException) -> None:
    """Say in an hour's record that a run has failed before it had an attempt; what a run said itself stays.

    Who lost the hour to another run says nothing: that one does.

    Raises:
        CommitConflictError: somebody else has begun the hour.
        TransientError: the store did not answer.
    """
    hand = HourInHand(table, hour, table.ledger.hour(hour), run_id)
    record = hand.held.record
    if isinstance(error, CommitConflictError) or (record.outcome and record.outcome.run_id == run_id):
        return
    if record.attempt is None:
        hand.ends(_kind(error), error)


def commit_together(hands: Sequence[HourInHand]) -> Mapping[HourWindow, Committed | LakehouseError]:
    """Make sealed attempts of one table their hours, in one snapshot; called once for each taking of an hour.

    Returns:
        By hour, what it is now or why it is not: see `HourInHand.commit`.
    """
    of_hour = {hand.hour: hand for hand in hands}
    if len(of_hour) < len(hands):
        raise SafetyError("an hour is twice in one commit: one of its attempts was taken by another run meanwhile")

    def record(hours: Sequence[HourWindow], base: int | None, snapshot_id: int) -> None:
        def one(hour: HourWindow) -> CommitConflictError | None:
            held = of_hour[hour].held
            try:
                held.advance(state="committing", attempt=of_hour[hour].attempt.sent(base, snapshot_id))
            except CommitConflictError as error:
                return error
            return None

        refused = zip(hours, side_by_side(one, hours, RECORDS_AT_ONCE), strict=True)
        if lost := {hour: error for hour, error in refused if error}:
            raise HoursLostError(lost)

    held = [HeldAttempt(hand.hour, hand.attempt, hand.held.record.epoch) for hand in hands]
    for hand in hands:
        hand.prepared = True
    try:
        outcomes = hands[0].table.replace(held, before_send=record)
    except BaseException as error:
        end = partial(HourInHand.ends, kind=_kind(error), error=error)
        side_by_side(end, hands, RECORDS_AT_ONCE)
        raise
    settled = side_by_side(lambda hand: hand.settle(outcomes[hand.hour]), hands, RECORDS_AT_ONCE)
    return dict(zip(of_hour, settled, strict=True))


def _names(record: HourRecord, attempt: Attempt) -> bool:
    """Tell whether an hour's record holds an attempt."""
    held = record.attempt.id if record.attempt else None
    return attempt.id in (held, record.committed.attempt if record.committed else None)


def _kind(error: BaseException) -> Ended:
    """Tell failures from KeyboardInterrupt, and from Dagster's own interruption of a run."""
    return "failed" if isinstance(error, Exception) else "cancelled"

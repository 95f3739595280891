"""Sealed attempts by somebody's hand: committed without their run, or given up.

An attempt that is sealed outlives its run. The hour's next run takes it to its commit; so does `commit_sealed`, which
needs neither Dagster nor an engine.
"""

import logging
import uuid
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

from lakehouse_pipeline.backfill.attempts import HourInHand, commit_together
from lakehouse_pipeline.backfill.close import RunIsOver, is_free
from lakehouse_pipeline.errors import LakehouseError, SafetyError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.ledger.leases import LEASE
from lakehouse_pipeline.ledger.records import Committed

logger = logging.getLogger(__name__)

SHOWN = 3  # files that an error names
TOGETHER = 100  # attempts in a snapshot; each has a lease to renew meanwhile


class NeverCommittedError(SafetyError):
    """A sealed attempt can be committed no more: it waits for the hour's next run, or to be given up."""


@dataclass(frozen=True)
class SealedAttempt:
    """What became of a sealed attempt.

    Attributes:
        hour: its hour.
        attempt: its id.
        rows: in it.
        files: in it.
        committed: set once it is the table's.
        error: why it is not.
    """

    hour: HourWindow
    attempt: str
    rows: int
    files: int
    committed: Committed | None = None
    error: LakehouseError | None = None


def commit_sealed(
    table: HourlyTable, is_over: RunIsOver, *, hour: HourWindow | None = None, left_alone: bool = False
) -> list[SealedAttempt]:
    """Commit the sealed attempts of all hours or of one, together, as far as no run is at work on them.

    One that cannot be committed stays as it is, and does not stop the others.

    Args:
        table: loaded now.
        is_over: tells of a run's id whether the run is known to have ended; a lease that has lapsed tells it, too.
        hour: only this one's.
        left_alone: of those that a run is at work on nothing is said; else they are told with an error. Of those that
            can never be committed their records tell from here on, and `is_waiting` looks at them no more.

    Raises:
        TransientError: the ledger could not be read.
    """
    told: dict[HourWindow, SealedAttempt] = {}
    ready: list[HourInHand] = []
    for hand in _sealed(table, hour):
        if left_alone and not is_free(hand.held, hand.run_id, is_over):
            continue
        told[hand.hour] = _told(hand)
        try:
            _check_free(hand, is_over)
            _check_whole(hand)
            hand.resume()
        except LakehouseError as error:
            told[hand.hour] = replace(told[hand.hour], error=error)
            # Not where somebody asked: it would look as if a run had just held the hour.
            if left_alone and isinstance(error, NeverCommittedError):
                _note_hopeless(hand, error)
        else:
            ready.append(hand)
    for place in range(0, len(ready), TOGETHER):
        hands = ready[place : place + TOGETHER]
        try:
            with ExitStack() as leases:
                for hand in hands:
                    leases.enter_context(hand.renewing(lambda: "commit"))
                outcomes = commit_together(hands)
        except Exception as error:  # noqa: BLE001  # what the batches before have committed is told, in any case
            outcomes = {hand.hour: LakehouseError(f"{type(error).__name__}: {error}") for hand in hands}
        for each, outcome in outcomes.items():
            done = {"error": outcome} if isinstance(outcome, LakehouseError) else {"committed": outcome}
            told[each] = replace(told[each], **done)
    return list(told.values())


def is_waiting(table: HourlyTable, is_over: RunIsOver) -> bool:
    """Tell whether `commit_sealed` would find something that no run is at work on; changes nothing."""
    return any(
        hand.held.record.state != "aborting"
        and not _is_of_another_schema(hand)  # else it is refused
        and not _is_hopeless(hand)
        and is_free(hand.held, "", is_over)
        for hand in _sealed(table, None)
    )


def offered_by_others(
    table: HourlyTable, run_id: str, is_over: RunIsOver, *, but: Collection[HourWindow] = (), at_most: int = TOGETHER
) -> list[HourInHand]:
    """Take the sealed attempts in hand that other runs have offered to whoever commits.

    Those of runs that are known to have ended are left to the sensor's job, which reports them, too.

    Args:
        table: loaded now.
        run_id: the caller's.
        is_over: tells of a run's id whether the run is known to have ended.
        but: hours that the caller has in hand itself.
        at_most: how many.
    """
    taken: list[HourInHand] = []
    try:
        for hand in _sealed(table, None, run_id):
            attempt = hand.attempt
            if attempt.offered and attempt.run_id != run_id and hand.hour not in but and not is_over(attempt.run_id):
                with suppress(LakehouseError):  # its run has it again, or the store did not answer
                    hand.resume()
                    taken.append(hand)
            if len(taken) == at_most:
                break
    except LakehouseError as error:  # what was taken is committed, in any case
        logger.warning("%s: what other runs offer is not known in full: %s", table.identifier, error)
    return taken


def abandon_sealed(table: HourlyTable, is_over: RunIsOver, hour: HourWindow, *, dry_run: bool = False) -> SealedAttempt:
    """Give up the sealed attempt of an hour, unless it turns out to have landed; its files are removed.

    Raises:
        SafetyError: there is none, or a run is at work on it.
        CommitConflictError: another run took the hour.
        CommitStateUnknownError: the table could not be moved or read back; nothing was removed.
        TransientError: the store or the catalog did not answer; call again.
    """
    hand = next(_sealed(table, hour), None)
    if hand is None:
        raise SafetyError(f"{hour} has no sealed attempt: there is nothing to abandon")
    _check_free(hand, is_over)
    told = _told(hand)
    if dry_run:
        return told
    committed = hand.abandon("somebody asked for it")
    return SealedAttempt(told.hour, told.attempt, told.rows, told.files, committed)


def _sealed(table: HourlyTable, hour: HourWindow | None, run_id: str = "") -> Iterator[HourInHand]:
    run_id = run_id or f"command-{uuid.uuid4().hex[:8]}"
    for marked in table.ledger.marked(hour):
        held = table.ledger.hour(marked.hour)
        attempt = held.record.attempt
        if attempt and attempt.id == marked.marker.attempt.id and attempt.seal:
            yield HourInHand(table, marked.hour, held, run_id)


def _told(hand: HourInHand) -> SealedAttempt:
    seal = hand.attempt.seal
    assert seal is not None  # noqa: S101  # `_sealed` gives no others
    return SealedAttempt(hand.hour, hand.attempt.id, seal.rows, seal.files)


def _check_free(hand: HourInHand, is_over: RunIsOver) -> None:
    if not is_free(hand.held, hand.run_id, is_over):
        raise SafetyError(
            f"{hand.hour} is held by run {hand.attempt.run_id}, which was there {hand.held.age.total_seconds():.0f} s "
            f"ago: end it first, or wait until its lease of {LEASE.total_seconds():.0f} s is over"
        )


def _is_of_another_schema(hand: HourInHand) -> bool:
    """Tell whether it was written for a schema that is no more; of a rewrite columns are found by their ids."""
    seal = hand.attempt.seal
    return seal is not None and seal.schema_id != hand.table.schema_id and hand.attempt.rewrites is None


def _is_hopeless(hand: HourInHand) -> bool:
    """Tell whether its record says that it can never be committed."""
    outcome = hand.held.record.outcome
    return outcome is not None and outcome.error == NeverCommittedError.__name__


def _note_hopeless(hand: HourInHand, error: NeverCommittedError) -> None:
    """Let its record say so: once, since every writing of it counts as a sign of life."""
    if hand.held.record.state != "aborting" and not _is_hopeless(hand):
        hand.ends("failed", error)


def _check_whole(hand: HourInHand) -> None:
    """Hold a sealed attempt against what is there.

    Raises:
        NeverCommittedError: it was abandoned, is of another schema, or files of it are gone.
    """
    seal = hand.attempt.seal
    if hand.held.record.state == "aborting":
        raise NeverCommittedError(f"attempt {hand.attempt.id} of {hand.hour} was abandoned; run the hour again")
    if seal and _is_of_another_schema(hand):
        raise NeverCommittedError(
            f"attempt {hand.attempt.id} of {hand.hour} was written for schema {seal.schema_id} of the table, which "
            f"has {hand.table.schema_id} now; run the hour again"
        )
    gone = hand.table.missing_files(seal) if seal else []
    if gone:
        raise NeverCommittedError(
            f"attempt {hand.attempt.id} of {hand.hour}: {len(gone)} of its files are gone or changed "
            f"({', '.join(gone[:SHOWN])}); abandon it, and run the hour again"
        )

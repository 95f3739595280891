"""What ended runs left behind: open attempts are closed, closed ones get their second pass, interrupted ones go on.

Everything is found by its marker: nothing is listed but the ledger's folder of them.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Literal

from lakehouse_pipeline.backfill.attempts import HourInHand
from lakehouse_pipeline.backfill.close import RunIsOver, close, close_landed, find_left, forget, is_free, remove_left
from lakehouse_pipeline.errors import CommitConflictError, LakehouseError, SafetyError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.ledger.hours import HourLedger, MarkedAttempt
from lakehouse_pipeline.ledger.leases import LEASE
from lakehouse_pipeline.ledger.records import Marker, Outcome
from lakehouse_pipeline.object_store.side_by_side import side_by_side

logger = logging.getLogger(__name__)

# What a writer may still put after its attempt was closed: a request lives through its retries (10 min), a stopped
# machine may wake up; credentials of an hour are the hard end on S3.
ZOMBIES = timedelta(hours=1)

MEASURED = 200  # attempts whose files are looked for: a few requests for each bucket of each
ATTEMPTS_AT_ONCE = 8


def close_attempts(
    table: HourlyTable,
    is_over: RunIsOver,
    *,
    hour: HourWindow | None = None,
    grace: timedelta | None = None,
    but: str = "",
) -> list[str]:
    """Close what ended runs left open, of all hours or of one, and make the second passes that are due.

    Args:
        table: loaded now.
        is_over: tells of a run's id whether the run is known to have ended; a lease that has lapsed tells it, too.
        hour: of these attempts only.
        grace: how long after its closing an attempt gets its second pass; `ZOMBIES` unless said.
        but: an attempt that is left alone.

    Returns:
        The ids of the attempts that were closed or got their second pass.
    """
    closed, errors = [], list[LakehouseError]()
    try:
        for marked in table.ledger.marked(hour):
            attempt = marked.marker.attempt.id
            try:
                if attempt != but and _close_marked(table, marked, is_over, grace=ZOMBIES if grace is None else grace):
                    closed.append(attempt)
            except CommitConflictError:
                logger.info("%s: attempt %s is in other hands now", marked.hour, attempt)
            except LakehouseError as error:  # one that cannot be closed now must not stop the others
                errors.append(error)
    except SafetyError as error:
        errors.append(error)
    if errors:
        for other in errors[1:]:
            errors[0].add_note(str(other))
        raise errors[0]
    return closed


def is_due(table: HourlyTable, is_over: RunIsOver) -> bool:
    """Tell whether `close_attempts` would find something to do now; changes nothing."""
    return any(
        _due(table.ledger.hour(marked.hour), marked, is_over, grace=ZOMBIES) is not None
        for marked in table.ledger.marked()
    )


@dataclass(frozen=True)
class Orphans:
    """What ended attempts have left, and nobody has removed yet.

    Attributes:
        attempts: that may have left something, and are no run's.
        files: that they have left, of the first `MEASURED` of them.
        bytes: of these.
    """

    attempts: int = 0
    files: int = 0
    bytes: int = 0


def find_orphans(table: HourlyTable) -> Orphans:
    """Measure what ended attempts have left: by name, so that the data is not listed.

    Raises:
        TransientError: the store did not answer.
        SafetyError: a marker is none of this version of the software.
    """
    ended = [marked.marker for marked in table.ledger.marked() if not _is_under_way(table, marked)]

    def left_by(marker: Marker) -> Sequence[str]:
        # Of one that nobody has closed nothing is known: where its record was lost, its files may be the table's.
        return find_left(table, marker if marker.closed else marker.model_copy(update={"sealed": True})).urls

    left = side_by_side(left_by, ended[:MEASURED], ATTEMPTS_AT_ONCE)
    sizes = [info.size for info in side_by_side(table.files.head, chain.from_iterable(left), ATTEMPTS_AT_ONCE) if info]
    return Orphans(len(ended), len(sizes), sum(sizes))


def _is_under_way(table: HourlyTable, marked: MarkedAttempt) -> bool:
    """Tell whether an attempt is its run's, or waits for a commit, or is in the table."""
    record, attempt = table.ledger.hour(marked.hour).record, marked.marker.attempt.id
    if record.committed and record.committed.attempt == attempt and not marked.marker.closed:
        return True
    return record.attempt is not None and record.attempt.id == attempt


Due = Literal["finish abandoning", "close", "second pass", "close landed", "close stray"]


def _due(held: HourLedger, marked: MarkedAttempt, is_over: RunIsOver, *, grace: timedelta) -> Due | None:
    """Decide what is to be done with a marked attempt; None is nothing, yet."""
    record, marker = held.record, marked.marker
    if record.attempt and record.attempt.id == marker.attempt.id:
        # One at work is its run's; a sealed one waits for a commit, or for somebody who gives it up.
        todo: dict[str, Due] = {"open": "close", "aborting": "finish abandoning"}
        return todo.get(record.state) if is_free(held, "", is_over) else None
    if marker.closed:
        return "second pass" if marked.age >= grace else None
    if record.committed and record.committed.attempt == marker.attempt.id:
        return "close landed" if held.age > LEASE else None  # its run is at it
    return "close stray" if marked.age > LEASE else None  # a younger one may be about to be opened


def _close_marked(table: HourlyTable, marked: MarkedAttempt, is_over: RunIsOver, *, grace: timedelta) -> bool:
    hour, marker, attempt = marked.hour, marked.marker, marked.marker.attempt
    held = table.ledger.hour(hour)
    record = held.record
    match _due(held, marked, is_over, grace=grace):
        case None:
            return False
        case "finish abandoning":
            HourInHand(table, hour, held, "").abandon("begun before")
            return True
        case "second pass":
            if not remove_left(table, marker):
                forget(table, marker)
            return True
        case "close landed":
            assert record.committed is not None  # noqa: S101  # it is what landed
            close_landed(table, hour, attempt, record.committed.seal, record.epoch)
            return True
        case "close":
            _give_up(held)
        case "close stray":  # its record is lost: a commit of it may be on its way even now
            if record.attempt is None:  # an opening of it that is on its way even now is refused from here on
                held.advance(epoch=max(record.epoch, attempt.epoch))
            table.fence_head(hour, attempt)
    epoch = max(record.epoch, attempt.epoch)  # of a record that is lost nothing is known but the attempt's own
    close(table, Marker(hour=hour.key, attempt=attempt, closed=True, sealed=True, epoch=epoch))
    return True


def _give_up(held: HourLedger) -> None:
    """Take an open attempt out of its record: whoever works on at it can no longer seal it."""
    attempt = held.record.attempt
    assert attempt is not None  # noqa: S101  # the caller has seen it
    said = f"run {attempt.run_id} ended without closing attempt {attempt.id}, or lost its lease"
    outcome = Outcome(kind="failed", at=datetime.now(UTC), run_id=attempt.run_id, error="LeaseLost", message=said)
    held.advance(state="idle", attempt=None, stage="", outcome=outcome)

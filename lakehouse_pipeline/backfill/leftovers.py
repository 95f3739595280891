"""What ended runs left behind: open attempts are closed, closed ones get their second pass, interrupted ones go on.

Sealed ones wait for their commit, but not for ever.

Everything is found by its marker: nothing is listed but the ledger's folder of them.
"""

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from lakehouse_pipeline.backfill.attempts import HourInHand
from lakehouse_pipeline.backfill.close import RunIsOver, close, close_landed, find_left, forget, is_free, remove_left
from lakehouse_pipeline.errors import CommitConflictError, LakehouseError, SafetyError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.attempt_files import HEADS_AT_ONCE
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.ledger.hours import HourLedger, MarkedAttempt
from lakehouse_pipeline.ledger.leases import LEASE
from lakehouse_pipeline.ledger.records import Marker, Outcome
from lakehouse_pipeline.object_store.side_by_side import side_by_side

logger = logging.getLogger(__name__)

LEASE_LOST = "LeaseLost"  # what a run has failed with that cannot say so itself

# What a writer may still put after its attempt was closed: a request lives through its retries (10 min), a stopped
# machine may wake up; credentials of an hour are the hard end on S3.
ZOMBIES = timedelta(hours=1)

MEASURED_FOR_S = 15.0  # a few requests for each bucket of each attempt; a sensor's tick has 60 s for all that it does
ATTEMPTS_AT_ONCE = 16


def close_attempts(
    table: HourlyTable,
    is_over: RunIsOver,
    *,
    hour: HourWindow | None = None,
    grace: timedelta | None = None,
    sealed_keep: timedelta | None = None,
    but: str = "",
) -> list[str]:
    """Close what ended runs left open, of all hours or of one, and make the second passes that are due.

    Sealed attempts that nobody has touched for `sealed_keep` are given up. Whoever holds one, takes one, or tries to
    commit one writes its record: so the record's age, by the store's clock, is how long nobody has, and one that is
    tried every few minutes is never given up while it may still land.

    Args:
        table: loaded now.
        is_over: tells of a run's id whether the run is known to have ended; a lease that has lapsed tells it, too.
        hour: of these attempts only.
        grace: how long after its closing an attempt gets its second pass; `ZOMBIES` unless said.
        sealed_keep: for how long a sealed attempt waits; unless said it waits for ever.
        but: an attempt that is left alone.

    Returns:
        The ids of the attempts that were closed or got their second pass.
    """
    closed, errors = [], list[LakehouseError]()
    patience = Patience(ZOMBIES if grace is None else grace, sealed_keep)
    try:
        for marked in table.ledger.marked(hour):
            attempt = marked.marker.attempt.id
            try:
                if attempt != but and _close_marked(table, marked, is_over, patience):
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


def is_due(table: HourlyTable, is_over: RunIsOver, *, sealed_keep: timedelta | None = None) -> bool:
    """Tell whether `close_attempts` would find something to do now; changes nothing."""
    patience = Patience(ZOMBIES, sealed_keep)
    return any(
        _due(table.ledger.hour(marked.hour), marked, is_over, patience) is not None for marked in table.ledger.marked()
    )


@dataclass(frozen=True)
class Orphans:
    """What ended attempts have left, and nobody has removed yet.

    Attributes:
        attempts: that may have left something: they ended outside of the table.
        measured: of them, those whose files were looked for.
        files: that these have left.
        bytes: of the files.
    """

    attempts: int = 0
    measured: int = 0
    files: int = 0
    bytes: int = 0


def find_orphans(table: HourlyTable) -> Orphans:
    """Measure what ended attempts have left: by name, so that the data is not listed; for `MEASURED_FOR_S` at most.

    Raises:
        TransientError: the store did not answer.
        SafetyError: a marker is none of this version of the software.
    """
    until = time.monotonic() + MEASURED_FOR_S
    marked = list(table.ledger.marked())
    under_way = side_by_side(lambda each: _is_under_way(table, each), marked, ATTEMPTS_AT_ONCE)
    ended = [each.marker for each, goes_on in zip(marked, under_way, strict=True) if not goes_on]

    def size_of(marker: Marker) -> list[int] | None:
        if time.monotonic() > until:
            return None
        # Of one that nobody has closed nothing is known: where its record was lost, its files may be the table's.
        left = find_left(table, marker if marker.closed else marker.model_copy(update={"sealed": True}))
        sizes = side_by_side(table.files.head, (*left.named, *left.found), HEADS_AT_ONCE)
        return [info.size for info in (*sizes, *left.staged) if info]

    found = [sizes for sizes in side_by_side(size_of, ended, ATTEMPTS_AT_ONCE) if sizes is not None]
    return Orphans(len(ended), len(found), sum(map(len, found)), sum(map(sum, found)))


def _is_under_way(table: HourlyTable, marked: MarkedAttempt) -> bool:
    """Tell whether an attempt is its run's, or about to be, or waits for a commit, or is in the table."""
    marker = marked.marker
    if marker.landed or (not marker.closed and marked.age <= LEASE):
        return True
    record = table.ledger.hour(marked.hour).record
    if record.committed and record.committed.attempt == marker.attempt.id:
        return True
    return record.attempt is not None and record.attempt.id == marker.attempt.id


@dataclass(frozen=True)
class Patience:
    """How long what ended is left as it is.

    Attributes:
        grace: before the second pass of a closed attempt.
        sealed_keep: before a sealed attempt is given up; None for ever.
    """

    grace: timedelta
    sealed_keep: timedelta | None


Due = Literal["finish abandoning", "give up", "close", "second pass", "close landed", "close stray"]


def _due(held: HourLedger, marked: MarkedAttempt, is_over: RunIsOver, patience: Patience) -> Due | None:
    """Decide what is to be done with a marked attempt; None is nothing, yet."""
    record, marker = held.record, marked.marker
    if record.attempt and record.attempt.id == marker.attempt.id:
        # One at work is its run's; a sealed one waits for a commit, or for somebody who gives it up.
        todo: dict[str, Due] = {"open": "close", "aborting": "finish abandoning"}
        if patience.sealed_keep is not None and held.age >= patience.sealed_keep:
            todo |= {"sealed": "give up", "committing": "give up"}
        return todo.get(record.state) if is_free(held, "", is_over) else None
    if marker.closed:
        return "second pass" if marked.age >= patience.grace else None
    if record.committed and record.committed.attempt == marker.attempt.id:
        return "close landed" if held.age > LEASE else None  # its run is at it
    return "close stray" if marked.age > LEASE else None  # a younger one may be about to be opened


def _close_marked(table: HourlyTable, marked: MarkedAttempt, is_over: RunIsOver, patience: Patience) -> bool:
    hour, marker, attempt = marked.hour, marked.marker, marked.marker.attempt
    held = table.ledger.hour(hour)
    record = held.record
    match _due(held, marked, is_over, patience):
        case None:
            return False
        case "finish abandoning":
            HourInHand(table, hour, held, "").abandon("begun before")
            return True
        case "give up":
            HourInHand(table, hour, held, "").abandon(f"nobody has touched it for {patience.sealed_keep}")
            return True
        case "second pass":
            if not remove_left(table, marker):
                forget(table, marker)
            return True
        case "close landed":
            assert record.committed is not None  # noqa: S101  # it is what landed
            close_landed(table, hour, attempt, record.committed.seal, record.epoch, rerun=True)
            return True
        case "close":
            _give_up(held)
            # Of a record that was lost, and came back; one that is old may be from a copy of the ledger's folder.
            sealed = marker.sealed or marker.landed or marked.age > ZOMBIES
        case "close stray":  # its record is lost: a commit of it may be on its way even now
            if record.attempt is None:  # an opening of it that is on its way even now is refused from here on
                held.advance(epoch=max(record.epoch, attempt.epoch))
            table.fence_head(hour, attempt)
            sealed = True
    epoch = max(record.epoch, attempt.epoch)  # of a record that is lost nothing is known but the attempt's own
    close(table, Marker(hour=hour.key, attempt=attempt, closed=True, sealed=sealed, epoch=epoch))
    return True


def _give_up(held: HourLedger) -> None:
    """Take an open attempt out of its record: whoever works on at it can no longer seal it."""
    attempt = held.record.attempt
    assert attempt is not None  # noqa: S101  # the caller has seen it
    said = f"run {attempt.run_id} ended without closing attempt {attempt.id}, or lost its lease"
    outcome = Outcome(kind="failed", at=datetime.now(UTC), run_id=attempt.run_id, error=LEASE_LOST, message=said)
    held.advance(state="idle", attempt=None, stage="", outcome=outcome)

"""Closing attempts that never became part of the table: what they wrote is removed by name, without listing the data.

Twice: at once, and again when no writer that outlived its attempt can still put anything, since S3 has no way to keep a
late PUT out. What may be closed, and when, is decided here too; sealed attempts never are: they wait for a commit.
"""

import logging
from collections.abc import Callable

from lakehouse_pipeline import events
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.ledger.hours import HourLedger
from lakehouse_pipeline.ledger.leases import LEASE
from lakehouse_pipeline.ledger.records import Attempt, Marker, Seal

logger = logging.getLogger(__name__)

RunIsOver = Callable[[str], bool]


def is_free(held: HourLedger, run_id: str, is_over: RunIsOver) -> bool:
    """Tell whether a run may take an hour: nobody holds it, or the holder has ended or lost its lease."""
    attempt = held.record.attempt
    return attempt is None or attempt.run_id == run_id or held.age > LEASE or is_over(attempt.run_id)


def close(table: HourlyTable, marker: Marker) -> None:
    """Remove an attempt's files, once its record says that it can never be sealed or sent again.

    Its marker stays, for the second pass.

    Raises:
        TransientError: the store did not answer; the next call goes on.
    """
    table.ledger.mark(marker)  # first: how long ago it was closed is the age of the marker
    remove_left(table, marker)
    events.emit("attempt.closed", table.identifier, marker.hour, marker.attempt.id)


def close_landed(table: HourlyTable, hour: HourWindow, attempt: Attempt, seal: Seal, epoch: int) -> None:
    """Remove what an attempt left beside the files that it landed with: of tasks and commits that were done again.

    Where its tasks may write on, its marker stays for a second pass.

    Raises:
        TransientError: the store did not answer; its marker stays, and the next call goes on.
    """
    resumed = epoch > attempt.epoch  # an earlier holder may have written commits that it did not live to send
    unsealed = attempt.model_copy(update={"seal": None})
    marker = Marker(hour=hour.key, attempt=unsealed, closed=True, landed=True, sealed=resumed, epoch=epoch)
    if attempt.remote:
        table.ledger.mark(marker)
    remove_left(table, marker, seal=seal)
    if not attempt.remote:
        forget(table, marker)


def forget(table: HourlyTable, marker: Marker) -> None:
    """Remove what tells of an attempt that has left nothing and writes nothing any more."""
    hour = HourWindow.from_key(marker.hour)
    table.withdraw_claims(hour, marker.attempt.id)
    table.ledger.unmark(hour, marker.attempt.id)  # last: until then somebody comes back


def remove_left(table: HourlyTable, marker: Marker, *, seal: Seal | None = None) -> int:
    """Remove what an attempt put and the table does not reach; gives how many files there were.

    Args:
        table: loaded now.
        marker: of the attempt.
        seal: of one that has just landed: what it names is the table's. Without it the table is asked.

    Raises:
        TransientError: the store did not answer; what is left is left.
    """
    hour, attempt, files = HourWindow.from_key(marker.hour), marker.attempt, table.files
    names = table.files_of(hour, attempt)
    put = names.put(files, marker)
    if put.extent != marker.seen:  # before anything is removed: what is left then has gaps before it
        table.ledger.mark(marker.model_copy(update={"seen": put.extent}))
    reached = set[str]()
    if put.urls and (marker.sealed or marker.landed):
        reached = table.sealed_files(seal) if seal else table.reached_files(hour, attempt.id)
        reached |= table.reached_metadata() if marker.sealed else set()
    left = [url for url in put.urls if url not in reached]
    if not marker.landed and not reached & set(put.urls):
        left += [item.url for item in files.list_objects(f"{table.ledger.rejects_url(hour, attempt.id)}/")]
    files.delete_objects(left)
    # Open uploads are few, and names are spread over all of the key space: one listing of theirs, not one by name.
    for upload in files.list_uploads(names.data_folder):
        if f"-{attempt.id}-" in upload.url:
            files.abort_upload(upload.url, upload.upload)
    logger.info("%s: removed %d files of attempt %s", hour, len(left), attempt.id)
    return len(left)

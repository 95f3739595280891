"""Closing attempts that never became part of the table: what they wrote is removed by name, without listing the data.

Twice: at once, and again when no writer that outlived its attempt can still put anything, since S3 has no way to keep a
late PUT out. What may be closed, and when, is decided here too; sealed attempts never are: they wait for a commit.
"""

import logging
from collections.abc import Callable

from lakehouse_pipeline import events
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.attempt_files import put_files, put_rows
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
    remove_files(table, marker, final=False)
    events.emit("attempt.closed", table.identifier, marker.hour, marker.attempt.id)


def close_landed(table: HourlyTable, hour: HourWindow, attempt: Attempt, seal: Seal) -> None:
    """Remove what the tasks of a landed attempt wrote a second time; where they may write on, it is marked for later.

    Raises:
        TransientError: the store did not answer; its marker stays, and the next call goes on.
    """
    table.remove_unused(hour, attempt, seal, final=not attempt.remote)
    if attempt.remote:
        unsealed = attempt.model_copy(update={"seal": None})
        table.ledger.mark(Marker(hour=hour.key, attempt=unsealed, closed=True, landed=True))
    else:
        table.ledger.unmark(hour, attempt.id)


def remove_files(table: HourlyTable, marker: Marker, *, final: bool = True) -> int:
    """Remove all that an attempt wrote and the table does not reach; gives how many there were.

    With `final=False` its claims stay: they say where to look the second time.

    Raises:
        TransientError: the store did not answer; what is left is left.
    """
    hour, attempt, files = HourWindow.from_key(marker.hour), marker.attempt, table.files
    names = table.files_of(hour, attempt)
    reached = set[str]()
    found = put_rows(files, [names.manifests()]) + put_files(files, names.data())
    if marker.sealed:  # nothing of it should be reached; what is, is the table's
        found += put_rows(files, names.commits(marker.epoch))
        reached = table.reached_files(hour, attempt.id)
        kept = reached | table.reached_metadata()
        found = [url for url in found if url not in kept]
    if not reached:
        found += [item.url for item in files.list_objects(f"{table.ledger.rejects_url(hour, attempt.id)}/")]
    files.delete_objects(found)
    # Open uploads are few, and names are spread over all of the key space: one listing of theirs, not one by name.
    for upload in files.list_uploads(names.data_folder):
        if f"-{attempt.id}-" in upload.url:
            files.abort_upload(upload.url, upload.upload)
    if final:
        table.withdraw_claims(hour, attempt.id)  # last: until then they say where the files are
    logger.info("%s: removed %d files of attempt %s", hour, len(found), attempt.id)
    return len(found)

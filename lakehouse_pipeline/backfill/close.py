"""Closing attempts that never became part of the table: what they wrote is removed by name, without listing the data.

Twice: at once, and again when no writer that outlived its attempt can still put anything, since S3 has no way to keep a
late PUT out. Who may close what, and when, is decided above this module.
"""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill.staging import remove_staged, staged_in
from lakehouse_pipeline.errors import ConfigurationError, SafetyError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.commit_writing import is_manifest_list
from lakehouse_pipeline.iceberg.folders import folders_of
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.manifests import live_paths
from lakehouse_pipeline.ledger.hours import HourLedger
from lakehouse_pipeline.ledger.leases import LEASE
from lakehouse_pipeline.ledger.records import Attempt, Extent, Marker, Seal
from lakehouse_pipeline.object_store.objects import ObjectInfo
from lakehouse_pipeline.object_store.places import SPELLINGS

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


def close_landed(
    table: HourlyTable, hour: HourWindow, attempt: Attempt, seal: Seal, epoch: int, *, rerun: bool = False
) -> None:
    """Remove what an attempt left beside the files that it landed with: of tasks and commits that were done again.

    Where its tasks may write on, its marker stays for a second pass.

    Args:
        table: as it was loaded.
        hour: of the attempt.
        attempt: as it landed.
        seal: of it.
        epoch: of the hour then.
        rerun: whether the hour had been committed before: the rows that were rejected then go, too.

    Raises:
        TransientError: the store did not answer; its marker stays, and the next call goes on.
    """
    # Commits that were not sent, or did not land, may have left files: an earlier holder's, or ours that failed.
    again = epoch > attempt.preparing or len(attempt.bases) > 1
    marker = Marker(hour=hour.key, attempt=attempt, closed=True, landed=True, sealed=again, epoch=epoch)
    if rerun and attempt.rewrites is None:  # before it is marked as closed: who does that again does this again
        _remove_superseded_rejects(table, hour)
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


@dataclass(frozen=True)
class Left:
    """What an attempt may have put and the table does not reach.

    Attributes:
        named: data files that need not be there: they were not asked for.
        found: files that are there.
        extent: how far the attempt's files go, those that the table reaches included.
        folder: where all data files of the table go.
        staged: copies of raw objects that are there.
    """

    named: tuple[str, ...]
    found: tuple[str, ...]
    extent: Extent
    folder: str
    staged: tuple[ObjectInfo, ...] = ()


def find_left(table: HourlyTable, marker: Marker, *, seal: Seal | None = None) -> Left:
    """Find what an attempt may have put and the table does not reach.

    Nothing of an attempt that was not sealed can be reached, so that the table is not asked about it. Manifests come
    before the seal: where there are some, the table is asked, whatever the marker says.

    Args:
        table: loaded now.
        marker: of the attempt.
        seal: of one that has just landed: what it names is the table's. Without it the table is asked.

    Raises:
        SafetyError: the ledger tells of files that are not where the table's are; see `borders`.
        TransientError: the store did not answer.
    """
    hour, attempt, files = HourWindow.from_key(marker.hour), marker.attempt, table.files
    if attempt.staging and not table.ledger.is_staging(attempt.staging, hour, attempt.id):
        raise SafetyError(
            f"the ledger of {table.identifier} says that attempt {attempt.id} has copies in {attempt.staging}, which "
            "is no folder for them. Nothing of the attempt is removed"
        )
    names = table.files_of(hour, attempt)
    put = names.put(files, marker)
    reached = set[str]()
    if (put.named or put.data) and (marker.sealed or marker.landed or put.metadata):
        reached |= _reached_data(table, hour, attempt, seal)
    if put.metadata:
        reached |= table.reached_metadata()
    # By one spelling: somebody may have changed that of the table's location, and names are told by its layout.
    known = {SPELLINGS.name(url) for url in reached}
    named = [url for url in put.named if SPELLINGS.name(url) not in known]
    metadata = [url for url in put.metadata if SPELLINGS.name(url) not in known]
    found = [url for url in put.data if SPELLINGS.name(url) not in known]
    if marker.landed and not seal:
        # Snapshots that had them expired, maybe just now: without its manifests nobody finds the data any more.
        found += _landed_data(table, hour, attempt, metadata)
    found += metadata
    if not marker.landed and len(named) + len(found) == len(put.named) + len(put.data) + len(put.metadata):
        found += [item.url for item in files.list_objects(f"{table.ledger.rejects_url(hour, attempt.id)}/")]
    # Read by the attempt's own ETL and by nobody else: whatever became of it, they have done.
    staged = staged_in(table.catalogs_files, attempt.staging) if attempt.staging else ()
    return Left(tuple(named), tuple(found), put.extent, names.data_folder, tuple(staged))


def _landed_data(table: HourlyTable, hour: HourWindow, attempt: Attempt, manifests: Iterable[str]) -> list[str]:
    """Name the attempt's data files that manifests of its own tell of, and that the table does not reach any more."""
    told, folders = set[str](), folders_of(table.table, SPELLINGS)
    for url in manifests:
        if not is_manifest_list(url):
            with suppress(FileNotFoundError):  # whoever expired its snapshot has removed it meanwhile
                told |= {path for path, _, _ in live_paths(table.files, url)}
    own = [path for path in told if f"-{attempt.id}-" in path.rpartition("/")[2]]
    reached = {SPELLINGS.name(path) for path in table.reached_files(hour, attempt.id)} if own else set()
    gone = (path for path in own if SPELLINGS.name(path) not in reached)
    return sorted(path for path in gone if SPELLINGS.one_contains(folders, path))


def remove_left(table: HourlyTable, marker: Marker, *, seal: Seal | None = None) -> int:
    """Remove what an attempt put and the table does not reach.

    Returns:
        How much of it was seen to be there: files that were asked for, and uploads.

    Args:
        table: loaded now.
        marker: of the attempt.
        seal: as for `find_left`.

    Raises:
        SafetyError: as for `find_left`; nothing was removed.
        TransientError: the store did not answer; what is left is left.
    """
    hour, attempt = HourWindow.from_key(marker.hour), marker.attempt
    left = find_left(table, marker, seal=seal)
    if left.extent != marker.seen:  # before anything is removed: what is left then has gaps before it
        table.ledger.mark(marker.model_copy(update={"seen": left.extent}))
    table.files.delete_objects((*left.named, *left.found))
    aborted = _abort_uploads(table, left.folder, attempt.id)
    staged = remove_staged(table.catalogs_files, attempt.staging) if attempt.staging else 0
    counts = len(left.found) + staged, aborted, len(left.named)
    removed = logger.info if any(counts) else logger.debug
    removed("%s: removed of attempt %s: %d files, %d uploads, what was under %d names", hour, attempt.id, *counts)
    return len(left.found) + staged + aborted


def _reached_data(table: HourlyTable, hour: HourWindow, attempt: Attempt, seal: Seal | None) -> set[str]:
    """Name the attempt's data files that are the table's."""
    with suppress(FileNotFoundError):  # somebody has rewritten the sealed manifests, and expired them
        if seal:
            return table.sealed_files(seal)
    return table.reached_files(hour, attempt.id)


def _remove_superseded_rejects(table: HourlyTable, hour: HourWindow) -> None:
    """Remove the rejected rows of attempts of an hour that are neither its run nor under way."""
    folder = table.ledger.rejects_url(hour, "")
    listed = [item.url for item in table.files.list_objects(folder)]
    if not listed:
        return
    # In this order: whoever had put rejects by then was marked, and is until the record says that it landed.
    needed = {marked.marker.attempt.id for marked in table.ledger.marked(hour) if not marked.marker.landed}
    committed = table.ledger.hour(hour).record.committed
    if committed is None or not committed.rejects:
        return
    needed.add(committed.rejects)
    gone = [url for url in listed if url.removeprefix(folder).partition("/")[0] not in needed]
    table.files.delete_objects(gone)
    logger.info("%s: removed %d files of rows that superseded attempts had rejected", hour, len(gone))


def _abort_uploads(table: HourlyTable, data_folder: str, attempt: str) -> int:
    """Abort an attempt's open uploads: they are few, so that all are listed, while names are spread over all keys."""
    root = f"{table.location}/"
    count = 0
    try:
        for folder in [root] if data_folder.startswith(root) else [root, data_folder]:
            for upload in table.files.list_uploads(folder):
                if attempt in upload.url:
                    table.files.abort_upload(upload.url, upload.upload)
                    count += 1
    except ConfigurationError as error:  # a right of its own, which writers do not need
        logger.warning("open uploads of attempt %s cannot be listed, and stay: %s", attempt, error)
    return count

"""Branches and tags that an expiry has dropped though nobody had looked at them: found, and put back.

A REST catalog has no word for "no other refs", and both kinds drop a tag that was made meanwhile with its snapshot.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRef
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import AddSnapshotUpdate, AssertRefSnapshotId, AssertTableUUID, TableUpdate

from lakehouse_pipeline import events
from lakehouse_pipeline.errors import CommitStateUnknownError, LakehouseError, SafetyError, TransientError
from lakehouse_pipeline.iceberg.commit import RivalsWonError, batch_name, load, set_ref
from lakehouse_pipeline.iceberg.commit_writing import Built, remove_own
from lakehouse_pipeline.iceberg.expiry import gone_since, ids_of, read_metadata, requirements
from lakehouse_pipeline.iceberg.history import History, RefSeen
from lakehouse_pipeline.iceberg.replacement import build_fence
from lakehouse_pipeline.retry import RetryPolicy, retry_call

# A catalog that takes no snapshot back says so at once; rivals move `main`, as with every commit.
PUT_BACK_RETRIES = RetryPolicy(tries=16, total_s=120.0, min_wait_s=0.1, max_wait_s=5.0)


@dataclass(frozen=True)
class DroppedRef:
    """A branch or tag that a commit has dropped, though nobody had looked at it.

    Attributes:
        name: its name.
        ref: as it was.
        snapshot: that it stood on.
        metadata_url: the last metadata file that has it.
    """

    name: str
    ref: SnapshotRef
    snapshot: Snapshot
    metadata_url: str

    def __str__(self) -> str:
        """Say what it is, and where it stood."""
        return f"{RefSeen.of(self.name, self.ref)} on snapshot {self.ref.snapshot_id}"


def dropped(base: Table, now: Table) -> list[DroppedRef]:
    """Find the refs that went with snapshots of `base`, and that `base` did not have.

    Every commit since then that has removed one of these snapshots is looked at, by what it replaced: the metadata
    file before it in the log.

    Args:
        base: what the expiry was decided on.
        now: as it is.

    Raises:
        SafetyError: the log does not go back far enough to tell.
        TransientError: the store did not answer.
    """
    wanted, found = gone_since(base, now), dict[str, DroppedRef]()
    later = now.metadata
    for url in _log(now):
        if not wanted:
            break
        if url == base.metadata_location:
            earlier = base.metadata
        else:
            try:
                earlier = read_metadata(now, url)
            except FileNotFoundError:
                break
        removed = wanted & ids_of(earlier)
        if removed:
            wanted -= removed
            for name, ref in earlier.refs.items():
                snapshot = earlier.snapshot_by_id(ref.snapshot_id)
                if snapshot and name not in later.refs and not _has(base, name, ref) and name not in now.metadata.refs:
                    found.setdefault(name, DroppedRef(name, ref, snapshot, url))
        later = earlier
    if wanted:
        raise SafetyError(
            f"{History.of(now).table}: the metadata log does not tell what the expiry replaced, so that a branch or "
            "tag may have gone with it; no file was removed. Set write.metadata.previous-versions-max higher, and "
            "sweep the files later"
        )
    return [found[name] for name in sorted(found)]


def _log(table: Table) -> Iterator[str]:
    """Name the metadata files before the present one, newest first."""
    return (entry.metadata_file for entry in reversed(table.metadata.metadata_log))


def _has(table: Table, name: str, ref: SnapshotRef) -> bool:
    seen = table.metadata.refs.get(name)
    return seen is not None and seen.snapshot_id == ref.snapshot_id


def put_back(catalog: Catalog, identifier: str, refs: Sequence[DroppedRef], *, batch: str) -> None:
    """Put refs back with the snapshots that they stood on.

    A snapshot of an old sequence number is taken back only without its parent, and sets the table's last number back
    with it; so an empty snapshot on `main` follows in the same commit and brings it forward again.

    Args:
        catalog: where the table is.
        identifier: `namespace.name`.
        refs: to put back; one whose name is there again by now is left as it is.
        batch: begins the names of the commits' own files; used once and never again.

    Raises:
        SafetyError: the catalog does not take them; says what to do.
    """
    places, sent = count(), list[Built]()

    def once() -> None:
        table = load(catalog, identifier)
        missing = [each for each in refs if each.name not in table.metadata.refs]
        if not missing:
            _remove_unused(table, sent)
            return
        built = build_fence(table, batch_name(batch, next(places)))
        sent.append(built)
        try:
            table._do_commit(  # noqa: SLF001  # see `_send`
                updates=tuple(_additions(table, missing, built)),
                requirements=(
                    AssertTableUUID(uuid=table.metadata.table_uuid),
                    *requirements(table)[1:],
                    *(AssertRefSnapshotId(ref=each.name, snapshot_id=None) for each in missing),
                ),
            )
        except CommitFailedException as error:
            raise RivalsWonError(str(error)) from None
        except Exception as error:
            if isinstance(error, LakehouseError):
                raise
            raise CommitStateUnknownError(f"{type(error).__name__}: {error}") from None
        _remove_unused(table, sent)

    events.emit("expiry.putting_back", identifier, refs=[each.name for each in refs])
    try:
        on = (RivalsWonError, CommitStateUnknownError, TransientError)
        retry_call(PUT_BACK_RETRIES, once, on=on, name="put refs back")
    except LakehouseError as error:
        raise SafetyError(
            f"{identifier}: {', '.join(map(str, refs))} was made while snapshots were expired, and the catalog dropped "
            f"it; it could not be put back ({error}). No file was removed: all of them are there, and "
            f"{refs[0].metadata_url} has the snapshot. Run the expiry again, which tries again; or register that "
            "metadata file as a table of its own, and copy from it"
        ) from error
    events.emit("expiry.put_back", identifier, refs=[each.name for each in refs])


def _remove_unused(table: Table, sent: Collection[Built]) -> None:
    """Remove what was written for commits that did not land: `main` has moved off their base when one did."""
    snapshots = ids_of(table.metadata)
    for built in sent:
        if built.snapshot.snapshot_id not in snapshots:
            remove_own(table, built.own_files)


def _additions(table: Table, refs: Sequence[DroppedRef], fence: Built) -> Iterator[TableUpdate]:
    absent = {each.snapshot.snapshot_id: each.snapshot for each in refs}
    for snapshot in sorted(absent.values(), key=lambda each: each.sequence_number or 0):
        if table.metadata.snapshot_by_id(snapshot.snapshot_id) is None:
            yield AddSnapshotUpdate(snapshot=snapshot.model_copy(update={"parent_snapshot_id": None}))
    for each in refs:
        yield set_ref(each.name, each.ref, each.ref.snapshot_id)
    yield AddSnapshotUpdate(snapshot=fence.snapshot)
    yield set_ref(MAIN_BRANCH, table.metadata.refs[MAIN_BRANCH], fence.snapshot.snapshot_id)

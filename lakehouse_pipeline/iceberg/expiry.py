"""Snapshots, branches and tags that are taken out of a table's metadata; put back, where they should not have gone.

What may go is decided by the caller, again at every try; files are not removed here. Rules that must not be bent:

- Every branch and tag that was looked at is asserted. Catalogs whose commits PyIceberg validates refuse a table that
  has others by then. A REST catalog has no word for that, and drops a tag that was made meanwhile with its snapshot:
  whoever removes files looks at what the commit replaced first (`dropped`), and puts such refs back (`put_back`).
- A commit whose outcome is unknown is decided by reading the table; until then no file may be removed.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from pydantic import Field
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import BadRequestError, CommitFailedException
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRef
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    AssertTableUUID,
    RemovePartitionStatisticsUpdate,
    RemoveSnapshotRefUpdate,
    RemoveSnapshotsUpdate,
    RemoveStatisticsUpdate,
    TableRequirement,
    TableUpdate,
)

from lakehouse_pipeline import events
from lakehouse_pipeline.errors import (
    CommitConflictError,
    CommitStateUnknownError,
    LakehouseError,
    SafetyError,
    TransientError,
)
from lakehouse_pipeline.iceberg.commit import COMMIT_RETRIES, RivalsWonError, batch_name, load, set_ref
from lakehouse_pipeline.iceberg.history import History, RefSeen
from lakehouse_pipeline.iceberg.replacement import Built, build_fence, remove_own
from lakehouse_pipeline.retry import RetryPolicy, retry_call

# A catalog that takes no snapshot back says so at once; rivals move `main`, as with every commit.
PUT_BACK_RETRIES = RetryPolicy(tries=16, total_s=120.0, min_wait_s=0.1, max_wait_s=5.0)


@dataclass(frozen=True)
class Removal:
    """What is to be taken out of a table's metadata.

    Attributes:
        snapshots: their ids.
        refs: names of branches and tags.
    """

    snapshots: tuple[int, ...]
    refs: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.snapshots or self.refs)


Decide = Callable[[History], Removal]


def remove_snapshots(catalog: Catalog, identifier: str, decide: Decide, before_send: Callable[[str], None]) -> bool:
    """Take out of a table's metadata what a decision says, in one commit; False where it says that nothing may go.

    Args:
        catalog: where the table is.
        identifier: `namespace.name`.
        decide: asked at every try, of the table as it is then.
        before_send: called before every try with the metadata file that holds all that may be gone after it; by
            raising it keeps the commit from being sent.

    Raises:
        CommitConflictError: rivals won every try; nothing was changed.
        CommitStateUnknownError: it is not known whether the last commit landed.
        SafetyError: the catalog refuses; nothing was changed.
    """
    return _Expiry(catalog, identifier, decide, before_send).run()


class _NoOtherRefs(AssertTableUUID):
    """Of a catalog that lets PyIceberg validate: there is no branch or tag but those that were looked at.

    A REST catalog is told of the table's id alone.
    """

    looked_at: frozenset[str] = Field(exclude=True)

    def validate(self, base_metadata: TableMetadata | None) -> None:  # type: ignore[override]  # pydantic's name
        super().validate(base_metadata)
        if base_metadata and (others := sorted(base_metadata.refs.keys() - self.looked_at)):
            raise CommitFailedException(f"Requirement failed: {', '.join(others)} was created concurrently")


@dataclass
class _Sent:
    """A commit that was sent.

    Attributes:
        table: as it was decided on.
        removal: what it takes out.
        refused: the catalog has said so; once the table was read back it cannot land.
    """

    table: Table
    removal: Removal
    refused: bool = False


@dataclass
class _Expiry:
    catalog: Catalog
    identifier: str
    decide: Decide
    before_send: Callable[[str], None]
    base: Table | None = None  # what the oldest commit was decided on that may land, or has
    sent: list[_Sent] = field(default_factory=list)
    tries: int = 0

    def run(self) -> bool:
        patiently = (RivalsWonError, CommitStateUnknownError, TransientError)
        try:
            return retry_call(COMMIT_RETRIES, self.once, on=patiently, name="expiry")
        except (CommitConflictError, CommitStateUnknownError, TransientError) as error:
            return self.settle(error)

    def once(self) -> bool:
        """Read the table, decide what became of earlier sends, and send again if need be."""
        table = load(self.catalog, self.identifier)
        if self._landed(table):
            return True
        self.sent = [each for each in self.sent if not each.refused and _can_land(table, each.table)]
        removal = self.decide(History.of(table))
        if not removal:
            if self.sent:
                raise CommitStateUnknownError(f"{self.identifier}: an expiry that was sent may still land")
            return False
        if not self.sent:
            self.base = table
        assert self.base is not None  # noqa: S101  # of the oldest that was sent
        self.before_send(self.base.metadata_location)
        self._send(table, removal)
        return self._landed(table, removal)

    def _landed(self, table: Table, removal: Removal | None = None) -> bool:
        """Tell whether one that was sent is in the table; `removal` is known to be."""
        if removal is None:
            removal = next((each.removal for each in self.sent if _is_gone(table, each.removal)), None)
        if removal is None:
            return False
        gone, refs = len(removal.snapshots), len(removal.refs)
        events.emit("expiry.committed", self.identifier, snapshots=gone, refs=refs, tries=self.tries)
        return True

    def _send(self, table: Table, removal: Removal) -> None:
        self.tries += 1
        events.emit("expiry.sent", self.identifier, snapshots=len(removal.snapshots), refs=len(removal.refs))
        sent = _Sent(table, removal)
        self.sent.append(sent)
        try:
            # See `commit`: the one face that honours write.metadata.delete-after-commit.enabled, too.
            table._do_commit(updates=_updates(table, removal), requirements=_requirements(table))  # noqa: SLF001
        except (CommitFailedException, ValueError) as error:
            # ValueError is PyIceberg's word where somebody else has removed a snapshot. Not proof that it did not
            # land, where the client has sent it twice: once() reads back.
            if isinstance(error, LakehouseError):
                raise
            sent.refused = True
            raise RivalsWonError(f"{self.identifier}: {error}") from None
        except BadRequestError as error:
            self.sent.remove(sent)
            raise SafetyError(f"{self.identifier}: the catalog refuses the expiry: {error}") from None
        except Exception as error:
            if isinstance(error, LakehouseError) and not isinstance(error, TransientError):
                raise
            raise CommitStateUnknownError(
                f"{self.identifier}: whether the expiry landed is not known ({type(error).__name__}: {error})"
            ) from None

    def settle(self, error: LakehouseError) -> bool:
        """Find out, once no more tries are left, what became of what was sent.

        Raises:
            CommitStateUnknownError: it may still land.
            LakehouseError: `error`, since it has not landed and cannot.
        """
        if not self.sent:
            raise error
        try:
            table = self.catalog.load_table(self.identifier)
        except Exception as unreachable:  # noqa: BLE001  # whatever the catalog raises, the answer is: not known
            raise CommitStateUnknownError(
                f"{error}; the table could not be read back ({type(unreachable).__name__}: {unreachable})"
            ) from error
        if self._landed(table):
            return True
        if any(not each.refused and _can_land(table, each.table) for each in self.sent):
            raise CommitStateUnknownError(f"{error}; it may still land, so no file was removed") from error
        raise error


def _updates(table: Table, removal: Removal) -> tuple[TableUpdate, ...]:
    """Refs go first: a snapshot that one stands on cannot go."""
    metadata, gone = table.metadata, set(removal.snapshots)
    statistics = sorted({each.snapshot_id for each in metadata.statistics} & gone)
    of_partitions = sorted({each.snapshot_id for each in metadata.partition_statistics} & gone)
    updates: list[TableUpdate] = [RemoveSnapshotRefUpdate(ref_name=name) for name in removal.refs]
    updates += [RemoveStatisticsUpdate(snapshot_id=each) for each in statistics]
    updates += [RemovePartitionStatisticsUpdate(snapshot_id=each) for each in of_partitions]
    if removal.snapshots:
        updates.append(RemoveSnapshotsUpdate(snapshot_ids=list(removal.snapshots)))
    return tuple(updates)


def _requirements(table: Table) -> tuple[TableRequirement, ...]:
    refs = table.metadata.refs
    return (
        _NoOtherRefs(uuid=table.metadata.table_uuid, looked_at=frozenset(refs)),
        *(AssertRefSnapshotId(ref=name, snapshot_id=ref.snapshot_id) for name, ref in sorted(refs.items())),
    )


def _is_gone(table: Table, removal: Removal) -> bool:
    return not (_ids(table.metadata) & set(removal.snapshots) or table.metadata.refs.keys() & set(removal.refs))


def _can_land(table: Table, sent: Table) -> bool:
    """Tell whether all that a commit asserts still holds."""
    refs = table.metadata.refs
    asserted = sent.metadata.refs.items()
    return all(name in refs and refs[name].snapshot_id == ref.snapshot_id for name, ref in asserted)


def snapshot_ids(table: Table) -> set[int]:
    """Give the snapshots that a table has, as it was loaded."""
    return _ids(table.metadata)


def _ids(metadata: TableMetadata) -> set[int]:
    return {snapshot.snapshot_id for snapshot in metadata.snapshots}


def without(table: Table, removal: Removal) -> Table:
    """Give a table as it would be without snapshots and refs; changes nothing."""
    gone, metadata = set(removal.snapshots), table.metadata
    left = metadata.model_copy(
        update={
            "snapshots": [each for each in metadata.snapshots if each.snapshot_id not in gone],
            "refs": {name: ref for name, ref in metadata.refs.items() if name not in removal.refs},
            "statistics": [each for each in metadata.statistics if each.snapshot_id not in gone],
            "partition_statistics": [each for each in metadata.partition_statistics if each.snapshot_id not in gone],
        }
    )
    return _as(table, left, table.metadata_location)


def at(table: Table, metadata_url: str) -> Table:
    """Give a table as one of its metadata files has it.

    Raises:
        FileNotFoundError: the file is gone.
    """
    return _as(table, _read(table, metadata_url), metadata_url)


def _as(table: Table, metadata: TableMetadata, url: str) -> Table:
    return Table(identifier=table.name(), metadata=metadata, metadata_location=url, io=table.io, catalog=table.catalog)


def _read(table: Table, url: str) -> TableMetadata:
    return FromInputFile.table_metadata(table.io.new_input(url))


def gone_since(base: Table, now: Table) -> set[int]:
    """Give the snapshots that were there and are no more."""
    return _ids(base.metadata) - _ids(now.metadata)


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
                earlier = _read(now, url)
            except FileNotFoundError:
                break
        removed = wanted & _ids(earlier)
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
                    *_requirements(table)[1:],
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
    snapshots = _ids(table.metadata)
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

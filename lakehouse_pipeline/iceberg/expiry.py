"""Snapshots, branches and tags that are taken out of a table's metadata.

What may go is decided by the caller, again at every try; files are not removed here. Rules that must not be bent:

- Every branch and tag that was looked at is asserted. Catalogs whose commits PyIceberg validates refuse a table that
  has others by then. A REST catalog has no word for that, and drops a tag that was made meanwhile with its snapshot:
  whoever removes files looks at what the commit replaced first, and puts such refs back (`dropped_refs`).
- A commit whose outcome is unknown is decided by reading the table; until then no file may be removed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import Field
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import BadRequestError, CommitFailedException, ValidationError
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import (
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
from lakehouse_pipeline.iceberg.commit import COMMIT_RETRIES, RivalsWonError, load
from lakehouse_pipeline.iceberg.history import History
from lakehouse_pipeline.retry import retry_call


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
            table._do_commit(updates=_updates(table, removal), requirements=requirements(table))  # noqa: SLF001
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
            table = load(self.catalog, self.identifier)
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


def requirements(table: Table) -> tuple[TableRequirement, ...]:
    """Assert that the table has the refs that were looked at, and no others; the table's own identity comes first."""
    refs = table.metadata.refs
    return (
        _NoOtherRefs(uuid=table.metadata.table_uuid, looked_at=frozenset(refs)),
        *(AssertRefSnapshotId(ref=name, snapshot_id=ref.snapshot_id) for name, ref in sorted(refs.items())),
    )


def _is_gone(table: Table, removal: Removal) -> bool:
    return not (ids_of(table.metadata) & set(removal.snapshots) or table.metadata.refs.keys() & set(removal.refs))


def _can_land(table: Table, sent: Table) -> bool:
    """Tell whether all that a commit asserts still holds."""
    refs = table.metadata.refs
    asserted = sent.metadata.refs.items()
    return all(name in refs and refs[name].snapshot_id == ref.snapshot_id for name, ref in asserted)


def snapshot_ids(table: Table) -> set[int]:
    """Give the snapshots that a table has, as it was loaded."""
    return ids_of(table.metadata)


def ids_of(metadata: TableMetadata) -> set[int]:
    """Give the snapshots that metadata have."""
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
        SafetyError: it is no metadata file.
    """
    return _as(table, read_metadata(table, metadata_url), metadata_url)


def _as(table: Table, metadata: TableMetadata, url: str) -> Table:
    return Table(identifier=table.name(), metadata=metadata, metadata_location=url, io=table.io, catalog=table.catalog)


def read_metadata(table: Table, url: str) -> TableMetadata:
    """Read one of a table's metadata files.

    Raises:
        FileNotFoundError: it is gone.
        SafetyError: it is none.
    """
    try:
        return FromInputFile.table_metadata(table.io.new_input(url))
    except (ValidationError, ValueError) as error:
        if isinstance(error, LakehouseError):
            raise
        raise SafetyError(f"{url} is no metadata file ({type(error).__name__}): nothing is removed") from None


def gone_since(base: Table, now: Table) -> set[int]:
    """Give the snapshots that were there and are no more."""
    return ids_of(base.metadata) - ids_of(now.metadata)

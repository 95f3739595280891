"""The one commit loop: a snapshot that replaces exactly the hours it was given, or nothing.

A commit adds sealed manifests, marks the hours' live files DELETED in new copies of their manifests, and asserts the
snapshot that `main` stood on. Rules that must not be bent:

- An hour is replaced only while its live files are those that its attempt was opened on: nobody else's rows are lost,
  and commits to other hours never get in the way.
- A commit whose outcome is unknown is decided by finding its snapshot, or by `main` having moved off its base. Until
  then nothing is deleted, and the same commit is sent again.
- Only a commit that certainly did not land has its own manifest list and manifest copies removed.
"""

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import requests
import sqlalchemy.exc
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, RESTError
from pyiceberg.manifest import ManifestFile, write_manifest_list
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, Summary, update_snapshot_summaries
from pyiceberg.table.update import AddSnapshotUpdate, AssertRefSnapshotId, AssertTableUUID, SetSnapshotRefUpdate

from lakehouse_pipeline import events
from lakehouse_pipeline.errors import (
    CommitConflictError,
    CommitStateUnknownError,
    LakehouseError,
    SafetyError,
    TransientError,
)
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.event_time import EventTime
from lakehouse_pipeline.iceberg.manifests import (
    DELETED,
    EXISTING,
    FORMAT_VERSION,
    LiveFile,
    codec_of,
    digest,
    live_file,
    manifests_of,
    read_entries,
    refuse_straddling,
    schema_for,
    sealed_manifest_file,
    write_manifest,
)
from lakehouse_pipeline.iceberg.tables import translated
from lakehouse_pipeline.ledger import Attempt, Seal
from lakehouse_pipeline.retry import RetryPolicy, retry_call

logger = logging.getLogger(__name__)

# A conflict costs one manifest list; committers of other hours are the only rivals, so patience is cheap.
COMMIT_RETRIES = RetryPolicy(tries=32, total_s=600.0, min_wait_s=0.1, max_wait_s=10.0)

BeforeSend = Callable[[int | None, int], None]


@dataclass(frozen=True)
class SealedHour:
    """An hour that is ready to be committed.

    Attributes:
        hour: the hour.
        attempt: its id.
        replaces: digest of the live files that the attempt was opened on.
        seal: the files that take their place.
    """

    hour: HourWindow
    attempt: str
    replaces: str
    seal: Seal

    @classmethod
    def of(cls, hour: HourWindow, attempt: Attempt) -> "SealedHour":
        """Take a sealed attempt out of its record."""
        if attempt.seal is None:
            raise SafetyError(f"attempt {attempt.id} of {hour} is not sealed")
        return cls(hour, attempt.id, attempt.replaces, attempt.seal)


@dataclass(frozen=True)
class Replaced:
    """What a commit did.

    Attributes:
        snapshot_id: the new snapshot; None where empty hours replaced nothing and there was nothing to commit.
        files_removed: data files that are no longer live.
        tries: how many times a commit was sent.
    """

    snapshot_id: int | None
    files_removed: int
    tries: int


@dataclass(frozen=True)
class _Built:
    """A commit that is ready to be sent, and sent again."""

    base: int | None
    snapshot: Snapshot
    removed: tuple[LiveFile, ...]
    own_files: tuple[str, ...]


def replace_hours(
    catalog: Catalog, identifier: str, hours: Sequence[SealedHour], *, event_time: str, before_send: BeforeSend
) -> Replaced:
    """Make the hours' live files exactly those of their seals, in one snapshot.

    Args:
        catalog: where the table is.
        identifier: `namespace.name`.
        hours: each at most once, of one table.
        event_time: the column that tells a row's hour.
        before_send: called with the base and the new snapshot's id before every commit that is sent for the first
            time; it records them, and by raising keeps the commit from being sent.

    Raises:
        CommitConflictError: an hour was changed by somebody else since its attempt was opened, or rivals won every try.
        CommitStateUnknownError: whether the last commit landed could not be found out; nothing was deleted.
        SafetyError: the seal is of another table, or files of earlier partition specs straddle the hours.
    """
    loop = _CommitLoop(catalog, identifier, tuple(hours), event_time, before_send)
    try:
        return retry_call(
            COMMIT_RETRIES,
            loop.once,
            on=(RivalsWonError, CommitStateUnknownError, TransientError),
            name="commit",
        )
    except (CommitConflictError, CommitStateUnknownError, TransientError) as error:
        return loop.settle(error)


class RivalsWonError(CommitConflictError):
    """A rival moved the table: the same hours can be committed on the new head."""


@dataclass
class _CommitLoop:
    catalog: Catalog
    identifier: str
    hours: tuple[SealedHour, ...]
    event_time: str
    before_send: BeforeSend
    sent: list[_Built] = field(default_factory=list)
    tries: int = 0

    def once(self) -> Replaced:
        """Read the table, decide what became of earlier sends, and send again if need be."""
        table = load(self.catalog, self.identifier)
        for earlier in self.sent:
            if table.metadata.snapshot_by_id(earlier.snapshot.snapshot_id) is not None:
                return self._landed(table, earlier)
        built = self._current(table) or self._build(table)
        if built is None:
            return Replaced(None, 0, self.tries)
        self._send(table, built)
        return self._landed(table, built)

    def _current(self, table: Table) -> _Built | None:
        """Give the last commit sent, if it still fits the table."""
        if not self.sent or self.sent[-1].snapshot.sequence_number != table.metadata.next_sequence_number():
            return None
        return self.sent[-1] if self.sent[-1].base == head(table) else None

    def _build(self, table: Table) -> _Built | None:
        built = build(table, self.hours, self.event_time)
        if built is None:
            return None
        try:
            self.before_send(built.base, built.snapshot.snapshot_id)
        except BaseException:
            _delete(table, built.own_files)
            raise
        self.sent.append(built)
        return built

    def _send(self, table: Table, built: _Built) -> None:
        self.tries += 1
        events.emit("commit.sent", self.identifier, snapshot_id=built.snapshot.snapshot_id, base=built.base)
        updates = (
            AddSnapshotUpdate(snapshot=built.snapshot),
            SetSnapshotRefUpdate(
                ref_name=MAIN_BRANCH,
                type=SnapshotRefType.BRANCH,
                snapshot_id=built.snapshot.snapshot_id,
                max_ref_age_ms=None,
                max_snapshot_age_ms=None,
                min_snapshots_to_keep=None,
            ),
        )
        requirements = (
            AssertTableUUID(uuid=table.metadata.table_uuid),
            AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=built.base),
        )
        try:
            # The one face that sends prepared updates and also honours write.metadata.delete-after-commit.enabled.
            table._do_commit(updates=updates, requirements=requirements)  # noqa: SLF001
        except (CommitFailedException, ValueError) as error:
            # Not proof that it did not land (a reply may be lost and the request sent again): once() reads back.
            # ValueError is PyIceberg's word where a commit to another branch took the sequence number.
            if isinstance(error, LakehouseError):
                raise
            raise RivalsWonError(f"{self.identifier}: {error}") from None
        except (RESTError, requests.RequestException, sqlalchemy.exc.SQLAlchemyError, OSError, TransientError) as error:
            raise CommitStateUnknownError(
                f"{self.identifier}: whether snapshot {built.snapshot.snapshot_id} landed is not known "
                f"({type(error).__name__}: {error})"
            ) from None

    def _landed(self, table: Table, built: _Built) -> Replaced:
        events.emit("commit.landed", self.identifier, snapshot_id=built.snapshot.snapshot_id, tries=self.tries)
        for other in self.sent:
            if other is not built:  # `main` moved off its base when `built` landed
                _delete(table, other.own_files)
        removed = sum(file.content == 0 for file in built.removed)
        return Replaced(built.snapshot.snapshot_id, removed, self.tries)

    def settle(self, error: LakehouseError) -> Replaced:
        """Find out, once no more tries are left, what became of the commits that were sent.

        Raises:
            CommitStateUnknownError: one of them may still land; nothing was deleted.
            LakehouseError: `error`, since none of them landed or can.
        """
        if not self.sent:
            raise error
        try:
            table = self.catalog.load_table(self.identifier)
            reached = _reached_since(table, self.sent[0])
        except Exception as unreachable:  # noqa: BLE001  # whatever catalog or store raise, the answer is: not known
            raise CommitStateUnknownError(
                f"{error}; the table could not be read back ({type(unreachable).__name__}: {unreachable})"
            ) from error
        for built in self.sent:
            if table.metadata.snapshot_by_id(built.snapshot.snapshot_id) is not None:
                return self._landed(table, built)
        if any(built.base == head(table) for built in self.sent):
            raise CommitStateUnknownError(f"{error}; it may still land, so nothing was removed") from error
        # A commit that landed may have been expired since, but not what later snapshots took over from it.
        _delete(table, [path for built in self.sent for path in built.own_files if path not in reached])
        raise error


def load(catalog: Catalog, identifier: str) -> Table:
    """Load a table that is known to have been there.

    Raises:
        SafetyError: it is gone.
        TransientError: the catalog cannot be reached.
    """
    with translated(f"load {identifier}", catalog.properties):
        try:
            return catalog.load_table(identifier)
        except NoSuchTableError:
            raise SafetyError(f"{identifier} was dropped or renamed while an attempt was under way") from None


def head(table: Table) -> int | None:
    """Give the snapshot that `main` stands on; None for a table without one."""
    ref = table.metadata.refs.get(MAIN_BRANCH)
    return ref.snapshot_id if ref else None


def build(table: Table, hours: Sequence[SealedHour], event_time: str) -> _Built | None:
    """Write all that a commit of the hours on the table's head needs; None where it would change nothing.

    Raises:
        CommitConflictError: an hour's live files are not those that its attempt was opened on.
        SafetyError: a seal is of another table, or files of earlier partition specs straddle the hours.
    """
    _check_seals(table, hours)
    told = EventTime.of(table.metadata, event_time)
    own_files: list[str] = []
    try:
        return _write(table, hours, told, own_files)
    except BaseException:
        _delete(table, own_files)
        raise


def _write(table: Table, hours: Sequence[SealedHour], event_time: EventTime, own_files: list[str]) -> _Built | None:
    """Do what `build` does; every file is named in `own_files` before it is written."""
    base, snapshot_id, batch = head(table), table.metadata.new_snapshot_id(), uuid.uuid4().hex
    provider = table.location_provider()
    kept: list[ManifestFile] = []
    removed: list[LiveFile] = []
    ordinals = {sealed.hour.ordinal for sealed in hours}
    for manifest in manifests_of(table.metadata, table.io, base):
        if not (manifest.has_added_files() or manifest.has_existing_files()):
            continue  # all of it was deleted by an earlier snapshot
        if not event_time.in_manifest(manifest).meets(ordinals):
            kept.append(manifest)
            continue
        own_files.append(provider.new_metadata_location(f"{batch}-m{len(own_files)}.avro"))
        copy, gone = _without(table, manifest, event_time, ordinals, path=own_files[-1], snapshot_id=snapshot_id)
        kept.append(copy)
        removed += gone
        if not gone:
            own_files.pop()
    refuse_straddling(removed)
    _check_unchanged(hours, removed)
    added = [
        sealed_manifest_file(manifest, sealed.hour, sealed.seal.spec_id, snapshot_id)
        for sealed in hours
        for manifest in sealed.seal.manifests
    ]
    if not added and not removed:
        return None
    manifest_list = provider.new_metadata_location(f"snap-{snapshot_id}-0-{batch}.avro")
    own_files.append(manifest_list)
    sequence_number = table.metadata.next_sequence_number()
    with write_manifest_list(
        FORMAT_VERSION,
        table.io.new_output(manifest_list),
        snapshot_id,
        base,
        sequence_number,
        codec_of(table.properties),
    ) as writer:
        writer.add_manifests(added + kept)
    snapshot = Snapshot(
        snapshot_id=snapshot_id,
        parent_snapshot_id=base,
        sequence_number=sequence_number,
        timestamp_ms=max(int(datetime.now(UTC).timestamp() * 1000), table.metadata.last_updated_ms),
        manifest_list=manifest_list,
        summary=_summary(table, base, hours, removed, batch),
        schema_id=table.metadata.current_schema_id,
    )
    return _Built(base, snapshot, tuple(removed), tuple(own_files))


def _check_seals(table: Table, hours: Sequence[SealedHour]) -> None:
    for sealed in hours:
        if sealed.seal.table_uuid != str(table.metadata.table_uuid):
            raise SafetyError(f"attempt {sealed.attempt} of {sealed.hour} was written for another table of this name")
        if sealed.seal.spec_id not in table.metadata.specs():
            raise SafetyError(
                f"attempt {sealed.attempt} of {sealed.hour} was written for a partition spec that is gone"
            )


def _check_unchanged(hours: Sequence[SealedHour], removed: Sequence[LiveFile]) -> None:
    """Hold the hours' live files against those that the attempts were opened on.

    State, not history, is compared: it costs no walk over the snapshots in between, and a change that was undone
    is no change.
    """
    for sealed in hours:
        live = [file.path for file in removed if file.hour == sealed.hour.ordinal]
        if digest(live) != sealed.replaces:
            raise CommitConflictError(
                f"{sealed.hour} was changed by somebody else after attempt {sealed.attempt} was opened "
                f"(it now has {len(live)} live files): the attempt is superseded. Run the hour again to replace it"
            )


def _without(
    table: Table, manifest: ManifestFile, event_time: EventTime, ordinals: set[int], *, path: str, snapshot_id: int
) -> tuple[ManifestFile, list[LiveFile]]:
    """Copy a manifest with the hours' files marked DELETED; the manifest itself where it has none of them."""
    span_of = event_time.in_entries_of(manifest.partition_spec_id)
    entries, gone = [], []
    for entry in read_entries(table.io, manifest):
        if entry["status"] == DELETED:
            continue
        span = span_of(entry)
        if span.meets(ordinals):
            gone.append(live_file(entry, span))
            entries.append({**entry, "status": DELETED, "snapshot_id": snapshot_id})
        else:
            entries.append({**entry, "status": EXISTING})
    if not gone:
        return manifest, []
    copy = write_manifest(
        table.io,
        path,
        entries,
        spec=table.metadata.specs()[manifest.partition_spec_id],
        schema=schema_for(table.metadata, manifest.partition_spec_id),
        content=manifest.content,
        codec=codec_of(table.properties),
        snapshot_id=snapshot_id,
    )
    return copy, gone


def _summary(
    table: Table, base: int | None, hours: Sequence[SealedHour], removed: Sequence[LiveFile], batch: str
) -> Summary:
    data = [file for file in removed if file.content == 0]
    deletes = {kind: [file for file in removed if file.content == kind] for kind in (1, 2)}
    figures = {
        "added-data-files": sum(sealed.seal.files for sealed in hours),
        "added-records": sum(sealed.seal.rows for sealed in hours),
        "added-files-size": sum(sealed.seal.bytes for sealed in hours),
        "deleted-data-files": len(data),
        "deleted-records": sum(file.rows for file in data),
        "removed-files-size": sum(file.bytes for file in removed),
        "removed-delete-files": len(removed) - len(data),
        "removed-position-deletes": sum(file.rows for file in deletes[1]),
        "removed-equality-deletes": sum(file.rows for file in deletes[2]),
        "changed-partition-count": len(hours),
    }
    summary = Summary(
        Operation.OVERWRITE if removed else Operation.APPEND,
        **{name: str(figure) for name, figure in figures.items() if figure},
        **{
            "engine-name": "lakehouse_pipeline",
            "lakehouse.batch": batch,
            "lakehouse.hours": str(len(hours)),
            "lakehouse.digest": digest(f"{sealed.hour} {sealed.attempt}" for sealed in hours),
        },
    )
    parent = table.metadata.snapshot_by_id(base) if base is not None else None
    return update_snapshot_summaries(
        summary, parent.summary.additional_properties if parent and parent.summary else None
    )


def _reached_since(table: Table, built: _Built) -> set[str]:
    """Give the manifests of all snapshots that are not older than a commit."""
    since = built.snapshot.sequence_number or 0
    snapshots = [snapshot for snapshot in table.metadata.snapshots if (snapshot.sequence_number or 0) >= since]
    return {manifest.manifest_path for snapshot in snapshots for manifest in snapshot.manifests(table.io)}


def _delete(table: Table, paths: Sequence[str]) -> None:
    for path in paths:
        try:
            table.io.delete(path)
        except (OSError, LakehouseError) as error:
            logger.warning("%s is no longer needed and could not be removed: %s", path, error)

"""What a commit is made of: the manifests that it adds, keeps and writes anew, its manifest list and its summary.

Written for the table's present head and sent by `commit`. Rules that must not be bent:

- An hour is replaced only while its live files are those that its attempt was opened on: nobody else's rows are lost,
  and commits to other hours never get in the way.
- Files are rewritten only while they are live, all older files of their hour are those that were there when they were
  read, and no row of them was deleted since. Younger deletes of rows that equal others are no obstacle as long as the
  partition spec stays: they go on applying to the new files, whose data is as old as what was read.
- Every file is named in `Built.own_files` before it is written, so that a commit that certainly did not land can be
  removed.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pyiceberg.io import InputFile, OutputFile, OutputStream
from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.locations import LocationProvider
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Operation, Snapshot, Summary, update_snapshot_summaries

from lakehouse_pipeline.errors import CommitConflictError, LakehouseError, SafetyError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.deletes import DeleteIndex, unpartitioned
from lakehouse_pipeline.iceberg.event_time import ANY, EventTime
from lakehouse_pipeline.iceberg.manifest_files import ManifestKind, OpenManifest, codec_of, sealed_manifest_file
from lakehouse_pipeline.iceberg.manifest_lists import write_list
from lakehouse_pipeline.iceberg.manifests import (
    DATA,
    DELETED,
    EXISTING,
    POSITION_DELETES,
    LiveFile,
    digest,
    live_file,
    manifests_of,
    read_encoded,
    read_entries,
    refuse_straddling,
)
from lakehouse_pipeline.ledger.records import Attempt, Rewrite, Seal

logger = logging.getLogger(__name__)


class HoursLostError(CommitConflictError):
    """Some hours cannot be part of a commit; the others can, without them.

    Attributes:
        errors: by hour, why.
    """

    def __init__(self, errors: Mapping[HourWindow, CommitConflictError]) -> None:
        """Name them."""
        super().__init__("; ".join(str(error) for error in errors.values()))
        self.errors = errors


@dataclass(frozen=True)
class SealedHour:
    """An hour that is ready to be committed.

    Attributes:
        hour: the hour.
        attempt: its id.
        replaces: digest of the live files that the attempt was opened on.
        seal: the files that take their place.
        rewrites: what it is if it takes the place of files; None where it takes that of the hour.
        only: these files; of no meaning for an hour.
    """

    hour: HourWindow
    attempt: str
    replaces: str
    seal: Seal
    rewrites: Rewrite | None = None
    only: frozenset[str] = frozenset()

    @classmethod
    def of(cls, hour: HourWindow, attempt: Attempt, only: Collection[str] = ()) -> "SealedHour":
        """Take a sealed attempt out of its record."""
        if attempt.seal is None:
            raise SafetyError(f"attempt {attempt.id} of {hour} is not sealed")
        return cls(hour, attempt.id, attempt.replaces, attempt.seal, attempt.rewrites, frozenset(only))

    @property
    def as_of(self) -> int | None:
        """The sequence number of its files' data; None where it is the commit's."""
        return self.rewrites.as_of if self.rewrites else None


@dataclass(frozen=True)
class Regrouped:
    """Manifests whose live entries were written anew.

    Attributes:
        replaced: their paths.
        manifests: what takes their place.
    """

    replaced: frozenset[str]
    manifests: tuple[ManifestFile, ...]


@dataclass(frozen=True)
class Built:
    """A commit that is ready to be sent, and sent again.

    Attributes:
        base: what `main` has to stand on; None for no snapshot at all.
        snapshot: what it will stand on.
        removed: files that are live no more.
        own_files: what was written for this commit, or one that it took the place of, and is reached by no other.
        regrouped: manifests that it replaces by others of the same entries.
    """

    base: int | None
    snapshot: Snapshot
    removed: tuple[LiveFile, ...]
    own_files: tuple[str, ...]
    regrouped: tuple[Regrouped, ...] = ()


def head(table: Table) -> int | None:
    """Give the snapshot that `main` stands on; None for a table without one."""
    ref = table.metadata.refs.get(MAIN_BRANCH)
    return ref.snapshot_id if ref else None


def build_replacement(table: Table, hours: Sequence[SealedHour], event_time: str, batch: str) -> Built | None:
    """Write all that a commit of the hours on the table's head needs; None where it would change nothing.

    Args:
        table: as it is now.
        hours: what replaces what.
        event_time: the column that tells a row's hour.
        batch: names the commit's files; used once and never again.

    Raises:
        HoursLostError: some hours' live files are not those that their attempts were opened on.
        SafetyError: a seal is of another table, or files of earlier partition specs straddle the hours.
    """
    _check_seals(table, hours)
    rewritten = _Taken.by(hours).paths
    with writing_commit(table, batch) as writing:
        kept, removed, left = writing.without(hours, EventTime.of(table.metadata, event_time))
        refuse_straddling(file for file in removed if file.path not in rewritten)
        _check_unchanged(table, hours, removed, left)
        writing.check_far_deletes(hours, removed)
        added = [
            sealed_manifest_file(manifest, sealed.hour, sealed.seal.spec_id, writing.snapshot_id, sealed.as_of)
            for sealed in hours
            for manifest in sealed.seal.manifests
        ]
        if not added and not removed:
            return None
        return writing.built([*added, *kept], _summary(hours, removed, batch), removed)


def build_fence(table: Table, batch: str) -> Built:
    """Write a commit that changes nothing but what `main` stands on."""
    with writing_commit(table, batch) as writing:
        kept = manifests_of(table.metadata, table.io, writing.base)
        told = {"engine-name": "lakehouse_pipeline", "lakehouse.batch": batch, "lakehouse.fence": "true"}
        return writing.built(kept, Summary(Operation.APPEND, **told), ())


@contextmanager
def writing_commit(table: Table, batch: str) -> Iterator["CommitWriting"]:
    """Begin a commit on the table's head; if it does not come to one, remove what was written for it."""
    writing = CommitWriting(table, batch, head(table), table.metadata.new_snapshot_id())
    try:
        yield writing
    except BaseException:
        remove_own(table, writing.own_files)
        raise


@dataclass
class CommitWriting:
    """A commit that is being written; every file is named before it is there.

    Attributes:
        table: as it is now.
        batch: names the commit's files.
        base: what `main` stands on.
        snapshot_id: of the commit.
        own_files: that are there, or may be.
    """

    table: Table
    batch: str
    base: int | None
    snapshot_id: int
    own_files: list[str] = field(default_factory=list)

    def without(
        self, hours: Sequence[SealedHour], event_time: EventTime
    ) -> tuple[list[ManifestFile], list[LiveFile], list[LiveFile]]:
        """Give the head's manifests with what the hours replace marked DELETED, these files, and the hours' others."""
        ordinals = {sealed.hour.ordinal for sealed in hours}
        taken = _Taken.by(hours)
        kept: list[ManifestFile] = []
        removed: list[LiveFile] = []
        left: list[LiveFile] = []
        for manifest in manifests_of(self.table.metadata, self.table.io, self.base):
            if not (manifest.has_added_files() or manifest.has_existing_files()):
                continue  # all of it was deleted by an earlier snapshot
            if not event_time.in_manifest(manifest).meets(ordinals):
                kept.append(manifest)
                continue
            copy, gone, others = self._marked(manifest, event_time, taken)
            kept.append(copy)
            removed += gone
            left += others
        return kept, removed, left

    def _marked(
        self, manifest: ManifestFile, event_time: EventTime, taken: "_Taken"
    ) -> tuple[ManifestFile, list[LiveFile], list[LiveFile]]:
        """Copy a manifest with what the hours replace marked DELETED; the manifest itself where it has none of that."""
        span_of = event_time.in_entries_of(manifest.partition_spec_id)
        kind = ManifestKind.of(self.table.metadata, manifest)
        written_in, entries = read_encoded(self.table.io, manifest)
        as_it_is = kind.encodes_as(written_in)
        bodies: list[bytes] = []
        gone: list[LiveFile] = []
        left: list[LiveFile] = []
        for entry, body in entries:
            if entry["status"] == DELETED:
                continue
            file = live_file(entry, span_of(entry), manifest.partition_spec_id)
            goes = taken.has(file)
            (gone if goes else left).append(file)
            marks = {"status": DELETED, "snapshot_id": self.snapshot_id} if goes else {"status": EXISTING}
            marked = {**entry, **marks}
            bodies.append(kind.marked(body, marked) if as_it_is else kind.encode(marked))
        if not gone:
            return manifest, [], left
        copy = OpenManifest(kind, codec_of(self.table.properties))
        for body in bodies:
            copy.add(body)
        copies = len(self.own_files)
        with self.own(manifest_copy_url(self.table.location_provider(), self.batch, copies)) as path:
            return copy.put(self.table.io, path, self.snapshot_id), gone, left

    def check_far_deletes(self, hours: Sequence[SealedHour], removed: Sequence[LiveFile]) -> None:
        """Hold deletes of more than one hour that are removed against the rule that they apply to no file any more.

        Raises:
            HoursLostError: one may.
        """
        gone = {file.path for file in removed}
        far = {file.path: file for file in removed if file.content != DATA and file.hour is None}
        oldest = max((file.sequence_number for file in far.values()), default=-1)
        index = DeleteIndex.of(far.values(), unpartitioned(self.table.metadata.specs().values()))
        for manifest in manifests_of(self.table.metadata, self.table.io, self.base) if far else ():
            if manifest.content != ManifestContent.DATA or (manifest.min_sequence_number or 0) > oldest:
                continue
            for entry in read_entries(self.table.io, manifest):
                file = live_file(entry, ANY, manifest.partition_spec_id)
                if entry["status"] == DELETED or file.path in gone:
                    continue
                for delete in index.applying_to(file):
                    owner = next(sealed.hour for sealed in hours if delete.path in sealed.only)
                    raise HoursLostError({owner: CommitConflictError(f"{delete.path} may apply to {file.path} again")})

    def built(self, manifests: Sequence[ManifestFile], summary: Summary, removed: Sequence[LiveFile]) -> Built:
        """Write the manifest list, and give what is to be sent."""
        metadata = self.table.metadata
        sequence_number = metadata.next_sequence_number()
        with self.own(manifest_list_url(self.table.location_provider(), self.batch)) as path:
            write_list(
                _NewFile(self.table.io.new_output(path)),
                manifests,
                snapshot_id=self.snapshot_id,
                parent=self.base,
                sequence_number=sequence_number,
                codec=codec_of(self.table.properties),
            )
        parent = metadata.snapshot_by_id(self.base) if self.base is not None else None
        before = parent.summary.additional_properties if parent and parent.summary else None
        snapshot = Snapshot(
            snapshot_id=self.snapshot_id,
            parent_snapshot_id=self.base,
            sequence_number=sequence_number,
            timestamp_ms=max(int(datetime.now(UTC).timestamp() * 1000), metadata.last_updated_ms),
            manifest_list=path,
            summary=_with_totals(summary, before),
            schema_id=metadata.current_schema_id,
        )
        return Built(self.base, snapshot, tuple(removed), tuple(self.own_files))

    @contextmanager
    def own(self, path: str) -> Iterator[str]:
        """Name a file of this commit alone while it is written."""
        self.own_files.append(path)
        try:
            yield path
        except FileExistsError:
            self.own_files.remove(path)  # somebody else's, who may have committed it
            raise


@dataclass(frozen=True)
class _Taken:
    """Which live files hours take the place of.

    Attributes:
        hours: all of theirs.
        paths: these.
    """

    hours: frozenset[int]
    paths: frozenset[str]

    @classmethod
    def by(cls, hours: Sequence[SealedHour]) -> "_Taken":
        whole = frozenset(sealed.hour.ordinal for sealed in hours if not sealed.rewrites)
        return cls(whole, frozenset[str]().union(*(sealed.only for sealed in hours)))

    def has(self, file: LiveFile) -> bool:
        return file.path in self.paths or file.span.meets(self.hours)


class _NewFile(OutputFile):
    """A file that must not be there yet: PyIceberg's writer of manifest lists would overwrite a committed one."""

    def __init__(self, file: OutputFile) -> None:
        super().__init__(file.location)
        self._file = file

    def __len__(self) -> int:
        return len(self._file)

    def exists(self) -> bool:
        return self._file.exists()

    def to_input_file(self) -> InputFile:
        return self._file.to_input_file()

    def create(self, overwrite: bool = False) -> OutputStream:  # noqa: ARG002, FBT001, FBT002  # PyIceberg's signature
        return self._file.create(overwrite=False)


def _with_totals(summary: Summary, before: Mapping[str, str] | None) -> Summary:
    """Add what the table has then; PyIceberg knows no `replace`, and counts it as the `overwrite` that it is."""
    if summary.operation is not Operation.REPLACE:
        return update_snapshot_summaries(summary, before)
    counted = update_snapshot_summaries(Summary(Operation.OVERWRITE, **summary.additional_properties), before)
    return Summary(Operation.REPLACE, **counted.additional_properties)


def manifest_copy_url(provider: LocationProvider, batch: str, place: int) -> str:
    """Give the place of one of the manifests that a commit writes anew, counted from 0."""
    return provider.new_metadata_location(f"{batch}-m{place}.avro")


def manifest_list_url(provider: LocationProvider, batch: str) -> str:
    """Give the place of a commit's manifest list."""
    return provider.new_metadata_location(f"snap-{batch}.avro")


def _check_seals(table: Table, hours: Sequence[SealedHour]) -> None:
    for sealed in hours:
        if sealed.seal.table_uuid != str(table.metadata.table_uuid):
            raise SafetyError(f"attempt {sealed.attempt} of {sealed.hour} was written for another table of this name")
        if sealed.seal.spec_id not in table.metadata.specs():
            raise SafetyError(
                f"attempt {sealed.attempt} of {sealed.hour} was written for a partition spec that is gone"
            )


def _check_unchanged(
    table: Table, hours: Sequence[SealedHour], removed: Sequence[LiveFile], left: Sequence[LiveFile]
) -> None:
    """Hold what the hours replace against what their attempts were opened on.

    State, not history, is compared: it costs no walk over the snapshots in between, and a change that was undone
    is no change.
    """
    owners = {path: sealed.hour.ordinal for sealed in hours for path in sealed.only}
    live: dict[int | None, list[LiveFile]] = {sealed.hour.ordinal: [] for sealed in hours}
    for file in removed:
        live.get(owners.get(file.path, file.hour), []).append(file)
    lost = {}
    for sealed in hours:
        mine = live[sealed.hour.ordinal]
        why = _unlike(sealed, mine) if digest(file.path for file in mine) != sealed.replaces else ""
        if sealed.rewrites and not why:
            # What another hour of the commit removes was there, too.
            others = [file for file in (*left, *removed) if file.path not in sealed.only]
            near = [file for file in others if file.span.meets((sealed.hour.ordinal,))]
            why = _changed_since(sealed, sealed.rewrites, mine, near, unpartitioned(table.metadata.specs().values()))
        if why:
            said = f"{sealed.hour} was changed by somebody else after attempt {sealed.attempt} was opened ({why})"
            lost[sealed.hour] = CommitConflictError(
                f"{said}: the attempt is superseded. Run the hour again to replace it"
            )
    if lost:
        raise HoursLostError(lost)


def _unlike(sealed: SealedHour, found: Sequence[LiveFile]) -> str:
    if sealed.rewrites:
        return f"{len(sealed.only) - len(found)} of the {len(sealed.only)} files that it rewrites are live no more"
    return f"it now has {len(found)} live files"


def _changed_since(
    sealed: SealedHour,
    rewrite: Rewrite,
    mine: Sequence[LiveFile],
    near: Sequence[LiveFile],
    everywhere: frozenset[int],
) -> str:
    """Say whether rows of the rewritten files, or of those beside them, may be others than they were; empty if not.

    Files that are older than what was read and were not live then may be back, after a rollback.
    """
    if digest(file.path for file in (*mine, *near) if file.sequence_number <= rewrite.as_of) != rewrite.live:
        return "it has other files of that age than it had"
    younger = [file for file in near if file.content != DATA and file.sequence_number > rewrite.as_of]
    positions = [file for file in younger if file.content == POSITION_DELETES]
    if any(not file.refers_to or file.refers_to in sealed.only for file in positions):
        return "rows of the files that it rewrites may have been deleted"
    # Deletes of rows that equal others go on applying, but only within their own partition spec.
    respecced = any(file.content == DATA and file.spec_id != sealed.seal.spec_id for file in mine)
    if respecced and any(file.spec_id not in everywhere for file in younger):
        return "rows of files of an earlier partition spec may have been deleted"
    return ""


def _summary(hours: Sequence[SealedHour], removed: Sequence[LiveFile], batch: str) -> Summary:
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
    same_rows = all(sealed.rewrites and sealed.rewrites.same_rows for sealed in hours)
    replaces = Operation.REPLACE if same_rows else Operation.OVERWRITE
    return Summary(
        replaces if removed else Operation.APPEND,
        **{name: str(figure) for name, figure in figures.items() if figure},
        **{
            "engine-name": "lakehouse_pipeline",
            "lakehouse.batch": batch,
            "lakehouse.hours": str(len(hours)),
            "lakehouse.digest": digest(f"{sealed.hour} {sealed.attempt}" for sealed in hours),
        },
    )


def remove_own(table: Table, paths: Sequence[str]) -> None:
    """Remove files of a commit that did not land and cannot; one that cannot be removed now is left."""
    for path in paths:
        try:
            table.io.delete(path)
        except (OSError, LakehouseError) as error:
            logger.warning("%s is no longer needed and could not be removed: %s", path, error)

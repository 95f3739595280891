"""A commit as it is written: manifests that are kept or written anew, and the manifest list.

Every file is named in `CommitWriting.own_files`, and so in `Built`, before it is written: a commit that certainly did
not land can be removed. What takes the place of what, and whether it may, is said in `replacement`.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pyiceberg.io import InputFile, OutputFile, OutputStream
from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.locations import LocationProvider
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Operation, Snapshot, Summary, update_snapshot_summaries

from lakehouse_pipeline.errors import CommitConflictError, LakehouseError
from lakehouse_pipeline.iceberg.deletes import DeleteIndex, unpartitioned
from lakehouse_pipeline.iceberg.event_time import ANY, EventTime
from lakehouse_pipeline.iceberg.manifest_files import ManifestKind, OpenManifest, codec_of
from lakehouse_pipeline.iceberg.manifest_lists import write_list
from lakehouse_pipeline.iceberg.manifests import (
    DATA,
    DELETED,
    EXISTING,
    LiveFile,
    live_file,
    manifests_of,
    read_encoded,
    read_entries,
)
from lakehouse_pipeline.iceberg.sealed_hours import HoursLostError, SealedHour, Taken

logger = logging.getLogger(__name__)


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
        table_uuid: the table that it was built for; one that was made again under its name is another.
        regrouped: manifests that it replaces by others of the same entries.
    """

    base: int | None
    snapshot: Snapshot
    removed: tuple[LiveFile, ...]
    own_files: tuple[str, ...]
    table_uuid: str
    regrouped: tuple[Regrouped, ...] = ()


def head(table: Table) -> int | None:
    """Give the snapshot that `main` stands on; None for a table without one."""
    ref = table.metadata.refs.get(MAIN_BRANCH)
    return ref.snapshot_id if ref else None


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
        taken = Taken.by(hours)
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
        self, manifest: ManifestFile, event_time: EventTime, taken: "Taken"
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
        return Built(self.base, snapshot, tuple(removed), tuple(self.own_files), str(metadata.table_uuid))

    @contextmanager
    def own(self, path: str) -> Iterator[str]:
        """Name a file of this commit alone while it is written."""
        self.own_files.append(path)
        try:
            yield path
        except FileExistsError:
            self.own_files.remove(path)  # somebody else's, who may have committed it
            raise


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


def is_manifest_list(url: str) -> bool:
    """Tell a commit's list from its manifests, by its name."""
    return url.rpartition("/")[2].startswith("snap-")


def remove_own(table: Table, paths: Sequence[str]) -> None:
    """Remove files of a commit that did not land and cannot; one that cannot be removed now is left."""
    for path in paths:
        try:
            table.io.delete(path)
        except (OSError, LakehouseError) as error:
            logger.warning("%s is no longer needed and could not be removed: %s", path, error)

"""Manifests written anew: the same live entries, ordered by partition, in fewer files that each are of few hours.

Which of the head's manifests are worth it is up to the caller. Rules that must not be bent:

- An entry stays as it is but for its status: EXISTING, with its own snapshot and sequence numbers.
- What was written stays good as long as the manifests that it replaces are all in the head: a rival's commit then costs
  a manifest list, and nothing else.

Entries are sorted on disk. In memory there are one manifest that is read, one that is written, and `CACHE_KIB`, however
many entries there are.
"""

import math
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from pyiceberg.avro.codecs import AvroCompressionCodec
from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation, Summary

from lakehouse_pipeline import events
from lakehouse_pipeline.errors import SafetyError, TransientError
from lakehouse_pipeline.iceberg.commit_writing import (
    Built,
    CommitWriting,
    Regrouped,
    head,
    manifest_copy_url,
    writing_commit,
)
from lakehouse_pipeline.iceberg.event_time import Entry, EventTime, HourSpan
from lakehouse_pipeline.iceberg.manifest_files import (
    BLOCK_BYTES,
    ManifestKind,
    OpenManifest,
    codec_of,
    header_bytes,
    listed_anew,
    manifest_bytes,
)
from lakehouse_pipeline.iceberg.manifests import DELETED, EXISTING, manifests_of, read_entries

MOST = 1.5  # of the target: a manifest is closed within an hour only beyond this, so that most hours stay whole
CACHE_KIB = 16 * 1024  # of the database that sorts


@dataclass(frozen=True)
class HeadManifest:
    """A manifest of the head, as the manifest list tells of it.

    Attributes:
        path: where it lies.
        spec_id: the partition spec of its files.
        deletes: whether it is of delete files.
        span: the hours that its files can be of.
        bytes: on storage.
        header: of these, what a manifest of no entries has, about.
        target: bytes that one of its kind is to have.
        live: entries that are not marked DELETED.
        dead: entries that are.
    """

    path: str
    spec_id: int
    deletes: bool
    span: HourSpan
    bytes: int
    header: int
    target: int
    live: int
    dead: int = 0

    @property
    def live_bytes(self) -> float:
        """Bytes of its live entries, about."""
        return max(0, self.bytes - self.header) * self.live / max(1, self.live + self.dead)


Choice = Callable[[Sequence[HeadManifest]], Sequence[Collection[str]]]


def head_manifests(table: Table, event_time: str) -> list[HeadManifest]:
    """List the manifests of the head that have live entries.

    Args:
        table: as it is now.
        event_time: the column that tells a row's hour.
    """
    return _Head(table, event_time).told()


def build_regrouping(table: Table, event_time: str, choose: Choice, batch: str, earlier: Built | None) -> Built | None:
    """Write all that a commit of regrouped manifests on the table's head needs; None where nothing is worth it.

    Args:
        table: as it is now.
        event_time: the column that tells a row's hour.
        choose: gives the paths of those manifests whose entries are to be written anew together; those of each group
            are of one partition spec, and of data or of deletes.
        batch: names the commit's files; used once and never again.
        earlier: the same commit as it was sent before, and did not land.

    Raises:
        SafetyError: a manifest has other entries than the manifest list says.
        TransientError: the entries do not fit on the local disk.
    """
    now = _Head(table, event_time)
    paths = {manifest.manifest_path for manifest in now.manifests}
    still = [each for each in (earlier.regrouped if earlier else ()) if each.replaced <= paths]
    settled = frozenset[str]().union(*(each.replaced for each in still))
    with writing_commit(table, batch) as writing:
        chosen = choose([each for each in now.told() if each.path not in settled])
        anew = [_Group(writing, now, frozenset(group)).written() for group in chosen]
        if not still and not anew:
            return None
        regrouped = (*still, *anew)
        gone = settled.union(*(each.replaced for each in anew))
        created = [listed_anew(each, writing.snapshot_id) for group in regrouped for each in group.manifests]
        kept = [each for each in now.manifests if each.manifest_path not in gone and _live(each)]
        summary = _summary(batch, created, kept, replaced=len(now.manifests) - len(kept))
        built = writing.built([*created, *kept], summary, ())
    taken_over = (manifest.manifest_path for group in still for manifest in group.manifests)
    return replace(built, own_files=(*taken_over, *built.own_files), regrouped=regrouped)


def _summary(batch: str, created: Sequence[ManifestFile], kept: Sequence[ManifestFile], replaced: int) -> Summary:
    figures = {  # as BaseRewriteManifests of Apache Iceberg names them
        "manifests-created": len(created),
        "manifests-kept": len(kept),
        "manifests-replaced": replaced,
        "entries-processed": sum(map(_live, created)),
    }
    told = {name: str(figure) for name, figure in figures.items()}
    return Summary(Operation.REPLACE, **told, **{"engine-name": "lakehouse_pipeline", "lakehouse.batch": batch})


def _live(manifest: ManifestFile) -> int:
    """Count a manifest's live entries; those that version 1 did not count are one, at least."""
    counts = (manifest.added_files_count, manifest.existing_files_count)
    return sum(count or 0 for count in counts) or int(None in counts)


class _Head:
    """The head of a table, and what is written like."""

    def __init__(self, table: Table, event_time: str) -> None:
        self.metadata: TableMetadata = table.metadata
        self.event_time = EventTime.of(table.metadata, event_time)
        self.manifests = manifests_of(table.metadata, table.io, head(table))
        self.codec: AvroCompressionCodec = codec_of(table.properties)
        self._target = manifest_bytes(table.properties)
        self._kinds: dict[tuple[int, ManifestContent], tuple[ManifestKind, int]] = {}

    def told(self) -> list[HeadManifest]:
        return [self._told(manifest) for manifest in self.manifests if _live(manifest)]

    def _told(self, manifest: ManifestFile) -> HeadManifest:
        header = self.kind(manifest)[1]
        return HeadManifest(
            path=manifest.manifest_path,
            spec_id=manifest.partition_spec_id,
            deletes=manifest.content == ManifestContent.DELETES,
            span=self.event_time.in_manifest(manifest),
            bytes=manifest.manifest_length,
            header=header,
            target=self.target(header),
            live=_live(manifest),
            dead=manifest.deleted_files_count or 0,
        )

    def target(self, header: int) -> int:
        """Give the bytes that a manifest is to have: of wide tables, at least as many of entries as of its header."""
        return max(self._target, 2 * header)

    def kind(self, manifest: ManifestFile) -> tuple[ManifestKind, int]:
        """Give the kind of a manifest, and the length of its header."""
        key = (manifest.partition_spec_id, manifest.content)
        if key not in self._kinds:
            kind = ManifestKind.of(self.metadata, manifest)
            self._kinds[key] = kind, header_bytes(kind, self.codec)
        return self._kinds[key]


class _Group:
    """Manifests of one kind, whose entries are written anew together."""

    def __init__(self, writing: CommitWriting, head_now: _Head, paths: frozenset[str]) -> None:
        self._writing, self._head, self._paths = writing, head_now, paths
        self._manifests = [each for each in head_now.manifests if each.manifest_path in paths]
        self._kind, header = head_now.kind(self._manifests[0])
        self._target = head_now.target(header)

    def written(self) -> Regrouped:
        with _Sorted(self._kind) as entries:
            span_of = self._head.event_time.in_partitions_of(self._kind.spec.spec_id)
            for manifest in self._manifests:
                found = entries.add(self._live_entries(manifest), span_of)
                self._check(manifest, found)
            return Regrouped(self._paths, tuple(map(self._put, self._packed(entries))))

    def _live_entries(self, manifest: ManifestFile) -> Iterator[Entry]:
        for entry in read_entries(self._writing.table.io, manifest):
            if entry["status"] != DELETED:
                # Files of format version 1 have no content: they are data.
                entry["data_file"].setdefault("content", 0)
                yield {**entry, "status": EXISTING}

    def _check(self, manifest: ManifestFile, found: int) -> None:
        counts = (manifest.added_files_count, manifest.existing_files_count)
        if None not in counts and found != _live(manifest):
            raise SafetyError(
                f"{manifest.manifest_path} has {found} live entries, and the manifest list says {_live(manifest)}"
            )

    def _packed(self, entries: "_Sorted") -> Iterator[OpenManifest]:
        """Fill manifests to the target, and further to the end of the hour where that is not far."""
        block = min(BLOCK_BYTES, self._target // 8)
        opened, last = None, math.nan
        for hour, body in entries:
            if opened is not None and opened.length >= self._target:
                ends = hour != last or math.isinf(hour)
                if ends or opened.length >= MOST * self._target:
                    yield opened
                    opened = None
            opened = opened or OpenManifest(self._kind, self._head.codec, block)
            opened.add(body)
            last = hour
        if opened is not None:
            yield opened

    def _put(self, opened: OpenManifest) -> ManifestFile:
        writing, table = self._writing, self._writing.table
        url = manifest_copy_url(table.location_provider(), writing.batch, len(writing.own_files))
        with writing.own(url) as path:
            manifest = opened.put(table.io, path, writing.snapshot_id)
        name = ".".join(table.name())
        events.emit("manifests.written", name, path=path, entries=_live(manifest), bytes=manifest.manifest_length)
        return manifest


class _Sorted:
    """Entries in the order of their hours, of their other partition values, and of their paths: sorted on disk."""

    def __init__(self, kind: ManifestKind) -> None:
        self._kind = kind
        self._folder = TemporaryDirectory(prefix="lakehouse-")

    def __enter__(self) -> Self:
        self._database = sqlite3.connect(Path(self._folder.name) / "entries.db", isolation_level=None)
        # It is thrown away in any case. Sorts go to disk, too.
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE", f"cache_size = -{CACHE_KIB}"):
            self._database.execute(f"PRAGMA {pragma}")
        values = "".join(f"v{place}, " for place in range(len(self._kind.spec.fields)))
        self._columns = f"hour, {values}path"
        self._database.execute(f"CREATE TABLE entries ({self._columns}, body)")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._folder.cleanup()

    def add(self, entries: Iterable[Entry], span_of: Callable[[Entry], HourSpan]) -> int:
        """Take entries in, and count them.

        Raises:
            TransientError: the disk does not take them.
        """
        marks = ", ".join("?" * (len(self._kind.spec.fields) + 3))
        rows = (self._row(entry, span_of(entry)) for entry in entries)
        try:
            self._database.execute("BEGIN")
            added = self._database.executemany(f"INSERT INTO entries VALUES ({marks})", rows).rowcount
            self._database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise _refused(self._folder.name, error) from error
        return max(0, added)

    def _row(self, entry: Entry, span: HourSpan) -> tuple[Any, ...]:
        data_file = entry["data_file"]
        return (
            span.low,
            *map(_sortable, data_file["partition"].values()),
            data_file["file_path"],
            self._kind.encode(entry),
        )

    def __iter__(self) -> Iterator[tuple[float, bytes]]:
        """Give the entries, encoded, each with the first hour that its partition can have.

        Raises:
            TransientError: the disk does not take what is sorted.
        """
        try:
            yield from self._database.execute(f"SELECT hour, body FROM entries ORDER BY {self._columns}")
        except sqlite3.OperationalError as error:
            raise _refused(self._folder.name, error) from error


def _sortable(value: Any) -> Any:
    """Give what SQLite keeps of a partition value: only that equal ones come together matters."""
    return value if isinstance(value, (int, float, str, bytes)) or value is None else str(value)


def _refused(folder: str, error: sqlite3.Error) -> TransientError:
    return TransientError(f"the manifests' entries could not be sorted in {folder}: {error}; give it more room")

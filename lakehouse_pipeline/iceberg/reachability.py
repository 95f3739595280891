"""What the snapshots, branches, tags and logs of a table reach, and what lies in its folders beside that.

Nothing is removed here. `ReachedFiles` keeps paths on disk: a table has as many files as it likes.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self

from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot

from lakehouse_pipeline.errors import CommitConflictError
from lakehouse_pipeline.iceberg.manifests import live_paths
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import ObjectInfo
from lakehouse_pipeline.object_store.places import SPELLINGS
from lakehouse_pipeline.object_store.side_by_side import side_by_side

METADATA_FILE = ".metadata.json"  # written by the catalog, which alone knows which of them it still needs
AT_ONCE = 8  # manifest lists that are read side by side, each with its manifests
CACHE_KB = 16 * 1024  # of the database, and as much again of each sort
ROWS_TOGETHER = 10_000  # of the database, in one transaction

# By number what a path is: the first three as manifests number the content of files. What names others stands behind
# them, so that files which are removed in this order can be found again from those that are left.
KINDS = ("data", "position deletes", "equality deletes", "statistics", "manifest", "manifest list", "metadata")
_STATISTICS, _MANIFEST, _MANIFEST_LIST, _METADATA = range(3, len(KINDS))


def reached(table: Table) -> set[str]:
    """Name the manifest lists, manifests, data and delete files of all snapshots, and the statistics beside them."""
    metadata = table.metadata
    found, seen = set(statistics_of(metadata)), set[str]()
    for snapshot in metadata.snapshots:
        found.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in seen:
                seen.add(manifest.manifest_path)
                found.update(path for path, _, _ in live_paths(table.io, manifest.manifest_path))
    return found | seen


def statistics_of(metadata: TableMetadata) -> Iterator[str]:
    """Name the Puffin and partition statistics files that metadata name, of whatever snapshot."""
    return (file.statistics_path for file in chain(metadata.statistics, metadata.partition_statistics))


def strays(table: Table, files: LakehouseFileIO) -> Iterator[ObjectInfo]:
    """Go through the objects in a table's data and metadata folders that no snapshot reaches.

    What an attempt at work has written is among them, so a stray is nothing to remove by itself. The catalog's own
    `.metadata.json` files are not.
    """
    known, locations = {SPELLINGS.name(path) for path in reached(table)}, table.location_provider()
    for folder in (locations.data_path, locations.metadata_path):
        for item in files.list_objects(f"{folder}/"):
            if SPELLINGS.name(item.url) not in known and not item.url.endswith(METADATA_FILE):
                yield item


_TABLES = f"""
CREATE TABLE files (owner INTEGER, path TEXT, name TEXT, kind INTEGER, bytes INTEGER);
CREATE TABLE owners (id INTEGER PRIMARY KEY, path TEXT UNIQUE, name TEXT, bytes INTEGER);
CREATE TABLE lists (list TEXT, owner INTEGER, UNIQUE (list, owner));
CREATE TABLE heads (round INTEGER, path TEXT, name TEXT, kind INTEGER, bytes INTEGER);
CREATE TABLE rounds (round INTEGER, owner INTEGER, UNIQUE (round, owner));
CREATE VIEW reached AS
    SELECT round, path, name, kind, bytes FROM heads
    UNION ALL SELECT round, path, name, {_MANIFEST}, bytes FROM rounds JOIN owners ON rounds.owner = owners.id
    UNION ALL SELECT round, files.path, name, kind, bytes FROM rounds JOIN files ON rounds.owner = files.owner;
"""


@dataclass(frozen=True)
class ReachedFile:
    """A path that is reached.

    Attributes:
        path: as metadata have it.
        kind: one of `KINDS`.
        bytes: None where nothing says.
    """

    path: str
    kind: str
    bytes: int | None


class ReachedFiles:
    """The paths that a table reaches at several moments, on disk; safe to share between threads.

    A manifest and a manifest list never change, so that each is read once, at whatever moments it is reached.

    Attributes:
        database: with a view `reached` of `round`, `path` and `name`, its one spelling (`places.SPELLINGS`), in which a
            path stands as often as it is reached; others put their own tables beside it.
        lock: held around whatever is asked of the database by others.
    """

    def __init__(self, folder: Path) -> None:
        """Begin a database in a folder, which is its caller's to remove."""
        self.database = sqlite3.connect(folder / "reached.db", check_same_thread=False, isolation_level=None)
        self.lock = threading.RLock()
        # It is thrown away in any case: nothing has to outlive the process. Sorts go to disk, too.
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE", f"cache_size = -{CACHE_KB}"):
            self.database.execute(f"PRAGMA {pragma}")
        self.database.executescript(_TABLES)
        self._rounds = 0
        self._told = dict.fromkeys(("heads", "owners", "files"), 0)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the database."""
        self.database.close()

    def collect(self, table: Table, *, in_part: bool = False) -> int:
        """Add all that a table's metadata reach, as they were loaded; gives the number of this round, from 0 on.

        Every snapshot counts, whatever branch or tag it is of, or none. So do the metadata file itself, those of its
        log, and statistics.

        Args:
            table: as it was loaded.
            in_part: of manifests and lists that are gone, as after half a removal, what they named is left out. Such
                a round comes after all others: these would take the same manifests for empty.

        Raises:
            CommitConflictError: a manifest or a list is gone: the metadata are no longer the table's. After this and
                any other error nothing here is to be relied on.
            TransientError: the store did not answer.
        """
        metadata, place = table.metadata, self._rounds
        self._rounds += 1
        lists = [snapshot.manifest_list for snapshot in metadata.snapshots]
        with self._writing():
            self.database.executemany(
                "INSERT INTO heads VALUES (?, ?, ?, ?, ?)",
                ((place, path, SPELLINGS.name(path), *told) for path, *told in _heads(table)),
            )
        unread = [each for each in metadata.snapshots if not self._is_listed(each.manifest_list)]
        forgiven = (FileNotFoundError,) if in_part else ()

        def read(snapshot: Snapshot) -> None:
            with suppress(*forgiven):
                self._read_list(table.io, snapshot, forgiven)

        try:
            side_by_side(read, unread, AT_ONCE)
        except FileNotFoundError as error:
            raise CommitConflictError(
                f"{'.'.join(table.name())}: {error.filename or error} is gone, which the table reaches: somebody else "
                "expires snapshots just now, or it is broken. Nothing was removed; try again"
            ) from None
        with self._writing():
            self.database.executemany(
                "INSERT OR IGNORE INTO rounds SELECT ?, owner FROM lists WHERE list = ?",
                ((place, path) for path in lists),
            )
        return place

    def added(self) -> Iterator[str]:
        """Go through all paths that were read since this was last gone through; some are told more than once."""
        for table, told in self._told.items():
            ((last,),) = self._rows(f"SELECT coalesce(max(rowid), 0) FROM {table}", ())
            rows = self._rows(f"SELECT path FROM {table} WHERE rowid > ? AND rowid <= ?", (told, last))
            yield from (path for (path,) in rows)
            self._told[table] = last

    def gone(self, before: int, after: int) -> Iterator[ReachedFile]:
        """Go through what a round has reached and another has not, however spelled, in the order of `KINDS`."""
        yield from (
            ReachedFile(path, KINDS[kind], size)
            for path, kind, size in self._rows(
                "SELECT min(path), min(kind), max(bytes) FROM reached WHERE round = ?"
                " AND name NOT IN (SELECT name FROM reached WHERE round = ?) GROUP BY name ORDER BY 2",
                (before, after),
            )
        )

    def _rows(self, query: str, told: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
        with self.lock:
            rows = self.database.execute(query, told)
        while True:
            with self.lock:
                some = rows.fetchmany(ROWS_TOGETHER)
            if not some:
                return
            yield from some

    def _is_listed(self, path: str) -> bool:
        with self.lock:
            return bool(self.database.execute("SELECT 1 FROM lists WHERE list = ? LIMIT 1", (path,)).fetchall())

    def _read_list(self, io: FileIO, snapshot: Snapshot, forgiven: tuple[type[OSError], ...]) -> None:
        """Read the manifests that a list names, and that were not read before."""
        manifests = snapshot.manifests(io)
        for manifest in manifests:
            with self._writing():
                told = self.database.execute(
                    "INSERT OR IGNORE INTO owners (path, name, bytes) VALUES (?, ?, ?) RETURNING id",
                    (manifest.manifest_path, SPELLINGS.name(manifest.manifest_path), manifest.manifest_length),
                ).fetchall()
            if told:
                with suppress(*forgiven):
                    self._read_manifest(io, manifest, told[0][0])
        with self._writing():
            self.database.executemany(
                "INSERT OR IGNORE INTO lists SELECT ?, id FROM owners WHERE path = ?",
                ((snapshot.manifest_list, each.manifest_path) for each in manifests),
            )

    def _read_manifest(self, io: FileIO, manifest: ManifestFile, owner: int) -> None:
        rows = ((owner, path, SPELLINGS.name(path), *told) for path, *told in live_paths(io, manifest.manifest_path))
        while some := list(islice(rows, ROWS_TOGETHER)):
            with self._writing():
                self.database.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?)", some)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self.lock:
            self.database.execute("BEGIN")
            yield
            self.database.execute("COMMIT")


def _heads(table: Table) -> Iterator[tuple[str, int, int | None]]:
    """Name what metadata name by themselves, and what it is."""
    metadata = table.metadata
    yield table.metadata_location, _METADATA, None
    yield from ((entry.metadata_file, _METADATA, None) for entry in metadata.metadata_log)
    yield from ((snapshot.manifest_list, _MANIFEST_LIST, None) for snapshot in metadata.snapshots)
    for file in chain(metadata.statistics, metadata.partition_statistics):
        yield file.statistics_path, _STATISTICS, file.file_size_in_bytes

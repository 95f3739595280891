"""The audit of a table's folders: what lies there, and neither a snapshot nor the ledger knows of.

It looks, and removes nothing. The order makes it safe: what is reached is collected before the listing and again after
it, so that a file which was committed meanwhile is met either way; the ledger is asked before the table is loaded
again, since an attempt that is in it no more is in the table by then. A file that is older than any writer may leave
its own lying is then nobody's.

Paths are kept on disk (`ReachedFiles`), and joined there: memory does not grow with the table.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.errors import SafetyError
from lakehouse_pipeline.iceberg.folders import check_alone, check_collects, folders_of, uuids_in, visible_fields
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.reachability import METADATA_FILE, ReachedFiles
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.ledger.records import ULID
from lakehouse_pipeline.maintenance.lease import Held
from lakehouse_pipeline.maintenance.listing import list_side_by_side, read_list
from lakehouse_pipeline.object_store.objects import ObjectInfo, OpenUpload
from lakehouse_pipeline.object_store.places import Aliases, names_in
from lakehouse_pipeline.object_store.side_by_side import side_by_side

SHOWN = 5
ASKED_TOGETHER = 1000  # files that a list does not have
HEADS_AT_ONCE = 16
VERSION_HINT = "version-hint.text"  # a Hadoop catalog's, of which metadata say nothing
_ATTEMPT = re.compile(rf"(?<![0-9A-Za-z]){ULID}(?![0-9A-Za-z])")
_TABLES = """
CREATE TABLE listed (place TEXT, path TEXT, url TEXT, size INTEGER, modified REAL);
CREATE TABLE known (place TEXT, path TEXT, url TEXT);
CREATE TABLE orphans (id INTEGER PRIMARY KEY, url TEXT, size INTEGER, modified REAL);
"""
PrefixMismatch = Literal["error", "ignore", "delete"]


@dataclass(frozen=True)
class SweepRules:
    """What is an orphan, and when a sweep is refused.

    Attributes:
        older_than: orphans are at least so old, by the store's clock.
        prefix_mismatch: what becomes of a file that a snapshot reaches by another scheme or bucket: nothing is swept at
            all, it is kept, or it is an orphan.
        aliases: schemes and buckets that mean the same.
        max_files: a sweep that would take more is refused.
        max_share: the same for its share of the bytes that were listed.
        former: uuids of tables that are no more and had their files in the same folders.
        listed: a list of what lies in the folders, such as an S3 Inventory (see `read_list`); without it they are.
        moment: the time that ages are counted to; None is the store's own.
    """

    older_than: timedelta
    prefix_mismatch: PrefixMismatch = "error"
    aliases: Aliases = field(default_factory=Aliases)
    max_files: int = 1_000_000
    max_share: float = 1.0
    former: frozenset[str] = frozenset()
    listed: str = ""
    moment: datetime | None = None

    @classmethod
    def of(cls, settings: MaintenanceSettings) -> "SweepRules":
        """Take a lakehouse's."""
        return cls(settings.orphans_after, max_files=settings.sweep_max_files, max_share=settings.sweep_max_share)


@dataclass(frozen=True)
class Amount:
    """Some files.

    Attributes:
        files: how many.
        bytes: of them.
    """

    files: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Orphan:
    """A file that nobody knows of.

    Attributes:
        url: as it was listed.
        size: bytes.
        modified: seconds since 1970, by the store's clock.
    """

    url: str
    size: int
    modified: float


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        table: its identifier.
        as_of: the time that ages were counted to, by the store's clock.
        folders: that were listed.
        listed: all that lies there, but for hidden folders and files.
        orphans: of it.
        kept: the rest of it, by the reason.
        uploads: multipart uploads that nobody goes on with.
        uploads_kept: those that somebody may.
        examples: some orphans.
        refused: why they may not be swept; empty if they may.
    """

    table: str
    as_of: datetime
    folders: tuple[str, ...]
    listed: Amount
    orphans: Amount
    kept: Mapping[str, Amount]
    uploads: tuple[OpenUpload, ...] = ()
    uploads_kept: int = 0
    examples: tuple[str, ...] = ()
    refused: str = ""


@contextmanager
def audited(
    warehouse: Warehouse, spec: TableSpec, table: HourlyTable, rules: SweepRules, held: Held
) -> Iterator["Audit"]:
    """Audit a table; what it found is to be had as long as the block runs.

    Args:
        warehouse: where the table is.
        spec: the table's.
        table: loaded now.
        rules: what is an orphan.
        held: the maintenance lease.

    Raises:
        SafetyError: the table's files may be others', some of them are missing, or its bucket keeps versions: nothing
            that is found could be relied on, or removed.
        TransientError: the store or the catalog did not answer.
    """
    with TemporaryDirectory(prefix="lakehouse-audit-") as folder, ReachedFiles(Path(folder)) as reached:
        audit = Audit(warehouse, spec, table, rules, held, reached)
        audit.look()
        yield audit


@dataclass
class Audit:
    """One audit of a table; see `audited`.

    Attributes:
        warehouse: where the table is.
        spec: the table's.
        table: as it was last loaded.
        rules: what is an orphan.
        held: the maintenance lease.
        reached: paths, on disk.
        report: what was found, once it has looked.
    """

    warehouse: Warehouse
    spec: TableSpec
    table: HourlyTable
    rules: SweepRules
    held: Held
    reached: ReachedFiles
    report: AuditReport = field(init=False)

    def __post_init__(self) -> None:
        """Begin; nothing is read yet."""
        self._files, self._database = self.table.files, self.reached.database
        self._folders = folders_of(self.table.table, self.rules.aliases)
        self._roots = [self.rules.aliases.split(f"{folder}/") for folder in self._folders]
        self._visible = visible_fields(self.table.table)
        self._attempts: Collection[str] = ()
        self._database.executescript(_TABLES)
        self._database.create_function("is_at_work", 1, self._is_at_work)

    def look(self) -> None:
        """Collect what is reached, list what is there, collect again, and hold the one against the other."""
        check_collects(self.table.table)
        check_alone(self.warehouse.catalog, self.table.table, self.rules.aliases)
        self._check_versions()
        as_of = self.rules.moment or self._files.get(self.held.turn.url).answered
        before = self.reached.collect(self.table.table)
        if self.rules.listed:
            read_list(self._files, self.rules.listed, self._listed)
        for folder in () if self.rules.listed else self._folders:
            list_side_by_side(self._files, folder, self._listed, lambda level: not self._is_seen(level))
        uploads = [each for folder in self._folders for each in self._files.list_uploads(f"{folder}/")]
        self._attempts = self._at_work()
        after = self.reached.collect(self._loaded().table)
        self.held.check()
        self._learn()
        self._database.execute("CREATE INDEX listed_path ON listed (path)")
        self._check_listing(before, after)
        self._check_spelling()
        self.report = self._judged(as_of, uploads)

    def orphans(self, together: int) -> Iterator[tuple[int, list[Orphan]]]:
        """Go through what was found, some at a time, as the caller is about to remove them.

        Each is asked for again, and what somebody knows of by now is left out: the first number counts it.

        Raises:
            SafetyError: the table is gone, or is another one.
            CommitConflictError: the maintenance lease is lost.
            TransientError: the store or the catalog did not answer.
        """
        last = 0
        while rows := self._database.execute(
            "SELECT id, url, size, modified FROM orphans WHERE id > ? ORDER BY id LIMIT ?", (last, together)
        ).fetchall():
            last = rows[-1][0]
            yield len(rows), self.still([Orphan(*row[1:]) for row in rows])

    def still_open(self, uploads: Sequence[OpenUpload]) -> list[OpenUpload]:
        """Leave out the uploads of attempts that have begun meanwhile."""
        self.held.check()
        self._attempts = self._at_work()
        return [each for each in uploads if not self._is_at_work(each.url)]

    def still(self, orphans: list[Orphan]) -> list[Orphan]:
        """Leave out what somebody knows of by now; the errors are those of `orphans`."""
        self.held.check()
        self._attempts = self._at_work()  # before the table is loaded: whoever is gone from here is in it
        table = self._loaded()
        if table.metadata_url != self.table.metadata_url:
            self.reached.collect(table.table)
            self._learn()
            self.table = table
        found = [each for each in orphans if not self._is_at_work(each.url) and not self._is_reached(each.url)]
        return [each for each in found if self._is_as_listed(each)] if self.rules.listed else found

    def _is_as_listed(self, orphan: Orphan) -> bool:
        """Tell whether what somebody has listed a while ago is there, and still the same."""
        now = self._files.head(orphan.url)
        return now is not None and int(now.modified.timestamp()) <= orphan.modified

    def _is_reached(self, url: str) -> bool:
        place, path = self.rules.aliases.folded(url)
        rows = self._database.execute("SELECT place FROM known WHERE path = ?", (path,)).fetchall()
        return (place,) in rows if self.rules.prefix_mismatch == "delete" else bool(rows)

    def _loaded(self) -> HourlyTable:
        table = self.warehouse.find(self.spec)
        if table is None or table.uuid != self.table.uuid:
            raise SafetyError(f"{self.spec.table} was dropped or replaced while its folders were listed")
        return table

    def _at_work(self) -> set[str]:
        """Name the attempts of which the ledger knows; what they left is the ledger's to remove."""
        return {marked.marker.attempt.id for marked in self.table.ledger.marked()}

    def _is_at_work(self, url: str) -> bool:
        return any(found in self._attempts for found in _ATTEMPT.findall(url))

    def _below(self, place: str, path: str) -> str | None:
        """Give a path as it goes on below the folder that it is in; None where it is in none."""
        for root, folder in self._roots:
            if root == place and path.startswith(folder):
                return path[len(folder) :]
        return None

    def _is_hidden(self, below: str) -> bool:
        """Tell whether a name below the table's folders says that it is none of the table's, as Iceberg has it."""
        return any(
            name.startswith(("_", ".")) and not ("=" in name and name.partition("=")[0] in self._visible)
            for name in names_in(below)
        )

    def _is_seen(self, url: str) -> bool:
        """Tell whether something is where the table's files are, and not hidden."""
        below = self._below(*self.rules.aliases.split(url))
        return below is not None and not self._is_hidden(below)

    def _listed(self, objects: Sequence[ObjectInfo]) -> None:
        folded = self.rules.aliases.folded
        rows = [
            (*folded(each.url), each.url, each.size, each.modified.timestamp())
            for each in objects
            # What ends in a slash stands for a folder; a list may be of a whole bucket.
            if not each.url.endswith("/") and self._is_seen(each.url)
        ]
        with self.reached.lock:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT INTO listed VALUES (?, ?, ?, ?, ?)", rows)
            self._database.execute("COMMIT")

    def _learn(self) -> None:
        """Index what was reached since this was last done."""
        folded = self.rules.aliases.folded
        self._database.execute("BEGIN")
        self._database.executemany(
            "INSERT INTO known VALUES (?, ?, ?)", ((*folded(path), path) for path in self.reached.added())
        )
        self._database.execute("COMMIT")
        self._database.execute("CREATE INDEX IF NOT EXISTS known_path ON known (path)")

    def _check_versions(self) -> None:
        for folder in self._folders:
            if self._files.keeps_versions(folder):
                raise SafetyError(
                    f"{folder} is in a bucket that keeps versions: what is deleted there stays, and is paid for. Use a "
                    "bucket without versions, whose orphans are kept in the quarantine for a time"
                )

    def _check_listing(self, before: int, after: int) -> None:
        """Hold the listing against what was reached before and after it: a listing that misses some is none."""
        rows = self._database.execute(
            "SELECT url FROM known WHERE NOT EXISTS (SELECT 1 FROM listed WHERE listed.path = known.path) "
            "INTERSECT SELECT path FROM reached WHERE round = ? INTERSECT SELECT path FROM reached WHERE round = ?",
            (before, after),
        )
        unlisted = (path for (path,) in rows if self._is_seen(path) and not path.endswith(METADATA_FILE))
        count, missing = 0, list[str]()
        while some := list(islice(unlisted, ASKED_TOGETHER)):
            if self.rules.listed:  # what is younger than the list is there
                there = side_by_side(self._files.head, some, HEADS_AT_ONCE)
                some = [path for path, found in zip(some, there, strict=True) if found is None]
            count, missing = count + len(some), [*missing, *some][:SHOWN]
        if count:
            raise SafetyError(
                f"of the files that {self.table.identifier} reaches {count:,} were not listed ({', '.join(missing)}): "
                "either they are lost, or the listing cannot be relied on. Nothing is removed"
            )

    def _check_spelling(self) -> None:
        """Find files that are reached by another scheme or bucket than they were listed by."""
        if self.rules.prefix_mismatch != "error":
            return
        rows = self._database.execute(
            "SELECT listed.url, known.url FROM listed JOIN known ON listed.path = known.path "
            "AND listed.place != known.place LIMIT ?",
            (SHOWN,),
        ).fetchall()
        if rows:
            said = ", ".join(f"{listed} is {reached} in the metadata" for listed, reached in rows)
            raise SafetyError(
                f"{said}: if the two are one, say so (equal schemes or authorities); if they are not, say what is to "
                "become of such files (prefix mismatch: ignore keeps them, delete takes them). Nothing is removed"
            )

    def _judged(self, as_of: datetime, uploads: Sequence[OpenUpload]) -> AuditReport:
        oldest = (as_of - self.rules.older_than).timestamp()
        same = "AND known.place = listed.place" if self.rules.prefix_mismatch == "delete" else ""
        self._database.execute(
            f"""
            CREATE TABLE judged AS SELECT url, size, modified, CASE
                WHEN EXISTS (SELECT 1 FROM known WHERE known.path = listed.path {same}) THEN 'reached'
                WHEN modified > ? THEN 'too young'
                WHEN is_at_work(url) THEN 'of an attempt in the ledger'
                WHEN url LIKE '%/{VERSION_HINT}' THEN 'named by the catalog'
                ELSE '' END AS why FROM listed
            """,
            (oldest,),
        )
        self._check_owners()
        self._database.execute("INSERT INTO orphans SELECT NULL, url, size, modified FROM judged WHERE why = ''")
        amounts = {
            why: Amount(count, size)
            for why, count, size in self._database.execute(
                "SELECT why, count(*), coalesce(sum(size), 0) FROM judged GROUP BY why"
            )
        }
        orphans = amounts.pop("", Amount())
        listed = Amount(
            orphans.files + sum(each.files for each in amounts.values()),
            orphans.bytes + sum(each.bytes for each in amounts.values()),
        )
        old = [each for each in uploads if each.begun.timestamp() <= oldest and not self._is_at_work(each.url)]
        examples = self._database.execute("SELECT url FROM orphans ORDER BY id LIMIT ?", (SHOWN,)).fetchall()
        return AuditReport(
            table=self.table.identifier,
            as_of=as_of,
            folders=self._folders,
            listed=listed,
            orphans=orphans,
            kept=amounts,
            uploads=tuple(old),
            uploads_kept=len(uploads) - len(old),
            examples=tuple(url for (url,) in examples),
            refused=self._too_much(orphans, listed),
        )

    def _too_much(self, orphans: Amount, listed: Amount) -> str:
        share = orphans.bytes / listed.bytes if listed.bytes else 0.0
        if orphans.files > self.rules.max_files:
            return f"{orphans.files} orphans are more than the {self.rules.max_files} that a sweep may take"
        if share > self.rules.max_share:
            return f"orphans are {share:.0%} of the bytes; a sweep may take {self.rules.max_share:.0%}"
        return ""

    def _check_owners(self) -> None:
        """Look into metadata files that are none of the table's log: they tell of other tables in its folders."""
        rows = self._database.execute(
            "SELECT url FROM judged WHERE why IN ('', 'too young') AND (url LIKE ? OR url LIKE ?)",
            (f"%{METADATA_FILE}", f"%{METADATA_FILE}.gz"),
        )
        mine = {self.table.uuid, *self.rules.former}
        while some := [url for (url,) in rows.fetchmany(1000)]:
            others = Counter(uuid for uuid in uuids_in(self._files, some, HEADS_AT_ONCE).values() if uuid not in mine)
            if others:
                named = ", ".join(f"{uuid} ({count})" for uuid, count in others.items())
                example = next(url for url, uuid in uuids_in(self._files, some, 1).items() if uuid in others)
                raise SafetyError(
                    f"the folders of {self.table.identifier} hold metadata of other tables: {named}, such as "
                    f"{example}. If they are no more, say so: lakehouse sweep TABLE --former UUID, and their files "
                    "are orphans; nothing is removed"
                )

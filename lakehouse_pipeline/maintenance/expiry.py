"""Snapshot expiry: snapshots, branches and tags that have had their time, and the files that they alone reached.

What goes is `retention`'s to say, and the commit is `iceberg.expiry`'s; the plan, the removal of files and what an
earlier run left undone are here. All of it runs under the maintenance lease.
"""

import re
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice
from pathlib import Path

from lakehouse_pipeline import events
from lakehouse_pipeline.errors import CommitConflictError, SafetyError
from lakehouse_pipeline.iceberg.commit import load
from lakehouse_pipeline.iceberg.dropped_refs import dropped, put_back
from lakehouse_pipeline.iceberg.expiry import Removal, at, gone_since, remove_snapshots, snapshot_ids, without
from lakehouse_pipeline.iceberg.folders import folders_of
from lakehouse_pipeline.iceberg.history import History, RefSeen
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.reachability import KINDS, ReachedFile, ReachedFiles
from lakehouse_pipeline.maintenance.lease import MAINTENANCE, Held
from lakehouse_pipeline.maintenance.retention import Retention, Rules, retained
from lakehouse_pipeline.object_store.places import SPELLINGS
from lakehouse_pipeline.object_store.side_by_side import side_by_side

EXPIRY = "expiry"  # what the lease is held for, and the name of its note
BATCH = 1000  # paths that are removed between two looks at the lease and at the table
ROUNDS = 3  # times that refs are put back before it is given up
RECORDS_AT_ONCE = 32

ELSEWHERE = "outside of the table's folders"
UNDER_WAY = "of attempts under way"


@dataclass(frozen=True)
class ExpiryPlan:
    """What is to expire.

    Attributes:
        history: of the table, as it was looked at.
        rules: that were applied.
        age: of snapshots, where the table's properties say none.
        now: from which ages were counted.
        retention: what stays, why, and what goes.
    """

    history: History
    rules: Rules
    age: timedelta | None
    now: datetime
    retention: Retention

    @property
    def removal(self) -> Removal:
        """What the commit takes out."""
        return Removal(self.retention.expired, tuple(ref.name for ref in self.retention.refs_removed))

    @property
    def reasons(self) -> Mapping[tuple[str, str], int]:
        """How many snapshots stay, by why and by the branch or tag that keeps them."""
        return Counter((each.why, each.ref) for each in self.retention.kept)


@dataclass(frozen=True)
class FilesOf:
    """Files of one kind.

    Attributes:
        kind: one of `reachability.KINDS`.
        files: how many.
        bytes: of those whose size is known from metadata.
    """

    kind: str
    files: int
    bytes: int


@dataclass(frozen=True)
class Files:
    """What became of the files that nothing reaches any more.

    Attributes:
        removed: by kind; where a run was dry, what would be.
        left: how many were left where they are, by why.
    """

    removed: tuple[FilesOf, ...] = ()
    left: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Expired:
    """How an expiry ended.

    Attributes:
        plan: as it was committed, on what the table was by then.
        committed: whether there was anything to commit.
        files: that were removed, and left.
        put_back: branches and tags that were made meanwhile and that the catalog had dropped.
        finished: the metadata file from which an earlier run that did not end was finished; empty where there was none.
        files_of_earlier: that were removed, and left, for that run; those that it had removed itself are counted again.
    """

    plan: ExpiryPlan
    committed: bool = False
    files: Files = Files()
    put_back: tuple[str, ...] = ()
    finished: str = ""
    files_of_earlier: Files = Files()


def plan_expiry(history: History, age: timedelta | None, now: datetime) -> ExpiryPlan:
    """Decide what expires.

    Snapshots tell when they were made by the clocks of those who made them; ages are counted from `now`, which the
    command takes from this host's clock. One that goes ahead by an hour keeps an hour less. No clock takes the head of
    a branch, what a tag stands on, or the last snapshots that the table wants to keep.

    Args:
        history: of the table.
        age: how old snapshots may become, where the table's properties do not say it; None is Iceberg's 5 days.
        now: aware.

    Raises:
        SafetyError: `gc.enabled` is false.
        ConfigurationError: a property of the table is no number.
    """
    rules = Rules.of(history.properties, age)
    retention = retained(history, rules, int(now.timestamp() * 1000))
    return ExpiryPlan(history, rules, age, now, retention)


def look(table: HourlyTable, age: timedelta | None, now: datetime | None = None) -> ExpiryPlan:
    """Plan the expiry of a table as it was loaded; see `plan_expiry`."""
    return plan_expiry(History.of(table.table), age, now or datetime.now(UTC))


def unfinished(table: HourlyTable) -> str:
    """Name the metadata file from which an earlier expiry has to be finished; empty where none has."""
    return table.ledger.turn(MAINTENANCE, "").read().notes.get(EXPIRY, "")


def preview_expiry(table: HourlyTable, plan: ExpiryPlan) -> Expired:
    """Count what a plan would remove; changes nothing.

    Raises:
        CommitConflictError: somebody else expires snapshots just now.
        TransientError: the store did not answer.
    """
    earlier = unfinished(table)
    if not plan.removal:
        return Expired(plan, finished=earlier)
    with tempfile.TemporaryDirectory(prefix="lakehouse-") as folder, ReachedFiles(Path(folder)) as reached:
        left = replace(table, table=without(table.table, plan.removal))
        after, before = reached.collect(left.table), reached.collect(table.table)
        sorting = _Sorting.of(table)
        for file in reached.gone(before, after):
            sorting.take(file)
    return Expired(plan, files=sorting.files(), finished=earlier)


def run_expiry(
    table: HourlyTable,
    plan: ExpiryPlan,
    held: Held,
    *,
    wait: timedelta = timedelta(0),
    sleep: Callable[[float], None] = time.sleep,
) -> Expired:
    """Finish what an earlier run left undone, commit a plan, and remove the files that nothing reaches any more.

    The plan is made again where the table has changed meanwhile, by the same rules and the same `now`.

    Args:
        table: whose it is.
        plan: of what expires.
        held: the maintenance lease.
        wait: between the commit and the removal of files.
        sleep: waits, in seconds.

    Raises:
        SafetyError: `gc.enabled` is false by now, or a branch or tag that was made meanwhile could not be put back; no
            file was removed.
        CommitConflictError: rivals won every try, or another run has the lease; what is left, the next run finishes.
        CommitStateUnknownError: it is not known whether the commit landed; no file was removed.
    """
    run = _Run(table, held, wait, sleep)
    finished = held.turn.record.notes.get(EXPIRY, "")
    earlier = run.finish(finished) if finished else None
    committed = plan

    def decide(history: History) -> Removal:
        nonlocal committed
        committed = plan_expiry(history, plan.age, plan.now)
        return committed.removal

    landed = remove_snapshots(table.catalog, table.identifier, decide, run.before_send)
    done = run.finish(run.base) if landed else None
    if run.base and not landed:
        held.turn.note(**{EXPIRY: ""})
    told = Expired(committed, committed=landed, finished=finished)
    if earlier:
        told = replace(told, files_of_earlier=earlier.files, put_back=earlier.put_back)
    return replace(told, files=done.files, put_back=(*told.put_back, *done.put_back)) if done else told


@dataclass(frozen=True)
class _Finished:
    files: Files = Files()
    put_back: tuple[str, ...] = ()


@dataclass
class _Run:
    """What comes after a commit, of this run or of an earlier one.

    Attributes:
        base: the metadata file that has all that may be gone; empty as long as nothing was sent.
    """

    table: HourlyTable
    held: Held
    wait: timedelta
    sleep: Callable[[float], None]
    base: str = ""

    def before_send(self, base: str) -> None:
        """Leave word for the next run of what this one may have begun."""
        self.held.check()
        if base != self.base:
            self.held.turn.note(**{EXPIRY: base})
            self.base = base

    def finish(self, base_url: str) -> _Finished:
        """Put back what was dropped unseen, wait, and remove files.

        Raises:
            SafetyError: a ref is dropped again and again, or what was noted is none of the table's metadata files.
        """
        now = self._now()
        try:
            base = replace(now, table=at(now.table, base_url))
        except FileNotFoundError:
            # Many commits later the catalog has removed it: what is left falls to the audit sweep.
            events.emit("expiry.forgotten", self.table.identifier, metadata=base_url)
            self.held.turn.note(**{EXPIRY: ""})
            return _Finished()
        if base.uuid != now.uuid:
            raise SafetyError(
                f"{base_url}, which an earlier expiry of {now.identifier} noted, is of another table: somebody has "
                "changed the note. No file was removed"
            )
        done = _Finished()
        if gone_since(base.table, now.table):
            names = self._put_back(base)
            if self.wait:
                events.emit("expiry.waiting", self.table.identifier, seconds=self.wait.total_seconds())
                self.sleep(self.wait.total_seconds())
                names += self._put_back(base)  # a commit whose outcome was unknown may have landed meanwhile
            done = _Finished(self._remove(base), tuple(names))
        self.held.turn.note(**{EXPIRY: ""})
        events.emit("expiry.finished", self.table.identifier, metadata=base_url)
        return done

    def _put_back(self, base: HourlyTable) -> list[str]:
        names: list[str] = []
        for _ in range(ROUNDS):
            lost = dropped(base.table, self._now().table)
            if not lost:
                return names
            self.held.check()
            put_back(self.table.catalog, self.table.identifier, lost, batch=f"expiry-{uuid.uuid4()}")
            names += [str(RefSeen.of(each.name, each.ref)) for each in lost]
        raise SafetyError(
            f"{self.table.identifier}: {', '.join(names)} was dropped again and again; no file was removed"
        )

    def _remove(self, base: HourlyTable) -> Files:
        now = self._now()
        gone, sorting = gone_since(base.table, now.table), _Sorting.of(now)
        with tempfile.TemporaryDirectory(prefix="lakehouse-") as folder, ReachedFiles(Path(folder)) as reached:
            after, before = reached.collect(now.table), reached.collect(base.table, in_part=True)
            ours = (file for file in reached.gone(before, after) if sorting.take(file))
            last = []
            # What was removed in half is found again by what is removed later: no batch has files of two kinds, and
            # the metadata file from which all of it is found goes last.
            for _, files in groupby(ours, key=lambda file: file.kind):
                while batch := [file.path for file in islice(files, BATCH)]:
                    last += [path for path in batch if path == base.metadata_url]
                    self._delete([path for path in batch if path != base.metadata_url], gone)
            self._delete(last, gone)
        return sorting.files()

    def _delete(self, paths: list[str], gone: set[int]) -> None:
        """Remove a batch, unless the lease is lost or a snapshot is there again."""
        if not paths:
            return
        self.held.check()
        if gone & snapshot_ids(self._now().table):
            raise CommitConflictError(
                f"{self.table.identifier}: snapshots that had expired are there again; no more files are removed"
            )
        events.emit("expiry.deleting", self.table.identifier, files=len(paths), first=paths[0])
        self.table.files.delete_objects(paths)
        events.emit("expiry.deleted", self.table.identifier, files=len(paths))

    def _now(self) -> HourlyTable:
        return replace(self.table, table=load(self.table.catalog, self.table.identifier))


@dataclass
class _Sorting:
    """Tells what may be removed of what nothing reaches, and counts.

    Attributes:
        folders: of the table.
        under_way: finds the attempts in names of files whose outcome is not yet in the ledger. They were in the table
            if a snapshot reached them; but who commits them anew after a rollback needs them.
    """

    folders: tuple[str, ...]
    under_way: re.Pattern[str] | None
    removed: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, table: HourlyTable) -> "_Sorting":
        hours = list({each.hour for each in table.ledger.marked()})  # whatever is under way has a marker
        records = side_by_side(lambda hour: table.ledger.hour(hour).record, hours, RECORDS_AT_ONCE)
        ids = sorted(record.attempt.id for record in records if record.attempt is not None)
        return cls(folders_of(table.table, SPELLINGS), re.compile("|".join(map(re.escape, ids))) if ids else None)

    def take(self, file: ReachedFile) -> bool:
        """Count a file, and tell whether it goes."""
        why = self._why_not(file.path)
        if why:
            self.left[why] += 1
            return False
        self.removed[file.kind] += 1
        self.bytes[file.kind] += file.bytes or 0
        return True

    def _why_not(self, path: str) -> str:
        if not SPELLINGS.one_contains(self.folders, path):
            return ELSEWHERE
        name = path.rpartition("/")[2]
        return UNDER_WAY if self.under_way and self.under_way.search(name) else ""

    def files(self) -> Files:
        """Sum up."""
        return Files(
            tuple(FilesOf(kind, self.removed[kind], self.bytes[kind]) for kind in KINDS if self.removed[kind]),
            dict(self.left),
        )

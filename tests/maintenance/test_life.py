"""A table's life: its hours are run, compacted, expired, swept and restored in any order and under any weather.

The runs are `tests.backfill.attempt_model`'s. Maintenance is the real one, too, request by request; whatever is struck
on its way, no row changes, nothing that is reached is gone, and what nobody knows can be brought back until somebody
removes it for good. Each attempt's rows are its own, as those of a source that goes on changing.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from pyiceberg.exceptions import CommitFailedException

from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.engines.workers import Answers, Result, Task, _answered
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg import data_files, rows, tables
from lakehouse_pipeline.iceberg import expiry as iceberg_expiry
from lakehouse_pipeline.iceberg.history import MAIN
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.ledger.leases import LEASE
from lakehouse_pipeline.maintenance import compaction, expiry, manifests
from lakehouse_pipeline.maintenance.audit import SweepRules
from lakehouse_pipeline.maintenance.lease import Held, maintaining
from lakehouse_pipeline.maintenance.quarantine import Quarantine
from lakehouse_pipeline.maintenance.sweep import purge, restore, sweep
from lakehouse_pipeline.object_store import side_by_side
from lakehouse_pipeline.retry import RetryPolicy
from tests.backfill.attempt_model import BUCKETS, HOURS, LOCATION, Attempts, Strike, Writer, strikes
from tests.iceberg.lake import EVENTS, spec_of

EXAMPLES = int(os.environ.get("LAKEHOUSE_EXAMPLES", "100"))
STEPS = 40
OLD = timedelta(days=3)  # of an orphan
OLDER = timedelta(days=6)  # of a snapshot that has had its time: Iceberg's five, and one

strategies = st.sampled_from(["copy", "rewrite", "sort", "zorder", "merge"])
SETTINGS: dict[str, dict[str, Any]] = {
    "sort": {"columns": ["id"]},
    "zorder": {"columns": ["id", "at"]},
}


class Serial(Executor):
    """Does what it is given at once, so that a step sends the same requests in the same order again."""

    def __init__(self, *_: object) -> None:
        """Have one thread: the caller's."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call it."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  # its caller's, who asks for the result
            future.set_exception(error)
        return future


class InTurn:
    """Workers of whom the next begins when one has ended."""

    remote = False

    def run(self, call: Callable[[Task], Result], tasks: Sequence[Task]) -> Answers[Result]:
        """Do one task after the other."""
        for place, task in enumerate(tasks):
            yield place, _answered(call, task)


class Life(Attempts):
    """The same table, as its maintainers have it."""

    @initialize()
    def create(self) -> None:
        """Begin with an empty table."""
        super().create()
        for module in (side_by_side, rows, data_files):
            self.patched.setattr(module, "ThreadPoolExecutor", Serial)
        self.patched.setattr(tables, "ASKING", RetryPolicy(2, 60, 0, 0))
        self.patched.setattr(iceberg_expiry, "COMMIT_RETRIES", RetryPolicy(3, 60, 0, 0))
        self.begun = datetime.now(UTC)
        self.clock = time_machine.travel(self.begun)  # this process's, which is not the store's, and jumps
        self.shown = self.clock.start()
        self.foreign: dict[str, bytes] = {}
        self.removed: set[bytes] = set()  # for good, or perhaps
        self.kept: dict[str, dict[HourWindow, list[int]]] = {}
        self.named = 0
        self.hasty = self.on_its_way = False
        self.swept: set[str] = set()  # that nothing reached, and old enough for a sweep that ran

    def teardown(self) -> None:
        """Show the time again."""
        try:
            super().teardown()
        finally:
            if hasattr(self, "clock"):
                self.clock.stop()

    # -----------------------------------------------------------------------------------------------------------------
    # Maintenance
    # -----------------------------------------------------------------------------------------------------------------

    @property
    def warehouse(self) -> Warehouse:
        """The catalog, and the store."""
        return Warehouse(self.catalog, self.now.files)

    def maintain(self, doing: str, does: Callable[[Held], object]) -> None:
        """Do something under the maintenance lease, of which nobody else is known to be alive."""
        self.named += 1
        with maintaining(self.now, doing, f"{doing} {self.named}", lambda _run: True) as held:
            does(held)

    @rule(hour=st.sampled_from(HOURS), compacted=st.booleans(), strategy=strategies, strike=strikes)
    def fill(self, hour: HourWindow, compacted: bool, strategy: str, strike: Strike | None) -> None:  # noqa: FBT001
        """Let a run go from its beginning to its end, with files enough to be compacted; and compact them at once."""
        self.weather.now += LEASE.total_seconds() + 1
        with self.weathered(None):
            if writer := self._take(hour, resume=True):
                if writer.hand.held.record.state == "open":
                    for bucket in range(BUCKETS):
                        self._write(writer, bucket)
                    self._seal(writer)
                self._commit(writer)
        if compacted:
            self.compact(strategy, strike)

    @rule(strategy=strategies, strike=strikes)
    def compact(self, strategy: str, strike: Strike | None) -> None:
        """Compact all hours that have two files, each by itself failing or not."""
        told = {"strategy": strategy, "min_input_files": 2, **SETTINGS.get(strategy, {})}
        spec = spec_of(
            EVENTS, {"table": "lake.events", "compact": told, **({"key": ["id"]} if strategy == "merge" else {})}
        )
        self.named += 1
        with self.weathered(strike):
            plan = compaction.look(MaintenanceSettings(), spec, self.now)
            for _done in compaction.compact(self.warehouse, spec, plan, f"compaction {self.named}", InTurn()):
                pass

    @contextmanager
    def weathered(self, strike: Strike | None, writer: Writer | None = None) -> Iterator[None]:
        """Remember that a commit may be on its way."""
        self.on_its_way |= bool(strike and strike[1] in {"late", "killed in flight"})
        with super().weathered(strike, writer):
            yield

    def time_passes(self, seconds: float) -> None:
        """Let nothing be on its way for as long as orphans have to be old: that is what `orphans_after` is for."""
        if self.on_its_way and seconds >= OLD.total_seconds():
            self.arrive_all(self.weather.commits)
            self.on_its_way = False
        super().time_passes(seconds)

    @rule(hasty=st.booleans(), strike=strikes)
    def expire(self, hasty: bool, strike: Strike | None) -> None:  # noqa: FBT001
        """Let all snapshots expire that are not kept: days later, or at once, while tasks of theirs may still write."""
        self.hasty |= hasty
        if not hasty:
            self.time_passes(OLDER.total_seconds())
        with self.weathered(strike):
            plan = expiry.look(self.now, None, datetime.now(UTC) + OLDER)
            self.maintain("expiry", lambda held: expiry.run_expiry(self.now, plan, held))

    @rule(strike=strikes)
    def rewrite_manifests(self, strike: Strike | None) -> None:
        """Write manifests anew."""
        with self.weathered(strike):
            self.maintain(
                "manifests", lambda held: manifests.rewrite_manifests(self.now, manifests.look(self.now), held)
            )

    @rule(delete=st.booleans(), strike=strikes)
    def sweep(self, delete: bool, strike: Strike | None) -> None:  # noqa: FBT001
        """Move or remove what is old and nobody knows."""
        spec, rules = spec_of(EVENTS, {"table": "lake.events"}), SweepRules(older_than=OLD)
        if delete:
            self.removed |= set(self.foreign.values())
        self.swept |= {url for url in self.unreached() if self.age_of(url) >= OLD.total_seconds()}
        with self.weathered(strike):
            self.maintain("sweep", lambda held: sweep(self.warehouse, spec, self.now, rules, held, delete=delete))

    def age_of(self, url: str) -> float:
        """Tell how long ago an object was written, in seconds by the store's clock."""
        return self.weather.now - self.s3.objects[url.removeprefix("s3://")].modified

    @rule(strike=strikes)
    def restore(self, strike: Strike | None) -> None:
        """Bring everything back that was moved."""
        with self.weathered(strike):
            table = self.now
            for record, _ in Quarantine(table.files, table.ledger.folder).sweeps():
                self.maintain("restore", lambda held: restore(self.now, record.sweep, held))  # noqa: B023

    @rule(strike=strikes)
    def purge(self, strike: Strike | None) -> None:
        """Remove for good what was moved a while ago."""
        self.removed |= set(self.foreign.values())
        with self.weathered(strike):
            self.maintain("purge", lambda held: purge(self.now, OLD, held))

    # -----------------------------------------------------------------------------------------------------------------
    # What others do
    # -----------------------------------------------------------------------------------------------------------------

    @rule(folder=st.sampled_from(["data", "metadata", "data/0101/1100"]), age=st.sampled_from([OLD, timedelta(0)]))
    def litter(self, folder: str, age: timedelta) -> None:
        """Leave a file in the table's folders that nobody knows."""
        self.named += 1
        url, body = f"{LOCATION}/{folder}/foreign-{self.named}", f"foreign {self.named}".encode()
        self.s3.put_now(url, body, age_s=age.total_seconds())
        self.foreign[url] = body

    @precondition(lambda self: MAIN in self.catalog.metadata.refs)
    @rule(branch=st.booleans(), strike=strikes)
    def name_a_snapshot(self, branch: bool, strike: Strike | None) -> None:  # noqa: FBT001
        """Tag what the table is now, or begin a branch on it."""
        self.named += 1
        name, rows_now = f"ref {self.named}", {hour: list(ids) for hour, ids in self.rows.items()}
        head = self.catalog.metadata.refs[MAIN].snapshot_id
        self.kept[name] = rows_now
        with self.weathered(strike), suppress(CommitFailedException):
            refs = self.now.table.manage_snapshots()
            (refs.create_branch if branch else refs.create_tag)(head, name).commit()

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def forget_a_name(self, data: st.DataObject) -> None:
        """Remove a tag or branch."""
        name = data.draw(st.sampled_from(sorted(self.kept)))
        del self.kept[name]
        if ref := self.catalog.metadata.refs.get(name):
            refs = self.now.table.manage_snapshots()
            (refs.remove_tag if ref.snapshot_ref_type == "tag" else refs.remove_branch)(name).commit()

    @rule(everything=st.booleans())
    @precondition(lambda self: self.orders and not self.ledger_lost)
    def lose_ledger(self, everything: bool) -> None:  # noqa: FBT001
        """Lose the quarantine with it, which is in its folder."""
        if everything:
            self.removed |= set(self.foreign.values())
        super().lose_ledger(everything)

    @rule(ahead=st.sampled_from([timedelta(hours=hours) for hours in (-240, -1, 0, 1, 240)]))
    def clock_jumps(self, ahead: timedelta) -> None:
        """Let this process's clock show another time; ages of snapshots are counted by it, and by nothing else."""
        self.hasty |= ahead > OLD
        self.shown.move_to(self.begun + ahead)

    # -----------------------------------------------------------------------------------------------------------------
    # Laws
    # -----------------------------------------------------------------------------------------------------------------

    @invariant()
    def what_nobody_knows_can_be_brought_back(self) -> None:
        """A stranger's file is where it was or in the quarantine, until it is removed for good."""
        there = {each.body for name, each in self.s3.objects.items() if "foreign" in name or "/quarantine/" in name}
        assert set(self.foreign.values()) - there <= self.removed

    def kept_are_as_they_were(self) -> None:
        """A tag or a branch reads the rows that the table had when it was made."""
        lists = self.manifest_lists()
        for name, ref in self.catalog.metadata.refs.items():
            if name in self.kept:
                live = (e for m in lists[ref.snapshot_id] for e in self.entries(m) if e["status"] != 2)
                found = sorted(number for e in live for number in self.ids_in(e["data_file"]["file_path"]))
                assert found == sorted(number for ids in self.kept[name].values() for number in ids)

    def settle(self) -> None:
        """End what was begun: nothing lies there then but what is reached, and what nobody knows."""
        super().settle()
        self.shown.move_to(self.begun + 3 * OLDER)  # later than any clock has shown
        self.rewrite_manifests(None)
        self.expire(hasty=False, strike=None)
        for _ in range(2):
            self.restore(None)
        self.kept_are_as_they_were()
        self.an_hour_is_all_of_one_attempt()
        if not (self.ledger_lost or self.hasty):  # what nobody remembers, or takes for the table's, is for a sweep
            # What a sweep took before an expiry could remove it is no expiry's any more, where it is brought back.
            assert self.unreached() - set(self.foreign) - self.swept == set()
        self.weather.now += 2 * OLD.total_seconds()
        self.sweep(delete=True, strike=None)
        assert self.unreached() == set()
        self.nothing_that_is_reached_is_gone()
        kept = ("hours/", "quarantine/", "maintenance.json", "audit.json")
        folder = f"{self.now.ledger.folder}/"
        # A claim that arrived when its attempt was over goes with the hour's next attempt.
        late = {f"s3://{name}" for name in self.arrived if "/claims/" in name}
        hidden = {url.removeprefix(folder) for url in self.s3.urls(folder) - late}
        assert self.ledger_lost or {name for name in hidden if not name.startswith(kept)} == set()


pytestmark = pytest.mark.timeout(9 * EXAMPLES)  # seconds, on a machine that may be busy

TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)

"""A table's life: its hours are run, compacted, expired, swept and restored in any order and under any weather.

The runs are `tests.backfill.attempt_model`'s. Maintenance is the real one, too, request by request; whatever is struck
on its way, no row changes, nothing that is reached is gone, and what nobody knows can be brought back until somebody
removes it for good. Each attempt's rows are its own, as those of a source that goes on changing.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test
from pyiceberg.exceptions import CommitFailedException

from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.engines.workers import Answers, Result, Task, _answered
from lakehouse_pipeline.errors import SafetyError
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
from tests.backfill.attempt_model import (
    BUCKETS,
    HOURS,
    LOCATION,
    ORPHANS_AFTER,
    REACHED,
    Attempts,
    Strike,
    Writer,
    one_in_five,
    strikes,
)
from tests.iceberg.lake import EVENTS, spec_of

EXAMPLES = int(os.environ.get("LAKEHOUSE_EXAMPLES", "100"))
STEPS = 40
OLD = ORPHANS_AFTER
OLDER = timedelta(days=6)  # of a snapshot that has had its time: Iceberg's five, and one

SAME = 200  # histories that are always the same
ENOUGH = 300  # histories, in which each of these is to happen
COMES_TO = (
    "a commit arrived when all was over",
    "a ledger was lost",
    *(f"a compaction landed: {strategy}" for strategy in ("copy", "rewrite", "sort", "zorder", "merge")),
    "a purge removed files",
    "a restore brought files back",
    "a sealed attempt was given up",
    "a sealed attempt was taken over",
    "a snapshot was given a name",
    "a sweep left what is young",
    *(f"a sweep met an attempt that was {state}" for state in ("open", "sealed")),
    "a sweep moved files",
    "a sweep removed files",
    "a task wrote for an attempt that was over",
    *(f"an expiry met an attempt that was {state}" for state in ("open", "sealed")),
    "an attempt that was to be given up had landed",
    "an expiry removed files",
    "an hour was skipped",
    "an offered commit was taken",
    "attempts were closed that nobody closed",
    "hours landed together",
    "manifests were written anew",
    "nothing lay there but what was reached, after two landings",
)

attempts = st.sampled_from([None, None, "open", "sealed"])  # that maintenance finds beside it
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

    @initialize(may_lose=one_in_five, commits_last=st.booleans(), may_haste=one_in_five)
    def create(self, *, may_lose: bool, commits_last: bool, may_haste: bool) -> None:
        """Begin with an empty table.

        Args:
            may_lose: whether the ledger may be lost.
            commits_last: whether commits that are in flight at the end arrive when all else is over.
            may_haste: whether snapshots may expire that tasks may still write for.
        """
        super().create(may_lose=may_lose, commits_last=commits_last)
        self.may_haste = may_haste
        for module in (side_by_side, rows, data_files):
            self.patched.setattr(module, "ThreadPoolExecutor", Serial)
        self.patched.setattr(tables, "ASKING", RetryPolicy(2, 60, 0, 0))
        self.patched.setattr(iceberg_expiry, "COMMIT_RETRIES", RetryPolicy(3, 60, 0, 0))
        self.begun = datetime.now(UTC)
        self.clock = time_machine.travel(self.begun)  # this process's, which is not the store's, and jumps
        self.shown = self.clock.start()
        self.foreign: dict[str, bytes] = {}
        self.moved: set[bytes] = set()  # of those that a sweep took or may have taken
        self.removed: set[bytes] = set()  # of those that are gone for good, or may be
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
                self._go_on(writer, range(BUCKETS), "committed")
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
            for done in compaction.compact(self.warehouse, spec, plan, f"compaction {self.named}", InTurn()):
                REACHED[f"a compaction landed: {strategy}"] += done.committed is not None

    @contextmanager
    def weathered(self, strike: Strike | None, writer: Writer | None = None) -> Iterator[None]:
        """Remember that a commit may be on its way."""
        self.on_its_way |= bool(strike and strike[1] in {"late", "killed in flight"})
        with super().weathered(strike, writer):
            yield

    def _pass(self, seconds: float) -> None:
        """Let nothing be on its way for as long as orphans have to be old: that is what `orphans_after` is for."""
        if self.on_its_way and seconds >= OLD.total_seconds():
            self.arrive_all(self.weather.commits)
            self.on_its_way = False
        super()._pass(seconds)

    @rule(hasty=st.booleans(), beside=attempts, strike=strikes)
    def expire(self, strike: Strike | None, beside: str | None, *, hasty: bool) -> None:
        """Let all snapshots expire that are not kept: days later, or at once, while tasks of theirs may still write."""
        if beside:
            self._begin(HOURS[0], (0, 1), beside)
        self._expire(strike, hasty=hasty)

    def _expire(self, strike: Strike | None, *, hasty: bool) -> None:
        if hasty and self.may_haste:
            self.hasty = True
        else:
            self._pass(OLDER.total_seconds())
        states = self.states()
        with self.weathered(strike):
            plan = expiry.look(self.now, None, datetime.now(UTC) + OLDER)

            def expire(held: Held) -> None:
                done = expiry.run_expiry(self.now, plan, held)
                REACHED["an expiry removed files"] += sum(each.files for each in done.files.removed) > 0
                for state in states:
                    REACHED[f"an expiry met an attempt that was {state}"] += 1

            self.maintain("expiry", expire)

    def states(self) -> set[str]:
        """Tell in which states there are attempts of hours."""
        records = (self.now.ledger.hour(hour).record for hour in HOURS)
        return {record.state for record in records if record.attempt and record.state in {"open", "sealed"}}

    @rule(strike=strikes)
    def rewrite_manifests(self, strike: Strike | None) -> None:
        """Write manifests anew."""

        def rewrite(held: Held) -> None:
            done = manifests.rewrite_manifests(self.now, manifests.look(self.now), held)
            REACHED["manifests were written anew"] += done.commit is not None

        with self.weathered(strike):
            self.maintain("manifests", rewrite)

    @rule(
        delete=one_in_five,
        beside=attempts,
        then=st.sampled_from(["", "restore", "purge", "purge later"]),
        strike=strikes,
    )
    def sweep(self, strike: Strike | None, beside: str | None, then: str, *, delete: bool) -> None:
        """Move or remove what is old and nobody knows, of which there is some, as of what is too young for it."""
        if beside:
            self._begin(HOURS[0], (0, 1), beside)
            self._pass(OLD.total_seconds() + 1)
        self._litter("data", OLD)
        self._litter("metadata", timedelta(0))
        self._sweep(strike, delete=delete)
        if then == "restore":
            self.restore(None)
        elif then:
            self._pass(OLD.total_seconds() + 1 if then == "purge later" else 1)
            self.purge(None)

    def _sweep(self, strike: Strike | None, *, delete: bool) -> None:
        spec, rules = spec_of(EVENTS, {"table": "lake.events"}), SweepRules(older_than=OLD)
        old = {url for url in self.unreached() if self.age_of(url) >= OLD.total_seconds()}
        states = self.states()
        taken = {self.foreign[url] for url in old if url in self.foreign}
        self.moved |= taken
        if delete:
            self.removed |= taken
        self.swept |= old

        def run(held: Held) -> None:
            done = sweep(self.warehouse, spec, self.now, rules, held, delete=delete)
            assert not old & set(self.foreign) & self.s3.urls(LOCATION)
            REACHED["a sweep removed files" if delete else "a sweep moved files"] += done.files > 0
            REACHED["a sweep left what is young"] += bool(set(self.foreign) & self.s3.urls(LOCATION))
            for state in states:
                REACHED[f"a sweep met an attempt that was {state}"] += 1

        with self.weathered(strike):
            self.maintain("sweep", run)

    def age_of(self, url: str) -> float:
        """Tell how long ago an object was written, in seconds by the store's clock."""
        return self.weather.now - self.s3.at(url).modified

    @precondition(lambda self: self.quarantined())
    @rule(strike=strikes)
    def restore(self, strike: Strike | None) -> None:
        """Bring everything back that was moved."""
        for sweep_id in sorted({url.rpartition("/quarantine/")[2].partition("/")[0] for url in self.quarantined()}):
            with self.weathered(strike):
                self.maintain("restore", lambda held: self._restored(sweep_id, held))  # noqa: B023

    def _restored(self, sweep_id: str, held: Held) -> None:
        found = Quarantine(self.now.files, self.now.ledger.folder).find(sweep_id)
        if found is None or found[0].state in {"deleting", "deleted"}:
            with pytest.raises(SafetyError, match="there is no sweep"):
                restore(self.now, sweep_id, held)
            return
        copies = self.bodies(self.quarantined(sweep_id))
        done = restore(self.now, sweep_id, held)
        assert copies & set(self.foreign.values()) <= self.in_place()
        assert self.quarantined(sweep_id) == set() or done.there
        REACHED["a restore brought files back"] += done.files > 0

    def quarantined(self, sweep_id: str = "") -> set[str]:
        """Name the copies that are in the quarantine, or of one sweep in it."""
        return {url for url in self.s3.urls(f"{LOCATION}/_lakehouse/") if "/objects/" in url and f"/{sweep_id}" in url}

    def in_place(self) -> set[bytes]:
        """Give what of strangers' files is where it was put."""
        there = self.s3.urls(LOCATION)
        return {body for url, body in self.foreign.items() if url in there and self.s3.at(url).body == body}

    def bodies(self, urls: Iterable[str]) -> set[bytes]:
        """Read objects."""
        return {self.s3.at(url).body for url in urls}

    @precondition(lambda self: self.quarantined())
    @rule(strike=strikes)
    def purge(self, strike: Strike | None) -> None:
        """Remove for good what was moved a while ago, by the age of its sweep's record."""
        ages = {
            url.rpartition("/")[0]: self.age_of(url) for url in self.s3.urls(LOCATION) if url.endswith("sweep.json")
        }
        old = {folder for folder, age in ages.items() if age >= OLD.total_seconds()}
        mine = {url for url in self.quarantined() if url.partition("/objects/")[0] in old}
        self.removed |= self.bodies(mine) & set(self.foreign.values())
        with self.weathered(strike):
            self.maintain("purge", lambda held: purge(self.now, OLD, held))
            REACHED["a purge removed files"] += bool(mine - self.quarantined())

    # -----------------------------------------------------------------------------------------------------------------
    # What others do
    # -----------------------------------------------------------------------------------------------------------------

    @rule(folder=st.sampled_from(["data", "metadata", "data/0101/1100"]), age=st.sampled_from([OLD, timedelta(0)]))
    def litter(self, folder: str, age: timedelta) -> None:
        """Leave a file in the table's folders that nobody knows."""
        self._litter(folder, age)

    def _litter(self, folder: str, age: timedelta) -> None:
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
            REACHED["a snapshot was given a name"] += 1

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
            self.removed |= self.bodies(self.quarantined())
        super().lose_ledger(everything)

    @rule(ahead=st.sampled_from([timedelta(hours=hours) for hours in (-240, -1, 0, 1, 240)]))
    def clock_jumps(self, ahead: timedelta) -> None:
        """Let this process's clock show another time; ages of snapshots are counted by it, and by nothing else."""
        if ahead > OLD and not self.may_haste:
            return
        self.hasty |= ahead > OLD
        self.shown.move_to(self.begun + ahead)

    # -----------------------------------------------------------------------------------------------------------------
    # Laws
    # -----------------------------------------------------------------------------------------------------------------

    @invariant()
    def what_nobody_knows_can_be_brought_back(self) -> None:
        """A stranger's file is where it was, or in the quarantine if it was old, until it is removed for good."""
        away = set(self.foreign.values()) - self.in_place()
        assert away <= self.moved
        assert away - self.bodies(self.quarantined()) <= self.removed

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
        self._expire(None, hasty=False)
        for _ in range(2):
            self.restore(None)
        assert set(self.foreign.values()) - self.removed <= self.in_place()
        self.kept_are_as_they_were()
        self.an_hour_is_all_of_one_attempt()
        if not (self.ledger_lost or self.hasty):  # what nobody remembers, or takes for the table's, is for a sweep
            REACHED["nothing lay there but what was reached, after two landings"] += len(self.landed) > 1
            # What a sweep took before an expiry could remove it is no expiry's any more, where it is brought back.
            assert self.unreached() - set(self.foreign) - self.swept == set()
        self.weather.now += 2 * OLD.total_seconds()
        self._sweep(None, delete=True)
        assert self.unreached() == set()
        self.nothing_that_is_reached_is_gone()
        kept = ("hours/", "quarantine/", "maintenance.json", "audit.json")
        folder = f"{self.now.ledger.folder}/"
        # A claim that arrived when its attempt was over goes with the hour's next attempt.
        late = {f"s3://{name}" for name in self.arrived if "/claims/" in name}
        hidden = {url.removeprefix(folder) for url in self.s3.urls(folder) - late}
        assert self.ledger_lost or {name for name in hidden if not name.startswith(kept)} == set()


pytestmark = pytest.mark.timeout(9 * EXAMPLES)  # seconds, on a machine that may be busy
HISTORIES = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


class TestLife(Life.TestCase):  # type: ignore[misc, valid-type]  # Hypothesis makes it
    """The histories."""

    @classmethod
    def tearDownClass(cls) -> None:
        """Say what they came to; of enough of them each thing that they are for has to happen."""
        super().tearDownClass()
        print("", *(f"{count:8,} {what}" for what, count in sorted(REACHED.items())), sep="\n")  # noqa: T201  # with -s
        if REACHED["histories"] >= ENOUGH:
            assert [what for what in COMES_TO if not REACHED[what]] == []


TestLife.settings = HISTORIES


@pytest.mark.full
@pytest.mark.timeout(9 * SAME)
def test_histories_that_are_the_same_each_time() -> None:
    """They notice guards that are gone (tests/mutations); what fails is not looked into for a shorter one."""
    same = settings(HISTORIES, max_examples=SAME, derandomize=True, database=None, phases=[Phase.generate])
    run_state_machine_as_test(Life, settings=same)

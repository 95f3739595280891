"""The manifest rewrite: the same entries in fewer manifests, whoever commits meanwhile, and nothing left behind."""

import json
import multiprocessing
import signal
from collections.abc import Callable
from contextlib import closing
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import CommitTableResponse

from lakehouse_pipeline import events
from lakehouse_pipeline.cli.main import main
from lakehouse_pipeline.errors import SafetyError, TransientError
from lakehouse_pipeline.iceberg.event_time import ANY, HourSpan
from lakehouse_pipeline.iceberg.manifests import EXISTING, manifests_of
from lakehouse_pipeline.iceberg.regrouping import HeadManifest
from lakehouse_pipeline.maintenance.lease import Held, maintaining
from lakehouse_pipeline.maintenance.manifests import (
    ManifestPlan,
    look,
    plan_manifests,
    remove_left_manifests,
)
from tests.iceberg.lake import (
    ELEVEN,
    EVENTS,
    TEN,
    TWELVE,
    Lake,
    hours_after,
    in_bucket,
    sealed_by,
)
from tests.iceberg.lake import events as rows_of
from tests.iceberg.scripted import ScriptedCatalog, Send
from tests.maintenance.lone_manifests import SMALL, LoneRewrite, live_entries, manifests_by_hour, rewritten, statuses
from tests.maintenance.test_compaction import compacted, put
from tests.projects import Project, row

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine

HOURS = 8
FEW = hours_after(TEN, HOURS)
TARGET, HEADER = 8_000_000, 5_000


@pytest.fixture
def lake(catalog: Catalog) -> Lake:
    """Give a table of some hours, each of which was committed alone."""
    return filled(Lake.create(catalog))


def filled(lake: Lake) -> Lake:
    """Commit some hours, one by one."""
    for number, hour in enumerate(FEW):
        lake.put(hour, [number, number + 100])
    return lake


def spread(lake: Lake, number: int, files: int) -> None:
    """Commit an hour of so many files."""
    hour = hours_after(TEN, number + 1)[-1]
    lake.replace(sealed_by(lake, hour, [in_bucket(place, rows_of(hour, [place])) for place in range(files)]))


def manifest_count(lake: Lake) -> int:
    """Count the manifests of the head."""
    return len(manifests_of(lake.now.table.metadata, lake.now.table.io, lake.now.head))


# ---------------------------------------------------------------------------------------------------------------------
# What it leaves as it was, and what becomes better
# ---------------------------------------------------------------------------------------------------------------------


def test_entries_and_rows_stay(any_lake: Lake) -> None:
    """All that entries say is as it was but their status, which is EXISTING; older snapshots are read as before."""
    lake = filled(any_lake)
    lake.append(rows_of(TEN, [50]), rows_of(TWELVE, [51]))
    lake.put(ELEVEN, [1, 7])
    before, rows, head = live_entries(lake), lake.rows(), lake.now.head
    done = rewritten(lake)
    assert done.commit is not None
    assert live_entries(lake) == before
    assert lake.rows() == lake.rows(head) == rows
    assert {status for _, status in statuses(lake)} == {EXISTING}
    assert (done.commit.created, done.commit.entries, manifest_count(lake)) == (1, len(before), 1)
    snapshot = lake.now.table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    told = snapshot.summary.additional_properties
    assert snapshot.summary.operation.value == "replace"
    assert {name: told[name] for name in sorted(told) if name.startswith(("manifests", "entries", "engine"))} == {
        "engine-name": "lakehouse_pipeline",
        "entries-processed": str(len(before)),
        "manifests-created": "1",
        "manifests-kept": "0",
        "manifests-replaced": str(done.commit.replaced),
    }
    assert told["total-data-files"] == str(len(before))
    assert lake.unreached() == lake.missing() == set()
    assert lake.now.ledger.turn("maintenance", "").read().notes == {}


def test_an_hour_is_in_two_manifests_at_most(catalog: Catalog) -> None:
    """Of sixty hours that were committed one by one, compacted and run again; the second rewrite finds nothing."""
    lake = Lake.create(catalog, properties=SMALL)
    for number in range(60):
        spread(lake, number, 4)
    for number in (3, 17, 18, 40):
        put(lake, hours_after(TEN, 60)[number], [[place] for place in range(6)])
    assert compacted(lake)
    for number in (5, 17, 41):
        spread(lake, number, 3)
    lake.append(*(rows_of(hour, [99]) for hour in hours_after(TEN, 60)))
    before, rows = live_entries(lake), lake.rows()
    done = rewritten(lake)
    assert done.commit is not None
    assert 4 <= done.commit.created <= 12
    assert set(manifests_by_hour(lake).values()) <= {1, 2}
    assert live_entries(lake) == before
    assert lake.rows() == rows
    assert rewritten(lake).commit is None
    for number in (70, 71):
        spread(lake, number, 2)
    again = rewritten(lake).commit
    assert again is not None
    assert again.kept >= done.commit.created - 1
    assert set(manifests_by_hour(lake).values()) <= {1, 2}
    assert rewritten(lake).commit is None
    assert lake.unreached() == lake.missing() == set()


def test_a_large_hour_has_manifests_of_its_own(catalog: Catalog) -> None:
    """More of them than two where it does not fit; they stay as they are then."""
    lake = Lake.create(catalog, properties=SMALL)
    for number in range(3):
        spread(lake, number, 240 if number == 1 else 2)
    assert rewritten(lake).commit is not None
    hours = manifests_by_hour(lake)
    assert hours[ELEVEN.ordinal] > 2
    assert max(hours[TEN.ordinal], hours[TWELVE.ordinal]) <= 2
    assert rewritten(lake).commit is None


UNMERGED = {"commit.manifest-merge.enabled": "false"}  # PyIceberg merges those of an earlier spec with each append
TYPES = {**EVENTS, "region": "string", "price": "decimal(9,2)", "day": "date"}


def test_other_partition_fields_and_specs(any_catalog: Catalog) -> None:
    """Each spec has manifests of its own; within an hour, files of a partition are beside each other."""
    lake = Lake.create(any_catalog, TYPES, partition=["region", "bucket(4, id)", "price", "day"], properties=UNMERGED)

    def append(number: int) -> None:
        rows = pa.Table.from_batches([rows_of(FEW[number % 3], range(number * 10, number * 10 + 6))])
        prices = [
            None if value is None else Decimal(value) for value in (None, "1.10", "-1", "1.10", "1", "9999999.99")
        ]
        days = [None if value is None else date(1970, 1, 1) + timedelta(value) for value in (None, 1, 2, 20000, -1, 1)]
        for name, values in (("region", ["a", None, "ü", "a", "b", "a"]), ("price", prices), ("day", days)):
            rows = rows.append_column(name, pa.array(values, lake.now.arrow_schema.field(name).type))
        lake.now.table.append(rows)

    for number in range(4):
        append(number)
    with lake.now.table.update_spec() as update:
        update.remove_field("region")
    for number in range(4, 8):
        append(number)
    before, rows = live_entries(lake), lake.rows()
    done = rewritten(lake)
    assert done.commit is not None
    assert (done.commit.created, manifest_count(lake)) == (2, 2)
    assert live_entries(lake) == before
    assert lake.rows() == rows
    for spec_id in (0, 1):
        order = [
            (told["partition"]["at_hour"], tuple(map(repr, told["partition"].values())))
            for told in live_entries(lake).values()
            if told["spec_id"] == spec_id
        ]
        assert [hour for hour, _ in order] == sorted(hour for hour, _ in order)
        assert sum(one != two for one, two in pairwise(order)) == len(set(order)) - 1
    assert rewritten(lake).commit is None


def test_a_sealed_attempt_commits_after_it(lake: Lake) -> None:
    """Of a new hour, and of one that it replaces: what it was opened on is still there."""
    sealed = [lake.seal(TEN, [70]), lake.seal(hours_after(TEN, 30)[-1], [71])]
    assert rewritten(lake).commit is not None
    lake.replace(*sealed)
    assert lake.rows()[TEN.key] == [70]
    assert [71] in lake.rows().values()


def test_other_versions_are_refused(catalog: Catalog, tmp_path: Path) -> None:
    """Of version 3 nothing can be written."""
    lake = Lake.create(catalog)
    metadata = json.loads(Path(lake.now.metadata_url.removeprefix("file://")).read_text())
    location = tmp_path / "v3.metadata.json"
    location.write_text(json.dumps({**metadata, "format-version": 3, "next-row-id": 0}))
    catalog.drop_table(lake.identifier)
    catalog.register_table(lake.identifier, f"file://{location}")
    with pytest.raises(SafetyError, match="its format version is 3"):
        look(lake.now)


def test_an_empty_table_has_nothing_to_do(catalog: Catalog) -> None:
    """No snapshot, no manifest."""
    lake = Lake.create(catalog)
    assert look(lake.now) == ManifestPlan((), 0)
    assert rewritten(lake).commit is None
    assert lake.now.head is None


# ---------------------------------------------------------------------------------------------------------------------
# Rivals
# ---------------------------------------------------------------------------------------------------------------------

MOMENTS = ["manifests.planned", "manifests.written", "commit.sent"]


def rewritten_while(lake: Lake, moment: str, does: Callable[[], object]) -> list[events.Event]:
    """Rewrite, while somebody does something when a moment comes for the first time; gives the events."""
    heard = list[events.Event]()

    def hear(event: events.Event) -> None:
        heard.append(event)
        if [each.name for each in heard].count(moment) == 1 and event.name == moment:
            does()

    with events.subscribed(hear):
        rewritten(lake)
    return heard


def names(heard: list[events.Event], name: str) -> int:
    """Count events of a name."""
    return sum(event.name == name for event in heard)


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_append_costs_a_manifest_list(any_lake: Lake, moment: str) -> None:
    """What was written is taken over; the append is there, and its writer has not noticed."""
    lake = filled(any_lake)
    heard = rewritten_while(lake, moment, lambda: lake.append(rows_of(TEN, [50])))
    assert (names(heard, "manifests.written"), names(heard, "commit.landed")) == (1, 1)
    assert lake.rows()[TEN.key] == [0, 50, 100]
    assert manifest_count(lake) == 2
    assert lake.unreached() == lake.missing() == set()


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_hour_that_is_replaced_meanwhile(any_lake: Lake, moment: str) -> None:
    """What it changed is written again; neither of the two fails."""
    lake = filled(any_lake)
    heard = rewritten_while(lake, moment, lambda: lake.put(TEN, [50]))
    assert lake.rows() == {**{hour.key: [n, n + 100] for n, hour in enumerate(FEW)}, TEN.key: [50]}
    assert names(heard, "manifests.written") == (1 if moment == "manifests.planned" else 2)
    assert lake.unreached() == lake.missing() == set()
    assert rewritten(lake).commit is None or manifest_count(lake) <= 2


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_compaction_meanwhile(lake: Lake, moment: str) -> None:
    """It is committed, and so is the rewrite."""
    put(lake, TEN, [[number] for number in range(6)])
    done = list[Any]()
    rewritten_while(lake, moment, lambda: done.extend(compacted(lake).values()))
    assert [each.error for each in done] == [None]
    assert lake.rows()[TEN.key] == list(range(6))
    assert len(lake.now.live(TEN)) == 1
    assert lake.missing() == set()


def test_only_what_changed_is_written_again(lake: Lake) -> None:
    """What was written of manifests that a rival did not touch is taken over."""
    with lake.now.table.update_spec() as update:
        update.add_identity("name")
    later = hours_after(TEN, 30)[-2:]
    for hour in later:
        lake.put(hour, [50])
    assert len(look(lake.now).groups) == 2
    heard = rewritten_while(lake, "commit.sent", lambda: lake.put(later[0], [1]))
    assert names(heard, "manifests.written") == 3
    assert lake.rows()[later[0].key] == [1]
    assert manifest_count(lake) == 2
    assert lake.unreached() == lake.missing() == set()


def test_a_rival_that_does_the_same(lake: Lake) -> None:
    """Whoever's lease was taken over in the middle of a commit finds nothing left to do, and removes its files."""
    before = live_entries(lake)
    rewritten_while(lake, "commit.sent", lambda: rewritten(lake, "rival"))
    assert live_entries(lake) == before
    assert manifest_count(lake) == 1
    assert lake.unreached() == lake.missing() == set()


def test_a_store_that_is_away_costs_no_manifest(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a try took over from the one before it stays where that try is not sent: the next one takes it over."""
    check, asked = Held.check, list[bool]()

    def away_once(held: Held) -> None:
        asked.append(True)
        if len(asked) == 2:
            raise TransientError("no answer")
        check(held)

    monkeypatch.setattr(Held, "check", away_once)
    heard = rewritten_while(lake, "commit.sent", lambda: lake.append(rows_of(TEN, [50])))
    assert (len(asked), names(heard, "manifests.written")) == (3, 1)
    assert lake.rows()[TEN.key] == [0, 50, 100]
    assert lake.unreached() == lake.missing() == set()


# ---------------------------------------------------------------------------------------------------------------------
# What a rewrite that was killed has left
# ---------------------------------------------------------------------------------------------------------------------

STRUCK = ["maintenance.began", "manifests.planned", "manifests.written", "commit.sent", "commit.landed"]


class Struck(Exception):  # noqa: N818  # no error of ours
    """Something that nobody expects."""


@pytest.mark.parametrize("at", STRUCK)
def test_what_fails_in_the_middle_leaves_nothing(any_lake: Lake, at: str) -> None:
    """The next run takes away whatever is left, and leaves what landed."""
    lake = filled(any_lake)
    before = live_entries(lake)

    def strike() -> None:
        raise Struck

    with pytest.raises(Struck):
        rewritten_while(lake, at, strike)
    rewritten(lake)
    assert live_entries(lake) == before
    assert manifest_count(lake) == 1
    assert lake.unreached() == lake.missing() == set()


@pytest.mark.parametrize("at", STRUCK)
def test_what_is_killed_leaves_nothing(lake: Lake, at: str) -> None:
    """Nor does a process that could not even give its lease back; others that maintain the table can see to it."""
    before, rows = live_entries(lake), lake.rows()
    process = multiprocessing.get_context("spawn").Process(
        target=LoneRewrite(dict(lake.catalog.properties), lake.identifier, at)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    left = lake.unreached()
    assert bool(left) == (at in {"manifests.written", "commit.sent"})
    with maintaining(lake.now, "sweep", "next", lambda _run_id: True) as held:
        assert left == set(remove_left_manifests(lake.now, held.turn))
        assert remove_left_manifests(lake.now, held.turn) == ()
    assert lake.unreached() == lake.missing() == set()
    rewritten(lake)
    assert live_entries(lake) == before
    assert lake.rows() == rows
    assert manifest_count(lake) == 1


def test_a_rewrite_on_its_way_is_fenced(tmp_path: Path) -> None:
    """Whoever removes what a killed one has left moves `main` first: its commit is refused when it arrives."""
    place = {"uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"file://{tmp_path}/w"}
    late = list[Send]()

    def hold(send: Send) -> CommitTableResponse:
        late.append(send)
        raise KeyboardInterrupt

    with closing(ScriptedCatalog("scripted", **place)) as scripted:
        lake = filled(Lake.create(scripted))
        rows, scripted.script = lake.rows(), [hold]
        with pytest.raises(KeyboardInterrupt):
            rewritten(lake, "killed")
        with maintaining(lake.now, "sweep", "next", lambda _run_id: True) as held:
            assert len(remove_left_manifests(lake.now, held.turn)) == 2  # a manifest and its list
        with pytest.raises(CommitFailedException):
            late[0]()
        assert (lake.rows(), lake.missing(), lake.unreached()) == (rows, set(), set())


def test_lists_that_lie_are_refused(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest without an entry that the list counts is not written anew; nothing is left."""
    monkeypatch.setattr("lakehouse_pipeline.iceberg.regrouping.read_entries", lambda *_: iter(()))
    with pytest.raises(SafetyError, match="has 0 live entries, and the manifest list says 1"):
        rewritten(lake)
    assert lake.unreached() == set()


# ---------------------------------------------------------------------------------------------------------------------
# The plan
# ---------------------------------------------------------------------------------------------------------------------


def manifest(low: float, high: float, share: float, **told: Any) -> HeadManifest:
    """Describe a manifest of some hours, and of a share of the target."""
    size = HEADER + round(share * (TARGET - HEADER))
    given = {"path": f"{low}-{high}-{share}-{told}", "spec_id": 0, "deletes": False, "live": 1000, **told}
    span = HourSpan(low, high, exact=False)
    return HeadManifest(span=span, bytes=size, header=HEADER, target=TARGET, **given)


FULL = [manifest(0, 9, 1.0), manifest(10, 19, 1.4), manifest(19, 30, 0.8)]
PLANS = {
    "well placed": (FULL, []),
    "one small": ([*FULL, manifest(31, 32, 0.1)], []),
    "small ones beside each other": ([*FULL, manifest(31, 32, 0.1), manifest(33, 34, 0.1)], [(2, 1)]),
    "small ones apart": ([manifest(-5, -1, 0.1), *FULL, manifest(33, 34, 0.1)], []),
    "small ones that fewer would not do": ([manifest(0, 1, 0.7), manifest(2, 3, 0.7)], []),
    "too large": ([manifest(0, 30, 2.5)], [(1, 3)]),
    "one entry": ([manifest(0, 0, 2.5, live=1)], []),
    "two in an hour": ([FULL[0], manifest(4, 5, 0.1), FULL[1]], []),
    "three in an hour": ([*FULL, manifest(4, 5, 0.1), manifest(4, 4, 0.2)], [(3, 2)]),
    "an hour that is large": ([manifest(4, 4, 1.0, path=str(place)) for place in range(9)], []),
    "mostly deleted": ([manifest(0, 3, 1, live=10, dead=990), manifest(4, 5, 0.1)], [(2, 1)]),
    "other specs": ([manifest(0, 3, 0.1), manifest(4, 5, 0.1, spec_id=1), manifest(4, 5, 0.1, deletes=True)], []),
    "of any hour": ([manifest(ANY.low, ANY.high, 1.0, path=str(place)) for place in range(9)], []),
    "of any hour, small": ([manifest(ANY.low, ANY.high, 0.1, path=str(place)) for place in range(9)], [(9, 1)]),
}


@pytest.mark.parametrize(("manifests", "groups"), PLANS.values(), ids=PLANS)
def test_plans(manifests: list[HeadManifest], groups: list[tuple[int, int]]) -> None:
    """Only what becomes better is written anew: how many manifests, and how many they become."""
    plan = plan_manifests(manifests)
    assert [(len(group.manifests), group.outputs) for group in plan.groups] == groups
    assert plan.kept == len(manifests) - plan.manifests


SPANS = st.tuples(st.integers(0, 30), st.integers(0, 12), st.floats(0.01, 3.0))


@given(st.lists(SPANS, max_size=25))
def test_what_is_kept_is_not_crowded(drawn: list[tuple[int, int, float]]) -> None:
    """No hour is in more than two of the manifests that stay, full ones of it alone aside; no two groups share one."""
    given_ = [manifest(low, low + more, share, path=str(place)) for place, (low, more, share) in enumerate(drawn)]
    plan = plan_manifests(given_)
    taken = [each.path for group in plan.groups for each in group.manifests]
    assert len(taken) == len(set(taken))
    kept = [each for each in given_ if each.path not in taken]
    alone = [each for each in kept if each.span.low == each.span.high and each.bytes >= 0.75 * TARGET]
    for hour in range(50):
        assert sum(each.span.meets((hour,)) for each in kept if each not in alone) <= 2


# ---------------------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------------------


def test_the_command(project: Project) -> None:
    """It says what it would do, what it did, and that there is nothing more to do."""

    def typed(*words: str) -> str:
        done = CliRunner().invoke(main, ["manifests", "events", *words, "-c", str(project.folder / "lakehouse.yaml")])
        assert done.exit_code == 0, done.stderr
        return done.stdout

    def answered(*words: str) -> Any:
        return json.loads(typed(*words, "--json"))

    hours = hours_after(TEN, 3)
    for hour in hours:
        project.land(hour.key, [row(hour.key, 1)])
        project.run(hour.key)
    first, group = typed("--dry-run").splitlines()
    assert first.startswith("events: 3 manifests of 1")
    assert first.endswith(" KB, with 3 entries, into about 1; 0 stay as they are")
    assert group == "  3 into about 1: 1 would do"
    assert answered("--dry-run") == {
        "table": "events",
        "dry_run": True,
        "manifests": 3,
        "outputs": 1,
        "entries": 3,
        "kept": 0,
        "bytes": answered("--dry-run")["bytes"],
        "groups": [{"manifests": 3, "outputs": 1, "why": "1 would do"}],
    }
    *_, last = typed().splitlines()
    assert last == f"  3 manifests are 1 now, 0 are as they were, in snapshot {project.table.head}"
    assert typed() == "events: all manifests are well placed (1)\n"
    told = answered()
    assert (told["snapshot_id"], told["created"], told["replaced"], told["left_removed"]) == (None, 0, 0, [])

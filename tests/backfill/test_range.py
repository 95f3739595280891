"""Many hours in one process: each ends by itself, sealed ones share snapshots, and a stop leaves nothing open."""

import json
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill import range as ranges
from lakehouse_pipeline.backfill.halt import Halt
from lakehouse_pipeline.backfill.hour import commit_hours, seal_hour
from lakehouse_pipeline.backfill.hour_result import HourResult
from lakehouse_pipeline.backfill.hour_run import Bench, HourRun
from lakehouse_pipeline.backfill.plan import NoSourceError
from lakehouse_pipeline.backfill.range import HourDeadlineError, hours_in_flight, run_range
from lakehouse_pipeline.backfill.sealed import offered_by_others
from lakehouse_pipeline.config.backfill import BackfillSettings
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.engines.sessions import LazySession
from lakehouse_pipeline.errors import CommitConflictError, DataError, LakehouseError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.status.picture import table_status
from lakehouse_pipeline.testing.faults import FaultServer
from tests.backfill.lone_runs import WITHIN_S, Lone, start_of
from tests.backfill.sail_runs import Outcomes, SailRun, settings
from tests.iceberg.lake import hours_after
from tests.projects import HOUR, Project, row, strays

HOURS = hours_after(HourWindow.from_key(HOUR), 6)
SECOND = HOURS[1]
FAR = 1e9  # seconds: longer than anything that a test does


def land(project: Project, hours: Sequence[HourWindow] = HOURS) -> None:
    """Land hours of two rows each, whose ids tell the hour."""
    for place, hour in enumerate(hours):
        project.land(hour.key, [row(hour.key, 10 * place), row(hour.key, 10 * place + 1)])


def run(
    project: Project, asked: BackfillSettings, hours: Sequence[HourWindow] = HOURS, apart_s: float = 0.0
) -> Outcomes:
    """Run hours, each of which ends once."""
    ended: Outcomes = {}

    def heard(hour: HourWindow, outcome: HourResult | LakehouseError) -> None:
        assert hour not in ended
        ended[hour] = outcome

    session = LazySession(project.lakehouse.engine, "range")
    try:
        run_range(project.bench(), hours, asked, heard, apart=session.apart, apart_s=apart_s)
    finally:
        session.close()
    return ended


def errors(ended: Outcomes) -> dict[HourWindow, type[LakehouseError]]:
    """Give the hours that failed."""
    return {hour: type(outcome) for hour, outcome in ended.items() if isinstance(outcome, LakehouseError)}


def steps(ended: Outcomes) -> dict[HourWindow, str]:
    """Give what was done for the hours that ended well."""
    return {hour: outcome.step for hour, outcome in ended.items() if isinstance(outcome, HourResult)}


@pytest.mark.parametrize("at_once", [1, 3])
def test_sealed_hours_share_snapshots(project: Project, at_once: int) -> None:
    """Six hours, committed by two: three snapshots, every row, and nothing beside them."""
    land(project)
    ended = run(project, settings(at_once, together=2))
    assert errors(ended) == {}
    assert project.ids() == [10 * place + each for place in range(6) for each in (0, 1)]
    assert len(project.table.table.snapshots()) == 3
    assert len({outcome.snapshot_id for outcome in ended.values() if isinstance(outcome, HourResult)}) == 3
    assert strays(project.table) == set()
    assert set(steps(run(project, settings())).values()) == {"skip"}


def test_an_old_seal_does_not_wait_for_company(project: Project) -> None:
    """Sealed hours are committed after their time, however few there are: one that is at work does not hold them up."""
    land(project)
    slow, committed = HOURS[-1], threading.Event()

    def heard(event: events.Event) -> None:
        if event.name == "hour.finished":
            committed.set()
        elif (event.name, event.hour) == ("attempt.opened", slow.key):
            committed.wait(WITHIN_S)

    with events.subscribed(heard):
        assert errors(run(project, settings(at_once=6, seconds=1))) == {}
    assert len(project.table.table.snapshots()) > 1


def test_a_failed_hour_costs_an_hour(project: Project) -> None:
    """The others are committed together; the failed one leaves nothing, and is all that the next run does."""
    land(project)
    project.write(f"raw/2013/01/01/{SECOND.start:%H}.jsonl", "{")
    assert errors(run(project, settings())) == {SECOND: DataError}
    assert len(project.table.table.snapshots()) == 1
    assert strays(project.table) == set()
    project.land(SECOND.key, [row(SECOND.key, 10), row(SECOND.key, 11)])
    assert steps(run(project, settings())) == {hour: "run" if hour == SECOND else "skip" for hour in HOURS}
    assert project.ids(SECOND.key) == [10, 11]


def test_an_hour_that_was_taken_does_not_stop_its_company(project: Project) -> None:
    """Between its seal and the commit another run takes an hour over: the others land without it."""
    land(project)
    asked = settings(at_once=1)
    told = [SECOND.key]

    def heard(event: events.Event) -> None:
        if told and (event.name, event.hour) == ("attempt.sealed", HOURS[-1].key):
            project.run(told.pop(), others_are_over=True)

    with events.subscribed(heard):
        ended = run(project, asked)
    assert set(errors(ended)) == {SECOND}
    assert project.ids() == [10 * place + each for place in range(6) for each in (0, 1)]
    assert len(project.table.table.snapshots()) == 2
    assert strays(project.table) == set()


def with_views(project: Project) -> Project:
    """Land hours for a transform in SQL, which finds its inputs by the names of views."""
    columns = "{at: timestamptz!, id: long!, size: double}"
    project.describe({"transform": "t.sql", "columns": columns, "accepts": "[integer_overflow]"})
    project.write("tables/t.sql", "SELECT s.at, s.id, double(t.id) AS size FROM source s JOIN source t ON s.id = t.id")
    land(project)
    return project


def test_views_are_the_hours_own(project: Project) -> None:
    """Hours that overlap read their own rows: names of views are not shared between them."""
    assert errors(run(with_views(project), settings(at_once=4))) == {}
    _holds_all(project)


def test_views_are_the_hours_own_on_sail(project: Project) -> None:
    """So over Spark Connect, where each hour in flight has a session of its own."""
    project.write("lakehouse.yaml", (project.folder / "lakehouse.yaml").read_text().replace("local[2]", "sail"))
    with Lone(SailRun(with_views(project).folder, HOURS, at_once=4)) as lone:
        assert lone.ended() == {}
    _holds_all(project)


def _holds_all(project: Project) -> None:
    assert [each["size"] for each in project.rows("at", "id", "size")] == [float(each) for each in project.ids()]
    assert project.ids() == [10 * place + each for place in range(6) for each in (0, 1)]


def test_requests_are_counted_by_hour(
    project: Project, seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What S3 was asked by hours that overlap, and by their commits, adds up to what it was asked at all.

    The turn to commit is the table's, and no hour's.
    """
    monkeypatch.setattr("lakehouse_pipeline.backfill.range.offered_by_others", lambda *_, **__: [])
    project.describe({"table": f"n{uuid.uuid4().hex[:8]}.events"})
    with FaultServer(seaweed.endpoint) as wire:
        catalog = seaweed.catalog_properties() | {"s3.endpoint": wire.endpoint}
        project.write("lakehouse.yaml", f"catalog: {json.dumps(catalog)}\nengine: local[2]\n")
        land(project)
        project.run(HOURS[0].key)  # makes the table
        began = len(wire.exchanges)
        ended = run(project, settings(at_once=3), HOURS[1:])
        asked = sum("committer.json" not in each.path for each in wire.exchanges[began:])
    assert sum(each.requests.requests for each in ended.values() if isinstance(each, HourResult)) == asked


@pytest.fixture
def halts(monkeypatch: pytest.MonkeyPatch) -> dict[HourWindow, Halt]:
    """Give what ends each hour that has been begun, in the order of their begins."""
    begun: dict[HourWindow, Halt] = {}

    def remembered(bench: Bench, hour: HourWindow, *, force: bool, halt: Halt) -> HourResult | HourRun:
        begun[hour] = halt
        return seal_hour(bench, hour, force=force, halt=halt)

    monkeypatch.setattr(ranges, "seal_hour", remembered)
    return begun


def test_a_stop_leaves_nothing_open(
    project: Project, halts: dict[HourWindow, Halt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle: what is open is closed, what is sealed stays so, and the next run commits that."""
    monkeypatch.setattr(ranges, "ENDS_WITHIN_S", FAR)
    land(project)
    opened = threading.Event()

    def slow(event: events.Event) -> None:
        if (event.name, event.hour) == ("attempt.opened", SECOND.key):
            opened.set()
            halts[SECOND]._asked.wait(WITHIN_S)
        elif (event.name, event.hour) == ("hour.planned", HOURS[2].key):
            opened.wait(WITHIN_S)

    def heard(_hour: HourWindow, _outcome: HourResult | LakehouseError) -> None:
        raise KeyboardInterrupt

    session = LazySession(project.lakehouse.engine, "range")
    project.write(f"raw/2013/01/01/{HOURS[2].start:%H}.jsonl", "{")  # fails, and is heard
    with events.subscribed(slow), pytest.raises(KeyboardInterrupt):
        run_range(project.bench(), HOURS[:3], settings(), heard, apart=session.apart)
    session.close()
    states = {hour: project.record(hour.key) for hour in HOURS[:3]}
    assert {record.state for record in states.values()} <= {"idle", "sealed"}
    outcome = states[SECOND].outcome
    assert outcome is not None
    assert (states[SECOND].state, outcome.kind) == ("idle", "cancelled")
    project.land(HOURS[2].key, [row(HOURS[2].key, 20), row(HOURS[2].key, 21)])
    assert errors(run(project, settings())) == {}
    assert project.ids() == [10 * place + each for place in range(6) for each in (0, 1)]
    assert strays(project.table) == set()


def test_a_stop_as_a_commit_begins(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between taking sealed hours and committing them: they are told as sealed, and no hour seems to run on."""
    land(project)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    session = LazySession(project.lakehouse.engine, "range")
    with monkeypatch.context() as patched:
        patched.setattr("lakehouse_pipeline.backfill.range.commit_hours", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_range(project.bench(), HOURS, settings(2, together=2), lambda *_: None, apart=session.apart)
    session.close()
    spec = project.lakehouse.spec("events")
    counts = table_status(spec, project.warehouse.find(spec), HOURS).counts
    assert counts["sealed"] >= 2
    assert set(counts) <= {"sealed", "cancelled", "not requested"}
    assert errors(run(project, settings())) == {}
    assert project.ids() == [10 * place + each for place in range(6) for each in (0, 1)]
    assert strays(project.table) == set()


def test_a_deadline_costs_an_hour(
    project: Project, halts: dict[HourWindow, Halt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour that takes too long fails, says so, and leaves nothing; the others do not notice.

    The clock goes on by an hour whenever one has ended: four have, beside the one that takes too long. The last, which
    began after three of them, is still at work then.
    """
    land(project)
    finished: list[str] = []
    monkeypatch.setattr(ranges, "time", SimpleNamespace(monotonic=lambda: 3600.0 * len(finished)))

    def slow(event: events.Event) -> None:
        if event.name == "hour.finished":
            finished.append(event.hour)
        elif event.name == "attempt.opened" and event.hour in {SECOND.key, HOURS[-1].key}:
            halts[SECOND]._asked.wait(WITHIN_S)

    asked = settings(at_once=2, together=1).model_copy(update={"hour_deadline": timedelta(hours=3, minutes=30)})
    with events.subscribed(slow):
        ended = run(project, asked)
    assert errors(ended) == {SECOND: HourDeadlineError}
    assert project.record(SECOND.key).state == "idle"
    assert strays(project.table) == set()


def test_hours_in_flight() -> None:
    """What is set, or the cores; never more than there are hours."""
    assert hours_in_flight(settings(7), 456) == 7
    assert hours_in_flight(settings(7), 3) == 3
    assert 1 <= hours_in_flight(BackfillSettings(), 456) <= 4


# ---------------------------------------------------------------------------------------------------------------------
# Hours that begin apart
# ---------------------------------------------------------------------------------------------------------------------


def test_the_second_hour_begins_later(project: Project) -> None:
    """One at a time while its time has not come, though there are places for three; and yet all of them are done."""
    land(project)
    told: list[tuple[str, str]] = []

    def heard(event: events.Event) -> None:
        if event.name in {"hour.planned", "attempt.sealed"}:
            told.append((event.hour, event.name))

    with events.subscribed(heard):
        ended = run(project, settings(at_once=3), apart_s=FAR)
    assert steps(ended) == dict.fromkeys(HOURS, "run")
    assert told == [(hour.key, name) for hour in HOURS for name in ("hour.planned", "attempt.sealed")]


def test_hours_that_begin_apart_overlap(project: Project, halts: dict[HourWindow, Halt]) -> None:
    """The first three are at work together, begun in their order."""
    land(project)
    together = threading.Barrier(3)

    def heard(event: events.Event) -> None:
        if event.name == "attempt.opened" and event.hour in {hour.key for hour in HOURS[:3]}:
            together.wait(120)

    with events.subscribed(heard):
        ended = run(project, settings(at_once=3), apart_s=0.5)
    assert list(halts)[:3] == list(HOURS[:3])
    assert not together.broken
    assert steps(ended) == dict.fromkeys(HOURS, "run")


def test_a_place_goes_on_without_a_sealed_hour(project: Project) -> None:
    """Hours that are skipped, that fail or that have no source make room for those that come after them."""
    land(project, [hour for hour in HOURS if hour != HOURS[2]])
    project.run(HOURS[0].key)
    project.write(f"raw/2013/01/01/{SECOND.start:%H}.jsonl", "{")
    ended = run(project, settings(at_once=4), apart_s=FAR)
    assert errors(ended) == {SECOND: DataError, HOURS[2]: NoSourceError}
    assert steps(ended) == {HOURS[0]: "skip", **dict.fromkeys(HOURS[3:], "run")}


def test_a_range_of_which_every_hour_fails_ends(project: Project) -> None:
    """Each hour has its turn, and is heard of."""
    assert errors(run(project, settings(at_once=4), apart_s=FAR)) == dict.fromkeys(HOURS, NoSourceError)


# ---------------------------------------------------------------------------------------------------------------------
# Many runs of one table
# ---------------------------------------------------------------------------------------------------------------------

HOURS_EACH = 3


@pytest.mark.parametrize("many", [8, pytest.param(20, marks=pytest.mark.full)])
def test_many_runs_of_one_table(project: Project, seaweed: SeaweedServer, many: int) -> None:
    """All their hours land, whoever commits them; no run hears of a conflict, and snapshots are shared."""
    project.write("lakehouse.yaml", f"catalog: {json.dumps(seaweed.catalog_properties())}\nengine: sail\n")
    project.describe({"table": f"n{uuid.uuid4().hex[:8]}.events", "end": "2013-02-01"})
    days = hours_after(HourWindow.from_key("2013-01-01-00:00"), many * HOURS_EACH)
    for place, hour in enumerate(days):
        project.land(hour.key, [row(hour.key, place)])
    spec = project.lakehouse.spec("events")
    assert spec.source.columns
    project.warehouse.create(spec, spec.source.columns)
    with ExitStack() as running:
        shares = [days[place * HOURS_EACH :][:HOURS_EACH] for place in range(many)]
        start = start_of(many)  # else those that have started first may be done before others have
        work = [SailRun(project.folder, share, 1, f"run {place}", start) for place, share in enumerate(shares)]
        runs = [running.enter_context(Lone(each)) for each in work]
        assert [run.ended() for run in runs] == [{}] * many
    table = project.table.table
    assert sorted(table.scan().to_arrow()["id"].to_pylist()) == list(range(len(days)))
    assert len(table.snapshots()) <= many // 2  # one for each run is what runs that commit for themselves need
    assert strays(project.table) == set()


def test_what_was_offered_is_taken_back(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the committer is gone, the run that offered its hours commits them itself, once the turn is free."""
    land(project)
    project.run(HOURS[0].key)
    turn = project.table.ledger.turn("committer", "gone")
    assert turn.take(lambda _run_id: False)
    offer, offered, over = HourRun.offer, list[HourRun](), list[str]()

    def ends_after_the_last(hour: HourRun) -> None:
        offer(hour)
        offered.append(hour)
        if len(offered) == len(HOURS) - 1:
            over.append("gone")

    monkeypatch.setattr(HourRun, "offer", ends_after_the_last)
    bench = replace(project.bench("here"), is_over=lambda run_id: run_id in over)
    ended: Outcomes = {}
    session = LazySession(project.lakehouse.engine, "range")
    run_range(bench, HOURS, settings(), ended.__setitem__, apart=session.apart)
    assert errors(ended) == {}
    assert project.ids() == [10 * place + each for place in range(6) for each in (0, 1)]
    assert strays(project.table) == set()


@pytest.mark.parametrize("heard", [True, False], ids=["heard", "answer lost"])
def test_what_was_offered_is_committed_by_another(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    heard: bool,  # noqa: FBT001  # a table's column
) -> None:
    """A run that waits for a committer hears of its hours when that has committed them, without a commit of its own.

    Also where the answer to its offer was lost, and the hour was taken before it asked again, which is refused then.
    """
    offer = HourRun.offer

    def unheard(hour: HourRun) -> None:
        offer(hour)
        raise CommitConflictError("another run took it over")

    if not heard:
        monkeypatch.setattr(HourRun, "offer", unheard)
    land(project)
    project.run(HOURS[0].key)
    turn = project.table.ledger.turn("committer", "other")
    assert turn.take(lambda _run_id: False)
    committed: list[int] = []

    def commit_offered() -> None:
        while sum(committed) < len(HOURS) - 1:
            time.sleep(0.2)
            hands = offered_by_others(project.table, "other", lambda _run_id: False)
            if hands:
                committed.append(len(hands))
                commit_hours([], hands)

    other = threading.Thread(target=commit_offered, daemon=True)
    other.start()
    ended = run(project, settings())
    other.join(WITHIN_S)
    assert errors(ended) == {}
    assert sum(committed) == len(HOURS) - 1
    assert project.ids() == [10 * place + each for place in range(6) for each in (0, 1)]
    assert strays(project.table) == set()

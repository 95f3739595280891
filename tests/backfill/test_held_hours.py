"""An hour is held by lease: renewed in the background, waited for, taken over, and given up when its record is gone."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from signal import SIGKILL

import pytest

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill.halt import Halt
from lakehouse_pipeline.backfill.hour import run_hour
from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.errors import CommitConflictError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.ledger.leases import LEASE
from tests.backfill.lone_runs import WAIT, WITHIN_S, Lone, Run, Told, shorten_leases
from tests.projects import HOUR, Project, row, strays

OFTEN = timedelta(seconds=0.1)
WINDOW = HourWindow.from_key(HOUR)
IDS = list(range(40))
LOSING = """\
import time
from pathlib import Path

HERE = Path(__file__).parent


def lose(source):
    def slowly(batches):
        for batch in batches:
            (HERE / "begun").touch()
            for _ in range(600):
                time.sleep(0.1)
            (HERE / "ended").touch()
            yield batch

    # Before the first job: what is lost now is noticed when there is nothing to end yet.
    (record,) = HERE.parent.glob("warehouse/lake/events/_lakehouse/*/hours/*.json")
    record.unlink()
    return source.mapInArrow(slowly, source.schema)
"""


@pytest.fixture
def local(project: Project) -> Project:
    """Give a project whose hours are eight files."""
    project.write("lakehouse.yaml", (project.folder / "lakehouse.yaml").read_text().replace("local[2]", "sail"))
    project.describe({"partition": "[bucket(8, id)]"})
    project.land(HOUR, [row(HOUR, number) for number in IDS])
    return project


@pytest.fixture
def holder(local: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lone[Told]]:
    """Give a run, in another process, that is in the middle of its files until it may go on."""
    shorten_leases(monkeypatch, LEASE, OFTEN)
    with Lone(Run(local.folder, HOUR, puts={3: WAIT}, renew_every=OFTEN)) as first:
        first.waits()
        yield first


def _until(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + WITHIN_S
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.02)


def _holds_only(project: Project, ids: list[int]) -> None:
    assert project.ids() == ids
    close_attempts(project.table, lambda _run_id: True, grace=timedelta(0))
    assert strays(project.table) == set()
    assert [Path(file).name for file in project.files("_lakehouse")] == ["2013-01-01-10.json"]


def test_a_lease_is_renewed_while_the_hour_runs(local: Project, holder: Lone[Told]) -> None:
    """While tasks are at work the record is written again and again, and says what the run is doing."""
    before = local.record().version
    _until(lambda: local.record().version >= before + 5)
    record = local.record()
    assert (record.state, record.stage, record.attempt and record.attempt.run_id) == ("open", "etl", "first")
    holder.stops_waiting()
    assert holder.ended().step == "run"
    _holds_only(local, IDS)


def test_a_held_hour_is_waited_for(
    local: Project, holder: Lone[Told], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run says once whom it waits for; when the first has committed, there is nothing left to do."""
    attempt = local.record().attempt
    looked: list[float] = []

    def look_again(halt: Halt, seconds: float) -> None:
        looked.append(seconds)
        if len(looked) == 3:
            holder.stops_waiting()
        wait(halt, seconds)

    wait = Halt.wait
    monkeypatch.setattr(Halt, "wait", look_again)
    with caplog.at_level(logging.WARNING, "lakehouse_pipeline.backfill.hour_run"):
        result = run_hour(local.bench("second"), WINDOW)
    first = holder.ended()
    assert attempt is not None
    (said,) = [record.getMessage() for record in caplog.records if "is held by" in record.getMessage()]
    # The stage is that of the last renewal; there need not have been one yet.
    assert re.search(rf"held by run first \((opened|etl), attempt {attempt.id}\)", said)
    assert (result.step, result.attempt, first.attempt) == ("skip", attempt.id, attempt.id)
    assert len(looked) >= 3
    _holds_only(local, IDS)


def test_an_hour_of_a_run_that_is_over_is_taken_at_once(local: Project) -> None:
    """However young the lease is: the orchestrator knows better; should the first be alive, it is told and stops."""
    with Lone(Run(local.folder, HOUR, puts={3: WAIT})) as first:
        first.waits()
        with Lone(Run(local.folder, HOUR, "second", at={"hour.waits": SIGKILL}, others_are_over=True)) as second:
            took = second.ended()
        first.stops_waiting()
        told = first.ended()
    assert (took.step, took.message) == ("run", "")
    assert told.error == "CommitConflictError"
    assert [committed.attempt for committed in [local.record().committed] if committed] == [took.attempt]
    _holds_only(local, IDS)


def test_a_renewal_in_between_is_no_conflict(local: Project) -> None:
    """The holder writes its record when the next run is about to take the hour: that one looks again, and takes it."""
    with Lone(Run(local.folder, HOUR, at={"attempt.sealed": SIGKILL})) as first:
        first.killed()
    sealed, planned = local.record().attempt, list[events.Event]()
    assert sealed is not None

    def renew(event: events.Event) -> None:
        if event.name == "hour.planned":
            planned.append(event)
            if len(planned) == 1:
                local.table.ledger.hour(WINDOW).renew(sealed.id, "seal")

    with events.subscribed(renew):
        result = run_hour(local.bench("second", others_are_over=True), WINDOW)
    assert (result.step, result.attempt, len(planned)) == ("resume", sealed.id, 2)
    _holds_only(local, IDS)


def test_a_run_whose_record_is_gone_stops(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The renewal finds out and ends the tasks, long before they would have ended; nothing stays."""
    shorten_leases(monkeypatch, LEASE, OFTEN)
    project.describe({"transform": "t_losing:lose", "columns": "{at: timestamptz!, id: long!, size: double}"})
    project.write("tables/t_losing.py", LOSING)
    project.land(HOUR, [row(HOUR, number) for number in IDS])
    with pytest.raises(CommitConflictError, match="was removed meanwhile"):
        project.run()
    assert not (project.folder / "tables/ended").exists()
    assert project.ids() == []
    close_attempts(project.table, lambda _run_id: True, grace=timedelta(0))
    assert strays(project.table) == set()
    assert project.files("_lakehouse") == set()

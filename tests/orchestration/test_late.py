"""What lands late: the hours that it belongs to run again, once, and no other does."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from lakehouse_pipeline.backfill.late import changed_hours, late_window
from lakehouse_pipeline.hours import HourRange, HourWindow
from lakehouse_pipeline.orchestration import sensors
from tests.orchestration.runs import materialize
from tests.projects import HOUR, NEXT, THIRD, Project, row

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine

NOW = datetime(2013, 1, 2, 0, 20, tzinfo=UTC)
EMPTY = "{path: raw/%Y/%m/%d/%H*.jsonl, columns: {at: timestamptz!, id: long!, size: double}, missing: empty}"


@pytest.fixture
def committed(project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a project of three committed hours, some hours after they were over."""
    monkeypatch.setattr(sensors, "late_window", lambda spec: late_window(spec, NOW))
    for place, hour in enumerate((HOUR, NEXT, THIRD)):
        project.land(hour, [row(hour, place)])
    assert materialize(project, instance, HOUR, THIRD).success
    return project


def tick(
    project: Project, instance: dg.DagsterInstance, cursor: str | None = None
) -> tuple[dict[str | None, str | None], str | None]:
    """Let the sensor look; gives the run keys by hour, and the next cursor."""
    definitions = project.definitions()
    context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=definitions)
    told = definitions.resolve_sensor_def("events_late_files").evaluate_tick(context)
    return {request.partition_key: request.run_key for request in told.run_requests or ()}, told.cursor


def test_a_late_file_runs_its_hour_again(committed: Project, instance: dg.DagsterInstance) -> None:
    """That hour alone, under a key that changes with its objects: asking twice is asking once."""
    assert tick(committed, instance)[0] == {}
    committed.land(NEXT, [row(NEXT, 7)], name="-late.jsonl")
    first, again = tick(committed, instance)[0], tick(committed, instance)[0]
    assert list(first) == [NEXT]
    assert first == again
    assert materialize(committed, instance, NEXT).success
    assert committed.ids() == [0, 1, 2, 7]
    assert tick(committed, instance)[0] == {}
    committed.land(NEXT, [row(NEXT, 8), row(NEXT, 9)], name="-late.jsonl")
    assert set(tick(committed, instance)[0].values()).isdisjoint(first.values())


def test_the_cursor_goes_round(
    committed: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tick looks at so many hours; the next goes on, and begins anew at the end."""
    monkeypatch.setattr(sensors, "LISTINGS", 11)
    committed.land(NEXT, [row(NEXT, 7)], name="-late.jsonl")
    cursor, found = None, []
    for _ in range(5):
        asked, cursor = tick(committed, instance, cursor)
        found.append(list(asked))
    assert found == [[], [NEXT], [], [], [NEXT]]


def test_removed_files_empty_nothing(committed: Project) -> None:
    """Raw files are cleaned up after a while: their hours stay as they are."""
    committed.describe({"source": EMPTY})
    (committed.folder / "raw/2013/01/01/11.jsonl").unlink()
    spec = committed.lakehouse.spec("events")
    hours = [HourWindow.from_key(hour) for hour in (HOUR, NEXT, THIRD)]
    assert changed_hours(spec, committed.table, committed.warehouse.files, hours) == {}


def test_what_is_watched(project: Project) -> None:
    """As far back as `late` says, but not beyond the table's start and end, nor what is not over."""
    spec = project.lakehouse.spec("events")
    day = HourRange(HourWindow.from_key("2013-01-01-00:00"), HourWindow.from_key("2013-01-01-23:00"))
    assert late_window(spec, NOW) == day
    assert late_window(spec, NOW + timedelta(days=2, hours=12)) == HourRange(HourWindow.from_key(THIRD), day.last)
    assert late_window(spec, NOW + timedelta(days=30)) is None
    project.describe({"late": "never"})
    assert late_window(project.lakehouse.spec("events"), NOW) is None
    assert [each.name for each in project.definitions().sensors or () if "late" in each.name] == []


@pytest.mark.parametrize(
    ("lag", "cron", "at", "hour"),
    [
        (None, "0 * * * *", datetime(2013, 1, 1, 12, 0, tzinfo=UTC), NEXT),
        ("15min", "15 * * * *", datetime(2013, 1, 1, 12, 15, tzinfo=UTC), NEXT),
        ("90min", "30 * * * *", datetime(2013, 1, 1, 13, 30, tzinfo=UTC), NEXT),
        ("1d", "0 * * * *", datetime(2013, 1, 1, 12, 0, tzinfo=UTC), None),
    ],
)
def test_the_schedule_waits_for_late_files(  # noqa: PLR0917  # a case and its fixtures
    project: Project, instance: dg.DagsterInstance, lag: str | None, cron: str, at: datetime, hour: str | None
) -> None:
    """An hour is run once it is over and its lag has passed."""
    project.describe({"end": None, **({"lag": lag} if lag else {})})
    definitions = project.definitions()
    schedule = definitions.resolve_schedule_def("events_hourly")
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=at, repository_def=definitions.get_repository_def()
    )
    told = schedule.evaluate_tick(context)
    assert schedule.cron_schedule == cron
    asked = [request.partition_key for request in told.run_requests or ()]
    assert asked == ([hour] if hour else [])
    for key in asked:  # its run leaves that hour, and no other, in the table
        project.land(HOUR, [row(HOUR, 0)])
        project.land(str(key), [row(str(key), 1)])
        assert materialize(project, instance, str(key)).success
        assert project.ids() == [1]

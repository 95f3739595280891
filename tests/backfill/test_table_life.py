"""An hour in a table with a life of its own: fields beside the hour, files of earlier specs, a spec that moved on."""

from datetime import timedelta
from typing import Any

import pytest
from pyiceberg.transforms import DayTransform, HourTransform

from lakehouse_pipeline.backfill.checks import CheckFailedError
from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.errors import ConfigurationError, SafetyError, TransientError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from tests.projects import HOUR, NEXT, Project, row, strays

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine

BESIDE = '["bucket(4, id)", size]'


def hidden(project: Project) -> set[str]:
    """Name what lies in the ledger's folder beside the hours' records once the second pass was made."""
    close_attempts(project.table, lambda _run_id: False, grace=timedelta(0))
    return {name for name in project.files("_lakehouse") if "/hours/" not in name}


@pytest.fixture
def beside(project: Project) -> Project:
    """Give a project whose table is partitioned by more than the hour, with two hours in it."""
    project.describe({"partition": BESIDE})
    for hour in (HOUR, NEXT):
        project.land(hour, [row(hour, number, number % 2) for number in range(20)])
        project.run(hour)
    return project


def test_hours_are_replaced_in_all_their_partitions(beside: Project) -> None:
    """From Spark's rows to the table and back; nothing but the hour's files and records stays."""
    assert len(beside.table.live(HourWindow.from_key(HOUR))) >= 4
    assert beside.run(HOUR).step == "skip"
    beside.land(HOUR, [row(HOUR, 3, 1.0)])
    assert beside.run(HOUR).step == "run"
    assert (beside.ids(HOUR), beside.ids(NEXT)) == ([3], list(range(20)))
    assert (strays(beside.table), hidden(beside)) == (set(), set())


def test_a_failed_hour_leaves_no_file_in_any_partition(beside: Project) -> None:
    """Files that a check refused are removed wherever they lie, and so are the claims that tell where."""
    beside.describe({"key": "[id]"})
    beside.land(HOUR, [row(HOUR, number % 30, number % 2) for number in range(50)])
    with pytest.raises(CheckFailedError):
        beside.run(HOUR)
    assert (strays(beside.table), hidden(beside)) == (set(), set())
    assert beside.ids(HOUR) == list(range(20))


def test_a_file_across_hours_stops_the_hour(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is in the error; no engine is asked for, no attempt is opened and nothing is written."""
    for hour in (HOUR, NEXT):
        project.land(hour, [row(hour, 1)])
        project.run(hour)
    rows = project.table.table.scan().to_arrow()
    with project.table.table.update_spec() as update:
        update.remove_field("at_hour").add_field("at", DayTransform(), "at_day")
    project.catalog.load_table("lake.events").append(rows)
    with project.catalog.load_table("lake.events").update_spec() as update:
        update.remove_field("at_day").add_field("at", HourTransform(), "at_hour")
    before = project.files(""), project.catalog.load_table("lake.events").metadata_location

    def no_engine() -> Any:
        pytest.fail("the engine was asked for")

    monkeypatch.setattr(project, "session", no_engine)
    with pytest.raises(SafetyError, match=r"1 files of an earlier partition spec .*\.parquet.*rewrite_data_files"):
        project.run(HOUR, force=True)
    assert (project.files(""), project.catalog.load_table("lake.events").metadata_location) == before


def test_a_spec_that_moved_on_stops_the_hour_until_it_is_applied(beside: Project) -> None:
    """The run shows what differs and writes nothing; once applied, hours are written to the new shape."""
    columns = "{at: timestamptz!, id: long!, size: double, note: string}"
    beside.describe({"source": f"{{path: raw/%Y/%m/%d/%H*.jsonl, columns: {columns}}}", "sort": "[id]"})
    before = beside.files("")
    with pytest.raises(ConfigurationError, match=r"column note is not in the table(.|\n)*`lakehouse apply events`"):
        beside.run(HOUR)
    assert beside.files("") == before
    beside.warehouse.apply(beside.lakehouse.spec("events"), dry_run=False)
    beside.land(HOUR, [{**row(HOUR, 5), "note": "new"}])
    beside.run(HOUR)
    assert [each["note"] for each in beside.rows("at", "id", "note")] == ["new", *[None] * 20]
    assert strays(beside.table) == set()


@pytest.mark.parametrize(
    ("changed", "step"),
    [
        pytest.param({"properties": '{owner: "me"}'}, "resume", id="properties"),
        pytest.param({"partition": '["bucket(4, id)", size, "truncate(10, id)"]'}, "run", id="partition fields"),
        pytest.param(
            {
                "source": "{path: raw/%Y/%m/%d/%H*.jsonl, "
                "columns: {at: timestamptz!, id: long!, size: double, note: string}}"
            },
            "run",
            id="columns",
        ),
    ],
)
def test_sealed_attempts_and_a_changed_table(
    beside: Project, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str | None], step: str
) -> None:
    """What was sealed is committed if its rows are what they would be now, else thrown away with all of its files."""
    beside.land(HOUR, [row(HOUR, 7, 1.0)])

    def unreachable(*_: object, **__: object) -> None:
        raise TransientError("down")

    with monkeypatch.context() as patched:
        patched.setattr(HourlyTable, "replace", unreachable)
        with pytest.raises(TransientError):
            beside.run(HOUR)
    assert beside.record().state == "sealed"
    beside.describe(changed)
    beside.warehouse.apply(beside.lakehouse.spec("events"), dry_run=False)
    assert beside.run(HOUR).step == step
    assert (beside.ids(HOUR), strays(beside.table), hidden(beside)) == ([7], set(), set())

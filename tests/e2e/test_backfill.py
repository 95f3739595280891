"""A backfill as a person asks for it: the real webserver, the real daemon, runs in processes of their own."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from lakehouse_pipeline.cli.main import main
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.status.picture import TableStatus, table_status
from tests.e2e.page import dagster_dev
from tests.iceberg.lake import hours_after
from tests.projects import Project, row, strays

ROOT = Path(__file__).parents[2]
HOURS = hours_after(HourWindow.from_key("2013-01-01-00:00"), 48)
BAD = [HOURS[place] for place in (4, 9, 10, 23, 30)]  # a line that is no JSON
MISSING = [HOURS[place] for place in (17, 47)]  # no object
WITHIN_S = 240.0
# Seconds: Dagster's daemon looks every half minute, to begin, to cancel and to notice an end.
pytestmark = pytest.mark.timeout(600)
ROWS = 3  # of an hour


def land(project: Project, hours: Sequence[HourWindow]) -> None:
    """Land rows whose ids tell their hour."""
    for hour in hours:
        place = HOURS.index(hour)
        project.land(hour.key, [row(hour.key, ROWS * place + each) for each in range(ROWS)])


@pytest.fixture
def served(project: Project) -> Project:
    """Give a project on Sail with the files that `dagster dev` needs, whose raw files have faults in seven hours."""
    project.describe({"end": "2013-01-03"})
    project.write("lakehouse.yaml", (project.folder / "lakehouse.yaml").read_text().replace("local[2]", "sail"))
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, project.folder)
    land(project, [hour for hour in HOURS if hour not in MISSING])
    for hour in BAD:
        project.write(f"raw/{hour.start:%Y/%m/%d/%H}.jsonl", "{")
    return project


def test_a_backfill_of_48_hours(served: Project) -> None:
    """Seven hours fail with their reasons and no other does; re-executing runs only those; the table is the source."""
    with dagster_dev(served.folder) as page:
        first = page.launch([hour.key for hour in HOURS])
        assert page.ended(first, WITHIN_S) == {"targeted": 48, "inprogress": 0, "materialized": 41, "failed": 7}
        status = CliRunner().invoke(main, ["status", "events", "-c", str(served.folder / "lakehouse.yaml")]).stdout
        assert "41 committed · 5 failed · 2 no source" in status
        assert "    5  DataError: file://" in status
        assert "    2  NoSourceError: " in status
        land(served, [*BAD, *MISSING])
        second = page.again(first)
        assert page.ended(second, WITHIN_S) == {"targeted": 7, "inprogress": 0, "materialized": 7, "failed": 0}
    for place, hour in enumerate(HOURS):
        assert served.ids(hour.key) == [ROWS * place + each for each in range(ROWS)]
    assert len(served.table.table.snapshots()) < len(HOURS)
    assert strays(served.table) == set()


SLOW = """\
import time
from pathlib import Path

def slowly(source):
    if Path(__file__).with_name("slow").exists():
        time.sleep(4)
    return source
"""


def test_a_cancelled_backfill(served: Project) -> None:
    """The page's Cancel ends the run: hours are committed, sealed or closed, and the next backfill does the rest."""
    hours = HOURS[24:44]
    land(served, HOURS)
    served.write("tables/slow.py", SLOW)
    flag = served.write("tables/slow", "")
    columns = "{at: timestamptz!, id: long!, size: double}"
    served.describe({"transform": "slow:slowly", "columns": columns, "accepts": "[integer_overflow]"})
    settings = "backfill: {hours_in_flight: 2, commit_every: {hours: 2}}\n"
    served.write("lakehouse.yaml", (served.folder / "lakehouse.yaml").read_text() + settings)
    with dagster_dev(served.folder) as page:
        first = page.launch([hour.key for hour in hours])
        until = time.monotonic() + WITHIN_S
        while len(_picture(served).of(frozenset({"committed"}))) < 2:
            assert time.monotonic() < until, page.status(first)
            time.sleep(0.5)
        page.cancel(first)
        page.ended(first, WITHIN_S)
        picture = _picture(served)
        states = picture.counts
        assert set(states) <= {"committed", "sealed", "cancelled", "not requested"}, picture.hours
        assert 2 <= states["committed"] < len(hours)
        there = [HOURS.index(hour) for hour in _picture(served).of(frozenset({"committed"}))]
        assert served.ids() == [ROWS * place + each for place in there for each in range(ROWS)]
        flag.unlink()
        again = page.launch([hour.key for hour in hours])
        assert page.ended(again, WITHIN_S)["materialized"] == len(hours)
    assert served.ids() == [ROWS * HOURS.index(hour) + each for hour in hours for each in range(ROWS)]
    assert strays(served.table) == set()


def _picture(project: Project) -> TableStatus:
    spec = project.lakehouse.spec("events")
    return table_status(spec, project.warehouse.find(spec), HOURS)

"""Backfills whose daemon, page, or whole machine is stopped in the middle: they go on, and the table is right."""

import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.status.picture import table_status
from tests.e2e.page import dagster_dev, services, webserver_alone
from tests.iceberg.lake import hours_after
from tests.projects import Project, row, strays

ROOT = Path(__file__).parents[2]
HOURS = hours_after(HourWindow.from_key("2013-01-01-00:00"), 12)
PER_RUN = 6
FIRST_RUN = HOURS[:PER_RUN]
ROWS = 3  # of an hour
IN_FLIGHT = 2
WITHIN_S = 240.0
SETTINGS = f"""\
backfill: {{hours_in_flight: {IN_FLIGHT}, hours_per_run: {PER_RUN}, commit_every: {{hours: {IN_FLIGHT}}}}}
"""

# A gate: an hour passes when it finds a file to take away, or when the gate is open.
GATE = """\
import time
from pathlib import Path

GATE = Path(__file__).with_name("gate")

def taken(file):
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True

def one_by_one(source):
    while not (GATE / "open").exists() and not any(taken(file) for file in GATE.glob("pass-*")):
        time.sleep(0.1)
    return source
"""


@pytest.fixture
def gated(project: Project) -> Project:
    """Give a project on Sail whose hours stop at a gate once the first of them have passed it."""
    columns = "{at: timestamptz!, id: long!, size: double}"
    project.describe({"transform": "gate:one_by_one", "columns": columns, "accepts": "[integer_overflow]"})
    lakehouse = (project.folder / "lakehouse.yaml").read_text().replace("local[2]", "sail")
    project.write("lakehouse.yaml", lakehouse + SETTINGS)
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, project.folder)
    project.write("tables/gate.py", GATE)
    let_pass(project)
    for place, hour in enumerate(HOURS):
        project.land(hour.key, [row(hour.key, ROWS * place + each) for each in range(ROWS)])
    return project


def test_daemon_and_webserver_start_again(gated: Project) -> None:
    """A run goes on without either, and with the next ones; the run that waited in the queue is launched then."""
    dagster_yaml = (gated.folder / "dagster.yaml").read_text()
    gated.write("dagster.yaml", dagster_yaml.replace("max_concurrent_runs: 2", "max_concurrent_runs: 1"))
    with services(gated.folder) as dagster:
        backfill = dagster.page.launch([hour.key for hour in HOURS])
        dagster.daemon.start()
        wait_until(lambda: states(gated)["committed"] == IN_FLIGHT)
        wait_until(lambda: dagster.page.runs(backfill) == ["QUEUED", "STARTED"])
        dagster.daemon.end()
        dagster.webserver.end()
        let_pass(gated)
        wait_until(lambda: states(gated)["committed"] == 2 * IN_FLIGHT)
        dagster.start_webserver()
        assert dagster.page.runs(backfill) == ["QUEUED", "STARTED"]
        dagster.daemon.start()
        wait_until(lambda: "Checking run" in (gated.folder / "dagster.log").read_text())  # and finding it well
        gated.write("tables/gate/open", "")
        assert dagster.page.ended(backfill, WITHIN_S) == counted(HOURS)
        assert dagster.page.runs(backfill) == ["SUCCESS", "SUCCESS"]
    assert_right(gated, HOURS)


def test_everything_starts_again(gated: Project) -> None:
    """A shutdown, then a loss of power, end the run, too; each time the backfill goes on by itself afterwards."""
    with webserver_alone(gated.folder) as page:
        backfill = page.launch([hour.key for hour in FIRST_RUN])
    with dagster_dev(gated.folder, ends=signal.SIGTERM) as page:
        wait_until(lambda: states(gated)["committed"] == IN_FLIGHT and page.runs(backfill) == ["STARTED"])
        let_pass(gated)
    with dagster_dev(gated.folder, ends=signal.SIGKILL) as page:
        wait_until(lambda: page.runs(backfill) == ["FAILURE", "STARTED"] and states(gated)["running"] >= IN_FLIGHT)
    assert states(gated)["committed"] < len(FIRST_RUN)
    gated.write("tables/gate/open", "")
    with dagster_dev(gated.folder) as page:
        assert page.ended(backfill, WITHIN_S) == counted(FIRST_RUN)
        assert page.runs(backfill) == ["FAILURE", "FAILURE", "SUCCESS"]
    assert_right(gated, FIRST_RUN)


def counted(hours: Sequence[HourWindow]) -> dict[str, int]:
    """Give the page's counts of a backfill of hours that are all there."""
    return {"targeted": len(hours), "inprogress": 0, "materialized": len(hours), "failed": 0}


def let_pass(project: Project) -> None:
    """Let as many hours pass the gate as are in flight."""
    for place in range(IN_FLIGHT):
        project.write(f"tables/gate/pass-{place}", "")


def states(project: Project) -> Counter[str]:
    """Count the hours by their state, as the ledger has it."""
    spec = project.lakehouse.spec("events")
    return Counter(table_status(spec, project.warehouse.find(spec), HOURS).counts)


def wait_until(is_so: Callable[[], bool]) -> None:
    """Look again and again."""
    until = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.5)


def assert_right(project: Project, hours: Sequence[HourWindow]) -> None:
    """Look at each hour's rows, for rows of others, and for files that no snapshot reaches."""
    for place, hour in enumerate(hours):
        assert project.ids(hour.key) == [ROWS * place + each for each in range(ROWS)]
    assert len(project.ids()) == ROWS * len(hours)
    assert strays(project.table) == set()

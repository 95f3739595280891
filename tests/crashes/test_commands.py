"""A command that is killed with its engine at work, and given again: `LAKEHOUSE_CRASH_AT`, and then without."""

import os
import shutil
import signal
import subprocess
import sys

import dagster as dg
import pytest

from lakehouse_pipeline.testing.crash import VARIABLE
from tests.conftest import ROOT
from tests.crashes.flows import close_all
from tests.projects import HOUR, LAKEHOUSE, NEXT, Project, row, strays

SAIL, SPARK = "sail", "local[2]"
POINTS = [
    (SAIL, "commit.sent"),
    pytest.param(SAIL, "attempt.opened", marks=pytest.mark.full),
    *(
        pytest.param(SPARK, point, marks=pytest.mark.full)
        for point in ("attempt.opened", "object.put:3", "attempt.sealed", "commit.sent", "hour.finished")
    ),
]


def backfill(project: Project, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Give the command in the project's folder."""
    code = "from lakehouse_pipeline.cli.main import main; main()"
    command = [sys.executable, "-c", code, "backfill", "events", f"{HOUR}...{NEXT}"]
    told = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"} | environment
    return subprocess.run(command, cwd=project.folder, env=told, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("engine", "point"), POINTS)
def test_a_killed_command_is_given_again(
    project: Project, monkeypatch: pytest.MonkeyPatch, engine: str, point: str
) -> None:
    """The same command ends it: no row is lost, none is there twice, and nothing is left beside the table."""
    monkeypatch.chdir(project.folder)  # where dagster.yaml's paths begin
    shutil.copy(ROOT / "dagster.yaml", project.folder)
    project.write("lakehouse.yaml", LAKEHOUSE.replace(SPARK, engine))
    for hour in (HOUR, NEXT):
        project.land(hour, [row(hour, number) for number in range(20)])
    killed = backfill(project, **{VARIABLE: point})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with dg.DagsterInstance.from_config(str(project.folder)) as instance:
        for run in instance.get_runs():
            instance.report_run_failed(run)  # as the daemon does; else the next run waits for a lease to lapse
    again = backfill(project)
    assert again.returncode == 0, again.stderr
    assert project.ids() == sorted([*range(20), *range(20)])
    close_all(project.table)
    assert strays(project.table) == set()

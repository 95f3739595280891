"""What people type: Dagster's own command on this package, in a process of its own."""

import os
import subprocess
import sys

from tests.projects import HOUR, THIRD, Project, row


def dagster(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `dagster asset materialize` in the project's folder."""
    command = [sys.executable, "-W", "ignore", "-m", "dagster", "asset", "materialize", "--select", "events"]
    environment = {
        name: value for name, value in os.environ.items() if name not in {"DAGSTER_HOME", "LAKEHOUSE_CONFIG"}
    }
    return subprocess.run(
        [*command, "-m", "lakehouse_pipeline.definitions", *arguments],
        cwd=project.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_range_is_materialized(project: Project) -> None:
    """Three hours, one of them without rows, in one command that starts its own Spark."""
    project.describe({"source": project.keys["source"].replace("{", "{missing: empty, ", 1)})
    project.land(HOUR, [row(HOUR, 1)])
    project.land(THIRD, [row(THIRD, 2)])
    done = dagster(project, "--partition-range", f"{HOUR}...{THIRD}")
    assert done.returncode == 0, done.stderr
    assert project.ids() == [1, 2]


def test_half_an_hour_is_refused(project: Project) -> None:
    """Dagster 1.13 itself would run the hour after."""
    project.land("2013-01-01-11:00", [row("2013-01-01-11:00", 1)])
    done = dagster(project, "--partition", "2013-01-01-10:30")
    assert done.returncode == 1
    assert "'2013-01-01-10:30' is not a whole hour; did you mean 2013-01-01-10:00?" in done.stderr
    assert not (project.folder / "warehouse").exists()

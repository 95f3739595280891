"""The entry point: which lakehouse it loads, and what it does where there is none."""

import os
import signal
import subprocess
import sys

import pytest

from tests.projects import Project

BESIDE = ("health", "plan", "compaction", "sweep", "expiry", "manifests", "purge")
ASSETS = ["events", *(f"events_{name}" for name in BESIDE)]


def _load(project: Project, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Import the definitions in a process of its own, in the project's folder."""
    code = (
        "import sys\n"
        "from lakehouse_pipeline.definitions import defs\n"
        "late = {'pyspark', 'pysail', 'matplotlib'}\n"
        "print([str(asset.key.path[-1]) for asset in defs.assets], late & sys.modules.keys())\n"
    )
    known = {name: value for name, value in os.environ.items() if name != "LAKEHOUSE_CONFIG"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=project.folder,
        env={**known, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_lakehouse_of_the_folder_is_loaded(project: Project) -> None:
    """Without a variable it is the one in the current folder; loading it imports no engine."""
    done = _load(project)
    assert (done.returncode, done.stdout) == (0, f"{ASSETS} set()\n"), done.stderr


def test_a_crash_point_of_the_environment_is_installed(project: Project) -> None:
    """In a process of Dagster's, too; a name that is none is refused before anything is loaded."""
    refused = _load(project, LAKEHOUSE_CRASH_AT="nowhere")
    assert "LAKEHOUSE_CRASH_AT: there is no point 'nowhere'" in refused.stderr
    code = (
        "import lakehouse_pipeline.definitions\nfrom lakehouse_pipeline import events\nevents.emit('hour.planned', 't')"
    )
    environment = {**os.environ, "LAKEHOUSE_CRASH_AT": "hour.planned"}
    done = subprocess.run([sys.executable, "-c", code], cwd=project.folder, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL


def test_lakehouse_of_the_variable_is_loaded(project: Project) -> None:
    """`LAKEHOUSE_CONFIG` names another one, and its specs are found beside it."""
    (project.folder / "lakehouse.yaml").rename(project.folder / "other.yaml")
    done = _load(project, LAKEHOUSE_CONFIG="other.yaml")
    assert (done.returncode, done.stdout) == (0, f"{ASSETS} set()\n"), done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        pytest.param("lakehouse.yaml", "there is no lakehouse.yaml in", id="no lakehouse"),
        pytest.param("tables/events.yaml", "tables/events.yaml:1: ", id="a broken spec"),
    ],
)
def test_what_is_wrong_is_said(project: Project, name: str, said: str) -> None:
    """Nothing loads, and the last line is the problem: what `dagster dev` shows."""
    if name == "lakehouse.yaml":
        (project.folder / name).unlink()
    else:
        project.write(name, "table: nothing\n")
    done = _load(project)
    assert done.returncode != 0
    assert said in done.stderr

"""Compaction on Dagster's page: asked for by a sensor that reads metadata, once for the same files."""

import re
from typing import Any

import dagster as dg
import pytest

from lakehouse_pipeline.errors import CommitConflictError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.maintenance import rewrite
from tests.maintenance.test_compaction import FILES, IDS, split
from tests.projects import HOUR, Project, row, strays

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine

NAME = "events_compaction"


@pytest.fixture
def small(project: Project) -> Project:
    """Give a project of an hour whose rows are a file each."""
    project.land(HOUR, [row(HOUR, number) for number in IDS])
    project.run(HOUR)
    split(project.table, HourWindow.from_key(HOUR))
    return project


def tick(project: Project, instance: dg.DagsterInstance) -> Any:
    """Let the sensor look."""
    definitions = project.definitions()
    context = dg.build_sensor_context(instance=instance, definitions=definitions)
    return definitions.resolve_sensor_def(f"{NAME}_watch").evaluate_tick(context)


def run(project: Project, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """Materialize the asset."""
    definitions = project.definitions()
    assets = [asset for asset in definitions.assets or () if isinstance(asset, dg.AssetsDefinition)]
    resources = definitions.resources
    return dg.materialize(assets, instance=instance, selection=NAME, resources=resources, raise_on_error=False)


def test_it_is_asked_for_once(small: Project, instance: dg.DagsterInstance) -> None:
    """As long as the files are the same under the same key; then they are compacted, and the sensor says so."""
    (first,), (again,) = (tick(small, instance).run_requests for _ in range(2))
    assert first.run_key == again.run_key
    (told,) = run(small, instance).asset_materializations_for_node(NAME)
    figures: dict[str, Any] = {name: value.value for name, value in told.metadata.items()}
    assert (figures["hours"], figures["files_before"], figures["files_after"]) == (1, FILES, 1)
    assert figures["bytes_after"] < figures["bytes_before"]
    (how,) = figures["strategies"]
    assert re.match(r"rewrite: row groups have \d+ B on average, less than ", how)
    assert (figures["hours_left"], figures["stepped_aside"], figures["bytes_never_downloaded"]) == ({}, 0, 0)
    assert figures["requests"] == 0  # of local disk there are none
    assert figures["seconds"] > 0
    skipped = tick(small, instance).skip_message or ""
    assert skipped.startswith("no hour has files that are worth compacting: 1 hour with 1 file of ")
    assert small.ids() == IDS
    assert strays(small.table) == set()


def test_a_table_that_does_not_exist_yet(project: Project, instance: dg.DagsterInstance) -> None:
    """Nothing is asked for, and nothing fails."""
    assert tick(project, instance).skip_message == "the table does not exist yet"
    assert run(project, instance).success


def test_what_fails_fails_its_run(
    small: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the hour and why; the table is as it was."""
    monkeypatch.setattr(rewrite, "write_files", lambda *_: [])
    done = run(small, instance)
    assert not done.success
    (failure,) = [event for event in done.all_events if event.is_step_failure]
    told: Any = failure.step_failure_data.user_failure_data
    assert f"{HOUR}: ProofError: " in told.description
    assert small.ids() == IDS


def test_who_stepped_aside_has_not_failed(
    small: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer was faster: the run says so, and the next look plans the hour again."""

    def taken(*_: object) -> None:
        raise CommitConflictError("somebody was faster")

    with monkeypatch.context() as patched:
        patched.setattr(rewrite, "write_files", taken)
        (told,) = run(small, instance).asset_materializations_for_node(NAME)
    figures: dict[str, Any] = {name: value.value for name, value in told.metadata.items()}
    assert (figures["hours"], figures["stepped_aside"], figures["files_after"]) == (0, 1, 0)
    (again,) = tick(small, instance).run_requests
    assert again.run_key
    assert small.ids() == IDS

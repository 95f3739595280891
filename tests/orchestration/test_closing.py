"""Runs that end without closing their attempts are followed by one that does; no engine starts for it."""

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.orchestration.sensors import JOB
from tests.orchestration.runs import hours_materialized, materialize
from tests.projects import HOUR, NEXT, Project, row, strays

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine


class KilledError(BaseException):
    """What nothing catches: the process is gone."""


@pytest.fixture
def killed(project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let a run of Dagster die with an open attempt and its files; gives its id."""
    project.land(HOUR, [row(HOUR, 1)])

    def die(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr("lakehouse_pipeline.iceberg.hourly.HourlyTable.seal", die)
        patched.setattr("lakehouse_pipeline.backfill.attempts.HourInHand.close", lambda *_: None)
        assert not materialize(project, instance, HOUR).success
    run = instance.get_runs()[0]
    return run.run_id


def sensor(project: Project, name: str) -> dg.SensorDefinition:
    """Give one of the project's sensors."""
    return project.definitions().resolve_sensor_def(name)


def close(project: Project, instance: dg.DagsterInstance) -> None:
    """Run the job that sensors ask for."""
    assert project.definitions().resolve_job_def(JOB).execute_in_process(instance=instance).success


def test_a_dead_runs_files_are_removed(project: Project, instance: dg.DagsterInstance, killed: str) -> None:
    """Dagster knows that it has ended: nothing is waited for, and the record says what happened."""
    record = project.record()
    assert (record.state, record.attempt and record.attempt.run_id) == ("open", killed)
    assert len(strays(project.table)) == 1
    close(project, instance)
    record = project.record()
    assert (record.state, record.outcome and record.outcome.error) == ("idle", "LeaseLost")
    assert strays(project.table) == set()


def test_what_a_dead_run_has_sealed_is_committed(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no ETL and no other run of the hours: they are in the table in one snapshot, and on Dagster's page."""
    for place, hour in enumerate((HOUR, NEXT)):
        project.land(hour, [row(hour, place)])

    def die(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr("lakehouse_pipeline.backfill.range.commit_hours", die)
        assert not materialize(project, instance, HOUR, NEXT).success
    assert {project.record(hour).state for hour in (HOUR, NEXT)} == {"sealed"}
    assert hours_materialized(instance) == []
    tick = sensor(project, "leftovers").evaluate_tick(dg.build_sensor_context(instance=instance))
    assert len(tick.run_requests or ()) == 1
    close(project, instance)
    assert project.ids() == [0, 1]
    assert len(project.table.table.snapshots()) == 1
    assert hours_materialized(instance) == [HOUR, NEXT]
    assert project.run().step == "skip"


def test_what_can_never_be_committed_fails_no_job(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not asked for again and again, either; after `sealed_keep` it is given up."""
    project.land(HOUR, [row(HOUR, 1)])

    def die(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr("lakehouse_pipeline.backfill.range.commit_hours", die)
        assert not materialize(project, instance, HOUR).success
    root = Path(project.table.location.removeprefix("file://"))
    (data,) = (root / "data").rglob("*.parquet")
    data.unlink()

    def look() -> bool:
        context = dg.build_sensor_context(instance=instance)
        return bool(sensor(project, "leftovers").evaluate_tick(context).run_requests)

    assert look()
    close(project, instance)
    record = project.record()
    assert (record.state, record.outcome and record.outcome.error) == ("sealed", "NeverCommittedError")
    assert not look()
    (stored,) = root.glob("_lakehouse/*/hours/*.json")
    moment = time.time() - (MaintenanceSettings().sealed_keep + timedelta(minutes=1)).total_seconds()
    os.utime(stored, (moment, moment))
    assert look()
    close(project, instance)
    record = project.record()
    assert (record.state, record.outcome and record.outcome.kind) == ("idle", "abandoned")
    assert not look()


def test_a_failed_runs_sensor_asks_for_the_job(project: Project, instance: dg.DagsterInstance, killed: str) -> None:
    """If it left anything; a failed closing does not ask for itself."""
    run = instance.get_run_by_id(killed)
    assert run is not None
    asked = _after(project, instance, run)
    assert isinstance(asked, dg.RunRequest)
    assert asked.run_key == f"close:{killed}"
    assert isinstance(_after(project, instance, dg.DagsterRun(job_name=JOB)), dg.SkipReason)
    waiting = _queued(instance)
    assert isinstance(_after(project, instance, run), dg.SkipReason)
    instance.delete_run(waiting)
    close(project, instance)
    assert isinstance(_after(project, instance, run), dg.SkipReason)


def _queued(instance: dg.DagsterInstance) -> str:
    """Put a closing into the queue, from where nobody takes it; gives its run's id."""
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "all"), JOB)
    run = dg.DagsterRun(job_name=JOB, status=dg.DagsterRunStatus.QUEUED, remote_job_origin=origin)
    return instance.add_run(run).run_id


def _after(project: Project, instance: dg.DagsterInstance, run: dg.DagsterRun) -> Any:
    event = dg.DagsterEvent(event_type_value="PIPELINE_FAILURE", job_name=run.job_name)
    context = dg.build_run_status_sensor_context("close_after_failure", event, instance, run)
    return sensor(project, "close_after_failure")(context)


def test_leftovers_are_looked_for(
    project: Project, instance: dg.DagsterInstance, killed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is asked for while there is something to close, and not otherwise; the second pass comes in its time."""

    def look() -> bool:
        context = dg.build_sensor_context(instance=instance)
        return bool(sensor(project, "leftovers").evaluate_tick(context).run_requests)

    assert look()
    waiting = _queued(instance)
    assert not look()  # it will look at all there is; behind a long backfill there would be hundreds of it
    instance.delete_run(waiting)
    assert look()
    close(project, instance)
    assert not look()
    assert [marked.marker.closed for marked in project.table.ledger.marked()] == [True]
    monkeypatch.setattr("lakehouse_pipeline.backfill.leftovers.ZOMBIES", timedelta(0))
    assert look()
    close(project, instance)
    assert list(project.table.ledger.marked()) == []
    assert not look()

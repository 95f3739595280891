"""Sensors: runs that ended without closing or committing their attempts are followed by one that does.

A sensor body looks and asks for a run; the run's op does the work. Neither starts an engine. `leftovers` finds what no
run status tells of: runs of a Dagster that is gone, and the second passes that are due.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from lakehouse_pipeline.backfill.late import changed_hours, late_window
from lakehouse_pipeline.backfill.leftovers import close_attempts, is_due
from lakehouse_pipeline.backfill.sealed import NeverCommittedError, commit_sealed, is_waiting
from lakehouse_pipeline.config.lakehouse import Lakehouse
from lakehouse_pipeline.config.paths import uses_hour
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.errors import LakehouseError
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.orchestration.reports import of_commit
from lakehouse_pipeline.orchestration.resources import RunLog

JOB = "close_attempts"
ENDED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
PRIORITY = "10"  # short, and before the next run of a long backfill, which may need the hours
LOOK_EVERY_S = 600
LATE_EVERY_S = 300
LISTINGS = 200  # of a tick


def closing(lakehouse: Lakehouse) -> tuple[dg.JobDefinition, Sequence[dg.SensorDefinition]]:
    """Make the job that closes attempts, and the sensors that ask for it."""
    job = _job(lakehouse)
    return job, [*(_after_runs(lakehouse, job, status) for status in ENDED), _leftovers(lakehouse, job)]


def _job(lakehouse: Lakehouse) -> dg.JobDefinition:
    @dg.op(
        name=f"{JOB}_of_tables",
        description="Commit what ended runs left sealed, or give it up at last, and remove what they left of others.",
    )
    def close_all(context: dg.OpExecutionContext) -> None:
        failed = []
        for name, table in _tables(Warehouse.open(lakehouse.catalog), lakehouse):
            try:
                is_over = RunLog(context.instance).is_over
                told = commit_sealed(table, is_over, left_alone=True)
                for each in told:
                    if isinstance(each.error, NeverCommittedError):  # nothing that fails for days tells anybody more
                        context.log.warning("%s %s: %s", table.identifier, each.hour, each.error)
                    elif each.error:
                        failed.append(f"{table.identifier} {each.hour}: {each.error}")
                    if each.committed:
                        context.log_event(of_commit(name, each.hour, each.committed, "sealed, and left by its run"))
                        context.log.info("%s %s: committed", table.identifier, each.hour)
                closed = close_attempts(table, is_over, sealed_keep=lakehouse.maintenance.sealed_keep)
                context.log.info("%s: closed %d attempts %s", table.identifier, len(closed), " ".join(closed))
            except LakehouseError as error:
                failed.append(f"{table.identifier}: {type(error).__name__}: {error}")
        if failed:
            raise dg.Failure("\n".join(failed))

    @dg.job(
        name=JOB,
        description="Commits and closes attempts that their runs did not.",
        executor_def=dg.in_process_executor,
        tags={"dagster/priority": PRIORITY},
    )
    def job() -> None:
        close_all()

    made: dg.JobDefinition = job
    return made


def _after_runs(lakehouse: Lakehouse, job: dg.JobDefinition, status: dg.DagsterRunStatus) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        run_status=status,
        name=f"close_after_{status.value.lower()}",
        description="Commits and closes the attempts of runs that could not do it themselves.",
        request_job=job,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def after(context: dg.RunStatusSensorContext) -> Any:
        run = context.dagster_run
        if run.job_name == JOB:
            return dg.SkipReason("it was the closing itself: `leftovers` looks again")
        return _asked(lakehouse, context.instance, f"close:{run.run_id}", "it left nothing")

    return after


def _leftovers(lakehouse: Lakehouse, job: dg.JobDefinition) -> dg.SensorDefinition:
    @dg.sensor(
        name="leftovers",
        description="Looks for attempts that nobody committed or closed, and for second passes that are due.",
        job=job,
        minimum_interval_seconds=LOOK_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def leftovers(context: dg.SensorEvaluationContext) -> Any:
        return _asked(lakehouse, context.instance, None, "nothing is left of any attempt")

    return leftovers


def _asked(
    lakehouse: Lakehouse, instance: dg.DagsterInstance, run_key: str | None, nothing: str
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a closing, unless one waits or there is `nothing` to close."""
    waiting = dg.RunsFilter(job_name=JOB, statuses=[dg.DagsterRunStatus.QUEUED])
    if instance.get_runs_count(waiting):  # before the store is asked, which takes longer
        return dg.SkipReason("a closing is in the queue, and will look at all there is")
    return dg.RunRequest(run_key=run_key) if _is_due(lakehouse, instance) else dg.SkipReason(nothing)


def late_files(lakehouse: Lakehouse, spec: TableSpec, job: Any) -> dg.SensorDefinition | None:
    """Make the sensor that watches a table's source for what landed after its hours were committed; None for never."""
    if spec.late is None:
        return None

    @dg.sensor(
        name=f"{spec.name}_late_files",
        description=f"Runs committed hours of the last {spec.late} again whose source has changed.",
        job=job,
        minimum_interval_seconds=LATE_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def late(context: dg.SensorEvaluationContext) -> Any:
        warehouse = Warehouse.open(lakehouse.catalog, patient=False)
        table, window = warehouse.find(spec), late_window(spec)
        if table is None or window is None:
            return dg.SkipReason("there is no committed hour to watch")
        # The cursor goes round: a window of many hours takes several ticks.
        first = int(context.cursor) if context.cursor else window.first.ordinal
        begin = first if window.first.ordinal <= first <= window.last.ordinal else window.first.ordinal
        listings = 1 + sum(uses_hour(join.path) for join in spec.join)
        hours = list(window)[begin - window.first.ordinal :][: max(1, LISTINGS // listings)]
        changed = changed_hours(spec, table, warehouse.files, hours)
        requests = [
            # One that was asked for is never asked for again: whatever became of it is on the page.
            dg.RunRequest(run_key=f"late:{hour}:{fingerprint}", partition_key=hour.key)
            for hour, fingerprint in changed.items()
        ]
        told = f"{len(hours)} hours from {hours[0]} on: their sources are as they were"
        return dg.SensorResult(
            run_requests=requests, cursor=str(hours[-1].ordinal + 1), skip_reason=None if requests else told
        )

    return late


def _is_due(lakehouse: Lakehouse, instance: dg.DagsterInstance) -> bool:
    """Tell whether there is anything to close now; a store that is away fails the tick, and the next looks again."""
    tables = [table for _, table in _tables(Warehouse.open(lakehouse.catalog, patient=False), lakehouse)]
    is_over = RunLog(instance).is_over
    keep = lakehouse.maintenance.sealed_keep
    return any(is_due(table, is_over, sealed_keep=keep) or is_waiting(table, is_over) for table in tables)


def _tables(warehouse: Warehouse, lakehouse: Lakehouse) -> list[tuple[str, HourlyTable]]:
    found = ((spec.name, warehouse.find(spec)) for spec in lakehouse.specs)
    return [(name, table) for name, table in found if table]

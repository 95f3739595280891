"""A table's job run in this process, on the instance of Dagster that the page looks at."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill.run_plan import RunPlan
from lakehouse_pipeline.config.lakehouse import Lakehouse
from lakehouse_pipeline.errors import ConfigurationError, LakehouseError
from lakehouse_pipeline.hours import HourWindow, ranges_of
from lakehouse_pipeline.orchestration.assets import build_defs
from lakehouse_pipeline.orchestration.resources import OneSession

if TYPE_CHECKING:
    from lakehouse_pipeline.backfill.hour_result import HourResult

FILE = "dagster.yaml"


@dataclass
class Ended:
    """How hours ended, as the pipeline's events tell it.

    Attributes:
        finished: those that are there now.
        failed: the class of the error, and what it said.
        runs: Dagster's ids.
        problems: of runs that ended before all of their hours had.
        cancelled: whether somebody has interrupted a run; none was begun after it.
    """

    finished: "dict[HourWindow, HourResult]" = field(default_factory=dict)
    failed: dict[HourWindow, tuple[str, str]] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    cancelled: bool = False

    @property
    def committed(self) -> "dict[HourWindow, HourResult]":
        """Those that were not there before."""
        return {hour: result for hour, result in self.finished.items() if result.step != "skip"}

    def heard(self, event: events.Event) -> None:
        """Take note of an event."""
        fields: Mapping[str, Any] = event.fields
        if event.name == "hour.finished":
            self.finished[HourWindow.from_key(event.hour)] = fields["result"]
        elif event.name == "hour.failed":
            self.failed[HourWindow.from_key(event.hour)] = (fields["error"], fields["message"])


def run_job(
    lakehouse: Lakehouse,
    table: str,
    hours: Sequence[HourWindow],
    *,
    force: bool = False,
    plan: RunPlan | None = None,
    log: str = "CRITICAL",
) -> Ended:
    """Materialize hours of a table: a run of Dagster for each range of them, all on one Spark session.

    Args:
        lakehouse: with the table.
        table: its spec's name.
        hours: that are asked for.
        force: run hours that are unchanged, too.
        plan: what to set.
        log: from which level on Dagster writes to standard error; its page has all of it, in any case.

    Raises:
        ConfigurationError: there is no instance of Dagster.
        LakehouseError: the first run failed as a whole.
    """
    most = lakehouse.backfill.hours_per_run
    ranges = ranges_of(hours, None if most == "all" else most)
    session, ended = OneSession(lakehouse.engine), Ended()
    try:
        with _instance(lakehouse.folder) as instance, events.subscribed(ended.heard):
            job = build_defs(lakehouse, resource_overrides={"spark": session}).resolve_job_def(f"{table}_job")
            for each in ranges:
                tags = {
                    "dagster/asset_partition_range_start": each.first.key,
                    "dagster/asset_partition_range_end": each.last.key,
                }
                applied = plan.of(each).model_dump(mode="json") if plan else {}
                config = {
                    "ops": {table: {"config": {"force": force, "plan": applied}}},
                    "loggers": {"console": {"config": {"log_level": log}}},
                }
                told = len(ended.finished) + len(ended.failed)
                result = job.execute_in_process(instance=instance, raise_on_error=False, run_config=config, tags=tags)
                ended.runs.append(result.run_id)
                if _is_interrupted(result):
                    ended.cancelled = True
                    ended.problems.append("cancelled")
                    break
                if not result.success and len(ended.finished) + len(ended.failed) == told:
                    if told == 0:
                        raise LakehouseError(_said(result))
                    ended.problems.append(_said(result))  # what ends a run before its first hour ends the next, too
                    break
                if any(hour not in ended.finished and hour not in ended.failed for hour in each):
                    ended.problems.append(_said(result))
    finally:
        session.close()
    return ended


def _is_interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Tell whether Ctrl-C has ended a run: Dagster says it in an event, and raises nothing."""
    sources = (event.step_failure_data.error_source for event in result.all_events if event.is_step_failure)
    return any(source is not None and source.value == "INTERRUPT" for source in sources)


def _said(result: dg.ExecuteInProcessResult) -> str:
    """Say what a run failed with, in as few words as Dagster has."""
    for event in result.all_events:
        if event.is_step_failure:
            failure, error = event.step_failure_data.user_failure_data, event.step_failure_data.error
            if failure and failure.description:
                return failure.description
            while error and error.cause:
                error = error.cause
            if error:
                return error.message.strip()
    return f"run {result.run_id} failed; Dagster's page tells why"


@contextmanager
def _instance(folder: Path) -> Iterator[dg.DagsterInstance]:
    """Open the instance of `DAGSTER_HOME`, else that of the lakehouse's folder, whose file speaks of relative paths."""
    if "DAGSTER_HOME" in os.environ:
        with dg.DagsterInstance.get() as instance:
            yield instance
        return
    if not (folder / FILE).is_file():
        raise ConfigurationError(
            f"there is no {FILE} in {folder}, and DAGSTER_HOME is not set; `lakehouse init` writes one"
        )
    before = Path.cwd()
    os.chdir(folder)
    try:
        with dg.DagsterInstance.from_config(str(folder)) as instance:
            yield instance
    finally:
        os.chdir(before)

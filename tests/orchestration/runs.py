"""Runs of a project's table through Dagster, in this process; only here do Dagster's private modules appear."""

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.events import EngineEventData
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, PartitionBackfill
from dagster._core.loader import LoadingContextForTest
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.test_utils import create_run_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.utils import make_new_backfill_id
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster_graphql.test.utils import execute_dagster_graphql

from tests.projects import Project

KEY = dg.AssetKey("events")
ITERATIONS = 10  # of the backfill daemon; two do
REEXECUTE = """
mutation($again: ReexecutionParams) {
  reexecutePartitionBackfill(reexecutionParams: $again) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""


def materialize(
    project: Project,
    instance: dg.DagsterInstance,
    first: str,
    last: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    """Run an hour, or a range of them, as `dagster asset materialize` does."""
    tags = (
        {"dagster/partition": first}
        if last is None
        else {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    )
    job = project.definitions().resolve_job_def("events_job")
    return job.execute_in_process(instance=instance, tags=tags, run_config=config, raise_on_error=False)


def hours_materialized(instance: dg.DagsterInstance) -> list[str]:
    """Give the partition of every materialization there is in order, doubles included."""
    return sorted(str(record.partition_key) for record in instance.fetch_materializations(KEY, limit=1000).records)


def materializations(instance: dg.DagsterInstance) -> dict[str, dg.AssetMaterialization]:
    """Give the newest materialization of each hour."""
    records = instance.fetch_materializations(KEY, limit=1000, ascending=True).records
    return {
        str(record.partition_key): record.asset_materialization for record in records if record.asset_materialization
    }


def is_stale(project: Project, instance: dg.DagsterInstance, hour: str) -> bool:
    """Tell whether Dagster's page would mark an hour as outdated."""
    graph = project.definitions().resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    return resolver.get_status(KEY, hour) == StaleStatus.STALE


def left_behind(instance: dg.DagsterInstance, pid: int, server: str) -> dg.DagsterRun:
    """Make the record of a run that has started in a process, whose code server is no more."""
    tags = {GRPC_INFO_TAG: server}
    run: dg.DagsterRun = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED, tags=tags)
    instance.report_engine_event(f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid))
    return run


class Backfills:
    """Backfills of the lakehouse of `LAKEHOUSE_CONFIG`, driven by the daemon's own code."""

    def __init__(self, workspace: WorkspaceProcessContext) -> None:
        """Drive those of a workspace's instance."""
        self._workspace = workspace
        self._instance = workspace.instance

    @classmethod
    @contextmanager
    def of(cls, instance: dg.DagsterInstance) -> Iterator["Backfills"]:
        """Load the definitions, in this process, for as long as the block runs."""
        target = LoadableTargetOrigin(
            executable_path=sys.executable, module_name="lakehouse_pipeline.definitions", attribute="defs"
        )
        origin = InProcessCodeLocationOrigin(target, location_name="lakehouse", container_image=None)
        with WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget([origin])) as workspace:
            yield cls(workspace)

    def ask(self, hours: Sequence[str]) -> str:
        """Ask for a backfill, as the page's Materialize does; gives its id."""
        asked = PartitionBackfill.from_asset_partitions(
            asset_graph=self._workspace.create_request_context().asset_graph,
            backfill_id=make_new_backfill_id(),
            tags={},
            backfill_timestamp=time.time(),
            asset_selection=[KEY],
            partition_names=list(hours),
            dynamic_partitions_store=self._instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
        self._instance.add_backfill(asked)
        return asked.backfill_id

    def ask_again(self, backfill: str) -> str:
        """Ask for what failed, as the page's "Re-execute from failure" does; gives the new backfill's id."""
        result = execute_dagster_graphql(
            self._workspace.create_request_context(),
            REEXECUTE,
            variables={"again": {"parentRunId": backfill, "strategy": "FROM_FAILURE"}},
        )
        answer = result.data["reexecutePartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return str(answer["backfillId"])

    def run(self, backfill: str) -> Mapping[str, int]:
        """Run a backfill to its end; counts hours by how they ended."""
        for _ in range(ITERATIONS):
            found = self._instance.get_backfill(backfill)
            assert found is not None
            if found.status in BULK_ACTION_TERMINAL_STATUSES:
                (counts,) = found.get_backfill_status_per_asset_key(self._workspace.create_request_context())
                by_status: Mapping[Any, int] = counts.partitions_counts_by_status  # type: ignore[union-attr]
                return {status.name: count for status, count in by_status.items()}
            list(execute_backfill_iteration(self._workspace, logging.getLogger("backfill")))
        raise AssertionError(f"the backfill did not end within {ITERATIONS} iterations")

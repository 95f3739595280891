"""Dagster's own run launcher, which also tells whether a run's process is gone: only here it is asked by its insides.

Dagster's cannot tell, and its run monitoring then asks nobody. A run that ends with its code server (a machine without
power, a container that is killed) would stay STARTED for ever: its backfill would never end, and the run would keep its
place among those of `max_concurrent_runs`. Marked as failed, it is retried, and goes on at what is not committed.
"""

import json
import os
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG, WILL_RETRY_TAG
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PROC = Path("/proc")
CLOCK_SLACK_S = 60.0  # a process cannot have started later than it was told of, unless the clock was set


class WatchedRunLauncher(dg.DefaultRunLauncher):
    """Starts runs as children of the code server, and knows when one is gone.

    A run is gone if its code server is of this machine and does not know it (any more), and its process is not there.
    If one of these cannot be told, it counts as running.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Let run monitoring ask."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Tell whether a started run's process is still there."""
        if self._is_known(run.run_id) or not is_local(run.tags.get(GRPC_INFO_TAG, "{}")):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        for entry in self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            metadata = entry.get_dagster_event().engine_event_data.metadata
            if "pid" in metadata:  # the first event of the run's process
                pid = int(str(metadata["pid"].value))
                if is_there(pid, entry.timestamp):
                    break
                self._expect_retry(run.run_id)
                return CheckRunHealthResult(WorkerStatus.FAILED, f"its process {pid} is gone, and so is who started it")
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def _expect_retry(self, run_id: str) -> None:
        """Mark a run as one that is retried, until Dagster has judged that itself.

        It does so just after it has failed the run. Its backfill may be looked at in between (after a restart all
        daemons look at once), and would end as failed while the retry goes on.
        """
        if self._instance.run_retries_enabled:
            self._instance.add_run_tags(run_id, {WILL_RETRY_TAG: "true"})

    def _is_known(self, run_id: str) -> bool:
        """Ask the code server that started it; a "no" may come from one that has loaded its code anew."""
        client: Any = self._get_grpc_client_for_termination(run_id)  # type: ignore[no-untyped-call]
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run_id)) if client else None
        except DagsterUserCodeUnreachableError:
            return False
        return answer is not None and deserialize_value(answer, CanCancelExecutionResult).can_cancel


def is_local(server: str) -> bool:
    """Tell whether a code server's address, as Dagster notes it in a run's tags, is one of this machine."""
    address = json.loads(server)
    return "socket" in address or address.get("host") in LOOPBACK


def is_there(pid: int, since: float) -> bool:
    """Tell whether a process is there, and not another one that was given its number later.

    Args:
        pid: its number.
        since: a moment at which it was there, in seconds since the epoch.
    """
    if not (PROC / "self/stat").exists():  # no Linux: nothing is known
        return True
    try:
        state, *fields = (PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
        boot = next(line for line in (PROC / "stat").read_text().splitlines() if line.startswith("btime "))
    except OSError:
        return False
    started = int(boot.split()[1]) + int(fields[18]) / os.sysconf("SC_CLK_TCK")  # proc(5): starttime, ticks since boot
    return state not in "ZX" and started < since + CLOCK_SLACK_S

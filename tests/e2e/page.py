"""Dagster's page and daemon as `dagster dev` starts them, in processes of their own, and what its page asks of it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lakehouse_pipeline.demo.seaweed import free_ports
from lakehouse_pipeline.demo.tether import tethered
from tests.orchestration.runs import REEXECUTE

STARTS_WITHIN_S = 120.0
ENDS_WITHIN_S = 20.0
LOOK_EVERY_S = 1.0

LAUNCH = """
mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
STATUS = """
query($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill {
      status
      error { message }
      runs(limit: 50) { runId status }
      assetBackfillData { assetBackfillStatuses { ... on AssetPartitionsStatusCounts {
        numPartitionsTargeted numPartitionsInProgress numPartitionsMaterialized numPartitionsFailed
      } } }
    }
  }
}
"""
CANCEL = """
mutation($id: String!) { cancelPartitionBackfill(backfillId: $id) { __typename } }
"""
ENDED = {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "CANCELED", "FAILED"}


class Page:
    """What the page asks of its server."""

    def __init__(self, url: str) -> None:
        """Speak to the server at `url`."""
        self.url = url

    def launch(self, hours: Sequence[str], table: str = "events") -> str:
        """Ask for a backfill, as "Materialize" does; gives its id."""
        params = {"assetSelection": [{"path": [table]}], "partitionNames": list(hours), "fromFailure": False}
        return self._begun(self.ask(LAUNCH, params=params)["launchPartitionBackfill"])

    def again(self, backfill: str) -> str:
        """Ask for what has failed, as "Re-execute from failure" does; gives the new backfill's id."""
        params = {"parentRunId": backfill, "strategy": "FROM_FAILURE"}
        return self._begun(self.ask(REEXECUTE, again=params)["reexecutePartitionBackfill"])

    def cancel(self, backfill: str) -> None:
        """Cancel a backfill."""
        assert self.ask(CANCEL, id=backfill)["cancelPartitionBackfill"]["__typename"] == "CancelBackfillSuccess"

    def status(self, backfill: str) -> Mapping[str, Any]:
        """Look at a backfill."""
        found: Mapping[str, Any] = self.ask(STATUS, id=backfill)["partitionBackfillOrError"]
        return found

    def ended(self, backfill: str, within_s: float) -> Mapping[str, int]:
        """Wait for its end; counts hours by how they ended."""
        until = time.monotonic() + within_s
        while (found := self.status(backfill))["status"] not in ENDED:
            assert time.monotonic() < until, found
            time.sleep(LOOK_EVERY_S)
        (counts,) = found["assetBackfillData"]["assetBackfillStatuses"]
        return {name.removeprefix("numPartitions").lower(): count for name, count in counts.items()}

    def ask(self, query: str, **variables: Any) -> Mapping[str, Any]:
        """Send a GraphQL request."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/graphql", body, headers)  # noqa: S310  # our own server
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            told = json.load(answer)
        assert "errors" not in told, told
        data: Mapping[str, Any] = told["data"]
        return data

    def _begun(self, answer: Mapping[str, Any]) -> str:
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return str(answer["backfillId"])


@contextmanager
def dagster_dev(folder: Path, port: int | None = None) -> Iterator[Page]:
    """Start the webserver and the daemon on a project's folder; they end with the block."""
    place = port or free_ports(1)[0]
    command = [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(place), "-w", "workspace.yaml"]
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    environment["LAKEHOUSE_CONFIG"] = str(folder / "lakehouse.yaml")
    with (folder / "dagster-dev.log").open("ab") as log:
        # A group of its own: whatever it has started ends with it.
        told = tethered(command, signal.SIGTERM)
        process = subprocess.Popen(told, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        page = Page(f"http://127.0.0.1:{place}")
        _wait_for(page, process)
        yield page
    finally:
        process.terminate()
        try:
            process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # in the background signals may be ignored
            process.wait()


def _wait_for(page: Page, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + STARTS_WITHIN_S
    while True:
        assert process.poll() is None, "dagster dev has ended"
        assert time.monotonic() < until
        try:
            with urllib.request.urlopen(f"{page.url}/server_info", timeout=5):  # noqa: S310
                return
        except OSError:
            time.sleep(0.2)

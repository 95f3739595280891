"""Dagster's page, daemon and code server in processes of their own, and what the page asks of its server.

Together as `dagster dev` starts them, or each by itself, as a production set-up has them.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
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

WORKSPACE = """\
load_from:
  - grpc_server: {{host: 127.0.0.1, port: {port}, location_name: lakehouse}}
"""


class Page:
    """What the page asks of its server."""

    def __init__(self, url: str) -> None:
        """Speak to the server at `url`."""
        self.url = url

    def open(self) -> AbstractContextManager[object]:
        """Look whether the server answers."""
        opened: AbstractContextManager[object] = urllib.request.urlopen(f"{self.url}/server_info", timeout=5)  # noqa: S310
        return opened

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

    def runs(self, backfill: str) -> list[str]:
        """Tell the states of a backfill's runs, in alphabetical order."""
        return sorted(run["status"] for run in self.status(backfill)["runs"])

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


class Service:
    """A command on a project's folder, in a group of processes of its own; it ends with this process at the latest."""

    def __init__(self, folder: Path, *command: str, environment: Mapping[str, str] | None = None) -> None:
        """Describe it: `command` is what follows `python -m`; nothing is started."""
        self._folder = folder
        self._command = command
        self._environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
        self._environment |= {"LAKEHOUSE_CONFIG": str(folder / "lakehouse.yaml"), **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        command = tethered([sys.executable, "-m", *self._command], signal.SIGTERM)
        with (self._folder / "dagster.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def is_up(self) -> bool:
        """Tell whether it runs."""
        return self._process is not None and self._process.poll() is None

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it with whatever it has started, as Ctrl-C, a service manager or a loss of power does; wait for that."""
        process, self._process = self._process, None
        if process is None:
            return
        until = time.monotonic() + ENDS_WITHIN_S
        for sent in (how, signal.SIGKILL):  # in the background signals may be ignored
            with suppress(ProcessLookupError):
                os.killpg(process.pid, sent)
            while process.poll() is None or _members(process.pid):
                if sent != signal.SIGKILL and time.monotonic() > until:
                    break
                time.sleep(0.1)


def _members(group: int) -> list[int]:
    """Find the processes of a group; those that have ended do not count, whether or not anybody has heard of it."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            state, _parent, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                found.append(int(stat.parent.name))
    return found


@contextmanager
def dagster_dev(folder: Path, port: int | None = None, *, ends: signal.Signals = signal.SIGTERM) -> Iterator[Page]:
    """Start the webserver and the daemon on a project's folder; they end with the block, by the signal `ends`."""
    with _served(folder, ("dagster", "dev"), port or free_ports(1)[0], ends) as page:
        yield page


@contextmanager
def webserver_alone(folder: Path) -> Iterator[Page]:
    """Start the webserver on a project's folder: what it is asked for waits until there is a daemon."""
    with _served(folder, ("dagster_webserver",), free_ports(1)[0], signal.SIGTERM) as page:
        yield page


@contextmanager
def _served(folder: Path, command: Sequence[str], port: int, ends: signal.Signals) -> Iterator[Page]:
    service = Service(folder, *command, "-h", "127.0.0.1", "-p", str(port), "-w", "workspace.yaml")
    page = Page(f"http://127.0.0.1:{port}")
    try:
        service.start()
        _wait_for(service, page.open)
        yield page
    finally:
        service.end(ends)


@dataclass(frozen=True)
class Services:
    """Dagster's processes as a production set-up has them: each by itself. Runs are children of the code server.

    Attributes:
        page: what the webserver answers.
        webserver: can be ended and started again.
        daemon: not started yet.
    """

    page: Page
    webserver: Service
    daemon: Service

    def start_webserver(self) -> None:
        """Start the webserver, and wait until it answers."""
        self.webserver.start()
        _wait_for(self.webserver, self.page.open)


@contextmanager
def services(folder: Path) -> Iterator[Services]:
    """Start the code server and the webserver on a project's folder; the daemon is up to the block."""
    code_port, port = free_ports(2)
    (folder / "workspace.yaml").write_text(WORKSPACE.format(port=code_port))
    home = {"DAGSTER_HOME": str(folder)}  # only `dagster dev` reads ./dagster.yaml by itself
    at = ("-h", "127.0.0.1", "-p")
    module = ("-m", "lakehouse_pipeline.definitions", "--location-name", "lakehouse")
    code = Service(folder, "dagster", "api", "grpc", *at, str(code_port), *module, environment=home)
    webserver = Service(folder, "dagster_webserver", *at, str(port), "-w", "workspace.yaml", environment=home)
    daemon = Service(folder, "dagster._daemon", "run", "-w", "workspace.yaml", environment=home)
    made = Services(Page(f"http://127.0.0.1:{port}"), webserver, daemon)
    with ExitStack() as ends:
        for each in (code, webserver, daemon):
            ends.callback(each.end)
        code.start()
        _wait_for(code, lambda: socket.create_connection(("127.0.0.1", code_port), timeout=5))
        made.start_webserver()
        yield made


def _wait_for(service: Service, opened: Callable[[], AbstractContextManager[object]]) -> None:
    until = time.monotonic() + STARTS_WITHIN_S
    while True:
        assert service.is_up, "it has ended; dagster.log in its folder tells why"
        assert time.monotonic() < until
        try:
            with opened():
                return
        except OSError:
            time.sleep(0.2)

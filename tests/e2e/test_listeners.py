"""Dagster's page and its code server, and engines that are started here, are reached from this machine alone."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from lakehouse_pipeline.cli.main import main
from lakehouse_pipeline.demo.seaweed import free_ports
from tests.e2e.page import ENDS_WITHIN_S, LOOK_EVERY_S, STARTS_WITHIN_S, Page
from tests.security.listening import addresses, assert_loopback, beyond_loopback, family, running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's /proc")

COMMANDS = {
    "dagster dev": ["-m", "dagster", "dev", "-p"],
    "lakehouse dev": ["-c", "from lakehouse_pipeline.cli.main import main; main()", "dev", "--port"],
}

ENGINE = """
import os, sys
from lakehouse_pipeline.engines.sessions import open_session
session = open_session(sys.argv[1], "listeners")
assert session.range(3).count() == 3
print("ready", flush=True)
sys.stdin.read()
"""
RAY = """
import sys
from lakehouse_pipeline.engines.workers import RayWorkers
assert list(RayWorkers(options={"num_cpus": 1}).run(len, ["abc"])) == [(0, 3)]
print("ready", flush=True)
sys.stdin.read()
import ray
ray.shutdown()
"""


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_the_page_and_what_it_starts(tmp_path: Path, command: list[str]) -> None:
    """Without a host in the command, as README.md has it, too; the second starts a store and a catalog beside it."""
    CliRunner().invoke(main, ["init", str(tmp_path)])
    (port,) = free_ports(1)
    page = Page(f"http://127.0.0.1:{port}")
    told = {name: value for name, value in os.environ.items() if name not in {"DAGSTER_HOME", "LAKEHOUSE_CONFIG"}}
    with (
        (tmp_path / "dev.log").open("ab") as log,
        subprocess.Popen(
            [sys.executable, *command, str(port)],
            cwd=tmp_path,
            env=told,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as dev,
    ):
        try:
            wait_for(page, dev)
            pids = family(dev.pid)
            assert f"127.0.0.1:{port}" in addresses(pids)
            assert beyond_loopback(pids) == set()
        finally:
            for sent in (signal.SIGTERM, signal.SIGKILL):  # as a terminal does, to all that it has started
                with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(dev.pid, sent)
                    dev.wait(ENDS_WITHIN_S)


def wait_for(page: Page, dev: subprocess.Popen[bytes]) -> None:
    """Wait until the page answers."""
    until = time.monotonic() + STARTS_WITHIN_S
    while True:
        assert dev.poll() is None, "it has ended; dev.log in its folder tells why"
        try:
            with page.open():
                return
        except OSError:
            assert time.monotonic() < until
            time.sleep(LOOK_EVERY_S)


@pytest.mark.parametrize(
    "script", [[ENGINE, "sail"], [ENGINE, "local[1]"], [RAY]], ids=["Sail", "Spark on this machine", "Ray"]
)
def test_an_engine_of_this_machine(script: list[str]) -> None:
    """Driver, block manager, callbacks, each process of a cluster that is started here: none asks for a password."""
    with running("-c", *script) as pids:
        assert_loopback(pids)

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from lakehouse_pipeline.orchestration.launcher import PROC, WatchedRunLauncher, is_local, is_there
from tests.orchestration.runs import left_behind

LAUNCHER = {"run_launcher": {"module": WatchedRunLauncher.__module__, "class": WatchedRunLauncher.__name__}}


@pytest.mark.parametrize("waited_for", [True, False], ids=["ended", "ended, and nobody has heard of it"])
def test_an_ended_process_is_not_there(*, waited_for: bool) -> None:
    """Whether or not its parent has waited for it."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    assert is_there(child.pid, time.time())
    if waited_for:
        child.communicate()
    else:
        assert child.stdin is not None
        child.stdin.close()
        while "Z" not in (PROC / f"{child.pid}/stat").read_text().rpartition(")")[2]:
            time.sleep(0.05)
    assert not is_there(child.pid, time.time())
    child.wait()


def test_a_number_is_given_again() -> None:
    """A process that started after the run's was seen is another one: a machine that starts again counts from 1."""
    assert is_there(os.getpid(), time.time())
    assert not is_there(os.getpid(), time.time() - 10 * 365 * 86_400)


@pytest.mark.parametrize(
    ("server", "local"),
    [
        ({"host": "localhost", "socket": "server.sock"}, True),
        ({"host": "127.0.0.1", "port": 4000}, True),
        ({"host": "code", "port": 4000}, False),
        ({}, False),
    ],
    ids=["socket", "loopback", "another host", "no server"],
)
def test_servers_of_this_machine(server: dict[str, object], *, local: bool) -> None:
    """Of processes of other machines nothing is known."""
    assert is_local(json.dumps(server)) == local


@pytest.mark.parametrize("retried", [True, False], ids=["retried", "not retried"])
def test_a_run_is_gone_with_its_process(tmp_path: Path, *, retried: bool) -> None:
    """Run monitoring hears it once the process is gone; a run that is to be retried says so before it has failed."""
    server = json.dumps({"host": "localhost", "socket": str(tmp_path / "server.sock")})
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    with dg.instance_for_test(overrides={**LAUNCHER, "run_retries": {"enabled": retried}}) as instance:
        run, launcher = left_behind(instance, child.pid, server), instance.run_launcher
        assert launcher.check_run_worker_health(run).status.value == "RUNNING"
        child.communicate()
        told = launcher.check_run_worker_health(run)
        assert (told.status.value, told.msg) == ("FAILED", f"its process {child.pid} is gone, and so is who started it")
        record = instance.get_run_by_id(run.run_id)
        assert record is not None
        assert (record.tags.get("dagster/will_retry") == "true") == retried

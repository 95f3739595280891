"""The embedded server: it ends promptly, with whoever started it, and keeps what it acknowledged."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lakehouse_pipeline.demo.seaweed import HOST, SeaweedServer
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

ENDED_WITHIN_S = 60.0

PARENT = """
import sys, time
from pathlib import Path
from lakehouse_pipeline.demo.seaweed import SeaweedServer
with SeaweedServer(Path(sys.argv[1])) as server:
    print(server._ports["s3.port"], flush=True)
    time.sleep(600)
"""


def test_what_was_acknowledged_outlives_a_stop(tmp_path: Path) -> None:
    """An unused connection keeps the server from ending for half a minute: it is killed, and nothing is lost."""
    server = SeaweedServer(tmp_path, buckets=["raw"])
    with server:
        files = LakehouseFileIO(server.s3_properties())
        bodies = {f"s3://raw/{size}": os.urandom(size) for size in (0, 10, 1_000_000)}
        for key, body in bodies.items():
            files.put(key, body)
        process = server._process
        with socket.create_connection((HOST, server._ports["volume.port"])):
            server.stop()
    assert process is not None
    assert process.returncode == -signal.SIGKILL
    with server:
        assert {key: files.get(key).body for key in bodies} == bodies


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell nobody of a parent's end")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_its_parent(how: signal.Signals, tmp_path: Path) -> None:
    """However the process that started it ends, nothing listens soon after."""
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        assert listens(port)
        parent.send_signal(how)
    until = time.monotonic() + ENDED_WITHIN_S
    while listens(port):
        assert time.monotonic() < until
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Tell whether somebody does."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0

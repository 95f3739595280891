"""A Spark Connect server of the test's own, whose workers have the libraries that ours needs, but not our package."""

import os
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyspark

from lakehouse_pipeline.demo.seaweed import free_ports
from lakehouse_pipeline.engines.sessions import LOCAL_SETTINGS

STARTED = "Spark Connect server started"
WITHIN_S = 120


@contextmanager
def connect_server(folder: Path) -> Iterator[str]:
    """Run the server; gives its address.

    The libraries are those of this environment, found by PYTHONPATH: what only a .pth file names, as an editable
    install of our package does, is not found that way.
    """
    venv.create(folder / "python", symlinks=True)
    (port,) = free_ports(1)
    settings = {
        **LOCAL_SETTINGS,
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
    }
    settings.pop("spark.log.level")  # what tells that it has started is no error
    home = Path(pyspark.__file__).parent
    command = [str(home / "bin/spark-submit"), "--master", "local[2]"]
    command += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer"]
    command += [part for key, value in settings.items() for part in ("--conf", f"{key}={value}")]
    environment = {
        **os.environ,
        "SPARK_HOME": str(home),
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PYSPARK_PYTHON": str(folder / "python/bin/python"),
    }
    log = folder / "connect.log"
    with log.open("wb") as out:
        server = subprocess.Popen([*command, "spark-internal"], env=environment, cwd=folder, stdout=out, stderr=out)
    try:
        _wait(server, log)
        yield f"sc://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _wait(server: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + WITHIN_S
    while STARTED not in log.read_text():
        if server.poll() is not None or time.monotonic() > until:
            raise AssertionError(f"the server on {sys.platform} did not start: {log.read_text()[-2000:]}")
        time.sleep(0.1)

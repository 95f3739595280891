"""Spark's standalone cluster: a master and workers under host names of their own.

Spark gives a task a second try on another host only, so `local[N]` and workers that share a name never speculate.
"""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyspark

from lakehouse_pipeline.demo.seaweed import free_ports

ROOT = Path(__file__).parents[2]
STARTS_WITHIN_S = 60.0


@contextmanager
def spark_cluster(folder: Path, workers: int) -> Iterator[str]:
    """Run a master and so many workers of one core each, on 127.0.0.1, 127.0.0.2 …; give the master's address."""
    port, shown = free_ports(2)
    address = f"spark://127.0.0.1:{port}"
    with ExitStack() as running:
        asked = ["Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", str(shown)]
        running.enter_context(_process(folder, *asked))
        _wait_for(shown, '"status" : "ALIVE"')
        for number in range(1, workers + 1):
            asked = ["Worker", "--host", f"127.0.0.{number}", "--cores", "1", "--memory", "1g", "--webui-port", "0"]
            running.enter_context(_process(folder, *asked, "--work-dir", str(folder / f"worker-{number}"), address))
        _wait_for(shown, f'"aliveworkers" : {workers}')
        yield address


@contextmanager
def _process(folder: Path, role: str, *asked: str) -> Iterator[None]:
    home = Path(pyspark.__file__).parent
    command = [str(home / "bin" / "spark-class"), f"org.apache.spark.deploy.{role.lower()}.{role}", *asked]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable, "SPARK_HOME": str(home)}
    with (folder / f"{role}-{asked[1]}.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        yield
    finally:
        process.terminate()  # executors end with their worker
        process.wait()


def _wait_for(port: int, said: str) -> None:
    until = time.monotonic() + STARTS_WITHIN_S
    while said not in _state(port):
        assert time.monotonic() < until, f"Spark's master does not say {said}"
        time.sleep(0.1)


def _state(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/", timeout=5) as answer:
            return str(answer.read(), "utf-8")
    except OSError:
        return ""

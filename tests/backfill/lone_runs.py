"""Runs of an hour, each in a process of its own that strikes itself: it is killed or stopped at an event or a file.

The processes are forks of one that has imported everything, so that a run takes as long as its work. What strikes where
tasks put their files is handed to them with their FileIO, and reaches Spark's Python workers, too.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, BinaryIO

from pyspark.sql import SparkSession

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill import close, hour
from lakehouse_pipeline.backfill.hour import Bench, run_hour
from lakehouse_pipeline.config.lakehouse import load_lakehouse
from lakehouse_pipeline.engines.sessions import open_session
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg import hourly
from lakehouse_pipeline.iceberg.hourly import Warehouse
from lakehouse_pipeline.ledger import leases
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import ObjectInfo

ROOT = Path(__file__).parents[2]
STRIKES = "LAKEHOUSE_TEST_STRIKES"  # in the environment, where an engine's tasks find it
WITHIN_S = 120.0  # a run has ended, or is at its strike; the machine may be busy

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Run:
    """What a process does.

    Attributes:
        folder: the project's.
        hour: the hour's key.
        run_id: of the orchestrator.
        at: by event, what the run is struck with.
        puts: by the number of data files that all tasks have put, what the task is struck with that put the last.
        others_are_over: whether the orchestrator says of every other run that it has ended.
        lease: after which another run's hour is taken over.
        renew_every: how often the run renews its own.
    """

    folder: Path
    hour: str
    run_id: str = "first"
    at: Mapping[str, signal.Signals] = field(default_factory=dict)
    puts: Mapping[int, signal.Signals] = field(default_factory=dict)
    others_are_over: bool = False
    lease: timedelta = leases.LEASE
    renew_every: timedelta = leases.RENEW_EVERY

    @property
    def told(self) -> Path:
        """Where the run says how it ended."""
        return self.folder / f"{self.run_id}.json"

    @property
    def counted(self) -> Path:
        """Where tasks count their files."""
        return self.folder / f"{self.run_id}.puts"


class StrikingFiles(LakehouseFileIO):
    """A FileIO that strikes its process once a data file is there."""

    def put(
        self, url: str, body: bytes | BinaryIO, *, if_absent: bool = False, if_match: str | None = None
    ) -> ObjectInfo:
        """Write, and count."""
        info = super().put(url, body, if_absent=if_absent, if_match=if_match)
        if url.endswith(".parquet"):
            _count()
        return info


class LoneRun:
    """A run in its process, which ends with the block."""

    def __init__(self, run: Run) -> None:
        """Describe it; nothing runs yet."""
        self.run = run
        self.process: ForkServerProcess = _processes.Process(target=_main, args=(run,))

    def __enter__(self) -> "LoneRun":
        """Begin."""
        self.process.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it, however far it is."""
        self.process.kill()
        self.process.join()
        self.process.close()

    def killed(self) -> None:
        """Wait until it has been killed."""
        self.process.join(WITHIN_S)
        assert self.process.exitcode == -signal.SIGKILL, self.run.told.read_text()

    def kill(self) -> None:
        """Kill it where it is."""
        self.process.kill()
        self.killed()

    def stopped(self) -> None:
        """Wait until it has been stopped."""
        until = time.monotonic() + WITHIN_S
        while (state := self._state())[:1] != "T":
            assert self.process.exitcode is None, f"it has ended: {self.run.told.read_text()}"
            assert time.monotonic() < until, f"it is {state}"
            time.sleep(0.02)

    def go_on(self) -> None:
        """Continue it."""
        assert self.process.pid
        os.kill(self.process.pid, signal.SIGCONT)

    def ended(self) -> dict[str, Any]:
        """Wait for its end and give what it said: step, stages and attempt, or the error."""
        self.process.join(WITHIN_S)
        assert self.process.exitcode == 0
        told: dict[str, Any] = json.loads(self.run.told.read_text())
        return told

    def _state(self) -> str:
        command = ["ps", "-o", "state=", "-p", str(self.process.pid)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _main(run: Run) -> None:
    close.LEASE = hour.LEASE = run.lease
    leases.RENEW_EVERY, hour.LOOK_AGAIN_S = run.renew_every, 0.05
    store_of = hourly.store_of
    hourly.store_of = lambda properties: StrikingFiles(store_of(properties).properties)
    run.counted.mkdir()
    os.environ[STRIKES] = json.dumps([str(run.counted), dict(run.puts)])
    os.environ["PYTHONPATH"] = str(ROOT)  # of the engine's workers
    lakehouse = load_lakehouse(run.folder / "lakehouse.yaml", {})
    engine = lakehouse.engine

    def session() -> SparkSession:
        return open_session(engine, run.run_id)

    warehouse = Warehouse.open(lakehouse.catalog)
    bench = Bench(lakehouse.spec("events"), warehouse, session, run.run_id, lambda _run_id: run.others_are_over)

    def heard(event: events.Event) -> None:
        if event.name in run.at:
            os.kill(os.getpid(), run.at[event.name])

    try:
        with events.subscribed(heard):
            result = run_hour(bench, HourWindow.from_key(run.hour))
        told = {"step": result.step, "stages": sorted(result.seconds), "attempt": result.attempt, "error": ""}
    except Exception as error:  # noqa: BLE001  # the test judges it
        told = {"error": type(error).__name__, "message": str(error)}
    run.told.write_text(json.dumps(told))
    with suppress(Exception):
        SparkSession.active().stop()


def _count() -> None:
    folder, strikes = json.loads(os.environ[STRIKES])
    number = 0
    while True:  # two tasks never count the same
        number += 1
        with suppress(FileExistsError):
            (Path(folder) / str(number)).touch(exist_ok=False)
            break
    if str(number) in strikes:
        os.kill(os.getpid(), strikes[str(number)])

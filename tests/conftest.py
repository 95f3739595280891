"""What all tests share: servers and a Spark session, started once per test run and only if a test asks for them."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from lakehouse_pipeline.demo.seaweed import SeaweedServer

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from xdist.remote import Producer
    from xdist.scheduler import LoadFileScheduling

    from tests.conformance.engines import Engines
    from tests.postgres import PostgresServer
    from tests.projects import Project


ROOT = Path(__file__).parents[1]

# A JVM of the tests does little for a short time: the second compiler and G1's threads would take the tests' cores.
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"

# What these share starts once in a process, and costs more than a test: all engines, the JVM's Iceberg, and Spark. By
# how the name begins, the first that fits, the group that goes to one process.
SHARING = {
    "tests/conformance/": "engines",
    "tests/oracle/test_jvm_conformance": "engines",
    "tests/oracle/test_jvm_compaction": "engines",
    "tests/oracle/test_jvm_manifests": "engines",
    "tests/oracle/test_foreign": "engines",
    "tests/oracle/": "oracle",
    "tests/engines/": "spark",
    **{
        f"tests/backfill/test_{name}": "spark"
        for name in (
            "bad_input",
            "held",
            "hour",
            "kept",
            "other",
            "placement",
            "preview",
            "range",
            "run_plan",
            "spark",
            "staging",
        )
    },
    **{f"tests/orchestration/test_{name}": "spark" for name in ("loading", "resources", "secrets")},
    "tests/sources/test_orc_files": "spark",
}
# What takes long comes first: else it is waited for at the end.
LONG = (
    *("engines", "oracle", "tests/e2e/"),
    *("spark", "tests/maintenance/test_workers", "tests/backfill/test_kills", "tests/maintenance/test_life"),
    "tests/orchestration/",
)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, and set what every property test and every JVM starts with."""
    hypothesis.settings.register_profile("tests", deadline=None)  # no test judges time: the machine may be busy
    hypothesis.settings.load_profile("tests")
    config.addinivalue_line("markers", "full: takes minutes, and runs only where somebody asks for it: make test-full")
    config.addinivalue_line("markers", "oracle: compares with Apache Iceberg's JVM implementation, in Spark 3.5")
    os.environ.setdefault("JAVA_TOOL_OPTIONS", JAVA_OPTIONS)


def group_of(nodeid: str) -> str:
    """Name the group of tests that go to one process: a file's, or those that share what is costly to begin with."""
    return next((group for name, group in SHARING.items() if nodeid.startswith(name)), nodeid.partition("::")[0])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In the processes of `pytest -n`, begin with what is long."""
    if hasattr(config, "workerinput"):
        tests = Counter(group_of(item.nodeid) for item in items)

        def rank(item: pytest.Item) -> tuple[int, int, str]:
            group = group_of(item.nodeid)
            place = next((place for place, name in enumerate(LONG) if group.startswith(name)), len(LONG))
            return (place, -tests[group], group)

        items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> "LoadFileScheduling":
    """Give each group to one of the processes, in the order of the tests."""
    from xdist.scheduler import LoadFileScheduling  # noqa: PLC0415  # xdist is there, or this is not called

    class ByGroup(LoadFileScheduling):  # type: ignore[misc]  # untyped
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False
    return ByGroup(config, log)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    """Run a real S3 server with an Iceberg REST catalog: buckets `raw` and `plain`, table bucket `lake`."""
    with SeaweedServer(tmp_path_factory.mktemp("seaweed"), buckets=("raw", "plain"), table_bucket="lake") as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator["PostgresServer"]:
    """Run PostgreSQL."""
    from tests.postgres import PostgresServer  # noqa: PLC0415

    with PostgresServer() as server:
        yield server


# ---------------------------------------------------------------------------------------------------------------------
# Projects, and the one session that their hours run on. Tests without either import neither Dagster nor Spark.
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def sparks_end() -> Iterator[None]:
    """Stop Spark with the test run."""
    from pyspark.sql import SparkSession  # noqa: PLC0415

    yield
    if running := SparkSession.getActiveSession():
        running.stop()


@pytest.fixture
def spark(sparks_end: None) -> "SparkSession":
    """Run Spark on two cores; whatever asks for a session joins this one, until a module asks for Sail."""
    from lakehouse_pipeline.engines.sessions import open_session  # noqa: PLC0415

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYSPARK_SUBMIT_ARGS", "--conf spark.python.daemon.module=tests.spark_daemon pyspark-shell")
        environment.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        return open_session("local[2]", "tests")


@pytest.fixture(scope="session")
def conformance(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Engines"]:
    """Run the conformance suite's cases on whatever engine a test asks for."""
    from tests.conformance.engines import Engines  # noqa: PLC0415

    with ExitStack() as servers:
        yield Engines(tmp_path_factory.mktemp("conformance"), servers)


@pytest.fixture(scope="module")
def sail() -> Iterator["SparkSession"]:
    """Run Sail in this process, for modules that are not about engines: an hour on it takes a third of Spark's time.

    PySpark has either Spark or Connect in a process: Spark, if it runs, is stopped, and starts again for who asks next.
    """
    from pyspark.sql import SparkSession  # noqa: PLC0415

    from lakehouse_pipeline.engines.sessions import open_session  # noqa: PLC0415

    if running := SparkSession.getActiveSession():
        running.stop()
    session = open_session("sail", "tests")
    yield session
    session.stop()
    del os.environ["SPARK_CONNECT_MODE_ENABLED"]


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> "Project":
    """Give an empty project of one table, `lake.events`; its engine starts when an hour first needs it."""
    from tests.projects import LAKEHOUSE, Project  # noqa: PLC0415

    engine = "sail" if "sail" in request.fixturenames else "spark"
    made = Project(tmp_path, lambda: request.getfixturevalue(engine))
    made.write("lakehouse.yaml", LAKEHOUSE if engine == "spark" else LAKEHOUSE.replace("local[2]", engine))
    made.describe({})
    return made

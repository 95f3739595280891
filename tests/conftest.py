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

# These wait for Dagster's daemon, and not for a core: they come first, beside each other.
WAITING = "tests/e2e/"
# What their tests share starts once in a process, and costs more than they do: engines, and the JVM's Iceberg.
COSTLY = ("tests/conformance/", "tests/oracle/")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, and set what every property test and every JVM starts with."""
    hypothesis.settings.register_profile("tests", deadline=None)  # no test judges time: the machine may be busy
    hypothesis.settings.load_profile("tests")
    config.addinivalue_line("markers", "full: takes minutes, and runs only where somebody asks for it: make test-full")
    config.addinivalue_line("markers", "oracle: compares with Apache Iceberg's JVM implementation, in Spark 3.5")
    os.environ.setdefault("JAVA_TOOL_OPTIONS", JAVA_OPTIONS)


def group_of(nodeid: str) -> str:
    """Name the group of tests that go to one process: a file's, or those that are costly to begin with."""
    return "costly" if nodeid.startswith(COSTLY) else nodeid.partition("::")[0]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In the processes of `pytest -n`, begin with what is long: else it is waited for at the end."""
    if hasattr(config, "workerinput"):
        tests = Counter(group_of(item.nodeid) for item in items)

        def rank(item: pytest.Item) -> tuple[bool, bool, int, str]:
            group = group_of(item.nodeid)
            return (not group.startswith(WAITING), group != "costly", -tests[group], group)

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
# Projects, and the one Spark session that their hours run on. Tests without either import neither Dagster nor Spark.
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def spark() -> Iterator["SparkSession"]:
    """Run Spark on two cores; whatever asks for a session during the test run joins this one."""
    from lakehouse_pipeline.engines.sessions import open_session  # noqa: PLC0415

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        session = open_session("local[2]", "tests")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def conformance(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Engines"]:
    """Run the conformance suite's cases on whatever engine a test asks for."""
    from tests.conformance.engines import Engines  # noqa: PLC0415

    with ExitStack() as servers:
        yield Engines(tmp_path_factory.mktemp("conformance"), servers)


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> "Project":
    """Give an empty project of one table, `lake.events`; Spark starts when an hour first needs it."""
    from tests.projects import LAKEHOUSE, Project  # noqa: PLC0415

    made = Project(tmp_path, lambda: request.getfixturevalue("spark"))
    made.write("lakehouse.yaml", LAKEHOUSE)
    made.describe({})
    return made

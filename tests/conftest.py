"""What all tests share: servers and a Spark session, started once per test run and only if a test asks for them."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from lakehouse_pipeline.demo.seaweed import SeaweedServer

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.conformance.engines import Engines
    from tests.projects import Project


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, and what all property tests share."""
    hypothesis.settings.register_profile("tests", deadline=None)  # no test judges time: the machine may be busy
    hypothesis.settings.load_profile("tests")
    config.addinivalue_line("markers", "oracle: compares with Apache Iceberg's JVM implementation, in Spark 3.5")


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    """Run a real S3 server with an Iceberg REST catalog: buckets `raw` and `plain`, table bucket `lake`."""
    with SeaweedServer(tmp_path_factory.mktemp("seaweed"), buckets=("raw", "plain"), table_bucket="lake") as server:
        yield server


# ---------------------------------------------------------------------------------------------------------------------
# Projects, and the one Spark session that their hours run on. Tests without either import neither Dagster nor Spark.
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def spark() -> Iterator["SparkSession"]:
    """Run Spark on two cores; whatever asks for a session during the test run joins this one."""
    from lakehouse_pipeline.engines.sessions import open_session  # noqa: PLC0415

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

"""The servers that all tests share, started once per test run and only if a test asks for them."""

from collections.abc import Iterator

import pytest

from lakehouse_pipeline.demo.seaweed import SeaweedServer


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    """Run a real S3 server with an Iceberg REST catalog: buckets `raw` and `plain`, table bucket `lake`."""
    with SeaweedServer(tmp_path_factory.mktemp("seaweed"), buckets=("raw", "plain"), table_bucket="lake") as server:
        yield server

"""The oracle and the catalog that it shares with us. What cannot be installed or started fails the tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog

from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.iceberg.tables import open_catalog
from tests.iceberg.lake import Lake
from tests.oracle.jvm import Jvm, s3_file_io


@pytest.fixture(scope="session")
def jvm(seaweed: SeaweedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jvm]:
    """Run Spark 3.5 with Iceberg 1.10, its catalog `lake` being the REST catalog of the S3 server."""
    properties = {
        "type": "rest",
        "uri": seaweed.catalog_uri,
        "warehouse": f"s3://{seaweed.table_bucket}",
        "credential": f"{seaweed.access_key_id}:{seaweed.secret_access_key}",
        "cache-enabled": "false",
        **s3_file_io(seaweed),
    }
    with Jvm(tmp_path_factory.mktemp("oracle"), properties) as started:
        yield started


@pytest.fixture
def rest_catalog(seaweed: SeaweedServer) -> Iterator[Catalog]:
    """Give the REST catalog of the S3 server, with our FileIO."""
    tokens = {"oauth2-server-uri": f"{seaweed.catalog_uri}/v1/oauth/tokens"}
    opened = open_catalog({**tokens, **seaweed.catalog_properties()})
    yield opened
    opened.close()


@pytest.fixture
def lake(rest_catalog: Catalog) -> Lake:
    """Give an empty table of events in the REST catalog."""
    return Lake.create(rest_catalog)


@pytest.fixture
def local_catalog(tmp_path: Path) -> Iterator[Catalog]:
    """Give a SQL catalog on local disk, which the JVM knows nothing of."""
    opened = open_catalog({"type": "sql", "uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"file://{tmp_path}/w"})
    yield opened
    opened.close()

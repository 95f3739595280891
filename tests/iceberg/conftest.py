"""Catalogs: a SQL one per test on local disk, and SeaweedFS's REST catalog on a real S3 server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog

from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.iceberg.tables import open_catalog
from tests.iceberg.lake import Lake


def sqlite_properties(folder: Path) -> dict[str, str]:
    """Describe a SQL catalog in a folder."""
    return {"type": "sql", "uri": f"sqlite:///{folder}/catalog.db", "warehouse": f"file://{folder}/warehouse"}


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """Give a SQL catalog on SQLite with a folder as its warehouse."""
    opened = open_catalog(sqlite_properties(tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def rest_catalog(seaweed: SeaweedServer) -> Iterator[Catalog]:
    """Give the REST catalog of a real S3 server."""
    tokens = {"oauth2-server-uri": f"{seaweed.catalog_uri}/v1/oauth/tokens"}
    opened = open_catalog({**tokens, **seaweed.catalog_properties()})
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "rest"])
def any_catalog(request: pytest.FixtureRequest) -> Catalog:
    """Give a catalog of each kind."""
    opened: Catalog = request.getfixturevalue("rest_catalog" if request.param == "rest" else "catalog")
    return opened


@pytest.fixture
def lake(catalog: Catalog) -> Lake:
    """Give an empty table of events in a SQL catalog."""
    return Lake.create(catalog)


@pytest.fixture
def any_lake(any_catalog: Catalog) -> Lake:
    """Give an empty table of events in a catalog of each kind."""
    return Lake.create(any_catalog)

from pathlib import Path

import pytest

from lakehouse_pipeline.config.catalog import resolve_catalog

FOLDER = Path("/project")


@pytest.mark.parametrize(
    ("uri", "resolved"),
    [
        pytest.param("sqlite:///catalog.db", "sqlite:////project/catalog.db", id="relative"),
        pytest.param(
            "sqlite+pysqlite:///a/b.db?timeout=5", "sqlite+pysqlite:////project/a/b.db?timeout=5", id="driver"
        ),
        pytest.param("sqlite:////abs/catalog.db", "sqlite:////abs/catalog.db", id="absolute"),
        pytest.param("sqlite:///:memory:", "sqlite:///:memory:", id="memory"),
        pytest.param("sqlite://", "sqlite://", id="memory too"),
        pytest.param("sqlite:///file:a.db?uri=true", "sqlite:///file:a.db?uri=true", id="SQLite's own URI"),
        pytest.param("postgresql://u:p@h/lake", "postgresql://u:p@h/lake", id="PostgreSQL"),
        pytest.param("https://catalog", "https://catalog", id="REST"),
    ],
)
def test_uris(uri: str, resolved: str) -> None:
    """Only SQLite's relative files move."""
    assert resolve_catalog({"uri": uri}, FOLDER) == {"uri": resolved}


@pytest.mark.parametrize(
    ("catalog", "warehouse"),
    [
        pytest.param({"type": "sql", "warehouse": "wh/"}, "file:///project/wh", id="relative"),
        pytest.param({"type": "SQL", "warehouse": "../wh"}, "file:///wh", id="type in capitals"),
        pytest.param({"type": "in-memory", "warehouse": "/abs/wh"}, "file:///abs/wh", id="absolute"),
        pytest.param({"uri": "postgresql://h/l", "warehouse": "wh"}, "file:///project/wh", id="type told by the URI"),
        pytest.param({"type": "sql", "warehouse": "s3://lake"}, "s3://lake", id="s3"),
        pytest.param({"type": "sql", "warehouse": "file:///wh"}, "file:///wh", id="file URL"),
        pytest.param({"type": "rest", "warehouse": "lake"}, "lake", id="REST, a name"),
        pytest.param({"type": "rest", "warehouse": "arn:aws:s3tables:x"}, "arn:aws:s3tables:x", id="REST, an ARN"),
        pytest.param({"uri": "http://h", "warehouse": "lake"}, "lake", id="REST told by the URI"),
        pytest.param({"name": "prod", "warehouse": "lake"}, "lake", id="kind not known"),
    ],
)
def test_warehouses(catalog: dict[str, str], warehouse: str) -> None:
    """A local warehouse becomes a URL; a name stays a name."""
    assert resolve_catalog(catalog, FOLDER) == {**catalog, "warehouse": warehouse}


def test_other_properties_pass_through() -> None:
    """What they mean is PyIceberg's to say."""
    catalog = {"name": "prod", "s3.endpoint": "http://localhost:8333", "token": "relative/path"}
    assert resolve_catalog(catalog, FOLDER) == catalog

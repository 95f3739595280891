"""Catalogs of each kind, where a test asks for one."""

from tests.iceberg.conftest import any_catalog, any_lake, catalog, lake, rest_catalog

__all__ = ["any_catalog", "any_lake", "catalog", "lake", "rest_catalog"]

"""The catalog of a real S3 server, where a test asks for it."""

from tests.iceberg.conftest import rest_catalog

__all__ = ["rest_catalog"]

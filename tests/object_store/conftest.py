"""A scripted S3 for the tests of this folder."""

from collections.abc import Iterator

import pytest

from lakehouse_pipeline.object_store.compose import _store_at
from lakehouse_pipeline.object_store.lanes import _lanes_of
from tests.object_store.scripted_s3 import ScriptedS3


@pytest.fixture(scope="package")
def server() -> Iterator[ScriptedS3]:
    """Run one server for all tests here: a client costs more than a test."""
    server = ScriptedS3()
    yield server
    server.stop()


@pytest.fixture
def s3(server: ScriptedS3) -> ScriptedS3:
    """Give the server with an empty script; no test is slowed by the throttles of another, or knows its store."""
    _lanes_of.cache_clear()
    _store_at.cache_clear()
    server.script, server.asked = [], []
    return server

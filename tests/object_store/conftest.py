"""A scripted S3 for the tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.object_store.scripted_s3 import ScriptedS3


@pytest.fixture(scope="package")
def server() -> Iterator[ScriptedS3]:
    """Run one server for all tests here: a client costs more than a test."""
    server = ScriptedS3()
    yield server
    server.stop()


@pytest.fixture
def s3(server: ScriptedS3) -> ScriptedS3:
    """Give the server with an empty script."""
    server.script, server.asked = [], []
    return server

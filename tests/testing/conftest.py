"""An upstream that echoes, and a fault server before it, for the tests of this folder."""

from collections.abc import Iterator

import pytest

from lakehouse_pipeline.testing.faults import FaultServer
from tests.testing.echo import Echo


@pytest.fixture(scope="package")
def upstream() -> Iterator[Echo]:
    """Run one upstream for all tests here."""
    upstream = Echo()
    yield upstream
    upstream.stop()


@pytest.fixture
def echo(upstream: Echo) -> Echo:
    """Give the upstream with nothing heard."""
    upstream.heard, upstream.eats = [], True
    return upstream


@pytest.fixture
def server(echo: Echo) -> Iterator[FaultServer]:
    """Run a fault server without faults."""
    with FaultServer(echo.url) as server:
        yield server

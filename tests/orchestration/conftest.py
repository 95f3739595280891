"""What every test of the orchestration may ask for."""

from collections.abc import Iterator

import dagster as dg
import pytest


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """Give a Dagster instance of the test's own."""
    with dg.instance_for_test() as made:
        yield made

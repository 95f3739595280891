"""Whatever listens, of all that this package starts or tells people to start, is reached from this machine alone.

Dagster's page and engines take their time to start: they are in `tests/e2e/test_listeners.py`.
"""

import os
import sys

import pytest

from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.testing.faults import FaultServer
from tests.security.listening import addresses, assert_loopback, beyond_loopback, family, running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's /proc")


def test_the_embedded_store(seaweed: SeaweedServer) -> None:
    """All of its ports, of HTTP and gRPC alike: of the store, the catalog, master, volumes, filer, admin."""
    assert seaweed._process is not None
    pids = family(seaweed._process.pid)
    assert len(addresses(pids)) >= len(seaweed._ports)
    assert_loopback(pids)


def test_the_fault_server(seaweed: SeaweedServer) -> None:
    """In the process that asks for it."""
    before = addresses({os.getpid()})
    with FaultServer(seaweed.endpoint):
        (address,) = addresses({os.getpid()}) - before
    assert address.startswith("127.0.0.1:")


FAULTS = ["-m", "lakehouse_pipeline.testing.faults", "--upstream", "http://127.0.0.1:1"]


def test_the_fault_server_as_a_command() -> None:
    """As docs/fault-server.md has it."""
    with running(*FAULTS) as pids:
        assert_loopback(pids)


def test_the_fault_server_listens_where_it_is_told_to() -> None:
    """The one way to have it reached from elsewhere; and a listener beyond loopback is seen by this test."""
    with running(*FAULTS, "--host", "0.0.0.0") as pids:  # noqa: S104  # that is the point
        assert {address.rpartition(":")[0] for address in beyond_loopback(pids)} == {"0.0.0.0"}  # noqa: S104

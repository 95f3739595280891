"""What the state machine has found (`tests/maintenance/test_life`), each with a name."""

import pytest

from lakehouse_pipeline import events
from tests.crashes.flows import expire, rewrite_manifests, run
from tests.iceberg.conftest import catalog, lake
from tests.iceberg.lake import ELEVEN, TEN, Lake
from tests.maintenance.test_sweep import KilledError, killed_at

__all__ = ["catalog", "lake"]


def test_a_sealed_manifest_that_expired_before_its_commit_was_heard_of_goes(lake: Lake) -> None:
    """The run was killed as its commit landed; then manifests were written anew, and the snapshot expired."""
    run(lake, ELEVEN, [[7]])
    with pytest.raises(KilledError), events.subscribed(killed_at("commit.landed")):
        run(lake, TEN, [[1]])
    rewrite_manifests(lake)
    expire(lake)
    assert lake.unreached() != set()  # it may be committed anew, after a rollback
    run(lake, TEN, [[1]])
    assert lake.rows() == {TEN.key: [1], ELEVEN.key: [7]}
    assert lake.unreached() == set()

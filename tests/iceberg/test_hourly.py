"""A table as a backfill sees it: attempts that are committed once, whoever asks again, and stores without secrets."""

from datetime import UTC, datetime

import pytest
from pyiceberg.catalog import Catalog

from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.errors import CommitConflictError, LakehouseError, SafetyError
from lakehouse_pipeline.iceberg.commit import Replaced
from lakehouse_pipeline.iceberg.hourly import HeldAttempt, store_of
from lakehouse_pipeline.iceberg.sealed_hours import SealedHour
from lakehouse_pipeline.ledger.hours import Ledger
from lakehouse_pipeline.ledger.records import Attempt
from tests.iceberg.lake import ELEVEN, TEN, Lake, events


def attempt_of(sealed: SealedHour, snapshot_id: int | None = None) -> Attempt:
    """Give a sealed hour as its record holds it; `snapshot_id` is that of the commit that was sent last."""
    return Attempt(
        id=sealed.attempt,
        run_id="run",
        opened_at=datetime(2026, 1, 1, tzinfo=UTC),
        opened_on=None,
        replaces=sealed.replaces,
        source="s",
        recipe="r",
        buckets=1,
        seal=sealed.seal,
        bases=() if snapshot_id is None else (None,),
        snapshot_ids=() if snapshot_id is None else (snapshot_id,),
    )


def commit(lake: Lake, attempt: Attempt, epoch: int = 9) -> Replaced:
    """Commit one attempt of TEN, or raise why it is not committed."""
    outcome = lake.now.replace([HeldAttempt(TEN, attempt, epoch)], before_send=lambda *_: None)[TEN]
    if isinstance(outcome, LakehouseError):
        raise outcome
    return outcome


@pytest.mark.parametrize("ids", [[1, 2], []], ids=["rows", "no rows"])
@pytest.mark.parametrize("changed", ["nothing", "appended to", "replaced", "expired", "rolled back"])
def test_an_attempt_that_landed_unseen_is_done(lake: Lake, ids: list[int], changed: str) -> None:
    """A resumed attempt finds its landed commit, whatever was done to the hour since, and changes nothing."""
    opened_on = lake.put(TEN, [0]).snapshot_id
    sealed = lake.seal(TEN, ids)
    landed = lake.replace(sealed).snapshot_id
    if changed == "appended to":
        lake.append(events(TEN, [3]))
    elif changed == "replaced":
        lake.put(TEN, [4])
    elif changed == "expired":
        assert landed is not None
        lake.put(ELEVEN, [5])
        lake.now.table.maintenance.expire_snapshots().by_id(landed).commit()
    elif changed == "rolled back":
        assert opened_on is not None
        lake.now.table.manage_snapshots().rollback_to_snapshot(opened_on).commit()
    before = lake.now.head, lake.rows()
    replaced = commit(lake, attempt_of(sealed, landed))
    assert replaced.snapshot_id == (lake.now.head if changed == "expired" else landed)
    assert (lake.now.head, lake.rows()) == before


def test_an_attempt_that_landed_is_found_by_its_files_too(lake: Lake) -> None:
    """A record that does not know the snapshot is no obstacle."""
    sealed = lake.seal(TEN, [1])
    landed = lake.replace(sealed).snapshot_id
    lake.append(events(TEN, [2]))
    assert commit(lake, attempt_of(sealed)).snapshot_id == landed


def test_an_attempt_that_never_landed_is_superseded(lake: Lake) -> None:
    """If the hour was changed and no snapshot is of the attempt, it conflicts."""
    sealed = lake.seal(TEN, [1])
    lake.append(events(TEN, [2]))
    with pytest.raises(CommitConflictError, match="superseded"):
        commit(lake, attempt_of(sealed, 12345))


def test_committed_is_what_any_snapshot_reaches(lake: Lake) -> None:
    """An attempt is committed from its landing until its snapshot is gone, also after its hour was replaced."""
    sealed = lake.seal(TEN, [1])
    assert lake.now.landed(TEN, attempt_of(sealed)) is None
    landed = lake.replace(sealed).snapshot_id
    lake.put(TEN, [2])
    assert lake.now.landed(TEN, attempt_of(sealed)) == landed
    assert landed is not None
    lake.now.table.maintenance.expire_snapshots().by_id(landed).commit()
    assert lake.now.landed(TEN, attempt_of(sealed)) is None


def test_only_sealed_attempts_are_committed(lake: Lake) -> None:
    """Files that were not checked do not get into the table."""
    unsealed = attempt_of(lake.seal(TEN, [1])).model_copy(update={"seal": None})
    with pytest.raises(SafetyError, match="is not sealed"):
        commit(lake, unsealed)


def test_a_table_is_seen_as_it_was_loaded(lake: Lake) -> None:
    """What one look says of head and live files does not change under its holder."""
    before = lake.now
    first = lake.put(TEN, [1]).snapshot_id
    assert first is not None
    assert (before.head, before.live(TEN)) == (None, [])
    assert (lake.now.head, len(lake.now.live(TEN))) == (first, 1)


def test_the_ledger_is_the_tables_own(lake: Lake) -> None:
    """Records lie below the table's location, by its uuid."""
    table = lake.now
    assert isinstance(table.ledger, Ledger)
    assert table.ledger.folder == f"{table.location}/_lakehouse/{table.uuid}"


def test_tasks_get_the_stores_properties_only(rest_catalog: Catalog, seaweed: SeaweedServer) -> None:
    """No credential of the catalog travels to a task."""
    assert "credential" in rest_catalog.properties
    assert Lake.create(rest_catalog).now.files.properties == seaweed.s3_properties()
    assert store_of({"s3.region": "r", "token": "t", "credential": "c", "uri": "u"}).properties == {"s3.region": "r"}

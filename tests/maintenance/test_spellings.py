"""A file that metadata spell in two ways is one file, to whoever removes files."""

import copy
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table.update import SetLocationUpdate

from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.ledger.turns import Turn
from lakehouse_pipeline.maintenance import expiry, manifests
from lakehouse_pipeline.maintenance.lease import maintaining
from tests.backfill.hands import opened, seal
from tests.iceberg.lake import ELEVEN, TEN, TWELVE, Lake, events, in_bucket


@pytest.fixture
def lake(seaweed: SeaweedServer, tmp_path: Path) -> Iterator[Lake]:
    """Give a table in a bucket."""
    place = {"type": "sql", "uri": f"sqlite:///{tmp_path}/s3.db", "warehouse": f"s3://plain/{uuid4().hex}"}
    catalog = open_catalog({**place, **seaweed.s3_properties()})
    yield Lake.create(catalog)
    catalog.close()


def respell(lake: Lake) -> None:
    """Spell the table's location as Hadoop does."""
    table = lake.now.table
    other = table.location().replace("s3://", "s3a://", 1)
    table._do_commit(updates=(SetLocationUpdate(location=other),), requirements=())  # it has no face


def expired(lake: Lake) -> expiry.Expired:
    """Expire all but the last snapshot."""
    plan = expiry.look(lake.now, None, datetime.now(UTC) + timedelta(days=6))
    with maintaining(lake.now, "expiry", "x") as held:
        return expiry.run_expiry(lake.now, plan, held)


def test_expiry_keeps_what_is_reached_by_the_other_spelling(lake: Lake) -> None:
    """References that were migrated from s3a to s3: the old snapshot's file is the new one's."""
    lake.put(TEN, [1, 2])
    respell(lake)
    lake.put(ELEVEN, [7])
    (path,) = lake.files(ELEVEN)
    assert path.startswith("s3a://")
    (entry,) = [each for each in lake.entries() if each.data_file.file_path == path]
    new = copy.deepcopy(entry.data_file)
    new[new._data.index(path)] = path.replace("s3a://", "s3://", 1)  # a record has no other face
    with lake.now.table.transaction() as transaction, transaction.update_snapshot().overwrite() as overwrite:
        overwrite.delete_data_file(entry.data_file)
        overwrite.append_data_file(new)
    rows = {TEN.key: [1, 2], ELEVEN.key: [7]}
    assert lake.rows() == rows
    assert expired(lake).files.removed
    assert lake.rows() == rows


def test_left_manifests_are_told_by_either_spelling(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rewrite that landed and was killed before it said so, of a table whose location is spelled anew since."""
    for number in range(4):
        lake.put(TEN, [number])
        lake.put(ELEVEN, [number])
        lake.append(events(TEN, [9]))
    note = Turn.note

    def unless_it_ends(turn: Turn, **notes: str) -> None:
        if notes != {"manifests": ""}:
            note(turn, **notes)

    with monkeypatch.context() as patch:
        patch.setattr(Turn, "note", unless_it_ends)
        with maintaining(lake.now, "manifests", "x") as held:
            assert manifests.rewrite_manifests(lake.now, manifests.look(lake.now), held).commit
    respell(lake)
    rows = lake.rows()
    with maintaining(lake.now, "manifests", "y") as held:
        assert manifests.remove_left_manifests(lake.now, held.turn) == ()
    assert lake.rows() == rows


@pytest.mark.parametrize("noted", [True, False], ids=["of this version", "of an earlier one"])
def test_a_landed_attempt_is_told_by_either_spelling(lake: Lake, *, noted: bool) -> None:
    """Its marker outlives it, the location is spelled anew: nothing of it that the table reaches is removed.

    An attempt of an earlier version does not say how the location was spelled when it was opened.
    """
    hand = opened(lake, TEN)
    marker = next(iter(lake.now.ledger.marked())).marker
    seal(lake, hand, [1, 2])
    hand.commit()
    respell(lake)
    attempt = marker.attempt if noted else marker.attempt.model_copy(update={"layout": {}})
    lake.now.ledger.mark(marker.model_copy(update={"attempt": attempt, "closed": True, "sealed": True}))
    close_attempts(lake.now, lambda _run_id: True, grace=timedelta(0))
    assert lake.rows() == {TEN.key: [1, 2]}


def test_a_record_that_comes_back_old_is_held_against_the_table(catalog: Catalog, monkeypatch: Any) -> None:
    """From a copy of the ledger's folder, after the attempt landed and its manifests were written anew and expired."""
    lake = Lake.create(catalog)
    hand = opened(lake, TEN)
    stale, marker = hand.held.record, next(iter(lake.now.ledger.marked())).marker
    (written,) = lake.write(TEN, [in_bucket(0, events(TEN, [1, 2]))], hand.attempt.id)
    hand.seal(hand.table.seal(hand.attempt.id, [written], rows_read=None, rejected=0))
    hand.commit()
    for hour in (ELEVEN, TWELVE, ELEVEN, TWELVE):
        lake.put(hour, [3])
    with maintaining(lake.now, "manifests", "x") as held:
        manifests.rewrite_manifests(lake.now, manifests.look(lake.now), held)
    expired(lake)
    lake.now.files.put(hand.held.url, stale.model_dump_json().encode())
    lake.now.ledger.mark(marker)
    monkeypatch.setattr("lakehouse_pipeline.backfill.leftovers.ZOMBIES", timedelta(0))  # it is an old one
    close_attempts(lake.now, lambda _run_id: True, grace=timedelta(0))
    assert lake.missing() == set()
    assert lake.rows()[TEN.key] == [1, 2]

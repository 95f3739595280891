"""Commits that land and are answered wrongly by a real REST catalog, and what a commit writes, counted in requests."""

import re
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import CommitTableResponse

from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.errors import CommitStateUnknownError
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.testing.faults import FaultServer
from tests.backfill.hands import in_hand, opened, sealed
from tests.iceberg.answers import (
    CASES,
    ROWS,
    TRIES,
    Answered,
    Answers,
    answers,
    fault_server,
    silence_after_landing,
    tries,
)
from tests.iceberg.lake import ELEVEN, TEN, TWELVE, Lake, events, in_bucket
from tests.iceberg.scripted import ScriptedCatalog, Send, lost, refused


@pytest.fixture(scope="module")
def server(seaweed: SeaweedServer) -> Iterator[FaultServer]:
    """Run one fault server for all tests here."""
    with fault_server(seaweed) as running:
        yield running


@pytest.fixture
def answered(seaweed: SeaweedServer, server: FaultServer) -> Iterator[Answers]:
    """Give a table with an attempt that waits for its commit."""
    with answers(seaweed, server) as made:
        yield made


def assert_committed_once(lake: Lake, attempt: str, snapshots: int) -> None:
    """There is one snapshot more, of this attempt; all its files are there, and nothing else is."""
    found = lake.now.table.metadata.snapshots
    batches = [each.summary.additional_properties.get("lakehouse.batch", "") for each in found if each.summary]
    assert (len(found), sum(attempt in batch for batch in batches)) == (snapshots + 1, 1)
    assert (lake.rows(), lake.missing(), lake.unreached()) == (ROWS, set(), set())
    record = in_hand(lake, TEN).held.record
    assert record.committed is not None
    assert (record.state, record.committed.attempt, record.committed.snapshot_id) == ("idle", attempt, lake.now.head)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_commit_that_landed_is_made_once(answered: Answers, case: Answered) -> None:
    """Whichever try lands and whatever it is answered, the attempt is one snapshot, and its record says so."""
    attempt, snapshots = answered.hand.attempt.id, len(answered.lake.now.table.metadata.snapshots)
    answered.commit(case)
    assert answered.sent == (case.place or 0) + 1
    answered.server.clear()
    assert_committed_once(answered.lake, attempt, snapshots)


def test_a_commit_that_landed_before_silence_is_found_by_the_next_run(answered: Answers) -> None:
    """Neither the commit nor any reading of the table is answered: nothing is removed, and a later run finds it."""
    attempt, snapshots = answered.hand.attempt.id, len(answered.lake.now.table.metadata.snapshots)
    answered.server.clear()
    silence_after_landing(answered.server)
    with tries(), pytest.raises(CommitStateUnknownError, match="could not be read back"):
        answered.hand.commit()
    answered.server.clear()
    resumed = in_hand(answered.lake, TEN)
    resumed.resume()
    resumed.commit()
    assert answered.sent == 0
    assert_committed_once(answered.lake, attempt, snapshots)


# ---------------------------------------------------------------------------------------------------------------------
# What a commit writes
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Counted:
    """A table on S3 whose requests are counted, in a SQL catalog that answers as a test says.

    Attributes:
        server: the fault server before S3.
        catalog: the SQL catalog.
        lake: the table, through the server.
        rival: the same table for somebody else, whose requests are not counted.
    """

    server: FaultServer
    catalog: ScriptedCatalog
    lake: Lake
    rival: Lake

    def puts(self, attempt: str) -> list[str]:
        """Name what was put for hours' data and metadata since, but the catalog's own metadata.json, in order."""
        paths = [said.path for said in self.server.exchanges if said.verb in {"PutObject", "CreateMultipartUpload"}]
        files = [path for path in paths if "/_lakehouse/" not in path and not path.endswith(".metadata.json")]
        return [re.sub(rf"{attempt}-1", "attempt", path.rpartition("/metadata/")[2]) for path in files]


@pytest.fixture
def counted(seaweed: SeaweedServer, tmp_path: Path) -> Iterator[Counted]:
    """Give a table of two hours that share a manifest."""
    where = {"uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"s3://plain/{uuid.uuid4().hex}"}
    stored = where | seaweed.s3_properties()
    with FaultServer(seaweed.endpoint) as server:
        through = stored | {"s3.endpoint": server.endpoint}
        with (
            closing(ScriptedCatalog("lakehouse", **through)) as catalog,
            open_catalog({"type": "sql", **stored}) as other,
        ):
            small = {"commit.manifest.target-size-bytes": "1"}  # a manifest for each file
            lake = Lake.create(catalog, properties=small)
            lake.append(events(TEN, [0]), events(ELEVEN, [9]))
            yield Counted(server, catalog, lake, Lake(other, lake.identifier))


@pytest.mark.parametrize("ids", [[1, 2], []], ids=["rows", "no rows"])
def test_a_commit_writes_a_list_and_the_hours_manifests_anew(counted: Counted, ids: list[int]) -> None:
    """Of what it replaces, the manifests that hold the hour's files are written again, and no other is."""
    counted.rival.put(TWELVE, [7])
    counted.rival.append(events(TEN, [3]))
    hand = sealed(counted.lake, TEN, ids)
    counted.server.clear()
    attempt = hand.attempt.id
    hand.commit()
    assert counted.puts(attempt) == ["attempt-0-m0.avro", "attempt-0-m1.avro", "snap-attempt-0.avro"]


def test_every_try_after_a_conflict_writes_as_much(counted: Counted) -> None:
    """A rival of another hour costs a list, and the hour's manifests anew: no data and no sealed manifest."""

    def rival(send: Send) -> CommitTableResponse:
        counted.rival.put(TWELVE, [7])
        return send()  # refused by the catalog

    counted.catalog.script = [rival, rival]
    hand = sealed(counted.lake, TEN, [1, 2])
    counted.server.clear()
    attempt = hand.attempt.id
    with tries():
        hand.commit()
    expected = [name for place in range(TRIES) for name in (f"attempt-{place}-m0.avro", f"snap-attempt-{place}.avro")]
    assert counted.puts(attempt) == expected
    assert counted.rival.rows() == ROWS
    assert (counted.rival.missing(), counted.rival.unreached()) == (set(), set())


@pytest.mark.parametrize("error", [requests.ReadTimeout(), CommitFailedException("409")], ids=["timeout", "409"])
def test_a_commit_that_is_sent_again_writes_nothing(counted: Counted, error: Exception) -> None:
    """While its base stands, the same snapshot is sent again, and found."""
    counted.catalog.script = [refused(error), lost(error)]
    hand = sealed(counted.lake, TEN, [1, 2])
    counted.server.clear()
    attempt = hand.attempt.id
    with tries():
        hand.commit()
    assert counted.puts(attempt) == ["attempt-0-m0.avro", "snap-attempt-0.avro"]


def test_an_hour_that_replaces_nothing_is_committed_by_a_list(counted: Counted) -> None:
    """Three sealed manifests enter the table as they are: the commit puts the list alone."""
    hand = opened(counted.lake, TWELVE)
    attempt = hand.attempt.id
    batches = [in_bucket(bucket, events(TWELVE, [bucket])) for bucket in range(3)]
    hand.seal(hand.table.seal(attempt, counted.lake.write(TWELVE, batches, attempt), rows_read=None, rejected=0))
    assert hand.attempt.seal is not None
    assert len(hand.attempt.seal.manifests) == 3
    counted.server.clear()
    hand.commit()
    assert counted.puts(attempt) == ["snap-attempt-0.avro"]
    assert counted.rival.rows()[TWELVE.key] == [0, 1, 2]

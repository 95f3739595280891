"""Sealed attempts wait for their commit, but not for ever; those that can never be committed say so once."""

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from pyiceberg.types import StringType

from lakehouse_pipeline.backfill.attempts import HourInHand
from lakehouse_pipeline.backfill.leftovers import close_attempts, is_due
from lakehouse_pipeline.backfill.sealed import NeverCommittedError, commit_sealed, is_waiting
from lakehouse_pipeline.errors import CommitStateUnknownError, TransientError
from lakehouse_pipeline.iceberg import commit
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.ledger.leases import LEASE
from lakehouse_pipeline.retry import RetryPolicy
from lakehouse_pipeline.status.picture import hour_status
from lakehouse_pipeline.status.text import why_lines
from tests.backfill.hands import in_hand, sealed
from tests.iceberg.lake import ELEVEN, TEN, Lake

KEEP = timedelta(days=7)
DAY = timedelta(days=1)


@pytest.fixture
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Give a table in a SQLite catalog of its own."""
    folder = tmp_path_factory.mktemp("lake")
    return Lake.create(
        open_catalog({"type": "sql", "uri": f"sqlite:///{folder}/c.db", "warehouse": f"file://{folder}/w"})
    )


def waited(hand: HourInHand, span: timedelta) -> None:
    """Let nobody have touched its record for so long."""
    moment = time.time() - span.total_seconds()
    os.utime(Path(hand.held.url.removeprefix("file://")), (moment, moment))


def due(lake: Lake, keep: timedelta | None = KEEP) -> bool:
    """Tell whether anything is to be closed; nothing is known of any run."""
    return is_due(lake.now, lambda _run: False, sealed_keep=keep)


def closed(lake: Lake, keep: timedelta | None = KEEP) -> list[str]:
    """Close what is due."""
    return close_attempts(lake.now, lambda _run: False, sealed_keep=keep)


def lose_a_file(lake: Lake, hand: HourInHand) -> None:
    """Let somebody remove a data file of a sealed attempt."""
    assert hand.attempt.seal
    lake.now.files.delete(next(iter(lake.now.sealed_files(hand.attempt.seal))))


def test_it_is_given_up_once_nobody_came_for_it(lake: Lake) -> None:
    """Its files go, the record says why, and nothing is left after the second pass."""
    hand = sealed(lake, TEN, [1, 2])
    waited(hand, KEEP + DAY)
    assert due(lake)
    assert closed(lake) == [hand.attempt.id]
    record = in_hand(lake, TEN).held.record
    assert record.outcome
    assert (record.state, record.outcome.kind) == ("idle", "abandoned")
    assert "nobody has touched it for 7 days" in record.outcome.message
    for _ in range(2):
        close_attempts(lake.now, lambda _run: True, grace=timedelta(0), sealed_keep=KEEP)
    assert (lake.rows(), lake.unreached(), list(lake.now.ledger.marked())) == ({}, set(), [])


@pytest.mark.parametrize(
    ("span", "keep"), [(KEEP - DAY, KEEP), (100 * KEEP, None), (LEASE / 2, timedelta(0))], ids=["young", "ever", "held"]
)
def test_until_then_it_waits(lake: Lake, span: timedelta, keep: timedelta | None) -> None:
    """And never ends before the lease of whoever holds it, whatever is set."""
    hand = sealed(lake, TEN, [1, 2])
    waited(hand, span)
    assert not due(lake, keep)
    assert closed(lake, keep) == []
    assert in_hand(lake, TEN).held.record.state == "sealed"


def test_one_that_is_tried_is_not_given_up(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for a catalog that is away, not for somebody who comes for it."""
    hand = sealed(lake, TEN, [1, 2])
    waited(hand, KEEP + DAY)

    def away(*_: object) -> None:
        raise TransientError("the catalog is away")

    with monkeypatch.context() as patched:
        patched.setattr(commit, "COMMIT_RETRIES", RetryPolicy(1, 1, 0, 0))
        patched.setattr(commit, "build_replacement", away)
        (told,) = commit_sealed(lake.now, lambda _run: False, left_alone=True)
    assert isinstance(told.error, TransientError)
    assert closed(lake) == []
    (told,) = commit_sealed(lake.now, lambda _run: True)
    assert told.committed


def test_one_that_has_landed_is_not_given_up(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commit's answer was lost, and its run with it: it is found in the table, and its files stay."""
    hand = sealed(lake, TEN, [1, 2])

    def lost(*_: object, **__: object) -> None:
        raise CommitStateUnknownError("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(HourInHand, "settle", lost)
        with pytest.raises(CommitStateUnknownError):
            hand.commit()
    assert in_hand(lake, TEN).held.record.state == "committing"
    waited(hand, KEEP + DAY)
    assert closed(lake) == [hand.attempt.id]
    record = in_hand(lake, TEN).held.record
    assert (record.state, record.committed and record.committed.attempt) == ("idle", hand.attempt.id)
    assert (lake.rows(), lake.missing(), lake.unreached()) == ({TEN.key: [1, 2]}, set(), set())


def test_one_whose_files_are_gone_says_so_once(lake: Lake) -> None:
    """It is told each time, noted once, asked for no more, and given up like any other; others are committed."""
    broken, whole = sealed(lake, TEN, [1, 2]), sealed(lake, ELEVEN, [3])
    lose_a_file(lake, broken)
    for hand in (broken, whole):
        waited(hand, DAY)
    assert is_waiting(lake.now, lambda _run: False)
    told = {each.hour: each for each in commit_sealed(lake.now, lambda _run: False, left_alone=True)}
    assert isinstance(told[TEN].error, NeverCommittedError)
    assert told[ELEVEN].committed
    held = in_hand(lake, TEN).held
    assert (held.record.state, held.age < LEASE) == ("sealed", True)
    said = " ".join(why_lines("events", hour_status(held)))
    assert "never to be committed" in said
    assert "1 of its files are gone" in said
    assert said.endswith(f"Now: lakehouse backfill events {TEN}")
    waited(broken, KEEP - DAY)
    assert not is_waiting(lake.now, lambda _run: False)
    (again,) = commit_sealed(lake.now, lambda _run: False, left_alone=True)
    assert isinstance(again.error, NeverCommittedError)
    assert in_hand(lake, TEN).held.age > KEEP - 2 * DAY
    assert closed(lake) == []
    waited(broken, KEEP + DAY)
    assert closed(lake) == [broken.attempt.id]
    assert lake.rows() == {ELEVEN.key: [3]}


def test_who_asks_for_the_commit_leaves_the_record_as_it_is(lake: Lake) -> None:
    """It would look as if a run had just held the hour, and whoever asked could not abandon it."""
    hand = sealed(lake, TEN, [1, 2])
    lose_a_file(lake, hand)
    waited(hand, DAY)
    (told,) = commit_sealed(lake.now, lambda _run: False)
    assert isinstance(told.error, NeverCommittedError)
    assert in_hand(lake, TEN).held.age > DAY / 2


def test_one_of_another_schema_is_not_committed(lake: Lake) -> None:
    """Its rows lack what the table has since: the hour's next run writes them anew."""
    sealed(lake, TEN, [1, 2])
    with lake.now.table.update_schema() as change:
        change.add_column("more", StringType())
    (told,) = commit_sealed(lake.now, lambda _run: True)
    assert isinstance(told.error, NeverCommittedError)
    assert "was written for schema 0" in str(told.error)
    assert lake.rows() == {}

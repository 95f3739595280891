"""Rejected rows are kept of the attempt that ran the hour; those of attempts that were superseded go."""

import pytest

from lakehouse_pipeline.backfill.attempts import HourInHand
from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.ledger import leases
from tests.backfill.hands import opened, seal
from tests.iceberg.lake import ELEVEN, TEN, Lake


@pytest.fixture
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Give a table in a SQLite catalog of its own."""
    folder = tmp_path_factory.mktemp("lake")
    return Lake.create(
        open_catalog({"type": "sql", "uri": f"sqlite:///{folder}/c.db", "warehouse": f"file://{folder}/w"})
    )


def sealed(lake: Lake, hour: HourWindow, ids: list[int]) -> HourInHand:
    """Open, write and seal an attempt that has rejected a row."""
    hand = opened(lake, hour)
    reject(lake, hour, hand.attempt.id)
    return seal(lake, hand, ids)


def reject(lake: Lake, hour: HourWindow, attempt: str) -> None:
    """Keep a rejected row of an attempt."""
    lake.now.files.put(f"{lake.now.ledger.rejects_url(hour, attempt)}/0.parquet", b"bad rows")


def rejects(lake: Lake, hour: HourWindow = TEN) -> set[str]:
    """Name the attempts of the hour whose rejected rows are kept."""
    folder = lake.now.ledger.rejects_url(hour, "")
    return {item.url.removeprefix(folder).partition("/")[0] for item in lake.now.files.list_objects(folder)}


def test_those_of_the_attempt_that_was_superseded_go(lake: Lake) -> None:
    """With the commit of the newer one, and not before; other hours keep theirs."""
    neighbour, first = sealed(lake, ELEVEN, [9]), sealed(lake, TEN, [1])
    kept = neighbour.attempt.id, first.attempt.id
    for hand in (neighbour, first):
        hand.commit()
    second = sealed(lake, TEN, [2])
    newer = second.attempt.id
    assert rejects(lake) == {kept[1], newer}
    second.commit()
    assert (rejects(lake), rejects(lake, ELEVEN)) == ({newer}, {kept[0]})


def test_a_failed_attempt_takes_only_its_own_along(lake: Lake) -> None:
    """The hour is still that of the earlier one."""
    first = sealed(lake, TEN, [1])
    kept = first.attempt.id
    first.commit()
    second = opened(lake, TEN)
    reject(lake, TEN, second.attempt.id)
    second.close(RuntimeError("failed"))
    assert rejects(lake) == {kept}


def test_those_of_an_attempt_under_way_stay(lake: Lake) -> None:
    """It was opened while what an earlier commit left was tidied up."""
    sealed(lake, TEN, [1]).commit()
    second = sealed(lake, TEN, [2])
    committed = second.attempt
    second.held.advance(state="idle", attempt=None)  # as if it were landing; its marker is there
    third = opened(lake, TEN)
    reject(lake, TEN, third.attempt.id)
    kept = third.attempt.id
    third.held.advance(state="idle", attempt=None)
    fourth = sealed(lake, TEN, [4])
    newest = fourth.attempt.id
    fourth.commit()
    assert rejects(lake) == {committed.id, kept, newest}


def test_they_go_where_the_run_died_after_its_commit(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever closes the attempt that landed does what its run did not."""
    sealed(lake, TEN, [1]).commit()
    second = sealed(lake, TEN, [2])
    newer = second.attempt.id

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lakehouse_pipeline.backfill.attempts.close_landed", dies)
        with pytest.raises(KeyboardInterrupt):
            second.commit()
    assert len(rejects(lake)) == 2
    monkeypatch.setattr("lakehouse_pipeline.backfill.leftovers.LEASE", -leases.LEASE)
    assert close_attempts(lake.now, lambda _run: True) == [newer]
    assert rejects(lake) == {newer}


def test_an_earlier_versions_record_tells_whose_they_are(lake: Lake) -> None:
    """Of an hour that was not compacted since; else nobody knows, until the hour runs again."""
    first = sealed(lake, TEN, [1])
    run = first.attempt.id
    written = first.commit().model_copy(update={"run": ""})
    assert written.rejects == run
    assert written.model_copy(update={"attempt": "compaction", "rewritten": True}).rejects == ""
    second = sealed(lake, TEN, [2])
    second.held.advance(committed=written)
    newer = second.attempt.id
    second.commit()
    assert rejects(lake) == {newer}

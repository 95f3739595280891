"""Closing finds what an attempt put, whatever was removed of it before: names behind a gap are names, too."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from pyiceberg.table import Table

from lakehouse_pipeline.backfill import leftovers
from lakehouse_pipeline.backfill.attempts import HourInHand, TakenError, commit_together
from lakehouse_pipeline.backfill.close import close
from lakehouse_pipeline.backfill.leftovers import Orphans, close_attempts, find_orphans
from lakehouse_pipeline.backfill.sealed import commit_sealed, offered_by_others
from lakehouse_pipeline.errors import CommitConflictError, SafetyError, TransientError
from lakehouse_pipeline.iceberg.commit import RivalsWonError
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.ledger import turns
from lakehouse_pipeline.ledger.hours import HourLedger
from lakehouse_pipeline.ledger.records import Attempt, Committed, Marker
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import ObjectInfo
from tests.backfill.hands import in_hand, new_attempt, opened, seal, sealed
from tests.iceberg.lake import ELEVEN, MEGABYTE, TEN, Lake

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine


@pytest.fixture
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Give a table in a SQLite catalog of its own."""
    folder = tmp_path_factory.mktemp("lake")
    return Lake.create(
        open_catalog({"type": "sql", "uri": f"sqlite:///{folder}/c.db", "warehouse": f"file://{folder}/w"})
    )


def attempt_with(lake: Lake, files: int, *, named: bool = True) -> Attempt:
    """Put files of an attempt that was never sealed."""
    attempt = new_attempt(lake.now, TEN).model_copy(update={"named": named})
    for place in range(files):
        put(lake, attempt, place)
    return attempt


def put(lake: Lake, attempt: Attempt, place: int) -> None:
    """Put one file, as a task does that is at this place of its bucket; those of an earlier version claim nothing."""
    target = lake.now.target(TEN, attempt.id, MEGABYTE)
    if attempt.named:
        target.new_claims().cover(0, "", place)
    target.files.put(target.file_url(0, place, 0), b"rows", if_absent=True)


of_each_version = pytest.mark.parametrize("named", [True, False], ids=["of this version", "of an earlier one"])


def second_pass(lake: Lake) -> None:
    """Make the second pass, at once."""
    close_attempts(lake.now, lambda _run_id: True, grace=timedelta(0))


@of_each_version
def test_a_late_file_behind_removed_ones_is_found(lake: Lake, *, named: bool) -> None:
    """A task that wrote on after its attempt was closed went on from where it was, not from the start."""
    attempt = attempt_with(lake, files=3, named=named)
    close(lake.now, Marker(hour=TEN.key, attempt=attempt, closed=True))
    assert lake.stored("data") == set()
    put(lake, attempt, 3)
    put(lake, attempt, 4)
    second_pass(lake)
    assert lake.stored("data") == set()


@of_each_version
def test_a_pass_that_was_interrupted_goes_on(lake: Lake, monkeypatch: pytest.MonkeyPatch, *, named: bool) -> None:
    """Where the store went away between two pages of a delete, the next pass finds the rest."""

    def some(files: LakehouseFileIO, urls: Iterable[str]) -> None:
        first = sorted(urls, key=lambda each: each.rpartition("/")[2])[:2]
        assert all(files.head(url) for url in first)
        for url in first:
            files.delete(url)
        raise TransientError("the store is away")

    attempt = attempt_with(lake, files=4, named=named)
    marker = Marker(hour=TEN.key, attempt=attempt, closed=True)
    with monkeypatch.context() as patched:
        patched.setattr(LakehouseFileIO, "delete_objects", some)
        with pytest.raises(TransientError):
            close(lake.now, marker)
    assert len(lake.stored("data")) == 2
    second_pass(lake)
    assert lake.stored("data") == set()


@of_each_version
def test_passes_end_with_one_that_finds_nothing(lake: Lake, *, named: bool) -> None:
    """Whoever wrote late may write again: the marker stays until a pass has found nothing, or the second is over."""
    attempt = attempt_with(lake, files=1, named=named)
    close(lake.now, Marker(hour=TEN.key, attempt=attempt, closed=True))
    put(lake, attempt, 1)
    second_pass(lake)
    assert lake.stored("data") == set()
    if not named:
        assert len(list(lake.now.ledger.marked())) == 1
        second_pass(lake)
    assert list(lake.now.ledger.marked()) == []
    assert lake.stored("_lakehouse") == set()


def test_the_second_pass_waits_for_its_grace(lake: Lake) -> None:
    """Who writes on may do so for an hour: what it puts is found because its marker is still there."""
    attempt = attempt_with(lake, files=1)
    close(lake.now, Marker(hour=TEN.key, attempt=attempt, closed=True))
    assert close_attempts(lake.now, lambda _run_id: True) == []
    put(lake, attempt, 1)
    second_pass(lake)
    assert lake.stored("data") == set()


def test_the_layout_is_the_attempts(lake: Lake) -> None:
    """Files are where the table's properties put them when the attempt was opened, whatever they are now."""
    attempt = attempt_with(lake, files=2)
    with lake.now.table.transaction() as transaction:
        transaction.set_properties(
            {"write.object-storage.enabled": "false", "write.data.path": f"{lake.now.location}/x"}
        )
    close(lake.now, Marker(hour=TEN.key, attempt=attempt, closed=True))
    assert lake.stored("data") == set()


def test_a_late_opening_of_a_stray_is_refused(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt whose record never came may still be about to be opened: closing it first takes the record away."""
    slow = HourInHand(lake.now, TEN, lake.now.ledger.hour(TEN), "slow")
    attempt = attempt_with(lake, files=0).model_copy(update={"epoch": 1})
    lake.now.ledger.mark(Marker(hour=TEN.key, attempt=attempt))
    monkeypatch.setattr("lakehouse_pipeline.backfill.leftovers.LEASE", -timedelta(seconds=1))
    assert close_attempts(lake.now, lambda _run_id: False) == [attempt.id]
    with pytest.raises(TakenError):
        slow.open(attempt)
    second_pass(lake)
    second_pass(lake)
    assert lake.now.strays() == []
    left = [item.url.removeprefix(lake.now.ledger.folder) for item in lake.now.files.list_objects(lake.now.location)]
    assert [url for url in left if url.startswith(("/claims/", "/open/"))] == []


def test_an_attempt_that_is_about_to_be_opened_is_no_stray(lake: Lake) -> None:
    """Its marker comes before its record: for a lease nobody knows that it will not come."""
    attempt = attempt_with(lake, files=0)
    lake.now.ledger.mark(Marker(hour=TEN.key, attempt=attempt))
    assert close_attempts(lake.now, lambda _run_id: True) == []


def test_an_attempt_is_marked_before_its_record_says_so(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies in between has left what finds it."""

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    hand, attempt = in_hand(lake, TEN), new_attempt(lake.now, TEN)
    monkeypatch.setattr(HourLedger, "advance", dies)
    with pytest.raises(KeyboardInterrupt):
        hand.open(attempt)
    assert [each.marker.attempt.id for each in lake.now.ledger.marked()] == [attempt.id]


def test_what_was_closed_cannot_be_sealed(lake: Lake) -> None:
    """A run that was taken for ended is told so when it comes to its seal, and leaves nothing."""
    hand = opened(lake, TEN)
    assert close_attempts(lake.now, lambda _run_id: True) == [hand.attempt.id]
    with pytest.raises(CommitConflictError):
        seal(lake, hand, [1])
    assert lake.stored("data") == set()


def test_a_fence_that_was_never_sent_is_found(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who closes a stray may die between writing its fence and sending it: the next one removes that, too."""

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    lake.now.ledger.mark(Marker(hour=TEN.key, attempt=attempt_with(lake, files=0)))
    lake.put(ELEVEN, [1])
    monkeypatch.setattr("lakehouse_pipeline.backfill.leftovers.LEASE", -timedelta(seconds=1))
    before = lake.stored("metadata")
    with monkeypatch.context() as patched:
        patched.setattr(Table, "_do_commit", dies)
        with pytest.raises(KeyboardInterrupt):
            close_attempts(lake.now, lambda _run_id: True)
    assert len(lake.stored("metadata") - before) == 1
    second_pass(lake)
    second_pass(lake)
    assert lake.now.strays() == []


def test_one_bad_marker_does_not_stop_the_others(lake: Lake) -> None:
    """What can be closed is closed; the marker that nobody can read is named afterwards."""
    attempt = attempt_with(lake, files=2)
    lake.now.ledger.mark(Marker(hour=TEN.key, attempt=attempt, closed=True))
    bad = f"{lake.now.ledger.folder}/open/2012-12-31-23/bad.json"
    lake.now.files.put(bad, b"{}")
    with pytest.raises(SafetyError, match=r"open/2012-12-31-23/bad\.json"):
        second_pass(lake)
    assert lake.stored("data") == set()


def test_its_own_attempt_is_left_alone(lake: Lake) -> None:
    """A run that closes what others left never closes itself, however long the store was away."""
    hand = HourInHand(lake.now, TEN, lake.now.ledger.hour(TEN), "run")
    attempt = attempt_with(lake, files=1)
    hand.open(attempt)
    assert close_attempts(lake.now, lambda _run_id: True, hour=TEN, but=attempt.id) == []
    assert len(lake.stored("data")) == 1


def test_what_is_being_abandoned_is_not_resumed(lake: Lake) -> None:
    """It may have lost files already."""
    hand = HourInHand(lake.now, TEN, lake.now.ledger.hour(TEN), "run")
    hand.open(attempt_with(lake, files=0))
    hand.seal(lake.now.seal(hand.attempt.id, (), rows_read=0, rejected=0))
    hand.held.advance(state="aborting")
    with pytest.raises(SafetyError, match="is being abandoned"):
        hand.resume()


def test_a_sealed_attempt_is_not_closed_with_its_run(lake: Lake) -> None:
    """Whatever ends the run after the seal, the attempt waits for its commit."""
    hand = HourInHand(lake.now, TEN, lake.now.ledger.hour(TEN), "run")
    hand.open(attempt_with(lake, files=0))
    hand.seal(lake.now.seal(hand.attempt.id, (), rows_read=0, rejected=0))
    hand.close(KeyboardInterrupt())
    record = lake.now.ledger.hour(TEN).record
    assert (record.state, record.outcome and record.outcome.kind) == ("sealed", "cancelled")


def test_an_attempt_that_may_be_sealed_is_not_closed_with_its_run(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the answer to the seal was lost, nothing is removed: whoever comes next finds it sealed."""
    hand, write, lost = opened(lake, TEN), LakehouseFileIO.put, list[str]()

    def loses_an_answer(files: LakehouseFileIO, url: str, *told: Any, **more: Any) -> ObjectInfo:
        info = write(files, url, *told, **more)
        if "/hours/" in url and not lost:
            lost.append(url)
            raise TransientError("no answer")
        return info

    with monkeypatch.context() as patched:
        patched.setattr(LakehouseFileIO, "put", loses_an_answer)
        with pytest.raises(TransientError):
            seal(lake, hand, [1])
    (told,) = commit_sealed(lake.now, lambda _run_id: True)
    assert told.committed
    assert lake.rows() == {TEN.key: [1]}


def test_a_sealed_attempt_is_not_opened_over(lake: Lake) -> None:
    """Its commit may be on its way: it is given up first, or goes on."""
    hand = sealed(lake, TEN, [1])
    with pytest.raises(SafetyError, match="is sealed"):
        in_hand(lake, TEN).open(new_attempt(lake.now, TEN))
    hand.commit()
    assert lake.rows() == {TEN.key: [1]}


def test_an_attempt_in_other_hands_is_not_closed_by_who_lost_it(lake: Lake) -> None:
    """Another run has resumed it, and is about to commit it: its files stay."""
    stale, other = sealed(lake, TEN, [1]), in_hand(lake, TEN, "other")
    other.resume()
    stale.settle(CommitConflictError("another run has the hour"))
    other.commit()
    assert (lake.rows(), lake.missing()) == ({TEN.key: [1]}, set())


def test_only_what_is_sealed_is_abandoned(lake: Lake) -> None:
    """An open attempt is its run's, which closes it."""
    hand = opened(lake, TEN)
    with pytest.raises(SafetyError, match="only a sealed one can be abandoned"):
        in_hand(lake, TEN).abandon("not wanted")
    seal(lake, hand, [1]).commit()
    assert lake.rows() == {TEN.key: [1]}


def test_an_attempt_that_lost_to_rivals_stays_sealed(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has changed its hour: whoever comes next commits it."""
    hand = sealed(lake, TEN, [1])

    def lose(*_: object, **__: object) -> None:
        raise RivalsWonError("rivals won every try")

    with monkeypatch.context() as patched:
        patched.setattr("lakehouse_pipeline.iceberg.hourly.replace_hours", lose)
        with pytest.raises(RivalsWonError):
            hand.commit()
    (told,) = commit_sealed(lake.now, lambda _run_id: True)
    assert told.committed
    assert lake.rows() == {TEN.key: [1]}


def test_an_hour_is_not_twice_in_a_commit(lake: Lake) -> None:
    """A run that slept past its lease may hold what it took from another run's offer: nothing is sent."""
    stale = sealed(lake, TEN, [1])
    stale.offer()
    assert offered_by_others(lake.now, "other", lambda _run_id: True) == []  # the sensor's, which reports it
    assert offered_by_others(lake.now, "other", lambda _run_id: False, but={TEN}) == []
    (taken,) = offered_by_others(lake.now, "other", lambda _run_id: False)
    before = lake.now.head
    with pytest.raises(SafetyError, match="twice in one commit"):
        commit_together([stale, taken])
    assert lake.now.head == before
    assert not isinstance(commit_together([taken])[TEN], Exception)
    assert lake.rows() == {TEN.key: [1]}


def test_what_is_offered_is_said_by_its_record(lake: Lake) -> None:
    """Until another run has made something of it, its own has nothing to say; then it hears what."""
    waiting, other = sealed(lake, TEN, [1]), sealed(lake, ELEVEN, [2])
    for hand in (waiting, other):
        hand.offer()
    mine, its = waiting.attempt.id, other.attempt.id
    assert waiting.became(mine) is None
    hands = offered_by_others(lake.now, "committer", lambda _run_id: False)
    assert waiting.became(mine) is None
    commit_together([hand for hand in hands if hand.hour == TEN])
    assert next(hand for hand in hands if hand.hour == ELEVEN).abandon("not wanted") is None
    committed = waiting.became(mine)
    assert isinstance(committed, Committed)
    assert committed.attempt == mine
    assert isinstance(other.became(its), CommitConflictError)


def test_one_turn_at_a_time(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is free for whoever asks first, again once it is given back, once its run has ended, or after a lease."""
    ledger = lake.now.ledger
    first, second = ledger.turn("committer", "first"), ledger.turn("committer", "second")
    assert first.take(lambda _run_id: False)
    assert not second.take(lambda _run_id: False)
    assert first.renew()
    assert second.take(lambda run_id: run_id == "first")
    with pytest.raises(CommitConflictError):
        first.renew()
    first.give_back()  # which it has no more
    assert not ledger.turn("committer", "third").take(lambda _run_id: False)
    second.give_back()
    assert not second.renew()
    assert ledger.turn("committer", "third").take(lambda _run_id: False)
    monkeypatch.setattr(turns, "LEASE", timedelta(seconds=-1))
    assert ledger.turn("committer", "fourth").take(lambda _run_id: False)


def test_a_turn_that_was_taken_again_is_another(lake: Lake) -> None:
    """A step of a run that is tried again has the run's own name: the first try has lost the turn all the same."""
    first, again = lake.now.ledger.turn("committer", "run"), lake.now.ledger.turn("committer", "run")
    assert first.take(lambda _run_id: False)
    assert first.holds()
    assert again.take(lambda _run_id: False)
    assert (first.holds(), again.holds()) == (False, True)


def test_orphans_are_those_that_nobody_needs(lake: Lake) -> None:
    """Not those of an attempt under way, sealed or committed: of one that ended, until they are removed."""
    sealed(lake, TEN, [1, 2]).commit()
    sealed(lake, ELEVEN, [3])
    assert find_orphans(lake.now) == Orphans()
    lost = sealed(lake, TEN, [4, 5, 6])
    assert lost.attempt.seal
    (file,) = lake.now.sealed_files(lost.attempt.seal)
    lost.held.advance(state="idle", attempt=None)
    (marker,) = [each.marker for each in lake.now.ledger.marked(TEN)]
    lake.now.ledger.mark(marker.model_copy(update={"closed": True, "sealed": True}))
    orphans = find_orphans(lake.now)
    assert (orphans.attempts, orphans.measured, orphans.files) == (1, 1, 2)  # and its manifest
    info = lake.now.files.head(file)
    assert info is not None
    assert orphans.bytes > info.size
    close_attempts(lake.now, lambda _run_id: True, grace=timedelta(0))
    assert find_orphans(lake.now).bytes == 0


def test_files_of_the_table_are_no_orphans(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its record was lost, an attempt may have landed all the same."""
    hand = sealed(lake, TEN, [1, 2])
    marker = next(iter(lake.now.ledger.marked())).marker
    hand.commit()
    lake.now.ledger.mark(marker)
    hand.held.advance(committed=None)
    assert find_orphans(lake.now) == Orphans()  # it may be about to be opened
    monkeypatch.setattr(leftovers, "LEASE", timedelta(0))
    assert find_orphans(lake.now) == Orphans(attempts=1, measured=1)


@pytest.mark.parametrize(("tried", "most"), [(False, 5), (True, 200)])
def test_an_offered_hour_is_tidied_up_with_few_requests(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, *, tried: bool, most: int
) -> None:
    """Who offers it has prepared no commit, so that none is looked for; unless it tried one before."""
    hand = sealed(lake, TEN, [1, 2])
    hand.prepared = tried
    hand.offer()
    (offered,) = offered_by_others(lake.now, "committer", lambda _run_id: False)
    asked = list[str]()
    head = LakehouseFileIO.head

    def counted(files: LakehouseFileIO, url: str) -> ObjectInfo | None:
        asked.append(url)
        return head(files, url)

    monkeypatch.setattr(LakehouseFileIO, "head", counted)
    assert isinstance(commit_together([offered])[TEN], Committed)
    assert len(asked) <= most
    assert (len(asked) > 50) == tried
    assert lake.rows() == {TEN.key: [1, 2]}

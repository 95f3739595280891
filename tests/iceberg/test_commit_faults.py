"""Commits whose answer is wrong, lost or late: found by reading the table back, and nothing deleted while unknown."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import sqlalchemy.exc
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, ServiceUnavailableError
from pyiceberg.table import CommitTableResponse

from lakehouse_pipeline.errors import (
    CommitConflictError,
    CommitStateUnknownError,
    LakehouseError,
    SafetyError,
    TransientError,
)
from lakehouse_pipeline.iceberg import commit, tables
from lakehouse_pipeline.retry import RetryPolicy
from tests.backfill.hands import sealed
from tests.iceberg.lake import ELEVEN, TEN, TWELVE, Lake, events
from tests.iceberg.scripted import ScriptedCatalog, Send, lost, refused

TRIES = 5
ERRORS = {
    "unknown to the catalog": CommitStateUnknownException("502"),
    "unavailable": ServiceUnavailableError("503"),
    "connection": requests.ConnectionError("reset"),
    "timeout": requests.ReadTimeout("no answer"),
    "database": sqlalchemy.exc.OperationalError("UPDATE", {}, Exception("gone")),
    "store": TransientError("metadata.json: 503"),
    "false conflict": CommitFailedException("409"),
    "garbled answer": ValueError("no JSON"),
}
UNKNOWN = {name: error for name, error in ERRORS.items() if name not in {"false conflict", "garbled answer"}}


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try a few times, at once."""
    monkeypatch.setattr(commit, "COMMIT_RETRIES", RetryPolicy(tries=TRIES, min_wait_s=0, max_wait_s=0))


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[ScriptedCatalog]:
    """Give a catalog that fails on demand."""
    catalog = ScriptedCatalog("lakehouse", uri=f"sqlite:///{tmp_path}/c.db", warehouse=f"file://{tmp_path}/w")
    yield catalog
    catalog.close()


@pytest.fixture
def lake(scripted: ScriptedCatalog) -> Lake:
    """Give a table with an hour of one event and its neighbour."""
    lake = Lake.create(scripted)
    lake.put(TEN, [0])
    lake.put(TWELVE, [9])
    scripted.commits = 0
    return lake


def assert_whole(lake: Lake) -> None:
    """Every file that a snapshot reaches is there, and nothing else is."""
    stored = lake.stored("metadata") | lake.stored("data")
    assert (lake.reached() - stored, stored - lake.reached()) == (set(), set())


@pytest.mark.parametrize("place", range(TRIES))
@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_a_landed_commit_is_found(lake: Lake, scripted: ScriptedCatalog, error: Exception, place: int) -> None:
    """Whichever try lands and whatever it answers, the commit is found and made once."""
    scripted.script = [refused(error)] * place + [lost(error)]
    snapshots = len(lake.now.table.metadata.snapshots)
    replaced = lake.replace(lake.seal(TEN, [1, 2]))
    assert replaced.snapshot_id == lake.now.head
    assert (scripted.commits, replaced.tries) == (place + 1, place + 1)
    assert len(lake.now.table.metadata.snapshots) == snapshots + 1
    assert lake.rows() == {TEN.key: [1, 2], TWELVE.key: [9]}
    assert_whole(lake)


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_a_landed_commit_is_found_below_a_rivals(lake: Lake, scripted: ScriptedCatalog, error: Exception) -> None:
    """A commit that landed without an answer is found although another has landed on top of it."""
    sealed, rival = lake.seal(TEN, [1]), lake.seal(ELEVEN, [2])

    def answer(send: Callable[[], object]) -> None:
        send()
        lake.replace(rival)
        raise error

    scripted.script = [answer]  # type: ignore[list-item]  # it never answers
    replaced = lake.replace(sealed)
    assert lake.now.table.current_snapshot().parent_snapshot_id == replaced.snapshot_id  # type: ignore[union-attr]
    assert lake.rows() == {TEN.key: [1], ELEVEN.key: [2], TWELVE.key: [9]}
    assert_whole(lake)


def test_a_rollback_meanwhile_is_not_undone(lake: Lake, scripted: ScriptedCatalog) -> None:
    """Of another hour's commit: it makes no snapshot, so that nothing but what `main` stands on tells of it."""
    before = lake.now.head
    assert before is not None
    lake.put(ELEVEN, [5])
    sealed = lake.seal(TEN, [1])

    def rolled_back(send: Send) -> CommitTableResponse:
        lake.now.table.manage_snapshots().rollback_to_snapshot(before).commit()
        return send()

    scripted.script = [rolled_back]
    assert lake.replace(sealed).tries == 2
    assert lake.rows() == {TEN.key: [1], TWELVE.key: [9]}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_unknown_for_ever_deletes_nothing(lake: Lake, scripted: ScriptedCatalog, error: Exception) -> None:
    """While the base stands, a commit may still land: its error says so, and every file of it stays."""
    scripted.script, scripted.forever = [refused(error)], True
    sealed, before = lake.seal(TEN, [1]), lake.stored("metadata")
    with pytest.raises(CommitStateUnknownError, match="it may still land, so nothing was removed"):
        lake.replace(sealed)
    assert scripted.commits == TRIES
    assert len(lake.stored("metadata") - before) == 2
    assert lake.rows() == {TEN.key: [0], TWELVE.key: [9]}


def test_what_was_unknown_may_land_later(lake: Lake, scripted: ScriptedCatalog) -> None:
    """A commit that was given up as unknown and lands afterwards makes a whole table."""
    held: list[Callable[[], object]] = []

    def answer(send: Callable[[], object]) -> None:
        held.append(send)
        raise requests.ReadTimeout

    scripted.script, scripted.forever = [answer], True  # type: ignore[list-item]  # it never answers
    with pytest.raises(CommitStateUnknownError):
        lake.put(TEN, [1])
    held[0]()
    assert lake.rows() == {TEN.key: [1], TWELVE.key: [9]}
    assert_whole(lake)


@pytest.mark.parametrize("error", [CommitFailedException("409"), *UNKNOWN.values()], ids=["refused", *UNKNOWN])
def test_rivals_that_always_win_end_in_a_conflict(lake: Lake, scripted: ScriptedCatalog, error: Exception) -> None:
    """A commit that lost on every base certainly did not land: a conflict, and no file of it is left in metadata."""
    sealed, rivals = lake.seal(TEN, [1]), iter(range(100))

    def rival(_send: Callable[[], object]) -> None:
        script, scripted.script = scripted.script, []
        lake.put(ELEVEN, [next(rivals)])
        scripted.script = script
        raise error

    scripted.script, scripted.forever = [rival], True  # type: ignore[list-item]  # it never answers
    expected = CommitConflictError if isinstance(error, CommitFailedException) else CommitStateUnknownError
    with pytest.raises(expected):
        lake.replace(sealed)
    assert {path for path in lake.unreached() if "/metadata/" in path} == {m.path for m in sealed.seal.manifests}
    assert lake.rows() == {TEN.key: [0], ELEVEN.key: [TRIES - 1], TWELVE.key: [9]}


def test_the_next_run_commits_what_was_sealed(lake: Lake, scripted: ScriptedCatalog) -> None:
    """A sealed attempt whose commit was given up is committed later as it is."""
    sealed = lake.seal(TEN, [1])
    scripted.script = [refused(CommitFailedException("409"))] * TRIES
    with pytest.raises(LakehouseError):
        lake.replace(sealed)
    lake.replace(sealed)
    assert lake.rows() == {TEN.key: [1], TWELVE.key: [9]}


@pytest.mark.parametrize("error", [CommitConflictError("lost"), SafetyError("no"), KeyboardInterrupt()], ids=repr)
def test_an_objection_before_the_send_keeps_it_from_being_sent(
    lake: Lake, scripted: ScriptedCatalog, error: BaseException
) -> None:
    """Whatever the record raises, nothing is sent and the commit's own files are gone."""
    sealed, before = lake.seal(TEN, [1]), lake.stored("metadata")

    def object_to(_base: int | None, _snapshot_id: int) -> None:
        raise error

    with pytest.raises(type(error)):
        lake.replace(sealed, before_send=object_to)
    assert scripted.commits == 0
    assert lake.stored("metadata") == before


def test_every_new_commit_is_announced_once(lake: Lake, scripted: ScriptedCatalog) -> None:
    """The same commit sent again is not announced again; one on a new base is, with that base."""
    bases: list[int | None] = []

    def announced(base: int | None, _snapshot_id: int) -> None:
        bases.append(base)

    scripted.script = [refused(requests.ReadTimeout())] * 2
    sealed = lake.seal(TEN, [1])
    heads = [lake.now.head]

    def rival(_send: Callable[[], object]) -> None:
        heads.append(lake.put(ELEVEN, [2]).snapshot_id)
        raise CommitFailedException

    scripted.script.append(rival)  # type: ignore[arg-type]  # it never answers
    assert lake.replace(sealed, before_send=announced).tries == 4
    assert bases == heads


def test_a_table_that_cannot_be_read_back_leaves_it_unknown(
    lake: Lake, scripted: ScriptedCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the catalog is gone after a send, the outcome is unknown and nothing is deleted."""
    monkeypatch.setattr(tables, "ASKING", RetryPolicy(2, 60, 0, 0))
    sealed = lake.seal(TEN, [1])

    def gone() -> None:
        raise requests.ConnectionError("refused")

    def last(send: Callable[[], object]) -> None:
        send()
        scripted.before_load = gone
        raise requests.ConnectionError("reset")

    scripted.script = [last]  # type: ignore[list-item]  # it never answers
    with pytest.raises(CommitStateUnknownError, match="could not be read back"):
        lake.replace(sealed)
    scripted.before_load = lambda: None
    assert lake.rows() == {TEN.key: [1], TWELVE.key: [9]}
    assert_whole(lake)


def test_a_dropped_table_is_said(lake: Lake, scripted: ScriptedCatalog) -> None:
    """A table that was dropped meanwhile is an error of ours, not PyIceberg's."""
    sealed = lake.seal(TEN, [1])
    scripted.drop_table(lake.identifier)
    with pytest.raises(SafetyError, match="dropped or renamed"):
        lake.replace(sealed)


def test_a_commit_does_not_land_in_a_table_that_was_made_again(scripted: ScriptedCatalog) -> None:
    """Under the same name, and like the old one without a snapshot, while the commit was on its way."""
    lake = Lake.create(scripted)
    sealed, old = lake.seal(TEN, [1]), lake.now.table

    def made_again(send: Send) -> CommitTableResponse:
        scripted.drop_table(lake.identifier)
        scripted.create_table(lake.identifier, old.schema(), location=old.location(), partition_spec=old.spec())
        return send()

    scripted.script = [made_again]
    with pytest.raises(SafetyError, match="was written for another table of this name"):
        lake.replace(sealed)
    assert lake.now.head is None


@pytest.mark.parametrize("refuses", ["-m0.avro", "snap-"], ids=["manifest copy", "manifest list"])
def test_a_store_that_takes_no_metadata_leaves_none(lake: Lake, scripted: ScriptedCatalog, refuses: str) -> None:
    """Where the commit's own files cannot be written, nothing is sent and those that were written are gone."""
    sealed, before = lake.seal(TEN, [1]), lake.stored("metadata")
    scripted.refuses = lambda url: refuses in url
    with pytest.raises(TransientError):
        lake.replace(sealed)
    assert scripted.commits == 0
    assert lake.stored("metadata") == before


def test_a_landed_commit_that_was_expired_is_not_torn_apart(lake: Lake, scripted: ScriptedCatalog) -> None:
    """A commit that landed unseen, was built upon and expired: what the newer snapshots took over from it stays."""
    lake.append(events(TEN, [0]), events(ELEVEN, [1]))
    sealed = lake.seal(TEN, [2])

    def expired(send: Callable[[], object]) -> None:
        send()
        landed = lake.now.head
        assert landed is not None
        lake.put(TWELVE, [3])
        lake.now.table.maintenance.expire_snapshots().by_id(landed).commit()
        raise requests.ReadTimeout

    scripted.script = [expired]  # type: ignore[list-item]  # it never answers
    with pytest.raises(CommitConflictError):
        lake.replace(sealed)
    assert lake.rows() == {TEN.key: [2], ELEVEN.key: [1], TWELVE.key: [3]}


@pytest.mark.parametrize("error", [CommitFailedException("409"), *UNKNOWN.values()], ids=["refused", *UNKNOWN])
def test_a_fence_that_a_rival_made_needless_leaves_nothing(
    lake: Lake, scripted: ScriptedCatalog, error: Exception
) -> None:
    """Where a rival moves `main` off the bases before the fence does, no file of the fence is left."""

    def rival(_send: Callable[[], object]) -> None:
        lake.put(ELEVEN, [1])
        raise error

    scripted.script = [rival]  # type: ignore[list-item]  # it never answers
    commit.fence(scripted, lake.identifier, {lake.now.head}, batch="fence")
    assert lake.rows() == {TEN.key: [0], ELEVEN.key: [1], TWELVE.key: [9]}
    assert_whole(lake)


@pytest.mark.parametrize("error", UNKNOWN.values(), ids=UNKNOWN)
def test_a_fence_whose_answer_was_lost_is_whole(lake: Lake, scripted: ScriptedCatalog, error: Exception) -> None:
    """It is known by its snapshot, and not only by `main` having moved: nothing that it wrote is removed."""
    before = lake.now.head
    scripted.script = [lost(error)]
    commit.fence(scripted, lake.identifier, {before}, batch="fence")
    assert lake.now.head != before
    assert lake.rows() == {TEN.key: [0], TWELVE.key: [9]}
    assert_whole(lake)


def test_two_fences_of_one_head_do_not_tear_each_other(lake: Lake, scripted: ScriptedCatalog) -> None:
    """Two who close the same forgotten attempt move `main` once, and the one that lost takes no file of the other's."""
    attempt = sealed(lake, TEN, [1]).attempt

    def rival(send: Send) -> CommitTableResponse:
        lake.now.fence_head(TEN, attempt)
        return send()  # refused by the catalog

    scripted.script = [rival]
    lake.now.fence_head(TEN, attempt)
    lake.now.fence_head(TEN, attempt)
    snapshots = lake.now.table.metadata.snapshots
    assert len({snapshot.manifest_list for snapshot in snapshots}) == len(snapshots)
    assert lake.rows() == {TEN.key: [0], TWELVE.key: [9]}
    assert lake.missing() == set()


def test_a_name_that_was_used_is_not_written_over(lake: Lake) -> None:
    """Who commits under the name of an earlier commit, as from a ledger that was put back, is stopped: none is torn."""
    earlier = lake.now.table.metadata.snapshots[0]
    name = earlier.manifest_list.rpartition("/snap-")[2].removesuffix("-0.avro")
    head = lake.now.head
    with pytest.raises(FileExistsError):
        commit.fence(lake.catalog, lake.identifier, {head}, batch=name)
    assert lake.now.head == head
    assert_whole(lake)

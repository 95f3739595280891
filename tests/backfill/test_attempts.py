"""Attempts that overlap: a commit that is in flight while the hour is taken from it, and one that wakes up too late."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Protocol

import pytest
import requests
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import CommitTableResponse

from lakehouse_pipeline.backfill.attempts import HourInHand
from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.backfill.sealed import commit_sealed
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.errors import CommitConflictError, CommitStateUnknownError, SafetyError
from lakehouse_pipeline.iceberg import commit
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.ledger.records import Attempt, Committed
from lakehouse_pipeline.retry import RetryPolicy
from lakehouse_pipeline.testing.asked import Dialect
from lakehouse_pipeline.testing.faults import FaultServer
from lakehouse_pipeline.testing.schedule import Effect, Fault
from tests.backfill.hands import in_hand, opened, seal, sealed
from tests.iceberg.lake import ELEVEN, TEN, TWELVE, Lake, events
from tests.iceberg.scripted import ScriptedCatalog, Send, refused

PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try a few times, at once."""
    monkeypatch.setattr(commit, "COMMIT_RETRIES", RetryPolicy(tries=3, min_wait_s=0, max_wait_s=0))


# ---------------------------------------------------------------------------------------------------------------------
# Commits that are held on their way
# ---------------------------------------------------------------------------------------------------------------------


class Held(Protocol):
    """One request that is held; the fault server's `Armed` is one."""

    def wait_held(self) -> None:
        """Wait until it is."""

    def release(self) -> None:
        """Let it go on."""


class Network(Protocol):
    """What lies between a committer and the catalog.

    Attributes:
        near: the table, whose commits go through it.
        far: the same table, for everybody else.
    """

    near: Lake
    far: Lake

    def hold(self, *, landed: bool) -> Held:
        """Hold the next commit that nothing else is planned for, before or after it has its effect."""

    def fail(self) -> None:
        """Let one commit fail on its way to the catalog, before what is planned later."""


@dataclass
class RestNetwork:
    """The fault server before a real REST catalog."""

    server: FaultServer
    near: Lake
    far: Lake

    def hold(self, *, landed: bool) -> Held:
        """Hold it in the proxy."""
        return self.server.add(Fault(effect=Effect.HOLD, verb="updateTable", landed=landed))

    def fail(self) -> None:
        """Answer 500 in the catalog's place."""
        self.server.add(Fault(effect=Effect.INTERNAL_ERROR, verb="updateTable"))


@dataclass
class HeldCall:
    """A commit to the SQL catalog that its caller's thread waits in."""

    landed: bool
    arrived: Event = field(default_factory=Event)
    released: Event = field(default_factory=Event)

    def wait_held(self) -> None:
        """Wait until it is held."""
        assert self.arrived.wait(PATIENCE_S)

    def release(self) -> None:
        """Let it go on."""
        self.released.set()

    def answer(self, send: Send) -> CommitTableResponse:
        """Be the scripted answer."""
        said = send() if self.landed else None
        self.arrived.set()
        assert self.released.wait(PATIENCE_S)
        return said or send()


@dataclass
class SqlNetwork:
    """Python before a SQL catalog."""

    catalog: ScriptedCatalog
    near: Lake
    far: Lake

    def hold(self, *, landed: bool) -> Held:
        """Hold it in its thread."""
        held = HeldCall(landed)
        self.catalog.script.append(held.answer)
        return held

    def fail(self) -> None:
        """Reset the connection that SQLite does not have."""
        self.catalog.script.append(refused(requests.ConnectionError("reset")))


def sqlite_network(folder: Path) -> Iterator[SqlNetwork]:
    """Open a SQL catalog twice: once scripted, once as it is."""
    properties = {"uri": f"sqlite:///{folder}/c.db", "warehouse": f"file://{folder}/w"}
    with (
        closing(ScriptedCatalog("lakehouse", **properties)) as near,
        open_catalog({"type": "sql", **properties}) as far,
    ):
        lake = Lake.create(far)
        yield SqlNetwork(near, Lake(near, lake.identifier), lake)


def rest_network(seaweed: SeaweedServer) -> Iterator[RestNetwork]:
    """Open a REST catalog twice: once through a fault server."""
    with FaultServer(seaweed.catalog_uri, dialect=Dialect.ICEBERG) as server:
        properties = seaweed.catalog_properties()
        with open_catalog(properties | {"uri": server.endpoint}) as near, open_catalog(properties) as far:
            lake = Lake.create(far)
            yield RestNetwork(server, Lake(near, lake.identifier), lake)


@pytest.fixture(params=["sqlite", "rest"])
def network(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Network]:
    """Give a table without snapshots in a catalog of each kind, with a network before it."""
    if request.param == "sqlite":
        yield from sqlite_network(tmp_path)
    else:
        yield from rest_network(request.getfixturevalue("seaweed"))


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    """Give a table without snapshots in a SQL catalog, with nothing before it."""
    properties = {"uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"file://{tmp_path}/w"}
    with open_catalog({"type": "sql", **properties}) as catalog:
        yield Lake.create(catalog)


@pytest.fixture
def sql(tmp_path: Path) -> Iterator[SqlNetwork]:
    """Give the SQL one."""
    yield from sqlite_network(tmp_path)


@contextmanager
def in_flight(hand: HourInHand, held: Held) -> Iterator[Future[Committed]]:
    """Commit in a thread until the commit is held; let it go on when the block ends, however it does."""
    with ThreadPoolExecutor(1) as pool:
        committing = pool.submit(hand.commit)
        try:
            held.wait_held()
            yield committing
        finally:
            held.release()


def assert_settled(lake: Lake, rows: dict[str, list[int]]) -> None:
    """The table has these rows and all their files; after the second pass nothing else is beside them."""
    assert (lake.rows(), lake.missing()) == (rows, set())
    close_attempts(lake.now, lambda _run: True, grace=timedelta(0))
    close_attempts(lake.now, lambda _run: True, grace=timedelta(0))
    assert (lake.rows(), lake.missing(), lake.unreached()) == (rows, set(), set())
    assert list(lake.now.ledger.marked()) == []


BASES: dict[str, Callable[[Lake], object]] = {
    "no snapshot": lambda _lake: None,
    "the hour": lambda lake: lake.put(TEN, [0]),
    "a manifest shared with the neighbour": lambda lake: lake.append(events(TEN, [0]), events(ELEVEN, [9])),
}
on_every_base = pytest.mark.parametrize(
    ("begin", "failed"),
    [*((begin, 0) for begin in BASES.values()), (BASES["the hour"], 1)],
    ids=[*BASES, "the hour, at the second try"],
)


@on_every_base
def test_a_commit_that_landed_before_the_fence_is_found(
    network: Network, begin: Callable[[Lake], object], failed: int
) -> None:
    """Abandoned while its answer is on the way, it is committed: no file goes, and its own run is told it lost."""
    begin(network.far)
    neighbour = {hour: ids for hour, ids in network.far.rows().items() if hour != TEN.key}
    hand = sealed(network.near, TEN, [1, 2])
    for _ in range(failed):
        network.fail()
    with in_flight(hand, network.hold(landed=True)) as committing:
        landed = network.far.now.head
        committed = in_hand(network.far, TEN).abandon("not wanted")
    with pytest.raises(CommitConflictError):
        committing.result(PATIENCE_S)
    record = in_hand(network.far, TEN).held.record
    assert committed is not None
    assert (record.state, record.committed) == ("idle", committed)
    assert (committed.attempt, committed.snapshot_id) == (hand.attempt.id, landed)
    assert network.far.now.head == landed
    assert_settled(network.far, {TEN.key: [1, 2], **neighbour})


@on_every_base
def test_a_commit_that_was_fenced_never_lands(network: Network, begin: Callable[[Lake], object], failed: int) -> None:
    """Abandoned while it is on the way, it is refused when it arrives, and its files have gone."""
    begin(network.far)
    rows = network.far.rows()
    hand = sealed(network.near, TEN, [1, 2])
    for _ in range(failed):
        network.fail()
    with in_flight(hand, network.hold(landed=False)) as committing:
        assert in_hand(network.far, TEN).abandon("not wanted") is None
        fence = network.far.now.head
    with pytest.raises(CommitConflictError):
        committing.result(PATIENCE_S)
    record = in_hand(network.far, TEN).held.record
    assert (record.state, record.attempt, record.committed) == ("idle", None, None)
    assert network.far.now.head == fence
    assert_settled(network.far, rows)


def test_without_a_fence_a_late_commit_would_tear_the_table(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the fence is for: where nothing moves `main`, a released commit lands, and its files have gone."""

    def no_fence(_table: HourlyTable, _attempt: Attempt, *, epoch: int) -> None:
        """Leave `main` where it is."""

    monkeypatch.setattr(HourlyTable, "fence", no_fence)
    hand = sealed(network.near, TEN, [1, 2])
    with in_flight(hand, network.hold(landed=False)):
        assert in_hand(network.far, TEN).abandon("not wanted") is None
        assert network.far.rows() == {}
    assert network.far.now.head is not None
    with pytest.raises(FileNotFoundError):
        network.far.rows()


def test_a_commit_lands_however_late_where_nothing_moved_main(network: Network) -> None:
    """No clock fences it: held for longer than its lease, it lands when it arrives."""
    hand = sealed(network.near, TEN, [1, 2])
    with in_flight(hand, network.hold(landed=False)) as committing:
        pass
    assert committing.result(PATIENCE_S).snapshot_id == network.far.now.head
    assert_settled(network.far, {TEN.key: [1, 2]})


def test_a_commit_that_overtakes_its_fence_is_found(network: Network) -> None:
    """It lands after the fence was built and before that is sent: it is committed, and the fence leaves no file."""
    network.far.put(TEN, [0])
    hand = sealed(network.near, TEN, [1, 2])
    held, fence = network.hold(landed=False), network.hold(landed=False)
    with in_flight(hand, held) as committing, ThreadPoolExecutor(1) as pool:
        abandoning = pool.submit(in_hand(network.near, TEN).abandon, "not wanted")
        try:
            fence.wait_held()
            held.release()
            with pytest.raises(CommitConflictError):
                committing.result(PATIENCE_S)
        finally:
            fence.release()
        committed = abandoning.result(PATIENCE_S)
    assert committed is not None
    assert committed.snapshot_id == network.far.now.head
    assert network.far.unreached() == set()
    assert_settled(network.far, {TEN.key: [1, 2]})


def test_commits_that_their_client_gave_up_are_fenced_too(sql: SqlNetwork) -> None:
    """Three tries on two bases that nobody waits for any more arrive after the hour was abandoned: all are refused."""
    late: list[Send] = []

    def lose(send: Send) -> CommitTableResponse:
        late.append(send)
        raise requests.ReadTimeout

    def lose_and_let_a_rival_in(send: Send) -> CommitTableResponse:
        sql.far.put(ELEVEN, [9])
        return lose(send)

    sql.catalog.script = [lose, lose_and_let_a_rival_in, lose]
    hand = sealed(sql.near, TEN, [1, 2])
    with pytest.raises(CommitStateUnknownError):
        hand.commit()
    assert len(hand.attempt.bases) == 2
    assert in_hand(sql.far, TEN).abandon("not wanted") is None
    for send in late:
        with pytest.raises(CommitFailedException):
            send()
    assert_settled(sql.far, {ELEVEN.key: [9]})


# ---------------------------------------------------------------------------------------------------------------------
# Attempts that wake up after a newer one
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Newer:
    """What a newer attempt of an hour makes of it.

    Attributes:
        before: the hour's rows before both attempts.
        after: the newer attempt's.
        commits: whether there is anything to commit.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    commits: bool = True

    @property
    def rows(self) -> dict[str, list[int]]:
        """The table's rows afterwards."""
        return {TEN.key: list(self.after)} if self.after else {}

    def begin(self, lake: Lake) -> None:
        """Make the hour what it is before."""
        if self.before:
            lake.put(TEN, self.before)

    def commit(self, lake: Lake) -> None:
        """Run the hour once more, from its opening to its commit."""
        committed = sealed(lake, TEN, self.after, "newer run").commit()
        assert (committed.snapshot_id is not None) == self.commits


NEWER = {
    "rows": Newer((0,), (5, 6)),
    "the first rows": Newer((), (5, 6)),
    "no rows any more": Newer((0,), ()),
    "no rows and no snapshot": Newer((), (), commits=False),
}
after_every_newer = pytest.mark.parametrize("newer", NEWER.values(), ids=NEWER)
of_every_older = pytest.mark.parametrize("ids", [[1, 2], []], ids=["rows", "no rows"])


@after_every_newer
@of_every_older
def test_an_attempt_that_seals_too_late_is_superseded(lake: Lake, newer: Newer, ids: list[int]) -> None:
    """Opened before the newer one and written after its commit, it cannot be sealed, and leaves nothing."""
    newer.begin(lake)
    stale = opened(lake, TEN, "older run")
    newer.commit(lake)
    with pytest.raises(CommitConflictError):
        seal(lake, stale, ids)
    assert_settled(lake, newer.rows)


@after_every_newer
@of_every_older
def test_an_attempt_that_commits_too_late_is_superseded(lake: Lake, newer: Newer, ids: list[int]) -> None:
    """Sealed before the newer one was opened, it is not committed after it, and leaves nothing."""
    newer.begin(lake)
    stale = sealed(lake, TEN, ids, "older run")
    newer.commit(lake)
    with pytest.raises(CommitConflictError):
        stale.commit()
    assert_settled(lake, newer.rows)


@after_every_newer
@pytest.mark.parametrize("sent", [False, True], ids=["sealed", "sent"])
def test_an_attempt_is_not_resumed_from_a_stale_record(sql: SqlNetwork, newer: Newer, *, sent: bool) -> None:
    """A process that read the older attempt's record before the newer one was opened does not get hold of it."""
    newer.begin(sql.far)
    hand = sealed(sql.near, TEN, [1, 2], "older run")
    if sent:
        sql.catalog.script = [refused(requests.ConnectionError("reset"))] * 3
        with pytest.raises(CommitStateUnknownError):
            hand.commit()
    stale = in_hand(sql.far, TEN)
    newer.commit(sql.far)
    with pytest.raises(CommitConflictError):
        stale.resume()
    assert_settled(sql.far, newer.rows)


@after_every_newer
def test_a_record_that_was_put_back_does_not_bring_its_attempt_back(lake: Lake, newer: Newer) -> None:
    """Where a store restores the older attempt's record, its files are missed before anything is committed."""
    newer.begin(lake)
    stale = sealed(lake, TEN, [1, 2], "older run").held
    newer.commit(lake)
    lake.now.files.put(stale.url, stale.record.model_dump_json().encode())
    (told,) = commit_sealed(lake.now, lambda _run: True)
    assert isinstance(told.error, SafetyError)
    assert (lake.rows(), lake.missing()) == (newer.rows, set())


@after_every_newer
def test_a_commit_in_flight_never_replaces_a_newer_attempt(network: Network, newer: Newer) -> None:
    """It arrives after the newer one is done, be that an hour without rows that committed nothing: it is refused."""
    newer.begin(network.far)
    stale = sealed(network.near, TEN, [1, 2], "older run")
    with in_flight(stale, network.hold(landed=False)) as committing:
        newer.commit(network.far)
    with pytest.raises(CommitConflictError):
        committing.result(PATIENCE_S)
    record = in_hand(network.far, TEN).held.record
    assert record.committed is not None
    assert record.committed.attempt != stale.attempt.id
    assert_settled(network.far, newer.rows)


def test_hours_do_not_supersede_each_other(network: Network) -> None:
    """A commit in flight while others replace their own hours is sent again on top of theirs."""
    network.far.put(TEN, [0])
    hand = sealed(network.near, TEN, [1, 2])
    with in_flight(hand, network.hold(landed=False)) as committing:
        sealed(network.far, ELEVEN, [3]).commit()
        sealed(network.far, TWELVE, []).commit()
    committing.result(PATIENCE_S)
    assert_settled(network.far, {TEN.key: [1, 2], ELEVEN.key: [3]})


# ---------------------------------------------------------------------------------------------------------------------
# The ledger is lost while a commit is on its way
# ---------------------------------------------------------------------------------------------------------------------


def lose_ledger(lake: Lake, part: str) -> None:
    """Delete the ledger, or a part of it."""
    table = lake.now
    table.files.delete_objects([item.url for item in table.files.list_objects(f"{table.ledger.folder}/{part}")])


@pytest.mark.parametrize("part", ["", "hours/"], ids=["all of it", "its hours"])
@pytest.mark.parametrize("newer", [pytest.param(newer, id=name) for name, newer in NEWER.items() if newer.commits])
def test_a_commit_in_flight_that_nobody_remembers_never_replaces_a_newer_attempt(
    sql: SqlNetwork, newer: Newer, part: str
) -> None:
    """The ledger is lost while it is held, and a newer attempt commits without knowing of it: it is refused."""
    newer.begin(sql.far)
    stale = sealed(sql.near, TEN, [1, 2], "older run")
    with in_flight(stale, sql.hold(landed=False)) as committing:
        lose_ledger(sql.far, part)
        newer.commit(sql.far)
    with pytest.raises(CommitConflictError):
        committing.result(PATIENCE_S)
    assert_settled(sql.far, newer.rows)


@pytest.mark.parametrize("part", ["", "hours/"], ids=["all of it", "its hours"])
def test_a_commit_in_flight_that_nobody_remembers_lands_whole(sql: SqlNetwork, part: str) -> None:
    """The ledger is lost while it is held, and nobody does anything: it lands, and its run is told to stop."""
    sql.far.put(TEN, [0])
    stale = sealed(sql.near, TEN, [1, 2])
    with in_flight(stale, sql.hold(landed=False)) as committing:
        lose_ledger(sql.far, part)
    with pytest.raises(CommitConflictError):
        committing.result(PATIENCE_S)
    close_attempts(sql.far.now, lambda _run: True, grace=timedelta(0))
    assert (sql.far.rows(), sql.far.missing(), sql.far.unreached()) == ({TEN.key: [1, 2]}, set(), set())


def test_a_commit_in_flight_is_fenced_by_who_finds_its_record_lost(sql: SqlNetwork) -> None:
    """Two knew of the attempt; one has a commit of it on its way while the other gives it up, and no record tells."""
    sql.far.put(ELEVEN, [9])
    hand = sealed(sql.near, TEN, [1, 2])
    other = in_hand(sql.far, TEN)
    with in_flight(hand, sql.hold(landed=False)) as committing:
        lose_ledger(sql.far, "")
        other.settle(CommitConflictError("the hour was changed"))
    with pytest.raises(CommitConflictError):
        committing.result(PATIENCE_S)
    assert_settled(sql.far, {ELEVEN.key: [9]})


def test_a_commit_in_flight_of_a_stray_never_lands(sql: SqlNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record is lost, and a sensor closes what its marker tells of: it is refused when it arrives."""
    sql.far.put(ELEVEN, [9])
    hand = sealed(sql.near, TEN, [1, 2])
    monkeypatch.setattr("lakehouse_pipeline.backfill.leftovers.LEASE", -timedelta(seconds=1))
    with in_flight(hand, sql.hold(landed=False)) as committing:
        lose_ledger(sql.far, "hours/")
        assert close_attempts(sql.far.now, lambda _run: True) == [hand.attempt.id]
    with pytest.raises(CommitConflictError):
        committing.result(PATIENCE_S)
    assert_settled(sql.far, {ELEVEN.key: [9]})

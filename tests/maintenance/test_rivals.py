"""Compactors among writers: no row is lost, no writer fails because of them, and they get on."""

import logging
import os
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, ValidationException

from lakehouse_pipeline.backfill.attempts import TakenError
from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.maintenance.compaction import Compacted, compact, look
from tests.backfill.hands import in_hand, new_attempt
from tests.iceberg.lake import ELEVEN, EVENTS, TEN, TWELVE, Lake, events, in_bucket, reached_by, spec_of
from tests.maintenance.test_compaction import left_over, put

SECONDS = float(os.environ.get("LAKEHOUSE_RIVALS_S", "4"))  # in which all of them go on
GIVE_UP_S = 120.0  # until each of them has got on
PAUSE_S = {
    "sql": 0.05,
    "rest": 0.5,
}  # between two commits of a writer: faster than a commit takes, nobody else gets one
FILES = 6
WRITERS = ("runs", "appends", "expiries")
OURS = re.compile(r"[/-][0-9A-Z]{26}-")  # in a file's name: the attempt's id
# PyIceberg's words where a rival was faster; the second where what it stood on was expired meanwhile, too.
FAILED = (CommitFailedException, ValidationException)

logger = logging.getLogger(__name__)


@pytest.fixture(params=["sql", "rest"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Lake]:
    """Give what opens a table in a catalog of the caller's own, as every process has."""

    def catalog() -> Catalog:
        if request.param == "sql":
            folder = {"uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"file://{tmp_path}/w"}
            return open_catalog({"type": "sql", **folder})
        seaweed: SeaweedServer = request.getfixturevalue("seaweed")
        tokens = {"oauth2-server-uri": f"{seaweed.catalog_uri}/v1/oauth/tokens"}
        return open_catalog({**tokens, **seaweed.catalog_properties()})

    identifier = Lake.create(catalog()).identifier
    return lambda: Lake(catalog(), identifier)


@pytest.fixture
def rivals(request: pytest.FixtureRequest, opened: Callable[[], Lake]) -> "Rivals":
    """Give writers and compactors of that table."""
    return Rivals(opened, PAUSE_S[request.node.callspec.params["opened"]])


class Rivals:
    """Writers and compactors, each in a thread with a catalog of its own, until their time is over."""

    def __init__(self, opened: Callable[[], Lake], pause_s: float) -> None:
        """Nothing runs yet."""
        self._opened, self._pause_s = opened, pause_s
        self._failed = threading.Event()
        self.commits = Counter[str]()
        self.compacted = list[Compacted]()
        self.expired = set[str]()  # files that snapshots reached
        self.expected = {hour.key: list(range(FILES)) for hour in (TEN, ELEVEN, TWELVE)}

    def fight(self, *rivals: Callable[[Lake], object]) -> None:
        """Let them go on until each has got on; the first failure ends all."""
        began = time.monotonic()

        def goes_on() -> bool:
            return time.monotonic() < began + (SECONDS if self._have_got_on() else GIVE_UP_S)

        def one(rival: Callable[[Lake], object]) -> None:
            lake = self._opened()
            try:
                while goes_on() and not self._failed.is_set():
                    rival(lake)
            except BaseException:
                self._failed.set()
                raise

        with ThreadPoolExecutor(len(rivals)) as pool:
            for ended in [pool.submit(one, rival) for rival in rivals]:
                ended.result()

    def _have_got_on(self) -> bool:
        hours = {each.hour for each in self.compacted if each.committed}
        return all(self.commits[each] for each in WRITERS) and TWELVE in hours and not hours.isdisjoint({TEN, ELEVEN})

    def runs_again(self, lake: Lake) -> None:
        """Make `TEN` other rows, as a run does: it waits while the hour is held, and looks again if it was taken."""
        ids = [1_000 * (1 + self.commits["runs"]) + number for number in range(FILES)]
        held = lake.now.ledger.hour(TEN)
        if held.record.attempt is None:
            hand = in_hand(lake, TEN)  # its table is not older than the record
            hand.held = held
            with suppress(TakenError):
                hand.open(new_attempt(hand.table, TEN, buckets=FILES))
                parts = [in_bucket(place, events(TEN, [number])) for place, number in enumerate(ids)]
                written = lake.write(TEN, parts, hand.attempt.id)
                hand.seal(hand.table.seal(hand.attempt.id, written, rows_read=None, rejected=0))
                hand.commit()
                self.expected[TEN.key] = ids
                self.commits["runs"] += 1
        time.sleep(self._pause_s)

    def appends(self, lake: Lake) -> None:
        """Append to the hour that is only appended to, as PyIceberg does; it does not always try again by itself."""
        number = FILES + self.commits["appends"]
        while True:
            with suppress(*FAILED):
                lake.append(events(ELEVEN, [number]))
                break
        self.expected[ELEVEN.key].append(number)
        self.commits["appends"] += 1
        time.sleep(self._pause_s)

    def expires(self, lake: Lake) -> None:
        """Expire all snapshots but the last; PyIceberg leaves their files."""
        with suppress(*FAILED):
            table = lake.now.table
            self.expired |= reached_by(table)
            table.maintenance.expire_snapshots().older_than(datetime.now(UTC).replace(tzinfo=None)).commit()
            self.commits["expiries"] += 1
        time.sleep(4 * self._pause_s)

    def compacts(self, lake: Lake) -> None:
        """Compact what is worth it by now."""
        self.compacted += compacts(lake)


def compacts(lake: Lake) -> Iterator[Compacted]:
    """Plan and run, as a process of its own does."""
    spec, table = spec_of(EVENTS, {"table": lake.identifier}), lake.now
    plan = look(MaintenanceSettings(), spec, table)
    return compact(Warehouse(lake.catalog, table.files), spec, plan, f"compactor {uuid.uuid4()}")


def test_compactors_among_writers(opened: Callable[[], Lake], rivals: Rivals) -> None:
    """Of an hour that is run again, one that is appended to and one at rest; while snapshots are expired."""
    for hour in (TEN, ELEVEN, TWELVE):
        put(opened(), hour, [[number] for number in range(FILES)])
    rivals.fight(rivals.runs_again, rivals.appends, rivals.expires, rivals.compacts, rivals.compacts)
    done = Counter(each.hour.key for each in rivals.compacted if each.committed)
    aside = Counter(each.hour.key for each in rivals.compacted if each.stepped_aside)
    logger.info("%s; compacted %s; stepped aside %s", dict(rivals.commits), dict(done), dict(aside))
    lake = opened()
    assert lake.rows() == rivals.expected
    assert [each.error for each in rivals.compacted if each.error and not each.stepped_aside] == []
    assert all(rivals.commits[each] for each in WRITERS)
    assert done[ELEVEN.key] + done[TEN.key] >= 1
    assert done[TWELVE.key] == 1
    assert len(lake.now.live(TWELVE)) == 1
    assert {url for url in left_over(lake) - rivals.expired if OURS.search(url)} == set()
    assert lake.missing() == set()


def test_one_compactor_of_two_has_an_hour(opened: Callable[[], Lake]) -> None:
    """Both have the same plan: one carries it out, the other steps aside, and the rows are there once."""
    put(opened(), TEN, [[number] for number in range(FILES)])
    start = threading.Barrier(2)

    def one() -> list[Compacted]:
        lake = opened()
        found = compacts(lake)
        start.wait()
        return list(found)

    with ThreadPoolExecutor(2) as pool:
        done = [each for ended in [pool.submit(one) for _ in range(2)] for each in ended.result()]
    lake = opened()
    assert sorted(each.stepped_aside for each in done) == [False, True]
    assert lake.rows() == {TEN.key: list(range(FILES))}
    assert left_over(lake) == set()


def test_appends_to_the_hour_itself_are_no_rivals(opened: Callable[[], Lake]) -> None:
    """As many as come while it is compacted: the files that were read are written anew, the others stay."""
    lake = opened()
    put(lake, TEN, [[number] for number in range(FILES)])

    def appends() -> list[int]:
        other, ids = opened(), list(range(100, 105))
        for number in ids:
            other.now.table.append(pa.Table.from_batches([events(TEN, [number])]))
        return ids

    with ThreadPoolExecutor(1) as pool:
        appended = pool.submit(appends)
        done = list(compacts(lake))
        ids = appended.result()
    assert [each.error for each in done] == [None]
    assert lake.rows() == {TEN.key: [*range(FILES), *ids]}
    assert left_over(lake) == set()

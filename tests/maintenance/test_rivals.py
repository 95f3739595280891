"""Compactors among writers: no row is lost, no writer fails because of them, and they get on."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from lakehouse_pipeline.backfill.attempts import TakenError
from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.errors import CommitConflictError
from lakehouse_pipeline.iceberg.hourly import Warehouse
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.maintenance.compaction import Compacted, compact, look
from tests.backfill.hands import in_hand
from tests.iceberg.lake import ELEVEN, EVENTS, TEN, TWELVE, Lake, events, spec_of
from tests.maintenance.test_compaction import left_over, put

ROUNDS = 8
FILES = 6


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[], Lake]:
    """Give what opens a table in a catalog of the caller's own, as every process has."""
    properties = {"type": "sql", "uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"file://{tmp_path}/w"}
    identifier = Lake.create(open_catalog(properties)).identifier
    return lambda: Lake(open_catalog(properties), identifier)


def put_patiently(lake: Lake, files: list[list[int]]) -> None:
    """Commit an hour as a run does: it waits while another holds the hour, and looks again where one was faster."""
    while True:
        with suppress(TakenError):
            if in_hand(lake, TEN).held.record.attempt is None:
                put(lake, TEN, files)
                return
        time.sleep(0.01)


def test_compactors_among_writers(opened: Callable[[], Lake]) -> None:
    """One hour is run again and again, one is appended to, one is left alone; two compactors look at all of them."""
    ended = threading.Event()
    for hour in (TEN, ELEVEN, TWELVE):
        put(opened(), hour, [[number] for number in range(FILES)])

    def runs_again() -> None:
        lake = opened()
        for number in range(1, ROUNDS + 1):
            put_patiently(lake, [[100 * number + each] for each in range(FILES)])

    def appends() -> None:
        lake = opened()
        for number in range(ROUNDS):
            lake.append(events(ELEVEN, [1_000 + number]))

    def compacts() -> list[Compacted]:
        lake, done = opened(), list[Compacted]()
        spec = spec_of(EVENTS, {"table": lake.identifier})
        while not ended.is_set():
            table = lake.now
            done += compact(Warehouse(lake.catalog, table.files), spec, look(MaintenanceSettings(), table), "compactor")
        return done

    with ThreadPoolExecutor(4) as pool:
        compactors = [pool.submit(compacts) for _ in range(2)]
        try:
            for writer in [pool.submit(runs_again), pool.submit(appends)]:
                writer.result()
        finally:
            ended.set()
        done = [each for compactor in compactors for each in compactor.result()]
    lake = opened()
    assert lake.rows() == {
        TEN.key: [100 * ROUNDS + each for each in range(FILES)],
        ELEVEN.key: [*range(FILES), *range(1_000, 1_000 + ROUNDS)],
        TWELVE.key: list(range(FILES)),
    }
    assert all(each.error is None or isinstance(each.error, CommitConflictError) for each in done)
    assert any(each.committed for each in done)
    assert len(lake.now.live(TWELVE)) == 1
    assert left_over(lake) == set()

"""Committers that race: every hour lands once, whoever wins, and of one hour exactly one attempt lands."""

import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from lakehouse_pipeline.errors import CommitConflictError
from lakehouse_pipeline.iceberg.sealed_hours import SealedHour
from lakehouse_pipeline.iceberg.tables import open_catalog
from tests.iceberg.lake import TEN, Lake, hours_after

PROCESSES = 4
HOURS_PER_PROCESS = 4


def race(calls: list[Callable[[], object]]) -> list[object]:
    """Start all calls at the same moment; give what each returned or raised."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        barrier.wait()
        try:
            return call()
        except CommitConflictError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def committing(lake: Lake, sealed: SealedHour) -> Callable[[], object]:
    """Give the call that commits a sealed hour."""
    return lambda: lake.replace(sealed)


def assert_one_snapshot_each(lake: Lake, count: int) -> None:
    """The history is one line of so many snapshots, and the folders hold what they reach and nothing else."""
    snapshots = lake.now.table.metadata.snapshots
    assert len(snapshots) == count
    assert [each.parent_snapshot_id for each in snapshots[1:]] == [each.snapshot_id for each in snapshots[:-1]]
    assert lake.unreached() == set()


@pytest.mark.parametrize(("kind", "threads"), [("catalog", 32), ("rest_catalog", 12)])
def test_threads_that_commit_different_hours_all_land(request: pytest.FixtureRequest, kind: str, threads: int) -> None:
    """Each of many hours committed at once onto a new table lands, and lands once."""
    lake = Lake.create(request.getfixturevalue(kind))
    hours = hours_after(TEN, threads)
    sealed = [lake.seal(hour, [number]) for number, hour in enumerate(hours)]
    race([committing(lake, each) for each in sealed])
    assert lake.rows() == {hour.key: [number] for number, hour in enumerate(hours)}
    assert_one_snapshot_each(lake, threads)


@pytest.mark.parametrize("began", [True, False], ids=["hour with rows", "new table"])
def test_of_racing_attempts_of_one_hour_one_lands(any_lake: Lake, *, began: bool) -> None:
    """Of attempts of one hour, opened on one base and committed at once, one lands whole and the others conflict."""
    if began:
        any_lake.put(TEN, [100])
    attempts = [any_lake.seal(TEN, [number, number]) for number in range(6)]
    outcomes = race([committing(any_lake, each) for each in attempts])
    winners = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, CommitConflictError)]
    assert len(winners) == 1
    assert any_lake.rows() == {TEN.key: winners * 2}


def replace_all(properties: dict[str, str], identifier: str, first: int) -> None:
    """Replace every hour of this process twice."""
    with open_catalog(properties) as catalog:
        lake = Lake(catalog, identifier)
        for number, hour in enumerate(hours_after(TEN, first + HOURS_PER_PROCESS)[first:], start=first):
            lake.put(hour, [number])
            lake.put(hour, [number, number + 1000])


def test_processes_that_replace_different_hours_all_land(tmp_path: Path) -> None:
    """Processes that share nothing but a database each replace their hours, and no replacement is lost."""
    properties = {"type": "sql", "uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"file://{tmp_path}/w"}
    with open_catalog(properties) as catalog:
        lake = Lake.create(catalog)
        with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
            starts = range(0, PROCESSES * HOURS_PER_PROCESS, HOURS_PER_PROCESS)
            for done in [pool.submit(replace_all, properties, lake.identifier, first) for first in starts]:
                done.result()
        hours = hours_after(TEN, PROCESSES * HOURS_PER_PROCESS)
        assert lake.rows() == {hour.key: [number, number + 1000] for number, hour in enumerate(hours)}
        assert_one_snapshot_each(lake, 2 * len(hours))

"""What was forgotten loses no data: the ledger deleted at any moment, and snapshots that were expired by others."""

import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.errors import CommitConflictError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.ledger.leases import LEASE
from tests.iceberg.lake import Lake
from tests.projects import HOUR, NEXT, SPEC, THIRD, Project, row, strays

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine


@pytest.fixture
def written(project: Project) -> Project:
    """Give a project of two hours that were run, the first of which has new objects since."""
    for hour in (HOUR, NEXT):
        project.land(hour, [row(hour, 1), row(hour, 2)])
        project.run(hour)
    project.land(HOUR, [row(HOUR, 3)])
    return project


def ledger(project: Project) -> Path:
    """Give the folder of the ledger."""
    (folder,) = (project.folder / "warehouse/lake/events/_lakehouse").iterdir()
    return folder


def lose(project: Project, part: str) -> None:
    """Delete the ledger, or a part of it."""
    shutil.rmtree(ledger(project) / part)


def close_all(project: Project) -> None:
    """Let every lease and every grace be over, twice, and close what was left."""
    for _ in range(2):
        for marker in (project.folder / "warehouse/lake/events/_lakehouse").glob("*/open/*/*.json"):
            ago = time.time() - 2 * LEASE.total_seconds()
            os.utime(marker, (ago, ago))
        close_attempts(project.table, lambda _run: True, grace=timedelta(0))


def assert_whole(project: Project, ids: list[int]) -> None:
    """The hour has these rows, the other its own; nothing is missing, and nothing beside them is left."""
    assert (project.ids(HOUR), project.ids(NEXT)) == (ids, [1, 2])
    assert Lake(project.catalog, "lake.events").missing() == set()
    assert strays(project.table) == set()


def interrupted_at(moment: str, project: Project, hour: str) -> None:
    """Let a run of an hour be interrupted at an event."""

    def interrupt(event: events.Event) -> None:
        if event.name == moment:
            raise KeyboardInterrupt

    with events.subscribed(interrupt), pytest.raises(KeyboardInterrupt):
        project.run(hour)


@pytest.mark.parametrize(
    ("moment", "ids", "part"),
    [
        ("attempt.opened", [1, 2], ""),
        ("attempt.sealed", [1, 2], ""),
        ("attempt.sealed", [1, 2], "hours"),
        ("commit.sent", [3], ""),
        ("commit.sent", [3], "hours"),
        ("commit.landed", [3], ""),
        ("attempt.committed", [3], ""),
    ],
)
def test_the_ledger_is_lost_during_a_run(written: Project, moment: str, ids: list[int], part: str) -> None:
    """The run stops and leaves the hour as it was, or has landed; the next one makes the hour what it should be."""
    todo = [moment]

    def heard(event: events.Event) -> None:
        if event.name in todo:
            todo.clear()
            lose(written, part)

    with events.subscribed(heard):
        if moment == "attempt.committed":
            written.run()
        else:
            with pytest.raises(CommitConflictError):
                written.run()
    assert todo == []
    assert (written.ids(HOUR), written.ids(NEXT)) == (ids, [1, 2])
    close_all(written)
    assert_whole(written, ids)
    assert [written.run(hour).step for hour in (HOUR, NEXT)] == ["run", "run"]
    close_all(written)
    assert_whole(written, [3])
    assert [written.run(hour).step for hour in (HOUR, NEXT)] == ["skip", "skip"]


@pytest.mark.parametrize("part", ["", "hours"], ids=["all of it", "its hours"])
def test_the_ledger_is_lost_between_runs(written: Project, part: str) -> None:
    """Hours whose records are gone run again, into the same rows."""
    lose(written, part)
    assert [written.run(hour).step for hour in (HOUR, NEXT)] == ["run", "run"]
    close_all(written)
    assert_whole(written, [3])


@pytest.mark.parametrize(
    ("moment", "ids"), [("attempt.sealed", [1, 2]), ("commit.sent", [1, 2]), ("commit.landed", [3])]
)
def test_a_run_dies_and_its_record_is_lost(written: Project, moment: str, ids: list[int]) -> None:
    """Its marker alone tells of the attempt: what of it is not the table's is removed, its commit's list included."""
    interrupted_at(moment, written, HOUR)
    lose(written, "hours")
    close_all(written)
    assert_whole(written, ids)
    assert written.run().step == "run"
    assert_whole(written, [3])


# ---------------------------------------------------------------------------------------------------------------------
# Snapshots expired by others
# ---------------------------------------------------------------------------------------------------------------------


def expire(project: Project) -> None:
    """Let another hour be committed, and PyIceberg expire all snapshots but that."""
    project.land(THIRD, [row(THIRD, 7)])
    project.run(THIRD)
    project.table.table.maintenance.expire_snapshots().older_than(datetime.now(UTC) + timedelta(days=1)).commit()
    assert len(project.table.table.metadata.snapshots) == 1


@pytest.fixture
def emptied(written: Project) -> Project:
    """Give the project with no objects of its second hour any more, which means: no rows."""
    written.describe({"source": SPEC["source"].replace("{", "{missing: empty, ", 1)})
    (written.folder / "raw/2013/01/01/11.jsonl").unlink()
    return written


def test_finished_hours_are_skipped_after_expiry(emptied: Project) -> None:
    """An hour with rows, and one that was emptied, are as finished without their snapshots as with them."""
    assert [emptied.run(hour).step for hour in (HOUR, NEXT)] == ["run", "run"]
    expire(emptied)
    head = emptied.table.head
    assert [emptied.run(hour).step for hour in (HOUR, NEXT)] == ["skip", "skip"]
    assert (emptied.ids(HOUR), emptied.ids(NEXT), emptied.table.head) == ([3], [], head)


def land_unseen(project: Project, hour: str) -> str:
    """Let a run of an hour be interrupted between its commit's landing and its record; gives the attempt's id."""
    interrupted_at("commit.landed", project, hour)
    record = project.record(hour)
    assert record.attempt is not None
    assert (record.state, record.attempt.snapshot_ids) == ("committing", (project.table.head,))
    return record.attempt.id


@pytest.mark.parametrize(("hour", "ids"), [(HOUR, [3]), (NEXT, [])], ids=["rows", "no rows"])
def test_a_landed_attempt_is_recognised_after_expiry(emptied: Project, hour: str, ids: list[int]) -> None:
    """Landed and never acknowledged, its snapshot expired: the next run finds it, and commits nothing."""
    attempt = land_unseen(emptied, hour)
    expire(emptied)
    head = emptied.table.head
    result = emptied.run(hour)
    assert (result.step, result.attempt, emptied.table.head) == ("resume", attempt, head)
    assert (emptied.ids(hour), emptied.run(hour).step) == (ids, "skip")
    close_all(emptied)
    assert Lake(emptied.catalog, "lake.events").missing() == set()


@pytest.mark.parametrize(("hour", "ids"), [(HOUR, [3]), (NEXT, [])], ids=["rows", "no rows"])
def test_a_landed_attempt_that_was_added_to_is_replaced_after_expiry(
    emptied: Project, hour: str, ids: list[int]
) -> None:
    """Somebody's rows in its hour, and no snapshot of it: it is not taken for lost, and the hour runs again whole."""
    land_unseen(emptied, hour)
    table = emptied.table
    added = [{"at": HourWindow.from_key(hour).start, "id": 8, "size": 1.0}]
    table.table.append(pa.Table.from_pylist(added, schema=table.arrow_schema))
    expire(emptied)
    assert (emptied.run(hour).step, emptied.ids(hour), emptied.run(hour).step) == ("run", ids, "skip")
    close_all(emptied)
    assert Lake(emptied.catalog, "lake.events").missing() == set()

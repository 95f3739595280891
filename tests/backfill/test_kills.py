"""A run that is killed or stopped at any moment costs a lease: the next run commits once, and nothing is left."""

import json
import uuid
from collections.abc import Iterator
from datetime import timedelta
from signal import SIGKILL, SIGSTOP

import pytest

from lakehouse_pipeline.backfill import close, hour
from lakehouse_pipeline.backfill.hour import run_hour
from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.testing.asked import Dialect
from lakehouse_pipeline.testing.faults import FaultServer
from lakehouse_pipeline.testing.schedule import Effect, Fault
from tests.backfill.lone_runs import LoneRun, Run
from tests.projects import HOUR, Project, row, strays

WINDOW = HourWindow.from_key(HOUR)
IDS = list(range(40))
SHORT = timedelta(seconds=1)  # a lease; by the store's clock, which counts seconds
AT_ONCE = timedelta(0)


@pytest.fixture
def stored(project: Project, seaweed: SeaweedServer) -> Project:
    """Give a project with a table on a REST catalog and S3, whose hours are eight files: one for each bucket."""
    project.write("lakehouse.yaml", f"catalog: {json.dumps(seaweed.catalog_properties())}\nengine: sail\n")
    project.describe({"table": f"n{uuid.uuid4().hex[:8]}.events", "partition": "[bucket(8, id)]"})
    project.land(HOUR, [row(HOUR, number) for number in IDS])
    return project


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let leases in this process be short."""
    monkeypatch.setattr(close, "LEASE", SHORT)
    monkeypatch.setattr(hour, "LOOK_AGAIN_S", 0.05)


def _next_run(project: Project) -> dict[str, object]:
    """Run the hour in another process, which waits for the lease of the first."""
    with LoneRun(Run(project.folder, HOUR, "second", lease=SHORT)) as second:
        return second.ended()


def _is_held_once(project: Project, ids: list[int]) -> None:
    """Check that the table has the rows, and after a second pass nothing else."""
    table = project.table
    assert project.ids() == ids
    close_attempts(table, lambda _run_id: True, grace=AT_ONCE)
    assert strays(project.table) == set()
    hidden = table.files.list_objects(f"{table.location}/_lakehouse/")
    assert [item.url.removeprefix(f"{table.ledger.folder}/") for item in hidden] == ["hours/2013-01-01-10.json"]
    assert list(table.files.list_uploads(f"{table.location}/")) == []
    assert project.record().state == "idle"
    assert project.run().step == "skip"


@pytest.mark.parametrize("puts", [1, 5])
def test_killed_while_writing(stored: Project, puts: int) -> None:
    """Some files are put, others not: the next run waits for the lease, writes the hour anew and removes them."""
    with LoneRun(Run(stored.folder, HOUR, puts={puts: SIGKILL})) as first:
        first.killed()
    assert len(strays(stored.table)) == puts
    killed = stored.record().attempt
    told = _next_run(stored)
    assert killed is not None
    assert told["step"] == "run"
    assert told["attempt"] != killed.id
    assert len(stored.table.table.snapshots()) == 1
    _is_held_once(stored, IDS)


@pytest.mark.parametrize("moment", ["attempt.sealed", "commit.sent"])
def test_killed_after_the_seal(stored: Project, soon: None, moment: str) -> None:
    """With all files there, and the commit built or not: the next run commits them, and runs no ETL."""
    with LoneRun(Run(stored.folder, HOUR, at={moment: SIGKILL})) as first:
        first.killed()
    sealed = stored.record().attempt
    result = run_hour(stored.bench("second"), WINDOW)
    assert sealed is not None
    assert (result.step, result.attempt) == ("resume", sealed.id)
    assert "etl" not in result.seconds
    assert len(stored.table.table.snapshots()) == 1
    _is_held_once(stored, IDS)

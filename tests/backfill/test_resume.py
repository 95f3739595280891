"""Up to the seal a failure costs the attempt and leaves nothing behind; from the seal on it costs a commit."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast

import pytest
import requests
from pyiceberg.catalog import Catalog
from pyiceberg.table import CommitTableResponse, Table

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill import views
from lakehouse_pipeline.backfill.hour import run_hour
from lakehouse_pipeline.backfill.hour_result import HourResult
from lakehouse_pipeline.backfill.hour_run import Bench
from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.engines.capabilities import ENGINES, Capabilities
from lakehouse_pipeline.errors import (
    CommitConflictError,
    CommitStateUnknownError,
    DataError,
    LakehouseError,
    TransientError,
)
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg import commit
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.ledger.hours import HourLedger
from lakehouse_pipeline.ledger.records import HourRecord
from lakehouse_pipeline.retry import RetryPolicy
from tests.projects import HOUR, NEXT, Project, json_lines, row, strays

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine

COLUMNS = "{at: timestamptz!, id: long!, size: double}"
OVERFLOWS = {"accepts": "[integer_overflow]"}  # as Sail asks of any transform
COUNTING = """\
from pathlib import Path


def count(source):
    with (Path(__file__).parent / "calls").open("a") as calls:
        calls.write("x")
    return source
"""
WINDOW = HourWindow.from_key(HOUR)


@dataclass
class UnrulyCatalog:
    """A catalog in front of another, whose commits go wrong in a planned way.

    Attributes:
        inner: the real one.
        lands: whether commits get through before their answer is lost.
        silent: whether it answers nothing more after the first commit.
    """

    inner: Catalog
    lands: bool
    silent: bool
    sent: int = 0

    def load_table(self, identifier: str) -> Table:
        """Load a table that commits here."""
        if self.sent and self.silent:
            raise requests.ConnectionError("no route")
        table = self.inner.load_table(identifier)
        table.catalog = cast("Catalog", self)
        return table

    def commit_table(self, table: Table, requirements: Any, updates: Any) -> CommitTableResponse:
        """Lose the answer, if not the commit."""
        self.sent += 1
        if self.lands:
            self.inner.commit_table(table, requirements, updates)
        raise requests.ConnectionError("reset by peer")

    def __getattr__(self, name: str) -> Any:
        """Leave all else to the real one."""
        return getattr(self.inner, name)


def _unruly(project: Project, *, lands: bool, silent: bool) -> Bench:
    bench = project.bench()
    catalog = cast("Catalog", UnrulyCatalog(bench.warehouse.catalog, lands, silent))
    return replace(bench, warehouse=Warehouse(catalog, bench.warehouse.files))


@pytest.fixture
def counting(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a project whose transform counts its calls, in a table that holds another hour; commits are tried twice."""
    monkeypatch.setattr(commit, "COMMIT_RETRIES", RetryPolicy(tries=2, total_s=5, min_wait_s=0, max_wait_s=0))
    project.describe({"transform": "t_counting:count", "columns": COLUMNS, **OVERFLOWS})
    project.write("tables/t_counting.py", COUNTING)
    for hour in (HOUR, NEXT):
        project.land(hour, [row(hour, 1), row(hour, 2)])
    project.run(NEXT)
    return project


def _calls(project: Project) -> int:
    return len((project.folder / "tables/calls").read_text())


@pytest.mark.parametrize(
    ("lands", "silent", "error"),
    [
        pytest.param(False, False, CommitStateUnknownError, id="never arrived"),
        pytest.param(False, True, CommitStateUnknownError, id="never arrived, and silence"),
        pytest.param(True, True, CommitStateUnknownError, id="landed, and silence"),
    ],
)
def test_sealed_attempt_outlives_a_failed_commit(
    counting: Project,
    lands: bool,  # noqa: FBT001  # a case
    silent: bool,  # noqa: FBT001  # a case
    error: type[LakehouseError],
) -> None:
    """Files and manifests stay, whatever became of the commit; the next run takes them to the table, without an ETL."""
    with pytest.raises(error):
        run_hour(_unruly(counting, lands=lands, silent=silent), WINDOW)
    record = counting.record()
    assert record.state == "committing"
    assert record.attempt is not None
    assert record.attempt.seal is not None
    before, calls = counting.files(), _calls(counting)
    result = counting.run()
    assert (result.step, result.attempt, _calls(counting)) == ("resume", record.attempt.id, calls)
    assert counting.files() == before
    assert (counting.ids(HOUR), counting.ids(NEXT)) == ([1, 2], [1, 2])
    assert counting.record().state == "idle"
    # Whose commit was never answered, nobody can tell its manifest list by name any more: that is for a sweep.
    assert [url for url in strays(counting.table) if "/metadata/snap-" not in url] == []
    assert counting.run().step == "skip"


def test_lost_answer_is_read_back(counting: Project) -> None:
    """A commit that landed without an answer is found in the table by the same run."""
    result = run_hour(_unruly(counting, lands=True, silent=False), WINDOW)
    assert (result.step, counting.ids(HOUR), counting.record().state) == ("run", [1, 2], "idle")
    assert result.snapshot_id == counting.table.head
    assert strays(counting.table) == set()


@pytest.mark.parametrize("state", ["sealed", "committing"])
def test_changed_source_is_not_resumed(counting: Project, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sealed attempt of objects that changed since gives way to a new one; nothing of it enters the table."""
    with monkeypatch.context() as patched:
        if state == "sealed":
            patched.setattr(commit, "build_replacement", _refuse)
        with pytest.raises(LakehouseError):
            run_hour(_unruly(counting, lands=False, silent=False), WINDOW)
    assert counting.record().state == state
    counting.land(HOUR, [row(HOUR, 5)])
    assert (counting.run().step, counting.ids(HOUR)) == ("run", [5])
    if state == "sealed":
        assert strays(counting.table) == set()


def _nobody(_run_id: str) -> bool:
    return False


def _refuse(*_: object) -> None:
    raise TransientError("the store is away")


def test_lost_answer_to_the_seal_keeps_the_files(counting: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the record may hold the seal, nothing that it names is removed: the next run finds out and resumes."""
    advance = HourLedger.advance

    def lose_answer(held: HourLedger, **changes: object) -> HourRecord:
        if changes.get("state") != "sealed":
            return advance(held, **changes)
        known = held.record, held._etag
        advance(held, **changes)
        held.record, held._etag = known
        raise TransientError("reset by peer")

    with monkeypatch.context() as patched:
        patched.setattr(HourLedger, "advance", lose_answer)
        with pytest.raises(TransientError, match="reset by peer"):
            counting.run()
    calls = _calls(counting)
    result = counting.run()
    assert (result.step, counting.ids(HOUR), _calls(counting)) == ("resume", [1, 2], calls)
    assert strays(counting.table) == set()


@pytest.mark.parametrize("sort", [pytest.param("[id]", id="sorted"), pytest.param(None, id="unsorted")])
def test_failed_check_removes_every_file(project: Project, sort: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """An attempt that fails after all of its files were put, in several buckets or several of one, leaves none."""
    columns = "{at: timestamptz!, id: long!, text: string}"
    project.describe({"transform": "t.sql", "columns": columns, "key": "[id]", "file_size": "1MB", **OVERFLOWS})
    if sort:
        project.describe({"sort": sort})
    project.write(
        "tables/t.sql",
        "SELECT at, n % 39000 AS id, sha2(CAST(n AS STRING), 512) AS text FROM source "
        "LATERAL VIEW explode(sequence(id * 1000, id * 1000 + 999)) AS n",
    )
    padding = [{**row(HOUR, n), "padding": "x" * 60_000} for n in range(40)]
    project.land(HOUR, padding)
    with (
        caplog.at_level(logging.INFO, "lakehouse_pipeline.backfill.close"),
        pytest.raises(DataError, match="is not unique"),
    ):
        project.run()
    (said,) = [record.getMessage() for record in caplog.records if record.name == "lakehouse_pipeline.backfill.close"]
    assert int(said.split("under ")[1].split()[0]) >= 3
    assert project.files() == set()
    assert strays(project.table) == set()


def test_tasks_that_write_on_leave_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one task fails, another may be in the middle of its files: what it puts afterwards is removed, too."""
    monkeypatch.setattr(views, "LEAST_TASK_BYTES", 1)
    project.describe({"file_size": "1MB"})
    project.land(HOUR, ({**row(HOUR, n), "size": n * n / 7} for n in range(150_000)), "-a.jsonl")
    project.write("raw/2013/01/01/10-b.jsonl", json_lines([row(HOUR, n) for n in range(30_000)]) + b"{")
    with pytest.raises(DataError, match=r"10-b\.jsonl:30001"):
        project.run()
    time.sleep(2)  # longer than the other task would need to its end
    assert project.files() == set()


def test_what_a_remote_task_writes_late_goes_with_the_second_pass(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where tasks of a failed hour cannot be waited for, a second pass removes what they put after the first."""
    remote = replace(ENGINES["local"], local_tasks=False)
    monkeypatch.setitem(cast("dict[str, Capabilities]", ENGINES), "local", remote)
    project.describe({"key": "[id]"})
    project.land(HOUR, [row(HOUR, 1), row(HOUR, 1)])
    with pytest.raises(DataError, match="is not unique"):
        project.run()
    table = project.table
    (marked,) = table.ledger.marked()
    late = table.target(WINDOW, marked.marker.attempt.id, 1).file_url(0, 0, 0)
    table.files.put(late, b"late")
    assert strays(project.table) == {late}
    assert close_attempts(project.table, _nobody) == []  # it may be too early for others
    assert close_attempts(project.table, _nobody, grace=timedelta(0)) == [marked.marker.attempt.id]
    assert strays(project.table) == set()
    close_attempts(project.table, _nobody, grace=timedelta(0))  # a pass that finds nothing is the last
    assert list(table.ledger.marked()) == []


def test_cancelled_attempt_is_closed(project: Project) -> None:
    """An interrupted run removes its files, and the hour's record says that it was cancelled."""
    project.describe({"transform": "t_cancelled:f", "columns": COLUMNS, **OVERFLOWS})
    project.write("tables/t_cancelled.py", "def f(source):\n    raise KeyboardInterrupt\n")
    project.land(HOUR, [row(HOUR, 1)])
    with pytest.raises(KeyboardInterrupt):
        project.run()
    record = project.record()
    assert (record.state, record.outcome and record.outcome.kind) == ("idle", "cancelled")
    assert strays(project.table) == set()


@pytest.fixture
def at_event() -> Iterator[Callable[[str, Callable[[], HourResult]], None]]:
    """Give a way to do something once, at the first event of a name."""
    todo: dict[str, Callable[[], HourResult]] = {}

    def heard(event: events.Event) -> None:
        if event.name in todo:
            todo.pop(event.name)()

    with events.subscribed(heard):
        yield todo.__setitem__


@pytest.mark.parametrize("moment", ["attempt.opened", "attempt.sealed", "commit.sent"])
def test_second_run_of_an_hour_takes_it_over(
    counting: Project, moment: str, at_event: Callable[[str, Callable[[], HourResult]], None]
) -> None:
    """Whoever opens the hour last wins; the other is told, and leaves nothing in the table or beside it."""
    counting.run()
    counting.land(HOUR, [row(HOUR, 3)])
    second: list[HourResult] = []

    def take_over() -> HourResult:
        if moment != "attempt.opened":  # a source that changes while it is read is an error of its own
            counting.land(HOUR, [row(HOUR, 4)])
        second.append(counting.run(force=True))
        return second[-1]

    at_event(moment, take_over)
    with pytest.raises(CommitConflictError):
        counting.run()
    committed = counting.record().committed
    assert committed is not None
    assert [result.attempt for result in second] == [committed.attempt]
    assert (counting.ids(HOUR), counting.ids(NEXT)) == ([3 if moment == "attempt.opened" else 4], [1, 2])
    assert strays(counting.table) == set()
    assert counting.run().step == "skip"


def test_two_runs_resume_one_attempt(
    counting: Project, at_event: Callable[[str, Callable[[], HourResult]], None]
) -> None:
    """Two runs that commit the same sealed attempt put it into the table once; no file of it is removed."""
    at_event("attempt.sealed", counting.run)
    with pytest.raises(CommitConflictError):
        counting.run()
    assert counting.ids(HOUR) == [1, 2]
    assert strays(counting.table) == set()
    assert counting.run().step == "skip"


def test_hours_commute(counting: Project, at_event: Callable[[str, Callable[[], HourResult]], None]) -> None:
    """A run of another hour that commits in between is no conflict."""
    counting.land(NEXT, [row(NEXT, 9)])
    at_event("commit.sent", lambda: counting.run(NEXT))
    assert counting.run().step == "run"
    assert (counting.ids(HOUR), counting.ids(NEXT)) == ([1, 2], [9])
    assert strays(counting.table) == set()


def test_rival_append_supersedes_the_attempt(
    counting: Project, at_event: Callable[[str, Callable[[], HourResult]], None]
) -> None:
    """Rows that somebody else put into the hour while it was written are not lost: the attempt ends, they stay."""

    def append() -> HourResult:
        table = counting.table
        rows = [{"at": WINDOW.start, "id": 8, "size": 1.0}]
        table.table.append(table.table.scan(limit=0).to_arrow().from_pylist(rows, schema=table.arrow_schema))
        return cast("HourResult", None)

    at_event("attempt.sealed", append)
    with pytest.raises(CommitConflictError, match="superseded"):
        counting.run()
    assert counting.ids(HOUR) == [8]
    assert strays(counting.table) == set()
    assert (counting.run().step, counting.ids(HOUR)) == ("run", [1, 2])

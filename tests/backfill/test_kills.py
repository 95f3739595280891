"""A run that is killed or stopped at any moment costs a lease: the next run commits once, and nothing is left."""

import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from signal import SIGKILL, SIGSTOP

import pyarrow as pa
import pytest

from lakehouse_pipeline.backfill.attempts import HourInHand
from lakehouse_pipeline.backfill.hour import run_hour
from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.data_files import BUCKET
from lakehouse_pipeline.ledger.leases import RENEW_EVERY
from lakehouse_pipeline.testing.asked import Dialect
from lakehouse_pipeline.testing.faults import FaultServer
from lakehouse_pipeline.testing.schedule import Armed, Effect, Fault
from tests.backfill.hands import new_attempt
from tests.backfill.lone_runs import WAIT, WITHIN_S, Lone, Run, Strikes, Task, Told, shorten_leases
from tests.backfill.spark_cluster import spark_cluster
from tests.projects import HOUR, Project, row, strays

WINDOW = HourWindow.from_key(HOUR)
IDS = list(range(40))
SHORT = timedelta(seconds=1)  # a lease; by the store's clock, which counts seconds
AT_ONCE = timedelta(0)
PART = 5 * 1024**2  # bytes, the smallest that S3 takes
ROWS = 60  # of a tenth of a megabyte on storage


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
    shorten_leases(monkeypatch, SHORT, RENEW_EVERY)


def _next_run(project: Project) -> Told:
    """Run the hour in another process, which waits for the lease of the first."""
    with Lone(Run(project.folder, HOUR, "second", lease=SHORT)) as second:
        return second.ended()


def _is_held_once(project: Project, ids: list[int]) -> None:
    """Check that the table has the rows, and after a second pass nothing else, and that there is nothing to do."""
    _holds_only(project, ids)
    assert project.run().step == "skip"


def _holds_only(project: Project, ids: list[int]) -> None:
    table = project.table
    assert project.ids() == ids
    close_attempts(table, lambda _run_id: True, grace=AT_ONCE)
    assert strays(project.table) == set()
    close_attempts(table, lambda _run_id: True, grace=AT_ONCE)  # a pass that finds nothing is the last
    hidden = table.files.list_objects(f"{table.location}/_lakehouse/")
    assert [item.url.removeprefix(f"{table.ledger.folder}/") for item in hidden] == ["hours/2013-01-01-10.json"]
    assert list(table.files.list_uploads(f"{table.location}/")) == []
    assert project.record().state == "idle"


@pytest.mark.parametrize("puts", [1, 5])
def test_killed_while_writing(stored: Project, puts: int) -> None:
    """Some files are put, others not: the next run waits for the lease, writes the hour anew and removes them."""
    with Lone(Run(stored.folder, HOUR, puts={puts: SIGKILL})) as first:
        first.killed()
    assert len(strays(stored.table)) == puts
    killed = stored.record().attempt
    told = _next_run(stored)
    assert killed is not None
    assert told.step == "run"
    assert told.attempt != killed.id
    assert len(stored.table.table.snapshots()) == 1
    _is_held_once(stored, IDS)


@pytest.mark.parametrize("moment", ["attempt.sealed", "commit.sent"])
def test_killed_after_the_seal(stored: Project, soon: None, moment: str) -> None:
    """With all files there, and the commit built or not: the next run commits them, and runs no ETL."""
    with Lone(Run(stored.folder, HOUR, at={moment: SIGKILL})) as first:
        first.killed()
    sealed = stored.record().attempt
    result = run_hour(stored.bench("second"), WINDOW)
    assert sealed is not None
    assert (result.step, result.attempt) == ("resume", sealed.id)
    assert "etl" not in result.seconds
    assert len(stored.table.table.snapshots()) == 1
    _is_held_once(stored, IDS)


# ---------------------------------------------------------------------------------------------------------------------
# During the commit: sent, held on its way, and its sender killed
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def wire(stored: Project, seaweed: SeaweedServer) -> Iterator[FaultServer]:
    """Lead the way to the catalog through a fault server."""
    with FaultServer(seaweed.catalog_uri, dialect=Dialect.ICEBERG) as server:
        properties = seaweed.catalog_properties() | {"uri": server.endpoint}
        stored.write("lakehouse.yaml", f"catalog: {json.dumps(properties)}\nengine: sail\n")
        yield server


@pytest.fixture
def held(stored: Project, wire: FaultServer) -> Armed:
    """Give the commit of a run that was killed since it was sent; the catalog has not heard of it yet."""
    commit = wire.add(Fault(effect=Effect.HOLD, verb="updateTable"))
    with Lone(Run(stored.folder, HOUR)) as first:
        commit.wait_held(timeout_s=WITHIN_S)
        first.kill()
    assert stored.record().state == "committing"
    return commit


def _arrived(wire: FaultServer, held: Armed) -> int | None:
    """Let the held commit arrive, and give the catalog's answer, which nobody waits for."""
    held.release()
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        for said in wire.exchanges:
            if said.fault == "hold":
                return said.upstream_status
        time.sleep(0.01)
    raise TimeoutError


def test_a_commit_lands_after_its_sender_was_killed(stored: Project, wire: FaultServer, held: Armed) -> None:
    """Nobody has heard that it landed: the next run finds it and sends no other."""
    sent = stored.record().attempt
    assert _arrived(wire, held) == 200
    result = stored.run(others_are_over=True)
    assert sent is not None
    assert (result.step, result.attempt, [result.snapshot_id]) == ("resume", sent.id, list(sent.snapshot_ids))
    assert len(stored.table.table.snapshots()) == 1
    _is_held_once(stored, IDS)


def test_a_commit_arrives_after_the_next_run_has_committed(stored: Project, wire: FaultServer, held: Armed) -> None:
    """The next run puts the same files into the table; what arrives after that is refused."""
    sent = stored.record().attempt
    result = stored.run(others_are_over=True)
    assert sent is not None
    assert (result.step, result.attempt) == ("resume", sent.id)
    assert result.snapshot_id not in sent.snapshot_ids
    assert _arrived(wire, held) == 409
    assert len(stored.table.table.snapshots()) == 1
    _is_held_once(stored, IDS)


def test_a_commit_never_arrives(stored: Project, wire: FaultServer, held: Armed, seaweed: SeaweedServer) -> None:
    """Sent, and lost with its connection: the next run commits the same files."""
    wire.stop()
    stored.write("lakehouse.yaml", f"catalog: {json.dumps(seaweed.catalog_properties())}\nengine: sail\n")
    assert stored.run(others_are_over=True).step == "resume"
    assert len(stored.table.table.snapshots()) == 1
    _is_held_once(stored, IDS)


def test_a_commit_of_what_was_given_up_arrives_late(stored: Project, wire: FaultServer, held: Armed) -> None:
    """The objects changed since: the next run gives it up, and it is refused while the hour is written anew."""
    given_up = stored.record().attempt
    stored.land(HOUR, [row(HOUR, 7)])
    with Lone(Run(stored.folder, HOUR, "second", puts={1: WAIT}, others_are_over=True)) as second:
        second.waits()
        assert given_up is not None
        assert {url for url in strays(stored.table) if f"-{given_up.id}-" in url} == set()
        assert _arrived(wire, held) == 409
        second.stops_waiting()
        assert second.ended().step == "run"
    _is_held_once(stored, [7])


def test_a_commit_that_landed_is_not_given_up(stored: Project, wire: FaultServer, held: Armed) -> None:
    """The objects changed since, and the commit landed: the hour is replaced as any other, no row is there twice."""
    stored.land(HOUR, [row(HOUR, 7)])
    assert _arrived(wire, held) == 200
    assert _next_run(stored).step == "run"
    assert len(stored.table.table.snapshots()) >= 2
    _is_held_once(stored, [7])


# ---------------------------------------------------------------------------------------------------------------------
# Stopped past its lease, and continued
# ---------------------------------------------------------------------------------------------------------------------


def test_a_writer_sleeps_past_its_lease(stored: Project) -> None:
    """It writes on when it wakes up: nothing of that is ever read, it is told that it lost, and its files go."""
    with Lone(Run(stored.folder, HOUR, puts={3: SIGSTOP})) as first:
        first.stopped()
        second = _next_run(stored)
        first.go_on()
        said = first.ended()
    assert (second.step, said.error, said.puts) == ("run", "CommitConflictError", 8)
    committed = stored.record().committed
    assert committed is not None
    assert committed.attempt == second.attempt
    assert len(stored.table.table.snapshots()) == 1
    _is_held_once(stored, IDS)


def test_what_a_late_writer_leaves_goes_with_the_second_pass(stored: Project) -> None:
    """It wakes up after its files were removed, puts others and is killed: only a second pass finds them."""
    with Lone(Run(stored.folder, HOUR, puts={3: SIGSTOP, 6: SIGKILL})) as first:
        first.stopped()
        assert _next_run(stored).step == "run"
        assert strays(stored.table) == set()
        first.go_on()
        first.killed()
    # One of the three may have been on its way as the process was stopped, and was removed with the others.
    assert len(strays(stored.table)) in {2, 3}
    assert stored.ids() == IDS
    assert close_attempts(stored.table, lambda _run_id: True) == []  # it may be too early for others
    _is_held_once(stored, IDS)


@pytest.mark.parametrize("moment", ["attempt.sealed", "commit.sent"])
def test_a_committer_sleeps_past_its_lease(stored: Project, soon: None, moment: str) -> None:
    """The next run commits its files; when it wakes up, it commits nothing, and removes none of them."""
    with Lone(Run(stored.folder, HOUR, at={moment: SIGSTOP})) as first:
        first.stopped()
        result = run_hour(stored.bench("second"), WINDOW)
        first.go_on()
        said = first.ended()
    assert (result.step, said.error) == ("resume", "CommitConflictError")
    assert len(stored.table.table.snapshots()) == 1
    _is_held_once(stored, IDS)


# ---------------------------------------------------------------------------------------------------------------------
# Parts of a file, and tasks of Spark
# ---------------------------------------------------------------------------------------------------------------------


def test_killed_in_the_middle_of_a_file(stored: Project, seaweed: SeaweedServer) -> None:
    """Parts of a file are there, and no file: the upload is found open, and aborted."""
    properties = {"s3.multipart.part-size-bytes": str(PART), "s3.multipart.threshold": "1"}
    columns = "{at: timestamptz!, id: long!, text: string!}"
    stored.describe({"source": f"{{path: raw/%Y/%m/%d/%H*.jsonl, columns: {columns}}}", "partition": "[id]"})
    noise = random.Random(1)  # noqa: S311  # does not compress
    stored.land(HOUR, [{**row(HOUR, 1), "text": noise.randbytes(PART // 50).hex()} for _ in range(ROWS)])
    with FaultServer(seaweed.endpoint) as wire:
        catalog = {**seaweed.catalog_properties(), **properties}
        engine = "engine: sail\n"
        stored.write("lakehouse.yaml", f"catalog: {json.dumps(catalog | {'s3.endpoint': wire.endpoint})}\n{engine}")
        part = wire.add(Fault(effect=Effect.HOLD, verb="UploadPart", query="partNumber", after=1))
        with Lone(Run(stored.folder, HOUR)) as first:
            part.wait_held(timeout_s=WITHIN_S)
            first.kill()
    stored.write("lakehouse.yaml", f"catalog: {json.dumps(catalog)}\n{engine}")
    table = stored.table
    assert len(list(table.files.list_uploads(f"{table.location}/"))) == 1
    assert len(close_attempts(table, lambda _run_id: True)) == 1
    assert list(table.files.list_uploads(f"{table.location}/")) == []
    assert _next_run(stored).step == "run"
    _is_held_once(stored, [1] * ROWS)


def test_spark_runs_a_killed_task_again(stored: Project) -> None:
    """Its files of the first try are in the way, and no part of the table: the second try's are, and the first's go."""
    stored.describe({"sort": "[id]"})
    with Lone(Run(stored.folder, HOUR, puts={3: SIGKILL}, spark="local[2,4]")) as run:
        told = run.ended()
    assert (told.step, told.puts) == ("run", 3 + 8)
    assert strays(stored.table) == set()
    _is_held_once(stored, IDS)


def test_the_driver_of_spark_is_killed(stored: Project) -> None:
    """Driver, JVM and tasks are gone in the middle of the files: the next run takes over, on another engine even."""
    with Lone(Run(stored.folder, HOUR, puts={3: SIGKILL}, puts_strike_run=True, spark="local[2]")) as first:
        first.killed()
    assert len(strays(stored.table)) == 3
    assert _next_run(stored).step == "run"
    assert strays(stored.table) == set()
    _is_held_once(stored, IDS)


@pytest.mark.full
def test_spark_runs_a_slow_task_a_second_time(stored: Project, tmp_path: Path) -> None:
    """Speculation, by Apache Spark itself: the second try's files are the table's; what the first has put goes."""
    speculation = {"spark.speculation": "true", "spark.speculation.task.duration.threshold": "1s"}
    with (
        spark_cluster(tmp_path, workers=2) as master,
        Lone(Run(stored.folder, HOUR, puts={3: WAIT}, spark=master, settings=speculation)) as run,
    ):
        told = run.ended()
        assert told.puts > 8
        run.stops_waiting()
    assert (told.step, len(stored.table.table.snapshots())) == ("run", 1)
    _is_held_once(stored, IDS)


@pytest.fixture
def tries(stored: Project) -> tuple[HourInHand, Callable[[str, Strikes], Task]]:
    """Give an open attempt whose tasks may write on when it has ended, and its one task, as often as a test wants."""
    lakehouse = stored.lakehouse
    spec = lakehouse.spec("events")
    assert spec.source.columns
    table = stored.warehouse.create(spec, spec.source.columns)
    hand = HourInHand(table, WINDOW, table.ledger.hour(WINDOW), "run")
    attempt = new_attempt(table, WINDOW, remote=True)
    hand.open(attempt)
    target = table.target(WINDOW, attempt.id, PART)
    read = {"at": [WINDOW.start] * len(IDS), "id": IDS, "size": [0.5] * len(IDS)}
    batch = pa.RecordBatch.from_pydict(read, schema=table.arrow_schema)
    rows = [batch.append_column(BUCKET, pa.array([0] * len(IDS), pa.int32()))]
    return hand, lambda name, puts: Task(stored.folder / name, target, rows, puts)


@pytest.mark.parametrize("used", [0, 1], ids=["first", "second"])
def test_two_tries_of_a_task_at_once(
    stored: Project, tries: tuple[HourInHand, Callable[[str, Strikes], Task]], used: int
) -> None:
    """Whichever of them the engine takes: the table holds its rows once, and what the other put goes."""
    hand, task = tries
    with Lone(task("a", {})) as first, Lone(task("b", {})) as second:
        written = [first.ended(), second.ended()]
    assert {file.path for file in written[0]}.isdisjoint(file.path for file in written[1])
    hand.seal(hand.table.seal(hand.attempt.id, written[used], rows_read=len(IDS), rejected=0))
    hand.commit()
    assert len(stored.table.table.snapshots()) == 1
    assert strays(stored.table) == set()
    _holds_only(stored, IDS)


def test_a_slower_try_writes_on_after_the_commit(
    stored: Project, tries: tuple[HourInHand, Callable[[str, Strikes], Task]]
) -> None:
    """A speculative try that nobody could stop puts files when the hour is committed: the second pass finds them."""
    hand, task = tries
    with Lone(task("slow", {3: SIGSTOP})) as slow, Lone(task("fast", {})) as fast:
        slow.stopped()
        hand.seal(hand.table.seal(hand.attempt.id, fast.ended(), rows_read=len(IDS), rejected=0))
        hand.commit()
        slow.go_on()
        slow.ended()
    assert strays(stored.table) != set()
    _holds_only(stored, IDS)

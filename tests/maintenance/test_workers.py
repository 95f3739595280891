"""Whoever does the work, threads, Spark or Ray: the same is done, and where it ends early nothing stays."""

import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill.sealed import commit_sealed
from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.engines.workers import Answers, RayWorkers, Result, SparkWorkers, Task, ThreadWorkers, Workers
from lakehouse_pipeline.errors import ConfigurationError, DataError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.maintenance.compaction import Compacted, compact, look, workers_of
from lakehouse_pipeline.maintenance.rewrite import GroupTask, ProofError, Rewritten
from tests.backfill.hands import in_hand
from tests.backfill.lone_runs import Lone
from tests.iceberg.lake import ELEVEN, EVENTS, TEN, Lake, spec_of
from tests.maintenance.deeds import beats, has_a_defect, is_slow, meets_bad_data, proves_wrong
from tests.maintenance.lone_compactions import LoneCompaction
from tests.maintenance.test_compaction import data, left_over, put

ROOT = Path(__file__).parents[2]
FILES = 6
ROWS = {TEN.key: list(range(FILES)), ELEVEN.key: list(range(FILES))}
KINDS = ["threads", "spark", "ray"]
WITHIN_S = 60.0


@dataclass(frozen=True)
class Cluster:
    """A cluster of Ray's on this machine, which this process is a driver of.

    Attributes:
        address: for other drivers.
        environment: of theirs.
    """

    address: str
    environment: dict[str, str]

    def rest(self) -> None:
        """Wait until no task runs, of whatever driver."""
        import ray  # noqa: PLC0415  # takes a second

        until = time.monotonic() + WITHIN_S
        while ray.available_resources().get("CPU") != 2:  # type: ignore[no-untyped-call]
            assert time.monotonic() < until
            time.sleep(0.1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Run Ray on two cores; nothing of it is left, and nothing of it was in anybody's home."""
    # Without a token Ray puts one into the home folder, and a driver that is not told the mode may send none.
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # Not below pytest's own folders: their names are too long for those of Ray's sockets.
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setenv("RAY_worker_niceness", "0")  # with Ray's 15 they would wait for whatever other tests do
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        import ray  # noqa: PLC0415  # it reads the mode as it is imported

        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=2**27,
            _temp_dir=folder,
            _node_ip_address="127.0.0.1",
        )
        yield Cluster(ray.get_runtime_context().gcs_address, environment)
        ray.shutdown()
        until = time.monotonic() + WITHIN_S
        while left := _processes_of(folder):
            assert time.monotonic() < until, left
            time.sleep(0.1)


def _processes_of(folder: str) -> list[str]:
    """Find the processes that were started with a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it has ended
            continue
        if folder in command:
            found.append(command)
    return found


@pytest.fixture(params=KINDS)
def workers(request: pytest.FixtureRequest) -> Workers:
    """Give workers of each kind."""
    if request.param == "spark":
        spark = request.getfixturevalue("spark")
        return SparkWorkers(lambda: spark)
    if request.param == "ray":
        request.getfixturevalue("cluster")
        return RayWorkers()
    return ThreadWorkers()


@pytest.fixture
def folder(tmp_path: Path) -> dict[str, str]:
    """Give the properties of a catalog of its own."""
    return {"type": "sql", "uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"file://{tmp_path}/w"}


@pytest.fixture
def catalog(folder: dict[str, str]) -> Iterator[Catalog]:
    """Open it."""
    opened = open_catalog(folder)
    yield opened
    opened.close()


@pytest.fixture
def lake(catalog: Catalog) -> Lake:
    """Give a table with two hours of small files."""
    lake = Lake.create(catalog)
    for hour in (TEN, ELEVEN):
        put(lake, hour, [[number] for number in range(FILES)])
    return lake


def compacted(lake: Lake, workers: Workers) -> dict[HourWindow, Compacted]:
    """Plan and run."""
    spec, table = spec_of(EVENTS, {"table": lake.identifier}), lake.now
    plan = look(MaintenanceSettings(), spec, table)
    done = compact(Warehouse(lake.catalog, table.files), spec, plan, "compactor", workers)
    return {each.hour: each for each in done}


def count(lake: Lake) -> list[int]:
    """Count the files of both hours."""
    return [len(data(lake, hour)) for hour in (TEN, ELEVEN)]


@dataclass(frozen=True)
class Instead:
    """Workers who do something else than they are asked to."""

    workers: Workers
    does: Callable[..., Any]

    @property
    def remote(self) -> bool:
        """As they are."""
        return self.workers.remote

    def run(self, call: Callable[[Task], Result], tasks: Sequence[Task]) -> Answers[Result]:  # noqa: ARG002
        """Let them do it."""
        return self.workers.run(self.does, tasks)


# ---------------------------------------------------------------------------------------------------------------------
# The same on all of them
# ---------------------------------------------------------------------------------------------------------------------


def test_small_files_become_one(lake: Lake, workers: Workers) -> None:
    """In each hour, in one snapshot."""
    before = len(lake.now.table.snapshots())
    done = compacted(lake, workers)
    assert [done[hour].error for hour in (TEN, ELEVEN)] == [None, None]
    assert count(lake) == [1, 1]
    assert lake.rows() == ROWS
    assert len(lake.now.table.snapshots()) == before + 1
    assert left_over(lake) == set()


@pytest.mark.parametrize(
    ("does", "kind", "said"),
    [(proves_wrong, ProofError, "the rows are others"), (meets_bad_data, DataError, "ten and 7")],
)
def test_an_error_of_ours_is_of_its_hour(
    lake: Lake, workers: Workers, does: Callable[[GroupTask], Rewritten], kind: type[Exception], said: str
) -> None:
    """It comes back as what it is, and closes that hour alone; the other is compacted."""
    done = compacted(lake, Instead(workers, does))
    assert isinstance(done[TEN].error, kind)
    assert str(done[TEN].error) == said
    assert done[ELEVEN].error is None
    assert count(lake) == [FILES, 1]
    assert lake.rows() == ROWS
    assert left_over(lake) == set()


def test_any_other_error_ends_all(lake: Lake, workers: Workers) -> None:
    """Threads raise it; from elsewhere it comes in our words. Either way the table is as it was."""
    if isinstance(workers, ThreadWorkers):
        with pytest.raises(KeyError):
            compacted(lake, Instead(workers, has_a_defect))
    else:
        done = compacted(lake, Instead(workers, has_a_defect))
        assert all("KeyError" in str(each.error) for each in done.values())
    assert count(lake) == [FILES, FILES]
    assert lake.rows() == ROWS
    assert left_over(lake) == set()


def test_a_marker_stays_where_tasks_may_write_on(lake: Lake, workers: Workers) -> None:
    """Until the second pass; where they end with this process, or on this machine, there is none."""
    compacted(lake, workers)
    assert [marked.hour for marked in lake.now.ledger.marked()] == ([TEN, ELEVEN] if workers.remote else [])
    assert left_over(lake) == set()
    assert list(lake.now.ledger.marked()) == []


def test_no_work_is_none(workers: Workers) -> None:
    """Without tasks there are no answers."""
    assert list(workers.run(beats, [])) == []


def test_no_task_outlives_an_interruption(workers: Workers, tmp_path: Path) -> None:
    """Once KeyboardInterrupt has passed, while answers were waited for, nothing is written."""
    signs = [tmp_path / "first", tmp_path / "second"]

    def interrupt() -> None:
        while not all(sign.exists() for sign in signs):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    interrupts = threading.Thread(target=interrupt)
    interrupts.start()
    with pytest.raises(KeyboardInterrupt), closing(workers.run(beats, signs)) as answers:
        list(answers)
    interrupts.join()
    left_at = [sign.stat().st_size for sign in signs]
    time.sleep(0.5)
    assert [sign.stat().st_size for sign in signs] == left_at


def test_interrupted_while_tasks_are_given_out(tmp_path: Path) -> None:
    """None of those that were given out before goes on, or has begun: threads are not waited for that it takes long."""

    def given_out() -> Iterator[Path]:
        yield tmp_path / "first"
        time.sleep(0.1)  # in which the first would have begun, if it did not wait for all
        raise KeyboardInterrupt

    class Tasks(list[Path]):
        __iter__ = staticmethod(given_out)

    with pytest.raises(KeyboardInterrupt), closing(ThreadWorkers().run(beats, Tasks())) as answers:
        list(answers)
    assert not (tmp_path / "first").exists()


def test_interrupted_while_others_write(lake: Lake, workers: Workers) -> None:
    """One hour is sealed, and stays so; the other's task puts nothing any more, once what it had put was removed."""

    def interrupts(event: events.Event) -> None:
        if event.name == "attempt.sealed":
            raise KeyboardInterrupt

    with events.subscribed(interrupts), pytest.raises(KeyboardInterrupt):
        compacted(lake, Instead(workers, is_slow))
    time.sleep(1.5)  # a task that went on would have ended
    attempts = [in_hand(lake, hour).held.record.attempt for hour in (TEN, ELEVEN)]
    (sealed,) = (attempt.id for attempt in attempts if attempt)
    assert {item.url for item in lake.now.strays() if sealed not in item.url} == set()
    commit_sealed(lake.now, lambda _run_id: True)
    assert left_over(lake) == set()
    assert lake.rows() == ROWS
    assert sorted(count(lake)) == [1, FILES]


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is asked for and not installed, that is said before any hour is begun."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'lakehouse-pipeline\[ray\]'"):
        workers_of(MaintenanceSettings(workers="ray"), lambda: None)


# ---------------------------------------------------------------------------------------------------------------------
# Killed
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def lone(
    request: pytest.FixtureRequest, lake: Lake, folder: dict[str, str], tmp_path: Path
) -> Callable[..., LoneCompaction]:
    """Give what describes a compaction in a process of its own, by workers of a kind."""

    def described(kind: str, **told: Any) -> LoneCompaction:
        if kind == "ray":
            cluster: Cluster = request.getfixturevalue("cluster")
            told |= {"ray": cluster.address, "environment": cluster.environment}
        return LoneCompaction(tmp_path, folder, lake.identifier, kind, **told)

    return described


STRIKES: dict[str, tuple[dict[str, Any], list[int]]] = {  # and the files of the two hours when all is tidied up
    "opened": ({"at": {"attempt.opened": signal.SIGKILL}}, [FILES, FILES]),
    "some files written": ({"puts": {1: signal.SIGKILL}, "puts_strike_all": True}, [FILES, FILES]),
    "sealed": ({"at": {"attempt.sealed": signal.SIGKILL}}, [1, FILES]),
    "commit sent": ({"at": {"commit.sent": signal.SIGKILL}}, [1, 1]),
    "commit landed": ({"at": {"commit.landed": signal.SIGKILL}}, [1, 1]),
}
# What else than threads is started anew each time. Ray's workers outlive a driver, and at one moment they are at work;
# Spark's end with it, as `test_kills` has it of an hour.
OFTEN = {("ray", "some files written")}


@pytest.mark.parametrize(
    ("kind", "stage"),
    [
        pytest.param(kind, stage, marks=() if kind == "threads" or (kind, stage) in OFTEN else pytest.mark.full)
        for kind in KINDS
        for stage in STRIKES
    ],
)
def test_killed_at_each_stage(
    request: pytest.FixtureRequest, lake: Lake, lone: Callable[..., LoneCompaction], kind: str, stage: str
) -> None:
    """What was sealed is committed by whoever comes next, and what was not leaves nothing; no row is lost."""
    strike, files = STRIKES[stage]
    with Lone(lone(kind, **strike)) as process:
        process.killed()
    if kind == "ray":
        request.getfixturevalue("cluster").rest()
    commit_sealed(lake.now, lambda _run_id: True)
    assert left_over(lake) == set()
    assert lake.rows() == ROWS
    assert sorted(count(lake)) == files
    assert lake.missing() == set()


@pytest.mark.parametrize("kind", [pytest.param("spark", marks=pytest.mark.full), "ray"])  # Spark's: in `test_kills`
def test_a_lost_worker_is_another_ones_task(lake: Lake, lone: Callable[..., LoneCompaction], kind: str) -> None:
    """Killed when it has put its file: the file of the second try is the table's, and the first goes."""
    with Lone(lone(kind, puts={1: signal.SIGKILL}, spark="local[2,4]")) as process:
        assert process.ended() == []
    assert count(lake) == [1, 1]
    assert lake.rows() == ROWS
    assert left_over(lake) == set()

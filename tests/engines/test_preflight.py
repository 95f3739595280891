"""What tasks that run elsewhere are asked before an hour starts, and what is said of the answers."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from lakehouse_pipeline.engines.capabilities import ENGINES, KIND, engine_kind
from lakehouse_pipeline.engines.preflight import LIBRARIES, Task, check_tasks, question
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from tests.projects import HOUR, Project, row

FINE = {name: version(name) for name in LIBRARIES}


def _answers(here: dict[str, str], url: str) -> list[str]:
    ask = question(here, {"pyarrow": 0, "pyiceberg": 2}, [(LakehouseFileIO({}), url)])
    return [row["problem"] for batch in ask(_one_row()) for row in batch.to_pylist()]


def _one_row() -> Iterator[pa.RecordBatch]:
    return iter([pa.RecordBatch.from_pydict({"id": pa.array([1])})])


@dataclass(eq=False)
class _Cluster:
    """A session whose only task runs here, and is counted.

    Attributes:
        kind: of the engine.
        asked: the tasks that ran.
    """

    kind: str = "cluster"
    asked: list[Task] = field(default_factory=list)

    @property
    def sparkContext(self) -> object:  # noqa: N802  # Spark's name
        return SimpleNamespace(defaultParallelism=1)

    @property
    def conf(self) -> dict[str, str]:
        return {KIND: self.kind}

    def range(self, *_: int) -> "_Cluster":
        return self

    def mapInArrow(self, task: Task, _: str) -> "_Cluster":  # noqa: N802  # Spark's name
        self.asked.append(task)
        return self

    def toArrow(self) -> pa.Table:  # noqa: N802  # Spark's name
        return pa.Table.from_batches(self.asked[-1](_one_row()))


def _check(cluster: _Cluster, place: str, *urls: str) -> None:
    check_tasks(cast("SparkSession", cluster), place, [(LakehouseFileIO({}), url) for url in urls])


@pytest.mark.parametrize(
    ("here", "there", "said"),
    [
        pytest.param({}, True, [""], id="nothing is wrong"),
        pytest.param({"pyarrow": "1.0"}, True, [""], id="another release that does not matter"),
        pytest.param({"pyiceberg": "0.1.2"}, True, ["pyiceberg is ", "the driver's is 0.1.2: install"], id="version"),
        pytest.param({"no-such": "3.1"}, True, ["no-such is not installed: install no-such==3.1"], id="missing"),
        pytest.param({}, False, ["is not there: the store has to be one that every task sees"], id="another store"),
    ],
)
def test_a_task_answers(here: dict[str, str], there: bool, said: list[str], tmp_path: Path) -> None:  # noqa: FBT001
    """Every library of another release or of none is named, and a store that the task does not see."""
    (tmp_path / "metadata.json").write_text("{}")
    url = f"file://{tmp_path}/{'' if there else 'nowhere/'}metadata.json"
    (problem,) = _answers({**FINE, **here}, url)
    assert all(text in problem for text in said)
    assert bool(problem) == bool(said[0])


def test_a_place_is_asked_for_once(tmp_path: Path) -> None:
    """The next hour has another metadata file and another FileIO, and asks nothing; another session asks anew."""
    cluster = _Cluster()
    for hour in range(3):
        (tmp_path / f"{hour}.json").write_text("{}")
        _check(cluster, "s3://lake/events", f"file://{tmp_path}/{hour}.json")
    assert len(cluster.asked) == 1
    _check(cluster, "s3://lake/others", f"file://{tmp_path}/0.json")
    assert len(cluster.asked) == 2
    other = _Cluster()
    _check(other, "s3://lake/events", f"file://{tmp_path}/0.json")
    assert len(other.asked) == 1


def test_a_place_that_was_not_good_is_asked_for_again(tmp_path: Path) -> None:
    """Whoever has put it right goes on in the same session."""
    cluster, file = _Cluster(), tmp_path / "metadata.json"
    with pytest.raises(ConfigurationError, match=r"metadata.json is not there: the store has to be one"):
        _check(cluster, "s3://lake/events", f"file://{file}")
    file.write_text("{}")
    _check(cluster, "s3://lake/events", f"file://{file}")
    assert len(cluster.asked) == 2


def test_every_store_is_asked_for(tmp_path: Path) -> None:
    """The sources' store is another than the table's, and both are named in one error."""
    urls = [f"file://{tmp_path}/{name}" for name in ("metadata.json", "raw.jsonl")]
    with pytest.raises(ConfigurationError) as told:
        _check(_Cluster(), "s3://lake/events", *urls)
    assert all(f"\n  {url} is not there" in str(told.value) for url in urls)


def test_an_hour_asks_for_its_table_and_its_source(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks read the source with the warehouse's credentials, which need not be the table's; no attempt is opened."""
    raw = f"file://{project.land(HOUR, [row(HOUR, 1)])}"
    asked: list[tuple[str, list[str]]] = []

    def refuse(_: object, place: str, objects: list[tuple[LakehouseFileIO, str]]) -> None:
        asked.append((place, [url for _, url in objects]))
        raise ConfigurationError("engine: its tasks cannot do the work")

    project.session = lambda: cast("SparkSession", _Cluster())
    monkeypatch.setattr("lakehouse_pipeline.backfill.hour_run.check_tasks", refuse)
    with pytest.raises(ConfigurationError, match="its tasks cannot do the work"):
        project.run()
    assert asked == [(project.table.location, [project.table.metadata_url, raw])]
    assert project.record().attempt is None


def test_tasks_that_run_here_are_not_asked() -> None:
    """They have what the driver has."""
    here = _Cluster("sail")
    _check(here, "s3://lake/events", "file:///nowhere")
    assert here.asked == []


def test_a_library_that_is_missed_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What nobody has listed is found by importing what tasks run; the store is not asked for without it."""
    monkeypatch.setitem(sys.modules, "lakehouse_pipeline.backfill.etl", None)
    (problem,) = _answers(FINE, f"file://{tmp_path}/nowhere")
    assert problem.startswith("our package cannot be imported (ModuleNotFoundError: ")
    assert problem.endswith("): install what it misses there")


_TASKS_RUN = "lakehouse_pipeline.backfill.etl,lakehouse_pipeline.iceberg.data_files"


def _imported_with(*libraries: str) -> "subprocess.CompletedProcess[str]":
    script = Path(__file__).with_name("without_others.py")
    return subprocess.run(
        [sys.executable, str(script), _TASKS_RUN, *libraries], capture_output=True, text=True, check=False
    )


def test_tasks_need_no_other_libraries() -> None:
    """What tasks run imports where the listed libraries are, what these require, and no others."""
    done = _imported_with(*LIBRARIES)
    assert done.returncode == 0, done.stderr


def test_tasks_need_these_libraries() -> None:
    """The test above would tell: without PyYAML the import fails."""
    done = _imported_with(*(name for name in LIBRARIES if name != "pyyaml"))
    assert "No module named 'yaml'" in done.stderr


def test_libraries_are_documented() -> None:
    """Whoever sets up a cluster reads the list that is asked for."""
    page = (Path(__file__).parents[2] / "docs/engines.md").read_text()
    listed = re.search(r"libraries that it stands on must be:\n(.*?), with the driver's", page, re.DOTALL)
    assert listed
    assert sorted(re.findall(r"`(\w+)`", listed[1])) == sorted(LIBRARIES)


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        ("local[*]", "local"),
        ("local[4]", "local"),
        ("spark://host:7077", "cluster"),
        ("yarn", "cluster"),
        ("k8s://https://host:443", "cluster"),
        ("sc://host:15002/;token=x", "connect"),
        ("sail", "sail"),
    ],
)
def test_engine_is_told_by_its_address(engine: str, kind: str) -> None:
    """Every address that lakehouse.yaml takes belongs to an engine of the table."""
    assert engine_kind(engine) == kind
    assert ENGINES[kind].kind == kind


def test_other_addresses_are_refused() -> None:
    """What is no engine is said with what there is, and is not shown: it may hold a token."""
    with pytest.raises(ConfigurationError, match=r"is no engine; write local\[\*\], spark://") as told:
        engine_kind("sc:/host;token=hidden")
    assert "hidden" not in str(told.value)


def test_server_that_is_away_is_said_at_once() -> None:
    """Nobody waits for a Connect server that does not answer, and its token is not shown."""
    code = (
        "from lakehouse_pipeline.engines.sessions import open_session\n"
        "from lakehouse_pipeline.errors import ConfigurationError\n"
        "try:\n    open_session('sc://127.0.0.1:9/;token=hidden', 'none')\n"
        "except ConfigurationError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "engine: sc://127.0.0.1:9 cannot be reached (ConnectionRefusedError" in done.stdout
    assert "hidden" not in done.stdout

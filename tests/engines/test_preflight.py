"""What tasks that run elsewhere are asked before an hour starts, and what is said of the answers."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse_pipeline.engines.capabilities import ENGINES, engine_kind
from lakehouse_pipeline.engines.preflight import LIBRARIES, question
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

FINE = {name: version(name) for name in LIBRARIES}


def _answers(here: dict[str, str], url: str) -> list[str]:
    ask = question(here, {"pyarrow": 0, "pyiceberg": 2}, LakehouseFileIO({}), url)
    rows = pa.RecordBatch.from_pydict({"id": pa.array([1])})
    return [row["problem"] for batch in ask(iter([rows])) for row in batch.to_pylist()]


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
    """What is no engine is said with what there is."""
    with pytest.raises(ConfigurationError, match=r"is no engine; write local\[\*\], spark://"):
        engine_kind("flink")


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

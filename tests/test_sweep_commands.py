"""`lakehouse sweep`, `restore` and `purge`, as somebody types them; and who has to wait for whom."""

import json
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pyiceberg.catalog import Catalog

from lakehouse_pipeline.cli.main import main
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.maintenance.lease import maintaining
from tests.iceberg.conftest import sqlite_properties
from tests.iceberg.lake import TEN, Lake

LAKEHOUSE = """\
catalog: {{type: sql, uri: "{uri}", warehouse: "{warehouse}"}}
maintenance: {{quarantine_keep: 1min, sweep_max_share: 90%}}
"""
SPEC = """\
table: {table}
source: {{path: raw/%Y-%m-%d-%H.csv, format: csv, columns: {{at: timestamptz!, id: long!, name: string}}}}
hour: at
start: 2013-01-01
"""
WEEK_S = 7 * 24 * 3600


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Give the project's catalog."""
    return open_catalog(sqlite_properties(tmp_path))


@pytest.fixture
def lake(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """Give a table with an hour and two old orphans, in the project of the current folder."""
    lake = Lake.create(catalog)
    (tmp_path / "lakehouse.yaml").write_text(LAKEHOUSE.format(**sqlite_properties(tmp_path)))
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "events.yaml").write_text(SPEC.format(table=lake.identifier))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAKEHOUSE_CONFIG", raising=False)
    lake.put(TEN, [1, 2])
    for name in ("x", "y"):
        orphan(lake, name)
    return lake


def orphan(lake: Lake, name: str) -> Path:
    """Name a file that nobody knows of, written a week ago where it is not there."""
    path = Path(f"{lake.now.location}/data/{name}.parquet".removeprefix("file://"))
    if not path.exists():
        path.write_bytes(b"orphan")
        os.utime(path, (time.time() - WEEK_S,) * 2)
    return path


def run(*words: str) -> Result:
    """Run a command."""
    return CliRunner().invoke(main, [*words])


def test_from_a_look_to_the_end(lake: Lake) -> None:
    """Looked at, swept, put back, swept again, purged: what is said, and what is there."""
    files = [orphan(lake, "x"), orphan(lake, "y")]
    looked = run("sweep", "events", "--dry-run")
    assert looked.exit_code == 0, looked.output
    assert looked.output.startswith("events: orphans: 2 files of 12 B, of ")
    assert f"  such as file://{files[0]}" in looked.output
    assert all(file.exists() for file in files)

    done = run("sweep", "events", "--json")
    told = json.loads(done.output)
    assert (done.exit_code, told["files"], told["bytes"], told["quarantined"]) == (0, 2, 12, True)
    assert told["kept"]["reached"]["files"] > 0
    assert not any(file.exists() for file in files)

    back = run("restore", "events", told["sweep"])
    assert (back.exit_code, back.output) == (0, "events: put back: 2 files of 12 B\n")
    assert [file.read_bytes() for file in files] == [b"orphan"] * 2
    for file in files:
        os.utime(file, (time.time() - WEEK_S,) * 2)

    again = run("sweep", "events")
    assert "moved to the quarantine: 2 files of 12 B; to undo it: lakehouse restore events " in again.output
    kept = run("purge", "events", "--dry-run")
    assert kept.output.startswith("events: would be gone for good: 0 sweeps of 0 B\n")
    assert "can still be undone: lakehouse restore events " in kept.output
    for record in Path(lake.now.location.removeprefix("file://")).rglob("sweep.json"):
        os.utime(record, (time.time() - WEEK_S,) * 2)
    purged = run("purge", "events")
    assert purged.output.startswith("events: gone for good: 2 sweeps of 12 B\n")
    assert not list(Path(lake.now.location.removeprefix("file://")).rglob("objects/*"))


def test_a_refused_sweep_exits_with_3(lake: Lake) -> None:
    """And moves nothing."""
    done = run("sweep", "events", "--max-files", "1")
    assert (done.exit_code, "2 orphans are more than the 1 that a sweep may take" in done.output) == (3, True)
    assert orphan(lake, "x").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--older-than", "23h"], "less than 24h"),
        (["--older-than", "soon"], "'soon' is no age"),
        (["--equal-scheme", "s3x"], "'s3x' is no pair; write A=B"),
        (["--list", "nowhere.csv"], "there is no list /"),
    ],
)
def test_what_cannot_be_asked_for_exits_with_2(lake: Lake, words: list[str], said: str) -> None:
    """With what to write instead."""
    done = run("sweep", "events", *words)
    assert (done.exit_code, said in done.output) == (2, True), done.output
    assert orphan(lake, "x").exists()


@pytest.mark.parametrize("name", ["sweep", "restore", "purge", "compact", "manifests", "expire"])
def test_whoever_comes_second_exits_with_4(lake: Lake, name: str) -> None:
    """And is told who is at it, and what to do."""
    words = [name, "events", *(["a sweep"] if name == "restore" else [])]
    with maintaining(lake.now, "expiry", "the first"):
        done = run(*words)
    assert done.exit_code == 4, done.output
    assert "LeaseHeldError: " in done.output
    assert "run the first has the maintenance lease (expiry, heard of " in done.output
    assert run(*words).exit_code in {0, 3}

"""The engines that the cases run on, each in a process of its own, once per test run."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pyiceberg.catalog import load_catalog
from pyiceberg.catalog.sql import SqlCatalog

from lakehouse_pipeline.iceberg.tables import FILE_IO
from tests.conformance.cases import AT, Case
from tests.conformance.connect import connect_server

ENGINES = ("local[2]", "connect", "sail")


@dataclass(frozen=True)
class Ran:
    """All cases on one engine.

    Attributes:
        catalog: with their tables.
        results: what the runner said of each.
    """

    catalog: SqlCatalog
    results: Mapping[str, dict[str, Any]]

    def rows(self, case: Case) -> list[dict[str, Any]]:
        """Read the live files of a case's table; PyIceberg's own reader makes null lists of structs empty ones."""
        tasks = self.catalog.load_table(f"lake.{case.name}").scan().plan_files()
        files = [pq.ParquetFile(task.file.file_path.removeprefix("file://")) for task in tasks]
        rows = [row for file in files for row in file.read().to_pylist()]
        assert all(row.pop("at") == AT for row in rows)
        return sorted(rows, key=lambda row: (row["id"], str(row)))

    def rows_by_bucket(self, case: Case) -> dict[int, int]:
        """Count the rows that a case's files have, by the bucket that their names begin with."""
        found: Counter[int] = Counter()
        for task in self.catalog.load_table(f"lake.{case.name}").scan().plan_files():
            found[int(task.file.file_path.rpartition("/")[2].partition("-")[0])] += task.file.record_count
        return dict(found)


class Engines:
    """Runs all cases on all engines when they are first asked for, side by side: each waits for something mostly."""

    def __init__(self, folder: Path, servers: ExitStack) -> None:
        """Remember where their lakehouses go, and what ends their servers; nothing runs yet."""
        self._folder, self._servers = folder, servers
        self._running: dict[str, Future[Ran]] = {}

    def ran(self, engine: str) -> Ran:
        """Give what became of all cases on an engine."""
        if not self._running:
            threads = self._servers.enter_context(ThreadPoolExecutor(len(ENGINES)))
            self._running = {each: threads.submit(self._run, each) for each in ENGINES}
        return self._running[engine].result()

    def _run(self, engine: str) -> Ran:
        folder = self._folder / re.sub(r"\W", "", engine)
        folder.mkdir()
        if engine != "connect":
            return run_all(engine, folder / "lakehouse")
        with connect_server(folder) as address:
            return run_all(address, folder / "lakehouse")


def run_all(address: str, folder: Path) -> Ran:
    """Run all cases in a process of their own."""
    command = [sys.executable, "-m", "tests.conformance.runner", address, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    catalog = load_catalog(
        "lakehouse",
        **{"type": "sql", "uri": f"sqlite:///{folder}/catalog.db", "warehouse": str(folder), "py-io-impl": FILE_IO},
    )
    assert isinstance(catalog, SqlCatalog)
    return Ran(catalog, {result["case"]: result for result in results})

"""The engines that the cases run on, each in a process of its own, once per test run."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
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


@dataclass
class Engines:
    """Runs all cases on an engine when they are first asked for.

    Attributes:
        folder: for their lakehouses.
        servers: that were started for them.
    """

    folder: Path
    servers: ExitStack
    known: dict[str, Ran] = field(default_factory=dict)

    def ran(self, engine: str) -> Ran:
        """Give what became of all cases on an engine."""
        if engine not in self.known:
            folder = self.folder / re.sub(r"\W", "", engine)
            folder.mkdir()
            address = self.servers.enter_context(connect_server(folder)) if engine == "connect" else engine
            self.known[engine] = run_all(address, folder / "lakehouse")
        return self.known[engine]


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

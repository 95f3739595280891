"""Ours, in a process of its own: `python -m benchmarks._ours FOLDER TABLE RUNS [ENGINE]` prints a JSON line a run."""

import itertools
import json
import os
import sys
import time
from pathlib import Path

from lakehouse_pipeline.backfill.hour import run_hour
from lakehouse_pipeline.backfill.hour_run import Bench
from lakehouse_pipeline.config.lakehouse import load_lakehouse
from lakehouse_pipeline.engines.sessions import LazySession
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.warehouse import Warehouse

LAKEHOUSE = """\
catalog: {type: sql, uri: "sqlite:///catalog.db", warehouse: warehouse}
engine: local[2]
"""
SPEC = """\
table: bench.TABLE
source: {path: "raw/%Y/%m/%d/%H/*.parquet", format: parquet, reader: READER}
hour: event_time
start: 2024-01-01
end: 2024-01-02
"""
SQL = """\
SELECT event_time, id, customer, price * 1.19 AS price, upper(kind) AS kind, city, payload
FROM source WHERE price > 0
"""
COLUMNS = """\
transform: TABLE.sql
accepts: [integer_overflow]
columns: {event_time: timestamptz!, id: long, customer: int, price: double, kind: string, city: string, payload: string}
"""
CASES = ("copy", "transform", "sort")
READERS = ("arrow", "spark")


def write_project(folder: Path) -> None:
    """Write the lakehouse whose tables are the cases."""
    (folder / "tables").mkdir(exist_ok=True)
    (folder / "lakehouse.yaml").write_text(LAKEHOUSE)
    for case, reader in itertools.product(CASES, READERS):
        spec = SPEC + {"copy": "", "transform": COLUMNS, "sort": "sort: [city, kind]\n"}[case]
        name = table_of(case, reader)
        (folder / f"tables/{name}.yaml").write_text(spec.replace("TABLE", name).replace("READER", reader))
        if case == "transform":
            (folder / f"tables/{name}.sql").write_text(SQL)


def table_of(case: str, reader: str) -> str:
    """Name the table of a case that is read by a reader."""
    return f"{case}_{reader}"


def main(folder: Path, table: str, runs: int, engine: str) -> None:
    """Run the hour again and again in one warm session."""
    lakehouse = load_lakehouse(folder / "lakehouse.yaml", os.environ)
    session = LazySession(engine, "benchmark")
    session.get().range(10).count()
    bench = Bench(lakehouse.spec(table), Warehouse.open(lakehouse.catalog), session.get, "benchmark")
    for _ in range(runs):
        started = time.perf_counter()
        result = run_hour(bench, HourWindow.from_key("2024-01-01-00:00"), force=True)
        seconds = round(time.perf_counter() - started, 2)
        seal = result.seal
        print(json.dumps({"seconds": seconds, "rows": seal.rows, "files": seal.files, "bytes": seal.bytes}), flush=True)
    session.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), *(sys.argv[4:] or ["local[2]"]))

"""Ours, in a process of its own: `python -m benchmarks._graysort_ours FOLDER ENGINE RUNS`.

An hour of a table that is sorted by `key`, from its plan to its commit; prints a JSON line a run, the last counts.
"""

import json
import os
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks._timed import cpu_seconds
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
table: bench.sorted
source: {path: "raw/%Y/%m/%d/%H/*.parquet", format: parquet}
hour: event_time
sort: [key]
start: 2024-01-01
end: 2024-01-02
"""


def write_project(folder: Path) -> None:
    """Write the lakehouse of one sorted table."""
    (folder / "tables").mkdir(exist_ok=True)
    (folder / "lakehouse.yaml").write_text(LAKEHOUSE)
    (folder / "tables/sorted.yaml").write_text(SPEC)


def _place(path: str) -> tuple[int, int]:
    """Give bucket and number of a file, by which they follow each other."""
    bucket, _, number, _ = path.rpartition("/")[2].split("-")
    return int(bucket), int(number)


def main(folder: Path, engine: str, runs: int) -> None:
    """Run the hour again and again in one session."""
    lakehouse = load_lakehouse(folder / "lakehouse.yaml", os.environ)
    session = LazySession(engine, "benchmark")
    session.get().range(10).count()
    warehouse, spec = Warehouse.open(lakehouse.catalog), lakehouse.spec("sorted")
    bench, hour = Bench(spec, warehouse, session.get, "benchmark"), HourWindow.from_key("2024-01-01-00:00")
    for _ in range(runs):
        spent, started = cpu_seconds(), time.perf_counter()
        result = run_hour(bench, hour, force=True)
        seconds, cpu = round(time.perf_counter() - started, 2), round(cpu_seconds() - spent, 2)
        table = warehouse.table(spec)
        assert table is not None
        live = table.live(hour)
        assert all(file.sort_order_id == 1 for file in live), "a file is not marked as sorted"
        files = sorted((urlsplit(file.path).path for file in live), key=_place)
        told = {"seconds": seconds, "cpu": cpu, "files": files, "stages": result.seconds}
        print(json.dumps(told), flush=True)
    session.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))

"""A backfill of 456 small hours through Dagster: what an hour costs beside its ETL, what its commits cost, and memory.

`python -m benchmarks.backfill [--hours N] [--engine ENGINE]` prints two Markdown tables: by hours in flight, and the
commits of the last run. Files and catalog are on this disk; each run is a process and a table of its own.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from benchmarks import _goals
from benchmarks.memory import peak
from lakehouse_pipeline.config.lakehouse import load_lakehouse
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.orchestration.in_process import run_job

FOLDER = Path(".lakehouse/benchmarks/backfill").absolute()
DAGSTER = Path(__file__).parents[1] / "dagster.yaml"
HOURS = 456
ROWS = 200  # of an hour
IN_FLIGHT = (1, 2, 4)
BESIDE_S, COMMITS_S = 0.25, 5.0  # goals
FIRST = datetime(2013, 1, 1, tzinfo=UTC)

LAKEHOUSE = """\
catalog: {type: sql, uri: "sqlite:///catalog.db", warehouse: warehouse}
engine: ENGINE
backfill: {hours_in_flight: IN_FLIGHT}
"""
SPEC = """\
table: bench.events
source: {path: RAW/%Y/%m/%d/%H.jsonl, columns: {at: timestamptz!, id: long!, size: double}}
hour: at
start: 2013-01-01
end: 2014-01-01
"""


def land(hours: int) -> Path:
    """Write the raw files, once."""
    raw = FOLDER / "raw"
    for place in range(hours):
        hour = FIRST + timedelta(hours=place)
        file = raw / f"{hour:%Y/%m/%d/%H}.jsonl"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            moments = (hour + timedelta(seconds=each) for each in range(ROWS))
            rows = ({"at": moment.isoformat(), "id": moment.second, "size": 0.5} for moment in moments)
            file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return raw


def project(engine: str, in_flight: int, raw: Path) -> Path:
    """Write a lakehouse of its own."""
    folder = FOLDER / f"{in_flight}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tables").mkdir(parents=True)
    (folder / "lakehouse.yaml").write_text(LAKEHOUSE.replace("ENGINE", engine).replace("IN_FLIGHT", str(in_flight)))
    (folder / "tables/events.yaml").write_text(SPEC.replace("RAW", str(raw)))
    shutil.copy(DAGSTER, folder)
    return folder


def run(folder: Path, hours: int) -> None:
    """Be the process of one run: print what it took as JSON."""
    os.environ.pop("DAGSTER_HOME", None)
    os.chdir(folder)  # of which Dagster's file speaks
    lakehouse = load_lakehouse(folder / "lakehouse.yaml", {})
    first = HourWindow(FIRST)
    windows = [HourWindow.from_ordinal(first.ordinal + place) for place in range(hours)]
    run_job(lakehouse, "events", windows[:1])  # Spark, Dagster's database and the table are there
    began = time.monotonic()
    ended = run_job(lakehouse, "events", windows[1:])
    took = time.monotonic() - began
    assert not ended.failed, ended.failed
    commits: dict[int | None, float] = defaultdict(float)
    for result in ended.finished.values():
        commits[result.snapshot_id] += result.seconds["commit"]
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        told = instance.get_materialized_partitions(dg.AssetKey("events"))
    assert len(told) == hours, len(told)
    etl = sum(result.seconds["etl"] for result in ended.finished.values())
    metadata = max((folder / "warehouse/bench/events/metadata").glob("*.metadata.json"), key=os.path.getmtime)
    print(
        json.dumps(
            {
                "hours": len(ended.finished),
                "took": took,
                "etl": etl,
                "commits": list(commits.values()),
                "metadata": metadata.stat().st_size,
            }
        )
    )


def main() -> None:
    """Measure, and print Markdown tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=int, default=HOURS)
    parser.add_argument("--engine", default="local[2]")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        run(asked.run, asked.hours)
        return
    raw = land(asked.hours)
    print(f"{asked.hours} hours of {ROWS} rows on {asked.engine}\n")
    print("| hours in flight | s | s an hour | its ETL | beside it | peak MB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    told, least = {}, {}
    for in_flight in IN_FLIGHT:
        folder = project(asked.engine, in_flight, raw)
        command = ("-m", "benchmarks.backfill", "--run", str(folder), "--hours", str(asked.hours))
        highest, said = peak(sys.executable, *command, output=subprocess.PIPE)
        told = json.loads(said.splitlines()[-1])
        each, etl = told["took"] / told["hours"], told["etl"] / told["hours"]
        # Of hours that overlap the ETL of one passes while another's goes on.
        beside = each - etl / in_flight
        least[in_flight] = beside
        figures = (in_flight, f"{told['took']:.1f}", *(f"{figure:.3f}" for figure in (each, etl, beside)))
        print(f"| {' | '.join(map(str, figures))} | {highest['all'] / 1e6:.0f} |", flush=True)
    commits = told["commits"]
    print(f"\n{len(commits)} commits: {sum(commits):.2f} s in all, the first {commits[0]:.2f} s, ", end="")
    print(f"the last {commits[-1]:.2f} s; metadata.json {told['metadata'] / 1e3:.0f} kB at the end\n")
    for in_flight, beside in least.items():
        _goals.at_most(f"{in_flight} in flight: an hour beside its ETL", beside, BESIDE_S, " s")
    _goals.at_most("all commits", sum(commits), COMMITS_S, " s")


if __name__ == "__main__":
    main()

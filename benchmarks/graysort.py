"""Records of 100 bytes sorted by 10 of them: ours on Apache Spark and on Sail beside Spark's own sort and DuckDB's.

`python -m benchmarks.graysort [--case NAME] [--rows N] [--rounds N] [--json FILE]` prints a Markdown table for each
case. `fits` leaves Spark's heap room for all records; `spills` has three times as much data as heap; `skewed` is `fits`
with keys of which three in four begin with the same one to six bytes, like those of `gensort -s`. Writers take turns;
each has a process of its own, sessions with the same settings and, on Apache Spark, the same heap, which does not bound
ours alone: its Python workers are beside it. DuckDB has the heap as its `memory_limit`, and two threads. All write
Parquet with zstd, at the level and with the row groups that are their own; DuckDB writes one file, since it keeps no
order among several; ours commits to Iceberg, too. The peak is the sum of what is resident in all processes, where pages
that they share count for each; *own* is without pages of files that are mapped, such as what a sort has written to disk
and the libraries, at its own highest. Where all fits, the second run of a warm process counts; where it does not, the
only one, with the JVM's warming up. The median of the rounds counts, and the machine's load as each began is in
`--json`: writers that met other loads are not to be compared by the clock. GB are of 100 bytes a record, whatever lies
on storage, and cores are those of the machine. After each the output is read as valsort does, by the check that tables
may ask for (`check_order`): order within and between files, count, and checksum equal to the input's.

The record that it is named after, 100 TB on 206 machines of 32 cores in 23 minutes, is 20.7 GB a minute and machine.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import _goals, _graysort_ours
from benchmarks._machine import versions
from benchmarks._records import valid, write_records
from benchmarks.memory import peak
from lakehouse_pipeline.iceberg.checksum import Checksum

FOLDER = Path(".lakehouse/benchmarks/graysort").absolute()
RECORD = 100  # bytes
THE_RECORD = 20.7 / 32  # GB a minute and core
CORES = 2  # that every writer has
GOAL = 1.2  # times the speed of Spark's own
SPARK, DUCKDB, OURS, SAIL = "Spark's own", "DuckDB", "ours, Apache Spark", "ours, Sail"
MODULES = {
    SPARK: ("benchmarks._graysort_spark", "local[2]"),
    DUCKDB: ("benchmarks._graysort_duckdb", "{heap}"),
    OURS: ("benchmarks._graysort_ours", "local[2]"),
    SAIL: ("benchmarks._graysort_ours", "sail"),
}
COLUMNS = (
    *("writer", "s", "GB/min/core", "times Spark's own", "CPU s", "times", "of the record", "peak MB", "own MB"),
    *("files", "MB"),
)


@dataclass(frozen=True)
class Case:
    """What is sorted, and with how much memory.

    Attributes:
        rows: records.
        heap: of Spark's JVM, as Spark writes it, and DuckDB's limit.
        runs: of each process; the last counts.
        skewed: whether many keys begin with the same bytes.
    """

    rows: int
    heap: str
    runs: int
    skewed: bool = False


CASES: Mapping[str, Case] = {
    "fits": Case(10_000_000, "6g", 2),
    "spills": Case(32_000_000, "1g", 1),
    "skewed": Case(10_000_000, "6g", 2, skewed=True),
}


@dataclass(frozen=True)
class Sorted:
    """One writer's run.

    Attributes:
        seconds: by the clock.
        cpu: seconds of processors, of all its processes.
        peak: bytes of memory, of all its processes together.
        own: the same without pages of mapped files.
        files: how many it wrote.
        bytes: on storage.
        load: of the machine as it began.
        stages: seconds by stage, of ours.
    """

    seconds: float
    cpu: float
    peak: int
    own: int
    files: int
    bytes: int
    load: float
    stages: Mapping[str, float]


def main() -> None:
    """Measure, and print a Markdown table for each case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", choices=list(CASES), nargs="+", default=list(CASES))
    parser.add_argument("--only", choices=list(MODULES), nargs="+", default=list(MODULES))
    parser.add_argument("--rows", type=int, help="in the place of the case's own")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, help="a file that gets the figures of all rounds")
    told = parser.parse_args()
    raw: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), "versions": versions(), "cores": CORES}
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])  # of all writers, whatever they would take
    for name in told.case:
        case = CASES[name]
        rows = told.rows or case.rows
        runs = measured(case, rows, told.rounds, told.only)
        raw[name] = {"rows": rows, "writers": {who: [asdict(run) for run in each] for who, each in runs.items()}}
        show(name, case, rows, runs)
        if told.json:
            told.json.write_text(json.dumps(raw, indent=1))


def measured(case: Case, rows: int, rounds: int, writers: Sequence[str]) -> dict[str, list[Sorted]]:
    """Let all writers of a case take turns."""
    folder = FOLDER / (f"{rows}-skewed" if case.skewed else str(rows))
    expect = write_records(folder / "raw", rows=rows, skewed=case.skewed)
    runs: dict[str, list[Sorted]] = {}
    for _ in range(rounds):
        for writer in writers:
            runs.setdefault(writer, []).append(one(writer, case, folder, expect))
    return runs


def one(writer: str, case: Case, folder: Path, expect: Checksum) -> Sorted:
    """Let one writer sort in an empty folder, and hold what it wrote against the input."""
    for leftover in ("warehouse", "catalog.db", "spark", "duckdb"):
        path = folder / leftover
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    _graysort_ours.write_project(folder)
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"--driver-memory {case.heap} pyspark-shell"
    module, engine = MODULES[writer]
    load = os.getloadavg()[0]
    command = (sys.executable, "-m", module, str(folder), engine.format(heap=case.heap), str(case.runs))
    highest, said = peak(*command, output=subprocess.PIPE)
    last = json.loads(said.splitlines()[-1])
    files = [Path(path) for path in last["files"]]
    found = valid(files)
    assert found == expect, f"{writer} made {found} of {expect}"
    size = sum(path.stat().st_size for path in files)
    return Sorted(
        seconds=last["seconds"],
        cpu=last["cpu"],
        peak=highest["all"],
        own=highest["own"],
        files=len(files),
        bytes=size,
        load=load,
        stages=last.get("stages", {}),
    )


def show(name: str, case: Case, rows: int, runs: Mapping[str, Sequence[Sorted]]) -> None:
    """Print a case's table."""
    gigabytes = rows * RECORD / 1e9
    print(f"\n`{name}`: {rows:,} records, {gigabytes:.1f} GB, a heap of {case.heap}\n")
    print(f"| {' | '.join(COLUMNS)} |\n| --- |{' ---: |' * (len(COLUMNS) - 1)}")
    seconds = {who: median(run.seconds for run in each) for who, each in runs.items()}
    cpus = {who: median(run.cpu for run in each) for who, each in runs.items()}
    peaks = {who: float(max(run.peak for run in each)) for who, each in runs.items()}
    owns = {who: float(max(run.own for run in each)) for who, each in runs.items()}
    for who, each in runs.items():
        rate = gigabytes / (seconds[who] / 60) / CORES
        speed, cpu = (f"{best[SPARK] / best[who]:.2f}" if SPARK in best else "" for best in (seconds, cpus))
        sizes = f"{peaks[who] / 1e6:.0f} | {owns[who] / 1e6:.0f} | {each[-1].files} | {each[-1].bytes / 1e6:.0f}"
        figures = f"{seconds[who]:.1f} | {rate:.2f} | {speed} | {cpus[who]:.1f} | {cpu} | {rate / THE_RECORD:.2f}"
        print(f"| {who} | {figures} | {sizes} |")
    told = (f"{who} {' '.join(f'{run.seconds:.1f}' for run in each)}" for who, each in runs.items())
    print(f"\nSeconds of each round: {'; '.join(told)}\n", flush=True)
    if {SPARK, OURS} <= set(runs):
        _goals.at_least(f"{name}: {OURS}, times Spark's own speed", seconds[SPARK] / seconds[OURS], GOAL)
        _goals.at_least(f"{name}: {OURS}, times as little of the processors", cpus[SPARK] / cpus[OURS], GOAL)
        _goals.beside(f"{name}: {OURS}, peak memory", peaks[OURS], {SPARK: peaks[SPARK]})
    for who in sorted({OURS, SAIL} & set(runs)):
        if DUCKDB in runs:
            _goals.beside(f"{name}: {who}, seconds", seconds[who], {DUCKDB: seconds[DUCKDB]})
            _goals.beside(f"{name}: {who}, processors' seconds", cpus[who], {DUCKDB: cpus[DUCKDB]})
            _goals.beside(f"{name}: {who}, peak memory", peaks[who], {DUCKDB: peaks[DUCKDB]})
        rate = gigabytes / (seconds[who] / 60) / CORES
        _goals.at_least(f"{name}: {who}, of the record's GB a minute and core", rate / THE_RECORD, 1)


if __name__ == "__main__":
    main()

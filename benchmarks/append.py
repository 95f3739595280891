"""One hour of ten million rows: ours on Apache Spark and on Sail beside the JVM's Iceberg writer, in turn, in one run.

Three cases: the source as it is, a SQL transform, and a table sorted by two columns; each with our reader
and with Spark's own. Each process warms up with one run and is timed on the second; all take turns, and the median of
the rounds counts.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import _events, _goals, _ours
from tests.oracle import environment

FOLDER = Path(".lakehouse/benchmarks/append").absolute()
ROWS = 10_000_000
ROUNDS = 3
GOALS = {"local[2]": 1.3, "sail": 3.0}  # times the JVM's speed, with our reader


def timed(*command: str) -> dict[str, float]:
    """Run a process of its own, and give its second run."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


# Engine and reader; Spark's own reader has no case that needs no engine.
OURS = (("local[2]", "arrow"), ("local[2]", "spark"), ("sail", "arrow"), ("sail", "spark"))


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, help="a file that gets the figures of all rounds")
    asked = parser.parse_args()
    size = _events.write_events(FOLDER / "raw", rows=ROWS, files=8)
    _ours.write_project(FOLDER)
    print(f"{ROWS:,} rows, {size / 1e6:.0f} MB of raw Parquet, median of {asked.rounds} rounds, two cores each\n")
    print("| case | engine | reader | s | times the JVM's speed | MB | rounds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    cases = {case: measure(case, asked.rounds) for case in _ours.CASES}
    print()
    for case, medians in cases.items():
        for engine, goal in GOALS.items():
            ratio = medians["JVM Iceberg", "its own"][0] / medians[engine, "arrow"][0]
            _goals.at_least(f"{case} on {engine}, times the JVM's speed", ratio, goal)
    if asked.json:
        named = {case: {" ".join(way): figures for way, (_, figures) in found.items()} for case, found in cases.items()}
        asked.json.write_text(json.dumps(named, indent=1))


def measure(case: str, rounds: int) -> dict[tuple[str, str], tuple[float, Any]]:
    """Run all writers of a case in turn, print a line each, and give the median seconds and all figures."""
    jvm = (str(environment.python()), str(Path(__file__).with_name("_jvm.py")), str(FOLDER), case, "2")
    ours = {
        way: (sys.executable, "-m", "benchmarks._ours", str(FOLDER), _ours.table_of(case, way[1]), "2", way[0])
        for way in OURS
    }
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for way, command in {("JVM Iceberg", "its own"): jvm, **ours}.items():
            runs.setdefault(way, []).append(timed(*command))
    assert len({run["rows"] for each in runs.values() for run in each}) == 1, "the writers disagree"
    medians = {way: statistics.median(run["seconds"] for run in each) for way, each in runs.items()}
    for (engine, reader), each in runs.items():
        median = medians[engine, reader]
        ratio = medians["JVM Iceberg", "its own"] / median
        rounds_said = " ".join(f"{run['seconds']:.1f}" for run in each)
        cells = (case, engine, reader, f"{median:.1f}", f"{ratio:.2f}", f"{each[0]['bytes'] / 1e6:.0f}")
        print(f"| {' | '.join(cells)} | {rounds_said} |", flush=True)
    return {way: (medians[way], each) for way, each in runs.items()}


if __name__ == "__main__":
    main()

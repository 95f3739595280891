"""One hour of ten million rows: ours on Apache Spark and on Sail beside the JVM's Iceberg writer, in turn, in one run.

Three cases: the source as it is, a SQL transform, and a table sorted by two columns; each with our reader
and with Spark's own. Each process warms up with one run
and is timed on the second; the best of the rounds counts, since noise only ever adds.
"""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import _events, _ours
from tests.oracle import environment

FOLDER = Path(".lakehouse/benchmarks/append").absolute()
ROWS = 10_000_000
ROUNDS = 2


def timed(*command: str) -> dict[str, float]:
    """Run a process of its own, and give its second run."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


# Engine and reader; Spark's own reader has no case that needs no engine.
OURS = (("local[2]", "arrow"), ("local[2]", "spark"), ("sail", "arrow"), ("sail", "spark"))


def main() -> None:
    """Measure, and print a Markdown table."""
    size = _events.write_events(FOLDER / "raw", rows=ROWS, files=8)
    _ours.write_project(FOLDER)
    print(f"{ROWS:,} rows, {size / 1e6:.0f} MB of raw Parquet, best of {ROUNDS} rounds, two cores each\n")
    print("| case | engine | reader | s | times the JVM's speed | MB | rounds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for case in _ours.CASES:
        measure(case)


def measure(case: str) -> None:
    """Run all writers of a case in turn, and print a line each."""
    jvm = (str(environment.python()), str(Path(__file__).with_name("_jvm.py")), str(FOLDER), case, "2")
    ours = {
        way: (sys.executable, "-m", "benchmarks._ours", str(FOLDER), _ours.table_of(case, way[1]), "2", way[0])
        for way in OURS
    }
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(ROUNDS):
        for way, command in {("JVM Iceberg", "its own"): jvm, **ours}.items():
            runs.setdefault(way, []).append(timed(*command))
    assert len({run["rows"] for each in runs.values() for run in each}) == 1, "the writers disagree"
    best = {way: min(run["seconds"] for run in each) for way, each in runs.items()}
    for (engine, reader), each in runs.items():
        ratio = best["JVM Iceberg", "its own"] / best[engine, reader]
        rounds = " ".join(f"{run['seconds']:.1f}" for run in each)
        cells = (case, engine, reader, f"{best[engine, reader]:.1f}", f"{ratio:.2f}", f"{each[0]['bytes'] / 1e6:.0f}")
        print(f"| {' | '.join(cells)} | {rounds} |", flush=True)


if __name__ == "__main__":
    main()

"""One hour of ten million rows: ours on Apache Spark beside the JVM's Iceberg writer, in turn, in one run.

Three cases: the source as it is, a SQL transform, and a table sorted by two columns. Each process warms up with one run
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
ROUNDS = 3


def timed(*command: str) -> dict[str, float]:
    """Run a process of its own, and give its second run."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure, and print a Markdown table."""
    size = _events.write_events(FOLDER / "raw", rows=ROWS, files=8)
    _ours.write_project(FOLDER)
    print(f"{ROWS:,} rows, {size / 1e6:.0f} MB of raw Parquet, best of {ROUNDS} rounds, local[2] each\n")
    print("| case | ours s | JVM Iceberg s | ratio | ours MB | JVM MB | rounds, ours | rounds, JVM |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    oracle = str(environment.python())
    for case in _ours.CASES:
        ours, jvm = [], []
        for _ in range(ROUNDS):
            ours.append(timed(sys.executable, "-m", "benchmarks._ours", str(FOLDER), case, "2"))
            jvm.append(timed(oracle, str(Path(__file__).with_name("_jvm.py")), str(FOLDER), case, "2"))
        assert {run["rows"] for run in ours} == {run["rows"] for run in jvm}, "the writers disagree"
        mine, theirs = (min(run["seconds"] for run in runs) for runs in (ours, jvm))
        rounds = (" ".join(f"{run['seconds']:.1f}" for run in runs) for runs in (ours, jvm))
        megabytes = (f"{runs[0]['bytes'] / 1e6:.0f}" for runs in (ours, jvm))
        cells = (case, f"{mine:.1f}", f"{theirs:.1f}", f"{theirs / mine:.2f}", *megabytes, *rounds)
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

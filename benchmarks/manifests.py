"""An hour of 100,000 data files: sealed, committed, looked at and replaced, beside PyIceberg and the JVM's Iceberg.

`python -m benchmarks.manifests [--files N] [--rounds N] [--json FILE]` prints a Markdown table. Each file has twenty
columns of statistics; there is no byte of data. Files and SQLite's catalog are on this disk. Each step is a process;
memory is what it took beyond what was there when it began (the JVM's: of its heap). Ours encodes each entry in the task
that writes the file, seals and then commits; peers encode and write their manifests with the commit, so that all three
of ours are held against that. The median of the rounds counts.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import _goals, _manifests_table
from benchmarks._machine import versions
from tests.oracle import environment

FOLDER = Path(".lakehouse/benchmarks/manifests").absolute()
FILES = 100_000
OURS = ("encode", "seal", "commit", "look", "read", "seal again", "replace", "read again")
Figures = Mapping[str, float]


def said(*command: str) -> list[Figures]:
    """Run a process, and give the figures that it prints."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def measured(files: int) -> Iterator[tuple[str, str, Figures]]:
    """Measure all writers once: who, what, and what it took."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    ours, peer = (_manifests_table.opened(FOLDER).identifier for _ in range(2))
    for what in OURS:
        if what == "seal again":  # the hour has been committed once: that is what peers get
            yield from peers(ours, peer)
        step = {"replace": "commit"}.get(what, what.partition(" ")[0])
        command = (sys.executable, "-m", "benchmarks._manifests_ours", str(FOLDER), ours, step, str(files))
        yield "ours", what, said(*command)[0]


def peers(ours: str, peer: str) -> Iterator[tuple[str, str, Figures]]:
    """Let the peers append and replace what ours has committed."""
    metadata = _manifests_table.opened(FOLDER, ours).now.metadata_url
    script, jar = str(Path(__file__).with_name("_manifests_jvm.py")), str(environment.iceberg_runtime())
    jvm = said(str(environment.python()), script, jar, metadata, str(FOLDER / "jvm"))
    for what, figures in zip(("append", "replace"), jvm, strict=True):
        command = (sys.executable, "-m", "benchmarks._manifests_pyiceberg", str(FOLDER), peer, what, ours)
        yield "PyIceberg", what, said(*command)[0]
        yield "JVM Iceberg", what, figures


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, help="a file that gets the figures of all rounds")
    told = parser.parse_args()
    environment.python()
    rounds: dict[str, list[Figures]] = {}
    for _ in range(told.rounds):
        for who, what, figures in measured(told.files):
            rounds.setdefault(f"{who}: {what}", []).append(figures)
    raw: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), "versions": versions(), "files": told.files}
    if told.json:
        told.json.write_text(json.dumps({**raw, "rounds": rounds}, indent=1))
    print(f"{told.files:,} files, 20 columns of statistics, median of {told.rounds}\n")
    print("| step | s | CPU s | CPU ms a file | MB | peak MB |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    medians = {
        name: {
            figure: statistics.median(run[figure] for run in runs) for figure in ("seconds", "cpu", "before", "peak")
        }
        for name, runs in rounds.items()
    }
    for name, run in medians.items():
        cells = (f"{run['seconds']:.2f}", f"{run['cpu']:.2f}", f"{run['cpu'] / told.files * 1e3:.4f}")
        memory = (run["peak"] - run["before"], run["peak"])
        print(f"| {name} | {' | '.join(cells)} | {' | '.join(f'{each / 1e6:.0f}' for each in memory)} |", flush=True)
    print()
    sealing = medians["ours: encode"]["cpu"] + medians["ours: seal"]["cpu"]
    _goals.at_most("encoding and sealing, of a core and a file", sealing / told.files * 1e3, 0.4, " ms")
    _goals.at_most("committing the sealed hour", medians["ours: commit"]["seconds"], 2, " s")
    _goals.at_most("its memory", medians["ours: commit"]["peak"] / 2**30, 1, " GiB")
    for what, steps in {"append": ("encode", "seal", "commit"), "replace": ("encode", "seal again", "replace")}.items():
        for figure, said_so in {"seconds": "seconds", "cpu": "processors' seconds"}.items():
            ours = sum(medians[f"ours: {step}"][figure] for step in steps)
            peers = {who: medians[f"{who}: {what}"][figure] for who in ("PyIceberg", "JVM Iceberg")}
            _goals.beside(f"{what}, {said_so}", ours, peers)


if __name__ == "__main__":
    main()

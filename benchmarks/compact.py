"""Tables compacted by ours with each strategy, by the JVM's Iceberg, PyIceberg and Zamboni, in turn, in one run.

`python -m benchmarks.compact [--case NAME] [--rounds N] [--zamboni] [--workers WHO] [--json FILE]` prints a Markdown
table for each case (`_compact_cases.py`). Each writer has a process, a server (SeaweedFS with its Iceberg REST catalog)
and a copy of the table of its own, with the same rows in as many files, and compacts a table of one hour first, to warm
up. Seconds are of the second compaction, with plan and commit: by the clock, and of the processors that its processes
took; the server's are among those of all others. Memory is the peak of a process's whole life, start and warm-up
included. The median of the rounds counts for seconds, and the highest for memory. After each
compaction the rows are read and added up: a writer that leaves other rows than it should ends the benchmark. So does
ours where its own rule comes to another strategy than the case has it. *Scan* is what Arrow's reader takes for all of
the table then, in a process of its own; *opened* are files whose bounds do not rule out a value, in the mean of 50.

Zamboni needs an environment of its own (0.5 GB), made once; without `--zamboni` it takes part where there is one.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyiceberg.catalog import Catalog

from benchmarks import _goals
from benchmarks._compact_cases import Case, Writer, cases
from benchmarks._compact_figures import Measured, Size, before_row, heading, row
from benchmarks._compact_jvm import properties as jvm_properties
from benchmarks._compact_tables import contents, expected, made
from benchmarks._machine import versions
from benchmarks.memory import peak
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.iceberg.checksum import Checksum
from lakehouse_pipeline.iceberg.tables import open_catalog
from tests.iceberg.lake import Lake
from tests.oracle import environment
from tests.oracle.jvm import Jvm

# Times as long as ours, by the clock.
GOALS: Mapping[str, Mapping[str, float]] = {
    "small": {"JVM, `rewrite_data_files`": 3},
    "below": {"JVM, `rewrite_data_files`": 3},
    "large": {"JVM, `rewrite_data_files`": 20, "Zamboni 0.7": 10},
    "merge": {"JVM, `INSERT OVERWRITE` of `row_number() = 1`": 5.6},
}
PEAK_MB = 400.0


def main() -> None:
    """Measure all writers of some cases and print a Markdown table for each."""
    known = list(cases(with_zamboni=False, workers=()))
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", choices=[*known, "all"], nargs="+", default=["small"])
    parser.add_argument("--hours", type=int, help="of each table, in the place of the case's own")
    parser.add_argument("--files", type=int, help="of each hour")
    parser.add_argument("--rows", type=int, help="of each file")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workers", choices=["threads", "ray", "spark"], nargs="+", default=["threads"])
    parser.add_argument("--zamboni", action="store_true", help="install Zamboni and measure it, too")
    parser.add_argument("--json", type=Path, help="a file that gets the figures of all rounds")
    told = parser.parse_args()
    environment.python()  # the JVM's environment is made here, where it is not measured
    every = cases(with_zamboni=told.zamboni, workers=[each for each in told.workers if each != "threads"])
    raw: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), "versions": versions(), "cases": {}}
    for name in known if "all" in told.case else told.case:
        case = every[name].resized(told.hours, told.files, told.rows)
        raw["cases"][name] = of_case(name, case, told.rounds)
        if told.json:
            told.json.write_text(json.dumps(raw, indent=1))


def of_case(name: str, case: Case, rounds: int) -> dict[str, Any]:
    """Measure all writers of a case in turn, print its table, and give all figures."""
    runs: dict[str, list[Measured]] = {writer: [] for writer in case.writers}
    rows, before = expected(case.asked, case.left), list[Size]()
    loads: dict[str, list[float]] = {writer: [] for writer in case.writers}
    for _ in range(rounds):
        for writer, command in case.writers.items():
            loads[writer].append(os.getloadavg()[0])
            size, run = measure(case, writer, command, rows, scan=not before)
            runs[writer].append(run)
            before += [size] if not before else []
    medians = {writer: Measured.typical(each) for writer, each in runs.items()}
    asked = case.asked
    print(f"\n`{name}`: {asked.hours} hours of {asked.files} files of {asked.rows:,} rows\n\n{heading(case.filters)}")
    print(before_row(before[0]))
    ours, *others = medians
    for writer, run in medians.items():
        print(row(writer, run, medians[ours]))
    told = (f"{writer} {' '.join(f'{run.seconds:.2f}' for run in each)}" for writer, each in runs.items())
    print(f"\nSeconds of each round: {'; '.join(told)}\n", flush=True)
    peers = [writer for writer in others if not writer.startswith("ours")]
    for figure, said in {"seconds": "seconds", "cpu": "processors' seconds", "peak": "memory"}.items():
        theirs = {writer: getattr(medians[writer], figure) for writer in peers}
        _goals.beside(f"{name}, {said}", getattr(medians[ours], figure), theirs)
    for peer, least in GOALS.get(name, {}).items():
        if peer in medians:
            _goals.at_least(f"{name}: times as long takes {peer}", medians[peer].seconds / medians[ours].seconds, least)
    _goals.at_most(f"{name}: peak memory", medians[ours].peak / 1e6, PEAK_MB, " MB")
    measured = {
        writer: [asdict(run) | {"load": load} for run, load in zip(each, loads[writer], strict=True)]
        for writer, each in runs.items()
    }
    sizes = {name: getattr(asked, name) for name in ("hours", "files", "rows")}
    return {**sizes, "before": asdict(before[0]), "writers": measured}


def measure(case: Case, name: str, writer: Writer, expect: Checksum, *, scan: bool) -> tuple[Size, Measured]:
    """Measure a writer on tables of its own, and hold what is left against what should be.

    Args:
        case: the tables.
        name: of the writer.
        writer: the writer.
        expect: the rows that are to be left.
        scan: whether the table is read before, too, unless rows of it are deleted.
    """
    with tempfile.TemporaryDirectory() as folder, SeaweedServer(Path(folder)) as seaweed:
        properties = seaweed.catalog_properties()
        warm, lake = _tables(case, open_catalog(properties), properties)
        reads = scan and not case.deletes
        before = Size.of(lake, scanned(properties, lake) if reads else None, case.filters if scan else ())
        highest, said = peak(*writer.command(properties, [warm.identifier, lake.identifier]), output=subprocess.PIPE)
        last = json.loads(said.splitlines()[-1])
        assert contents(lake) == expect, f"{name}: the rows are not as they should be"
        strategies = last["said"] or []
        assert strategies == ([writer.expects] if writer.expects else []), f"{name} came to {strategies}"
        figures = {key: last[key] for key in ("seconds", "cpu", "others")}
        after = Size.of(lake, scanned(properties, lake), case.filters)
        return before, Measured(**figures, peak=highest["all"], strategies=strategies, after=after)


def _tables(case: Case, catalog: Catalog, properties: Mapping[str, str]) -> Sequence[Lake]:
    """Make the table to warm up with, and the one that counts."""
    lakes = [made(catalog, case.asked.warm()), made(catalog, case.asked)]
    if case.deletes:
        with tempfile.TemporaryDirectory() as folder, Jvm(Path(folder), jvm_properties(properties)) as jvm:
            for lake in lakes:
                jvm.sql(case.deletes.format(catalog=jvm.catalog, table=lake.identifier))
    return lakes


def scanned(properties: Mapping[str, str], lake: Lake) -> float:
    """Let a process of its own read all of a table, and give the processors' seconds."""
    command = [sys.executable, "-m", "benchmarks._compact_scan", json.dumps(properties), "{}", lake.identifier]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds: float = json.loads(done.stdout)["cpu"]
    return seconds


if __name__ == "__main__":
    main()

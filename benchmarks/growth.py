"""What grows with a table: an hour's plan, seal and commit, health checks and sensors' ticks, by committed hours.

`python -m benchmarks.growth [--case NAME] [--hours N ...] [--files N ...] [--json FILE]` prints a Markdown table for
each case. `hours`: one table in a local folder, with a SQLite catalog, which grows; its hours are committed 24 at a
time, each with a manifest of its own (see `_growth_table`). Each step is done `ROUNDS` times; told are the medians of
the milliseconds of processor time, and of the requests that the step would send to S3. On a busy machine the former are
two or three times as much; the latter are always the same. The last column is how much more time a step takes than in
the smallest table. Two lines are no steps of ours, and have no goal: what PyIceberg takes to read what the format
makes grow.
`files`: the peak memory of a process that seals and commits one hour of so many files, and nothing else.

What Dagster's page takes by partitions is `partitions`'.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from pyiceberg.manifest import read_manifest_list

from benchmarks import _cases, _goals
from benchmarks._asked import asking
from benchmarks._growth_table import Grown
from benchmarks.memory import peak
from lakehouse_pipeline.backfill.hour import run_hour
from lakehouse_pipeline.backfill.hour_run import Bench
from lakehouse_pipeline.config.health import HealthSettings
from lakehouse_pipeline.orchestration.assets import build_defs
from lakehouse_pipeline.status.health import examine
from lakehouse_pipeline.status.picture import TableWatch, hours_of, table_status
from tests.backfill.hands import in_hand, new_attempt

FOLDER = Path(".lakehouse/benchmarks/growth").absolute()
HOURS = (10, 100, 1_000, 10_000)
FILES = (0, 1_000, 10_000, 100_000)
FILES_AN_HOUR = 4  # of the table that grows
ROUNDS = 5
GOAL = 2.0  # times the smallest table
METADATA, LIST = "the format: metadata.json, read and parsed", "the format: the manifest list, read by PyIceberg"

Figures = dict[str, tuple[float, float]]  # by step: milliseconds and requests
Step = Callable[[], object]


def hours(told: argparse.Namespace) -> dict[str, Figures]:
    """Measure all steps of a table as it grows."""
    grown, found = Grown.begin(FOLDER / "hours", FILES_AN_HOUR), dict[str, Figures]()
    for count in told.hours:
        grown.grow(count)
        found[f"{count:,}"] = _measured(grown)
    first, *_ = found.values()
    print(f"| step | {' | '.join(found)} | more |\n| --- |{' ---: |' * (len(found) + 1)}")
    for step in first:
        cells = [f"{figures[step][0]:.1f} ({figures[step][1]:.0f})" for figures in found.values()]
        more = found[f"{told.hours[-1]:,}"][step][0] / first[step][0]
        print(f"| {step} | {' | '.join(cells)} | {more:.1f}x |")
    print()
    last = found[f"{told.hours[-1]:,}"]
    for step in (each for each in first if each not in (METADATA, LIST)):  # these are what to hold the others against
        _goals.at_most(f"{step}: growth", last[step][0] / first[step][0], GOAL, " times")
    return found


def _measured(grown: Grown) -> Figures:
    figures = _of_hour(grown)
    files, url = grown.warehouse.files, grown.now.table.metadata.snapshots[-1].manifest_list
    steps: dict[str, Step] = {
        METADATA: lambda: grown.now,
        LIST: lambda: list(read_manifest_list(files.new_input(url))),
        **_looks(grown),
        **_ticks(grown),
    }
    return figures | {name: _median([_timed(step) for _ in range(ROUNDS)]) for name, step in steps.items()}


def _of_hour(grown: Grown) -> Figures:
    """Plan hours that are there, and take others from their opening to their commit."""
    runs: dict[str, list[tuple[float, float]]] = {}
    bench = Bench(grown.lakehouse_spec, grown.warehouse, lambda: None, "run")  # type: ignore[arg-type, return-value]
    for _ in range(ROUNDS):
        planned, hour = grown.hour(grown.hours - 1), grown.hour(grown.hours)
        grown.hours += 1
        hand = in_hand(grown.lake, hour, "run")

        def opened() -> None:
            hand.open(new_attempt(hand.table, hour, source=grown.land(hour), recipe=grown.recipe))  # noqa: B023

        def sealed() -> None:
            hand.seal(grown.seal(hand.table, hour, hand.attempt.id))  # noqa: B023

        steps: dict[str, Step] = {
            "hour: planned, and skipped": lambda: run_hour(bench, planned),  # noqa: B023
            "hour: opened": opened,
            "hour: sealed": sealed,
            "hour: committed": hand.commit,
        }
        for name, step in steps.items():
            runs.setdefault(name, []).append(_timed(step))
    return {name: _median(each) for name, each in runs.items()}


def _looks(grown: Grown) -> dict[str, Step]:
    spec, table, watch = grown.lakehouse.specs[0], grown.now, TableWatch(grown.lakehouse.specs[0])
    examine(spec, HealthSettings(), table, watch)
    return {
        "`lakehouse status`": lambda: table_status(spec, table, hours_of(spec)),
        "health: a process's first look": lambda: examine(spec, HealthSettings(), table),
        "health: its next look": lambda: examine(spec, HealthSettings(), table, watch),
    }


def _ticks(grown: Grown) -> dict[str, Step]:
    definitions, instance = build_defs(grown.lakehouse), dg.DagsterInstance.ephemeral()
    names = [each.name for each in definitions.sensors or () if not isinstance(each, dg.RunStatusSensorDefinition)]

    def tick(name: str) -> Step:
        context = dg.build_sensor_context(instance=instance, definitions=definitions)
        return lambda: definitions.resolve_sensor_def(name).evaluate_tick(context)

    return {f"tick: {name}": tick(name) for name in names}


def _timed(step: Step) -> tuple[float, float]:
    with asking() as asked:
        began = time.process_time()
        step()
        return (time.process_time() - began) * 1e3, asked.requests


def _median(runs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    spent, requests = zip(*runs, strict=True)
    return statistics.median(spent), statistics.median(requests)


def files(told: argparse.Namespace) -> dict[str, Any]:
    """Measure the memory of a process that seals and commits an hour, by its files."""
    found = {}
    print("| files of the hour | peak MB | s to seal | s to commit |\n| ---: | ---: | ---: | ---: |")
    for count in told.files:
        highest, said = peak(sys.executable, "-m", "benchmarks.growth", "--hour-of", str(count), output=subprocess.PIPE)
        found[str(count)] = figures = {"peak": highest["all"], **json.loads(said)}
        cells = (f"{highest['all'] / 1e6:.0f}", *(f"{figures[name]:.1f}" for name in ("seal", "commit")))
        print(f"| {count:,} | {' | '.join(cells)} |", flush=True)
    print()
    _goals.at_most(
        f"memory of an hour of {told.files[-1]:,} files", found[str(told.files[-1])]["peak"] / 2**30, 1, " GiB"
    )
    return found


def _hour_of(count: int) -> None:
    """Be the process of one hour: print what it took as JSON."""
    grown = Grown.begin(FOLDER / "files", count)
    hour = grown.hour(0)
    hand = in_hand(grown.lake, hour, "run")
    hand.open(new_attempt(hand.table, hour))
    written = list(grown.written(hand.table, hour, hand.attempt.id))
    began = time.process_time()
    hand.seal(hand.table.seal(hand.attempt.id, written, rows_read=None, rejected=0))
    sealed = time.process_time()
    hand.commit()
    print(json.dumps({"seal": sealed - began, "commit": time.process_time() - sealed}))


CASES: _cases.Cases = {"hours": hours, "files": files}


def main() -> None:
    """Measure some cases, and print a Markdown table for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", choices=list(CASES), nargs="+", default=list(CASES))
    parser.add_argument("--hours", type=int, nargs="+", default=HOURS, help="that are committed")
    parser.add_argument("--files", type=int, nargs="+", default=FILES, help="of the hour that is sealed and committed")
    parser.add_argument("--json", type=Path, help="a file that gets the figures")
    parser.add_argument("--hour-of", type=int, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.hour_of is not None:
        _hour_of(told.hour_of)
        return
    _cases.measure(told, CASES)


if __name__ == "__main__":
    main()

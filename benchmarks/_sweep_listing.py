"""The case `listing` of `sweep.py`: the audit of a table of many objects, beside the peers' searches for orphans."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self

from benchmarks import _goals
from benchmarks._compact_cases import ZAMBONI, Writer, zamboni
from benchmarks._sweep_table import made
from benchmarks.memory import peak
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.iceberg.tables import open_catalog
from tests.iceberg.lake import Lake

FOLDER = Path(".lakehouse/benchmarks/sweep").absolute()
MADE = "made.json"  # in a server's folder, once its tables are complete
WARM_OBJECTS = 2_000
GROWTH = 1.1  # the goal is memory that does not grow
SMALLER = 4  # the other table has one object of so many
COLUMNS = ("s", "of ours", "CPU s", "of ours", "peak MB", "of ours", "others' CPU s", "requests", "orphans")


@dataclass(frozen=True)
class Run:
    """One writer's search.

    Attributes:
        seconds: by the clock.
        cpu: of the processors that its processes took.
        others: of the processors that all others took meanwhile, the server's among them.
        peak: bytes, of a process's whole life.
        orphans: that it found.
        requests: that it sent; None where that is not told.
        load: of the machine before it.
    """

    seconds: float
    cpu: float
    others: float
    peak: int
    orphans: int
    requests: int | None
    load: float

    @classmethod
    def typical(cls, runs: list[Self]) -> Self:
        """Take the median seconds, and the most memory."""
        seconds = {name: median(getattr(run, name) for run in runs) for name in ("seconds", "cpu", "others")}
        return cls(**{**asdict(runs[0]), **seconds, "peak": max(run.peak for run in runs)})


def writers(*, with_zamboni: bool) -> Mapping[str, Writer]:
    """Give who takes part, ours first."""
    known = {"ours, audit": Writer("_sweep_ours"), "JVM, `remove_orphan_files`": Writer("_sweep_jvm")}
    if with_zamboni or ZAMBONI.exists():
        known["Zamboni 0.7, `OrphanCleaner`"] = Writer("_sweep_zamboni", {"takes_hidden": True}, python=str(zamboni()))
    return known


def measured(objects: int, rounds: int, *, with_zamboni: bool) -> dict[str, Any]:
    """Measure all writers on a table and on a smaller one, print a Markdown table, and give all figures."""
    found: dict[str, Any] = {}
    medians: dict[int, dict[str, Run]] = {}
    print(f"| objects | writer | {' | '.join(COLUMNS)} |\n| ---: | --- |{' ---: |' * len(COLUMNS)}", flush=True)
    for size in (objects // SMALLER, objects):
        runs = _of_size(size, rounds, writers(with_zamboni=with_zamboni))
        medians[size] = {writer: Run.typical(each) for writer, each in runs.items()}
        for writer, run in medians[size].items():
            print(row(size, writer, run, next(iter(medians[size].values()))), flush=True)
        found[str(size)] = {writer: [asdict(run) for run in each] for writer, each in runs.items()}
    print()
    for size, by_writer in medians.items():
        ours, *others = by_writer
        for figure, said in {"seconds": "seconds", "cpu": "processors' seconds", "peak": "memory"}.items():
            theirs = {writer: getattr(by_writer[writer], figure) for writer in others}
            _goals.beside(f"{size:,} objects, {said}", getattr(by_writer[ours], figure), theirs)
    first, last = (next(iter(by_writer.values())) for by_writer in medians.values())
    _goals.at_most(f"memory of {SMALLER} times the objects, in times", last.peak / first.peak, GROWTH)
    return found


def _of_size(objects: int, rounds: int, who: Mapping[str, Writer]) -> dict[str, list[Run]]:
    folder = FOLDER / str(objects)
    with SeaweedServer(folder) as seaweed:
        properties = seaweed.catalog_properties()
        tables, orphans = tables_in(folder, properties, objects)
        runs: dict[str, list[Run]] = {writer: [] for writer in who}
        for _ in range(rounds):
            for name, writer in who.items():
                run = _run(writer, properties, tables)
                expected = orphans + (hidden(properties, tables[-1]) if writer.how.get("takes_hidden") else 0)
                assert run.orphans == expected, f"{name} found {run.orphans} orphans, and there are {expected}"
                runs[name].append(run)
    return runs


def tables_in(folder: Path, properties: Mapping[str, str], objects: int) -> tuple[list[str], int]:
    """Name the table to warm up with and the one that counts, and its orphans; they are made once and kept.

    A local server takes some hundred objects a second: most of an hour's benchmark would be their making.
    """
    if not (folder / MADE).exists():
        catalog = open_catalog(properties)
        warm, _ = made(catalog, properties, WARM_OBJECTS)
        lake, orphans = made(catalog, properties, objects)
        (folder / MADE).write_text(json.dumps([[warm.identifier, lake.identifier], orphans]))
    tables, orphans = json.loads((folder / MADE).read_text())
    return tables, orphans


def hidden(properties: Mapping[str, str], name: str) -> int:
    """Count what lies in a table's hidden folder, where the ledger is."""
    table = Lake(open_catalog(properties), name).now
    return sum(1 for _ in table.files.list_objects(f"{table.ledger.folder.rpartition('/')[0]}/"))


def _run(writer: Writer, properties: Mapping[str, str], tables: list[str]) -> Run:
    load = os.getloadavg()[0]
    highest, said = peak(*writer.command(properties, tables), output=subprocess.PIPE)
    last = json.loads(said.splitlines()[-1])
    told = last["said"]
    figures = {name: last[name] for name in ("seconds", "cpu", "others")}
    return Run(**figures, peak=highest["all"], orphans=told["orphans"], requests=told.get("requests"), load=load)


def row(objects: int, writer: str, run: Run, ours: Run) -> str:
    """Show a writer's run, and what it took beside ours."""
    cells = (
        f"{run.seconds:.1f}",
        f"{run.seconds / ours.seconds:.2f}",
        f"{run.cpu:.1f}",
        f"{run.cpu / ours.cpu:.2f}",
        f"{run.peak / 1e6:.0f}",
        f"{run.peak / ours.peak:.2f}",
        f"{run.others:.1f}",
        "" if run.requests is None else str(run.requests),
        f"{run.orphans:,}",
    )
    return f"| {objects:,} | {writer} | {' | '.join(cells)} |"


if __name__ == "__main__":  # only makes the tables, so that a benchmark finds them
    for number in map(int, sys.argv[1:]):
        with SeaweedServer(FOLDER / str(number)) as server:
            tables_in(FOLDER / str(number), server.catalog_properties(), number)

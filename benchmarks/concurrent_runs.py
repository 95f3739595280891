"""Twenty processes that backfill hours of one Iceberg table at the same time: how many of the hours get into it.

`python -m benchmarks.concurrent_runs [--processes N] [--hours N] [--rows N] [--limit S]` prints a Markdown table. Each
process has hours of its own, so that nothing but the table's one head is contended. S3 and the Iceberg REST catalog are
SeaweedFS's. Each writer has a new table, and its processes begin together, once each has its catalog open (and ours
its Sail started); the seconds are from there to the end of the last. One that is not done at the limit is killed: its
hours that are not in the table then are unfinished. What processes say of their hours is compared with the rows of the
table.

Ours is `run_range` as it is by default, an hour at a time: it reads JSON lines, checks, seals, and lets one run commit
for all. The peer is PyIceberg's `overwrite(df, overwrite_filter=<the hour>)` of the same rows from memory, on its own
FileIO and on a table that is loaded anew for each hour, which is as fresh as its head can be.

PyIceberg 0.12 does retry (`Transaction.commit_transaction`): a `CommitFailedException` and nothing else, with the table
refreshed, the manifests written again and the validation for concurrent changes repeated. The table's properties say
how often: `commit.retry.num-retries` (4), `commit.retry.min-wait-ms` (100), `commit.retry.max-wait-ms` (60,000) and
`commit.retry.total-timeout-ms` (1,800,000). A wait is twice the one before plus at most a tenth by chance, so that the
default gives up after about 1.5 s of waiting.
"""

import argparse
import json
import logging
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pyarrow as pa
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table

from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.hours import HourWindow
from tests.backfill.lone_runs import WITHIN_S, Lone, Work, start_of
from tests.backfill.sail_runs import SailRun
from tests.iceberg.lake import hours_after
from tests.projects import Project, Row, row

PROCESSES = 20
HOURS_EACH = 3
ROWS = 200  # of an hour
LIMIT_S = 60.0  # of a writer; PyIceberg's 30 retries may wait for minutes, and all benchmarks should not
FIRST = HourWindow.from_key("2013-01-01-00:00")
NAMESPACE = "concurrent"
RETRIES = "commit.retry.num-retries"
PEERS: Mapping[str, Mapping[str, str]] = {
    "PyIceberg's overwrite": {},
    "PyIceberg's overwrite, 30 retries": {RETRIES: "30"},
}

UNFINISHED = "unfinished"

Failed = Mapping[str, str]  # by the hour's key: the error's class, a colon, what it said


@dataclass(frozen=True)
class Asked:
    """What every writer is to do.

    Attributes:
        hours: all of them, in order.
        each: hours of a process.
        rows: of an hour.
        limit: seconds for all of it.
    """

    hours: Sequence[HourWindow]
    each: int
    rows: int
    limit: float

    @property
    def shares(self) -> list[Sequence[HourWindow]]:
        """Give each process's hours."""
        return [self.hours[place : place + self.each] for place in range(0, len(self.hours), self.each)]


@dataclass(frozen=True)
class PeerRun:
    """PyIceberg in a process of its own.

    Attributes:
        catalog: its properties.
        table: its identifier.
        hours: that it overwrites, one after the other.
        rows: of each.
        start: where it waits for the others.
    """

    catalog: Mapping[str, str]
    table: str
    hours: Sequence[HourWindow]
    rows: int
    start: Barrier

    @property
    def counted(self) -> Path:
        """Not used: nothing strikes it."""
        return Path()

    def __call__(self) -> Failed:
        """Run it; gives the hours that failed."""
        logging.getLogger("pyiceberg").setLevel(logging.ERROR)  # it says of every retry that it retries
        warnings.filterwarnings("ignore", "Delete operation did not match any records")
        catalog = load_catalog("peer", **self.catalog)
        failed = {}
        self.start.wait(WITHIN_S)
        for hour in self.hours:
            try:
                table = catalog.load_table(self.table)
                table.overwrite(arrow_rows(table, hour, self.rows), overwrite_filter=within(hour))
            except Exception as error:  # noqa: BLE001  # whatever it is, it is told
                failed[hour.key] = f"{type(error).__name__}: {error}"
        return failed


def within(hour: HourWindow) -> str:
    """Select the rows of an hour."""
    return f"at >= '{hour.start.isoformat()}' AND at < '{hour.end.isoformat()}'"


def rows_of(hour: HourWindow, rows: int) -> list[Row]:
    """Make an hour's rows, whose ids are those of no other hour."""
    return [row(hour.key, hour.ordinal * rows + number, 0.5) for number in range(rows)]


def arrow_rows(table: Table, hour: HourWindow, rows: int) -> pa.Table:
    """Make the same rows as the table would have them."""
    made = rows_of(hour, rows)
    at = [hour.start + timedelta(minutes=each["id"] % 60) for each in made]
    columns = [at, [each["id"] for each in made], [each["size"] for each in made]]
    return pa.table(columns, schema=table.schema().as_arrow())


def project_in(folder: Path, seaweed: SeaweedServer, asked: Asked) -> Project:
    """Write our lakehouse with its raw files, and make its table."""
    project = Project(folder, lambda: None)  # type: ignore[arg-type, return-value]  # no hour runs in this process
    project.write("lakehouse.yaml", f"catalog: {json.dumps(seaweed.catalog_properties())}\nengine: sail\n")
    project.describe({"table": f"{NAMESPACE}.ours", "end": "2014-01-01"})
    for hour in asked.hours:
        project.land(hour.key, rows_of(hour, asked.rows))
    spec = project.lakehouse.spec("events")
    assert spec.source.columns
    project.warehouse.create(spec, spec.source.columns)
    return project


def together(work_of: Callable[[Barrier], Sequence[Work[Failed]]], asked: Asked) -> tuple[Failed, float]:
    """Run processes that begin together; gives the hours that failed, and the seconds to the end of the last."""
    start = start_of(len(asked.shares) + 1)
    with ExitStack() as running:
        runs = [running.enter_context(Lone(each)) for each in work_of(start)]
        start.wait(WITHIN_S)
        began = time.monotonic()
        told = [told_by(run, share, began + asked.limit) for run, share in zip(runs, asked.shares, strict=True)]
        return {key: said for each in told for key, said in each.items()}, time.monotonic() - began


def told_by(run: Lone[Failed], share: Sequence[HourWindow], until: float) -> Failed:
    """Give the hours of a process that failed; of one that has not ended by then all are unfinished."""
    if run.ends(max(0.0, until - time.monotonic())):
        return run.ended()
    return {hour.key: UNFINISHED for hour in share}


def run_ours(project: Project, asked: Asked) -> tuple[Failed, float, Table]:
    """Run ours; gives the hours that failed, the seconds, and the table."""

    def work(start: Barrier) -> list[SailRun]:
        return [SailRun(project.folder, share, 1, f"run {place}", start) for place, share in enumerate(asked.shares)]

    return *together(work, asked), project.table.table


def run_peer(
    seaweed: SeaweedServer, like: Table, name: str, properties: Mapping[str, str], asked: Asked
) -> tuple[Failed, float, Table]:
    """Run PyIceberg on a table of its own with the schema and partitions of ours; gives what `run_ours` does."""
    catalog_properties = {key: value for key, value in seaweed.catalog_properties().items() if key != "py-io-impl"}
    catalog = load_catalog("peer", **catalog_properties)
    catalog.create_table(name, like.schema(), partition_spec=like.spec(), properties=dict(properties))

    def work(start: Barrier) -> list[PeerRun]:
        return [PeerRun(catalog_properties, name, share, asked.rows, start) for share in asked.shares]

    return *together(work, asked), catalog.load_table(name)


def states(table: Table, asked: Asked) -> dict[str, str]:
    """Say of each hour, by its key, whether the table has its rows `once`, not at all, or how else."""
    found = defaultdict(list)
    for each in table.scan().to_arrow().to_pylist():
        found[HourWindow(each["at"].replace(minute=0))].append(each["id"])
    assert not found.keys() - set(asked.hours), "rows of hours that nobody wrote"
    return {hour.key: state(found[hour], [each["id"] for each in rows_of(hour, asked.rows)]) for hour in asked.hours}


def state(found: Sequence[int], expected: Sequence[int]) -> str:
    """Say what became of an hour's rows."""
    if not found:
        return "lost"
    if sorted(found) == sorted(expected):
        return "once"
    return "doubled" if len(found) > len(set(found)) else "wrong"


def verdict(failed: Failed, found: Mapping[str, str]) -> str:
    """Count the hours by what the table has of them, and those that are not what their process said."""
    counts = [f"{count} {name}" for name, count in Counter(found.values()).most_common()]
    untrue = sum((key in failed) == (name == "once") for key, name in found.items())
    return ", ".join([*counts, *([f"{untrue} not as told"] if untrue else [])])


def show(writer: str, failed: Failed, took: float, table: Table, asked: Asked) -> None:
    """Print a writer's row."""
    found = states(table, asked)
    failed = {key: said for key, said in failed.items() if said != UNFINISHED or found[key] != "once"}
    errors = Counter(said.partition(":")[0] for said in failed.values())
    lost = ", ".join(f"{count} {name}" for name, count in errors.most_common()) or "0"
    figures = (f"{len(asked.hours) - len(failed)} of {len(asked.hours)}", lost, len(table.snapshots()), f"{took:.1f}")
    print(f"| {writer} | {' | '.join(map(str, figures))} | {verdict(failed, found)} |", flush=True)


def main() -> None:
    """Measure all writers, one after the other, and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--hours", type=int, default=HOURS_EACH, help="of each process")
    parser.add_argument("--rows", type=int, default=ROWS, help="of each hour")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds that each writer has")
    told = parser.parse_args()
    asked = Asked(hours_after(FIRST, told.processes * told.hours), told.hours, told.rows, told.limit)
    print(f"{told.processes} processes, {told.hours} hours each, {told.rows} rows an hour\n")
    print("| writer | hours committed | lost | snapshots | s | the table's hours |")
    print("| --- | ---: | --- | ---: | ---: | --- |")
    with tempfile.TemporaryDirectory() as folder, SeaweedServer(Path(folder) / "seaweed") as seaweed:
        project = project_in(Path(folder) / "project", seaweed, asked)
        failed, took, ours = run_ours(project, asked)
        show("ours", failed, took, ours, asked)
        for place, (writer, properties) in enumerate(PEERS.items()):
            failed, took, table = run_peer(seaweed, ours, f"{NAMESPACE}.peer{place}", properties, asked)
            show(writer, failed, took, table, asked)


if __name__ == "__main__":
    main()

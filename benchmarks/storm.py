"""Twenty hours of many small files in a storm, with base-2 keys and with base-64 keys: what it takes, and what is left.

`python -m benchmarks.storm [--rate R] [--files N] [--layout NAME]` prints a Markdown table. Four processes write and
commit five hours each, all at once, to SeaweedFS through the fault server: it throttles ranges of keys and splits them
as S3 does, 600 times as tight and 120 times as fast, and spoils a few per cent of requests beside that. Afterwards a
process that runs two of the hours again is killed half way, and what it left is closed. No engine takes part: rows
go from memory through the product's own writer, seal, ledger and commit.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import HourTransform
from pyiceberg.types import LongType, NestedField, TimestamptzType

from benchmarks import _goals
from lakehouse_pipeline.backfill.attempts import HourInHand
from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.data_files import BUCKET, WrittenFile, requests_sent, write_batches, written_files
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.ledger.leases import Renewal
from lakehouse_pipeline.object_store.counts import RequestCounts, counting
from lakehouse_pipeline.object_store.side_by_side import side_by_side
from lakehouse_pipeline.planning.s3_scaling import Scaling
from lakehouse_pipeline.testing.faults import FaultServer
from tests.backfill.hands import new_attempt
from tests.storms import OF_S3

HOURS = 20
FILES = 60  # of an hour
PROCESSES = 4
TASKS = 3  # of an hour, at once
RATE = 6.0  # writes a second and range; S3's 3,500
READS = Scaling.read_rate / Scaling.write_rate  # for each write that a range takes
SPLIT_S = 5.0  # for detection, and again for the split; S3's ten minutes each
HEAT_S = 2.0
KILLED_HOURS = 2
FILE_SIZE = 1_000_000
REQUEST_TIMEOUT_S = 5  # some answers never come
GIVEN_UP_S = 900.0
START = datetime(2013, 1, 1, tzinfo=UTC)
LAYOUTS: Mapping[str, Mapping[str, str]] = {
    "base-2": {},
    "base-64": {"write.py-location-provider.impl": "benchmarks._base64_locations.Base64Locations"},
}
ROWS = ("hours committed", "by hand", "seconds", "requests", "503s", "other faults", "retries", "seconds waited")
LEFT = ("ranges at the end", "orphan bytes", "orphan bytes of a killed run", "orphan bytes after close")


def make_table(catalog: Catalog, identifier: str, layout: Mapping[str, str]) -> None:
    """Create an empty table, as a spec would but for the layout, which specs may not choose."""
    schema = Schema(NestedField(1, "at", TimestamptzType(), required=True), NestedField(2, "id", LongType()))
    partition = PartitionSpec(PartitionField(1, 1000, HourTransform(), "at_hour"))
    properties = {"write.object-storage.enabled": "true", **layout}
    catalog.create_namespace_if_not_exists(identifier.partition(".")[0])
    catalog.create_table(identifier, schema, partition_spec=partition, properties=properties)


def table_of(catalog: Catalog, identifier: str) -> HourlyTable:
    """Load the table as it is now."""
    return HourlyTable(catalog, catalog.load_table(identifier), "at")


def rows(hour: HourWindow, buckets: Iterable[int]) -> Iterable[pa.RecordBatch]:
    """Make ten rows for each bucket."""
    for bucket in buckets:
        at = pa.array([hour.start + timedelta(seconds=bucket)] * 10, pa.timestamp("us", "UTC"))
        ids, places = pa.array(range(10), pa.int64()), pa.array([bucket] * 10, pa.int32())
        yield pa.RecordBatch.from_arrays([at, ids, places], names=["at", "id", BUCKET])


def open_hour(catalog: Catalog, identifier: str, hour: HourWindow, files: int) -> HourInHand:
    """Open an attempt of so many files."""
    table = table_of(catalog, identifier)
    hand = HourInHand(table, hour, table.ledger.hour(hour), f"run-{os.getpid()}")
    hand.open(new_attempt(table, hour, buckets=files))
    return hand


of_tasks: list[RequestCounts] = []


def write(hand: HourInHand, buckets: Sequence[int]) -> list[WrittenFile]:
    """Write a file for each bucket, in tasks side by side."""
    target = hand.table.target(hand.hour, hand.attempt.id, FILE_SIZE)
    tasks = [buckets[place::TASKS] for place in range(TASKS)]
    done = side_by_side(lambda task: list(write_batches(target, rows(hand.hour, task))), tasks, TASKS)
    batches = [batch for task in done for batch in task]
    of_tasks.append(requests_sent(batches))
    return written_files(batches)


def run_hour(catalog: Catalog, identifier: str, hour: HourWindow, files: int) -> str | None:
    """Take an hour from its record to its commit; gives what went wrong, which somebody would have to look at."""
    hand: HourInHand | None = None
    try:
        hand = open_hour(catalog, identifier, hour, files)
        attempt, held = hand.attempt.id, hand.held
        with Renewal(lambda: held.renew(attempt, "write"), lambda: None, str(hour)):
            seal = hand.table.seal(attempt, write(hand, range(files)), rows_read=None, rejected=0)
            hand.seal(seal)
            hand.commit()
    except Exception as error:  # noqa: BLE001  # whatever it is, it is told
        if hand and hand.held.record.attempt and hand.attempt.seal is None:
            hand.close(error)
        return f"{hour.key}: {type(error).__name__}: {error}"
    return None


def run_process(told: str) -> None:
    """Be one process: run hours side by side, or leave the last of them half written and die."""
    asked = json.loads(told)
    catalog = open_catalog(asked["catalog"])
    hours = [HourWindow.from_key(key) for key in asked["hours"]]
    if asked["killed"]:
        for hour in hours:
            write(open_hour(catalog, asked["table"], hour, asked["files"]), range(asked["files"] // 2))
        os._exit(1)
    with counting() as counter:
        failed = side_by_side(lambda hour: run_hour(catalog, asked["table"], hour, asked["files"]), hours, len(hours))
    counts = sum(of_tasks, counter.snapshot())
    print(json.dumps({"failed": [each for each in failed if each], "counts": asdict(counts)}), flush=True)
    os._exit(0)


def start(asked: Mapping[str, Any]) -> "subprocess.Popen[str]":
    """Start a process."""
    command = [sys.executable, "-m", "benchmarks.storm", "--process", json.dumps(asked)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def measure(seaweed: SeaweedServer, layout: str, files: int, rate: float) -> dict[str, str]:
    """Run all hours with one layout; give the figures by their names."""
    scaling = Scaling(write_rate=rate, read_rate=rate * READS, detect_s=SPLIT_S, split_s=SPLIT_S, heat_window_s=HEAT_S)
    identifier = f"storm.{layout.replace('-', '')}"
    properties = seaweed.catalog_properties()
    quiet = open_catalog(properties)
    make_table(quiet, identifier, LAYOUTS[layout])
    keys = [HourWindow(START + timedelta(hours=place)).key for place in range(HOURS)]
    with FaultServer(seaweed.endpoint, faults=OF_S3, scaling=scaling) as server:
        stormy = {**properties, "s3.endpoint": server.endpoint, "s3.request-timeout": str(REQUEST_TIMEOUT_S)}
        asked = {"catalog": stormy, "table": identifier, "files": files, "killed": False}
        began = time.monotonic()
        running = [start({**asked, "hours": keys[place::PROCESSES]}) for place in range(PROCESSES)]
        answers = [json.loads(each.communicate(timeout=GIVEN_UP_S)[0]) for each in running]
        took = time.monotonic() - began
        for answer in answers:
            for line in answer["failed"]:
                print(f"failed: {line}", file=sys.stderr, flush=True)
        exchanges, ranges = server.exchanges, server.ranges(seaweed.table_bucket)
        table = table_of(quiet, identifier)
        committed = sum(len(table.live(HourWindow.from_key(key))) == files for key in keys)
        before = table.strays()
        start({**asked, "hours": keys[:KILLED_HOURS], "killed": True}).wait(GIVEN_UP_S)
        killed = table.strays()
        stormy_catalog = open_catalog(stormy)
        for _ in range(2):  # the second pass, whose grace is none here
            close_attempts(table_of(stormy_catalog, identifier), lambda _run: True, grace=timedelta(0))
        after = table.strays()
    counts = sum((RequestCounts(**answer["counts"]) for answer in answers), RequestCounts())
    stormy_catalog.close()
    quiet.close()
    return dict(
        zip(
            (*ROWS, *LEFT),
            (
                f"{committed} of {HOURS}",
                f"{HOURS - committed}",
                f"{took:.0f}",
                f"{len(exchanges)}",
                f"{sum(each.status == 503 for each in exchanges)}",
                f"{sum(each.fault not in (None, 'throttle') for each in exchanges)}",
                f"{counts.retries}",
                f"{counts.rate_wait_s + counts.retry_wait_s:.0f}",
                f"{len(ranges)}",
                f"{sum(item.size for item in before)}",
                f"{sum(item.size for item in killed)} in {len(killed)} files",
                f"{sum(item.size for item in after)}",
            ),
            strict=True,
        )
    )


def main() -> None:
    """Measure both layouts, and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=RATE, help="writes a second that a range of keys takes")
    parser.add_argument("--files", type=int, default=FILES, help="of each hour")
    parser.add_argument("--layout", choices=LAYOUTS, help="this one only")
    parser.add_argument("--process", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.process:
        run_process(asked.process)
        return
    found = {}
    for layout in [asked.layout] if asked.layout else LAYOUTS:
        with tempfile.TemporaryDirectory() as folder, SeaweedServer(Path(folder) / "seaweed") as seaweed:
            found[layout] = measure(seaweed, layout, asked.files, asked.rate)
    print(f"| {HOURS} hours x {asked.files} files, {asked.rate:g} writes/s a range | {' | '.join(found)} |")
    print(f"| --- |{' ---: |' * len(found)}")
    for row in (*ROWS, *LEFT):
        print(f"| {row} | {' | '.join(figures[row] for figures in found.values())} |")
    print()
    for layout, figures in found.items():
        _goals.at_most(f"{layout}: hours that are run by hand", float(figures["by hand"]), 0)
    if len(found) == len(LAYOUTS):
        first, *others = found
        took = {name: float(figures["seconds"]) for name, figures in found.items()}
        _goals.beside("a storm, seconds", took[first], {name: took[name] for name in others})


if __name__ == "__main__":
    main()

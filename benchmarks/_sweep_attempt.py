"""A failed attempt of many files, closed: the requests that it takes, by what they ask for, and the seconds.

`measure_close` opens an attempt, puts a small file for each of its buckets, closes it as a run does that failed before
its seal, and makes the second pass. `measured` does so on SeaweedFS.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from lakehouse_pipeline.backfill.attempts import HourInHand
from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.object_store.client import s3_access
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.settings import read_settings
from lakehouse_pipeline.object_store.side_by_side import side_by_side
from tests.backfill.hands import new_attempt
from tests.iceberg.lake import TEN, Lake

PUTS_AT_ONCE = 16
FILE_SIZE = 1_000_000


@dataclass(frozen=True)
class Pass:
    """What one pass over an attempt took.

    Attributes:
        requests: that reached the wire, by S3's name of what they ask for.
        counted: requests by the table's own counts.
        seconds: that it took.
        left: files of the attempt that are there afterwards.
    """

    requests: Mapping[str, int]
    counted: int
    seconds: float
    left: int


def measure_close(table: HourlyTable, hour: HourWindow, files: int) -> tuple[Pass, Pass]:
    """Make a failed attempt of so many files in as many buckets; gives its closing and its second pass."""
    hand = HourInHand(table, hour, table.ledger.hour(hour), "run")
    hand.open(new_attempt(table, hour, buckets=files))
    attempt = hand.attempt.id
    target = table.target(hour, attempt, FILE_SIZE)
    urls = [target.file_url(bucket, 0, 0) for bucket in range(files)]
    side_by_side(lambda url: table.files.put(url, b"rows", if_absent=True), urls, PUTS_AT_ONCE)

    def passed(seconds: float, before: int, requests: Counter[str]) -> Pass:
        counted = table.files.counts().requests - before
        left = sum(attempt in item.url for item in table.files.list_objects(f"{table.location}/data/"))
        return Pass(dict(requests), counted, seconds, left)

    before, began = table.files.counts().requests, time.perf_counter()
    with by_verb(table.files) as requests:
        hand.close(RuntimeError("the run failed"))
    first = passed(time.perf_counter() - began, before, requests)
    before, began = table.files.counts().requests, time.perf_counter()
    with by_verb(table.files) as requests:
        close_attempts(table, lambda _run_id: True, hour=hour, grace=timedelta(0))
    return first, passed(time.perf_counter() - began, before, requests)


@contextmanager
def by_verb(files: LakehouseFileIO) -> Iterator[Counter[str]]:
    """Count what is sent by the client of a FileIO, by S3's names."""
    found: Counter[str] = Counter()
    events = s3_access(read_settings(files.properties).connection).client().meta.events

    def sent(event_name: str, **_told: Any) -> None:
        found[event_name.rpartition(".")[2]] += 1

    events.register("before-send.s3", sent)
    try:
        yield found
    finally:
        events.unregister("before-send.s3", sent)


def measured(files: int) -> dict[str, Any]:
    """Measure on SeaweedFS, and print a Markdown table."""
    with (
        tempfile.TemporaryDirectory() as folder,
        SeaweedServer(Path(folder), table_bucket="lake") as server,
        open_catalog(server.catalog_properties()) as catalog,
    ):
        passes = dict(zip(("closing", "second pass"), measure_close(Lake.create(catalog).now, TEN, files), strict=True))
    print("| pass | requests | seconds | files left | of them |\n| --- | ---: | ---: | ---: | --- |")
    for name, each in passes.items():
        verbs = ", ".join(f"{verb} {count}" for verb, count in sorted(each.requests.items()))
        print(f"| {name} | {each.counted} | {each.seconds:.2f} | {each.left} | {verbs} |")
    return {name: asdict(each) for name, each in passes.items()}

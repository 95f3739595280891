"""What the ledger costs in requests: a fixed number an hour, however many files that has."""

from collections.abc import Iterator

import pytest

from lakehouse_pipeline.backfill.attempts import HourInHand
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.testing.faults import FaultServer
from tests.backfill.hands import new_attempt
from tests.iceberg.lake import ELEVEN, TEN, Lake, events, in_bucket

MANY, FEW = 300, 10  # files of an hour
SHARE, OF_FILES = 0.02, 1_000  # of the requests for the data files of an hour that has so many


@pytest.fixture
def watched(seaweed: SeaweedServer) -> Iterator[FaultServer]:
    """Give a server before S3 that does no harm, and counts."""
    with FaultServer(seaweed.endpoint) as server:
        yield server


def run(lake: Lake, hour: HourWindow, files: int) -> None:
    """Take an hour of so many files from its record to its commit, as a run does."""
    table = lake.now
    hand = HourInHand(table, hour, table.ledger.hour(hour), "run")
    attempt = new_attempt(table, hour, buckets=files)
    hand.open(attempt)
    written = lake.write(hour, (in_bucket(bucket, events(hour, [bucket])) for bucket in range(files)), attempt.id)
    hand.seal(table.seal(attempt.id, written, rows_read=files, rejected=0))
    hand.commit()


def test_ledger_costs_the_same_requests_whatever_the_files(seaweed: SeaweedServer, watched: FaultServer) -> None:
    """An hour of 300 files costs the ledger as many requests as one of ten: below 2 % of those for a thousand files."""
    catalog = open_catalog({**seaweed.catalog_properties(), "s3.endpoint": watched.endpoint})
    try:
        lake = Lake.create(catalog)
        counts = []
        for hour, files in ((TEN, FEW), (ELEVEN, MANY)):
            watched.clear()
            run(lake, hour, files)
            paths = [exchange.path for exchange in watched.exchanges]
            data = sum(path.partition("?")[0].endswith(".parquet") for path in paths)
            counts.append((sum("_lakehouse" in path for path in paths), data))
    finally:
        catalog.close()
    (of_few, _), (of_many, data) = counts
    assert data == MANY
    assert of_many == of_few
    assert 0 < of_many < SHARE * OF_FILES

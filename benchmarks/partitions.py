"""A table of many hours in Dagster: how long its definitions take to load, what its page waits for, and two ticks.

`python -m benchmarks.partitions` prints a Markdown table, for tables of 1,000, 10,000 and 100,000 hours: the queries
that the page's tab "Partitions" sends, sent to Dagster's webserver, with SQLite; and ticks of the sensors that are
running from the start, as the page tests them. 5,000 hours (of the smallest table 500) but for each 100th are
materialized: one by a run, the others as copies of its events.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lakehouse_pipeline.config.lakehouse import load_lakehouse
from lakehouse_pipeline.demo.seaweed import HOST, free_ports
from lakehouse_pipeline.demo.tether import tethered
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.orchestration.in_process import run_job

FOLDER = Path(".lakehouse/benchmarks/partitions").absolute()
ROOT = Path(__file__).parents[1]
SIZES = (1_000, 10_000, 100_000)  # hours of a table
MADE = 5_000  # hours that are materialized, half of the table's at most
HOLE = 100  # each so many hours one is not: the page shows ranges
LOADS, ASKS = 3, 5  # of which the best counts
STARTS_WITHIN_S = 120.0
FIRST = HourWindow(datetime(2013, 1, 1, tzinfo=UTC))

LAKEHOUSE = """\
catalog: {type: sql, uri: "sqlite:///catalog.db", warehouse: warehouse}
engine: sail
"""
SPEC = """\
table: bench.events
source: {path: raw/%Y/%m/%d/%H.jsonl, columns: {at: timestamptz!, id: long!}, missing: empty}
hour: at
start: "START"
end: "END"
"""

# As dagster-webserver 1.13's page sends them, without what they ask of assets that are not partitioned by time.
HEALTH = """
query PartitionHealthQuery($assetKey: AssetKeyInput!) {
  assetNodeOrError(assetKey: $assetKey) {
    ... on AssetNode {
      id
      partitionKeysByDimension { name type partitionKeys }
      assetPartitionStatuses {
        ... on TimePartitionStatuses { ranges { status startTime endTime startKey endKey } }
      }
    }
  }
}
"""
STALE = """
query AssetStaleStatusQuery($assetKeys: [AssetKeyInput!]!) {
  assetNodes(assetKeys: $assetKeys) {
    id
    assetKey { path }
    isMaterializable
    staleStatus
    partitionStats { numMaterialized numMaterializing numPartitions numFailed }
  }
}
"""
DETAIL = """
query AssetPartitionDetailQuery($assetKey: AssetKeyInput!, $partitionKey: String!) {
  assetOrError(assetKey: $assetKey) {
    ... on Asset {
      id
      definition { id opNames latestRunForPartition(partition: $partitionKey) { id status endTime } }
      assetEventHistory(
        partitions: [$partitionKey]
        limit: 1000
        eventTypeSelectors: [MATERIALIZATION, OBSERVATION, FAILED_TO_MATERIALIZE]
      ) { results { ... on MaterializationEvent { runId partition timestamp metadataEntries { label } } } }
    }
  }
}
"""
STALE_HOUR = """
query AssetPartitionStaleQuery($assetKey: AssetKeyInput!, $partitionKey: String!) {
  assetNodeOrError(assetKey: $assetKey) {
    ... on AssetNode { id staleStatus(partition: $partitionKey) staleCauses(partition: $partitionKey) { reason } }
  }
}
"""
LAUNCH = """
mutation LaunchPartitionBackfill($backfillParams: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $backfillParams) { __typename ... on PythonError { message } }
}
"""
TICK = """
mutation SensorDryRunMutation($selectorData: SensorSelector!, $cursor: String) {
  sensorDryRun(selectorData: $selectorData, cursor: $cursor) {
    __typename
    ... on DryRunInstigationTick { evaluationResult { skipReason error { message } } }
    ... on PythonError { message }
  }
}
"""
SENSORS = ("leftovers", "events_health_watch")
KEY = {"path": ["events"]}
ASSET = '["events"]'  # as Dagster's database has it
EVENTS = ("ASSET_MATERIALIZATION_PLANNED", "ASSET_MATERIALIZATION")  # of an hour, in this order


def project(hours: int) -> Path:
    """Write a lakehouse whose table has so many hours."""
    folder = FOLDER / str(hours)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tables").mkdir(parents=True)
    (folder / "lakehouse.yaml").write_text(LAKEHOUSE)
    end = HourWindow.from_ordinal(FIRST.ordinal + hours)
    (folder / "tables/events.yaml").write_text(SPEC.replace("START", FIRST.key).replace("END", end.key))
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, folder)
    return folder


def load(folder: Path) -> float:
    """Time a fresh interpreter that imports the definitions; gives the best."""
    seconds = []
    for _ in range(LOADS):
        began = time.perf_counter()
        command = [sys.executable, "-c", "import lakehouse_pipeline.definitions"]
        subprocess.run(command, check=True, env=_environment(folder))
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def made(hours: int) -> int:
    """Say how many hours of a table of so many are materialized."""
    return min(MADE, hours // 2)


def materialize(folder: Path, hours: int) -> None:
    """Run the first hour, and give the others of those that are materialized copies of its events."""
    os.chdir(folder)  # of which Dagster's file speaks
    ended = run_job(load_lakehouse(folder / "lakehouse.yaml", {}), "events", [FIRST])
    assert FIRST in ended.finished, ended.problems
    with sqlite3.connect(folder / ".lakehouse/dagster/history/runs/index.db") as database:
        for place in range(1, made(hours)):
            if place % HOLE:
                _copy(database, HourWindow.from_ordinal(FIRST.ordinal + place).key)


def _copy(database: sqlite3.Connection, hour: str) -> None:
    """Write the first hour's events, and what Dagster looks them up by, as those of another hour."""
    swapped = {"first": FIRST.key, "hour": hour}
    for event in EVENTS:
        copied = database.execute(
            "INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition)"
            " SELECT run_id, replace(event, :first, :hour), dagster_event_type, timestamp, step_key, asset_key, :hour"
            " FROM event_logs WHERE asset_key = :asset AND dagster_event_type = :event AND partition = :first",
            {**swapped, "asset": ASSET, "event": event},
        )
        database.execute(
            "INSERT INTO asset_event_tags (event_id, asset_key, key, value, event_timestamp)"
            " SELECT :copy, asset_key, key, replace(value, :first, :hour), event_timestamp FROM asset_event_tags"
            " WHERE event_id = (SELECT id FROM event_logs"
            " WHERE asset_key = :asset AND dagster_event_type = :event AND partition = :first)",
            {**swapped, "asset": ASSET, "event": event, "copy": copied.lastrowid},
        )


@contextmanager
def webserver(folder: Path) -> Iterator[str]:
    """Start Dagster's webserver; gives its address."""
    url = f"http://{HOST}:{(port := free_ports(1)[0])}"
    command = [sys.executable, "-m", "dagster_webserver", "-h", HOST, "-p", str(port), "-w", "workspace.yaml"]
    with (folder / "webserver.log").open("wb") as log:
        process = subprocess.Popen(
            tethered(command, signal.SIGTERM), cwd=folder, env=_environment(folder), stdout=log, stderr=log
        )
    try:
        until = time.monotonic() + STARTS_WITHIN_S
        while True:
            assert process.poll() is None, folder / "webserver.log"
            assert time.monotonic() < until
            try:
                with urllib.request.urlopen(f"{url}/server_info", timeout=5):  # noqa: S310  # our own server
                    break
            except OSError:
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def ask(url: str, query: str, **variables: Any) -> tuple[float, bytes]:
    """Send a query; gives its seconds and the answer."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310
        told: bytes = answer.read()
    assert b"errors" not in told, told[:1000]
    assert b'"error": {' not in told, told[:1000]
    assert b"PythonError" not in told, told[:1000]
    return time.perf_counter() - began, told


def questions(hours: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Give what the page sends, by what it is for."""
    last = {"assetKey": KEY, "partitionKey": HourWindow.from_ordinal(FIRST.ordinal + made(hours) - 1).key}
    place = {"repositoryName": "__repository__", "repositoryLocationName": "lakehouse"}
    keys = [HourWindow.from_ordinal(FIRST.ordinal + place).key for place in range(hours)]
    return {
        "the tab: all hours and their states": (HEALTH, {"assetKey": KEY}),
        "how many are there, is the table stale": (STALE, {"assetKeys": [KEY]}),
        "an hour: its run and its events": (DETAIL, last),
        "an hour: is it stale": (STALE_HOUR, last),
        **{
            f"a tick of {name}": (TICK, {"selectorData": {**place, "sensorName": name}, "cursor": None})
            for name in SENSORS
        },
        "launching a backfill of all hours": (
            LAUNCH,
            {"backfillParams": {"assetSelection": [KEY], "partitionNames": keys, "fromFailure": False}},
        ),
    }


def measure(hours: int) -> None:
    """Print the table's lines of one size."""
    folder = project(hours)
    print(f"| {hours:,} | loading the definitions | | {load(folder):.2f} | |", flush=True)
    materialize(folder, hours)
    with webserver(folder) as url:
        for name, (query, variables) in questions(hours).items():
            first, told = ask(url, query, **variables)
            asked = 0 if query == LAUNCH else ASKS
            again = min((ask(url, query, **variables)[0] for _ in range(asked)), default=None)
            figures = (f"{first:.2f}", "" if again is None else f"{again:.2f}", f"{len(told) / 1e3:,.1f}")
            print(f"| | {name} | {' | '.join(figures)} |", flush=True)


def main() -> None:
    """Measure, and print a Markdown table."""
    os.environ.pop("DAGSTER_HOME", None)  # each table has a history of its own
    print(
        f"{MADE:,} hours of each table (half at most) are materialized but for each {HOLE}th; best of {LOADS} loads\n"
    )
    print("| hours | | s, first | s, again | answer, kB |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for hours in SIZES:
        measure(hours)


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "LAKEHOUSE_CONFIG": str(folder / "lakehouse.yaml")}


if __name__ == "__main__":
    main()

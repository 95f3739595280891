"""A backfill as planned, with a quarter and with four times the hours in flight, behind a store that throttles.

`python -m benchmarks.planned [--hours N]` prints a Markdown table: seconds and 503s as predicted and as seen. SeaweedFS
stands behind the fault server, which throttles ranges of keys and splits them as S3 does, 440 times as tight and 30
times as fast, and takes half a second for each data file, as S3 does for a dozen MB. The ETL waits, as for a cluster
elsewhere; all else is the product: plan, Dagster's job, Spark's tasks, ledger, commits. Each run is a process with a
table of its own, whose Spark workers have been started before.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks import _goals
from lakehouse_pipeline.backfill.figures import Asked
from lakehouse_pipeline.backfill.forecast import Forecast, forecast
from lakehouse_pipeline.backfill.run_plan import RunPlan, store_print
from lakehouse_pipeline.config.lakehouse import load_lakehouse
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.engines.sessions import LazySession
from lakehouse_pipeline.hours import HourRange, HourWindow
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.orchestration.in_process import run_job
from lakehouse_pipeline.planning.s3_scaling import Scaling
from lakehouse_pipeline.testing.faults import FaultServer
from lakehouse_pipeline.testing.schedule import Effect, Fault

FOLDER = Path(".lakehouse/benchmarks/planned").absolute()
DAGSTER = Path(__file__).parents[1] / "dagster.yaml"
HOURS = 16
FILES, TASKS = 20, 2  # of an hour: a task writes its files one after the other, each in PUT_S
PUT_S = 0.5
ETL_S = (
    13.3  # of an hour by itself, as measured: waits, writes for FILES / TASKS * PUT_S, and 2.3 s of Spark and ledger
)
WAIT_S = (ETL_S - FILES / TASKS * PUT_S - 2.3) / 2  # in the sample that sorting takes, and again in the hour itself
SCALING = Scaling(write_rate=8.0, heat_window_s=2.0, detect_s=20.0, split_s=20.0)
ROOM = 16  # hours at once
FIRST = datetime(2013, 1, 1, tzinfo=UTC)
ROW_BYTES = 95_000
FILE_SIZE = 1_000_000  # makes TASKS buckets of an hour's source; a row group of one row ends each of their files

LAKEHOUSE = """\
catalog: {catalog}
engine: local[{slots}]
backfill: {{hours_in_flight: {room}}}
"""
SPEC = """\
table: bench.{name}
source: {{path: {raw}/%Y/%m/%d/%H.jsonl, columns: {{at: timestamptz!, id: long!, pad: string}}}}
transform: slow:slowly
columns: {{at: timestamptz!, id: long!}}
hour: at
sort: [id]
file_size: {file_size}
properties: {{{path}write.parquet.row-group-limit: "1"}}
start: 2013-01-01
end: 2014-01-01
"""
SLOW = """\
import time


def slowly(source):
    def later(batches):
        time.sleep({seconds})
        yield from batches

    source = source.drop("pad")
    return source.mapInArrow(later, source.schema)
"""


def hours(count: int) -> HourRange:
    """Give the first hours."""
    first = HourWindow(FIRST)
    return HourRange(first, HourWindow.from_ordinal(first.ordinal + count - 1))


def land(raw: Path, count: int) -> None:
    """Write the raw files: a row for each data file."""
    for hour in hours(count):
        file = raw / f"{hour.start:%Y/%m/%d/%H}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = (
            {"at": (hour.start + timedelta(seconds=each)).isoformat(), "id": each, "pad": "x" * ROW_BYTES}
            for each in range(FILES)
        )
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def project(folder: Path, catalog: dict[str, str], raw: Path) -> None:
    """Write a lakehouse: a table that is measured, and one that starts Spark's workers."""
    tables = folder / "tables"
    tables.mkdir(parents=True)
    told = {"catalog": json.dumps(catalog), "slots": ROOM * TASKS, "room": ROOM}
    (folder / "lakehouse.yaml").write_text(LAKEHOUSE.format(**told))
    for name, path in (("events", 'write.data.path: "s3://events/events", '), ("warm", "")):
        spec = SPEC.format(name=name, raw=raw, file_size=f"{FILE_SIZE // 10**6}MB", path=path)
        (tables / f"{name}.yaml").write_text(spec)
    (tables / "slow.py").write_text(SLOW.format(seconds=WAIT_S))
    shutil.copy(DAGSTER, folder)


def planned(folder: Path, count: int) -> Forecast:
    """Plan the backfill."""
    lakehouse = load_lakehouse(folder / "lakehouse.yaml", {})
    asked = Asked(bytes_=TASKS * FILE_SIZE, files=FILES, etl_s=ETL_S, at_most=ROOM)
    warehouse = Warehouse.open(lakehouse.catalog)
    return forecast(lakehouse, lakehouse.spec("events"), warehouse, hours(count), asked=asked, scaling=SCALING)


def run(folder: Path, count: int, plan: RunPlan) -> None:
    """Be the process of one run: start Spark's workers, then say that it begins, and what it took."""
    os.environ.pop("DAGSTER_HOME", None)
    os.chdir(folder)  # of which Dagster's file speaks
    lakehouse = load_lakehouse(folder / "lakehouse.yaml", {})
    session = LazySession(lakehouse.engine, "benchmark")
    session.get()
    warm = run_job(lakehouse, "warm", list(hours(ROOM)))
    assert not warm.failed, warm.failed
    print("begins", flush=True)
    began = time.monotonic()
    plan = plan.model_copy(update={"store": store_print(lakehouse.catalog)})  # each fault server has its own address
    ended = run_job(lakehouse, "events", list(hours(count)), plan=plan)
    took = time.monotonic() - began
    assert not ended.failed, ended.failed
    retries = sum(result.requests.retries for result in ended.finished.values())
    print(json.dumps({"hours": len(ended.finished), "took": took, "retries": retries}), flush=True)
    session.close()


def measure(server: FaultServer, name: str, count: int, plan: RunPlan, catalog: dict[str, str]) -> dict[str, Any]:
    """Run once; gives seconds, data files that were asked for, and of them 503s."""
    folder = FOLDER / name
    project(folder, catalog | {"s3.endpoint": server.endpoint}, FOLDER / "raw")
    command = [sys.executable, "-m", "benchmarks.planned", "--run", str(folder), "--hours", str(count)]
    asked = {**os.environ, "PLAN": plan.model_dump_json()}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=asked) as process:
        assert process.stdout
        said = [line for line in process.stdout if line.startswith(("begins", "{"))]
    assert process.returncode == 0, said
    puts = [each for each in server.exchanges if each.method == "PUT" and each.path.startswith("/events/")]
    statuses = Counter(each.status for each in puts)
    return {**json.loads(said[-1]), "puts": len(puts), "503s": statuses[503], "ranges": len(server.ranges("events"))}


def main() -> None:
    """Plan, measure, and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=int, default=HOURS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        run(asked.run, asked.hours, RunPlan.model_validate_json(os.environ["PLAN"]))
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    land(FOLDER / "raw", max(asked.hours, ROOM))
    with SeaweedServer(FOLDER / "seaweed", buckets=("events",)) as seaweed:
        local = {"type": "sql", "uri": "sqlite:///catalog.db", "warehouse": "warehouse"}
        catalog = local | seaweed.s3_properties()
        project(FOLDER / "plan", catalog, FOLDER / "raw")
        told = planned(FOLDER / "plan", asked.hours)
        best = told.advice.in_flight
        print(f"{asked.hours} hours of {FILES} files; recommended: {best} in flight, {told.run.apart_s:.1f} s apart\n")
        print("| hours in flight | s predicted | s seen | 503s predicted, % | seen, % | 503s seen | ranges |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        settings = {each.in_flight: each for each in told.advice.settings}
        runs = {}
        for count in dict.fromkeys((max(1, best // 4), best, min(asked.hours, 4 * best))):
            plan = told.run.model_copy(update={"hours_in_flight": count, "apart_s": settings[count].apart_s})
            slow = Fault(effect=Effect.SLOW, verb="PutObject", delay_s=PUT_S, times=None)
            with FaultServer(seaweed.endpoint, scaling=SCALING, faults=[slow]) as server:
                runs[count] = seen = measure(server, f"run-{count}", asked.hours, plan, catalog)
            predicted = settings[count].predicted
            figures = (
                f"{count}{' (recommended)' * (count == best)}",
                f"{3600 * predicted.hours:.0f}",
                f"{seen['took']:.0f}",
                f"{100 * predicted.throttle_share:.1f}",
                f"{100 * seen['503s'] / seen['puts']:.1f}",
                seen["503s"],
                seen["ranges"],
            )
            print(f"| {' | '.join(map(str, figures))} |", flush=True)
            shutil.rmtree(FOLDER / f"run-{count}")
    fewer, own, more = runs.values()
    times = [f"{other['took'] / own['took']:.2f}" for other in (fewer, more)]
    print(f"\na quarter takes {times[0]} times as long as recommended, four times as many {times[1]}; ", end="")
    print(f"503s: {fewer['503s']}, {own['503s']} and {more['503s']}\n")
    others = {"a quarter of the hours": fewer["took"], "four times the hours": more["took"]}
    _goals.beside("the plan's hours in flight, seconds", own["took"], others)
    predicted, seen = settings[best].predicted, 100 * own["503s"] / own["puts"]
    _goals.at_most("seconds seen, of those predicted", own["took"] / (3600 * predicted.hours), 1.5, " times")
    _goals.at_most("share of 503s seen beyond what was predicted", seen - 100 * predicted.throttle_share, 5, " points")


if __name__ == "__main__":
    main()

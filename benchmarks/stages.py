"""Where the time of one hour goes: the stages of the transform's way, each alone and each with those before it.

Ten million rows, `local[2]`, the second of two runs in one warm session. What a stage costs is the difference to the
one that it builds on; stages of one job overlap, so the sum may be less.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from benchmarks import _events, _ours
from lakehouse_pipeline.backfill.arrange import source_view
from lakehouse_pipeline.backfill.hour import run_hour
from lakehouse_pipeline.backfill.hour_run import Bench
from lakehouse_pipeline.backfill.inputs import Aside, Counts
from lakehouse_pipeline.backfill.plan import TableState, observe_inputs, plan_hour
from lakehouse_pipeline.backfill.views import read_splits, read_view, task_count
from lakehouse_pipeline.config.lakehouse import load_lakehouse
from lakehouse_pipeline.engines.sessions import LazySession, cores_of
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.ledger.records import HourRecord
from lakehouse_pipeline.sources.splits import balance, plan_splits

FOLDER = Path(".lakehouse/benchmarks/append").absolute()
ROWS = 10_000_000
HOUR = HourWindow.from_key("2024-01-01-00:00")


def nothing(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Take every batch and give none."""
    for _ in batches:
        pass
    yield from ()


def main() -> None:
    """Measure, and print a Markdown table."""
    _events.write_events(FOLDER / "raw", rows=ROWS, files=8)
    _ours.write_project(FOLDER)
    lakehouse = load_lakehouse(FOLDER / "lakehouse.yaml", os.environ)
    lazy = LazySession(lakehouse.engine, "benchmark")
    session, spec = lazy.get(), lakehouse.spec(_ours.table_of("transform", "arrow"))
    warehouse = Warehouse.open(lakehouse.catalog)
    bench = Bench(spec, warehouse, lazy.get, "benchmark")
    run_hour(bench, HOUR, force=True)
    table = warehouse.table(spec)
    assert table is not None
    files, inputs = warehouse.files, observe_inputs(spec, warehouse.files, HOUR)
    plan = plan_hour(spec, HOUR, inputs, HourRecord(hour=HOUR.key), TableState("", 0, ""), force=True)
    view = source_view(spec, plan, files, table.columns, Aside(files, f"{table.location}/_benchmark"))
    splits = plan_splits(files, view.objects, view.format, target_bytes=1 << 30)
    tasks = balance(splits, task_count(view.bytes, cores_of(session)))

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for task in batch.column(0).to_pylist():
                for _ in read_splits(files, view, tasks[task], task, Counts()):
                    pass
        yield from ()

    def gathered() -> None:
        session.range(0, len(tasks), 1, len(tasks)).mapInArrow(read, "id long").toArrow()

    def through_the_jvm() -> None:
        read_view(session, files, view, cores_of(session))[0].write.format("noop").mode("overwrite").save()

    def and_back() -> None:
        read_view(session, files, view, cores_of(session))[0].mapInArrow(nothing, "id long").toArrow()

    def out_of_the_jvm() -> None:
        session.read.parquet(str(FOLDER / "raw/2024/01/01/00")).mapInArrow(nothing, "id long").toArrow()

    stages: dict[str, Callable[[], object]] = {
        "our reader, rows dropped in the same process": gathered,
        "our reader, rows into the JVM": through_the_jvm,
        "our reader, rows into the JVM and back": and_back,
        "Spark's own reader, rows out of the JVM": out_of_the_jvm,
        "the whole hour with a transform": lambda: run_hour(bench, HOUR, force=True),
    }
    print("| stage | s |\n| --- | --- |")
    for name, stage in stages.items():
        stage()
        started = time.perf_counter()
        stage()
        print(f"| {name} | {time.perf_counter() - started:.1f} |", flush=True)
    lazy.close()


if __name__ == "__main__":
    main()

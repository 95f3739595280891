"""The one Spark job of an hour: from its objects to data files on storage.

In general rows go from our readers through Spark's plan to our writer. Where there is nothing to transform and nothing
to sort, a task reads and writes in one Python process: sending ten million rows through the JVM and back would cost as
much again as reading and encoding them. Where there is only something to sort, they go through it in parcels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession

from lakehouse_pipeline.backfill.arrange import arranged, is_plain, source_view
from lakehouse_pipeline.backfill.inputs import Aside, Counts, View
from lakehouse_pipeline.backfill.parcels import Content, sorted_rows
from lakehouse_pipeline.backfill.placement import Ranges
from lakehouse_pipeline.backfill.plan import HourPlan
from lakehouse_pipeline.backfill.spark_reader import with_way_out
from lakehouse_pipeline.backfill.views import read_splits, splits_of, task_count
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.types import Column
from lakehouse_pipeline.engines.failures import translated
from lakehouse_pipeline.engines.sessions import cores_of
from lakehouse_pipeline.engines.spark_types import spark_schema
from lakehouse_pipeline.engines.tasks import current_hold, map_in_arrow, run_tasks
from lakehouse_pipeline.iceberg.checksum import Checksum
from lakehouse_pipeline.iceberg.data_files import (
    BUCKET,
    WRITTEN,
    WrittenFile,
    requests_sent,
    write_batches,
    written_files,
)
from lakehouse_pipeline.iceberg.schemas import arrow_schema_of
from lakehouse_pipeline.iceberg.sorted_rows import OrderCheck
from lakehouse_pipeline.iceberg.write_target import WriteTarget
from lakehouse_pipeline.object_store.counts import NO_REQUESTS, RequestCounts
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources.splits import balance

ROWS_READ, LEFT, CONTENT = "rows_read", "rows_left", "content"
COPIED = pa.schema([*WRITTEN, (ROWS_READ, pa.int64()), (LEFT, pa.int64())])


@dataclass(frozen=True)
class Etl:
    """What an hour became.

    Attributes:
        files: by name.
        rows_read: good rows of the hour that the readers gave; None where the engine found that it need not read them.
        left: rows that were left to other hours; None as above.
        requests: what the engine's tasks sent to S3, as far as they came to their end.
        rejected: bad rows, and rows of other hours, that were kept aside.
        content: what the rows added up to before they were sorted (`Checksum.total`), where the spec asks for a check.
    """

    files: list[WrittenFile]
    rows_read: int | None
    left: int | None
    requests: RequestCounts
    rejected: int = 0
    content: int = 0


def run_etl(
    session: SparkSession,
    spec: TableSpec,
    plan: HourPlan,
    files: LakehouseFileIO,
    *,
    columns: tuple[Column, ...],
    aside: Aside,
    target: WriteTarget,
    buckets: int,
    ranges: Ranges | None = None,
) -> Etl:
    """Write an hour's files; no snapshot knows them yet.

    Args:
        session: where.
        spec: the table's spec.
        plan: the hour and its objects.
        files: the store of the sources.
        columns: of the Iceberg table.
        aside: for rows that are rejected, if the spec keeps them, and for counts.
        target: the attempt.
        buckets: that its rows go to, at most.
        ranges: that they are, where that is known.

    Raises:
        ConfigurationError: the transform is wrong, or gives other columns than the table has.
        DataError: the objects are not what the spec says.
        TransientError: the store did not answer within its retries.
    """
    view = source_view(spec, plan, files, columns, aside)
    doing = f"{spec.name} {plan.hour}"
    with with_way_out(view), translated(doing):
        if is_plain(spec, columns) and not spec.sort:
            etl = copy_hour(session, files, view, target, cores_of(session))
        else:
            with arranged(
                session, spec, plan, files, columns=columns, aside=aside, buckets=buckets, ranges=ranges
            ) as ready:
                written = write(ready.frame, columns, target)
                counts = ready.counts()
            etl = Etl(
                written_files(written),
                counts.rows if counts else None,
                counts.left if counts else None,
                requests_sent(written) + (counts.requests if counts else NO_REQUESTS),
                content=sum(_total(batch, CONTENT) for batch in written) % 2**64,
            )
    rejecting = "reject" in (spec.source.bad_rows, spec.other_hours)
    return replace(
        etl,
        files=sorted(etl.files, key=lambda file: file.path.rpartition("/")[2]),
        rejected=aside.count_rejects() if rejecting else 0,
    )


def write(frame: DataFrame, columns: tuple[Column, ...], target: WriteTarget) -> list[pa.RecordBatch]:
    """Run a frame's plan: every task writes its buckets and gives back what they became, as `WRITTEN`.

    Args:
        frame: rows and their bucket; of a table that is sorted, parcels of rows of these columns.
        columns: of the table.
        target: the attempt.
    """
    order = OrderCheck.of(target.sort_order, target.schema).columns
    schema, hold = arrow_schema_of(columns), current_hold()

    def write_task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        if not order:
            yield from write_batches(target, batches)
            return
        content = Content()
        rows = sorted_rows(content.passing(batches), schema, order)
        yield from write_batches(target, hold.watched(rows))
        yield pa.RecordBatch.from_pylist([{CONTENT: Checksum(total=content.total).signed}], schema=WRITTEN)

    written = map_in_arrow(frame, write_task, spark_schema(WRITTEN))
    batches: list[pa.RecordBatch] = written.toArrow().to_batches()
    return batches


def copy_hour(session: SparkSession, files: LakehouseFileIO, view: View, target: WriteTarget, cores: int) -> Etl:
    """Read and write an hour; a task's bucket is its place.

    Raises:
        DataError: the objects are not what the spec says.
        TransientError: the store did not answer within its retries.
    """
    tasks = balance(splits_of(files, view), task_count(view.bytes, cores))
    hold = current_hold()

    def copy(task: int) -> Iterator[pa.RecordBatch]:
        counts = Counts()
        rows = in_bucket(hold.watched(read_splits(files, view, tasks[task], task, counts)), task)
        for written in write_batches(target, rows):
            nulls = pa.nulls(written.num_rows, pa.int64())
            yield pa.record_batch([*written.columns, nulls, nulls], COPIED)
        # Last, when all is counted, and in a row without a file: a task may have written none.
        values = [*([None] * len(WRITTEN)), counts.rows, counts.left]
        yield pa.record_batch([pa.array([v], f.type) for v, f in zip(values, COPIED, strict=True)], COPIED)

    gathered = run_tasks(session, len(tasks), copy, COPIED).toArrow()
    batches = gathered.to_batches()
    rows_read, left = _total(gathered, ROWS_READ), _total(gathered, LEFT)
    return Etl(written_files(batches), rows_read, left, requests_sent(batches))


def in_bucket(batches: Iterable[pa.RecordBatch], bucket: int) -> Iterator[pa.RecordBatch]:
    """Give batches on their way from the readers to the writer their bucket."""
    number = pa.scalar(bucket, pa.int32())
    for batch in batches:
        yield batch.append_column(BUCKET, pa.repeat(number, batch.num_rows))


def _total(gathered: pa.Table | pa.RecordBatch, name: str) -> int:
    return int(pc.sum(gathered.column(name), min_count=0).as_py())

"""The one Spark job of an hour: from its objects to data files on storage.

Two shapes. In general rows go from our readers through Spark's plan to our writer. Where there is nothing to transform
and nothing to sort, a task reads and writes in one Python process: sending ten million rows through the JVM and back
would cost as much again as reading and encoding them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  # the name that every Spark user knows it by

from lakehouse_pipeline.backfill.arrange import arrange, cores_of, source_view
from lakehouse_pipeline.backfill.plan import HourPlan
from lakehouse_pipeline.backfill.views import SPLIT_BYTES, View, read_splits, read_view, task_count
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.types import Column
from lakehouse_pipeline.engines.spark import map_in_arrow, spark_schema, translated
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.data_files import (
    BUCKET,
    WRITTEN,
    OtherHourError,
    WriteTarget,
    WrittenFile,
    write_batches,
    written_files,
)
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources.readers import FILE_COLUMN, POSITION_COLUMN
from lakehouse_pipeline.sources.splits import balance, plan_splits

ROWS_READ = "rows_read"


@dataclass(frozen=True)
class Etl:
    """What an hour became.

    Attributes:
        files: by name.
        rows_read: good rows that the readers gave; None where Spark found that it need not read them.
    """

    files: list[WrittenFile]
    rows_read: int | None


def run_etl(
    session: SparkSession,
    spec: TableSpec,
    plan: HourPlan,
    files: LakehouseFileIO,
    *,
    columns: tuple[Column, ...],
    rejects: str,
    target: WriteTarget,
) -> Etl:
    """Write an hour's files; no snapshot knows them yet.

    Args:
        session: where.
        spec: the table's spec.
        plan: the hour and its objects.
        files: the store of the sources.
        columns: of the Iceberg table.
        rejects: the folder for bad rows, if the spec keeps them.
        target: the attempt.

    Raises:
        ConfigurationError: the transform is wrong, or gives other columns than the table has.
        DataError: the objects are not what the spec says.
        TransientError: the store did not answer within its retries.
    """
    view = source_view(spec, plan, files, columns, rejects)
    doing = f"{spec.name} {plan.hour}"
    try:
        with translated(doing):
            if is_direct(spec, columns):
                etl = copy_hour(session, files, view, target, cores_of(session))
            else:
                arranged = arrange(session, spec, plan, files, columns=columns, rejects=rejects)
                etl = Etl(write(arranged.frame, target), arranged.rows_read())
    except OtherHourError as error:
        with translated(doing):
            place = first_of_other_hours(session, files, view, spec.hour, plan.hour)
        raise OtherHourError(f"{place}: {error}" if place else str(error)) from None
    return Etl(sorted(etl.files, key=lambda file: file.path.rpartition("/")[2]), etl.rows_read)


def write(frame: DataFrame, target: WriteTarget) -> list[WrittenFile]:
    """Run a frame's plan: every task writes its buckets and gives back what they became."""

    def task(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return write_batches(target, batches)

    return written_files(map_in_arrow(frame, task, spark_schema(WRITTEN)).toArrow().to_batches())


def is_direct(spec: TableSpec, columns: tuple[Column, ...]) -> bool:
    """Tell whether a table's rows are its source's rows, in any order."""
    given = spec.source.columns
    same = given is None or {(item.name, item.type) for item in given} == {(item.name, item.type) for item in columns}
    return spec.transform is None and not spec.sort and same


def copy_hour(session: SparkSession, files: LakehouseFileIO, view: View, target: WriteTarget, cores: int) -> Etl:
    """Read and write an hour; a task's bucket is its place.

    Raises:
        DataError: the objects are not what the spec says.
        TransientError: the store did not answer within its retries.
    """
    splits = plan_splits(files, view.objects, view.format, target_bytes=SPLIT_BYTES)
    tasks = balance(splits, task_count(view.bytes, cores))

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for task in batch.column(0).to_pylist():
                counted = _Counted(read_splits(files, view, tasks[task], task), task)
                for written in write_batches(target, counted):
                    # The count stands on the first file's row: a task without rows has neither.
                    counts = [counted.rows, *[0] * (written.num_rows - 1)][: written.num_rows]
                    yield written.append_column(ROWS_READ, pa.array(counts, pa.int64()))

    schema = spark_schema(WRITTEN.append(pa.field(ROWS_READ, pa.int64())))
    gathered = map_in_arrow(session.range(0, len(tasks), 1, len(tasks)), run, schema).toArrow()
    return Etl(
        written_files(gathered.drop_columns([ROWS_READ]).to_batches()),
        sum(gathered.column(ROWS_READ).to_pylist()),
    )


def first_of_other_hours(
    session: SparkSession, files: LakehouseFileIO, view: View, column: str, hour: HourWindow
) -> str | None:
    """Find where a row of another hour stands, as `file:position`; None if the source has no such row or column.

    The writer sees rows that have been through a transform and knows no file; the source is read again to say it.
    """
    if column not in view.schema.names:
        return None
    # Bad rows are kept once more where the view keeps them, to be removed with the attempt.
    frame, _ = read_view(session, files, replace(view, provenance=True), cores_of(session))
    start, end = (F.lit(moment.replace(tzinfo=None).isoformat()) for moment in (hour.start, hour.end))
    kind = frame.schema[column].dataType
    outside = (F.col(column) < start.cast(kind)) | (F.col(column) >= end.cast(kind))
    found = frame.filter(outside).select(FILE_COLUMN, POSITION_COLUMN).limit(1).collect()
    return f"{found[0][0]}:{found[0][1]}" if found else None


class _Counted:
    """Batches on their way from the readers to the writer, with their bucket; `rows` counts them."""

    def __init__(self, batches: Iterable[pa.RecordBatch], bucket: int) -> None:
        self._batches = batches
        self._bucket = pa.scalar(bucket, pa.int32())
        self.rows = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            self.rows += batch.num_rows
            yield batch.append_column(BUCKET, pa.repeat(self._bucket, batch.num_rows))

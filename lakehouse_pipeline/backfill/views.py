"""Raw objects as Spark DataFrames: listed by us, split by us, read in tasks through our own FileIO.

Small inputs are read by the driver: no Python worker starts for them, and Spark knows their size, so that it
broadcasts them in joins. `reader: spark` is elsewhere, and comes in through the same door.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from lakehouse_pipeline.backfill.inputs import Counts, View
from lakehouse_pipeline.backfill.spark_reader import read_by_spark
from lakehouse_pipeline.engines.spark_types import spark_schema
from lakehouse_pipeline.engines.tasks import run_tasks
from lakehouse_pipeline.object_store.counts import RequestCounter, counted, report
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources import hour_rows
from lakehouse_pipeline.sources.bad_rows import Rejects, failing, ignore
from lakehouse_pipeline.sources.hour_rows import HourRows
from lakehouse_pipeline.sources.lines import line_of
from lakehouse_pipeline.sources.readers import check_schema, read_split
from lakehouse_pipeline.sources.splits import Split, balance, plan_splits

SMALL_INPUT = 4 * 1024**2  # bytes on storage that the driver reads itself
SPLIT_BYTES = 64 * 1024**2
TASK_BYTES = 128 * 1024**2  # source bytes of one read task, as Spark's spark.sql.files.maxPartitionBytes
LEAST_TASK_BYTES = 16 * 1024**2  # below that another task costs more than it saves
LEAST_SAMPLES = 2  # splits; below that a sample says nothing of the rest
LEAST_SAMPLE_BYTES = 1024**2


@dataclass(frozen=True)
class Made:
    """What a task makes of the rows that it reads, before the engine sees them.

    Attributes:
        schema: of what it makes.
        function: makes it.
    """

    schema: pa.Schema
    function: Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def read_view(
    session: SparkSession, files: LakehouseFileIO, view: View, cores: int, made: Made | None = None
) -> tuple[DataFrame, Callable[[], Counts | None]]:
    """Make a view's DataFrame, and a question for its rows that has an answer once the frame was used.

    The answer is None where the engine found that it need not read them all.

    Args:
        session: where.
        files: the store.
        view: what to read.
        cores: tasks that run at once.
        made: in the place of the rows; not with `reader: spark`.

    Raises:
        ConfigurationError: a column cannot be read from files of this format.
        DataError: a small input, which is read at once, holds a bad row or is no such file.
    """
    if view.reader == "spark":
        read, found = read_by_spark(session, files, view)
        return read, lambda: found
    splits = splits_of(files, view)
    made = made or Made(view.read_schema, iter)
    if view.bytes <= SMALL_INPUT:
        counts = Counts()
        table = pa.Table.from_batches(made.function(read_splits(files, view, splits, 0, counts)), schema=made.schema)
        return session.createDataFrame(table, schema=spark_schema(made.schema)), lambda: counts
    tasks = balance(splits, task_count(view.bytes, cores))

    def read_task(task: int) -> Iterator[pa.RecordBatch]:
        counts, counter = Counts(), RequestCounter()
        yield from counted(made.function(read_splits(files, view, tasks[task], task, counts)), counter)
        if view.aside:  # a task that is not read to its end, as below a LIMIT, does not come here
            view.aside.put_counts(task, counts, report(counter.snapshot()))

    frame = run_tasks(session, len(tasks), read_task, made.schema)
    return frame, lambda: view.aside.take_counts(len(tasks)) if view.aside else None


def splits_of(files: LakehouseFileIO, view: View) -> tuple[Split, ...]:
    """Cut a view's objects.

    Raises:
        ConfigurationError: a column cannot be read from files of this format.
        DataError: an object is no such file.
    """
    check_schema(view.format, view.schema, provenance=view.provenance)
    return plan_splits(files, view.objects, view.format, target_bytes=SPLIT_BYTES)


def sample_tasks(files: LakehouseFileIO, view: View, cores: int, share: float) -> Sequence[Sequence[Split]]:
    """Choose some of a view's splits, spread over its objects, for as many tasks as run at once.

    Of files that hold many hours, of which only a `share` is wanted, more are chosen: they tend to be in the order of
    time.
    """
    splits = plan_splits(files, view.objects, view.format, target_bytes=max(LEAST_SAMPLE_BYTES, view.bytes // 1000))
    count = min(len(splits), math.ceil(max(LEAST_SAMPLES, len(splits) / 100) / share))
    chosen = [splits[len(splits) * (2 * part + 1) // (2 * count)] for part in range(count)]
    return balance(chosen, min(len(chosen), cores))


def sample_view(
    session: SparkSession,
    files: LakehouseFileIO,
    view: View,
    tasks: Sequence[Sequence[Split]],
    made: Made | None = None,
) -> DataFrame:
    """Make a frame of the rows of `sample_tasks`, or of what is made of them in their place.

    Bad rows are passed over: whoever reads the whole view meets them.
    """
    made = made or Made(view.read_schema, iter)

    def rows(task: int) -> Iterator[pa.RecordBatch]:
        for split in tasks[task]:
            hour = HourRows(view.hour, ignore) if view.hour else None
            yield from read_split(files, split, view.schema, provenance=view.provenance, on_bad=ignore, hour=hour)

    return run_tasks(session, len(tasks), lambda task: made.function(rows(task)), made.schema)


def task_count(size: int, cores: int) -> int:
    """Give the number of read tasks for `size` bytes: no task too large or too small, and no core idle at the end."""
    tasks = max(1, math.ceil(size / TASK_BYTES), min(cores, math.ceil(size / LEAST_TASK_BYTES)))
    return tasks if tasks < cores else math.ceil(tasks / cores) * cores


def read_splits(
    files: LakehouseFileIO, view: View, splits: Sequence[Split], task: int, counts: Counts
) -> Iterator[pa.RecordBatch]:
    """Read splits one after the other, and count; the rows that a task rejects are kept in one object.

    The object is put by a reading that came to its end only: a task may run twice, and a run that is closed early, as
    below a LIMIT, or that fails must not put its part in the place of the whole.

    Raises:
        DataError: the objects are not what the view says.
    """
    rejects = _rejects(view, task)
    on_other = rejects if rejects and view.hour and view.hour.reject else hour_rows.fail
    hour = HourRows(view.hour, on_other) if view.hour else None
    for split in splits:
        on_bad = rejects if rejects and view.keeps_bad else failing(partial(line_of, files, split))
        for batch in read_split(files, split, view.schema, provenance=view.provenance, on_bad=on_bad, hour=hour):
            counts.rows += batch.num_rows
            yield batch
    counts.left += hour.left if hour else 0
    if rejects:
        rejects.close()


def _rejects(view: View, task: int) -> Rejects | None:
    keeps = view.keeps_bad or (view.hour is not None and view.hour.reject)
    return Rejects(view.aside.files, f"{view.aside.folder}/{task:05d}.parquet") if keeps and view.aside else None

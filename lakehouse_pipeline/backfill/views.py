"""Raw objects as Spark DataFrames: listed by us, split by us, read in tasks through our own FileIO.

Small inputs are read by the driver: no Python worker starts for them, and Spark knows their size, so that it
broadcasts them in joins.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F  # noqa: N812  # the name that every Spark user knows it by

from lakehouse_pipeline.engines.spark import map_in_arrow, spark_schema
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources.bad_rows import Rejects, fail
from lakehouse_pipeline.sources.listing import SourceObject
from lakehouse_pipeline.sources.readers import batch_schema, read_split
from lakehouse_pipeline.sources.splits import Split, balance, plan_splits

SMALL_INPUT = 4 * 1024**2  # bytes on storage that the driver reads itself
SPLIT_BYTES = 64 * 1024**2
TASK_BYTES = 128 * 1024**2  # source bytes of one read task, as Spark's spark.sql.files.maxPartitionBytes
LEAST_TASK_BYTES = 16 * 1024**2  # below that another task costs more than it saves
ANSWERED_WITHIN_S = 5.0  # what was observed is there some milliseconds after its job ended

_COUNT = "_rows_read"


@dataclass(frozen=True)
class View:
    """One input of the transform.

    Attributes:
        format: `csv`, `jsonl` or `parquet`.
        objects: what to read; none is an empty view.
        schema: its columns; a column that is not nullable is required of every row.
        rejects: the folder in which bad rows are kept; None fails at the first.
        provenance: whether `_file` and `_position` are added.
    """

    format: str
    objects: tuple[SourceObject, ...]
    schema: pa.Schema
    rejects: str | None = None
    provenance: bool = False

    @property
    def bytes(self) -> int:
        """Bytes on storage."""
        return sum(item.size for item in self.objects)

    @property
    def read_schema(self) -> pa.Schema:
        """The columns that a reader gives, provenance included."""
        return batch_schema(self.schema, provenance=self.provenance)


def read_view(
    session: SparkSession, files: LakehouseFileIO, view: View, cores: int
) -> tuple[DataFrame, Callable[[], int | None]]:
    """Make a view's DataFrame, and a question for its rows that has an answer once the frame was used.

    Raises:
        DataError: a small input, which is read at once, holds a bad row or is no such file.
    """
    splits = plan_splits(files, view.objects, view.format, target_bytes=SPLIT_BYTES)
    if view.bytes <= SMALL_INPUT:
        table = pa.Table.from_batches(read_splits(files, view, splits, 0), schema=view.read_schema)
        return session.createDataFrame(table, schema=spark_schema(view.read_schema)), lambda: table.num_rows
    return _read_in_tasks(session, files, view, balance(splits, task_count(view.bytes, cores)))


def task_count(size: int, cores: int) -> int:
    """Give the number of read tasks for `size` bytes: no task too large or too small, and no core idle at the end."""
    tasks = max(1, math.ceil(size / TASK_BYTES), min(cores, math.ceil(size / LEAST_TASK_BYTES)))
    return tasks if tasks < cores else math.ceil(tasks / cores) * cores


def count_rejects(files: LakehouseFileIO, folder: str) -> int:
    """Count the bad rows that were kept in a folder."""
    count = 0
    for item in files.list_objects(f"{folder}/"):
        with files.open_read(item.url, etag=item.etag, size=item.size) as body:
            count += pq.read_metadata(body).num_rows
    return count


def _read_in_tasks(
    session: SparkSession, files: LakehouseFileIO, view: View, tasks: tuple[tuple[Split, ...], ...]
) -> tuple[DataFrame, Callable[[], int | None]]:
    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for task in batch.column(0).to_pylist():
                yield from _counted(read_splits(files, view, tasks[task], task), task, len(tasks))

    observed = Observation()
    schema = spark_schema(view.read_schema.append(pa.field(_COUNT, pa.int64())))
    frame = map_in_arrow(session.range(0, len(tasks), 1, len(tasks)), read, schema)
    # A set: Spark may run a task twice, and does where it samples rows to place them by range.
    frame = frame.observe(observed, F.collect_set(_COUNT).alias(_COUNT)).drop(_COUNT)
    return frame, lambda: _observed_rows(observed, len(tasks))


def _counted(batches: Iterable[pa.RecordBatch], task: int, tasks: int) -> Iterator[pa.RecordBatch]:
    """Add a column whose one value, on a task's last row, holds the task and its rows."""
    rows, held = 0, None
    for batch in batches:
        if batch.num_rows:
            if held is not None:
                yield held.append_column(_COUNT, pa.nulls(held.num_rows, pa.int64()))
            rows, held = rows + batch.num_rows, batch
    if held is not None:
        last = pa.array([rows * tasks + task], pa.int64())
        yield held.append_column(_COUNT, pa.concat_arrays([pa.nulls(held.num_rows - 1, pa.int64()), last]))


def _observed_rows(observed: Observation, tasks: int) -> int | None:
    """Give the rows that all tasks read; None where Spark found that it need not read them."""
    counts: list[int] = []

    def ask() -> None:
        with suppress(Exception):  # Spark 4.2 asserts in the JVM where it optimized the observed frame away
            counts.append(sum(count // tasks for count in observed.get[_COUNT]))

    # Where no part of the plan speaks of the view, Spark never answers.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWERED_WITHIN_S)
    return counts[0] if counts else None


def read_splits(files: LakehouseFileIO, view: View, splits: Sequence[Split], task: int) -> Iterator[pa.RecordBatch]:
    """Read splits one after the other; the bad rows of a task are kept in one object.

    Raises:
        DataError: the objects are not what the view says.
    """
    if view.rejects is None:
        for split in splits:
            yield from read_split(files, split, view.schema, provenance=view.provenance, on_bad=fail)
        return
    with closing(Rejects(files, f"{view.rejects}/{task:05d}.parquet")) as rejects:
        for split in splits:
            yield from read_split(files, split, view.schema, provenance=view.provenance, on_bad=rejects)

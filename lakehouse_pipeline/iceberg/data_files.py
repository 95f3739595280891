"""Arrow batches in, data files out: Parquet at entropy-hashed keys, with the statistics that Iceberg plans by.

This runs inside the engine's tasks. A task keeps about one row group of Arrow data in memory, and one file on local
disk per bucket and partition, whatever the hour's size. Names are a function of bucket, attempt, file and try, and
partition paths are claimed, so every file of an attempt can be named, and removed, without a listing.
"""

import logging
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.transforms import BucketTransform, HourTransform

from lakehouse_pipeline.config.partition import MAX_OPEN
from lakehouse_pipeline.errors import DataError, SafetyError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.claims import Claims
from lakehouse_pipeline.iceberg.conformed import check_valid, conform
from lakehouse_pipeline.iceberg.event_time import HOUR_MICROSECONDS, Entry
from lakehouse_pipeline.iceberg.manifests import ADDED
from lakehouse_pipeline.iceberg.parquet_file import OpenFile
from lakehouse_pipeline.iceberg.partitions import Values
from lakehouse_pipeline.iceberg.schemas import arrow_schema
from lakehouse_pipeline.iceberg.sorted_rows import OrderCheck, said
from lakehouse_pipeline.iceberg.write_target import WriteTarget
from lakehouse_pipeline.object_store.counts import RequestCounts, add_reports, counting, report
from lakehouse_pipeline.object_store.objects import ObjectInfo, PreconditionFailedError

logger = logging.getLogger(__name__)

BUCKET = "_bucket"  # the column that carries a row's bucket to the writer; engines need no task context for it

ROW_GROUP_BYTES = 128 * 1024**2  # Iceberg's default of write.parquet.row-group-size-bytes, here in Arrow bytes
ROW_GROUP_ROWS = 1024**2  # PyIceberg's default of write.parquet.row-group-limit
SMALLEST_ROW_GROUP = 256 * 1024  # bytes of Arrow: below that a file rolls rather than getting a sliver
BATCH_ROWS = 65_536  # that are read back at once
TRIES = 16  # names that a file may find taken before its writer gives up

WRITTEN = pa.schema(
    [
        ("path", pa.string()),
        ("rows", pa.int64()),
        ("size", pa.int64()),
        ("etag", pa.string()),
        ("entry", pa.binary()),
        ("requests", pa.string()),
        ("content", pa.int64()),
    ]
)


FILE_COLUMNS = WRITTEN.names[:-2]


class OtherHourError(DataError):
    """A row is of another hour than the one that is written."""


@dataclass(frozen=True)
class WrittenFile:
    """A data file on storage that no snapshot knows yet.

    Attributes:
        path: where it lies.
        rows: rows in it.
        size: bytes on storage.
        etag: the store's tag of this version.
        entry: its manifest entry, Avro-encoded (`iceberg.manifest_files.ManifestKind`).
    """

    path: str
    rows: int
    size: int
    etag: str
    entry: bytes


def write_batches(target: WriteTarget, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Write a task's rows and give a `WRITTEN` batch: the files they became, and a row of what the task sent.

    Args:
        target: the attempt.
        batches: the table's columns by name, and `_bucket` (int32, not null).

    Raises:
        DataError: a row of another hour, a null in a required column, or too many partitions mixed with each other.
        SafetyError: rows came out of order where the table is sorted.
        TransientError: the store did not take a file within its retries.
    """
    with counting() as counter:
        written = write_files(target, batches)
    rows = [*map(vars, written), {"requests": report(counter.snapshot())}]
    yield pa.RecordBatch.from_pylist(rows, schema=WRITTEN)


def write_files(
    target: WriteTarget,
    batches: Iterable[pa.RecordBatch],
    read_back: Callable[[pa.RecordBatch], None] | None = None,
    encoding: AbstractContextManager[object] | None = None,
) -> list[WrittenFile]:
    """Write rows as `write_batches` does, and give the files that they became.

    Args:
        target: the attempt.
        batches: as for `write_batches`.
        read_back: told the rows of each file, read from it once it is whole and before it is uploaded. Files are then
            read back and uploaded in a thread, one at a time, while the next one is written.
        encoding: held while rows are read and encoded; not while the last files are uploaded.
    """
    with (
        tempfile.TemporaryDirectory(prefix="lakehouse-") as folder,
        ThreadPoolExecutor(1) if read_back else nullcontext() as uploads,
    ):
        task = _Task(target, Path(folder), read_back, uploads)
        with encoding or nullcontext():
            for batch in batches:
                task.write(batch)
            task.finish()
        return task.close()


def written_files(batches: Iterable[pa.RecordBatch]) -> list[WrittenFile]:
    """Read the files from what `write_batches` gave."""
    rows = (row for batch in batches for row in batch.select(FILE_COLUMNS).to_pylist())
    return [WrittenFile(**row) for row in rows if row["path"] is not None]


def requests_sent(batches: Iterable[pa.RecordBatch]) -> RequestCounts:
    """Read what the tasks sent from what `write_batches` gave."""
    return add_reports(text for batch in batches for text in batch.column("requests").to_pylist() if text)


@dataclass
class _Task:
    """The writers of a task, one for each bucket and partition that has rows, and what they share.

    Memory is bounded by all of them together: the one that holds most makes a row group of it.
    """

    target: WriteTarget
    folder: Path
    read_back: Callable[[pa.RecordBatch], None] | None = None
    uploads: ThreadPoolExecutor | None = None
    under_way: "Future[None] | None" = None
    writers: dict[str, "_PartitionWriter"] = field(default_factory=dict)  # the one that waits longest is first
    finished: dict[str, "_PartitionWriter"] = field(default_factory=dict)
    numbers: Counter[tuple[int, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.claims = self.target.new_claims()
        self.schema = arrow_schema(self.target.schema)
        self.row_group_bytes = int(self.target.properties.get("write.parquet.row-group-size-bytes", ROW_GROUP_BYTES))
        self.row_group_rows = int(self.target.properties.get("write.parquet.row-group-limit", ROW_GROUP_ROWS))

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows; row groups and files are finished on the way."""
        check_valid(batch)
        rows = conform(batch.drop_columns([BUCKET]), self.schema)
        check_hour(rows, self.target.hour, self.target.hour_column)
        for bucket, values, part in self.target.partitions.split(batch.column(BUCKET), rows):
            self._writer(bucket, values).write(part)
            while len(self.writers) > 1 and self._buffered() >= self.row_group_bytes:
                max(self.writers.values(), key=lambda writer: writer.buffered_bytes).flush()

    def _buffered(self) -> int:
        return sum(writer.buffered_bytes for writer in self.writers.values())

    def _writer(self, bucket: int, values: Values) -> "_PartitionWriter":
        key = f"{bucket} {values!r}"  # NaN is not equal to itself, but to its text
        if key in self.finished:
            fields = ", ".join(f.name for f in self.target.spec.fields)
            raise DataError(
                f"rows of more than {MAX_OPEN} partitions ({fields}) come mixed in one task; the first that came back "
                f"is {self.finished[key].path}. {_way_out(self.target.spec)}"
            )
        writer = self.writers.pop(key, None)
        if writer is None:
            if len(self.writers) >= MAX_OPEN:
                longest = next(iter(self.writers))
                self.writers[longest].close()
                self.finished[longest] = self.writers.pop(longest)
            writer = _PartitionWriter(self, bucket, values)
        self.writers[key] = writer
        return writer

    def number(self, bucket: int, path: str) -> int:
        """Give the number of the next file of a bucket at a partition path; see `WriteTarget.file_url`."""
        return self.numbers[bucket, path if self.target.paths_in_keys else ""]

    def uploaded(self, bucket: int, path: str) -> None:
        """Count a file."""
        self.numbers[bucket, path if self.target.paths_in_keys else ""] += 1

    def claim(self, bucket: int, path: str) -> None:
        """Say that the bucket puts files at a partition path, and at those of its other open files, in one object."""
        others = [writer.path for writer in self.writers.values() if writer.bucket == bucket]
        self.claims.cover(bucket, path, others=others)

    def upload(self, call: Callable[[], None]) -> None:
        """Upload a file, in the background if there is one; those of before are there, or their failure is raised."""
        if self.uploads is None:
            call()
            return
        self.wait()
        self.under_way = self.uploads.submit(copy_context().run, call)

    def wait(self) -> None:
        """Wait for the file that is on its way."""
        if self.under_way:
            self.under_way.result()

    def finish(self) -> None:
        """Finish all files; the last may still be on its way."""
        for writer in self.writers.values():
            writer.close()

    def close(self) -> list[WrittenFile]:
        """Finish all files and give them, by bucket."""
        self.finish()
        self.wait()
        writers = sorted((*self.finished.values(), *self.writers.values()), key=lambda writer: writer.bucket)
        return [file for writer in writers for file in writer.written]


@dataclass
class _PartitionWriter:
    """The files of one bucket and partition, one after the other."""

    task: _Task
    bucket: int
    values: Values
    written: list[WrittenFile] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.target = self.task.target
        self.path = self.target.partitions.path(self.values)
        self.order = OrderCheck.of(self.target.sort_order, self.target.schema)
        self.ratio = 1.0  # bytes on storage per Arrow byte; measured from the first row group on
        self.file: OpenFile | None = None
        self.begun = 0
        self.buffered: list[pa.RecordBatch] = []
        self.buffered_bytes = self.buffered_rows = 0

    def write(self, rows: pa.RecordBatch) -> None:
        """Take rows; row groups and files are finished on the way."""
        self.order.feed(rows)
        while rows.num_rows:
            part = rows.slice(0, self._fitting(rows))
            rows = rows.slice(part.num_rows)
            self.buffered.append(part)
            self.buffered_bytes += part.nbytes
            self.buffered_rows += part.num_rows
            if self.buffered_bytes >= self._room() or self.buffered_rows >= self.task.row_group_rows:
                self.flush()

    def close(self) -> None:
        """Finish the last file."""
        if self.buffered:
            self.flush()
        self._finish()

    def _room(self) -> float:
        """Arrow bytes that the next row group may have so that the file ends near its target."""
        written = self.file.size() if self.file else 0
        return min(self.task.row_group_bytes, max(SMALLEST_ROW_GROUP, (self.target.file_size - written) / self.ratio))

    def _fitting(self, rows: pa.RecordBatch) -> int:
        """Rows that the next row group still has room for, at least one: batches may be larger than row groups."""
        by_bytes = math.ceil((self._room() - self.buffered_bytes) * rows.num_rows / max(rows.nbytes, 1))
        return max(1, min(int(by_bytes), self.task.row_group_rows - self.buffered_rows))

    def flush(self) -> None:
        """Make a row group of what is buffered; the file is finished if it is then large enough."""
        table = pa.Table.from_batches(self.buffered)
        if self.file is None:
            path = self.task.folder / f"{self.bucket}-{id(self)}-{self.begun}"
            self.begun += 1  # the one before may still be on its way
            self.file = OpenFile.start(path, self.target.schema, self.target.properties, table)
        before = self.file.size()
        self.file.write(table)
        self.ratio = max((self.file.size() - before) / max(self.buffered_bytes, 1), 0.001)
        self.buffered, self.buffered_bytes, self.buffered_rows = [], 0, 0
        if self.target.file_size - self.file.size() < SMALLEST_ROW_GROUP * self.ratio:
            self._finish()

    def _finish(self) -> None:
        if self.file is None:
            return
        self.task.claim(self.bucket, self.path)  # before the first file is there: who removes them must know where
        file, number = self.file, self.task.number(self.bucket, self.path)
        self.task.upload(lambda: self.written.append(self._upload(file, number)))
        self.task.uploaded(self.bucket, self.path)
        self.file = None

    def _upload(self, file: OpenFile, number: int) -> WrittenFile:
        statistics = file.close() | {"sort_order_id": self.order.sort_order_id}
        if self.task.read_back:
            with pq.ParquetFile(file.path) as parquet:
                for batch in parquet.iter_batches(BATCH_ROWS):
                    self.task.read_back(batch)
        size = file.path.stat().st_size

        def put(url: str) -> ObjectInfo:
            with file.path.open("rb") as body:
                return self.target.files.put(url, body, if_absent=True)

        url, etag = put_new(self.target, (self.bucket, number, self.path), put, self.task.claims)
        file.path.unlink()
        partition = self.target.partitions.record(self.values)
        entry = entry_of(partition, url, size, file.rows, statistics)
        return WrittenFile(url, file.rows, size, etag, self.target.kind.encode(entry))


def put_new(
    target: WriteTarget,
    place: tuple[int, int, str],
    put: Callable[[str], ObjectInfo],
    claims: Claims,
) -> tuple[str, str]:
    """Put a file under the first of its names that nothing has, each of them claimed; gives that and its ETag.

    Args:
        target: the attempt.
        place: the file's bucket, number and partition path.
        put: puts it at a URL that has nothing yet.
        claims: what its writer has said of the attempt's files.

    Raises:
        SafetyError: all names are taken.
    """
    bucket, number, path = place
    for attempt_try in range(TRIES):
        url = target.file_url(bucket, number, attempt_try, path)
        claims.cover(bucket, path, number, attempt_try)
        try:
            return url, put(url).etag
        except PreconditionFailedError:
            logger.info("%s is taken by another writing of this task; the next try has its own name", url)
    raise SafetyError(f"{TRIES} names of file {number} in bucket {bucket} are taken: {url}")


def _way_out(spec: PartitionSpec) -> str:
    """Say what brings the rows of a partition together: sorting does, unless the partitions are of a hash."""
    hashes = [field for field in spec.fields if isinstance(field.transform, BucketTransform)]
    if not hashes:
        return (
            "Sort the table by the columns that it is partitioned by, so that the rows of a partition come together, "
            "or partition it by less"
        )
    said = ", ".join(f"{field.name} is {field.transform}" for field in hashes)
    others = [f for f in spec.fields if f not in hashes and not isinstance(f.transform, HourTransform)]
    sort = f", and sort the table by the columns of {', '.join(f.name for f in others)}" if others else ""
    return f"Buckets are of a hash ({said}), so that no sort brings their rows together: write a smaller n{sort}"


def entry_of(partition: Mapping[str, Any], url: str, size: int, rows: int, statistics: Mapping[str, Any]) -> Entry:
    """Make the manifest entry of a new data file.

    Args:
        partition: its partition tuple.
        url: where it lies.
        size: bytes on storage.
        rows: in it.
        statistics: `column_statistics`, and the sort order's id.
    """
    maps = ("column_sizes", "value_counts", "null_value_counts", "nan_value_counts", "lower_bounds", "upper_bounds")
    return {
        "status": ADDED,
        "data_file": {
            "content": 0,
            "file_path": url,
            "file_format": "PARQUET",
            "partition": partition,
            "record_count": rows,
            "file_size_in_bytes": size,
            **{name: [{"key": key, "value": value} for key, value in statistics[name].items()] for name in maps},
            "split_offsets": statistics["split_offsets"],
            "sort_order_id": statistics["sort_order_id"],
        },
    }


def check_hour(rows: pa.RecordBatch, hour: HourWindow, column: str) -> None:
    """Hold every row's event time against the hour.

    Raises:
        OtherHourError: names the first row of another hour.
        DataError: a row has no event time.
    """
    if rows.column(column).null_count:  # the table's column may be optional
        raise DataError(
            f"{rows.column(column).null_count} of {rows.num_rows} rows have no {column}, so they are of no hour; "
            "filter them in the transform"
        )
    instants = rows.column(column).cast(pa.int64())  # microseconds since 1970, as the type is
    low = hour.ordinal * HOUR_MICROSECONDS
    limits = pc.min_max(instants)
    if not rows.num_rows or (limits["min"].as_py() >= low and limits["max"].as_py() < low + HOUR_MICROSECONDS):
        return
    outside = rows.filter(pc.or_(pc.less(instants, low), pc.greater_equal(instants, low + HOUR_MICROSECONDS)))
    first = said(outside, 0)
    raise OtherHourError(
        f"{outside.num_rows} of {rows.num_rows} rows are of another hour than {hour.key} UTC; "
        f"the first has {column} = {first[column]}: {first}. "
        "Land them in the files of their hour, or filter them in the transform"
    )

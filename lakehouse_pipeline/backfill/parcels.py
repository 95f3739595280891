"""Rows on their way to the bucket that they are sorted in: parcels of Arrow data, which an engine moves unopened.

A task packs what it has read or transformed by bucket; the engine brings the parcels of a bucket to one task, which
sorts their rows in bounded memory. No row is taken apart by the engine, and no engine has to keep, or to have, a sort.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812  # the name that every Spark user knows it by

from lakehouse_pipeline.backfill.placement import Ranges
from lakehouse_pipeline.engines.capabilities import capabilities
from lakehouse_pipeline.iceberg.checksum import Columns as Checked
from lakehouse_pipeline.iceberg.checksum import checksum
from lakehouse_pipeline.iceberg.conformed import conform
from lakehouse_pipeline.iceberg.data_files import BUCKET
from lakehouse_pipeline.iceberg.row_order import Columns
from lakehouse_pipeline.iceberg.sorting import pieces, sorted_batches

PACKED_BYTES = 64 * 1024**2  # of rows that a task packs at once
PARCEL_BYTES = 4 * 1024**2  # of one parcel, at most, unless a row is larger
SENT_BYTES = 1024**2  # of small parcels that go to the engine at once; a larger one is not copied once more
SORT_BYTES = 64 * 1024**2  # of memory that a task sorts in; more goes by its disk, which takes no longer

_SIZE, _CONTENT, _PARCEL = "_size", "_content", "_parcel"
PARCELS = pa.schema([(BUCKET, pa.int32()), (_SIZE, pa.int32()), (_CONTENT, pa.int64()), (_PARCEL, pa.binary())])

# Zstandard at its least costs a task 1 s a GB, and the JVM several for each GB that it need not copy and compress.
_CODEC = "zstd"


class _Parcel(NamedTuple):
    """Rows of a bucket.

    Attributes:
        bucket: where they go.
        size: bytes before they were compressed.
        content: what they add up to; None where nobody asks.
        body: a compressed message of Arrow's.
    """

    bucket: int
    size: int
    content: int | None
    body: pa.Buffer


def packed(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, ranges: Ranges, checked: Checked = ()
) -> Iterator[pa.RecordBatch]:
    """Pack rows by bucket, as `PARCELS`.

    Args:
        batches: rows in any order.
        schema: of the parcels' rows; of all parcels the same.
        ranges: which bucket a row goes to.
        checked: columns whose content is added up, for whoever reads the files that the rows become.

    Raises:
        DataError: a row does not fit the schema.
    """
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in pieces((conform(batch, schema) for batch in batches), PACKED_BYTES // 8):
        held.append(batch)
        size += batch.nbytes
        if size >= PACKED_BYTES:
            yield from _sent(_parcels(pa.concat_batches(held), ranges, checked))
            held, size = [], 0
    if held:
        yield from _sent(_parcels(pa.concat_batches(held), ranges, checked))


def _parcels(rows: pa.RecordBatch, ranges: Ranges, checked: Checked) -> Iterator[_Parcel]:
    buckets = ranges.buckets(rows)
    ends = np.cumsum(np.bincount(buckets, minlength=ranges.count))
    if ranges.count > 1:
        small = buckets.astype(np.uint16 if ranges.count < 2**16 else np.uint32)  # sorted by digits
        rows = rows.take(pa.array(np.argsort(small, kind="stable")))
    for bucket, end in enumerate(ends):
        start = ends[bucket - 1] if bucket else 0
        if end > start:
            for piece in pieces([rows.slice(start, end - start)], PARCEL_BYTES):
                body = piece.serialize()
                content = checksum(piece, checked).signed if checked else None
                yield _Parcel(bucket, body.size, content, pa.compress(body, _CODEC))


def _sent(parcels: Iterable[_Parcel]) -> Iterator[pa.RecordBatch]:
    held: list[_Parcel] = []
    size = 0
    for parcel in parcels:
        held.append(parcel)
        size += parcel.body.size
        if size >= SENT_BYTES:
            yield _batch(held)
            held, size = [], 0
    if held:
        yield _batch(held)


def _batch(parcels: list[_Parcel]) -> pa.RecordBatch:
    buckets, sizes, contents, bodies = zip(*parcels, strict=True)
    offsets = np.cumsum([0, *(body.size for body in bodies)], dtype=np.int32)
    body = bodies[0] if len(bodies) == 1 else pa.py_buffer(b"".join(bodies))
    cells = pa.Array.from_buffers(pa.binary(), len(bodies), [None, pa.py_buffer(offsets), body])
    numbers = (pa.array(buckets, pa.int32()), pa.array(sizes, pa.int32()), pa.array(contents, pa.int64()))
    return pa.record_batch([*numbers, cells], PARCELS)


def placed(parcels: DataFrame, buckets: int) -> DataFrame:
    """Bring the parcels of a bucket to one task; where an engine cannot place exactly, a task may have several."""
    if capabilities(parcels.sparkSession).places_exactly:
        return parcels.repartitionById(buckets, F.col(BUCKET))
    return parcels.repartition(buckets, F.col(BUCKET))


def sorted_rows(batches: Iterable[pa.RecordBatch], schema: pa.Schema, order: Columns) -> Iterator[pa.RecordBatch]:
    """Give the rows of a task's parcels by bucket and in order, with their bucket.

    Args:
        batches: `PARCELS`.
        schema: of the parcels' rows.
        order: columns and whether they descend.

    Raises:
        TransientError: the disk did not take what is more than `SORT_BYTES`.
    """
    # Spark tells its workers where its own sorts would go: a cluster has disks for that.
    disk = os.environ.get("SPARK_LOCAL_DIRS", "").partition(",")[0] or None
    with tempfile.TemporaryDirectory(prefix="lakehouse-", dir=disk) as folder:
        rows = (rows for batch in batches for rows in _opened(batch, schema))
        yield from sorted_batches(rows, ((BUCKET, False), *order), memory=SORT_BYTES, folder=Path(folder))


class Content:
    """What the rows of parcels added up to as they were packed.

    Attributes:
        total: of all parcels that have passed so far; see `Checksum.total`.
    """

    def __init__(self) -> None:
        """Nothing has passed yet."""
        self.total = 0

    def passing(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Let `PARCELS` pass, and add up what they say."""
        for batch in batches:
            self.total += sum(content or 0 for content in batch.column(_CONTENT).to_pylist())
            yield batch


def _opened(batch: pa.RecordBatch, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    buckets, sizes = batch.column(BUCKET).to_pylist(), batch.column(_SIZE).to_pylist()
    for bucket, size, cell in zip(buckets, sizes, batch.column(_PARCEL), strict=True):
        body = pa.decompress(cell.as_buffer(), size, _CODEC)
        rows = pa.ipc.read_record_batch(body, schema)
        yield rows.append_column(BUCKET, pa.array(np.full(rows.num_rows, bucket, np.int32)))

"""Which bucket a row goes to, and how an engine is made to keep it there in order.

A sorted hour of several files is cut into ranges of the sort order. The bounds come from a sample of the hour, never
from an engine's range partitioning: Spark's runs the whole plan a second time for it, and Sail's does not partition by
range.
"""

import math
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F  # noqa: N812  # the name that every Spark user knows it by
from pyspark.sql.types import DataType, DateType, StructType, TimestampNTZType, TimestampType

from lakehouse_pipeline.backfill.views import task_count
from lakehouse_pipeline.config.table import SortField, TableSpec
from lakehouse_pipeline.engines.capabilities import capabilities
from lakehouse_pipeline.hours import HOUR, HourWindow
from lakehouse_pipeline.iceberg.data_files import BUCKET

SAMPLED_ROWS_A_BUCKET = 2_000  # a bucket then misses its share by some 5 %, whatever the distribution
BYTES_A_ROW = 50  # on storage; a guess that only the size of the sample depends on

_ROW = "_row"  # a sort that something consumes is not dropped; the writer takes the table's columns only
_EPOCH = date(1970, 1, 1)

Bound = tuple[Any, ...]


def bucket_count(spec: TableSpec, hour: HourWindow, size: int, cores: int) -> int:
    """Give the number that every `_bucket` of an hour is below, so that its files can be named.

    Args:
        spec: its sort order and file size.
        hour: the hour.
        size: bytes of the source: the best guess there is at the bytes of the files.
        cores: tasks that run at once.
    """
    return max(1, math.ceil(size * share_of(spec, hour) / spec.file_size)) if spec.sort else task_count(size, cores)


def share_of(spec: TableSpec, hour: HourWindow) -> float:
    """Guess the share of its source that is an hour's: files may hold a day's hours, or all of a table's."""
    span = spec.source.span(hour)
    if span is None:
        span = (spec.start.start, spec.end.start if spec.end else spec.start.start + timedelta(days=1))
    return HOUR / max(span[1] - span[0], HOUR)


def into_buckets(frame: DataFrame, spec: TableSpec, buckets: int, bounds: Sequence[Bound]) -> DataFrame:
    """Give every row its bucket, the buckets sorted if the table is; what is not sorted stays in its task.

    Args:
        frame: the table's columns.
        spec: its sort order.
        buckets: how many there may be.
        bounds: of a sorted table: at most `buckets - 1` rows of sort columns, in order.
    """
    if not spec.sort:
        return frame.coalesce(buckets).withColumn(BUCKET, F.spark_partition_id())
    placed = frame.withColumn(BUCKET, bucket_of(spec.sort, frame.schema, bounds))
    known = capabilities(frame.sparkSession)
    order = [F.desc(field.column) if field.descending else F.asc(field.column) for field in spec.sort]
    if not known.keeps_sort:
        number = F.row_number().over(Window.partitionBy(BUCKET).orderBy(*order))
        return placed.withColumn(_unused(_ROW, placed.columns), number)
    if not bounds:
        placed = placed.repartition(1)
    elif known.places_exactly:
        placed = placed.repartitionById(len(bounds) + 1, F.col(BUCKET))
    else:
        placed = placed.repartition(len(bounds) + 1, F.col(BUCKET))
    return placed.sortWithinPartitions(BUCKET, *order)


def _unused(name: str, columns: Sequence[str]) -> str:
    """Give a name that no column has, in whatever case."""
    taken = {column.casefold() for column in columns}
    while name.casefold() in taken:
        name += "_"
    return name


def bounds_of(sample: pa.Table, sort: Sequence[SortField], buckets: int) -> list[Bound]:
    """Cut a sample into equal parts and give the first row of each but the first.

    Args:
        sample: rows of the sort columns, in any order.
        sort: the order: nulls first ascending, last descending; NaN above every number.
        buckets: parts; equal rows never stand on both sides of a bound, so there may be fewer.
    """
    rows = [tuple(row[field.column] for field in sort) for row in sample.to_pylist()]
    for place, field in reversed(list(enumerate(sort))):
        rows.sort(key=lambda row: _ascending(row[place]), reverse=field.descending)  # used at once
    cuts = [rows[len(rows) * part // buckets] for part in range(1, buckets)] if rows else []
    return [cut for place, cut in enumerate(cuts) if place == 0 or _keys(cut) != _keys(cuts[place - 1])]


def _ascending(value: Any) -> tuple[Any, ...]:
    """Give what a value sorts by, as Iceberg and Spark sort: null, numbers, NaN."""
    if value is None:
        return (0,)
    if isinstance(value, float) and math.isnan(value):
        return (2,)
    return (1, value.encode() if isinstance(value, str) else value)


def _keys(row: Bound) -> tuple[tuple[Any, ...], ...]:
    return tuple(map(_ascending, row))


def bucket_of(sort: Sequence[SortField], schema: StructType, bounds: Sequence[Bound]) -> SparkColumn:
    """Give the number of bounds that do not come after a row: a search by halves, in the engine's own expressions."""
    types = {field.name: field.dataType for field in schema.fields}

    def search(low: int, high: int) -> SparkColumn:
        if low == high:
            return F.lit(low)
        middle = (low + high) // 2
        before = _comes_before(sort, types, bounds[middle])
        return F.when(before, search(low, middle)).otherwise(search(middle + 1, high))

    return search(0, len(bounds)).cast("int")


def _comes_before(sort: Sequence[SortField], types: dict[str, DataType], bound: Bound) -> SparkColumn:
    """Tell whether a row comes before a bound; never null."""
    result = F.lit(False)
    for field, value in reversed(list(zip(sort, bound, strict=True))):
        column, limit = F.col(field.column), literal(value, types[field.column])
        less, null = (column > limit, column.isNull()) if field.descending else (column < limit, column.isNull())
        if value is None:  # the lowest of all: what descends has everything else before it
            less = ~null if field.descending else F.lit(False)
        else:
            less = F.when(null, F.lit(not field.descending)).otherwise(less)
        result = less | (column.eqNullSafe(limit) & result)
    return result


def literal(value: Any, kind: DataType) -> SparkColumn:
    """Write a value as an expression of a type, whatever time zone the client is in."""
    if value is None:
        return F.lit(None).cast(kind)
    if isinstance(kind, TimestampType | TimestampNTZType) and isinstance(value, datetime):
        since = value.replace(tzinfo=None) - datetime(1970, 1, 1)  # noqa: DTZ001  # both without a zone
        micros = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
        return F.timestamp_micros(F.lit(micros)).cast(kind)
    if isinstance(kind, DateType):
        return F.date_add(F.lit("1970-01-01").cast("date"), F.lit((value - _EPOCH).days))
    if isinstance(value, Decimal):
        return F.lit(str(value)).cast(kind)
    if isinstance(value, bytes):
        return F.unhex(F.lit(value.hex()))
    return F.lit(value).cast(kind)

"""Ranges of the sort order: the bounds that a sample gives, and the bucket that an engine gives every row."""

import math
import random
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from lakehouse_pipeline.backfill.placement import Bound, bounds_of, bucket_of
from lakehouse_pipeline.config.table import SortField
from lakehouse_pipeline.engines.spark_types import spark_schema
from lakehouse_pipeline.iceberg.sorted_rows import first_out_of_order

AT = datetime(2013, 1, 1, 10, tzinfo=UTC)
VALUES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "int": (pa.int32(), [None, -(2**31), -1, 0, 7, 2**31 - 1]),
    "long": (pa.int64(), [None, -(2**63), 0, 2**63 - 1]),
    "double": (pa.float64(), [None, -math.inf, -0.5, 0.0, 1e300, math.inf, math.nan]),
    "string": (pa.string(), [None, "", "a", "a'b\\", "Z", "é", "\U0001f600", "｡"]),
    "binary": (pa.binary(), [None, b"", b"\x00", b"\x7f", b"\xff"]),
    "boolean": (pa.bool_(), [None, False, True]),
    "date": (pa.date32(), [None, date(1900, 1, 1), date(1969, 12, 31), date(2262, 1, 1)]),
    "timestamptz": (pa.timestamp("us", "UTC"), [None, AT.replace(year=1900, microsecond=1), AT]),
    "timestamp": (pa.timestamp("us"), [None, datetime(1900, 1, 1), datetime(2013, 3, 10, 2, 30)]),  # noqa: DTZ001
    "decimal": (pa.decimal128(12, 4), [None, Decimal("-99999999.9999"), Decimal("0.0001"), Decimal(5)]),
}


def _sorted_by(*columns: str) -> tuple[SortField, ...]:
    return tuple(SortField(column=name.lstrip("-"), descending=name.startswith("-")) for name in columns)


def _buckets(spark: SparkSession, rows: pa.Table, sort: tuple[SortField, ...], bounds: list[Bound]) -> pa.Table:
    frame = spark.createDataFrame(rows, schema=spark_schema(rows.schema))
    return frame.withColumn("bucket", bucket_of(sort, frame.schema, bounds)).toArrow()


@pytest.mark.parametrize("order", ["{0}", "-{0}"], ids=["ascending", "descending"])
@pytest.mark.parametrize("name", VALUES)
def test_buckets_follow_the_writers_order(spark: SparkSession, name: str, order: str) -> None:
    """With every value a bound, the rows by bucket are in the order that the writer holds them to."""
    kind, values = VALUES[name]
    sort = _sorted_by(order.format("v"))
    rows = pa.table({"v": pa.array(values, kind)})
    placed = _buckets(spark, rows, sort, bounds_of(rows, sort, len(values))).sort_by("bucket")
    columns = (("v", sort[0].descending),)
    assert first_out_of_order(placed.select(["v"]).to_batches()[0], columns) is None
    assert len(set(placed["bucket"].to_pylist())) == len(values)


def test_rows_of_several_columns_are_cut_as_tuples(spark: SparkSession) -> None:
    """Bounds compare all of the sort columns, each in its direction, and the buckets are of equal size."""
    seeded = random.Random(7)  # noqa: S311  # no secret
    rows = pa.table(
        {
            "a": pa.array([seeded.choice([None, "x", "y"]) for _ in range(4000)]),
            "b": pa.array([seeded.choice([None, seeded.random()]) for _ in range(4000)]),
            "c": pa.array(range(4000)),
        }
    )
    sort = _sorted_by("a", "-b", "c")
    placed = _buckets(spark, rows, sort, bounds_of(rows, sort, 8)).sort_by("bucket")
    sizes = [placed["bucket"].to_pylist().count(bucket) for bucket in range(8)]
    assert sizes == [500] * 8
    edges = []
    for bucket in range(8):
        part = bounds_of(placed.slice(bucket * 500, 500).select(["a", "b", "c"]), sort, 500)
        edges += [part[0], part[-1]]
    joined = pa.RecordBatch.from_pylist([dict(zip("abc", edge, strict=True)) for edge in edges], rows.schema)
    assert first_out_of_order(joined, (("a", False), ("b", True), ("c", False))) is None


@pytest.mark.parametrize(
    ("values", "buckets", "bounds"),
    [
        pytest.param([], 4, [], id="no rows"),
        pytest.param([1], 4, [(1,)], id="one row"),
        pytest.param([5] * 100, 4, [(5,)], id="one value"),
        pytest.param([1, 2, 3, 4], 2, [(3,)], id="halves"),
        pytest.param([None, None, None, 1], 4, [(None,), (1,)], id="mostly null"),
        pytest.param(list(range(100)), 1, [], id="one bucket"),
    ],
)
def test_bounds_are_distinct(values: list[int | None], buckets: int, bounds: list[Bound]) -> None:
    """Equal rows are never cut apart, so there may be fewer buckets than asked for."""
    assert bounds_of(pa.table({"v": pa.array(values, pa.int64())}), _sorted_by("v"), buckets) == bounds

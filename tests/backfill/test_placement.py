"""Ranges of the sort order: the bounds that a sample gives, and the bucket that every row gets by them."""

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lakehouse_pipeline.backfill.nearby import recent
from lakehouse_pipeline.backfill.placement import Ranges, sampled, whole
from lakehouse_pipeline.iceberg.row_order import order_of
from lakehouse_pipeline.iceberg.sorted_files import SortedFile
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


V = (("v", False),)


def _longs(*values: int | None) -> pa.RecordBatch:
    return pa.record_batch({"v": pa.array(values, pa.int64())})


def _by_bucket(rows: pa.RecordBatch, ranges: Ranges) -> list[pa.RecordBatch]:
    found = ranges.buckets(rows)
    return [rows.filter(pa.array(found == bucket)) for bucket in range(ranges.count)]


def _edges(parts: list[pa.RecordBatch], order: tuple[tuple[str, bool], ...]) -> pa.RecordBatch:
    """Give the first and the last row of each part, part after part."""
    names = [name for name, _ in order]
    ends = [part.select(names).take(pa.array(order_of(part, order)[[0, -1]])) for part in parts if part.num_rows]
    return pa.concat_batches(ends)


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("name", VALUES)
def test_buckets_follow_the_writers_order(name: str, *, descending: bool) -> None:
    """With every value a bound, each has a bucket of its own, in the order that the writer holds rows to."""
    kind, values = VALUES[name]
    rows, order = pa.record_batch({"v": pa.array(values, kind)}), (("v", descending),)
    ranges = sampled(rows, order, len(values))
    found = ranges.buckets(rows)
    assert sorted(found) == list(range(len(values)))
    assert first_out_of_order(rows.take(pa.array(np.argsort(found))), order) is None


def test_rows_of_several_columns_are_cut_as_tuples() -> None:
    """Bounds compare all of the sort columns, each in its direction, and the buckets are of equal size."""
    random = np.random.default_rng(7)
    rows = pa.record_batch(
        {
            "a": pa.array(random.choice(["x", "y"], 4000), mask=random.random(4000) < 0.3),
            "b": pa.array(random.random(4000), mask=random.random(4000) < 0.5),
            "c": pa.array(range(4000)),
        }
    )
    order = (("a", False), ("b", True), ("c", False))
    parts = _by_bucket(rows, sampled(rows, order, 8))
    assert [part.num_rows for part in parts] == [500] * 8
    assert first_out_of_order(_edges(parts, order), order) is None


@pytest.mark.parametrize(
    ("values", "buckets", "bounds"),
    [
        pytest.param([], 4, [], id="no rows"),
        pytest.param([1], 4, [1, 1, 1], id="one row"),
        pytest.param([5] * 100, 4, [5, 5, 5], id="one value"),
        pytest.param([4, 1, 3, 2], 2, [3], id="halves"),
        pytest.param([None, 1, None, None], 4, [None, None, 1], id="mostly null"),
        pytest.param(list(range(100)), 1, [], id="one bucket"),
    ],
)
def test_a_sample_is_cut_into_equal_parts(values: list[int | None], buckets: int, bounds: list[int | None]) -> None:
    """A bound is the first row of a part, however often it comes."""
    assert sampled(_longs(*values), V, buckets).bounds.column("v").to_pylist() == bounds


def test_an_hour_that_is_not_cut_is_one_bucket() -> None:
    """Without bounds every row goes to the first bucket."""
    ranges = whole((("v", True), ("other", False)))
    assert (ranges.count, list(ranges.buckets(_longs(3, None, 1)))) == (1, [0, 0, 0])


def _hot(hot: int, around: int) -> pa.RecordBatch:
    """Make rows of which many have one key, and all are different."""
    keys = [*range(around), *[around] * hot, *range(around + 1, 2 * around + 1)]
    rows = pa.record_batch({"v": pa.array(keys, pa.int64()), "id": pa.array(range(len(keys)))})
    return rows.take(pa.array(np.random.default_rng(3).permutation(len(keys))))


def test_a_hot_key_is_spread() -> None:
    """Rows of one key that are most of an hour go to several buckets, none of them a giant, still in order."""
    rows = _hot(8_000, 1_000)
    parts = _by_bucket(rows, sampled(rows, V, 10))
    assert max(part.num_rows for part in parts) < 2 * rows.num_rows / 10
    assert sum(part.num_rows < 5_000 and 1_000 in part.column("v").to_pylist() for part in parts) > 6
    assert first_out_of_order(_edges(parts, V), V) is None


def test_a_hot_key_of_the_leading_column_alone_is_not_spread_out_of_order() -> None:
    """Rows that the other sort columns tell apart are cut by these."""
    rows, order = _hot(8_000, 1_000), (("v", False), ("id", True))
    parts = _by_bucket(rows, sampled(rows, order, 10))
    assert [part.num_rows for part in parts] == [1_000] * 10
    assert first_out_of_order(_edges(parts, order), order) is None


def test_a_task_that_runs_again_spreads_a_hot_key_alike() -> None:
    """The bucket of a row depends on the row, and not on what comes with it or before it."""
    rows = _hot(2_000, 100)
    ranges = sampled(rows, V, 10)
    found = dict(zip(rows.column("id").to_pylist(), ranges.buckets(rows), strict=True))
    for start in range(0, rows.num_rows, 300):
        part = rows.slice(start, 300).take(pa.array(range(min(300, rows.num_rows - start))[::-1]))
        again = zip(part.column("id").to_pylist(), ranges.buckets(part), strict=True)
        assert all(found[row] == bucket for row, bucket in again)


def _files(*told: tuple[Any, int]) -> list[SortedFile]:
    return [SortedFile(f"s3://lake/{place}.parquet", rows, first) for place, (first, rows) in enumerate(told)]


MICROSECONDS = 1_357_034_400_000_000  # of AT


@pytest.mark.parametrize(
    ("files", "kind", "descending", "buckets", "bounds"),
    [
        pytest.param([(1, 10), (5, 10), (9, 10)], pa.int64(), False, 3, [5, 9], id="as many files as buckets"),
        pytest.param([(9, 10), (1, 10), (5, 10)], pa.int64(), True, 3, [5, 1], id="descending, in any order"),
        pytest.param([(n, 10) for n in range(8)], pa.int32(), False, 4, [2, 4, 6], id="more files"),
        pytest.param([(0, 5), (1, 35), (2, 15), (3, 5)], pa.int64(), False, 3, [1, 2], id="not even, but near"),
        pytest.param([(0, 97), (1, 1), (2, 1), (3, 1)], pa.int64(), False, 4, None, id="a giant"),
        pytest.param([(1, 10), (5, 10)], pa.int64(), False, 3, None, id="fewer files"),
        pytest.param([], pa.int64(), False, 2, None, id="no files"),
        pytest.param([(1, 10), (5, 10), (5, 10)], pa.int64(), False, 3, None, id="the same value twice"),
        pytest.param([(1, 10), (None, 10), (5, 10)], pa.int64(), False, 3, None, id="nulls or NaN alone"),
        pytest.param([("abc", 1), ("sixteen letters ", 1)], pa.string(), False, 2, ["sixteen letters "], id="cut text"),
        pytest.param([(-math.inf, 1), (0.5, 1)], pa.float64(), False, 2, [0.5], id="infinite"),
        pytest.param([(0, 1), (MICROSECONDS, 1)], pa.timestamp("us", "UTC"), False, 2, [AT], id="moments"),
        pytest.param([(0, 1), (1, 1)], pa.date32(), False, 2, [date(1970, 1, 2)], id="days"),
    ],
)
def test_an_hour_is_cut_where_files_of_another_begin(
    files: list[tuple[Any, int]], kind: pa.DataType, *, descending: bool, buckets: int, bounds: list[Any] | None
) -> None:
    """Files that are even enough, and apart in the leading column, give the bounds; others give none."""
    ranges = recent(_files(*files), (("v", descending), ("w", False)), kind, buckets)
    assert (ranges and ranges.bounds.column("v").to_pylist()) == bounds


def test_bounds_of_the_leading_column_cut_no_key_apart() -> None:
    """Rows that are alike in the leading column have one bucket, whatever the other columns hold."""
    ranges = recent(_files((0, 10), (5, 10)), (("v", False), ("w", False)), pa.int64(), 2)
    assert ranges is not None
    rows = pa.record_batch({"v": [4, 5, 5, None, 6], "w": [1, 1, 9, 9, 1]})
    assert list(ranges.buckets(rows)) == [0, 1, 1, 0, 1]


def test_rows_without_a_hot_key_are_placed_whatever_else_they_have() -> None:
    """What a task packs at once may have no row of the key that other tasks have many of."""
    ranges = Ranges((("k", False),), pa.record_batch({"k": ["m", "m", "m"]}))
    amounts = pa.array([1, 2, 3]).cast(pa.decimal128(30, 2))
    rows = pa.record_batch({"k": ["a", "m", "z"], "amount": amounts})
    assert list(ranges.buckets(rows.slice(0, 1))) == [0]
    first, hot, last = ranges.buckets(rows)
    assert (first, last) == (0, 3)
    assert hot in {1, 2, 3}

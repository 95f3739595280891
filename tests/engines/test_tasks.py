"""Tasks end with their hour."""

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from lakehouse_pipeline.engines.spark_types import spark_schema
from lakehouse_pipeline.engines.tasks import ended_with, map_in_arrow


def test_no_worker_outlives_a_failed_block(spark: SparkSession, tmp_path: Path) -> None:
    """Spark calls a task ended before its killed worker is: nothing may be written once the block is left."""
    beats = tmp_path / "beats"

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for _ in range(20_000 * batch.column(0)[0].as_py()):
                with beats.open("a") as file:
                    file.write(".")
                time.sleep(0.001)
            while not beats.exists():
                time.sleep(0.01)
            yield batch
            raise ValueError("no")

    with pytest.raises(PySparkException), ended_with(spark, "test"):
        map_in_arrow(spark.range(0, 2, 1, 2), work, spark_schema(pa.schema([("id", pa.int64())]))).toArrow()
    left_at = beats.stat().st_size
    time.sleep(0.5)
    assert beats.stat().st_size == left_at < 20_000


def test_jobs_show_that_they_get_on(spark: SparkSession, tmp_path: Path) -> None:
    """With each task that ends; and with each batch that one reads."""
    waits = tmp_path / "waits"
    waits.touch()

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            while batch.column(0)[0].as_py() > 0 and waits.exists():
                time.sleep(0.01)
            yield batch

    with ended_with(spark, "signs") as jobs:
        frame = map_in_arrow(spark.range(0, 2, 1, 2), work, spark_schema(pa.schema([("id", pa.int64())])))
        seen: list[Any] = [jobs.signs()]

        def look() -> None:
            while not any(ended for _, _, ended in seen[-1][0]):
                seen.append(jobs.signs())
                time.sleep(0.02)
            waits.unlink()

        looks = threading.Thread(target=look)
        looks.start()
        assert frame.toArrow().num_rows == 2
        looks.join()
    first, last = seen[0], seen[-1]
    assert [ended for _, _, ended in last[0]] == [1]
    assert first[1] < last[1]

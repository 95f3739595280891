"""Arrow's types as Spark's, and back from a task."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from lakehouse_pipeline.engines.spark_types import spark_schema
from lakehouse_pipeline.errors import (
    ConfigurationError,
)

TYPES = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "decimal(38,18)": pa.decimal128(38, 18),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
    "timestamp_ntz": pa.timestamp("us"),
    "string": pa.string(),
    "binary": pa.binary(),
}


@pytest.mark.parametrize(("name", "kind"), TYPES.items(), ids=TYPES)
def test_type_has_a_counterpart(name: str, kind: pa.DataType) -> None:
    """Every type of a spec's column is one of Spark's, null or not."""
    schema = spark_schema(pa.schema([pa.field("optional", kind), pa.field("required", kind, nullable=False)]))
    assert [(field.dataType.simpleString(), field.nullable) for field in schema] == [(name, True), (name, False)]


def test_types_survive_a_task(spark: SparkSession) -> None:
    """What a task gives as Arrow comes back as the same Arrow types."""
    schema = pa.schema([pa.field(f"c{place}", kind) for place, kind in enumerate(TYPES.values())])

    def nothing(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield pa.record_batch([pa.nulls(batch.num_rows, kind) for kind in schema.types], schema)

    given = spark.range(1).mapInArrow(nothing, spark_schema(schema)).toArrow()
    assert given.schema.types == schema.types


def test_type_without_a_counterpart_is_refused() -> None:
    """The column and its type are named."""
    with pytest.raises(ConfigurationError, match="column when: Spark has no type for time64"):
        spark_schema(pa.schema([("when", pa.time64("us"))]))

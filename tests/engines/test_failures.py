"""The errors of tasks and queries, in our own words."""

from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  # the name that every Spark user knows it by

from lakehouse_pipeline import errors
from lakehouse_pipeline.engines.failures import translated
from lakehouse_pipeline.errors import (
    CommitConflictError,
    CommitStateUnknownError,
    ConfigurationError,
    DataError,
    LakehouseError,
    SafetyError,
    TransientError,
)
from lakehouse_pipeline.iceberg.data_files import OtherHourError
from lakehouse_pipeline.object_store.objects import PreconditionFailedError, RequestFailedError

RAISED = {
    "transient": (TransientError("the store is away"), TransientError),
    "its subclass": (RequestFailedError("put s3://b/k: 503 SlowDown: slow", code="SlowDown"), TransientError),
    "precondition": (PreconditionFailedError("412"), LakehouseError),
    "conflict": (CommitConflictError("moved on"), CommitConflictError),
    "unknown": (CommitStateUnknownError("who knows"), CommitStateUnknownError),
    "data": (DataError('s3://raw/14.jsonl.gz:1423 "dep_delay": "late" is not a double'), DataError),
    "plain subclass": (OtherHourError("1 of 2 rows are of another hour"), OtherHourError),
    "configuration": (ConfigurationError("two\nlines"), ConfigurationError),
    "safety": (SafetyError("no: C:\\at\\x (at y)"), SafetyError),
    "root": (LakehouseError("what: now"), LakehouseError),
}


def _raise(error: Exception, cause: Exception | None = None) -> None:
    raise error from cause


@pytest.mark.parametrize(("raised", "kind"), RAISED.values(), ids=RAISED)
def test_error_of_a_task_comes_out_as_itself(
    spark: SparkSession, raised: LakehouseError, kind: type[LakehouseError]
) -> None:
    """Its class is the one of the tree that says what to do next, its message the very words, without a stack."""

    def fail(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        _raise(raised, OSError("lakehouse_pipeline.errors.SafetyError: not this one"))
        yield from batches

    with pytest.raises(LakehouseError) as caught, translated("doing"):
        spark.range(0, 1, 1, 1).mapInArrow(fail, "id long").toArrow()
    assert type(caught.value) is kind
    assert str(caught.value) == str(raised)


def test_every_class_of_the_tree_is_covered() -> None:
    """A new class of error needs a case above."""
    tree = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LakehouseError)}
    assert tree <= {kind for _, kind in RAISED.values()}


def test_notes_of_an_error_stay_with_it(spark: SparkSession) -> None:
    """How often a request was tried is part of what a task says."""

    def fail(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        error = TransientError("put s3://b/k: 503")
        error.add_note("put s3://b/k: gave up after 32 tries in 9.0 s")
        _raise(error)
        yield from batches

    with (
        pytest.raises(TransientError, match=r"put s3://b/k: 503\nput s3://b/k: gave up after 32 tries"),
        translated("x"),
    ):
        spark.range(0, 1, 1, 1).mapInArrow(fail, "id long").toArrow()


def _sql(text: str) -> Callable[[SparkSession], DataFrame]:
    return lambda spark: spark.sql(text)


def _udf(spark: SparkSession) -> DataFrame:
    return spark.range(1).select(F.udf(lambda number: 1 // number, "bigint")("id"))


def _exit(spark: SparkSession) -> DataFrame:
    return spark.range(1).select(F.udf(lambda _: __import__("os")._exit(1), "bigint")("id"))


@pytest.mark.parametrize(
    ("query", "kind", "said"),
    [
        pytest.param(_sql("SELECT 1 FRM x"), ConfigurationError, "Syntax error at or near 'x'", id="syntax"),
        pytest.param(_sql("SELECT nothing"), ConfigurationError, "`nothing` cannot be resolved", id="column"),
        pytest.param(_sql("SELECT * FROM nowhere"), ConfigurationError, "`nowhere` cannot be found", id="view"),
        pytest.param(_sql("SELECT CAST('x' AS INT)"), DataError, "The value 'x' of the type", id="cast"),
        pytest.param(_sql("SELECT 1 / id FROM range(1)"), DataError, "Division by zero", id="division"),
        pytest.param(_sql("SELECT 2147483647 + CAST(1 AS INT)"), DataError, "overflow", id="overflow"),
        pytest.param(_sql("SELECT (SELECT id FROM range(2))"), DataError, "More than one row", id="subquery"),
        pytest.param(_sql("SELECT raise_error('no tail number')"), DataError, "no tail number", id="raise_error"),
        pytest.param(_udf, DataError, "ZeroDivisionError: integer division or modulo by zero", id="UDF"),
        pytest.param(_exit, LakehouseError, "Python worker exited unexpectedly", id="crash"),
    ],
)
def test_failure_of_spark_is_one_sentence(
    spark: SparkSession, query: Callable[[SparkSession], DataFrame], kind: type[LakehouseError], said: str
) -> None:
    """A query that makes no sense, a value that does not fit, a dead worker: its class, its reason, no stack."""
    with pytest.raises(LakehouseError) as caught, translated("events 2013-01-01-10:00"):
        query(spark).toArrow()
    assert type(caught.value) is kind
    assert str(caught.value).startswith("events 2013-01-01-10:00: ")
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_fault_of_our_own_is_none_of_the_data(spark: SparkSession) -> None:
    """An exception from within the package is said with file and line, and as no error of the data."""

    def fail(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from lakehouse_pipeline.iceberg.data_files import written_files  # noqa: PLC0415

        written_files([None])
        yield from batches

    said = r"events: AttributeError: .*data_files.py, line \d+\)"
    with pytest.raises(LakehouseError, match=said) as caught, translated("events"):
        spark.range(0, 1, 1, 1).mapInArrow(fail, "id long").toArrow()
    assert type(caught.value) is LakehouseError

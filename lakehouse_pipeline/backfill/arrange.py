"""Extract, transform, arrange: from an hour's objects to a DataFrame that the writer takes as it comes.

The transform is the user's; the frame that leaves has exactly the table's columns, in buckets that are sorted. Only the
public DataFrame API is used, so that other engines can follow.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
from pyspark import cloudpickle
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  # the name that every Spark user knows it by
from pyspark.sql.types import (
    ByteType,
    DataType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    NullType,
    ShortType,
)

from lakehouse_pipeline.backfill.functions import fault, load_function, module_file
from lakehouse_pipeline.backfill.plan import HourPlan, transform_text
from lakehouse_pipeline.backfill.views import View, read_view, task_count
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.transform import FunctionTransform, SqlTransform
from lakehouse_pipeline.config.types import Column
from lakehouse_pipeline.engines.spark import SPARK_ERRORS, spark_schema, translated
from lakehouse_pipeline.errors import ConfigurationError, DataError, LakehouseError
from lakehouse_pipeline.iceberg.data_files import BUCKET
from lakehouse_pipeline.iceberg.tables import arrow_schema_of, types_of
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources.listing import SourceObject
from lakehouse_pipeline.sources.parquet_files import parquet_schema

SOURCE = "source"  # the name of the hour's own view

_WIDENS: Mapping[type[DataType], tuple[type[DataType], ...]] = {
    ByteType: (ShortType, IntegerType, LongType),
    ShortType: (IntegerType, LongType),
    IntegerType: (LongType,),
    FloatType: (DoubleType,),
}
_PROVENANCE = re.compile(r"\b(_file|_position)\b")


@dataclass(frozen=True)
class Arranged:
    """An hour, ready to be written.

    Attributes:
        frame: the table's columns and `_bucket`, in the order that they are written in.
        rows_read: asks for the rows that came from the source, once the frame was written; None where Spark found that
            it need not read it.
    """

    frame: DataFrame
    rows_read: Callable[[], int | None]


def arrange(
    session: SparkSession,
    spec: TableSpec,
    plan: HourPlan,
    files: LakehouseFileIO,
    *,
    columns: tuple[Column, ...],
    rejects: str,
) -> Arranged:
    """Build the frame of an hour; nothing runs but the reading of small inputs.

    Args:
        session: where.
        spec: the table's spec.
        plan: the hour and its objects.
        files: the store.
        columns: of the Iceberg table.
        rejects: the folder for bad rows, if the spec keeps them.

    Raises:
        ConfigurationError: the transform is wrong, or gives other columns than the table has.
        DataError: a small input holds a bad row.
    """
    cores = cores_of(session)
    source, rows_read = read_view(session, files, source_view(spec, plan, files, columns, rejects), cores)
    views = {
        join.name: read_view(session, files, _join_view(spec, join.name, plan, files), cores)[0] for join in spec.join
    }
    with translated(
        str(spec.transform.file) if isinstance(spec.transform, SqlTransform) else f"{spec.file}: transform"
    ):
        transformed = transform(session, spec, source, views)
        shaped = transformed.select(*conformed(spec, transformed, columns))
        frame = into_buckets(shaped, spec, plan.inputs.bytes, cores)
    return Arranged(frame, rows_read)


def cores_of(session: SparkSession) -> int:
    """Give the tasks that run at once."""
    return session.sparkContext.defaultParallelism


def source_view(
    spec: TableSpec, plan: HourPlan, files: LakehouseFileIO, columns: tuple[Column, ...], rejects: str
) -> View:
    """Describe the hour's own view; `_file` and `_position` are in it where the transform speaks of them."""
    return View(
        spec.source.format,
        plan.inputs.source,
        _schema(spec.source.columns or (None if spec.transform else columns), plan.inputs.source, files),
        rejects if spec.source.bad_rows == "reject" else None,
        provenance=bool(_PROVENANCE.search(transform_text(spec))),
    )


def _join_view(spec: TableSpec, name: str, plan: HourPlan, files: LakehouseFileIO) -> View:
    join = next(join for join in spec.join if join.name == name)
    objects = plan.inputs.joins[name]
    if not objects and not join.columns:
        raise ConfigurationError(
            f"{spec.file}: join.{name}: there is nothing at {join.path} to take its columns from; give it `columns`"
        )
    return View(join.format, objects, _schema(join.columns, objects, files))


def _schema(columns: tuple[Column, ...] | None, objects: tuple[SourceObject, ...], files: LakehouseFileIO) -> pa.Schema:
    return arrow_schema_of(columns) if columns else parquet_schema(files, objects[0])


def transform(session: SparkSession, spec: TableSpec, source: DataFrame, views: Mapping[str, DataFrame]) -> DataFrame:
    """Apply the spec's SQL or function to the hour's views.

    Raises:
        ConfigurationError: there is no such function, or it gives no DataFrame.
        DataError: the function raised.
    """
    if isinstance(spec.transform, SqlTransform):
        for name, frame in {SOURCE: source, **views}.items():
            frame.createOrReplaceTempView(name)
        try:
            return session.sql(spec.transform.text)
        finally:  # the query is resolved: another table of this session must not find this one's views
            for name in (SOURCE, *views):
                session.catalog.dropTempView(name)
    if isinstance(spec.transform, FunctionTransform):
        return _apply(spec, spec.transform, source, views)
    return source


def _apply(
    spec: TableSpec, transform: FunctionTransform, source: DataFrame, views: Mapping[str, DataFrame]
) -> DataFrame:
    module, function = load_function(spec, transform)
    # Its functions travel to Spark's workers by value: those do not look beside the spec.
    cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]
    name = f"{spec.file}: transform: {transform.function}"
    try:
        frame = function(source, **views)
    except (LakehouseError, *SPARK_ERRORS):
        raise  # said by `translated`
    except Exception as error:
        raise DataError(f"{name} failed: {fault(error, module_file(spec, transform))}") from error
    if not isinstance(frame, DataFrame):
        raise ConfigurationError(f"{name} gave no DataFrame: {frame!r}")
    return frame


def conformed(spec: TableSpec, frame: DataFrame, columns: tuple[Column, ...]) -> list[SparkColumn]:
    """Select exactly the table's columns, widening types where that loses nothing.

    Raises:
        ConfigurationError: lists every column that is missing, too many or of another type.
    """
    wanted = {field.name: field.dataType for field in spark_schema(arrow_schema_of(columns))}
    given = {field.name: field.dataType for field in frame.schema.fields}
    problems = [f"there is no column {name}" for name in wanted.keys() - given.keys()]
    problems += [f"column {name} is not in the table" for name in given.keys() - wanted.keys()]
    problems += [
        f"column {name} is {given[name].simpleString()}, the table wants {wanted[name].simpleString()}: "
        f"write CAST({name} AS {wanted[name].simpleString().upper()})"
        for name in wanted.keys() & given.keys()
        if not _fits(given[name], wanted[name])
    ]
    if problems:
        what = "the transform" if spec.transform else "the source"
        raise ConfigurationError(
            f"{spec.file}: {what} does not give the table's columns: " + "; ".join(sorted(problems))
        )
    return [F.col(f"`{name}`").cast(kind).alias(name) for name, kind in wanted.items()]


def _fits(given: DataType, wanted: DataType) -> bool:
    if isinstance(given, DecimalType) and isinstance(wanted, DecimalType):
        whole = wanted.precision - wanted.scale >= given.precision - given.scale
        return whole and wanted.scale >= given.scale
    return type(given) is type(wanted) or isinstance(given, NullType) or type(wanted) in _WIDENS.get(type(given), ())


def bucket_count(spec: TableSpec, size: int, cores: int) -> int:
    """Give the number that every `_bucket` of an hour is below, so that its files can be named.

    Args:
        spec: its sort order and file size.
        size: bytes of the source: the best guess there is at the bytes of the files.
        cores: tasks that run at once.
    """
    return max(1, math.ceil(size / spec.file_size)) if spec.sort else task_count(size, cores)


def into_buckets(frame: DataFrame, spec: TableSpec, size: int, cores: int) -> DataFrame:
    """Give every row its bucket, the buckets sorted if the table is; what is not sorted stays in its task."""
    buckets = bucket_count(spec, size, cores)
    if not spec.sort:
        return frame.coalesce(buckets).withColumn(BUCKET, F.spark_partition_id())
    order = [F.desc(field.column) if field.descending else F.asc(field.column) for field in spec.sort]
    if buckets > 1:
        placed = frame.repartitionByRange(buckets, *order)
    else:
        placed = frame.coalesce(1) if task_count(size, cores) == 1 else frame.repartition(1)
    return placed.sortWithinPartitions(*order).withColumn(BUCKET, F.spark_partition_id())


def new_columns(spec: TableSpec, files: LakehouseFileIO, objects: tuple[SourceObject, ...]) -> tuple[Column, ...]:
    """Give the columns of a table that does not exist yet: the spec's, or those of the hour's first file.

    Raises:
        ConfigurationError: there is neither, or a spec with these columns would be refused.
        DataError: the file has a column of a type that is not known here.
    """
    if spec.target_columns is not None:
        return spec.target_columns
    if spec.transform is not None or not objects:
        raise ConfigurationError(
            f"{spec.file}: the table does not exist yet and nothing says which columns it has; give it `columns`"
        )
    types = types_of(parquet_schema(files, objects[0]))
    if spec.hour in types:
        types[spec.hour] += "!"
    try:
        return spec.with_columns(types)
    except ConfigurationError as error:
        raise ConfigurationError(f"{spec.file}: {objects[0].url} gives the table its columns, and {error}") from None

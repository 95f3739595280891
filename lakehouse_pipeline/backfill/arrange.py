"""Extract, transform, arrange: from an hour's objects to a DataFrame that the writer takes as it comes.

The transform is the user's; the rows that leave have exactly the table's columns, each with its bucket, and where the
table is sorted they are packed by it. Only the public DataFrame API is used, so that other engines can follow.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from pyspark import cloudpickle
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  # the name that every Spark user knows it by
from pyspark.sql.types import (
    ArrayType,
    ByteType,
    DataType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    NullType,
    ShortType,
    StructType,
)

from lakehouse_pipeline.backfill.functions import fault, load_function, module_file
from lakehouse_pipeline.backfill.inputs import Aside, Counts, View, of_hour
from lakehouse_pipeline.backfill.parcels import PARCELS, packed, placed
from lakehouse_pipeline.backfill.placement import (
    BYTES_A_ROW,
    SAMPLED_ROWS_A_BUCKET,
    Ranges,
    sampled,
    share_of,
    sort_order,
    whole,
)
from lakehouse_pipeline.backfill.plan import HourPlan, transform_text
from lakehouse_pipeline.backfill.views import Made, read_view, sample_tasks, sample_view
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.transform import FunctionTransform, SqlTransform
from lakehouse_pipeline.config.types import Column
from lakehouse_pipeline.engines.capabilities import check_transform
from lakehouse_pipeline.engines.failures import SPARK_ERRORS, translated
from lakehouse_pipeline.engines.sessions import cores_of
from lakehouse_pipeline.engines.spark_types import spark_schema
from lakehouse_pipeline.engines.tasks import map_in_arrow
from lakehouse_pipeline.errors import ConfigurationError, DataError, LakehouseError
from lakehouse_pipeline.iceberg.conformed import conform
from lakehouse_pipeline.iceberg.data_files import BUCKET
from lakehouse_pipeline.iceberg.row_order import Columns
from lakehouse_pipeline.iceberg.schemas import arrow_schema_of, schema_of, types_of
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources.listing import SourceObject
from lakehouse_pipeline.sources.stored_rows import stored_schema

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
        frame: the table's columns and `_bucket`, or parcels of a sorted table's, in the tasks that write them.
        counts: asks for the rows that came from the source, once the frame was written; None where the engine found
            that it need not read it.
    """

    frame: DataFrame
    counts: Callable[[], Counts | None]


@contextmanager
def arranged(
    session: SparkSession,
    spec: TableSpec,
    plan: HourPlan,
    files: LakehouseFileIO,
    *,
    columns: tuple[Column, ...],
    aside: Aside,
    buckets: int,
    ranges: Ranges | None = None,
) -> Iterator[Arranged]:
    """Build the frame of an hour; nothing runs but the reading of small inputs, and a sample where ranges need one.

    Args:
        session: where.
        spec: the table's spec.
        plan: the hour and its objects.
        files: the store.
        columns: of the Iceberg table.
        aside: for rows that are rejected, if the spec keeps them, and for counts.
        buckets: that its rows go to, at most.
        ranges: that they are, where that is known; else a sorted hour is sampled.

    Raises:
        ConfigurationError: the transform is wrong, gives other columns than the table has, or may give other rows on
            this engine than on Apache Spark.
        DataError: a small input holds a bad row.
    """
    check_transform(session, spec)
    cores = cores_of(session)
    view = source_view(spec, plan, files, columns, aside)
    joins = {
        join.name: read_view(session, files, _join_view(spec, join.name, plan, files), cores)[0] for join in spec.join
    }
    made, plain = None, is_plain(spec, columns)
    if spec.sort:
        order, schema = sort_order(spec), arrow_schema_of(columns)
        if ranges is None and buckets > 1:
            share = share_of(spec, plan.hour)
            tasks = sample_tasks(files, view, cores, share)
            size = sum(split.length for task in tasks for split in task) * share
            thin = partial(_thinned, share=buckets * SAMPLED_ROWS_A_BUCKET * BYTES_A_ROW / max(size, 1))
            keys = pa.schema([schema.field(name) for name, _ in order])
            if plain:  # where it is read: two Python functions of a task would have a worker each
                ranges = _ranges(
                    sample_view(session, files, view, tasks, Made(keys, partial(thin, schema=keys))), order, buckets
                )
            else:
                sample = sample_view(session, files, view, tasks)
                with _shaped(session, spec, sample, joins, columns) as shaped:
                    of_keys = shaped.select(*keys.names)
                    ranges = _ranges(map_in_arrow(of_keys, thin, of_keys.schema), order, buckets)
        ranges = ranges or whole(order)
        checked = schema_of(columns).fields if spec.check_order else ()
        made = Made(PARCELS, partial(packed, schema=schema, ranges=ranges, checked=checked))
    if made and ranges and plain:  # rows need not enter the engine
        parcels, counts = read_view(session, files, view, cores, made)
        yield Arranged(placed(parcels, ranges.count), counts)
        return
    source, counts = read_view(session, files, view, cores)
    with _shaped(session, spec, source, joins, columns) as shaped:
        with _translated(spec):
            if made and ranges:
                parcels = map_in_arrow(shaped, made.function, spark_schema(made.schema))
                frame = placed(parcels, ranges.count)
            else:
                frame = shaped.coalesce(buckets).withColumn(BUCKET, F.spark_partition_id())
        yield Arranged(frame, counts)


def is_plain(spec: TableSpec, columns: tuple[Column, ...]) -> bool:
    """Tell whether a table's rows are its source's rows, in any order."""
    given = spec.source.columns
    same = given is None or {(item.name, item.type) for item in given} == {(item.name, item.type) for item in columns}
    return spec.transform is None and same and spec.source.reader == "arrow"


def _thinned(
    batches: Iterable[pa.RecordBatch], share: float, schema: pa.Schema | None = None
) -> Iterator[pa.RecordBatch]:
    """Pick rows at random, about so many of one; in a schema, which may have fewer columns, where one is given."""
    # Not by `where(rand() < share)`: Sail would ask that of the numbers of the tasks that read.
    random = np.random.default_rng(0)
    for batch in batches:
        picked = batch.filter(pa.array(random.random(batch.num_rows) < share))
        yield conform(picked, schema) if schema else picked


def _ranges(sample: DataFrame, order: Columns, buckets: int) -> Ranges:
    picked = sample.toArrow()
    return sampled(pa.concat_batches(picked.to_batches()), order, buckets) if picked.num_rows else whole(order)


@contextmanager
def _shaped(
    session: SparkSession,
    spec: TableSpec,
    source: DataFrame,
    joins: Mapping[str, DataFrame],
    columns: tuple[Column, ...],
) -> Iterator[DataFrame]:
    """Give the transformed rows in exactly the table's columns, as long as the block goes on."""
    with _views(session, spec, {SOURCE: source, **joins}):
        with _translated(spec):
            transformed = transform(session, spec, source, joins)
            shaped = transformed.select(*conformed(spec, transformed, columns))
        yield shaped


@contextmanager
def _views(session: SparkSession, spec: TableSpec, frames: Mapping[str, DataFrame]) -> Iterator[None]:
    """Let SQL find frames by name. Over Connect a query is resolved when it runs, so they stay until it has run."""
    if not isinstance(spec.transform, SqlTransform):
        yield
        return
    for name, frame in frames.items():
        frame.createOrReplaceTempView(name)
    try:
        yield
    finally:  # another table of this session must not find this one's views
        for name in frames:
            session.catalog.dropTempView(name)


def _translated(spec: TableSpec) -> AbstractContextManager[None]:
    return translated(
        str(spec.transform.file) if isinstance(spec.transform, SqlTransform) else f"{spec.file}: transform"
    )


def source_view(
    spec: TableSpec, plan: HourPlan, files: LakehouseFileIO, columns: tuple[Column, ...], aside: Aside
) -> View:
    """Describe the hour's own view; `_file` and `_position` are in it where the transform speaks of them."""
    given = spec.source.columns or (None if spec.transform else columns)
    view = View(
        spec.source.format,
        plan.inputs.source,
        _schema(given, plan.inputs.source, spec.source.format, files),
        provenance=bool(_PROVENANCE.search(transform_text(spec))),
    )
    return of_hour(view, spec, plan.hour, aside)


def _join_view(spec: TableSpec, name: str, plan: HourPlan, files: LakehouseFileIO) -> View:
    join = next(join for join in spec.join if join.name == name)
    objects = plan.inputs.joins[name]
    if not objects and not join.columns:
        raise ConfigurationError(
            f"{spec.file}: join.{name}: there is nothing at {join.path} to take its columns from; give it `columns`"
        )
    return View(join.format, objects, _schema(join.columns, objects, join.format, files))


def _schema(
    columns: tuple[Column, ...] | None, objects: tuple[SourceObject, ...], form: str, files: LakehouseFileIO
) -> pa.Schema:
    return arrow_schema_of(columns) if columns else stored_schema(files, objects[0], form)


def transform(session: SparkSession, spec: TableSpec, source: DataFrame, views: Mapping[str, DataFrame]) -> DataFrame:
    """Apply the spec's SQL or function to the hour's views.

    Raises:
        ConfigurationError: there is no such function, or it gives no DataFrame.
        DataError: the function raised.
    """
    if isinstance(spec.transform, SqlTransform):
        return session.sql(spec.transform.text)
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
    problems += [
        f"column {name} is not in the table: add it to the spec's `columns`, and `lakehouse apply {spec.name}` adds it "
        "to the table; or leave it out"
        for name in given.keys() - wanted.keys()
    ]
    problems += [
        f"column {name} is {given[name].simpleString()}, the table wants {wanted[name].simpleString()}: "
        f"{_way_out(name, wanted[name])}"
        for name in wanted.keys() & given.keys()
        if not _fits(given[name], wanted[name])
    ]
    if problems:
        where = spec.transform.file if isinstance(spec.transform, SqlTransform) else spec.file
        what = "the transform" if spec.transform else "the source"
        raise ConfigurationError(f"{where}: {what} does not give the table's columns: " + "; ".join(sorted(problems)))
    return [F.col(f"`{name}`").cast(kind).alias(name) for name, kind in wanted.items()]


def _way_out(name: str, wanted: DataType) -> str:
    if isinstance(wanted, StructType | ArrayType | MapType):  # Spark casts structs by place: a CAST may swap fields
        return "build it anew with these fields, in this order (named_struct, transform)"
    return f"write CAST({name} AS {wanted.simpleString().upper()})"


def _fits(given: DataType, wanted: DataType) -> bool:
    if isinstance(given, NullType):
        return True
    if isinstance(given, StructType) and isinstance(wanted, StructType):
        return given.names == wanted.names and all(
            _fits(one.dataType, other.dataType) for one, other in zip(given.fields, wanted.fields, strict=True)
        )
    if isinstance(given, ArrayType) and isinstance(wanted, ArrayType):
        return _fits(given.elementType, wanted.elementType)
    if isinstance(given, MapType) and isinstance(wanted, MapType):
        return _fits(given.keyType, wanted.keyType) and _fits(given.valueType, wanted.valueType)
    if isinstance(given, DecimalType) and isinstance(wanted, DecimalType):
        whole = wanted.precision - wanted.scale >= given.precision - given.scale
        return whole and wanted.scale >= given.scale
    return type(given) is type(wanted) or type(wanted) in _WIDENS.get(type(given), ())


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
    types = types_of(stored_schema(files, objects[0], spec.source.format))
    if spec.hour in types:
        types[spec.hour] += "!"
    try:
        return spec.with_columns(types)
    except ConfigurationError as error:
        raise ConfigurationError(f"{spec.file}: {objects[0].url} gives the table its columns, and {error}") from None

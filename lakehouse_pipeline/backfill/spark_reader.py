"""Sources that Spark reads itself, `reader: spark`: listed and judged by us, parsed by Spark.

Spark's readers know no places in a file and skip no bad row by policy, so the first fault ends the hour; it is found by
one aggregate over the columns that rules exist for, before anything is written, and the file at fault by asking file
by file. Spark is stricter or laxer than our readers where its own parsers are; lines of CSV that its parser would
misread in silence are looked for beforehand.
"""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from functools import partial, reduce
from operator import or_

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  # the name that every Spark user knows it by
from pyspark.sql.types import (
    ArrayType,
    DataType,
    DateType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
)

from lakehouse_pipeline.backfill.inputs import Counts, View
from lakehouse_pipeline.backfill.spark_casts import is_taken
from lakehouse_pipeline.engines.capabilities import capabilities
from lakehouse_pipeline.engines.failures import SPARK_ERRORS
from lakehouse_pipeline.engines.spark_types import spark_schema
from lakehouse_pipeline.errors import ConfigurationError, DataError, LakehouseError
from lakehouse_pipeline.iceberg.data_files import OtherHourError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources.hour_rows import HourRule
from lakehouse_pipeline.sources.listing import SourceObject
from lakehouse_pipeline.sources.readers import check_schema
from lakehouse_pipeline.sources.splits import OPENS
from lakehouse_pipeline.sources.stored_types import check_columns
from lakehouse_pipeline.sources.values import NULL_REASON

FOOTERS_AT_ONCE = 16  # requests for footers that are under way together

_FORMATS = {"jsonl": "json", "csv": "csv", "parquet": "parquet", "orc": "orc"}
_UNREAD = (".zst", ".lz4", ".br")  # Hadoop's codecs for them are native or other formats of the name
_NO_TEXT = "\ue000\ue001"  # of the private use area: stands for an empty field, so that "" is no null
_OPTIONS = {
    "jsonl": {"mode": "FAILFAST", "allowNonNumericNumbers": "false", "encoding": "UTF-8", "lineSep": "\n"},
    "csv": {
        "mode": "FAILFAST",
        "header": "true",
        "enforceSchema": "false",  # else columns go by place, whatever their names
        "columnPruning": "false",  # else fields are not counted where the transform leaves a column out
        "escape": '"',
        "nullValue": _NO_TEXT,
        "emptyValue": "",
    },
    "parquet": {},
    "orc": {},
}
_CASTS = "`reader: arrow` casts where nothing is lost; or land the file with the types of the spec"
_OF_FILES = re.compile(r"Parquet|Orc|ORC|Schema error|Cannot cast column|CSV header|MALFORMED_RECORD|nanos >")
_GREGORIAN = date(1582, 10, 15)  # the files do not say by which calendar the days before it are meant
_LAST = "9999-12-31 23:59:59.999999"
_YEARS = "a time outside of the years 1 to 9999"
_BEYOND = {
    **dict.fromkeys(_FORMATS, _YEARS),
    "orc": f"a time before {_GREGORIAN} or after the year 9999, which ORC and Spark mean differently",
}
_IN_PLACE = "\ufffd"
_NO_UTF_8 = "a character U+FFFD, which Spark puts in place of bytes that are no UTF-8"
# Quotes around a field, closed on its line with nothing behind them, or within a field that does not begin with one.
_WELL_QUOTED = r'^[^"]*+(?:(?:(?<![^,])"[^"\x00]*+(?:""[^"\x00]*+)*+"(?![^,\r])|(?<=[^,])")[^"]*+)*+\z'
_ILL_QUOTED = "a quote that is not closed on its line, text behind a closed one, or NUL in quotes"
_WITHIN = r"\r[\s\S]"
_LONE_RETURN = "a carriage return that ends no line, which Spark takes for the end of one"
_GLOB = re.compile(r"([\\*?\[\]{}])")


def read_by_spark(session: SparkSession, files: LakehouseFileIO, view: View) -> tuple[DataFrame, Counts]:
    """Let Spark read a view's objects, and count its rows.

    Raises:
        ConfigurationError: Spark has no reader for it, cannot reach the store, or the transform wants provenance.
        DataError: a file lacks a column, or a required value is null.
        OtherHourError: a row is of another hour than its file's path says.
    """
    _check(session, view)
    if not view.objects:
        return session.createDataFrame([], spark_schema(view.schema)), Counts()
    _check_footers(session, files, view)
    frame = _frame(session, view, view.objects)
    if len(frame.inputFiles()) != len(view.objects):
        raise ConfigurationError(
            f"Spark takes {len(frame.inputFiles())} of the {len(view.objects)} files that were listed, "
            f"{view.objects[0].url} among them; write `reader: arrow`"
        )
    _check_lines(session, view)
    counts = _judged(session, view, frame)
    return (frame.where(_in(view.hour, frame)) if view.hour else frame), counts


@contextmanager
def with_way_out(view: View) -> Iterator[None]:
    """Add to what Spark says of a view's files which they are and who reads them, where Spark reads that view.

    Raises:
        LakehouseError: the same, in more words.
    """
    try:
        yield
    except LakehouseError as error:
        said = str(error)
        names_one = any(_name(item) in said for item in view.objects)
        if (
            view.reader != "spark"
            or not isinstance(error.__cause__ or error.__context__, SPARK_ERRORS)
            or not (_OF_FILES.search(said) or names_one)
        ):
            raise
        where = "" if names_one else f" (reading {_told(view.objects)})"
        raise type(error)(f"{said.rstrip('.')}{where}. `reader: arrow` takes more, and tells the row") from error


def _name(item: SourceObject) -> str:
    return item.url.rpartition("/")[2]


def _told(objects: Sequence[SourceObject]) -> str:
    return objects[0].url + (f" and {len(objects) - 1} more" if len(objects) > 1 else "")


def _check(session: SparkSession, view: View) -> None:
    check_schema(view.format, view.schema, provenance=view.provenance)
    known = capabilities(session)
    problems = []
    if view.format not in known.readers:
        problems.append(f"{known.kind} has no reader for {view.format} that fails at bad rows")
    if view.provenance:
        problems.append("Spark's readers do not tell the _file and _position that the transform speaks of")
    if view.hour and view.hour.reject:
        problems.append("`other_hours: reject` keeps rows with their place, which Spark's readers do not tell")
    unread = [item.url for item in view.objects if item.url.endswith(_UNREAD) and view.format not in OPENS]
    if unread:
        problems.append(f"Spark reads no {', '.join(_UNREAD)} here: {'; '.join(unread)}")
    if problems:
        raise ConfigurationError(f"{'. '.join(problems)}. Write `reader: arrow`")
    # Spark takes these for no rows.
    empty = [item.url for item in view.objects if not item.size and (view.format == "csv" or _is_packed(view, item))]
    if empty:
        raise DataError(f"{'; '.join(empty)}: empty, which no {view.format} file of this name is: land it again")


def _is_packed(view: View, item: SourceObject) -> bool:
    return not item.url.lower().endswith(f".{view.format}")


def _check_footers(session: SparkSession, files: LakehouseFileIO, view: View) -> None:
    """Look for the wanted columns in every file that says which it has.

    Spark takes a missing one for nulls, and numbers that do not fit, too; its readers do not agree on other types.
    """
    if view.format not in OPENS:
        return
    taken = partial(is_taken, source_format=view.format, widens=capabilities(session).widens)

    def check(item: SourceObject) -> None:
        with OPENS[view.format](files, item.url, item.etag, item.size) as file:
            check_columns(file.schema, view.schema, item.url)
            check_columns(file.schema, view.schema, item.url, taken, _CASTS)

    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as threads:
        list(threads.map(check, view.objects))


def _frame(session: SparkSession, view: View, objects: Sequence[SourceObject]) -> DataFrame:
    reader = session.read.format(_FORMATS[view.format]).schema(spark_schema(view.schema))
    # Otherwise a folder `k=1` becomes a column.
    reader = reader.options(**_OPTIONS[view.format], recursiveFileLookup="true")
    try:
        return reader.load([_path(item.url) for item in objects])
    except SPARK_ERRORS as error:
        if "S3AFileSystem" not in str(error) and "No FileSystem for scheme" not in str(error):
            raise
        raise ConfigurationError(
            f"{objects[0].url}: this Spark session has no s3a:// file system, which `reader: spark` needs for s3://. "
            "Add hadoop-aws to it, or write `reader: arrow`"
        ) from None


def _path(url: str) -> str:
    """Write a URL so that Hadoop takes it as it is."""
    return _GLOB.sub(r"\\\1", re.sub(r"^s3://", "s3a://", url))


def _check_lines(session: SparkSession, view: View) -> None:
    """Read the lines of CSV as text: Spark's parser closes an open quote where its line ends, and drops NUL in quotes.

    `contains` spares most lines the expressions, which do not backtrack.

    Raises:
        DataError: a line would be read as something else; names its file.
    """
    if view.format != "csv":
        return
    line = F.col("value")
    rules = (
        (line.contains('"') & ~line.rlike(_WELL_QUOTED), _ILL_QUOTED),
        (line.contains("\r") & line.rlike(_WITHIN), _LONE_RETURN),
    )

    def broken(objects: Sequence[SourceObject]) -> list[str]:
        lines = session.read.format("text").options(lineSep="\n", recursiveFileLookup="true")
        counts = lines.load([_path(item.url) for item in objects]).agg(*(_count(condition) for condition, _ in rules))
        return [said for (_, said), count in zip(rules, counts.collect()[0], strict=True) if count]

    if not broken(view.objects):
        return
    for item in view.objects:
        if said := broken([item]):
            raise DataError(f"{item.url}: {said[0]} (`reader: arrow` takes more, and tells the row)")
    raise DataError("a line that Spark would misread was there, and is not any more: list again")


def _judged(session: SparkSession, view: View, frame: DataFrame) -> Counts:
    """Count the rows of the hour and those that are left to others.

    Raises:
        DataError, OtherHourError: a row that should not be there; names its file.
    """
    rules = _rules(view, frame.schema)
    kept = _in(view.hour, frame) if view.hour else F.lit(True)
    asked = [*(_count(condition) for condition, _ in rules), _count(kept), F.count(F.lit(1))]
    *faults, rows, every = frame.agg(*(each.alias(f"c{place}") for place, each in enumerate(asked))).collect()[0]
    for (condition, said), count in zip(rules, faults, strict=True):
        if count:
            raise _fault(session, view, condition, said)
    return Counts(rows or 0, every - (rows or 0))


def _fault(session: SparkSession, view: View, condition: Column, said: str) -> DataError:
    """Find a file that holds a row that should not be there."""
    time = [f"`{view.hour.column}`"] if view.hour else []
    for item in view.objects:
        found = _frame(session, view, [item]).where(condition).select(*time).limit(1).toArrow()
        if found.num_rows and view.hour and not said:
            instant = found.column(0)[0].as_py()
            return OtherHourError(
                f"{item.url}: {view.hour.fault(instant)}. Land such rows in the files of their hour, or write "
                "`reader: arrow` and `other_hours: reject`, which keeps them aside"
            )
        if found.num_rows:
            return DataError(f"{item.url} {said} (`reader: arrow` tells the row)")
    return DataError(f"{said or 'a row of another hour'} was there, and is not any more: list again")


def _rules(view: View, schema: StructType) -> list[tuple[Column, str]]:
    """Give for each rule what breaks it, and how that is said; an empty saying is about the time."""
    wanted = spark_schema(view.schema)
    rules = [
        (missing, f'"{field.name}": {NULL_REASON}')
        for field in wanted.fields
        if (missing := _lacks(F.col(f"`{field.name}`"), field.dataType, required=not field.nullable)) is not None
    ]
    rules += [
        (_beyond(F.col(f"`{field.name}`"), field.dataType, view.format), f'"{field.name}": {_BEYOND[view.format]}')
        for field in wanted.fields
        if isinstance(field.dataType, DateType | TimestampType | TimestampNTZType)
    ]
    if view.format == "csv":  # of JSON, Spark itself refuses it
        texts = [field.name for field in wanted.fields if isinstance(field.dataType, StringType)]
        rules += [(F.col(f"`{name}`").contains(_IN_PLACE), f'"{name}": {_NO_UTF_8}') for name in texts]
    if view.hour and view.hour.span_bounds:
        rules.append((~_between(view.hour, view.hour.span_bounds, schema), ""))
    return rules


def _beyond(value: Column, kind: DataType, source_format: str) -> Column:
    first = _GREGORIAN if source_format == "orc" else date.min
    return (value < F.lit(first.isoformat()).cast(kind)) | (value > F.lit(_LAST).cast(kind))


def _lacks(value: Column, kind: DataType, *, required: bool) -> Column | None:
    """Tell whether a required value is null, here or inside; None where nothing is required."""
    inner = _lacks_inside(value, kind)
    if inner is None:
        return value.isNull() if required else None
    inside = value.isNotNull() & inner
    return value.isNull() | inside if required else inside


def _lacks_inside(value: Column, kind: DataType) -> Column | None:
    if isinstance(kind, StructType):
        found = [_lacks(value[f.name], f.dataType, required=not f.nullable) for f in kind.fields]
        lacking = [condition for condition in found if condition is not None]
        return reduce(or_, lacking) if lacking else None
    if isinstance(kind, ArrayType):
        return _any(value, StructField("element", kind.elementType, kind.containsNull))
    if isinstance(kind, MapType):
        return _any(F.map_values(value), StructField("value", kind.valueType, kind.valueContainsNull))
    return None


def _any(values: Column, field: StructField) -> Column | None:
    if _lacks(F.lit(None), field.dataType, required=not field.nullable) is None:
        return None

    def lacks(value: Column) -> Column:
        condition = _lacks(value, field.dataType, required=not field.nullable)
        return F.lit(False) if condition is None else condition

    return F.exists(values, lacks)


def _in(rule: HourRule, frame: DataFrame) -> Column:
    return _between(rule, rule.bounds, frame.schema)


def _between(rule: HourRule, bounds: tuple[int, int], schema: StructType) -> Column:
    kind = schema[rule.column].dataType
    first, last = (F.timestamp_micros(F.lit(bound)).cast(kind) for bound in bounds)
    time = F.col(f"`{rule.column}`")
    return (time >= first) & (time < last)


def _count(condition: Column) -> Column:
    return F.sum(F.when(condition, 1).otherwise(0))

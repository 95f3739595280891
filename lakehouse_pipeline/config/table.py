"""A table's spec: one file of the tables' folder, read and checked.

What one file says is judged here. What takes several files is `config.spec_files`'s; what takes the catalog, the store
or an import of the transform is for the layers above.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from lakehouse_pipeline.config.compaction import CompactSettings, compact_problems
from lakehouse_pipeline.config.model import SpecModel, kind, sentences, several
from lakehouse_pipeline.config.partition import kind_of, read_field, refusal, whole_items
from lakehouse_pipeline.config.paths import resolve_folder
from lakehouse_pipeline.config.problems import KeyPath
from lakehouse_pipeline.config.properties import property_problems
from lakehouse_pipeline.config.quantities import read_age, read_size
from lakehouse_pipeline.config.source import Join, Source, folder_of, read_joins
from lakehouse_pipeline.config.transform import Transform, read_transform
from lakehouse_pipeline.config.types import Column, Columns, primitive_column
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.hours import HourRange, HourWindow

MIN_FILE_SIZE = 1_000_000  # bytes; below it, requests and manifests outweigh the data
MAX_FILE_SIZE = 5_000_000_000  # bytes; S3 takes no larger object in one PUT or copy
FILE_SIZE = 256_000_000  # bytes

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TABLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_][A-Za-z0-9_-]*)+")
_OWNER = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}|team:.+")  # what dagster takes
_HOUR_OR_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(-[0-9]{2}:[0-9]{2})?")
_DAY_LENGTH = len("2013-01-01")
_NEVER = "never"


class SortField(SpecModel):
    """One field of the sort order."""

    column: str
    descending: bool = False


class PartitionField(SpecModel):
    """One field of the partition spec, beside the hour.

    Attributes:
        transform: in Iceberg's text: `identity`, `bucket[16]`, `truncate[4]`, `year`, `month` or `day`.
        column: of the table.
    """

    transform: str
    column: str


class TableSpec(SpecModel):
    """One table: where its raw files are, what becomes of them, and the Iceberg table they become.

    Attributes:
        name: of the asset: the file's, without `.yaml`.
        file: the spec's file, absolute.
        table: the Iceberg identifier, `namespace.name`.
        columns: as written; None where they are the source's. See `target_columns`.
        hour: the column that holds a row's time; the table is partitioned by its hour.
        partition: further fields of the partition spec, behind the hour.
        other_hours: what happens to rows of another hour than their file's: the hour fails, or they become rejects.
        staging: whether an hour's raw objects are copied to the table's side before they are read; `auto` lets the
            planner of transfers decide. Not part of the recipe: it does not say what the rows are.
        staging_prefix: a URL without a slash at its end, in the store of the sources; None is the table's ledger. Not
            in the repr, since it may hold values of variables.
        staging_ways: the file of own rows of the planner's price book, absolute.
        key: columns that tell rows apart; may be empty.
        check_order: whether sorted files are read back before every commit; not part of the recipe.
        file_size: bytes, compressed, on storage.
        freshness: how old the newest hour may be before Dagster calls the table stale; None never does.
        lag: how long after the end of an hour its scheduled run begins.
        late: how far back the source is watched for files that landed after the hour was committed; None never.
        start: the first hour.
        end: the first hour that is no more; None goes on.
        accepts: what the transform may do in silence on engines that differ from Apache Spark; not part of the recipe:
            it decides whether an hour runs, not what its rows are.
        compact: when and how its files are compacted; not part of the recipe.
        properties: of the Iceberg table.
    """

    name: str
    file: Path = Field(repr=False)
    table: str = Field(description="the Iceberg table, such as lake.flights")
    description: str = Field(default="", description="what a row is")
    owners: tuple[str, ...] = Field(default=(), description="e-mail addresses and team:names")
    source: Source = Field(description="where the raw files are: path, format, columns")
    join: tuple[Join, ...] = Field(default=(), description="views for the transform")
    transform: Transform | None = Field(default=None, description="a .sql file or module:function")
    columns: Columns | None = Field(default=None, description="the columns of the Iceberg table")
    hour: str = Field(description="the column that holds a row's time")
    partition: tuple[PartitionField, ...] = Field(
        default=(), description="partition fields beside the hour, such as bucket(16, id)"
    )
    other_hours: Literal["fail", "reject"] = Field(default="fail", description="fail or reject")
    key: tuple[str, ...] = Field(default=(), description="the columns that tell rows apart")
    sort: tuple[SortField, ...] = Field(default=(), description="the columns that files are sorted by")
    check_order: bool = Field(default=False, description="sorted files are read back before every commit")
    file_size: int = Field(default=FILE_SIZE, description="bytes per file, such as 256MB")
    freshness: timedelta | None = Field(default=None, description="how old the newest hour may be, such as 3h")
    lag: timedelta = Field(
        default=timedelta(), description="how long after an hour its scheduled run begins, such as 15min"
    )
    late: timedelta | None = Field(
        default=timedelta(hours=72), description="how far back late files are watched for, such as 72h, or never"
    )
    start: HourWindow = Field(description="the first hour, such as 2013-01-01 or 2013-01-01-10:00")
    end: HourWindow | None = Field(default=None, description="the first hour that is no more")
    accepts: tuple[Literal["integer_overflow"], ...] = Field(
        default=(), description="what a transform may do in silence on an engine that differs from Apache Spark"
    )
    staging: Literal["direct", "copy", "auto"] = Field(default="direct", description="direct, copy or auto")
    staging_prefix: str | None = Field(
        default=None, repr=False, description="where copies go, such as s3://scratch/flights"
    )
    staging_ways: Path | None = Field(default=None, description="a YAML file of ways to move bytes, for auto")
    compact: CompactSettings = Field(default=CompactSettings(), description="when and how files are compacted")
    properties: Mapping[str, str] = Field(default_factory=dict, description="properties of the Iceberg table")

    @property
    def target_columns(self) -> tuple[Column, ...] | None:
        """The columns of the Iceberg table; None where only the parquet files of the source know them."""
        return self.source.columns if self.columns is None else self.columns

    def hours_over(self, now: datetime) -> HourRange | None:
        """Give the table's hours that are over at `now`, a moment in UTC; None where there is none yet."""
        current = HourWindow(now.replace(minute=0, second=0, microsecond=0))
        end = min(self.end, current) if self.end else current
        return HourRange(self.start, HourWindow.from_ordinal(end.ordinal - 1)) if self.start < end else None

    def with_columns(self, types: Mapping[str, str]) -> tuple[Column, ...]:
        """Give the columns that a table has whose spec names none: found in a file, judged like written ones.

        Raises:
            ConfigurationError: names every problem that the spec has with them.
        """
        try:
            columns = TableSpec.model_validate({**dict(self), "columns": types}).columns
        except ValidationError as error:
            raise ConfigurationError(
                "; ".join(f"{'.'.join(map(str, path))}: {text}" for path, text in sentences(error))
            ) from None
        assert columns is not None  # noqa: S101  # they were given
        return columns

    @field_validator("name")
    @classmethod
    def _asset_name(cls, name: str) -> str:
        return checked_name(name)

    @field_validator("table")
    @classmethod
    def _identifier(cls, table: str) -> str:
        if not _TABLE.fullmatch(table):
            raise ConfigurationError(f"{table!r} is no Iceberg table; write namespace.name")
        return table

    @field_validator("owners")
    @classmethod
    def _owners(cls, owners: tuple[str, ...]) -> tuple[str, ...]:
        found = [((n,), owner) for n, owner in enumerate(owners) if not _OWNER.fullmatch(owner)]
        if found:
            raise several(
                (path, f"{owner!r} is no owner; write an e-mail address or team:name") for path, owner in found
            )
        return owners

    @field_validator("join", mode="before")
    @classmethod
    def _joins(cls, value: object, info: ValidationInfo) -> tuple[Join, ...]:
        return read_joins(value, info.context)

    @field_validator("staging")
    @classmethod
    def _staged_is_read_by_us(cls, staging: str, info: ValidationInfo) -> str:
        source = info.data.get("source")
        if staging != "direct" and source is not None and source.reader == "spark":
            raise ConfigurationError(
                f"{staging!r} takes our readers: Spark's would name the copies in the place of the raw objects; "
                "write direct, or take `reader: spark` out"
            )
        return staging

    @field_validator("staging_prefix")
    @classmethod
    def _prefix(cls, prefix: str | None, info: ValidationInfo) -> str | None:
        return None if prefix is None else resolve_folder(prefix, folder_of(info))

    @field_validator("staging_ways", mode="before")
    @classmethod
    def _ways(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        file = ((folder_of(info) or Path()) / value).absolute()
        if not file.is_file():
            raise ConfigurationError(
                "names no file; write the path of a YAML file of ways, relative to the folder of lakehouse.yaml"
            )
        return file

    @field_validator("transform", mode="before")
    @classmethod
    def _transform(cls, value: object, info: ValidationInfo) -> Transform | None:
        return None if value is None else read_transform(value, info.data.get("file", Path()).parent)

    @field_validator("hour")
    @classmethod
    def _instant(cls, hour: str, info: ValidationInfo) -> str:
        target = _target(info)
        if target is None:
            return hour
        column = primitive_column(hour, target)
        if column.type not in {"timestamptz", "timestamp"}:
            raise ConfigurationError(f"column {hour!r} is {column.type}; name one that is timestamptz! or timestamp!")
        if not column.required:
            raise ConfigurationError(
                f"column {hour!r} may be null, and such a row has no hour; write {column.type}! as its type"
            )
        return hour

    @field_validator("partition", mode="before")
    @classmethod
    def _partition_fields(cls, value: object) -> object:
        return _read_partition(value) if isinstance(value, list) else value

    @field_validator("partition")
    @classmethod
    def _partition(cls, fields: tuple[PartitionField, ...], info: ValidationInfo) -> tuple[PartitionField, ...]:
        found = [
            ((n,), problem)
            for n, field in enumerate(fields)
            if (problem := _partition_problem(field, fields[:n], info))
        ]
        if found:
            raise several(found)
        return fields

    @field_validator("key")
    @classmethod
    def _key(cls, key: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        _check_names(key, info)
        return key

    @field_validator("sort", mode="before")
    @classmethod
    def _sort_fields(cls, value: object) -> object:
        return tuple(map(_sort_field, value)) if isinstance(value, list) else value

    @field_validator("sort")
    @classmethod
    def _sort(cls, sort: tuple[SortField, ...], info: ValidationInfo) -> tuple[SortField, ...]:
        _check_names(tuple(field.column for field in sort), info)
        return sort

    @field_validator("check_order")
    @classmethod
    def _has_an_order(cls, check_order: bool, info: ValidationInfo) -> bool:  # noqa: FBT001  # pydantic's
        if check_order and not info.data.get("sort", True):
            raise ConfigurationError("there is no order to check; write `sort`, too, or take it out")
        return check_order

    @field_validator("freshness", mode="before")
    @classmethod
    def _freshness_has_a_unit(cls, value: object) -> timedelta | None:
        return value if value is None or isinstance(value, timedelta) else read_age(value)

    @field_validator("lag", "late", mode="before")
    @classmethod
    def _with_a_unit(cls, value: object, info: ValidationInfo) -> timedelta | None:
        if value is None or isinstance(value, timedelta):
            return value
        return None if value == _NEVER and info.field_name == "late" else read_age(value)

    @field_validator("file_size", mode="before")
    @classmethod
    def _bytes(cls, value: object) -> int:
        size = value if isinstance(value, int) else read_size(value)
        if not MIN_FILE_SIZE <= size <= MAX_FILE_SIZE:
            raise ConfigurationError("is out of bounds; write 1MB to 5GB")
        return size

    @field_validator("start", "end", mode="before")
    @classmethod
    def _hour_or_day(cls, value: object) -> HourWindow | None:
        if value is None or isinstance(value, HourWindow):
            return value
        if not isinstance(value, str) or not _HOUR_OR_DAY.fullmatch(value):
            said = repr(value) if isinstance(value, str) else kind(value)
            raise ConfigurationError(f"{said} is no hour; write 2013-01-01-10:00 (UTC), or a day as 2013-01-01")
        return HourWindow.from_key(f"{value}-00:00" if len(value) == _DAY_LENGTH else value)

    @field_validator("end")
    @classmethod
    def _after_start(cls, end: HourWindow | None, info: ValidationInfo) -> HourWindow | None:
        start = info.data.get("start")
        if end and start and end <= start:
            raise ConfigurationError(f"{end} is not after start, {start}; end is the first hour that is no more")
        return end

    @field_validator("compact")
    @classmethod
    def _compaction(cls, compact: CompactSettings, info: ValidationInfo) -> CompactSettings:
        found = compact_problems(compact, _target(info), info.data.get("key", ()))
        if found:
            raise several(found)
        return compact

    @field_validator("properties", mode="before")
    @classmethod
    def _properties(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, Mapping):
            return value
        found = property_problems(value, _target(info))
        if found:
            raise several(found)
        return value


def checked_name(name: str) -> str:
    """Give the name of a spec, and of its asset, as it is.

    Raises:
        ConfigurationError: it is none.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{name!r} is no table's name; rename the file: a-z, then a-z, 0-9 and _")
    return name


def _target(info: ValidationInfo) -> tuple[Column, ...] | None:
    """Give the target's columns as far as they were valid."""
    if "columns" not in info.data or "source" not in info.data:
        return info.data.get("columns")
    columns: tuple[Column, ...] | None = info.data["columns"]
    source: Source = info.data["source"]
    return source.columns if columns is None else columns


def _check_names(names: tuple[str, ...], info: ValidationInfo) -> None:
    target = _target(info)
    found = []
    for n, name in enumerate(names):
        if name in names[:n]:
            found.append(((n,), f"{name!r} stands twice; take one out"))
        elif target is not None:
            try:
                primitive_column(name, target)
            except ConfigurationError as error:
                found.append(((n,), str(error)))
    if found:
        raise several(found)


def _read_partition(value: list[object]) -> tuple[PartitionField, ...]:
    if not all(isinstance(item, str) for item in value):
        raise ConfigurationError("must be a list of text, such as [bucket(16, id), region]")
    fields: list[PartitionField] = []
    found: list[tuple[KeyPath, str]] = []
    for place, text in whole_items(map(str, value)):
        try:
            transform, column = read_field(text)
            fields.append(PartitionField(transform=transform, column=column))
        except ConfigurationError as error:
            found.append(((place,), str(error)))
    if found:
        raise several(found)
    return tuple(fields)


def _partition_problem(field: PartitionField, earlier: tuple[PartitionField, ...], info: ValidationInfo) -> str:
    if field.column == info.data.get("hour"):
        return f"the table is partitioned by hour({field.column}) already; take it out"
    if any((kind_of(other.transform), other.column) == (kind_of(field.transform), field.column) for other in earlier):
        return f"{field.transform} of {field.column!r} is redundant beside an earlier field; take it out"
    target = _target(info)
    if target is None:
        return ""
    try:
        return refusal(field.transform, primitive_column(field.column, target))
    except ConfigurationError as error:
        return str(error)


def _sort_field(value: object) -> SortField:
    if not isinstance(value, str):
        raise ConfigurationError(f"must be a list of columns, such as [id, size desc]; one is {kind(value)}")
    column, _, direction = value.rpartition(" ")
    if column and direction.lower() in {"asc", "desc"}:
        return SortField(column=column.strip(), descending=direction.lower() == "desc")
    return SortField(column=value)

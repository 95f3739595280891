"""Which hours a file's rows can be of: told from its partition values and its bounds, never from its rows.

A spec that has `hour(<event time>)` tells it to the hour. Files of other specs, which a table may have from earlier
days, are told by coarser fields and by the bounds of the event time's column; what cannot be told may be any hour.
Nothing here reads a file.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, cast

from pyiceberg.manifest import ManifestFile
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import make_compatible_name
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import (
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    TimeTransform,
    Transform,
    YearTransform,
)
from pyiceberg.types import NestedField

from lakehouse_pipeline.errors import SafetyError
from lakehouse_pipeline.iceberg.manifest_lists import ListedManifest

Entry = dict[str, Any]  # a manifest's entry as its Avro record

HOUR_MICROSECONDS = 3_600_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_YEAR, MONTHS = 1970, 12


@dataclass(frozen=True)
class HourSpan:
    """The hours that rows can be of, both ends included, as Iceberg counts them: hours since 1970.

    Attributes:
        low: the first; minus infinity where it is not known.
        high: the last; infinity where it is not known. Below `low` where no row has an event time.
        exact: whether each of the rows certainly has an event time within.
    """

    low: float
    high: float
    exact: bool

    def meets(self, hours: Collection[int]) -> bool:
        """Tell whether a row may be of one of the hours; of a set of many, as quickly as of one."""
        if 0 <= self.high - self.low < len(hours):
            return any(hour in hours for hour in range(int(self.low), int(self.high) + 1))
        return any(self.low <= hour <= self.high for hour in hours)

    @property
    def hour(self) -> int | None:
        """The one hour that all rows certainly are of; None where there is no such hour."""
        return int(self.low) if self.exact and self.low == self.high else None


EQUALITY = 2  # the content of files of equality deletes
ANY = HourSpan(-math.inf, math.inf, exact=False)
NONE = HourSpan(math.inf, -math.inf, exact=False)


@dataclass(frozen=True)
class EventTime:
    """A table's event time, as its partition specs and its files' bounds tell of it.

    Attributes:
        field: the column.
        specs: all partition specs of the table.
    """

    field: NestedField
    specs: Mapping[int, PartitionSpec]

    @classmethod
    def of(cls, metadata: TableMetadata, column: str) -> "EventTime":
        """Look at a table's event time.

        Raises:
            SafetyError: the table has no such column (any more).
        """
        try:
            field = metadata.schema().find_field(column)
        except ValueError:
            raise SafetyError(
                f"the table has no column {column}, which its hours are told by; was it renamed?"
            ) from None
        return cls(field, metadata.specs())

    def in_manifest(self, manifest: ManifestFile) -> HourSpan:
        """Tell from the manifest list's line alone which hours a manifest can have files of."""
        if not isinstance(manifest, ListedManifest):
            return self._in_manifest(manifest)
        if (span := manifest.told.get(self.field.field_id)) is None:
            manifest.told[self.field.field_id] = span = self._in_manifest(manifest)
        return cast("HourSpan", span)

    def _in_manifest(self, manifest: ManifestFile) -> HourSpan:
        span = ANY
        for place, field in self._fields(self.specs[manifest.partition_spec_id]):
            if manifest.partitions:
                summary = manifest.partitions[place]
                if summary.lower_bound is None or summary.upper_bound is None:
                    return NONE  # null in every file: rows without an event time are of no hour
                low, _ = hours_of(field.transform, _number(summary.lower_bound))
                _, high = hours_of(field.transform, _number(summary.upper_bound))
                span = HourSpan(max(span.low, low), min(span.high, high), exact=False)
        return span

    def in_entries_of(self, spec_id: int) -> Callable[[Entry], HourSpan]:
        """Give what tells of a spec's manifest entries which hours the file's rows can be of."""
        fields = [(field.transform, avro_name(field)) for _, field in self._fields(self.specs[spec_id])]
        for transform, name in fields:
            if isinstance(transform, HourTransform):
                return lambda entry: _hourly(entry["data_file"]["partition"][name])
        return lambda entry: self._told(entry["data_file"], fields)

    def in_partitions_of(self, spec_id: int) -> Callable[[Entry], HourSpan]:
        """Give what tells the same from the partition values alone, as `in_manifest` does of all of them together."""
        fields = [(field.transform, avro_name(field)) for _, field in self._fields(self.specs[spec_id])]

        def told(entry: Entry) -> HourSpan:
            span = ANY
            for transform, name in fields:
                value = entry["data_file"]["partition"][name]
                if value is None:
                    return NONE
                low, high = hours_of(transform, value)
                span = HourSpan(max(span.low, low), min(span.high, high), exact=False)
            return span

        return told

    def _fields(self, spec: PartitionSpec) -> Iterator[tuple[int, PartitionField]]:
        """Give a spec's fields that tell of the event time, with their places in the partition tuple."""
        for place, field in enumerate(spec.fields):
            if field.source_id == self.field.field_id and isinstance(
                field.transform, (TimeTransform, IdentityTransform)
            ):
                yield place, field

    def _told(self, data_file: Entry, fields: Iterable[tuple[Transform[Any, Any], str]]) -> HourSpan:
        # Rows of equality deletes may have any event time where that is not compared.
        compared = data_file.get("content") != EQUALITY or self.field.field_id in (data_file.get("equality_ids") or ())
        span = self._bounds(data_file) if compared else ANY
        for transform, name in fields:
            value = data_file["partition"][name]
            if value is None:
                return NONE
            low, high = hours_of(transform, value)
            span = HourSpan(max(span.low, low), min(span.high, high), exact=True)
        return span

    def _bounds(self, data_file: Entry) -> HourSpan:
        low, high, nulls = (
            {item["key"]: item["value"] for item in data_file.get(name) or ()}.get(self.field.field_id)
            for name in ("lower_bounds", "upper_bounds", "null_value_counts")
        )
        if nulls is not None and nulls == data_file["record_count"]:
            return NONE
        return HourSpan(
            -math.inf if low is None else _number(low) // HOUR_MICROSECONDS,
            math.inf if high is None else _number(high) // HOUR_MICROSECONDS,
            exact=self.field.required or nulls == 0,
        )


def _number(bound: bytes) -> int:
    """Read a bound of a moment, or of its year, month, day or hour: Iceberg's spec, appendix D."""
    return int.from_bytes(bound, "little", signed=True)


def _hourly(value: int | None) -> HourSpan:
    return NONE if value is None else HourSpan(value, value, exact=True)


def hours_of(transform: Transform[Any, Any], value: Any) -> tuple[float, float]:
    """Give the first and the last hour of a partition value, which is as Avro or Iceberg's bounds have it."""
    if isinstance(transform, HourTransform):
        return value, value
    if isinstance(transform, DayTransform):
        day = (value - EPOCH.date()).days if isinstance(value, date) else value
        return day * 24, day * 24 + 23
    if isinstance(transform, MonthTransform):
        return _first_hour(value), _first_hour(value + 1) - 1
    if isinstance(transform, YearTransform):
        return _first_hour(value * MONTHS), _first_hour((value + 1) * MONTHS) - 1
    moment = value.replace(tzinfo=UTC) - EPOCH if isinstance(value, datetime) else None
    microseconds = value if moment is None else (moment.days * 86_400 + moment.seconds) * 1_000_000
    return microseconds // HOUR_MICROSECONDS, microseconds // HOUR_MICROSECONDS


def _first_hour(month: int) -> float:
    """Give the first hour of a month, counted since 1970; infinity outside of Python's years."""
    year, place = divmod(month, MONTHS)
    if not date.min.year <= EPOCH_YEAR + year <= date.max.year:
        return math.copysign(math.inf, month)
    return (date(EPOCH_YEAR + year, place + 1, 1) - EPOCH.date()).days * 24


def avro_name(field: PartitionField) -> str:
    """Give the name under which entries hold a partition field: Avro's names have no blanks or dashes."""
    return make_compatible_name(field.name)

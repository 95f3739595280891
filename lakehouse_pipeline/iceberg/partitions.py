"""Rows by bucket and partition: which partition tuple a row has, and what its files' keys and entries say of it.

Transforms are computed by PyIceberg's own (pyiceberg-core) on whole Arrow columns.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import HourTransform
from pyiceberg.typedef import Record

from lakehouse_pipeline.iceberg.event_time import EPOCH, avro_name

Values = tuple[Any, ...]  # as Iceberg counts them: days, months and microseconds since 1970 are integers


@dataclass(frozen=True)
class Partitions:
    """The partition tuples that rows of one hour have.

    Attributes:
        spec: the table's.
        schema: the table's.
        event_time: field id of the column that tells a row's hour.
        hour: as Iceberg counts it; the same for every row.
    """

    spec: PartitionSpec
    schema: Schema
    event_time: int
    hour: int

    @cached_property
    def known(self) -> bool:
        """Tell whether every row has the same tuple, which is known before the first row is."""
        return len(self._others) == 0

    @cached_property
    def _others(self) -> tuple[PartitionField, ...]:
        return tuple(field for field in self.spec.fields if not self._is_hour(field))

    def _is_hour(self, field: PartitionField) -> bool:
        return isinstance(field.transform, HourTransform) and field.source_id == self.event_time

    def path(self, values: Values = ()) -> str:
        """Give the folders that a tuple has in keys, such as `at_hour=2013-01-01-10/carrier=UA`."""
        return self.spec.partition_to_path(Record(*self._tuple(values)), self.schema)

    def record(self, values: Values) -> dict[str, Any]:
        """Give a tuple as a manifest's entry holds it."""
        return dict(zip(map(avro_name, self.spec.fields), self._tuple(values), strict=True))

    def _tuple(self, values: Values) -> Values:
        others = iter(values)
        return tuple(self.hour if self._is_hour(field) else next(others) for field in self.spec.fields)

    def values(self, record: Mapping[str, Any]) -> Values:
        """Take the values of the fields beside the hour out of a tuple as a manifest's entry holds it."""
        return tuple(_count(record[avro_name(field)]) for field in self._others)

    def split(self, buckets: pa.Array, rows: pa.RecordBatch) -> Iterator[tuple[int, Values, pa.RecordBatch]]:
        """Give the rows of each bucket and partition, in their order.

        Args:
            buckets: one a row, integers without null.
            rows: the table's exact columns.

        Yields:
            the bucket, the values of the fields beside the hour in the spec's order, and the rows.
        """
        if not rows.num_rows:
            return
        keys = [buckets, *(self._values(field, rows) for field in self._others)]
        encoded = [key.dictionary_encode(null_encoding="encode") for key in keys]
        for places in _groups(encoded):
            bucket, *values = (each.dictionary[each.indices[int(places[0])].as_py()].as_py() for each in encoded)
            part = rows if len(places) == rows.num_rows else rows.take(pa.array(places))
            yield bucket, tuple(values), part

    def _values(self, field: PartitionField, rows: pa.RecordBatch) -> pa.Array:
        accessor = self.schema.accessor_for_field(field.source_id)
        column = rows.column(accessor.position)
        while accessor.inner:
            accessor = accessor.inner
            column = pc.struct_field(column, [accessor.position])
        source = self.schema.find_field(field.source_id).field_type
        return _counted(field.transform.pyarrow_transform(source)(column))


def _counted(values: pa.Array) -> pa.Array:
    """Give dates and moments as the integers that they are."""
    if pa.types.is_date32(values.type) or pa.types.is_time32(values.type):
        return values.cast(pa.int32())
    if pa.types.is_timestamp(values.type) or pa.types.is_time64(values.type):
        return values.cast(pa.int64())
    return values


def _count(value: Any) -> Any:
    """Give a date or a moment as the integer that it is."""
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    if isinstance(value, date):
        return (value - EPOCH.date()).days
    if isinstance(value, time):
        return (datetime.combine(EPOCH.date(), value, UTC) - EPOCH) // timedelta(microseconds=1)
    return value


def _groups(encoded: list[pa.DictionaryArray]) -> Iterator[npt.NDArray[np.int64]]:
    """Give the places of the rows that are alike in all columns, group by group, each in order."""
    codes = np.zeros(len(encoded[0]), np.int64)
    for each in encoded:
        if len(each.dictionary) > 1:
            codes = codes * len(each.dictionary) + each.indices.to_numpy(zero_copy_only=False)
            codes = np.unique(codes, return_inverse=True)[1]  # small again: products of many fields would overflow
    order = np.argsort(codes, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)

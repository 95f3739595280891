"""The content checksum of rows: which there are, and how many of each; not in what order, in what files, or by whom.

Each value is hashed as Iceberg's bucket transform does (murmur3, 31 of its bits: https://iceberg.apache.org/spec/,
appendix B), floats by their bits with one NaN and one zero, nested values by their leaves. A row mixes its values with
their fields' ids, and rows are added up modulo 2^64: two equal rows are not none, and cells that changed places show.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.types import IcebergType, ListType, MapType, NestedField, StructType
from pyiceberg_core import transform

Hashes = npt.NDArray[np.uint64]

_NULL, _EMPTY = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03)
_BUCKETS = 2**31 - 1  # as many as the transform takes


@dataclass(frozen=True)
class Checksum:
    """What rows add up to.

    Attributes:
        rows: how many.
        total: modulo 2^64.
    """

    rows: int = 0
    total: int = 0

    def __add__(self, other: "Checksum") -> "Checksum":
        """Add the rows of two."""
        return Checksum(self.rows + other.rows, (self.total + other.total) % 2**64)


def checksum(batch: pa.RecordBatch, schema: Schema) -> Checksum:
    """Add up a batch of a table's rows; its columns are found by name."""
    with np.errstate(over="ignore"):
        rows = _fields(schema.fields, [batch.column(field.name) for field in schema.fields], batch.num_rows)
        return Checksum(batch.num_rows, int(_mixed(rows).sum(dtype=np.uint64)))


def checksum_of(batches: Iterable[pa.RecordBatch], schema: Schema) -> Checksum:
    """Add up many batches."""
    return sum((checksum(batch, schema) for batch in batches), Checksum())


def _fields(fields: Sequence[NestedField], columns: Sequence[pa.Array], rows: int) -> Hashes:
    total = np.zeros(rows, np.uint64)
    for field, column in zip(fields, columns, strict=True):
        total += _mixed(_hashes(column, field.field_type) + np.uint64(field.field_id) * _EMPTY)
    return total


def _hashes(values: pa.Array, kind: IcebergType) -> Hashes:
    """Hash each value; nulls are a constant, whatever lies below them."""
    found = _nested(values, kind)
    return np.where(values.is_null().to_numpy(zero_copy_only=False), _NULL, found) if values.null_count else found


def _nested(values: pa.Array, kind: IcebergType) -> Hashes:
    if isinstance(kind, StructType):
        return _mixed(_fields(kind.fields, [values.field(field.name) for field in kind.fields], len(values)))
    if isinstance(kind, MapType):  # its entries have no order
        keys = _mixed(_hashes(values.keys[_span(values)], kind.key_type))
        items = _hashes(values.items[_span(values)], kind.value_type)
        return _summed(values, _mixed(keys + items))
    if isinstance(kind, ListType):
        places = np.arange(_span(values).stop - _span(values).start, dtype=np.uint64)
        within = places - _starts(values)[_parents(values)]
        return _summed(values, _mixed(_hashes(values.values[_span(values)], kind.element_type) + _mixed(within)))
    return _leaf(values)


def _leaf(values: pa.Array) -> Hashes:
    hashed: Any = transform.bucket(_hashable(values), _BUCKETS)
    numbers: Hashes = hashed.fill_null(0).to_numpy(zero_copy_only=False).astype(np.uint64)
    return _mixed(numbers)


def _hashable(values: pa.Array) -> pa.Array:
    """Give values of a type that the transform takes, equal for equal values."""
    kind = values.type
    if pa.types.is_floating(kind):
        numbers = values.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False) + 0.0  # -0.0 becomes 0.0
        return pa.array(np.where(np.isnan(numbers), np.nan, numbers).view(np.int64))
    if pa.types.is_boolean(kind):
        return values.cast(pa.int32())
    if pa.types.is_fixed_size_binary(kind):
        return values.cast(pa.binary())
    if pa.types.is_dictionary(kind):
        return values.dictionary_decode()
    return values


def _offsets(values: pa.Array) -> npt.NDArray[np.int64]:
    offsets: npt.NDArray[np.int64] = values.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    return offsets


def _span(values: pa.Array) -> slice:
    """Tell which of the child's values are of these: an array may be a slice of a larger one."""
    offsets = _offsets(values)
    return slice(int(offsets[0]), int(offsets[-1]))


def _starts(values: pa.Array) -> Hashes:
    offsets = _offsets(values)
    starts: Hashes = (offsets[:-1] - offsets[0]).astype(np.uint64)
    return starts


def _parents(values: pa.Array) -> npt.NDArray[np.int64]:
    offsets = _offsets(values)
    return np.repeat(np.arange(len(values)), np.diff(offsets))


def _summed(values: pa.Array, children: Hashes) -> Hashes:
    """Add up the children of each value; an empty one is not the same as none."""
    total = np.full(len(values), _EMPTY, np.uint64)
    np.add.at(total, _parents(values), children)
    return _mixed(total)


def _mixed(hashes: Hashes) -> Hashes:
    """Spread bits: the finalizer of splitmix64 (https://prng.di.unimi.it/splitmix64.c)."""
    mixed = hashes + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    spread: Hashes = mixed ^ (mixed >> np.uint64(31))
    return spread

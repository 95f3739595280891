"""The content checksum of rows: which there are, and how many of each; not in what order, in what files, or by whom.

Each value gives 64 bits: numbers by their own bits, floats with one NaN and one zero, text and bytes by their words of
eight bytes and their length, nested values by their leaves. A row mixes its values with their fields' ids, and rows are
added up modulo 2^64: two equal rows are not none, and cells that changed places show. All of it is NumPy's, which lets
other threads work meanwhile; Iceberg's murmur3 takes several times as long, for 31 bits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyiceberg.types import IcebergType, ListType, MapType, NestedField, StructType

Hashes = npt.NDArray[np.uint64]
Columns = Sequence[NestedField]  # with their ids

_NULL, _EMPTY = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03)
_AT_ONCE = 16_384  # rows: what they take stays in the processor's caches, and need not be got from the system
_WORD = 8  # bytes
_KEPT = np.array([2 ** (8 * length) - 1 for length in range(_WORD + 1)], np.uint64)  # of a word of so many bytes


@dataclass(frozen=True)
class Checksum:
    """What rows add up to.

    Attributes:
        rows: how many.
        total: modulo 2^64.
    """

    rows: int = 0
    total: int = 0

    @property
    def signed(self) -> int:
        """The total as the 64 bits of a signed number, which every engine has."""
        return (self.total + 2**63) % 2**64 - 2**63

    def __add__(self, other: "Checksum") -> "Checksum":
        """Add the rows of two."""
        return Checksum(self.rows + other.rows, (self.total + other.total) % 2**64)


def checksum(batch: pa.RecordBatch, columns: Columns) -> Checksum:
    """Add up a batch of rows; columns are found by name."""
    total = 0
    for place in range(0, batch.num_rows, _AT_ONCE):
        total += int(row_hashes(batch.slice(place, _AT_ONCE), columns).sum(dtype=np.uint64))
    return Checksum(batch.num_rows, total % 2**64)


def row_hashes(batch: pa.RecordBatch, columns: Columns) -> Hashes:
    """Hash each row of some columns, found by name."""
    with np.errstate(over="ignore"):
        return mixed(_fields(columns, [batch.column(field.name) for field in columns], batch.num_rows))


def checksum_of(batches: Iterable[pa.RecordBatch], columns: Columns) -> Checksum:
    """Add up many batches."""
    return sum((checksum(batch, columns) for batch in batches), Checksum())


def _fields(fields: Columns, columns: Sequence[pa.Array], rows: int) -> Hashes:
    total = np.zeros(rows, np.uint64)
    for field, column in zip(fields, columns, strict=True):
        total += mixed(_hashes(column, field.field_type) + np.uint64(field.field_id) * _EMPTY)
    return total


def _hashes(values: pa.Array, kind: IcebergType) -> Hashes:
    """Hash each value; nulls are a constant, whatever lies below them."""
    found = _nested(values, kind)
    return np.where(values.is_null().to_numpy(zero_copy_only=False), _NULL, found) if values.null_count else found


def _nested(values: pa.Array, kind: IcebergType) -> Hashes:
    if isinstance(kind, StructType):
        return mixed(_fields(kind.fields, [values.field(field.name) for field in kind.fields], len(values)))
    if isinstance(kind, MapType):  # its entries have no order
        keys = mixed(_hashes(values.keys[_span(values)], kind.key_type))
        items = _hashes(values.items[_span(values)], kind.value_type)
        return _summed(values, mixed(keys + items))
    if isinstance(kind, ListType):
        places = np.arange(_span(values).stop - _span(values).start, dtype=np.uint64)
        within = places - _starts(values)[_parents(values)]
        return _summed(values, mixed(_hashes(values.values[_span(values)], kind.element_type) + mixed(within)))
    return _leaf(values)


def _leaf(values: pa.Array) -> Hashes:
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _hashes_of_places(values)
    if isinstance(values, pa.ExtensionArray):
        return _leaf(values.storage)
    if _is_wide(kind):
        return _of_bytes(values.buffers()[2], _stored(values, np.int64, len(values) + 1))
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return _of_bytes(values.buffers()[2], _stored(values, np.int32, len(values) + 1).astype(np.int64))
    if pa.types.is_fixed_size_binary(kind) or pa.types.is_decimal(kind):
        places = np.arange(values.offset, values.offset + len(values) + 1, dtype=np.int64)
        return _of_bytes(values.buffers()[1], places * kind.byte_width)
    return mixed(_bits(values))


def _hashes_of_places(values: pa.DictionaryArray) -> Hashes:
    """Hash a dictionary's values once."""
    hashed = np.append(_leaf(values.dictionary), _NULL)  # something to take where there is none
    places = values.indices.fill_null(len(values.dictionary)).to_numpy(zero_copy_only=False)
    found: Hashes = hashed[places]
    return found


def _bits(values: pa.Array) -> Hashes:
    """Give each number as 64 bits, equal for equal ones whatever their width."""
    kind = values.type
    if pa.types.is_floating(kind):
        numbers = values.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False) + 0.0  # -0.0 becomes 0.0
        bits: Hashes = np.where(np.isnan(numbers), np.nan, numbers).view(np.uint64)
        return bits
    if pa.types.is_boolean(kind):
        values, kind = values.cast(pa.int32()), pa.int32()
    width = np.int32 if kind.bit_width == np.dtype(np.int32).itemsize * 8 else np.int64
    return _stored(values, width, len(values)).astype(np.int64).view(np.uint64)


def _stored(values: pa.Array, width: type[np.integer[Any]], count: int) -> npt.NDArray[Any]:
    """Look at the numbers that an array keeps in its second buffer: its values, or where they begin and end."""
    if not len(values):
        return np.zeros(count, width)
    return np.frombuffer(values.buffers()[1], width, count, values.offset * np.dtype(width).itemsize)


def _is_wide(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind) or pa.types.is_large_binary(kind))


def _of_bytes(body: pa.Buffer | None, offsets: npt.NDArray[np.int64]) -> Hashes:
    """Hash strings of bytes, a word of each at a time; once most are over, of the others only."""
    first, end = int(offsets[0]), int(offsets[-1])
    padded = np.zeros(end - first + _WORD, np.uint8)  # a word may begin at any byte
    if body is not None:
        padded[:-_WORD] = np.frombuffer(body, np.uint8, end - first, first)
    words = np.ndarray((len(padded) - _WORD + 1,), "<u8", padded, strides=(1,))
    starts, left = offsets[:-1] - first, np.diff(offsets)
    total = mixed(left.view(np.uint64))
    rows: Any = slice(None)
    for place in range(0, int(left.max(initial=0)), _WORD):
        going_on = left > 0
        if going_on.sum() * 2 < len(left):
            rows = np.flatnonzero(going_on) if isinstance(rows, slice) else rows[going_on]
            starts, left = starts[going_on], left[going_on]
            going_on = left > 0
        word = words[np.minimum(starts, end - first)] & _KEPT.take(left, mode="clip")
        # Far apart, so that no text is another whose words are so much larger or smaller, or a length.
        apart = np.uint64((place + 1) * int(_EMPTY) % 2**64)
        total[rows] += np.where(going_on, mixed(word + apart), 0)
        starts, left = starts + _WORD, left - _WORD
    return mixed(total)


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
    return mixed(total)


def mixed(words: Hashes) -> Hashes:
    """Spread bits: the finalizer of splitmix64 (https://prng.di.unimi.it/splitmix64.c)."""
    spread = words + np.uint64(0x9E3779B97F4A7C15)
    spread ^= spread >> np.uint64(30)
    spread *= np.uint64(0xBF58476D1CE4E5B9)
    spread ^= spread >> np.uint64(27)
    spread *= np.uint64(0x94D049BB133111EB)
    spread ^= spread >> np.uint64(31)
    return spread

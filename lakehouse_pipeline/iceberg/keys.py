"""Keys of rows in bulk: which are the same, and which of two values is greater, in NumPy and without a loop over rows.

Null is null's equal, NaN is NaN's, and -0.0 is 0.0. Order is `iceberg/sorted_rows.py`'s: null lowest, NaN highest.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.iceberg.checksum import mixed

Words = npt.NDArray[np.uint64]

_NULL, _END = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03)
_SIGN = np.uint64(1 << 63)
_WORD = 8  # bytes


def refuse(schema: pa.Schema, columns: Sequence[str], what: str) -> None:
    """Refuse columns that are not there, or that are nested.

    Raises:
        ConfigurationError: names each of them.
    """
    missing = [name for name in columns if schema.get_field_index(name) < 0]
    nested = [name for name in columns if name not in missing and pa.types.is_nested(schema.field(name).type)]
    wrong = [f"{name} is missing" for name in missing]
    wrong += [f"{name} is nested ({schema.field(name).type})" for name in nested]
    if wrong or not columns:
        raise ConfigurationError(f"{what} takes columns of plain values: {'; '.join(wrong) or 'none is given'}")


def plain(values: pa.Array) -> pa.Array:
    """Give the values themselves, without dictionary and extension type."""
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def hashes(rows: pa.RecordBatch, key: Sequence[str], seed: int = 0) -> Words:
    """Hash each row's key: the same for keys that are the same, and hardly ever for others."""
    total = np.full(rows.num_rows, seed, np.uint64)
    for name in key:
        values = plain(rows.column(name))
        found = _hashes(values, total)
        if values.null_count:
            found = np.where(values.is_null().to_numpy(zero_copy_only=False), mixed(total ^ _NULL), found)
        total = found
    return total


def same(one: pa.Array, two: pa.Array) -> bool:
    """Tell whether two arrays hold the same, value by value."""
    one, two = plain(one), plain(two)
    if pa.types.is_null(one.type):
        return True
    equal = pc.fill_null(pc.equal(one, two), False)
    equal = pc.or_(equal, pc.and_(pc.is_null(one), pc.is_null(two)))
    if pa.types.is_floating(one.type):
        equal = pc.or_(equal, pc.fill_null(pc.and_(pc.is_nan(one), pc.is_nan(two)), False))
    return bool(pc.all(equal, min_count=0).as_py())


def codes(values: pa.Array) -> Words:
    """Give each value a number that sorts as it does; null's is 0, which the least value may have too.

    Numbers of values of a type that `is_coded` are comparable with those of other arrays, others with those of this.
    """
    values = plain(values)
    kind = values.type
    if pa.types.is_null(kind):
        return np.zeros(len(values), np.uint64)
    if pa.types.is_floating(kind):
        found = _normal(values).view(np.uint64)
        found ^= (found.view(np.int64) >> 63).view(np.uint64) | _SIGN  # of a negative number all bits, or else its sign
    elif _is_number(kind):
        found = _numbers(values) ^ (np.uint64(0) if pa.types.is_unsigned_integer(kind) else _SIGN)
    else:
        found = pc.rank(values, sort_keys="ascending", tiebreaker="dense").to_numpy()
    return (
        np.where(values.is_null().to_numpy(zero_copy_only=False), np.uint64(0), found) if values.null_count else found
    )


def is_coded(kind: pa.DataType) -> bool:
    """Tell whether a value's code does not depend on the values beside it."""
    return pa.types.is_floating(kind) or _is_number(kind)


def _hashes(values: pa.Array, seeds: Words) -> Words:
    """Hash values on top of what their rows have so far; nulls as anything."""
    kind = values.type
    if pa.types.is_floating(kind):
        return mixed(seeds ^ mixed(_normal(values).view(np.uint64)))
    if _is_number(kind):
        return mixed(seeds ^ mixed(_numbers(values)))
    if pa.types.is_decimal(kind):
        return _decimals(values, seeds)
    if pa.types.is_null(kind):
        return seeds
    return _bytes(values.cast(pa.binary() if pa.types.is_fixed_size_binary(kind) else pa.large_binary()), seeds)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_temporal(kind) or pa.types.is_boolean(kind))


def _numbers(values: pa.Array) -> Words:
    """Give whole numbers, instants and booleans as 64 bits."""
    kind = values.type
    if pa.types.is_boolean(kind):
        values = values.cast(pa.int64())
    elif pa.types.is_temporal(kind):
        values = values.view(pa.int64() if kind.bit_width == 64 else pa.int32())  # noqa: PLR2004  # the other is 32
    wide = pa.uint64() if pa.types.is_unsigned_integer(values.type) else pa.int64()
    numbers: Words = values.cast(wide).fill_null(0).to_numpy().view(np.uint64)
    return numbers


def _normal(values: pa.Array) -> npt.NDArray[np.float64]:
    """Give floats as doubles, with one NaN, which is above every number, and one zero."""
    numbers: npt.NDArray[np.float64] = values.cast(pa.float64()).fill_null(0.0).to_numpy() + 0.0  # -0.0 becomes 0.0
    numbers[np.isnan(numbers)] = np.nan
    return numbers


def _decimals(values: pa.Array, seeds: Words) -> Words:
    width = values.type.bit_width // 8
    raw = np.frombuffer(values.buffers()[1], np.uint8, len(values) * width, values.offset * width)
    if width < _WORD:
        return mixed(seeds ^ mixed(raw.view(np.uint32).astype(np.uint64)))
    found = seeds
    for word in raw.view(np.uint64).reshape(len(values), width // _WORD).T:
        found = mixed(found ^ mixed(word))
    return found


def _bytes(values: pa.Array, seeds: Words) -> Words:
    """Hash bytes, eight at a time: so many steps as the longest value has words, each over the rows that go so far."""
    _, offsets, data = values.buffers()
    width = np.int32 if pa.types.is_binary(values.type) else np.int64
    ends = np.frombuffer(offsets, width, len(values) + 1, values.offset * np.dtype(width).itemsize).astype(np.int64)
    starts, left = ends[:-1], np.diff(ends)
    found = mixed(seeds ^ mixed(left.view(np.uint64) ^ _END))
    if not len(values) or not ends[-1]:
        return found
    first = int(ends[0])
    padded = np.zeros(int(ends[-1]) - first + _WORD, np.uint8)
    padded[:-_WORD] = np.frombuffer(data, np.uint8, len(padded) - _WORD, first)
    words = np.ndarray((len(padded) - _WORD + 1,), np.uint64, padded, strides=(1,))  # one at every byte
    starts = starts - first
    active = np.flatnonzero(left)
    while len(active):
        word = words[starts[active]]
        spare = np.maximum(_WORD - left[active], 0).astype(np.uint64) * np.uint64(8)  # bits of the next value
        found[active] = mixed(found[active] ^ ((word << spare) >> spare))
        starts, left = starts + _WORD, left - _WORD
        active = active[left[active] > 0]
    return found

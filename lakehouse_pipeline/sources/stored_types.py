"""Types of files that bring their own: what the readers make of them, and which columns they may be asked for."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa

from lakehouse_pipeline.errors import DataError
from lakehouse_pipeline.sources import values

Takes = Callable[[pa.DataType, pa.DataType], bool]

DRIFT = "Land the file with the spec's columns, or bring the spec in line with the file"

_PRECISION_LIMIT = 38  # digits of a decimal128, and of Iceberg's decimals


def schema_in_our_types(schema: pa.Schema, url: str) -> pa.Schema:
    """Give a file's columns in the types that the readers know, nullable as they are in the file.

    Small and unsigned integers become the next type that holds them (uint64: int64, and rows that do not fit are bad),
    timestamps microseconds, dictionaries their values.

    Raises:
        DataError: a name stands twice, or a column has a type that the readers do not know.
    """
    problems = [f'"{f.name}" has the type {f.type}' for f in schema if normalised(f.type) is None]
    problems += [f'"{name}" stands twice' for name in values.twice(schema.names)]
    if problems:
        raise DataError(
            f"{url}: these columns cannot be read: {'; '.join(problems)}. Land them otherwise, or give the spec "
            "`columns` without them"
        )
    return pa.schema([pa.field(f.name, normalised(f.type), f.nullable) for f in schema])


def normalised(kind: pa.DataType) -> pa.DataType | None:
    """Give the type that the readers make of a file's type; None where they know none."""
    if pa.types.is_nested(kind):
        return _nested(kind)
    if pa.types.is_dictionary(kind):
        return normalised(kind.value_type)
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", None if kind.tz is None else "UTC")
    if pa.types.is_decimal(kind):
        return pa.decimal128(kind.precision, kind.scale) if _is_iceberg_decimal(kind) else None
    for matches, normal in _NORMAL:
        if matches(kind):
            return normal
    return None


def is_castable(stored: pa.DataType, wanted: pa.DataType) -> bool:
    """Say whether values of a file's flat type could be meant as those of a wanted one; each is judged by itself."""
    if pa.types.is_null(stored):
        return True
    kind = normalised(stored)
    if kind is None:
        return False
    return any(is_stored(kind) and is_wanted(wanted) for is_stored, is_wanted in _CASTS)


def check_columns(
    stored: pa.Schema, schema: pa.Schema, url: str, takes: Takes = is_castable, way_out: str = DRIFT
) -> None:
    """Make sure that a file has the wanted columns, in types whose values could be meant.

    Args:
        stored: the file's columns.
        schema: the wanted ones.
        url: the file.
        takes: says whether a reader takes a flat stored type for a wanted one.
        way_out: where it does not.

    Raises:
        DataError: names every column that is not there, stands twice or is of another kind.
    """
    problems = list(_mismatches(list(stored), schema, "", takes))
    if problems:
        raise DataError(f"{url} {'; '.join(problems)}. {way_out}")


def _nested(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_struct(kind):
        fields = [normal for field in kind.fields if (normal := _normal_field(field))]
        names = {field.name for field in fields}
        return pa.struct(fields) if fields and len(names) == len(fields) == kind.num_fields else None
    if pa.types.is_map(kind):
        key, value = _normal_field(kind.key_field), _normal_field(kind.item_field)
        return pa.map_(key, value) if key and value and not pa.types.is_nested(key.type) else None
    if _is_list(kind):
        element = _normal_field(kind.value_field)
        return None if element is None else pa.list_(element)
    return None


def _normal_field(field: pa.Field) -> pa.Field | None:
    normal = normalised(field.type)
    return None if normal is None else field.with_type(normal)


def _mismatches(stored: list[pa.Field], wanted: Iterable[pa.Field], path: str, takes: Takes) -> Iterator[str]:
    counts = Counter(each.name for each in stored)
    types = {each.name: each.type for each in stored}
    for field in wanted:
        name = path + field.name
        if field.name not in types:
            has = values.listed([path + each.name for each in stored])
            yield f'has no column "{name}" (it has {has})'
        elif counts[field.name] > 1:
            yield f'has the column "{name}" twice'
        else:
            yield from _unlike(types[field.name], field.type, name, takes)


def _unlike(stored: pa.DataType, wanted: pa.DataType, path: str, takes: Takes) -> Iterator[str]:
    if pa.types.is_struct(stored) and pa.types.is_struct(wanted):
        yield from _mismatches(stored.fields, wanted.fields, f"{path}.", takes)
    elif _is_list(stored) and pa.types.is_list(wanted):
        yield from _unlike(stored.value_type, wanted.value_type, f"{path}[]", takes)
    elif pa.types.is_map(stored) and pa.types.is_map(wanted):
        yield from _unlike(stored.key_type, wanted.key_type, f"{path}.key", takes)
        yield from _unlike(stored.item_type, wanted.item_type, f"{path}[]", takes)
    elif not takes(stored, wanted):
        yield f'has the column "{path}" as {stored}, which is no {values.type_name(wanted).partition(" ")[2]}'


def _is_iceberg_decimal(kind: pa.DataType) -> bool:
    return bool(kind.precision <= _PRECISION_LIMIT and 0 <= kind.scale <= kind.precision)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_exact_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_decimal(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


_LONGS = (pa.int64(), pa.uint64(), pa.uint32())

_NORMAL = (
    (pa.types.is_boolean, pa.bool_()),
    (_LONGS.__contains__, pa.int64()),
    (pa.types.is_integer, pa.int32()),
    (pa.types.is_float64, pa.float64()),
    (pa.types.is_floating, pa.float32()),
    (pa.types.is_date, pa.date32()),
    (_is_string, pa.string()),
    (_is_binary, pa.binary()),
)
_CASTS = (
    (pa.types.is_boolean, pa.types.is_boolean),
    (_is_exact_number, _is_number),
    (pa.types.is_floating, pa.types.is_integer),
    (pa.types.is_floating, pa.types.is_floating),
    (pa.types.is_date, pa.types.is_date),
    (pa.types.is_temporal, pa.types.is_timestamp),
    (_is_bytes, _is_bytes),
)

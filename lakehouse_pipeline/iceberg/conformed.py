"""Rows as the table wants them: its exact columns, types and field ids, at every level; no value changes.

Rows that do not fit are refused here, by the column's full name. Which rows are of which hour is not judged here.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse_pipeline.errors import DataError


def conform(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Give rows the table's exact columns, types and field ids.

    Raises:
        DataError: a required column holds a null, or a value does not fit the table's type.
    """
    columns = [_conformed(rows.column(wanted.name), wanted, wanted.name) for wanted in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def check_valid(rows: pa.RecordBatch) -> None:
    """Hold rows that an engine gives against what Arrow says their bytes have to be: Spark makes any bytes a string.

    Raises:
        DataError: a string is no UTF-8, which no reader could read again, or a number is none of its type.
    """
    try:
        rows.validate(full=True)
    except pa.ArrowInvalid as error:
        where, _, said = str(error).partition(": Invalid: ")
        place = where.removeprefix("In column ")
        column = f"column {rows.schema.names[int(place)]}" if place.isdigit() else where
        raise DataError(f"{column} holds what its type cannot: {said}; decode it in the transform") from None


def _conformed(column: pa.Array, wanted: pa.Field, name: str, absent: int = 0) -> pa.Array:
    """Conform a column, or a part of one; `absent` of its nulls are there because what it is a part of is null."""
    nulls = column.null_count - absent
    if not wanted.nullable and nulls:
        raise DataError(
            f"column {name} is required, but {nulls} of {len(column) - absent} rows have no value (of those that were "
            "looked at first): fill or filter them in the transform, or, if it is not the one that says the hour, "
            'write the column without "!"'
        )
    if column.type != wanted.type or _requires(wanted.type):
        try:
            column = _cast(column, wanted.type, name)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(f"column {name} does not fit the table's {wanted.type}: {error}") from None
    return column if wanted.nullable or not column.null_count else _filled(column)


def _cast(column: pa.Array, wanted: pa.DataType, name: str) -> pa.Array:
    if pa.types.is_struct(wanted):
        return _struct(column, wanted, name)
    if pa.types.is_list(wanted):
        return _list(column, wanted, name)
    if pa.types.is_map(wanted):
        return _map(column, wanted, name)
    return column.cast(wanted)


def _filled(column: pa.Array) -> pa.Array:
    """Forget which values are null: Parquet's writer refuses nulls in a required part of what is null itself."""
    kind = column.type
    if pa.types.is_struct(kind):
        return pa.StructArray.from_arrays([column.field(place) for place in range(len(kind))], fields=list(kind))
    if pa.types.is_list(kind):
        column = compact(column)
        return pa.ListArray.from_arrays(column.offsets, column.values, type=kind)
    if pa.types.is_map(kind):
        column = compact(column)
        return pa.MapArray.from_arrays(column.offsets, column.keys, column.items, type=kind)
    return pa.Array.from_buffers(kind, len(column), [None, *column.buffers()[1:]], offset=column.offset)


def _requires(kind: pa.DataType) -> bool:
    """Tell whether a type has required parts, which may hold nulls all the same."""
    if pa.types.is_map(kind):
        return not kind.item_field.nullable or _requires(kind.item_type)
    if not pa.types.is_struct(kind) and not pa.types.is_list(kind):
        return False
    parts = kind if pa.types.is_struct(kind) else [kind.value_field]
    return any(not part.nullable or _requires(part.type) for part in parts)


def _struct(column: pa.Array, wanted: pa.StructType, name: str) -> pa.Array:
    given = {part.name: place for place, part in enumerate(column.type)} if pa.types.is_struct(column.type) else {}
    missing = [part.name for part in wanted if part.name not in given]
    if missing:
        raise DataError(f"column {name} is {column.type}, without {', '.join(missing)} of the table's {wanted}")
    # `struct_field` gives null wherever the struct itself is null.
    parts = [
        _conformed(pc.struct_field(column, [given[part.name]]), part, f"{name}.{part.name}", column.null_count)
        for part in wanted
    ]
    return pa.StructArray.from_arrays(parts, fields=list(wanted), mask=null_mask(column))


def _list(column: pa.Array, wanted: pa.ListType, name: str) -> pa.Array:
    given = column.type
    if pa.types.is_large_list(given) or pa.types.is_fixed_size_list(given):
        column = column.cast(pa.list_(given.value_field))
    column = compact(column)
    values = _conformed(pc.list_flatten(column), wanted.value_field, f"{name}.element")
    return pa.ListArray.from_arrays(column.offsets, values, type=wanted, mask=null_mask(column))


def _map(column: pa.Array, wanted: pa.MapType, name: str) -> pa.Array:
    column = compact(column.cast(pa.map_(column.type.key_field, column.type.item_field)))
    keys = _conformed(column.keys, wanted.key_field, f"{name}.key")
    values = _conformed(column.items, wanted.item_field, f"{name}.value")
    return pa.MapArray.from_arrays(column.offsets, keys, values, type=wanted, mask=null_mask(column))


def compact(column: pa.Array) -> pa.Array:
    """Copy a column so that its values are those of its rows, from the first on: slices and nulls may hide others."""
    return column.take(pa.array(range(len(column)), pa.int64()))


def null_mask(column: pa.Array) -> pa.Array | None:
    """Tell where a column is null; None where it is nowhere."""
    return column.is_null() if column.null_count else None


def leaves(field: pa.Field, column: pa.ChunkedArray, path: str) -> Iterator[tuple[str, pa.Field, pa.ChunkedArray]]:
    """Give the primitive columns that a column is made of, with their Parquet paths.

    Values within lists and maps come flat: there are as many as there are elements.
    """
    kind = field.type
    if pa.types.is_struct(kind):
        for place, part in enumerate(kind):
            yield from leaves(part, pc.struct_field(column, [place]), f"{path}.{part.name}")
    elif pa.types.is_list(kind):
        yield from leaves(kind.value_field, pc.list_flatten(column), f"{path}.list.element")
    elif pa.types.is_map(kind):
        entries = pa.struct([kind.key_field, kind.item_field])
        pairs = pc.list_flatten(column.cast(pa.list_(entries)))
        yield from leaves(kind.key_field, pc.struct_field(pairs, [0]), f"{path}.key_value.key")
        yield from leaves(kind.item_field, pc.struct_field(pairs, [1]), f"{path}.key_value.value")
    else:
        yield path, field, column

"""Structs, lists and maps: taken apart, their innermost columns converted, and put together again. No I/O here.

What a struct, a list or a map holds is judged as strictly as a column of its own: a conversion is written for flat
columns only, and comes here to be carried into nested ones.
"""

import json
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse_pipeline.sources.columns import InexactError

LOSSES = (pa.ArrowInvalid, InexactError)

Leaf = Callable[[pa.Array, pa.Field], pa.Array]


def converted(column: pa.Array, field: pa.Field, leaf: Leaf) -> pa.Array:
    """Convert a column to a field's type, `leaf` doing so for what is flat.

    Structs go by the names of their fields, and may hold more than is wanted.

    Raises:
        InexactError: a required value is null, here or inside.
        ArrowInvalid, InexactError: from `leaf`.
    """
    if not field.nullable and column.null_count:
        raise InexactError("a required value is null")
    if not pa.types.is_nested(field.type):
        return leaf(column, field)
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), field.type)
    if not column.null_count:
        return _dense(column, field.type, leaf)
    # What lies below a null is arbitrary: it is taken out before the inside is looked at, and nulls put back behind.
    valid = column.is_valid()
    return _spread(_dense(column.filter(valid), field.type, leaf), valid)


def fault_in(column: pa.Array, field: pa.Field, leaf: Leaf, path: str) -> tuple[str, pa.Scalar, pa.Field]:
    """Find the first value of one row that `converted` refuses.

    Args:
        column: of one row, which is refused.
        field: what is wanted.
        leaf: as above.
        path: of the column: its name.

    Returns:
        Its path, such as `user.tags[2]`, itself, and what was wanted there.
    """
    value = column[0]
    if value.is_valid and pa.types.is_nested(field.type):
        for inner, values, wanted in _parts(column, field.type, path):
            try:
                converted(values, wanted, leaf)
            except LOSSES:
                return fault_in(values, wanted, leaf, inner)
    return path, value, field


def _dense(column: pa.Array, kind: pa.DataType, leaf: Leaf) -> pa.Array:
    """Convert a nested column without nulls."""
    if pa.types.is_struct(kind):
        inner = [converted(column.field(child.name), child, leaf) for child in kind.fields]
        return pa.StructArray.from_arrays(inner, fields=list(kind.fields))
    listed = _listed(column)
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), _ends(listed)])
    items = listed.flatten()
    if pa.types.is_map(kind):
        keys = converted(items.field("key"), kind.key_field, leaf)
        return pa.MapArray.from_arrays(offsets, keys, converted(items.field("value"), kind.item_field, leaf), type=kind)
    return pa.ListArray.from_arrays(offsets, converted(items, kind.value_field, leaf), type=kind)


def _spread(dense: pa.Array, valid: pa.Array) -> pa.Array:
    """Put nulls between values, where `valid` says so."""
    places = pc.subtract(pc.cumulative_sum(valid.cast(pa.int64())), 1)
    if not pa.types.is_struct(dense.type):
        return dense.take(pc.if_else(valid, places, pa.scalar(None, pa.int64())))
    # Below a null struct its required fields have a value: PySpark refuses others, which nobody could see.
    filled = pa.concat_arrays([dense, pa.array([_filler(dense.type)], dense.type)])
    whole = filled.take(pc.if_else(valid, places, len(dense)))
    inner = [whole.field(place) for place in range(dense.type.num_fields)]
    return pa.StructArray.from_arrays(inner, fields=list(dense.type.fields), mask=pc.invert(valid))


def _filler(kind: pa.DataType) -> object:
    """Give some value of a type, as `pa.array` takes it."""
    if pa.types.is_struct(kind):
        return {child.name: None if child.nullable else _filler(child.type) for child in kind.fields}
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        return []
    if pa.types.is_boolean(kind):
        return False
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return b"" if pa.types.is_binary(kind) else ""
    return 0


def _ends(listed: pa.Array) -> pa.Array:
    return pc.cumulative_sum(pc.list_value_length(listed).cast(pa.int64())).cast(pa.int32())


def _listed(column: pa.Array) -> pa.Array:
    """Give a map as the list of its entries, as Arrow flattens lists only; a list as it is."""
    if not pa.types.is_map(column.type):
        return column
    entry = pa.struct([("key", column.type.key_type), ("value", column.type.item_type)])
    return column.cast(pa.list_(entry))


def _parts(column: pa.Array, kind: pa.DataType, path: str) -> Iterator[tuple[str, pa.Array, pa.Field]]:
    if pa.types.is_struct(kind):
        for child in kind.fields:
            yield f"{path}.{child.name}", column.field(child.name), child
        return
    items = _listed(column).flatten()
    for place in range(len(items)):
        item = items[place : place + 1]
        if pa.types.is_map(kind):
            key = json.dumps(item.field("key")[0].as_py(), default=str, ensure_ascii=False)
            yield f"{path}.key", item.field("key"), kind.key_field
            yield f"{path}[{key}]", item.field("value"), kind.item_field
        else:
            yield f"{path}[{place}]", item, kind.value_field

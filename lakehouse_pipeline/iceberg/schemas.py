"""A table's schema, partition spec and sort order, between the spec's words, Iceberg's types and Arrow's.

All of it is pure: no catalog is asked and no file is read.
"""

from collections.abc import Iterable, Iterator
from itertools import count

import pyarrow as pa
import pyiceberg.types as iceberg
from pydantic import ValidationError
from pyiceberg.io.pyarrow import pyarrow_to_schema, schema_to_pyarrow
from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.table.sorting import NullOrder, SortDirection, SortField, SortOrder
from pyiceberg.transforms import IdentityTransform, parse_transform

from lakehouse_pipeline.config.table import SortField as SpecSortField
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.types import Column, ListType, StructType, is_reserved, nested_type
from lakehouse_pipeline.errors import ConfigurationError

FIELD_ID = b"PARQUET:field_id"  # Arrow's name of the metadata that holds a column's id in Parquet
_SUFFIXES = {"bucket": "_bucket", "truncate": "_trunc"}  # where the name is not that of the transform


def schema_of(columns: tuple[Column, ...]) -> Schema:
    """Make an Iceberg schema with fresh ids."""
    return assign_fresh_schema_ids(Schema(*_fields(columns, count(1))))


def iceberg_type(name: str) -> iceberg.IcebergType:
    """Give Iceberg's type of a name in the spec's words; ids inside are those of no table."""
    return _iceberg_type(name, count(1))


def _fields(columns: tuple[Column, ...], ids: Iterator[int]) -> list[iceberg.NestedField]:
    return [
        iceberg.NestedField(next(ids), column.name, _iceberg_type(column.type, ids), required=column.required)
        for column in columns
    ]


def _iceberg_type(name: str, ids: Iterator[int]) -> iceberg.IcebergType:
    nested = nested_type(name)
    if nested is None:
        field = iceberg.NestedField.model_validate({"id": 1, "name": "x", "type": name, "required": False})
        return field.field_type
    if isinstance(nested, StructType):
        return iceberg.StructType(*_fields(nested.fields, ids))
    if isinstance(nested, ListType):
        element = _iceberg_type(nested.element, ids)
        return iceberg.ListType(next(ids), element, element_required=nested.element_required)
    key, value = _iceberg_type(nested.key, ids), _iceberg_type(nested.value, ids)
    return iceberg.MapType(next(ids), key, next(ids), value, value_required=nested.value_required)


def columns_of(schema: Schema) -> tuple[Column, ...]:
    """Give a schema's columns in the spec's words.

    Raises:
        ConfigurationError: a column's name or type is none that a spec could have.
    """
    reserved = [field.name for field in schema.fields if is_reserved(field.name)]
    if reserved:
        raise ConfigurationError(
            f"the table has columns that cannot be written: {', '.join(map(repr, reserved))} "
            f"{'is a reserved name' if len(reserved) == 1 else 'are reserved names'}; rename them in the table"
        )
    try:
        return tuple(
            Column(name=field.name, type=type_name(field.field_type), required=field.required)
            for field in schema.fields
        )
    except ValidationError as error:
        raise ConfigurationError(
            f"the table has columns that cannot be written: {'; '.join(each['msg'] for each in error.errors())}"
        ) from None


def type_name(kind: iceberg.IcebergType) -> str:
    """Give a type in the spec's words."""
    if isinstance(kind, iceberg.StructType):
        return _struct_name((field.name, type_name(field.field_type), field.required) for field in kind.fields)
    if isinstance(kind, iceberg.ListType):
        return f"list<{_marked(type_name(kind.element_type), required=kind.element_required)}>"
    if isinstance(kind, iceberg.MapType):
        value = _marked(type_name(kind.value_type), required=kind.value_required)
        return f"map<{type_name(kind.key_type)},{value}>"
    return str(kind).replace(" ", "")


def types_of(schema: pa.Schema) -> dict[str, str]:
    """Give the types that hold an Arrow schema's columns, in the spec's words."""
    return {field.name: _arrow_name(field.type) for field in schema}


def _arrow_name(kind: pa.DataType) -> str:
    if pa.types.is_struct(kind):
        return _struct_name((field.name, _arrow_name(field.type), not field.nullable) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"list<{_marked(_arrow_name(kind.value_type), required=not kind.value_field.nullable)}>"
    if pa.types.is_map(kind):
        value = _marked(_arrow_name(kind.item_type), required=not kind.item_field.nullable)
        return f"map<{_arrow_name(kind.key_type)},{value}>"
    (field,) = pyarrow_to_schema(pa.schema([pa.field("x", kind, metadata={FIELD_ID: b"1"})])).fields
    return type_name(field.field_type)


def _struct_name(fields: Iterable[tuple[str, str, bool]]) -> str:
    return f"struct<{','.join(f'{name}:{_marked(kind, required=required)}' for name, kind, required in fields)}>"


def _marked(name: str, *, required: bool) -> str:
    return name + "!" * required


def arrow_schema_of(columns: tuple[Column, ...]) -> pa.Schema:
    """Give the Arrow schema that rows of these columns have in memory; required columns are not nullable."""
    return pa.schema([_small(field) for field in schema_to_pyarrow(schema_of(columns), include_field_ids=False)])


def arrow_schema(schema: Schema) -> pa.Schema:
    """Give the Arrow schema that data files of the table are written with, field ids included at every level."""
    return pa.schema([_small(field) for field in schema_to_pyarrow(schema)])


def _small(field: pa.Field) -> pa.Field:
    """Undo PyIceberg's choice of large types: batches of bounded size need no 64-bit offsets."""
    kind = field.type
    if pa.types.is_struct(kind):
        return field.with_type(pa.struct([_small(each) for each in kind]))
    if pa.types.is_large_list(kind):
        return field.with_type(pa.list_(_small(kind.value_field)))
    if pa.types.is_map(kind):
        return field.with_type(pa.map_(_small(kind.key_field), _small(kind.item_field)))
    return field.with_type({pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}.get(kind, kind))


def partition_spec_of(schema: Schema, spec: TableSpec) -> PartitionSpec:
    """Partition by `hour(<event time>)`, then by the spec's further fields, named as Iceberg's engines name them."""
    wanted = [("hour", spec.hour), *((field.transform, field.column) for field in spec.partition)]
    taken = {field.name for field in schema.fields}
    fields = []
    for field_id, (transform, column) in enumerate(wanted, start=PARTITION_FIELD_ID_START):
        name = partition_name(transform, column, taken)
        taken.add(name)
        source = schema.find_field(column).field_id
        fields.append(PartitionField(source, field_id, parse_transform(transform), name))
    return PartitionSpec(*fields)


def partition_name(transform: str, column: str, taken: Iterable[str]) -> str:
    """Name a partition field; Iceberg refuses names of columns, unless they are partitioned by as they are."""
    if transform == "identity":
        return column
    word = transform.partition("[")[0]
    name = column + _SUFFIXES.get(word, f"_{word}")
    while name in taken:
        name += "_"
    return name


def sort_order_of(schema: Schema, spec: TableSpec) -> SortOrder:
    """Make the table's sort order."""
    fields = [sort_field(schema, field) for field in spec.sort]
    return SortOrder(*fields, order_id=1) if fields else SortOrder(order_id=0)


def sort_field(schema: Schema, field: SpecSortField) -> SortField:
    """Sort by a column: nulls first ascending, last descending, as both Iceberg and Spark default to."""
    return SortField(
        source_id=schema.find_field(field.column).field_id,
        transform=IdentityTransform(),
        direction=SortDirection.DESC if field.descending else SortDirection.ASC,
        null_order=NullOrder.NULLS_LAST if field.descending else NullOrder.NULLS_FIRST,
    )

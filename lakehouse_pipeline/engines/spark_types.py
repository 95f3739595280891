"""Arrow's types as Spark's: what our readers give and our writer takes."""

import pyarrow as pa
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
)

from lakehouse_pipeline.errors import ConfigurationError

_TYPES: dict[pa.DataType, DataType] = {
    pa.bool_(): BooleanType(),
    pa.int32(): IntegerType(),
    pa.int64(): LongType(),
    pa.float32(): FloatType(),
    pa.float64(): DoubleType(),
    pa.date32(): DateType(),
    pa.timestamp("us", "UTC"): TimestampType(),
    pa.timestamp("us"): TimestampNTZType(),
    pa.string(): StringType(),
    pa.binary(): BinaryType(),
}


def spark_schema(schema: pa.Schema) -> StructType:
    """Give the Spark schema of an Arrow schema.

    Raises:
        ConfigurationError: a type that Spark does not have.
    """
    return StructType([_field(field, field.name) for field in schema])


def _field(field: pa.Field, path: str) -> StructField:
    return StructField(field.name, _type(field.type, path), field.nullable)


def _type(kind: pa.DataType, path: str) -> DataType:
    if pa.types.is_decimal128(kind):
        return DecimalType(kind.precision, kind.scale)
    if pa.types.is_struct(kind):
        return StructType([_field(kind.field(n), f"{path}.{kind.field(n).name}") for n in range(kind.num_fields)])
    if pa.types.is_map(kind):
        value = kind.item_field
        return MapType(_type(kind.key_type, f"{path}.key"), _type(value.type, f"{path}.value"), value.nullable)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        element = kind.value_field
        return ArrayType(_type(element.type, f"{path}[]"), element.nullable)
    try:
        return _TYPES[kind]
    except KeyError:
        raise ConfigurationError(f"column {path}: Spark has no type for {kind}") from None

"""Which stored columns Spark's own readers take for a wanted one: what loses nothing, and nothing else. No I/O here.

Where a type does not fit, Spark's reader of ORC gives nulls, Sail's of Parquet cuts nanoseconds, and others fail in
words of their own: so the footers are asked first, and `reader: arrow`, which judges every value, is the way out.
"""

import pyarrow as pa

from lakehouse_pipeline.sources.stored_types import normalised


def is_taken(stored: pa.DataType, wanted: pa.DataType, *, source_format: str, widens: bool) -> bool:
    """Say whether Spark gives every value of a flat stored type as one of a wanted type.

    Args:
        stored: the file's type.
        wanted: one of the types that the readers know.
        source_format: `parquet` or `orc`, whose timestamps pyarrow always calls nanoseconds.
        widens: the engine takes narrower types for wider ones.
    """
    if pa.types.is_dictionary(stored):
        stored = stored.value_type
    if pa.types.is_null(stored):
        return True
    if pa.types.is_uint64(stored) or pa.types.is_float16(stored) or pa.types.is_decimal256(stored):
        return False
    if pa.types.is_timestamp(stored) and stored.unit == "ns" and source_format == "parquet":
        return False
    if pa.types.is_unsigned_integer(stored) and not widens:
        return False
    kind = normalised(stored)
    return bool(kind == wanted or (widens and kind is not None and _is_wider(wanted, kind)))


def _is_wider(wanted: pa.DataType, kind: pa.DataType) -> bool:
    if pa.types.is_decimal(wanted) and pa.types.is_decimal(kind):
        whole = wanted.precision - wanted.scale >= kind.precision - kind.scale
        return bool(whole and wanted.scale >= kind.scale)
    if pa.types.is_timestamp(wanted) and pa.types.is_timestamp(kind):
        return True  # the session's zone is UTC
    return (kind, wanted) in ((pa.int32(), pa.int64()), (pa.float32(), pa.float64()))

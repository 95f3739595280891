"""Whole columns at once: the checks that make Arrow's quick conversions as strict as `values`.

What cannot be vouched for raises `InexactError`; the caller then reads the block value by value. No I/O here.
"""

from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.compute as pc

# Arrow multiplies a decimal into its scale without noticing every overflow of 128 bits. With 256 bits what it does not
# notice is never 38 digits or fewer, which the narrowing checks; strings must be short for that, as their digits and
# exponents are not checked.
_WIDE_DIGITS = 76
_SHORT = 38

_FIRST_DAY = date.min
_FIRST_INSTANT = datetime.min.replace(tzinfo=UTC)
_LAST_INSTANT = datetime.max.replace(tzinfo=UTC)


Rows = tuple[pa.RecordBatch, pa.Array]  # good rows, and the position of each in its file


class InexactError(ValueError):
    """The quick way may be wrong here; no error of the data yet."""


def wide(kind: pa.DataType) -> pa.DataType:
    """Give the type to convert to before `checked` narrows it: 256 bits for decimals, else `kind`."""
    return pa.decimal256(_WIDE_DIGITS, kind.scale) if pa.types.is_decimal(kind) else kind


def parsed(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    """Convert strings to `kind`, whose checks are still to come.

    Raises:
        InexactError: a value is something else, or this way cannot tell.
    """
    try:
        if pa.types.is_timestamp(kind):
            return texts.cast(_written_as(texts)).cast(kind)
        if pa.types.is_integer(kind) and any(_holds(texts, x) for x in "xX"):
            raise InexactError("Arrow reads 0x10 as 16")
        if pa.types.is_decimal(kind) and (pc.max(pc.binary_length(texts)).as_py() or 0) > _SHORT:
            raise InexactError("Arrow may read a long number wrongly")
        return texts.cast(wide(kind))
    except pa.ArrowInvalid as error:
        raise InexactError(str(error)) from error


def checked(column: pa.Array, field: pa.Field) -> pa.Array:
    """Give the column in the field's type if every value of it is one that `values` gives too.

    Raises:
        InexactError: a required null, a number that is not finite or does not fit, a date outside of the years 1-9999.
    """
    if not field.nullable and column.null_count:
        raise InexactError("a required value is null")
    if pa.types.is_floating(field.type) and not pc.all(pc.is_finite(column), min_count=0).as_py():
        raise InexactError("a number is not finite")
    if pa.types.is_date32(field.type) or pa.types.is_timestamp(field.type):
        return in_calendar(column)
    if pa.types.is_decimal(field.type):
        return _narrowed(column, field.type)
    return column


def in_calendar(column: pa.Array) -> pa.Array:
    """Give the dates or timestamps as they are.

    Raises:
        InexactError: one is outside of the years 1-9999.
    """
    numbers = column.view(pa.int32() if pa.types.is_date32(column.type) else pa.int64())
    first, last = pc.min_max(numbers).as_py().values()
    low, high = _bounds(column.type)
    if first is not None and (first < low or last > high):
        raise InexactError("a date is outside of the years 1-9999")
    return column


def _written_as(texts: pa.Array) -> pa.DataType:
    """Tell from the first value whether timestamps have an offset; Arrow casts either kind, but no mixture."""
    first = pc.index(texts.is_valid(), pa.scalar(value=True)).as_py()
    try:
        texts[max(first, 0) : max(first, 0) + 1].cast(pa.timestamp("us"))
    except pa.ArrowInvalid:
        return pa.timestamp("us", "UTC")
    return pa.timestamp("us")


def _bounds(kind: pa.DataType) -> tuple[int, int]:
    if pa.types.is_date32(kind):
        return pa.scalar(_FIRST_DAY, kind).value, pa.scalar(date.max, kind).value
    aware = pa.timestamp("us", "UTC")
    return pa.scalar(_FIRST_INSTANT, aware).value, pa.scalar(_LAST_INSTANT, aware).value


def _narrowed(column: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return column.cast(kind)
    except pa.ArrowInvalid as error:
        raise InexactError(str(error)) from error


def _holds(texts: pa.Array, part: str) -> bool:
    return bool(pc.any(pc.greater_equal(pc.find_substring(texts, part), 0), min_count=0).as_py())

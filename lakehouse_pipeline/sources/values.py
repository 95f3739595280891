"""One value at a time, exactly: text to a value of a column's type, or the reason why not.

The vectorised conversions in `columns` accept nothing that this module refuses and give the same values. No I/O here.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation, Overflow

import pyarrow as pa

from lakehouse_pipeline.errors import ConfigurationError

SHOWN_LIMIT = 100  # characters of a value that a reason shows
NAMES_LIMIT = 20  # columns of a file that a message lists

NULL_REASON = "null, but the column is required"

_INTEGER = re.compile(r"([+-]?)0*([0-9]+)")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_TIMESTAMP = re.compile(
    _DATE.pattern
    + r"(?:[T ]([0-9]{2})(?::([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?)?(Z|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)
_INTEGER_DIGITS = 19  # of the largest int64; also keeps int() below Python's limit on digits
_EXACT = Context(prec=100, traps=[Inexact, InvalidOperation, Overflow])

Parser = Callable[[str], object]

_NAMES = {
    pa.bool_(): "a boolean",
    pa.int32(): "an int",
    pa.int64(): "a long",
    pa.float32(): "a float",
    pa.float64(): "a double",
    pa.date32(): "a date",
    pa.timestamp("us"): "a timestamp",
    pa.timestamp("us", "UTC"): "a timestamptz",
    pa.string(): "a string",
    pa.binary(): "a binary",
}
_NESTED = {pa.types.is_struct: "a struct", pa.types.is_list: "a list", pa.types.is_map: "a map"}


class OutOfRangeError(ValueError):
    """The text is well formed, but the type cannot hold its value."""


def type_name(kind: pa.DataType) -> str:
    """Give the type in Iceberg's words, with its article: `a double`, `a decimal(9, 2)`, `a struct`."""
    for matches, name in _NESTED.items():
        if matches(kind):
            return name
    if pa.types.is_decimal128(kind):
        return f"a decimal({kind.precision}, {kind.scale})"
    return _NAMES.get(kind, f"a {kind}")


def is_supported(kind: pa.DataType) -> bool:
    """Say whether columns of this type can be read."""
    if pa.types.is_struct(kind):
        names = {child.name for child in kind.fields}
        return 0 < len(names) == len(kind.fields) and all(is_supported(child.type) for child in kind.fields)
    if pa.types.is_map(kind):
        return not pa.types.is_nested(kind.key_type) and is_supported(kind.key_type) and is_supported(kind.item_type)
    if pa.types.is_list(kind):
        return is_supported(kind.value_type)
    return kind in _NAMES or (pa.types.is_decimal128(kind) and 0 <= kind.scale <= kind.precision)


def check_columns(schema: pa.Schema, reserved: tuple[str, ...] = ()) -> None:
    """Refuse wanted columns that no reader can give.

    Raises:
        ConfigurationError: names every column at fault.
    """
    problems = [f'"{f.name}" has the type {f.type}' for f in schema if not is_supported(f.type)]
    problems += [f'"{name}" is wanted twice' for name in {n for n in schema.names if schema.names.count(n) > 1}]
    problems += [f'"{name}" is the name of a provenance column' for name in reserved if name in schema.names]
    if not schema.names:
        problems.append("no column is wanted")
    if problems:
        raise ConfigurationError("these columns cannot be read: " + "; ".join(problems))


def shown(text: str) -> str:
    """Cut a value for a message; lone surrogates, which no file takes, are escaped."""
    cut = text if len(text) <= SHOWN_LIMIT else text[:SHOWN_LIMIT] + "…"
    return cut.encode(errors="backslashreplace").decode()


def listed(names: Sequence[str]) -> str:
    """List the columns of a file for a message, as far as they can be read; what does not print is escaped."""
    told = ", ".join(shown(name) if name.isprintable() else ascii(name) for name in names[:NAMES_LIMIT])
    return told + (f", … {len(names):,} in all" if len(names) > NAMES_LIMIT else "")


def twice(names: Iterable[str]) -> list[str]:
    """Give those names, in order, that stand more than once."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def parser_of(kind: pa.DataType) -> Parser:
    """Give the function that reads text as `kind`: a Python value that `pa.array(…, kind)` takes as it is.

    The function raises `ValueError` for text of another form and `OutOfRangeError` for a value that does not fit.
    """
    if pa.types.is_decimal128(kind):
        return lambda text: _decimal(text, kind)
    return _PARSERS[kind]


def _boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.lower() if text.isascii() else ""]
    except KeyError:
        raise ValueError(text) from None


def _integer(text: str, bits: int) -> int:
    match = _INTEGER.fullmatch(text)
    if not match:
        raise ValueError(text)
    value = int(match[1] + match[2]) if len(match[2]) <= _INTEGER_DIGITS else 1 << bits
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise OutOfRangeError(text)
    return value


def _double(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    value = float(text)
    if math.isinf(value):
        raise OutOfRangeError(text)
    return value


def _float(text: str) -> float:
    _double(text)
    value: float = pa.scalar(text).cast(pa.float32()).as_py()  # straight from text: through a double rounds twice
    if math.isinf(value):
        raise OutOfRangeError(text)
    return value


def _decimal(text: str, kind: pa.DataType) -> Decimal:
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    try:
        value = Decimal(text).quantize(Decimal(1).scaleb(-kind.scale), context=_EXACT)
    except DecimalException:
        raise OutOfRangeError(text) from None
    if value and value.adjusted() >= kind.precision - kind.scale:
        raise OutOfRangeError(text)
    return value


def _date(text: str) -> date:
    match = _DATE.fullmatch(text)
    if not match:
        raise ValueError(text)
    return date(int(match[1]), int(match[2]), int(match[3]))


def _microseconds(text: str) -> int:
    match = _TIMESTAMP.fullmatch(text)
    if not match:
        raise ValueError(text)
    fraction = (match[7] or "").ljust(6, "0")
    if fraction[6:].strip("0"):
        raise OutOfRangeError(text)
    year, month, day, hour, minute, second = (int(match[n] or 0) for n in range(1, 7))
    local = datetime(year, month, day, hour, minute, second, int(fraction[:6]), tzinfo=_zone(match[8]))
    try:
        return (local.astimezone(UTC) - _EPOCH) // _MICROSECOND
    except OverflowError:
        raise OutOfRangeError(text) from None


def _zone(text: str | None) -> timezone:
    if text is None or text == "Z":
        return UTC
    hours, minutes = int(text[1:3]), int(text[3:].lstrip(":") or 0)
    if minutes > 59:  # noqa: PLR2004  # minutes of an hour
        raise ValueError(text)
    return timezone((-1 if text[0] == "-" else 1) * timedelta(hours=hours, minutes=minutes))


def _string(text: str) -> str:
    text.encode()  # a lone surrogate is no character: UnicodeEncodeError is a ValueError
    return text


_PARSERS: dict[pa.DataType, Parser] = {
    pa.bool_(): _boolean,
    pa.int32(): lambda text: _integer(text, 32),
    pa.int64(): lambda text: _integer(text, 64),
    pa.float32(): _float,
    pa.float64(): _double,
    pa.date32(): _date,
    pa.timestamp("us"): _microseconds,
    pa.timestamp("us", "UTC"): _microseconds,
    pa.string(): _string,
    pa.binary(): str.encode,
}

"""Bytes, bits, seconds, dollars and counts: the one place where one is made of another, or of text, or text of it.

KB to EB are powers of 1,000 and KiB to EiB of 1,024; `b` is a bit and `B` a byte.
"""

import math
import re
from collections.abc import Mapping
from decimal import Decimal

from lakehouse_pipeline.config.model import kind
from lakehouse_pipeline.errors import ConfigurationError

BITS_PER_BYTE = 8
MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
YEAR_S = 31_557_600  # 365.25 days

_PREFIXES = "KMGTPE"
_DECIMAL = {f"{prefix}B": 1_000**power for power, prefix in enumerate(_PREFIXES, 1)}
_BINARY = {f"{prefix}iB": 1_024**power for power, prefix in enumerate(_PREFIXES, 1)}
BYTES: Mapping[str, int] = {"B": 1, **_DECIMAL, **_BINARY}
BITS_PER_SECOND: Mapping[str, int] = {
    "b/s": 1,
    **{f"{prefix}b/s": 1_000**power for power, prefix in enumerate(_PREFIXES, 1)},
    **{f"{unit}/s": BITS_PER_BYTE * size for unit, size in BYTES.items()},
}
_SHOWN_RATES = {unit: rate for unit, rate in BITS_PER_SECOND.items() if unit.endswith("b/s")}
_SPANS = {"min": MINUTE_S, "h": HOUR_S, "d": DAY_S, "years": YEAR_S}

_NUMBER = r"([0-9][0-9,]*(?:\.[0-9]+)?)"
_MEASURE = re.compile(rf"{_NUMBER} ?([A-Za-z/]+)")
_DOLLARS = re.compile(rf"\${_NUMBER}(?:/([0-9,]+|[A-Za-z]+))?")


def to_bits(size: float) -> float:
    """Give bytes as bits."""
    return size * BITS_PER_BYTE


def to_bytes(bits: float) -> float:
    """Give bits as bytes."""
    return bits / BITS_PER_BYTE


def to_days(seconds: float) -> float:
    """Give seconds as days."""
    return seconds / DAY_S


def to_seconds(days: float) -> float:
    """Give days as seconds."""
    return days * DAY_S


def seconds_for(size: float, bits_per_second: float) -> float:
    """Give how long bytes take at a rate."""
    return to_bits(size) / bits_per_second


def rate_of(size: float, seconds: float) -> float:
    """Give the bits per second of bytes that took so long."""
    return to_bits(size) / seconds


def read_bytes(value: object) -> int:
    """Read `80 TB` or `5 GiB`.

    Raises:
        ConfigurationError: it is no size.
    """
    return int(_measure(value, BYTES, "size", "80 TB or 5 GiB"))


def read_rate(value: object) -> float:
    """Read `100 Gb/s`, bits, or `12 GB/s`, bytes; gives bits per second.

    Raises:
        ConfigurationError: it is no rate.
    """
    return float(_measure(value, BITS_PER_SECOND, "rate", "100 Gb/s, or 12 GB/s for bytes"))


def read_dollars(value: object) -> float:
    """Read `$300`.

    Raises:
        ConfigurationError: it is no sum.
    """
    match = _DOLLARS.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2]:
        raise ConfigurationError(f"{_said(value)} is no sum; write dollars, such as $300")
    return _number(match[1])


def read_dollars_per_byte(value: object) -> float:
    """Read `$0.02/GB`; gives dollars for one byte.

    Raises:
        ConfigurationError: it is no price of bytes.
    """
    match = _DOLLARS.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in BYTES:
        raise ConfigurationError(f"{_said(value)} is no price of bytes; write dollars for a size, such as $0.02/GB")
    return _number(match[1]) / BYTES[match[2]]


def read_dollars_each(value: object) -> float:
    """Read `$0.005/1000`; gives dollars for one.

    Raises:
        ConfigurationError: it is no price of so many.
    """
    match = _DOLLARS.fullmatch(value) if isinstance(value, str) else None
    count = (match[2] or "1").replace(",", "") if match else ""
    if match is None or not count.isdecimal() or not int(count):
        raise ConfigurationError(f"{_said(value)} is no price; write dollars for so many, such as $0.005/1000")
    return _number(match[1]) / int(count)


def show_bytes(size: float) -> str:
    """Write bytes in the largest decimal unit that leaves no less than one."""
    return _shown(size, {"B": 1, **_DECIMAL})


def show_count(number: int, noun: str) -> str:
    """Write how many there are of something whose plural ends in s."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def show_rate(bits_per_second: float) -> str:
    """Write a rate in bits; above 1,000 Gb/s it stays in Gb/s, in which links are sold and compared."""
    rates = {unit: rate for unit, rate in _SHOWN_RATES.items() if rate <= BITS_PER_SECOND["Gb/s"]}
    return _shown(bits_per_second, rates)


def show_dollars(dollars: float) -> str:
    """Write dollars: to the cent where there are few, and to three digits below ten cents."""
    cents, dime = 100, 0.1  # dollars from which cents are noise, and below which they are too coarse
    if dollars >= cents:
        return f"${dollars:,.0f}"
    if not 0 < dollars < dime:
        return f"${dollars:,.2f}"
    return f"${dollars:.{2 - math.floor(math.log10(dollars))}f}"


def show_seconds(seconds: float) -> str:
    """Write a span in the largest unit that leaves no less than one."""
    return _shown(seconds, {"s": 1, **_SPANS})


def _measure(value: object, units: Mapping[str, int], what: str, such_as: str) -> Decimal:
    match = _MEASURE.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        raise ConfigurationError(f"{_said(value)} is no {what}; write a number and a unit, such as {such_as}")
    return _decimal(match[1]) * units[match[2]]


def _number(text: str) -> float:
    return float(_decimal(text))


def _decimal(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


def _said(value: object) -> str:
    return repr(value) if isinstance(value, str) else kind(value)


def _shown(value: float, units: Mapping[str, int]) -> str:
    unit = next((unit for unit in reversed(list(units)) if value >= units[unit]), next(iter(units)))
    number = value / units[unit]
    exact = 100  # from here on three digits stand before the point
    text = f"{number:,.0f}" if number >= exact or number == int(number) else f"{number:,.3g}"
    return f"{text} {unit}"

"""Sizes, ages, shares and counts as people write them in a file of ours."""

import re
from datetime import timedelta
from decimal import Decimal

from lakehouse_pipeline.config.model import kind
from lakehouse_pipeline.errors import ConfigurationError

_AGE = re.compile(r"([1-9][0-9]{0,3})(min|h|d)")
_AGES = {"min": "minutes", "h": "hours", "d": "days"}
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,3})?) ?%")
_SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([A-Z]+)", re.IGNORECASE)
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def read_size(value: object) -> int:
    """Read a size in bytes.

    Raises:
        ConfigurationError: it is none.
    """
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        said = repr(value) if isinstance(value, str) else kind(value)
        raise ConfigurationError(f"{said} is no size; write a number and a unit, such as 256MB or 1GiB")
    return int(Decimal(match[1]) * unit)


def read_age(value: object) -> timedelta:
    """Read a span of minutes, hours or days.

    Raises:
        ConfigurationError: it is none.
    """
    match = _AGE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        said = repr(value) if isinstance(value, str) else kind(value)
        raise ConfigurationError(f"{said} is no age; write minutes, hours or days, such as 15min, 3h or 2d")
    return timedelta(**{_AGES[match[2]]: int(match[1])})


def read_share(value: object) -> float:
    """Read per cent as a share.

    Raises:
        ConfigurationError: it is none.
    """
    match = _SHARE.fullmatch(str(value))
    share = float(match[1]) / 100 if match else 2.0
    if share > 1:
        raise ConfigurationError(f"is {value!r}; write per cent from 0% to 100%")
    return share


def read_count(value: object, *, least: int) -> int:
    """Read a whole number.

    Raises:
        ConfigurationError: it is none, or less than `least`.
    """
    text = str(value)
    if not text.isdecimal() or int(text) < least:
        raise ConfigurationError(f"is {text!r}; write a whole number from {least} on")
    return int(text)

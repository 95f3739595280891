"""Types of columns, found in some of their values: the narrowest that reads all of them, and never one that loses.

Values are judged by the parsers that will read them, so what is found here is read there. No I/O.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from lakehouse_pipeline.config.types import Column, ListType, StructType
from lakehouse_pipeline.sources.values import parser_of

_LONG = parser_of(pa.int64())
_DOUBLE = parser_of(pa.float64())
_DATE = parser_of(pa.date32())
_INSTANT = parser_of(pa.timestamp("us", "UTC"))

# 007 is a name of something, and so is +49…: as numbers they would come out otherwise than they went in.
_NUMBER_LIKE = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?|-?\.[0-9]+")
_INTEGER = re.compile(r"-?[0-9]+")
_HAS_ZONE = re.compile(r".*[T ].*(Z|[+-][0-9]{2}(:?[0-9]{2})?)")
_LONG_LIMIT = 2**63
_MIXED = "left out: its values are of several kinds, which no type reads"
_ONLY_NULLS = "only nulls in the sample: is it a string?"
_NO_ZONE = "has no time zone; write timestamptz if it is UTC"


@dataclass(frozen=True)
class Guess:
    """What a column seems to be.

    Attributes:
        type: as a spec writes it; None where there is none that reads the values.
        note: what somebody should know who reads the spec.
    """

    type: str | None
    note: str = ""


def type_of_texts(values: Collection[str]) -> Guess:
    """Find the type of values that are written as text, as in CSV."""
    if not values:
        return Guess("string", _ONLY_NULLS)
    if all(value.lower() in {"true", "false"} for value in values):
        return Guess("boolean")
    if all(_NUMBER_LIKE.fullmatch(value) for value in values):
        return _number(values)
    return type_of_strings(values)


def type_of_strings(values: Collection[str]) -> Guess:
    """Find the type of strings that are no numbers, as in JSON."""
    if _reads(_DATE, values):
        return Guess("date")
    if not _reads(_INSTANT, values):
        return Guess("string")
    if any(_HAS_ZONE.fullmatch(value) for value in values):
        return Guess("timestamptz")
    return Guess("timestamp", _NO_ZONE)


def type_of_json(values: Iterable[object]) -> Guess:
    """Find the type of JSON's values: numbers, strings, truths, objects, arrays."""
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    if not present:
        return Guess("string", _ONLY_NULLS)
    if kinds <= {int, float}:
        return _json_number(present)
    guess = _BY_KIND.get(kinds.pop()) if len(kinds) == 1 else None
    return guess(present) if guess else Guess(None, _MIXED)


def instants(values: Iterable[str]) -> tuple[datetime, ...]:
    """Read timestamps; without an offset they are UTC."""
    first = datetime.fromtimestamp(0, UTC)
    return tuple(first + timedelta(microseconds=int(str(_INSTANT(value)))) for value in values)


def columns_of(rows: Sequence[Mapping[str, object]]) -> dict[str, Guess]:
    """Find the columns of JSON's rows, in the order in which they are met."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: type_of_json(row.get(name) for row in rows) for name in names}


def _number(values: Collection[str]) -> Guess:
    if not all(_INTEGER.fullmatch(value) for value in values):
        return Guess("double") if _reads(_DOUBLE, values) else Guess("string")
    if _reads(_LONG, values):
        return Guess("long")
    return Guess("string", "numbers that are too large for a long")


def _json_number(values: Collection[object]) -> Guess:
    if any(isinstance(value, float) for value in values):
        return Guess("double")
    if all(isinstance(value, int) and -_LONG_LIMIT <= value < _LONG_LIMIT for value in values):
        return Guess("long")
    return Guess("decimal(38,0)", "numbers that are too large for a long")


def _struct(values: Sequence[Mapping[str, object]]) -> Guess:
    fields: dict[str, Column] = {}
    left_out = []
    for name, guess in columns_of(values).items():
        field = _field(name, guess)
        if field is None or field.name.casefold() in fields:
            left_out.append(name)
        else:
            fields[field.name.casefold()] = field
    note = f"without {', '.join(map(repr, left_out))}" if left_out else ""
    return Guess(str(StructType(tuple(fields.values()))), note) if fields else Guess(None, "left out: an empty object")


def _field(name: str, guess: Guess) -> Column | None:
    if guess.type is None or re.search("[:,<>()!]", name):
        return None
    try:
        return Column(name=name, type=guess.type)
    except ValidationError:
        return None


def _list(values: Sequence[list[object]]) -> Guess:
    element = type_of_json(item for value in values for item in value)
    if element.type is None:
        return element
    return Guess(str(ListType(element.type, element_required=False)), element.note)


_BY_KIND: Mapping[type, Callable[[list[Any]], Guess]] = {
    bool: lambda _: Guess("boolean"),
    str: type_of_strings,
    dict: _struct,
    list: _list,
}


def _reads(parse: Callable[[str], object], values: Iterable[str]) -> bool:
    try:
        for value in values:
            parse(value)
    except ValueError:
        return False
    return True

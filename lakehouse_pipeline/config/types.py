"""Columns and their types, in the words of Iceberg's spec.

The names are text: whoever talks to Iceberg, Spark or Arrow turns them into its own types. Nested types and the newer
primitive ones are refused here.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Self

from pydantic import BeforeValidator, ValidationError, field_validator

from lakehouse_pipeline.config.model import SpecModel, kind, sentences, several
from lakehouse_pipeline.config.problems import KeyPath, did_you_mean
from lakehouse_pipeline.errors import ConfigurationError

PRIMITIVES = (
    "boolean",
    "int",
    "long",
    "float",
    "double",
    "date",
    "timestamp",
    "timestamptz",
    "string",
    "binary",
)
MAX_PRECISION = 38  # Iceberg's spec, primitive types: decimal(P, S), "precision must be 38 or less"

_DECIMAL = re.compile(r"decimal\( *([0-9]{1,4}) *, *([0-9]{1,4}) *\)")
_HEAD = re.compile(r"[A-Za-z_0-9]*")
_UNSUPPORTED = frozenset(
    {
        "time",
        "uuid",
        "fixed",
        "struct",
        "list",
        "map",
        "timestamp_ns",
        "timestamptz_ns",
        "unknown",
        "variant",
        "geometry",
        "geography",
    }
)
_SQL_NAMES = {  # what people write by habit, where the nearest spelling is another type or none
    "bigint": "long",
    "bytes": "binary",
    "char": "string",
    "datetime": "timestamptz",
    "float32": "float",
    "float64": "double",
    "int64": "long",
    "integer": "int",
    "numeric": "decimal(p,s)",
    "real": "float",
    "smallint": "int",
    "text": "string",
    "timestamp_ltz": "timestamptz",
    "timestamp_ntz": "timestamp",
    "tinyint": "int",
    "varchar": "string",
}


class Column(SpecModel):
    """One column.

    Attributes:
        name: as the files and the table spell it.
        type: Iceberg's name of a primitive type, without blanks: `long`, `decimal(10,2)`.
        required: whether null is refused.
    """

    name: str
    type: str
    required: bool = False

    @classmethod
    def parse(cls, name: str, text: str) -> Self:
        """Read a type as it is written in a spec; a trailing `!` means required.

        Raises:
            ValidationError: the name or the type is none.
        """
        return cls(name=name, type=text.removesuffix("!").rstrip(), required=text.endswith("!"))

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not name.strip() or name != name.strip() or not name.isprintable():
            raise ConfigurationError(
                "a column's name is empty, or has blanks around it or control characters; rename it"
            )
        if "." in name or "`" in name:
            raise ConfigurationError(
                "a column's name holds '.' or '`', which Iceberg and Spark read as more; rename it"
            )
        return name

    @field_validator("type")
    @classmethod
    def _known_type(cls, text: str) -> str:
        return parse_type(text)


def parse_type(text: str) -> str:
    """Check the name of a type (without `!`) and give it without blanks.

    Raises:
        ConfigurationError: a type of Iceberg that is not supported yet, or a name that Iceberg does not know.
    """
    if text in PRIMITIVES:
        return text
    if match := _DECIMAL.fullmatch(text):
        return _decimal(int(match[1]), int(match[2]))
    head = _HEAD.match(text.lower())
    word = head[0] if head else ""
    if word in _UNSUPPORTED:
        raise ConfigurationError(f"Iceberg's type {text!r} is not supported yet; write one of {_all()}")
    if word == "decimal":
        raise ConfigurationError(f'{text!r} is no type; write decimal(10,2), inside {{ }} in quotes: "decimal(10,2)"')
    raise ConfigurationError(f"{text!r} is no type; {_nearest(word)}")


def read_columns(value: object, is_reserved: Callable[[str], bool]) -> tuple[Column, ...]:
    """Read `columns` of a spec: a mapping of names to types, or a tuple of columns, in the order of the table.

    Raises:
        ConfigurationError: it is no mapping, or an empty one.
        ValidationError: every column at fault.
    """
    columns: dict[str, Column] = {}
    found: list[tuple[KeyPath, str]] = []
    for name, written in _pairs(value):
        column, problems = _read_column(name, written)
        if is_reserved(name):
            problems.append("is a reserved name; rename the column")
        if column and (other := columns.setdefault(name.casefold(), column)) is not column:
            problems.append(f"differs from {other.name!r} in case only, which Spark does not see; rename one")
        found.extend(((name,), problem) for problem in problems)
    if found:
        raise several(found)
    return tuple(columns.values())


def _pairs(value: object) -> list[tuple[str, object]]:
    if isinstance(value, tuple) and value and all(isinstance(column, Column) for column in value):
        return [(column.name, column) for column in value]
    if isinstance(value, Mapping) and value:
        return list(value.items())
    said = "an empty one" if isinstance(value, Mapping | tuple) else kind(value)
    raise ConfigurationError(f"must be a mapping of column names to types, such as {{id: long!}}, not {said}")


def _is_ours(name: str) -> bool:
    return name in {"_file", "_position", "_bucket"}  # these travel beside the rows of an hour


def _begins_with_underscore(name: str) -> bool:
    return name.startswith("_")


Columns = Annotated[tuple[Column, ...], BeforeValidator(partial(read_columns, is_reserved=_is_ours))]
RawColumns = Annotated[tuple[Column, ...], BeforeValidator(partial(read_columns, is_reserved=_begins_with_underscore))]


def column_named(name: str, columns: tuple[Column, ...]) -> Column:
    """Find a column.

    Raises:
        ConfigurationError: there is none of that name.
    """
    for column in columns:
        if column.name == name:
            return column
    raise ConfigurationError(f"there is no column {name!r}; {did_you_mean(name, [each.name for each in columns])}")


def _read_column(name: str, written: object) -> tuple[Column | None, list[str]]:
    if isinstance(written, Column):
        return written, []
    if not isinstance(written, str):
        return None, [f"is {kind(written)}, and nested types are not supported yet; write one of {_all()}"]
    try:
        return Column.parse(name, written), []
    except ValidationError as error:
        return None, [sentence for _, sentence in sentences(error)]


def _decimal(precision: int, scale: int) -> str:
    if not 1 <= precision <= MAX_PRECISION or not 0 <= scale <= precision:
        raise ConfigurationError(
            f"decimal({precision},{scale}) does not exist; "
            f"the precision is 1 to {MAX_PRECISION}, the scale 0 to the precision"
        )
    return f"decimal({precision},{scale})"


def _nearest(word: str) -> str:
    nearest = difflib.get_close_matches(word, (*PRIMITIVES, "decimal"), n=1)
    near = _SQL_NAMES.get(word) or next(iter(nearest), "").replace("decimal", "decimal(p,s)")
    return f"did you mean {near!r}?" if near else f"write one of {_all()}"


def _all() -> str:
    return ", ".join((*PRIMITIVES, "decimal(p,s)"))

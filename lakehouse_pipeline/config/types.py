"""Columns and their types, in the words of Iceberg's spec.

The names are text: whoever talks to Iceberg, Spark or Arrow turns them into its own types; `nested_type` takes a nested
one apart for them. Iceberg's newer primitive types are refused here.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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

_RESERVED = frozenset({"_bucket", "_elsewhere", "_file", "_missing", "_position", "_row", "_rows"})

_DECIMAL = re.compile(r"decimal\( *([0-9]{1,4}) *, *([0-9]{1,4}) *\)")
_HEAD = re.compile(r"[A-Za-z_0-9]*")
_NESTED = re.compile(r"(struct|list|map) *<(.*)>", re.DOTALL)
_NESTED_FORMS = "struct<a:int!,b:string>, list<long> or map<string,double>"
_DEPTH = 20  # levels of nesting, as YAML's own here; readers and writers recurse
_OPENING, _CLOSING = "<(", ">)"
_UNSUPPORTED = frozenset(
    {
        "time",
        "uuid",
        "fixed",
        "timestamp_ns",
        "timestamptz_ns",
        "unknown",
        "variant",
        "geometry",
        "geography",
    }
)
_SQL_NAMES = {  # what people write by habit, where the nearest spelling is another type or none
    "array": "list<…>",
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
        type: Iceberg's name, without blanks: `long`, `decimal(10,2)`, `struct<a:int!,b:list<string>>`, where `!` is
            for what is required inside.
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


@dataclass(frozen=True)
class StructType:
    """A column of columns.

    Attributes:
        fields: one or more, in order.
    """

    fields: tuple[Column, ...]

    def __str__(self) -> str:
        """Give the type as a spec writes it."""
        return f"struct<{','.join(f'{field.name}:{_marked(field.type, field.required)}' for field in self.fields)}>"


@dataclass(frozen=True)
class ListType:
    """A list.

    Attributes:
        element: the type of its elements.
        element_required: whether a null among them is refused.
    """

    element: str
    element_required: bool

    def __str__(self) -> str:
        """Give the type as a spec writes it."""
        return f"list<{_marked(self.element, self.element_required)}>"


@dataclass(frozen=True)
class MapType:
    """A map; its keys are never null.

    Attributes:
        key: the type of its keys, a primitive one.
        value: the type of its values.
        value_required: whether a null among them is refused.
    """

    key: str
    value: str
    value_required: bool

    def __str__(self) -> str:
        """Give the type as a spec writes it."""
        return f"map<{self.key},{_marked(self.value, self.value_required)}>"


NestedType = StructType | ListType | MapType


def parse_type(text: str) -> str:
    """Check the name of a type (without `!`) and give it without blanks.

    Raises:
        ConfigurationError: a type of Iceberg that is not supported yet, or a name that Iceberg does not know.
    """
    nested = nested_type(text)
    return _primitive(text) if nested is None else str(nested)


def nested_type(text: str) -> NestedType | None:
    """Take a type apart, one level; None for a primitive one. The types inside are checked and without blanks.

    Raises:
        ConfigurationError: the text is no type.
    """
    match = _NESTED.fullmatch(text.strip())
    if match is None:
        return None
    if _deepest(text) > _DEPTH:
        raise ConfigurationError(f"has more than {_DEPTH} levels of types; keep the inner ones as JSON in a string")
    parts = [part.strip() for part in _parts(match[2])]
    if match[1] == "struct":
        return StructType(_struct_fields(parts, text))
    if match[1] == "list" and len(parts) == 1:
        return ListType(*_inner(parts[0]))
    if match[1] == "map" and len(parts) == 2:  # noqa: PLR2004  # keys and values
        return _map_type(*parts)
    raise ConfigurationError(f"{text!r} is no type; write {_NESTED_FORMS}")


def _struct_fields(parts: list[str], text: str) -> tuple[Column, ...]:
    fields: dict[str, Column] = {}
    for part in parts:
        name, colon, written = part.partition(":")
        if not colon:
            raise ConfigurationError(f"{text!r} is no type; write name:type for each field: {_NESTED_FORMS}")
        try:
            field = Column.parse(name.strip(), written.strip())
        except ValidationError as error:
            raise ConfigurationError("; ".join(sentence for _, sentence in sentences(error))) from None
        if (other := fields.setdefault(field.name.casefold(), field)) is not field:
            raise ConfigurationError(f"{text!r} has the fields {other.name!r} and {field.name!r}; rename one")
    return tuple(fields.values())


def _map_type(key: str, value: str) -> MapType:
    if key.endswith("!"):
        raise ConfigurationError("a map's keys are never null; take the ! of the key out")
    if nested_type(key):
        raise ConfigurationError(f"{key!r} cannot be a map's key; keys are of a primitive type, such as string")
    return MapType(_primitive(key), *_inner(value))


def _inner(written: str) -> tuple[str, bool]:
    return parse_type(written.removesuffix("!").rstrip()), written.endswith("!")


def _marked(name: str, required: bool) -> str:  # noqa: FBT001  # a mark of the type
    return name + "!" * required


def _parts(text: str) -> Iterator[str]:
    """Split at the commas that stand in no brackets."""
    depth = start = 0
    for place, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if character == "," and depth == 0:
            yield text[start:place]
            start = place + 1
    yield text[start:]


def _deepest(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character == "<") - (character == ">")
        deepest = max(deepest, depth)
    return deepest


def _primitive(text: str) -> str:
    if text in PRIMITIVES:
        return text
    if match := _DECIMAL.fullmatch(text):
        return _decimal(int(match[1]), int(match[2]))
    head = _HEAD.match(text.lower())
    word = head[0] if head else ""
    if word in _UNSUPPORTED:
        raise ConfigurationError(f"Iceberg's type {text!r} is not supported yet; write one of {_all()}")
    if word in {"struct", "list", "map"}:
        raise ConfigurationError(f"{text!r} is no type; write {_NESTED_FORMS}")
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


def is_reserved(name: str) -> bool:
    """Tell whether a column of the table would meet one of ours, which travel beside an hour's rows or count them."""
    return name.casefold() in _RESERVED  # Spark sees no case


def _begins_with_underscore(name: str) -> bool:
    return name.startswith("_")


Columns = Annotated[tuple[Column, ...], BeforeValidator(partial(read_columns, is_reserved=is_reserved))]
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


def primitive_column(name: str, columns: tuple[Column, ...]) -> Column:
    """Find a column that values are compared by.

    Raises:
        ConfigurationError: there is none of that name, or its type is nested.
    """
    column = column_named(name, columns)
    if nested_type(column.type):
        raise ConfigurationError(f"column {name!r} is {column.type}; name one of a primitive type")
    return column


def _read_column(name: str, written: object) -> tuple[Column | None, list[str]]:
    if isinstance(written, Column):
        return written, []
    if not isinstance(written, str):
        return None, [f'is {kind(written)}; write a nested type as text in quotes, such as "struct<a:int!,b:string>"']
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

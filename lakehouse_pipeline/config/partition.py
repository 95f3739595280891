"""Partition fields beside the hour: from `bucket(16, id)`, as specs say it, to Iceberg's own `bucket[16]` of `id`.

Which columns a table has is `config.table`'s to know; what a transform takes is here.
"""

import re
from collections.abc import Iterable

from lakehouse_pipeline.config.types import Column
from lakehouse_pipeline.errors import ConfigurationError

MAX_OPEN = 400  # partitions that a task writes at once, a local file each; systems let a process open 1024

_FORMS = "a column, identity(column), bucket(16, column), truncate(4, column), or year, month, day (column)"
_CALL = re.compile(r"([a-z]+) *\((?: *([^(),]*?) *,)? *([^(),]+?) *\)")
_WIDTH = re.compile(r"[1-9][0-9]{0,8}")
_WITH_WIDTH = frozenset({"bucket", "truncate"})
_DATES = frozenset({"date", "timestamp", "timestamptz"})
_TAKES = {  # Iceberg's spec, partition transforms: the types that each is made for
    "bucket": frozenset({"int", "long", "decimal", "string", "binary"}) | _DATES,
    "truncate": frozenset({"int", "long", "decimal", "string", "binary"}),
    "year": _DATES,
    "month": _DATES,
    "day": _DATES,
}


def whole_items(items: Iterable[str]) -> list[tuple[int, str]]:
    """Join what YAML cut at the comma of `[bucket(16, id)]`, each with the place of its first part."""
    joined: list[tuple[int, str]] = []
    for place, item in enumerate(items):
        if joined and joined[-1][1].count("(") > joined[-1][1].count(")"):
            joined[-1] = (joined[-1][0], f"{joined[-1][1]}, {item}")
        else:
            joined.append((place, item))
    return joined


def read_field(text: str) -> tuple[str, str]:
    """Give the transform, in Iceberg's text, and the column; a bare column is `identity`.

    Raises:
        ConfigurationError: the text is no partition field, or one of more buckets than a task can write.
    """
    if "(" not in text and ")" not in text:
        return "identity", text
    match = _CALL.fullmatch(text)
    name, width, column = match.groups() if match else ("", None, "")
    if name == "hour":
        raise ConfigurationError(f"{text!r}: the table is partitioned by `hour` already; take it out")
    if name in _WITH_WIDTH and width and _WIDTH.fullmatch(width):
        if name == "bucket" and int(width) > MAX_OPEN:
            raise ConfigurationError(
                f"{text!r}: a hash mixes the rows of all {width} buckets whatever their order is, and a task writes at "
                f"most {MAX_OPEN} partitions at once; write {MAX_OPEN} or less"
            )
        return f"{name}[{width}]", column
    if width is None and name in {"identity", "year", "month", "day"}:
        return name, column
    raise ConfigurationError(f"{text!r} is no partition field; write {_FORMS}")


def kind_of(transform: str) -> str:
    """Name the group of transforms of which one per column is enough: Iceberg refuses a second one as redundant."""
    name = transform.partition("[")[0]
    return "time" if name in {"year", "month", "day"} else name


def refusal(transform: str, column: Column) -> str:
    """Say why a transform is none for a column; empty if it is fine."""
    name = transform.partition("[")[0]
    takes = _TAKES.get(name)
    if takes is None or column.type.partition("(")[0] in takes:
        return ""
    return f"{name} is not made for {column.type}, the type of {column.name!r}; it takes {', '.join(sorted(takes))}"

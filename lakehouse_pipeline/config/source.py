"""Where the rows of a table come from: the hour's raw files, and the dimensions that the transform joins.

What stands in the files is for readers; what is written about them is here.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from lakehouse_pipeline.config.model import SpecModel, kind, sentences, several
from lakehouse_pipeline.config.paths import HOUR_DIRECTIVES, format_of, hour_directives, resolve, span
from lakehouse_pipeline.config.problems import KeyPath
from lakehouse_pipeline.config.types import RawColumns
from lakehouse_pipeline.config.yaml_source import Refused
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.hours import HourWindow

FileFormat = Literal["csv", "jsonl", "parquet", "orc"]

_VIEW = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SOURCE_VIEW = "source"


class RawFiles(SpecModel):
    """Files of one shape.

    Attributes:
        path: an absolute URL, a template: see `config.paths`. Not in the repr, since it may hold values of variables.
        format: compression goes by suffix; left out in a spec, the suffix tells it.
        columns: of csv and jsonl; None for parquet and orc, which bring their own.
        missing: what it means that there is no file at all.
    """

    path: str = Field(repr=False, description="where the files are, such as s3://raw/flights/%Y/%m/%d/%H*.jsonl.gz")
    format: FileFormat = Field(description="csv, jsonl, parquet or orc, where the suffix does not tell")
    columns: RawColumns | None = Field(
        default=None, validate_default=True, description="the names and types of csv and jsonl"
    )
    missing: Literal["fail", "empty"] = Field(default="fail", description="fail or empty")

    @model_validator(mode="before")
    @classmethod
    def _format_by_suffix(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "format" in data:
            return data
        path = data.get("path")
        text = path.raw if isinstance(path, Refused) else path
        told = format_of(text) if isinstance(text, str) else None
        return {**data, "format": told} if told else data

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str, info: ValidationInfo) -> str:
        absolute = resolve(path, folder_of(info))
        held = hour_directives(absolute)
        if held != HOUR_DIRECTIVES[: len(held)]:
            raise ConfigurationError(
                f"has {' '.join(held)}, which is no time; write %Y %m %d %H for files of an hour, %Y %m %d of a day, "
                "%Y %m of a month, %Y of a year, or none of them"
            )
        return absolute

    @field_validator("columns")
    @classmethod
    def _columns_by_format(cls, columns: RawColumns | None, info: ValidationInfo) -> RawColumns | None:
        form = info.data.get("format")
        if form in {"parquet", "orc"} and columns is not None:
            raise ConfigurationError(f"{form} files bring their own columns; take the key out")
        if form in {"csv", "jsonl"} and columns is None:
            raise ConfigurationError(f"is missing; {form} files need the names and types of their columns")
        return columns


class Source(RawFiles):
    """The raw files of every hour; the view `source` of the transform.

    Attributes:
        reader: who reads them: our Arrow readers, or Spark's own.
        bad_rows: what happens to rows that do not parse: the hour fails, or they are kept as rejects.
    """

    reader: Literal["arrow", "spark"] = Field(
        default="arrow", description="arrow (ours), or spark: its own readers, on clusters that reach the store"
    )
    bad_rows: Literal["fail", "reject"] = Field(default="fail", description="fail or reject")

    @field_validator("bad_rows")
    @classmethod
    def _reader_knows_places(cls, bad_rows: str, info: ValidationInfo) -> str:
        if bad_rows == "reject" and info.data.get("reader") == "spark":
            raise ConfigurationError(
                "'reject' takes the place of each row, which Spark's readers do not tell; "
                "write fail, or take `reader: spark` out"
            )
        return bad_rows

    def span(self, hour: HourWindow) -> tuple[datetime, datetime] | None:
        """Give the time that the hour's files cover by their path, UTC and half-open; None without directives."""
        return span(self.path, hour)


class Join(RawFiles):
    """A dimension: a view of the transform.

    Attributes:
        name: of the view.
    """

    name: str


def read_joins(value: object, context: Any) -> tuple[Join, ...]:
    """Read `join` of a spec: a mapping of views to paths, or to mappings where there is more to say.

    Raises:
        ConfigurationError: it is no mapping.
        ValidationError: every view at fault.
    """
    if isinstance(value, tuple) and all(isinstance(join, Join) for join in value):
        return value
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"must be a mapping of views to paths, not {kind(value)}")
    joins: list[Join] = []
    found: list[tuple[KeyPath, str]] = []
    for name, entry in value.items():
        found.extend(_name_problems(name, entry, [join.name for join in joins]))
        try:
            joins.append(Join.model_validate(_placed(name, entry), context=context))
        except ValidationError as error:
            found.extend(((name, *path), sentence) for path, sentence in sentences(error))
    if found:
        raise several(found)
    return tuple(joins)


def _placed(name: str, entry: object) -> object:
    if isinstance(entry, Mapping):
        return {**entry, "name": name}
    return {"path": entry, "name": name} if isinstance(entry, str) else entry


def _name_problems(name: str, entry: object, earlier: list[str]) -> list[tuple[KeyPath, str]]:
    found: list[tuple[KeyPath, str]] = []
    if not _VIEW.fullmatch(name):
        found.append(((name,), "is no name of a view; write letters, digits and _, beginning with no digit"))
    if name.lower() == _SOURCE_VIEW:
        found.append(((name,), "is the view of the raw files themselves; write another name"))
    if any(name.lower() == other.lower() for other in earlier):
        found.append(((name,), "differs from an earlier view in case only, which Spark does not see; rename one"))
    if isinstance(entry, Mapping) and "name" in entry:
        found.append(((name, "name"), "is no key here; the view's name is the key above"))
    return found


def folder_of(info: ValidationInfo) -> Path | None:
    """Give the folder that relative paths begin in."""
    context = info.context
    return context.get("folder") if isinstance(context, Mapping) else None

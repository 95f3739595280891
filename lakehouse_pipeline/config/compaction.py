"""When and how a table's files are compacted: the key `compact` of a table's spec.

The names are those of the options of Iceberg's `rewrite_data_files`, and so are the defaults.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field, field_validator

from lakehouse_pipeline.config.model import SpecModel
from lakehouse_pipeline.config.problems import KeyPath
from lakehouse_pipeline.config.quantities import read_count, read_share, read_size
from lakehouse_pipeline.config.types import Column, primitive_column
from lakehouse_pipeline.errors import ConfigurationError

Strategy = Literal["copy", "rewrite", "sort", "zorder", "merge"]

MIN_INPUT_FILES = 5
MAX_GROUP_SIZE = 100 * 1024**3
DELETE_RATIO = 0.3
COPY_ROW_GROUPS = (
    32 * 1024**2
)  # smaller ones cost readers more than their rewriting costs once; see docs/performance.md


class CompactSettings(SpecModel):
    """The key `compact` of a table's spec.

    Attributes:
        strategy: how; None takes what fits: `sort` for sorted tables, else `copy` where its rule allows it, else
            `rewrite`.
        columns: that `sort` sorts by, in the place of the table's order, or that `zorder` interleaves.
        version: of rows with the same `key`, `merge` keeps the one that has most of this; None keeps the last.
        deleted: `merge` drops kept rows where this column is true.
        min_file_size: bytes; a smaller file is compacted. None is three quarters of the target.
        max_file_size: bytes; a larger one, too. None is 1.8 times the target.
        min_input_files: so many have to come together, unless they are more than a file.
        max_file_group_size: bytes that are compacted, and committed, together at most.
        delete_file_threshold: delete files that apply to a file: from here on it is compacted; None never is.
        delete_ratio_threshold: of a file's rows, that are deleted: from here on it is compacted.
        groups_per_commit: of an hour; None commits all of them at once.
        copy_row_groups: bytes that row groups have to have on average to be copied.
    """

    strategy: Strategy | None = Field(default=None, description="copy, rewrite, sort, zorder or merge")
    columns: tuple[str, ...] = Field(default=(), description="the columns of sort or zorder")
    version: str | None = Field(default=None, description="the column that tells merge which row of a key is kept")
    deleted: str | None = Field(default=None, description="the column that tells merge which keys are gone")
    min_file_size: int | None = Field(default=None, description="a smaller file is compacted, such as 100MB")
    max_file_size: int | None = Field(default=None, description="a larger file is compacted, such as 1GB")
    min_input_files: int = Field(default=MIN_INPUT_FILES, description="files that have to come together, such as 5")
    max_file_group_size: int = Field(default=MAX_GROUP_SIZE, description="bytes at once, such as 100GiB")
    delete_file_threshold: int | None = Field(default=None, description="delete files that a file may have")
    delete_ratio_threshold: float = Field(default=DELETE_RATIO, description="rows of a file that may be deleted")
    groups_per_commit: int | None = Field(default=None, description="groups of an hour in one commit; all unless told")
    copy_row_groups: int = Field(default=COPY_ROW_GROUPS, description="smaller row groups are rewritten, such as 32MiB")

    @field_validator("min_file_size", "max_file_size", "max_file_group_size", "copy_row_groups", mode="before")
    @classmethod
    def _bytes(cls, value: object) -> int | None:
        return value if value is None or isinstance(value, int) else read_size(value)

    @field_validator("min_input_files", "delete_file_threshold", "groups_per_commit", mode="before")
    @classmethod
    def _count(cls, value: object) -> int | None:
        return None if value is None else read_count(value, least=1)

    @field_validator("delete_ratio_threshold", mode="before")
    @classmethod
    def _share(cls, value: object) -> float:
        return value if isinstance(value, float) else read_share(value)


def compact_problems(
    settings: CompactSettings, target: Sequence[Column] | None, key: Sequence[str]
) -> list[tuple[KeyPath, str]]:
    """Hold how a table is compacted against its columns; None where they are not known yet."""
    return [*_of_columns(settings, target), *_of_strategy(settings, key)]


def _of_strategy(settings: CompactSettings, key: Sequence[str]) -> Iterator[tuple[KeyPath, str]]:
    strategy = settings.strategy
    if strategy == "zorder" and not settings.columns:
        yield ("columns",), "is missing; name the columns that are interleaved"
    for place, name in enumerate(settings.columns):
        if name in settings.columns[:place]:
            yield ("columns", place), f"{name!r} stands twice; take one out"
    if settings.columns and strategy not in {"sort", "zorder"}:
        yield ("columns",), f"means nothing to {strategy or 'a strategy that is left open'}; write strategy: zorder"
    if strategy == "merge" and not key:
        yield ("strategy",), "merge keeps one row of each key; name its columns in the table's key"
    for name in ("version", "deleted"):
        if getattr(settings, name) and strategy != "merge":
            yield (name,), f"means nothing to {strategy or 'a strategy that is left open'}; write strategy: merge"


def _of_columns(settings: CompactSettings, target: Sequence[Column] | None) -> Iterator[tuple[KeyPath, str]]:
    named: list[tuple[KeyPath, str | None]] = [
        (("columns", place), name) for place, name in enumerate(settings.columns)
    ]
    named += [(("version",), settings.version), (("deleted",), settings.deleted)]
    for path, name in named if target is not None else ():
        if name is None:
            continue
        try:
            column = primitive_column(name, tuple(target or ()))
        except ConfigurationError as error:
            yield path, str(error)
        else:
            if path == ("deleted",) and column.type != "boolean":
                yield path, f"column {name!r} is {column.type}; name one that is boolean"

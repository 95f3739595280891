"""What an hour is made from, and whether it has to run: decided before anything is written, without Spark.

`observe_inputs` looks; `plan_hour` is pure. The fingerprint has two parts: the source (the hour's objects) and the
recipe (everything else that shapes the hour). An hour is skipped only if both are those of its last commit and the
table still holds that commit's files.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from lakehouse_pipeline.backfill.functions import module_file
from lakehouse_pipeline.config.paths import render, uses_hour
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.transform import FunctionTransform, SqlTransform
from lakehouse_pipeline.config.types import Column
from lakehouse_pipeline.errors import DataError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.ledger.records import HourRecord
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.side_by_side import side_by_side
from lakehouse_pipeline.sources.listing import FolderSourceError, SourceObject, fingerprint, list_objects_of

LISTINGS_AT_ONCE = 16


@dataclass(frozen=True)
class HourInputs:
    """The objects that an hour reads.

    Attributes:
        source: of the hour's own path.
        joins: of each view, by its name; hourly ones have the hour's objects.
    """

    source: tuple[SourceObject, ...]
    joins: Mapping[str, tuple[SourceObject, ...]]

    @property
    def bytes(self) -> int:
        """Bytes of the source on storage."""
        return sum(item.size for item in self.source)


@dataclass(frozen=True)
class HourPlan:
    """What to do with an hour.

    Attributes:
        hour: the hour.
        inputs: its objects.
        source: fingerprint of the objects that belong to the hour.
        recipe: fingerprint of everything else.
        step: `skip`, `resume` at the commit of a sealed attempt, or `run` the ETL.
        why: in words, for people.
    """

    hour: HourWindow
    inputs: HourInputs
    source: str
    recipe: str
    step: Literal["skip", "resume", "run"]
    why: str


class NoSourceError(DataError):
    """There is no object of the hour."""


@dataclass(frozen=True)
class TableState:
    """What the table says of an hour.

    Attributes:
        table_uuid: the table's own id.
        schema_id: its current schema.
        live: digest of the names of the hour's live files.
    """

    table_uuid: str
    schema_id: int
    live: str


def observe_inputs(spec: TableSpec, files: LakehouseFileIO, hour: HourWindow) -> HourInputs:
    """List what the hour reads.

    Raises:
        NoSourceError: nothing is there, and the spec does not say that this means an empty hour.
        ConfigurationError: there is no such bucket.
        TransientError: the store cannot be reached.
    """
    pattern = render(spec.source.path, hour)
    source = list_objects_of(files, pattern)
    if not source and spec.source.missing == "fail":
        raise NoSourceError(
            f"{spec.name} {hour}: there is no object at {pattern}. Land it, "
            "or write `missing: empty` under source if such an hour has no rows"
        )
    joins = {}
    for join in spec.join:
        pattern = render(join.path, hour)
        joins[join.name] = list_objects_of(files, pattern)
        if not joins[join.name] and join.missing == "fail":
            raise DataError(
                f"{spec.name} {hour}: join {join.name}: there is no object at {pattern}. Land it, "
                "or write `missing: empty` there if the view is then empty"
            )
    return HourInputs(source, joins)


def list_inputs(spec: TableSpec, files: LakehouseFileIO, hours: Sequence[HourWindow]) -> dict[HourWindow, HourInputs]:
    """List what many hours read, each path once; what is missing, or a folder in its place, is simply not there.

    Raises:
        ConfigurationError: there is no such bucket.
        TransientError: the store cannot be reached.
    """
    raw = (spec.source, *spec.join)
    patterns = list(dict.fromkeys(render(each.path, hour) for each in raw for hour in hours))

    def listed_at(pattern: str) -> tuple[SourceObject, ...]:
        with suppress(FolderSourceError):  # the hour says so when it runs
            return list_objects_of(files, pattern)
        return ()

    found = side_by_side(listed_at, patterns, LISTINGS_AT_ONCE)
    listed = dict(zip(patterns, found, strict=True))
    return {
        hour: HourInputs(
            listed[render(spec.source.path, hour)], {join.name: listed[render(join.path, hour)] for join in spec.join}
        )
        for hour in hours
    }


def plan_hour(
    spec: TableSpec,
    hour: HourWindow,
    inputs: HourInputs,
    record: HourRecord,
    state: TableState | None,
    *,
    force: bool = False,
) -> HourPlan:
    """Decide whether an hour is skipped, resumed at its commit, or run. Pure.

    Args:
        spec: the table's spec.
        hour: the hour.
        inputs: what it reads.
        record: what the ledger knows.
        state: what the table says; None while there is no table.
        force: run whatever is known.
    """
    source = source_of(spec, inputs)
    recipe = recipe_of(spec, {join.name: inputs.joins[join.name] for join in spec.join if not uses_hour(join.path)})
    step, why = _step(record, state, source, recipe, force=force)
    return HourPlan(hour, inputs, source, recipe, step, why)


def source_of(spec: TableSpec, inputs: HourInputs) -> str:
    """Give the fingerprint of the hour's own objects."""
    hourly = [join for join in spec.join if uses_hour(join.path)]
    return fingerprint([*inputs.source, *(item for join in hourly for item in inputs.joins[join.name])])


def _step(
    record: HourRecord, state: TableState | None, source: str, recipe: str, *, force: bool
) -> tuple[Literal["skip", "resume", "run"], str]:
    if force:
        return "run", "asked to run again"
    if state is None:
        return "run", "the table does not exist yet"
    attempt, committed = record.attempt, record.committed
    may_land = record.state in {"sealed", "committing"}  # what is being abandoned may have lost files already
    if may_land and attempt and attempt.seal and (attempt.source, attempt.recipe) == (source, recipe):
        sealed_for = (attempt.seal.table_uuid, attempt.seal.schema_id)
        untouched = state.live in {attempt.replaces, attempt.seal.digest}
        if sealed_for == (state.table_uuid, state.schema_id) and untouched:
            return "resume", f"attempt {attempt.id} is sealed and only waits for its commit"
    if committed is None:
        return "run", "never committed"
    changes = {
        "its source objects changed": committed.source != source,
        "the transform, the spec or a dimension changed": committed.recipe != recipe,
        "the table no longer holds the files of its last commit": (
            committed.seal.table_uuid != state.table_uuid or state.live != committed.seal.digest
        ),
    }
    why = ", ".join(text for text, changed in changes.items() if changed)
    return ("run", why) if why else ("skip", f"unchanged since attempt {committed.attempt}")


def recipe_of(spec: TableSpec, dimensions: Mapping[str, tuple[SourceObject, ...]]) -> str:
    """Give the fingerprint of everything but the hour's own objects that shapes an hour's rows.

    Raises:
        ConfigurationError: the transform's module is not to be found.
    """
    # Spelled out, not dumped: a new key of a spec, at its default, must not make every hour of every table run again.
    parts: dict[str, object] = {
        "transform": transform_text(spec),
        "columns": _columns_text(spec.target_columns),
        "source": [spec.source.format, _columns_text(spec.source.columns), spec.source.bad_rows, spec.source.missing],
        "join": [[join.name, join.format, _columns_text(join.columns), join.missing] for join in spec.join],
        "hour": spec.hour,
        "other_hours": spec.other_hours,
        "key": spec.key,
        "sort": [[field.column, field.descending] for field in spec.sort],
        "dimensions": {name: fingerprint(objects) for name, objects in dimensions.items()},
    }
    if spec.partition:
        parts["partition"] = [[field.transform, field.column] for field in spec.partition]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _columns_text(columns: tuple[Column, ...] | None) -> list[str]:
    return [f"{column.name}: {column.type}{'!' if column.required else ''}" for column in columns or ()]


def dimensions_of(spec: TableSpec, files: LakehouseFileIO) -> dict[str, tuple[SourceObject, ...]]:
    """List the objects of the joins that are the same for every hour.

    Raises:
        ConfigurationError: there is no such bucket.
        TransientError: the store cannot be reached.
    """
    return {
        join.name: list_objects_of(files, render(join.path, spec.start))
        for join in spec.join
        if not uses_hour(join.path)
    }


def transform_text(spec: TableSpec) -> str:
    """Give the text of the transform: the SQL, or the source of the function's module, which is not run here.

    Raises:
        ConfigurationError: the transform's module is not to be found.
    """
    if isinstance(spec.transform, SqlTransform):
        return spec.transform.text
    if isinstance(spec.transform, FunctionTransform):
        return module_file(spec, spec.transform).read_text(encoding="utf-8") + spec.transform.function
    return ""

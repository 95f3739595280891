"""A plan as a run takes it: what to set, and what it was made from, so that a plan for something else is refused.

It travels as Dagster's run config and as a file. What it was made from are fingerprints: of the spec, of the engine and
of each hour's objects. Which hours were run since does not matter: a plan is good until its last hour is there.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from lakehouse_pipeline.backfill.plan import HourInputs, list_inputs, recipe_of
from lakehouse_pipeline.config.backfill import BackfillSettings
from lakehouse_pipeline.config.lakehouse import Lakehouse
from lakehouse_pipeline.config.table import MAX_FILE_SIZE, MIN_FILE_SIZE, TableSpec
from lakehouse_pipeline.errors import ConfigurationError, SafetyError
from lakehouse_pipeline.hours import HourRange, HourWindow
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.settings import read_settings
from lakehouse_pipeline.sources.listing import fingerprint

DIGITS = 8  # of an hour's fingerprint: told apart from the same hour's alone
MOST_NAMED = 3

_PLACES = frozenset({"type", "name", "uri", "warehouse", "s3.endpoint", "s3.region"})
_UPLOADS = "s3.multipart."


class RunPlan(BaseModel):
    """What a run is told.

    Attributes:
        table: the spec's name.
        first: key of the first hour that it was made for.
        last: key of the last.
        spec: fingerprint of the spec.
        engine: fingerprint of the engine's address.
        store: fingerprint of the catalog's properties that say where tables are, and how files are uploaded.
        sources: fingerprints of the hours' objects, one behind the other; empty where nobody looked at them.
        hours_in_flight: hours at once, in the end.
        apart_s: seconds between the begins of the first of them.
        tries: of one request.
        retry_s: seconds of patience with one request.
        file_size: bytes that a file should have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str
    first: str
    last: str
    spec: str
    engine: str
    store: str
    sources: str = ""
    hours_in_flight: int = Field(ge=1)
    apart_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    tries: int = Field(ge=1)
    retry_s: float = Field(ge=0, allow_inf_nan=False)
    file_size: int = Field(ge=MIN_FILE_SIZE, le=MAX_FILE_SIZE)

    @field_validator("first", "last")
    @classmethod
    def _hour(cls, key: str, info: ValidationInfo) -> str:
        hour = HourWindow.from_key(key)
        HourRange(HourWindow.from_key(info.data.get("first", key)), hour)
        return key

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> "RunPlan":
        """Read it from a run's config.

        Raises:
            ConfigurationError: it is none.
        """
        try:
            return cls.model_validate(told)
        except ValidationError as error:
            where = "; ".join(": ".join((*map(str, each["loc"]), each["msg"])) for each in error.errors())
            raise ConfigurationError(f"no plan of a backfill: {where}; `lakehouse plan -o` writes one") from None

    @property
    def hours(self) -> HourRange:
        """Give the hours that it was made for."""
        return HourRange(HourWindow.from_key(self.first), HourWindow.from_key(self.last))

    def backfill(self, settings: BackfillSettings) -> BackfillSettings:
        """Give the settings of a lakehouse with those of the plan in their place."""
        return settings.model_copy(update={"hours_in_flight": self.hours_in_flight})

    def catalog(self, properties: Mapping[str, str]) -> dict[str, str]:
        """Give the catalog's properties with the plan's patience, or their own where that is more."""
        own = read_settings(properties).policy
        patience = {
            "s3.retry.num-retries": str(max(self.tries, own.tries) - 1),
            "s3.retry.total-timeout-ms": str(round(1000 * max(self.retry_s, own.total_s))),
        }
        return {**properties, **patience}

    def table_spec(self, spec: TableSpec) -> TableSpec:
        """Give the spec with the plan's file size."""
        return spec.model_copy(update={"file_size": self.file_size})

    def of(self, hours: Sequence[HourWindow]) -> "RunPlan":
        """Give the part of the plan that is about some of its hours, without a gap: a run's config is kept for ever."""
        sources = "".join(self._prints(hours))
        return self.model_copy(update={"first": hours[0].key, "last": hours[-1].key, "sources": sources})

    def check(self, spec: TableSpec, lakehouse: Lakehouse, files: LakehouseFileIO, hours: Sequence[HourWindow]) -> None:
        """Hold the plan against what is there now.

        Args:
            spec: the table's, as it is now.
            lakehouse: its engine and its catalog.
            files: the store of the sources.
            hours: that are to be run.

        Raises:
            SafetyError: the plan was made for something else; says for what.
            TransientError: the store did not answer.
        """
        mine = self.hours
        again = _another(spec, mine)
        if self.table != spec.name:
            raise SafetyError(f"this plan is one of {self.table}, and not of {spec.name}")
        others = [hour for hour in hours if hour not in mine]
        if others:
            raise SafetyError(
                f"{len(others)} of {len(hours)} hours are not in the plan, {mine}; the first is {others[0]}. "
                f"{_another(spec, HourRange(min(hours), max(hours)))}"
            )
        if self.spec != spec_print(spec):
            raise SafetyError(f"{spec.file} or its transform has changed since the plan was made. {again}")
        if self.engine != engine_print(lakehouse.engine):
            raise SafetyError(f"the plan was made for another engine than lakehouse.yaml has now. {again}")
        if self.store != store_print(lakehouse.catalog):
            raise SafetyError(f"the plan was made for another catalog or store than lakehouse.yaml has now. {again}")
        if not self.sources:
            return
        now = list_inputs(spec, files, hours)
        planned = zip(hours, self._prints(hours), strict=True)
        changed = [hour for hour, then in planned if inputs_print(now[hour]) != then]
        if changed:
            named = ", ".join(hour.key for hour in changed[:MOST_NAMED])
            raise SafetyError(
                f"the objects of {len(changed)} of {len(hours)} hours have changed since the plan was made "
                f"({named}{', ...' if len(changed) > MOST_NAMED else ''}). {again}"
            )

    def _prints(self, hours: Sequence[HourWindow]) -> list[str]:
        """Give the fingerprint of each hour's objects as it was; empty ones where nobody looked."""
        first = self.hours.first.ordinal
        places = (DIGITS * (hour.ordinal - first) for hour in hours)
        return [self.sources[place : place + DIGITS] for place in places]


def _another(spec: TableSpec, hours: HourRange) -> str:
    return f"Make another: lakehouse plan {spec.name} {hours.first.key}...{hours.last.key} -o plan.json"


def spec_print(spec: TableSpec) -> str:
    """Give the fingerprint of what a spec says about its hours' load: its recipe, where files go, and how."""
    written = [spec.table, spec.source.path, spec.file_size, sorted(spec.properties.items()), spec.staging]
    return hashlib.sha256(json.dumps([recipe_of(spec, {}), written]).encode()).hexdigest()[: 2 * DIGITS]


def inputs_print(inputs: HourInputs) -> str:
    """Give the fingerprint of the objects of an hour, those of its views among them."""
    return fingerprint([*inputs.source, *(each for objects in inputs.joins.values() for each in objects)])[:DIGITS]


def engine_print(engine: str) -> str:
    """Give the fingerprint of an engine's address, without its parameters: a token is renewed, the engine stays."""
    return hashlib.sha256(engine.partition(";")[0].encode()).hexdigest()[: 2 * DIGITS]


def store_print(catalog: Mapping[str, str]) -> str:
    """Give the fingerprint of where tables are, and of how files are uploaded."""
    told = {name: value for name, value in catalog.items() if name in _PLACES or name.startswith(_UPLOADS)}
    return hashlib.sha256(json.dumps(sorted(told.items())).encode()).hexdigest()[: 2 * DIGITS]

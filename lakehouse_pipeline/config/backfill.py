"""How many hours are run: at once, in one run of Dagster, in one commit."""

import os
from datetime import timedelta
from typing import Literal

from pydantic import Field, field_validator

from lakehouse_pipeline.config.model import SpecModel
from lakehouse_pipeline.config.quantities import read_age, read_count

MOST_AT_ONCE = 4  # hours in flight where nobody says: beyond that they wait for the same cores


class CommitEvery(SpecModel):
    """When sealed hours are committed: what comes first. At the end of a run they are, in any case.

    Attributes:
        hours: so many are sealed.
        seconds: the first of them was sealed so long ago.
    """

    hours: int = Field(default=24, description="sealed hours in one snapshot, at most")
    seconds: int = Field(default=60, description="that a sealed hour waits, at most")

    @field_validator("hours", "seconds", mode="before")
    @classmethod
    def _number(cls, value: object) -> int:
        return read_count(value, least=1)


class BackfillSettings(SpecModel):
    """The key `backfill` of lakehouse.yaml.

    Attributes:
        hours_in_flight: hours that are worked on at once in a run.
        hours_per_run: hours of a run of Dagster.
        commit_every: when sealed hours are committed.
        hour_deadline: how long an hour may take before it is ended, and fails; None waits for ever.
    """

    hours_in_flight: int | Literal["auto"] = Field(default="auto", description="hours at once, or auto")
    hours_per_run: int | Literal["all"] = Field(default="all", description="hours of one run of Dagster, or all")
    commit_every: CommitEvery = Field(default=CommitEvery(), description="{hours: 24, seconds: 60}")
    hour_deadline: timedelta | None = Field(default=None, description="how long an hour may take, such as 2h")

    @property
    def most_in_flight(self) -> int:
        """Give the hours at once: what somebody has set, or what this machine's cores make useful."""
        return min(MOST_AT_ONCE, os.cpu_count() or 1) if self.hours_in_flight == "auto" else self.hours_in_flight

    @field_validator("hours_in_flight", "hours_per_run", mode="before")
    @classmethod
    def _number_or_word(cls, value: object) -> object:
        return value if value in ("auto", "all") else read_count(value, least=1)

    @field_validator("hour_deadline", mode="before")
    @classmethod
    def _with_a_unit(cls, value: object) -> timedelta | None:
        return value if value is None or isinstance(value, timedelta) else read_age(value)

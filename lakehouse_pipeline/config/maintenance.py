"""When tables are kept in shape."""

from datetime import timedelta
from typing import Literal

from pydantic import Field, field_validator

from lakehouse_pipeline.config.model import SpecModel
from lakehouse_pipeline.config.quantities import read_age


class MaintenanceSettings(SpecModel):
    """The key `maintenance` of lakehouse.yaml.

    Attributes:
        compact_after: how long an hour has to be over before its files are compacted.
        workers: who compacts: threads of the run's process, tasks of its Spark session, or Ray.
    """

    compact_after: timedelta = Field(
        default=timedelta(hours=2), description="how long an hour has to be over before it is compacted, such as 2h"
    )

    workers: Literal["threads", "spark", "ray"] = Field(
        default="threads", description="threads of the run's process, spark or ray"
    )

    @field_validator("compact_after", mode="before")
    @classmethod
    def _with_a_unit(cls, value: object) -> timedelta:
        return value if isinstance(value, timedelta) else read_age(value)

"""When tables are kept in shape."""

from datetime import timedelta
from typing import Literal

from pydantic import Field, field_validator

from lakehouse_pipeline.config.model import SpecModel
from lakehouse_pipeline.config.quantities import read_age, read_count, read_share
from lakehouse_pipeline.errors import ConfigurationError

YOUNGEST_ORPHAN = timedelta(hours=24)  # younger files may be those of a writer at work


class MaintenanceSettings(SpecModel):
    """The key `maintenance` of lakehouse.yaml.

    Attributes:
        compact_after: how long an hour has to be over before its files are compacted.
        workers: who compacts: threads of the run's process, tasks of its Spark session, or Ray.
        sealed_keep: how long an attempt may wait, sealed, for its commit before it is given up.
        orphans_after: how old a file that nothing reaches has to be before a sweep takes it for an orphan.
        sweep_max_files: a sweep that would take more files is refused.
        sweep_max_share: a sweep that would take a larger share of the bytes that it has listed is refused.
        delete: sweeps delete orphans for good, rather than move them into the quarantine.
        quarantine_keep: how long orphans stay in the quarantine before they may be purged.
        snapshots: how old a snapshot may become where its table has no property that says it; None is Iceberg's 5 days.
        expiry_wait: between the commit of an expiry and the removal of files, for readers of what has expired; None
            is none.
    """

    compact_after: timedelta = Field(
        default=timedelta(hours=2), description="how long an hour has to be over before it is compacted, such as 2h"
    )
    workers: Literal["threads", "spark", "ray"] = Field(
        default="threads", description="threads of the run's process, spark or ray"
    )
    sealed_keep: timedelta = Field(
        default=timedelta(days=7), description="how long a sealed attempt may wait for its commit, such as 7d"
    )
    orphans_after: timedelta = Field(
        default=timedelta(days=3), description="how old a file that nothing reaches must be to be swept, such as 3d"
    )
    sweep_max_files: int = Field(default=1_000_000, description="a sweep that would take more files is refused")
    sweep_max_share: float = Field(
        default=0.3, description="a sweep that would take a larger share of the bytes listed is refused, such as 30%"
    )
    delete: bool = Field(default=False, description="sweeps delete orphans for good: there is no quarantine")
    quarantine_keep: timedelta = Field(
        default=timedelta(days=7), description="how long orphans stay in the quarantine before they may be purged"
    )
    snapshots: timedelta | None = Field(
        default=None, description="how old snapshots may become, such as 5d, where the table's properties do not say it"
    )
    expiry_wait: timedelta | None = Field(
        default=None,
        description="how long files outlive the expiry of their snapshots, for readers at work, such as 10min",
    )

    @field_validator(
        "compact_after",
        "sealed_keep",
        "orphans_after",
        "quarantine_keep",
        "snapshots",
        "expiry_wait",
        mode="before",
    )
    @classmethod
    def _with_a_unit(cls, value: object) -> timedelta:
        return value if isinstance(value, timedelta) else read_age(value)

    @field_validator("orphans_after")
    @classmethod
    def _not_of_writers_at_work(cls, value: timedelta) -> timedelta:
        if value < YOUNGEST_ORPHAN:
            raise ConfigurationError("is less than 24h: a file as young may be one that somebody is about to commit")
        return value

    @field_validator("sweep_max_files", mode="before")
    @classmethod
    def _is_a_count(cls, value: object) -> int:
        return read_count(value, least=1)

    @field_validator("sweep_max_share", mode="before")
    @classmethod
    def _is_a_share(cls, value: object) -> float:
        return read_share(value)

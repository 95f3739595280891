"""When a table is taken for healthy: thresholds that checks and `lakehouse health` hold it against."""

from datetime import timedelta

from pydantic import Field, field_validator

from lakehouse_pipeline.config.model import SpecModel
from lakehouse_pipeline.config.quantities import read_age, read_count, read_share, read_size


class HealthSettings(SpecModel):
    """The key `health` of lakehouse.yaml.

    Attributes:
        failed_hours: that may have failed, have been interrupted or cancelled, or have no source.
        stalled_hours: that may run and not get on.
        sealed_for: how long a sealed hour may wait for its commit.
        throttle_share: of the requests of hours that were written within a day, those that S3 may answer with 503.
        orphan_bytes: that ended attempts may have left and nobody has removed yet.
        small_files: share of the data files that may be smaller than compaction leaves them.
        delete_ratio: rows of delete files for each row of the table.
        manifests: of the current snapshot.
        snapshots: that may be there.
        swept_bytes: that the last audit may have found and nobody has swept.
        quarantine_bytes: that may wait to be purged.
        open_uploads: that may be older than a day.
    """

    failed_hours: int = Field(default=0, description="hours that may have failed")
    stalled_hours: int = Field(default=0, description="hours that may run and not get on")
    sealed_for: timedelta = Field(default=timedelta(hours=1), description="how long a sealed hour may wait, such as 1h")
    throttle_share: float = Field(default=0.2, description="requests that may be answered with 503, such as 20%")
    orphan_bytes: int = Field(default=10**9, description="bytes that ended attempts may have left, such as 1GB")

    small_files: float = Field(default=0.5, description="data files that may want compaction, such as 50%")
    delete_ratio: float = Field(default=0.1, description="rows of delete files for each row, such as 10%")
    manifests: int = Field(default=1000, description="manifests of the current snapshot")
    snapshots: int = Field(default=1000, description="snapshots that may be there")
    swept_bytes: int = Field(default=10**10, description="bytes of orphans that the last audit found, such as 10GB")
    quarantine_bytes: int = Field(default=10**11, description="bytes that may wait to be purged, such as 100GB")
    open_uploads: int = Field(default=0, description="multipart uploads that may be older than a day")

    @field_validator("failed_hours", "stalled_hours", "manifests", "snapshots", "open_uploads", mode="before")
    @classmethod
    def _number(cls, value: object) -> int:
        return read_count(value, least=0)

    @field_validator("sealed_for", mode="before")
    @classmethod
    def _with_a_unit(cls, value: object) -> timedelta:
        return value if isinstance(value, timedelta) else read_age(value)

    @field_validator("throttle_share", "small_files", "delete_ratio", mode="before")
    @classmethod
    def _share(cls, value: object) -> float:
        return read_share(value)

    @field_validator("orphan_bytes", "swept_bytes", "quarantine_bytes", mode="before")
    @classmethod
    def _bytes(cls, value: object) -> int:
        return value if isinstance(value, int) else read_size(value)

"""What is told of an hour's run: its stages and their time, how it ended, and the event that says so."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill.checks import Check
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.ledger.records import Seal
from lakehouse_pipeline.object_store.counts import NO_REQUESTS, RequestCounts


@dataclass(frozen=True)
class HourResult:
    """How an hour ended well.

    Attributes:
        hour: the hour.
        attempt: whose files are live now.
        step: `run`, `resume` or `skip`.
        why: why that step.
        snapshot_id: of the commit; None where an empty hour replaced nothing.
        seal: counts of the live files.
        location: of the table.
        source: fingerprint of the hour's objects.
        seconds: by stage.
        requests: sent to S3 for the hour, by this process and by tasks.
        sample_keys: some of the files; none for a hour that was not written now.
        checks: what was checked before the seal; none for an hour that was not written now.
        staging: whether its objects were copied first, and why, in lines; none where the spec leaves it at reading.
    """

    hour: HourWindow
    attempt: str
    step: str
    why: str
    snapshot_id: int | None
    seal: Seal
    location: str
    source: str
    seconds: Mapping[str, float]
    requests: RequestCounts = NO_REQUESTS
    sample_keys: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    staging: tuple[str, ...] = ()


@dataclass
class Stages:
    """What an hour's run is at, and how long each stage took."""

    now: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add to a stage's time, which is the one that the run is at."""
        started, self.now = time.monotonic(), stage
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.monotonic() - started, 3)


def emit_ended(table: str, hour: HourWindow, error: BaseException) -> None:
    """Say that an hour failed, or was cancelled, and with what."""
    name = "hour.failed" if isinstance(error, Exception) else "hour.cancelled"
    events.emit(name, table, hour.key, error=type(error).__name__, message=str(error))

"""How a backfill is doing, while it does it: counts of its hours, and what says them again and again."""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from lakehouse_pipeline import events
from lakehouse_pipeline.object_store.counts import NO_REQUESTS

SAID_EVERY_S = 30.0
MINUTES_FROM_S = 90.0

logger = logging.getLogger(__name__)

_AT_WORK = {
    "hour.waits": "waiting for a lease",
    "attempt.opened": "writing",
    "hour.stalled": "stalled",
    "hour.moving": "writing",
    "attempt.sealed": "sealed",
}
_ENDED = {"hour.finished", "hour.failed", "hour.cancelled"}


class Progress:
    """Counts hours of a table as they end."""

    def __init__(self, table: str, hours: int) -> None:
        """Begin at none of `hours`; `table` is Iceberg's name of it."""
        self._table, self._hours = table, hours
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._at_work: dict[str, str] = {}
        self._done = self._failed = 0
        self._sent = NO_REQUESTS

    def heard(self, event: events.Event) -> None:
        """Count what an event says of an hour."""
        if event.table != self._table:
            return
        with self._lock:
            if event.name in _AT_WORK:
                self._at_work[event.hour] = _AT_WORK[event.name]
            elif event.name in _ENDED:
                self._at_work.pop(event.hour, None)
                self._done += event.name == "hour.finished"
                self._failed += event.name == "hour.failed"
                result: Any = event.fields.get("result")
                self._sent += result.requests if result else NO_REQUESTS

    @property
    def line(self) -> str:
        """Say how far it is."""
        with self._lock:
            states = list(self._at_work.values())
            parts = [f"{self._done}/{self._hours} done"]
            parts += [f"{states.count(state)} {state}" for state in dict.fromkeys(_AT_WORK.values()) if state in states]
            parts += [f"{self._failed} failed"] if self._failed else []
            if self._sent.requests:
                parts.append(f"503 share {self._sent.throttles / self._sent.requests:.1%}")
        left = self.seconds_left
        if left:
            parts.append(f"about {left / 60:.0f} min left" if left >= MINUTES_FROM_S else f"about {left:.0f} s left")
        return " · ".join(parts)

    @property
    def seconds_left(self) -> float | None:
        """Tell how long the hours that are left take if they are like those that have ended; None before one has."""
        ended = self._done + self._failed
        return (time.monotonic() - self._began) / ended * (self._hours - ended) if ended else None

    @property
    def requests_per_s(self) -> float:
        """Tell how many requests a second ended hours have sent to S3."""
        return self._sent.requests / max(1.0, time.monotonic() - self._began)


class Every:
    """Does something again and again, in a thread of its own, for as long as its block runs."""

    def __init__(self, seconds: float, what: Callable[[], object], name: str) -> None:
        """Call `what` every so many seconds, the first time after as many; that it fails is a warning and no more."""
        self._seconds, self._what, self._name = seconds, what, name
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End. What is being done is not waited for."""
        self._ended.set()

    def now(self) -> None:
        """Do it once, in this thread."""
        try:
            self._what()
        except Exception as error:  # noqa: BLE001  # whoever looks on must not harm what is looked at
            logger.warning("%s: %s: %s", self._name, type(error).__name__, error)

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            self.now()

"""Crash points: a process kills itself where an event is said for the nth time, to show what a kill leaves.

`LAKEHOUSE_CRASH_AT=commit.landed lakehouse backfill …` ends as `kill -9` ends it, right after the catalog's answer, of
which nobody hears. Nothing is flushed, closed or told to anybody: what is there for the next run is what the store and
the catalog have. Only the process that the variable is set for counts; tasks of Spark in others do not.
"""

import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from lakehouse_pipeline import events
from lakehouse_pipeline.errors import ConfigurationError

VARIABLE = "LAKEHOUSE_CRASH_AT"

# Every name that is said; a test holds them against the source.
POINTS = (
    *("attempt.aborting", "attempt.closed", "attempt.committed", "attempt.opened", "attempt.sealed"),
    *("commit.landed", "commit.sent"),
    *("expiry.committed", "expiry.deleted", "expiry.deleting", "expiry.finished", "expiry.forgotten"),
    *("expiry.put_back", "expiry.putting_back", "expiry.sent", "expiry.waiting"),
    *("hour.bounds", "hour.cancelled", "hour.failed", "hour.finished", "hour.moving", "hour.planned", "hour.staging"),
    *("hour.stalled", "hour.waits", "maintenance.began", "maintenance.ended", "manifests.planned", "manifests.written"),
    *("object.copied", "object.deleted", "object.put", "request.retried"),
    *("sweep.began", "sweep.copied", "sweep.purged", "sweep.removed", "sweep.restored", "upload.aborted"),
)


@dataclass
class CrashPoint:
    """A subscriber that kills its process.

    Attributes:
        name: of the event.
        nth: how often it has to be said, from 1.
    """

    name: str
    nth: int = 1
    _said: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def parse(cls, text: str) -> "CrashPoint":
        """Read `commit.sent`, or `object.put:7` for the seventh time.

        Raises:
            ConfigurationError: it is no such point.
        """
        name, colon, nth = text.partition(":")
        if name not in POINTS:
            raise ConfigurationError(f"{VARIABLE}: there is no point {name!r}; there are {', '.join(POINTS)}")
        if colon and not (nth.isascii() and nth.isdigit() and int(nth)):
            raise ConfigurationError(f"{VARIABLE}: {nth!r} is no count; write {name}:2 for the second time")
        return cls(name, int(nth or 1))

    def __call__(self, event: events.Event) -> None:
        """Hear an event."""
        if event.name != self.name:
            return
        with self._lock:
            self._said += 1
            if self._said == self.nth:
                os.kill(os.getpid(), signal.SIGKILL)


def crash_where_told(environ: Mapping[str, str]) -> None:
    """Install the crash point that the environment names, for as long as the process lives; none is the rule.

    Raises:
        ConfigurationError: it names none that there is.
    """
    if told := environ.get(VARIABLE):
        events.subscribe(CrashPoint.parse(told))

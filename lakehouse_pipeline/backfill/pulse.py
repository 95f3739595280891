"""Whether an hour gets on. One that stands still says so once, with what every thread of this process is doing."""

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta

from lakehouse_pipeline.backfill.every import Every

logger = logging.getLogger(__name__)

STALLED_AFTER = timedelta(minutes=10)
LOOK_EVERY_S = 15.0


class Pulse:
    """What is known of an hour's signs of life. Who renews its lease reads it, and never waits for an engine."""

    def __init__(self, what: str, signs: Callable[[], object], told: Callable[[timedelta], object]) -> None:
        """Nothing is known yet.

        Args:
            what: for the log.
            signs: gives what changes as long as the hour gets on.
            told: called once each time it has stopped doing so, with for how long; and once it does again, with zero.
        """
        self._what, self._signs, self._told = what, signs, told
        self._seen: object = None
        self._since = time.monotonic()
        self._stalled = False

    def watched(self) -> Every:
        """Look again and again for as long as a block runs."""
        return Every(LOOK_EVERY_S, self.look, f"pulse of {self._what}")

    @property
    def idle(self) -> timedelta:
        """For how long nothing has changed; an engine that does not answer does not change, either."""
        return timedelta(seconds=time.monotonic() - self._since)

    def look(self) -> None:
        """Look once; the stacks are told before the engine is asked, which may not answer."""
        idle = self.idle
        if idle >= STALLED_AFTER and not self._stalled:
            self._stalled = True
            logger.warning("%s: no progress for %.0f s. Threads:\n%s", self._what, idle.total_seconds(), stacks())
            self._told(idle)
        seen = self._signs()
        if seen == self._seen:
            return
        self._seen, self._since = seen, time.monotonic()
        if self._stalled:
            self._stalled = False
            self._told(timedelta(0))


def stacks() -> str:
    """Say what every thread of this process is doing."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    told = []
    for ident, frame in sys._current_frames().items():  # noqa: SLF001  # there is no other way
        told.append(f"  {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}")
    return "\n".join(told)

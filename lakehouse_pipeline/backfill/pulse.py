"""Whether an hour gets on. One that stands still says so once, with what every thread of this process is doing."""

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta

logger = logging.getLogger(__name__)

STALLED_AFTER = timedelta(minutes=10)


class Pulse:
    """Looks at an hour's signs of life from time to time."""

    def __init__(self, what: str, signs: Callable[[], object], told: Callable[[timedelta], object]) -> None:
        """Begin to look.

        Args:
            what: for the log.
            signs: gives what changes as long as the hour gets on.
            told: called once each time it has stopped doing so, with for how long; and once it does again, with zero.
        """
        self._what, self._signs, self._told = what, signs, told
        self._seen: object = None
        self._since = time.monotonic()
        self._stalled = False

    def idle(self) -> timedelta:
        """Look, and give for how long nothing has changed."""
        seen = self._signs()
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
            if self._stalled:
                self._stalled = False
                self._told(timedelta(0))
        idle = timedelta(seconds=time.monotonic() - self._since)
        if idle >= STALLED_AFTER and not self._stalled:
            self._stalled = True
            logger.warning("%s: no progress for %.0f s. Threads:\n%s", self._what, idle.total_seconds(), stacks())
            self._told(idle)
        return idle


def stacks() -> str:
    """Say what every thread of this process is doing."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    told = []
    for ident, frame in sys._current_frames().items():  # noqa: SLF001  # there is no other way
        told.append(f"  {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}")
    return "\n".join(told)

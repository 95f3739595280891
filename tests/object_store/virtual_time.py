"""Threads in virtual time: one runs at a time, time passes only while all of them sleep, and runs repeat."""

import heapq
import itertools
import threading
from collections.abc import Callable


class VirtualTime:
    """A clock and a sleep for code that blocks, and the threads that use them."""

    def __init__(self) -> None:
        """Begin at zero, with nobody."""
        self._now = 0.0
        self._waiting: list[tuple[float, int, threading.Event]] = []
        self._order = itertools.count()  # of those who wake at the same moment, the first to sleep goes first
        self._failures: list[BaseException] = []

    def clock(self) -> float:
        """Give the seconds."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let others run until that many seconds have passed."""
        mine = threading.Event()
        heapq.heappush(self._waiting, (self._now + max(0.0, seconds), next(self._order), mine))
        self._wake_next()
        mine.wait()

    def run(self, *bodies: Callable[[], None]) -> float:
        """Run each body in a thread until all have ended; give the seconds that took.

        Raises:
            BaseException: the first that a body raised.
        """
        began, left = self._now, [len(bodies)]
        ended = threading.Event()

        def live(body: Callable[[], None], born: threading.Event) -> None:
            born.wait()
            try:
                body()
            except BaseException as error:  # noqa: BLE001  # raised again by the test's own thread
                self._failures.append(error)
            left[0] -= 1
            self._wake_next() if left[0] else ended.set()

        for body in bodies:
            born = threading.Event()
            heapq.heappush(self._waiting, (self._now, next(self._order), born))
            threading.Thread(target=live, args=(body, born), daemon=True).start()
        self._wake_next()
        ended.wait()
        if self._failures:
            raise self._failures[0]
        return self._now - began

    def _wake_next(self) -> None:
        self._now, _, woken = heapq.heappop(self._waiting)
        woken.set()

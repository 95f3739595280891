"""Rate control of one limit of a store: a queue for turns to send, and windows that count what the store admits.

How fast the queue moves is `pace`'s; what a limit belongs to is `lanes`'; tries and their own waits are `tries`'.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from lakehouse_pipeline.object_store.pace import Pace, Window

WINDOW_S = 1.0  # a pace is judged after a second, as S3 counts its limits by the second ...
WINDOW_ANSWERS = 8  # ... and after some requests, since of two or three the share of throttles says nothing ...
TRIAL_ANSWERS = 16  # ... more of them where it decides something ...
LONGEST_WINDOW_S = 3.0  # ... but not for ever
BEGIN_AFTER = 3  # throttles within a window; AWS: a few 503s are part of normal use
BURST_S = 0.05  # what an idle sender may send at once afterwards, in seconds of its pace
CLOCK_S = 1e-6  # less than this to wait is rounding
POLL_S = 0.25  # whoever waits looks again, as the pace may have grown


@dataclass(frozen=True)
class Turn:
    """Leave to send one request.

    Attributes:
        waited_s: seconds in the queue.
        paced: it was sent at the rate of this control, so its answer tells something about that rate.
    """

    waited_s: float = 0.0
    paced: bool = False


@dataclass(frozen=True)
class Judgement:
    """What a window has shown, for whoever reports it.

    Attributes:
        limit: what the limit belongs to.
        window: what was seen.
        next_per_s: what is sent at most from now on.
    """

    limit: str
    window: Window
    next_per_s: float


class RateControl:
    """The pace of requests against one limit, once it was met; safe to share between threads.

    A try asks for a turn, sends, and says what it met. Turns are given in the order in which they were asked for.
    Until the store throttles there is no pace, and a turn costs nothing.
    """

    def __init__(
        self,
        limit: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        judged: Callable[[Judgement], None] | None = None,
    ) -> None:
        """Begin without a pace.

        Args:
            limit: what the limit belongs to, for reports.
            clock: seconds, monotonic.
            sleep: waits, in seconds.
            judged: told of every window with throttles.
        """
        self._limit, self._clock, self._sleep, self._judged = limit, clock, sleep, judged
        self._lock = threading.Lock()
        self._pace: Pace | None = None
        # The queue: turns asked for and paid for so far, in weight. Who asked as `_asked` was n goes at `_paid` n.
        self._asked, self._paid, self._paid_at = 0.0, 0.0, 0.0
        self._open_window(clock())

    @property
    def per_s(self) -> float | None:
        """Give the pace in requests a second, None without one."""
        pace = self._pace
        return pace.per_s if pace else None

    @property
    def moves(self) -> bool:
        """Tell whether there is a queue, and the last window admitted anything of it."""
        pace = self._pace
        return pace is not None and pace.admits

    def wait(self, weight: float = 1.0, patience_s: float = math.inf) -> Turn:
        """Wait for leave to send a request, but no longer than `patience_s`.

        Whoever runs out of patience goes at once: a request that waited for its whole time is still sent once.
        """
        if self._pace is None and not self._throttled:
            return Turn()
        asked_at = self._clock()
        with self._lock:
            paced = self._pace is not None
            self._pay(asked_at)
            place = self._asked
            self._asked += weight
        waited = 0.0
        while (left := self._left_s(place)) > 0 and waited < patience_s:
            self._sleep(min(left, max(POLL_S, left / 2), patience_s - waited))
            waited = self._clock() - asked_at
        with self._lock:
            self._sent += weight
            self._queued |= waited > 0
        return Turn(waited, paced)

    def answered(self, turn: Turn, *, admitted: float = 0.0, throttled: float = 0.0) -> None:
        """Say what a request met, by weight; one that got no answer has neither."""
        if self._pace is None and not self._throttled and not throttled:
            return
        with self._lock:
            now = self._clock()
            if self._pace is None:
                judgement = self._measured(now, admitted, throttled)
            else:
                if turn.paced:  # else it was sent before there was a pace
                    self._throttled += throttled
                judgement = self._window_closed(now, self._pace)
        if judgement and judgement.window.throttled and self._judged:
            self._judged(judgement)

    # -- The queue ---------------------------------------------------------------------------------------------------

    def _left_s(self, place: float) -> float:
        with self._lock:
            if self._pace is None:
                return 0.0
            self._pay(self._clock())
            left = (place - self._paid) / self._pace.per_s
            return left if left > CLOCK_S else 0.0

    def _pay(self, now: float) -> None:
        pace = self._pace.per_s if self._pace else 0.0
        self._paid = min(self._paid + pace * (now - self._paid_at), self._asked + pace * BURST_S)
        self._paid_at = now

    # -- Windows -----------------------------------------------------------------------------------------------------

    def _open_window(self, now: float) -> None:
        self._window_at = now
        self._sent = self._admitted = self._throttled = 0.0
        self._queued = False

    def _measured(self, now: float, admitted: float, throttled: float) -> Judgement | None:
        """Measure for a window from the first throttle on, then begin to pace at what was admitted meanwhile."""
        if not self._throttled:
            self._open_window(now)
        self._admitted += admitted
        self._throttled += throttled
        span = now - self._window_at
        if span < WINDOW_S:
            return None
        if self._throttled < BEGIN_AFTER:
            self._throttled = 0.0
            return None
        # By answers while they are quick; by what was sent and not refused while they take longer than the window.
        count = max(self._admitted, self._sent - self._throttled)
        window = Window(now, count / span, self._throttled / (self._throttled + count), queued=True)
        self._pace = Pace(window)
        self._paid, self._paid_at = self._asked, now  # whoever asked before this goes at once
        self._open_window(now)
        return Judgement(self._limit, window, self._pace.per_s)

    def _window_closed(self, now: float, pace: Pace) -> Judgement | None:
        """Judge the window if it is over: what was sent and not throttled counts as admitted, however long it takes."""
        span, enough = now - self._window_at, TRIAL_ANSWERS if pace.on_trial else WINDOW_ANSWERS
        if span < WINDOW_S or (self._sent < enough and span < LONGEST_WINDOW_S):
            return None
        self._pay(now)
        admitted_per_s = max(0.0, self._sent - self._throttled) / span
        # Of a window's throttles some answer what was sent before it.
        window = Window(now, admitted_per_s, min(1.0, self._throttled / max(self._sent, 1.0)), self._queued)
        pace.judge(window)
        if pace.is_over(now):
            self._pace = None
        self._open_window(now)
        return Judgement(self._limit, window, pace.per_s)

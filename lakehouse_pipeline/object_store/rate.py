"""Rate control of one limit of a store: how many requests a second this process sends against it.

Additive increase, multiplicative decrease, with one rule on top: a rate is never cut below what the store was just seen
to admit. S3 splits a prefix only while it is kept busy, so we stay a little above the limit, not below. What a limit
belongs to is `lanes`'; tries and their own waits are `tries`'.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

WINDOW_S = 1.0  # a rate is judged after a second, as S3 counts its limits by the second ...
WINDOW_ANSWERS = 8  # ... and after some answers, since of two or three the share of throttles says nothing ...
LONGEST_WINDOW_S = 3.0  # ... but not for ever
BEGIN_AFTER = 3  # throttles within a window; AWS: a few 503s are part of normal use
PROBE, STEP_PER_S = 1.05, 0.5  # asked above what is admitted; the step is what makes shares of processes even
LEAST_PER_S = 1.0  # so that the end of an outage is noticed
GROWTH = (1.25, 1.5, 2.0)  # times the rate, after the first, second and every later window without a throttle
FELL = 0.6  # of the best admitted rate: the limit fell, or throttles do not depend on our pace
BEST_FADES = 0.98  # times itself by the window, so that no peak stands for ever
UNEXPLAINED, SMOOTHED = 0.4, 0.7  # share of throttles, smoothed over windows: more than our probing can cause
TRIAL = 2.0  # times the pace, to see whether what is admitted follows it
FOLLOWS = 1 / 3  # of the pace's rise: what chance leaves of it; under a limit nothing rises
HOLD_S, HOLD_GROWTH = 10.0, 1.05  # a pace that throttles do not follow stays, and rises by the window ...
HOLD_MOST = 3.0  # ... up to three times what is admitted: 32 tries fail in a row with 0.67^32 = 3e-6
CALM_S = 60.0  # without a throttle: control ends
BURST_S = 0.05  # what an idle sender may send at once afterwards, in seconds of its rate
CLOCK_S = 1e-6  # less than this to wait is rounding
POLL_S = 0.25  # whoever waits looks again, as the rate may have grown


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
        throttled: share of the requests that were throttled, 0 to 1.
        admitted_per_s: requests that were not.
        next_per_s: what is sent at most from now on.
    """

    limit: str
    throttled: float
    admitted_per_s: float
    next_per_s: float


class _Stage(Enum):
    SETTLED = "a little above what is admitted"
    TRIAL = "the rate of better times again, for a window"
    HELD = "that rate, since throttles did not follow it"


class RateControl:
    """The pace of requests against one limit, once it was met; safe to share between threads.

    A try asks for a turn, sends, and says what it met. Turns are given in the order in which they were asked for.
    Until the store throttles there is no pace, and a turn costs nothing.

    Why `TRIAL` and `HELD`: where the store throttles by the toss of a coin, each cut lowers what is admitted, which
    would justify the next cut. So as soon as the admitted rate has `FELL`, the best pace of before is tried for one
    window. If what is admitted follows, throttles do not depend on the pace, and it is held; if not, the limit fell.
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
        self._pace: float | None = None
        self._stage, self._held_until = _Stage.SETTLED, 0.0
        self._best_per_s = self._best_pace = 0.0  # the most that was admitted since the last trial, and its pace
        self._last = _Seen(1.0, 0.0, 0.0)
        self._grown, self._share, self._throttled_at = 0, 0.0, 0.0
        # The queue: turns asked for and paid for so far, in weight. Who asked as `_asked` was n goes at `_paid` n.
        self._asked, self._paid, self._paid_at = 0.0, 0.0, 0.0
        self._open_window(clock())

    @property
    def per_s(self) -> float | None:
        """Give the pace in requests a second, None without one."""
        return self._pace

    @property
    def moves(self) -> bool:
        """Tell whether there is a queue, and the last window admitted anything of it."""
        return self._pace is not None and self._last.per_s > 0

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
            judgement = self._measured(now, admitted, throttled) if self._pace is None else None
            if self._pace is not None and judgement is None:
                if turn.paced and throttled:  # else it was sent before there was a pace
                    self._throttled += throttled
                    self._throttled_at = now
                judgement = self._window_closed(now)
        if judgement and judgement.throttled and self._judged:
            self._judged(judgement)

    # -- The queue ---------------------------------------------------------------------------------------------------

    def _left_s(self, place: float) -> float:
        with self._lock:
            if self._pace is None:
                return 0.0
            self._pay(self._clock())
            left = (place - self._paid) / self._pace
            return left if left > CLOCK_S else 0.0

    def _pay(self, now: float) -> None:
        pace = self._pace or 0.0
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
        share, per_s = self._throttled / (self._throttled + count), count / span
        self._pace, self._stage, self._grown = max(LEAST_PER_S, PROBE * per_s + STEP_PER_S), _Stage.SETTLED, 0
        self._best_per_s, self._best_pace = per_s, self._pace
        self._paid = self._asked  # whoever asked before this goes at once
        self._share, self._paid_at, self._throttled_at = 0.0, now, now
        self._last = _Seen(self._pace, per_s, share)
        self._open_window(now)
        return Judgement(self._limit, share, per_s, self._pace)

    def _window_closed(self, now: float) -> Judgement | None:
        """Judge the window if it is over: what was sent and not throttled counts as admitted, however long it takes."""
        pace, span = self._pace or 0.0, now - self._window_at
        enough = WINDOW_ANSWERS * (2 if self._stage is _Stage.TRIAL else 1)
        if span < WINDOW_S or (self._sent < enough and span < LONGEST_WINDOW_S):
            return None
        self._pay(now)
        seen = _Seen(pace, max(0.0, self._sent - self._throttled) / span, self._throttled / max(self._sent, 1.0))
        self._best_per_s *= BEST_FADES
        if seen.per_s > self._best_per_s:
            self._best_per_s, self._best_pace = seen.per_s, pace
        if self._throttled:
            self._grown = 0
            self._pace = max(LEAST_PER_S, self._after_throttles(now, seen))
        elif now - self._throttled_at > CALM_S:
            self._pace = None
        elif self._queued:
            self._pace = max(pace * GROWTH[min(self._grown, len(GROWTH) - 1)], self._best_pace)
            self._grown += 1
        self._last = seen
        self._open_window(now)
        return Judgement(self._limit, min(1.0, seen.throttled), seen.per_s, self._pace or math.inf)

    def _after_throttles(self, now: float, seen: "_Seen") -> float:
        if not seen.per_s:
            return seen.pace / 2  # an outage tells nothing of the limit: what was best stays known
        if self._stage is _Stage.TRIAL:
            if not self._queued or seen.follows(self._last):
                self._stage, self._held_until = _Stage.HELD, now + HOLD_S
            else:
                self._stage, self._best_per_s, self._best_pace = _Stage.SETTLED, seen.per_s, seen.pace
        if self._stage is _Stage.HELD and (now < self._held_until or not self._queued):
            admitted = 1 - seen.throttled
            return seen.pace * min(HOLD_GROWTH if self._queued else 1.0, HOLD_MOST * admitted)
        self._stage = _Stage.SETTLED
        self._share = SMOOTHED * self._share + (1 - SMOOTHED) * seen.throttled
        if self._queued and (seen.per_s < FELL * self._best_per_s or self._share > UNEXPLAINED):
            self._stage, self._share = _Stage.TRIAL, 0.0
            return max(self._best_pace, TRIAL * seen.pace)
        if not self._queued and self._share <= UNEXPLAINED:
            return seen.pace  # it is not the pace that keeps requests back, so what was admitted is no measure for it
        return PROBE * seen.per_s + STEP_PER_S


@dataclass(frozen=True)
class _Seen:
    """A window: the pace that was asked, what was admitted, and the share that was throttled."""

    pace: float
    per_s: float
    throttled: float

    def follows(self, earlier: "_Seen") -> bool:
        """Tell whether what is admitted has risen with the pace."""
        return self.per_s - earlier.per_s >= FOLLOWS * earlier.per_s * (self.pace / earlier.pace - 1)

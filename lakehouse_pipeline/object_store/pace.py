"""The pace against one limit: what a window of requests says about how many to send a second from now on.

Pure: no clock, no threads, no waiting; those are `rate`'s. Additive increase, multiplicative decrease, with one rule on
top: a pace is never cut below what the store was just seen to admit. S3 splits a prefix only while it is kept busy, so
we stay a little above the limit, not below.
"""

from dataclasses import dataclass
from enum import Enum

PROBE, STEP_PER_S = 1.05, 0.5  # asked above what is admitted; the step is what makes shares of processes even
LEAST_PER_S = 1.0  # so that the end of an outage is noticed
GROWTH = (1.25, 1.5, 2.0)  # times the pace, after the first, second and every later window without a throttle
FELL = 0.6  # of the best admitted rate: the limit fell, or throttles do not depend on our pace
BEST_FADES = 0.98  # times itself by the window, so that no peak stands for ever
UNEXPLAINED, SMOOTHED = 0.4, 0.7  # share of throttles, smoothed over windows: more than our probing can cause
TRIAL = 2.0  # times the pace, to see whether what is admitted follows it
FOLLOWS = 1 / 3  # of the pace's rise: what chance leaves of it; under a limit nothing rises
HOLD_S, HOLD_GROWTH = 10.0, 1.05  # a pace that throttles do not follow stays, and rises by the window ...
HOLD_MOST = 3.0  # ... up to three times what is admitted: 32 tries fail in a row with 0.67^32 = 3e-6
CALM_S = 60.0  # without a throttle: nothing is left to control


@dataclass(frozen=True)
class Window:
    """What was seen in a span of time.

    Attributes:
        ended_at: when, in seconds.
        admitted_per_s: requests a second that were sent and not throttled.
        throttled: share of those sent that were, 0 to 1.
        queued: whether any had to wait for its turn: else it was not the pace that kept requests back.
    """

    ended_at: float
    admitted_per_s: float
    throttled: float
    queued: bool


class _Stage(Enum):
    SETTLED = "a little above what is admitted"
    TRIAL = "the best pace of before again, for a window"
    HELD = "that pace, since throttles did not follow it"


class Pace:
    """Requests a second, window by window; not shared between threads.

    Why there are trials: where the store throttles by the toss of a coin, each cut lowers what is admitted, which would
    justify the next cut. So as soon as the admitted rate has `FELL`, the best pace of before is tried for one window.
    If what is admitted follows, throttles do not depend on the pace, and it is held; if not, the limit fell.

    Attributes:
        per_s: requests a second.
        admits: whether the last window admitted anything.
    """

    def __init__(self, first: Window) -> None:
        """Begin a little above what a first window, with throttles but without a pace, has seen."""
        self.per_s = max(LEAST_PER_S, _above(first))
        self.admits = first.admitted_per_s > 0
        self._best_per_s, self._best_pace = first.admitted_per_s, self.per_s
        self._earlier = (self.per_s, first)
        self._throttled_at = first.ended_at
        self._stage, self._held_until = _Stage.SETTLED, 0.0
        self._share = 0.0
        self._grown = 0

    @property
    def on_trial(self) -> bool:
        """Tell whether the next window decides something, and should see more than others."""
        return self._stage is _Stage.TRIAL

    def is_over(self, now: float) -> bool:
        """Tell whether there were no throttles for so long that no pace is needed."""
        return now - self._throttled_at > CALM_S

    def judge(self, window: Window) -> None:
        """Take the pace from what this one has brought."""
        pace = self.per_s
        self._best_per_s *= BEST_FADES
        if window.admitted_per_s > self._best_per_s:
            self._best_per_s, self._best_pace = window.admitted_per_s, pace
        if window.throttled:
            self._grown, self._throttled_at = 0, window.ended_at
            self.per_s = max(LEAST_PER_S, self._after_throttles(window))
        elif window.queued:
            self.per_s = max(pace * GROWTH[min(self._grown, len(GROWTH) - 1)], self._best_pace)
            self._grown += 1
        self.admits = window.admitted_per_s > 0
        self._earlier = (pace, window)

    def _after_throttles(self, window: Window) -> float:
        if not window.admitted_per_s:
            return self.per_s / 2  # an outage tells nothing of the limit: what was best stays known
        if self._stage is _Stage.TRIAL:
            self._end_trial(window)
        if self._stage is _Stage.HELD and (window.ended_at < self._held_until or not window.queued):
            return self.per_s * min(HOLD_GROWTH if window.queued else 1.0, HOLD_MOST * (1 - window.throttled))
        return self._settled(window)

    def _end_trial(self, window: Window) -> None:
        if not window.queued or self._follows(window):
            self._stage, self._held_until = _Stage.HELD, window.ended_at + HOLD_S
        else:
            self._stage = _Stage.SETTLED
            self._best_per_s, self._best_pace = window.admitted_per_s, self.per_s

    def _settled(self, window: Window) -> float:
        self._stage = _Stage.SETTLED
        self._share = SMOOTHED * self._share + (1 - SMOOTHED) * window.throttled
        if window.queued and (window.admitted_per_s < FELL * self._best_per_s or self._share > UNEXPLAINED):
            self._stage, self._share = _Stage.TRIAL, 0.0
            return max(self._best_pace, TRIAL * self.per_s)
        if not window.queued and self._share <= UNEXPLAINED:
            return self.per_s  # few requests came, so what was admitted is no measure
        return _above(window)

    def _follows(self, window: Window) -> bool:
        """Tell whether what is admitted has risen with the pace since the window before."""
        pace, earlier = self._earlier
        rise = window.admitted_per_s - earlier.admitted_per_s
        return rise >= FOLLOWS * earlier.admitted_per_s * (self.per_s / pace - 1)


def _above(window: Window) -> float:
    return PROBE * window.admitted_per_s + STEP_PER_S

"""Ranges of keys under a flow of writes: the model of `s3_scaling`, a step of time at a time in place of a request.

The parameters and the split rule are `s3_scaling`'s own; a test compares both. Writes only: a backfill's reads go to
other keys.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lakehouse_pipeline.planning.layouts import Layout
from lakehouse_pipeline.planning.s3_scaling import Scaling, boundary

Floats = NDArray[np.float64]

CLOCK_S = 1e-6  # less than this is rounding of floats


@dataclass(frozen=True)
class Split:
    """A range has become two.

    Attributes:
        parent: place of the range that gave keys away.
        moved: share of its keys that it gave, 0 to 1; they are in the last place now.
    """

    parent: int
    moved: float


class FluidRanges:
    """A key space that takes writes by the step. Ranges keep their places; new ones come last.

    Attributes:
        prefixes: of each range.
        shares: of all keys that each range holds, adding up to 1.
    """

    def __init__(self, scaling: Scaling, layout: Layout, step_s: float, rng: np.random.Generator) -> None:
        """Begin with one range at time zero."""
        self._scaling, self._layout, self._step_s, self._rng = scaling, layout, step_s, rng
        self._slots = max(1, round(scaling.heat_window_s / step_s))
        self._burst = max(scaling.write_rate * scaling.burst_s, 1.0)
        self._step = 0
        self.prefixes = [""]
        self.shares: Floats = np.ones(1)
        self._tokens: Floats = np.full(1, self._burst)
        self._hot_since: Floats = np.full(1, np.inf)
        self._split_at: Floats = np.full(1, np.inf)
        self._heat: Floats = np.zeros((self._slots, 1))  # a step's writes a row
        self._heat_sum: Floats = np.zeros(1)

    @property
    def room(self) -> Floats:
        """Give what each range takes in the step to come."""
        return np.asarray(self._tokens + self._scaling.write_rate * self._step_s)

    def take(self, offered: Floats) -> Floats:
        """Offer a step's writes to each range, and give what was taken."""
        room = self.room
        taken = np.minimum(offered, room)
        self._tokens = np.minimum(self._burst, room - taken)
        return taken

    def pass_step(self, offered: Floats) -> list[Split]:
        """End the step: what was offered is heat, refused or not. Gives the splits that take effect now."""
        row = self._heat[self._step % self._slots]
        self._heat_sum += offered - row
        row[:] = offered
        self._step += 1
        if self._step % self._slots == 0:
            self._heat_sum = self._heat.sum(0)  # what rounding has left
        self._judge()
        return self._split()

    def calm_steps(self, offered: Floats) -> float:
        """Give for how many steps nothing can happen if no more than this is offered by the step; 0: something may."""
        limit = self._scaling.write_rate * self._scaling.hot_share
        if (offered > limit * self._step_s).any() or (self._heat_sum > limit * self._scaling.heat_window_s).any():
            return 0.0
        return float(np.floor((self._split_at.min() - self._step * self._step_s) / self._step_s))

    def pass_calm(self, offered: Floats, steps: int) -> None:
        """Let that many steps pass of which nothing is refused."""
        for row in range(self._step, self._step + min(steps, self._slots)):
            self._heat[row % self._slots] = offered
        self._heat_sum = self._heat.sum(0)
        self._step += steps
        gained = (self._scaling.write_rate * self._step_s - offered) * steps
        self._tokens = np.minimum(self._burst, self._tokens + gained)
        self._hot_since[:] = np.inf

    def _judge(self) -> None:
        now, detect_s = self._step * self._step_s, self._scaling.detect_s
        limit = self._scaling.hot_share * self._scaling.write_rate * self._slots * self._step_s
        self._hot_since = np.where(self._heat_sum > limit, np.minimum(self._hot_since, now), np.inf)
        if detect_s is not None:
            due = (now - self._hot_since >= detect_s - CLOCK_S) & np.isinf(self._split_at)
            self._split_at[due] = now + self._scaling.split_s

    def _split(self) -> list[Split]:
        due = np.flatnonzero(self._split_at <= self._step * self._step_s + CLOCK_S)
        return [made for place in due if (made := self._split_one(int(place)))]

    def _split_one(self, place: int) -> Split | None:
        prefix = self.prefixes[place]
        child = boundary(self._sample(prefix), prefix, self._scaling.dominant_share)
        self._heat[:, place] = self._heat_sum[place] = 0.0
        self._hot_since[place] = self._split_at[place] = np.inf
        if child is None:
            return None
        before = self.shares[place]
        self.prefixes.append(child)
        self.shares = np.array([self._own(each) for each in self.prefixes])
        self._tokens = np.append(self._tokens, self._burst)
        self._hot_since = np.append(self._hot_since, np.inf)
        self._split_at = np.append(self._split_at, np.inf)
        self._heat = np.pad(self._heat, ((0, 0), (0, 1)))
        self._heat_sum = np.append(self._heat_sum, 0.0)
        return Split(place, float(1 - self.shares[place] / before))

    def _sample(self, prefix: str) -> list[str]:
        """Draw keys as the range would have seen them last."""
        own: list[str] = []
        inner = self._inner(prefix)
        wanted = self._scaling.sample_keys
        for _ in range(1 + 2 * len(self._layout.alphabet)):  # at worst its last child is left
            drawn = self._layout.keys(prefix, wanted, self._rng)
            own += [key for key in drawn if not key.startswith(inner)]
            if len(own) >= wanted:
                break
        return own[:wanted]

    def _inner(self, prefix: str) -> tuple[str, ...]:
        return tuple(each for each in self.prefixes if each != prefix and each.startswith(prefix))

    def _own(self, prefix: str, lane: str = "") -> float:
        """Give the share of all keys that a range holds, of those that begin with `lane`."""
        inner = self._inner(prefix)
        outermost = [each for each in inner if not any(each != one and each.startswith(one) for one in inner)]
        return self._both(prefix, lane) - sum(self._both(each, lane) for each in outermost)

    def _both(self, prefix: str, lane: str) -> float:
        return self._layout.measure(max(prefix, lane, key=len)) if _meet(prefix, lane) else 0.0

    def lanes(self) -> Floats:
        """Give, by lane and range, the share of all keys that both hold."""
        lanes = self._layout.lanes()
        return np.array([[self._own(each, lane) for each in self.prefixes] for lane in lanes])


def _meet(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)

"""S3's request scaling as a model: ranges of a bucket's keys, each with a capacity, that split under sustained heat.

Pure: no network, no randomness, and time is a parameter. The fault server throttles with it and the simulator is built
on it. What AWS does not publish is a hypothesis here, and a parameter that says so.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

HEAT_SLOTS = 60  # of a heat window: heat is judged at the end of each


@dataclass(frozen=True)
class Scaling:
    """What the model assumes.

    Attributes:
        write_rate: PUT, COPY, POST and DELETE a second that a range takes; AWS, "Optimizing Amazon S3 performance".
        read_rate: GET and HEAD a second that a range takes; the same page.
        burst_s: seconds of unused capacity that a range saves up; unpublished, one second is ours.
        heat_window_s: seconds over which heat is averaged; unpublished, ours.
        hot_share: share of a range's capacity, for writes or for reads, above which it is hot; unpublished, ours: AWS
            asks clients to "maintain the request rate" near the limit for a split to come.
        detect_s: seconds that a range has to be hot, without a gap, until a split is decided; None: nothing ever
            splits. 30 to 60 minutes for detection and split together were claimed at re:Invent 2018, 20 fit the public
            report of a base-2 backfill, and half of them is ours.
        split_s: seconds from the decision to its effect; the other half.
        dominant_share: share of a range's recent requests from which a common prefix counts as all of them, so that
            a split looks below it; ours.
        sample_keys: latest requests of a range by which a split chooses its boundary; ours, bounds the memory.
    """

    write_rate: float = 3_500.0
    read_rate: float = 5_500.0
    burst_s: float = 1.0
    heat_window_s: float = 60.0
    hot_share: float = 0.9
    detect_s: float | None = 600.0
    split_s: float = 600.0
    dominant_share: float = 0.9
    sample_keys: int = 1_024


@dataclass(frozen=True)
class Admitted:
    """S3 takes the request.

    Attributes:
        prefix: of the range that took it; of the last one where there were several.
    """

    prefix: str


@dataclass(frozen=True)
class Throttled:
    """S3 answers 503 SlowDown, without any effect.

    Attributes:
        prefix: of the range that refused.
        wait_s: seconds until that range takes it, if nobody else asks.
    """

    prefix: str
    wait_s: float


@dataclass(frozen=True)
class KeyRange:
    """One range, as it was at a moment.

    Attributes:
        prefix: its keys begin with it, less those of longer prefixes that have ranges of their own.
        admitted: weight taken since the range began.
        throttled: weight refused since the range began.
        write_heat: writes a second in the heat window, refused ones included.
        read_heat: reads a second in the heat window, refused ones included.
        hot_since: when it became hot; None while it is not.
        split_at: when its split takes effect; None until one is decided.
    """

    prefix: str
    admitted: float
    throttled: float
    write_heat: float
    read_heat: float
    hot_since: float | None
    split_at: float | None


class KeySpace:
    """A bucket's keys. Time is in seconds from any origin and never runs backwards."""

    def __init__(self, scaling: Scaling, *, prefixes: Iterable[str] = ()) -> None:
        """Begin with one range for all keys, and with those that were split out beforehand."""
        self._scaling = scaling
        self._ranges = {prefix: _Range(prefix, scaling) for prefix in ("", *prefixes)}
        self._lengths = self._prefix_lengths()

    def offer(self, key: str, *, write: bool, now: float, weight: float = 1.0) -> Admitted | Throttled:
        """Ask for one request; more weight than a burst is taken by a full range, and leaves it in debt."""
        return self._decide({self._range_of(key, now): weight}, write=write, now=now)

    def offer_all(self, keys: Iterable[str], *, write: bool, now: float) -> Admitted | Throttled:
        """Ask for one request about many keys: each counts in its range, and all are taken or none."""
        return self._decide(Counter(self._range_of(key, now) for key in keys), write=write, now=now)

    def ranges(self, now: float) -> tuple[KeyRange, ...]:
        """Give every range, in the order of their prefixes."""
        for found in list(self._ranges.values()):
            self._advance(found, now)
        return tuple(found.seen() for _, found in sorted(self._ranges.items()))

    def _decide(self, wanted: "Mapping[_Range, float]", *, write: bool, now: float) -> Admitted | Throttled:
        answer: Admitted | Throttled = Admitted("")
        for found, weight in wanted.items():
            wait_s = found.buckets[write].wait_s(weight, now)
            if wait_s > 0:
                answer = Throttled(found.prefix, wait_s)
                break
            answer = Admitted(found.prefix)
        for found, weight in wanted.items():
            found.count(weight, write=write, taken=isinstance(answer, Admitted))
        return answer

    def _range_of(self, key: str, now: float) -> "_Range":
        """Find a key's range, after whatever split was due there, and remember that the key was asked for."""
        found = self._longest(key)
        while self._advance(found, now):
            found = self._longest(key)
        found.sample.append(key)
        return found

    def _longest(self, key: str) -> "_Range":
        return next(self._ranges[key[:n]] for n in self._lengths if key[:n] in self._ranges)

    def _advance(self, found: "_Range", now: float) -> bool:
        """Bring one range up to date, and tell whether it split.

        A range is brought up to date when somebody looks at it: what it did in between concerns its own keys only.
        """
        found.pass_time(now)
        if found.split_at is None or found.split_at > now:
            return False
        child = boundary(found.sample, found.prefix, self._scaling.dominant_share)
        found.begin_anew()
        if child is None:
            return False
        self._ranges[child] = _Range(child, self._scaling, now)
        self._lengths = self._prefix_lengths()
        return True

    def _prefix_lengths(self) -> list[int]:
        return sorted({len(prefix) for prefix in self._ranges}, reverse=True)


def boundary(keys: Iterable[str], prefix: str, dominant_share: float) -> str | None:
    """Choose what a split moves out of a range: one child at a character boundary.

    The hypothesis of the model. Below whatever prefix the range's requests have in common, the child with the most of
    them moves, the first one of equals. So of base-2 digits one half moves and of base-64 digits one 64th.

    Args:
        keys: recent requests to the range.
        prefix: of the range.
        dominant_share: of the requests, from which a child counts as all of them.

    Returns:
        The child's prefix; None if there is no boundary: a single hot key cannot be divided.
    """
    below, apart = list(keys), None
    while children := Counter(key[len(prefix)] for key in below if len(key) > len(prefix)):
        hits = max(children.values())
        child = prefix + min(character for character, count in children.items() if count == hits)
        if hits < dominant_share * len(below):
            return child
        if hits < len(below):
            apart = child  # where nothing below can be divided, the hot key at least leaves its neighbours
        below, prefix = [key for key in below if key.startswith(child)], child
    return apart


class _Bucket:
    """A token bucket: full at first, filled at a rate, in debt after more than it held."""

    def __init__(self, rate: float, burst_s: float, now: float) -> None:
        self.rate = rate
        self._burst = max(rate * burst_s, 1.0)  # a burst below one request would never take any
        self.tokens = self._burst
        self._filled_at = now

    def wait_s(self, weight: float, now: float) -> float:
        """Fill it up to now, and give the seconds until it takes that weight."""
        self.tokens = min(self._burst, self.tokens + self.rate * max(0.0, now - self._filled_at))
        self._filled_at = max(now, self._filled_at)
        short = min(weight, self._burst) - self.tokens
        return short / self.rate if short > 1e-9 else 0.0  # noqa: PLR2004  # rounding of floats


class _Range:
    """A range in motion: two buckets, the heat of its window by slots, and how far its split has come."""

    def __init__(self, prefix: str, scaling: Scaling, now: float = 0.0) -> None:
        self.prefix = prefix
        self.buckets = {
            True: _Bucket(scaling.write_rate, scaling.burst_s, now),
            False: _Bucket(scaling.read_rate, scaling.burst_s, now),
        }
        self.sample: deque[str] = deque(maxlen=scaling.sample_keys)
        self.weights = {True: 0.0, False: 0.0}  # taken, refused
        self._scaling = scaling
        self._slot_s = scaling.heat_window_s / HEAT_SLOTS
        self._slot = int(now // self._slot_s)
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget heat, sample and split: detection starts again."""
        self.hot_since: float | None = None
        self.split_at: float | None = None
        self.sample.clear()
        self._heat = {write: deque([0.0] * HEAT_SLOTS, maxlen=HEAT_SLOTS) for write in (True, False)}

    def count(self, weight: float, *, write: bool, taken: bool) -> None:
        """Heat it, and charge it if the request was taken."""
        self._heat[write][-1] += weight
        self.weights[taken] += weight
        if taken:
            self.buckets[write].tokens -= weight

    def heat(self, *, write: bool) -> float:
        """Give requests a second, averaged over the window."""
        return sum(self._heat[write]) / self._scaling.heat_window_s

    def pass_time(self, now: float) -> None:
        """Judge the heat at the end of every slot that is over; after a whole idle window nothing is left to judge."""
        slot = int(now // self._slot_s)
        for ended in range(self._slot, min(slot, self._slot + HEAT_SLOTS + 1)):
            self._judge((ended + 1) * self._slot_s)
            for slots in self._heat.values():
                slots.append(0.0)
        self._slot = max(slot, self._slot)

    def _judge(self, at: float) -> None:
        share = max(self.heat(write=write) / bucket.rate for write, bucket in self.buckets.items())
        if share <= self._scaling.hot_share:
            self.hot_since = None
            return
        if self.hot_since is None:
            self.hot_since = at
        detect_s = self._scaling.detect_s
        if self.split_at is None and detect_s is not None and at - self.hot_since >= detect_s:
            self.split_at = at + self._scaling.split_s

    def seen(self) -> KeyRange:
        """Give it as it is now."""
        return KeyRange(
            prefix=self.prefix,
            admitted=self.weights[True],
            throttled=self.weights[False],
            write_heat=self.heat(write=True),
            read_heat=self.heat(write=False),
            hot_since=self.hot_since,
            split_at=self.split_at,
        )

"""A store in virtual time: a token bucket like S3's, beside it 503s by chance, and writers that use the real tries."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from lakehouse_pipeline.object_store.counts import RequestCounter, RequestCounts
from lakehouse_pipeline.object_store.lanes import Lanes
from lakehouse_pipeline.object_store.objects import RequestFailedError
from lakehouse_pipeline.object_store.tries import Tries
from lakehouse_pipeline.retry import RetryPolicy
from tests.object_store.virtual_time import VirtualTime

Figure = Callable[[float], float]


def keys_by_number(number: int) -> str:
    """Give a URL without hash digits."""
    return f"s3://bucket/key-{number}"


@dataclass
class Load:
    """Writers against a store, and what came of it.

    Attributes:
        rate: requests a second that the store admits, by the time; a second's worth is saved up.
        chance: of a 503 beside that, by the time.
        writers: threads, spread evenly over the processes.
        processes: each with its own rate control.
        seconds: until nobody begins another request.
        latency_s: of each answer.
        url: of a request, by a random number of 20 bits.
        policy: of each request.
        answers: when which process was admitted or not.
        tries: of the request that needed most.
        counts: of each process.
    """

    rate: Figure = lambda _: 1e9
    chance: Figure = lambda _: 0.0
    writers: int = 48
    processes: int = 1
    seconds: float = 60.0
    latency_s: float = 0.005
    url: Callable[[int], str] = keys_by_number
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    answers: list[tuple[float, int, bool]] = field(default_factory=list)
    tries: int = 0
    counts: list[RequestCounts] = field(default_factory=list)

    def run(self) -> "Load":
        """Run to the end.

        Raises:
            RequestFailedError: a request has failed for good.
        """
        self._time, self._luck = VirtualTime(), random.Random(1)  # noqa: S311  # chance, not cryptography
        random.seed(1)  # tenacity's jitter
        self._tokens, self._at = self.rate(0), 0.0
        counters = [RequestCounter() for _ in range(self.processes)]
        lanes = [Lanes(clock=self._time.clock, sleep=self._time.sleep) for _ in range(self.processes)]

        def writer(process: int) -> None:
            tries = Tries(
                self.policy,
                counters[process],
                lambda: lanes[process],
                clock=self._time.clock,
                sleep=self._time.sleep,
            )
            while self._time.clock() < self.seconds:
                self._write(tries, process)

        self._time.run(*(lambda process=each % self.processes: writer(process) for each in range(self.writers)))
        self.counts = [counter.snapshot() for counter in counters]
        return self

    def admitted(self, begin_s: float, end_s: float, process: int | None = None) -> int:
        """Count what the store took in a span of time, of all processes or of one."""
        return sum(taken and begin_s <= at < end_s and process in (None, which) for at, which, taken in self.answers)

    def throttled(self, begin_s: float, end_s: float) -> float:
        """Give the share of 503s in a span of time."""
        found = [taken for at, _, taken in self.answers if begin_s <= at < end_s]
        return found.count(False) / len(found)

    def _write(self, tries: Tries, process: int) -> None:
        sent = 0

        def send() -> None:
            nonlocal sent
            sent += 1
            self._time.sleep(self.latency_s)
            now = self._time.clock()
            taken = self._takes(now)
            self.answers.append((now, process, taken))
            if not taken:
                raise RequestFailedError("503", code="SlowDown", throttled=True)

        tries.request("put", self.url(self._luck.getrandbits(20)), send)
        self.tries = max(self.tries, sent)

    def _takes(self, now: float) -> bool:
        rate = self.rate(now)
        self._tokens, self._at = min(rate, self._tokens + rate * (now - self._at)), now
        if self._tokens < 1 or self._luck.random() < self.chance(now):
            return False
        self._tokens -= 1
        return True

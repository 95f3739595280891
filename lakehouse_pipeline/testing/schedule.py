"""Which request meets which fault: by what it asks, by count, and by a seeded chance.

Thread-safe: a test adds, releases and removes faults while the server's own thread takes them. Carrying a fault out is
the connection's business.
"""

import asyncio
import contextlib
import itertools
import random
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.testing.asked import Asked


class Effect(StrEnum):
    """What happens to a request."""

    SLOW_DOWN = "slow-down"
    INTERNAL_ERROR = "internal-error"
    REFUSED = "refused"
    CONFLICT = "conflict"
    ERROR_IN_200 = "error-in-200"
    KEYS_REFUSED = "keys-refused"
    RESET = "reset"
    SILENCE = "silence"
    SLOW = "slow"
    HOLD = "hold"
    CUT = "cut"
    FLIP_REQUEST = "flip-request"
    FLIP_ANSWER = "flip-answer"


ERRORS = frozenset(
    {
        *(Effect.SLOW_DOWN, Effect.INTERNAL_ERROR, Effect.REFUSED, Effect.CONFLICT),
        *(Effect.ERROR_IN_200, Effect.KEYS_REFUSED),
    }
)
STAND_INS = ERRORS | {Effect.RESET, Effect.SILENCE}  # in place of the upstream's answer
ALWAYS_LAND = frozenset({Effect.CUT, Effect.FLIP_REQUEST, Effect.FLIP_ANSWER})


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault, and the requests that it is for: those that match everything that is set.

    Attributes:
        effect: what happens.
        method: regular expression of the whole method.
        verb: regular expression of the whole S3 verb, such as `PutObject|UploadPart`, or of a catalog's operation.
        path: regular expression that is found in the decoded path.
        header: a header that the request has, such as `If-None-Match`.
        query: a parameter that the request has, such as `uploads`, `partNumber` or `delete`.
        times: how often it happens; None: always.
        after: matching requests that pass first.
        probability: chance of each matching request after those.
        landed: whether the request is forwarded first, so that it has its effect and only the answer is wrong.
        delay_s: seconds before the effect; before forwarding, or with `landed` after it.
        status: HTTP status of an error, in place of the effect's own.
        code: code of an error, in place of the effect's own.
    """

    effect: Effect
    method: str | None = None
    verb: str | None = None
    path: str | None = None
    header: str | None = None
    query: str | None = None
    times: int | None = 1
    after: int = 0
    probability: float = 1.0
    landed: bool = False
    delay_s: float = 0.0
    status: int | None = None
    code: str | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigurationError: every problem of this fault.
        """
        problems = [f"{name}: {error}" for name in ("method", "verb", "path") if (error := self._pattern_error(name))]
        if self.landed and self.effect in ALWAYS_LAND:
            problems.append("landed: it is forwarded anyway")
        if (self.status or self.code) and self.effect not in ERRORS:
            problems.append("status and code: of errors only")
        if not 0 <= self.probability <= 1:
            problems.append("probability: between 0 and 1")
        if self.effect is Effect.SLOW and not self.delay_s:
            problems.append("delay_s: how slow?")
        if problems:
            raise ConfigurationError(f"fault {self.effect}: {'; '.join(problems)}")

    def matches(self, asked: Asked) -> bool:
        """Tell whether it is for this request."""
        return (
            (self.method is None or re.fullmatch(self.method, asked.method) is not None)
            and (self.verb is None or re.fullmatch(self.verb, asked.verb) is not None)
            and (self.path is None or re.search(self.path, asked.path) is not None)
            and (self.header is None or self.header.lower() in asked.headers)
            and (self.query is None or self.query in asked.query)
            and (self.effect is not Effect.KEYS_REFUSED or asked.verb == "DeleteObjects")
        )

    def _pattern_error(self, name: str) -> str:
        try:
            re.compile(getattr(self, name) or "")
        except re.error as error:
            return str(error)
        return ""


class Armed:
    """A fault in a schedule.

    Attributes:
        fault: what was added.
        seen: matching requests so far.
        fired: how often it happened so far.
    """

    def __init__(self, fault: Fault, seed: str, schedule: "Schedule") -> None:
        """Begin with nothing seen."""
        self.fault = fault
        self.seen = 0
        self.fired = 0
        self._seed = seed
        self._schedule = schedule
        self._changed = threading.Condition()
        self._held: list[asyncio.Future[None]] = []
        self._open = False

    def take(self, asked: Asked) -> "Shot | None":
        """Decide about a request; the n-th matching one meets the same luck in every run of one seed."""
        if not self.fault.matches(asked):
            return None
        with self._changed:
            self.seen += 1
            luck = random.Random(f"{self._seed}/{self.seen}")  # noqa: S311  # chance, not cryptography
            if self.seen <= self.fault.after or self._spent() or luck.random() >= self.fault.probability:
                return None
            self.fired += 1
            self._changed.notify_all()
        return Shot(self, luck)

    @property
    def held(self) -> int:
        """Give how many requests it holds now."""
        with self._changed:
            return len(self._held)

    def wait_fired(self, count: int = 1, *, timeout_s: float = 10.0) -> None:
        """Wait until it has happened so often.

        Raises:
            TimeoutError: it has not.
        """
        self._wait(lambda: self.fired >= count, timeout_s, f"fired {count} times")

    def wait_held(self, count: int = 1, *, timeout_s: float = 10.0) -> None:
        """Wait until it holds so many requests: each is read to its end, and with `landed` has had its effect.

        Raises:
            TimeoutError: it does not.
        """
        self._wait(lambda: len(self._held) >= count, timeout_s, f"holding {count}")

    def release(self) -> None:
        """Let go of what is held, and hold nothing from now on."""
        with self._changed:
            self._open = True
            for waiting in self._held:
                with contextlib.suppress(RuntimeError):  # the server has stopped
                    waiting.get_loop().call_soon_threadsafe(_let_go, waiting)

    def remove(self) -> None:
        """Take it out of the schedule; what it holds it goes on holding."""
        self._schedule.remove(self)

    async def hold(self) -> None:
        """Wait for the release, in the server's loop."""
        waiting = asyncio.get_running_loop().create_future()
        with self._changed:
            if self._open:
                return
            self._held.append(waiting)
            self._changed.notify_all()
        try:
            await waiting
        finally:
            with self._changed:
                self._held.remove(waiting)

    def _spent(self) -> bool:
        return self.fault.times is not None and self.fired >= self.fault.times

    def _wait(self, reached: Callable[[], bool], timeout_s: float, wanted: str) -> None:
        with self._changed:
            if not self._changed.wait_for(reached, timeout_s):
                raise TimeoutError(f"{self.fault.effect}: after {timeout_s:g} s not yet {wanted}")


@dataclass(frozen=True)
class Shot:
    """A fault that happens to one request.

    Attributes:
        armed: where it comes from.
        luck: the randomness of this one happening.
    """

    armed: Armed
    luck: random.Random

    @property
    def fault(self) -> Fault:
        """Give what happens."""
        return self.armed.fault


class Schedule:
    """Faults in the order in which they were added: the first that fires takes the request."""

    def __init__(self, faults: Iterable[Fault] = (), *, seed: int = 0) -> None:
        """Begin with these."""
        self._seed = seed
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._armed: tuple[Armed, ...] = ()
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> Armed:
        """Add one behind all others."""
        with self._lock:
            armed = Armed(fault, f"{self._seed}/{next(self._numbers)}", self)
            self._armed = (*self._armed, armed)
        return armed

    def remove(self, armed: Armed) -> None:
        """Take one out; nothing happens if it is out already."""
        with self._lock:
            self._armed = tuple(other for other in self._armed if other is not armed)

    def clear(self) -> None:
        """Take all out, and release what they hold."""
        with self._lock:
            removed, self._armed = self._armed, ()
        for armed in removed:
            armed.release()

    def take(self, asked: Asked) -> Shot | None:
        """Give the fault of a request."""
        return next((shot for armed in self._armed if (shot := armed.take(asked))), None)


def _let_go(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)

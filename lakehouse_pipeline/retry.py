"""Retries as data: a policy, the call it is for, and one event per retry.

The only importer of tenacity. Which errors deserve a retry is the caller's to say; a retry always ends by tries and by
time. Layers multiply: requests are retried in `object_store` alone, so nothing above it retries a request again.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from lakehouse_pipeline import events
from lakehouse_pipeline.errors import ConfigurationError

SAID_FROM_TRY = 3  # one retry is everyday; whoever waits for the third wants to know what for ...
SAID_EVERY_S = 60.0  # ... but of a thousand requests that wait for the same store, one is told; the others at DEBUG
QUEUED_HALVINGS = 4  # the first wait after an error that is `queued` is a sixteenth of the usual one

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Matcher = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]


@dataclass(frozen=True)
class RetryPolicy:
    """How often, how long and how patiently: full jitter, `uniform(0, min(max_wait, min_wait * 2^(n-1)))`.

    The defaults are for S3: a throttled prefix is split only while requests keep coming (AWS, "503 Slow Down"), and
    Iceberg's advice for heavy writers is 32 retries with waits of at most 20 s.

    Attributes:
        tries: requests sent at most, the first included.
        total_s: seconds from the first try; a wait that would end later is not begun.
        min_wait_s: seconds, upper bound of the first wait.
        max_wait_s: seconds, upper bound of every wait, one that the server asks for included.
    """

    tries: int = 32
    total_s: float = 600.0
    min_wait_s: float = 1.0
    max_wait_s: float = 20.0

    def __post_init__(self) -> None:
        """Refuse a policy that never tries or waits backwards."""
        if self.tries < 1 or not 0 <= self.min_wait_s <= self.max_wait_s or self.total_s < 0:
            raise ConfigurationError(f"{self} needs at least one try, and 0 <= min_wait_s <= max_wait_s")


@dataclass(frozen=True)
class RetryDetails:
    """One retry, before its wait.

    Attributes:
        name: what is retried, such as `put s3://raw/key`.
        tries: tries that have failed so far, at least 1.
        wait_s: seconds until the next one.
        elapsed_s: seconds since the first try began.
        caused_by: the error of the last try.
    """

    name: str
    tries: int
    wait_s: float
    elapsed_s: float
    caused_by: BaseException


def retry_call(
    policy: RetryPolicy,
    call: Callable[[], Result],
    *,
    on: Matcher,
    name: str,
    heard: Callable[[RetryDetails], None] | None = None,
    queued: Matcher = (),
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Call until it returns, raises something else than `on`, or the policy ends.

    An error with an attribute `retry_after_s` (seconds, or None) is the server's word: the wait is at least that long,
    with the usual jitter on top so that clients do not come back together, and at most `policy.max_wait_s`.

    Args:
        policy: when to end, how long to wait.
        call: the request; safe to repeat.
        on: the errors worth another try: a type, several, or a predicate.
        name: what is being done, for the event, the log and the note.
        heard: told of every retry, beside the event `request.retried`.
        queued: errors after which `call` itself waits for its turn in a queue that moves: for the first half of the
            tries they wait at most `policy.min_wait_s`, and begin `QUEUED_HALVINGS` lower. The queue decides, and
            patience is left for the other half.
        sleep: waits, in seconds.
        clock: seconds, monotonic.

    Raises:
        BaseException: the last error as it is; one that ended the retries has a note with tries and seconds.
    """
    started = clock()
    matches = _predicate(on)

    def ends(state: RetryCallState) -> bool:
        return state.attempt_number >= policy.tries or clock() - started + state.upcoming_sleep > policy.total_s

    def announce(state: RetryCallState) -> None:
        details = RetryDetails(name, state.attempt_number, state.upcoming_sleep, clock() - started, _error_of(state))
        _say(details)
        if heard:
            heard(details)

    retrying = Retrying(
        retry=retry_if_exception(matches),
        stop=ends,
        wait=_waits(policy, _predicate(queued)),
        before_sleep=announce,
        sleep=sleep,
        reraise=True,
    )
    try:
        return retrying(call)
    except Exception as error:
        if matches(error):
            tries = retrying.statistics["attempt_number"]
            word = "try" if tries == 1 else "tries"
            error.add_note(f"{name}: gave up after {tries} {word} in {clock() - started:.1f} s")
        raise


def _predicate(on: Matcher) -> Callable[[BaseException], bool]:
    if isinstance(on, type | tuple):
        return lambda error: isinstance(error, on)
    return on


def _waits(policy: RetryPolicy, queued: Callable[[BaseException], bool]) -> Callable[[RetryCallState], float]:
    usual = wait_random_exponential(multiplier=policy.min_wait_s, max=policy.max_wait_s)
    short = wait_random_exponential(multiplier=policy.min_wait_s / 2**QUEUED_HALVINGS, max=policy.min_wait_s)

    def wait(state: RetryCallState) -> float:
        error = _error_of(state)
        asked: float = getattr(error, "retry_after_s", None) or 0.0
        soon = state.attempt_number <= policy.tries // 2 and queued(error)
        return min(asked + (short if soon else usual)(state), policy.max_wait_s)

    return wait


def _error_of(state: RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome else None
    assert error is not None  # noqa: S101  # tenacity asks for a wait only after an exception
    return error


class _Warnings:
    """Leave to warn, once in a while in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next_at = 0.0

    def take(self, now: float) -> bool:
        with self._lock:
            due = now >= self._next_at
            if due:
                self._next_at = now + SAID_EVERY_S
            return due


_warnings = _Warnings()


def _say(details: RetryDetails) -> None:
    warned = details.tries >= SAID_FROM_TRY and _warnings.take(time.monotonic())
    logger.log(
        logging.WARNING if warned else logging.DEBUG,
        "%s: try %d failed after %.0f s (%s); again in %.1f s",
        details.name,
        details.tries,
        details.elapsed_s,
        details.caused_by,
        details.wait_s,
    )
    events.emit(
        "request.retried",
        request=details.name,
        tries=details.tries,
        wait_s=round(details.wait_s, 3),
        error=type(details.caused_by).__name__,
    )

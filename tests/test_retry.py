"""Retries end by tries and by time, wait with full jitter, and are said aloud."""

import logging
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline import retry
from lakehouse_pipeline.errors import ConfigurationError, DataError, TransientError
from lakehouse_pipeline.events import Event, subscribed
from lakehouse_pipeline.retry import RetryDetails, RetryPolicy, retry_call

LEVELS = ("DEBUG", "WARNING")


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        """Give the seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let them pass."""
        self.slept.append(seconds)
        self.now += seconds


class AskedToWaitError(TransientError):
    """A failure with the server's own wait."""

    retry_after_s = 7.0


def failing(times: int, error: Callable[[], Exception] = lambda: TransientError("no")) -> Callable[[], str]:
    """Make a call that fails so often and then gives `ok`."""
    left = times

    def call() -> str:
        nonlocal left
        if left:
            left -= 1
            raise error()
        return "ok"

    return call


def test_a_call_is_tried_until_it_succeeds() -> None:
    """Four failures cost four waits; the fifth try's result is returned."""
    clock = Clock()
    result = retry_call(RetryPolicy(), failing(4), on=TransientError, name="put x", sleep=clock.sleep, clock=clock)
    assert (result, len(clock.slept)) == ("ok", 4)


def test_tries_end_it() -> None:
    """With three tries the third error is raised as it is, with a note of tries and seconds."""
    clock = Clock()
    errors = iter([TransientError("1"), TransientError("2"), TransientError("3")])
    with pytest.raises(TransientError, match="3") as caught:
        retry_call(
            RetryPolicy(tries=3, min_wait_s=2, max_wait_s=2),
            failing(9, lambda: next(errors)),
            on=TransientError,
            name="put x",
            sleep=clock.sleep,
            clock=clock,
        )
    assert caught.value.__notes__ == [f"put x: gave up after 3 tries in {sum(clock.slept):.1f} s"]


def test_time_ends_it() -> None:
    """A wait that would end after the policy's time is not begun."""
    clock = Clock()
    with pytest.raises(AskedToWaitError):
        retry_call(
            RetryPolicy(tries=1000, total_s=50, min_wait_s=1, max_wait_s=7),
            failing(1000, AskedToWaitError),
            on=TransientError,
            name="put x",
            sleep=clock.sleep,
            clock=clock,
        )
    assert clock.slept == [7.0] * 7
    assert clock.now <= 50


def test_other_errors_are_not_retried() -> None:
    """An error outside of `on` leaves at once, without a note."""
    clock = Clock()
    with pytest.raises(DataError) as caught:
        retry_call(RetryPolicy(), failing(1, lambda: DataError("bad")), on=TransientError, name="x", sleep=clock.sleep)
    assert (clock.slept, hasattr(caught.value, "__notes__")) == ([], False)


@pytest.mark.parametrize(
    "on",
    [
        pytest.param(OSError, id="type"),
        pytest.param((KeyError, OSError), id="tuple"),
        pytest.param(lambda error: "dropped" in str(error), id="predicate"),
    ],
)
def test_on_is_a_type_a_tuple_or_a_predicate(
    on: type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool],
) -> None:
    """All three forms name the errors that are retried."""
    clock = Clock()
    call = failing(1, lambda: ConnectionError("dropped"))
    assert retry_call(RetryPolicy(), call, on=on, name="x", sleep=clock.sleep) == "ok"


def test_every_retry_is_said() -> None:
    """Each retry is one event with its try, wait and error class, and one call of `heard`."""
    clock, events, heard = Clock(), list[Event](), list[RetryDetails]()
    with subscribed(events.append):
        retry_call(
            RetryPolicy(),
            failing(2),
            on=TransientError,
            name="get y",
            heard=heard.append,
            sleep=clock.sleep,
            clock=clock,
        )
    said = [(event.name, event.fields["request"], event.fields["tries"], event.fields["error"]) for event in events]
    assert said == [("request.retried", "get y", tries, "TransientError") for tries in (1, 2)]
    assert [details.wait_s for details in heard] == clock.slept
    assert [details.elapsed_s for details in heard] == [0.0, clock.slept[0]]


@given(tries=st.integers(2, 60), lowest=st.floats(0, 5), more=st.floats(0, 30))
def test_waits_are_jittered_within_the_policy(tries: int, lowest: float, more: float) -> None:
    """The n-th wait is at most `min_wait * 2^(n-1)` and at most `max_wait`."""
    clock = Clock()
    policy = RetryPolicy(tries=tries, total_s=1e9, min_wait_s=lowest, max_wait_s=lowest + more)
    retry_call(policy, failing(tries - 1), on=TransientError, name="x", sleep=clock.sleep, clock=clock)
    assert all(0 <= wait <= min(lowest * 2.0**n, policy.max_wait_s) + 1e-9 for n, wait in enumerate(clock.slept))


def test_of_those_who_wait_one_is_warned(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """One retry is everyday; from the third failure on one wait a minute is warned of, with what went wrong."""
    monkeypatch.setattr(retry, "_warnings", retry._Warnings())
    clock = Clock()
    with caplog.at_level(logging.DEBUG, "lakehouse_pipeline.retry"):
        for _ in range(9):
            retry_call(RetryPolicy(), failing(4), on=TransientError, name="put s3://raw/key", sleep=clock.sleep)
    said = {level: [each.getMessage() for each in caplog.records if each.levelname == level] for level in LEVELS}
    assert [text.partition(" failed")[0] for text in said["WARNING"]] == ["put s3://raw/key: try 3"]
    assert "(no)" in said["WARNING"][0]
    assert len(said["DEBUG"]) == 9 * 4 - 1


def test_a_queue_that_moves_shortens_waits() -> None:
    """Errors that a queue takes care of wait little for half of the tries, then as all others."""
    clock = Clock()
    policy = RetryPolicy(tries=12, total_s=1e9, min_wait_s=1, max_wait_s=20)
    retry_call(policy, failing(11), on=TransientError, name="x", queued=TransientError, sleep=clock.sleep, clock=clock)
    assert all(wait <= 2.0**n / 16 for n, wait in enumerate(clock.slept[:4]))
    assert all(wait <= 1 for wait in clock.slept[:6])
    assert sum(clock.slept[6:]) > 6


@pytest.mark.parametrize(("cap", "least", "most"), [(20.0, 7.0, 8.0), (3.0, 3.0, 3.0)], ids=["honoured", "capped"])
def test_the_servers_wait_is_honoured(cap: float, least: float, most: float) -> None:
    """The wait is at least what the server asks, jittered so that clients spread, and never above the cap."""
    clock = Clock()
    policy = RetryPolicy(min_wait_s=1, max_wait_s=cap)
    retry_call(policy, failing(1, AskedToWaitError), on=TransientError, name="x", sleep=clock.sleep, clock=clock)
    assert least <= clock.slept[0] <= most


@pytest.mark.parametrize(
    "wrong",
    [{"tries": 0}, {"total_s": -1.0}, {"min_wait_s": 3.0, "max_wait_s": 2.0}, {"min_wait_s": -1.0}],
    ids=str,
)
def test_a_policy_that_cannot_work_is_refused(wrong: dict[str, float]) -> None:
    """No tries, negative times and reversed waits end at construction."""
    with pytest.raises(ConfigurationError):
        RetryPolicy(**wrong)  # type: ignore[arg-type]  # the table mixes int and float

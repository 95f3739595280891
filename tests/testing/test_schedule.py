"""Which request meets which fault."""

from typing import Any

import pytest

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.testing.asked import Asked
from lakehouse_pipeline.testing.schedule import Effect, Fault, Schedule

PUT = Asked("PUT", "/raw/data/a.parquet", frozenset({"if-none-match"}))
PART = Asked("PUT", "/raw/data/a.parquet?partNumber=1&uploadId=u")
GET = Asked("GET", "/raw/data/a.parquet")


def hits(schedule: Schedule, asked: Asked, requests: int) -> list[int]:
    """Give the numbers of the requests that met a fault, from 1."""
    return [number for number in range(1, requests + 1) if schedule.take(asked)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param({}, [PUT, PART, GET], id="everything"),
        pytest.param({"method": "PUT"}, [PUT, PART], id="method"),
        pytest.param({"verb": "PutObject|GetObject"}, [PUT, GET], id="verbs"),
        pytest.param({"verb": "Object"}, [], id="a-verb-matches-whole"),
        pytest.param({"path": r"\.parquet$"}, [PUT, PART, GET], id="path-without-query"),
        pytest.param({"header": "If-None-Match"}, [PUT], id="header"),
        pytest.param({"query": "partNumber"}, [PART], id="sub-resource"),
        pytest.param({"method": "PUT", "query": "partNumber", "path": "other"}, [], id="all-have-to-match"),
    ],
)
def test_a_fault_is_for_what_it_describes(wanted: dict[str, Any], expected: list[Asked]) -> None:
    """A request has to match everything that is set."""
    fault = Fault(effect=Effect.RESET, **wanted)
    assert [asked for asked in (PUT, PART, GET) if fault.matches(asked)] == expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        pytest.param({}, [1], id="once"),
        pytest.param({"times": 2}, [1, 2], id="twice"),
        pytest.param({"times": None}, [1, 2, 3, 4, 5], id="always"),
        pytest.param({"after": 3}, [4], id="after-three"),
        pytest.param({"after": 1, "times": 2}, [2, 3], id="both"),
        pytest.param({"probability": 0.0, "times": None}, [], id="never"),
    ],
)
def test_a_fault_happens_as_often_as_told(counts: dict[str, Any], expected: list[int]) -> None:
    """`after` requests pass, then `times` are hit."""
    assert hits(Schedule([Fault(effect=Effect.RESET, **counts)]), PUT, 5) == expected


def test_requests_that_do_not_match_do_not_count() -> None:
    """`after` counts matching requests only."""
    schedule = Schedule([Fault(effect=Effect.RESET, method="PUT", after=1)])
    assert [bool(schedule.take(asked)) for asked in (GET, PUT, GET, PUT)] == [False, False, False, True]


def test_chance_repeats_with_its_seed() -> None:
    """The same seed hits the same requests, about as many as the probability says; another seed hits others."""
    fault = Fault(effect=Effect.RESET, probability=0.3, times=None)
    first, again, other = (hits(Schedule([fault], seed=seed), PUT, 1_000) for seed in (7, 7, 8))
    assert first == again != other
    assert len(first) == pytest.approx(300, abs=60)


def test_the_first_fault_takes_the_request() -> None:
    """Of two that match, the one that was added first happens, and when it is spent the other."""
    schedule = Schedule([Fault(effect=Effect.RESET), Fault(effect=Effect.SILENCE)])
    shots = [schedule.take(PUT), schedule.take(PUT)]
    assert [shot.fault.effect for shot in shots if shot] == [Effect.RESET, Effect.SILENCE]


def test_a_removed_fault_does_not_happen() -> None:
    """What was seen and fired stays known."""
    schedule = Schedule()
    armed = schedule.add(Fault(effect=Effect.RESET, times=None))
    schedule.take(PUT)
    armed.remove()
    assert schedule.take(PUT) is None
    assert (armed.seen, armed.fired) == (1, 1)


def test_waiting_for_a_fault_ends() -> None:
    """A fault that does not happen in time is named."""
    with pytest.raises(TimeoutError, match=r"reset: after 0\.01 s not yet fired 1 times"):
        Schedule().add(Fault(effect=Effect.RESET)).wait_fired(timeout_s=0.01)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        pytest.param({"effect": Effect.RESET, "path": "("}, "path: ", id="pattern"),
        pytest.param({"effect": Effect.CUT, "landed": True}, "landed: ", id="lands-anyway"),
        pytest.param({"effect": Effect.RESET, "status": 500}, "status and code: ", id="no-error"),
        pytest.param({"effect": Effect.RESET, "probability": 2}, "probability: ", id="probability"),
        pytest.param({"effect": Effect.SLOW}, "delay_s: ", id="how-slow"),
    ],
)
def test_a_fault_without_sense_is_refused(wrong: dict[str, Any], problem: str) -> None:
    """When it is made, not when it should happen."""
    with pytest.raises(ConfigurationError, match=problem):
        Fault(**wrong)

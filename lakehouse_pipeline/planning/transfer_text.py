"""A plan of moving bytes as people read it, like a database's EXPLAIN, and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from lakehouse_pipeline.planning.transfer import Candidate, Leg, TransferPlan
from lakehouse_pipeline.planning.units import rate_of, show_bytes, show_dollars, show_rate, show_seconds

_DOING = {"reads": "read", "sources": "move first", "results": "move the result"}


def explain(plan: TransferPlan) -> tuple[str, ...]:
    """Give the lines of the choice, the runner-up and the rest."""
    return tuple(_lines(plan))


def as_json(plan: TransferPlan) -> dict[str, Any]:
    """Give the choice in JSON's types: bytes, seconds and dollars as numbers."""
    asked = {**asdict(plan.question), "has": sorted(plan.question.has)}
    return {
        "question": asked,
        "chosen": _as_json(plan.chosen),
        "runner_up": _as_json(plan.runner_up) if plan.runner_up else None,
        "others": [_as_json(each) for each in plan.others],
    }


def name_of(candidate: Candidate) -> str:
    """Name a candidate by what it does: `read by same-region read`."""
    return ", then ".join(dict.fromkeys(f"{_DOING[leg.moves]} by {leg.way}" for leg in candidate.legs)) or "nothing"


def _lines(plan: TransferPlan) -> Iterator[str]:
    question = plan.question
    feasible = 1 + sum(not other.problems for other in plan.others)
    yield f"{question.want} of {feasible} feasible ways: {name_of(plan.chosen)}"
    yield f"  {_totals(plan.chosen)}"
    for leg in plan.chosen.legs:
        yield f"  {_leg(leg)}"
    if plan.runner_up:
        yield f"runner-up: {name_of(plan.runner_up)}"
        yield f"  {_totals(plan.runner_up)}; {_compared(plan.runner_up, plan.chosen)}"
    for other in plan.others:
        if other is not plan.runner_up:
            why = f" (not feasible: {'; '.join(other.problems)})" if other.problems else ""
            yield f"also: {name_of(other)}: {_totals(other)}{why}"


def _totals(candidate: Candidate) -> str:
    return f"{show_dollars(candidate.dollars)}, {show_seconds(candidate.seconds)}"


def _leg(leg: Leg) -> str:
    route = leg.origin if leg.origin == leg.destination else f"{leg.origin} -> {leg.destination}"
    rate = f", {show_rate(rate_of(leg.bytes, leg.seconds))}" if leg.seconds else ""
    counts = f", {leg.shipments:,} shipments" if leg.shipments else f", {leg.requests:,} requests"
    costs = f"{show_dollars(leg.dollars)}, {show_seconds(leg.seconds)}"
    return f"{_DOING[leg.moves]} {show_bytes(leg.bytes)} {route} by {leg.way}: {costs}{rate}{counts}"


def _compared(other: Candidate, chosen: Candidate) -> str:
    dearer, slower = other.dollars - chosen.dollars, other.seconds - chosen.seconds
    money = f"{show_dollars(abs(dearer))} {'more' if dearer >= 0 else 'less'}"
    return f"{money}, {show_seconds(abs(slower))} {'longer' if slower >= 0 else 'shorter'}"


def _as_json(candidate: Candidate) -> dict[str, Any]:
    return {"name": name_of(candidate), **asdict(candidate)}

"""How bytes get to where they are needed: every way is costed, and the cheapest or the fastest feasible one is chosen.

Pure. What a way is stands in `price_book`, how a choice is told in `transfer_text`. The ETL's own time is left out: it
is the same whichever way its bytes come. Sources of several regions move side by side; what one of them takes on its
way follows one after the other.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.planning.price_book import SAME_REGION, TWO_REGIONS, Moves, PriceBook, Way
from lakehouse_pipeline.planning.units import seconds_for, show_seconds, to_days, to_seconds

COMBINATIONS = 1_000  # of the ways of several origins; above it those that others beat are no longer listed


@dataclass(frozen=True)
class Origin:
    """Where raw bytes are.

    Attributes:
        region: any name.
        bytes: how many.
        objects: in how many objects.
    """

    region: str
    bytes: int
    objects: int = 1


@dataclass(frozen=True)
class Question:
    """What is to be moved, and where to.

    Attributes:
        origins: of the raw bytes; each region once.
        compute: the region in which the ETL runs.
        destination: the region that its result is for.
        reads: how often the ETL reads each byte; 0 moves raw bytes and does nothing else.
        result_bytes: what the ETL makes of all of them.
        deadline_s: seconds within which all is there; None for no deadline.
        has: what ways may need: `private link` for all regions, `private link from eu-west-1` for one.
        compute_moves: the ETL may run where the data is, too.
        want: what is chosen among what is feasible.
    """

    origins: tuple[Origin, ...]
    compute: str
    destination: str
    reads: int = 1
    result_bytes: int = 0
    deadline_s: float | None = None
    has: frozenset[str] = frozenset()
    compute_moves: bool = False
    want: Literal["cheapest", "fastest"] = "cheapest"

    @property
    def bytes(self) -> int:
        """Raw bytes."""
        return sum(origin.bytes for origin in self.origins)


@dataclass(frozen=True)
class Load:
    """What crosses from one region to another, or is read within one.

    Attributes:
        moves: what it is.
        bytes: what is read twice counts twice.
        objects: that are asked for, all readings of them together.
    """

    moves: Moves
    bytes: int
    objects: int = 1


@dataclass(frozen=True)
class Leg:
    """Bytes on one way.

    Attributes:
        way: its name.
        moves: what the bytes are.
        origin: region.
        destination: region.
        bytes: that cross; what is read twice counts twice.
        requests: to the store.
        shipments: 0 where nothing is shipped.
        seconds: how long.
        dollars: how much.
    """

    way: str
    moves: Moves
    origin: str
    destination: str
    bytes: int
    requests: int
    shipments: int
    seconds: float
    dollars: float


@dataclass(frozen=True)
class Candidate:
    """One answer: a way for everything.

    Attributes:
        legs: in their order, origin by origin.
        seconds: until all is there.
        dollars: of all legs.
        problems: why it is not feasible; empty where it is.
    """

    legs: tuple[Leg, ...]
    seconds: float
    dollars: float
    problems: tuple[str, ...] = ()

    @property
    def copies_first(self) -> bool:
        """Whether raw objects are moved before the ETL reads them."""
        return any(leg.moves == "sources" for leg in self.legs)


@dataclass(frozen=True)
class TransferPlan:
    """The choice.

    Attributes:
        question: that it answers.
        chosen: the cheapest, or the fastest.
        runner_up: the next feasible one; None where there is none.
        others: all the others: feasible ones, as they are wanted, and then the rest by cost.
    """

    question: Question
    chosen: Candidate
    runner_up: Candidate | None
    others: tuple[Candidate, ...] = field(default=(), repr=False)


class NoWayError(ConfigurationError):
    """No way is feasible."""


def plan_transfer(question: Question, book: PriceBook) -> TransferPlan:
    """Cost every way and choose one. No feasible way is better than it in cost or time and no worse in the other.

    Raises:
        NoWayError: none is feasible; says of each why.
        ConfigurationError: a region is twice among the origins.
    """
    regions = [origin.region for origin in question.origins]
    if len(set(regions)) < len(regions):
        raise ConfigurationError(f"a region is twice among the origins: {', '.join(regions)}")
    every = [_judged(each, question.deadline_s) for each in _candidates(question, book)]
    feasible = sorted((each for each in every if not each.problems), key=_by_cost)
    impossible = sorted((each for each in every if each.problems), key=_by_cost)
    if not feasible:
        raise NoWayError(_no_way(impossible))
    if question.want == "fastest":
        feasible.sort(key=lambda each: (each.seconds, each.dollars))
    chosen, *rest = feasible
    return TransferPlan(question, chosen, rest[0] if rest else None, (*rest, *impossible))


def leg_of(way: Way, load: Load, route: tuple[str, str]) -> Leg:
    """Cost bytes on a way; neither time nor cost ever falls as they get more.

    Args:
        way: which.
        load: what crosses.
        route: regions from and to.
    """
    size = load.bytes
    shipments = math.ceil(size / way.capacity) if way.capacity else 0
    rounds = math.ceil(shipments / way.at_once) if way.at_once else 1
    seconds = to_seconds(way.days) * rounds
    if way.bandwidth:
        seconds += seconds_for(size, way.bandwidth)
    if way.loading and way.capacity:
        seconds += 2 * rounds * seconds_for(min(size, way.capacity), way.loading)
    requests = max(load.objects, math.ceil(size / way.request_size) if way.request_size else 0)
    dollars = way.fixed + way.per_byte * size + way.per_shipment * shipments
    dollars += way.per_day * to_days(seconds) + way.per_request * requests
    return Leg(way.name, load.moves, *route, size, requests, shipments, seconds, dollars)


def _candidates(question: Question, book: PriceBook) -> Iterator[Candidate]:
    here = [_to(question, book, origin, question.compute) for origin in question.origins]
    results = _results(question, book, question.compute, question.bytes)
    for came, made in itertools.product(_side_by_side(here), results):
        yield _after(came, made)
    if question.compute_moves and question.reads and any(o.region != question.compute for o in question.origins):
        at_data = [
            [
                _after(read, made)
                for read in _to(question, book, origin, origin.region)
                for made in _results(question, book, origin.region, origin.bytes)
            ]
            for origin in question.origins
        ]
        yield from _side_by_side(at_data)


def _to(question: Question, book: PriceBook, origin: Origin, site: str) -> list[Candidate]:
    """Give the ways for one origin's bytes to an ETL in a region."""
    once, read = Load("sources", origin.bytes, origin.objects), Load("reads", *_times(origin, question.reads))
    away, home = (origin.region, site), (site, site)
    read_here = _legs(question, book, read, home) if question.reads else [_NOTHING]
    if origin.region == site:
        return read_here
    across = _legs(question, book, read, away) if question.reads else []
    moved = _legs(question, book, once, away)
    return [*across, *(_after(first, then) for first, then in itertools.product(moved, read_here))]


def _times(origin: Origin, reads: int) -> tuple[int, int]:
    return origin.bytes * reads, origin.objects * reads


def _results(question: Question, book: PriceBook, site: str, size: int) -> list[Candidate]:
    """Give the ways for what an ETL in a region makes of so many bytes."""
    share = math.ceil(question.result_bytes * size / question.bytes) if question.bytes else 0
    if site == question.destination or not share:
        return [_NOTHING]
    return _legs(question, book, Load("results", share), (site, question.destination))


def _legs(question: Question, book: PriceBook, load: Load, route: tuple[str, str]) -> list[Candidate]:
    told = {SAME_REGION: route[0] == route[1], TWO_REGIONS: route[0] != route[1]}
    found = []
    for way in book.that_move(load.moves):
        if all(told.get(need, True) for need in way.needs):
            lacks = [need for need in way.needs if need not in told and not _has(question, need, route[0])]
            leg = leg_of(way, load, route)
            problems = tuple(f"no {need} for {way.name}" for need in lacks)
            found.append(Candidate((leg,), leg.seconds, leg.dollars, problems))
    return found


def _has(question: Question, need: str, region: str) -> bool:
    return need in question.has or f"{need} from {region}" in question.has


_NOTHING = Candidate((), 0.0, 0.0)


def _after(first: Candidate, then: Candidate) -> Candidate:
    return _joined((first, then), first.seconds + then.seconds)


def _side_by_side(origins: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    """Combine a way of each origin with one of each other."""
    combined = [_NOTHING]
    for ways in origins:
        if len(combined) * len(ways) > COMBINATIONS:
            combined = _front(combined)
        pairs = itertools.product(combined, ways)
        combined = [_joined(pair, max(each.seconds for each in pair)) for pair in pairs]
    return combined


def _joined(parts: Sequence[Candidate], seconds: float) -> Candidate:
    legs = tuple(leg for part in parts for leg in part.legs)
    problems = tuple(dict.fromkeys(problem for part in parts for problem in part.problems))
    return Candidate(legs, seconds, sum(part.dollars for part in parts), problems)


def _front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Leave out what another one beats, or what is not feasible: what is made of it is beaten, too."""
    kept: list[Candidate] = []
    for each in sorted(candidates, key=_by_cost):
        if not each.problems and (not kept or each.seconds < kept[-1].seconds):
            kept.append(each)
    return kept or sorted(candidates, key=_by_cost)[:1]  # which says what it lacks


def _judged(candidate: Candidate, deadline_s: float | None) -> Candidate:
    if deadline_s is None or candidate.seconds <= deadline_s:
        return candidate
    over = show_seconds(candidate.seconds - deadline_s)
    late = f"takes {show_seconds(candidate.seconds)}, {over} longer than the deadline of {show_seconds(deadline_s)}"
    return Candidate(candidate.legs, candidate.seconds, candidate.dollars, (*candidate.problems, late))


def _by_cost(candidate: Candidate) -> tuple[float, float]:
    return candidate.dollars, candidate.seconds


def _no_way(impossible: Sequence[Candidate]) -> str:
    reasons: Mapping[str, None] = dict.fromkeys("; ".join(each.problems) for each in impossible)
    told = ". ".join(reasons) or "the price book has no row for it"
    return f"there is no way to move these bytes: {told}. Give it what a way needs, or a later deadline, or a row"

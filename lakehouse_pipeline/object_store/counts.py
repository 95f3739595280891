"""Requests counted: how many were sent, sent again and throttled, what they moved, and how long they were held up.

Counts are of one FileIO, or of a block of code, so that hours that run at the same time have their own. Tasks report
theirs as text, wherever they run.
"""

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class RequestCounts:
    """Counts at one moment, or of a span of time: those after it less those before it.

    Attributes:
        requests: sent to S3, those that failed included.
        retries: requests that were sent because an earlier one failed.
        throttles: requests that the store answered with 503 SlowDown or its kin.
        bytes_sent: of bodies, each try counted.
        bytes_received: of bodies.
        rate_wait_s: seconds that requests stood in rate control's queue, added up over threads.
        retry_wait_s: seconds between a failure and the next try's turn, added up over threads.
        bytes_copied: of objects that the store made of others by itself: they never passed through here.
    """

    requests: int = 0
    retries: int = 0
    throttles: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    rate_wait_s: float = 0.0
    retry_wait_s: float = 0.0
    bytes_copied: int = 0

    def __add__(self, other: "RequestCounts") -> "RequestCounts":
        """Add up, field by field."""
        return RequestCounts(*(mine + its for mine, its in zip(_figures(self), _figures(other), strict=True)))

    def __sub__(self, earlier: "RequestCounts") -> "RequestCounts":
        """Give what came since `earlier`, field by field."""
        return RequestCounts(*(mine - its for mine, its in zip(_figures(self), _figures(earlier), strict=True)))

    def part(self, place: int, of: int) -> "RequestCounts":
        """Give one of so many parts, numbered from 0, that add up to the whole."""
        return RequestCounts(**{name: _part(figure, place, of) for name, figure in vars(self).items()})


_figures = attrgetter(*(each.name for each in fields(RequestCounts)))  # `astuple` copies; each request is added up


def _part(figure: Any, place: int, of: int) -> Any:
    return figure * (place + 1) // of - figure * place // of if isinstance(figure, int) else figure / of


NO_REQUESTS = RequestCounts()


class RequestCounter:
    """Counts that many threads add to."""

    def __init__(self) -> None:
        """Begin at zero."""
        self._lock = threading.Lock()
        self._counts = RequestCounts()

    def add(self, more: RequestCounts) -> None:
        """Add to the counts, all at once."""
        with self._lock:
            self._counts += more
        scope = _scope.get()
        if scope is not None and scope is not self:
            scope.add(more)

    def snapshot(self) -> RequestCounts:
        """Give the counts of this moment."""
        return self._counts


_scope: ContextVar[RequestCounter | None] = ContextVar("requests", default=None)


@contextmanager
def counting() -> Iterator[RequestCounter]:
    """Count what this block sends, with its threads of `side_by_side`; blocks within it count for themselves."""
    counter = RequestCounter()
    with _counted_in(counter):
        yield counter


def counted(items: Iterable[Item], counter: RequestCounter) -> Iterator[Item]:
    """Give items on, and count what was sent to make them: not what is sent between them, by whoever takes them."""
    source = iter(items)
    while True:
        with _counted_in(counter):
            try:
                item = next(source)
            except StopIteration:
                return
        yield item


@contextmanager
def _counted_in(counter: RequestCounter) -> Iterator[None]:
    token = _scope.set(counter)
    try:
        yield
    finally:
        _scope.reset(token)


def report(counts: RequestCounts) -> str:
    """Tell what a task has sent, for the driver to read."""
    return json.dumps(_figures(counts))


def add_reports(reports: Iterable[str]) -> RequestCounts:
    """Add up what tasks report."""
    return sum((RequestCounts(*json.loads(text)) for text in reports), NO_REQUESTS)

"""Requests counted: how many were sent, sent again and throttled, what they moved, and how long they were held up.

Counts are of one FileIO, or of all of this process; tasks elsewhere report theirs as text.
"""

import json
import os
import threading
import uuid
from collections.abc import Iterable
from dataclasses import astuple, dataclass


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
    """

    requests: int = 0
    retries: int = 0
    throttles: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    rate_wait_s: float = 0.0
    retry_wait_s: float = 0.0

    def __add__(self, other: "RequestCounts") -> "RequestCounts":
        """Add up, field by field."""
        return RequestCounts(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, earlier: "RequestCounts") -> "RequestCounts":
        """Give what came since `earlier`, field by field."""
        return RequestCounts(*(mine - its for mine, its in zip(astuple(self), astuple(earlier), strict=True)))


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
        if self is not _of_process:
            _of_process.add(more)

    def snapshot(self) -> RequestCounts:
        """Give the counts of this moment."""
        return self._counts


_of_process = RequestCounter()
_token = uuid.uuid4().hex


def process_counts() -> RequestCounts:
    """Give what all FileIOs of this process have sent so far."""
    return _of_process.snapshot()


def report(since: RequestCounts) -> str:
    """Tell what this process has sent since it counted so, for another process to read."""
    return json.dumps([_process(), *astuple(process_counts() - since)])


def add_reports(reports: Iterable[str]) -> RequestCounts:
    """Add up what other processes report; one of this process is in its own counts already."""
    total = RequestCounts()
    for text in reports:
        process, *counts = json.loads(text)
        if process != _process():
            total += RequestCounts(*counts)
    return total


def _process() -> str:
    return f"{_token}-{os.getpid()}"  # a forked child has its parent's token

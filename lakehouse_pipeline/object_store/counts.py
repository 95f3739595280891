"""Requests counted: how many were sent, sent again and throttled, what they moved, and how long they were held up.

Counts are of one FileIO in one process; adding them up over tasks is the caller's.
"""

import threading
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

    def snapshot(self) -> RequestCounts:
        """Give the counts of this moment."""
        return self._counts

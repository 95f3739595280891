"""Requests counted: how many were sent, sent again and throttled, and how many bytes they moved.

Counts are of one FileIO in one process; adding them up over tasks is the caller's.
"""

import threading
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class RequestCounts:
    """Counts at one moment.

    Attributes:
        requests: sent to S3, those that failed included.
        retries: requests that were sent because an earlier one failed.
        throttles: requests that the store answered with 503 SlowDown or its kin.
        bytes_sent: of bodies, each try counted.
        bytes_received: of bodies.
    """

    requests: int = 0
    retries: int = 0
    throttles: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


class RequestCounter:
    """Counts that many threads add to."""

    def __init__(self) -> None:
        """Begin at zero."""
        self._lock = threading.Lock()
        self._counts = RequestCounts()

    def add(
        self,
        *,
        requests: int = 0,
        retries: int = 0,
        throttles: int = 0,
        bytes_sent: int = 0,
        bytes_received: int = 0,
    ) -> None:
        """Add to the counts, all at once."""
        with self._lock:
            now = self._counts
            self._counts = replace(
                now,
                requests=now.requests + requests,
                retries=now.retries + retries,
                throttles=now.throttles + throttles,
                bytes_sent=now.bytes_sent + bytes_sent,
                bytes_received=now.bytes_received + bytes_received,
            )

    def snapshot(self) -> RequestCounts:
        """Give the counts of this moment."""
        return self._counts

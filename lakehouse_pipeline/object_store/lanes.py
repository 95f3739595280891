"""Lanes: which rate control a request stands under. One per store, bucket, kind and leading hash digits of the key.

S3 limits writes and reads apart, and by ranges of keys: so a hot half must not slow the cold one. Lanes are shared by
all threads and FileIOs of a process; a forked child begins with none, as its parent's locks may be held by threads that
it does not have.
"""

import functools
import logging
import os
import re
import threading
import time
from collections.abc import Callable

from lakehouse_pipeline.object_store.rate import Judgement, RateControl

# Iceberg's ObjectStoreLocationProvider: 20 binary digits as directories of 4, 4, 4 and 8 (the last ends with a dash
# where `write.object-storage.partitioned-paths` is false).
_HASHED = re.compile(r"/([01]{4})/[01]{4}/[01]{4}/[01]{8}[/-]")
HASH_DIGITS = 3  # 8 lanes: Amazon Ads' 10,000 writes/s need 4 partitions of 3,500
READS = frozenset({"get", "head", "list", "list uploads of"})  # 5,500/s; everything else is a write, 3,500/s (AWS)
WARNED_EVERY_S = 60.0  # a throttled hour is no reason for a line a second

logger = logging.getLogger(__name__)


class Lanes:
    """The rate controls of one process; safe to share between threads."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Begin with none; clock and sleep are theirs, in seconds."""
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._lanes: dict[tuple[str, str, str, str], RateControl] = {}
        self._warned_at: float | None = None

    def of(self, endpoint: str, verb: str, url: str) -> RateControl:
        """Give the lane of a verb at a URL, or at a prefix of URLs."""
        key = (endpoint, *_limit_of(verb, url))
        found = self._lanes.get(key)  # a dict is read without its lock: lanes are only ever added
        if found is None:
            with self._lock:
                name = f"{key[1]} of s3://{key[2]}{f', keys with hash {key[3]}' if key[3] else ''}"
                made = RateControl(name, clock=self._clock, sleep=self._sleep, judged=self._warn)
                found = self._lanes.setdefault(key, made)
        return found

    def _warn(self, found: Judgement) -> None:
        with self._lock:
            now = self._clock()
            if self._warned_at is not None and now - self._warned_at < WARNED_EVERY_S:
                return
            self._warned_at = now
        logger.warning(
            "the store throttles %s: %.0f %% of the last requests, %.1f/s were admitted; sending %.1f/s at most. "
            "This is said once in %.0f s",
            found.limit,
            100 * found.window.throttled,
            found.window.admitted_per_s,
            found.next_per_s,
            WARNED_EVERY_S,
        )


def process_lanes() -> Lanes:
    """Give the lanes of this process."""
    return _lanes_of(os.getpid())


@functools.lru_cache(maxsize=1)
def _lanes_of(pid: int) -> Lanes:  # noqa: ARG001  # a forked child has its own
    return Lanes()


def _limit_of(verb: str, url: str) -> tuple[str, str, str]:
    """Give kind, bucket and leading hash digits."""
    bucket, _, key = url.partition("://")[2].partition("/")
    hashed = _HASHED.search(f"/{key}")
    return "reads" if verb in READS else "writes", bucket, hashed[1][:HASH_DIGITS] if hashed else ""

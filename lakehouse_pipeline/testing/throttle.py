"""S3's throttling before a real server: which keys a request touches, and whether their ranges take it.

The model is `planning.s3_scaling`'s; each bucket has a key space of its own.
"""

import threading

from lakehouse_pipeline.planning.s3_scaling import KeyRange, KeySpace, Scaling, Throttled
from lakehouse_pipeline.testing.asked import Asked, keys_in

READS = frozenset({"GET", "HEAD"})


class Throttle:
    """One model a bucket; any thread may ask."""

    def __init__(self, scaling: Scaling) -> None:
        """Begin without buckets."""
        self._scaling = scaling
        self._spaces: dict[str, KeySpace] = {}
        self._lock = threading.Lock()

    def needs_body(self, asked: Asked) -> bool:
        """Tell whether the keys stand in the body."""
        return asked.verb == "DeleteObjects"

    def admits(self, asked: Asked, body: bytes, now: float) -> bool:
        """Tell whether S3 would take it: a listing reads where its prefix is, a delete of many keys writes each."""
        keys = keys_in(body) or [asked.key or asked.query.get("prefix", "")]
        with self._lock:
            answer = self._space(asked.bucket).offer_all(keys, write=asked.method not in READS, now=now)
        return not isinstance(answer, Throttled)

    def ranges(self, bucket: str, now: float) -> tuple[KeyRange, ...]:
        """Give a bucket's ranges."""
        with self._lock:
            return self._space(bucket).ranges(now)

    def _space(self, bucket: str) -> KeySpace:
        return self._spaces.setdefault(bucket, KeySpace(self._scaling))

"""Tries of S3 requests: the policy of this FileIO applied to one request, its retries counted.

The one retry layer of S3. The two places where layers meet are named here: a multipart upload may be begun `UPLOADS`
times, and each of its requests has the tries of the policy.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from lakehouse_pipeline.errors import TransientError
from lakehouse_pipeline.object_store.counts import RequestCounter
from lakehouse_pipeline.object_store.objects import RequestFailedError
from lakehouse_pipeline.retry import Matcher, RetryDetails, RetryPolicy, retry_call

Result = TypeVar("Result")

UPLOADS = 3  # a whole upload again: the store dropped it, or another writer was at the key as it was completed
UPLOADS_TOTAL_S = 3600.0
CLEANUPS = 5  # an abort is courtesy: the failure behind it should not wait ten minutes to be heard
CLEANUPS_TOTAL_S = 30.0


class Tries:
    """Requests tried until they are answered."""

    def __init__(self, policy: RetryPolicy, counter: RequestCounter) -> None:
        """Use `policy` for each request; count retries in `counter`."""
        self._policy = policy
        self._counter = counter

    def request(self, verb: str, url: str, send: Callable[[], Result], *, on: Matcher = TransientError) -> Result:
        """Send one request until it is answered."""
        return self._run(self._policy, verb, url, self._counting_throttles(send), on)

    def upload(self, url: str, send: Callable[[], Result], *, on: Matcher) -> Result:
        """Send a whole multipart upload."""
        policy = replace(self._policy, tries=min(UPLOADS, self._policy.tries), total_s=UPLOADS_TOTAL_S)
        return self._run(policy, "upload", url, send, on)

    def cleanup(self, url: str, send: Callable[[], Result]) -> Result:
        """Send a request that tidies up after a failure."""
        policy = replace(
            self._policy,
            tries=min(CLEANUPS, self._policy.tries),
            total_s=min(CLEANUPS_TOTAL_S, self._policy.total_s),
        )
        return self._run(policy, "abort upload of", url, self._counting_throttles(send), TransientError)

    def _run(self, policy: RetryPolicy, verb: str, url: str, send: Callable[[], Result], on: Matcher) -> Result:
        return retry_call(policy, send, on=on, name=f"{verb} {url}", heard=self._count)

    def _count(self, _: RetryDetails) -> None:
        self._counter.add(retries=1)

    def _counting_throttles(self, send: Callable[[], Result]) -> Callable[[], Result]:
        def counting() -> Result:
            try:
                return send()
            except RequestFailedError as error:
                self._counter.add(throttles=int(error.throttled))
                raise

        return counting

"""Tries of S3 requests: the policy of this FileIO applied to one request, at the pace of its lane, and counted.

The one retry layer of S3. Layers that meet are named here: a multipart upload may be begun `UPLOADS` times, and each of
its requests has the tries of the policy. Before every try stands the lane's queue (`rate`); a throttled request goes
back to its end and adds but a short wait of its own, so that capacity is not left unused while everybody backs off.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from lakehouse_pipeline.errors import TransientError
from lakehouse_pipeline.object_store.counts import RequestCounter, RequestCounts
from lakehouse_pipeline.object_store.lanes import Lanes
from lakehouse_pipeline.object_store.objects import RequestFailedError
from lakehouse_pipeline.object_store.rate import RateControl
from lakehouse_pipeline.retry import Matcher, RetryDetails, RetryPolicy, retry_call

Result = TypeVar("Result")

UPLOADS = 3  # a whole upload again: the store dropped it, or another writer was at the key as it was completed
UPLOADS_TOTAL_S = 3600.0
CLEANUPS = 5  # an abort is courtesy: the failure behind it should not wait ten minutes to be heard
CLEANUPS_TOTAL_S = 30.0


class Tries:
    """Requests tried until they are answered."""

    def __init__(
        self,
        policy: RetryPolicy,
        counter: RequestCounter,
        lanes: Callable[[], Lanes],
        endpoint: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Use `policy` for each request of `endpoint`, at the pace of `lanes`; count in `counter`."""
        self._policy, self._counter, self._lanes, self._endpoint = policy, counter, lanes, endpoint
        self._clock, self._sleep = clock, sleep

    def request(
        self,
        verb: str,
        url: str,
        send: Callable[[], Result],
        *,
        on: Matcher = TransientError,
        keys: Callable[[], Iterable[str]] | None = None,
    ) -> Result:
        """Send one request until it is answered.

        Args:
            verb: what is done, in a word.
            url: the object, or the prefix.
            send: sends it once.
            on: the errors worth another try.
            keys: the URLs that the next try is about, where they are many: each weighs as much as a request.
        """
        return self._paced(self._policy, verb, url, send, on=on, keys=keys or (lambda: (url,)))

    def upload(self, url: str, send: Callable[[], Result], *, on: Matcher) -> Result:
        """Send a whole multipart upload."""
        policy = replace(self._policy, tries=min(UPLOADS, self._policy.tries), total_s=UPLOADS_TOTAL_S)
        return self._run(policy, f"upload {url}", send, on)

    def cleanup(self, url: str, send: Callable[[], Result]) -> Result:
        """Send a request that tidies up after a failure."""
        policy = replace(
            self._policy,
            tries=min(CLEANUPS, self._policy.tries),
            total_s=min(CLEANUPS_TOTAL_S, self._policy.total_s),
        )
        return self._paced(policy, "abort upload of", url, send, on=TransientError, keys=lambda: (url,))

    def _paced(
        self,
        policy: RetryPolicy,
        verb: str,
        url: str,
        send: Callable[[], Result],
        *,
        on: Matcher,
        keys: Callable[[], Iterable[str]],
    ) -> Result:
        ends_at = self._clock() + policy.total_s

        moves = False

        def in_queue(error: BaseException) -> bool:
            return moves and isinstance(error, RequestFailedError) and error.throttled

        def weights() -> Counter[RateControl]:
            lanes = self._lanes()
            return Counter(lanes.of(self._endpoint, verb, key) for key in keys())

        def once() -> Result:
            sent = weights()
            nonlocal moves
            turns = {lane: lane.wait(weight, max(0.0, ends_at - self._clock())) for lane, weight in sent.items()}
            waited = sum(turn.waited_s for turn in turns.values())
            if waited:
                self._counter.add(RequestCounts(rate_wait_s=waited))
            refused: Counter[RateControl] = Counter()
            answered = True
            try:
                return send()
            except RequestFailedError as error:
                answered = error.throttled  # of other failures it is not known whether the store counted them
                if error.throttled:
                    self._counter.add(RequestCounts(throttles=1))
                    refused = weights()  # of a page, only the keys that are left
                raise
            finally:
                moves = all(lane.moves for lane in turns)
                for lane, turn in turns.items():
                    admitted = sent[lane] - refused[lane] if answered else 0
                    lane.answered(turn, admitted=admitted, throttled=refused[lane])

        return self._run(policy, f"{verb} {url}", once, on, in_queue)

    def _run(
        self, policy: RetryPolicy, name: str, send: Callable[[], Result], on: Matcher, queued: Matcher = ()
    ) -> Result:
        return retry_call(
            policy,
            send,
            on=on,
            name=name,
            heard=self._count,
            queued=queued,
            sleep=self._sleep,
            clock=self._clock,
        )

    def _count(self, details: RetryDetails) -> None:
        self._counter.add(RequestCounts(retries=1, retry_wait_s=details.wait_s))

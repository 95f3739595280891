"""Counts add up, and tell what a span of time cost."""

import threading

from lakehouse_pipeline.object_store.counts import RequestCounter, RequestCounts


def test_counts_are_added_and_subtracted() -> None:
    """What an attempt cost is what stands there after it, less what stood there before."""
    before = RequestCounts(requests=5, retries=1, throttles=1, bytes_sent=10, bytes_received=20, rate_wait_s=0.5)
    attempt = RequestCounts(requests=2, bytes_sent=7, retry_wait_s=1.5)
    after = before + attempt
    assert after - before == attempt
    assert (after.requests, after.rate_wait_s, after.retry_wait_s) == (7, 0.5, 1.5)


def test_no_count_is_lost() -> None:
    """Eight threads add a thousand times each."""
    counter = RequestCounter()

    def add() -> None:
        for _ in range(1000):
            counter.add(RequestCounts(requests=1, bytes_sent=2))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.snapshot() == RequestCounts(requests=8000, bytes_sent=16000)

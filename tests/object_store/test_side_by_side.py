"""Calls side by side: bounded, in order, and over when they return."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lakehouse_pipeline.object_store.side_by_side import side_by_side

WITHIN_S = 60.0


def test_results_keep_their_order() -> None:
    """Whoever ends first, results stand as arguments do."""

    def late(number: int) -> int:
        time.sleep(0.01 / number)
        return number

    assert side_by_side(late, range(1, 9), 4) == list(range(1, 9))


def test_threads_are_bounded() -> None:
    """Never more calls at a time than threads, and as many at least once."""
    lock, now, most = threading.Lock(), 0, 0
    together = threading.Barrier(3, timeout=WITHIN_S)

    def call(number: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        if number < 3:
            together.wait()
        time.sleep(0.01)
        with lock:
            now -= 1

    side_by_side(call, range(20), 3)
    assert most == 3


@pytest.mark.parametrize(("arguments", "threads"), [([1, 2], 1), ([1], 4), ([], 4)], ids=["one-thread", "one", "none"])
def test_what_needs_no_pool_has_none(arguments: list[int], threads: int) -> None:
    """A single call, or a single thread, is the caller's own."""
    found = side_by_side(lambda _: threading.current_thread(), arguments, threads)
    assert found == [threading.current_thread()] * len(arguments)


def test_a_failure_ends_all_and_leaves_nobody_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure comes out after the calls that had begun have ended; the others never begin."""
    begun, ended, over = list[int](), list[int](), threading.Event()
    shutdown = ThreadPoolExecutor.shutdown

    def shut(pool: ThreadPoolExecutor, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        shutdown(pool, wait=False, cancel_futures=cancel_futures)
        over.set()
        shutdown(pool, wait=wait)

    def call(number: int) -> None:
        begun.append(number)
        if number == 1:
            raise ValueError("no")
        over.wait(WITHIN_S)
        time.sleep(0.05)
        ended.append(number)

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", shut)
    with pytest.raises(ValueError, match="no"):
        side_by_side(call, range(50), 2)
    assert len(begun) <= 3
    assert sorted(begun) == sorted([1, *ended])

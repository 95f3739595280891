"""Which requests stand under one rate control, and that a process says what it meets once in a while."""

import logging
import multiprocessing
import os

import pytest

from lakehouse_pipeline.object_store import lanes
from lakehouse_pipeline.object_store.lanes import Lanes, process_lanes
from lakehouse_pipeline.object_store.pace import Pace, Window
from lakehouse_pipeline.object_store.rate import RateControl, Turn

HOT, WARM, COLD = (f"s3://b/t/data/{digits}/0110/1001/10110010/h=1/x.parquet" for digits in ("0101", "0100", "1101"))


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        pytest.param(("put", "s3://b/x"), ("put", "s3://b/y"), True, id="keys-of-a-bucket"),
        pytest.param(("put", "s3://b/x"), ("put part", "s3a://b/x"), True, id="writes"),
        pytest.param(("get", "s3://b/x"), ("list", "s3://b/"), True, id="reads"),
        pytest.param(("put", "s3://b/x"), ("get", "s3://b/x"), False, id="a-write-and-a-read"),
        pytest.param(("put", "s3://b/x"), ("put", "s3://c/x"), False, id="two-buckets"),
        pytest.param(("put", HOT), ("put", COLD), False, id="two-halves"),
        pytest.param(("put", HOT), ("put", WARM), True, id="the-first-three-digits"),
        pytest.param(("put", HOT), ("put", HOT.replace("t/data", "u/data")), True, id="two-tables"),
        pytest.param(("put", HOT), ("put", HOT.replace("10110010/h=1/", "10110010-")), True, id="no-partitions"),
        pytest.param(("put", HOT), ("put", "s3://b/t/metadata/1.json"), False, id="data-and-metadata"),
        pytest.param(("put", "s3://b/0101/x"), ("put", "s3://b/x"), True, id="digits-by-chance"),
    ],
)
def test_lanes_follow_the_stores_limits(first: tuple[str, str], second: tuple[str, str], *, same: bool) -> None:
    """Bucket, kind and leading hash digits tell limits apart; the rest of a URL does not."""
    found = Lanes()
    assert (found.of("http://s3", *first) is found.of("http://s3", *second)) is same


def test_stores_have_lanes_of_their_own() -> None:
    """The same bucket's name elsewhere is another limit."""
    found = Lanes()
    assert found.of("http://a", "put", "s3://b/x") is not found.of("http://b", "put", "s3://b/x")


def test_a_process_has_one_set() -> None:
    """All FileIOs of a process share them."""
    assert process_lanes() is process_lanes()


def _lane_is_new(sent: "multiprocessing.connection.Connection") -> None:
    sent.send(process_lanes().of("", "put", "s3://forked/x").per_s is None)


def test_a_forked_child_begins_anew() -> None:
    """Its parent's pace, and locks that nobody there will release, stay behind."""
    lane = process_lanes().of("", "put", "s3://forked/x")
    lane._pace = Pace(Window(0.0, 1.0, 0.5, queued=True))
    with lane._lock:
        received, sent = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.get_context("fork").Process(target=_lane_is_new, args=(sent,))
        child.start()
        assert received.poll(10)
        assert received.recv()
        child.join()
    assert os.getpid() != child.pid


def test_a_process_warns_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """Two lanes are throttled for a while: one line, which names the limit and the pace."""
    now = 0.0
    found = Lanes(clock=lambda: now, sleep=lambda _: None)
    hot, cold = found.of("", "put", HOT), found.of("", "put", COLD)
    for _ in range(20):
        now += 0.1
        for lane in (hot, cold):
            lane.answered(Turn(), throttled=1)
    assert [each.levelno for each in caplog.records] == [logging.WARNING]
    assert "throttles writes of s3://b, keys with hash 010: 100 %" in caplog.text
    now += lanes.WARNED_EVERY_S
    _window(hot)
    assert len(caplog.records) == 2


def _window(lane: RateControl) -> None:
    """Let a window end with throttles."""
    for _ in range(20):
        lane._sent += 1
        lane.answered(Turn(paced=True), throttled=1)

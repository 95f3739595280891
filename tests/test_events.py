"""Events: said once, heard by everyone who listens, and by nobody afterwards."""

import logging

import pytest

from lakehouse_pipeline.events import Event, emit, subscribed


def test_an_event_is_heard_before_emit_returns() -> None:
    """A subscriber gets name, table, hour, attempt and fields as they were said."""
    heard: list[Event] = []
    with subscribed(heard.append):
        emit("attempt.sealed", "lake.flights", "2013-01-01-10:00", "A", files=3)
    assert heard == [Event("attempt.sealed", "lake.flights", "2013-01-01-10:00", "A", {"files": 3})]


def test_subscribers_hear_in_order_and_only_while_they_listen() -> None:
    """The first subscriber hears first; outside of its block nobody hears."""
    heard: list[str] = []
    with subscribed(lambda event: heard.append(f"one {event.name}")):
        emit("a.a")
        with subscribed(lambda event: heard.append(f"two {event.name}")):
            emit("b.b")
        emit("c.c")
    emit("d.d")
    assert heard == ["one a.a", "one b.b", "two b.b", "one c.c"]


def test_a_subscriber_may_stop_what_is_done() -> None:
    """What a subscriber raises leaves `emit`, and the subscriber is gone after its block all the same."""

    def crash(event: Event) -> None:
        raise ZeroDivisionError(event.name)

    with pytest.raises(ZeroDivisionError, match=r"commit\.sent"), subscribed(crash):
        emit("commit.sent")
    emit("commit.sent")


def test_the_same_subscriber_may_listen_twice() -> None:
    """Leaving the inner block ends one of the two."""
    heard: list[Event] = []
    with subscribed(heard.append):
        with subscribed(heard.append):
            emit("a.a")
        emit("b.b")
    assert [event.name for event in heard] == ["a.a", "a.a", "b.b"]


def test_a_subscriber_may_leave_while_it_hears() -> None:
    """Subscribers that come or go during an event do not disturb the others."""
    heard: list[str] = []

    def nested(event: Event) -> None:
        if event.name == "outer.event":
            with subscribed(lambda inner: heard.append(inner.name)):
                emit("inner.event")

    with subscribed(nested), subscribed(lambda event: heard.append(event.name)):
        emit("outer.event")
    assert heard == ["inner.event", "inner.event", "outer.event"]


def test_events_are_logged_lazily(caplog: pytest.LogCaptureFixture) -> None:
    """The log has every event at debug level, with table, hour and attempt."""
    with caplog.at_level(logging.DEBUG, "lakehouse_pipeline.events"):
        emit("file.put", "lake.t", "2013-01-01-10:00", "A", bytes=7)
    assert caplog.messages == ["file.put table=lake.t hour=2013-01-01-10:00 attempt=A {'bytes': 7}"]

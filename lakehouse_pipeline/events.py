"""Named decisions, said once and heard by whoever listens.

`emit` is called where something was decided (an attempt opened, a file put, a commit sent); the log, counters, the
progress line and crash points are subscribers. No module here knows what the names mean.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """One decision.

    Attributes:
        name: what was decided, noun and verb with a dot between, such as `attempt.sealed`.
        table: the table's identifier, `namespace.name`; empty where there is none.
        hour: the hour's key (`2013-01-01-10:00`); empty where there is none.
        attempt: the attempt's id; empty where there is none.
        fields: plain figures and strings.
    """

    name: str
    table: str = ""
    hour: str = ""
    attempt: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)


Subscriber = Callable[[Event], None]

_subscribers: list[Subscriber] = []


def emit(name: str, table: str = "", hour: str = "", attempt: str = "", **fields: object) -> None:
    """Say that something was decided; every subscriber hears it before this returns, and may raise."""
    event = Event(name, table, hour, attempt, fields)
    logger.debug("%s table=%s hour=%s attempt=%s %s", name, table, hour, attempt, fields)
    for subscriber in tuple(_subscribers):
        subscriber(event)


def subscribe(subscriber: Subscriber) -> None:
    """Let `subscriber` hear every event of this process from here on."""
    _subscribers.append(subscriber)


@contextlib.contextmanager
def subscribed(subscriber: Subscriber) -> Iterator[None]:
    """Let `subscriber` hear every event of this process until the block ends."""
    subscribe(subscriber)
    try:
        yield
    finally:
        _subscribers.remove(subscriber)

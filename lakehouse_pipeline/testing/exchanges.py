"""What the fault server did: one record an exchange, in memory and as JSON lines. No value of any header is in it."""

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

THROTTLED = "throttle"
SETTLE_S = 2.0  # to wait for records of answers that are on their way out: microseconds, unless a client does not read


@dataclass(frozen=True)
class Exchange:
    """A request and what became of it.

    Attributes:
        at: when its head was read, UTC.
        seconds: until its answer, or what stood for it, was sent.
        method: of HTTP.
        path: path and query; values of unknown parameters are left out.
        verb: S3's name of the operation, or the catalog's.
        bytes_in: of the request's body that were read.
        bytes_out: of the answer's body that were sent.
        fault: the fault's effect, `throttle`, or None.
        upstream_status: what the upstream answered; None if it was not asked or did not answer.
        status: what the client was answered; None if it was not.
        error: what broke off by itself: the upstream's connection, or the client's; None of what a fault broke.
    """

    at: datetime
    seconds: float
    method: str
    path: str
    verb: str
    bytes_in: int
    bytes_out: int
    fault: str | None
    upstream_status: int | None
    status: int | None
    error: str | None

    def line(self) -> str:
        """Give it as one line of JSON."""
        return json.dumps({**asdict(self), "at": self.at.isoformat(), "seconds": round(self.seconds, 6)})


class ExchangeLog:
    """All exchanges, in the order in which they ended."""

    def __init__(self, file: Path | None = None) -> None:
        """Keep them in memory, and append them to a file if there is one."""
        self._file = file.open("a", encoding="utf-8", buffering=1) if file else None
        self._exchanges: list[Exchange] = []
        self._numbers = itertools.count()
        self._answering: set[int] = set()
        self._changed = threading.Condition()

    def record(self, exchange: Exchange) -> None:
        """Add one."""
        with self._changed:
            self._exchanges.append(exchange)
        if self._file:
            self._file.write(exchange.line() + "\n")

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Announce a record: a client may have read its answer before the server has written down that it sent it."""
        number = next(self._numbers)
        with self._changed:
            self._answering.add(number)
        try:
            yield
        finally:
            with self._changed:
                self._answering.remove(number)
                self._changed.notify_all()

    def exchanges(self) -> tuple[Exchange, ...]:
        """Give all so far, those included whose answers have begun."""
        with self._changed:
            begun = frozenset(self._answering)
            self._changed.wait_for(lambda: not begun & self._answering, SETTLE_S)
            return tuple(self._exchanges)

    def clear(self) -> None:
        """Forget those so far; the file keeps them."""
        self.exchanges()
        with self._changed:
            self._exchanges.clear()

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

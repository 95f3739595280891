"""One line of how a backfill is doing, while it does it."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from lakehouse_pipeline import events

SAID_EVERY_S = 30.0


class Progress:
    """Counts hours as they end, and says so every half a minute for as long as its block runs."""

    def __init__(self, hours: int, say: Callable[[str], object]) -> None:
        """Begin at none of `hours`; `say` is called from another thread."""
        self._hours, self._say = hours, say
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._at_work: dict[str, str] = {}
        self._done = self._failed = self._requests = self._throttles = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Self:
        """Begin to say it."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self._ended.set()

    def heard(self, event: events.Event) -> None:
        """Count what an event says of an hour."""
        with self._lock:
            if event.name == "attempt.opened":
                self._at_work[event.hour] = "writing"
            elif event.name == "attempt.sealed":
                self._at_work[event.hour] = "sealed"
            elif event.name in {"hour.finished", "hour.failed", "hour.cancelled"}:
                self._at_work.pop(event.hour, None)
                self._done += event.name == "hour.finished"
                self._failed += event.name == "hour.failed"
                result: Any = event.fields.get("result")
                if result:
                    self._requests += result.requests.requests
                    self._throttles += result.requests.throttles

    @property
    def line(self) -> str:
        """Say how far it is."""
        with self._lock:
            states = list(self._at_work.values())
            parts = [f"{self._done}/{self._hours} done"]
            parts += [f"{states.count(state)} {state}" for state in ("writing", "sealed") if state in states]
            parts += [f"{self._failed} failed"] if self._failed else []
            if self._requests:
                parts.append(f"503 share {self._throttles / self._requests:.1%}")
            ended = self._done + self._failed
            if ended and ended < self._hours:
                left = (time.monotonic() - self._began) / ended * (self._hours - ended)
                parts.append(f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left")  # noqa: PLR2004
        return " · ".join(parts)

    def _run(self) -> None:
        while not self._ended.wait(SAID_EVERY_S):
            self._say(self.line)

"""The end of an hour that somebody else asks for: a run that is cancelled, or a deadline."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from lakehouse_pipeline.engines.tasks import Running


class HaltedError(BaseException):
    """The run was cancelled. It is nobody's to catch but the run's, as KeyboardInterrupt in its main thread."""


class Halt:
    """Ends an hour that runs in another thread; safe to call from any."""

    def __init__(self) -> None:
        """Nothing is to end yet."""
        self._asked = threading.Event()
        self._error: BaseException = HaltedError("the run was cancelled")
        self._interrupts: list[Callable[[], object]] = []

    def set(self, error: BaseException | None = None) -> None:
        """Let the hour end with `error`; to be called again and again: what is not begun yet cannot be interrupted."""
        if not self._asked.is_set():
            self._error = error or self._error
            self._asked.set()
        for interrupt in tuple(self._interrupts):
            with suppress(Exception):  # what ends the work raises there, not here
                interrupt()

    def check(self) -> None:
        """Raise, if the hour is to end."""
        if self._asked.is_set():
            raise self._error

    def wait(self, seconds: float) -> None:
        """Sleep, and raise as soon as the hour is to end."""
        self._asked.wait(seconds)
        self.check()

    @contextmanager
    def ending(self, tasks: AbstractContextManager[Running]) -> Iterator[Running]:
        """Let the hour's end interrupt the engine's tasks; what they fail with is then taken for that end."""
        self.check()
        try:
            with tasks as jobs:
                self._interrupts.append(jobs.interrupt)
                try:
                    self.check()
                    yield jobs
                finally:
                    self._interrupts.remove(jobs.interrupt)
        except Exception:
            self.check()
            raise

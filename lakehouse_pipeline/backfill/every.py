"""Something done again and again beside what a block does."""

import logging
import threading
from collections.abc import Callable
from contextvars import copy_context
from types import TracebackType
from typing import Self

logger = logging.getLogger(__name__)


class Every:
    """Does something every so many seconds, in a thread of its own, for as long as its block runs."""

    def __init__(self, seconds: float, what: Callable[[], object], name: str) -> None:
        """Call `what`, the first time after so many seconds; that it fails is a warning and no more."""
        self._seconds, self._what, self._name = seconds, what, name
        self._ended = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=[self._run], name=name, daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End. What is being done is not waited for."""
        self._ended.set()

    def now(self) -> None:
        """Do it once, in this thread."""
        try:
            self._what()
        except Exception as error:  # noqa: BLE001  # whoever looks on must not harm what is looked at
            logger.warning("%s: %s: %s", self._name, type(error).__name__, error)

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            self.now()

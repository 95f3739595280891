"""The one lease: who works on something writes its record again before the lease is over, and stops once it is lost.

A lease is over when its record was not written for `LEASE`, by the store's clock. Nothing that is read depends on it: a
holder that slept past its lease is refused at its next write, since its record is another version by then.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from datetime import timedelta
from types import TracebackType
from typing import Self

from lakehouse_pipeline.errors import CommitConflictError, SafetyError

LEASE = timedelta(seconds=60)
RENEW_EVERY = timedelta(seconds=15)
END_AGAIN_S = 1.0  # a lost lease's work, which may be between two of the engine's jobs

logger = logging.getLogger(__name__)


class LeaseHeldError(SafetyError):
    """Another run does what one at a time may do: says which, and how to go on."""


class Renewal:
    """Renews a lease in the background for as long as its block runs."""

    def __init__(self, renew: Callable[[], bool], lost: Callable[[], object], what: str) -> None:
        """Call `renew` every `RENEW_EVERY` until it gives False; `lost`, too, once somebody else has the lease.

        Args:
            renew: raises CommitConflictError when the lease is lost.
            lost: ends what is being done; called from another thread, again and again until the block has ended.
            what: for the log.
        """
        self._renew = renew
        self._lost = lost
        self._what = what
        self._ended = threading.Event()
        self._refusal: CommitConflictError | None = None
        self._thread = threading.Thread(
            target=copy_context().run, args=[self._run], name=f"lease of {what}", daemon=True
        )

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End. A renewal that is on its way is not waited for: it may be patient, and a stop must not be.

        Raises:
            CommitConflictError: the block was ended because the lease was lost.
        """
        self._ended.set()
        if self._refusal is not None and isinstance(error, Exception):
            raise self._refusal from error

    def _run(self) -> None:
        while not self._ended.wait(RENEW_EVERY.total_seconds()):
            try:
                if not self._renew():
                    return
            except CommitConflictError as error:
                self._refusal = error
                self._end_work()
                return
            except Exception as error:  # noqa: BLE001  # the store is away, or worse: the next renewal may be in time
                logger.warning("%s: its lease was not renewed: %s: %s", self._what, type(error).__name__, error)

    def _end_work(self) -> None:
        """End what is being done, again and again: what is not begun yet cannot be ended, and begins afterwards."""
        while True:
            with suppress(Exception):  # what ends the work raises there, not here
                self._lost()
            if self._ended.wait(END_AGAIN_S):
                return

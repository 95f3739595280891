"""A turn: of all runs of a table one at a time does something, such as to commit.

Held by lease like an hour (`hours`, `leases`), and like there nothing that is read depends on it: two that both think
that they have the turn lose time, not data.
"""

import threading
from collections.abc import Callable
from contextlib import suppress

from pydantic import BaseModel, ConfigDict

from lakehouse_pipeline.errors import CommitConflictError, TransientError
from lakehouse_pipeline.ledger.leases import LEASE
from lakehouse_pipeline.ledger.versioned import Objects, Versioned


class TurnRecord(BaseModel):
    """Whose turn it is.

    Attributes:
        version: goes up by one with every write, so that no two versions are alike.
        run_id: of the holder; empty where nobody is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 0
    run_id: str = ""


class Turn(Versioned[TurnRecord]):
    """One turn of a table, as one run knows it."""

    def __init__(self, objects: Objects, url: str, run_id: str) -> None:
        """Look at the record at `url` when it is needed."""
        lost = f"another run has taken the turn of {url}"
        super().__init__(objects, url, TurnRecord(), what="turn", removed="whoever asks next has it", lost=lost)
        self._run_id = run_id
        self._lock = threading.Lock()  # the holder, and the renewal
        self._given_back = False

    def take(self, is_over: Callable[[str], bool]) -> bool:
        """Take the turn, if it is free: nobody's, this run's, of a run that has ended, or not renewed for a lease.

        Raises:
            SafetyError: the object is no record of this version of the software.
            TransientError: the store did not answer.
        """
        holder = self.read().run_id
        if holder not in {"", self._run_id} and self.age <= LEASE and not is_over(holder):
            return False
        try:
            self._write({"run_id": self._run_id})
        except CommitConflictError:
            return False
        return True

    def renew(self) -> bool:
        """Keep the turn; False once it was given back.

        Raises:
            CommitConflictError: another run has it.
        """
        with self._lock:
            if not self._given_back:
                self._write({"run_id": self._run_id})
            return not self._given_back

    def give_back(self) -> None:
        """Let the next have it; a turn that was lost is left alone."""
        with self._lock, suppress(CommitConflictError, TransientError):  # else its lease will end
            self._given_back = True
            self._write({"run_id": ""})

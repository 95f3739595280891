"""A turn: of all runs of a table one at a time does something, such as to commit or to sweep.

Held by lease like an hour (`hours`, `leases`), and like there nothing that is read depends on it: two that both think
that they have the turn lose time, not data.
"""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from pydantic import BaseModel, ConfigDict, ValidationError

from lakehouse_pipeline.errors import CommitConflictError, TransientError
from lakehouse_pipeline.ledger.leases import LEASE
from lakehouse_pipeline.ledger.versioned import Objects, Versioned


class TurnRecord(BaseModel):
    """Whose turn it is.

    Attributes:
        version: goes up by one with every write, so that no two versions are alike.
        run_id: of the holder; empty where nobody is.
        epoch: goes up by one whenever it is taken.
        doing: what the holder does, in a word; of the last one where nobody is.
        notes: what whoever comes next has to know if the holder does not end it: nothing where it ended well.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 0
    run_id: str = ""
    epoch: int = 0
    doing: str = ""
    notes: Mapping[str, str] = {}


class Turn(Versioned[TurnRecord]):
    """One turn of a table, as one run knows it."""

    def __init__(self, objects: Objects, url: str, run_id: str) -> None:
        """Look at the record at `url` when it is needed."""
        lost = f"another run has taken the turn of {url}"
        super().__init__(objects, url, TurnRecord(), what="turn", removed="whoever asks next has it", lost=lost)
        self._run_id = run_id
        self._lock = threading.Lock()  # the holder, and the renewal
        self._given_back = False

    def take(self, is_over: Callable[[str], bool], doing: str = "") -> bool:
        """Take the turn, if it is free: nobody's, this run's, of a run that has ended, or not renewed for a lease.

        What its last holder noted and did not take back stays in the record.

        Raises:
            SafetyError: the object is no record of this version of the software.
            TransientError: the store did not answer.
        """
        holder = self.read().run_id
        if holder not in {"", self._run_id} and self.age <= LEASE and not is_over(holder):
            return False
        try:
            self._write({"run_id": self._run_id, "epoch": self.record.epoch + 1, "doing": doing})
        except CommitConflictError:
            return False
        return True

    def note(self, **notes: str) -> None:
        """Leave word for whoever comes next, should this holder not end what it begins now; "" takes it back.

        Raises:
            CommitConflictError: another run has the turn.
        """
        with self._lock:
            kept = {name: said for name, said in {**self.record.notes, **notes}.items() if said}
            self._write({"run_id": self._run_id, "notes": kept})

    def holds(self) -> bool:
        """Ask the store whether the turn is still this run's, as it took it."""
        try:
            found = TurnRecord.model_validate_json(self._objects.get(self.url).body)
        except (FileNotFoundError, ValidationError):
            return False
        return (found.run_id, found.epoch) == (self._run_id, self.record.epoch)

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

"""A turn: of all runs of a table one at a time does something, such as to commit.

Held by lease like an hour (`hours`, `leases`), and like there nothing that is read depends on it: two that both think
that they have the turn lose time, not data.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from lakehouse_pipeline.errors import CommitConflictError, SafetyError, TransientError
from lakehouse_pipeline.ledger.leases import LEASE
from lakehouse_pipeline.object_store.objects import Content, ObjectInfo, PreconditionFailedError


class Objects(Protocol):
    """The verbs that a turn needs of a store."""

    def get(self, url: str) -> Content:
        """Read an object whole; FileNotFoundError when there is none."""

    def put(self, url: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None) -> ObjectInfo:
        """Write an object whole; PreconditionFailedError when the condition does not hold."""


class TurnRecord(BaseModel):
    """Whose turn it is.

    Attributes:
        version: goes up by one with every write, so that no two versions are alike.
        run_id: of the holder; empty where nobody is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 0
    run_id: str = ""


class Turn:
    """One turn of a table, as one run knows it."""

    def __init__(self, objects: Objects, url: str, run_id: str) -> None:
        """Look at the record at `url` when it is needed."""
        self._objects, self._url, self._run_id = objects, url, run_id
        self._record = TurnRecord()
        self._etag: str | None = None
        self._lock = threading.Lock()  # the holder, and the renewal
        self._given_back = False

    def take(self, is_over: Callable[[str], bool]) -> bool:
        """Take the turn, if it is free: nobody's, this run's, of a run that has ended, or not renewed for a lease.

        Raises:
            SafetyError: the object is no record of this version of the software.
            TransientError: the store did not answer.
        """
        age = self._read()
        holder = self._record.run_id
        if holder not in {"", self._run_id} and age <= LEASE and not is_over(holder):
            return False
        try:
            self._write(self._run_id)
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
                self._write(self._run_id)
            return not self._given_back

    def give_back(self) -> None:
        """Let the next have it; a turn that was lost is left alone."""
        with self._lock, suppress(CommitConflictError, TransientError):  # else its lease will end
            self._given_back = True
            self._write("")

    def _read(self) -> timedelta:
        self._record, self._etag = TurnRecord(), None
        try:
            content = self._objects.get(self._url)
        except FileNotFoundError:
            return timedelta(0)
        try:
            self._record = TurnRecord.model_validate_json(content.body)
        except ValidationError:
            raise SafetyError(f"{self._url} is no record that this version can read; removing it is safe") from None
        self._etag = content.info.etag
        return content.answered - content.info.modified

    def _write(self, run_id: str) -> None:
        record = TurnRecord(version=self._record.version + 1, run_id=run_id)
        body = record.model_dump_json().encode()
        try:
            if self._etag is None:
                info = self._objects.put(self._url, body, if_absent=True)
            else:
                info = self._objects.put(self._url, body, if_match=self._etag)
        except (PreconditionFailedError, FileNotFoundError):
            raise CommitConflictError(f"another run has taken the turn of {self._url}") from None
        self._record, self._etag = record, info.etag

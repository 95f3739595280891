"""A record that is only ever written by whoever knows its last version: a conditional PUT, and its lost answers."""

from datetime import timedelta
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from lakehouse_pipeline.errors import CommitConflictError, SafetyError, TransientError
from lakehouse_pipeline.object_store.objects import Content, ObjectInfo, PreconditionFailedError

R = TypeVar("R", bound=BaseModel)  # with a field `version`, which goes up by one with every write


class Objects(Protocol):
    """The verbs that a record needs of a store."""

    def get(self, url: str) -> Content:
        """Read an object whole; FileNotFoundError when there is none."""

    def put(self, url: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None) -> ObjectInfo:
        """Write an object whole; PreconditionFailedError when the condition does not hold."""


class Versioned(Generic[R]):
    """One record, as this process knows it; every write is a compare-and-swap against that knowledge.

    Attributes:
        url: where the record is.
        record: as it was last read or written here.
        age: since anybody last wrote it, by the store's clock, at the moment it was read.
    """

    def __init__(self, objects: Objects, url: str, empty: R, *, what: str, removed: str, lost: str) -> None:
        """Name a record; nothing is read yet.

        Args:
            objects: the store.
            url: where it is.
            empty: the record where there is none.
            what: it is called.
            removed: what follows from removing one that cannot be read.
            lost: what it means that somebody else has written it.
        """
        self._objects, self._empty = objects, empty
        self._what, self._removed, self._lost = what, removed, lost
        self._etag: str | None = None
        self._unknown: bytes | None = None  # what was written last, if it is not known whether it is there
        self.url = url
        self.record, self.age = empty, timedelta(0)

    def read(self) -> R:
        """Read the record anew.

        Raises:
            SafetyError: the object is no record of this version of the software.
        """
        self._etag, self.record, self.age = None, self._empty, timedelta(0)
        try:
            content = self._objects.get(self.url)
        except FileNotFoundError:
            return self.record
        try:
            self.record = type(self._empty).model_validate_json(content.body)
        except ValidationError as error:
            raise SafetyError(
                f"{self.url} is no {self._what} that this version can read ({error.error_count()} problems). "
                f"Removing the object is safe: {self._removed}."
            ) from None
        self._etag, self.age = content.info.etag, content.answered - content.info.modified
        return self.record

    def _write(self, changes: dict[str, Any]) -> R:
        """Write the record with `changes`, if nobody else has written it since this process read it.

        Raises:
            CommitConflictError: somebody else has.
        """
        version: Any = self.record
        changed = self.record.model_copy(update={**changes, "version": version.version + 1})
        body = changed.model_dump_json(indent=1).encode()
        try:
            if self._etag is None:
                info = self._objects.put(self.url, body, if_absent=True)
            else:
                info = self._objects.put(self.url, body, if_match=self._etag)
        except TransientError:
            self._unknown = body
            raise
        except (PreconditionFailedError, FileNotFoundError):
            if self._was_mine():
                return self._write(changes)
            raise CommitConflictError(self._lost) from None
        self.record, self._etag, self.age, self._unknown = changed, info.etag, timedelta(0), None
        return changed

    def _was_mine(self) -> bool:
        """Tell whether the record is what this process wrote before without an answer, and go on from there."""
        if self._unknown is None:
            return False
        unknown, self._unknown = self._unknown, None
        try:
            content = self._objects.get(self.url)
        except FileNotFoundError:
            return False
        if content.body != unknown:
            return False
        self.record, self._etag = type(self._empty).model_validate_json(unknown), content.info.etag
        return True

"""The durable record of attempts: one compare-and-swap object per hour, beside the table.

Losing it loses no data: the table decides what is live, and a run whose record is gone stops at its next write. It
lives at `<table location>/_lakehouse/<table uuid>/`; records are written with conditional PUTs only, so that of two
runs that want the same hour one is told that it lost.

An hour is held by lease: its holder writes the record again and again (`leases`), and how long ago it last did is told
by the store alone, from the `Date` of its answer and the record's `LastModified`. No client's clock is believed.
"""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from pydantic import ValidationError

from lakehouse_pipeline.errors import CommitConflictError, SafetyError, TransientError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.ledger.records import HourRecord, Marker
from lakehouse_pipeline.ledger.turns import Objects as TurnObjects
from lakehouse_pipeline.ledger.turns import Turn
from lakehouse_pipeline.object_store.objects import ObjectInfo, PreconditionFailedError

FOLDER = "_lakehouse"
_HOUR = "%Y-%m-%d-%H"
_RECORD = re.compile(r"\d{4}-\d\d-\d\d-\d\d\.json")


class Objects(TurnObjects, Protocol):
    """The verbs that the ledger needs of a store."""

    def delete(self, location: str) -> None:
        """Remove an object; a missing one is fine."""

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Go through the objects whose URL begins with `prefix`."""


@dataclass(frozen=True)
class MarkedAttempt:
    """A marker as it was found.

    Attributes:
        marker: what it says.
        age: since it was written, by the store's clock.
    """

    marker: Marker
    age: timedelta

    @property
    def hour(self) -> HourWindow:
        """The hour of the attempt."""
        return HourWindow.from_key(self.marker.hour)


class Ledger:
    """The hour records of one table."""

    def __init__(self, objects: Objects, table_location: str, table_uuid: str) -> None:
        """Look at the ledger of the table at `table_location`; nothing is read yet."""
        self._objects = objects
        self.folder = f"{table_location.rstrip('/')}/{FOLDER}/{table_uuid}"

    def hour(self, hour: HourWindow) -> "HourLedger":
        """Read the hour's record; one that does not exist yet is idle."""
        return HourLedger(self._objects, f"{self.folder}/hours/{hour.start:{_HOUR}}.json", hour)

    def turn(self, name: str, run_id: str) -> Turn:
        """Give a turn of the table, of which a run knows nothing yet."""
        return Turn(self._objects, f"{self.folder}/{name}.json", run_id)

    def known(self) -> set[HourWindow]:
        """List the hours that have a record: all that were ever begun."""
        found = (item.url.rpartition("/")[2] for item in self._objects.list_objects(f"{self.folder}/hours/"))
        return {HourWindow.from_key(f"{name.removesuffix('.json')}:00") for name in found if _RECORD.fullmatch(name)}

    def mark(self, marker: Marker) -> None:
        """Say that an attempt is about to write, or that it is closed; its seal, if any, is left out."""
        url = self._marker_url(HourWindow.from_key(marker.hour), marker.attempt.id)
        said = marker.model_copy(update={"attempt": marker.attempt.model_copy(update={"seal": None})})
        self._objects.put(url, said.model_dump_json(indent=1).encode())

    def unmark(self, hour: HourWindow, attempt: str) -> None:
        """Say that nothing of an attempt can be astray any more."""
        self._objects.delete(self._marker_url(hour, attempt))

    def marked(self, hour: HourWindow | None = None) -> Iterator[MarkedAttempt]:
        """Find the attempts that may have left something, of all hours or of one.

        Raises:
            SafetyError: after all others: markers that are none of this version of the software.
        """
        unreadable = []
        for item in self._objects.list_objects(f"{self.folder}/open/{f'{hour.start:{_HOUR}}/' if hour else ''}"):
            try:
                content = self._objects.get(item.url)
            except FileNotFoundError:
                continue  # removed since it was listed
            try:
                marker = Marker.model_validate_json(content.body)
            except ValidationError:
                unreadable.append(item.url)
                continue
            yield MarkedAttempt(marker, content.answered - content.info.modified)
        if unreadable:
            raise SafetyError(
                f"this version cannot read the markers {', '.join(unreadable)}; the attempts that they name may have "
                "left files. Close them with the version that wrote them"
            )

    def rejects_url(self, hour: HourWindow, attempt: str) -> str:
        """Give the folder in which the bad rows of an attempt are kept."""
        return f"{self.folder}/rejects/{hour.start:{_HOUR}}/{attempt}"

    def claims_url(self, hour: HourWindow, attempt: str) -> str:
        """Give the folder in which an attempt's writers say at which partition paths they put files."""
        return f"{self.folder}/claims/{hour.start:{_HOUR}}/{attempt}"

    def _marker_url(self, hour: HourWindow, attempt: str) -> str:
        return f"{self.folder}/open/{hour.start:{_HOUR}}/{attempt}.json"


class HourLedger:
    """One hour's record, as this process knows it; every write is a compare-and-swap against that knowledge.

    Attributes:
        url: where the record is.
        record: as it was last read or written here.
        age: since anybody last wrote it, by the store's clock, at the moment it was read.
    """

    def __init__(self, objects: Objects, url: str, hour: HourWindow) -> None:
        """Read the record at `url`.

        Raises:
            SafetyError: the object is no record of this version of the software.
        """
        self._objects = objects
        self._lock = threading.Lock()  # the holder's work, and the renewal of its lease
        self._hour = hour
        self._unknown: bytes | None = None  # what was written last, if it is not known whether it is there
        self.url = url
        self.read()

    def read(self) -> HourRecord:
        """Read the record anew.

        Raises:
            SafetyError: as above.
        """
        self._etag: str | None = None
        self.record, self.age = HourRecord(hour=self._hour.key), timedelta(0)
        try:
            content = self._objects.get(self.url)
        except FileNotFoundError:
            return self.record
        try:
            self.record = HourRecord.model_validate_json(content.body)
        except ValidationError as error:
            raise SafetyError(
                f"{self.url} is no hour record that this version can read ({error.error_count()} problems). "
                "Removing the object is safe: the hour then runs again."
            ) from None
        self._etag, self.age = content.info.etag, content.answered - content.info.modified
        return self.record

    def advance(self, **changes: object) -> HourRecord:
        """Write the record with `changes`, if nobody else has written it since this process read it.

        Raises:
            CommitConflictError: somebody else has; this process no longer holds the hour.
        """
        with self._lock:
            return self._write(changes)

    def renew(self, attempt: str, stage: str) -> bool:
        """Write the record once more, so that the lease goes on; False once the attempt is no longer under way.

        Raises:
            CommitConflictError: this process no longer holds the hour.
        """
        with self._lock:
            if self.record.attempt is None or self.record.attempt.id != attempt:
                return False
            self._write({"stage": stage})
            return True

    def _write(self, changes: dict[str, object]) -> HourRecord:
        changed = self.record.model_copy(update={**changes, "version": self.record.version + 1})
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
            raise CommitConflictError(
                f"another run took {self.record.hour} over, or its record {self.url} was removed meanwhile; "
                "this run leaves the hour to it"
            ) from None
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
        self.record, self._etag = HourRecord.model_validate_json(unknown), content.info.etag
        return True

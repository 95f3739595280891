"""The durable record of attempts: one compare-and-swap object per hour, beside the table.

Losing it loses no data: the table decides what is live, and a run whose record is gone stops at its next write. It
lives at `<table location>/_lakehouse/<table uuid>/`; records are written with conditional PUTs only, so that of two
runs that want the same hour one is told that it lost.

An hour is held by lease: its holder writes the record again and again (`leases`), and how long ago it last did is told
by the store alone, from the `Date` of its answer and the record's `LastModified`. No client's clock is believed.
"""

import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Protocol

from pydantic import ValidationError

from lakehouse_pipeline.errors import SafetyError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.ledger.records import HourRecord, Marker
from lakehouse_pipeline.ledger.turns import Turn
from lakehouse_pipeline.ledger.versioned import Objects, Versioned
from lakehouse_pipeline.object_store.objects import Content, ObjectInfo
from lakehouse_pipeline.object_store.side_by_side import side_by_side

FOLDER = "_lakehouse"
MARKERS_AT_ONCE = 16
_HOUR = "%Y-%m-%d-%H"
_RECORD = re.compile(r"\d{4}-\d\d-\d\d-\d\d\.json")


class Folder(Objects, Protocol):
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

    def __init__(self, objects: Folder, table_location: str, table_uuid: str) -> None:
        """Look at the ledger of the table at `table_location`; nothing is read yet."""
        self._objects = objects
        self.folder = f"{table_location.rstrip('/')}/{FOLDER}/{table_uuid}"

    def hour(self, hour: HourWindow) -> "HourLedger":
        """Read the hour's record; one that does not exist yet is idle."""
        return HourLedger(self._objects, f"{self.folder}/hours/{hour.start:{_HOUR}}.json", hour)

    def turn(self, name: str, run_id: str) -> Turn:
        """Give a turn of the table, of which a run knows nothing yet."""
        return Turn(self._objects, f"{self.folder}/{name}.json", run_id)

    def known(self) -> Mapping[HourWindow, str]:
        """List the hours that have a record, all that were ever begun; gives which version of it is there."""
        found = self._objects.list_objects(f"{self.folder}/hours/")
        named = ((item.url.rpartition("/")[2], item.etag) for item in found)
        return {
            HourWindow.from_key(f"{name.removesuffix('.json')}:00"): etag
            for name, etag in named
            if _RECORD.fullmatch(name)
        }

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
        listed = iter(self._objects.list_objects(f"{self.folder}/open/{f'{hour.start:{_HOUR}}/' if hour else ''}"))
        while some := list(islice(listed, MARKERS_AT_ONCE)):
            for url, content in zip(some, side_by_side(self._marker, some, MARKERS_AT_ONCE), strict=True):
                if content is None:
                    continue  # removed since it was listed
                try:
                    marker = Marker.model_validate_json(content.body)
                except ValidationError:
                    unreadable.append(url.url)
                    continue
                yield MarkedAttempt(marker, content.answered - content.info.modified)
        if unreadable:
            raise SafetyError(
                f"this version cannot read the markers {', '.join(unreadable)}; the attempts that they name may have "
                "left files. Close them with the version that wrote them"
            )

    def marks(self, hour: HourWindow) -> set[str]:
        """Name the attempts of an hour that are marked, by whatever version of the software."""
        listed = self._objects.list_objects(f"{self.folder}/open/{hour.start:{_HOUR}}/")
        return {item.url.rpartition("/")[2].removesuffix(".json") for item in listed}

    def is_marked(self) -> bool:
        """Tell whether any attempt may have left something, or is under way."""
        return any(True for _ in self._objects.list_objects(f"{self.folder}/open/"))

    def _marker(self, listed: ObjectInfo) -> Content | None:
        try:
            return self._objects.get(listed.url)
        except FileNotFoundError:
            return None

    def rejects_url(self, hour: HourWindow, attempt: str) -> str:
        """Give the folder in which the bad rows of an attempt are kept."""
        return f"{self.folder}/rejects/{hour.start:{_HOUR}}/{attempt}"

    def staging_url(self, hour: HourWindow, attempt: str, prefix: str | None) -> str:
        """Give the folder for an attempt's copies of raw objects: the ledger's own, or one below a prefix.

        What begins with `_` is no source, even where the prefix is a folder of sources.
        """
        root = f"{self.folder}/staging" if prefix is None else f"{prefix}/_staging/{self.folder.rpartition('/')[2]}"
        return f"{root}/{hour.start:{_HOUR}}/{attempt}"

    def is_staging(self, url: str, hour: HourWindow, attempt: str) -> bool:
        """Tell whether a folder is one that `staging_url` gives, whatever the prefix was when it was asked."""
        uuid = self.folder.rpartition("/")[2]
        own = f"{hour.start:{_HOUR}}/{attempt}"
        return url.endswith((f"/{FOLDER}/{uuid}/staging/{own}", f"/_staging/{uuid}/{own}"))

    def claims_url(self, hour: HourWindow, attempt: str) -> str:
        """Give the folder in which an attempt's writers say at which partition paths they put files."""
        return f"{self.folder}/claims/{hour.start:{_HOUR}}/{attempt}"

    def _marker_url(self, hour: HourWindow, attempt: str) -> str:
        return f"{self.folder}/open/{hour.start:{_HOUR}}/{attempt}.json"


class HourLedger(Versioned[HourRecord]):
    """One hour's record, as this process knows it."""

    def __init__(self, objects: Objects, url: str, hour: HourWindow) -> None:
        """Read the record at `url`.

        Raises:
            SafetyError: the object is no record of this version of the software.
        """
        gone = f"another run took {hour} over, or its record {url} was removed meanwhile"
        super().__init__(
            objects,
            url,
            HourRecord(hour=hour.key),
            what="hour record",
            removed="the hour then runs again",
            lost=f"{gone}; this run leaves the hour to it",
        )
        self._lock = threading.Lock()  # the holder's work, and the renewal of its lease
        self.read()

    def advance(self, **changes: object) -> HourRecord:
        """Write the record with `changes`, if nobody else has written it since this process read it.

        Raises:
            CommitConflictError: somebody else has; this process no longer holds the hour.
        """
        with self._lock:
            return self._write(changes)

    def renew(self, attempt: str, stage: str, idle: timedelta = timedelta(0)) -> bool:
        """Write the record once more, so that the lease goes on; False once the attempt is no longer under way.

        Raises:
            CommitConflictError: this process no longer holds the hour.
        """
        with self._lock:
            if self.record.attempt is None or self.record.attempt.id != attempt:
                return False
            self._write({"stage": stage, "idle_s": int(idle.total_seconds())})
            return True

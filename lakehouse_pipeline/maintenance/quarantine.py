"""The quarantine: where orphans are moved to, so that a sweep can be undone until they are purged.

It is a hidden folder of the table, one folder for each sweep: `sweep.json` tells how it stands, `moved/` has a record
of each batch, written before anything of it is moved, and `objects/` what was moved. A file is copied first, and
deleted where it was once it was asked for again; a sweep that ended in between leaves both.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lakehouse_pipeline.errors import CommitConflictError, LakehouseError, SafetyError
from lakehouse_pipeline.ledger.records import ULID
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import PreconditionFailedError
from lakehouse_pipeline.object_store.places import SPELLINGS
from lakehouse_pipeline.object_store.side_by_side import side_by_side

FOLDER = "quarantine"
_SWEEP, _COPY = re.compile(ULID), re.compile(r"objects/\d{6,}-\d{3,}")  # ids of sweeps, and names of what they moved
COPIES_AT_ONCE = 16
SHOWN = 5

# being moved · moved · put back · for good: being deleted, deleted
SweepState = Literal["moving", "moved", "restored", "deleting", "deleted"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SweepRecord(_Model):
    """How a sweep stands.

    Attributes:
        sweep: its id.
        run_id: whose it is.
        as_of: the store's time when it began.
        state: see `SweepState`.
        files: that were moved or deleted so far, or put back.
        bytes: of them.
    """

    sweep: str
    run_id: str
    as_of: datetime
    state: SweepState
    files: int = 0
    bytes: int = 0


class Moved(_Model):
    """One file of a batch.

    Attributes:
        url: where it was.
        size: bytes.
        to: its name in the folder of the sweep.
    """

    url: str
    size: int
    to: str


class Batch(_Model):
    """What a sweep moves together.

    Attributes:
        files: in the order of the listing.
    """

    files: tuple[Moved, ...]


@dataclass(frozen=True)
class Restored:
    """What became of a sweep that was undone.

    Attributes:
        files: that are where they were.
        bytes: of them.
        there: files that were left alone, since something else is where they were.
        gone: files that are in the quarantine no more, and were not put back now.
    """

    files: int
    bytes: int
    there: tuple[str, ...]
    gone: int = 0


class Quarantine:
    """The quarantine of one table."""

    def __init__(self, files: LakehouseFileIO, ledger_folder: str) -> None:
        """Name it; nothing is read."""
        self._files = files
        self.folder = f"{ledger_folder}/{FOLDER}"

    def sweeps(self) -> list[tuple[SweepRecord, timedelta]]:
        """Give all sweeps, each with how long ago it was last at work by the store's clock."""
        listed = self._files.list_level(f"{self.folder}/")
        names = sorted(found.rstrip("/").rpartition("/")[2] for found in listed if isinstance(found, str))
        return [found for name in names if (found := self.find(name))]

    def find(self, sweep: str) -> tuple[SweepRecord, timedelta] | None:
        """Give a sweep, and how long ago it was last at work by the store's clock; None if there is none.

        Raises:
            SafetyError: its record is none of this version of the software.
        """
        if not _SWEEP.fullmatch(sweep):
            return None
        url = self._record_url(sweep)
        try:
            content = self._files.get(url)
            record = SweepRecord.model_validate_json(content.body)
        except FileNotFoundError:
            return None
        except ValidationError:
            raise SafetyError(
                f"{url} is no record of a sweep that this version can read; use the one that wrote it"
            ) from None
        if record.sweep != sweep:
            raise SafetyError(f"{url} says that it is the record of sweep {record.sweep!r}: somebody has changed it")
        return record, content.answered - content.info.modified

    def note(self, record: SweepRecord) -> None:
        """Say how a sweep stands."""
        self._files.put(self._record_url(record.sweep), record.model_dump_json(indent=1).encode())

    def copy(self, sweep: str, number: int, orphans: Sequence[tuple[str, int]]) -> list[str]:
        """Copy some files, of which URL and size are given, into a sweep's folder; gives those that were there.

        Raises:
            TransientError: the store did not answer: copies may be there beside the files.
        """
        files = tuple(
            Moved(url=url, size=size, to=f"objects/{number:06d}-{place:03d}")
            for place, (url, size) in enumerate(orphans)
        )
        self._files.put(self._batch_url(sweep, number), Batch(files=files).model_dump_json(indent=1).encode())
        copied = side_by_side(lambda each: self._copied(each.url, self._url(sweep, each)), files, COPIES_AT_ONCE)
        return [each.url for each, done in zip(files, copied, strict=True) if done]

    def check_moving(self, sweep: str) -> None:
        """Hold a sweep against its record: the next one may have ended it, while this one was stopped.

        Raises:
            CommitConflictError: it was ended.
        """
        found = self.find(sweep)
        if found is None or found[0].state != "moving":
            raise CommitConflictError(f"sweep {sweep} was ended by the next one; nothing more of it is moved")

    def settle(self, record: SweepRecord) -> None:
        """End a sweep that was killed; copies stay, also of files that are where they were."""
        self.note(record.model_copy(update={"state": "moved" if record.state == "moving" else "deleted"}))

    def batches(self, sweep: str) -> Iterator[Batch]:
        """Go through what a sweep has moved, or was about to.

        Raises:
            SafetyError: a record of it is none that a sweep writes.
        """
        for item in self._files.list_objects(f"{self.folder}/{sweep}/moved/"):
            try:
                batch = Batch.model_validate_json(self._files.get(item.url).body)
            except ValidationError:
                raise SafetyError(f"{item.url} is no record of what sweep {sweep} has moved") from None
            if wrong := next((each.to for each in batch.files if not _COPY.fullmatch(each.to)), None):
                raise SafetyError(f"{item.url} says that a file was moved to {wrong!r}: somebody has changed it")
            yield batch

    def restore(self, sweep: str, folders: Collection[str]) -> Restored:
        """Put back what a sweep has moved; what is back is in the quarantine no more.

        Args:
            sweep: its id.
            folders: the table's: what was elsewhere was none of its files.

        Raises:
            SafetyError: there is no such sweep, or nothing of it is left to put back, or its records are not as sweeps
                write them; nothing was put back.
            LakehouseError: a file came back as another; nothing of it was removed.
        """
        found = self.find(sweep)
        if found is None or found[0].state not in {"moving", "moved", "restored"}:
            known = ", ".join(f"{each.sweep} ({each.state})" for each, _ in self.sweeps()) or "none"
            raise SafetyError(f"there is no sweep {sweep} that can be undone; there are: {known}")
        for batch in self.batches(sweep):
            for each in batch.files:
                if not SPELLINGS.one_contains(folders, each.url):
                    raise SafetyError(
                        f"sweep {sweep} says that it has moved {each.url!r}, which is not in {' or '.join(folders)}: "
                        "either the table was there then, or somebody has changed the record. Nothing is put back"
                    )
        files, size, gone, there = 0, 0, 0, list[str]()
        for batch in self.batches(sweep):
            done = side_by_side(lambda each: self._put_back(sweep, each), batch.files, COPIES_AT_ONCE)
            back = [each for each, state in zip(batch.files, done, strict=True) if state == "back"]
            there += [each.url for each, state in zip(batch.files, done, strict=True) if state == "there"]
            gone += done.count("gone")
            self._files.delete_objects([self._url(sweep, each) for each in back])
            files, size = files + len(back), size + sum(each.size for each in back)
        self.note(found[0].model_copy(update={"state": "restored"}))
        return Restored(files, size, tuple(there), gone)

    def purge(self, sweep: str) -> int:
        """Remove what a sweep has moved, and its records; gives the bytes that the quarantine has less."""
        size = 0
        for part in ("objects", "moved"):
            listed = list(self._files.list_objects(f"{self.folder}/{sweep}/{part}/"))
            self._files.delete_objects([item.url for item in listed])
            size += sum(item.size for item in listed)
        self._files.delete(self._record_url(sweep))
        return size

    def _put_back(self, sweep: str, moved: Moved) -> Literal["back", "there", "gone"]:
        url = self._url(sweep, moved)
        kept = self._files.head(url)
        if kept is None:
            return "gone"  # it never came here, or is back already
        try:
            info = self._files.copy(url, moved.url, if_absent=True)
        except PreconditionFailedError:
            there = self._files.head(moved.url)
            return "back" if there and (there.size, there.etag) == (kept.size, kept.etag) else "there"
        if info.size != kept.size:
            raise LakehouseError(f"{moved.url} came back with {info.size} bytes of {kept.size}: {url} is kept")
        return "back"

    def _copied(self, url: str, to: str) -> bool:
        try:
            self._files.copy(url, to)
        except FileNotFoundError:
            return False
        return True

    def _url(self, sweep: str, moved: Moved) -> str:
        return f"{self.folder}/{sweep}/{moved.to}"

    def _batch_url(self, sweep: str, number: int) -> str:
        return f"{self.folder}/{sweep}/moved/{number:06d}.json"

    def _record_url(self, sweep: str) -> str:
        return f"{self.folder}/{sweep}/sweep.json"

"""The durable record of attempts: one compare-and-swap object per hour, beside the table.

Losing it loses no data: the table decides what is live, and a run whose record is gone simply runs again. It lives at
`<table location>/_lakehouse/<table uuid>/` and is written with conditional PUTs only, so that of two runs that want the
same hour one is told that it lost. What a record means for the table is decided above this module.
"""

import secrets
import time
from datetime import datetime
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from lakehouse_pipeline.errors import CommitConflictError, SafetyError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.object_store.objects import Content, ObjectInfo, PreconditionFailedError

FOLDER = "_lakehouse"

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # ULID's alphabet: https://github.com/ulid/spec


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


class PartitionBounds(_Model):
    """What the partition tuples of a manifest's files have in one field.

    Attributes:
        null: whether one has none.
        nan: whether one has NaN.
        lower: the least, in Iceberg's binary form; None where none has a value.
        upper: the greatest.
    """

    null: bool = False
    nan: bool = False
    lower: bytes | None = None
    upper: bytes | None = None


class SealedManifest(_Model):
    """One manifest of an attempt, written before its commit: entries ADDED, snapshot id and sequence number null.

    Attributes:
        path: where it lies.
        length: bytes on storage.
        files: data files in it.
        rows: rows in those files.
        partitions: one for each field of the partition spec, in its order.
    """

    path: str
    length: int
    files: int
    rows: int
    partitions: tuple[PartitionBounds, ...] = ()


class Seal(_Model):
    """All that a commit needs of an attempt whose files are written and checked.

    Attributes:
        manifests: what the commit adds; empty for an empty hour.
        files: data files.
        rows: rows in them.
        bytes: their bytes on storage.
        rows_read: rows that came from the source; None where the engine did not have to read it.
        rejected: bad rows, and rows of other hours, that were kept aside.
        left: rows of the source that were left to other hours; None as for rows_read.
        digest: of the data files' names, see `iceberg.manifests.digest`.
        table_uuid: the table that the files were written for.
        schema_id: its schema then.
        spec_id: its partition spec then.
        sort_order_id: the order that the files hold; 0 where unsorted.
    """

    manifests: tuple[SealedManifest, ...]
    files: int
    rows: int
    bytes: int
    rows_read: int | None
    rejected: int
    left: int | None = 0
    digest: str
    table_uuid: str
    schema_id: int
    spec_id: int
    sort_order_id: int


class Attempt(_Model):
    """One writing of one hour.

    Attributes:
        id: a ULID, part of the name of every file of the attempt.
        run_id: the Dagster run that holds it.
        opened_at: when, by the clock of the run: for people only, never judged.
        opened_on: the snapshot that `main` stood on; None for a table without one.
        replaces: digest of the hour's live files then. The commit goes on only while they are the same.
        source: fingerprint of the hour's objects.
        recipe: fingerprint of everything else that shapes the hour.
        buckets: how many buckets may have files: with it every file can be named without a listing.
        seal: set once the files are checked.
        base: the snapshot that `main` has to stand on for the commit that is under way.
        snapshot_id: the snapshot of that commit.
    """

    id: str
    run_id: str
    opened_at: datetime
    opened_on: int | None
    replaces: str
    source: str
    recipe: str
    buckets: int
    seal: Seal | None = None
    base: int | None = None
    snapshot_id: int | None = None


class Committed(_Model):
    """The attempt that the hour's live files come from.

    Attributes:
        attempt: its id.
        at: when its run saw the commit land.
        snapshot_id: the snapshot; None where an empty hour replaced nothing.
        source: fingerprint of the hour's objects.
        recipe: fingerprint of everything else.
        seal: counts and the files' digest.
    """

    attempt: str
    at: datetime
    snapshot_id: int | None
    source: str
    recipe: str
    seal: Seal


class Outcome(_Model):
    """How the last run of the hour ended.

    Attributes:
        kind: the outcome.
        at: when.
        run_id: the Dagster run.
        error: the error's class, for failures.
        message: what the error said.
    """

    kind: Literal["committed", "failed", "cancelled"]
    at: datetime
    run_id: str
    error: str = ""
    message: str = ""


class HourRecord(_Model):
    """Everything that is known of one hour.

    Attributes:
        hour: the hour's key.
        version: goes up by one with every write, so that no two versions are alike.
        epoch: goes up by one with every attempt; whoever holds an older one has lost the hour.
        state: idle (no attempt, or a failed one whose tasks may write on) · open (files are being written) · sealed
            (waits for a commit) · committing.
        attempt: the one under way.
        committed: the last that landed.
        outcome: of the last run.
    """

    hour: str
    version: int = 0
    epoch: int = 0
    state: Literal["idle", "open", "sealed", "committing"] = "idle"
    attempt: Attempt | None = None
    committed: Committed | None = None
    outcome: Outcome | None = None


class Objects(Protocol):
    """The two verbs that the ledger needs of a store."""

    def get(self, url: str) -> Content:
        """Read an object whole; FileNotFoundError when there is none."""

    def put(self, url: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None) -> ObjectInfo:
        """Write an object whole; PreconditionFailedError when the condition does not hold."""


class Ledger:
    """The hour records of one table."""

    def __init__(self, objects: Objects, table_location: str, table_uuid: str) -> None:
        """Look at the ledger of the table at `table_location`; nothing is read yet."""
        self._objects = objects
        self.folder = f"{table_location.rstrip('/')}/{FOLDER}/{table_uuid}"

    def hour(self, hour: HourWindow) -> "HourLedger":
        """Read the hour's record; one that does not exist yet is idle."""
        return HourLedger(self._objects, f"{self.folder}/hours/{hour.start:%Y-%m-%d-%H}.json", hour)

    def rejects_url(self, hour: HourWindow, attempt: str) -> str:
        """Give the folder in which the bad rows of an attempt are kept."""
        return f"{self.folder}/rejects/{hour.start:%Y-%m-%d-%H}/{attempt}"

    def claims_url(self, hour: HourWindow, attempt: str) -> str:
        """Give the folder in which an attempt's writers say at which partition paths they put files."""
        return f"{self.folder}/claims/{hour.start:%Y-%m-%d-%H}/{attempt}"


class HourLedger:
    """One hour's record, as this process knows it; every write is a compare-and-swap against that knowledge."""

    def __init__(self, objects: Objects, url: str, hour: HourWindow) -> None:
        """Read the record at `url`.

        Raises:
            SafetyError: the object is no record of this version of the software.
        """
        self._objects = objects
        self._etag: str | None = None
        self.url = url
        self.record = HourRecord(hour=hour.key)
        try:
            content = objects.get(url)
        except FileNotFoundError:
            return
        try:
            self.record = HourRecord.model_validate_json(content.body)
        except ValidationError as error:
            raise SafetyError(
                f"{url} is no hour record that this version can read ({error.error_count()} problems). "
                "Removing the object is safe: the hour then runs again."
            ) from None
        self._etag = content.info.etag

    def advance(self, **changes: object) -> HourRecord:
        """Write the record with `changes`, if nobody else has written it since this process read it.

        Raises:
            CommitConflictError: somebody else has; this process no longer holds the hour.
        """
        changed = self.record.model_copy(update={**changes, "version": self.record.version + 1})
        body = changed.model_dump_json(indent=1).encode()
        try:
            if self._etag is None:
                info = self._objects.put(self.url, body, if_absent=True)
            else:
                info = self._objects.put(self.url, body, if_match=self._etag)
        except (PreconditionFailedError, FileNotFoundError):
            raise CommitConflictError(
                f"another run took {self.record.hour} over (its record {self.url} was changed meanwhile); "
                "this run leaves the hour to it"
            ) from None
        self.record, self._etag = changed, info.etag
        return changed


def new_attempt_id() -> str:
    """Make a ULID: 26 characters that sort by time (48 bits of milliseconds, 80 random bits)."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))

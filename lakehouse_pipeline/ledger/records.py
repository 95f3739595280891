"""What the ledger holds: attempts, seals and the record of an hour, as they are written and read back.

What a record means for the table is decided above this module; how it is written is `hours`'.
"""

import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lakehouse_pipeline.hours import HourWindow

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # ULID's alphabet: https://github.com/ulid/spec
ULID = "[0-7][0-9A-HJKMNP-TV-Z]{25}"  # as a regular expression

# Both are parts of names of files that are removed: of a record that says anything else nothing is believed.
AttemptId = Annotated[str, Field(pattern=f"^{ULID}$")]
HourKey = Annotated[str, AfterValidator(lambda key: HourWindow.from_key(key).key)]


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
        digest: of the names of the hour's live files then, see `iceberg.manifests.digest`.
        table_uuid: the table that the files were written for.
        schema_id: its schema then.
        spec_id: its partition spec then.
        sort_order_id: the order that the files hold; 0 where unsorted.
        at: when, by the clock of the run: for people and thresholds only.
        requests: sent to S3 up to the seal.
        throttles: requests that S3 answered with 503 SlowDown or its kin.
        kept: data files of the hour that a rewrite leaves as they are.
        kept_rows: rows in them.
        kept_bytes: their bytes on storage.
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
    at: datetime | None = None
    requests: int = 0
    throttles: int = 0
    kept: int = 0
    kept_rows: int = 0
    kept_bytes: int = 0

    @property
    def of_hour(self) -> "Seal":
        """Count all files of the hour, those too that were left as they are."""
        counts = {"files": self.files + self.kept, "rows": self.rows + self.kept_rows}
        none = {"kept": 0, "kept_rows": 0, "kept_bytes": 0}
        return self.model_copy(update={**counts, "bytes": self.bytes + self.kept_bytes, **none})


class Rewrite(_Model):
    """What an attempt is that takes the place of files rather than of an hour; a claim of it names them.

    Attributes:
        as_of: sequence number of the snapshot that was read. The new files' data is as old: younger deletes go on
            applying to it.
        live: digest of the files that might have been of the hour then, data and deletes.
        same_rows: the new files have the rows that those files had; a merge has fewer.
    """

    as_of: int
    live: str
    same_rows: bool = True


class Attempt(_Model):
    """One writing of one hour.

    Attributes:
        id: a ULID, part of the name of every file of the attempt.
        run_id: the Dagster run that holds it.
        opened_at: when, by the clock of the run: for people only, never judged.
        opened_on: the snapshot that `main` stood on; None for a table without one.
        replaces: digest of the hour's live files then, or of those that a rewrite takes the place of. The commit goes
            on only while they are the same.
        source: fingerprint of the hour's objects.
        recipe: fingerprint of everything else that shapes the hour.
        buckets: how many buckets may have files.
        epoch: of the record when it was opened.
        remote: its tasks may write on when it has ended: they are not on this machine.
        layout: the table's location and the properties that shape keys, as they were then: with them, the buckets and
            the claims every file can be named without a listing.
        named: its writers claim every file beyond the first of a bucket, at try 0, before they put it: all that it can
            have is named. Of attempts that an earlier version opened it has to be found out how far they went.
        rewrites: what it is if it takes the place of files; None where it takes that of the hour.
        staging: the folder of its copies of raw objects, without a slash at its end; empty where it makes none.
        seal: set once the files are checked.
        offered: sealed, and its run leaves the commit to whoever commits for the table now.
        unprepared: the last epoch of which it is known that neither its holder nor any before has prepared a commit.
        bases: the snapshots that `main` had to stand on for the commits that were sent; None for no snapshot at all.
        snapshot_ids: the snapshots that those commits would make.
    """

    id: AttemptId
    run_id: str
    opened_at: datetime
    opened_on: int | None
    replaces: str
    source: str
    recipe: str
    buckets: int
    epoch: int = 0
    remote: bool = False
    layout: Mapping[str, str] = {}
    named: bool = False
    rewrites: Rewrite | None = None
    staging: str = ""
    seal: Seal | None = None
    offered: bool = False
    unprepared: int = -1
    bases: tuple[int | None, ...] = ()
    snapshot_ids: tuple[int, ...] = ()

    @property
    def preparing(self) -> int:
        """The first epoch whose holder may have prepared a commit, and have left files of it."""
        return max(self.epoch, self.unprepared + 1)

    def sent(self, base: int | None, snapshot_id: int) -> "Attempt":
        """Give the attempt with one more commit that is about to be sent."""
        return self.model_copy(update={"bases": (*self.bases, base), "snapshot_ids": (*self.snapshot_ids, snapshot_id)})


class Committed(_Model):
    """The attempt that the hour's live files come from.

    Attributes:
        attempt: its id.
        at: when its run saw the commit land.
        snapshot_id: the snapshot; None where an empty hour replaced nothing.
        source: fingerprint of the hour's objects.
        recipe: fingerprint of everything else.
        seal: counts and the files' digest.
        rewritten: since the hour was run, its rows were written into other files.
        run: the attempt that was the hour's run, whose rejected rows are kept; empty where an earlier version wrote it.
    """

    attempt: str
    at: datetime
    snapshot_id: int | None
    source: str
    recipe: str
    seal: Seal
    rewritten: bool = False
    run: str = ""

    @property
    def rejects(self) -> str:
        """The attempt whose rejected rows are the hour's; empty where it is not known."""
        return self.run or ("" if self.rewritten else self.attempt)


class Outcome(_Model):
    """How the last run of the hour ended.

    Attributes:
        kind: the outcome.
        at: when.
        run_id: the Dagster run.
        error: the error's class, for failures.
        message: what the error said.
    """

    kind: Literal["committed", "failed", "cancelled", "abandoned"]
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
        state: idle (no attempt) · open (files are being written) · sealed (waits for a commit) · committing (a commit
            may be on its way) · aborting (it shall not land any more, and whether it has is being found out).
        attempt: the one under way.
        stage: what its holder was doing at the last renewal of the lease.
        idle_s: for how many seconds that had not got on, then.
        committed: the last that landed.
        outcome: of the last run.
    """

    hour: str
    version: int = 0
    epoch: int = 0
    state: Literal["idle", "open", "sealed", "committing", "aborting"] = "idle"
    attempt: Attempt | None = None
    stage: str = ""
    idle_s: int = 0
    committed: Committed | None = None
    outcome: Outcome | None = None

    @property
    def seals(self) -> tuple[Seal, ...]:
        """What its files may be: those of its last commit, or of what waits for one and may have landed.

        Those of rewrites are left out: their digests are of files that they have left as they were, too.
        """
        committed = self.committed.seal if self.committed and not self.committed.rewritten else None
        waiting = self.attempt.seal if self.attempt and not self.attempt.rewrites else None
        return tuple(seal for seal in (committed, waiting) if seal)


class Extent(_Model):
    """How far an attempt's files were seen to go, kept because removing them leaves gaps.

    A pass may be interrupted, and a late writer goes on from where it was: whoever looks again must not end at the
    first name that is missing.

    Attributes:
        manifests: sealed manifests.
        files: data files of one bucket and path, where not all that there can be is named.
        tries: of one file, likewise.
        copies: manifests that one commit wrote anew.
    """

    manifests: int = 0
    files: int = 0
    tries: int = 0
    copies: int = 0

    def and_(self, other: "Extent") -> "Extent":
        """Give what covers both."""
        return Extent(**{name: max(getattr(self, name), getattr(other, name)) for name in Extent.model_fields})


class Marker(_Model):
    """An attempt that may have left something: put before its first file, removed when nothing of it can be astray.

    The store's time of its last writing is when it was opened or closed.

    Attributes:
        hour: the hour's key.
        attempt: as it was opened, or as it was when it was closed; without its seal.
        closed: it has ended, and what it left was removed once; what a late writer puts after that goes in a second
            pass.
        landed: whether it ended in the table.
        sealed: whether it was sealed when it was closed, and may have left what commits write.
        epoch: the hour's when it was closed.
        seen: how far its files went.
    """

    hour: HourKey
    attempt: Attempt
    closed: bool = False
    landed: bool = False
    sealed: bool = False
    epoch: int = 0
    seen: Extent = Extent()


def new_attempt_id() -> str:
    """Make a ULID: 26 characters that sort by time (48 bits of milliseconds, 80 random bits)."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def began_at(attempt_id: str) -> datetime:
    """Give when an attempt's id was made, by the clock of its run."""
    number = 0
    for character in attempt_id:
        number = number << 5 | _CROCKFORD.index(character)
    return datetime.fromtimestamp((number >> 80) / 1_000, UTC)

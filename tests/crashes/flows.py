"""What is done to a table, from its beginning to its end: flows that are killed on the way, and then done again.

Rows come as Arrow batches, so that no engine has to start; from the opening of an attempt to the commit the code is
that of every run.
"""

import base64
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill import leftovers
from lakehouse_pipeline.backfill.attempts import HourInHand
from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.backfill.sealed import commit_sealed
from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.errors import LakehouseError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.maintenance import compaction, expiry, manifests
from lakehouse_pipeline.maintenance.audit import SweepRules
from lakehouse_pipeline.maintenance.lease import Held, maintaining
from lakehouse_pipeline.maintenance.quarantine import Quarantine
from lakehouse_pipeline.maintenance.sweep import purge, restore, sweep
from lakehouse_pipeline.object_store.settings import SMALLEST_PART_BYTES
from lakehouse_pipeline.testing.crash import VARIABLE, crash_where_told
from tests.backfill.hands import in_hand, new_attempt
from tests.iceberg.lake import ELEVEN, EVENTS, MEGABYTE, TEN, TWELVE, Lake, in_bucket, spec_of
from tests.iceberg.lake import events as rows_of

Rows = Mapping[str, list[int]]  # ids, by hour

AGES = timedelta(days=6)  # later than whatever is kept for a while
LAPSED = timedelta(seconds=-1)  # by the store's clock, which counts seconds
IN_PARTS = {"s3.multipart.part-size-bytes": str(SMALLEST_PART_BYTES), "s3.multipart.threshold": "1"}
PADDING = 2 * SMALLEST_PART_BYTES  # with what else is in a file, three parts
ORPHANS = ("data/foreign.parquet", "data/other.parquet", "metadata/foreign-m0.avro")


def is_over(_run_id: str) -> bool:
    """Say of every other run that it has ended, as the orchestrator says of one that was killed."""
    return True


def close_all(table: HourlyTable) -> None:
    """Close what is open, all leases having lapsed: one pass closes, one looks again, and one finds nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leftovers, "LEASE", LAPSED)
        for _ in range(3):
            close_attempts(table, is_over, grace=LAPSED)


def run(lake: Lake, hour: HourWindow, files: Sequence[Sequence[int]], run_id: str = "run", *, padding: int = 0) -> None:
    """Bring an hour to these files, each with so many bytes of padding, from wherever an earlier run has left it."""
    wanted = f"files {files}"
    hand = in_hand(lake, hour, run_id)
    record = hand.held.record
    if record.state in {"sealed", "committing"} and hand.attempt.source == wanted:
        hand.resume()
        hand.commit()
    elif record.state != "idle" or not record.committed or record.committed.source != wanted:
        if record.state in {"sealed", "committing", "aborting"} and hand.abandon("other rows are wanted"):
            hand = in_hand(lake, hour, run_id)  # it had landed
        _write(lake, hand, files, wanted, padding)
        hand.commit()
    close_attempts(lake.now, is_over, hour=hour)


def _write(lake: Lake, hand: HourInHand, files: Sequence[Sequence[int]], wanted: str, padding: int) -> None:
    """Open an attempt, write it and seal it."""
    batches = [in_bucket(place, _padded(rows_of(hand.hour, ids), padding)) for place, ids in enumerate(files)]
    attempt = new_attempt(lake.now, hand.hour, buckets=len(batches), source=wanted)
    if superseded := hand.open(attempt):
        hand.close_superseded(superseded)
    written = lake.write(hand.hour, batches, attempt.id, MEGABYTE + 2 * padding)
    hand.seal(lake.now.seal(attempt.id, written, rows_read=None, rejected=0))


def _padded(rows: pa.RecordBatch, padding: int) -> pa.RecordBatch:
    """Give the first event a name that no codec makes shorter than this."""
    names = rows["name"].to_pylist()
    if padding:
        names[0] = base64.b64encode(random.Random(0).randbytes(padding)).decode()  # noqa: S311  # no secret
    return rows.set_column(rows.schema.get_field_index("name"), rows.schema.field("name"), pa.array(names, pa.string()))


def left_open(lake: Lake, hour: HourWindow, ids: Sequence[int], *, sealed: bool) -> None:
    """Leave an attempt as a run does that was killed: with its files, sealed or not."""
    hand = in_hand(lake, hour, "killed")
    hand.open(new_attempt(hand.table, hour, source="of a run that was killed"))
    written = lake.write(hour, [in_bucket(0, rows_of(hour, ids))], hand.attempt.id)
    if sealed:
        hand.seal(hand.table.seal(hand.attempt.id, written, rows_read=None, rejected=0))


def held(lake: Lake, doing: str, does: Callable[[Held], object]) -> None:
    """Do something under the maintenance lease."""
    with maintaining(lake.now, doing, f"{doing} {os.getpid()}", is_over) as lease:
        does(lease)


# ---------------------------------------------------------------------------------------------------------------------
# Hours
# ---------------------------------------------------------------------------------------------------------------------


def two_hours(lake: Lake) -> None:
    """Begin with an hour of two files, and another one."""
    run(lake, TEN, [[1, 2], [3]])
    run(lake, ELEVEN, [[7]])


def an_open_attempt(lake: Lake) -> None:
    """Begin with what a run has left in the middle of its writing."""
    two_hours(lake)
    left_open(lake, TEN, [8, 9], sealed=False)


def an_open_upload(lake: Lake) -> None:
    """Begin with what a run has left that was killed between the parts of a file."""
    two_hours(lake)
    hand = in_hand(lake, TEN, "killed")
    hand.open(new_attempt(hand.table, TEN, source="of a run that was killed"))
    url = f"{lake.now.location}/data/00000-{hand.attempt.id}-0-0.parquet"
    requests = hand.table.files._s3_store()._requests
    requests.put_part(url, requests.create_upload(url, "nonce"), 1, bytes(SMALLEST_PART_BYTES))


def a_sealed_attempt(lake: Lake) -> None:
    """Begin with a sealed attempt that nobody wants any more."""
    two_hours(lake)
    left_open(lake, TEN, [8, 9], sealed=True)


def sealed_attempts(lake: Lake) -> None:
    """Begin with sealed attempts of three hours, whose runs have ended."""
    two_hours(lake)
    for hour, ids in ((TEN, [4]), (ELEVEN, [5, 6]), (TWELVE, [7])):
        left_open(lake, hour, ids, sealed=True)


def replace_hour(lake: Lake) -> None:
    """Run the hour."""
    run(lake, TEN, [[4], [5], [6]])


def replace_hour_in_parts(lake: Lake) -> None:
    """Run the hour into one file that is uploaded in parts."""
    run(lake, TEN, [[4, 5, 6]], padding=PADDING)


def commit_together(lake: Lake) -> None:
    """Commit what is sealed."""
    for told in commit_sealed(lake.now, is_over):
        if told.error:
            raise told.error
    close_attempts(lake.now, is_over)


# ---------------------------------------------------------------------------------------------------------------------
# Compaction, expiry, manifests
# ---------------------------------------------------------------------------------------------------------------------


def small_files(lake: Lake) -> None:
    """Begin with hours of small files."""
    for hour in (TEN, ELEVEN):
        run(lake, hour, [[number] for number in range(6)])


def compact(lake: Lake, strategy: str) -> None:
    """Compact all that is worth it, and close what a killed compaction left."""
    close_attempts(lake.now, is_over)
    commit_sealed(lake.now, is_over)
    spec, table = spec_of(EVENTS, {"table": lake.identifier, "compact": {"strategy": strategy}}), lake.now
    plan = compaction.look(MaintenanceSettings(), spec, table)
    for done in compaction.compact(Warehouse(lake.catalog, table.files), spec, plan, f"compaction {os.getpid()}"):
        if done.error:
            raise done.error
    close_attempts(lake.now, is_over)


def old_snapshots(lake: Lake) -> None:
    """Begin with snapshots that have had their time, and a tag that has not."""
    two_hours(lake)
    run(lake, TEN, [[8]])
    lake.now.table.manage_snapshots().create_tag(lake.now.head or 0, "kept").commit()
    run(lake, TEN, [[4], [5], [6]])


def expire(lake: Lake) -> None:
    """Let snapshots expire, as if it were days later."""
    plan = expiry.look(lake.now, None, datetime.now(UTC) + AGES)
    held(lake, "expiry", lambda lease: expiry.run_expiry(lake.now, plan, lease))


def many_manifests(lake: Lake) -> None:
    """Begin with more manifests than an hour needs."""
    for hour in (TEN, ELEVEN):
        run(lake, hour, [[0]])
        for number in range(1, 6):
            lake.append(rows_of(hour, [number]))


def rewrite_manifests(lake: Lake) -> None:
    """Write manifests anew; that removes what a killed rewrite has left, too."""
    held(lake, "manifests", lambda lease: manifests.rewrite_manifests(lake.now, manifests.look(lake.now), lease))


# ---------------------------------------------------------------------------------------------------------------------
# Sweeps
# ---------------------------------------------------------------------------------------------------------------------


def littered(lake: Lake) -> None:
    """Begin with files that nobody knows."""
    two_hours(lake)
    for name in ORPHANS:
        lake.now.files.put(f"{lake.now.location}/{name}", name.encode())


def swept_once(lake: Lake) -> None:
    """Begin with a quarantine."""
    littered(lake)
    clean(lake)


def clean(lake: Lake, *, delete: bool = False) -> None:
    """Sweep, days later."""

    def does(lease: Held) -> None:
        table = lake.now
        rules = SweepRules(older_than=timedelta(days=3), moment=datetime.now(UTC) + AGES)
        spec = spec_of(EVENTS, {"table": lake.identifier})
        sweep(Warehouse(lake.catalog, table.files), spec, table, rules, lease, delete=delete)

    held(lake, "sweep", does)


def bring_back(lake: Lake) -> None:
    """Restore what was swept."""

    def does(lease: Held) -> None:
        for record, _age in Quarantine(lake.now.files, lake.now.ledger.folder).sweeps():
            restore(lake.now, record.sweep, lease)

    held(lake, "restore", does)


def empty_quarantine(lake: Lake) -> None:
    """Purge what was swept."""
    held(lake, "purge", lambda lease: purge(lake.now, timedelta(0), lease))


# ---------------------------------------------------------------------------------------------------------------------
# All of them
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flow:
    """Something that is done to a table.

    Attributes:
        begins: makes what it is done to.
        does: it; done again after a kill, it takes it to its end.
        before: the rows at its beginning; None where they do not change.
        after: the rows at its end.
        events: that are said on the way, each of which is a crash point.
        commits: snapshots that it makes, whatever struck it on its way.
        orphans: of those that lie there at the beginning, how many lie there at the end.
        plain: whether the table is in a plain bucket: SeaweedFS's table buckets refuse names of strangers.
        settings: of the catalog, and so of the client.
    """

    begins: Callable[[Lake], None]
    does: Callable[[Lake], None]
    after: Rows
    events: tuple[str, ...]
    before: Rows | None = None
    commits: int = 1
    orphans: int = 0
    plain: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


TWO_HOURS: Rows = {TEN.key: [1, 2, 3], ELEVEN.key: [7]}
REPLACED: Rows = {TEN.key: [4, 5, 6], ELEVEN.key: [7]}
SMALL: Rows = {TEN.key: list(range(6)), ELEVEN.key: list(range(6))}
HOUR = ("attempt.opened", "attempt.sealed", "commit.sent", "commit.landed", "attempt.committed", "object.put")
LEASED = ("maintenance.began", "maintenance.ended", "object.put")

FLOWS: Mapping[str, Flow] = {
    "hour": Flow(two_hours, replace_hour, REPLACED, (*HOUR, "object.deleted"), TWO_HOURS),
    "superseding": Flow(
        an_open_attempt, replace_hour, REPLACED, (*HOUR, "attempt.closed", "object.deleted"), TWO_HOURS
    ),
    "hour in parts": Flow(
        an_open_upload,
        replace_hour_in_parts,
        REPLACED,
        (*HOUR, "attempt.closed", "upload.aborted", "object.deleted"),
        TWO_HOURS,
        settings=IN_PARTS,
    ),
    "giving up": Flow(
        a_sealed_attempt,
        replace_hour,
        REPLACED,
        (*HOUR, "attempt.aborting", "attempt.closed", "object.deleted"),
        TWO_HOURS,
    ),
    "together": Flow(
        sealed_attempts,
        commit_together,
        {TEN.key: [4], ELEVEN.key: [5, 6], TWELVE.key: [7]},
        ("commit.sent", "commit.landed", "attempt.committed", "object.put", "object.deleted"),
        TWO_HOURS,
    ),
    **{
        strategy: Flow(small_files, partial(compact, strategy=strategy), SMALL, (*HOUR, "object.deleted"))
        for strategy in ("copy", "rewrite")
    },
    "expiry": Flow(
        old_snapshots,
        expire,
        REPLACED,
        (
            *LEASED,
            *("expiry.sent", "expiry.committed", "expiry.deleting", "expiry.deleted", "expiry.finished"),
            "object.deleted",
        ),
        commits=0,
    ),
    "manifests": Flow(
        many_manifests,
        rewrite_manifests,
        SMALL,
        (*LEASED, "manifests.planned", "manifests.written", "commit.sent", "commit.landed"),
    ),
    "sweep": Flow(
        littered,
        clean,
        TWO_HOURS,
        (*LEASED, "sweep.began", "sweep.copied", "sweep.removed", "object.deleted"),
        plain=True,
        commits=0,
    ),
    "sweep for good": Flow(
        littered,
        partial(clean, delete=True),
        TWO_HOURS,
        (*LEASED, "sweep.began", "sweep.removed", "object.deleted"),
        plain=True,
        commits=0,
    ),
    "restore": Flow(
        swept_once,
        bring_back,
        TWO_HOURS,
        (*LEASED, "sweep.restored", "object.deleted"),
        orphans=len(ORPHANS),
        plain=True,
        commits=0,
    ),
    "purge": Flow(
        swept_once,
        empty_quarantine,
        TWO_HOURS,
        (*LEASED, "sweep.purged", "object.deleted"),
        commits=0,
        plain=True,
    ),
}


@dataclass(frozen=True)
class Doing:
    """A flow that is done in a process of its own.

    Attributes:
        flow: by name.
        catalog: its properties.
        identifier: of the table.
        crash_at: as the environment says it; empty where it goes to its end.
    """

    flow: str
    catalog: Mapping[str, str]
    identifier: str
    crash_at: str = ""

    @property
    def counted(self) -> Path:
        """No tasks of it are counted."""
        return Path("nowhere")

    def __call__(self) -> Counter[str]:
        """Do it; gives what was said, and how often."""
        said: Counter[str] = Counter()
        lake = Lake(open_catalog(self.catalog), self.identifier)
        with events.subscribed(lambda event: said.update([event.name])):
            crash_where_told({VARIABLE: self.crash_at})
            FLOWS[self.flow].does(lake)
        return said


@dataclass(frozen=True)
class Rival:
    """A flow that somebody else may do at the same time.

    Attributes:
        doing: the flow.
        stops_at: an event; said for the first time, it stops the process until somebody lets it go on.
    """

    doing: Doing
    stops_at: str = ""

    @property
    def counted(self) -> Path:
        """No tasks of it are counted."""
        return self.doing.counted

    def __call__(self) -> str:
        """Do it; gives the error of one that had to give way."""
        stopped: list[events.Event] = []

        def stop(event: events.Event) -> None:
            if event.name == self.stops_at and not stopped:
                stopped.append(event)
                os.kill(os.getpid(), signal.SIGSTOP)

        try:
            with events.subscribed(stop):
                self.doing()
        except LakehouseError as error:
            return type(error).__name__
        return ""

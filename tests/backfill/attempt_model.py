"""Attempts under any weather, as a state machine: whatever is lost, late, killed or slept through, the laws hold.

The code is the real one, down to the requests; the store and the catalog are in this process (`memory`). What else is
done to a table stands in `tests.maintenance.test_life`, which runs both.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pyiceberg.exceptions import CommitFailedException, ServerError
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata, new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER

from lakehouse_pipeline.backfill import attempts
from lakehouse_pipeline.backfill.attempts import HourInHand, TakenError
from lakehouse_pipeline.backfill.close import is_free
from lakehouse_pipeline.backfill.leftovers import ZOMBIES, close_attempts
from lakehouse_pipeline.backfill.plan import HourInputs, HourPlan, TableState, plan_hour, recipe_of, source_of
from lakehouse_pipeline.errors import LakehouseError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg import commit, data_files
from lakehouse_pipeline.iceberg.data_files import WrittenFile, write_batches, written_files
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.manifests import digest
from lakehouse_pipeline.iceberg.schemas import partition_spec_of, schema_of
from lakehouse_pipeline.iceberg.tables import NEW_TABLE_PROPERTIES
from lakehouse_pipeline.ledger.leases import LEASE
from lakehouse_pipeline.ledger.records import Attempt, Committed, HourRecord
from lakehouse_pipeline.object_store import s3 as s3_store
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.retry import RetryPolicy
from lakehouse_pipeline.sources.listing import SourceObject
from tests.backfill.hands import new_attempt
from tests.backfill.memory import PROPERTIES, STRIKES, KilledError, MemoryAccess, MemoryCatalog, MemoryS3, Weather
from tests.iceberg.lake import EVENTS, TEN, columns, events, hours_after, in_bucket, spec_of

HOURS = hours_after(TEN, 2)
SPEC = spec_of(EVENTS, {"table": "lake.events"})
BUCKETS = 2
A_ROW = 1  # bytes
FILES_OF = {0: 1, 1: 3}  # of a bucket
SEALED_KEEP = timedelta(days=7)
LOCATION = "s3://lake/events"
ROWS_OF_AN_ATTEMPT = 100  # at most, so that ids tell whose they are
ORPHANS_AFTER = timedelta(days=3)

REACHED: Counter[str] = Counter()  # what the histories of this process came to, by name

Strike = tuple[int | None, str]

# After how many requests of a step something goes wrong (or with its commit), and what.
strikes = st.none() | st.none() | st.tuples(st.none() | st.integers(0, 14), st.sampled_from(STRIKES))


spans = st.sampled_from([each.total_seconds() + 1 for each in (LEASE, ZOMBIES, ORPHANS_AFTER, SEALED_KEEP)])
# Which buckets an attempt's tasks write, in order: none, some, all, one of them twice; and how far its run gets.
writes = st.sampled_from([(), (0,), (1,), (0, 1), (0, 1), (1, 0, 1)])
goals = st.sampled_from(["open", "sealed", "sealed", "committed"])
one_in_five = st.sampled_from([True, False, False, False, False])


class DeadlineError(Exception):
    """What ends an attempt in these tests."""


@dataclass(eq=False)
class Writer:
    """An attempt and the process that works on it; it may have lost the hour without knowing.

    Attributes:
        hand: what it works with.
        attempt: its attempt's id.
        order: of its opening among all attempts of the hour.
        written: by bucket, what its tasks gave last.
        put: everything that the store acknowledged.
    """

    hand: HourInHand
    attempt: str
    order: int
    written: dict[int, list[WrittenFile]] = field(default_factory=dict)
    put: set[str] = field(default_factory=set)


def _one(data: st.DataObject, writers: list[Writer]) -> Writer:
    """Draw a writer by its place, which is all that a report has to show."""
    return writers[data.draw(st.integers(0, len(writers) - 1))]


class Attempts(RuleBasedStateMachine):
    """One table, its ledger, and any number of runs."""

    @initialize(may_lose=one_in_five, commits_last=st.booleans())
    def create(self, *, may_lose: bool, commits_last: bool) -> None:
        """Begin with an empty table.

        Args:
            may_lose: whether the ledger may be lost.
            commits_last: whether commits that are in flight at the end arrive when all else is over.
        """
        REACHED["histories"] += 1
        self.may_lose, self.commits_last = may_lose, commits_last
        self.weather = Weather()
        self.s3 = MemoryS3(self.weather)
        self.patched = pytest.MonkeyPatch()
        self.patched.setattr(s3_store, "s3_access", lambda _connection: MemoryAccess(self.s3))
        self.patched.setattr(commit, "COMMIT_RETRIES", RetryPolicy(3, 60, 0, 0))
        self.patched.setattr(data_files, "SMALLEST_ROW_GROUP", A_ROW)  # each row is a file
        self.patched.setattr(attempts, "RECORDS_AT_ONCE", 1)  # one request after the other, so that a step repeats
        schema = schema_of(columns(EVENTS))
        spec = partition_spec_of(schema, spec_of(EVENTS, {}))
        metadata = new_table_metadata(schema, spec, UNSORTED_SORT_ORDER, LOCATION, dict(NEW_TABLE_PROPERTIES))
        self.catalog = MemoryCatalog(self.weather, metadata, self.s3)
        self.writers: list[Writer] = []
        self.late: list[Writer] = []
        self.opened = 0
        self.arrived: set[str] = set()  # objects that were made by requests nobody waited for any more
        self.orders: dict[str, tuple[HourWindow, int]] = {}
        self.raw = dict.fromkeys(HOURS, 1)  # objects of an hour's source
        self.made_of: dict[str, str] = {}  # of an attempt, its source
        self.acknowledged: set[str] = set()
        self.manifests: dict[str, list[dict[str, Any]]] = {}
        self.lists: dict[tuple[str, str], list[ManifestFile]] = {}
        self.live: tuple[object, dict[HourWindow, list[int]]] = (None, {})
        self.ids: dict[tuple[str, str], list[int]] = {}
        self.ledger_lost = False
        self.sent: dict[int, dict[str, Attempt]] = {}
        self.landed: list[str] = []  # attempts of runs, in order; of those in one snapshot no two are of an hour
        self.added = dict.fromkeys(HOURS, 0)  # when somebody else wrote an hour last, as attempts are counted
        self.overwritten: list[str] = []  # attempts that took what was added after their opening
        self.rows: dict[HourWindow, list[int]] = {hour: [] for hour in HOURS}  # that the table has to have
        self.seen: set[int] = set()
        self.s3.written = self._note_sent
        self.catalog.committed = self._note_landed

    def _note_sent(self, name: str, body: bytes) -> None:
        """Remember of every snapshot which attempts' records announce it: those that land with it."""
        if "/hours/" in name and (attempt := HourRecord.model_validate_json(body).attempt):
            for snapshot_id in attempt.snapshot_ids:
                self.sent.setdefault(snapshot_id, {})[attempt.id] = attempt

    def _note_landed(self, metadata: TableMetadata) -> None:
        """Remember what a commit makes of the hours: those of runs have their rows, and others stay as they are."""
        for snapshot in metadata.snapshots:
            if snapshot.snapshot_id not in self.seen:
                self.seen.add(snapshot.snapshot_id)
                sent = sorted(self.sent.get(snapshot.snapshot_id, {}).values(), key=lambda each: each.id)
                REACHED["hours landed together"] += len([each for each in sent if each.rewrites is None]) > 1
                for attempt in sent:
                    if attempt.rewrites is None:
                        hour, order = self.orders[attempt.id]
                        self.landed.append(attempt.id)
                        self.overwritten += [attempt.id] if order < self.added[hour] else []
                        self.rows[hour] = sorted(number for url in self._sealed(attempt) for number in self.ids_in(url))

    def teardown(self) -> None:
        """Let everything arrive and end, and look at what is left."""
        if hasattr(self, "writers"):
            try:
                self.settle()
            finally:
                self.patched.undo()

    # -----------------------------------------------------------------------------------------------------------------
    # What runs do
    # -----------------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> HourlyTable:
        """The table as it is."""
        return HourlyTable(self.catalog, self.catalog.load_table("lake.events"), "at")

    @contextmanager
    def weathered(self, strike: Strike | None, writer: Writer | None = None) -> Iterator[None]:
        """Let what a strike does to a process end it: the one that works for `writer`, or that began meanwhile."""
        before = list(self.writers)
        if strike:
            self.weather.meanwhile = lambda: self._meanwhile(writer)
            self.weather.strike(*strike)
        try:
            yield
        except KilledError:
            for each in [each for each in self.writers if each is writer or each not in before]:
                self._forget(each)
        except (LakehouseError, OSError, DeadlineError, ServerError) as error:
            REACHED[f"ended by {type(error).__name__}"] += 1
            note(f"{type(error).__name__}: {error}")
        finally:
            self.weather.clear()

    def _meanwhile(self, writer: Writer | None) -> None:
        """Let a lease end in the middle of a step, and others close what is left, and take the hour to its commit."""
        self.weather.now += LEASE.total_seconds() + 1
        with suppress(LakehouseError, OSError, ServerError):
            close_attempts(self.now, lambda _run: False, sealed_keep=SEALED_KEEP)
        for hour in HOURS:
            with suppress(LakehouseError, OSError, ServerError):
                self._run_whole(hour, resume=writer is not None)

    @rule(hour=st.sampled_from(HOURS), resume=st.booleans(), buckets=writes, goal=goals, strike=strikes)
    def run(
        self,
        hour: HourWindow,
        buckets: Sequence[int],
        goal: str,
        strike: Strike | None,
        *,
        resume: bool,
    ) -> None:
        """Take the hour, if nobody holds it: resume what is sealed, or open an attempt; and go on."""
        with self.weathered(strike):
            if writer := self._take(hour, resume=resume):
                self._go_on(writer, buckets, goal)

    @rule(hour=st.sampled_from(HOURS), buckets=writes, goal=st.sampled_from(["open", "sealed"]), seconds=spans)
    def leave(self, hour: HourWindow, buckets: Sequence[int], goal: str, seconds: float) -> None:
        """Begin an hour anew, and let time pass over it."""
        self._begin(hour, buckets, goal)
        self._pass(seconds)

    def _begin(self, hour: HourWindow, buckets: Sequence[int], goal: str) -> None:
        """Take an hour whose lease has ended, or will by then, in fair weather."""
        self.weather.now += LEASE.total_seconds() + 1
        with self.weathered(None):
            if writer := self._take(hour, resume=False):
                self._go_on(writer, buckets, goal)

    @rule(hour=st.sampled_from(HOURS), resume=st.booleans(), kind=st.sampled_from(["late", "killed in flight"]))
    def run_into_silence(self, hour: HourWindow, kind: str, *, resume: bool) -> None:
        """Let a whole run go well but for its commit, which stays in flight."""
        with self.weathered((None, kind)):
            self._run_whole(hour, resume=resume)

    def _run_whole(self, hour: HourWindow, *, resume: bool) -> None:
        if writer := self._take(hour, resume=resume):
            self._go_on(writer, (0,), "committed")

    @rule(hour=st.sampled_from(HOURS))
    def land_late(self, hour: HourWindow) -> None:
        """Let one more raw file of an hour land."""
        self.raw[hour] += 1

    @rule(hour=st.sampled_from(HOURS), strike=strikes)
    def backfill(self, hour: HourWindow, strike: Strike | None) -> None:
        """Run an hour if its plan says so, as ranges do: left to itself, the hour is of the source that is there."""
        self.weather.now += LEASE.total_seconds() + 1
        with self.weathered(strike):
            for _ in range(3):  # what landed unheard of is planned again, and may be of an older source
                if (step := self._plan(hour).step) == "skip":
                    REACHED["an hour was skipped"] += 1
                    break
                self._run_whole(hour, resume=step == "resume")
            if not strike:
                assert self._plan(hour).step == "skip"

    def _plan(self, hour: HourWindow) -> HourPlan:
        """Plan an hour; one that is skipped has the rows of its source."""
        held, table, inputs = self.now.ledger.hour(hour), self.now, self._inputs(hour)
        live = table.as_sealed({hour: held.record.seals}).get(hour) or digest(file.path for file in table.live(hour))
        plan = plan_hour(SPEC, hour, inputs, held.record, TableState(table.uuid, table.schema_id, live))
        committed = held.record.committed
        if plan.step == "skip" and committed and committed.snapshot_id is None:
            assert self.rows[hour] == []
        elif plan.step == "skip":
            *_, last = (attempt for attempt in self.landed if self.orders[attempt][0] == hour)
            assert self.made_of[last] == plan.source
        return plan

    def _inputs(self, hour: HourWindow) -> HourInputs:
        objects = (SourceObject(f"s3://raw/{hour}/{place}.csv", 1, "e") for place in range(self.raw[hour]))
        return HourInputs(tuple(objects), {})

    def _take(self, hour: HourWindow, *, resume: bool) -> Writer | None:
        table = self.now
        run_id = f"run {self.opened}"
        hand = HourInHand(table, hour, table.ledger.hour(hour), run_id)
        if not is_free(hand.held, run_id, lambda _run: False):
            return None
        inputs, recipe = self._inputs(hour), recipe_of(SPEC, {})
        source = source_of(SPEC, inputs)
        attempt = new_attempt(table, hour, buckets=BUCKETS, remote=True, source=source, recipe=recipe)
        record = hand.held.record
        if record.attempt and record.state in {"sealed", "committing", "aborting"}:
            seal = record.attempt.seal
            assert seal is not None
            if resume and record.state != "aborting":
                if table.missing_files(seal):  # somebody gave it up since the record was read, and only then
                    with pytest.raises(TakenError):
                        hand.resume()
                    return None
                hand.resume()
                REACHED["a sealed attempt was taken over"] += 1
                _, order = self.orders.get(record.attempt.id, (hour, 0))  # a rewrite's is none
                return self._working(Writer(hand, record.attempt.id, order))
            # An empty hour that was empty before: whether it has landed, nothing tells once its snapshot has expired.
            leaves_traces = seal.files > 0 or seal.digest != record.attempt.replaces
            if hand.abandon("not wanted") is not None:
                REACHED["an attempt that was to be given up had landed"] += 1
                return None
            REACHED["a sealed attempt was given up"] += 1
            assert not (leaves_traces and record.attempt.id in self.landed)
        self.opened += 1
        self.orders[attempt.id] = (hour, self.opened)
        self.made_of[attempt.id] = source
        if superseded := hand.open(attempt):
            hand.close_superseded(superseded)
        return self._working(Writer(hand, attempt.id, self.opened))

    def _working(self, writer: Writer) -> Writer:
        self.writers.append(writer)
        return writer

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), buckets=writes, goal=goals, strike=strikes)
    def go_on(self, data: st.DataObject, buckets: Sequence[int], goal: str, strike: Strike | None) -> None:
        """Let a run do its next steps: run tasks, for the first time or again, seal, commit."""
        writer = _one(data, self.writers)
        with self.weathered(strike, writer):
            self._go_on(writer, buckets, goal)

    def _go_on(self, writer: Writer, buckets: Sequence[int], goal: str) -> None:
        if writer.hand.held.record.state == "open":
            for bucket in buckets:
                self._write(writer, bucket)
            if goal != "open":
                self._seal(writer)
        if goal == "committed" and writer.hand.held.record.state in {"sealed", "committing"}:
            self._commit(writer)

    def _write(self, writer: Writer, bucket: int) -> None:
        hand = writer.hand
        target = hand.table.target(hand.hour, writer.attempt, A_ROW)
        first = writer.order * ROWS_OF_AN_ATTEMPT + bucket * ROWS_OF_AN_ATTEMPT // BUCKETS
        rows = in_bucket(bucket, events(hand.hour, range(first, first + FILES_OF[bucket])))
        written = written_files(write_batches(target, [rows]))
        assert len(written) == FILES_OF[bucket]
        writer.written[bucket] = written
        writer.put |= {file.path for file in written}

    def _seal(self, writer: Writer) -> None:
        hand = writer.hand
        try:
            written = [file for bucket in sorted(writer.written) for file in writer.written[bucket]]
            hand.seal(hand.table.seal(writer.attempt, written, rows_read=None, rejected=0))
        except BaseException as error:
            hand.close(error)
            raise

    def _commit(self, writer: Writer) -> None:
        try:
            if writer.hand.commit().snapshot_id is not None and writer.order:
                self.acknowledged.add(writer.attempt)
        finally:
            self._forget(writer)

    @rule(strike=strikes)
    def commit_together(self, strike: Strike | None) -> None:
        """Commit all that is sealed in one snapshot; hours whose lease has ended are sealed for it first."""
        with self.weathered(None):
            self.weather.now += LEASE.total_seconds() + 1
            for hour in sorted(set(HOURS) - {each.hand.hour for each in self._ready()}):
                if writer := self._take(hour, resume=True):
                    self._go_on(writer, (0, 1), "sealed")
        ready = self._ready()
        if not ready:
            return
        with self.weathered(strike):
            try:
                outcomes = attempts.commit_together([writer.hand for writer in ready])
                for writer in ready:
                    outcome = outcomes[writer.hand.hour]
                    if isinstance(outcome, Committed) and outcome.snapshot_id is not None and writer.order:
                        self.acknowledged.add(writer.attempt)
            finally:
                for writer in ready:
                    self._forget(writer)

    @rule(data=st.data(), taken=st.booleans(), strike=strikes)
    def offer(self, data: st.DataObject, taken: bool, strike: Strike | None) -> None:  # noqa: FBT001
        """Leave a commit to another run, which takes the hour with its lease going on; or take it back."""
        if not self._ready():
            self._begin(HOURS[0], (0, 1), "sealed")
        if not self._ready():
            return
        writer = _one(data, self._ready())
        hand = writer.hand
        with self.weathered(strike, writer):
            hand.offer()
            self._forget(writer)  # it only looks what becomes of it
            if taken:
                hand = HourInHand(self.now, hand.hour, hand.table.ledger.hour(hand.hour), "committer")
            elif hand.became(writer.attempt) is not None:
                return
            attempt = hand.held.record.attempt
            if attempt and attempt.offered:
                hand.resume()
                REACHED["an offered commit was taken"] += taken
                self._working(Writer(hand, writer.attempt, writer.order))

    def _ready(self) -> list[Writer]:
        """Give a writer of each hour that has sealed its attempt; it may have lost the hour without knowing."""
        sealed = {"sealed", "committing"}
        ready = {writer.hand.hour: writer for writer in self.writers if writer.hand.held.record.state in sealed}
        return list(ready.values())

    @precondition(lambda self: self.late)
    @rule(data=st.data(), strike=strikes)
    def write_late(self, data: st.DataObject, strike: Strike | None) -> None:
        """Run a task once more, with the rows that it had, whatever became of its attempt."""
        writer = _one(data, self.late)
        bucket = data.draw(st.sampled_from(sorted(writer.written)))
        with self.weathered(strike, writer):
            self._write(writer, bucket)
            REACHED["a task wrote for an attempt that was over"] += 1

    @rule(hour=st.sampled_from(HOURS), passes=st.integers(1, 2))
    def a_task_outlives_its_run(self, hour: HourWindow, passes: int) -> None:
        """Let a run end without a word and be closed, more than once within the hour, while a task of it goes on."""
        with self.weathered(None):
            if writer := self._take(hour, resume=False):
                self._go_on(writer, (0,), "open")
                self._forget(writer)
                self.weather.now += LEASE.total_seconds() + 1
                for _ in range(passes):
                    close_attempts(self.now, lambda _run: False, sealed_keep=SEALED_KEEP)
                self._write(writer, 0)

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), killed=st.booleans(), strike=strikes)
    def end(self, data: st.DataObject, killed: bool, strike: Strike | None) -> None:  # noqa: FBT001
        """End a run without a word, or by a failure before its seal."""
        writer = _one(data, self.writers)
        with self.weathered(strike, writer):
            self._forget(writer)
            if not killed and writer.hand.held.record.state == "open":
                writer.hand.close(DeadlineError())

    def _forget(self, writer: Writer) -> None:
        if writer in self.writers:
            self.writers.remove(writer)
            self.late += [writer] if writer.written else []

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), strike=strikes)
    def renew(self, data: st.DataObject, strike: Strike | None) -> None:
        """Renew a lease."""
        writer = _one(data, self.writers)
        with self.weathered(strike, writer):
            writer.hand.held.renew(writer.attempt, "etl")

    # -----------------------------------------------------------------------------------------------------------------
    # What happens to them
    # -----------------------------------------------------------------------------------------------------------------

    @rule(seconds=spans)
    def time_passes(self, seconds: float) -> None:
        """Let leases end, the grace of zombies, and the times for which orphans and sealed attempts wait."""
        self._pass(seconds)

    def _pass(self, seconds: float) -> None:
        """Let time pass; the grace of zombies is defined by that none outlives it."""
        if seconds > ZOMBIES.total_seconds():
            self.arrive_all(self.weather.puts)
            self.late.clear()
            self.writers = [writer for writer in self.writers if self._holds(writer)]
        self.weather.now += seconds

    def _holds(self, writer: Writer) -> bool:
        record = writer.hand.table.ledger.hour(writer.hand.hour).record
        return record.attempt is not None and record.attempt.id == writer.attempt

    def arrive_all(self, requests: list[Callable[[], object]]) -> None:
        """Let everything arrive that is in flight."""
        there = set(self.s3.objects)
        while requests:
            with suppress(ClientError, CommitFailedException, ValueError):  # PyIceberg's of a snapshot that is gone
                requests.pop(0)()
        self.arrived |= self.s3.objects.keys() - there

    @rule(strike=strikes)
    def close_leftovers(self, strike: Strike | None) -> None:
        """Close what ended runs left."""
        held = self.held()
        with self.weathered(strike):
            closed = close_attempts(self.now, lambda _run: False, sealed_keep=SEALED_KEEP)
            REACHED["attempts were closed that nobody closed"] += len(closed) > 0
        if strike is None or strike[1] != "meanwhile":  # which lets leases end
            assert held <= self.held()

    def held(self) -> set[str]:
        """Name the open attempts whose lease goes on."""
        found = set()
        for name, stored in self.s3.objects.items():
            if "/hours/" in name and self.weather.now - stored.modified <= LEASE.total_seconds():
                record = HourRecord.model_validate_json(stored.body)
                found |= {record.attempt.id} if record.attempt and record.state == "open" else set()
        return found

    @precondition(lambda self: self.weather.puts or self.weather.commits)
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        """Let a request arrive that was in flight, however long ago it was sent."""
        requests = data.draw(st.sampled_from([each for each in (self.weather.puts, self.weather.commits) if each]))
        place = data.draw(st.integers(0, len(requests) - 1))
        self.arrive_all([requests.pop(place)])

    @precondition(lambda self: self.writers)  # between runs it is a run like others
    @rule(hour=st.sampled_from(HOURS))
    def another_writes(self, hour: HourWindow) -> None:
        """Let somebody else add rows to an hour, as any engine does that knows the catalog alone."""
        self.opened += 1
        ids = [self.opened * ROWS_OF_AN_ATTEMPT]
        before = self.rows[hour]
        self.now.table.append(pa.Table.from_batches([events(hour, ids)]))
        self.rows[hour] = sorted([*before, *ids])
        self.added[hour] = self.opened

    @rule(everything=st.booleans())
    @precondition(lambda self: self.may_lose and self.orders and not self.ledger_lost)
    def lose_ledger(self, everything: bool) -> None:  # noqa: FBT001
        """Remove records, or all of the ledger, once."""
        self.ledger_lost = True
        REACHED["a ledger was lost"] += 1
        folder = self.now.ledger.folder
        for url in self.s3.urls(f"{folder}/" if everything else f"{folder}/hours/"):
            del self.s3.objects[url.removeprefix("s3://")]

    # -----------------------------------------------------------------------------------------------------------------
    # Laws
    # -----------------------------------------------------------------------------------------------------------------

    def entries(self, manifest: ManifestFile) -> list[dict[str, Any]]:
        """Read a manifest, once."""
        path = manifest.manifest_path
        if path not in self.manifests:
            body = self.s3.at(path).body
            self.manifests[path] = [dict(entry) for entry in fastavro.reader(io.BytesIO(body))]  # type: ignore[arg-type]
        return self.manifests[path]

    def manifest_lists(self) -> dict[int, list[ManifestFile]]:
        """Read the manifest list of every snapshot, once as long as it is the same object."""
        files = LakehouseFileIO(PROPERTIES)
        found = {}
        for snapshot in self.catalog.metadata.snapshots:
            stored = (snapshot.manifest_list, self.etag(snapshot.manifest_list))
            if stored not in self.lists:
                self.lists[stored] = snapshot.manifests(files)
            found[snapshot.snapshot_id] = self.lists[stored]
        return found

    def live_rows(self, lists: dict[int, list[ManifestFile]]) -> dict[HourWindow, list[int]]:
        """Read each hour's rows as runs find its files, once as long as the table and its manifests are the same."""
        paths = sorted({manifest.manifest_path for manifests in lists.values() for manifest in manifests})
        stored = (self.catalog.metadata, lists, [(path, self.etag(path)) for path in paths])
        if self.live[0] != stored:
            files = LakehouseFileIO(PROPERTIES)
            loaded = Table(("lake", "events"), self.catalog.metadata, "v.json", files, self.catalog)
            table = HourlyTable(self.catalog, loaded, "at")
            live = {hour: [number for file in table.live(hour) for number in self.ids_in(file.path)] for hour in HOURS}
            self.live = (stored, {hour: sorted(ids) for hour, ids in live.items()})
        return self.live[1]

    def ids_in(self, url: str) -> list[int]:
        """Read the ids of a data file, once as long as it is the same object."""
        stored = (url, self.etag(url))
        if stored not in self.ids:
            body = self.s3.at(url).body
            self.ids[stored] = pq.read_table(io.BytesIO(body), columns=["id"])["id"].to_pylist()
        return self.ids[stored]

    def etag(self, url: str) -> str:
        """Tell one object at a URL from another."""
        return self.s3.at(url).etag

    def reached(self) -> set[str]:
        """Name all that the table's snapshots reach."""
        found = {snapshot.manifest_list for snapshot in self.catalog.metadata.snapshots}
        for manifests in self.manifest_lists().values():
            for manifest in manifests:
                found.add(manifest.manifest_path)
                found |= {entry["data_file"]["file_path"] for entry in self.entries(manifest) if entry["status"] != 2}
        return found

    @invariant()
    def nothing_that_is_reached_is_gone(self) -> None:
        """Every list, manifest and data file of every snapshot is there."""
        assert self.reached() - self.s3.urls(LOCATION) == set()

    @invariant()
    def an_attempt_lands_once_and_never_after_a_newer_one(self) -> None:
        """Of each hour, attempts land in the order of their opening."""
        landed: dict[HourWindow, list[int]] = {hour: [] for hour in HOURS}
        for attempt in self.landed:
            hour, order = self.orders[attempt]
            landed[hour].append(order)
        for orders in landed.values():
            assert orders == sorted(set(orders))

    @invariant()
    def an_hour_is_all_of_one_attempt(self) -> None:
        """The rows of an hour are those that the last run that landed has written, all of them and once."""
        assert self.live_rows(self.manifest_lists()) == self.rows

    @invariant()
    def what_others_add_to_an_hour_under_way_stays(self) -> None:
        """No attempt lands on rows that somebody else has added since it was opened."""
        assert self.overwritten == []

    @invariant()
    def what_was_acknowledged_has_landed(self) -> None:
        """A commit that was said to have landed is in the table's history, unless it changed nothing."""
        assert self.acknowledged <= set(self.landed)

    @invariant()
    def what_may_still_land_is_there(self) -> None:
        """No file of a sealed attempt is gone, nor of an open one whose lease goes on."""
        there = self.s3.urls(LOCATION)
        for name, stored in self.s3.objects.items():
            if "/hours/" in name:
                record = HourRecord.model_validate_json(stored.body)
                is_held = self.weather.now - stored.modified <= LEASE.total_seconds()
                if record.attempt and record.state in {"sealed", "committing"}:
                    assert self._sealed(record.attempt) <= there
                if record.attempt and record.state == "open" and is_held:
                    puts = [writer.put for writer in self.writers if writer.attempt == record.attempt.id]
                    assert set[str]().union(*puts) <= there

    def _sealed(self, attempt: Attempt) -> set[str]:
        manifests = attempt.seal.manifests if attempt.seal else ()
        bodies = [self.s3.at(manifest.path).body for manifest in manifests]
        entries: list[Any] = [entry for body in bodies for entry in fastavro.reader(io.BytesIO(body))]
        return {entry["data_file"]["file_path"] for entry in entries}

    def settle(self) -> None:
        """Let everything arrive, close every attempt, and make the second pass."""
        self.weather.clear()
        self.writers.clear()
        self.arrive_all(self.weather.puts)
        if not self.commits_last:
            self.arrive_all(self.weather.commits)
        for hour in HOURS:
            self.weather.now += LEASE.total_seconds() + 1
            held = self.now.ledger.hour(hour)
            if held.record.state in {"sealed", "committing", "aborting"}:
                HourInHand(self.now, hour, held, "settle").abandon("settled")
        for _ in range(3):
            self.weather.now += ZOMBIES.total_seconds() + 1
            close_attempts(self.now, lambda _run: True)
        REACHED["a commit arrived when all was over"] += len(self.weather.commits) > 0
        self.arrive_all(self.weather.commits)
        self.nothing_that_is_reached_is_gone()
        self.an_attempt_lands_once_and_never_after_a_newer_one()
        self.an_hour_is_all_of_one_attempt()

    def unreached(self) -> set[str]:
        """Name what lies in the table's folders and none of its snapshots reaches; all metadata files are history."""
        stored = self.s3.urls(f"{LOCATION}/data/") | self.s3.urls(f"{LOCATION}/metadata/")
        return {url for url in stored - self.reached() if not url.endswith(".metadata.json")}

"""Compaction of a table's hours: some of their files in fewer files, proved before they take the place of the old ones.

Each is an attempt like any other (004): marked, leased, sealed, committed, resumed or closed by the same code. What it
is made from is told as what the hour's run was made from, so that the hour is still unchanged for a backfill.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from lakehouse_pipeline.backfill.attempts import HourInHand, commit_together
from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.engines.workers import RayWorkers, SparkWorkers, ThreadWorkers, Workers
from lakehouse_pipeline.errors import CommitConflictError, LakehouseError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.deletes import DeleteIndex
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.manifests import DATA, POSITION_DELETES, LiveFile, digest
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.ledger.records import Attempt, Committed, Rewrite, new_attempt_id
from lakehouse_pipeline.maintenance.compaction_plan import CompactionPlan, HourToCompact
from lakehouse_pipeline.maintenance.plan import Rules, dangling_beside, plan_compaction
from lakehouse_pipeline.maintenance.rewrite import GroupTask, Rewritten, rewrite_group
from lakehouse_pipeline.maintenance.windows import windows
from lakehouse_pipeline.object_store.side_by_side import side_by_side

HOURS_TOGETHER = 24  # that are leased, and committed, at once ...
BYTES_TOGETHER = 8 * 1024**3  # ... as long as their files have so much on storage
OPENED_AT_ONCE = 8
RECORDS_AT_ONCE = 32


@dataclass(frozen=True)
class Compacted:
    """How a compaction ended.

    Attributes:
        hour: the hour.
        files_before: data files that were to be compacted.
        bytes_before: of them.
        files: that they became.
        bytes: of these.
        strategies: how, and why so; as it was done, not as it was planned.
        bytes_apart: that the store itself copied.
        requests: sent to the store by workers.
        committed: what the hour is now; None where it did not come to that.
        error: why not. A CommitConflictError means that it stepped aside: somebody else has, or has changed, the hour.
    """

    hour: HourWindow
    files_before: int
    bytes_before: int
    files: int = 0
    bytes: int = 0
    strategies: tuple[tuple[str, str], ...] = ()
    bytes_apart: int = 0
    requests: int = 0
    committed: Committed | None = None
    error: LakehouseError | None = None

    @property
    def stepped_aside(self) -> bool:
        """Whether a writer was faster."""
        return isinstance(self.error, CommitConflictError)


def look(
    settings: MaintenanceSettings, spec: TableSpec, table: HourlyTable, hours: Sequence[HourWindow] | None = None
) -> CompactionPlan:
    """Plan the compaction of a table; reads metadata and the ledger, and changes nothing.

    Of a large table one window of hours is looked at after the other (see `windows`): delete files of more than one
    hour that apply to no file at all are then left alone.

    Args:
        settings: how long hours have to be over.
        spec: the table's: when files are worth it, and how they are compacted.
        table: loaded now.
        hours: of these only.

    Raises:
        ConfigurationError: the table is of a format version, or has properties, that cannot be written.
    """
    table.check_writable()
    marked = list({each.hour for each in table.ledger.marked()})  # whatever is under way has a marker
    records = side_by_side(lambda hour: table.ledger.hour(hour).record, marked, RECORDS_AT_ONCE)
    busy = {hour for hour, record in zip(marked, records, strict=True) if record.attempt is not None}
    rules = Rules.of(
        spec.compact,
        spec.file_size,
        table.table.properties,
        sort_order_id=table.sort_order_id,
        spec_id=table.spec_id,
        unpartitioned=table.stored.unpartitioned,
    )
    settled = datetime.now(UTC) - settings.compact_after
    parts = windows(table) if hours is None else [hours]
    return CompactionPlan.of_parts(
        plan_compaction(table.all_live(part), busy, rules, settled, whole=part is None) for part in parts
    )


def tries_of(table: HourlyTable, plan: CompactionPlan) -> str:
    """Give what changes with every attempt of the hours that a plan begins with."""
    first = [each.hour for each in plan.hours[:HOURS_TOGETHER]]
    return str(side_by_side(lambda hour: table.ledger.hour(hour).record.epoch, first, RECORDS_AT_ONCE))


def compact(
    warehouse: Warehouse, spec: TableSpec, plan: CompactionPlan, run_id: str, workers: Workers | None = None
) -> Iterator[Compacted]:
    """Compact what a plan says, some hours at a time, and tell of each; one that fails does not stop the others.

    Args:
        warehouse: where the table is.
        spec: the table's.
        plan: see `look`.
        run_id: of the orchestrator, which holds the hours meanwhile.
        workers: who reads and writes; threads of this process unless told otherwise.
    """
    waiting = [part for hour in plan.hours for part in _parts(hour, spec.compact.groups_per_commit)]
    while waiting:
        now, waiting = _together(waiting)
        yield from _Wave(warehouse, spec, run_id, workers or ThreadWorkers()).run(now)


def _together(waiting: Sequence[HourToCompact]) -> tuple[list[HourToCompact], list[HourToCompact]]:
    """Take what is compacted next, and give what waits: runs of hours that are leased have to wait, too.

    Of an hour one part at a time: the next one is of what the hour is then.
    """
    now, later, size = dict[HourWindow, HourToCompact](), list[HourToCompact](), 0
    for part in waiting:
        fits = len(now) < HOURS_TOGETHER and size + part.bytes <= BYTES_TOGETHER
        if part.hour not in now and (fits or not now):
            now[part.hour] = part
            size += part.bytes
        else:
            later.append(part)
    return list(now.values()), later


def workers_of(settings: MaintenanceSettings, session: Callable[[], Any]) -> Workers:
    """Give the workers that a lakehouse names.

    Args:
        settings: name them.
        session: gives the Spark session, where they are its tasks.
    """
    if settings.workers == "spark":
        return SparkWorkers(session)
    return RayWorkers() if settings.workers == "ray" else ThreadWorkers()


def _parts(hour: HourToCompact, most: int | None) -> list[HourToCompact]:
    """Cut an hour into what is committed together."""
    if most is None or len(hour.groups) <= most:
        return [hour]
    cuts = [hour.groups[place : place + most] for place in range(0, len(hour.groups), most)]
    return [replace(hour, groups=cut, dangling=hour.dangling if cut is cuts[-1] else ()) for cut in cuts]


@dataclass
class _Hour:
    """An hour that is being compacted."""

    todo: HourToCompact
    hand: HourInHand
    kept: tuple[LiveFile, ...]
    lease: ExitStack
    rewritten: list[Rewritten] = field(default_factory=list)
    sealed: bool = False
    closed: bool = False
    failed: LakehouseError | None = None
    committed: Committed | None = None

    def close(self, error: BaseException) -> None:
        """Give it up, and remove what was written of it."""
        self.closed = True
        if isinstance(error, LakehouseError):
            self.failed = error
        self.hand.close(error)


@dataclass
class _Wave:
    """Some hours of a plan, worked on at once and committed together."""

    warehouse: Warehouse
    spec: TableSpec
    run_id: str
    workers: Workers

    def run(self, plan: Sequence[HourToCompact]) -> Iterator[Compacted]:
        table = self.warehouse.find(self.spec)
        hours, refused = list[_Hour](), dict[HourWindow, LakehouseError]()
        with ExitStack() as leases:

            def open_one(todo: HourToCompact) -> None:
                try:
                    hours.append(self._opened(table, todo, leases))
                except LakehouseError as error:
                    refused[todo.hour] = error

            try:
                side_by_side(open_one, plan, OPENED_AT_ONCE)
                self._write(hours)
                self._commit([hour for hour in hours if hour.sealed])
            except BaseException as error:
                for hour in hours:
                    if not hour.sealed and not hour.closed:
                        hour.close(error)
                raise
        told = {hour.todo.hour: _told(hour) for hour in hours}
        for todo in plan:
            yield told.get(todo.hour) or Compacted(todo.hour, todo.files, todo.bytes, error=refused[todo.hour])

    def _opened(self, loaded: HourlyTable | None, todo: HourToCompact, leases: ExitStack) -> _Hour:
        """Take an hour in hand, if it is as the plan has it.

        Raises:
            CommitConflictError: somebody else has the hour, or has changed it since the plan.
        """
        if loaded is None:
            raise CommitConflictError(f"{self.spec.table} is gone")
        held = loaded.ledger.hour(todo.hour)
        table = self.warehouse.find(self.spec) or loaded  # not older than the record
        live = {file.path: file for file in table.all_live((todo.hour,))}
        if held.record.attempt is not None or not _is_as_planned(todo, live.values(), table):
            raise CommitConflictError(f"{todo.hour} has changed since the plan was made")
        gone = _replaced(todo, table, list(live.values()))
        if not gone:
            raise CommitConflictError(f"{todo.hour} has nothing left to do: somebody else has done it")
        committed = held.record.committed
        ours = committed if committed and committed.seal.digest == digest(live) else None
        hand = HourInHand(table, todo.hour, held, self.run_id)
        attempt = Attempt(
            id=new_attempt_id(),
            run_id=self.run_id,
            opened_at=datetime.now(UTC),
            opened_on=table.head,
            replaces=digest(gone),
            # Where somebody else has written into the hour, a backfill finds it changed, as it would have before.
            source=ours.source if ours else "",
            recipe=ours.recipe if ours else "",
            buckets=len(todo.groups),
            remote=self.workers.remote,
            layout=table.layout,
            named=True,
            rewrites=Rewrite(
                as_of=table.sequence_number,
                live=digest(live),
                same_rows=all(group.strategy != "merge" for group in todo.groups),
            ),
        )
        hand.open(attempt)
        hour = _Hour(todo, hand, tuple(file for path, file in live.items() if path not in gone), ExitStack())
        try:
            leases.push(hour.lease)
            hour.lease.enter_context(hand.renewing(lambda: "commit" if hour.sealed else "compact"))
            table.claim_files(todo.hour, attempt.id, gone)
        except BaseException as error:
            hand.close(error)
            raise
        return hour

    def _write(self, hours: Sequence[_Hour]) -> None:
        """Let workers write all groups, and seal each hour once its own are done."""
        tasks = [(hour, task) for hour in hours for task in _tasks(hour, self.spec)]
        for hour in hours:
            if not hour.todo.groups:
                self._seal(hour)
        failed: LakehouseError | None = None
        try:
            # Closed before anything is removed: no task may write on then.
            with closing(self.workers.run(rewrite_group, [task for _, task in tasks])) as answers:
                for place, answer in answers:
                    hour = tasks[place][0]
                    if isinstance(answer, LakehouseError):
                        hour.failed = hour.failed or answer
                    else:
                        hour.rewritten.append(answer)
                    if len(hour.rewritten) == len(hour.todo.groups):
                        self._seal(hour)
        except LakehouseError as error:  # the workers' own, of all that is not done
            failed = error
        for hour in hours:
            if not hour.sealed and not hour.closed:  # now that the last of its tasks has ended
                why = hour.failed or failed or LakehouseError(f"{hour.todo.hour}: not all of it was written")
                hour.close(self._why(hour, why))

    def _why(self, hour: _Hour, error: LakehouseError) -> LakehouseError:
        """Say that somebody was faster, where a file was gone for that reason."""
        with suppress(LakehouseError):
            table = self.warehouse.find(self.spec)
            live = {file.path for file in table.all_live((hour.todo.hour,))} if table else set()
            if any(file.path not in live for group in hour.todo.groups for file in group.files):
                return CommitConflictError(f"{hour.todo.hour} was changed while it was compacted: {error}")
        return error

    def _seal(self, hour: _Hour) -> None:
        hand, rewrites = hour.hand, hour.hand.attempt.rewrites
        assert rewrites  # noqa: S101  # it was opened as one
        try:
            seal = hand.table.seal(
                hand.attempt.id,
                sorted((file for each in hour.rewritten for file in each.files), key=lambda file: file.path),
                rows_read=None,
                rejected=0,
                left=None,
                as_of=rewrites.as_of,
                kept=hour.kept,
            )
            before = hand.held.record.committed
            facts = before.seal if before and hand.attempt.source else None
            known = {name: getattr(facts, name) for name in ("rows_read", "rejected", "left")} if facts else {}
            hand.seal(seal.model_copy(update={"at": datetime.now(UTC), **known}))
            hour.sealed = True
        except LakehouseError as error:
            hour.close(error)

    def _commit(self, hours: Sequence[_Hour]) -> None:
        outcomes = commit_together([hour.hand for hour in hours]) if hours else {}
        for hour in hours:
            outcome = outcomes[hour.todo.hour]
            if isinstance(outcome, LakehouseError):
                hour.failed = outcome
            else:
                hour.committed = outcome


def _tasks(hour: _Hour, spec: TableSpec) -> Iterator[GroupTask]:
    table, todo = hour.hand.table, hour.todo
    rules = Rules.of(spec.compact, spec.file_size, table.table.properties)
    for number, group in enumerate(todo.groups):
        yield GroupTask(
            number=number,
            hour=str(todo.hour),
            stored=table.stored,
            target=table.target(todo.hour, hour.hand.attempt.id, rules.target_bytes),
            group=group,
            settings=spec.compact,
            least=rules.min_bytes,
            most=rules.max_bytes,
            order=table.order,
            key=spec.key,
        )


def _is_as_planned(todo: HourToCompact, live: Collection[LiveFile], table: HourlyTable) -> bool:
    """Tell whether the files of a plan are live, with the deletes that it knows of: no others, and all of these."""
    now = {file.path for file in live}
    index = DeleteIndex.of(live, table.stored.unpartitioned)
    for group in todo.groups:
        deletes = {each.path for file in group.files for each in index.applying_to(file)}
        if deletes != {each.path for each in group.deletes} or any(file.path not in now for file in group.files):
            return False
    return True


def _replaced(todo: HourToCompact, table: HourlyTable, live: Sequence[LiveFile]) -> set[str]:
    """Name what goes with a compaction: the files, and the deletes that apply to none of those that stay."""
    gone = {file.path for group in todo.groups for file in group.files}
    stay = [file for file in live if file.content == DATA and file.path not in gone]
    deletes = DeleteIndex.of(live, table.stored.unpartitioned)
    gone |= {file.path for file in dangling_beside(todo.hour, stay, live, deletes)}
    # Of the hour's own it has just been found out what goes: another part of the hour may have failed since the plan.
    far, there = {file.path for file in todo.dangling if file.hour is None}, {file.path for file in live}
    gone |= far & there
    paths = {file.path for file in stay}
    for file in live:  # what their metadata do not tell
        several = file.content == POSITION_DELETES and not file.refers_to and file.hour == todo.hour.ordinal
        several &= file.file_format == "PARQUET"  # others are of partitions that are left alone
        if several and file.path not in gone and not table.stored.positions_of([file]) & paths:
            gone.add(file.path)
    return gone


def _told(hour: _Hour) -> Compacted:
    files = [file for each in hour.rewritten for file in each.files]
    return Compacted(
        hour.todo.hour,
        hour.todo.files,
        hour.todo.bytes,
        files=len(files),
        bytes=sum(file.size for file in files),
        strategies=tuple(dict.fromkeys((each.strategy, each.reason) for each in hour.rewritten)),
        bytes_apart=sum(each.bytes_apart for each in hour.rewritten),
        requests=sum(each.requests.requests for each in hour.rewritten),
        committed=hour.committed,
        error=hour.failed,
    )

"""One frozen picture of a table: hours and their states, as the ledger's records tell them.

Nothing is asked but the records: no engine, no orchestrator, no data. So the picture is the same for whoever looks.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from lakehouse_pipeline.backfill.plan import NoSourceError
from lakehouse_pipeline.backfill.pulse import STALLED_AFTER
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.errors import LakehouseError
from lakehouse_pipeline.hours import HourRange, HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.ledger.hours import HourLedger
from lakehouse_pipeline.ledger.leases import LEASE
from lakehouse_pipeline.ledger.records import Attempt, HourRecord, Seal
from lakehouse_pipeline.object_store.side_by_side import side_by_side

logger = logging.getLogger(__name__)

RECORDS_AT_ONCE = 32
KEPT = "picture.json"  # in the ledger's folder
PAYS = 100  # records that have to be read: fewer are read as quickly as what was kept of all

State = Literal[
    "committed",
    "compacted",
    "running",
    "stalled",
    "sealed",
    "interrupted",
    "failed",
    "no source",
    "cancelled",
    "not requested",
    "outside start...end",
]
STATES: tuple[State, ...] = get_args(State)
# Begun, and at rest.
UNFINISHED: frozenset[State] = frozenset({"sealed", "interrupted", "failed", "no source", "cancelled"})


@dataclass(frozen=True)
class HourStatus:
    """An hour.

    Attributes:
        hour: the hour.
        state: *compacted* is committed, and its rows were written into other files since; *stalled* is one that runs
            and has not got on for `STALLED_AFTER`; *interrupted*, one whose run was last heard of more than a lease
            ago; *sealed*, one that only has to be committed.
        stage: of a running hour.
        run_id: of the run that holds it, or held it last.
        attempt: under way, or committed.
        sealed_at: when its files were written and checked, if it waits for its commit.
        rows: of the attempt, once it is sealed.
        rejected: rows that the attempt has put aside.
        files: of the attempt.
        bytes: of the attempt.
        requests: that the attempt sent to S3.
        throttles: of them, those that S3 answered with 503.
        snapshot_id: of the commit.
        committed_at: when its run saw the commit land; a later run that skipped the hour has not moved it.
        age: since the record was written, by the store's clock.
        idle: for how long a running hour has not got on.
        error: the class of what the last run failed with.
        message: what it said.
        is_live: whether the table has the hour, from an earlier attempt or from this one.
        live_files: that the table has of it.
        live_bytes: of these.
    """

    hour: HourWindow
    state: State
    stage: str = ""
    run_id: str = ""
    attempt: str = ""
    sealed_at: datetime | None = None
    rows: int = 0
    rejected: int = 0
    files: int = 0
    bytes: int = 0
    requests: int = 0
    throttles: int = 0
    snapshot_id: int | None = None
    committed_at: datetime | None = None
    age: timedelta = timedelta(0)
    idle: timedelta = timedelta(0)
    error: str = ""
    message: str = ""
    is_live: bool = False
    live_files: int = 0
    live_bytes: int = 0


@dataclass(frozen=True)
class TableStatus:
    """A table at a moment.

    Attributes:
        name: of the spec.
        table: of Iceberg.
        as_of: when, by this machine's clock.
        hours: that were asked for, in time order.
        snapshots: of the table.
    """

    name: str
    table: str
    as_of: datetime
    hours: tuple[HourStatus, ...]
    snapshots: int

    @property
    def counts(self) -> Mapping[State, int]:
        """Count hours by state; those without any are left out."""
        found = Counter(each.state for each in self.hours)
        return {state: found[state] for state in STATES if found[state]}

    def of(self, states: frozenset[State]) -> list[HourWindow]:
        """Give the hours that are in one of these states."""
        return [each.hour for each in self.hours if each.state in states]

    @property
    def live(self) -> list[HourStatus]:
        """Those that are in the table, whatever a run is doing about them now."""
        return [each for each in self.hours if each.is_live]


def table_status(spec: TableSpec, table: HourlyTable | None, hours: Sequence[HourWindow]) -> TableStatus:
    """Look at the hours of a table; None is one that does not exist yet.

    Raises:
        TransientError: the store did not answer.
        SafetyError: a record was not written by this version of the software.
    """
    return TableWatch(spec).look(table, hours)


@dataclass(frozen=True)
class _AtRest:
    """What a record said of an hour that nobody was at.

    Attributes:
        version: of the record.
        at: when it was read, by the clock of whoever did: nobody has a lease on it.
        told: what it said then.
    """

    version: str
    at: datetime
    told: HourStatus


class _Kept(BaseModel):
    """Hours at rest as they are kept beside their records, by their keys.

    Attributes:
        form: goes up with every change of what a status means.
        hours: all that are known.
    """

    model_config = ConfigDict(extra="forbid")

    form: Literal[3]
    hours: dict[str, _AtRest]


class TableWatch:
    """Looks at a table again and again, and reads only the records that were written since.

    What many records have said is kept in one object beside them: a process that looks for the first time need not read
    all of them. Losing it costs time only, since it tells of which version of a record it speaks.
    """

    def __init__(self, spec: TableSpec) -> None:
        """Look at the table of a spec; nothing is read yet."""
        self._spec = spec
        self._at_rest: dict[str, _AtRest] = {}
        self._kept_of = ""  # the ledger whose hours are known

    def look(self, table: HourlyTable | None, hours: Sequence[HourWindow]) -> TableStatus:
        """Give its picture, as `table_status` does."""
        known = table.ledger.known() if table else {}
        now, spec = datetime.now(UTC), self._spec
        found = self._statuses(table, known, [hour for hour in hours if hour in known], now) if table else {}

        def told(hour: HourWindow) -> HourStatus:
            return found.get(hour) or HourStatus(
                hour, "not requested" if is_inside(spec, hour) else "outside start...end"
            )

        snapshots = table.snapshots if table else 0
        return TableStatus(spec.name, spec.table, now, tuple(map(told, hours)), snapshots)

    def _statuses(
        self, table: HourlyTable, known: Mapping[HourWindow, str], hours: Sequence[HourWindow], now: datetime
    ) -> dict[HourWindow, HourStatus]:
        """Say what the records of hours say, as far as they are not at rest from having read them."""
        missing = [hour for hour in hours if not self._is_known(hour, known)]
        if len(missing) >= PAYS and self._kept_of != table.ledger.folder:
            self._at_rest |= _kept(table)
            self._kept_of = table.ledger.folder
            missing = [hour for hour in hours if not self._is_known(hour, known)]
        read = side_by_side(table.ledger.hour, missing, RECORDS_AT_ONCE)
        found = dict(zip(missing, map(hour_status, read), strict=True))
        for hour, held in zip(missing, read, strict=True):
            if held.record.attempt is None:  # else what it is depends on how long ago its holder was heard of
                self._at_rest[hour.key] = _AtRest(known[hour], now, found[hour])
        if len(missing) >= PAYS:
            _keep(table, self._at_rest)
        return found | {hour: self._aged(hour, now) for hour in hours if hour not in found}

    def _is_known(self, hour: HourWindow, known: Mapping[HourWindow, str]) -> bool:
        at_rest = self._at_rest.get(hour.key)
        return at_rest is not None and at_rest.version == known[hour]

    def _aged(self, hour: HourWindow, now: datetime) -> HourStatus:
        at_rest = self._at_rest[hour.key]
        passed = max(timedelta(0), now - at_rest.at)  # another machine's clock may have been ahead
        return replace(at_rest.told, age=at_rest.told.age + passed)


def _kept(table: HourlyTable) -> dict[str, _AtRest]:
    """Read what was kept; nothing where it is missing, or of another version of this software."""
    try:
        return _Kept.model_validate_json(table.files.get(f"{table.ledger.folder}/{KEPT}").body).hours
    except (FileNotFoundError, ValidationError):
        return {}


def _keep(table: HourlyTable, at_rest: Mapping[str, _AtRest]) -> None:
    """Keep hours for whoever looks next; who may only read the table does not."""
    body = _Kept(form=3, hours=dict(at_rest)).model_dump_json(exclude_defaults=True).encode()
    try:
        table.files.put(f"{table.ledger.folder}/{KEPT}", body)
    except (LakehouseError, OSError) as error:
        logger.info("%s: what its hours are is not kept: %s: %s", table.identifier, type(error).__name__, error)


def hours_of(spec: TableSpec) -> HourRange:
    """Give all hours of a table: from its start to its end, or to the last one that is over; its first in any case."""
    return spec.hours_over(datetime.now(UTC)) or HourRange(spec.start, spec.start)


def is_inside(spec: TableSpec, hour: HourWindow) -> bool:
    """Tell whether an hour is one of the table's."""
    return hour.start >= spec.start.start and (spec.end is None or hour.start < spec.end.start)


def hour_status(held: HourLedger) -> HourStatus:
    """Say what a record says."""
    told, committed = _told(held), held.record.committed
    if committed is None:
        return told
    seal = committed.seal
    return replace(told, is_live=True, live_files=seal.files, live_bytes=seal.bytes)


def _told(held: HourLedger) -> HourStatus:
    record = held.record
    hour, outcome, committed = HourWindow.from_key(record.hour), record.outcome, record.committed
    if record.attempt is not None:
        return _of_attempt(hour, record, record.attempt, held.age)
    if outcome and outcome.kind in {"failed", "cancelled", "abandoned"}:
        ended: State = "cancelled" if outcome.kind == "cancelled" else "failed"
        ended = "no source" if outcome.error == NoSourceError.__name__ else ended
        said = outcome.error or outcome.kind
        return HourStatus(hour, ended, run_id=outcome.run_id, age=held.age, error=said, message=outcome.message)
    if committed is None:
        return HourStatus(hour, "not requested", age=held.age)
    return HourStatus(
        hour,
        "compacted" if committed.rewritten else "committed",
        run_id=outcome.run_id if outcome else "",
        attempt=committed.attempt,
        snapshot_id=committed.snapshot_id,
        committed_at=committed.at,
        age=held.age,
        **_counts(committed.seal),
    )


def _counts(seal: Seal) -> dict[str, Any]:
    return {
        "rows": seal.rows,
        "rejected": seal.rejected,
        "files": seal.files,
        "bytes": seal.bytes,
        "requests": seal.requests,
        "throttles": seal.throttles,
    }


def _under_way(record: HourRecord, age: timedelta) -> State:
    ended = record.outcome is not None and record.outcome.kind in {"failed", "cancelled"}
    if age <= LEASE and not ended:
        is_idle = record.state == "open" and timedelta(seconds=record.idle_s) >= STALLED_AFTER
        return "stalled" if is_idle else "running"
    return "interrupted" if record.state == "open" else "sealed"


def _of_attempt(hour: HourWindow, record: HourRecord, attempt: Attempt, age: timedelta) -> HourStatus:
    seal, outcome, state = attempt.seal, record.outcome, _under_way(record, age)
    return HourStatus(
        hour,
        state,
        stage=record.stage or record.state,
        run_id=attempt.run_id,
        attempt=attempt.id,
        sealed_at=seal.at if seal else None,
        age=age,
        idle=timedelta(seconds=record.idle_s) + age if state == "stalled" else timedelta(0),
        error=outcome.error if outcome else "",
        message=outcome.message if outcome else "",
        **(_counts(seal) if seal else {}),
    )

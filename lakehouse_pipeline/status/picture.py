"""One frozen picture of a table: hours and their states, as the ledger's records tell them.

Nothing is asked but the records: no engine, no orchestrator, no data. So the picture is the same for whoever looks.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from lakehouse_pipeline.backfill.plan import NoSourceError
from lakehouse_pipeline.backfill.pulse import STALLED_AFTER
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.hours import HourRange, HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.ledger.hours import HourLedger
from lakehouse_pipeline.ledger.leases import LEASE
from lakehouse_pipeline.ledger.records import Attempt, HourRecord
from lakehouse_pipeline.object_store.side_by_side import side_by_side

RECORDS_AT_ONCE = 32

State = Literal[
    "committed",
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
        state: *stalled* is one that runs and has not got on for `STALLED_AFTER`; *interrupted*, one whose run was last
            heard of more than a lease ago; *sealed*, one that only has to be committed.
        stage: of a running hour.
        run_id: of the run that holds it, or held it last.
        attempt: under way, or committed.
        rows: of the attempt, once it is sealed.
        files: of the attempt.
        bytes: of the attempt.
        requests: that the attempt sent to S3.
        throttles: of them, those that S3 answered with 503.
        snapshot_id: of the commit.
        age: since the record was written, by the store's clock.
        idle: for how long a running hour has not got on.
        error: the class of what the last run failed with.
        message: what it said.
        is_live: whether the table has rows of an earlier attempt, or of this one.
    """

    hour: HourWindow
    state: State
    stage: str = ""
    run_id: str = ""
    attempt: str = ""
    rows: int = 0
    files: int = 0
    bytes: int = 0
    requests: int = 0
    throttles: int = 0
    snapshot_id: int | None = None
    age: timedelta = timedelta(0)
    idle: timedelta = timedelta(0)
    error: str = ""
    message: str = ""
    is_live: bool = False


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
    def committed(self) -> list[HourStatus]:
        """Those that are in the table, and of which no run wants anything else."""
        return [each for each in self.hours if each.state == "committed"]


def table_status(spec: TableSpec, table: HourlyTable | None, hours: Sequence[HourWindow]) -> TableStatus:
    """Look at the hours of a table; None is one that does not exist yet.

    Raises:
        TransientError: the store did not answer.
        SafetyError: a record was not written by this version of the software.
    """
    return TableWatch(spec).look(table, hours)


class TableWatch:
    """Looks at a table again and again, and reads only the records that were written since."""

    def __init__(self, spec: TableSpec) -> None:
        """Look at the table of a spec; nothing is read yet."""
        self._spec = spec
        self._at_rest: dict[HourWindow, tuple[str, datetime, HourStatus]] = {}

    def look(self, table: HourlyTable | None, hours: Sequence[HourWindow]) -> TableStatus:
        """Give its picture, as `table_status` does."""
        known = table.ledger.known() if table else {}
        now, spec = datetime.now(UTC), self._spec

        def look(hour: HourWindow) -> HourStatus:
            if table is None or hour not in known:
                return HourStatus(hour, "not requested" if is_inside(spec, hour) else "outside start...end")
            version, at, told = self._at_rest.get(hour, ("", now, None))
            if told and version == known[hour]:
                return replace(told, age=told.age + (now - at))
            held = table.ledger.hour(hour)
            told = hour_status(held)
            if held.record.attempt is None:  # else what it is depends on how long ago its holder was heard of
                self._at_rest[hour] = (known[hour], now, told)
            return told

        found = tuple(side_by_side(look, hours, RECORDS_AT_ONCE))
        return TableStatus(spec.name, spec.table, now, found, len(table.table.snapshots()) if table else 0)


def hours_of(spec: TableSpec) -> HourRange:
    """Give all hours of a table: from its start to its end, or to the last one that is over; its first in any case."""
    return spec.hours_over(datetime.now(UTC)) or HourRange(spec.start, spec.start)


def is_inside(spec: TableSpec, hour: HourWindow) -> bool:
    """Tell whether an hour is one of the table's."""
    return hour.start >= spec.start.start and (spec.end is None or hour.start < spec.end.start)


def hour_status(held: HourLedger) -> HourStatus:
    """Say what a record says."""
    record, attempt = held.record, held.record.attempt
    hour = HourWindow.from_key(record.hour)
    is_live = record.committed is not None
    if attempt is not None:
        state = _under_way(record, held.age)
        return _told(hour, state, record, attempt, held.age, is_live=is_live)
    outcome, committed = record.outcome, record.committed
    if outcome and outcome.kind in {"failed", "cancelled", "abandoned"}:
        ended: State = "cancelled" if outcome.kind == "cancelled" else "failed"
        ended = "no source" if outcome.error == NoSourceError.__name__ else ended
        return HourStatus(
            hour,
            ended,
            run_id=outcome.run_id,
            age=held.age,
            error=outcome.error or outcome.kind,
            message=outcome.message,
            is_live=is_live,
        )
    if committed is None:
        return HourStatus(hour, "not requested", age=held.age)
    seal = committed.seal
    return HourStatus(
        hour,
        "committed",
        run_id=outcome.run_id if outcome else "",
        attempt=committed.attempt,
        rows=seal.rows,
        files=seal.files,
        bytes=seal.bytes,
        requests=seal.requests,
        throttles=seal.throttles,
        snapshot_id=committed.snapshot_id,
        age=held.age,
        is_live=True,
    )


def _under_way(record: HourRecord, age: timedelta) -> State:
    ended = record.outcome is not None and record.outcome.kind in {"failed", "cancelled"}
    if age <= LEASE and not ended:
        is_idle = record.state == "open" and timedelta(seconds=record.idle_s) >= STALLED_AFTER
        return "stalled" if is_idle else "running"
    return "interrupted" if record.state == "open" else "sealed"


def _told(
    hour: HourWindow, state: State, record: HourRecord, attempt: Attempt, age: timedelta, *, is_live: bool
) -> HourStatus:
    seal, outcome = attempt.seal, record.outcome
    return HourStatus(
        hour,
        state,
        stage=record.stage or record.state,
        run_id=attempt.run_id,
        attempt=attempt.id,
        rows=seal.rows if seal else 0,
        files=seal.files if seal else 0,
        bytes=seal.bytes if seal else 0,
        requests=seal.requests if seal else 0,
        throttles=seal.throttles if seal else 0,
        age=age,
        idle=timedelta(seconds=record.idle_s) + age if state == "stalled" else timedelta(0),
        error=outcome.error if outcome else "",
        message=outcome.message if outcome else "",
        is_live=is_live,
    )

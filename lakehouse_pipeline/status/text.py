"""Pictures of tables in words and characters, for terminals and for programs."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from lakehouse_pipeline.backfill.leftovers import LEASE_LOST
from lakehouse_pipeline.backfill.sealed import NeverCommittedError
from lakehouse_pipeline.errors import TransientError
from lakehouse_pipeline.hours import HourRange, HourWindow
from lakehouse_pipeline.planning.units import show_bytes, show_count
from lakehouse_pipeline.status.picture import UNFINISHED, HourStatus, State, TableStatus

MARKS: Mapping[State, str] = {
    "committed": "█",
    "compacted": "▓",
    "running": "▶",
    "stalled": "‖",
    "sealed": "◆",
    "interrupted": "!",
    "failed": "✗",
    "no source": "∅",
    "cancelled": "c",
    "not requested": "·",
    "outside start...end": " ",
}
MOST_DAYS = 62  # rows of the picture
MOST_HOURS = 6  # that a line names
MOST_CAUSES = 12  # that are shown
MOST_MESSAGE = 300  # characters

FIGURES = frozenset("/0123456789")  # places and figures are words that have one of these
QUOTED = re.compile(r"(?<!\w)'[^']*'(?!\w)|\"[^\"]*\"|`[^`]*`")

Cause = tuple[str, str]  # an error's class, and what it said


def status_lines(status: TableStatus) -> list[str]:
    """Draw a table: what there is, a day a line, and what went wrong."""
    hours = show_count(len(status.hours), "hour")
    counts = " · ".join(f"{count} {state}" for state, count in status.counts.items())
    lines = [f"{status.name} ({status.table}), as of {status.as_of:%Y-%m-%d %H:%M:%S} UTC: {hours}, {counts}"]
    lines += _days(status)
    lines += cause_lines(causes_of(status))
    lines += rejected_lines({each.hour: each.rejected for each in status.live if each.rejected})
    if unfinished := status.of(UNFINISHED):
        inside = [each.hour for each in status.hours if each.state != "outside start...end"]
        lines.append(f"Next: lakehouse backfill {status.name} {HourRange(inside[0], inside[-1]).text} --only-failed")
        lines.append(f"Why:  lakehouse why {status.name} {unfinished[0]}")
    return lines


def _days(status: TableStatus) -> list[str]:
    days: dict[str, list[str]] = {}
    for each in status.hours:
        row = days.setdefault(f"{each.hour.start:%Y-%m-%d}", [" "] * 24)
        row[each.hour.start.hour] = MARKS[each.state]
    begun = {day: row for day, row in days.items() if set(row) - {MARKS["not requested"], " "}}
    shown = dict(list(begun.items())[:MOST_DAYS])
    if not shown:
        return []
    used = [state for state in MARKS if state in status.counts and MARKS[state] != " "]
    lines = [f"  {'  '.join(f'{MARKS[state]} {state}' for state in used)}"]
    lines += [f"  {day}  {''.join(row[:12])} {''.join(row[12:])}" for day, row in shown.items()]
    left = len(days) - len(shown)
    return [*lines, f"  and {show_count(left, 'more day')}"] if left else lines


def causes_of(status: TableStatus) -> dict[Cause, list[HourWindow]]:
    """Group the hours that failed, or were cancelled, by why."""
    return group_causes((each.hour, each.error, each.message) for each in status.hours if each.error)


def group_causes(failed: Iterable[tuple[HourWindow, str, str]]) -> dict[Cause, list[HourWindow]]:
    """Put hours together that failed of the same, shown with what the first of them said.

    The same are errors of one class whose messages differ in names, places and figures alone.
    """
    found: dict[Cause, tuple[Cause, list[HourWindow]]] = {}
    for hour, error, message in failed:
        words = QUOTED.sub("…", message).split()
        alike = (error, " ".join("…" if FIGURES.intersection(word) else word for word in words))
        found.setdefault(alike, ((error, message), []))[1].append(hour)
    return dict(sorted(found.values(), key=lambda item: -len(item[1])))


def cause_lines(causes: Mapping[Cause, Sequence[HourWindow]]) -> list[str]:
    """Say what went wrong, the most frequent first."""
    lines = []
    shown, others = most_frequent(causes)
    for (error, message), hours in shown:
        said = _one_line(message)
        lines.append(f"  {len(hours):>3}  {error}: {said[:MOST_MESSAGE]}{'…' * (len(said) > MOST_MESSAGE)}")
        lines.append(f"       {hours_text(hours)}")
    return [*lines, f"  {sum(map(len, others)):>3}  of {len(others)} other causes"] if others else lines


def most_frequent(
    causes: Mapping[Cause, Sequence[HourWindow]],
) -> tuple[list[tuple[Cause, Sequence[HourWindow]]], list[Sequence[HourWindow]]]:
    """Give the causes that are shown with their hours, and the hours of each other one."""
    ordered = list(causes.items())
    return ordered[:MOST_CAUSES], [hours for _, hours in ordered[MOST_CAUSES:]]


def _one_line(message: str) -> str:
    """Write lines behind each other, as sentences."""
    said = ""
    for line in message.splitlines():
        if words := " ".join(line.split()):
            said += f"{'' if not said else ' ' if said[-1] in ':.;,' else '; '}{words}"
    return said


def rejected_lines(rejected: Mapping[HourWindow, int]) -> list[str]:
    """Say how many rows were put aside, and of which hours; nothing of none."""
    if not rejected:
        return []
    count = show_count(len(rejected), "hour")
    return [f"  rows rejected: {sum(rejected.values()):,}, of {count}", f"       {hours_text(sorted(rejected))}"]


def hours_text(hours: Sequence[HourWindow]) -> str:
    """Name the first of some hours, and how many more there are."""
    named = " ".join(hour.key for hour in hours[:MOST_HOURS])
    return f"{named} and {len(hours) - MOST_HOURS} more" if len(hours) > MOST_HOURS else named


def why_lines(name: str, told: HourStatus) -> list[str]:
    """Say why an hour is as it is, and what to type next."""
    attempt = f"attempt {told.attempt}"
    rejected = f", and rejected {told.rejected:,} (lakehouse check {name} --hour {told.hour} shows some)"
    wrote = f"{show_count(told.rows, 'row')} in {show_count(told.files, 'file')}, {show_bytes(told.bytes)}"
    wrote += rejected if told.rejected else ""
    again = f"lakehouse backfill {name} {told.hour}"
    ago = f"{span_text(told.age)} ago"
    landed = f"in snapshot {told.snapshot_id}" if told.snapshot_id else "which changed nothing"
    landed += f", at {told.committed_at:%Y-%m-%d %H:%M} UTC" if told.committed_at else ""
    ended = f": {told.error}: {told.message}" if told.error else ""
    if told.state == "not requested" and told.hour.start > datetime.now(UTC):
        return [f"{told.hour}: has not begun yet: hours are UTC, and it is {datetime.now(UTC):%Y-%m-%d %H:%M}."]
    before = " What an earlier attempt has committed is still in the table." if told.is_live else ""
    hopeless = told.error == NeverCommittedError.__name__
    waits = "never to be committed" if hopeless else "waiting for a commit"
    commits = f"A later run of the hour commits it, with no ETL; now: lakehouse commit {name} --hour {told.hour}"
    said: Mapping[State, str] = {
        "committed": f"committed: {attempt} wrote {wrote}, {landed}.",
        "compacted": f"compacted: {attempt} wrote {wrote} of what the hour had, {landed}.",
        "running": f"running: {attempt} is at {told.stage} (run {told.run_id}, heard of {ago}).{before}",
        "stalled": (
            f"stalled: {attempt} is at {told.stage}, and has not got on for {span_text(told.idle)} (run {told.run_id}, "
            f"heard of {ago}); the run's log has the stacks of its threads.{before}"
        ),
        "sealed": f"sealed, {waits}: {attempt} wrote {wrote} (run {told.run_id}, {ago}{ended}).{before}",
        "interrupted": (
            f"interrupted: run {told.run_id} was last heard of {ago}, with {attempt} at {told.stage}. Its files are "
            f"removed by the next run, or by the sensor that looks for leftovers.{before}"
        ),
        "failed": f"failed {ago} in run {told.run_id}{ended}{'' if ended.endswith('.') else '.'}{before}",
        "no source": f"no source {ago}, in run {told.run_id}{ended}{'' if ended.endswith('.') else '.'}{before}",
        "cancelled": f"cancelled {ago} in run {told.run_id}{ended}.{before}",
        "not requested": "not requested: no run has begun it.",
        "outside start...end": f"outside of the table's start and end: change them in the spec of {name} first.",
    }
    changed = f"If its source, spec or transform has changed: {again}; in any case: {again} --force"
    now: Mapping[State, str] = {
        "committed": changed,
        "compacted": changed,
        "running": f"To follow it: lakehouse status {name} --watch",
        "sealed": f"Now: {again}" if hopeless else commits,
        "interrupted": f"Now: {again}",
        "stalled": "Terminate the run on Dagster's page, or set backfill.hour_deadline; then: " + again,
        "failed": f"Now: {again}" if told.error in _passing() else f"Mend what it says; then: {again}",
        "no source": f"Land it; then: {again}",
        "cancelled": f"Now: {again}",
        "not requested": f"Now: {again}",
    }
    return [f"{told.hour}: {said[told.state]}", *([now[told.state]] if told.state in now else [])]


def _passing() -> frozenset[str]:
    """Name what an hour may have failed with that another run may not meet again."""
    found = [TransientError]
    for each in found:
        found += each.__subclasses__()
    return frozenset({*(each.__name__ for each in found), LEASE_LOST, "abandoned"})


def as_json(status: TableStatus) -> dict[str, Any]:
    """Give a picture as programs read it."""
    return {
        "name": status.name,
        "table": status.table,
        "as_of": status.as_of.isoformat(),
        "snapshots": status.snapshots,
        "counts": dict(status.counts),
        "hours": [hour_json(each) for each in status.hours],
    }


def hour_json(told: HourStatus) -> dict[str, Any]:
    """Give an hour as programs read it."""
    spans = {"age": round(told.age.total_seconds(), 3), "idle": round(told.idle.total_seconds(), 3)}
    return {**vars(told), "hour": told.hour.key, **spans}


def span_text(age: timedelta) -> str:
    """Write a span in the largest unit of which it has two."""
    seconds = int(age.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"

"""Whether a table is healthy: figures of its picture, each held against a threshold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lakehouse_pipeline.backfill.leftovers import Orphans, find_orphans
from lakehouse_pipeline.config.health import HealthSettings
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.status.picture import State, TableStatus, hours_of, table_status
from lakehouse_pipeline.status.text import hours_text, span_text

FAILED: frozenset[State] = frozenset({"failed", "no source", "interrupted", "cancelled"})
STALLED: frozenset[State] = frozenset({"stalled"})
RECENT = timedelta(days=1)

CHECKS: Mapping[str, str] = {
    "failed_hours": "No hour has failed, was interrupted or cancelled, or has no source.",
    "stalled_hours": "No hour runs without getting on.",
    "sealed_for": "No sealed hour waits long for its commit.",
    "throttle_share": "S3 answers few of the requests with 503, over a day.",
    "orphan_bytes": "Ended attempts have left little behind.",
    "freshness": "The newest hour is as new as the spec's `freshness` asks for.",
}


@dataclass(frozen=True)
class Finding:
    """One threshold, and what was found.

    Attributes:
        check: its name.
        passed: whether it holds.
        value: what was found: a count, a share, bytes or seconds.
        limit: what may be.
        said: both, for people.
    """

    check: str
    passed: bool
    value: float
    limit: float
    said: str


def checks_for(spec: TableSpec) -> Mapping[str, str]:
    """Give the checks of a table, and what they say."""
    return {name: text for name, text in CHECKS.items() if name != "freshness" or spec.freshness}


def health_of(
    spec: TableSpec, settings: HealthSettings, status: TableStatus, orphans: Orphans | None
) -> tuple[Finding, ...]:
    """Hold a picture against the thresholds.

    Args:
        spec: of the table.
        settings: the thresholds.
        status: of all hours, for `freshness`; the other checks are about those that it has.
        orphans: what was measured; without it that check is left out.
    """
    failed, stalled = status.of(FAILED), status.of(STALLED)
    waiting = max((each.age for each in status.hours if each.state == "sealed"), default=timedelta(0))
    findings = [
        _finding("failed_hours", len(failed), settings.failed_hours, lambda count: f"{count:.0f}", hours_text(failed)),
        _finding(
            "stalled_hours", len(stalled), settings.stalled_hours, lambda count: f"{count:.0f}", hours_text(stalled)
        ),
        _finding("sealed_for", waiting.total_seconds(), settings.sealed_for.total_seconds(), _seconds),
        _finding("throttle_share", throttle_share(status), settings.throttle_share, lambda share: f"{share:.1%}"),
    ]
    if orphans is not None:
        of = f"{orphans.files} files of {orphans.attempts} attempts"
        findings.append(_finding("orphan_bytes", orphans.bytes, settings.orphan_bytes, _megabytes, of))
    if spec.freshness:
        age = _age_of_newest(spec, status)
        findings.append(_finding("freshness", age.total_seconds(), spec.freshness.total_seconds(), _seconds))
    return tuple(findings)


def examine(
    spec: TableSpec, settings: HealthSettings, table: HourlyTable | None
) -> tuple[TableStatus, tuple[Finding, ...]]:
    """Look at all hours of a table, and hold them against the thresholds; None is a table that does not exist yet.

    Raises:
        TransientError: the store did not answer.
        SafetyError: a record was not written by this version of the software.
    """
    status = table_status(spec, table, hours_of(spec))
    return status, health_of(spec, settings, status, find_orphans(table) if table else Orphans())


def throttle_share(status: TableStatus) -> float:
    """Give the share of 503s in what attempts of the last day have sent to S3."""
    recent = [each for each in status.hours if each.age <= RECENT]
    requests = sum(each.requests for each in recent)
    return sum(each.throttles for each in recent) / requests if requests else 0.0


def finding_json(finding: Finding) -> dict[str, Any]:
    """Give a finding as programs read it."""
    return dict(vars(finding))


def finding_line(finding: Finding) -> str:
    """Give a finding as people read it."""
    return f"  {'ok    ' if finding.passed else 'BROKEN'}  {finding.check:<15}{finding.said}"


def _finding(check: str, value: float, limit: float, show: Callable[[float], str], what: str = "") -> Finding:
    said = f"{show(value)}, at most {show(limit)}{f': {what}' if what and value else ''}"
    return Finding(check, value <= limit, value, limit, said)


def _age_of_newest(spec: TableSpec, status: TableStatus) -> timedelta:
    """Tell how long ago the newest committed hour ended; without any, how long ago the table's first hour did."""
    newest = max((each.hour.end for each in status.committed), default=spec.start.end)
    return max(timedelta(0), _last_moment(spec, status.as_of) - newest)


def _last_moment(spec: TableSpec, now: datetime) -> datetime:
    """Give the moment up to which there can be data: a table that has ended gets no older."""
    return min(now, spec.end.start) if spec.end else now


def _seconds(value: float) -> str:
    return span_text(timedelta(seconds=value))


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.1f} MB"

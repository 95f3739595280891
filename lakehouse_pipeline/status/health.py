"""Whether a table is healthy: figures of its picture, each held against a threshold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from lakehouse_pipeline.backfill.leftovers import Orphans, find_orphans
from lakehouse_pipeline.config.health import HealthSettings
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.errors import LakehouseError
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.planning.units import show_bytes, show_count
from lakehouse_pipeline.status.picture import State, TableStatus, TableWatch, hours_of
from lakehouse_pipeline.status.text import hours_text, span_text
from lakehouse_pipeline.status.upkeep import Upkeep, measure

FAILED: frozenset[State] = frozenset({"failed", "no source", "interrupted", "cancelled"})
STALLED: frozenset[State] = frozenset({"stalled"})
RECENT = timedelta(days=1)
OF_WHOLE = (
    *("small_files", "delete_ratio", "manifests", "snapshots"),
    *("swept_bytes", "quarantine_bytes", "open_uploads"),
)

CHECKS: Mapping[str, str] = {
    "failed_hours": "No hour has failed, was interrupted or cancelled, or has no source.",
    "stalled_hours": "No hour runs without getting on.",
    "sealed_for": "No sealed hour waits long for its commit.",
    "throttle_share": "S3 answers few of the requests with 503, over a day.",
    "orphan_bytes": "Ended attempts have left little behind.",
    "small_files": "Few data files are smaller than compaction leaves them.",
    "delete_ratio": "Few rows are deleted by delete files, which every reader has to apply.",
    "manifests": "The current snapshot has few manifests.",
    "snapshots": "There are few snapshots.",
    "swept_bytes": "The last audit of the table's folders has found few orphans, or they were swept.",
    "quarantine_bytes": "Little waits in the quarantine to be purged.",
    "open_uploads": "No multipart upload is open for more than a day.",
    "freshness": "The newest hour is as new as the spec's `freshness` asks for.",
}

# What is done about a check that does not hold, by whom and when; {0} is the table.
REMEDIES: Mapping[str, str] = {
    "failed_hours": "lakehouse why {0} HOUR tells why; lakehouse backfill {0} RANGE --only-failed runs them again",
    "stalled_hours": "lakehouse why {0} HOUR tells where; a cancelled run's hours are closed, and can run again",
    "sealed_for": "its run, or the job close_attempts within ten minutes of that run's end; now: lakehouse commit {0}",
    "throttle_share": "writers slow down by themselves; fewer hours in flight ask S3 for less",
    "orphan_bytes": "the sensor leftovers has them removed within ten minutes, once their runs have ended",
    "small_files": "{0}_compaction_watch, every ten minutes where it is started; now: lakehouse compact {0}",
    "delete_ratio": "{0}_compaction_watch, every ten minutes where it is started; now: lakehouse compact {0}",
    "manifests": "{0}_manifests_watch, every hour where it is started; now: lakehouse manifests {0}",
    "snapshots": "{0}_expiry_watch, every hour where it is started; now: lakehouse expire {0}",
    "swept_bytes": "{0}_sweep_watch, every day where it is started; now: lakehouse sweep {0}",
    "quarantine_bytes": "{0}_purge_watch, every day where it is started; now: lakehouse purge {0}",
    "open_uploads": "{0}_sweep_watch, every day where it is started; now: lakehouse sweep {0}",
    "freshness": "the schedule {0}_hourly, where it is started; now: lakehouse backfill {0} RANGE",
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
        then: what is done about it, by whom and when; empty where it holds.
    """

    check: str
    passed: bool
    value: float
    limit: float
    said: str
    then: str = ""


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
    waiting = max((status.as_of - each.sealed_at for each in status.hours if each.sealed_at), default=timedelta(0))
    findings = [
        _finding("failed_hours", len(failed), settings.failed_hours, _count, hours_text(failed)),
        _finding("stalled_hours", len(stalled), settings.stalled_hours, _count, hours_text(stalled)),
        _finding("sealed_for", waiting.total_seconds(), settings.sealed_for.total_seconds(), _seconds),
        _finding("throttle_share", throttle_share(status), settings.throttle_share, _per_cent),
    ]
    if orphans is not None:
        more = f" of {orphans.attempts}" if orphans.measured < orphans.attempts else ""
        of = f"{show_count(orphans.files, 'file')} of {orphans.measured}{more} attempts"
        findings.append(_finding("orphan_bytes", orphans.bytes, settings.orphan_bytes, show_bytes, of))
    if spec.freshness:
        age = _age_of_newest(spec, status)
        findings.append(_finding("freshness", age.total_seconds(), spec.freshness.total_seconds(), _seconds))
    return _with_remedies(spec, findings)


def health_of_whole(spec: TableSpec, settings: HealthSettings, upkeep: Upkeep) -> tuple[Finding, ...]:
    """Hold what there is to do about a table as a whole against the thresholds."""
    share = upkeep.small / upkeep.files if upkeep.files else 0.0
    audit = upkeep.audit
    audited = f"{show_count(audit.orphans, 'file')}, by the audit of {audit.as_of:%Y-%m-%d %H:%M} UTC" if audit else ""
    small = f"{upkeep.small} of the {upkeep.files} data files of the newest manifests"
    orphans = _finding("swept_bytes", audit.orphan_bytes if audit else 0, settings.swept_bytes, show_bytes, audited)
    if audit is None:
        orphans = replace(orphans, said="never audited: lakehouse sweep --dry-run looks")
    findings = [
        _finding("small_files", share, settings.small_files, _per_cent, small),
        _finding("delete_ratio", upkeep.delete_ratio, settings.delete_ratio, _per_cent),
        _finding("manifests", upkeep.manifests, settings.manifests, _count),
        _finding("snapshots", upkeep.snapshots, settings.snapshots, _count),
        orphans,
        _finding("quarantine_bytes", upkeep.quarantine_bytes, settings.quarantine_bytes, show_bytes),
        _finding("open_uploads", upkeep.uploads, settings.open_uploads, _count),
    ]
    return _with_remedies(spec, findings)


def examine(
    spec: TableSpec, settings: HealthSettings, table: HourlyTable | None, watch: TableWatch | None = None
) -> tuple[TableStatus, tuple[Finding, ...]]:
    """Look at all hours of a table, and hold them against the thresholds.

    Args:
        spec: of the table.
        settings: the thresholds.
        table: None is one that does not exist yet.
        watch: that has looked before, if there is one.

    Raises:
        TransientError: the store did not answer.
        SafetyError: a record was not written by this version of the software.
    """
    status = (watch or TableWatch(spec)).look(table, hours_of(spec))
    try:
        findings = health_of(spec, settings, status, find_orphans(table) if table else Orphans())
    except (LakehouseError, OSError) as error:  # the other checks go on; snapshots may be expired just now
        findings = (*health_of(spec, settings, status, None), _unknown("orphan_bytes", settings.orphan_bytes, error))
    if table is None:
        return status, findings
    try:
        return status, (*findings, *health_of_whole(spec, settings, measure(spec, table, status.as_of)))
    except (LakehouseError, OSError) as error:
        return status, (*findings, *(_unknown(check, getattr(settings, check), error) for check in OF_WHOLE))


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
    line = f"  {'ok    ' if finding.passed else 'BROKEN'}  {finding.check:<18}{finding.said}"
    return f"{line}\n{'':<28}then: {finding.then}" if finding.then else line


def _with_remedies(spec: TableSpec, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(
        each if each.passed else replace(each, then=REMEDIES[each.check].format(spec.name)) for each in findings
    )


def _unknown(check: str, limit: float, error: Exception) -> Finding:
    return Finding(check, False, 0, limit, f"cannot be measured: {type(error).__name__}: {error}")


def _finding(check: str, value: float, limit: float, show: Callable[[float], str], what: str = "") -> Finding:
    said = f"{show(value)}, at most {show(limit)}{f': {what}' if what and value else ''}"
    return Finding(check, value <= limit, value, limit, said)


def _age_of_newest(spec: TableSpec, status: TableStatus) -> timedelta:
    """Tell how long ago the newest hour of the table ended; without any, how long ago the table's first hour did."""
    newest = max((each.hour.end for each in status.live), default=spec.start.end)
    return max(timedelta(0), _last_moment(spec, status.as_of) - newest)


def _last_moment(spec: TableSpec, now: datetime) -> datetime:
    """Give the moment up to which there can be data: a table that has ended gets no older."""
    return min(now, spec.end.start) if spec.end else now


def _seconds(value: float) -> str:
    return span_text(timedelta(seconds=value))


def _count(value: float) -> str:
    return f"{value:.0f}"


def _per_cent(value: float) -> str:
    return f"{value:.1%}"

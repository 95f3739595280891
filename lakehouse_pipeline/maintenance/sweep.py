"""The sweep: orphans that an audit has found go into the quarantine, or for good.

Leftovers of attempts that the ledger knows of are not a sweep's: `backfill.leftovers` removes them by name, minutes
after a failure. A sweep is for what is left then: other writers' files, and those of a ledger that was lost.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from lakehouse_pipeline import events
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.errors import SafetyError
from lakehouse_pipeline.iceberg.folders import folders_of
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.ledger.records import new_attempt_id
from lakehouse_pipeline.maintenance.audit import Audit, AuditReport, SweepRules, audited
from lakehouse_pipeline.maintenance.lease import Held
from lakehouse_pipeline.maintenance.quarantine import Quarantine, Restored, SweepRecord
from lakehouse_pipeline.object_store.objects import OpenUpload
from lakehouse_pipeline.object_store.places import SPELLINGS
from lakehouse_pipeline.object_store.requests import DELETE_PAGE_KEYS

logger = logging.getLogger(__name__)

AUDIT = "audit.json"


class LastAudit(BaseModel):
    """What the last audit of a table found, and what its sweep left of it.

    Attributes:
        as_of: when, by the store's clock.
        orphans: files that stayed.
        orphan_bytes: of them.
        uploads: open multipart uploads that stayed.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    as_of: datetime
    orphans: int
    orphan_bytes: int
    uploads: int


@dataclass(frozen=True)
class Swept:
    """What a sweep did.

    Attributes:
        report: what was found.
        sweep: its id; empty where nothing was moved or deleted.
        quarantined: whether it can be undone.
        files: that are gone from where they were.
        bytes: of them.
        spared: orphans of which somebody turned out to know when it came to it.
        uploads: that were aborted.
    """

    report: AuditReport
    sweep: str = ""
    quarantined: bool = False
    files: int = 0
    bytes: int = 0
    spared: int = 0
    uploads: int = 0


def audit_table(
    warehouse: Warehouse, spec: TableSpec, table: HourlyTable, rules: SweepRules, held: Held
) -> AuditReport:
    """Look for orphans, and remove none.

    Raises:
        SafetyError: what is found could not be relied on; see `audited`.
        TransientError: the store or the catalog did not answer.
    """
    with audited(warehouse, spec, table, rules, held) as audit:
        _remember(table, Swept(audit.report))
        return audit.report


def sweep(
    warehouse: Warehouse, spec: TableSpec, table: HourlyTable, rules: SweepRules, held: Held, *, delete: bool
) -> Swept:
    """Look for orphans, and move them into the quarantine, or delete them; uploads that nobody goes on with end, too.

    A sweep that was killed before is ended first; what it left is found again.

    Args:
        warehouse: where the table is.
        spec: the table's.
        table: loaded now.
        rules: what is an orphan, and how much may go.
        held: the maintenance lease.
        delete: for good.

    Raises:
        SafetyError: refused; nothing was removed.
        CommitConflictError: the maintenance lease was lost; what was done is done.
        TransientError: the store or the catalog did not answer; the next sweep goes on.
    """
    quarantine = Quarantine(table.files, table.ledger.folder)
    for record, _ in quarantine.sweeps():
        if record.state in {"moving", "deleting"}:
            held.check()
            logger.warning("%s: sweep %s was not ended; it is now", table.identifier, record.sweep)
            quarantine.settle(record)
    with audited(warehouse, spec, table, rules, held) as audit:
        if audit.report.refused:
            _remember(table, Swept(audit.report))
            raise SafetyError(f"{table.identifier} is not swept: {audit.report.refused}")
        swept = Swept(audit.report, quarantined=not delete)
        if audit.report.orphans.files:
            swept = _removed(table, audit, quarantine, swept, held, delete=delete)
        swept = replace(swept, uploads=_abort(table, audit.still_open(audit.report.uploads)))
    _remember(table, swept)
    return swept


def _removed(
    table: HourlyTable, audit: Audit, quarantine: Quarantine, swept: Swept, held: Held, *, delete: bool
) -> Swept:
    record = SweepRecord(
        sweep=new_attempt_id(),
        run_id=held.run_id,
        as_of=audit.report.as_of,
        state="deleting" if delete else "moving",
    )
    quarantine.note(record)
    events.emit("sweep.began", table.identifier, sweep=record.sweep, orphans=audit.report.orphans.files)
    spared = 0
    for number, (asked, orphans) in enumerate(audit.orphans(DELETE_PAGE_KEYS)):
        spared += asked - len(orphans)
        gone = orphans
        if not delete:
            copied = set(quarantine.copy(record.sweep, number, [(each.url, each.size) for each in orphans]))
            events.emit("sweep.copied", table.identifier, sweep=record.sweep, files=len(copied), batch=number)
            gone = audit.still([each for each in orphans if each.url in copied])  # copies of large files take long
            spared += len(copied) - len(gone)
            quarantine.check_moving(record.sweep)
        table.files.delete_objects([each.url for each in gone])
        size = sum(each.size for each in gone)
        record = record.model_copy(update={"files": record.files + len(gone), "bytes": record.bytes + size})
        quarantine.note(record)
        events.emit("sweep.removed", table.identifier, sweep=record.sweep, files=len(gone), batch=number)
    quarantine.note(record.model_copy(update={"state": "deleted" if delete else "moved"}))
    return replace(swept, sweep=record.sweep, files=record.files, bytes=record.bytes, spared=spared)


def _abort(table: HourlyTable, uploads: Sequence[OpenUpload]) -> int:
    for each in uploads:
        table.files.abort_upload(each.url, each.upload)
    return len(uploads)


def restore(table: HourlyTable, sweep_id: str, held: Held) -> Restored:
    """Undo a sweep: what it has moved is where it was, with the same bytes, unless something else is there.

    Raises:
        SafetyError: there is nothing to undo, or the records of it lead elsewhere; nothing was put back.
        TransientError: the store did not answer; call again.
    """
    held.check()
    events.emit("sweep.restored", table.identifier, sweep=sweep_id)
    folders = folders_of(table.table, SPELLINGS)
    return Quarantine(table.files, table.ledger.folder).restore(sweep_id, folders)


@dataclass(frozen=True)
class Purged:
    """What was removed from the quarantine, or would be.

    Attributes:
        sweeps: whose files went.
        bytes: of them.
        kept: sweeps that can still be undone.
        kept_bytes: of them.
    """

    sweeps: tuple[str, ...]
    bytes: int
    kept: tuple[str, ...]
    kept_bytes: int


def purge(table: HourlyTable, older_than: timedelta, held: Held, *, dry_run: bool = False) -> Purged:
    """Remove from the quarantine what was moved there long ago, by the store's clock.

    Raises:
        TransientError: the store did not answer; call again.
    """
    quarantine = Quarantine(table.files, table.ledger.folder)
    old, kept = purgeable(table, older_than)
    for record in () if dry_run else old:
        held.check()
        events.emit("sweep.purged", table.identifier, sweep=record.sweep)
        quarantine.purge(record.sweep)
    return Purged(
        tuple(each.sweep for each in old),
        sum(each.bytes for each in old if each.state == "moved"),
        tuple(each.sweep for each in kept if each.state == "moved"),
        sum(each.bytes for each in kept if each.state == "moved"),
    )


def purgeable(table: HourlyTable, older_than: timedelta) -> tuple[list[SweepRecord], list[SweepRecord]]:
    """Tell the sweeps whose files may go for good from those that are kept."""
    found = Quarantine(table.files, table.ledger.folder).sweeps()
    # One that was killed is ended by the next sweep first: of what it was about to move there may be no copy yet.
    old = [record for record, age in found if age >= older_than and record.state not in {"moving", "deleting"}]
    return old, [record for record, _ in found if record not in old]


def last_audit(table: HourlyTable) -> LastAudit | None:
    """Give what the last audit found; None if there was none."""
    try:
        return LastAudit.model_validate_json(table.files.get(f"{table.ledger.folder}/{AUDIT}").body)
    except FileNotFoundError:
        return None


def quarantine_bytes(table: HourlyTable) -> int:
    """Add up what is in the quarantine."""
    found = Quarantine(table.files, table.ledger.folder).sweeps()
    return sum(record.bytes for record, _ in found if record.state in {"moving", "moved"})


def _remember(table: HourlyTable, swept: Swept) -> None:
    report = swept.report
    told = LastAudit(
        as_of=report.as_of,
        orphans=report.orphans.files - swept.files - swept.spared,
        orphan_bytes=max(0, report.orphans.bytes - swept.bytes),
        uploads=len(report.uploads) - swept.uploads,
    )
    table.files.put(f"{table.ledger.folder}/{AUDIT}", told.model_dump_json(indent=1).encode())

"""What there is to do about a table as a whole: small files, deletes, manifests, snapshots, orphans, open uploads."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.iceberg.folders import folders_of
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.manifests import DATA
from lakehouse_pipeline.maintenance.plan import Rules
from lakehouse_pipeline.maintenance.sweep import LastAudit, last_audit, quarantine_bytes
from lakehouse_pipeline.object_store.places import SPELLINGS

# Live files and manifests that are looked at: one after the other is read, and a sensor's tick has 60 s in all.
FILES_SEEN, MANIFESTS_SEEN = 50_000, 100
LEAKED_AFTER = timedelta(days=1)  # no part of an upload takes as long


@dataclass(frozen=True)
class Upkeep:
    """What was measured of a table.

    Attributes:
        files: data files that were looked at, those of the newest manifests first.
        small: of them, those that are smaller than compaction leaves them, where there are enough for it.
        delete_ratio: rows of delete files for each row of the table.
        manifests: of the current snapshot.
        snapshots: that were not expired.
        audit: the last one; None if there was none.
        quarantine_bytes: what can still be put back.
        uploads: open multipart uploads that were begun more than a day ago.
    """

    files: int
    small: int
    delete_ratio: float
    manifests: int
    snapshots: int
    audit: LastAudit | None
    quarantine_bytes: int
    uploads: int


def measure(spec: TableSpec, table: HourlyTable, now: datetime) -> Upkeep:
    """Measure a table; reads metadata and the ledger, of entries of manifests some only.

    Args:
        spec: the table's.
        table: loaded now.
        now: for the age of uploads.

    Raises:
        TransientError: the store did not answer.
        ConfigurationError: it refuses, such as to list uploads.
    """
    rules = Rules.of(spec.compact, spec.file_size, table.table.properties)
    looked_at = Counter(
        (file.spec_id, file.partition, file.bytes < rules.min_bytes)
        for file in islice(table.all_live(newest=MANIFESTS_SEEN), FILES_SEEN)
        if file.content == DATA
    )
    enough, summary = rules.settings.min_input_files, table.summary
    rows = int(summary.get("total-records", 0))
    deletes = int(summary.get("total-position-deletes", 0)) + int(summary.get("total-equality-deletes", 0))
    folders = folders_of(table.table, SPELLINGS)
    begun = (each.begun for folder in folders for each in table.files.list_uploads(f"{folder}/"))
    return Upkeep(
        files=looked_at.total(),
        small=sum(count for (_, _, is_small), count in looked_at.items() if is_small and count >= enough),
        delete_ratio=deletes / rows if rows else 0.0,
        manifests=table.manifests,
        snapshots=table.snapshots,
        audit=last_audit(table),
        quarantine_bytes=quarantine_bytes(table),
        uploads=sum(now - moment > LEAKED_AFTER for moment in begun),
    )

"""The table of `growth.py`: hours that were committed in groups, as by a backfill; of their files there is none.

Manifests, snapshots and records of hours are the product's own; of data files there are only their entries, which are
those of one file that was written, beside names of their own.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from lakehouse_pipeline.backfill.plan import observe_inputs, recipe_of, source_of
from lakehouse_pipeline.config.lakehouse import Lakehouse, load_lakehouse
from lakehouse_pipeline.config.paths import render
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.data_files import WrittenFile
from lakehouse_pipeline.iceberg.event_time import Entry
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.manifests import digest
from lakehouse_pipeline.iceberg.sealed_hours import SealedHour
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.ledger.records import Committed, Outcome, Seal, new_attempt_id
from tests.iceberg.entries import decode_entry
from tests.iceberg.lake import Lake, in_bucket

TOGETHER = 24  # hours of a commit
SPARE = 100  # of the table's hours that are not committed
WATCHED = timedelta(days=7)  # by the sensor of late files
FILE_BYTES = 500_000_000  # that a file is said to have: nothing to compact
TYPES = {"at": "timestamptz!", "id": "long!", **{f"value_{place:02}": "double" for place in range(18)}}

LAKEHOUSE = """\
catalog: {type: sql, uri: "sqlite:///catalog.db", warehouse: warehouse}
"""
SPEC = f"""\
table: bench.events
source: {{path: raw/%Y/%m/%d/%H.jsonl, columns: {{{", ".join(f"{name}: {kind}" for name, kind in TYPES.items())}}}}}
hour: at
start: "START"
late: {WATCHED.days}d
"""


@dataclass
class Grown:
    """A table that grows: the newest hour is committed first, so that some of them are always watched.

    Attributes:
        folder: of its lakehouse.
        files: of an hour.
        hours: that are committed.
    """

    folder: Path
    files: int
    hours: int = 0

    @classmethod
    def begin(cls, folder: Path, files: int) -> "Grown":
        """Make an empty table."""
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "tables").mkdir(parents=True)
        (folder / "lakehouse.yaml").write_text(LAKEHOUSE)
        grown = cls(folder, files)
        grown.describe()
        spec = grown.lakehouse.specs[0]
        grown.warehouse.create(spec, spec.target_columns or ())
        return grown

    @cached_property
    def newest(self) -> HourWindow:
        """The last hour that is over."""
        now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        return HourWindow(now - timedelta(hours=1))

    @cached_property
    def warehouse(self) -> Warehouse:
        """The catalog."""
        return Warehouse.open(self.lakehouse.catalog)

    @property
    def lakehouse(self) -> Lakehouse:
        """The lakehouse as its files have it."""
        return load_lakehouse(self.folder / "lakehouse.yaml", {})

    @property
    def lake(self) -> Lake:
        """The table."""
        return Lake(self.warehouse.catalog, "bench.events")

    @property
    def now(self) -> HourlyTable:
        """The table as it is."""
        return self.lake.now

    def hour(self, place: int) -> HourWindow:
        """Give the hour that is committed after so many."""
        return HourWindow.from_ordinal(self.newest.ordinal - place)

    def describe(self) -> None:
        """Write the spec: the table's hours are those that are committed, and some."""
        start = self.hour(self.hours + SPARE).key
        (self.folder / "tables/events.yaml").write_text(SPEC.replace("START", start))

    def grow(self, hours: int) -> None:
        """Commit hours until there are so many."""
        while self.hours < hours:
            some = [self.hour(self.hours + place) for place in range(min(TOGETHER, hours - self.hours))]
            self._commit(some)
            self.hours += len(some)
        self.describe()

    def _commit(self, hours: Sequence[HourWindow]) -> None:
        table = self.now
        sealed = [
            SealedHour(hour, attempt := new_attempt_id(), digest([]), self.seal(table, hour, attempt)) for hour in hours
        ]
        snapshot_id = self.lake.replace(*sealed).snapshot_id
        for each in sealed:
            self._record(table, each, snapshot_id)

    def seal(self, table: HourlyTable, hour: HourWindow, attempt: str) -> Seal:
        """Write the manifests of an attempt."""
        return table.seal(attempt, list(self.written(table, hour, attempt)), rows_read=None, rejected=0)

    def written(self, table: HourlyTable, hour: HourWindow, attempt: str) -> Iterator[WrittenFile]:
        """Say what a task would of an attempt's files; there are none."""
        target = table.target(hour, attempt, 1)
        data_file = {**self._sample["data_file"], "partition": target.partitions.record(())}
        for bucket in range(self.files):
            path = target.file_url(bucket, 0, 0)
            entry = {**self._sample, "data_file": {**data_file, "file_path": path}}
            rows = data_file["record_count"]
            yield WrittenFile(path, rows, FILE_BYTES, "", target.kind.encode(entry))

    @cached_property
    def _sample(self) -> Entry:
        """Write one file, take its entry, and remove it."""
        hour, table = self.hour(0), self.now
        values: dict[str, Any] = {name: pa.array([0.5]) for name in TYPES}
        values |= {"at": pa.array([hour.start]), "id": pa.array([1], pa.int64())}
        rows = pa.RecordBatch.from_pydict(values, schema=table.arrow_schema)
        (written,) = self.lake.write(hour, [in_bucket(0, rows)])
        table.files.delete(written.path)
        entry = decode_entry(written.entry, table.table.spec(), table.table.schema())
        return {**entry, "data_file": {**entry["data_file"], "file_size_in_bytes": FILE_BYTES}}

    def land(self, hour: HourWindow) -> str:
        """Write an hour's raw file; gives the fingerprint of its source."""
        spec = self.lakehouse_spec
        raw = Path(render(spec.source.path, hour).removeprefix("file://"))
        raw.parent.mkdir(parents=True, exist_ok=True)
        raw.write_text("{}\n")
        return source_of(spec, observe_inputs(spec, self.warehouse.files, hour))

    @cached_property
    def lakehouse_spec(self) -> Any:
        """The spec, but for its start."""
        return self.lakehouse.specs[0]

    @cached_property
    def recipe(self) -> str:
        """Everything but their objects that hours are made from."""
        return recipe_of(self.lakehouse_spec, {})

    def _record(self, table: HourlyTable, sealed: SealedHour, snapshot_id: int | None) -> None:
        now = datetime.now(UTC)
        committed = Committed(
            attempt=sealed.attempt,
            at=now,
            snapshot_id=snapshot_id,
            source=self.land(sealed.hour),
            recipe=self.recipe,
            seal=sealed.seal.model_copy(update={"at": now}).of_hour,
            run=sealed.attempt,
        )
        outcome = Outcome(kind="committed", at=now, run_id="run")
        table.ledger.hour(sealed.hour).advance(epoch=1, committed=committed, outcome=outcome)

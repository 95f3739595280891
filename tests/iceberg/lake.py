"""A small table of events in a catalog of its own: what the tests of this folder write, replace and read back."""

import json
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import ManifestEntry
from pyiceberg.table import Table

from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.types import Column
from lakehouse_pipeline.config.validation import validated
from lakehouse_pipeline.config.yaml_source import parse_document
from lakehouse_pipeline.hours import HOUR, HourWindow
from lakehouse_pipeline.iceberg.commit import BeforeSend, Replaced, replace_hours
from lakehouse_pipeline.iceberg.data_files import BUCKET, WrittenFile, write_batches, written_files
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.manifests import digest
from lakehouse_pipeline.iceberg.schemas import arrow_schema_of
from lakehouse_pipeline.iceberg.sealed_hours import SealedHour
from lakehouse_pipeline.iceberg.tables import create_table
from lakehouse_pipeline.ledger.records import new_attempt_id

TEN = HourWindow.from_key("2013-01-01-10:00")
ELEVEN = HourWindow.from_key("2013-01-01-11:00")
TWELVE = HourWindow.from_key("2013-01-01-12:00")
MEGABYTE = 1_000_000
EVENTS = {"at": "timestamptz!", "id": "long!", "name": "string"}


def columns(types: Mapping[str, str]) -> tuple[Column, ...]:
    """Read columns as a spec writes them."""
    return tuple(Column.parse(name, text) for name, text in types.items())


def spec_of(types: Mapping[str, str], keys: Mapping[str, object]) -> TableSpec:
    """Read the spec of a table of its own name, if `keys` gives no other; its hour is the first column's."""
    read = {
        "table": f"n{uuid.uuid4().hex[:12]}.events",
        "source": {"path": "/raw/%Y/%m/%d/%H.csv", "columns": dict(types)},
        "hour": next(iter(types)),
        "start": "2013-01-01",
        **keys,
    }
    placed = {"name": "events", "file": Path("/tables/events.yaml")}
    spec, problems = validated(TableSpec, parse_document(json.dumps(read), "events.yaml"), placed, Path("/"))
    assert spec, problems
    return spec


def _sort_field(name: str) -> str:
    return f"{name[1:]} desc" if name.startswith("-") else name


def events(hour: HourWindow, ids: Iterable[int]) -> pa.RecordBatch:
    """Make one event per id, `id` seconds into the hour (and round again)."""
    numbers = list(ids)
    return pa.RecordBatch.from_pydict(
        {
            "at": pa.array([hour.start + timedelta(seconds=number % 3600) for number in numbers]),
            "id": pa.array(numbers, pa.int64()),
            "name": pa.array([f"event {number}" for number in numbers]),
        },
        schema=arrow_schema_of(columns(EVENTS)),
    )


def in_bucket(bucket: int, rows: pa.RecordBatch) -> pa.RecordBatch:
    """Send rows to a bucket."""
    return rows.append_column(BUCKET, pa.array([bucket] * rows.num_rows, pa.int32()))


def send(_base: int | None, _snapshot_id: int) -> None:
    """Let every commit be sent."""


@dataclass(frozen=True)
class Lake:
    """One table; every method sees it as it is at the call."""

    catalog: Catalog
    identifier: str
    hour: str = "at"

    @classmethod
    def create(
        cls,
        catalog: Catalog,
        types: Mapping[str, str] = EVENTS,
        *,
        sort: Sequence[str] = (),
        partition: Sequence[str] = (),
        properties: Mapping[str, str] | None = None,
    ) -> "Lake":
        """Create a table as a spec's first hour does; `-name` in `sort` descends. Its hour is the first column's."""
        keys = {"sort": [_sort_field(name) for name in sort], "partition": partition, "properties": properties or {}}
        spec = spec_of(types, {key: value for key, value in keys.items() if value})
        create_table(catalog, spec, columns(types))
        return cls(catalog, spec.table, spec.hour)

    @property
    def now(self) -> HourlyTable:
        """The table as it is."""
        return HourlyTable(self.catalog, self.catalog.load_table(self.identifier), self.hour)

    def write(
        self, hour: HourWindow, batches: Iterable[pa.RecordBatch], attempt: str = "", file_size: int = MEGABYTE
    ) -> list[WrittenFile]:
        """Write batches, which have a bucket each, as one task of an attempt."""
        target = self.now.target(hour, attempt or new_attempt_id(), file_size)
        return written_files(write_batches(target, batches))

    def seal(self, hour: HourWindow, ids: Sequence[int]) -> SealedHour:
        """Open, write and seal an attempt that makes these events of the hour; none of them empty it."""
        return sealed_by(self, hour, [in_bucket(0, events(hour, ids))] if ids else [])

    def replace(self, *hours: SealedHour, before_send: BeforeSend = send) -> Replaced:
        """Commit sealed hours."""
        return replace_hours(
            self.catalog,
            self.identifier,
            hours,
            event_time=self.hour,
            batch=uuid.uuid4().hex,
            before_send=before_send,
        )

    def put(self, hour: HourWindow, ids: Sequence[int]) -> Replaced:
        """Make an hour these events, in one attempt."""
        return self.replace(self.seal(hour, ids))

    def append(self, *rows: pa.RecordBatch, branch: str = "main") -> None:
        """Append with PyIceberg's own writer."""
        self.now.table.append(pa.Table.from_batches(rows), branch=branch)

    def rows(self, snapshot_id: int | None = None) -> dict[str, list[int]]:
        """Read the ids by hour, with PyIceberg's own reader."""
        found = self.now.table.scan(snapshot_id=snapshot_id).to_arrow()
        hours = defaultdict(list)
        for moment, number in zip(found["at"].to_pylist(), found["id"].to_pylist(), strict=True):
            hours[HourWindow(moment.replace(minute=0, second=0, microsecond=0)).key].append(number)
        return {hour: sorted(ids) for hour, ids in hours.items()}

    def files(self, hour: HourWindow) -> set[str]:
        """Name the hour's live data files."""
        return {file.path for file in self.now.live(hour)}

    def entries(self) -> list[ManifestEntry]:
        """Read all entries of the current snapshot with PyIceberg's own reader, DELETED ones included."""
        table = self.now.table
        snapshot = table.current_snapshot()
        manifests = snapshot.manifests(table.io) if snapshot else []
        return [entry for manifest in manifests for entry in manifest.fetch_manifest_entry(table.io, False)]

    def stored(self, folder: str) -> set[str]:
        """Name all objects in a folder of the table but the metadata.json, which the catalog writes."""
        table = self.now
        found = table.files.list_objects(f"{table.location}/{folder}/")
        return {item.url for item in found if not item.url.endswith(".metadata.json")}

    def reached(self) -> set[str]:
        """Name the manifest lists, manifests and data files that the table's snapshots reach."""
        return reached_by(self.now.table)

    def missing(self) -> set[str]:
        """Name what the table's snapshots reach and is not there."""
        return self.reached() - self.stored("metadata") - self.stored("data")

    def unreached(self) -> set[str]:
        """Name what lies in the table's folders and no snapshot reaches."""
        return (self.stored("metadata") | self.stored("data")) - self.reached()


def reached_by(table: Table) -> set[str]:
    """Name the manifest lists, manifests and data files that a loaded table's snapshots reach."""
    manifests = {
        manifest.manifest_path: manifest
        for snapshot in table.metadata.snapshots
        for manifest in snapshot.manifests(table.io)
    }
    found = {snapshot.manifest_list for snapshot in table.metadata.snapshots} | set(manifests)
    for manifest in manifests.values():
        found |= {entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io)}
    return found


def sealed_by(lake: Lake, hour: HourWindow, batches: Iterable[pa.RecordBatch]) -> SealedHour:
    """Open, write and seal an attempt that makes an hour these batches, which have a bucket each."""
    table, attempt = lake.now, new_attempt_id()
    seal = table.seal(attempt, lake.write(hour, batches, attempt), rows_read=None, rejected=0)
    return SealedHour(hour, attempt, digest(file.path for file in table.live(hour)), seal)


def hours_after(first: HourWindow, count: int) -> list[HourWindow]:
    """Give so many hours from the first on."""
    return [HourWindow(first.start + number * HOUR) for number in range(count)]

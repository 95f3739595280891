"""A project in a folder of its own: specs and raw files that a test writes, a SQLite catalog, a warehouse beside it."""

import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from lakehouse_pipeline.backfill.hour import run_hour
from lakehouse_pipeline.backfill.hour_result import HourResult
from lakehouse_pipeline.backfill.hour_run import Bench
from lakehouse_pipeline.config.lakehouse import Lakehouse, load_lakehouse
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.ledger.records import HourRecord
from lakehouse_pipeline.orchestration.assets import build_defs

HOUR = "2013-01-01-10:00"
NEXT = "2013-01-01-11:00"
THIRD = "2013-01-01-12:00"

LAKEHOUSE = """\
catalog: {type: sql, uri: "sqlite:///catalog.db", warehouse: warehouse}
engine: local[2]
"""
SPEC = {
    "table": "lake.events",
    "source": "{path: raw/%Y/%m/%d/%H*.jsonl, columns: {at: timestamptz!, id: long!, size: double}}",
    "hour": "at",
    "start": "2013-01-01",
    "end": "2013-01-02",
}

Row = dict[str, Any]


def row(hour: str, number: int, size: float | None = None) -> Row:
    """Make a row of the hour; the number is its minute, too."""
    return {"at": f"{hour[:10]}T{hour[11:13]}:{number % 60:02d}:00Z", "id": number, "size": size}


def json_lines(rows: Iterable[Row]) -> bytes:
    """Write rows as JSON lines."""
    return "".join(f"{json.dumps(each)}\n" for each in rows).encode()


def parquet(rows: list[Row] | pa.Table) -> bytes:
    """Write rows as Parquet."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


def strays(table: HourlyTable) -> set[str]:
    """List the objects in a table's data and metadata folders that none of its snapshots reaches."""
    iceberg = table.table
    manifests = [manifest for snapshot in iceberg.snapshots() for manifest in snapshot.manifests(iceberg.io)]
    reached = {manifest.manifest_path for manifest in manifests}
    reached |= {snapshot.manifest_list for snapshot in iceberg.snapshots()}
    reached |= {iceberg.metadata_location, *(entry.metadata_file for entry in iceberg.metadata.metadata_log)}
    for manifest in manifests:
        entries = manifest.fetch_manifest_entry(iceberg.io, discard_deleted=False)
        reached |= {entry.data_file.file_path for entry in entries}
    folders = (f"{table.location}/data/", f"{table.location}/metadata/")
    return {item.url for folder in folders for item in table.files.list_objects(folder)} - reached


@dataclass
class Project:
    """One folder.

    Attributes:
        folder: where everything lies.
        session: gives Spark's session.
        keys: of the spec, as YAML.
    """

    folder: Path
    session: Callable[[], SparkSession]
    keys: dict[str, str] = field(default_factory=lambda: dict(SPEC))

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file by its path below the folder, compressed if it ends in .gz."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        file.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
        return file

    def describe(self, keys: Mapping[str, str | None]) -> None:
        """Write the spec with these keys, each with its value as YAML; None takes a key out."""
        for key, value in keys.items():
            if value is None:
                del self.keys[key]
            else:
                self.keys[key] = value
        self.write("tables/events.yaml", "".join(f"{key}: {value}\n" for key, value in self.keys.items()))

    def land(self, hour: str, rows: Iterable[Row], name: str = ".jsonl") -> Path:
        """Write raw rows of an hour as JSON lines."""
        return self.write(f"raw/{hour[:10].replace('-', '/')}/{hour[11:13]}{name}", json_lines(rows))

    @property
    def lakehouse(self) -> Lakehouse:
        """The project as its files describe it now."""
        return load_lakehouse(self.folder / "lakehouse.yaml", {})

    @property
    def warehouse(self) -> Warehouse:
        """The catalog and the store, opened anew."""
        return Warehouse.open(self.lakehouse.catalog)

    @property
    def catalog(self) -> Catalog:
        """PyIceberg's catalog, opened anew."""
        return self.warehouse.catalog

    @property
    def table(self) -> HourlyTable:
        """The table as it is now."""
        table = self.warehouse.table(self.lakehouse.spec("events"))
        assert table is not None
        return table

    def bench(self, run_id: str = "run", *, others_are_over: bool = False) -> Bench:
        """Give what every hour of a run shares."""
        lakehouse = self.lakehouse
        warehouse = Warehouse.open(lakehouse.catalog)
        return Bench(lakehouse.spec("events"), warehouse, self.session, run_id, lambda _run_id: others_are_over)

    def run(self, hour: str = HOUR, *, force: bool = False, others_are_over: bool = False) -> HourResult:
        """Run an hour as Dagster's asset does."""
        return run_hour(self.bench(others_are_over=others_are_over), HourWindow.from_key(hour), force=force)

    def record(self, hour: str = HOUR) -> HourRecord:
        """Read the hour's record."""
        return self.table.ledger.hour(HourWindow.from_key(hour)).record

    def rows(self, *columns: str) -> list[Row]:
        """Read the table back with PyIceberg, ordered by time and id."""
        found = self.table.table.scan(selected_fields=columns or ("*",)).to_arrow().to_pylist()
        rows: list[Row] = sorted(found, key=lambda each: (str(each.get("at")), each.get("id") or 0))
        return rows

    def ids(self, hour: str | None = None) -> list[int]:
        """Read the ids of the table's rows, or of those of an hour, in order."""
        start = None if hour is None else HourWindow.from_key(hour).start.replace(minute=0)
        rows = self.rows("at", "id")
        return sorted(each["id"] for each in rows if start is None or each["at"].replace(minute=0, second=0) == start)

    def files(self, folder: str = "data") -> set[str]:
        """List the objects below a folder of the table, without listing through the code under test."""
        root = self.folder / "warehouse" / "lake" / "events" / folder
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}

    def definitions(self) -> dg.Definitions:
        """Give Dagster's definitions of the project; its Spark resource joins the session of the test run."""
        self.session()
        return build_defs(self.lakehouse)

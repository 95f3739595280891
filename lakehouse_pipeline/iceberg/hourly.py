"""An Iceberg table as a backfill sees it: hours that are read, written, sealed and replaced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.types import Column
from lakehouse_pipeline.errors import CommitConflictError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.commit import BeforeSend, Replaced, SealedHour, head, load, replace_hours
from lakehouse_pipeline.iceberg.data_files import WriteTarget, WrittenFile
from lakehouse_pipeline.iceberg.manifests import LiveFile, digest, live_files
from lakehouse_pipeline.iceberg.seals import manifest_url, seal_files
from lakehouse_pipeline.iceberg.tables import arrow_schema, create_table, load_table, open_catalog, table_columns
from lakehouse_pipeline.ledger import Attempt, Ledger, Seal
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO


@dataclass(frozen=True)
class Warehouse:
    """The catalog that tables are in, and the store that goes with it.

    Attributes:
        catalog: PyIceberg's.
        files: reads and writes what the catalog's properties give access to; small and picklable.
    """

    catalog: Catalog
    files: LakehouseFileIO

    @classmethod
    def open(cls, properties: Mapping[str, str]) -> "Warehouse":
        """Open the catalog that PyIceberg's own properties describe.

        Raises:
            ConfigurationError: PyIceberg knows no such catalog, or it refuses the credentials.
            TransientError: it cannot be reached.
        """
        catalog = open_catalog(properties)
        return cls(catalog, store_of(catalog.properties))  # with what .pyiceberg.yaml adds to them

    def table(self, spec: TableSpec) -> "HourlyTable | None":
        """Load a spec's table as it is now; None while there is none.

        Raises:
            ConfigurationError: the table is not the one that the spec describes.
        """
        table = load_table(self.catalog, spec)
        return HourlyTable(self.catalog, table) if table else None

    def create(self, spec: TableSpec, columns: tuple[Column, ...]) -> "HourlyTable":
        """Create a spec's table, or load it where somebody was faster."""
        return HourlyTable(self.catalog, create_table(self.catalog, spec, columns))


@dataclass(frozen=True)
class HourlyTable:
    """One table at one moment: `head`, `live` and `target` speak of the metadata that was loaded."""

    catalog: Catalog
    table: Table

    @property
    def identifier(self) -> str:
        """`namespace.name`."""
        return ".".join(self.table.name())

    @property
    def location(self) -> str:
        """Where the table's folders are."""
        return self.table.location()

    @property
    def uuid(self) -> str:
        """The table's own id, which a table created again under the same name does not have."""
        return str(self.table.metadata.table_uuid)

    @property
    def schema_id(self) -> int:
        """The current schema."""
        return self.table.schema().schema_id

    @property
    def columns(self) -> tuple[Column, ...]:
        """The current schema, in the spec's words."""
        return table_columns(self.table)

    @property
    def arrow_schema(self) -> pa.Schema:
        """The current schema as Arrow writes it."""
        return arrow_schema(self.table.schema())

    @property
    def head(self) -> int | None:
        """The snapshot that `main` stands on."""
        return head(self.table)

    @property
    def ledger(self) -> Ledger:
        """The record of the table's hours."""
        return Ledger(self.files, self.location, self.uuid)

    @property
    def files(self) -> LakehouseFileIO:
        """The table's store, without anything that a task must not get."""
        return store_of(self.table.io.properties)

    def has_snapshot(self, snapshot_id: int) -> bool:
        """Tell whether a snapshot is in the table's metadata."""
        return self.table.metadata.snapshot_by_id(snapshot_id) is not None

    def live(self, hour: HourWindow) -> list[LiveFile]:
        """List the hour's live files, delete files included."""
        return live_files(self.table.metadata, self.table.io, self.head, hour)

    def rows(self, columns: Sequence[str]) -> pa.Table:
        """Read some columns of every live row into memory.

        Raises:
            ValueError: the table has equality deletes, which PyIceberg cannot apply (apache/iceberg-python#6568).
        """
        return self.table.scan(selected_fields=tuple(columns)).to_arrow()

    def target(self, hour: HourWindow, attempt: str, file_size: int) -> WriteTarget:
        """Describe the writing of an attempt to the engine's tasks."""
        return WriteTarget.of(self.table, self.files, hour, attempt, file_size)

    def seal(self, attempt: str, written: Sequence[WrittenFile], *, rows_read: int | None, rejected: int) -> Seal:
        """Write the manifests of an attempt."""
        return seal_files(self.table, attempt, written, rows_read=rows_read, rejected=rejected)

    def manifest_url(self, attempt: str, place: int) -> str:
        """Give the place of one of an attempt's manifests; they are counted from 0."""
        return manifest_url(self.table, attempt, place)

    def was_committed(self, attempt: str) -> bool:
        """Tell whether a snapshot of the table, as it is now, was made of a sealed attempt's files."""
        return self._snapshot_of(attempt) is not None

    def replace(self, hour: HourWindow, attempt: Attempt, *, before_send: BeforeSend) -> Replaced:
        """Commit a sealed attempt: the hour's live files are then exactly those of the seal.

        An attempt whose earlier commit turns out to have landed is done, whatever became of the hour since: its files
        belong to that snapshot.

        Raises:
            CommitConflictError: the hour was changed by somebody else, or rivals won every try.
            CommitStateUnknownError: whether the commit landed is not known.
        """
        sealed = SealedHour.of(hour, attempt)
        try:
            return replace_hours(self.catalog, self.identifier, [sealed], before_send=before_send)
        except CommitConflictError:
            landed = self._snapshot_of(attempt.id, attempt.snapshot_id)
            if landed is not None:
                return Replaced(landed, 0, 0)
            now = HourlyTable(self.catalog, load(self.catalog, self.identifier))
            if digest(file.path for file in now.live(hour)) != sealed.seal.digest:
                raise
            return Replaced(now.head, 0, 0)  # it landed, and its snapshot was expired since

    def _snapshot_of(self, attempt: str, recorded: int | None = None) -> int | None:
        """Find the snapshot that a sealed attempt made: the one recorded before its commit, or one with its files."""
        now, first = load(self.catalog, self.identifier), self.manifest_url(attempt, 0)
        for snapshot in now.metadata.snapshots:
            if snapshot.snapshot_id == recorded:
                return recorded
            if any(manifest.manifest_path == first for manifest in snapshot.manifests(now.io)):
                return snapshot.snapshot_id
        return None


def store_of(properties: Mapping[str, object]) -> LakehouseFileIO:
    """Make a FileIO of the store's own properties alone: no catalog credential travels to a task."""
    return LakehouseFileIO({key: str(value) for key, value in properties.items() if key.startswith(("s3.", "client."))})

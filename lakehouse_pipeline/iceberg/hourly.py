"""An Iceberg table as a backfill sees it: hours that are read, written, sealed and replaced."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.types import Column
from lakehouse_pipeline.errors import CommitConflictError, TransientError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.changes import ChangePlan
from lakehouse_pipeline.iceberg.claims import claimed, withdraw
from lakehouse_pipeline.iceberg.commit import BeforeSend, Replaced, SealedHour, head, load, replace_hours
from lakehouse_pipeline.iceberg.data_files import WrittenFile
from lakehouse_pipeline.iceberg.event_time import EventTime
from lakehouse_pipeline.iceberg.manifests import LiveFile, digest, live_files
from lakehouse_pipeline.iceberg.partitions import Partitions
from lakehouse_pipeline.iceberg.schemas import arrow_schema, columns_of, has_hour
from lakehouse_pipeline.iceberg.seals import manifest_url, seal_files
from lakehouse_pipeline.iceberg.tables import apply_spec, create_table, load_table, open_catalog
from lakehouse_pipeline.iceberg.write_target import WriteTarget
from lakehouse_pipeline.ledger import Attempt, Ledger, Seal
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.vending import DRIVERS_KEYS, ENDPOINT

logger = logging.getLogger(__name__)


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
        return HourlyTable(self.catalog, table, spec.hour) if table else None

    def create(self, spec: TableSpec, columns: tuple[Column, ...]) -> "HourlyTable":
        """Create a spec's table, or load it where somebody was faster."""
        return HourlyTable(self.catalog, create_table(self.catalog, spec, columns), spec.hour)

    def apply(self, spec: TableSpec, *, dry_run: bool) -> ChangePlan | None:
        """Bring a spec's table to the spec; gives what differed, None where there is no table. See `apply_spec`."""
        return apply_spec(self.catalog, spec, dry_run=dry_run)


@dataclass(frozen=True)
class HourlyTable:
    """One table at one moment: `head`, `live` and `target` speak of the metadata that was loaded.

    Attributes:
        catalog: PyIceberg's.
        table: PyIceberg's.
        hour: the column that tells a row's hour.
    """

    catalog: Catalog
    table: Table
    hour: str

    @property
    def identifier(self) -> str:
        """`namespace.name`."""
        return ".".join(self.table.name())

    @property
    def location(self) -> str:
        """Where the table's folders are."""
        return self.table.location()

    @property
    def metadata_url(self) -> str:
        """The metadata file that was loaded."""
        return self.table.metadata_location

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
        return columns_of(self.table.schema())

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

    def live(self, hour: HourWindow) -> list[LiveFile]:
        """List the hour's live files, delete files included.

        Raises:
            SafetyError: files of earlier partition specs hold rows of the hour and of others, or may.
        """
        metadata = self.table.metadata
        return live_files(metadata, self.table.io, self.head, hour, EventTime.of(metadata, self.hour))

    def rows(self, columns: Sequence[str]) -> pa.Table:
        """Read some columns of every live row into memory.

        Raises:
            ValueError: the table has equality deletes, which PyIceberg cannot apply (apache/iceberg-python#6568).
        """
        return self.table.scan(selected_fields=tuple(columns)).to_arrow()

    def target(self, hour: HourWindow, attempt: str, file_size: int) -> WriteTarget:
        """Describe the writing of an attempt to the engine's tasks."""
        return WriteTarget.of(self.table, self.files, hour, attempt, hour_column=self.hour, file_size=file_size)

    def seal(
        self,
        attempt: str,
        written: Sequence[WrittenFile],
        *,
        rows_read: int | None,
        rejected: int,
        left: int | None = 0,
    ) -> Seal:
        """Write the manifests of an attempt."""
        return seal_files(self.table, attempt, written, rows_read=rows_read, rejected=rejected, left=left)

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
        replaced = self._replace(hour, attempt, before_send)
        try:
            self.withdraw_claims(hour, attempt.id)
        except TransientError as error:  # they are of no use any more, and the hour is done
            logger.warning("%s: the claims of attempt %s stay: %s", hour, attempt.id, error)
        return replaced

    def _replace(self, hour: HourWindow, attempt: Attempt, before_send: BeforeSend) -> Replaced:
        sealed = SealedHour.of(hour, attempt)
        try:
            return replace_hours(self.catalog, self.identifier, [sealed], event_time=self.hour, before_send=before_send)
        except CommitConflictError:
            landed = self._snapshot_of(attempt.id, attempt.snapshot_id)
            if landed is not None:
                return Replaced(landed, 0, 0)
            now = HourlyTable(self.catalog, load(self.catalog, self.identifier), self.hour)
            if digest(file.path for file in now.live(hour)) != sealed.seal.digest:
                raise
            return Replaced(now.head, 0, 0)  # it landed, and its snapshot was expired since

    @property
    def _rows_tell_paths(self) -> bool:
        """Whether the table has had a spec whose files lie at paths that only their rows tell."""
        event_time = self.table.schema().find_field(self.hour).field_id
        specs = self.table.metadata.specs().values()
        return any(len(spec.fields) > 1 or not has_hour(spec, event_time) for spec in specs)

    def withdraw_claims(self, hour: HourWindow, attempt: str) -> None:
        """Remove what an attempt's writers said of their partition paths: its files are the table's, or gone."""
        if self._rows_tell_paths:
            withdraw(self.files, self.ledger.claims_url(hour, attempt))

    def partition_paths(self, hour: HourWindow, attempt: str) -> Callable[[int], set[str]]:
        """Tell of a bucket at which partition paths an attempt may have files, whatever spec it was written for."""
        metadata, schema = self.table.metadata, self.table.schema()
        event_time = schema.find_field(self.hour).field_id
        every = [Partitions(spec, schema, event_time, hour.ordinal) for spec in metadata.specs().values()]
        known = {each.path() for each in every if each.known and each.spec.fields}
        said = claimed(self.files, self.ledger.claims_url(hour, attempt)) if self._rows_tell_paths else {}
        return lambda bucket: known | said.get(bucket, set())

    def _snapshot_of(self, attempt: str, recorded: int | None = None) -> int | None:
        """Find the snapshot that a sealed attempt made: the one recorded before its commit, or one with its files."""
        now, first = load(self.catalog, self.identifier), self.manifest_url(attempt, 0)
        for snapshot in now.metadata.snapshots:
            if snapshot.snapshot_id == recorded:
                return recorded
            if any(manifest.manifest_path == first for manifest in snapshot.manifests(now.io)):
                return snapshot.snapshot_id
        return None


def store_of(properties: Mapping[str, Any]) -> LakehouseFileIO:
    """Make a FileIO of the store's own properties, and of what renews vended credentials.

    A task gets no secret of the catalog's, see `vending.portable`.
    """
    own = {key: str(value) for key, value in properties.items() if key.startswith(("s3.", "client."))}
    renewing = {key: properties[key] for key in DRIVERS_KEYS if ENDPOINT in own and key in properties}
    return LakehouseFileIO(own | renewing)

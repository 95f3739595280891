"""What a task is told of the attempt that it writes for, and how the attempt's files are named."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.locations import LocationProvider, load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortOrder
from pyiceberg.utils.properties import property_as_bool

from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.claims import Claims
from lakehouse_pipeline.iceberg.manifest_files import ManifestKind
from lakehouse_pipeline.iceberg.partitions import Partitions
from lakehouse_pipeline.ledger.hours import Ledger
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

LOCATION = "location"  # the one name in a layout that is no table property
PROVIDER = "write.py-location-provider."
SHAPES_KEYS = (
    "write.data.path",
    "write.folder-storage.path",
    "write.metadata.path",
    "write.object-storage.",
    PROVIDER,
)


@dataclass(frozen=True)
class WriteTarget:
    """All that a task needs to write files of one attempt; small and picklable.

    Attributes:
        files: the store.
        location: the table's location.
        properties: the table's properties.
        schema_json: its schema.
        spec_json: its partition spec.
        sort_order_json: its sort order.
        hour: the hour that every row has to be in.
        hour_column: the event time's column.
        attempt: the attempt's id.
        claims: the folder of the attempt's claims.
        file_size: bytes on storage at which a file rolls.
    """

    files: LakehouseFileIO
    location: str
    properties: Mapping[str, str]
    schema_json: str
    spec_json: str
    sort_order_json: str
    hour: HourWindow
    hour_column: str
    attempt: str
    claims: str
    file_size: int

    @classmethod
    def of(
        cls, table: Table, files: LakehouseFileIO, hour: HourWindow, attempt: str, *, hour_column: str, file_size: int
    ) -> "WriteTarget":
        """Describe the writing of an attempt into a table."""
        ledger = Ledger(files, table.location(), str(table.metadata.table_uuid))
        return cls(
            files=files,
            location=table.location(),
            properties=dict(table.properties),
            schema_json=table.schema().model_dump_json(),
            spec_json=table.spec().model_dump_json(),
            sort_order_json=table.sort_order().model_dump_json(),
            hour=hour,
            hour_column=hour_column,
            attempt=attempt,
            claims=ledger.claims_url(hour, attempt),
            file_size=file_size,
        )

    def laid_out(self, layout: Mapping[str, str]) -> "WriteTarget":
        """Give the target as it was when an attempt of this layout was opened; of none, as it is."""
        if not layout:
            return self
        shaped = {name: value for name, value in self.properties.items() if not name.startswith(SHAPES_KEYS)}
        properties = {**shaped, **{name: value for name, value in layout.items() if name != LOCATION}}
        return replace(self, location=layout.get(LOCATION, self.location), properties=properties)

    def unsorted(self) -> "WriteTarget":
        """Give the target for rows that are in no order, or in another than the table's."""
        return replace(self, sort_order_json=UNSORTED_SORT_ORDER.model_dump_json())

    @cached_property
    def locations(self) -> LocationProvider:
        """Where the table's files go."""
        return load_location_provider(self.location, dict(self.properties))

    @cached_property
    def schema(self) -> Schema:
        """The table's schema."""
        return Schema.model_validate_json(self.schema_json)

    @cached_property
    def spec(self) -> PartitionSpec:
        """The table's partition spec."""
        return PartitionSpec.model_validate_json(self.spec_json)

    @cached_property
    def kind(self) -> ManifestKind:
        """What the manifest entries of its files have in common."""
        return ManifestKind(self.spec, self.schema)

    @cached_property
    def sort_order(self) -> SortOrder:
        """The table's sort order; unsorted has no fields."""
        return SortOrder.model_validate_json(self.sort_order_json)

    @cached_property
    def partitions(self) -> Partitions:
        """The partition tuples that rows of the hour have."""
        event_time = self.schema.find_field(self.hour_column).field_id
        return Partitions(self.spec, self.schema, event_time, self.hour.ordinal)

    @cached_property
    def paths_in_keys(self) -> bool:
        """Whether partition paths stand in keys, which Iceberg's object-store layout can leave out."""
        return not property_as_bool(
            dict(self.properties), TableProperties.OBJECT_STORE_ENABLED, False
        ) or property_as_bool(dict(self.properties), TableProperties.WRITE_OBJECT_STORE_PARTITIONED_PATHS, True)

    @cached_property
    def needs_claims(self) -> bool:
        """Whether keys hold what only the rows tell."""
        return self.paths_in_keys and not self.partitions.known

    def new_claims(self) -> Claims:
        """Give what a writer of the attempt's files says them by."""
        return Claims(self.files, self.claims, self.needs_claims)

    def file_url(self, bucket: int, file: int, attempt_try: int, path: str | None = None) -> str:
        """Give the place of a file: Iceberg's object-store layout hashes its relative name into the key.

        Args:
            bucket: counted from 0.
            file: counted from 0 within a bucket and partition path, or within a bucket where keys have no such paths.
            attempt_try: counted from 0.
            path: its partition path; None for that of the hour, where the table is partitioned by nothing else.
        """
        name = f"{bucket:05d}-{self.attempt}-{file}-{attempt_try}.parquet"
        if not self.paths_in_keys:
            return self.locations.new_data_location(name)
        return self.locations.new_data_location(f"{self.partitions.path() if path is None else path}/{name}")


def layout_of(table: Table) -> Mapping[str, str]:
    """Give what `WriteTarget.laid_out` takes: the table's location, and the properties that shape keys."""
    return layout_in(table.metadata)


def layout_in(metadata: TableMetadata) -> Mapping[str, str]:
    """Give the same of a table as some metadata have it."""
    shaping = {name: value for name, value in metadata.properties.items() if name.startswith(SHAPES_KEYS)}
    return {LOCATION: metadata.location, **shaping}

"""The catalog that tables are in, and the store that goes with it."""

from collections.abc import Mapping
from dataclasses import dataclass

from pyiceberg.catalog import Catalog

from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.types import Column
from lakehouse_pipeline.iceberg.changes import ChangePlan
from lakehouse_pipeline.iceberg.hourly import HourlyTable, store_of
from lakehouse_pipeline.iceberg.tables import (
    apply_spec,
    check_place,
    create_table,
    find_table,
    load_table,
    open_catalog,
)
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.settings import IMPATIENT


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
    def open(cls, properties: Mapping[str, str], *, patient: bool = True) -> "Warehouse":
        """Open the catalog that PyIceberg's own properties describe.

        Args:
            properties: PyIceberg's.
            patient: whether the store is waited for as long as a run's work is worth; else as long as a look is.

        Raises:
            ConfigurationError: PyIceberg knows no such catalog, or it refuses the credentials.
            TransientError: it cannot be reached.
        """
        catalog = open_catalog(properties if patient else {**properties, **IMPATIENT})
        return cls(catalog, store_of(catalog.properties))  # with what .pyiceberg.yaml adds to them

    def table(self, spec: TableSpec) -> HourlyTable | None:
        """Load a spec's table as it is now; None while there is none.

        Raises:
            ConfigurationError: the table is not the one that the spec describes.
        """
        table = load_table(self.catalog, spec)
        return HourlyTable(self.catalog, table, spec.hour) if table else None

    def find(self, spec: TableSpec) -> HourlyTable | None:
        """Load a spec's table whether or not it agrees with the spec; None while there is none."""
        table = find_table(self.catalog, spec.table)
        return HourlyTable(self.catalog, table, spec.hour) if table else None

    def create(self, spec: TableSpec, columns: tuple[Column, ...]) -> HourlyTable:
        """Create a spec's table, or load it where somebody was faster."""
        return HourlyTable(self.catalog, create_table(self.catalog, spec, columns), spec.hour)

    def check_place(self, spec: TableSpec) -> None:
        """Find out whether a spec's table has a place to be made in; see `tables.check_place`."""
        check_place(self.catalog, spec.table)

    def apply(self, spec: TableSpec, *, dry_run: bool) -> ChangePlan | None:
        """Bring a spec's table to the spec; gives what differed, None where there is no table. See `apply_spec`."""
        return apply_spec(self.catalog, spec, dry_run=dry_run)

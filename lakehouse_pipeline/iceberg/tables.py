"""The Iceberg table behind a spec: the catalog, its creation, and whether the two still agree.

Schemas, partition specs and sort orders are made here from the spec's words. No file of the table is written here.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import requests
import sqlalchemy.exc
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import (
    ForbiddenError,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    OAuthError,
    RESTError,
    TableAlreadyExistsError,
    UnauthorizedError,
)
from pyiceberg.io.pyarrow import pyarrow_to_schema, schema_to_pyarrow
from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.table import Table
from pyiceberg.table.sorting import NullOrder, SortDirection, SortField, SortOrder
from pyiceberg.transforms import HourTransform, IdentityTransform
from pyiceberg.types import IcebergType, NestedField

from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.types import Column
from lakehouse_pipeline.errors import ConfigurationError, TransientError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.retry import RetryPolicy, retry_call

logger = logging.getLogger(__name__)

# A new SQL catalog gets two tables; of processes that open it at the same moment one makes each.
OPENING = RetryPolicy(tries=3, total_s=10.0, min_wait_s=0.1, max_wait_s=1.0)

FILE_IO = f"{LakehouseFileIO.__module__}.{LakehouseFileIO.__qualname__}"

# What a new table gets where the spec says nothing else.
NEW_TABLE_PROPERTIES: Mapping[str, str] = {
    "write.object-storage.enabled": "true",  # entropy before the partition path: S3 scales by key prefix
    "write.parquet.compression-codec": "zstd",
    "write.metadata.delete-after-commit.enabled": "true",  # else every commit leaves a metadata.json for ever
    "write.metadata.previous-versions-max": "50",
    "commit.manifest-merge.enabled": "true",  # for PyIceberg, whose default is off
    "commit.retry.num-retries": "20",  # Iceberg's default of 4 loses among a dozen committers
}


def open_catalog(properties: Mapping[str, str]) -> Catalog:
    """Open the catalog that PyIceberg's own properties describe, with our FileIO under it.

    Raises:
        ConfigurationError: PyIceberg knows no such catalog, or refuses the credentials.
        TransientError: it cannot be reached.
    """
    settings = {"py-io-impl": FILE_IO, **properties}
    name = settings.pop("name", "lakehouse")
    _make_sqlite_folder(settings.get("uri", ""))
    with translated("open the catalog", settings):
        try:
            return retry_call(
                OPENING, lambda: load_catalog(name, **settings), on=_is_being_made, name="open the catalog"
            )
        except ValueError as error:
            raise ConfigurationError(f"the catalog: {error}") from None


def load_table(catalog: Catalog, spec: TableSpec) -> Table | None:
    """Load a spec's table, None while it does not exist.

    Raises:
        ConfigurationError: the table is not the one that the spec describes.
        TransientError: the catalog cannot be reached.
    """
    with translated(f"load {spec.table}", catalog.properties):
        try:
            table = catalog.load_table(spec.table)
        except NoSuchTableError:
            return None
    check_agrees(table, spec)
    return table


def create_table(catalog: Catalog, spec: TableSpec, columns: tuple[Column, ...]) -> Table:
    """Create a spec's table, or load it where somebody was faster.

    Raises:
        ConfigurationError: the table exists and is not the one that the spec describes.
        TransientError: the catalog cannot be reached.
    """
    schema = schema_of(columns)
    with translated(f"create {spec.table}", catalog.properties):
        with suppress(NamespaceAlreadyExistsError, sqlalchemy.exc.IntegrityError):  # the latter is a SQL catalog's
            catalog.create_namespace(spec.table.rpartition(".")[0])
        try:
            table = catalog.create_table(
                spec.table,
                schema,
                partition_spec=partition_spec_of(schema, spec.hour),
                sort_order=sort_order_of(schema, spec),
                properties={**NEW_TABLE_PROPERTIES, **spec.properties},
            )
        except TableAlreadyExistsError:
            table = catalog.load_table(spec.table)
    logger.info("created %s at %s", spec.table, table.location())
    check_agrees(table, spec)
    return table


def check_agrees(table: Table, spec: TableSpec) -> None:
    """Compare a table with its spec.

    Raises:
        ConfigurationError: lists every difference.
    """
    problems = list(_differences(table, spec))
    if problems:
        raise ConfigurationError(
            f"{spec.file}: the table {spec.table} differs from its spec: " + "; ".join(problems) + ". "
            "Change the spec, or evolve the table, so that they agree"
        )


def _differences(table: Table, spec: TableSpec) -> Iterator[str]:
    if table.metadata.format_version != 2:  # noqa: PLR2004  # the only version PyIceberg writes: iceberg-python#1551
        yield f"its format version is {table.metadata.format_version}; only version 2 can be written"
    schema = table.schema()
    transforms = [(str(f.transform), schema.find_column_name(f.source_id)) for f in table.spec().fields]
    if transforms != [("hour", spec.hour)]:
        parts = ", ".join(f"{transform}({name})" for transform, name in transforms) or "nothing"
        yield f"it is partitioned by {parts}, the spec by hour({spec.hour})"
    given = [(schema.find_column_name(f.source_id), str(f.transform), f.direction) for f in table.sort_order().fields]
    wanted = [(f.column, "identity", SortDirection.DESC if f.descending else SortDirection.ASC) for f in spec.sort]
    if given != wanted:
        yield f"it is sorted by {_order_text(given)}, the spec by {_order_text(wanted)}"
    if spec.target_columns is not None:
        yield from _column_differences({f.name: f for f in schema.fields}, spec.target_columns)


def _order_text(order: Sequence[tuple[str | None, str, SortDirection]]) -> str:
    return ", ".join(f"{name} {direction.value}" for name, _, direction in order) or "nothing"


def _column_differences(table: Mapping[str, NestedField], columns: tuple[Column, ...]) -> Iterator[str]:
    for column in columns:
        field = table.get(column.name)
        if field is None:
            yield f"column {column.name} is not in the table"
        elif str(field.field_type).replace(" ", "") != column.type:
            yield f"column {column.name} is {field.field_type} in the table, {column.type} in the spec"
        elif field.required != column.required:
            wanted = "required" if field.required else "optional"
            yield f"column {column.name} is {wanted} in the table, but not in the spec"
    for name in table.keys() - {column.name for column in columns}:
        yield f"column {name} of the table is not in the spec"


def schema_of(columns: tuple[Column, ...]) -> Schema:
    """Make an Iceberg schema with fresh ids."""
    fields = [
        NestedField(place, column.name, _iceberg_type(column.type), required=column.required)
        for place, column in enumerate(columns, start=1)
    ]
    return assign_fresh_schema_ids(Schema(*fields))


def table_columns(table: Table) -> tuple[Column, ...]:
    """Give a table's columns in the spec's words."""
    return tuple(
        Column(name=item.name, type=str(item.field_type).replace(" ", ""), required=item.required)
        for item in table.schema().fields
    )


def types_of(schema: pa.Schema) -> dict[str, str]:
    """Give the types that hold an Arrow schema's columns, in the spec's words."""
    fields = [field.with_metadata({b"PARQUET:field_id": str(place)}) for place, field in enumerate(schema, start=1)]
    return {item.name: str(item.field_type).replace(" ", "") for item in pyarrow_to_schema(pa.schema(fields)).fields}


def arrow_schema_of(columns: tuple[Column, ...]) -> pa.Schema:
    """Give the Arrow schema that rows of these columns have in memory; required columns are not nullable."""
    plain = schema_to_pyarrow(schema_of(columns), include_field_ids=False)
    return pa.schema([_small(field) for field in plain])


def arrow_schema(schema: Schema) -> pa.Schema:
    """Give the Arrow schema that data files of the table are written with, field ids included."""
    return pa.schema([_small(field) for field in schema_to_pyarrow(schema)])


def _small(field: pa.Field) -> pa.Field:
    # PyIceberg maps to large types; batches of bounded size need no 64-bit offsets.
    small = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}
    return field.with_type(small.get(field.type, field.type))


def _iceberg_type(name: str) -> IcebergType:
    field: NestedField = NestedField.model_validate({"id": 1, "name": "x", "type": name, "required": False})
    return field.field_type


def partition_spec_of(schema: Schema, hour: str) -> PartitionSpec:
    """Partition by `hour(<event time>)`, the field named as Iceberg's engines name it."""
    source = schema.find_field(hour)
    return PartitionSpec(PartitionField(source.field_id, PARTITION_FIELD_ID_START, HourTransform(), f"{hour}_hour"))


def sort_order_of(schema: Schema, spec: TableSpec) -> SortOrder:
    """Make the table's sort order: nulls first ascending, last descending, as both Iceberg and Spark default to."""
    fields = [
        SortField(
            source_id=schema.find_field(field.column).field_id,
            transform=IdentityTransform(),
            direction=SortDirection.DESC if field.descending else SortDirection.ASC,
            null_order=NullOrder.NULLS_LAST if field.descending else NullOrder.NULLS_FIRST,
        )
        for field in spec.sort
    ]
    return SortOrder(*fields, order_id=1) if fields else SortOrder(order_id=0)


@contextmanager
def translated(doing: str, properties: Mapping[str, Any]) -> Iterator[None]:
    """Say a catalog's failures in our own errors; what is no failure of the catalog passes."""
    where = properties.get("uri") or properties.get("type") or "its default"
    if "://" in str(where):
        scheme, _, rest = str(where).partition("://")
        where = f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"  # a URI may hold a password
    try:
        yield
    except (UnauthorizedError, ForbiddenError, OAuthError) as error:
        raise ConfigurationError(f"cannot {doing}: the catalog at {where} refuses the credentials: {error}") from None
    except (requests.ConnectionError, requests.Timeout, sqlalchemy.exc.OperationalError) as error:
        raise TransientError(
            f"cannot {doing}: the catalog at {where} cannot be reached ({type(error).__name__}); "
            "is it running, and is `catalog` in lakehouse.yaml right?"
        ) from None
    except RESTError as error:
        raise TransientError(f"cannot {doing}: the catalog at {where} answered {error}") from None


def _is_being_made(error: BaseException) -> bool:
    return isinstance(error, sqlalchemy.exc.DBAPIError) and "already exists" in str(error)


def _make_sqlite_folder(uri: str) -> None:
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)

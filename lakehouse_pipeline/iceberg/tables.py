"""The Iceberg table behind a spec: the catalog, its creation and its loading, and a catalog's failures in our words.

What the table should be is `iceberg.schemas`'s, whether it is that is `iceberg.evolution`'s. No file is written here.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import requests
import sqlalchemy.exc
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    ForbiddenError,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    OAuthError,
    RESTError,
    TableAlreadyExistsError,
    UnauthorizedError,
)
from pyiceberg.table import Table
from pyiceberg.typedef import Identifier
from sqlalchemy.engine import make_url

from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.types import Column
from lakehouse_pipeline.errors import ConfigurationError, TransientError
from lakehouse_pipeline.iceberg.changes import ChangePlan, refuse_impossible, run_changes
from lakehouse_pipeline.iceberg.evolution import DESCRIPTION, check_agrees, plan_changes
from lakehouse_pipeline.iceberg.schemas import partition_spec_of, schema_of, sort_order_of
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.retry import RetryPolicy, retry_call

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

# A new SQL catalog gets two tables; of processes that open it at the same moment one makes each.
OPENING = RetryPolicy(tries=3, total_s=10.0, min_wait_s=0.1, max_wait_s=1.0)

# Of a question, such as what a table is now: it is read for each hour, and a catalog in trouble answers the next time.
# One that is not there at all is given up after some seconds. Commits have a loop of their own around it.
ASKING = RetryPolicy(tries=6, total_s=15.0, min_wait_s=0.2, max_wait_s=4.0)

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
    opening = "open the catalog"
    settings = {"py-io-impl": FILE_IO, **properties}
    name = settings.pop("name", "lakehouse")
    if file := new_sqlite_file(settings):
        file.parent.mkdir(parents=True, exist_ok=True)
    if settings.keys() & {"credential", "token"} and settings.get("uri", "").startswith("http"):
        # PyIceberg's own default. Left to it, it warns, and prints the URI with a password that stands there.
        settings.setdefault("oauth2-server-uri", f"{settings['uri'].rstrip('/')}/v1/oauth/tokens")

    def opened() -> Catalog:
        try:
            return retry_call(OPENING, lambda: load_catalog(name, **settings), on=_is_being_made, name=opening)
        except ValueError as error:
            raise ConfigurationError(f"the catalog: {error}") from None

    return ask(opening, settings, opened)


def find_table(catalog: Catalog, identifier: str | Identifier) -> Table | None:
    """Load a table as it is, None while it does not exist.

    Raises:
        ConfigurationError: the catalog refuses the credentials.
        TransientError: it cannot be reached.
    """
    said = identifier if isinstance(identifier, str) else ".".join(identifier)
    try:
        return ask(f"load {said}", catalog.properties, lambda: catalog.load_table(identifier))
    except NoSuchTableError:
        return None


def load_table(catalog: Catalog, spec: TableSpec) -> Table | None:
    """Load a spec's table, None while it does not exist.

    Raises:
        ConfigurationError: the table is not the one that the spec describes.
        TransientError: the catalog cannot be reached.
    """
    table = find_table(catalog, spec.table)
    if table:
        check_agrees(table.metadata, spec)
    return table


def check_place(catalog: Catalog, identifier: str) -> None:
    """Find out whether a catalog knows where a new table goes: those in a database have to be told, or its namespace.

    Raises:
        ConfigurationError: it does not.
    """
    if isinstance(catalog, SqlCatalog) and not catalog.properties.get("warehouse"):
        with suppress(NoSuchNamespaceError):
            if catalog.load_namespace_properties(identifier.rpartition(".")[0]).get("location"):
                return
        raise ConfigurationError(
            "the catalog has no folder for a new table: write `warehouse` under `catalog` in lakehouse.yaml, "
            "such as s3://lake/warehouse"
        )


def create_table(catalog: Catalog, spec: TableSpec, columns: tuple[Column, ...]) -> Table:
    """Create a spec's table, or load it where somebody was faster.

    Raises:
        ConfigurationError: the table exists and is not the one that the spec describes, or there is no folder for it.
        TransientError: the catalog cannot be reached.
    """
    check_place(catalog, spec.table)
    schema = schema_of(columns)
    described = {DESCRIPTION: spec.description} if spec.description else {}

    def created() -> Table:
        with suppress(NamespaceAlreadyExistsError, sqlalchemy.exc.IntegrityError):  # the latter is a SQL catalog's
            catalog.create_namespace(spec.table.rpartition(".")[0])
        try:
            return catalog.create_table(
                spec.table,
                schema,
                partition_spec=partition_spec_of(schema, spec),
                sort_order=sort_order_of(schema, spec),
                properties={**NEW_TABLE_PROPERTIES, **described, **spec.properties},
            )
        except TableAlreadyExistsError:  # somebody's, or ours, whose answer was lost
            return catalog.load_table(spec.table)

    table = ask(f"create {spec.table}", catalog.properties, created)
    logger.info("created %s at %s", spec.table, table.location())
    check_agrees(table.metadata, spec)
    return table


def apply_spec(catalog: Catalog, spec: TableSpec, *, dry_run: bool) -> ChangePlan | None:
    """Bring a spec's table to the spec by Iceberg's evolution rules; gives what differed, None where there is no table.

    Args:
        catalog: where the table is.
        spec: what it should be.
        dry_run: whether to change nothing.

    Raises:
        ConfigurationError: something differs that Iceberg does not change; nothing was changed.
        CommitConflictError: somebody else changed the table meanwhile; nothing was changed.
        CommitStateUnknownError: whether the changes landed is not known.
        TransientError: the catalog cannot be reached.
    """
    table = find_table(catalog, spec.table)
    if table is None:
        return None
    plan = plan_changes(table.metadata, spec)
    refuse_impossible(plan)
    if not dry_run:
        run_changes(table, plan)
    return plan


def ask(doing: str, properties: Mapping[str, Any], question: Callable[[], Answer]) -> Answer:
    """Ask the catalog something, and again where it does not answer.

    Args:
        doing: what for, in words that follow "cannot".
        properties: the catalog's.
        question: may be asked twice, also if the first had its effect.

    Raises:
        ConfigurationError: it refuses the credentials.
        TransientError: it has not answered within the tries of `ASKING`.
    """

    def once() -> Answer:
        with _translated(doing, properties):
            return question()

    return retry_call(ASKING, once, on=TransientError, name=doing)


@contextmanager
def _translated(doing: str, properties: Mapping[str, Any]) -> Iterator[None]:
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


def new_sqlite_file(properties: Mapping[str, str]) -> Path | None:
    """Name the file that opening a catalog would make; None where it is there, and where the catalog is no file."""
    uri = make_url(properties["uri"]) if properties.get("uri", "").startswith("sqlite") else None
    if uri is None or not uri.database or uri.database == ":memory:" or uri.database.startswith("file:"):
        return None
    return None if (file := Path(uri.database)).exists() else file

"""The folders of a table, and who else has files there."""

import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.typedef import Identifier

from lakehouse_pipeline.errors import SafetyError
from lakehouse_pipeline.iceberg.tables import ask, find_table
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.places import Aliases
from lakehouse_pipeline.object_store.side_by_side import side_by_side

TABLES_AT_ONCE = 8
GC_ENABLED = "gc.enabled"
_HEAD_BYTES = 64 * 1024  # metadata say at their beginning whose they are; some list a year of snapshots behind it
_UUID = re.compile(rb'"table-uuid"\s*:\s*"([^"]+)"')


def folders_of(table: Table, aliases: Aliases) -> tuple[str, ...]:
    """Name the folders in which a table has its files; none lies in another."""
    locations = table.location_provider()
    found: list[str] = []
    for folder in sorted({table.location(), locations.data_path, locations.metadata_path}, key=len):
        if not aliases.one_contains(found, folder):
            found.append(folder.rstrip("/"))
    return tuple(found)


def visible_fields(table: Table) -> frozenset[str]:
    """Name the partition fields whose folders look hidden (`_day=1`) and are not."""
    names = {field.name for spec in table.metadata.partition_specs for field in spec.fields}
    return frozenset(name for name in names if name.startswith(("_", ".")))


def collects_garbage(properties: Mapping[str, str]) -> bool:
    """Tell whether a table's properties let its files be removed; whatever is not plainly so does not."""
    return properties.get(GC_ENABLED, "true").strip().lower() == "true"


def check_collects(table: Table) -> None:
    """Hold a table against its own word that its files may be removed.

    Raises:
        SafetyError: `gc.enabled` is false: some of its files may be another table's.
    """
    properties = table.metadata.properties
    if not collects_garbage(properties):
        raise SafetyError(
            f"{'.'.join(table.name())} has {GC_ENABLED}={properties[GC_ENABLED]}: other tables may use its files. "
            "Nothing is removed; set the property to true if that is no longer so"
        )


def check_alone(catalog: Catalog, table: Table, aliases: Aliases) -> None:
    """Hold a table against the others of its catalog: none may have its files in the same folders.

    Raises:
        SafetyError: one has, or may have, since it cannot be loaded.
        TransientError: the catalog cannot be reached.
    """
    folders, name = folders_of(table, aliases), table.name()

    def check(other: Identifier) -> None:
        said = ".".join(other)
        try:
            found = find_table(catalog, other)
            theirs = folders_of(found, aliases) if found else ()  # dropped since it was listed
        except Exception as error:  # whatever it is: PyIceberg's own errors have no common root
            raise SafetyError(
                f"whether {said} shares a folder with {'.'.join(name)} cannot be told ({error}): nothing is removed"
            ) from error
        for ours in folders:
            for folder in theirs:
                if aliases.overlap(ours, folder):
                    raise SafetyError(
                        f"{said} has files in {folder}, where {'.'.join(name)} has its own ({ours}): what the one does "
                        "not reach may be the other's. Move one of them before either is swept"
                    )

    side_by_side(check, [other for other in _tables(catalog) if other != name], TABLES_AT_ONCE)


def _tables(catalog: Catalog) -> list[Identifier]:
    def listed() -> list[Identifier]:
        return [tuple(name) for namespace in _namespaces(catalog, ()) for name in catalog.list_tables(namespace)]

    return ask("list the tables", catalog.properties, listed)


def _namespaces(catalog: Catalog, parent: Identifier) -> Iterator[Identifier]:
    for found in catalog.list_namespaces(parent):
        namespace = tuple(found)
        if len(namespace) > len(parent):  # not every catalog has namespaces in namespaces
            yield namespace
            yield from _namespaces(catalog, namespace)


def uuids_in(files: LakehouseFileIO, metadata_files: Sequence[str], at_once: int) -> dict[str, str]:
    """Tell of metadata files whose they are; of one that is gone, or is none, nothing is said."""
    found = side_by_side(lambda url: _uuid_in(files, url), metadata_files, at_once)
    return {url: uuid for url, uuid in zip(metadata_files, found, strict=True) if uuid}


def _uuid_in(files: LakehouseFileIO, url: str) -> str:
    try:
        with files.open_read(url) as stream:
            body = stream.read(_HEAD_BYTES)
            named = _UUID.search(body)
            if named:
                return named[1].decode()
            body += stream.read()
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        return str(json.loads(body)["table-uuid"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, EOFError, gzip.BadGzipFile):
        return ""

"""What the snapshots of a table reach, and what lies in its folders beside that. Nothing is removed here."""

from collections.abc import Iterator
from itertools import chain

from pyiceberg.table import Table

from lakehouse_pipeline.iceberg.manifests import DELETED, read_entries
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import ObjectInfo

METADATA_FILE = ".metadata.json"  # written by the catalog, which alone knows which of them it still needs


def reached(table: Table) -> set[str]:
    """Name the manifest lists, manifests, data and delete files of all snapshots, and the statistics beside them."""
    metadata = table.metadata
    found = {file.statistics_path for file in chain(metadata.statistics, metadata.partition_statistics)}
    seen = set[str]()
    for snapshot in metadata.snapshots:
        found.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in seen:
                seen.add(manifest.manifest_path)
                live = (entry for entry in read_entries(table.io, manifest) if entry["status"] != DELETED)
                found.update(entry["data_file"]["file_path"] for entry in live)
    return found | seen


def strays(table: Table, files: LakehouseFileIO) -> Iterator[ObjectInfo]:
    """Go through the objects in a table's data and metadata folders that no snapshot reaches.

    What an attempt at work has written is among them, so a stray is nothing to remove by itself. The catalog's own
    `.metadata.json` files are not.
    """
    known, locations = reached(table), table.location_provider()
    for folder in (locations.data_path, locations.metadata_path):
        for item in files.list_objects(f"{folder}/"):
            if item.url not in known and not item.url.endswith(METADATA_FILE):
                yield item

"""The borders of a table: in which folders files of its attempts may be, and nowhere else may any be removed.

Files of an attempt are removed by names that its record and its claims tell. Both lie in the ledger's folder, where
somebody may write who has no right elsewhere: what they say is held against the table's own metadata.
"""

from collections.abc import Iterable, Mapping

from pyiceberg.table import Table
from pyiceberg.table.locations import LocationProvider, load_location_provider

from lakehouse_pipeline.errors import SafetyError
from lakehouse_pipeline.iceberg.expiry import read_metadata
from lakehouse_pipeline.iceberg.folders import folders_of
from lakehouse_pipeline.iceberg.write_target import LOCATION, PROVIDER, layout_in, layout_of
from lakehouse_pipeline.object_store.places import SPELLINGS


def check_layout(table: Table, layout: Mapping[str, str]) -> None:
    """Hold an attempt's layout against the table: it is, or was, the table's, or stays in the table's folders.

    Its metadata files of earlier are read only where the layout leads elsewhere.

    Args:
        table: loaded now.
        layout: see `write_target.layout_of`; empty is the present one.

    Raises:
        SafetyError: it is none of the table's.
    """
    if not layout or _is(layout, layout_of(table)) or _stays(table, layout):
        return
    for entry in reversed(table.metadata.metadata_log):
        try:
            earlier = read_metadata(table, entry.metadata_file)
        except (FileNotFoundError, SafetyError):  # gone, or none
            continue
        if _is(layout, layout_in(earlier)):
            return
    raise SafetyError(
        f"the ledger of {'.'.join(table.name())} has an attempt with files in {layout.get(LOCATION) or 'no folder'}, "
        f"laid out as {dict(layout)}: the table is not laid out like that, and no metadata file that is left says that "
        "it was. Nothing of the attempt is removed. Whoever knows it to be right removes the files by hand, and then "
        "its marker in the ledger"
    )


def check_inside(locations: LocationProvider, urls: Iterable[str]) -> None:
    """Hold the names of an attempt's files against the folders that they are to be in.

    A class that the table's owner has set to name files may put them wherever it likes, and in any bucket; but what it
    names is named without `..`.

    Raises:
        SafetyError: one is elsewhere.
    """
    named = sorted(_folders(locations), key=len) if type(locations).__module__.startswith("pyiceberg.") else []
    for url in urls:
        folders = named or [f"{SPELLINGS.split(url)[0]}/"]
        if not SPELLINGS.one_contains(folders, url):
            raise SafetyError(
                f"{url!r}, which the ledger says is a file of an attempt, is not in {' or '.join(folders)}, at least "
                "not without '..': nothing of the attempt is removed. Somebody has changed what it claimed"
            )


def _stays(table: Table, layout: Mapping[str, str]) -> bool:
    """Tell whether all that a layout names is in the table's folders; a class that names files is asked by none."""
    now = layout_of(table)
    if _provider_in(layout) != _provider_in(now):
        return False
    shaped = {name: told for name, told in layout.items() if name != LOCATION}
    asked = _folders(load_location_provider(layout.get(LOCATION, table.location()), shaped))
    ours = folders_of(table, SPELLINGS)
    return all(SPELLINGS.one_contains(ours, each) for each in asked)


def _provider_in(layout: Mapping[str, str]) -> Mapping[str, str]:
    return {name: told for name, told in layout.items() if name.startswith(PROVIDER)}


def _folders(locations: LocationProvider) -> set[str]:
    return {locations.table_location, locations.data_path, locations.metadata_path}


def _is(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return _spelled(one) == _spelled(other)


def _spelled(layout: Mapping[str, str]) -> Mapping[str, str]:
    return {**layout, LOCATION: SPELLINGS.name(layout.get(LOCATION, "")).rstrip("/")}

"""PyIceberg, for `manifests.py`: the files that ours sealed, appended to a table of its own, and then replaced.

`python -m benchmarks._manifests_pyiceberg FOLDER TABLE STEP OURS` prints a JSON line. Its manifests are written with
the commit. The objects that it takes files as are made before.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from benchmarks import _manifests_table
from benchmarks._timed import measured


def files_of(table: Table) -> list[DataFile]:
    """Read the live files of a table."""
    snapshot = table.current_snapshot()
    manifests = snapshot.manifests(table.io) if snapshot else []
    return [entry.data_file for each in manifests for entry in each.fetch_manifest_entry(table.io)]


def append(table: Table, ours: Table) -> Callable[[], object]:
    """Append what ours has."""
    files = files_of(ours)

    def step() -> None:
        with table.transaction() as change, change.update_snapshot().fast_append() as producer:
            for file in files:
                producer.append_data_file(file)

    return step


def replace(table: Table, ours: Table) -> Callable[[], object]:
    """Replace all that is there by what ours has now."""
    files, gone = files_of(ours), files_of(table)

    def step() -> None:
        with table.transaction() as change, change.update_snapshot().overwrite() as producer:
            for file in gone:
                producer.delete_data_file(file)
            for file in files:
                producer.append_data_file(file)

    return step


STEPS = {"append": append, "replace": replace}


def main(folder: Path, name: str, step: str, ours: str) -> None:
    """Prepare a step, measure it, and print what it took."""
    lake = _manifests_table.opened(folder, name)
    peer = _manifests_table.opened(folder, ours)
    print(json.dumps(measured(STEPS[step](lake.now.table, peer.now.table))), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:5])

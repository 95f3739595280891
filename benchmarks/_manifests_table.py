"""The tables of `manifests.py`: hours of so many data files, with twenty columns of statistics, and no byte of data.

Nobody reads data files when they are sealed and committed. Their statistics are those of a few that were written.
"""

from itertools import cycle, islice
from pathlib import Path

from benchmarks._compact_tables import FIRST, Asked
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.data_files import WrittenFile
from lakehouse_pipeline.iceberg.event_time import Entry
from lakehouse_pipeline.iceberg.manifest_files import ManifestKind
from lakehouse_pipeline.iceberg.tables import open_catalog
from tests.iceberg.entries import decode_entry
from tests.iceberg.lake import Lake, in_bucket

HOUR = FIRST
TYPES = {
    "at": "timestamptz!",
    **{f"id_{place}": "long" for place in range(7)},
    **{f"value_{place}": "double" for place in range(6)},
    **{f"name_{place}": "string" for place in range(6)},
}
SAMPLES = 64  # files that are written: further apart than a compressor looks back


def opened(folder: Path, table: str = "") -> Lake:
    """Open the catalog of a folder, and its table; a new one where none is named."""
    folder.mkdir(parents=True, exist_ok=True)
    catalog = open_catalog(
        {"type": "sql", "uri": f"sqlite:///{folder}/catalog.db", "warehouse": f"file://{folder}/warehouse"}
    )
    return Lake(catalog, table) if table else Lake.create(catalog, TYPES)


def samples(lake: Lake) -> list[Entry]:
    """Write some files, and take their entries."""
    files = (Asked(1, 1, 1000, TYPES).file(HOUR, place) for place in range(SAMPLES))
    written = [file for place, rows in enumerate(files) for file in lake.write(HOUR, [in_bucket(place, rows)])]
    table = lake.now.table
    return [decode_entry(file.entry, table.spec(), table.schema()) for file in written]


def entries_of(
    lake: Lake, hour: HourWindow, attempt: str, entries: list[Entry], count: int
) -> tuple[ManifestKind, list[Entry]]:
    """Make the entries of so many files of an attempt, and their kind."""
    target = lake.now.target(hour, attempt, 1)
    partition = target.partitions.record(())
    made = [
        {
            **entry,
            "data_file": {**entry["data_file"], "file_path": target.file_url(bucket, 0, 0), "partition": partition},
        }
        for bucket, entry in enumerate(islice(cycle(entries), count))
    ]
    return target.kind, made


def written_file(kind: ManifestKind, entry: Entry) -> WrittenFile:
    """Make what a task gives back of a file."""
    file = entry["data_file"]
    return WrittenFile(file["file_path"], file["record_count"], file["file_size_in_bytes"], "", kind.encode(entry))

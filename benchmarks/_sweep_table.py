"""The table of `sweep.py`: so many tiny objects under hashed keys, most of them in manifests, some in nobody's.

Nobody reads data files in an audit: they are ten bytes each, and their entries are those of one that was written.
"""

import asyncio
from collections.abc import Mapping, Sequence

import obstore
from pyiceberg.catalog import Catalog

from benchmarks._compact_tables import FIRST, WIDE, Asked
from benchmarks._obstore import s3_store
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.data_files import WrittenFile
from lakehouse_pipeline.iceberg.event_time import Entry
from lakehouse_pipeline.iceberg.manifests import digest
from lakehouse_pipeline.iceberg.sealed_hours import SealedHour
from lakehouse_pipeline.ledger.records import new_attempt_id
from lakehouse_pipeline.object_store.side_by_side import side_by_side
from tests.iceberg.entries import decode_entry
from tests.iceberg.lake import Lake, hours_after, in_bucket

HOURS = 456
ORPHANED = 20  # one object of so many
BODY = b"0123456789"
PUTS_AT_ONCE = 16
SEALS_AT_ONCE = 4


def made(catalog: Catalog, properties: Mapping[str, str], objects: int) -> tuple[Lake, int]:
    """Make a table in a catalog, and say how many of its objects are orphans."""
    lake = Lake.create(catalog, WIDE)
    orphans = objects // ORPHANED
    hours = hours_after(FIRST, min(HOURS, objects // 100))
    shares = [len(range(place, objects - orphans, len(hours))) for place in range(len(hours))]
    sample = _sample(lake)

    def seal(place: int) -> tuple[SealedHour, list[str]]:
        attempt = new_attempt_id()
        names = _names(lake, hours[place], attempt, shares[place])
        told = lake.now.seal(attempt, _written(lake, hours[place], names, sample), rows_read=None, rejected=0)
        return SealedHour(hours[place], attempt, digest([]), told), names

    sealed = side_by_side(seal, range(len(hours)), SEALS_AT_ONCE)
    lost = _names(lake, hours[0], new_attempt_id(), orphans)  # of an attempt that no ledger knows
    put([*lost, *(name for _, names in sealed for name in names)], properties)
    lake.replace(*(hour for hour, _ in sealed))
    return lake, orphans


def _sample(lake: Lake) -> Entry:
    """Write one file, take its entry, and remove it."""
    hour = FIRST
    (written,) = lake.write(hour, [in_bucket(0, Asked(1, 1, 1000, WIDE).file(hour, 0))])
    lake.now.files.delete(written.path)
    table = lake.now.table
    return decode_entry(written.entry, table.spec(), table.schema())


def _names(lake: Lake, hour: HourWindow, attempt: str, count: int) -> list[str]:
    target = lake.now.target(hour, attempt, 1)
    return [target.file_url(bucket, 0, 0) for bucket in range(count)]


def _written(lake: Lake, hour: HourWindow, names: Sequence[str], sample: Entry) -> list[WrittenFile]:
    target = lake.now.target(hour, "", 1)
    partition = target.partitions.record(())
    size, rows = sample["data_file"]["file_size_in_bytes"], sample["data_file"]["record_count"]
    return [
        WrittenFile(
            name,
            rows,
            size,
            "",
            target.kind.encode(
                {**sample, "data_file": {**sample["data_file"], "file_path": name, "partition": partition}}
            ),
        )
        for name in names
    ]


def put(urls: Sequence[str], properties: Mapping[str, str]) -> None:
    """Put tiny objects of one bucket, many at once."""
    bucket = urls[0].removeprefix("s3://").partition("/")[0]
    store = s3_store(bucket, properties)
    keys = iter([url.removeprefix(f"s3://{bucket}/") for url in urls])

    async def one_after_the_other() -> None:
        for key in keys:
            await obstore.put_async(store, key, BODY, use_multipart=False)

    async def all_of_them() -> None:
        await asyncio.gather(*(one_after_the_other() for _ in range(PUTS_AT_ONCE)))

    asyncio.run(all_of_them())

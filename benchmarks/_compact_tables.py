"""The tables of `compact.py`: rows that are the same each time, and what they are once a writer has been over them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyiceberg.catalog import Catalog

from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.checksum import Checksum, checksum_of
from lakehouse_pipeline.iceberg.data_files import WrittenFile
from lakehouse_pipeline.iceberg.schemas import arrow_schema_of, schema_of
from lakehouse_pipeline.object_store.side_by_side import side_by_side
from tests.backfill.hands import in_hand, new_attempt
from tests.iceberg.lake import Lake, columns, hours_after, in_bucket

FIRST = HourWindow.from_key("2013-01-01-00:00")
FILE_SIZE = 512 * 1024**2
WARM_FILES = 6  # of one hour: as many as every writer finds worth it
WRITERS_AT_ONCE = 2

NARROW = {"at": "timestamptz!", "id": "long!", "name": "string", "value": "double"}  # 26 bytes of a row on storage
WIDE = {**NARROW, "a": "double", "b": "double", "c": "double", "d": "double"}  # 58
VERSIONED = {**NARROW, "version": "long!", "deleted": "boolean!"}

VERSIONS = 1.6  # rows of a key in the mean: half of the rows are older versions then
TOMBSTONES = 0.02  # of the rows


@dataclass(frozen=True)
class Asked:
    """What a table is like.

    Attributes:
        hours: how many.
        files: of an hour.
        rows: of a file.
        types: columns; the first is the hour's.
        properties: of the table, as its engines see them.
    """

    hours: int
    files: int
    rows: int
    types: Mapping[str, str] = field(default_factory=lambda: NARROW)
    properties: Mapping[str, str] = field(default_factory=dict)

    def warm(self) -> "Asked":
        """Give a small one of the same kind."""
        return Asked(1, WARM_FILES, self.rows, self.types, self.properties)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Make the rows of all files."""
        hours = hours_after(FIRST, self.hours)
        return (self.file(hour, place) for hour in hours for place in range(self.files))

    def file(self, hour: HourWindow, place: int) -> pa.RecordBatch:
        """Make a file's rows; little of them can be compressed."""
        random = np.random.default_rng([hour.ordinal, place])
        schema = arrow_schema_of(columns(self.types))
        values = [self._column(random, name, kind, hour, place) for name, kind in self.types.items()]
        return pa.RecordBatch.from_arrays(
            [each.cast(column.type) for each, column in zip(values, schema, strict=True)], schema=schema
        )

    def _column(self, random: np.random.Generator, name: str, kind: str, hour: HourWindow, place: int) -> pa.Array:
        numbers: npt.NDArray[np.int64] = random.integers(0, 2**40, self.rows)
        if kind.startswith("timestamptz"):
            return pa.array(int(hour.start.timestamp()) * 1_000_000 + numbers % 3_600_000_000)
        if kind.startswith("boolean"):
            return pa.array(random.random(self.rows) < TOMBSTONES)
        if kind.startswith("double"):
            return pa.array(random.normal(size=self.rows))
        if name == "version":  # no two are equal
            return pa.array(numbers % 2**30 * 2**32 + place * self.rows + np.arange(self.rows))
        if name == "id" and "version" in self.types:  # keys are of one hour
            return pa.array(hour.ordinal * 2**32 + numbers % int(self.files * self.rows / VERSIONS))
        return pa.array(numbers)


def made(catalog: Catalog, asked: Asked) -> Lake:
    """Make a table, each hour committed as by a run that has as many tasks as files."""
    lake = Lake.create(catalog, asked.types)
    if asked.properties:
        with lake.now.table.transaction() as change:
            change.set_properties(dict(asked.properties))
    for hour in hours_after(FIRST, asked.hours):
        hand = in_hand(lake, hour)
        hand.open(new_attempt(hand.table, hour, buckets=asked.files))
        attempt = hand.attempt.id

        def write(place: int, hour: HourWindow = hour, attempt: str = attempt) -> Sequence[WrittenFile]:
            return lake.write(hour, [in_bucket(place, asked.file(hour, place))], attempt, FILE_SIZE)

        written = [file for files in side_by_side(write, range(asked.files), WRITERS_AT_ONCE) for file in files]
        hand.seal(hand.table.seal(attempt, written, rows_read=None, rejected=0))
        hand.commit()
    return lake


Left = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def all_of(rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Leave rows as they are."""
    return rows


def latest(rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Leave the last version of each id, if it is no tombstone."""
    table = pa.Table.from_batches(list(rows)).combine_chunks()
    ids, versions, deleted = (table.column(name).to_numpy() for name in ("id", "version", "deleted"))
    order = np.lexsort((versions, ids))
    last = order[np.append(ids[order][1:] != ids[order][:-1], True)]
    return iter(table.take(pa.array(last[~deleted[last]])).to_batches())


DELETED = "id % 20 < 7"  # 35 % of the rows


def not_deleted(rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Leave what `DELETED` does not select."""
    return (batch.filter(pa.array(batch.column("id").to_numpy() % 20 >= 7)) for batch in rows)


def expected(asked: Asked, left: Left) -> Checksum:
    """Add up the rows that a table has in the end."""
    return checksum_of(left(asked.batches()), schema_of(columns(asked.types)).fields)


def contents(lake: Lake) -> Checksum:
    """Read all rows of a table and add them up."""
    return checksum_of(lake.now.table.scan().to_arrow_batch_reader(), lake.now.stored.columns)

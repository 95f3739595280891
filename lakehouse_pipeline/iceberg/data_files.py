"""Arrow batches in, data files out: Parquet at entropy-hashed keys, with the statistics that Iceberg plans by.

This runs inside the engine's tasks. A task keeps one row group of Arrow data in memory and one file on local disk per
bucket, whatever the hour's size. Names are a function of bucket, attempt, file and try, so every file of an attempt
can be named, and removed, without a listing.
"""

import logging
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.sorting import SortOrder
from pyiceberg.typedef import Record
from pyiceberg.utils.properties import property_as_bool

from lakehouse_pipeline.errors import DataError, SafetyError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.manifests import ADDED, avro_name, encode_entry
from lakehouse_pipeline.iceberg.sorted_rows import OrderCheck, said
from lakehouse_pipeline.iceberg.statistics import column_statistics
from lakehouse_pipeline.iceberg.tables import arrow_schema
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import PreconditionFailedError

logger = logging.getLogger(__name__)

BUCKET = "_bucket"  # the column that carries a row's bucket to the writer; engines need no task context for it

ROW_GROUP_BYTES = 128 * 1024**2  # Iceberg's default of write.parquet.row-group-size-bytes, here in Arrow bytes
ROW_GROUP_ROWS = 1024**2  # PyIceberg's default of write.parquet.row-group-limit
SMALLEST_ROW_GROUP = 256 * 1024  # bytes of Arrow: below that a file rolls rather than getting a sliver
HOUR_MICROSECONDS = 3_600_000_000
TRIES = 16  # names that a file may find taken before its writer gives up

# Share of distinct values up to which a dictionary pays; measured on a sample of the first row group. Dictionaries for
# columns of unique strings cost a fifth of the encoder's time and save nothing.
DICTIONARY_SHARE = 0.5
DICTIONARY_SAMPLE = 20_000  # rows

WRITTEN = pa.schema(
    [
        ("path", pa.string()),
        ("rows", pa.int64()),
        ("size", pa.int64()),
        ("etag", pa.string()),
        ("entry", pa.binary()),
    ]
)


class OtherHourError(DataError):
    """A row is of another hour than the one that is written."""


@dataclass(frozen=True)
class WriteTarget:
    """All that a task needs to write files of one attempt; small and picklable.

    Attributes:
        files: the store.
        location: the table's location.
        properties: the table's properties.
        schema_json: its schema.
        spec_json: its partition spec, `hour(<event time>)`.
        sort_order_json: its sort order.
        hour: the hour that every row has to be in.
        hour_column: the event time's column.
        attempt: the attempt's id.
        file_size: bytes on storage at which a file rolls.
    """

    files: LakehouseFileIO
    location: str
    properties: Mapping[str, str]
    schema_json: str
    spec_json: str
    sort_order_json: str
    hour: HourWindow
    hour_column: str
    attempt: str
    file_size: int

    @classmethod
    def of(cls, table: Table, files: LakehouseFileIO, hour: HourWindow, attempt: str, file_size: int) -> "WriteTarget":
        """Describe the writing of an attempt into a table."""
        schema, spec = table.schema(), table.spec()
        return cls(
            files=files,
            location=table.location(),
            properties=dict(table.properties),
            schema_json=schema.model_dump_json(),
            spec_json=spec.model_dump_json(),
            sort_order_json=table.sort_order().model_dump_json(),
            hour=hour,
            hour_column=schema.find_column_name(spec.fields[0].source_id) or "",
            attempt=attempt,
            file_size=file_size,
        )

    @cached_property
    def schema(self) -> Schema:
        """The table's schema."""
        return Schema.model_validate_json(self.schema_json)

    @cached_property
    def spec(self) -> PartitionSpec:
        """The table's partition spec."""
        return PartitionSpec.model_validate_json(self.spec_json)

    @cached_property
    def sort_order(self) -> SortOrder:
        """The table's sort order; unsorted has no fields."""
        return SortOrder.model_validate_json(self.sort_order_json)

    def file_url(self, bucket: int, file: int, attempt_try: int) -> str:
        """Give the place of a file: Iceberg's object-store layout hashes its relative name into the key."""
        name = f"{bucket:05d}-{self.attempt}-{file}-{attempt_try}.parquet"
        properties = dict(self.properties)
        provider = load_location_provider(self.location, properties)
        if property_as_bool(properties, TableProperties.OBJECT_STORE_ENABLED, False) and not property_as_bool(
            properties, TableProperties.WRITE_OBJECT_STORE_PARTITIONED_PATHS, True
        ):
            return provider.new_data_location(name)
        return provider.new_data_location(f"{self._partition_path}/{name}")

    @cached_property
    def _partition_path(self) -> str:
        return self.spec.partition_to_path(Record(self.hour.ordinal), self.schema)


@dataclass(frozen=True)
class WrittenFile:
    """A data file on storage that no snapshot knows yet.

    Attributes:
        path: where it lies.
        rows: rows in it.
        size: bytes on storage.
        etag: the store's tag of this version.
        entry: its manifest entry, Avro-encoded (`iceberg.manifests.decode_entry`).
    """

    path: str
    rows: int
    size: int
    etag: str
    entry: bytes


def write_batches(target: WriteTarget, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Write a task's rows and give a `WRITTEN` batch of the files they became.

    Args:
        target: the attempt.
        batches: the table's columns by name, and `_bucket` (int32, not null).

    Raises:
        DataError: a row of another hour, or a null in a required column.
        SafetyError: rows came out of order where the table is sorted.
        TransientError: the store did not take a file within its retries.
    """
    buckets: dict[int, _BucketWriter] = {}
    with tempfile.TemporaryDirectory(prefix="lakehouse-") as folder:
        for batch in batches:
            for bucket, rows in _by_bucket(batch):
                writer = buckets.get(bucket) or buckets.setdefault(bucket, _BucketWriter(target, bucket, Path(folder)))
                writer.write(rows)
        written = [file for bucket in sorted(buckets) for file in buckets[bucket].close()]
    yield pa.RecordBatch.from_pylist([vars(file) for file in written], schema=WRITTEN)


def written_files(batches: Iterable[pa.RecordBatch]) -> list[WrittenFile]:
    """Read what `write_batches` gave."""
    return [WrittenFile(**row) for batch in batches for row in batch.to_pylist()]


def _by_bucket(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    column = batch.column(BUCKET)
    rows = batch.drop_columns([BUCKET])
    for bucket in pc.unique(column).to_pylist() if batch.num_rows else []:
        mask = pc.equal(column, bucket)
        yield bucket, rows if pc.all(mask).as_py() else rows.filter(mask)


@dataclass
class _BucketWriter:
    target: WriteTarget
    bucket: int
    folder: Path
    written: list[WrittenFile] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.schema = arrow_schema(self.target.schema)
        self.order = OrderCheck.of(self.target.sort_order, self.target.schema)
        self.row_group_bytes = int(self.target.properties.get("write.parquet.row-group-size-bytes", ROW_GROUP_BYTES))
        self.row_group_rows = int(self.target.properties.get("write.parquet.row-group-limit", ROW_GROUP_ROWS))
        self.ratio = 1.0  # bytes on storage per Arrow byte; measured from the first row group on
        self.file: _OpenFile | None = None
        self.buffered: list[pa.RecordBatch] = []
        self.buffered_bytes = self.buffered_rows = 0

    def write(self, rows: pa.RecordBatch) -> None:
        """Take rows; row groups and files are finished on the way."""
        rows = conform(rows, self.schema)
        check_hour(rows, self.target.hour, self.target.hour_column)
        self.order.feed(rows)
        while rows.num_rows:
            part = rows.slice(0, self._fitting(rows))
            rows = rows.slice(part.num_rows)
            self.buffered.append(part)
            self.buffered_bytes += part.nbytes
            self.buffered_rows += part.num_rows
            if self.buffered_bytes >= self._room() or self.buffered_rows >= self.row_group_rows:
                self._flush()

    def close(self) -> list[WrittenFile]:
        """Finish the last file and give all of the bucket's."""
        if self.buffered:
            self._flush()
        if self.file:
            self._finish()
        return self.written

    def _room(self) -> float:
        """Arrow bytes that the next row group may have so that the file ends near its target."""
        written = self.file.size() if self.file else 0
        return min(self.row_group_bytes, max(SMALLEST_ROW_GROUP, (self.target.file_size - written) / self.ratio))

    def _fitting(self, rows: pa.RecordBatch) -> int:
        """Rows that the next row group still has room for, at least one: batches may be larger than row groups."""
        by_bytes = math.ceil((self._room() - self.buffered_bytes) * rows.num_rows / rows.nbytes)
        return max(1, min(int(by_bytes), self.row_group_rows - self.buffered_rows))

    def _flush(self) -> None:
        table = pa.Table.from_batches(self.buffered)
        if self.file is None:
            self.file = _OpenFile.start(self.folder / f"{self.bucket}-{len(self.written)}", self.target, table)
        before = self.file.size()
        self.file.write(table)
        self.ratio = max((self.file.size() - before) / max(self.buffered_bytes, 1), 0.001)
        self.buffered, self.buffered_bytes, self.buffered_rows = [], 0, 0
        if self.target.file_size - self.file.size() < SMALLEST_ROW_GROUP * self.ratio:
            self._finish()

    def _finish(self) -> None:
        if self.file is None:
            return
        self.written.append(self._upload(self.file))
        self.file = None

    def _upload(self, file: "_OpenFile") -> WrittenFile:
        statistics = file.close()
        size = file.path.stat().st_size
        for attempt_try in range(TRIES):
            url = self.target.file_url(self.bucket, len(self.written), attempt_try)
            try:
                with file.path.open("rb") as body:
                    etag = self.target.files.put(url, body, if_absent=True).etag
            except PreconditionFailedError:
                logger.info("%s is taken by another writing of this task; the next try has its own name", url)
                continue
            file.path.unlink()
            entry = _entry(self.target, url, size, file.rows, statistics | {"sort_order_id": self.order.sort_order_id})
            return WrittenFile(url, file.rows, size, etag, encode_entry(entry, self.target.spec, self.target.schema))
        raise SafetyError(f"{TRIES} names of file {len(self.written)} in bucket {self.bucket} are taken: {url}")


@dataclass
class _OpenFile:
    """A Parquet file that grows on local disk."""

    path: Path
    target: WriteTarget
    schema: pa.Schema
    sink: pa.NativeFile
    writer: pq.ParquetWriter
    rows: int = 0
    nans: dict[int, int] = field(default_factory=dict)

    @classmethod
    def start(cls, path: Path, target: WriteTarget, first: pa.Table) -> "_OpenFile":
        sink = pa.OSFile(str(path), "wb")
        writer = pq.ParquetWriter(
            sink,
            first.schema,
            use_dictionary=_dictionary_columns(first),
            store_schema=False,
            store_decimal_as_integer=True,
            write_page_index=True,
            **_parquet_options(target.properties),
        )
        return cls(path, target, first.schema, sink, writer)

    def size(self) -> int:
        return int(self.sink.tell())

    def write(self, table: pa.Table) -> None:
        """Write one row group."""
        self.writer.write_table(table, row_group_size=max(table.num_rows, 1))
        self.rows += table.num_rows
        for name, column in zip(table.column_names, table.columns, strict=True):
            if pa.types.is_floating(column.type):
                field_id = self.target.schema.find_field(name).field_id
                count = pc.sum(pc.is_nan(column)).as_py() or 0
                self.nans[field_id] = self.nans.get(field_id, 0) + count

    def close(self) -> dict[str, Any]:
        """Write the footer and give the column statistics, by the spec's names."""
        self.writer.close()
        self.sink.close()
        return column_statistics(self.writer.writer.metadata, self.target.schema, self.target.properties, self.nans)


def _entry(target: WriteTarget, url: str, size: int, rows: int, statistics: dict[str, Any]) -> dict[str, Any]:
    maps = ("column_sizes", "value_counts", "null_value_counts", "nan_value_counts", "lower_bounds", "upper_bounds")
    return {
        "status": ADDED,
        "data_file": {
            "content": 0,
            "file_path": url,
            "file_format": "PARQUET",
            "partition": {avro_name(target.spec.fields[0]): target.hour.ordinal},
            "record_count": rows,
            "file_size_in_bytes": size,
            **{name: [{"key": key, "value": value} for key, value in statistics[name].items()] for name in maps},
            "split_offsets": statistics["split_offsets"],
            "sort_order_id": statistics["sort_order_id"],
        },
    }


def conform(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Give rows the table's exact columns, types and field ids; no value changes.

    Raises:
        DataError: a required column holds a null, or a value does not fit the table's type.
    """
    columns = []
    for wanted in schema:
        column = rows.column(wanted.name)
        if not wanted.nullable and column.null_count:
            raise DataError(
                f"column {wanted.name} is required, but {column.null_count} of {rows.num_rows} rows have no value; "
                f'fill or filter them in the transform, or write the column without "!"'
            )
        try:
            columns.append(column if column.type == wanted.type else column.cast(wanted.type))
        except pa.ArrowInvalid as error:
            raise DataError(f"column {wanted.name} does not fit the table's {wanted.type}: {error}") from None
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def check_hour(rows: pa.RecordBatch, hour: HourWindow, column: str) -> None:
    """Hold every row's event time against the hour.

    Raises:
        OtherHourError: names the first row of another hour.
    """
    instants = rows.column(column).cast(pa.int64())  # microseconds since 1970, as the type is
    low = hour.ordinal * HOUR_MICROSECONDS
    limits = pc.min_max(instants)
    if not rows.num_rows or (limits["min"].as_py() >= low and limits["max"].as_py() < low + HOUR_MICROSECONDS):
        return
    outside = rows.filter(pc.or_(pc.less(instants, low), pc.greater_equal(instants, low + HOUR_MICROSECONDS)))
    first = said(outside, 0)
    raise OtherHourError(
        f"{outside.num_rows} of {rows.num_rows} rows are of another hour than {hour.key} UTC; "
        f"the first has {column} = {first[column]}: {first}. "
        "Land them in the files of their hour, or filter them in the transform"
    )


def _dictionary_columns(table: pa.Table) -> list[str]:
    sample = table.slice(0, DICTIONARY_SAMPLE)
    limit = DICTIONARY_SHARE * max(sample.num_rows, 1)
    return [
        name
        for name, column in zip(sample.column_names, sample.columns, strict=True)
        if not pa.types.is_boolean(column.type) and pc.count_distinct(column).as_py() <= limit
    ]


def _parquet_options(properties: Mapping[str, str]) -> dict[str, Any]:
    codec = properties.get("write.parquet.compression-codec", "zstd").lower()
    level = properties.get("write.parquet.compression-level")
    return {
        "compression": "none" if codec == "uncompressed" else codec,
        "compression_level": int(level) if level and codec not in {"snappy", "uncompressed"} else None,
        "data_page_size": int(properties.get("write.parquet.page-size-bytes", 1024**2)),
        "dictionary_pagesize_limit": int(properties.get("write.parquet.dict-size-bytes", 2 * 1024**2)),
    }

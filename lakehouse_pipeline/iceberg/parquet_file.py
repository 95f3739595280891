"""One Parquet file that grows on local disk, row group by row group, and what Iceberg is told of its columns.

The checksum of each row group stands in the footer, so that whoever copies row groups knows that they are still those.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.schema import Schema

from lakehouse_pipeline.errors import TransientError
from lakehouse_pipeline.iceberg.conformed import leaves
from lakehouse_pipeline.iceberg.footer import MAGIC, SUMS_KEY, sums_text
from lakehouse_pipeline.iceberg.schemas import FIELD_ID
from lakehouse_pipeline.iceberg.statistics import column_statistics
from lakehouse_pipeline.object_store.checksums import crc64nvme

# Share of distinct values up to which a dictionary pays; measured on a sample of the first row group. Dictionaries for
# columns of unique strings cost a fifth of the encoder's time and save nothing.
DICTIONARY_SHARE = 0.5
DICTIONARY_SAMPLE = 20_000  # rows
READ_BACK_BYTES = 1024**2  # at a time, whatever the row group's size; smaller reads were not faster


@dataclass
class OpenFile:
    """A file that is being written.

    Attributes:
        path: where it lies.
        schema: of the table.
        properties: of the table.
        sink: the open file.
        writer: pyarrow's.
        rows: in it by now.
        nans: NaN values by field id.
        sums: bytes and CRC64NVME of each row group.
    """

    path: Path
    schema: Schema
    properties: Mapping[str, str]
    sink: pa.NativeFile
    writer: pq.ParquetWriter
    rows: int = 0
    nans: dict[int, int] = field(default_factory=dict)
    sums: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def start(cls, path: Path, schema: Schema, properties: Mapping[str, str], first: pa.Table) -> "OpenFile":
        """Open a file whose encodings fit the first row group, which is not written yet.

        Raises:
            TransientError: the disk does not take it.
        """
        with _on_disk(path):
            sink = pa.OSFile(str(path), "wb")
            writer = pq.ParquetWriter(
                sink,
                first.schema,
                use_dictionary=_dictionary_columns(first),
                store_schema=False,
                store_decimal_as_integer=True,
                write_page_index=True,
                **_parquet_options(properties),
            )
        return cls(path, schema, properties, sink, writer)

    def size(self) -> int:
        """Give the bytes on disk by now."""
        return int(self.sink.tell())

    def write(self, table: pa.Table) -> None:
        """Write one row group.

        Raises:
            TransientError: the disk does not take it.
        """
        start = self.size() or len(MAGIC)  # pyarrow writes the magic with the first row group
        with _on_disk(self.path):
            self.writer.write_table(table, row_group_size=max(table.num_rows, 1))
        self.sums.append((self.size() - start, _sum_of(self.path, range(start, self.size()))))
        self.rows += table.num_rows
        for _, part, column in _leaves(table):
            if pa.types.is_floating(part.type):
                field_id = int(part.metadata[FIELD_ID])
                count = pc.sum(pc.is_nan(column)).as_py() or 0
                self.nans[field_id] = self.nans.get(field_id, 0) + count

    def close(self) -> dict[str, Any]:
        """Write the footer and give the column statistics, by the spec's names.

        Raises:
            TransientError: the disk does not take it.
        """
        self.writer.add_key_value_metadata({SUMS_KEY: sums_text(self.sums)})
        with _on_disk(self.path):
            self.writer.close()
            self.sink.close()
        return column_statistics(self.writer.writer.metadata, self.schema, self.properties, self.nans)


@contextmanager
def _on_disk(path: Path) -> Iterator[None]:
    """Say that a disk is full as what it is: no fault of the rows that were to be written."""
    try:
        yield
    except OSError as error:
        said = f"a data file could not be kept in {path.parent} until it is uploaded: {error}; give it more room"
        raise TransientError(said) from error


def _sum_of(path: Path, span: range) -> int:
    """Sum up what was just written: it is read from the page cache, as pyarrow's sink keeps nothing back."""
    crc, left, buffer = 0, len(span), memoryview(bytearray(READ_BACK_BYTES))
    with path.open("rb", buffering=0) as file:
        file.seek(span.start)
        while left > 0 and (found := file.readinto(buffer[:left])):
            crc = crc64nvme(buffer[:found], crc)
            left -= found
    return crc


def _leaves(table: pa.Table) -> Iterator[tuple[str, pa.Field, pa.ChunkedArray]]:
    for part, column in zip(table.schema, table.columns, strict=True):
        yield from leaves(part, column, part.name)


def _dictionary_columns(table: pa.Table) -> list[str]:
    return [
        path
        for path, part, column in _leaves(table.slice(0, DICTIONARY_SAMPLE))
        if not pa.types.is_boolean(part.type)
        and pc.count_distinct(column).as_py() <= DICTIONARY_SHARE * max(len(column), 1)
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

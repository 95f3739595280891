"""Parquet objects before any row is judged: opening them, reading row groups as they are, their statistics."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse_pipeline.sources.stored_files import in_our_words
from lakehouse_pipeline.sources.stores import Reads

BATCH_ROWS = 64 * 1024
BATCH_BYTES = 4 * 1024 * 1024  # in memory, judged by the row group's mean row

_NAME = "Parquet"
_PER_MICROSECOND = {"milliseconds": (1000, 1), "microseconds": (1, 1), "nanoseconds": (1, 1000)}


@contextmanager
def opened(io: Reads, url: str, etag: str, size: int) -> Iterator["ParquetObject"]:
    """Open a Parquet object and read its footer.

    Raises:
        DataError: it is no Parquet, truncated or damaged.
    """
    with in_our_words(url, _NAME):
        raw = io.open_read(url, etag=etag, size=size)
    with raw:
        with in_our_words(url, _NAME):
            file = pq.ParquetFile(
                pa.PythonFile(raw, "r"),
                pre_buffer=True,  # few requests per row group instead of one per column
                coerce_int96_timestamp_unit="us",  # INT96 as nanoseconds wraps silently outside of 1677-2262
                page_checksum_verification=True,
            )
        yield ParquetObject(file, url)


class ParquetObject:
    """An open file; a part is a row group. See `stored_files.StoredFile`."""

    def __init__(self, file: pq.ParquetFile, url: str) -> None:
        """Look at an open file's footer."""
        self._file, self._url = file, url
        groups = [file.metadata.row_group(n) for n in range(file.num_row_groups)]
        self.schema: pa.Schema = file.schema_arrow
        self.rows = tuple(group.num_rows for group in groups)
        self.sizes = tuple(sum(g.column(n).total_compressed_size for n in range(g.num_columns)) for g in groups)

    def batches(self, part: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Read columns of a row group as they are stored.

        Raises:
            DataError: the file is truncated or damaged.
        """
        with in_our_words(self._url, _NAME):
            rows = _batch_rows(self._file.metadata.row_group(part), names)
            yield from self._file.iter_batches(rows, row_groups=[part], columns=list(names), use_threads=False)

    def bounds(self, part: int, name: str) -> tuple[int, int] | None:
        """Give a row group's least and greatest instant in microseconds, if its statistics say both and no null.

        What is no INT64 with a logical type, old INT96 among it, has none that can be trusted.
        """
        group = self._file.metadata.row_group(part)
        places = [n for n in range(group.num_columns) if group.column(n).path_in_schema == name]
        if len(places) != 1:
            return None
        chunk = group.column(places[0])
        logical = json.loads(self._file.schema.column(places[0]).logical_type.to_json())
        found = chunk.statistics if chunk.physical_type == "INT64" and logical.get("Type") == "Timestamp" else None
        if found is None or not found.has_min_max or not found.has_null_count or found.null_count:
            return None
        times, over = _PER_MICROSECOND[logical["timeUnit"]]
        low, high = found.min_raw * times // over, found.max_raw * times // over
        return (low, high) if low <= high else None


def _batch_rows(group: pq.RowGroupMetaData, names: Sequence[str]) -> int:
    chunks = [group.column(n) for n in range(group.num_columns)]
    size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.partition(".")[0] in names)
    return max(min(BATCH_BYTES * int(group.num_rows) // max(int(size), 1), BATCH_ROWS), 1)

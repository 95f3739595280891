"""Parquet objects before any row is read: opening them, their columns, their errors in our words."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse_pipeline.errors import DataError
from lakehouse_pipeline.sources.listing import SourceObject
from lakehouse_pipeline.sources.stores import Reads, listed

_PRECISION_LIMIT = 38  # digits of a decimal128, and of Iceberg's decimals


BATCH_ROWS = 64 * 1024
BATCH_BYTES = 4 * 1024 * 1024  # in memory, judged by the row group's mean row


@contextmanager
def opened(io: Reads, url: str, etag: str, size: int) -> Iterator[pq.ParquetFile]:
    """Open a Parquet object and read its footer.

    Raises:
        DataError: it is no Parquet, truncated or damaged.
    """
    with _in_our_words(url):
        raw = io.open_read(url, etag=etag, size=size)
    with raw:
        with _in_our_words(url):
            file = pq.ParquetFile(
                pa.PythonFile(raw, "r"),
                pre_buffer=True,  # few requests per row group instead of one per column
                coerce_int96_timestamp_unit="us",  # INT96 as nanoseconds wraps silently outside of 1677-2262
                page_checksum_verification=True,
            )
        yield file


def stored(
    file: pq.ParquetFile, url: str, groups: Sequence[int] | None, names: Sequence[str]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Read columns as they are stored, row group by row group: batches with the number from 1 of their first row.

    Raises:
        DataError: the file is truncated or damaged.
    """
    sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    with _in_our_words(url):
        for group in range(file.num_row_groups) if groups is None else groups:
            first = sum(sizes[:group]) + 1
            rows = _batch_rows(file.metadata.row_group(group), names)
            for batch in file.iter_batches(rows, row_groups=[group], columns=list(names), use_threads=False):
                yield first, batch
                first += len(batch)


def parquet_schema(io: Reads, source: SourceObject) -> pa.Schema:
    """Give the columns of a Parquet object in the types that the readers know, nullable as they are in the file.

    Small and unsigned integers become the next type that holds them (uint64: int64, and rows that do not fit are bad),
    timestamps microseconds, dictionaries their values.

    Raises:
        DataError: the file is no Parquet, a name stands twice, or a column has a type that the readers do not know.
    """
    with opened(io, source.url, source.etag, source.size) as file:
        schema = file.schema_arrow
    problems = [f'"{f.name}" has the type {f.type}' for f in schema if normalised(f.type) is None]
    problems += [f'"{name}" stands twice' for name in sorted({n for n in schema.names if schema.names.count(n) > 1})]
    if problems:
        raise DataError(f"{source.url}: these columns cannot be read: {'; '.join(problems)}")
    return pa.schema([pa.field(f.name, normalised(f.type), f.nullable) for f in schema])


def row_group_sizes(io: Reads, source: SourceObject) -> tuple[int, ...]:
    """Give the stored bytes of each row group of a Parquet object; only its footer is read."""
    with opened(io, source.url, source.etag, source.size) as file:
        groups = [file.metadata.row_group(n) for n in range(file.num_row_groups)]
        return tuple(sum(g.column(n).total_compressed_size for n in range(g.num_columns)) for g in groups)


def normalised(kind: pa.DataType) -> pa.DataType | None:
    """Give the type that the readers make of a file's type; None where they know none."""
    if pa.types.is_dictionary(kind):
        return normalised(kind.value_type)
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", None if kind.tz is None else "UTC")
    if pa.types.is_decimal(kind):
        return pa.decimal128(kind.precision, kind.scale) if _is_iceberg_decimal(kind) else None
    for matches, normal in _NORMAL:
        if matches(kind):
            return normal
    return None


def _batch_rows(group: pq.RowGroupMetaData, names: Sequence[str]) -> int:
    chunks = [group.column(n) for n in range(group.num_columns)]
    size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.partition(".")[0] in names)
    return max(min(BATCH_BYTES * int(group.num_rows) // max(int(size), 1), BATCH_ROWS), 1)


def _is_iceberg_decimal(kind: pa.DataType) -> bool:
    return bool(kind.precision <= _PRECISION_LIMIT and 0 <= kind.scale <= kind.precision)


@contextmanager
def _in_our_words(url: str) -> Iterator[None]:
    try:
        with listed(url):
            yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the store's, not the file's
        raise DataError(f"{url} is no Parquet, truncated or damaged ({_first_line(error)}): land it again") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


_LONGS = (pa.int64(), pa.uint64(), pa.uint32())

_NORMAL = (
    (pa.types.is_boolean, pa.bool_()),
    (_LONGS.__contains__, pa.int64()),
    (pa.types.is_integer, pa.int32()),
    (pa.types.is_float64, pa.float64()),
    (pa.types.is_floating, pa.float32()),
    (pa.types.is_date, pa.date32()),
    (_is_string, pa.string()),
    (_is_binary, pa.binary()),
)

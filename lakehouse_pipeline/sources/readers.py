"""One split as Arrow batches of the wanted columns, whatever its format; the same rows on every engine.

Formats are told apart here and nowhere else. Positions (`_position`) are line numbers from 1 for text that is read
from its start, row numbers from 1 for Parquet and ORC, and byte offsets of the lines for text objects that were split
into ranges: one meaning for all rows of an object.
"""

from collections.abc import Iterator

import pyarrow as pa

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.sources import csv_rows, json_lines, stored_rows, values
from lakehouse_pipeline.sources.bad_rows import BadRows
from lakehouse_pipeline.sources.columns import Rows
from lakehouse_pipeline.sources.hour_rows import HourRows
from lakehouse_pipeline.sources.splits import Split
from lakehouse_pipeline.sources.stores import Reads

FILE_COLUMN = "_file"
POSITION_COLUMN = "_position"
BATCH_ROWS = 64 * 1024
BATCH_BYTES = 4 * 1024 * 1024

_TEXT = {"jsonl": json_lines.read, "csv": csv_rows.read}
_PROVENANCE = (
    pa.field(FILE_COLUMN, pa.string(), nullable=False),
    pa.field(POSITION_COLUMN, pa.int64(), nullable=False),
)


def batch_schema(schema: pa.Schema, *, provenance: bool) -> pa.Schema:
    """Give the schema of the batches: the wanted columns, then those of the provenance if asked for."""
    return pa.schema([*schema, *_PROVENANCE]) if provenance else pa.schema(list(schema))


def check_schema(source_format: str, schema: pa.Schema, *, provenance: bool) -> None:
    """Refuse wanted columns that the format's reader cannot give.

    Raises:
        ConfigurationError: names every column at fault.
    """
    values.check_columns(schema, (FILE_COLUMN, POSITION_COLUMN) if provenance else ())
    nested = [f'"{field.name}" has the type {field.type}' for field in schema if pa.types.is_nested(field.type)]
    if nested and source_format == "csv":
        raise ConfigurationError(
            f"CSV holds no nested values: {'; '.join(nested)}. Land JSON lines, or read a string and take it apart in "
            "the transform"
        )


def read_split(
    io: Reads, split: Split, schema: pa.Schema, *, provenance: bool, on_bad: BadRows, hour: HourRows | None = None
) -> Iterator[pa.RecordBatch]:
    """Read the good rows of a split, in file order.

    Args:
        io: the store.
        split: what to read.
        schema: the wanted columns: bool, int32, int64, float32, float64, decimal128, date32, timestamp in microseconds
            with the zone UTC or without, string, binary, and but for CSV structs, lists and maps of these;
            `nullable=False` means required, inside of nested types too.
        provenance: whether each row also says its file (`_file`) and its position there (`_position`).
        on_bad: hears of the bad rows before the good rows around them are handed on.
        hour: keeps the rows of its hour, and counts the others; None keeps all.

    Returns:
        Batches of at most 65,536 rows and about 4 MiB; none where there is no good row.

    Raises:
        ConfigurationError: at once, if a wanted column cannot be read.
        DataError: while reading: the file itself is broken or lacks a column; or from `on_bad`.
        OtherHourError: while reading, from `hour`.
    """
    check_schema(split.format, schema, provenance=provenance)
    given = batch_schema(schema, provenance=provenance)
    return _batches(split, given, _judged(io, split, schema, on_bad, hour))


def _judged(io: Reads, split: Split, schema: pa.Schema, on_bad: BadRows, hour: HourRows | None) -> Iterator[Rows]:
    if split.format in _TEXT:
        found = _TEXT[split.format](io, split, schema, on_bad)
    else:
        found = stored_rows.read(io, split, schema, on_bad, hour)
    if hour is None:
        yield from found
        return
    for rows in found:
        yield hour.of(rows, split.url, at_byte=split.is_range)


def _batches(split: Split, given: pa.Schema, found: Iterator[Rows]) -> Iterator[pa.RecordBatch]:
    provenance_bytes = (len(split.url.encode()) + 12) * (FILE_COLUMN in given.names)
    for batch, positions in found:
        step = _rows_of(batch, provenance_bytes)
        for start in range(0, len(batch), step):
            yield _with_provenance(batch.slice(start, step), positions.slice(start, step), split.url, given)


def _rows_of(batch: pa.RecordBatch, more_bytes: int) -> int:
    """Say how many rows of the batch make up one of the wanted size."""
    row_bytes = batch.nbytes / max(len(batch), 1) + more_bytes
    return max(min(int(BATCH_BYTES / max(row_bytes, 1)), BATCH_ROWS), 1)


def _with_provenance(batch: pa.RecordBatch, positions: pa.Array, url: str, given: pa.Schema) -> pa.RecordBatch:
    if len(given) == batch.num_columns:
        return batch
    return pa.record_batch([*batch.columns, pa.repeat(url, len(batch)), positions], given)

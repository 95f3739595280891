"""Rows of Parquet and ORC: the wanted columns of the wanted parts, cast without loss.

Every value arrives exactly or its row is bad: no overflow, no truncation, no text that is not UTF-8. Rounding is for
the step from double to float only. A timestamp without a zone is UTC. NaN and Infinity are values here.
"""

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse_pipeline.sources import columns, values
from lakehouse_pipeline.sources.bad_rows import RAW_LIMIT, BadRow, BadRows
from lakehouse_pipeline.sources.columns import Rows
from lakehouse_pipeline.sources.hour_rows import HourRows
from lakehouse_pipeline.sources.listing import SourceObject
from lakehouse_pipeline.sources.nested import LOSSES, converted, fault_in
from lakehouse_pipeline.sources.splits import OPENS, Split
from lakehouse_pipeline.sources.stored_types import check_columns, schema_in_our_types
from lakehouse_pipeline.sources.stores import Reads


def read(io: Reads, split: Split, schema: pa.Schema, on_bad: BadRows, hour: HourRows | None = None) -> Iterator[Rows]:
    """Read the split's good rows in batches, each row with its number in the file; `on_bad` hears of the others.

    Parts of which `hour` leaves every row to its own hour are counted there, and not read.

    Raises:
        DataError: the file is of another format, is damaged, lacks a wanted column or has it in a type of another kind.
    """
    with OPENS[split.format](io, split.url, split.etag, split.size) as file:
        check_columns(file.schema, schema, split.url)
        for part in range(len(file.rows)) if split.row_groups is None else split.row_groups:
            if hour and hour.holds_others and hour.leaves(file.bounds(part, hour.column), file.rows[part]):
                continue
            first = sum(file.rows[:part]) + 1
            for batch in file.batches(part, schema.names):
                found = batch.select(schema.names)
                positions = pa.array(np.arange(first, first + len(found)))
                first += len(found)
                yield _quick(found, positions, schema) or _exact(found, positions, schema, split.url, on_bad)


def stored_schema(io: Reads, source: SourceObject, source_format: str) -> pa.Schema:
    """Give the columns of a Parquet or ORC object in the types that the readers know; only its footer is read.

    Raises:
        DataError: as above, or a column has a type that the readers do not know.
    """
    with OPENS[source_format](io, source.url, source.etag, source.size) as file:
        return schema_in_our_types(file.schema, source.url)


def _quick(found: pa.RecordBatch, positions: pa.Array, schema: pa.Schema) -> Rows | None:
    try:
        arrays = [converted(column, field, cast) for column, field in zip(found.columns, schema, strict=True)]
    except LOSSES:
        return None
    return pa.record_batch(arrays, schema), positions


def _exact(found: pa.RecordBatch, positions: pa.Array, schema: pa.Schema, url: str, on_bad: BadRows) -> Rows:
    faults: dict[int, pa.Field] = {}  # row: the first column at fault
    for column, field in zip(found.columns, schema, strict=True):
        for row in _bad_values(column, field):
            faults.setdefault(row, field)
    on_bad([_bad_row(found, row, faults[row], url, positions[row].as_py()) for row in sorted(faults)])
    good = np.ones(len(found), np.bool_)
    good[list(faults)] = False
    kept = found.filter(pa.array(good))
    arrays = [converted(column, field, cast) for column, field in zip(kept.columns, schema, strict=True)]
    return pa.record_batch(arrays, schema), positions.filter(pa.array(good))


def _bad_values(column: pa.Array, field: pa.Field, start: int = 0) -> Iterator[int]:
    """Find the rows whose values do not cast, by halves: few bad values cost few casts."""
    try:
        converted(column, field, cast)
    except LOSSES:
        if len(column) == 1:
            yield start
            return
        half = len(column) // 2
        yield from _bad_values(column[:half], field, start)
        yield from _bad_values(column[half:], field, start + half)


def cast(column: pa.Array, field: pa.Field) -> pa.Array:
    """Cast a flat column without loss.

    Raises:
        ArrowInvalid: a value does not fit the type.
        InexactError: it fits only with loss.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = field.type
    if pa.types.is_string(kind) and not pa.types.is_null(column.type):
        return column.cast(pa.large_binary()).cast(pa.large_string()).cast(kind)  # this way Arrow checks the UTF-8
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", getattr(column.type, "tz", None)))
        return columns.in_calendar(column.cast(kind))
    if pa.types.is_date(kind):
        return columns.in_calendar(column.cast(kind))
    if pa.types.is_decimal(kind):
        return column.cast(columns.wide(kind)).cast(kind)
    return _finite_as_before(column, column.cast(kind))


def _finite_as_before(before: pa.Array, after: pa.Array) -> pa.Array:
    """Refuse a double that became infinite as a float."""
    if pa.types.is_float32(after.type) and pc.any(pc.is_inf(after), min_count=0).as_py():
        infinite = pc.is_inf(before) if pa.types.is_floating(before.type) else pa.scalar(value=False)
        if pc.any(pc.and_not(pc.is_inf(after), infinite), min_count=0).as_py():
            raise columns.InexactError("a double is out of range for a float")
    return after


def _bad_row(found: pa.RecordBatch, row: int, field: pa.Field, url: str, position: int) -> BadRow:
    path, value, wanted = fault_in(found.column(field.name)[row : row + 1], field, cast, field.name)
    name = values.type_name(wanted.type)
    reason = f"{values.shown(_text(value))} does not fit {name}" if value.is_valid else values.NULL_REASON
    raw = "{" + ", ".join(f"{json.dumps(n)}: {_text(found.column(n)[row])}" for n in found.schema.names) + "}"
    return BadRow(url, position, reason, path, raw[:RAW_LIMIT])


def _text(value: pa.Scalar) -> str:
    try:
        python = value.as_py()
    except UnicodeDecodeError:
        python = str(value) if pa.types.is_nested(value.type) else value.cast(pa.binary()).as_py()
    except (OverflowError, ValueError):  # a date that Python's calendar does not know
        python = str(value) if pa.types.is_nested(value.type) else value.value
    if isinstance(python, bytes):
        python = python.decode(errors="backslashreplace")
    return json.dumps(python, default=str, ensure_ascii=False)

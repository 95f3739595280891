"""Rows of Parquet: the wanted columns of the wanted row groups, cast without loss.

Every value arrives exactly or its row is bad: no overflow, no truncation, no text that is not UTF-8. Rounding is for
the step from double to float only. A timestamp without a zone is UTC. NaN and Infinity are values here.
"""

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse_pipeline.errors import DataError
from lakehouse_pipeline.sources import columns, values
from lakehouse_pipeline.sources.bad_rows import RAW_LIMIT, BadRow, BadRows
from lakehouse_pipeline.sources.columns import Rows
from lakehouse_pipeline.sources.parquet_files import normalised, opened, stored
from lakehouse_pipeline.sources.splits import Split
from lakehouse_pipeline.sources.stores import Reads

_LOSSES = (pa.ArrowInvalid, columns.InexactError)


def read(io: Reads, split: Split, schema: pa.Schema, on_bad: BadRows) -> Iterator[Rows]:
    """Read the split's good rows in batches, each row with its number in the file; `on_bad` hears of the others.

    Raises:
        DataError: the file is no Parquet, is damaged, lacks a wanted column or has it in a type of another kind.
    """
    with opened(io, split.url, split.etag, split.size) as file:
        _check_columns(file.schema_arrow, schema, split.url)
        for first, batch in stored(file, split.url, split.row_groups, schema.names):
            found = batch.select(schema.names)
            positions = pa.array(np.arange(first, first + len(batch)))
            yield _quick(found, positions, schema) or _exact(found, positions, schema, split.url, on_bad)


def _quick(found: pa.RecordBatch, positions: pa.Array, schema: pa.Schema) -> Rows | None:
    try:
        arrays = [_cast(column, field) for column, field in zip(found.columns, schema, strict=True)]
    except _LOSSES:
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
    arrays = [_cast(column, field) for column, field in zip(kept.columns, schema, strict=True)]
    return pa.record_batch(arrays, schema), positions.filter(pa.array(good))


def _bad_values(column: pa.Array, field: pa.Field, start: int = 0) -> Iterator[int]:
    """Find the rows whose values do not cast, by halves: few bad values cost few casts."""
    try:
        _cast(column, field)
    except _LOSSES:
        if len(column) == 1:
            yield start
            return
        half = len(column) // 2
        yield from _bad_values(column[:half], field, start)
        yield from _bad_values(column[half:], field, start + half)


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    """Cast a column without loss.

    Raises:
        ArrowInvalid: a value does not fit the type.
        InexactError: it fits only with loss, or is a required null.
    """
    if not field.nullable and column.null_count:
        raise columns.InexactError("a required value is null")
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
    value = found.column(field.name)[row]
    name = values.type_name(field.type)
    reason = f"{values.shown(_text(value))} does not fit {name}" if value.is_valid else values.NULL_REASON
    raw = "{" + ", ".join(f"{json.dumps(n)}: {_text(found.column(n)[row])}" for n in found.schema.names) + "}"
    return BadRow(url, position, reason, field.name, raw[:RAW_LIMIT])


def _text(value: pa.Scalar) -> str:
    try:
        python = value.as_py()
    except UnicodeDecodeError:
        python = value.cast(pa.binary()).as_py()
    except (OverflowError, ValueError):  # a date that Python's calendar does not know
        python = value.value
    if isinstance(python, bytes):
        python = python.decode(errors="backslashreplace")
    return json.dumps(python, default=str, ensure_ascii=False)


def _check_columns(stored_schema: pa.Schema, schema: pa.Schema, url: str) -> None:
    problems = []
    for field in schema:
        found = stored_schema.get_all_field_indices(field.name)
        if not found:
            has = ", ".join(stored_schema.names)
            problems.append(f'has no column "{field.name}" (it has {has})')
        elif len(found) > 1:
            problems.append(f'has the column "{field.name}" twice')
        elif not _is_castable(stored_schema.field(found[0]).type, field.type):
            problems.append(
                f'has the column "{field.name}" as {stored_schema.field(found[0]).type}, '
                f"which is no {values.type_name(field.type).partition(' ')[2]}"
            )
    if problems:
        raise DataError(f"{url} {'; '.join(problems)}")


def _is_castable(stored_kind: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_null(stored_kind):
        return True
    kind = normalised(stored_kind)
    if kind is None:
        return False
    return any(is_stored(kind) and is_wanted(wanted) for is_stored, is_wanted in _CASTS)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_exact_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_decimal(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


_CASTS = (
    (pa.types.is_boolean, pa.types.is_boolean),
    (_is_exact_number, _is_number),
    (pa.types.is_floating, pa.types.is_integer),
    (pa.types.is_floating, pa.types.is_floating),
    (pa.types.is_date, pa.types.is_date),
    (pa.types.is_temporal, pa.types.is_timestamp),
    (_is_bytes, _is_bytes),
)

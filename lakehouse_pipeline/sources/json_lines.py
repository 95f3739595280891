"""JSON lines: one object per line, quickly by Arrow where it is exact, else line by line.

Fields that are not wanted are ignored, missing ones are null, blank lines are skipped but counted. A number never
becomes a string, nor a string a number, but a decimal may be a string (as in Iceberg's JSON). Timestamps without an
offset are UTC. NaN and Infinity are no JSON. A binary is the string's UTF-8.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.json as pj

from lakehouse_pipeline.sources import columns, values
from lakehouse_pipeline.sources.bad_rows import BadRows
from lakehouse_pipeline.sources.columns import Rows
from lakehouse_pipeline.sources.lines import Block, blocks
from lakehouse_pipeline.sources.splits import Split
from lakehouse_pipeline.sources.stores import Reads
from lakehouse_pipeline.sources.text_rows import BadLineError, fault, quickest, quoted, rows_of

_NOT_FINITE = re.compile(rb"[:\[,]\s*-?(?:NaN|Inf)")
_BLANKS = " \t\r"
_OPEN, _CLOSE, _RETURN = b"{}\r"


class _Integer(str):
    """A JSON number without fraction and exponent, as it is written."""

    __slots__ = ()


class _Real(str):
    """A JSON number with fraction or exponent, as it is written."""

    __slots__ = ()


class _Fields(tuple[tuple[str, object], ...]):
    """A JSON object with its keys as they come, twice where they come twice."""

    __slots__ = ()


_Reader = Callable[[object], object]


def read(io: Reads, split: Split, schema: pa.Schema, on_bad: BadRows) -> Iterator[Rows]:
    """Read the split's good rows, a block at a time, each with its position; `on_bad` hears of the others."""
    for block in blocks(io, split):
        exactly = partial(exact, schema=schema, url=split.url, on_bad=on_bad)
        yield quickest(block, partial(quick, schema=schema), exactly)


def quick(block: Block, schema: pa.Schema) -> Rows | None:
    """Parse every line with Arrow; None where a line is bad or where Arrow cannot be trusted."""
    try:
        _check_lines(block)
        table = _table(block.data, schema)
        if len(table) != block.count:
            return None
        batch = pa.record_batch([_finished(table.column(f.name), f) for f in schema], schema)
    except (columns.InexactError, UnicodeDecodeError, pa.ArrowInvalid):
        return None
    return batch, pa.array(block.positions())


def exact(block: Block, schema: pa.Schema, url: str, on_bad: BadRows) -> Rows:
    """Parse line by line with Python's parser, and judge every value."""
    readers = [(field, _reader(field)) for field in schema]

    def read_line(line: str) -> list[object] | None:
        return _row(line, readers) if line.strip(_BLANKS) else None

    return rows_of(block, schema, url, on_bad, read_line)


def _check_lines(block: Block) -> None:
    """Make sure that each line is one object if Arrow sees as many rows as there are lines.

    A line that begins with `{` behind one that ends with `}` begins a row, so no row spans lines and no two share one.
    Arrow crashes at a file that begins with a top-level null, ignores bad UTF-8 and reads NaN and Inf.
    """
    text = np.frombuffer(block.data, np.uint8)
    feeds = block.feeds()
    starts = np.concatenate(([0], feeds[: block.count - 1] + 1))
    ends = np.append(starts[1:] - 2, len(text) - 1 - block.data.endswith(b"\n"))
    ends -= text[ends] == _RETURN
    if (text[starts] != _OPEN).any() or (text[ends] != _CLOSE).any():
        raise columns.InexactError("a line is no object")
    if (_holds(text, b"NaN") or _holds(text, b"Inf")) and _NOT_FINITE.search(block.data):
        raise columns.InexactError("NaN and Infinity are no JSON")
    if not block.data.isascii():
        block.data.decode()


def _holds(text: npt.NDArray[np.uint8], word: bytes) -> bool:
    """Say whether a word of three letters is in the text: three times as quick as `in`, as the first one is rare."""
    at = np.flatnonzero(text[:-2] == word[0])
    return bool(((text[at + 1] == word[1]) & (text[at + 2] == word[2])).any())


def _table(data: bytes, schema: pa.Schema) -> pa.Table:
    return pj.read_json(
        pa.py_buffer(data),
        read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pj.ParseOptions(
            explicit_schema=pa.schema([(f.name, _read_as(f.type)) for f in schema]),
            unexpected_field_behavior="ignore",
        ),
    )


def _read_as(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_date32(kind) else columns.wide(kind)  # Arrow wants dates as numbers


def _finished(column: pa.ChunkedArray, field: pa.Field) -> pa.Array:
    array = column.combine_chunks()
    if pa.types.is_date32(field.type):
        array = columns.parsed(array, field.type)
    return columns.checked(array, field)


def _row(line: str, readers: list[tuple[pa.Field, _Reader]]) -> list[object]:
    fields = _fields(line)
    found = dict(fields)
    if len(found) < len(fields):
        _refuse_twice([key for key, _ in fields], [field.name for field, _ in readers])
    return [_value(found.get(field.name), field, reader) for field, reader in readers]


def _value(value: object, field: pa.Field, reader: _Reader) -> object:
    if value is None:
        if not field.nullable:
            raise BadLineError(values.NULL_REASON, field.name)
        return None
    try:
        return reader(value)
    except ValueError as error:
        raise fault(_shown(value), field, error) from None


def _fields(line: str) -> _Fields:
    try:
        fields = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise BadLineError(f"is no JSON at character {error.pos + 1}: {error.msg}") from None
    except ValueError as error:
        raise BadLineError(f"is no JSON: {error}") from None
    except RecursionError:  # about 1,000 levels; Arrow skips deeper ones in a field that is not wanted
        raise BadLineError("is nested too deeply") from None
    if not isinstance(fields, _Fields):
        raise BadLineError("is no JSON object")
    return fields


def _refuse_twice(keys: list[str], wanted: list[str]) -> None:
    for name in wanted:
        if keys.count(name) > 1:
            raise BadLineError("stands twice in the row", name)


def _reader(field: pa.Field) -> _Reader:
    """Give the function that reads a field's JSON value; raises ValueError for another kind of value."""
    kind = field.type
    if pa.types.is_boolean(kind):
        return _truth
    accepted = _accepted(kind)
    parse = values.parser_of(kind)

    def read_value(value: object) -> object:
        if type(value) not in accepted:
            raise ValueError(value)
        return parse(str(value))

    return read_value


def _accepted(kind: pa.DataType) -> tuple[type, ...]:
    if pa.types.is_integer(kind):
        return (_Integer,)
    if pa.types.is_floating(kind):
        return (_Integer, _Real)
    return (_Integer, _Real, str) if pa.types.is_decimal(kind) else (str,)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)  # noqa: TRY004  # the readers' one error: a value of the data, not a programming mistake
    return value


def _shown(value: object) -> str:
    if isinstance(value, (_Integer, _Real)):
        return value
    if isinstance(value, _Fields):
        return "an object"
    if isinstance(value, list):
        return "an array"
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def _no_number(word: str) -> object:
    raise ValueError(f"{word} is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_Fields, parse_int=_Integer, parse_float=_Real, parse_constant=_no_number)

"""JSON lines: one object per line, quickly by Arrow where it is exact, else line by line.

Fields that are not wanted are ignored, missing ones are null, blank lines are skipped but counted. A number never
becomes a string, nor a string a number, but a decimal may be a string (as in Iceberg's JSON). Timestamps without an
offset are UTC. NaN and Infinity are no JSON. A binary is the string's UTF-8. A struct and a map are objects, a list is
an array; a map's keys are read as text of their type. A line of more than 400 levels is bad, wanted or not.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.json as pj

from lakehouse_pipeline.sources import columns, values
from lakehouse_pipeline.sources.bad_rows import BadRows
from lakehouse_pipeline.sources.columns import Rows
from lakehouse_pipeline.sources.lines import Block, blocks
from lakehouse_pipeline.sources.nested import converted
from lakehouse_pipeline.sources.splits import Split
from lakehouse_pipeline.sources.stores import Reads
from lakehouse_pipeline.sources.text_rows import BadLineError, fault, quickest, quoted, rows_of

DEPTH = 400  # levels of a line; Python's parser recurses, and gives up at about 1,000 less the frames above it

_NOT_FINITE = re.compile(rb"[:\[,]\s*-?(?:NaN|Inf)")
_BLANKS = " \t\r"
_OPEN, _CLOSE, _RETURN, _LIST = b"{}\r["
_MARK = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]')  # a text, whose brackets do not count, or a bracket
_STEPS = {"{": 1, "[": 1, "}": -1, "]": -1}


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
    exactly = partial(exact, schema=schema, url=split.url, on_bad=on_bad)
    if any(_holds_map(field.type) for field in schema):  # Arrow reads none
        yield from map(exactly, blocks(io, split))
        return
    for block in blocks(io, split):
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
    if (ends - starts).max() > 2 * DEPTH and _holds_deep_line(block, text, starts):
        raise columns.InexactError("a line is nested too deeply")
    if (_holds(text, b"NaN") or _holds(text, b"Inf")) and _NOT_FINITE.search(block.data):
        raise columns.InexactError("NaN and Infinity are no JSON")
    if not block.data.isascii():
        block.data.decode()


def _holds_deep_line(block: Block, text: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64]) -> bool:
    opening = np.flatnonzero((text == _OPEN) | (text == _LIST))
    counts = np.diff(np.append(np.searchsorted(opening, starts), len(opening)))
    suspects = np.flatnonzero(counts > DEPTH)
    ends = np.append(starts[1:], len(text))
    return any(_is_deep(block.data[starts[n] : ends[n]].decode(errors="replace")) for n in suspects)


def _is_deep(line: str) -> bool:
    if line.count("{") + line.count("[") <= DEPTH:
        return False
    return max(accumulate(_STEPS.get(mark[0], 0) for mark in _MARK.finditer(line))) > DEPTH


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


def _holds_map(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_holds_map(child.type) for child in kind.fields)
    return bool(pa.types.is_map(kind) or (pa.types.is_list(kind) and _holds_map(kind.value_type)))


def _read_as(kind: pa.DataType) -> pa.DataType:
    """Give the type that Arrow's parser is asked for; what is required inside is judged afterwards."""
    if pa.types.is_struct(kind):
        return pa.struct([(child.name, _read_as(child.type)) for child in kind.fields])
    if pa.types.is_list(kind):
        return pa.list_(_read_as(kind.value_type))
    return pa.string() if pa.types.is_date32(kind) else columns.wide(kind)  # Arrow wants dates as numbers


def _finished(column: pa.ChunkedArray, field: pa.Field) -> pa.Array:
    return converted(column.combine_chunks(), field, _flat)


def _flat(array: pa.Array, field: pa.Field) -> pa.Array:
    if pa.types.is_date32(field.type):
        array = columns.parsed(array, field.type)
    return columns.checked(array, field)


def _row(line: str, readers: list[tuple[pa.Field, _Reader]]) -> list[object]:
    found = _once(_fields(line), [field.name for field, _ in readers], "")
    return [_value(found.get(field.name), field, reader, field.name) for field, reader in readers]


def _value(value: object, field: pa.Field, reader: _Reader, step: str) -> object:
    """Read the value of a column, or a value inside of one; `step` leads to it from the outside."""
    if value is None:
        if not field.nullable:
            raise BadLineError(values.NULL_REASON, step)
        return None
    try:
        return reader(value)
    except BadLineError as inner:
        raise BadLineError(inner.reason, f"{step}{inner.column}") from None
    except ValueError as error:
        raise fault(_shown(value), field.type, error, step) from None


def _fields(line: str) -> _Fields:
    if _is_deep(line):
        raise BadLineError(f"is nested too deeply: it has more than {DEPTH} levels")
    try:
        fields = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise BadLineError(f"is no JSON at character {error.pos + 1}: {error.msg}") from None
    except ValueError as error:
        raise BadLineError(f"is no JSON: {error}") from None
    if not isinstance(fields, _Fields):
        raise BadLineError("is no JSON object")
    return fields


def _once(fields: _Fields, wanted: list[str] | None, step: str) -> dict[str, object]:
    """Give the fields by name; the wanted ones, or all, may not stand twice."""
    found = dict(fields)
    if len(found) < len(fields):
        keys = [key for key, _ in fields]
        for name in keys if wanted is None else wanted:
            if keys.count(name) > 1:
                raise BadLineError("stands twice in the row", step + name)
    return found


def _reader(field: pa.Field) -> _Reader:
    """Give the function that reads a field's JSON value.

    It raises ValueError for another kind of value, and BadLineError, with the way from here, for one inside of it.
    """
    kind = field.type
    if pa.types.is_boolean(kind):
        return _truth
    if pa.types.is_struct(kind):
        return _struct_reader(kind)
    if pa.types.is_list(kind):
        return _list_reader(kind.value_field)
    if pa.types.is_map(kind):
        return _map_reader(kind)
    accepted = _accepted(kind)
    parse = values.parser_of(kind)

    def read_value(value: object) -> object:
        if type(value) not in accepted:
            raise ValueError(value)
        return parse(str(value))

    return read_value


def _struct_reader(kind: pa.DataType) -> _Reader:
    readers = [(child, _reader(child)) for child in kind.fields]
    names = [child.name for child in kind.fields]

    def read_struct(value: object) -> object:
        if not isinstance(value, _Fields):
            raise ValueError(value)  # noqa: TRY004  # as `_truth`
        found = _once(value, names, ".")
        return {child.name: _value(found.get(child.name), child, read, f".{child.name}") for child, read in readers}

    return read_struct


def _list_reader(element: pa.Field) -> _Reader:
    read = _reader(element)

    def read_list(value: object) -> object:
        if not isinstance(value, list):
            raise ValueError(value)  # noqa: TRY004  # as `_truth`
        return [_value(item, element, read, f"[{place}]") for place, item in enumerate(value)]

    return read_list


def _map_reader(kind: pa.DataType) -> _Reader:
    parse, read = values.parser_of(kind.key_type), _reader(kind.item_field)

    def read_key(text: str) -> object:
        try:
            return parse(text)
        except ValueError as error:
            raise fault(quoted(text), kind.key_type, error, ".key") from None

    def read_map(value: object) -> object:
        if not isinstance(value, _Fields):
            raise ValueError(value)  # noqa: TRY004  # as `_truth`
        entries = _once(value, None, ".").items()
        return [(read_key(key), _value(item, kind.item_field, read, f"[{quoted(key)}]")) for key, item in entries]

    return read_map


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

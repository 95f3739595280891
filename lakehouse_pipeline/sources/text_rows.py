"""Rows of text for all text formats: a quick way for blocks, and a slow one, line by line, that finds every bad line.

How a block or a line becomes values is the format's; here lines become columns or bad rows.
"""

import json
from collections.abc import Callable

import pyarrow as pa

from lakehouse_pipeline.sources import values
from lakehouse_pipeline.sources.bad_rows import RAW_LIMIT, BadRow, BadRows
from lakehouse_pipeline.sources.columns import Rows
from lakehouse_pipeline.sources.lines import Block

LEAST_LINES = 256  # of a block that is cut in two when the quick way fails


class BadLineError(Exception):
    """A line is no row.

    Attributes:
        reason: what is wrong with it.
        column: the wanted column at fault, or the path of the value in it; None where it is the whole line.
    """

    def __init__(self, reason: str, column: str | None = None) -> None:
        """Keep both."""
        super().__init__(reason)
        self.reason = reason
        self.column = column


def quickest(block: Block, quick: Callable[[Block], Rows | None], exact: Callable[[Block], Rows]) -> Rows:
    """Read a block the quick way but for the parts around what it refuses: a bad line costs some hundred slow ones."""
    found = quick(block)
    if found is not None or block.count < 2 * LEAST_LINES:
        return found or exact(block)
    batches, positions = zip(*(quickest(half, quick, exact) for half in block.halves()), strict=True)
    return pa.concat_batches(batches), pa.concat_arrays(positions)


def rows_of(
    block: Block, schema: pa.Schema, url: str, on_bad: BadRows, read_line: Callable[[str], list[object] | None]
) -> Rows:
    """Read a block line by line.

    Args:
        block: the lines.
        schema: the wanted columns.
        url: the file, for the bad rows.
        on_bad: hears of the bad lines, if there are any.
        read_line: gives the wanted values of a line, in the order of the schema, or None if it is blank; raises
            `BadLineError`.
    """
    good: list[list[object]] = []
    positions: list[int] = []
    bad: list[BadRow] = []
    for position, line in block.lines():
        try:
            row = read_line(_decoded(line))
        except BadLineError as error:
            bad.append(BadRow(url, position, error.reason, error.column, _raw(line), block.at_byte))
        else:
            if row is not None:
                good.append(row)
                positions.append(position)
    if bad:
        on_bad(bad)
    transposed = zip(*good, strict=True) if good else [()] * len(schema)
    arrays = [pa.array(column, f.type) for column, f in zip(transposed, schema, strict=True)]
    return pa.record_batch(arrays, schema), pa.array(positions, pa.int64())


def fault(shown: str, kind: pa.DataType, error: ValueError, column: str) -> BadLineError:
    """Say what is wrong with a value that its column's parser refused."""
    name = values.type_name(kind)
    what = "is out of range for" if isinstance(error, values.OutOfRangeError) else "is not"
    return BadLineError(f"{values.shown(shown)} {what} {name}", column)


def quoted(text: str) -> str:
    """Show text as text."""
    return json.dumps(text, ensure_ascii=False)


def _decoded(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise BadLineError(f"is no UTF-8 at byte {error.start + 1} of the line") from None


def _raw(line: bytes) -> str:
    return line[: 4 * RAW_LIMIT].decode(errors="backslashreplace")[:RAW_LIMIT]

"""CSV: a header line, then one record per line, quickly by Arrow where it is exact, else line by line.

Fields are split at commas; a field that begins with a quote ends at the next single quote, and a doubled quote in it is
one. What follows the closing quote, which RFC 4180 does not know, is kept as Arrow keeps it, `"x"y` as `xy`: to look
for it makes blocks with quotes slower by a tenth to a half. Columns go by name, others are ignored. An empty field
without quotes is null, in quotes the empty string; `NA` and `null` are text. Empty lines are skipped but counted. A
line feed in quotes is not supported: its record is bad. Booleans are true, false, 1 and 0; numbers are finite, without
blanks; timestamps without an offset are UTC.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial

import pyarrow as pa
import pyarrow.csv as pv

from lakehouse_pipeline.errors import DataError
from lakehouse_pipeline.sources import columns, values
from lakehouse_pipeline.sources.bad_rows import BadRows
from lakehouse_pipeline.sources.columns import Rows
from lakehouse_pipeline.sources.lines import Block, blocks, first_line
from lakehouse_pipeline.sources.splits import Split
from lakehouse_pipeline.sources.stored_types import DRIFT
from lakehouse_pipeline.sources.stores import Reads
from lakehouse_pipeline.sources.text_rows import BadLineError, fault, quickest, quoted, rows_of

# A field in quotes, with what follows the closing one as Arrow keeps it too, or one without; then its end.
_FIELD = re.compile(r'(?:"((?:[^"]|"")*+)"([^,]*)|([^",][^,]*|))(,|\Z)')
_BOM = b"\xef\xbb\xbf"

Names = tuple[str, ...]
Field = str | None


def read(io: Reads, split: Split, schema: pa.Schema, on_bad: BadRows) -> Iterator[Rows]:
    """Read the split's good rows, a block at a time, each with its position; `on_bad` hears of the others.

    Raises:
        DataError: the file has no header line, or one that lacks a wanted column or names one twice.
    """
    names = _names(first_line(io, split), schema, split.url) if split.start else ()
    for block in blocks(io, split):
        records = block
        if block.starts_file:
            names = _names(block.data.partition(b"\n")[0], schema, split.url)
            records = block.without_first()
        exactly = partial(exact, names=names, schema=schema, url=split.url, on_bad=on_bad)
        yield quickest(records, partial(quick, names=names, schema=schema), exactly)
    if not names:
        raise DataError(f"{split.url} is empty: it has no header line; land it with one, or take it away")


def quick(block: Block, names: Names, schema: pa.Schema) -> Rows | None:
    """Parse every line with Arrow; None where a line is bad or where Arrow cannot be trusted."""
    if not block.count or not _is_plain(block.data):
        return None
    try:
        table = _table(block, names, schema)
        if len(table) != block.count:
            return None
        arrays = [columns.checked(columns.parsed(table.column(f.name).combine_chunks(), f.type), f) for f in schema]
    except (columns.InexactError, pa.ArrowInvalid):
        return None
    return pa.record_batch(arrays, schema), pa.array(block.positions())


def exact(block: Block, names: Names, schema: pa.Schema, url: str, on_bad: BadRows) -> Rows:
    """Parse line by line and judge every value."""
    wanted = [(names.index(field.name), field, values.parser_of(field.type)) for field in schema]

    def read_line(line: str) -> list[object] | None:
        if not line:
            return None
        fields = _fields(line)
        if len(fields) != len(names):
            raise BadLineError(f"has not {len(names)} fields but {len(fields)}")
        return [_value(fields[index], field, parse) for index, field, parse in wanted]

    return rows_of(block, schema, url, on_bad, read_line)


def _names(header: bytes, schema: pa.Schema, url: str) -> Names:
    try:
        names = tuple(field or "" for field in _fields(header.decode().rstrip("\r\n")))
    except (UnicodeDecodeError, BadLineError) as error:
        raise DataError(f"{url}: the header line cannot be read: {error}: land it with one line of names") from None
    twice = values.twice(names)
    if twice:
        raise DataError(f"{url}: the header line names columns twice: {values.listed(twice)}; rename one of each")
    missing = [name for name in schema.names if name not in names]
    if missing:
        what = f"no column {', '.join(map(quoted, missing))}"
        raise DataError(f"{url} has {what} in its header line (it has {values.listed(names)}). {DRIFT}")
    return names


def _is_plain(data: bytes) -> bool:
    """Say whether Arrow sees the lines that we see: it ends lines at lone carriage returns, and drops any BOM."""
    if data.startswith(_BOM) or (b"\r" in data and data.count(b"\r") != data.count(b"\r\n")):
        return False
    return data.isascii() or _is_utf8(data)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _table(block: Block, names: Names, schema: pa.Schema) -> pa.Table:
    """Read the wanted columns as strings.

    A record that spans lines makes fewer rows than lines. One that the end of the block cuts short would not, so a
    line is put behind it, to be swallowed or taken off again.
    """
    guarded = b'"' in block.data
    data = block.data
    if guarded:
        data = b"%b%b%b\n" % (data, b"" if data.endswith(b"\n") else b"\n", b",".join([b"-"] * len(names)))
    table = pv.read_csv(
        pa.py_buffer(data),
        read_options=pv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=names),
        convert_options=pv.ConvertOptions(
            check_utf8=False,  # done
            include_columns=schema.names,
            column_types=dict.fromkeys(schema.names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    return table.slice(0, len(table) - 1) if guarded else table


def _fields(line: str) -> list[Field]:
    fields: list[Field] = []
    at = 0
    while True:
        match = _FIELD.match(line, at)
        if not match:
            raise BadLineError("a quote is not closed on its line")
        in_quotes, behind, plain, delimiter = match.groups()
        fields.append((plain or None) if in_quotes is None else in_quotes.replace('""', '"') + behind)
        if not delimiter:
            return fields
        at = match.end()


def _value(text: Field, field: pa.Field, parse: Callable[[str], object]) -> object:
    if text is None:
        if not field.nullable:
            raise BadLineError(values.NULL_REASON, field.name)
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise fault(quoted(text), field.type, error, field.name) from None

"""Row groups of existing Parquet files, byte for byte in a new one: only its footer is written anew.

Pure: what the new file is made of is said here, and its end is written; who reads and writes the bytes is another. The
new file is the magic, the row groups, and then `Merged.tail`: Bloom filters, page indexes and footer. What Iceberg is
told of its columns comes from that footer (`iceberg.statistics`); the sources' NaN counts add up.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lakehouse_pipeline.errors import DataError
from lakehouse_pipeline.iceberg.footer import (
    MAGIC,
    SUMS_KEY,
    Chunk,
    Column,
    File,
    Footer,
    Group,
    RowGroup,
    named,
    sums_text,
)
from lakehouse_pipeline.iceberg.thrift_compact import (
    BINARY,
    I16,
    I32,
    I64,
    LIST,
    STRUCT,
    Elements,
    Struct,
    decode,
    encode,
)
from lakehouse_pipeline.object_store.objects import ObjectInfo, ObjectRange

MOST_ROW_GROUPS = 2**15 - 1  # their ordinals have 16 bits, one of them the sign


@dataclass(frozen=True)
class Copied:
    """One row group of a source.

    Attributes:
        source: which of the sources, from 0.
        span: its bytes there.
        crc64nvme: of them, as recorded; None if it is not known.
    """

    source: int
    span: range
    crc64nvme: int | None


@dataclass(frozen=True)
class Merged:
    """A new file.

    Attributes:
        copied: its row groups, in their order.
        tail: what stands behind them.
        size: bytes of the whole file.
        rows: in it.
    """

    copied: tuple[Copied, ...]
    tail: bytes = field(repr=False)
    size: int
    rows: int

    def content(self, sources: Sequence[ObjectInfo]) -> list[bytes | ObjectRange]:
        """Give what the file is composed of (`LakehouseFileIO.compose`), for sources that lie in these objects."""
        ranges = [
            ObjectRange(sources[part.source].url, sources[part.source].etag, part.span, part.crc64nvme)
            for part in self.copied
        ]
        return [MAGIC, *ranges, self.tail]


def merged(footers: Sequence[Footer]) -> Merged:
    """Put the row groups of these files into one, in this order.

    Statistics, encodings, sort orders, field ids and whatever is not known here are kept; so is key-value metadata that
    all files agree on.

    Raises:
        DataError: the files are of different kinds, names what differs; or there are none, or too many row groups.
    """
    if not footers:
        raise DataError("there is no file to copy row groups from")
    _check_kinds(footers)
    placed = list(_placed(footers))
    if len(placed) > MOST_ROW_GROUPS:
        raise DataError(
            f"{len(placed)} row groups do not fit into one file: {MOST_ROW_GROUPS} at most; merge fewer files"
        )
    end = max((each.stop for each in placed), default=len(MAGIC))
    tail = _tail(footers, placed, end)
    copied = tuple(Copied(each.source, each.group.span, each.group.crc64nvme) for each in placed if each.group.span)
    return Merged(copied, tail, end + len(tail), sum(footer.rows for footer in footers))


@dataclass(frozen=True)
class _Placed:
    """A row group and the place that it gets."""

    source: int
    footer: Footer
    group: RowGroup
    at: int

    @property
    def stop(self) -> int:
        return self.at + len(self.group.span)

    @property
    def shift(self) -> int:
        return self.at - self.group.span.start


def _check_kinds(footers: Sequence[Footer]) -> None:
    for footer in footers[1:]:
        difference = footer.kind.difference(footers[0].kind)
        if difference:
            raise DataError(f"{footer.name} cannot share a file with {footers[0].name}: {difference}")


def _placed(footers: Sequence[Footer]) -> Iterator[_Placed]:
    at = len(MAGIC)
    for source, footer in enumerate(footers):
        for group in footer.row_groups:
            placed = _Placed(source, footer, group, at)
            yield placed
            at = placed.stop


class _Behind:
    """What is written behind the row groups, piece by piece."""

    def __init__(self, at: int) -> None:
        self._at = at
        self.written = bytearray()

    def put(self, body: bytes) -> int:
        """Write a piece and give its position in the file."""
        at = self._at + len(self.written)
        self.written += body
        return at


def _tail(footers: Sequence[Footer], placed: Sequence[_Placed], end: int) -> bytes:
    """Write what follows the row groups, all pieces of one kind side by side: readers fetch them in one go."""
    behind = _Behind(end)
    groups = [each.group.metadata for each in placed]
    for change in (_with_bloom, _with_column_index, _with_offset_index, _moved):
        for ordinal, each in enumerate(placed):
            with named(each.footer.name):
                chunks = [change(chunk, each, behind) for chunk in groups[ordinal].structs(Group.CHUNKS)]
            groups[ordinal] = groups[ordinal].changed({Group.CHUNKS: (LIST, Elements(STRUCT, chunks))})
    footer = encode(_file(footers, [_numbered(*each) for each in enumerate(zip(groups, placed, strict=True))]))
    return bytes(behind.written) + footer + len(footer).to_bytes(4, "little") + MAGIC


def _file(footers: Sequence[Footer], groups: list[Struct]) -> Struct:
    pairs = [
        Struct({1: (BINARY, key), **({} if value is None else {2: (BINARY, value)})}) for key, value in _agreed(footers)
    ]
    return footers[0].metadata.changed(
        {
            File.ROWS: (I64, sum(footer.rows for footer in footers)),
            File.GROUPS: (LIST, Elements(STRUCT, groups)),
            File.KEY_VALUES: (LIST, Elements(STRUCT, pairs)) if pairs else None,
        }
    )


def _agreed(footers: Sequence[Footer]) -> Iterator[tuple[bytes, bytes | None]]:
    """Give the key-value metadata that is the same in all files, and what checksums of row groups are known."""
    first, *others = footers
    for key, value in first.key_values.items():
        if all(key in other.key_values and other.key_values[key] == value for other in others):
            yield key, value
    groups = [group for footer in footers for group in footer.row_groups]
    if any(group.crc64nvme is not None for group in groups):
        yield SUMS_KEY.encode(), sums_text([(len(group.span), group.crc64nvme) for group in groups]).encode()


def _numbered(ordinal: int, told: tuple[Struct, _Placed]) -> Struct:
    group, placed = told
    with named(placed.footer.name):
        return group.changed({Group.ORDINAL: (I16, ordinal), **_shifted(group, (Group.OFFSET,), placed.shift)})


def _moved(chunk: Struct, placed: _Placed, _: _Behind) -> Struct:
    shifted = _shifted(_column(chunk), (Column.DATA, Column.INDEX, Column.DICTIONARY), placed.shift)
    return _with_column(chunk, shifted).changed(_shifted(chunk, (Chunk.OFFSET,), placed.shift))


def _shifted(struct: Struct, offsets: Sequence[int], shift: int) -> dict[int, tuple[int, int]]:
    """Shift offsets; 0 is what writers say where there is none."""
    return {offset: (I64, value + shift) for offset in offsets if (value := struct.number(offset))}


def _with_bloom(chunk: Struct, placed: _Placed, behind: _Behind) -> Struct:
    """Take the Bloom filter along; one of unknown length (old writers) is dropped, as it would have to be read."""
    column = _column(chunk)
    found = placed.footer.cut(column.number(Column.BLOOM), column.number(Column.BLOOM_BYTES))
    if found is None:
        return _with_column(chunk, {Column.BLOOM: None, Column.BLOOM_BYTES: None})
    return _with_column(chunk, {Column.BLOOM: (I64, behind.put(found))})


def _with_column_index(chunk: Struct, placed: _Placed, behind: _Behind) -> Struct:
    """Take the column index along: it holds no positions."""
    found = placed.footer.cut(chunk.number(Chunk.COLUMN_INDEX), chunk.number(Chunk.COLUMN_INDEX_BYTES))
    if found is None:
        return chunk.changed({Chunk.COLUMN_INDEX: None, Chunk.COLUMN_INDEX_BYTES: None})
    return chunk.changed({Chunk.COLUMN_INDEX: (I64, behind.put(found))})


def _with_offset_index(chunk: Struct, placed: _Placed, behind: _Behind) -> Struct:
    """Write the offset index anew: it holds the position of every page in the file."""
    found = placed.footer.cut(chunk.number(Chunk.OFFSET_INDEX), chunk.number(Chunk.OFFSET_INDEX_BYTES))
    if found is None:
        return chunk.changed({Chunk.OFFSET_INDEX: None, Chunk.OFFSET_INDEX_BYTES: None})
    index = decode(found)
    pages = [page.changed({1: (I64, page.whole(1) + placed.shift)}) for page in index.structs(1)]
    written = encode(index.changed({1: (LIST, Elements(STRUCT, pages))}))
    return chunk.changed(
        {Chunk.OFFSET_INDEX: (I64, behind.put(written)), Chunk.OFFSET_INDEX_BYTES: (I32, len(written))}
    )


def _column(chunk: Struct) -> Struct:
    metadata = chunk.struct(Chunk.METADATA)
    if metadata is None:
        raise ValueError("a column has no metadata")
    return metadata


def _with_column(chunk: Struct, fields: Mapping[int, tuple[int, Any] | None]) -> Struct:
    return chunk.changed({Chunk.METADATA: (STRUCT, _column(chunk).changed(fields))})

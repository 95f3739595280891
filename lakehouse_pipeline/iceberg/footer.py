"""The footer of one Parquet file: where its row groups lie, and what another file must have in common with it.

Pure: bytes come from the caller. Nothing is judged but what copying row groups byte for byte depends on; fields that
are not known here are kept (`iceberg.row_groups` writes them again). Field numbers are those of
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from typing import Any

from lakehouse_pipeline.errors import DataError
from lakehouse_pipeline.iceberg.thrift_compact import BINARY, LIST, Struct, decode, encode
from lakehouse_pipeline.object_store.checksums import from_text, to_text

MAGIC, ENCRYPTED_MAGIC = b"PAR1", b"PARE"
FIRST_BYTES = 64 * 1024  # most footers and page indexes are smaller, and are then read, and parsed, at once
TRAILER_BYTES = 8  # the footer's length and the magic
SUMS_KEY = "lakehouse.row-groups"  # key-value metadata: lengths and CRC64NVME of the row groups, in their order
CODECS = ("uncompressed", "snappy", "gzip", "lzo", "brotli", "lz4", "zstd", "lz4_raw")


class File(IntEnum):
    """Fields of FileMetaData."""

    VERSION, SCHEMA, ROWS, GROUPS, KEY_VALUES, CREATED_BY, ORDERS, ENCRYPTION = range(1, 9)


# What `Kind` says by name, and what is of this file only.
OWN = (File.VERSION, File.SCHEMA, File.ROWS, File.GROUPS, File.KEY_VALUES, File.CREATED_BY)


class Group(IntEnum):
    """Fields of RowGroup."""

    CHUNKS, BYTES, ROWS, SORTING, OFFSET, COMPRESSED_BYTES, ORDINAL = range(1, 8)


class Chunk(IntEnum):
    """Fields of ColumnChunk."""

    FILE, OFFSET, METADATA, OFFSET_INDEX, OFFSET_INDEX_BYTES, COLUMN_INDEX, COLUMN_INDEX_BYTES, CRYPTO = range(1, 9)
    ENCRYPTED_METADATA = 9


class Column(IntEnum):
    """Fields of ColumnMetaData."""

    PATH, CODEC, COMPRESSED_BYTES = 3, 4, 7
    DATA, INDEX, DICTIONARY = 9, 10, 11  # offsets of pages
    BLOOM, BLOOM_BYTES = 14, 15


@dataclass(frozen=True)
class Wanted:
    """The footer does not lie in the bytes that were given.

    Attributes:
        last_bytes: how many at the end of the file to give. They may turn out not to be enough, once: page indexes
            and Bloom filters stand before the footer.
    """

    last_bytes: int


@dataclass(frozen=True)
class Kind:
    """What the row groups of a file have in common, and must have with those that they share a file with.

    Attributes:
        created_by: who wrote the bytes. Readers work around the bugs of writers, and trust or ignore their statistics,
            by this text: parquet-java those of text columns (PARQUET-251), Arrow the lengths of chunks (PARQUET-816).
            So it is kept, and nothing copied gets another.
        version: of the format.
        schema: name and encoding of each element: types, logical types, nullability, field ids.
        others: what else the footer says of the file, encoded: `column_orders`, by which statistics are read, and
            fields that are not known here.
        codecs: column and codecs. Parquet lets them differ; Iceberg's properties say one for all.
    """

    created_by: str
    version: int
    schema: tuple[tuple[str, bytes], ...]
    others: bytes
    codecs: tuple[tuple[str, str], ...]

    def difference(self, other: "Kind") -> str | None:
        """Say what differs first, as `mine, not its`; None if nothing does."""
        for mine, its in zip(self.schema, other.schema, strict=False):
            if mine != its:
                return f"column {mine[0]} of the schema is declared otherwise, as {its[0]}"
        if len(self.schema) != len(other.schema):
            return f"the schema has {len(self.schema)} elements, not {len(other.schema)}"
        if self.others != other.others:
            return "it says otherwise how statistics are ordered (column_orders), or has a field that is not known here"
        for (path, codec), (_, other_codec) in zip(self.codecs, other.codecs, strict=False):
            if codec != other_codec:
                return f"column {path} is compressed with {codec}, not {other_codec}"
        for name in ("created_by", "version", "codecs"):
            if getattr(self, name) != getattr(other, name):
                return f"{name} is {getattr(self, name)!r}, not {getattr(other, name)!r}"
        return None


@dataclass(frozen=True)
class RowGroup:
    """One row group.

    Attributes:
        span: its bytes in the file: the pages of all columns, dictionaries included, without a gap.
        rows: in it.
        crc64nvme: of these bytes, as it was recorded when they were written; None if it was not.
        metadata: its part of the footer.
    """

    span: range
    rows: int
    crc64nvme: int | None
    metadata: Struct = field(repr=False)


@dataclass(frozen=True)
class Footer:
    """What a file says of itself.

    Attributes:
        name: of the file, for messages.
        size: bytes of the file.
        kind: equal for files whose row groups can stand in one file.
        row_groups: in their order.
        key_values: key-value metadata, without the row groups' checksums.
        metadata: FileMetaData.
        behind: what stands between the last row group and the footer, where page indexes and Bloom filters are.
    """

    name: str
    size: int
    kind: Kind
    row_groups: tuple[RowGroup, ...]
    key_values: dict[bytes, bytes | None]
    metadata: Struct = field(repr=False)
    behind: bytes = field(repr=False)

    @classmethod
    def read(cls, name: str, tail: bytes, size: int) -> "Footer | Wanted":
        """Read the footer from the last bytes of a file, or say how many of them it takes.

        Args:
            name: of the file, for messages.
            tail: its last bytes, as many as are at hand.
            size: bytes of the whole file.

        Raises:
            DataError: this is no Parquet file, is damaged or encrypted, or its row groups cannot be copied as ranges.
        """
        with named(name):
            return cls._read(name, tail, size)

    @property
    def rows(self) -> int:
        """Give the rows of all row groups."""
        return sum(group.rows for group in self.row_groups)

    @property
    def behind_at(self) -> int:
        """Give the position of `behind` in the file."""
        return max((group.span.stop for group in self.row_groups), default=len(MAGIC))

    def cut(self, at: int | None, length: int | None) -> bytes | None:
        """Give bytes of `behind` by their position in the file.

        None if position or length are not said, or they lie elsewhere: arrow-rs puts Bloom filters between row groups,
        where they would take a request each; readers do without.
        """
        if at is None or not length or not self.behind_at <= at <= self.behind_at + len(self.behind) - length:
            return None
        return self.behind[at - self.behind_at : at - self.behind_at + length]

    @classmethod
    def _read(cls, name: str, tail: bytes, size: int) -> "Footer | Wanted":
        length = _footer_bytes(tail, size)
        if length is None or length > len(tail):
            return Wanted(length or min(size, TRAILER_BYTES))
        metadata = decode(tail[len(tail) - length : len(tail) - TRAILER_BYTES])
        if File.ENCRYPTION in metadata:
            raise ValueError("columns are encrypted")
        spans = _spans(metadata, size - length)
        behind_at = max((span.stop for span in spans), default=len(MAGIC))
        if size - behind_at > len(tail):
            return Wanted(size - behind_at)
        key_values = _key_values(metadata)
        groups = _row_groups(metadata, spans, key_values.pop(SUMS_KEY.encode(), None))
        behind = tail[len(tail) - (size - behind_at) : len(tail) - length]
        return cls(name, size, _kind(metadata), groups, key_values, metadata, behind)


def read_footer(name: str, size: int, last: Callable[[int], bytes]) -> Footer:
    """Read the footer of a file of `size` bytes through `last`, which gives so many bytes of its end.

    Raises:
        DataError: as `Footer.read` says.
    """
    found: Footer | Wanted = Wanted(min(size, FIRST_BYTES))
    while isinstance(found, Wanted):
        found = Footer.read(name, last(found.last_bytes), size)
    return found


@contextmanager
def named(file: str) -> Iterator[None]:
    """Raise DataError, which names a file, where its footer is not what it should be."""
    try:
        yield
    except ValueError as error:
        raise DataError(f"{file}: its row groups cannot be copied: {error}") from error


def sums_text(spans: Sequence[tuple[int, int | None]]) -> str:
    """Write lengths and CRC64NVME of row groups, in their order, as the value of `SUMS_KEY`."""
    told = [{"bytes": length, "crc64nvme": None if crc is None else to_text(crc)} for length, crc in spans]
    return json.dumps(told, separators=(",", ":"))


def chunks_of(group: Struct) -> Iterator[tuple[Struct, Struct]]:
    """Give the column chunks of a row group, each with its ColumnMetaData."""
    for chunk in group.structs(Group.CHUNKS):
        metadata = chunk.struct(Chunk.METADATA)
        if Chunk.CRYPTO in chunk or Chunk.ENCRYPTED_METADATA in chunk:
            raise ValueError("columns are encrypted")
        if chunk.text(Chunk.FILE):
            raise ValueError(f"a column lies in another file, {_text(chunk.text(Chunk.FILE))!r}")
        if metadata is None:
            raise ValueError("a column has no metadata")
        yield chunk, metadata


def _footer_bytes(tail: bytes, size: int) -> int | None:
    """Give the length of the footer with its trailer; None if even that lies before the tail."""
    if size < len(MAGIC) + TRAILER_BYTES:
        raise ValueError(f"{size} bytes are no Parquet file")
    if len(tail) < TRAILER_BYTES:
        return None
    if tail.endswith(ENCRYPTED_MAGIC):
        raise ValueError("its footer is encrypted")
    if not tail.endswith(MAGIC):
        raise ValueError(f"it ends with {tail[-len(MAGIC) :]!r}, not {MAGIC!r}")
    length = int.from_bytes(tail[-TRAILER_BYTES : -len(MAGIC)], "little") + TRAILER_BYTES
    if length > size - len(MAGIC):
        raise ValueError(f"a footer of {length} bytes in a file of {size}")
    return length


def _spans(metadata: Struct, end: int) -> list[range]:
    """Give the bytes of each row group, which must lie apart from each other and before `end`."""
    spans = [_span(group, place) for place, group in enumerate(metadata.structs(File.GROUPS))]
    stop = len(MAGIC)
    for span in sorted((span for span in spans if span), key=lambda span: span.start):
        if span.start < stop or span.stop > end:
            raise ValueError(f"a row group at bytes {span.start} to {span.stop - 1} overlaps with what is beside it")
        stop = span.stop
    return spans


def _span(group: Struct, place: int) -> range:
    chunks = sorted(filter(None, (_chunk_span(metadata) for _, metadata in chunks_of(group))), key=lambda c: c.start)
    for before, chunk in pairwise(chunks):
        if before.stop != chunk.start:
            said = "overlap" if before.stop > chunk.start else "leave a gap"
            raise ValueError(f"the columns of row group {place} {said} at byte {chunk.start}")
    return range(chunks[0].start, chunks[-1].stop) if chunks else range(len(MAGIC), len(MAGIC))


def _chunk_span(metadata: Struct) -> range:
    """Give the bytes of a column chunk; some writers say 0 for a page that is not there."""
    offsets = [metadata.whole(Column.DATA), metadata.number(Column.INDEX), metadata.number(Column.DICTIONARY)]
    found = [offset for offset in offsets if offset]
    start = min(found, default=len(MAGIC))
    span = range(start, start + metadata.whole(Column.COMPRESSED_BYTES))
    if span and max(found, default=start) not in span:
        raise ValueError(f"a page at byte {max(found)} is not within its column, bytes {span.start} to {span.stop - 1}")
    return span


def _row_groups(metadata: Struct, spans: Sequence[range], sums: bytes | None) -> tuple[RowGroup, ...]:
    found = _sums(sums, [len(span) for span in spans])
    groups = metadata.structs(File.GROUPS)
    rows = sum(group.whole(Group.ROWS) for group in groups)
    if rows != metadata.whole(File.ROWS):
        raise ValueError(f"it says {metadata.whole(File.ROWS)} rows, but its row groups have {rows}")
    return tuple(
        RowGroup(span, group.whole(Group.ROWS), crc, group)
        for group, span, crc in zip(groups, spans, found, strict=True)
    )


def _sums(text: bytes | None, lengths: Sequence[int]) -> list[int | None]:
    """Read the recorded checksums; none of them if they are of other row groups.

    A program that rewrites a file may take its key-value metadata along.
    """
    try:
        told: Any = json.loads(text or b"[]")
        if [each["bytes"] for each in told] != lengths:
            return [None] * len(lengths)
        return [None if each["crc64nvme"] is None else from_text(each["crc64nvme"]) for each in told]
    except (ValueError, TypeError, KeyError):
        return [None] * len(lengths)


def _key_values(metadata: Struct) -> dict[bytes, bytes | None]:
    return {pair.text(1) or b"": pair.text(2) for pair in metadata.structs(File.KEY_VALUES)}


def _kind(metadata: Struct) -> Kind:
    elements = metadata.structs(File.SCHEMA)
    return Kind(
        created_by=_text(metadata.text(File.CREATED_BY)),
        version=metadata.number(File.VERSION) or 0,
        schema=tuple((_text(element.text(4)), encode(element)) for element in elements),
        others=encode(metadata.changed(dict.fromkeys(OWN))),
        codecs=_codecs(metadata),
    )


def _codecs(metadata: Struct) -> tuple[tuple[str, str], ...]:
    found: dict[str, set[str]] = {}
    for group in metadata.structs(File.GROUPS):
        for _, column in chunks_of(group):
            kind, path = column.get(Column.PATH, (LIST, None))
            if kind != LIST or path is None or path.kind != BINARY:
                raise ValueError("a column has no name")
            found.setdefault(".".join(map(_text, path.values)), set()).add(_codec(column))
    return tuple((path, "+".join(sorted(codecs))) for path, codecs in found.items())


def _codec(column: Struct) -> str:
    number = column.whole(Column.CODEC)
    return CODECS[number] if number < len(CODECS) else f"codec {number}"


def _text(found: bytes | None) -> str:
    return (found or b"").decode(errors="replace")

"""Text objects as blocks of complete lines: decompression, byte ranges, line numbers, damaged files.

A line ends with a line feed; a carriage return before it belongs to the end. What is in a line is not known here.
Memory is bounded by the block and the longest line, whatever the size of the file.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse_pipeline.errors import DataError
from lakehouse_pipeline.sources.splits import Split
from lakehouse_pipeline.sources.stores import Reads, listed

BLOCK_BYTES = 4 * 1024 * 1024  # of text that are parsed at once
LINE_LIMIT = 64 * 1024 * 1024  # bytes; a longer line is no line

_BOM = b"\xef\xbb\xbf"
_LINE_FEED = 0x0A
_NO_TEXT = {
    rb"\x1f\x8b": "is gzip in spite of its name: land it with the suffix .gz",
    rb"BZh[1-9]1AY&SY": "is bzip2 in spite of its name: land it with the suffix .bz2",
    rb"\x28\xb5\x2f\xfd": "is Zstandard in spite of its name: land it with the suffix .zst",
    rb"\x04\x22\x4d\x18": "is LZ4 in spite of its name: land it with the suffix .lz4",
    rb"\xfd7zXZ": "is xz, which is not read: land it as .gz, .bz2, .zst, .lz4 or .br",
    rb"PK\x03\x04": "is zip, which is not read: land it as .gz, .bz2, .zst, .lz4 or .br",
    rb"PAR1": "is Parquet in spite of its format: say so, or land it as text",
    rb"ORC[\x00-\x08\x0b\x0c\x0e-\x1f\x80-\xff]": "is ORC in spite of its format: say so, or land it as text",
    rb"\xff\xfe": "is UTF-16: land it as UTF-8",
    rb"\xfe\xff": "is UTF-16: land it as UTF-8",
    rb".{,3}\0": "is no UTF-8 text but UTF-16 or binary: land it as UTF-8",
}


@dataclass(frozen=True)
class Block:
    """Complete lines that follow each other; only the last line of a file may lack its line feed.

    Attributes:
        data: the lines.
        count: how many they are.
        first: position of the first one: its number from 1, or its byte offset where `at_byte`.
        at_byte: positions are byte offsets, because the file was split and line numbers are not known.
        starts_file: the first line is the file's.
    """

    data: bytes
    count: int
    first: int
    at_byte: bool
    starts_file: bool = False

    def without_first(self) -> "Block":
        """Give the block without its first line."""
        cut = self.data.find(b"\n") + 1 or len(self.data)
        return Block(self.data[cut:], self.count - 1, self.first + (cut if self.at_byte else 1), self.at_byte)

    def halves(self) -> tuple["Block", "Block"]:
        """Cut the block behind the middle one of its lines, which are two or more."""
        count = self.count // 2
        cut = int(self.feeds()[count - 1]) + 1
        second = Block(self.data[cut:], self.count - count, self.first + (cut if self.at_byte else count), self.at_byte)
        return Block(self.data[:cut], count, self.first, self.at_byte, self.starts_file), second

    def positions(self) -> npt.NDArray[np.int64]:
        """Give the position of each line."""
        if not self.at_byte:
            return np.arange(self.first, self.first + self.count, dtype=np.int64)
        return self.first + np.concatenate(([0], self.feeds()[: self.count - 1] + 1)).astype(np.int64)

    def feeds(self) -> npt.NDArray[np.int64]:
        """Give the index of each line feed in `data`."""
        return np.flatnonzero(np.frombuffer(self.data, np.uint8) == _LINE_FEED)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Go through the lines: position, and bytes without the end of the line."""
        position = self.first
        for line in self.data.split(b"\n")[: self.count]:
            yield position, line[:-1] if line.endswith(b"\r") else line
            position += len(line) + 1 if self.at_byte else 1


def blocks(io: Reads, split: Split) -> Iterator[Block]:
    """Read the lines that start in the split.

    Raises:
        DataError: the file is truncated, damaged, compressed otherwise than its name says, no UTF-8, or has a line
            longer than 64 MiB.
    """
    line = 1
    starts_file = split.start == 0
    for offset, data in _complete(_pieces(io, split), split):
        count = data.count(b"\n") + (not data.endswith(b"\n"))
        yield Block(data, count, offset if split.is_range else line, split.is_range, starts_file)
        starts_file = False
        line += count


def first_line(io: Reads, split: Split) -> bytes:
    """Read the first line of the plain text that the split is a part of."""
    with listed(split.url), io.open_read(split.url, etag=split.etag, size=split.size) as raw:
        return _checked_start(raw.readline(LINE_LIMIT), split)


def line_of(io: Reads, split: Split, position: int) -> int:
    """Count the lines of plain text up to a byte that begins one: the number from 1 of that line."""
    line, left = 1, position
    with listed(split.url), io.open_read(split.url, etag=split.etag, size=split.size) as raw:
        while left and (piece := raw.read(min(left, BLOCK_BYTES))):
            line, left = line + piece.count(b"\n"), left - len(piece)
    return line


def _pieces(io: Reads, split: Split) -> Iterator[tuple[int, bytes]]:
    """Give the bytes of the lines that start in the split, cut anywhere, each piece with its offset in the text."""
    with listed(split.url), io.open_read(split.url, etag=split.etag, size=split.size) as raw:
        pieces = _owned(raw, split) if split.is_range else _all(raw, split)
        for offset, piece in pieces:
            if offset:
                yield offset, piece
            elif text := _checked_start(piece, split):
                yield len(piece) - len(text), text


def _all(raw: BinaryIO, split: Split) -> Iterator[tuple[int, bytes]]:
    offset = 0
    with _text(raw, split) as text:
        while piece := _read(text, split, offset):
            yield offset, piece
            offset += len(piece)
    if split.compression is not None and not split.size:
        raise DataError(f"{split.url} is empty, which no {split.compression} file is: land it again")


def _owned(raw: BinaryIO, split: Split) -> Iterator[tuple[int, bytes]]:
    """Give the lines that start in the byte range: the one that the range begins within is its predecessor's."""
    end = split.start + split.length
    inside = split.start == 0
    offset = max(split.start - 1, 0)  # the byte before tells whether a line starts at the first one
    raw.seek(offset)
    while offset < end or inside:
        piece = raw.read(BLOCK_BYTES)
        if not piece:
            return
        at, offset = offset, offset + len(piece)
        if not inside:
            skipped = piece.find(b"\n") + 1
            if not skipped:
                continue
            inside, at, piece = True, at + skipped, piece[skipped:]
            if at >= end:
                return
        if offset >= end and (kept := piece.find(b"\n", max(end - 1 - at, 0)) + 1):
            yield at, piece[:kept]
            return
        yield at, piece


def _text(raw: BinaryIO, split: Split) -> BinaryIO:
    if split.compression is None:
        return raw
    stream: BinaryIO = pa.CompressedInputStream(pa.PythonFile(raw, "r"), split.compression)
    return stream


def _read(text: BinaryIO, split: Split, offset: int) -> bytes:
    try:
        return text.read(BLOCK_BYTES)
    except OSError as error:
        if split.compression is None or error.errno is not None:
            raise  # the store's, not the codec's
        what = "is truncated" if "Truncated" in str(error) else f"is damaged or no {split.compression} file ({error})"
        where = f" after {offset:,} bytes of text" if offset else ""
        raise DataError(f"{split.url} {what}{where}: land it again") from error


def _checked_start(piece: bytes, split: Split) -> bytes:
    for magic, what in _NO_TEXT.items():
        if re.match(magic, piece):
            raise DataError(f"{split.url} {what}")
    return piece.removeprefix(_BOM)


def _complete(pieces: Iterator[tuple[int, bytes]], split: Split) -> Iterator[tuple[int, bytes]]:
    """Cut the pieces anew, behind line feeds."""
    held: list[bytes] = []
    start = size = 0
    for offset, piece in pieces:
        start = start if held else offset
        if size + (piece.find(b"\n") if b"\n" in piece else len(piece)) > LINE_LIMIT:
            where = f"at byte {start:,} of the text"
            raise DataError(f"{split.url} has a line longer than {LINE_LIMIT:,} bytes {where}: is it line by line?")
        cut = piece.rfind(b"\n") + 1
        if cut:
            yield start, b"".join((*held, piece[:cut]))
            held, start, size = [], offset + cut, 0
        if rest := piece[cut:]:
            held.append(rest)
            size += len(rest)
    if held:
        yield start, b"".join(held)

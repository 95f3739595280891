"""A seekable stream over ranged reads.

Sequential readers get a growing read-ahead, random ones what they ask for, and the end of a file, where Parquet keeps
its footer, comes in one piece. Nothing here knows where the bytes come from.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
AHEAD_GROWTH = 4


@dataclass(frozen=True)
class ReadAhead:
    """How much one request fetches, in bytes.

    Attributes:
        first: what a random read fetches at least; each sequential one after it fetches `AHEAD_GROWTH` times more.
        most: the end of that growth.
        tail: a random read this near to the end fetches all of the tail.
        whole: objects up to this size are fetched whole.
        longest: a longer read is split, so that a reset costs no more than this.
    """

    first: int = 64 * KIB
    most: int = 8 * MIB
    tail: int = 256 * KIB
    whole: int = MIB
    longest: int = 32 * MIB


class RangeReader(io.BufferedIOBase):
    """Reads an object of known size by ranges, keeping one block; not shared between threads."""

    def __init__(self, fetch: Callable[[range], bytes], size: int, ahead: ReadAhead | None = None) -> None:
        """Read through `fetch`, which gives exactly the bytes of a span that is not empty and within `size`."""
        self._fetch = fetch
        self._size = size
        self._read_ahead = ahead or ReadAhead()
        self._at = 0
        self._block = b""
        self._span = range(0)
        self._window = self._read_ahead.first

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be sought."""
        return True

    def tell(self) -> int:
        """Give the position."""
        self._open()
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; sends nothing.

        Raises:
            ValueError: the position would be negative.
        """
        self._open()
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}")
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Read `size` bytes, fewer only at the end."""
        self._open()
        left = max(0, self._size - self._at)
        left = left if size is None or size < 0 else min(size, left)
        pieces = []
        while left > 0:
            pieces.append(self._some(left))
            left -= len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read1(self, size: int = -1) -> bytes:
        """Read up to `size` bytes with at most one request."""
        self._open()
        if self._at >= self._size or size == 0:
            return b""
        return self._some(size if size > 0 else self._size - self._at, just=self._read_ahead.first)

    def peek(self, size: int = 0) -> bytes:
        """Give what is at hand from here, at least one byte before the end; the position stays."""
        at = self._at
        found = self.read1(max(size, self._read_ahead.first))
        self._at = at
        return found

    def close(self) -> None:
        """Let go of the block."""
        self._block, self._span = b"", range(0)
        super().close()

    def _some(self, wanted: int, just: int | None = None) -> bytes:
        """Take up to `wanted` bytes from the block, which is fetched anew (for `just` so many) if it ends before."""
        if self._at not in self._span:
            span = self._next_span(wanted if just is None else min(wanted, just))
            self._block, self._span = self._fetch(span), span
        start = self._at - self._span.start
        found = self._block[start : start + wanted]
        self._at += len(found)
        return found

    def _next_span(self, wanted: int) -> range:
        ahead = self._read_ahead
        if self._size <= ahead.whole:
            return range(self._size)
        sequential = self._at == self._span.stop
        if not sequential and self._at >= self._size - ahead.tail:
            return range(max(0, self._size - ahead.tail), self._size)
        self._window = min(self._window * AHEAD_GROWTH, ahead.most) if sequential else ahead.first
        return range(self._at, min(self._size, self._at + min(max(wanted, self._window), ahead.longest)))

    def _open(self) -> None:
        if self.closed:
            raise ValueError("the stream is closed")

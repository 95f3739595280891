"""Which parts an object is composed of, where it is made of given bytes and of ranges of other objects.

Pure. S3 takes parts of 5 MiB to 5 GiB, the last may be smaller, and 10,000 of them; a part is one range of one object,
or bytes that we send. So what is smaller, or of an unknown checksum, passes through us together with what is beside it,
and takes as much of the next range along as makes a part: of a large range the rest is still the store's to copy.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lakehouse_pipeline.object_store.checksums import joined
from lakehouse_pipeline.object_store.multipart import MOST_PARTS
from lakehouse_pipeline.object_store.objects import ObjectRange
from lakehouse_pipeline.object_store.settings import MIB, SMALLEST_PART_BYTES

COPIED_PART_BYTES = 256 * MIB  # of 5 GiB: a few seconds of S3's, side by side, and the answer comes within the timeout


@dataclass(frozen=True)
class Piece:
    """Bytes of one source.

    Attributes:
        source: which, from 0.
        span: its bytes, from its own first one on.
    """

    source: int
    span: range


@dataclass(frozen=True)
class Part:
    """One part of the upload.

    Attributes:
        pieces: what it is made of; one if it is copied.
        copied: by the store.
    """

    pieces: tuple[Piece, ...]
    copied: bool

    @property
    def size(self) -> int:
        """Give its bytes."""
        return sum(len(piece.span) for piece in self.pieces)


def coalesced(content: Sequence[bytes | ObjectRange]) -> list[bytes | ObjectRange]:
    """Join ranges that follow one another in one object, and leave out what is empty."""
    found: list[bytes | ObjectRange] = []
    for source in content:
        before = found[-1] if found else b""
        if isinstance(source, ObjectRange) and isinstance(before, ObjectRange) and _adjacent(before, source):
            found[-1] = _both(before, source)
        elif len(source):
            found.append(source)
    return found


def planned(sources: Sequence[bytes | ObjectRange], part_bytes: int, *, copying: bool) -> list[Part]:
    """Plan the parts.

    Args:
        sources: none of them empty.
        part_bytes: of parts that pass through us.
        copying: whether the store may copy what it can vouch for.
    """
    smallest = SMALLEST_PART_BYTES
    while True:
        parts = _Planner(smallest, max(smallest, part_bytes)).plan(sources, copying=copying)
        if len(parts) <= MOST_PARTS:
            return parts
        smallest *= 2  # no part but the last is smaller, so this ends


@dataclass
class _Planner:
    smallest: int
    part_bytes: int
    parts: list[Part] = field(default_factory=list)
    through_us: list[Piece] = field(default_factory=list)

    def plan(self, sources: Sequence[bytes | ObjectRange], *, copying: bool) -> list[Part]:
        for place, source in enumerate(sources):
            lacking = self._lacking()
            known = isinstance(source, ObjectRange) and source.crc64nvme is not None
            if copying and known and len(source) - lacking >= self.smallest:
                self.through_us += [Piece(place, range(lacking))] if lacking else []
                self._finish()
                self._copy(Piece(place, range(lacking, len(source))))
            else:
                self.through_us.append(Piece(place, range(len(source))))
        self._finish()
        return self.parts

    def _lacking(self) -> int:
        """Give the bytes that what passes through us lacks to be a part."""
        held = sum(len(piece.span) for piece in self.through_us)
        return max(0, self.smallest - held) if held else 0

    def _copy(self, piece: Piece) -> None:
        most = max(COPIED_PART_BYTES, 2 * self.smallest)
        for span in cut(piece.span, -(-len(piece.span) // most)):
            self.parts.append(Part((Piece(piece.source, span),), copied=True))

    def _finish(self) -> None:
        """Make parts of what passes through us: even ones, so that none is too small."""
        size = sum(len(piece.span) for piece in self.through_us)
        count = -(-size // self.part_bytes)
        if count > 1 and size // count < self.smallest:
            count = max(1, size // self.part_bytes)
        for span in cut(range(size), count):
            self.parts.append(Part(tuple(_within(self.through_us, span)), copied=False))
        self.through_us = []


def copied_parts(size: int) -> list[range]:
    """Cut a large object that is copied whole: into parts of `COPIED_PART_BYTES`, or larger ones if they are many."""
    return list(cut(range(size), min(MOST_PARTS, -(-size // COPIED_PART_BYTES))))


def cut(span: range, count: int) -> Iterator[range]:
    """Cut a span into so many spans of about one length."""
    for place in range(count):
        yield span[len(span) * place // count : len(span) * (place + 1) // count]


def _within(pieces: Sequence[Piece], span: range) -> Iterator[Piece]:
    """Give the pieces of a span, which counts over all of them."""
    at = 0
    for piece in pieces:
        found = piece.span[max(0, span.start - at) : max(0, span.stop - at)]
        at += len(piece.span)
        if found:
            yield Piece(piece.source, found)


def _adjacent(before: ObjectRange, after: ObjectRange) -> bool:
    """Tell whether two ranges are one; a known checksum is not given up for that."""
    same = (before.url, before.etag, before.span.stop) == (after.url, after.etag, after.span.start)
    return same and (before.crc64nvme is None) == (after.crc64nvme is None)


def _both(before: ObjectRange, after: ObjectRange) -> ObjectRange:
    crc = None
    if before.crc64nvme is not None and after.crc64nvme is not None:
        crc = joined(before.crc64nvme, after.crc64nvme, len(after))
    return ObjectRange(before.url, before.etag, range(before.span.start, after.span.stop), crc)

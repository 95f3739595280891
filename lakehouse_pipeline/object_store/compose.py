"""An object made of ranges of others: S3 copies what it can vouch for, the rest passes through us.

A range is copied only if its CRC64NVME was recorded and the store answers with its own sum of what it copied; the sums
of a range's pieces, copied or read, are then held against the recorded one before the upload is completed. A store that
gives no sum, or does not know the request, is asked once by a process: everything passes through us from then on.
"""

import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lakehouse_pipeline.errors import ConfigurationError, LakehouseError
from lakehouse_pipeline.object_store.checksums import check, crc64nvme, from_text, joined, to_text
from lakehouse_pipeline.object_store.counts import RequestCounter, RequestCounts
from lakehouse_pipeline.object_store.multipart import Upload, curable_in_upload
from lakehouse_pipeline.object_store.objects import (
    NotSupportedError,
    ObjectInfo,
    ObjectRange,
    PreconditionFailedError,
    changed,
)
from lakehouse_pipeline.object_store.parts import Part, Piece, coalesced, copied_parts, planned
from lakehouse_pipeline.object_store.puts import Put
from lakehouse_pipeline.object_store.requests import CHECKSUM_CRC64NVME, S3Requests
from lakehouse_pipeline.object_store.settings import SMALLEST_PART_BYTES, S3Settings
from lakehouse_pipeline.object_store.side_by_side import side_by_side
from lakehouse_pipeline.object_store.tries import Tries

_STORES_KEPT = 16

logger = logging.getLogger(__name__)


class _NotCopiedError(LakehouseError):
    """The store did not copy a range, or does not vouch for it; `lasting` if it never will."""

    def __init__(self, message: str, *, lasting: bool) -> None:
        super().__init__(message)
        self.lasting = lasting


@dataclass
class _Store:
    """What is known of a store: whether it copies ranges and vouches for them."""

    copies: bool = True


@functools.lru_cache(maxsize=_STORES_KEPT)
def _store_at(endpoint: str | None, pid: int) -> _Store:  # noqa: ARG001  # a forked child learns for itself
    return _Store()


@dataclass
class Composer:
    """Composes objects of one store; safe to share between threads.

    Attributes:
        requests: of the store.
        tries: of each request.
        settings: sizes and threads.
        counter: is told what was copied.
    """

    requests: S3Requests
    tries: Tries
    settings: S3Settings
    counter: RequestCounter

    def compose(self, put: Put, content: Sequence[bytes | ObjectRange]) -> ObjectInfo:
        """Write the object of `put`; see `LakehouseFileIO.compose`."""
        sources, store = coalesced(content), _store_at(self.settings.connection.endpoint, os.getpid())
        if store.copies:
            try:
                return self._compose(put, sources, copying=True)
            except _NotCopiedError as error:
                store.copies = not error.lasting
                logger.warning("%s is composed of bytes that pass through this process: %s", put.url, error)
        return self._compose(put, sources, copying=False)

    def copy(self, put: Put, source: ObjectInfo) -> ObjectInfo:
        """Write the object of `put` with the bytes of a large one: the store copies them, in parts."""
        whole = ObjectRange(source.url, source.etag, range(source.size))
        info = CopiedUpload(self.requests, self.tries, put, whole, threads=self.settings.upload_threads).run()
        self.counter.add(RequestCounts(bytes_copied=source.size))
        return info

    def _compose(self, put: Put, sources: Sequence[bytes | ObjectRange], *, copying: bool) -> ObjectInfo:
        parts = planned(sources, self.settings.part_size_bytes, copying=copying)
        pieces = _Pieces(self.requests, self.tries, sources, self.settings.read_threads)
        copied = sum(part.size for part in parts if part.copied)
        size = sum(part.size for part in parts)
        if not copied and size < max(self.settings.multipart_threshold_bytes, SMALLEST_PART_BYTES):
            return self._put(put, parts, pieces)
        upload = ComposedUpload(self.requests, self.tries, put, parts, pieces, threads=self.settings.upload_threads)
        info = upload.run()
        self.counter.add(RequestCounts(bytes_copied=copied))
        return info

    def _put(self, put: Put, parts: Sequence[Part], pieces: "_Pieces") -> ObjectInfo:
        """Write what is small in one PUT."""
        body = b"".join(pieces.take(part) for part in parts)
        pieces.check()
        return self.tries.request("put", put.url, lambda: put.whole(body, len(body)))


@dataclass
class _Pieces:
    """The pieces of an object, and the sums of those that are on their way; threads may take them at the same time."""

    requests: S3Requests
    tries: Tries
    sources: Sequence[bytes | ObjectRange]
    threads: int
    sums: dict[Piece, int] = field(default_factory=dict)

    def take(self, part: Part) -> bytes:
        """Read a part that passes through us."""
        return b"".join(side_by_side(self._read, part.pieces, self.threads))

    def range_of(self, piece: Piece) -> ObjectRange:
        """Give the range of the source's object that a piece is."""
        source = self.sources[piece.source]
        if isinstance(source, bytes):
            raise TypeError(f"source {piece.source} is no object")
        start = source.span.start
        return ObjectRange(source.url, source.etag, range(start + piece.span.start, start + piece.span.stop))

    def sum_of(self, pieces: Sequence[Piece]) -> int:
        """Give the sum of pieces that follow one another."""
        total = 0
        for piece in pieces:
            total = joined(total, self.sums[piece], len(piece.span))
        return total

    def check(self) -> None:
        """Hold the sums of every range against the recorded one.

        Raises:
            ChecksumMismatchError: names the object, the range and both sums.
        """
        of_source: dict[int, list[Piece]] = {}
        for piece in sorted(self.sums, key=lambda piece: (piece.source, piece.span.start)):
            of_source.setdefault(piece.source, []).append(piece)
        for place, source in enumerate(self.sources):
            if isinstance(source, ObjectRange) and source.crc64nvme is not None:
                check(source.url, source.span, found=self.sum_of(of_source[place]), recorded=source.crc64nvme)

    def _read(self, piece: Piece) -> bytes:
        source = self.sources[piece.source]
        body = source[piece.span.start : piece.span.stop] if isinstance(source, bytes) else self._get(piece)
        self.sums[piece] = crc64nvme(body)
        return body

    def _get(self, piece: Piece) -> bytes:
        wanted = self.range_of(piece)
        url, span, etag = wanted.url, wanted.span, wanted.etag
        try:
            body = self.tries.request("get", url, lambda: self.requests.get(url, span=span, etag=etag)).body
        except PreconditionFailedError as error:
            raise changed(url) from error
        if len(body) != len(span):
            raise changed(url)
        return body


class CopiedUpload(Upload):
    """An object on its way in parts that the store copies; it sees to it that they are of one version."""

    def __init__(self, requests: S3Requests, tries: Tries, put: Put, source: ObjectRange, *, threads: int) -> None:
        """Copy `source`, a whole object, for `put`, `threads` parts at a time."""
        self._spans = copied_parts(len(source))
        super().__init__(requests, tries, put, size=len(source), parts=len(self._spans), threads=threads)
        self._source = source

    def _begin(self) -> str:
        return self._requests.create_upload(self._put.url, self._put.nonce, crc64nvme=False)

    def _part(self, upload: str, number: int) -> dict[str, Any]:
        url, span = self._put.url, self._spans[number - 1]
        part = ObjectRange(self._source.url, self._source.etag, span)
        try:
            return self._tries.request(
                "copy part", url, lambda: self._requests.copy_part(part, url, upload, number), on=curable_in_upload
            )
        except PreconditionFailedError as error:
            raise changed(part.url) from error

    def _complete(self, upload: str, parts: list[dict[str, Any]]) -> ObjectInfo:
        return self._put.complete(upload, parts, self._size)


class ComposedUpload(Upload):
    """An object on its way in parts that the store copies and parts that are sent."""

    def __init__(
        self, requests: S3Requests, tries: Tries, put: Put, parts: Sequence[Part], pieces: _Pieces, *, threads: int
    ) -> None:
        """Send `parts`, made of `pieces`, for `put`, `threads` at a time."""
        size = sum(part.size for part in parts)
        super().__init__(requests, tries, put, size=size, parts=len(parts), threads=threads)
        self._plan = parts
        self._pieces = pieces
        # Only where the store copies is CRC64NVME asked for: not every store takes parts that go with it.
        self._vouched = any(part.copied for part in parts)

    def _begin(self) -> str:
        try:
            return self._requests.create_upload(self._put.url, self._put.nonce, crc64nvme=self._vouched)
        except ConfigurationError as error:
            if not self._vouched:
                raise
            raise _not_copied(error) from error

    def _part(self, upload: str, number: int) -> dict[str, Any]:
        part = self._plan[number - 1]
        return self._copied(upload, number, part.pieces[0]) if part.copied else self._sent(upload, number, part)

    def _complete(self, upload: str, parts: list[dict[str, Any]]) -> ObjectInfo:
        self._pieces.check()
        whole = [piece for part in self._plan for piece in part.pieces]
        crc = to_text(self._pieces.sum_of(whole)) if self._vouched else None
        return self._put.complete(upload, parts, self._size, crc64nvme=crc)

    def _sent(self, upload: str, number: int, part: Part) -> dict[str, Any]:
        url, body = self._put.url, self._pieces.take(part)
        crc = to_text(self._pieces.sum_of(part.pieces)) if self._vouched else None
        return self._tries.request(
            "put part",
            url,
            lambda: self._requests.put_part(url, upload, number, body, crc64nvme=crc),
            on=curable_in_upload,
        )

    def _copied(self, upload: str, number: int, piece: Piece) -> dict[str, Any]:
        url, source = self._put.url, self._pieces.range_of(piece)
        try:
            told = self._tries.request(
                "copy part", url, lambda: self._requests.copy_part(source, url, upload, number), on=curable_in_upload
            )
        except PreconditionFailedError as error:
            raise changed(source.url) from error
        except ConfigurationError as error:
            raise _not_copied(error) from error
        try:
            self._pieces.sums[piece] = from_text(told.get(CHECKSUM_CRC64NVME, ""))
        except ValueError as error:
            raise _NotCopiedError("the store gives no CRC64NVME of what it copies", lasting=True) from error
        return told


def _not_copied(error: ConfigurationError) -> _NotCopiedError:
    """Give up copying; what is refused for other reasons, such as rights, is refused again as we read and send."""
    return _NotCopiedError(str(error), lasting=isinstance(error, NotSupportedError))

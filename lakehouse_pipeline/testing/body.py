"""Bodies on their way: read piece by piece, kept whole where a fault needs that, or damaged by one bit."""

import random
from collections import deque
from collections.abc import AsyncGenerator

import h11

from lakehouse_pipeline.testing.wire import Wire


class Body:
    """The body of a client's request: read as it comes, or kept whole.

    Attributes:
        size: bytes read so far.
        trailers: what followed a chunked body.
    """

    def __init__(self, wire: Wire) -> None:
        """Read nothing yet."""
        self.size = 0
        self.trailers: list[tuple[bytes, bytes]] = []
        self._wire = wire
        self._kept: deque[bytes] = deque()
        self._ended = False

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Give what was kept, then the rest as it comes; the client is told to go on if it waits for that."""
        while self._kept:
            yield self._kept.popleft()
        while not self._ended:
            piece = await self._read()
            if piece:
                yield piece

    async def keep(self) -> bytes:
        """Read it whole, and keep it for whoever forwards it."""
        self._kept = deque([b"".join([piece async for piece in self.pieces()])])
        return self._kept[0]

    async def drain(self) -> None:
        """Read it to its end and throw it away."""
        async for _ in self.pieces():
            pass

    async def _read(self) -> bytes:
        if self._wire.client_waits:
            await self._wire.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
        event = await self._wire.event()
        if isinstance(event, h11.Data):
            self.size += len(event.data)
            return bytes(event.data)
        self._ended = True
        if isinstance(event, h11.EndOfMessage):
            self.trailers = list(event.headers)
        return b""


class BitFlip:
    """One bit of a body, flipped as the body passes: anywhere if its length is known, else in its first piece."""

    def __init__(self, luck: random.Random, length: int | None) -> None:
        """Choose the bit."""
        self._luck = luck
        self._bit = luck.randrange(8 * length) if length else None
        self._passed = 0
        self._done = length == 0

    def __call__(self, piece: bytes) -> bytes:
        """Give a piece as it goes on."""
        if self._bit is None:
            self._bit = self._luck.randrange(8 * len(piece))
        byte = self._bit // 8 - self._passed
        self._passed += len(piece)
        if self._done or byte >= len(piece):
            return piece
        self._done = True
        spoilt = bytearray(piece)
        spoilt[byte] ^= 1 << self._bit % 8
        return bytes(spoilt)


def body_length(message: h11.Request | h11.Response) -> int | None:
    """Give the length that a message's head states; None if it states none."""
    return next((int(value) for name, value in message.headers if name == b"content-length"), None)


def has_body(request: h11.Request) -> bool:
    """Tell whether a request has a body."""
    return any(name == b"transfer-encoding" for name, _ in request.headers) or bool(body_length(request))

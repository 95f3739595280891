"""One end of an HTTP/1.1 connection: h11's state machine on asyncio's streams.

Headers and bytes go through as they came. What is said on it, and when it is broken, is its callers' business.
"""

import asyncio
import contextlib
import random
import socket
import struct
from collections import deque
from collections.abc import AsyncGenerator

import h11

READ_BYTES = 256 * 1024  # of one read, and what a stream buffers: bounds the memory of a connection
HEAD_BYTES = 64 * 1024  # longest head: S3's user metadata alone may be 2 KB, and a token is long
LINGER_S = 1.0  # for a client to take an answer that came before its body was read; else a reset would eat it

Incoming = h11.Request | h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage | h11.ConnectionClosed
Outgoing = h11.Request | h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage


class Wire:
    """A connection to a client (role `h11.SERVER`) or to the upstream (`h11.CLIENT`)."""

    def __init__(self, role: type[h11.CLIENT] | type[h11.SERVER], streams: "Streams") -> None:
        """Take over an open connection."""
        self._reader, self._writer = streams
        self._http = h11.Connection(role, max_incomplete_event_size=HEAD_BYTES)

    async def event(self) -> Incoming:
        """Read the next event.

        Raises:
            ConnectionError: it broke, or what came is no HTTP.
        """
        while True:
            try:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    self._http.receive_data(await self._reader.read(READ_BYTES))
                elif event is h11.PAUSED:
                    raise ConnectionError("pipelining is not for this server")
                else:
                    return event  # type: ignore[return-value]  # the two above are all that is no event
            except h11.RemoteProtocolError as error:
                raise ConnectionError(f"not HTTP: {error}") from error

    async def send(self, *events: Outgoing) -> None:
        """Write events at once.

        Raises:
            ConnectionError: it broke, or what is sent does not fit what was sent before.
        """
        try:
            self._writer.write(b"".join(self._http.send(event) or b"" for event in events))
        except h11.LocalProtocolError as error:
            raise ConnectionError(f"not HTTP: {error}") from error
        await self._writer.drain()

    @property
    def client_waits(self) -> bool:
        """Tell whether the client sends its body only after `100 Continue`."""
        return self._http.they_are_waiting_for_100_continue

    @property
    def usable(self) -> bool:
        """Tell whether an idle connection is still open."""
        return not self._reader.at_eof() and not self._writer.is_closing()

    def next_cycle(self) -> bool:
        """Make ready for another exchange; False if it cannot carry one."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            return True
        return False

    async def flush(self) -> None:
        """Hand all that was written to the kernel."""
        self._writer.transport.set_write_buffer_limits(high=0)
        await self._writer.drain()

    async def gone(self) -> None:
        """Wait until the other side has closed; what it still sends is thrown away."""
        while await self._reader.read(READ_BYTES):
            pass

    async def linger(self) -> None:
        """Say that nothing follows, and give the other side a moment to read what was said."""
        with contextlib.suppress(ConnectionError, TimeoutError, OSError):
            await self._writer.drain()
            if self._writer.can_write_eof():
                self._writer.write_eof()
            await asyncio.wait_for(self.gone(), LINGER_S)

    def reset(self) -> None:
        """Break it: the other side sees a reset, not an end."""
        carrier: socket.socket | None = self._writer.get_extra_info("socket")
        if carrier is not None:
            with contextlib.suppress(OSError):  # it is closed already
                carrier.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close it, after what was written has gone out."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


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

"""The way to the server behind the fault server: one connection, kept for as long as one client's.

A request goes there as it came: line, headers, body. What comes back is handed on piece by piece.
"""

import asyncio
import urllib.parse
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress

import h11

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.testing.body import Body, body_length, has_body
from lakehouse_pipeline.testing.wire import READ_BYTES, Wire

INLINE_BYTES = 64 * 1024  # a body that fits into the sockets' buffers is sent before the answer is read

Spoil = Callable[[bytes], bytes]


def address_of(url: str) -> tuple[str, int, bool]:
    """Give host, port and whether to speak TLS.

    Raises:
        ConfigurationError: it is no URL of a server.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise ConfigurationError(f"upstream {url!r}: write http://HOST:PORT, without a path")
    tls = parts.scheme == "https"
    return parts.hostname, parts.port or (443 if tls else 80), tls


class Upstream:
    """One connection, opened when it is first needed and anew when it has been closed."""

    def __init__(self, address: tuple[str, int, bool]) -> None:
        """Open nothing."""
        self._address = address
        self._wire: Wire | None = None

    async def forward(self, request: h11.Request, body: Body, spoil: Spoil | None = None) -> h11.Response:
        """Send a request, its pieces changed on the way if told so, and give the head of the answer.

        Raises:
            OSError: client or upstream broke off.
        """
        wire = await self._ready()
        await wire.send(request)
        if not has_body(request) or (body_length(request) or READ_BYTES) <= INLINE_BYTES:
            await self._pump(body, wire, spoil)
            return await self._head(wire)
        pump = asyncio.create_task(self._pump(body, wire, spoil))
        try:
            response = await self._head(wire)
        finally:
            early = pump.cancel()
            outcome = (await asyncio.gather(pump, return_exceptions=True))[0]
        if isinstance(outcome, OSError):
            raise outcome
        if early:
            await body.drain()  # it answered before the body's end: it wants no more of it
        return response

    async def answer(self) -> AsyncGenerator[bytes]:
        """Give the answer's body, piece by piece."""
        wire = self._open_wire()
        while isinstance(event := await wire.event(), h11.Data):
            yield bytes(event.data)
        if not wire.next_cycle():
            self.close()

    def close(self) -> None:
        """Break the connection; an answer that is not read to its end is lost."""
        wire, self._wire = self._wire, None
        if wire:
            wire.reset()

    async def _ready(self) -> Wire:
        if self._wire and not self._wire.usable:
            self.close()
        if not self._wire:
            host, port, tls = self._address
            try:
                streams = await asyncio.open_connection(host, port, limit=READ_BYTES, ssl=tls or None)
            except OSError as error:
                raise ConnectionError(f"no connection to the upstream: {error}") from error
            self._wire = Wire(h11.CLIENT, streams)
        return self._wire

    def _open_wire(self) -> Wire:
        if not self._wire:
            raise ConnectionError("nothing was forwarded")
        return self._wire

    async def _pump(self, body: Body, wire: Wire, spoil: Spoil | None) -> None:
        """Send the body; where the upstream takes no more of it, read the client's to its end."""
        try:
            async with aclosing(body.pieces()) as pieces:
                async for piece in pieces:
                    try:
                        await wire.send(h11.Data(data=spoil(piece) if spoil else piece))
                    except OSError:
                        break
            await body.drain()
            with suppress(OSError):
                await wire.send(h11.EndOfMessage(headers=body.trailers))
        except OSError:
            wire.reset()  # the client broke off: the upstream must not wait for the rest
            raise

    async def _head(self, wire: Wire) -> h11.Response:
        """Read up to the answer's head; a `100 Continue` is not for the client, whose body is on its way."""
        while isinstance(event := await wire.event(), h11.InformationalResponse):
            pass
        if not isinstance(event, h11.Response):
            raise ConnectionError("the upstream closed without an answer")
        return event

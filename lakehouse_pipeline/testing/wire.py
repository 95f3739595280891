"""One end of an HTTP/1.1 connection: h11's state machine on asyncio's streams.

Headers and bytes go through as they came. What is said on it, and when it is broken, is its callers' business.
"""

import asyncio
import contextlib
import socket
import struct

import h11

READ_BYTES = 256 * 1024  # of one read, and what a stream buffers: bounds the memory of a connection
HEAD_BYTES = 64 * 1024  # longest head: S3's user metadata alone may be 2 KB, and a token is long
LINGER_S = 1.0  # for a client to take an answer that came before its body was read; else a reset would eat it

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Incoming = h11.Request | h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage | h11.ConnectionClosed
Outgoing = h11.Request | h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage


class Wire:
    """A connection to a client (role `h11.SERVER`) or to the upstream (`h11.CLIENT`)."""

    def __init__(self, role: type[h11.CLIENT] | type[h11.SERVER], streams: Streams) -> None:
        """Take over an open connection."""
        self._reader, self._writer = streams
        self._http = h11.Connection(role, max_incomplete_event_size=HEAD_BYTES)

    async def event(self) -> Incoming:
        """Read the next event.

        Raises:
            OSError: it broke, or what came is no HTTP.
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
            OSError: it broke, or what is sent does not fit what was sent before.
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
        with contextlib.suppress(OSError):
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

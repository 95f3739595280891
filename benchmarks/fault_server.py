"""How many small PUTs a second the fault server passes on, and what each costs it. Goal: 500/s on one core."""

import asyncio
import math
import multiprocessing
import time
from multiprocessing.connection import Connection

from benchmarks import _goals
from lakehouse_pipeline.planning.s3_scaling import Scaling
from lakehouse_pipeline.testing.faults import FaultServer

GOAL = 500.0
BODY = b"x" * 1024
REQUEST = (
    b"PUT /raw/data/x HTTP/1.1\r\nHost: 127.0.0.1:8333\r\nContent-Length: 1024\r\nx-amz-date: 20260101T000000Z\r\n"
    b"Authorization: AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host;x-amz-date, Signature=x\r\n"
    b"x-amz-content-sha256: UNSIGNED-PAYLOAD\r\nUser-Agent: Boto3/1.40\r\namz-sdk-invocation-id: x\r\n\r\n" + BODY
)
ANSWER = (
    b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: "e"\r\nServer: x\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n'
)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(len(BODY))
            writer.write(ANSWER)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def _upstream(said: Connection) -> None:
    async def serve() -> None:
        server = await asyncio.start_server(_answer, "127.0.0.1", 0, backlog=1024)
        said.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def _client(endpoint: str, connections: int, requests: int) -> None:
    async def ask() -> None:
        host, port = endpoint.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(requests):
            writer.write(REQUEST)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()

    async def ask_all() -> None:
        await asyncio.gather(*(ask() for _ in range(connections)))

    asyncio.run(ask_all())


def main() -> None:
    """Ask through a server that throttles, at a rate that is never reached."""
    spawn = multiprocessing.get_context("spawn")
    heard, said = spawn.Pipe(duplex=False)
    upstream = spawn.Process(target=_upstream, args=(said,), daemon=True)
    upstream.start()
    url = f"http://127.0.0.1:{heard.recv()}"
    least = math.inf
    for connections, requests in ((1, 3_000), (16, 300), (300, 20)):
        with FaultServer(url, scaling=Scaling(write_rate=1e6)) as server:
            client = spawn.Process(target=_client, args=(server.endpoint, connections, requests))
            cpu = time.process_time()
            client.start()
            client.join()
            cpu, asked = time.process_time() - cpu, server.exchanges
        total, wall = connections * requests, (asked[-1].at - asked[0].at).total_seconds()
        assert len(asked) == total
        each = 1e6 * cpu / total
        print(
            f"{connections} connections: {total / wall:.0f}/s; {each:.0f} µs each: {1e6 / each:.0f}/s a core\n",
            flush=True,
        )
        least = min(least, 1e6 / each)
    _goals.at_least("small PUTs a second and core, at the least", least, GOAL)
    upstream.terminate()


if __name__ == "__main__":
    main()

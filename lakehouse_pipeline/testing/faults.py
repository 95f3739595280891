"""The fault server: a proxy before an S3 server or an Iceberg REST catalog that throttles like S3 and injects faults.

A thread with an event loop of its own for as long as a `with` block, or a command:
`python -m lakehouse_pipeline.testing.faults --upstream URL --port PORT`. What happens to a request is `connection`'s.
"""

import asyncio
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import click
import h11

from lakehouse_pipeline.errors import ConfigurationError, LakehouseError
from lakehouse_pipeline.planning.s3_scaling import KeyRange, Scaling
from lakehouse_pipeline.testing.asked import Dialect
from lakehouse_pipeline.testing.connection import Connection, Service
from lakehouse_pipeline.testing.exchanges import Exchange, ExchangeLog
from lakehouse_pipeline.testing.fault_text import parse_fault, read_faults
from lakehouse_pipeline.testing.schedule import Armed, Fault, Schedule
from lakehouse_pipeline.testing.throttle import Throttle
from lakehouse_pipeline.testing.upstream import address_of
from lakehouse_pipeline.testing.wire import READ_BYTES, Wire

HOST = "127.0.0.1"
BACKLOG = 1_024  # connections that wait to be taken: hundreds of clients begin at once


class FaultServer:
    """One proxy, started and stopped by its `with` block; its methods may be called from any thread."""

    def __init__(
        self,
        upstream: str,
        *,
        faults: Iterable[Fault] = (),
        seed: int = 0,
        scaling: Scaling | None = None,
        dialect: Dialect = Dialect.S3,
        log_file: Path | None = None,
        host: str = HOST,
        port: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe the server; nothing is started.

        Args:
            upstream: URL of the server behind it, without a path.
            faults: with which it begins, in the order in which they are asked.
            seed: of every chance.
            scaling: throttles by it, each bucket by itself; None: nothing is throttled.
            dialect: what requests are called and how errors look.
            log_file: takes a JSON line an exchange.
            host: address to listen on.
            port: to listen on; 0: any that is free.
            clock: seconds, monotonic, by which it throttles.

        Raises:
            ConfigurationError: the upstream's URL is none.
        """
        self._address = address_of(upstream)
        self._schedule = Schedule(faults, seed=seed)
        self._throttle = Throttle(scaling) if scaling else None
        self._dialect = dialect
        self._log_file = log_file
        self._log = ExchangeLog()
        self._host, self._port = host, port
        self._clock = clock
        self._connections: set[asyncio.Task[None]] = set()
        self._running = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None

    @property
    def endpoint(self) -> str:
        """Give the URL that clients take in the upstream's place; known once it runs."""
        return f"http://{self._host}:{self._port}"

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """Give what it did so far; what a client has been answered is among it."""
        return self._log.exchanges()

    def add(self, fault: Fault) -> Armed:
        """Add a fault behind all others, and give what counts, releases and removes it."""
        return self._schedule.add(fault)

    def clear(self) -> None:
        """Remove all faults, release what they hold, and forget the exchanges so far."""
        self._schedule.clear()
        self._log.clear()

    def ranges(self, bucket: str) -> tuple[KeyRange, ...]:
        """Give the ranges of a bucket's keys; none where nothing is throttled."""
        return self._throttle.ranges(bucket, self._clock()) if self._throttle else ()

    def start(self) -> None:
        """Listen.

        Raises:
            ConfigurationError: the address or the log cannot be had.
        """
        try:
            self._log = ExchangeLog(self._log_file)
        except OSError as error:
            raise ConfigurationError(f"log {self._log_file}: {error}") from error
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="fault-server")
        self._thread.start()
        self._running.wait()
        if self._failure:
            self.stop()
            raise ConfigurationError(f"{self.endpoint}: {self._failure}") from self._failure

    def stop(self) -> None:
        """Break every connection and end the thread; what is held is never forwarded. A second stop does nothing."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop and self._stop:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        thread.join()
        self._log.close()

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        service = Service(self._address, self._dialect, self._schedule, self._throttle, self._log, self._clock)

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task:
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)
            with contextlib.suppress(asyncio.CancelledError):  # asyncio's streams report a cancelled callback
                await Connection(service, Wire(h11.SERVER, (reader, writer))).serve()

        try:
            server = await asyncio.start_server(accept, self._host, self._port, limit=READ_BYTES, backlog=BACKLOG)
        except (OSError, OverflowError) as error:
            self._failure = error
            self._running.set()
            return
        self._port = server.sockets[0].getsockname()[1]
        self._running.set()
        await self._stop.wait()
        server.close()
        for task in (serving := list(self._connections)):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0)  # transports close their sockets in the loop's next round


@click.command()
@click.option("--upstream", required=True, help="URL of the server behind this one, such as http://127.0.0.1:8333.")
@click.option("--host", default=HOST, show_default=True, help="Address to listen on.")
@click.option("--port", default=0, help="Port to listen on; else any that is free.")
@click.option("--fault", "texts", multiple=True, help="A fault: 'slow-down verb=PutObject times=3'; may be repeated.")
@click.option("--faults", "files", multiple=True, type=click.Path(path_type=Path), help="YAML or JSON list of faults.")
@click.option("--seed", default=0, show_default=True, help="Of every chance.")
@click.option("--dialect", type=click.Choice([str(name) for name in Dialect]), default="s3", show_default=True)
@click.option("--write-rate", type=float, help="Throttle each range of keys to so many writes a second (S3: 3500).")
@click.option("--read-rate", type=float, help="The same for reads (S3: 5500).")
@click.option("--detect-s", type=float, help="Split ranges that were hot for so long; else none splits.")
@click.option("--split-s", type=float, default=Scaling.split_s, show_default=True, help="From decision to split.")
@click.option("--heat-window-s", type=float, default=Scaling.heat_window_s, show_default=True)
@click.option("--log", "log_file", type=click.Path(path_type=Path), help="Takes a JSON line an exchange.")
def main(
    *,
    upstream: str,
    host: str,
    port: int,
    texts: tuple[str, ...],
    files: tuple[Path, ...],
    seed: int,
    dialect: str,
    write_rate: float | None,
    read_rate: float | None,
    detect_s: float | None,
    split_s: float,
    heat_window_s: float,
    log_file: Path | None,
) -> None:
    """Run a fault server before UPSTREAM until it is interrupted."""
    scaling = Scaling(
        write_rate=write_rate or Scaling.write_rate,
        read_rate=read_rate or Scaling.read_rate,
        heat_window_s=heat_window_s,
        detect_s=detect_s,
        split_s=split_s,
    )
    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    try:
        faults = [fault for file in files for fault in read_faults(file)] + [parse_fault(text) for text in texts]
        with FaultServer(
            upstream,
            faults=faults,
            seed=seed,
            scaling=scaling if write_rate or read_rate else None,
            dialect=Dialect(dialect),
            log_file=log_file,
            host=host,
            port=port,
        ) as server:
            click.echo(f"{server.endpoint} -> {upstream}")
            ended.wait()
    except LakehouseError as error:
        click.echo(str(error), err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()

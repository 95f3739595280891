"""What this machine can do at all: its disk, a socket, its memory, and a core that encodes, decodes, sorts, compresses.

`docs/performance.md` holds misses of the other benchmarks against these, where their work is of such a kind; what an S3
server or the JVM takes has no limit here. The best of three, since noise only ever adds.
"""

import os
import socket
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import _events

ROUNDS = 3
BLOCK = os.urandom(8 * 1024**2)
BLOCKS = 64  # that are written, read and sent
ROWS = 2_500_000  # of the events that `append` takes


def best(step: Callable[[], object]) -> float:
    """Give the seconds of the quickest of some runs."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def written(path: Path) -> None:
    """Write a file until the disk has it."""
    with path.open("wb") as file:
        for _ in range(BLOCKS):
            file.write(BLOCK)
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> None:
    """Read a file that the system has thrown out of its memory, as far as it heeds that."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(len(BLOCK)):
            pass


def sent() -> None:
    """Send bytes over the loopback, from one thread to another."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            with socket.create_connection(server.getsockname()) as out:
                for _ in range(BLOCKS):
                    out.sendall(BLOCK)

        sender = threading.Thread(target=send)
        sender.start()
        connection, _ = server.accept()
        with connection:
            buffer = bytearray(1024**2)
            while connection.recv_into(buffer):
                pass
        sender.join()


def main() -> None:
    """Measure, and print a Markdown table."""
    pa.set_cpu_count(1)
    rows = _events.events(0, ROWS)
    text = rows.column("city").combine_chunks().buffers()[2].to_pybytes()
    strings = rows.select(["city", "kind"])
    keys = np.random.default_rng(0).integers(0, 2**63, ROWS)
    size = BLOCKS * len(BLOCK) / 1e6
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path, parquet = Path(folder) / "bytes", Path(folder) / "rows.parquet"
        pq.write_table(rows, parquet, compression="zstd")
        figures = {
            "disk: written and synced": (size, "MB", best(lambda: written(path))),
            "disk: read": (size, "MB", best(lambda: read(path))),
            "loopback socket, two threads": (size, "MB", best(sent)),
            "memory: copied": (size, "MB", best(lambda: [bytes(bytearray(BLOCK)) for _ in range(BLOCKS)])),
            "a core: Arrow to Parquet, zstd (seven columns)": (
                rows.nbytes / 1e6,
                "MB of Arrow",
                best(lambda: pq.write_table(rows, Path(folder) / "out.parquet", compression="zstd")),
            ),
            "the same, by rows": (ROWS / 1e6, "M rows", 0.0),
            "a core: Parquet to Arrow": (
                rows.nbytes / 1e6,
                "MB of Arrow",
                best(lambda: pq.read_table(parquet, use_threads=False)),
            ),
            "a core: Arrow's sort by two strings": (
                ROWS / 1e6,
                "M rows",
                best(lambda: pc.sort_indices(strings, [("city", "ascending"), ("kind", "ascending")])),
            ),
            "a core: NumPy's sort of integers": (ROWS / 1e6, "M rows", best(lambda: np.sort(keys))),
            "a core: zlib, level 6, of a column of text": (
                len(text) / 1e6,
                "MB",
                best(lambda: zlib.compress(text, 6)),
            ),
        }
    encoded = figures["a core: Arrow to Parquet, zstd (seven columns)"][2]
    figures["the same, by rows"] = (ROWS / 1e6, "M rows", encoded)
    print("| | a second |\n| --- | ---: |")
    for name, (amount, unit, seconds) in figures.items():
        print(f"| {name} | {amount / seconds:,.1f} {unit} |", flush=True)


if __name__ == "__main__":
    main()

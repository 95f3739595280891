"""The input of the benchmarks: an hour of ten million events as raw Parquet, the same bytes every time."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HOUR = datetime(2024, 1, 1, tzinfo=UTC)
KINDS = ("view", "click", "cart", "buy")
CITIES = tuple(f"city-{n:03d}" for n in range(300))


def write_events(folder: Path, *, rows: int, files: int) -> int:
    """Write an hour's raw files below `folder/2024/01/01/00`, unless they are there; gives their bytes.

    Seven columns: an event time, two integers, a price, two strings of few values, and 32 random hex digits, which no
    encoding can shrink below half.
    """
    hour = folder / f"{HOUR:%Y/%m/%d/%H}"
    hour.mkdir(parents=True, exist_ok=True)
    for place in range(files):
        path = hour / f"{place:04d}.parquet"
        if not path.exists():
            pq.write_table(events(place, rows // files), path, compression="zstd")
    return sum(path.stat().st_size for path in hour.iterdir())


def events(place: int, rows: int) -> pa.Table:
    random = np.random.default_rng(place)
    start = int(HOUR.timestamp()) * 1_000_000
    times = np.sort(random.integers(0, 3_600_000_000, rows)) + start
    digits = random.integers(0, 256, (rows, 16), dtype=np.uint8).tobytes().hex().encode()
    offsets = np.arange(0, 32 * (rows + 1), 32, dtype=np.int32)
    payload = pa.Array.from_buffers(pa.string(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(digits)])
    return pa.table(
        {
            "event_time": pa.array(times, pa.timestamp("us", "UTC")),
            "id": pa.array(np.arange(place * rows, (place + 1) * rows)),
            "customer": pa.array(random.integers(0, 1_000_000, rows).astype(np.int32)),
            "price": pa.array(np.round(random.gamma(2, 30, rows), 2)),
            "kind": pa.array(np.array(KINDS)[random.integers(0, len(KINDS), rows)]),
            "city": pa.array(np.array(CITIES)[random.integers(0, len(CITIES), rows)]),
            "payload": payload,
        }
    )

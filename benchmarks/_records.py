"""The records of `graysort.py`: gensort's 100 bytes as raw Parquet; and a check like valsort.

A record is a key of 10 random bytes and a value of 90: gensort's break, 32 hex digits of the row's number, and filler.
Skewed keys are like those of `gensort -s`: three in four begin with one to six bytes of `HOT`, whose range is thus hot;
gensort takes other bytes each time that the number of records has doubled, and its keys are less skewed.
Files have the time of the event beside them, which an hour needs; it rises with the row's number and is not counted.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.types import BinaryType, NestedField

from benchmarks._events import HOUR
from lakehouse_pipeline.iceberg.checksum import Checksum, checksum
from lakehouse_pipeline.iceberg.sorted_check import out_of_order, read_stretch
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

KEY, VALUE = 10, 90  # bytes
HOT = (0x9E, 0x37, 0x79, 0xB9, 0x7F, 0x4A)  # any bytes; gensort replaces six at most, too
ROWS_A_FILE = 1_000_000
ORDER = (("key", False),)
COLUMNS = (NestedField(1, "key", BinaryType()), NestedField(2, "value", BinaryType()))

_DIGITS = np.frombuffer(b"0123456789ABCDEF", np.uint8)
_BREAKS = {0: (0x00, 0x11), 34: (0x88, 0x99, 0xAA, 0xBB), 86: (0xCC, 0xDD, 0xEE, 0xFF)}


def write_records(folder: Path, *, rows: int, at: datetime = HOUR, skewed: bool = False) -> Checksum:
    """Write an hour's raw files below `folder/2024/01/01/00`, unless they are there; gives their content's checksum.

    A folder holds records of one kind, skewed or not: what is there is not looked into.
    """
    hour = folder / f"{at:%Y/%m/%d/%H}"
    hour.mkdir(parents=True, exist_ok=True)
    total = Checksum()
    for first in range(0, rows, ROWS_A_FILE):
        path, kept = hour / f"{first // ROWS_A_FILE:04d}.parquet", hour / f"{first // ROWS_A_FILE:04d}.checksum"
        if not kept.exists():
            table = _records(first, min(ROWS_A_FILE, rows - first), rows, at, skewed=skewed)
            pq.write_table(table, path, compression="zstd", use_dictionary=False)
            kept.write_text(str(_sum(table).total))
        total += Checksum(min(ROWS_A_FILE, rows - first), int(kept.read_text()))
    return total


def _records(first: int, rows: int, of: int, at: datetime, *, skewed: bool) -> pa.Table:
    random = np.random.default_rng(first)
    numbers = np.arange(first, first + rows)
    body = np.zeros((rows, VALUE), np.uint8)
    for place, text in _BREAKS.items():
        body[:, place : place + len(text)] = text
    for digit in range(16):  # of the number's 32, the first ones are zeros
        body[:, 33 - digit] = _DIGITS[(numbers >> 4 * digit) & 15]
    body[:, 2:18] = _DIGITS[0]
    body[:, 38:86] = np.repeat(_DIGITS[random.integers(0, 16, (rows, 12))], 4, axis=1)
    keys = random.integers(0, 256, (rows, KEY), dtype=np.uint8)
    if skewed:
        begin = random.integers(0, 8, (rows, 1)) % 7  # hot bytes at each key's begin
        np.copyto(keys[:, : len(HOT)], np.array(HOT, np.uint8), where=np.arange(len(HOT)) < begin)
    times = int(at.timestamp()) * 1_000_000 + numbers * 3_600_000_000 // of
    return pa.table(
        {
            "event_time": pa.array(times, pa.timestamp("us", "UTC")),
            "key": _binary(keys),
            "value": _binary(body),
        }
    )


def _binary(body: npt.NDArray[np.uint8]) -> pa.Array:
    rows, width = body.shape
    offsets = np.arange(0, width * (rows + 1), width, dtype=np.int32)
    return pa.Array.from_buffers(pa.binary(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(np.ravel(body))])


def _sum(table: pa.Table) -> Checksum:
    return sum((checksum(batch, COLUMNS) for batch in table.to_batches()), Checksum())


def valid(files: Sequence[Path]) -> Checksum:
    """Read sorted files as valsort does: keys in order, within files and from one to the next.

    Gives count and checksum.
    """
    read = (
        read_stretch(LakehouseFileIO({}), f"file://{path}", ORDER, size=path.stat().st_size, checked=COLUMNS)
        for path in files
    )
    stretches = list(read)
    wrong = out_of_order(stretches, ORDER)
    assert not wrong, wrong
    return sum((stretch.content for stretch in stretches), Checksum())

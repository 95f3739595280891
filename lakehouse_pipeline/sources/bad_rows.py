"""Rows that are not what the spec says: what is known of one, and the two policies, `fail` and `reject`.

Structural problems (a truncated file, a missing column) are no rows: they are always a `DataError`. Nothing here reads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse_pipeline.errors import DataError

RAW_LIMIT = 1_000  # characters of a bad row that are kept
REJECTS_SCHEMA = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),
        pa.field("column", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("raw", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class BadRow:
    r"""One row that cannot be read as the schema asks.

    Attributes:
        url: the file.
        position: as in `_position`: line or row number from 1; the line's byte offset in a text file that was split.
        reason: what is wrong, with the value: `"late" is not a double`.
        column: the first wanted column at fault, or in a nested one the path of the value, such as `user.tags[2]`; None
            where the whole row is.
        raw: the row as it stands in the file, cut at 1,000 characters; undecodable bytes as `\xff`. Of a row of another
            hour, its values as JSON.
        at_byte: the position is a byte offset.
    """

    url: str
    position: int
    reason: str
    column: str | None
    raw: str
    at_byte: bool = False

    def __str__(self) -> str:
        """Say where and what: `s3://raw/14.jsonl.gz:1423 "dep_delay": "late" is not a double`."""
        column = "" if self.column is None else f' "{self.column}"'
        return f"{self.url}:{'byte ' if self.at_byte else ''}{self.position}{column}: {self.reason}"


class BadRows(Protocol):
    """A policy: hears of the bad rows of a block, in file order, before the block's good rows are handed on."""

    def __call__(self, rows: Sequence[BadRow], /) -> None:
        """Take note of `rows`, or raise."""


class Puts(Protocol):
    """A store that takes small objects."""

    def put(self, url: str, body: bytes, *, if_absent: bool = False) -> object:
        """Store `body` at `url`."""


def fail(rows: Sequence[BadRow], /) -> None:
    """Refuse the first bad row; the policy `bad_rows: fail`.

    Raises:
        DataError: names the file, the position, the column, the value and the way out.
    """
    if rows:
        raise DataError(f"{rows[0]} (bad_rows: reject keeps such rows aside)")


def failing(line_of: Callable[[int], int]) -> BadRows:
    """Give the policy `fail` for a file that was split: it names the line, too.

    Args:
        line_of: gives the number from 1 of the line at a byte; asked for the one row that fails only.
    """

    def fail_at_line(rows: Sequence[BadRow], /) -> None:
        if rows and rows[0].at_byte:
            line = line_of(rows[0].position)
            raise DataError(f"{rows[0]} (line {line}; bad_rows: reject keeps such rows aside)")
        fail(rows)

    return fail_at_line


def ignore(rows: Sequence[BadRow], /) -> None:
    """Pass over bad rows: for whoever only samples a file that is read whole by somebody else."""


class Rejects:
    """Keeps bad rows aside, compressed in memory, until `close` puts them as one Parquet object.

    Attributes:
        count: bad rows so far.
    """

    def __init__(self, io: Puts, url: str) -> None:
        """Collect rows for the object at `url`; nothing is written before `close`."""
        self.count = 0
        self._io = io
        self._url = url
        self._body = BytesIO()
        self._parquet: pq.ParquetWriter | None = None

    def __call__(self, rows: Sequence[BadRow], /) -> None:
        """Keep `rows`."""
        if not rows:
            return
        if self._parquet is None:
            self._parquet = pq.ParquetWriter(self._body, REJECTS_SCHEMA, compression="zstd")
        self._parquet.write_batch(_batch(rows))
        self.count += len(rows)

    def close(self) -> str | None:
        """Put the object, if there is any bad row.

        Returns:
            The object's URL; None where every row was good.
        """
        if self._parquet is None:
            return None
        self._parquet.close()
        self._parquet = None
        self._io.put(self._url, self._body.getvalue())
        return self._url


def _batch(rows: Sequence[BadRow]) -> pa.RecordBatch:
    columns = (
        [row.url for row in rows],
        [row.position for row in rows],
        [row.column for row in rows],
        [row.reason for row in rows],
        [row.raw for row in rows],
    )
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, REJECTS_SCHEMA, strict=True)], REJECTS_SCHEMA)

"""Streams of rows of many types, for tests, and what Python sorts their values by."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

DOUBLES = st.sampled_from([-math.inf, -1.5, -0.0, 0.0, 1.5, math.inf, math.nan])
VALUES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "boolean": (pa.bool_(), st.booleans()),
    "int": (pa.int32(), st.sampled_from([-(2**31), -1, 0, 1, 2**31 - 1])),
    "long": (pa.int64(), st.sampled_from([-(2**63), -1, 0, 1, 2**63 - 1])),
    "double": (pa.float64(), DOUBLES),
    "float": (pa.float32(), DOUBLES),
    "string": (
        pa.string(),
        st.text(alphabet="\0aé\uffff😀", max_size=3) | st.sampled_from(["12345678", "1234567890123456"]),
    ),
    "binary": (pa.binary(), st.binary(max_size=2)),
    "fixed": (pa.binary(2), st.binary(min_size=2, max_size=2)),
    "date": (pa.date32(), st.dates(date(1969, 12, 30), date(1970, 1, 2))),
    "timestamptz": (
        pa.timestamp("us", "UTC"),
        st.sampled_from([datetime(1969, 12, 31, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)]),
    ),
    "decimal": (
        pa.decimal128(38, 2),
        st.sampled_from([Decimal(-(10**30)), Decimal("-1.10"), Decimal(0), Decimal("1e30")]),
    ),
}


@dataclass(frozen=True)
class Rows:
    """Rows of some columns c0, c1 …, cut into batches."""

    types: tuple[pa.DataType, ...]
    rows: tuple[tuple[Any, ...], ...]
    cuts: tuple[int, ...]

    @property
    def names(self) -> list[str]:
        """Name the columns."""
        return [f"c{place}" for place in range(len(self.types))]


@st.composite
def streams(draw: st.DrawFn, least: int = 1, most: int = 3) -> Rows:
    """Draw some columns of any types, and rows of which many have equal values."""
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=least, max_size=most))
    rows = draw(st.lists(st.tuples(*(st.none() | VALUES[kind][1] for kind in kinds)), max_size=20))
    cuts = draw(st.lists(st.integers(0, 20), max_size=4))
    return Rows(tuple(VALUES[kind][0] for kind in kinds), tuple(rows), tuple(cuts))


def batches_of(stream: Rows) -> list[pa.RecordBatch]:
    """Make Arrow data of rows, with their places in the stream as the last column; some batches may be empty."""
    columns = [pa.array([row[place] for row in stream.rows], kind) for place, kind in enumerate(stream.types)]
    places = pa.array(range(len(stream.rows)), pa.int64())
    whole = pa.RecordBatch.from_arrays([*columns, places], names=[*stream.names, "place"])
    cuts = [0, *sorted(min(cut, len(stream.rows)) for cut in stream.cuts), len(stream.rows)]
    return [whole.slice(start, stop - start) for start, stop in pairwise(cuts)]


def rows_of(batches: Iterable[pa.RecordBatch]) -> list[tuple[Any, ...]]:
    """Give rows as Python has them."""
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


def key(value: object) -> tuple[Any, ...]:
    """Give what a value sorts by, ascending: null first, NaN last, text by its UTF-8 bytes. Equal ones are the same."""
    if value is None:
        return (0,)
    if isinstance(value, float):
        return (1, math.isnan(value), 0.0 if math.isnan(value) else value)
    return (1, value.encode() if isinstance(value, str) else value)


def left_in(folder: str | Path) -> list[str]:
    """List what is in a folder."""
    return sorted(path.name for path in Path(folder).iterdir())

"""Rows of a source and their hour: which rows are kept, which are left to their own hour, which should not be there.

A file says by its path which time it covers. Within that time every row has an hour that comes for it; outside of it
nobody would, so such a row fails the hour or is kept as a reject. Nothing here reads.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.data_files import OtherHourError
from lakehouse_pipeline.sources.bad_rows import RAW_LIMIT, BadRow, BadRows
from lakehouse_pipeline.sources.columns import Rows

_MICROSECOND = timedelta(microseconds=1)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # timestamps without a zone are UTC here

Bounds = tuple[int, int]


@dataclass(frozen=True)
class HourRule:
    """What an hour asks of the rows of its files.

    Attributes:
        column: holds the event time; of a timestamp type, required of every row.
        hour: the hour that is wanted.
        span: the time that the files cover by their path, UTC and half-open; None is all time.
        reject: rows that are outside of the span are kept as rejects; else the first one ends the hour.
    """

    column: str
    hour: HourWindow
    span: tuple[datetime, datetime] | None
    reject: bool

    @property
    def holds_others(self) -> bool:
        """Whether the files hold rows of other hours, too."""
        return self.span != (self.hour.start, self.hour.end)

    @property
    def bounds(self) -> Bounds:
        """The hour in microseconds since 1970, half-open."""
        return _microseconds(self.hour.start), _microseconds(self.hour.end)

    @property
    def span_bounds(self) -> Bounds | None:
        """The span in microseconds since 1970, half-open."""
        return None if self.span is None else (_microseconds(self.span[0]), _microseconds(self.span[1]))

    def fault(self, instant: object) -> str:
        """Say what is wrong with a row of this time that is outside of the span."""
        if self.span is None or not self.holds_others:
            return f"{self.column} = {instant} is of another hour than {self.hour} UTC"
        first, last = (f"{moment:%Y-%m-%d-%H:%M}" for moment in self.span)
        return f"{self.column} = {instant} is not within {first} to {last} UTC, which the file's path says"


def required(schema: pa.Schema, column: str) -> pa.Schema:
    """Give the schema with a column that every row needs: a row without a time has no hour."""
    place = schema.get_field_index(column)
    return schema.set(place, schema.field(place).with_nullable(nullable=False))


def fail(rows: Sequence[BadRow], /) -> None:
    """Refuse the first row of another hour; the policy `other_hours: fail`.

    Raises:
        OtherHourError: names the file, the position, the instant and the way out.
    """
    if rows:
        raise OtherHourError(
            f"{rows[0]}. Land such rows in the files of their hour; `other_hours: reject` keeps them aside"
        )


class HourRows:
    """Keeps the rows of one hour.

    Attributes:
        left: rows that were left to their own hour so far.
    """

    def __init__(self, rule: HourRule, on_other: BadRows) -> None:
        """Judge by `rule`; `on_other` hears of the rows that are outside of the span."""
        self.left = 0
        self._rule = rule
        self._on_other = on_other
        self._hour = rule.bounds
        self._span = rule.span_bounds

    @property
    def column(self) -> str:
        """The column that holds the event time."""
        return self._rule.column

    @property
    def holds_others(self) -> bool:
        """Whether the files hold rows of other hours, too."""
        return self._rule.holds_others

    def leaves(self, bounds: Bounds | None, rows: int) -> bool:
        """Leave rows to their hours without looking at each.

        Args:
            bounds: their least and greatest instant; None where it is not known for sure.
            rows: how many they are.

        Returns:
            Whether none of them is of this hour, nor outside of the span; they are counted then.
        """
        if bounds is None or not (bounds[1] < self._hour[0] or bounds[0] >= self._hour[1]):
            return False
        if self._span and not (self._span[0] <= bounds[0] and bounds[1] < self._span[1]):
            return False
        self.left += rows
        return True

    def of(self, rows: Rows, url: str, *, at_byte: bool) -> Rows:
        """Keep those of the hour.

        Args:
            rows: good rows, with their positions.
            url: their file.
            at_byte: positions are byte offsets.

        Raises:
            OtherHourError: from `on_other`.
        """
        batch, positions = rows
        instants = batch.column(self.column).cast(pa.int64()).to_numpy(zero_copy_only=False)
        kept = _within(instants, self._hour)
        if kept.all():
            return rows
        outside = ~_within(instants, self._span) if self._span else np.zeros_like(kept)
        if outside.any():
            self._on_other(self._faults(batch, positions, np.flatnonzero(outside), url, at_byte=at_byte))
        self.left += int((~kept & ~outside).sum())
        return batch.filter(pa.array(kept)), positions.filter(pa.array(kept))

    def _faults(
        self, batch: pa.RecordBatch, positions: pa.Array, places: npt.NDArray[np.int64], url: str, *, at_byte: bool
    ) -> list[BadRow]:
        found = places if self._rule.reject else places[:1]
        return [
            BadRow(
                url,
                positions[place].as_py(),
                self._rule.fault(batch.column(self.column)[place].as_py()),
                None,
                _shown(batch.slice(place, 1)),
                at_byte,
            )
            for place in found.tolist()
        ]


def _within(instants: npt.NDArray[np.int64], bounds: Bounds) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = (instants >= bounds[0]) & (instants < bounds[1])
    return inside


def _microseconds(moment: datetime) -> int:
    return (moment.replace(tzinfo=None) - _NAIVE_EPOCH) // _MICROSECOND


def _shown(row: pa.RecordBatch) -> str:
    return json.dumps(row.to_pylist()[0], default=str, ensure_ascii=False)[:RAW_LIMIT]

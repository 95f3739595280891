"""Hours: the unit of a backfill, and the ways people write ranges of them.

An hour is UTC and half-open. Its key is the string that Dagster uses for the partition. Nothing here knows of tables.
"""

import re
from calendar import monthrange
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from lakehouse_pipeline.errors import ConfigurationError

HOUR = timedelta(hours=1)

_KEY = re.compile(r"\d{4}-\d{2}-\d{2}-\d{2}:\d{2}")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_MONTH = re.compile(r"\d{4}-\d{2}")
_SECONDS = 3600


@dataclass(frozen=True, order=True)
class HourWindow:
    """One hour, `[start, start + 1 h)`.

    Attributes:
        start: aware, UTC, a whole hour.
    """

    start: datetime

    def __post_init__(self) -> None:
        """Refuse a start that is naive, not UTC or not a whole hour."""
        if self.start.utcoffset() != timedelta(0) or (self.start.minute, self.start.second, self.start.microsecond) != (
            0,
            0,
            0,
        ):
            raise ConfigurationError(f"{self.start!r} is not a whole UTC hour")

    @classmethod
    def from_key(cls, key: str) -> Self:
        """Read a canonical key such as `2013-01-01-10:00`.

        Raises:
            ConfigurationError: the key has another form, or its minutes are not `00`.
        """
        if not _KEY.fullmatch(key):
            raise ConfigurationError(f"{key!r} is not an hour; write it as 2013-01-01-10:00 (UTC)")
        if not key.endswith(":00"):
            raise ConfigurationError(f"{key!r} is not a whole hour; did you mean {key[:-2]}00?")
        return cls(_read(datetime.fromisoformat, key))  # ten times as quick as strptime, and hours are many

    @classmethod
    def from_ordinal(cls, ordinal: int) -> Self:
        """Read Iceberg's hour value: hours since 1970-01-01-00:00 UTC, negative before."""
        return cls(datetime.fromtimestamp(0, UTC) + ordinal * HOUR)

    @property
    def key(self) -> str:
        """The hour as Dagster's partition key: `%Y-%m-%d-%H:%M`, the default of its HourlyPartitionsDefinition."""
        at = self.start  # a tenth of strftime's time, and hours are many
        return f"{at.year:04}-{at.month:02}-{at.day:02}-{at.hour:02}:00"

    @property
    def end(self) -> datetime:
        """The first instant after the hour."""
        return self.start + HOUR

    @property
    def ordinal(self) -> int:
        """Hours since 1970-01-01-00:00 UTC: the value of Iceberg's `hour` transform."""
        return int((self.start - datetime.fromtimestamp(0, UTC)).total_seconds()) // _SECONDS

    def __str__(self) -> str:
        """Give the key."""
        return self.key


@dataclass(frozen=True)
class HourRange(Sequence[HourWindow]):
    """Hours without a gap, from `first` to `last`, both included."""

    first: HourWindow
    last: HourWindow

    def __post_init__(self) -> None:
        """Refuse a reversed range."""
        if self.last < self.first:
            raise ConfigurationError(f"the range is reversed: {self.first} comes after {self.last}")

    def __len__(self) -> int:
        """Count the hours."""
        return self.last.ordinal - self.first.ordinal + 1

    def __getitem__(self, index: int) -> HourWindow:  # type: ignore[override]  # no slices: nobody needs them
        """Give the hour at `index`, counted from the first."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return HourWindow.from_ordinal(self.first.ordinal + index % len(self))

    def __iter__(self) -> Iterator[HourWindow]:
        """Go through the hours in time order."""
        return (HourWindow.from_ordinal(n) for n in range(self.first.ordinal, self.last.ordinal + 1))

    def __contains__(self, hour: object) -> bool:
        """Tell whether an hour is one of them, without going through them."""
        return isinstance(hour, HourWindow) and self.first <= hour <= self.last

    @property
    def text(self) -> str:
        """The range as `parse_range` reads it, and commands take it."""
        if self.first == self.last:
            return self.first.key
        if (self.first.start.hour, self.last.start.hour) == (0, 23):
            days = f"{self.first.start:%Y-%m-%d}", f"{self.last.start:%Y-%m-%d}"
            return days[0] if days[0] == days[1] else "...".join(days)
        return f"{self.first}...{self.last}"

    def __str__(self) -> str:
        """Say the range as people read it."""
        return f"{len(self)} hour{'s' if len(self) > 1 else ''}: {self.first} to {self.last} UTC"


def parse_range(text: str) -> HourRange:
    """Read a range: one hour, a day, a month, or two of the same or different kinds joined by `...` (both included).

    Raises:
        ConfigurationError: another form, a date that does not exist, or a reversed range.
    """
    first, dots, last = text.partition("...")
    return HourRange(_span(first).first, _span(last if dots else first).last)


def ranges_of(hours: Iterable[HourWindow], at_most: int | None = None) -> list[HourRange]:
    """Cut hours into ranges without gaps, of so many hours at most, in time order."""
    ranges: list[HourRange] = []
    for hour in sorted(set(hours)):
        last = ranges[-1] if ranges else None
        if last and hour.ordinal == last.last.ordinal + 1 and (at_most is None or len(last) < at_most):
            ranges[-1] = HourRange(last.first, hour)
        else:
            ranges.append(HourRange(hour, hour))
    return ranges


def canonical(keys: Sequence[str]) -> tuple[HourWindow, ...]:
    """Read partition keys, refusing all that are no hour at once, and an empty selection.

    Dagster 1.13 accepts `…-10:30` as a key and a reversed range as an empty one; both end here.

    Raises:
        ConfigurationError: names every key at fault.
    """
    if not keys:
        raise ConfigurationError("the selection holds no hour: is the range reversed?")
    hours, problems = [], []
    for key in keys:
        try:
            hours.append(HourWindow.from_key(key))
        except ConfigurationError as error:
            problems.append(str(error))
    if problems:
        raise ConfigurationError("; ".join(problems))
    return tuple(hours)


def _span(text: str) -> HourRange:
    if _DAY.fullmatch(text):
        day = HourWindow(_parse(text, "%Y-%m-%d"))
        return HourRange(day, HourWindow(day.start + 23 * HOUR))
    if _MONTH.fullmatch(text):
        month = _parse(text, "%Y-%m")
        last_day = monthrange(month.year, month.month)[1]
        return HourRange(HourWindow(month), HourWindow(month.replace(day=last_day, hour=23)))
    if _KEY.fullmatch(text):
        hour = HourWindow.from_key(text)
        return HourRange(hour, hour)
    raise ConfigurationError(
        f"{text!r} is no range; write an hour (2013-01-01-10:00), a day (2013-01-01), a month (2013-01) "
        "or two of them with ... between"
    )


def _parse(text: str, form: str) -> datetime:
    return _read(lambda text: datetime.strptime(text, form).replace(tzinfo=UTC), text)


def _read(read: Callable[[str], datetime], text: str) -> datetime:
    try:
        return read(text).replace(tzinfo=UTC)
    except ValueError:
        raise ConfigurationError(f"{text!r} does not exist in the calendar") from None

"""The column that tells a row's hour: found by its values, which lie in the time that the file's path tells.

Where no column is a timestamp, numbers since 1970 and dates in other forms are tried, as Spark SQL would read them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lakehouse_pipeline.drafts.sample import Sample

Span = tuple[datetime, datetime] | None  # UTC, half-open; None where the path tells no time
Read = Callable[[str], datetime]

_NAMES = (  # what such columns are called, best first
    "event_time",
    "event_timestamp",
    "timestamp",
    "time",
    "datetime",
    "ts",
    "time_hour",
    "hour",
    "occurred_at",
    "created_at",
)
_PARTS = ("event", "time", "date", "_at")
_MOST = 0.9  # share of the values that have to lie in the span before a number is taken for a time


@dataclass(frozen=True)
class HourGuess:
    """The column that seems to tell a row's hour.

    Attributes:
        column: of the raw file.
        inside: values of the sample that lie in the time that the path tells; None where it tells none.
        values: values of the sample.
        least: the first of them.
        sql: what makes a timestamp of the column; empty where it is one.
    """

    column: str
    inside: int | None
    values: int
    least: datetime
    sql: str = ""

    @property
    def share(self) -> float:
        """The part of the values that lie in the time that the path tells."""
        return 1.0 if self.inside is None else self.inside / self.values


def guess_hour(sample: Sample, span: Span) -> HourGuess | None:
    """Find the column; None where there is nothing to go by."""
    timestamps = [_judged(name, values, span) for name, values in sample.times.items() if values]
    best = max(timestamps, key=_rank, default=None)
    if span is None or (best and best.share >= _MOST):
        return best
    read = [guess for name, texts in sample.texts.items() for guess in _as_times(name, texts, span)]
    good = [guess for guess in read if guess.share >= _MOST]
    return max(good, key=_rank, default=best)


def _judged(column: str, values: Sequence[datetime], span: Span, sql: str = "") -> HourGuess:
    inside = None if span is None else sum(span[0] <= value < span[1] for value in values)
    return HourGuess(column, inside, len(values), min(values), sql)


def _rank(guess: HourGuess) -> tuple[float, int]:
    name = guess.column.lower()
    if name in _NAMES:
        return guess.share, 2 * len(_NAMES) - _NAMES.index(name)
    return guess.share, any(part in name for part in _PARTS)


def _as_times(column: str, texts: Sequence[str], span: Span) -> list[HourGuess]:
    """Try every way of reading texts as times."""
    name = f"`{column}`"
    ways: dict[str, Read] = {sql.format(name): read for sql, read in _NUMBERS.items()}
    for pattern, form in _FORMS.items():
        ways[f"to_timestamp({name}, '{pattern}')"] = _reader(form)
    guesses = []
    for sql, read in ways.items():
        try:
            guesses.append(_judged(column, [read(text) for text in texts], span, sql))
        except (ValueError, OverflowError):
            continue
    return guesses


def _since_1970(unit: timedelta) -> Read:
    return lambda text: datetime.fromtimestamp(0, UTC) + int(text) * unit


def _reader(form: str) -> Read:
    return lambda text: datetime.strptime(text, form).replace(tzinfo=UTC)


_NUMBERS: Mapping[str, Read] = {
    "timestamp_seconds({})": _since_1970(timedelta(seconds=1)),
    "timestamp_millis({})": _since_1970(timedelta(milliseconds=1)),
    "timestamp_micros({})": _since_1970(timedelta(microseconds=1)),
}
_DAYS = {"yyyy/MM/dd": "%Y/%m/%d", "dd/MM/yyyy": "%d/%m/%Y", "MM/dd/yyyy": "%m/%d/%Y", "dd.MM.yyyy": "%d.%m.%Y"}
_TIMES = {"HH:mm:ss": "%H:%M:%S", "HH:mm": "%H:%M"}
_FORMS: Mapping[str, str] = {  # Spark's datetime patterns, and Python's
    **{f"{day} {time}": f"{_DAYS[day]} {_TIMES[time]}" for day in _DAYS for time in _TIMES},
    "yyyyMMddHHmmss": "%Y%m%d%H%M%S",
    "yyyyMMdd HHmmss": "%Y%m%d %H%M%S",
    "dd/MMM/yyyy:HH:mm:ss Z": "%d/%b/%Y:%H:%M:%S %z",
}

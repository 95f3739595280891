from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from lakehouse_pipeline.drafts.inference import Guess
from lakehouse_pipeline.drafts.moments import guess_hour
from lakehouse_pipeline.drafts.sample import Sample

HOUR = (datetime(2024, 1, 31, 5, tzinfo=UTC), datetime(2024, 1, 31, 6, tzinfo=UTC))
INSIDE = datetime(2024, 1, 31, 5, 30, tzinfo=UTC)
OUTSIDE = datetime(2024, 1, 31, 9, tzinfo=UTC)
SECONDS = int(INSIDE.timestamp())


def _sample(
    times: Mapping[str, tuple[datetime, ...]] | None = None, texts: Mapping[str, tuple[str, ...]] | None = None
) -> Sample:
    names = [*(times or {}), *(texts or {})]
    return Sample("csv", dict.fromkeys(names, Guess("string")), times or {}, texts or {}, 1)


@pytest.mark.parametrize(
    ("times", "column"),
    [
        pytest.param({"loaded": (OUTSIDE,), "seen": (INSIDE,)}, "seen", id="by its values"),
        pytest.param({"seen": (INSIDE,), "event_time": (INSIDE,)}, "event_time", id="by its name"),
        pytest.param({"a": (INSIDE,), "read_at": (INSIDE,)}, "read_at", id="by a part of its name"),
        pytest.param({"event_time": (INSIDE, OUTSIDE), "a": (INSIDE, INSIDE)}, "a", id="by most of its values"),
        pytest.param({"a": (INSIDE,), "b": (INSIDE,)}, "a", id="by its place"),
        pytest.param({"a": (), "b": (INSIDE,)}, "b", id="not by nulls"),
        pytest.param({"a": (OUTSIDE,)}, "a", id="the only one"),
    ],
)
def test_the_column_of_the_hour(times: Mapping[str, tuple[datetime, ...]], column: str) -> None:
    """The timestamp whose values lie in the time that the path tells, before any name."""
    guess = guess_hour(_sample(times), HOUR)
    assert guess is not None
    assert (guess.column, guess.sql) == (column, "")


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        pytest.param(str(SECONDS), "timestamp_seconds(`t`)", id="seconds"),
        pytest.param(str(SECONDS * 1000), "timestamp_millis(`t`)", id="milliseconds"),
        pytest.param(str(SECONDS * 1_000_000), "timestamp_micros(`t`)", id="microseconds"),
        pytest.param("2024/01/31 05:30:00", "to_timestamp(`t`, 'yyyy/MM/dd HH:mm:ss')", id="slashes"),
        pytest.param("31.01.2024 05:30", "to_timestamp(`t`, 'dd.MM.yyyy HH:mm')", id="dots"),
        pytest.param("20240131053000", "to_timestamp(`t`, 'yyyyMMddHHmmss')", id="digits"),
        pytest.param("31/Jan/2024:05:30:00 +0000", "to_timestamp(`t`, 'dd/MMM/yyyy:HH:mm:ss Z')", id="access log"),
    ],
)
def test_times_in_other_forms(text: str, sql: str) -> None:
    """Where there is no timestamp, Spark makes one of what lies in the path's time."""
    guess = guess_hour(_sample(texts={"id": ("17", "18"), "t": (text, text)}), HOUR)
    assert guess is not None
    assert (guess.column, guess.sql, guess.least) == ("t", sql, INSIDE)


def test_the_order_of_day_and_month_is_told_by_the_path() -> None:
    """05/01 is a day of January in a file of January."""
    january = (datetime(2024, 1, 5, 5, tzinfo=UTC), datetime(2024, 1, 5, 6, tzinfo=UTC))
    guess = guess_hour(_sample(texts={"t": ("05/01/2024 05:30",)}), january)
    assert guess is not None
    assert guess.sql == "to_timestamp(`t`, 'dd/MM/yyyy HH:mm')"


@pytest.mark.parametrize(
    ("texts", "span"),
    [
        pytest.param({"id": ("17",)}, HOUR, id="numbers outside"),
        pytest.param({"t": (str(SECONDS),)}, None, id="nothing to compare with"),
        pytest.param({"t": ("9" * 400,)}, HOUR, id="absurd numbers"),
        pytest.param({}, HOUR, id="no column"),
    ],
)
def test_no_guess_without_a_reason(
    texts: Mapping[str, tuple[str, ...]], span: tuple[datetime, datetime] | None
) -> None:
    """A number that may be anything is not taken for a time."""
    assert guess_hour(_sample(texts=texts), span) is None

"""Hours and ranges: what people write, what Dagster and Iceberg call them, and what is refused."""

import random
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.hours import HourRange, HourWindow, canonical, parse_range

TEN = HourWindow.from_key("2013-01-01-10:00")


@pytest.mark.parametrize(
    ("key", "ordinal"),
    [
        ("1970-01-01-00:00", 0),
        ("1969-12-31-23:00", -1),
        ("2013-01-01-10:00", 376_954),
        ("2012-02-29-23:00", 369_599),
        ("1582-10-15-00:00", -3_394_248),
        ("9999-12-31-23:00", 70_389_527),
    ],
)
def test_keys_and_ordinals_are_two_names_of_an_hour(key: str, ordinal: int) -> None:
    """The key is Dagster's, the ordinal is the value of Iceberg's `hour` transform."""
    hour = HourWindow.from_key(key)
    assert (hour.ordinal, str(hour), HourWindow.from_ordinal(ordinal)) == (ordinal, key, hour)


@given(st.integers(-8_000_000, 70_000_000))
def test_every_hour_has_one_key(ordinal: int) -> None:
    """Key and ordinal come back, and hours follow each other without a gap."""
    hour = HourWindow.from_ordinal(ordinal)
    assert HourWindow.from_key(hour.key) == hour
    assert hour.ordinal == ordinal
    assert hour.end == HourWindow.from_ordinal(ordinal + 1).start


@pytest.mark.parametrize(
    ("key", "said"),
    [
        pytest.param("2013-01-01-10:30", "did you mean 2013-01-01-10:00", id="minutes"),
        pytest.param("2013-01-01", "write it as 2013-01-01-10:00", id="day"),
        pytest.param("2013-01-01T10:00", "write it as", id="ISO"),
        pytest.param("2013-1-1-10:00", "write it as", id="short"),
        pytest.param("2013-01-01-10:00 ", "write it as", id="blank"),
        pytest.param("2013-01-01-10:00\n", "write it as", id="line break"),
        pytest.param("2013-02-30-10:00", "does not exist in the calendar", id="no such day"),
        pytest.param("2013-01-01-24:00", "does not exist in the calendar", id="no such hour"),
        pytest.param("", "is not an hour", id="nothing"),
    ],
)
def test_other_keys_are_refused(key: str, said: str) -> None:
    """A key that is not canonical is a configuration error with the way out."""
    with pytest.raises(ConfigurationError, match=said):
        HourWindow.from_key(key)


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(datetime(2013, 1, 1, 10), id="naive"),  # noqa: DTZ001  # the case
        pytest.param(datetime(2013, 1, 1, 10, tzinfo=timezone(timedelta(hours=1))), id="elsewhere"),
        pytest.param(datetime(2013, 1, 1, 10, 1, tzinfo=UTC), id="minute"),
        pytest.param(datetime(2013, 1, 1, 10, 0, 0, 1, tzinfo=UTC), id="microsecond"),
    ],
)
def test_an_hour_is_a_whole_utc_hour(start: datetime) -> None:
    """Nothing else can be made into one."""
    with pytest.raises(ConfigurationError, match="is not a whole UTC hour"):
        HourWindow(start)


def test_utc_may_have_other_names() -> None:
    """A zone without an offset is UTC, and the same hour."""
    assert HourWindow(datetime(2013, 1, 1, 10, tzinfo=timezone(timedelta(0), "Z"))) == TEN


@pytest.mark.parametrize(
    ("text", "count", "first", "last"),
    [
        ("2013-01-01-10:00", 1, "2013-01-01-10:00", "2013-01-01-10:00"),
        ("2013-01-01", 24, "2013-01-01-00:00", "2013-01-01-23:00"),
        ("2013-01", 31 * 24, "2013-01-01-00:00", "2013-01-31-23:00"),
        ("2012-02", 29 * 24, "2012-02-01-00:00", "2012-02-29-23:00"),
        ("9999-12", 31 * 24, "9999-12-01-00:00", "9999-12-31-23:00"),
        ("2013-12", 31 * 24, "2013-12-01-00:00", "2013-12-31-23:00"),
        ("2013-01-01-10:00...2013-01-01-12:00", 3, "2013-01-01-10:00", "2013-01-01-12:00"),
        ("2013-01-31-23:00...2013-02", 28 * 24 + 1, "2013-01-31-23:00", "2013-02-28-23:00"),
        ("2013-01...2013-01-02", 48, "2013-01-01-00:00", "2013-01-02-23:00"),
    ],
)
def test_ranges_are_read(text: str, count: int, first: str, last: str) -> None:
    """Hours, days and months, alone or two with `...` between; both ends are included."""
    hours = parse_range(text)
    assert (len(hours), hours.first.key, hours.last.key) == (count, first, last)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2013-01-02...2013-01-01", "the range is reversed"),
        ("2013-01-01-10:30", "did you mean"),
        ("2013-13", "does not exist"),
        ("2013-02-29", "does not exist"),
        ("2013", "is no range"),
        ("2013-01-01...", "'' is no range"),
        ("...2013-01-01", "'' is no range"),
        ("2013-01-01..2013-01-02", "is no range"),
        ("", "is no range"),
    ],
)
def test_other_ranges_are_refused(text: str, said: str) -> None:
    """Every other form says what may be written."""
    with pytest.raises(ConfigurationError, match=said):
        parse_range(text)


@pytest.mark.parametrize(
    "text",
    ["2013-01-01-10:00", "2013-01-01", "2013-01-01...2013-01-03", "2013-01-01-00:00...2013-01-01-22:00"],
)
def test_a_range_is_written_as_it_is_read(text: str) -> None:
    """As briefly as commands take it."""
    assert parse_range(text).text == text


def test_a_range_is_a_sequence() -> None:
    """Its hours can be counted, indexed from both ends, iterated and looked up."""
    hours = parse_range("2013-01-01")
    assert (hours[0], hours[23], hours[-1], hours[-24]) == (hours.first, hours.last, hours.last, hours.first)
    assert list(hours) == [hours[place] for place in range(24)]
    assert TEN in hours
    for place in (24, -25):
        with pytest.raises(IndexError):
            hours[place]
    assert str(hours) == "24 hours: 2013-01-01-00:00 to 2013-01-01-23:00 UTC"
    assert str(HourRange(TEN, TEN)) == "1 hour: 2013-01-01-10:00 to 2013-01-01-10:00 UTC"


def test_hours_sort_by_time() -> None:
    """Their order is that of time."""
    hours = list(parse_range("2012-12-31...2013-01-01"))
    assert sorted(random.sample(hours, len(hours))) == hours


def test_selections_are_read_in_their_order() -> None:
    """Dagster's keys become hours one by one."""
    assert canonical(["2013-01-01-11:00", TEN.key]) == (HourWindow.from_key("2013-01-01-11:00"), TEN)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        pytest.param([], "the selection holds no hour", id="empty"),
        pytest.param(
            ["2013-01-01-10:30", TEN.key, "x"],
            "2013-01-01-10:30.*did you mean.*; 'x' is not an hour",
            id="two at fault",
        ),
    ],
)
def test_selections_are_refused_whole(keys: list[str], said: str) -> None:
    """All keys at fault are named at once."""
    with pytest.raises(ConfigurationError, match=said):
        canonical(keys)

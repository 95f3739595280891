"""Hours that failed, put together by what they failed of."""

from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.status.text import MOST_CAUSES, cause_lines, group_causes
from tests.iceberg.lake import hours_after

HOURS = hours_after(HourWindow.from_key("2013-01-01-00:00"), 24)


def test_places_and_figures_are_no_causes() -> None:
    """Of one class of error, what differs in a file, a line or a value is one cause, and another sentence another."""
    broken = [(hour, "DataError", f"s3://raw/{hour}.jsonl, line {hour.start.hour}: no JSON") for hour in HOURS[:3]]
    short = [(HOURS[3], "DataError", "s3://raw/03.parquet is cut short"), (HOURS[4], "DataError", "column `a` is int")]
    other = [(HOURS[5], "ConfigurationError", "column `b` is int")]
    causes = group_causes([*short, *other, *broken])
    assert list(causes.values()) == [HOURS[:3], [HOURS[3]], [HOURS[4]], [HOURS[5]]]
    assert next(iter(causes)) == broken[0][1:]


def test_an_apostrophe_is_no_quotation_mark() -> None:
    """What stands between two of them tells causes apart, and what is quoted does not."""
    told = [f"the table's columns: {said} the spec's `columns`" for said in ("add x to", "leave y out of")]
    assert len(group_causes((hour, "DataError", said) for hour, said in zip(HOURS, told, strict=False))) == 2
    told = [f"'{value}' is no number" for value in ("a", "b c")]
    assert len(group_causes((hour, "DataError", said) for hour, said in zip(HOURS, told, strict=False))) == 1


def test_a_screen_is_not_flooded() -> None:
    """Of many causes the most frequent are told, and how many hours the others have."""
    words = "abcdefghijklmnopqrst"
    told = [(hour, "DataError", f"cause {word}") for word, hour in zip(words, HOURS, strict=False)]
    lines = cause_lines(group_causes([*told, (HOURS[20], "DataError", "cause t")]))
    assert lines[0] == "    2  DataError: cause t"
    assert len(lines) == 2 * MOST_CAUSES + 1
    assert lines[-1] == f"  {len(words) - MOST_CAUSES:>3}  of {len(words) - MOST_CAUSES} other causes"

"""Tables of many hours, looked at part by part: what is found is what a look at all of it finds."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.maintenance import windows as module
from lakehouse_pipeline.maintenance.compaction import look
from lakehouse_pipeline.maintenance.windows import window_at, windows
from tests.iceberg.conftest import catalog, lake
from tests.iceberg.lake import EVENTS, TEN, Lake, events, hours_after, spec_of

__all__ = ["catalog", "lake"]

HOURS = hours_after(TEN, 7)
EMPTY = HOURS[3]


@pytest.fixture
def grown(lake: Lake) -> Lake:
    """Give a table of six hours in which every second is of five small files, and one beside them has none."""
    for place, hour in enumerate(HOURS):
        if hour != EMPTY:
            for number in range(1 if place % 2 else 5):
                lake.append(events(hour, [number]))
    return lake


def test_a_small_table_is_one_window(lake: Lake) -> None:
    """That of all it has; so is one without a snapshot."""
    assert windows(lake.now) == [None]
    lake.put(TEN, [1])
    assert windows(lake.now) == [None]


@pytest.mark.parametrize("limit", ["MANIFESTS", "FILES"])
def test_each_hour_is_in_one_window(grown: Lake, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In time order, none left out that has a file, whatever it is that there are too many of."""
    monkeypatch.setattr(module, limit, 6)
    parts = [list(part or ()) for part in windows(grown.now)]
    assert len(parts) > 1
    assert [hour for part in parts for hour in part] == [hour for hour in HOURS if hour != EMPTY]


def test_manifests_of_several_hours_are_cut_by_hours(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest may reach into the next window; its hours are still in one each."""
    lake.append(*(events(hour, [1]) for hour in HOURS))
    for hour in HOURS:
        lake.append(events(hour, [2]))
    monkeypatch.setattr(module, "MANIFESTS", 2)
    parts = [list(part or ()) for part in windows(lake.now)]
    assert [hour for part in parts for hour in part] == HOURS


def test_files_of_any_hour_leave_one_window(grown: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an earlier spec tells nothing of hours nothing can be cut."""
    with grown.now.table.update_spec() as update:
        update.remove_field(grown.now.table.spec().fields[0].name)
    grown.append(events(TEN, [9]))
    monkeypatch.setattr(module, "MANIFESTS", 2)
    assert windows(grown.now) == [None]


def test_the_plan_is_that_of_the_whole_table(grown: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same hours with the same files, whether they were looked at in one go or not."""
    spec, settings = spec_of(EVENTS, {"table": grown.identifier}), MaintenanceSettings()
    whole = look(settings, spec, grown.now)
    monkeypatch.setattr(module, "MANIFESTS", 2)
    parts = look(settings, spec, grown.now)
    assert parts.hours == whole.hours
    assert [hour.hour for hour in parts.hours] == [HOURS[0], HOURS[2], HOURS[4], HOURS[6]]


def test_a_cursor_goes_round(grown: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Window by window, then from the first again; a table that has changed meanwhile leaves none out."""
    monkeypatch.setattr(module, "MANIFESTS", 6)
    cut = windows(grown.now)

    def seen(cursor: str | None) -> Iterator[object]:
        for _ in range(len(cut) + 1):
            window, cursor = window_at(grown.now, cursor)
            yield window

    assert list(seen(None)) == [*cut, cut[0]]
    late = HourWindow(datetime(2030, 1, 1, tzinfo=UTC))
    assert window_at(grown.now, str(late.ordinal))[0] == cut[0]


def test_a_time_that_is_none_leaves_one_window(grown: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row of a far century must not make a list of all hours up to it."""
    monkeypatch.setattr(module, "MANIFESTS", 6)
    grown.append(events(HourWindow.from_key("9000-01-01-00:00"), [1]))
    assert windows(grown.now) == [None]

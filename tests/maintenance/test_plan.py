"""Which hours are worth compacting, by Iceberg's own rules."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.manifests import LiveFile
from lakehouse_pipeline.maintenance.plan import CompactionPlan, Rules, plan_compaction

HOUR = HourWindow.from_key("2013-01-01-10:00")
NOW = datetime(2013, 1, 2, tzinfo=UTC)
AFTER = timedelta(hours=2)
RULES = Rules(target_bytes=100, min_bytes=75, max_bytes=180, min_files=5, max_group_bytes=10_000)


def file(
    size: int, place: int = 0, *, content: int = 0, partition: str = "p", hour: HourWindow | None = HOUR
) -> LiveFile:
    """Make a file of a size."""
    return LiveFile(f"f{place}", content, size, size, hour.ordinal if hour else None, 0, partition)


def plan(sizes: Sequence[int], *more: LiveFile, busy: Sequence[HourWindow] = (), now: datetime = NOW) -> CompactionPlan:
    """Plan an hour of files of these sizes, and others."""
    files = [*(file(size, place) for place, size in enumerate(sizes)), *more]
    return plan_compaction(files, set(busy), RULES, now, AFTER)


@pytest.mark.parametrize(
    ("sizes", "outputs"),
    [
        ([10] * 4, None),  # fewer than min-input-files, and no file's worth
        ([10] * 5, 1),
        ([10] * 4 + [100], None),  # the large one does not count
        ([10] * 5 + [100], 2),
        ([70, 70], 2),  # more than a file
        ([181], 2),
        ([180], None),
        ([75] * 8, None),
        ([], None),
    ],
)
def test_what_is_worth_it(sizes: list[int], outputs: int | None) -> None:
    """Files of the wrong size, if there are enough of them or they are more than a file."""
    found = [each.outputs for each in plan(sizes).hours]
    assert found == ([] if outputs is None else [outputs])


def test_partitions_are_apart() -> None:
    """Files of different partitions cannot become one."""
    spread = [file(10, place, partition=f"p{place}") for place in range(6)]
    assert plan([], *spread).hours == ()
    (hour,) = plan([10] * 5, *spread).hours
    assert (len(hour.files), hour.outputs, hour.why) == (11, 7, "5 files of 0.000 MB on average")


@pytest.mark.parametrize(
    ("more", "busy", "now", "why"),
    [
        ([], [], HOUR.end + AFTER - timedelta(seconds=1), "is not over for long enough"),
        ([], [HOUR], NOW, "has an attempt under way"),
        ([file(1, 9, content=2)], [], NOW, "has 1 files of equality deletes, which are not applied yet"),
        ([file(10_000, 9)], [], NOW, "more than a group may have"),
    ],
    ids=["young", "busy", "deletes", "large"],
)
def test_what_is_left_alone(more: list[LiveFile], busy: list[HourWindow], now: datetime, why: str) -> None:
    """And why."""
    told = plan([10] * 5, *more, busy=busy, now=now)
    assert told.hours == ()
    assert why in told.left[HOUR]


@pytest.mark.parametrize(("deleted", "why"), [(29, []), (30, ["30 deleted rows"])])
def test_deleted_rows_are_written_away(deleted: int, why: list[str]) -> None:
    """From three tenths of a partition's rows on, whatever size the files are."""
    told = plan([100], file(deleted, 9, content=1))
    assert [hour.why for hour in told.hours] == why


def test_files_of_several_hours_are_nobodys() -> None:
    """They are no hour's to rewrite."""
    assert plan([], *(file(1, place, hour=None) for place in range(9))) == CompactionPlan((), {})


@given(st.lists(st.integers(1, 400), max_size=40))
def test_it_ends(sizes: list[int]) -> None:
    """What is written is not planned again."""
    for hour in plan(sizes).hours:
        whole, rest = divmod(hour.bytes, RULES.target_bytes)
        written = [RULES.target_bytes] * whole + [rest] * bool(rest)  # files roll at their target
        assert len(written) == hour.outputs
        assert plan(written).hours == ()


@pytest.mark.parametrize("text", ["much", "0", "-1", "1.5"])
def test_a_target_that_is_none(text: str) -> None:
    """The table's property is told."""
    with pytest.raises(ConfigurationError, match="set it to a number of bytes"):
        Rules.of({"write.target-file-size-bytes": text})

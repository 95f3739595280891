"""Which files are worth compacting, and how: by Iceberg's own rules, from metadata alone."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.config.compaction import CompactSettings
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.event_time import ANY, HourSpan
from lakehouse_pipeline.iceberg.manifests import EQUALITY_DELETES, POSITION_DELETES, LiveFile
from lakehouse_pipeline.maintenance.compaction_plan import CompactionPlan, FileGroup
from lakehouse_pipeline.maintenance.plan import Rules, plan_compaction

HOUR = HourWindow.from_key("2013-01-01-10:00")
NEXT = HourWindow.from_key("2013-01-01-11:00")
SETTLED = datetime(2013, 1, 2, tzinfo=UTC)
OLD, CURRENT, NOWHERE = 1, 0, 7  # partition specs; NOWHERE has no fields


def span_of(hour: HourWindow | None) -> HourSpan:
    """Give what a manifest tells of files of an hour, or of any."""
    return HourSpan(hour.ordinal, hour.ordinal, exact=True) if hour else ANY


def file(path: str, size: int = 10, *, hour: HourWindow | None = HOUR, **told: Any) -> LiveFile:
    """Make a data file of as many rows as bytes, in one row group, unless told otherwise."""
    defaults: dict[str, Any] = {"content": 0, "rows": size, "spec_id": CURRENT, "partition": "p", "row_groups": 1}
    return LiveFile(path=path, bytes=size, span=span_of(hour), **{**defaults, **told})


def files_of(*sizes: int, **told: Any) -> list[LiveFile]:
    """Make data files of these sizes."""
    return [file(f"f{place}", size, **told) for place, size in enumerate(sizes)]


def position_deletes(path: str, rows: int, refers_to: str = "", **told: Any) -> LiveFile:
    """Make a file of position deletes, younger than data unless told otherwise."""
    told = {"sequence_number": 1, "content": POSITION_DELETES, "refers_to": refers_to, "rows": rows, **told}
    return file(path, 1, **told)


def equality_deletes(path: str, rows: int, **told: Any) -> LiveFile:
    """Make a file of equality deletes, younger than data unless told otherwise."""
    told = {"sequence_number": 1, "content": EQUALITY_DELETES, "equality_ids": (2,), "rows": rows, **told}
    return file(path, 1, **told)


def rules(settings: Mapping[str, Any] | None = None, **of_table: Any) -> Rules:
    """Give rules with a target of 100 bytes."""
    made = CompactSettings.model_construct(**{**CompactSettings().__dict__, **(settings or {})})
    return Rules(made, **{"target_bytes": 100, "unpartitioned": frozenset({NOWHERE}), **of_table})


def plan(
    files: Sequence[LiveFile],
    by: Rules | None = None,
    *,
    busy: Sequence[HourWindow] = (),
    settled: datetime = SETTLED,
    whole: bool = True,
) -> CompactionPlan:
    """Plan these files."""
    return plan_compaction(files, set(busy), by or rules(), settled, whole=whole)


def groups_of(files: Sequence[LiveFile], settings: Mapping[str, Any] | None = None, **of_table: Any) -> list[FileGroup]:
    """Plan the files of one hour, and give its groups."""
    return [group for hour in plan(files, rules(settings, **of_table)).hours for group in hour.groups]


def names(groups: Sequence[FileGroup]) -> list[list[str]]:
    """Name the files of each group."""
    return [[file.path for file in group.files] for group in groups]


@pytest.mark.parametrize(
    ("sizes", "chosen", "outputs"),
    [
        pytest.param([10] * 4, 0, 0, id="too few"),
        pytest.param([10] * 5, 5, 1, id="enough"),
        pytest.param([10] * 4 + [100], 0, 0, id="one of the right size does not count"),
        pytest.param([10] * 5 + [100], 5, 1, id="one of the right size stays"),
        pytest.param([51, 51], 2, 2, id="more than a file"),
        pytest.param([50, 50], 0, 0, id="a file and no more"),
        pytest.param([180], 0, 0, id="as large as it may be"),
        pytest.param([181], 1, 2, id="too large"),
        pytest.param([75] * 8, 0, 0, id="as small as they may be"),
        pytest.param([74] * 2, 2, 2, id="too small"),
        pytest.param([], 0, 0, id="none"),
    ],
)
def test_files_of_the_wrong_size(sizes: list[int], chosen: int, outputs: int) -> None:
    """They are worth it if they are enough, or more than a file; those of the right size are left as they are."""
    groups = groups_of(files_of(*sizes))
    assert sum(len(group.files) for group in groups) == chosen
    assert sum(group.outputs for group in groups) == outputs


@pytest.mark.parametrize(
    ("settings", "sizes", "chosen"),
    [
        pytest.param({"min_input_files": 2}, [10, 10], 2, id="two are enough"),
        pytest.param({"min_input_files": 1}, [10], 0, id="one is no two"),
        pytest.param({"min_input_files": 7}, [10] * 6, 0, id="six are not enough"),
        pytest.param({"min_file_size": 10}, [10] * 5, 0, id="small enough"),
        pytest.param({"min_file_size": 11}, [10] * 5, 5, id="smaller"),
        pytest.param({"max_file_size": 300}, [300], 0, id="large enough"),
        pytest.param({"max_file_size": 300}, [301], 1, id="larger"),
    ],
)
def test_the_spec_has_its_own_bounds(settings: Mapping[str, Any], sizes: list[int], chosen: int) -> None:
    """In the place of Iceberg's defaults."""
    assert sum(len(group.files) for group in groups_of(files_of(*sizes), settings)) == chosen


@pytest.mark.parametrize(
    ("most", "groups"),
    [
        pytest.param(1_000, [["f0", "f1", "f2", "f3", "f4", "f5"]], id="all"),
        pytest.param(120, [["f0", "f1"], ["f2", "f3"], ["f4", "f5"]], id="two at once"),
        pytest.param(119, [], id="one at once is worth nothing"),
    ],
)
def test_a_group_is_cut(most: int, groups: list[list[str]]) -> None:
    """No group has more bytes than `max_file_group_size`, and each of them has to be worth it."""
    assert names(groups_of(files_of(*[60] * 6), {"max_file_group_size": most})) == groups


def test_a_file_larger_than_a_group() -> None:
    """It is a group of its own."""
    assert names(groups_of(files_of(60, 60, 500, 60, 60), {"max_file_group_size": 120})) == [
        ["f0", "f1"],
        ["f2"],
        ["f3", "f4"],
    ]


def test_the_oldest_come_first() -> None:
    """Files of a group are in the order in which they were committed."""
    files = [file(f"f{place}", sequence_number=9 - place) for place in range(5)]
    assert names(groups_of(files)) == [["f4", "f3", "f2", "f1", "f0"]]


def test_partitions_are_apart() -> None:
    """Files of different partitions cannot become one; each has to be worth it."""
    few = [file(f"few {place}", partition="few") for place in range(4)]
    assert names(groups_of([*files_of(*[10] * 5), *few])) == [["f0", "f1", "f2", "f3", "f4"]]


def test_files_of_earlier_specs_are_pooled() -> None:
    """They are of whatever partition, and are written for the current spec, whatever their size."""
    old = [file(f"old {place}", 100, spec_id=OLD, partition=f"p{place}") for place in range(5)]
    (group,) = groups_of([*old, file("new", 100)])
    assert names([group]) == [[each.path for each in old]]
    assert (group.strategy, group.reason) == ("rewrite", "files are of another partition spec")


@pytest.mark.parametrize(
    ("deletes", "chosen"),
    [
        pytest.param([position_deletes("d", 29, "f0")], [], id="less than three tenths"),
        pytest.param([position_deletes("d", 30, "f0")], [["f0"]], id="three tenths of one file"),
        pytest.param([position_deletes("d", 15, "f0"), position_deletes("e", 15, "f0")], [["f0"]], id="together"),
        pytest.param([position_deletes("d", 15, "f0"), position_deletes("e", 15, "f1")], [], id="of two files"),
        pytest.param([position_deletes("d", 59)], [], id="shared out, less than three tenths"),
        pytest.param([position_deletes("d", 60)], [["f0", "f1"]], id="shared out over the partition"),
        pytest.param([equality_deletes("d", 59)], [], id="of equal rows, less"),
        pytest.param([equality_deletes("d", 60)], [["f0", "f1"]], id="of equal rows"),
        pytest.param([position_deletes("d", 20), position_deletes("e", 20, "f1")], [["f1"]], id="both kinds"),
        pytest.param([position_deletes("d", 90, partition="other")], [], id="of another partition"),
        pytest.param([equality_deletes("d", 90, sequence_number=0)], [], id="not younger"),
    ],
)
def test_the_share_of_deleted_rows(deletes: list[LiveFile], chosen: list[list[str]]) -> None:
    """From `delete_ratio_threshold` of a file's rows on, it is written anew whatever its size is."""
    assert names(groups_of([*files_of(100, 100), *deletes])) == chosen


@pytest.mark.parametrize(("threshold", "chosen"), [(None, []), (3, []), (2, [["f0"]])])
def test_the_count_of_delete_files(threshold: int | None, chosen: list[list[str]]) -> None:
    """From `delete_file_threshold` of them on, a file is written anew, however few rows they take."""
    deletes = [position_deletes("d", 1, "f0"), position_deletes("e", 1, "f0"), position_deletes("f", 1, "f1")]
    assert names(groups_of([*files_of(100, 100), *deletes], {"delete_file_threshold": threshold})) == chosen


def test_deletes_come_with_their_files() -> None:
    """A group has all that may apply to one of its files, once each, and says so."""
    everywhere = equality_deletes("everywhere", 1, spec_id=NOWHERE, partition="()", hour=None)
    shared, own = position_deletes("shared", 60), position_deletes("own", 3, "f0")
    (group,) = groups_of([*files_of(100, 100), everywhere, shared, own, position_deletes("not", 1, "f9")])
    assert {each.path for each in group.deletes} == {"everywhere", "shared", "own"}
    assert "2 files of 100 B on average and 3 delete files of about" in group.why
    assert (group.strategy, group.reason) == ("rewrite", "rows are deleted")


@pytest.mark.parametrize(
    ("settings", "sort_order_id", "chosen"),
    [
        pytest.param({}, 0, [], id="unsorted table"),
        pytest.param({}, 2, [["f0", "f1"]], id="sorted table"),
        pytest.param({"strategy": "sort"}, 2, [["f0", "f1"]], id="sort by the table's order"),
        pytest.param({"strategy": "sort", "columns": ("id",)}, 2, [], id="sort by others"),
        pytest.param({"strategy": "zorder", "columns": ("id",)}, 2, [], id="zorder"),
        pytest.param({"strategy": "rewrite"}, 2, [], id="rewrite"),
    ],
)
def test_files_that_are_not_in_order(settings: Mapping[str, Any], sort_order_id: int, chosen: list[list[str]]) -> None:
    """They are worth it whatever their size, where files are to be in the table's order."""
    files = [*files_of(100, 100), file("sorted", 100, sort_order_id=2)]
    groups = groups_of(files, settings, sort_order_id=sort_order_id)
    assert names(groups) == chosen
    assert all(group.strategy == "sort" and "not in the table's order" in group.why for group in groups)


def test_a_merge_takes_the_whole_hour() -> None:
    """A key may be in any file: those of the right size, too, of all partitions and specs, in one group."""
    others = [file("right", 100), file("old", 100, spec_id=OLD), file("apart", partition="q"), file("next", hour=NEXT)]
    (group,) = groups_of([*files_of(*[10] * 5), *others], {"strategy": "merge", "max_file_group_size": 20})
    assert sorted(names([group])[0]) == ["apart", "f0", "f1", "f2", "f3", "f4", "old", "right"]
    assert (group.strategy, group.reason) == ("merge", "as the spec has it")


def test_a_merge_has_to_be_worth_it() -> None:
    """An hour of files of the right size is left as it is."""
    assert groups_of(files_of(100, 100, 100), {"strategy": "merge"}) == []


@pytest.mark.parametrize(
    ("files", "settings", "of_table", "told"),
    [
        pytest.param(files_of(*[10] * 5), {"copy_row_groups": 10}, {}, ("copy", "row groups have"), id="as large"),
        pytest.param(
            files_of(*[10] * 5), {"copy_row_groups": 11}, {}, ("rewrite", "on average, less than"), id="smaller"
        ),
        pytest.param(files_of(*[10] * 5), {"copy_row_groups": 9}, {}, ("copy", "on average"), id="larger"),
        pytest.param(
            files_of(*[10] * 5, row_groups=2), {"copy_row_groups": 10}, {}, ("rewrite", "less than"), id="two in each"
        ),
        pytest.param(
            files_of(*[10] * 5, row_groups=0),
            {"copy_row_groups": 1},
            {},
            ("rewrite", "manifests do not tell how many row groups there are"),
            id="untold",
        ),
        pytest.param(
            files_of(*[10] * 5),
            {"copy_row_groups": 1},
            {"sort_order_id": 1},
            ("sort", "the table is sorted"),
            id="sorted",
        ),
        pytest.param(files_of(181), {"copy_row_groups": 1}, {}, ("rewrite", "files are too large"), id="too large"),
        pytest.param(
            [*files_of(*[10] * 5), position_deletes("d", 1)],
            {"copy_row_groups": 1},
            {},
            ("rewrite", "rows are deleted"),
            id="deletes",
        ),
        pytest.param(
            files_of(*[10] * 5, spec_id=OLD),
            {"copy_row_groups": 1},
            {},
            ("rewrite", "files are of another partition spec"),
            id="another spec",
        ),
        pytest.param(
            files_of(*[10] * 5),
            {"copy_row_groups": 11, "strategy": "copy"},
            {},
            ("rewrite", "less than"),
            id="copy as far as it goes",
        ),
        pytest.param(
            files_of(*[10] * 5),
            {"copy_row_groups": 1, "strategy": "rewrite"},
            {},
            ("rewrite", "as the spec has it"),
            id="never",
        ),
        pytest.param(
            files_of(*[10] * 5),
            {"strategy": "zorder", "columns": ("id",)},
            {"sort_order_id": 1},
            ("zorder", "as the spec has it"),
            id="zorder",
        ),
    ],
)
def test_whether_row_groups_are_copied(
    files: list[LiveFile], settings: Mapping[str, Any], of_table: Mapping[str, Any], told: tuple[str, str]
) -> None:
    """Where nothing has to change and they are large enough; and why not."""
    (group,) = groups_of(files, settings, **of_table)
    assert group.strategy == told[0]
    assert told[1] in group.reason


@pytest.mark.parametrize(
    ("files", "busy", "settled", "why"),
    [
        pytest.param(
            files_of(*[10] * 5), [], HOUR.end - timedelta(seconds=1), "is not over for long enough", id="young"
        ),
        pytest.param(files_of(*[10] * 5), [HOUR], SETTLED, "has an attempt under way", id="busy"),
        pytest.param(
            files_of(*[10] * 5, file_format="ORC"),
            [],
            SETTLED,
            "has files of ORC, and only Parquet is compacted",
            id="ORC",
        ),
        pytest.param(
            [*files_of(100), position_deletes("v", 50, "f0", file_format="PUFFIN")],
            [],
            SETTLED,
            "has files of PUFFIN",
            id="deletion vectors",
        ),
    ],
)
def test_what_is_left_alone(files: list[LiveFile], busy: list[HourWindow], settled: datetime, why: str) -> None:
    """And why; the other hours are not."""
    others = [file(f"next {place}", hour=NEXT) for place in range(5)]
    told = plan([*files, *others], busy=busy, settled=max(settled, HOUR.end - timedelta(seconds=1)))
    assert HOUR not in [hour.hour for hour in told.hours]
    assert why in told.left[HOUR]
    assert [hour.hour for hour in told.hours] == ([NEXT] if settled == SETTLED else [])


def test_an_hour_that_is_just_over() -> None:
    """It is compacted from the moment on."""
    assert [hour.hour for hour in plan(files_of(*[10] * 5), settled=HOUR.end).hours] == [HOUR]


def test_files_of_several_hours_are_nobodys() -> None:
    """They are no hour's to rewrite."""
    found = plan(files_of(*[1] * 9, hour=None))
    assert (found.hours, found.left) == ((), {})
    assert found.seen.startswith("0 hours with 9 files of 1 B on average")


@pytest.mark.parametrize(
    ("deletes", "dangling"),
    [
        pytest.param([position_deletes("d", 1, "gone")], ["d"], id="of a file that is gone"),
        pytest.param([position_deletes("d", 1, "f0", sequence_number=5)], [], id="of a file that stays"),
        pytest.param([position_deletes("d", 1, sequence_number=4)], ["d"], id="older than all data"),
        pytest.param([position_deletes("d", 1, sequence_number=5)], [], id="positions as old as the data"),
        pytest.param([equality_deletes("d", 1, sequence_number=5)], ["d"], id="of equal rows, as old as the data"),
        pytest.param([equality_deletes("d", 1, sequence_number=6)], [], id="of equal rows, younger"),
        pytest.param([equality_deletes("d", 1, sequence_number=6, partition="q")], ["d"], id="of an empty partition"),
    ],
)
def test_deletes_that_apply_to_nothing(deletes: list[LiveFile], dangling: list[str]) -> None:
    """They are removed, also where no file is worth compacting."""
    found = plan([file("f0", 100, sequence_number=5), *deletes])
    assert [each.path for hour in found.hours for each in hour.dangling] == dangling
    assert [str(hour) for hour in found.hours] == ["remove 1 delete file without effect"] * len(dangling)


def test_deletes_of_an_hour_without_data() -> None:
    """They apply to nothing; the hour has nothing else to do."""
    assert list(plan([equality_deletes("d", 1)]).paths()) == ["d"]


def test_deletes_go_with_the_files_that_they_are_of() -> None:
    """What applies to rewritten files alone goes with them; what applies to others, too, stays."""
    deletes = [position_deletes("own", 40, "f0"), position_deletes("shared", 1)]
    (hour,) = plan([*files_of(100, 100), *deletes]).hours
    assert names(hour.groups) == [["f0"]]
    assert [each.path for each in hour.dangling] == ["own"]


def test_deletes_of_no_single_hour() -> None:
    """They go with some hour once they apply to no file of the table, and stay as long as they may apply to one."""
    far = equality_deletes("far", 1, spec_id=NOWHERE, partition="()", hour=None, sequence_number=5)
    old, young = file("old", 100, sequence_number=4), file("young", 100, sequence_number=5)
    assert plan([far, old, young]).hours == ()
    assert list(plan([far, young]).paths()) == ["far"]
    (hour,) = plan([far, *files_of(*[10] * 5, sequence_number=5)]).hours
    assert [each.path for each in hour.dangling] == ["far"]


@pytest.mark.parametrize(
    "told",
    [
        pytest.param({"whole": False}, id="other files are not known"),
        pytest.param({"busy": [HOUR]}, id="busy"),
        pytest.param({"settled": HOUR.start}, id="young"),
    ],
)
def test_deletes_of_no_single_hour_that_wait(told: Mapping[str, Any]) -> None:
    """For an hour to go with, and for a plan of the whole table."""
    far = equality_deletes("far", 1, spec_id=NOWHERE, partition="()", hour=None, sequence_number=5)
    assert plan([far, file("young", 100, sequence_number=5)], **told).hours == ()


def test_a_file_that_old_deletes_of_all_hours_apply_to() -> None:
    """Deletes of all partitions make it worth it by their count; a share of its rows they do not have."""
    far = equality_deletes("far", 90, spec_id=NOWHERE, partition="()", hour=None)
    assert groups_of([*files_of(100), far]) == []
    assert names(groups_of([*files_of(100), far], {"delete_file_threshold": 1})) == [["f0"]]


@given(
    st.lists(st.integers(1, 2**30), min_size=5, max_size=30), st.sampled_from(["rewrite", "sort", "zorder", "merge"])
)
def test_estimates(sizes: list[int], strategy: str) -> None:
    """Time and money are more than nothing, and more files take more of both."""
    settings = {"strategy": strategy, "min_file_size": 2**31, "copy_row_groups": 1}
    (few,), (more,) = (groups_of(files_of(*found), settings, target_bytes=2**32) for found in (sizes, [*sizes, *sizes]))
    assert 0 < few.seconds < more.seconds
    assert 0 < few.dollars < more.dollars
    assert 0 < few.outputs <= more.outputs


def test_a_plan_adds_up() -> None:
    """What it says of all hours is what it says of each."""
    told = plan([*files_of(*[10] * 5), *(file(f"next {place}", 20, hour=NEXT) for place in range(5))])
    assert [(hour.hour, hour.files, hour.bytes, hour.outputs) for hour in told.hours] == [
        (HOUR, 5, 50, 1),
        (NEXT, 5, 100, 1),
    ]
    assert told.seconds == sum(group.seconds for hour in told.hours for group in hour.groups)
    assert told.dollars == sum(group.dollars for hour in told.hours for group in hour.groups)
    assert str(told.hours[0]) == (
        "rewrite 5 files of 10 B on average into 1 (row groups have 10 B on average, less than 33.6 MB)"
    )


@given(st.lists(st.integers(1, 400), max_size=40))
def test_it_ends(sizes: list[int]) -> None:
    """What is written is not planned again, together with what was left."""
    for hour in plan(files_of(*sizes)).hours:
        chosen = {file.path for group in hour.groups for file in group.files}
        stay = [file.bytes for file in files_of(*sizes) if file.path not in chosen]
        written = []
        for group in hour.groups:
            whole, rest = divmod(group.bytes, 100)
            written += [100] * whole + [rest] * bool(rest)  # files roll at their target
            assert len(written[-group.outputs :]) == group.outputs
        assert plan(files_of(*stay, *written)).hours == ()


@pytest.mark.parametrize("text", ["much", "0", "-1", "1.5"])
def test_a_target_that_is_none(text: str) -> None:
    """The table's property is told."""
    with pytest.raises(ConfigurationError, match="set it to a number of bytes"):
        Rules.of(CompactSettings(), 256_000_000, {"write.target-file-size-bytes": text})


def test_the_target() -> None:
    """It is the table's own, or Iceberg's default."""
    assert Rules.of(CompactSettings(), 256_000_000, {"write.target-file-size-bytes": "100"}).max_bytes == 180
    assert Rules.of(CompactSettings(), 256_000_000, {}).target_bytes == 256_000_000


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"min_file_size": 101}, "compact.min_file_size is 101"), ({"max_file_size": 99}, "compact.max_file_size is 99")],
)
def test_bounds_that_no_file_fits(settings: dict[str, int], key: str) -> None:
    """Files of the target's size would be compacted for ever: they are refused."""
    with pytest.raises(ConfigurationError, match=f"^{key} bytes, and files are written of 100"):
        Rules.of(CompactSettings(**settings), 256_000_000, {"write.target-file-size-bytes": "100"})


def test_a_copy_that_would_not_end() -> None:
    """Whole files that do not fit together are not copied into as many again, at every look."""
    told = {"copy_row_groups": 1, "min_input_files": 2, "max_file_size": 101}
    (group,) = groups_of(files_of(60, 60, row_groups=1), told)
    assert (group.strategy, group.reason) == ("rewrite", "whole files do not fit together")
    (group,) = groups_of(files_of(60, 60, row_groups=1), {**told, "max_file_size": None})
    assert (group.strategy, group.outputs) == ("copy", 1)


def test_a_merge_that_would_not_end() -> None:
    """One small file in each of many partitions is what a merge would leave again."""
    apart = [file(f"f{place}", 1, partition=f"{place}") for place in range(9)]
    assert groups_of(apart, {"strategy": "merge"}) == []
    assert len(groups_of([*apart, *files_of(*[1] * 5)], {"strategy": "merge"})) == 1

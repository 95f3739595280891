"""Which hours a file can have rows of: by its partition, by its bounds, and what follows for replacing an hour."""

import math
from datetime import UTC, date, datetime
from typing import Any

import pytest
from pyiceberg.manifest import ManifestFile, PartitionFieldSummary
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    Transform,
    YearTransform,
)
from pyiceberg.types import NestedField, TimestamptzType

from lakehouse_pipeline.errors import CommitConflictError, SafetyError
from lakehouse_pipeline.iceberg.event_time import ANY, NONE, EventTime, HourSpan, hours_of
from tests.iceberg.lake import ELEVEN, TEN, TWELVE, Lake, events

AT = NestedField(1, "at", TimestamptzType(), required=False)
DAY = TEN.ordinal // 24


def spec_of(*transforms: Transform[Any, Any], source: int = 1) -> PartitionSpec:
    """Make a spec of transforms of one column."""
    return PartitionSpec(*(PartitionField(source, 1000 + n, t, f"f{n}") for n, t in enumerate(transforms)))


def told(spec: PartitionSpec, field: NestedField = AT) -> EventTime:
    """Give the event time of a table with one spec."""
    return EventTime(field, {0: spec})


@pytest.mark.parametrize(
    ("transform", "value", "hours"),
    [
        (HourTransform(), 5, (5, 5)),
        (DayTransform(), -1, (-24, -1)),
        (DayTransform(), date(1970, 1, 3), (48, 71)),
        (MonthTransform(), 1, (31 * 24, 59 * 24 - 1)),
        (MonthTransform(), -1, (-31 * 24, -1)),
        (YearTransform(), 2, (730 * 24, (730 + 366) * 24 - 1)),
        (YearTransform(), 20_000, (math.inf, math.inf)),
        (IdentityTransform(), 2 * 3_600_000_000 + 1, (2, 2)),
        (IdentityTransform(), datetime(1969, 12, 31, 23, 59, tzinfo=UTC), (-1, -1)),
    ],
    ids=str,
)
def test_partition_values_are_hours(transform: Transform[Any, Any], value: Any, hours: tuple[float, float]) -> None:
    """Whatever part of time a field has, and however Avro gives it, its first and its last hour are known."""
    assert hours_of(transform, value) == hours


def line_of(spec: int | None, high: int | None, *, null: bool = False) -> ManifestFile:
    """Make a manifest list's line with these bounds of its one field."""
    bounds = [None if bound is None else bound.to_bytes(4, "little", signed=True) for bound in (spec, high)]
    return ManifestFile.from_args(
        manifest_path="x.avro", partition_spec_id=0, partitions=[PartitionFieldSummary(null, False, *bounds)]
    )


@pytest.mark.parametrize(
    ("transform", "line", "hours", "may"),
    [
        pytest.param(HourTransform(), line_of(5, 7), {4}, False, id="below"),
        pytest.param(HourTransform(), line_of(5, 7), {5}, True, id="least"),
        pytest.param(HourTransform(), line_of(5, 7), {7}, True, id="greatest"),
        pytest.param(HourTransform(), line_of(5, 7), {8}, False, id="above"),
        pytest.param(HourTransform(), line_of(5, 7), {1, 6, 9}, True, id="one of several"),
        pytest.param(HourTransform(), line_of(-9, -3), {-4}, True, id="before 1970"),
        pytest.param(HourTransform(), line_of(None, None, null=True), {5}, False, id="nulls only"),
        pytest.param(DayTransform(), line_of(0, 1), {47}, True, id="day"),
        pytest.param(DayTransform(), line_of(0, 1), {48}, False, id="another day"),
        pytest.param(BucketTransform(4), line_of(0, 1), {48}, True, id="buckets tell nothing"),
    ],
)
def test_manifests_are_skipped_by_their_bounds(
    transform: Transform[Any, Any], line: ManifestFile, hours: set[int], *, may: bool
) -> None:
    """A manifest is read only if an hour may be within its bounds."""
    assert told(spec_of(transform)).in_manifest(line).meets(hours) is may


def test_a_manifest_without_bounds_is_read() -> None:
    """Bounds are optional: without them any hour may be in it."""
    line = ManifestFile.from_args(manifest_path="x.avro", partition_spec_id=0, partitions=None)
    assert told(spec_of(HourTransform())).in_manifest(line) == ANY


def entry(low: float | None, high: float | None, nulls: int | None = 0, **partition: Any) -> dict[str, Any]:
    """Make an entry of ten rows whose event times have these bounds, in hours."""

    def kept(value: float | None) -> list[dict[str, Any]]:
        if value is None:
            return []
        return [{"key": 1, "value": int(value * 3_600_000_000).to_bytes(8, "little", signed=True)}]

    counts = [] if nulls is None else [{"key": 1, "value": nulls}]
    bounds = {"lower_bounds": kept(low), "upper_bounds": kept(high), "null_value_counts": counts}
    return {"data_file": {"partition": partition, "record_count": 10, **bounds}}


@pytest.mark.parametrize(
    ("spec", "given", "span"),
    [
        pytest.param(spec_of(HourTransform()), entry(None, None, f0=5), HourSpan(5, 5, exact=True), id="hour"),
        pytest.param(spec_of(HourTransform()), entry(None, None, f0=None), NONE, id="hour of nulls"),
        pytest.param(
            spec_of(BucketTransform(4), HourTransform()),
            entry(1, 9, f0=1, f1=5),
            HourSpan(5, 5, exact=True),
            id="second",
        ),
        pytest.param(spec_of(HourTransform(), source=2), entry(1, 9.5, f0=5), HourSpan(1, 9, exact=True), id="other"),
        pytest.param(spec_of(DayTransform()), entry(None, None, f0=1), HourSpan(24, 47, exact=True), id="day"),
        pytest.param(spec_of(DayTransform()), entry(25.5, 99, f0=1), HourSpan(25, 47, exact=True), id="day and bounds"),
        pytest.param(spec_of(), entry(1.5, 1.9), HourSpan(1, 1, exact=True), id="within an hour"),
        pytest.param(spec_of(), entry(1.5, 1.9, 3), HourSpan(1, 1, exact=False), id="and nulls"),
        pytest.param(spec_of(), entry(1.5, 1.9, None), HourSpan(1, 1, exact=False), id="nulls not known"),
        pytest.param(spec_of(), entry(None, None, 10), NONE, id="nulls only"),
        pytest.param(spec_of(), entry(-0.5, 1.0), HourSpan(-1, 1, exact=True), id="across 1970"),
        pytest.param(spec_of(), entry(None, None), HourSpan(-math.inf, math.inf, exact=True), id="nothing known"),
    ],
)
def test_files_tell_their_hours(spec: PartitionSpec, given: dict[str, Any], span: HourSpan) -> None:
    """A file's hours are as narrow as its partition and its bounds say together, and no narrower."""
    assert told(spec).in_entries_of(0)(given) == span


def by_spec(lake: Lake, *fields: tuple[str, str]) -> None:
    """Give the table another current partition spec."""
    with lake.now.table.update_spec() as update:
        for field in lake.now.table.spec().fields:
            update.remove_field(field.name)
        for column, transform in fields:
            update.add_field(column, transform, f"{column}_{transform}")


HOURLY = ("at", "hour")


@pytest.fixture
def was_daily(lake: Lake) -> Lake:
    """Give a table with files from the days when it was partitioned by the day, and is by the hour now."""
    by_spec(lake, ("at", "day"))
    lake.append(events(TEN, [1, 2]), events(ELEVEN, [3]))
    by_spec(lake, HOURLY)
    return lake


@pytest.mark.parametrize("hour", [TEN, ELEVEN], ids=str)
def test_an_hour_that_a_file_straddles_is_refused(was_daily: Lake, hour: Any) -> None:
    """Neither planning nor committing replaces an hour whose rows share a file with another's; the file is named."""
    (file,) = was_daily.entries()
    for doing in (was_daily.now.live, lambda each: was_daily.replace(was_daily.seal(each, [9]))):
        with pytest.raises(SafetyError, match="1 files of an earlier partition spec") as caught:
            doing(hour)
        assert file.data_file.file_path in str(caught.value)
        assert "rewrite_data_files" in str(caught.value)
    assert was_daily.rows() == {TEN.key: [1, 2], ELEVEN.key: [3]}


def test_the_commit_checks_again(lake: Lake) -> None:
    """A file that somebody put across the hour after the attempt was opened stops the commit; nothing is left."""
    sealed = lake.seal(TEN, [1])
    by_spec(lake)
    lake.append(events(TEN, [2]), events(ELEVEN, [3]))
    by_spec(lake, HOURLY)
    before = lake.stored("metadata")
    with pytest.raises(SafetyError, match="earlier partition spec"):
        lake.replace(sealed)
    assert (lake.rows(), lake.stored("metadata")) == ({TEN.key: [2], ELEVEN.key: [3]}, before)


def test_many_straddling_files_are_not_all_listed(lake: Lake) -> None:
    """Some are named and the others counted."""
    by_spec(lake)
    for number in range(7):
        lake.append(events(TEN, [number]), events(ELEVEN, [number]))
    by_spec(lake, HOURLY)
    with pytest.raises(SafetyError, match=r"7 files .* and 2 more\."):
        lake.now.live(TEN)


def test_other_hours_of_such_a_table_are_replaced(was_daily: Lake) -> None:
    """Bounds of the event time keep an old file out of the way, on its own day too."""
    was_daily.put(TWELVE, [7])
    was_daily.put(TWELVE, [8, 9])
    assert was_daily.rows() == {TEN.key: [1, 2], ELEVEN.key: [3], TWELVE.key: [8, 9]}


@pytest.mark.parametrize("fields", [(), (("at", "day"),), (("id", "identity"),)], ids=["none", "day", "other column"])
def test_an_old_file_within_the_hour_is_the_hours(lake: Lake, fields: tuple[tuple[str, str], ...]) -> None:
    """All rows of a file are of the hour, whatever spec it was written by: the hour takes it along."""
    by_spec(lake, *fields)
    lake.append(events(TEN, [1]))
    by_spec(lake, HOURLY)
    assert [file.hour for file in lake.now.live(TEN)] == [TEN.ordinal]
    lake.put(TEN, [2])
    assert lake.rows() == {TEN.key: [2]}


def test_bounds_may_be_missing(lake: Lake) -> None:
    """Without bounds of the event time a file of an earlier spec may hold any hour, so no hour can be replaced."""
    with lake.now.table.transaction() as transaction:
        transaction.set_properties({"write.metadata.metrics.default": "none"})
    by_spec(lake)
    lake.append(events(TEN, [1]))
    by_spec(lake, HOURLY)
    with pytest.raises(SafetyError, match="earlier partition spec"):
        lake.now.live(ELEVEN)


def test_files_of_an_earlier_spec_with_the_hour_are_replaced(lake: Lake) -> None:
    """Fields beside the hour come and go, their columns too; an hour's files are the hour's in every spec."""
    by_spec(lake, ("name", "identity"), HOURLY)
    lake.append(events(TEN, [1, 2]), events(ELEVEN, [3]))
    by_spec(lake, HOURLY, ("id", "bucket[4]"))
    lake.append(events(TEN, [4]))
    by_spec(lake, HOURLY)
    with lake.now.table.update_schema() as update:
        update.delete_column("name")
    assert len(lake.now.live(TEN)) == 3
    with lake.now.table.update_schema() as update:
        update.add_column("name", lake.now.table.schemas()[0].find_field("name").field_type)
    lake.put(TEN, [5])
    assert lake.rows() == {TEN.key: [5], ELEVEN.key: [3]}


def test_another_hours_field_is_not_taken_for_the_event_time(lake: Lake) -> None:
    """A table may be partitioned by the hours of two columns; the spec's counts."""
    with lake.now.table.update_schema() as update:
        update.add_column("loaded", TimestamptzType())
    by_spec(lake, ("loaded", "hour"), HOURLY)
    table = lake.now.table
    assert [
        span.low
        for span in (
            EventTime.of(table.metadata, "at").in_entries_of(table.spec().spec_id)(
                {"data_file": {"partition": {"loaded_hour": 7, "at_hour": 5}}}
            ),
        )
    ] == [5]


def test_a_column_that_is_gone_is_said(lake: Lake) -> None:
    """Somebody renamed the event time under an open attempt."""
    sealed = lake.seal(TEN, [1])
    with lake.now.table.update_schema() as update:
        update.rename_column("at", "moment")
    with pytest.raises(SafetyError, match="no column at"):
        lake.replace(sealed)


def test_a_rival_in_an_earlier_spec_is_seen(lake: Lake) -> None:
    """An old-spec file within the hour that somebody added meanwhile supersedes the attempt."""
    sealed = lake.seal(TEN, [1])
    by_spec(lake)
    lake.append(events(TEN, [2]))
    by_spec(lake, HOURLY)
    with pytest.raises(CommitConflictError, match="superseded"):
        lake.replace(sealed)


@pytest.mark.parametrize("span", [*(HourSpan(low, high, exact=False) for low in (3, 5) for high in (3, 6)), ANY, NONE])
@pytest.mark.parametrize("hours", [(), (4,), (5,), (1, 2, 3, 9), (7, 8, 9, 10), (5, 6, 7, 8)])
def test_a_span_meets_hours_however_many_there_are(span: HourSpan, hours: tuple[int, ...]) -> None:
    """Of sets and of tuples, narrow spans and wide, those that never begin and those that hold every hour."""
    expected = any(span.low <= hour <= span.high for hour in hours)
    assert (span.meets(hours), span.meets(frozenset(hours))) == (expected, expected)

"""Which rows are an hour's: by value, and by statistics where these can be trusted."""

import io as streams
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import orc

from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.data_files import OtherHourError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources import orc_files, parquet_files
from lakehouse_pipeline.sources.bad_rows import BadRow
from lakehouse_pipeline.sources.hour_rows import HourRows, HourRule, fail, required
from lakehouse_pipeline.sources.listing import SourceObject
from lakehouse_pipeline.sources.readers import read_split
from lakehouse_pipeline.sources.splits import plan_splits

Land = Callable[[str, bytes], SourceObject]

HOUR = HourWindow.from_key("2013-01-01-10:00")
DAY = (datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 2, tzinfo=UTC))
UTC_US = pa.timestamp("us", "UTC")
SCHEMA = pa.schema([pa.field("at", UTC_US, nullable=False), ("n", pa.int64())])
MINUTE = 60_000_000  # microseconds
START = int(HOUR.start.timestamp()) * 1_000_000


def rule(span: tuple[datetime, datetime] | None, *, reject: bool = True) -> HourRule:
    """Make the rule of the hour for files of a span."""
    return HourRule("at", HOUR, span, reject)


SPANS = {"hour": (HOUR.start, HOUR.end), "day": DAY, "all time": None}


@pytest.mark.parametrize("kind", [UTC_US, pa.timestamp("us")], ids=["zone", "no zone"])
@pytest.mark.parametrize("span", SPANS.values(), ids=SPANS)
@given(minutes=st.lists(st.integers(-2000, 2000), max_size=20))
def test_every_row_is_kept_left_or_rejected(
    kind: pa.DataType, span: tuple[datetime, datetime] | None, minutes: list[int]
) -> None:
    """No row is lost, none is counted twice, and each goes where its time says."""
    times = [HOUR.start + timedelta(minutes=minute) for minute in minutes]
    at = pa.array([START + minute * MINUTE for minute in minutes], pa.int64()).cast(kind)
    batch = pa.record_batch([at, pa.array(range(len(at)), pa.int64())], names=["at", "n"])
    bad: list[BadRow] = []
    hour = HourRows(rule(span), bad.extend)
    kept, positions = hour.of((batch, pa.array(np.arange(len(at)) + 1)), "u", at_byte=False)
    inside = [n for n, time in enumerate(times) if HOUR.start <= time < HOUR.end]
    outside = [n for n, time in enumerate(times) if span and not span[0] <= time < span[1]]
    assert kept.column("n").to_pylist() == inside
    assert positions.to_pylist() == [n + 1 for n in inside]
    assert [row.position for row in bad] == [n + 1 for n in outside]
    assert hour.left == len(times) - len(inside) - len(outside)


def test_a_row_that_should_not_be_there_is_shown() -> None:
    """What is kept of it is its place, its time, what was expected, and its values."""
    batch = pa.record_batch([pa.array([START + 60 * MINUTE], UTC_US), pa.array([7])], SCHEMA)
    bad: list[BadRow] = []
    HourRows(rule(SPANS["hour"]), bad.extend).of((batch, pa.array([90])), "s3://raw/a", at_byte=True)
    assert bad == [
        BadRow(
            "s3://raw/a",
            90,
            "at = 2013-01-01 11:00:00+00:00 is of another hour than 2013-01-01-10:00 UTC",
            None,
            '{"at": "2013-01-01 11:00:00+00:00", "n": 7}',
            at_byte=True,
        )
    ]
    with pytest.raises(OtherHourError, match=r"^s3://raw/a:byte 90: at = 2013-.* `other_hours: reject` keeps them"):
        fail(bad)
    fail([])


def test_the_hours_column_becomes_required() -> None:
    """Only that column changes."""
    schema = pa.schema([("n", pa.int64()), ("at", UTC_US)])
    assert required(schema, "at") == pa.schema([("n", pa.int64()), pa.field("at", UTC_US, nullable=False)])


@pytest.mark.parametrize(
    ("low", "high", "span", "left"),
    [
        pytest.param(-120, -1, DAY, True, id="before"),
        pytest.param(60, 90, DAY, True, id="after"),
        pytest.param(-1, 0, DAY, False, id="first instant"),
        pytest.param(59, 200, DAY, False, id="last minute"),
        pytest.param(-100, 100, DAY, False, id="around"),
        pytest.param(60, 24 * 60, DAY, False, id="beyond the day"),
        pytest.param(-11 * 60, -100, DAY, False, id="before the day"),
        pytest.param(60, 24 * 60, None, True, id="all time"),
    ],
)
def test_bounds_leave_only_what_is_others_for_sure(
    low: int,
    high: int,
    span: tuple[datetime, datetime] | None,
    left: bool,  # noqa: FBT001  # a case
) -> None:
    """Rows are passed over unread only if none is of the hour, and none outside of the file's span."""
    hour = HourRows(rule(span), print)
    assert hour.leaves((START + low * MINUTE, START + high * MINUTE), 5) is left
    assert hour.left == 5 * left
    assert not hour.leaves(None, 5)


def day(form: str, **options: Any) -> bytes:
    """Write a minute a row, a day long, in parts of an hour."""
    at = pa.array([int(DAY[0].timestamp()) * 1_000_000 + n * MINUTE for n in range(1440)], UTC_US)
    table = pa.table({"at": at, "n": list(range(1440))})
    body = streams.BytesIO()
    if form == "parquet":
        pq.write_table(table, body, row_group_size=60, **options)
        return body.getvalue()
    with orc.ORCWriter(body, stripe_size=1, batch_size=60) as writer:
        for start in range(0, 1440, 60):
            writer.write(table.slice(start, 60))
    return body.getvalue()


class CountedParts:
    """Takes the place of an open file's `batches`, and notes which parts are read whole."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand before both formats."""
        self.read: list[int] = []
        for kind in (parquet_files.ParquetObject, orc_files.OrcObject):
            inner = kind.batches

            def batches(file: Any, part: int, names: list[str], inner: Any = inner) -> Any:
                if "n" in names:
                    self.read.append(part)
                return inner(file, part, names)

            monkeypatch.setattr(kind, "batches", batches)


@pytest.mark.parametrize(
    ("form", "options", "parts"),
    [
        pytest.param("parquet", {}, [10], id="parquet"),
        pytest.param("parquet", {"write_statistics": False}, list(range(24)), id="no statistics"),
        pytest.param("parquet", {"use_deprecated_int96_timestamps": True}, list(range(24)), id="int96"),
        pytest.param("orc", {}, None, id="orc"),
    ],
)
def test_only_parts_of_the_hour_are_read(
    land: Land,
    form: str,
    options: dict[str, Any],
    parts: list[int] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a daily file an hour decodes its own part, where that is known; rows and counts are the same in any case."""
    io, source = LakehouseFileIO(), land(f"a.{form}", day(form, **options))
    counted = CountedParts(monkeypatch)
    (split,) = plan_splits(io, [source], form, target_bytes=1 << 40)
    hour = HourRows(rule(DAY), fail)
    found = pa.Table.from_batches(
        read_split(io, split, SCHEMA, provenance=True, on_bad=print, hour=hour),
    )
    assert found["n"].to_pylist() == list(range(600, 660))
    assert found["_position"].to_pylist() == list(range(601, 661))
    assert hour.left == 1440 - 60
    if parts is None:
        with orc_files.opened(io, source.url, source.etag, source.size) as file:
            assert len(file.rows) > 1
            parts = [n for n in range(len(file.rows)) if sum(file.rows[:n]) < 660 and sum(file.rows[: n + 1]) > 600]
    assert counted.read == parts


@pytest.mark.parametrize("form", ["parquet", "orc"])
def test_parts_with_nulls_are_read(io: LakehouseFileIO, land: Land, form: str) -> None:
    """A part of another hour is not passed over if a row of it has no time: that row is bad."""
    at = pa.array([START - 60 * MINUTE, None, START - 61 * MINUTE], UTC_US)
    body = streams.BytesIO()
    table = pa.table({"at": at, "n": [1, 2, 3]})
    pq.write_table(table, body) if form == "parquet" else orc.write_table(table, body)
    (split,) = plan_splits(io, [land(f"a.{form}", body.getvalue())], form, target_bytes=1 << 40)
    bad: list[BadRow] = []
    hour = HourRows(rule(DAY), fail)
    assert list(read_split(io, split, SCHEMA, provenance=False, on_bad=bad.extend, hour=hour)) == []
    assert ([row.position for row in bad], hour.left) == ([2], 2)


@pytest.mark.parametrize(
    "kind",
    [pa.timestamp("ms"), pa.timestamp("ns", "UTC"), pa.timestamp("s"), pa.timestamp("us", "Europe/Berlin")],
    ids=str,
)
def test_bounds_are_microseconds(io: LakehouseFileIO, land: Land, kind: pa.DataType) -> None:
    """Statistics of any unit are compared in ours."""
    at = pa.array([START, START + 5 * MINUTE], UTC_US).cast(kind)
    body = streams.BytesIO()
    pq.write_table(pa.table({"at": at}), body)
    source = land("a.parquet", body.getvalue())
    with parquet_files.opened(io, source.url, source.etag, source.size) as file:
        assert file.bounds(0, "at") == (START, START + 5 * MINUTE)

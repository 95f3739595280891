"""Statistics hold against the rows they speak of, and rows come back from PyIceberg's reader as they were written."""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyiceberg.catalog import Catalog
from pyiceberg.conversions import from_bytes
from pyiceberg.types import PrimitiveType

from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.data_files import WrittenFile
from lakehouse_pipeline.iceberg.manifests import digest
from lakehouse_pipeline.iceberg.schemas import arrow_schema_of
from lakehouse_pipeline.iceberg.sealed_hours import SealedHour
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.ledger.records import new_attempt_id
from tests.iceberg.entries import decode_entry
from tests.iceberg.lake import TEN, Lake, columns, events, in_bucket

SMALL_ROW_GROUPS = {"write.parquet.row-group-limit": "5"}
HOURS = [TEN, HourWindow.from_key("1969-12-31-23:00"), HourWindow.from_key("1905-02-03-04:00")]
DECIMALS = {"decimal(9,2)": (9, 2), "decimal(18,4)": (18, 4), "decimal(38,10)": (38, 10)}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32),
    "double": st.floats(),
    "date": st.dates(),
    "timestamp": st.datetimes(),
    "timestamptz": st.datetimes(timezones=st.just(UTC)),
    "string": st.text(max_size=40) | st.sampled_from(["", "\0", "\uffff" * 17, "\U0010ffff" * 17, "\ud7ff" * 17]),
    "binary": st.binary(max_size=40) | st.just(b"\xff" * 17),
    **{
        name: st.decimals(-(10 ** (precision - scale)) + 1, 10 ** (precision - scale) - 1, places=scale)
        for name, (precision, scale) in DECIMALS.items()
    },
}
TYPES = {"at": "timestamptz!"} | {f"c{place}": name for place, name in enumerate(VALUES)}
Row = dict[str, Any]


@st.composite
def hours_of_rows(draw: st.DrawFn) -> tuple[HourWindow, list[Row]]:
    """Draw an hour and up to a dozen of its rows, with null wherever it may be."""
    hour = draw(st.sampled_from(HOURS))
    microseconds = st.integers(0, 3_600_000_000 - 1)
    row = st.fixed_dictionaries(
        {"at": microseconds.map(lambda after: hour.start + timedelta(microseconds=after))}
        | {f"c{place}": st.none() | values for place, values in enumerate(VALUES.values())}
    )
    return hour, draw(st.lists(row, min_size=1, max_size=12))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """Give a table with a column of every type and row groups of five rows, shared by all examples."""
    folder = tmp_path_factory.mktemp("wide")
    with open_catalog({"type": "sql", "uri": f"sqlite:///{folder}/c.db", "warehouse": f"file://{folder}/w"}) as catalog:
        yield Lake.create(catalog, TYPES, properties=SMALL_ROW_GROUPS)


def written(lake: Lake, hour: HourWindow, rows: list[Row], attempt: str, types: Mapping[str, str]) -> WrittenFile:
    """Write rows as one file."""
    batch = pa.RecordBatch.from_pylist(rows, schema=arrow_schema_of(columns(types)))
    (file,) = lake.write(hour, [in_bucket(0, batch)], attempt)
    return file


def statistics(lake: Lake, file: WrittenFile) -> dict[str, dict[str, Any]]:
    """Give a file's statistics: what is known, by column, with the bounds read as values."""
    table = lake.now.table
    found = decode_entry(file.entry, table.spec(), table.schema())["data_file"]
    maps = {
        name: {item["key"]: item["value"] for item in items}
        for name, items in found.items()
        if name.endswith(("_counts", "_bounds", "_sizes")) and items is not None
    }
    known: dict[str, dict[str, Any]] = {}
    for field in table.schema().fields:
        known[field.name] = {name: values[field.field_id] for name, values in maps.items() if field.field_id in values}
        assert isinstance(field.field_type, PrimitiveType)
        for name in ("lower_bounds", "upper_bounds"):
            if name in known[field.name]:
                known[field.name][name] = from_bytes(field.field_type, known[field.name][name])
    return known


def comparable(value: Any) -> Any:
    """Give a value as Iceberg's bounds say it: instants as microseconds, dates as days."""
    if isinstance(value, datetime):
        epoch = datetime(1970, 1, 1, tzinfo=value.tzinfo)
        return (value - epoch) // timedelta(microseconds=1)
    if isinstance(value, date):
        return (value - date(1970, 1, 1)).days
    return value


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(hours_of_rows())
def test_statistics_hold(wide: Lake, drawn: tuple[HourWindow, list[Row]]) -> None:
    """Counts are exact, and bounds hold every value that is neither null nor NaN."""
    hour, rows = drawn
    known = statistics(wide, written(wide, hour, rows, new_attempt_id(), TYPES))
    for name, kind in TYPES.items():
        values = [row[name] for row in rows if row[name] is not None]
        told = known[name]
        numbers = [value for value in values if not (isinstance(value, float) and math.isnan(value))]
        assert told["value_counts"] == len(rows)
        assert told["null_value_counts"] == len(rows) - len(values)
        assert told.get("nan_value_counts") == (len(values) - len(numbers) if kind in {"float", "double"} else None)
        assert told["column_sizes"] > 0
        if not numbers:
            assert not {"lower_bounds", "upper_bounds"} & told.keys()
            continue
        least, most = min(map(comparable, numbers)), max(map(comparable, numbers))
        if kind in {"string", "binary"}:
            assert told.get("lower_bounds", least) <= least
            assert told.get("upper_bounds", most) >= most
        else:
            assert (told["lower_bounds"], told["upper_bounds"]) == (least, most)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(hours_of_rows())
@example((TEN, [{"at": TEN.start} | dict.fromkeys(list(TYPES)[1:])]))
def test_rows_come_back(wide: Lake, drawn: tuple[HourWindow, list[Row]]) -> None:
    """What PyIceberg's reader gives of an hour is what was written, to the bit."""
    hour, rows = drawn
    for each in HOURS:  # one hour at a time, so that the scan is of these rows alone
        attempt, table = new_attempt_id(), wide.now
        files = [written(wide, each, rows, attempt, TYPES)] if each == hour else []
        seal = table.seal(attempt, files, rows_read=None, rejected=0)
        wide.replace(SealedHour(each, attempt, digest(file.path for file in table.live(each)), seal))
    schema = arrow_schema_of(columns(TYPES))
    expected = pa.Table.from_pylist(rows, schema=schema).to_pylist()
    assert repr(wide.now.table.scan().to_arrow().cast(schema).to_pylist()) == repr(expected)


CUT = {  # the longest text of a column, and the bounds that are kept of it
    "short": ("abc", ("abc", "abc")),
    "sixteen": ("x" * 16, ("x" * 16, "x" * 16)),
    "long": ("x" * 17, ("x" * 16, "x" * 15 + "y")),
    "long and last": ("\U0010ffff" * 17, ("\U0010ffff" * 16, None)),
    "long, last but one": ("a" + "\U0010ffff" * 16, ("a" + "\U0010ffff" * 15, "b" + "\U0010ffff" * 15)),
    "long, of many bytes": ("é" * 17, ("é" * 16, "é" * 15 + "ê")),
    "before the surrogates": ("\ud7ff" * 17, (None, None)),
    "above 4 KiB": ("z" * 5000, (None, None)),
}


@pytest.mark.parametrize(("text", "bounds"), CUT.values(), ids=CUT)
def test_long_text_is_cut(lake: Lake, text: str, bounds: tuple[str | None, str | None]) -> None:
    """Bounds of text have 16 characters at most; the upper one is rounded up, or left out where it cannot be."""
    rows = [{"at": TEN.start, "id": 1, "name": text}]
    told = statistics(lake, written(lake, TEN, rows, "A", {"at": "timestamptz!", "id": "long!", "name": "string"}))
    assert (told["name"].get("lower_bounds"), told["name"].get("upper_bounds")) == bounds


@pytest.mark.parametrize("long_first", [True, False])
def test_text_above_4_kib_in_one_row_group_voids_the_files_bounds(catalog: Catalog, *, long_first: bool) -> None:
    """Parquet keeps no bounds of such text; the other row groups' must not pass for the file's: rows would be lost."""
    lake = Lake.create(catalog, properties=SMALL_ROW_GROUPS)
    names = ["zebra" * 1000] * 5 + ["ant"] * 5
    rows = [
        {"at": TEN.start, "id": number, "name": name}
        for number, name in enumerate(names if long_first else reversed(names))
    ]
    table = lake.now
    file = written(lake, TEN, rows, "A", {"at": "timestamptz!", "id": "long!", "name": "string"})
    lake.replace(SealedHour(TEN, "A", digest([]), table.seal("A", [file], rows_read=None, rejected=0)))
    assert statistics(lake, file)["name"].keys() == {"column_sizes", "value_counts", "null_value_counts"}
    assert lake.now.table.scan(row_filter="name > 'y'").to_arrow().num_rows == 5


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
def test_years_after_9999_have_no_bounds(catalog: Catalog, kind: str) -> None:
    """An instant that Python has no date for is written, counted and read; its column has no bounds."""
    types = {"at": "timestamptz!", "x": kind}
    lake = Lake.create(catalog, types)
    schema = arrow_schema_of(columns(types))
    far = pa.array([5_000_000], pa.int32()) if kind == "date" else pa.array([1_357_034_400_000_000_000], pa.int64())
    batch = pa.RecordBatch.from_arrays(
        [pa.array([TEN.start], schema.field("at").type), far.cast(schema.field("x").type)], schema=schema
    )
    table = lake.now
    (file,) = lake.write(TEN, [in_bucket(0, batch)], "A")
    lake.replace(SealedHour(TEN, "A", digest([]), table.seal("A", [file], rows_read=None, rejected=0)))
    assert statistics(lake, file)["x"].keys() == {"column_sizes", "value_counts", "null_value_counts"}
    assert lake.now.table.scan().to_arrow()["x"].cast(far.type).to_pylist() == far.to_pylist()


MODES = {
    "none": ({"column_sizes"}, None),
    "counts": ({"column_sizes", "value_counts", "null_value_counts"}, None),
    "full": ({"column_sizes", "value_counts", "null_value_counts", "lower_bounds", "upper_bounds"}, "b" * 20),
    "truncate(4)": ({"column_sizes", "value_counts", "null_value_counts", "lower_bounds", "upper_bounds"}, "bbbc"),
}


@pytest.mark.parametrize(("mode", "expected"), MODES.items(), ids=MODES)
@pytest.mark.parametrize("scope", ["default", "column.name"])
def test_the_metrics_mode_is_the_tables(
    catalog: Catalog, scope: str, mode: str, expected: tuple[set[str], str | None]
) -> None:
    """`write.metadata.metrics` says what is kept, for all columns or for one."""
    lake = Lake.create(catalog, properties={f"write.metadata.metrics.{scope}": mode})
    rows = events(TEN, [1])
    rows = rows.set_column(2, rows.schema.field(2), pa.array(["b" * 20]))
    told = statistics(lake, lake.write(TEN, [in_bucket(0, rows)])[0])
    assert (set(told["name"]), told["name"].get("upper_bounds")) == expected
    assert ("lower_bounds" in told["id"]) is (scope != "default" or "lower_bounds" in expected[0])


@pytest.mark.parametrize("mode", ["none", "counts", "truncate(16)"])
def test_nans_are_counted_where_counts_are(catalog: Catalog, mode: str) -> None:
    """NaN counts are kept with the other counts and never without them."""
    types = {"at": "timestamptz!", "x": "double"}
    lake = Lake.create(catalog, types, properties={"write.metadata.metrics.default": mode})
    rows = [{"at": TEN.start, "x": value} for value in (math.nan, None, math.nan, 1.0)]
    told = statistics(lake, written(lake, TEN, rows, "A", types))["x"]
    assert told.get("nan_value_counts") == (None if mode == "none" else 2)


def test_split_offsets_are_the_row_groups(catalog: Catalog) -> None:
    """Readers that split files do so where row groups begin."""
    lake = Lake.create(catalog, properties=SMALL_ROW_GROUPS)
    (file,) = lake.write(TEN, [in_bucket(0, events(TEN, range(12)))])
    table = lake.now.table
    offsets = decode_entry(file.entry, table.spec(), table.schema())["data_file"]["split_offsets"]
    assert (len(offsets), offsets[0], offsets) == (3, 4, sorted(offsets))


def test_decimals_are_stored_as_the_spec_says(wide: Lake) -> None:
    """Up to 9 digits in 4 bytes, up to 18 in 8, else in a fixed length: Iceberg's readers take no other."""
    rows = [{"at": TEN.start} | dict.fromkeys(list(TYPES)[1:])]
    for place, (name, (_, scale)) in enumerate(DECIMALS.items(), start=len(VALUES) - len(DECIMALS)):
        assert TYPES[f"c{place}"] == name
        rows[0][f"c{place}"] = Decimal(1).scaleb(-scale)
    file = written(wide, TEN, rows, new_attempt_id(), TYPES)
    footer = pq.ParquetFile(Path(file.path.removeprefix("file://"))).schema
    kinds = [footer.column(footer.names.index(f"c{len(VALUES) - 3 + place}")).physical_type for place in range(3)]
    assert kinds == ["INT32", "INT64", "FIXED_LEN_BYTE_ARRAY"]

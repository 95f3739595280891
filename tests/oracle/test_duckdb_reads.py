"""A third implementation of Iceberg reads what we commit: DuckDB's, by metadata.json, manifests and statistics."""

import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

from lakehouse_pipeline.iceberg.schemas import arrow_schema_of
from tests.iceberg.lake import ELEVEN, TEN, TWELVE, Lake, columns, in_bucket, sealed_by

EXTENSIONS = ("duckdb_extension_avro", "duckdb_extension_iceberg")
TYPES = {"at": "timestamptz!", "id": "long!", "name": "string", "ratio": "double", "tags": "list<string>"}
LONG = "x" * 15  # bounds have 16 characters


@pytest.fixture
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    """Connect to a DuckDB that reads Iceberg; it downloads nothing."""
    with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as connection:
        for name in EXTENSIONS:
            spec = find_spec(name)
            assert spec
            assert spec.origin
            (file,) = Path(spec.origin).parent.glob("extensions/*/*.duckdb_extension")
            connection.load_extension(str(file))
        yield connection


def asked(duck: duckdb.DuckDBPyConnection, lake: Lake, what: str, where: str = "true") -> Any:
    """Ask for something of the table's rows, as the catalog has it now."""
    query = f"SELECT {what} FROM iceberg_scan(?) WHERE {where}"  # the tests' own words
    return duck.execute(query, [lake.now.table.metadata_location]).fetchone()


def test_duckdb_counts_and_sums_the_same(local_catalog: Catalog, duck: duckdb.DuckDBPyConnection) -> None:
    """After replacements it finds the rows that were committed last, and only those; of the hours asked for alone."""
    lake = Lake.create(local_catalog, sort=["-id"])
    lake.put(TEN, range(1000, 0, -1))
    lake.put(ELEVEN, [7])
    lake.put(TEN, range(5000, 0, -1))
    lake.put(TWELVE, [9, 8])
    lake.put(ELEVEN, [])
    first = TEN.ordinal * 3_600_000_000
    found = asked(duck, lake, 'count(*), sum(id), min(epoch_us("at")), count(DISTINCT name)')
    assert found == (5002, 5000 * 5001 // 2 + 17, first, 5000)
    assert asked(duck, lake, "count(*), min(id)", f"\"at\" >= '{TWELVE.start.isoformat()}'") == (2, 8)
    assert asked(duck, lake, "count(*)", f"\"at\" < '{TEN.start.isoformat()}'") == (0,)


def test_duckdb_skips_no_file_that_has_the_row(local_catalog: Catalog, duck: duckdb.DuckDBPyConnection) -> None:
    """Bounds that were cut, counts of nulls and of NaN: whatever a reader leaves out by them has none of the rows."""
    lake = Lake.create(local_catalog, TYPES)
    schema = arrow_schema_of(columns(TYPES))
    names = [f"{LONG}{letter}" for letter in "abcdefgh"] + [None, "", "é" * 20, "\U0010ffff" * 17]
    ratios = [math.nan, -0.0, 0.0, math.inf, -math.inf, None, 1.5, math.nan, 2.5, 5e-324, -1.5, 3.5]
    rows = [
        {"at": TEN.start, "id": place, "name": name, "ratio": ratio, "tags": [name] if name else None}
        for place, (name, ratio) in enumerate(zip(names, ratios, strict=True))
    ]
    for place, hour in ((0, TEN), (4, ELEVEN), (8, TWELVE)):  # hours of four rows, each a file of its own
        some = [{**row, "at": hour.start} for row in rows[place : place + 4]]
        lake.replace(sealed_by(lake, hour, [in_bucket(0, pa.RecordBatch.from_pylist(some, schema=schema))]))
    assert len(lake.now.table.inspect.files()) == 3
    for name in names:
        expected = (sum(row["name"] == name for row in rows),)
        assert asked(duck, lake, "count(*)", f"name = '{name}'" if name is not None else "name IS NULL") == expected
    assert asked(duck, lake, "list(id ORDER BY id)", f"name > '{LONG}d'") == ([4, 5, 6, 7, 10, 11],)
    assert asked(duck, lake, "list(id ORDER BY id)", "isnan(ratio)") == ([0, 7],)
    assert asked(duck, lake, "list(id ORDER BY id)", "ratio > 2 AND NOT isnan(ratio)") == ([3, 8, 11],)
    assert asked(duck, lake, "list(id ORDER BY id)", "ratio <= 0") == ([1, 2, 4, 10],)
    assert asked(duck, lake, "list(id ORDER BY id)", "ratio IS NULL") == ([5],)


def test_duckdb_sees_each_snapshot(local_catalog: Catalog, duck: duckdb.DuckDBPyConnection) -> None:
    """Sequence numbers, parents' rows and operations are as it reads them; an old snapshot has its own rows."""
    lake = Lake.create(local_catalog)
    for count in (1, 2, 3):
        lake.put(TEN, range(count))
    where = [lake.now.table.metadata_location]
    listed = duck.execute("SELECT sequence_number, snapshot_id FROM iceberg_snapshots(?) ORDER BY 1", where).fetchall()
    assert listed == [(each.sequence_number, each.snapshot_id) for each in lake.now.table.snapshots()]
    for count, (_, snapshot_id) in enumerate(listed, 1):
        query = "SELECT count(*) FROM iceberg_scan(?, snapshot_from_id => ?)"
        assert duck.execute(query, [*where, snapshot_id]).fetchone() == (count,)

"""A third engine reads the Parquet files that the live manifests name, and counts and sums the same."""

import duckdb
from pyiceberg.catalog import Catalog

from tests.iceberg.lake import ELEVEN, TEN, TWELVE, Lake


def test_duckdb_counts_and_sums_the_same(local_catalog: Catalog) -> None:
    """After replacements, DuckDB finds in the live files the rows that were committed last, and only those."""
    lake = Lake.create(local_catalog, sort=["-id"])
    lake.put(TEN, range(1000, 0, -1))
    lake.put(ELEVEN, [7])
    lake.put(TEN, range(5000, 0, -1))
    lake.put(TWELVE, [9, 8])
    lake.put(ELEVEN, [])
    paths = [path.removeprefix("file://") for hour in (TEN, ELEVEN, TWELVE) for path in sorted(lake.files(hour))]
    with duckdb.connect() as connection:
        query = 'SELECT count(*), sum(id), min(epoch_us("at")), count(DISTINCT name) FROM read_parquet(?)'
        found = connection.execute(query, [paths]).fetchone()
    assert found == (5002, 5000 * 5001 // 2 + 17, TEN.ordinal * 3_600_000_000, 5000)

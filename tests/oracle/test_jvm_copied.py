"""Files of copied row groups: readers of three kinds find in them what they found in the files that were copied."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from pyiceberg.catalog import Catalog

from tests.iceberg.lake import TEN, Lake
from tests.maintenance.test_compaction import compacted, data, left_over, put
from tests.oracle.foreign import sql_name
from tests.oracle.jvm import Jvm

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(1200)]  # the first test may have to install Spark

FILES, ROWS = 6, 500
ID, NAME = pc.field("id"), pc.field("name")
FILTERS = {  # in the words of SQL and of Arrow; each leaves out row groups, or pages, by their statistics
    "id = 1234": ID == 1234,
    "id BETWEEN 990 AND 1010": (ID >= 990) & (ID <= 1010),
    "id > 2990": ID > 2990,
    "id < 0": ID < 0,
    "name = 'event 1234'": NAME == "event 1234",
    "name > 'event 99'": NAME > "event 99",
    "name IS NULL": NAME.is_null(),
}
Answers = Mapping[str, tuple[int, int]]


def by_duckdb(files: list[Path], where: str) -> tuple[int, int]:
    """Count rows, and add up their ids."""
    with duckdb.connect() as connection:
        query = f"SELECT count(*), coalesce(sum(id), 0) FROM read_parquet(?) WHERE {where}"
        found: Any = connection.execute(query, [[str(file) for file in files]]).fetchone()
    return int(found[0]), int(found[1])


def by_arrow(files: list[Path], where: str) -> tuple[int, int]:
    """Count rows, and add up their ids."""
    ids = ds.dataset([str(file) for file in files]).to_table(filter=FILTERS[where]).column("id")
    return len(ids), pc.sum(ids).as_py() or 0


def by_jvm(jvm: Jvm, lake: Lake, where: str) -> tuple[int, int]:
    """Count rows, and add up their ids."""
    (row,) = jvm.sql(f"SELECT count(*) AS n, coalesce(sum(id), 0) AS ids FROM {sql_name(lake)} WHERE {where}")
    return row["n"], row["ids"]


def answers(jvm: Jvm, lake: Lake, folder: Path) -> Mapping[str, Answers]:
    """Give what each reader finds by each filter."""
    folder.mkdir()
    files = []
    for place, url in enumerate(data(lake)):
        files.append(folder / f"{place}.parquet")
        files[-1].write_bytes(lake.now.files.get(url).body)
    return {
        "DuckDB": {where: by_duckdb(files, where) for where in FILTERS},
        "Arrow": {where: by_arrow(files, where) for where in FILTERS},
        "the JVM": {where: by_jvm(jvm, lake, where) for where in FILTERS},
    }


def test_readers_find_the_same(jvm: Jvm, rest_catalog: Catalog, tmp_path: Path) -> None:
    """In one file of six row groups as in six files of one."""
    lake = Lake.create(rest_catalog)
    put(lake, TEN, [list(range(place * ROWS, (place + 1) * ROWS)) for place in range(FILES)])
    before = answers(jvm, lake, tmp_path / "before")
    assert len({str(found) for found in before.values()}) == 1
    assert before["Arrow"]["id BETWEEN 990 AND 1010"] == (21, sum(range(990, 1011)))
    done = compacted(lake, copy_row_groups="1KB")[TEN]
    assert (done.error, done.files, [strategy for strategy, _ in done.strategies]) == (None, 1, ["copy"])
    assert answers(jvm, lake, tmp_path / "copied") == before
    assert left_over(lake) == set()

"""The JVM's Iceberg reads what compaction has written, and finds nothing of what it did away with."""

import pytest
from pyiceberg.catalog import Catalog

from tests.iceberg.lake import ELEVEN, TEN, Lake
from tests.maintenance.test_compaction import FILES, IDS, compacted, put
from tests.oracle.jvm import Jvm

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(1200)]  # the first test may have to install Spark

MERGE_ON_READ = {f"write.{verb}.mode": "merge-on-read" for verb in ("delete", "update", "merge")}


@pytest.mark.parametrize("sort", [[], ["-id"]], ids=["unsorted", "sorted"])
def test_deletes_of_the_jvm_are_written_away(jvm: Jvm, rest_catalog: Catalog, sort: list[str]) -> None:
    """Rows that its `DELETE` and `UPDATE` took are gone, and the delete files, too; the others are as they were."""
    lake = Lake.create(rest_catalog, sort=sort, properties=MERGE_ON_READ)
    put(lake, TEN, [[number + 10, number] for number in reversed(IDS)])
    put(lake, ELEVEN, [[7]])
    table = f"{jvm.catalog}.{lake.identifier}"
    jvm.sql(f"DELETE FROM {table} WHERE id < 10 AND id % 2 = 0")
    jvm.sql(f"UPDATE {table} SET name = 'changed' WHERE id = 11")
    rows = f"SELECT id, name FROM {table} ORDER BY id"
    before = jvm.sql(rows)
    assert len(before) == 2 * FILES - 3 + 1
    assert jvm.sql(f"SELECT count(*) AS n FROM {table}.delete_files")[0]["n"] > 0
    done = compacted(lake)
    assert [done[hour].error for hour in done] == [None]
    assert jvm.sql(rows) == before
    (files,) = jvm.sql(f"SELECT count(*) AS n, sum(record_count) AS rows FROM {table}.files")
    assert (files["n"], files["rows"]) == (2, len(before))
    assert jvm.sql(f"SELECT count(*) AS n FROM {table}.delete_files")[0]["n"] == 0
    (last,) = jvm.sql(f"SELECT operation FROM {table}.snapshots ORDER BY committed_at DESC LIMIT 1")
    assert last["operation"] == "replace"

"""The JVM's Iceberg reads what compaction has written, and finds nothing of what it did away with."""

from typing import Any

import pytest
from pyiceberg.catalog import Catalog

from lakehouse_pipeline.errors import DataError
from lakehouse_pipeline.maintenance import compaction
from lakehouse_pipeline.maintenance.rewrite import GroupTask, Rewritten, rewrite_group
from tests.iceberg.lake import ELEVEN, TEN, Lake, events
from tests.maintenance.test_compaction import FILES, IDS, compacted, left_over, put, ran
from tests.oracle.foreign import SHAPES, rows_of, sql_name
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


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_others(jvm: Jvm, rest_catalog: Catalog, shape: str) -> None:
    """The JVM reads the same rows before and after, in fewer files, and no delete file is left."""
    made = SHAPES[shape](jvm, rest_catalog)
    lake, table = made.lake, sql_name(made.lake)
    assert rows_of(jvm, lake) == made.rows
    before, others = files_of(jvm, table), left_over(lake)  # what the JVM wrote, and did not commit
    for _ in range(2):  # deletes of all hours can go only when all hours are done
        done = compacted(lake, delete_file_threshold=1)
        assert [done[hour].error for hour in done] == [None] * len(done)
    assert rows_of(jvm, lake) == made.rows
    after = files_of(jvm, table)
    assert after[0] < before[0]
    assert after[1] == 0
    assert compacted(lake) == {}
    assert left_over(lake) <= others


def files_of(jvm: Jvm, table: str) -> tuple[int, int]:
    """Count a table's data files and delete files."""
    (data,) = jvm.sql(f"SELECT count(*) AS n FROM {table}.data_files")
    (deletes,) = jvm.sql(f"SELECT count(*) AS n FROM {table}.delete_files")
    return data["n"], deletes["n"]


def test_deletes_stay_as_long_as_a_part_of_the_hour_does(
    jvm: Jvm, rest_catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that fails keeps the deletes of its files, whatever became of the other parts; then they go."""
    lake = Lake.create(rest_catalog)
    put(lake, TEN, [[number, number + 10] for number in IDS])
    table = sql_name(lake)
    jvm.delete_equal(table, ["id"], [[number] for number in IDS], partition=[TEN.ordinal])
    rows = f"SELECT id, name FROM {table} ORDER BY id"
    before, whole = jvm.sql(rows), rewrite_group
    assert len(before) == FILES
    failed = list[GroupTask]()

    def fails_once(task: GroupTask) -> Rewritten:
        if failed:
            return whole(task)
        failed.append(task)
        raise DataError("this part")

    size = max(file.bytes for file in lake.now.live(TEN))
    parts: dict[str, Any] = {
        "groups_per_commit": 1,
        "max_file_group_size": f"{2.2 * size / 1000:.3f}KB",
        "delete_file_threshold": 1,
    }
    monkeypatch.setattr(compaction, "rewrite_group", fails_once)
    done = ran(lake, **parts)
    assert [str(each.error) for each in done if each.error] == ["this part"]
    assert len(done) == FILES / 2
    assert jvm.sql(rows) == before
    assert files_of(jvm, table)[1] == 1
    assert [each.error for each in ran(lake, **parts)] == [None]
    assert jvm.sql(rows) == before
    assert files_of(jvm, table)[1] == 0
    assert left_over(lake) == set()


def test_deletes_of_all_hours_go_beside_other_hours(jvm: Jvm, rest_catalog: Catalog) -> None:
    """With one hour of a commit that has others, which know of them, too."""
    made = SHAPES["unpartitioned_deletes"](jvm, rest_catalog)
    lake, table = made.lake, sql_name(made.lake)
    assert [each.error for each in compacted(lake, delete_file_threshold=1).values()] == [None, None]
    assert files_of(jvm, table)[1] == 1  # it may have been of any hour until now
    for hour in (TEN, ELEVEN):
        for number in IDS:
            lake.append(events(hour, [1000 + number]))
    before = jvm.sql(f"SELECT id, name FROM {table} ORDER BY id, name")
    done = compacted(lake)
    assert [each.error for each in done.values()] == [None, None]
    assert files_of(jvm, table)[1] == 0
    assert jvm.sql(f"SELECT id, name FROM {table} ORDER BY id, name") == before

"""What the JVM deletes while we compact stays deleted, and what it adds stays: it reads the right rows."""

from collections.abc import Callable

import pytest
from pyiceberg.catalog import Catalog

from tests.iceberg.lake import ELEVEN, TEN, Lake
from tests.maintenance.test_compaction import FILES, IDS, MOMENTS, compacted, compacted_while, left_over, put
from tests.oracle.foreign import MERGE_ON_READ, sql_name
from tests.oracle.jvm import Jvm

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(1200)]  # the first test may have to install Spark

ALL = [*IDS, *range(10, 10 + FILES)]


@pytest.fixture
def table(rest_catalog: Catalog) -> Lake:
    """Give a table with an hour of small files of two rows, and one of a single file."""
    lake = Lake.create(rest_catalog, properties=MERGE_ON_READ)
    put(lake, TEN, [[number, number + 10] for number in IDS])
    put(lake, ELEVEN, [[7]])
    return lake


def ids(jvm: Jvm, lake: Lake) -> list[int]:
    """Read the hour as the JVM does."""
    return [row["id"] for row in jvm.sql(f"SELECT id FROM {sql_name(lake)} WHERE hour(at) = 10 ORDER BY id")]


def insert(jvm: Jvm, lake: Lake, number: int) -> None:
    """Append a row to the hour."""
    jvm.sql(f"INSERT INTO {sql_name(lake)} VALUES (TIMESTAMP '2013-01-01 10:00:00', {number}, 'new')")


def by_statement(jvm: Jvm, lake: Lake) -> None:
    """Delete as Spark does: a file of positions for each data file."""
    jvm.sql(f"DELETE FROM {sql_name(lake)} WHERE id = 3")


def by_positions(jvm: Jvm, lake: Lake) -> None:
    """Delete with a file of positions that is of the whole partition."""
    places = jvm.positions(sql_name(lake), "id IN (3, 4)")
    jvm.delete_positions(sql_name(lake), places, partition=[TEN.ordinal])


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("deletes", "gone"), [(by_statement, {3}), (by_positions, {3, 4})])
def test_positions_that_are_deleted_meanwhile(
    jvm: Jvm, table: Lake, moment: str, deletes: Callable[[Jvm, Lake], None], gone: set[int]
) -> None:
    """With an append after it: the compaction steps aside, and the next one writes the rows away."""

    def meanwhile() -> None:
        deletes(jvm, table)
        insert(jvm, table, 99)

    assert compacted_while(table, moment, meanwhile).stepped_aside
    left = [*(number for number in ALL if number not in gone), 99]
    assert ids(jvm, table) == left
    assert left_over(table) == set()
    assert compacted(table, delete_file_threshold=1)[TEN].error is None
    assert ids(jvm, table) == left


@pytest.mark.parametrize("moment", MOMENTS)
def test_equal_rows_that_are_deleted_meanwhile(jvm: Jvm, table: Lake, moment: str) -> None:
    """And added again: the delete goes on applying to the new files, which are as old as what was read."""

    def meanwhile() -> None:
        jvm.delete_equal(sql_name(table), ["id"], [[3], [4]], partition=[TEN.ordinal])
        insert(jvm, table, 3)

    done = compacted_while(table, moment, meanwhile)
    assert done.stepped_aside == (moment == "planned")
    left = [number for number in ALL if number != 4]
    assert ids(jvm, table) == left
    assert compacted(table, delete_file_threshold=1)[TEN].error is None
    assert ids(jvm, table) == left
    assert jvm.sql(f"SELECT count(*) AS n FROM {sql_name(table)}.delete_files")[0]["n"] == 0
    assert left_over(table) == set()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("how", ["positions", "equal"])
def test_a_delete_that_is_rolled_back_meanwhile(jvm: Jvm, table: Lake, moment: str, how: str) -> None:
    """Rows that were read as deleted are back: they stay, and the compaction steps aside."""
    before = table.now.head
    assert before is not None
    if how == "positions":
        by_positions(jvm, table)
    else:
        jvm.delete_equal(sql_name(table), ["id"], [[3], [4]], partition=[TEN.ordinal])
    done = compacted_while(
        table,
        moment,
        lambda: table.now.table.manage_snapshots().rollback_to_snapshot(before).commit(),
        delete_file_threshold=1,
    )
    assert ids(jvm, table) == ALL
    assert done.stepped_aside
    assert left_over(table) == set()


def test_a_delete_that_comes_back_meanwhile(jvm: Jvm, table: Lake) -> None:
    """The table was rolled back to before a delete, is read so, and set forward again: its rows stay deleted."""
    before = table.now.head
    assert before is not None
    by_positions(jvm, table)
    after = table.now.head
    assert after is not None
    table.now.table.manage_snapshots().rollback_to_snapshot(before).commit()
    done = compacted_while(
        table,
        "attempt.sealed",
        lambda: table.now.table.manage_snapshots().set_current_snapshot(snapshot_id=after).commit(),
    )
    assert ids(jvm, table) == [number for number in ALL if number not in {3, 4}]
    assert done.stepped_aside
    assert left_over(table) == set()


def test_equal_rows_of_an_earlier_spec_that_are_deleted_meanwhile(jvm: Jvm, table: Lake) -> None:
    """They are of files of that spec alone: what was written anew for the current one would keep them."""
    name = sql_name(table)
    jvm.sql(f"ALTER TABLE {name} ADD PARTITION FIELD bucket(2, id)")

    def meanwhile() -> None:
        jvm.delete_equal(name, ["id"], [[3]], partition=[TEN.ordinal], spec=0)

    assert compacted_while(table, "attempt.sealed", meanwhile, min_input_files=2).stepped_aside
    left = [number for number in ALL if number != 3]
    assert ids(jvm, table) == left
    assert compacted(table, delete_file_threshold=1)[TEN].error is None
    assert ids(jvm, table) == left
    assert left_over(table) == set()

"""What the oracle deletes through Iceberg's Java API is gone for the JVM's reader, and nothing else is."""

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from pyiceberg.catalog import Catalog

from lakehouse_pipeline.config.health import HealthSettings
from lakehouse_pipeline.status.health import health_of_whole
from lakehouse_pipeline.status.upkeep import measure
from tests.iceberg.lake import TEN, Lake, spec_of
from tests.oracle.jvm import EQUALITY_DELETES, POSITION_DELETES, Jvm, JvmError

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(1200)]  # the first test may have to install Spark

TYPES = {
    "at": "timestamptz!",
    "id": "int!",
    "number": "long",
    "text": "string",
    "price": "decimal(10,2)",
    "moment": "timestamptz",
    "day": "date",
    "ratio": "double",
    "raw": "binary",
}


class Deleting:
    """A table whose rows are numbered, and what is left of it."""

    def __init__(self, jvm: Jvm, catalog: Catalog) -> None:
        """Create it, with rows 1 to 4 in one hour, 3 and 4 of nulls, and row 1 in the next hour too."""
        self.jvm = jvm
        self.name = f"{jvm.catalog}.{Lake.create(catalog, TYPES).identifier}"
        self.insert(
            "('2013-01-01 10:00', 1, 5, 'a', 1.50, '2013-01-01 01:02:03.000004', DATE '1969-12-31', 0.5D, X'00ff')",
            "('2013-01-01 10:00', 2, 6000000000, 'b', -0.01, '2013-01-02', DATE '2013-01-01', double('NaN'), X'')",
            "('2013-01-01 10:00', 3, NULL, 'a', NULL, NULL, NULL, NULL, NULL)",
            "('2013-01-01 10:00', 4, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
            "('2013-01-01 11:00', 1, 5, 'a', 1.50, '2013-01-01 01:02:03.000004', DATE '1969-12-31', 0.5D, X'00ff')",
        )

    def insert(self, *rows: str) -> None:
        """Append rows in one snapshot."""
        columns = "timestamp(at), id, number, text, price, timestamp(moment), day, ratio, raw"
        values = f"VALUES {', '.join(rows)} AS t({', '.join(TYPES)})"
        self.jvm.sql(f"INSERT INTO {self.name} SELECT {columns} FROM {values}")

    def left(self) -> list[int]:
        """Give the ids that are left in the first hour, and those of the next as negative ones."""
        found = self.jvm.sql(f"SELECT if(hour(at) = 10, id, -id) AS id FROM {self.name} ORDER BY at, id")
        return [row["id"] for row in found]

    def delete_files(self) -> list[tuple[int, list[int] | None]]:
        """Give each delete file's content and the ids of its key's columns."""
        found = self.jvm.sql(f"SELECT content, equality_ids FROM {self.name}.delete_files")
        return [(row["content"], row["equality_ids"]) for row in found]


@pytest.fixture
def table(jvm: Jvm, rest_catalog: Catalog) -> Deleting:
    """Give a table to delete from."""
    return Deleting(jvm, rest_catalog)


@pytest.mark.parametrize(
    ("columns", "keys", "left"),
    [
        pytest.param(["id"], [[1], [4], [9]], [2, 3], id="int"),
        pytest.param(["number"], [[5]], [2, 3, 4], id="small long"),
        pytest.param(["number"], [[6_000_000_000], [None]], [1], id="long and null"),
        pytest.param(["text"], [["a"]], [2, 4], id="string"),
        pytest.param(["price"], [[Decimal("-0.01")]], [1, 3, 4], id="decimal"),
        pytest.param(["moment"], [[datetime(2013, 1, 1, 1, 2, 3, 4, UTC)]], [2, 3, 4], id="timestamptz"),
        pytest.param(["day"], [[date(1969, 12, 31)], [date(2013, 1, 1)]], [3, 4], id="date"),
        pytest.param(["ratio"], [[0.5], [math.nan]], [3, 4], id="double and NaN"),
        pytest.param(["raw"], [[b"\x00\xff"], [b""]], [3, 4], id="binary"),
        pytest.param(["text", "number"], [["a", None], ["b", 5], [None, None]], [1, 2], id="two columns"),
    ],
)
def test_equal_rows_of_the_partition_are_gone(
    table: Deleting, columns: list[str], keys: list[Sequence[Any]], left: list[int]
) -> None:
    """By the values of each type, nulls included, and in no other hour."""
    path = table.jvm.delete_equal(table.name, columns, keys, partition=[TEN.ordinal])
    assert path.startswith("s3://")
    assert table.left() == [*left, -1]
    assert table.delete_files() == [(EQUALITY_DELETES, [list(TYPES).index(column) + 1 for column in columns])]


def test_health_tells_what_readers_have_to_apply(table: Deleting, rest_catalog: Catalog) -> None:
    """Rows of delete files for each row: two of five are more than a tenth."""
    lake = Lake(rest_catalog, table.name.removeprefix(f"{table.jvm.catalog}."))
    spec = spec_of(TYPES, {"table": lake.identifier})
    assert measure(spec, lake.now, datetime.now(UTC)).delete_ratio == 0
    table.jvm.delete_equal(table.name, ["id"], [[1], [4]], partition=[TEN.ordinal])
    found = measure(spec, lake.now, datetime.now(UTC))
    assert found.delete_ratio == pytest.approx(2 / 5)
    broken = [each.check for each in health_of_whole(spec, HealthSettings(), found) if not each.passed]
    assert broken == ["delete_ratio"]


def test_rows_that_are_added_later_stay(table: Deleting) -> None:
    """A delete is of the rows before it."""
    table.jvm.delete_equal(table.name, ["id"], [[1], [2]], partition=[TEN.ordinal])
    table.insert("('2013-01-01 10:00', 1, 7, 'new', NULL, NULL, NULL, NULL, NULL)")
    assert table.left() == [1, 3, 4, -1]


def test_a_column_that_is_renamed_later_deletes_still(table: Deleting) -> None:
    """A delete file knows its columns by their ids."""
    table.jvm.delete_equal(table.name, ["text"], [["a"]], partition=[TEN.ordinal])
    table.jvm.sql(f"ALTER TABLE {table.name} RENAME COLUMN text TO words")
    assert table.left() == [2, 4, -1]


def test_a_column_that_is_dropped_later_makes_the_table_unreadable(table: Deleting) -> None:
    """Not the harness, but the JVM's Iceberg 1.10: it looks the column up in the current schema, and has no answer."""
    table.jvm.delete_equal(table.name, ["text"], [["a"]], partition=[TEN.ordinal])
    table.jvm.sql(f"ALTER TABLE {table.name} DROP COLUMN text")
    with pytest.raises(JvmError, match="canContainEqDeletesForFile"):
        table.left()
    table.jvm.sql(f"ALTER TABLE {table.name} ADD COLUMN text string")
    with pytest.raises(JvmError, match="canContainEqDeletesForFile"):
        table.left()


def test_an_unpartitioned_spec_deletes_everywhere(table: Deleting) -> None:
    """Which a table has that was not partitioned for a while; without one the partition has to be said."""
    with pytest.raises(JvmError, match="no spec of the table is unpartitioned"):
        table.jvm.delete_equal(table.name, ["id"], [[1]])
    table.jvm.sql(f"ALTER TABLE {table.name} DROP PARTITION FIELD at_hour")
    table.jvm.sql(f"ALTER TABLE {table.name} ADD PARTITION FIELD hours(at) AS at_hour")
    table.jvm.delete_equal(table.name, ["id"], [[1]])
    assert table.left() == [2, 3, 4]


def test_positions_of_several_files(table: Deleting) -> None:
    """One delete file of the partition names them, and one names a data file that is no longer live."""
    for number in (7, 8):
        table.insert(f"('2013-01-01 10:00', {number}, NULL, NULL, NULL, NULL, NULL, NULL, NULL)")
    places, gone = (table.jvm.positions(table.name, f"hour(at) = 10 AND id IN {ids}") for ids in ("(1, 3, 7)", "(8)"))
    table.jvm.sql(f"DELETE FROM {table.name} WHERE id = 8")
    assert table.delete_files() == []
    table.jvm.delete_positions(table.name, places, partition=[TEN.ordinal])
    table.jvm.delete_positions(table.name, gone, partition=[TEN.ordinal])
    assert (len(places), table.left()) == (2, [2, 4, -1])
    assert table.delete_files() == [(POSITION_DELETES, None), (POSITION_DELETES, None)]

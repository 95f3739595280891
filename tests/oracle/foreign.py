"""Tables as others leave them: an hour of small files that the JVM wrote, deleted from and evolved, of every shape.

Each function makes a table of its own in the shared catalog, with the files in `TEN` and one row in `ELEVEN` that
nobody touches. What is done with them is for the tests that ask.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pyiceberg.catalog import Catalog

from lakehouse_pipeline.hours import HourWindow
from tests.iceberg.lake import ELEVEN, EVENTS, TEN, Lake
from tests.oracle.jvm import Jvm

MERGE_ON_READ = {f"write.{verb}.mode": "merge-on-read" for verb in ("delete", "update", "merge")}
FILES = 6
PER_FILE = 10


@dataclass(frozen=True)
class Foreign:
    """A table, and the rows that the JVM reads in it, in an order of their own."""

    lake: Lake
    rows: list[str]


def sql_name(lake: Lake) -> str:
    """Give the table's name in Spark."""
    return f"{Jvm.catalog}.{lake.identifier}"


def rows_of(jvm: Jvm, lake: Lake) -> list[str]:
    """Give all rows as the JVM reads them, each as JSON of all its columns, sorted: equal if the tables' rows are."""
    return sorted(json.dumps(row, sort_keys=True) for row in jvm.sql(f"SELECT * FROM {sql_name(lake)}"))


def merge_on_read(jvm: Jvm, catalog: Catalog) -> Foreign:
    """Position deletes of `DELETE`, `UPDATE` and `MERGE`.

    Those of `DELETE` are a file per data file, the others one of the partition. More of them repeat what is deleted
    already, or speak of a data file that is no longer live.
    """
    lake = Lake.create(catalog, properties=MERGE_ON_READ)
    name = sql_name(lake)
    _fill(jvm, lake)
    jvm.sql(f"DELETE FROM {name} WHERE hour(at) = 10 AND id % 10 IN (3, 4)")
    jvm.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ('write.delete.granularity' = 'partition')")
    jvm.sql(f"UPDATE {name} SET name = 'updated' WHERE hour(at) = 10 AND id % 10 = 5")
    jvm.sql(
        f"MERGE INTO {name} AS t USING (SELECT {_at(TEN)} AS at, explode(array(1, 11, 26, 777)) AS id) AS s "
        "ON t.id = s.id AND t.at >= s.at AND t.at < s.at + INTERVAL 1 HOUR WHEN MATCHED AND s.id = 11 THEN DELETE "
        "WHEN MATCHED THEN UPDATE SET name = 'merged' "
        "WHEN NOT MATCHED THEN INSERT (at, id, name) VALUES (s.at, s.id, 'new')"
    )
    jvm.sql(f"INSERT INTO {name} {_events(TEN, [900, 901])}")
    gone = jvm.positions(name, "id >= 900")
    jvm.sql(f"DELETE FROM {name} WHERE id >= 900")  # a whole file: no delete file is written
    jvm.delete_positions(name, gone, partition=[TEN.ordinal])
    files = jvm.positions(name, f"hour(at) = 10 AND id < {FILES * PER_FILE}")
    jvm.delete_positions(name, {file: range(5) for file in sorted(files)[:3]}, partition=[TEN.ordinal])
    return Foreign(lake, rows_of(jvm, lake))


def equality_deletes(jvm: Jvm, catalog: Catalog) -> Foreign:
    """Equality deletes by one column, by two and of nulls, and rows of the same keys before and after each."""
    lake = Lake.create(catalog, {**EVENTS, "kind": "string"})
    name, ten = sql_name(lake), [TEN.ordinal]
    kind = "CASE id % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'b' END"

    def insert(ids: Iterable[int]) -> None:
        jvm.sql(f"INSERT INTO {name} SELECT *, {kind} FROM ({_events(TEN, ids)})")

    jvm.sql(f"INSERT INTO {name} SELECT *, NULL FROM ({_events(ELEVEN, [1])})")
    insert(range(10))
    insert(range(10, 20))
    jvm.delete_equal(name, ["id"], [[3], [4], [13], [999]], partition=ten)
    insert([*range(20, 30), 3])
    jvm.delete_equal(name, ["kind", "name"], [["a", "event 6"], [None, "event 8"], ["b", "event 9"]], partition=ten)
    insert([*range(30, 40), 6, 8])
    jvm.delete_equal(name, ["kind"], [[None]], partition=ten)
    insert([*range(40, 50), 2])
    jvm.delete_equal(name, ["name", "id"], [["event 3", 3], [None, 2], ["event 40", 40]], partition=ten)
    insert([*range(50, 60), 3])
    return Foreign(lake, rows_of(jvm, lake))


def unpartitioned_deletes(jvm: Jvm, catalog: Catalog) -> Foreign:
    """Equality deletes of a spec without fields, which are of every hour; the table has the hour's again since."""
    lake = Lake.create(catalog)
    name = sql_name(lake)
    _fill(jvm, lake)
    jvm.sql(f"INSERT INTO {name} {_events(ELEVEN, [2, 3])}")
    jvm.sql(f"ALTER TABLE {name} DROP PARTITION FIELD at_hour")
    jvm.sql(f"ALTER TABLE {name} ADD PARTITION FIELD hours(at) AS at_hour")
    jvm.delete_equal(name, ["id"], [[2], [22]])
    jvm.sql(f"INSERT INTO {name} {_events(TEN, [22])}")
    return Foreign(lake, rows_of(jvm, lake))


def schema_evolution(jvm: Jvm, catalog: Catalog) -> Foreign:
    """Files of eight schemas: columns added, renamed, dropped, added again under the old name, made wider, nested."""
    types = {
        "at": "timestamptz!",
        "id": "long!",
        "number": "int",
        "ratio": "float",
        "price": "decimal(9,2)",
        "name": "string",
        "label": "string",
        "place": "struct<city:string,zip:int>",
    }
    lake = Lake.create(catalog, types)
    name = sql_name(lake)

    def insert(*rows: str) -> None:
        jvm.sql(f"INSERT INTO {name} VALUES {', '.join(f'({row})' for row in rows)}")

    base = "{at}, {id}, {id}, 0.1F, -1234567.89, 'name {id}', 'label {id}', named_struct('city', 'Köln', 'zip', {id})"
    nulls = "{at}, {id}, NULL, NULL, NULL, NULL, NULL, NULL"
    insert(base.format(at=_at(ELEVEN), id=1))
    insert(base.format(at=_at(TEN), id=10), nulls.format(at=_at(TEN), id=11))
    jvm.sql(f"ALTER TABLE {name} ADD COLUMN extra string")
    insert(base.format(at=_at(TEN), id=20) + ", 'extra'", nulls.format(at=_at(TEN), id=21) + ", NULL")
    jvm.sql(f"ALTER TABLE {name} RENAME COLUMN name TO title")
    insert(base.format(at=_at(TEN), id=30) + ", 'extra'")
    jvm.sql(f"ALTER TABLE {name} DROP COLUMN label")
    place = "named_struct('city', 'Bonn', 'zip', 1)"
    insert(f"{_at(TEN)}, 40, 1, 0.2F, 0.01, 'title 40', {place}, 'extra'")
    jvm.sql(f"ALTER TABLE {name} ADD COLUMN label bigint FIRST")
    insert(f"6000000000, {_at(TEN)}, 50, 1, 0.3F, 0.02, 'title 50', {place}, 'extra'")
    for column, wider in (("number", "bigint"), ("ratio", "double"), ("price", "decimal(18,2)")):
        jvm.sql(f"ALTER TABLE {name} ALTER COLUMN {column} TYPE {wider}")
    insert(f"1, {_at(TEN)}, 60, 6000000000, 0.1D, 1234567890123456.78, 'title 60', {place}, 'extra'")
    jvm.sql(f"ALTER TABLE {name} ALTER COLUMN price TYPE decimal(38,2)")
    insert(f"NULL, {_at(TEN)}, 70, -1, 1e300D, {'9' * 36}.99, 'title 70', {place}, NULL")
    jvm.sql(f"ALTER TABLE {name} ADD COLUMN place.country string")
    jvm.sql(f"ALTER TABLE {name} ALTER COLUMN place.zip TYPE bigint")
    jvm.sql(f"ALTER TABLE {name} RENAME COLUMN place.city TO town")
    wide = "named_struct('town', 'Trier', 'zip', 6000000000, 'country', 'DE')"
    insert(f"2, {_at(TEN)}, 80, 8, 0.8D, 8, 'title 80', {wide}, 'extra'", f"NULL, {_at(TEN)}, 81{', NULL' * 6}")
    return Foreign(lake, rows_of(jvm, lake))


def spec_evolution(jvm: Jvm, catalog: Catalog) -> Foreign:
    """Files of two specs in the hour, the later with a bucket beside it, and position deletes of both."""
    return _of_two_specs(jvm, catalog, equal=False)


def deletes_of_two_specs(jvm: Jvm, catalog: Catalog) -> Foreign:
    """The same with equality deletes of each spec too: each is of its own partition's rows alone."""
    return _of_two_specs(jvm, catalog, equal=True)


def _of_two_specs(jvm: Jvm, catalog: Catalog, *, equal: bool) -> Foreign:
    lake = Lake.create(catalog, properties=MERGE_ON_READ)
    name = sql_name(lake)
    _fill(jvm, lake)
    if equal:
        jvm.delete_equal(name, ["id"], [[2], [12]], partition=[TEN.ordinal])
    jvm.sql(f"ALTER TABLE {name} ADD PARTITION FIELD bucket(2, id)")
    for first in range(FILES * PER_FILE, 2 * FILES * PER_FILE, PER_FILE):
        jvm.sql(f"INSERT INTO {name} {_events(TEN, range(first, first + PER_FILE))}")
    if equal:
        for bucket in (0, 1):
            jvm.delete_equal(name, ["id"], [[1], [71], [72], [73]], partition=[TEN.ordinal, bucket])
    jvm.sql(f"DELETE FROM {name} WHERE hour(at) = 10 AND id % 10 IN (5, 6)")
    jvm.sql(f"INSERT INTO {name} {_events(TEN, [2, 71, 72])}")
    return Foreign(lake, rows_of(jvm, lake))


# By column its type, and what it is in three rows, in SQL; a fourth is null throughout.
NESTED = {
    "place": (
        "struct<city:string,at:struct<x:double,y:float>>",
        "named_struct('city', 'Köln', 'at', named_struct('x', double('NaN'), 'y', float('-0.0')))",
        "named_struct('city', NULL, 'at', NULL)",
        "named_struct('city', '', 'at', named_struct('x', NULL, 'y', 0.1F))",
    ),
    "tags": ("list<string>", "array('a', NULL, '')", "array()", "array('🜂')"),
    "levels": ("map<string,long>", "map('one', 1, 'none', NULL)", "map()", "map('', -1)"),
    "pairs": (
        "list<struct<a:int,b:list<double>>>",
        "array(named_struct('a', 1, 'b', array(double('NaN'), NULL, double('-0.0'))), NULL)",
        "array()",
        "array(named_struct('a', NULL, 'b', array()))",
    ),
    "deep": (
        "map<int,struct<day:date,price:decimal(20,3)>>",
        "map(1, named_struct('day', DATE '2013-01-01', 'price', 1.5), 2, NULL)",
        "map()",
        "map(3, named_struct('day', NULL, 'price', NULL))",
    ),
    "small": ("decimal(5,1)", "-1234.5", "0", "0.1"),
    "middle": ("decimal(18,4)", "12345678901234.5678", "-0.0001", "99999999999999.9999"),
    "large": ("decimal(38,10)", "9999999999999999999999999999.0123456789", "-0.0000000001", "1"),
    "raw": ("binary", "X'00ff'", "X''", "X'deadbeef'"),
    "day": ("date", "DATE '1969-12-31'", "DATE '9999-12-31'", "DATE '0001-01-01'"),
    "moment": (
        "timestamp",
        "TIMESTAMP_NTZ '1969-12-31 23:59:59.999999'",
        "TIMESTAMP_NTZ '2013-01-01 00:00:00'",
        "TIMESTAMP_NTZ '1900-01-01 00:00:00'",
    ),
    "flag": ("boolean", "true", "false", "NULL"),
    "number": ("int", "-2147483648", "0", "2147483647"),
    "x": ("double", "double('NaN')", "double('-0.0')", "double('-Infinity')"),
    "y": ("float", "float('-0.0')", "float('NaN')", "float('Infinity')"),
}


def nested_columns(jvm: Jvm, catalog: Catalog) -> Foreign:
    """Structs, lists and maps in each other and every primitive type, with nulls at each level, NaN, and -0.0."""
    types = {"at": "timestamptz!", "id": "long!", **{column: values[0] for column, values in NESTED.items()}}
    lake = Lake.create(catalog, types)
    rows = [", ".join(values[place] for values in NESTED.values()) for place in (1, 2, 3)]
    rows.append(", ".join("NULL" for _ in NESTED))
    jvm.sql(f"INSERT INTO {sql_name(lake)} VALUES ({_at(ELEVEN)}, 1, {rows[0]})")
    for first in range(0, FILES * len(rows), len(rows)):
        values = ", ".join(f"({_at(TEN, number)}, {number}, {row})" for number, row in enumerate(rows, first))
        jvm.sql(f"INSERT INTO {sql_name(lake)} VALUES {values}")
    return Foreign(lake, rows_of(jvm, lake))


SHAPES: Mapping[str, Callable[[Jvm, Catalog], Foreign]] = {
    made.__name__: made
    for made in (
        merge_on_read,
        equality_deletes,
        unpartitioned_deletes,
        schema_evolution,
        spec_evolution,
        deletes_of_two_specs,
        nested_columns,
    )
}


def _fill(jvm: Jvm, lake: Lake) -> None:
    """Append an event to `ELEVEN`, and files of events to `TEN`."""
    jvm.sql(f"INSERT INTO {sql_name(lake)} {_events(ELEVEN, [1])}")
    for first in range(0, FILES * PER_FILE, PER_FILE):
        jvm.sql(f"INSERT INTO {sql_name(lake)} {_events(TEN, range(first, first + PER_FILE))}")


def _events(hour: HourWindow, ids: Iterable[int]) -> str:
    """Give a query of events, a second apart."""
    values = ", ".join(f"({_at(hour, number)}, {number}L, 'event {number}')" for number in ids)
    return f"SELECT * FROM VALUES {values} AS t(at, id, name)"


def _at(hour: HourWindow, second: int = 0) -> str:
    return f"(TIMESTAMP '{hour.start:%Y-%m-%d %H:%M:%S}' + INTERVAL {second} SECOND)"

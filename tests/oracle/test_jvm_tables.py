"""Nested columns, partition fields beside the hour, evolution: the JVM's Iceberg reads ours, and we adopt the JVM's."""

import math
import uuid
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

from lakehouse_pipeline.errors import SafetyError
from lakehouse_pipeline.iceberg.schemas import arrow_schema_of
from lakehouse_pipeline.iceberg.tables import apply_spec, load_table
from tests.iceberg.lake import ELEVEN, EVENTS, TEN, Lake, columns, events, in_bucket, sealed_by, spec_of
from tests.oracle.jvm import Jvm, Row

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(1200)]  # the first test may have to install Spark

TYPES = {
    "at": "timestamptz!",
    "id": "long!",
    "place": "struct<city:string!,at:struct<x:double,y:float>,tags:list<string>>",
    "scores": "list<double>",
    "pairs": "list<struct<a:int!,b:string>!>",
    "levels": "map<string,long>",
    "deep": "map<int,list<struct<x:float>>>",
}


def place(city: str, x: float | None, y: float | None, tags: list[str | None] | None) -> dict[str, Any]:
    """Make a place."""
    return {"city": city, "at": None if x is None and y is None else {"x": x, "y": y}, "tags": tags}


ROWS: list[Row] = [
    {
        "place": place("Köln", 1.5, math.nan, ["a", None, "b"]),
        "scores": [0.5, None, math.nan],
        "pairs": [{"a": 1, "b": "x"}, {"a": 2, "b": None}],
        "levels": [("one", 1), ("none", None)],
        "deep": [(1, [{"x": 0.5}, {"x": None}, None]), (2, [])],
    },
    {"place": None, "scores": None, "pairs": None, "levels": None, "deep": None},
    {"place": place("", -2.5, None, []), "scores": [], "pairs": [], "levels": [], "deep": [(3, None)]},
    {"place": place("Z", None, None, None), "scores": [math.nan], "pairs": [], "levels": [("two", 2)], "deep": []},
]


def rows_of(count: int) -> list[Row]:
    """Make rows: those above, round and round."""
    return [{"at": TEN.start + timedelta(seconds=n), "id": n, **ROWS[n % len(ROWS)]} for n in range(count)]


def batch_of(rows: list[Row]) -> pa.RecordBatch:
    """Give rows as they reach the writer."""
    return pa.RecordBatch.from_pylist(rows, schema=arrow_schema_of(columns(TYPES)))


def told(row: Row) -> Row:
    """Give a row as Spark's JSON does."""
    return {
        "id": row["id"],
        **{name: row[name] for name in ("place", "scores", "pairs")},
        "levels": None if row["levels"] is None else dict(row["levels"]),
        "deep": None if row["deep"] is None else {str(key): value for key, value in row["deep"]},
    }


@pytest.mark.parametrize("vectorized", [True, False], ids=["vectorized", "row by row"])
def test_nested_columns_are_read(jvm: Jvm, rest_catalog: Catalog, *, vectorized: bool) -> None:
    """Structs, lists and maps in each other, empty ones and nulls at every level, come through whole."""
    lake = Lake.create(rest_catalog, TYPES, properties={"write.parquet.row-group-limit": "30"})
    rows = rows_of(100)
    batch = batch_of(rows)
    lake.replace(sealed_by(lake, TEN, [in_bucket(0, batch.slice(0, 41)), in_bucket(0, batch.slice(41))]))
    jvm.sql(f"SET spark.sql.iceberg.vectorization.enabled = {str(vectorized).lower()}")
    found = jvm.sql(f"SELECT id, place, scores, pairs, levels, deep FROM lake.{lake.identifier} ORDER BY id")
    jvm.sql("RESET spark.sql.iceberg.vectorization.enabled")
    assert repr(found) == repr([told(row) for row in rows])


def test_statistics_of_nested_columns_are_the_jvms(jvm: Jvm, rest_catalog: Catalog) -> None:
    """Of the same rows, our file has the counts and bounds that the JVM's own writer gives its file.

    But for floats in structs: the JVM counts them where their struct is not null; we count them as it does all others.
    """
    lake = Lake.create(rest_catalog, TYPES)
    lake.replace(sealed_by(lake, TEN, [in_bucket(0, batch_of(rows_of(8)))]))
    copied = f"at + INTERVAL 1 HOUR, {', '.join(name for name in TYPES if name != 'at')}"
    jvm.sql(f"INSERT INTO lake.{lake.identifier} SELECT /*+ COALESCE(1) */ {copied} FROM lake.{lake.identifier}")
    ours, theirs = jvm.sql(f"SELECT * FROM lake.{lake.identifier}.files ORDER BY partition")
    names = ("column_sizes", "value_counts", "null_value_counts", "nan_value_counts", "lower_bounds", "upper_bounds")
    schema = lake.now.table.schema()
    floats = {str(schema.find_field(name).field_id) for name in ("place.at.x", "place.at.y")}
    but_for = {"value_counts": floats, "null_value_counts": floats, "lower_bounds": {"1"}, "upper_bounds": {"1"}}
    said = [
        {name: {key: value for key, value in file[name].items() if key not in but_for.get(name, ())} for name in names}
        for file in (ours, theirs)
    ]
    sizes = [set(each.pop("column_sizes")) for each in said]
    assert (said[0], sizes[0]) == (said[1], sizes[1])
    assert {key: ours["null_value_counts"][key] for key in floats} == dict(zip(sorted(floats), (4, 6), strict=True))


BESIDE = {
    "bucket": ["bucket(4, id)"],
    "identity and day": ["name", "day(loaded)"],
    "truncate and month": ["truncate(2, name)", "month(loaded)"],
}


@pytest.mark.parametrize("partition", BESIDE.values(), ids=BESIDE)
def test_partition_fields_beside_the_hour_are_read(jvm: Jvm, rest_catalog: Catalog, partition: list[str]) -> None:
    """The JVM prunes by our tuples and summaries, writes beside us into the same table, and we replace its hours."""
    types = {"at": "timestamptz!", "id": "long!", "name": "string", "loaded": "timestamptz"}
    lake = Lake.create(rest_catalog, types, partition=partition)
    rows = [
        {"at": TEN.start, "id": n, "name": [None, "a1", "b2"][n % 3], "loaded": TEN.start - timedelta(days=n * 20)}
        for n in range(12)
    ]
    batch = pa.RecordBatch.from_pylist(rows, schema=arrow_schema_of(columns(types)))
    lake.replace(sealed_by(lake, TEN, [in_bucket(0, batch)]))
    table = f"lake.{lake.identifier}"
    for row in rows:
        same = (
            f"name <=> {'NULL' if row['name'] is None else repr(row['name'])} AND loaded = TIMESTAMP '{row['loaded']}'"
        )
        assert jvm.sql(f"SELECT id FROM {table} WHERE id = {row['id']} AND {same}") == [{"id": row["id"]}]
    ours = {str(each["partition"]) for each in jvm.sql(f"SELECT partition FROM {table}.files")}
    jvm.sql(f"INSERT INTO {table} SELECT at + INTERVAL 1 HOUR, id, name, loaded FROM {table}")
    theirs = jvm.sql(f"SELECT partition FROM {table}.files WHERE partition.at_hour = {ELEVEN.ordinal}")
    ten, eleven = str(TEN.ordinal), str(ELEVEN.ordinal)
    assert {str(each["partition"]).replace(eleven, ten) for each in theirs} == ours
    lake.replace(sealed_by(lake, TEN, [in_bucket(0, batch.slice(0, 1))]))
    lake.replace(sealed_by(lake, ELEVEN, []))
    assert jvm.sql(f"SELECT id FROM {table}") == [{"id": 0}]


def test_a_table_of_the_jvms_is_adopted(jvm: Jvm, rest_catalog: Catalog) -> None:
    """Made, evolved and written by Spark, its old files by the day: hours are replaced once they are told apart."""
    name = f"n{uuid.uuid4().hex[:12]}"
    table = f"lake.{name}.events"
    jvm.sql(f"CREATE NAMESPACE lake.{name}")
    jvm.sql(
        f"CREATE TABLE {table} (extra int, name string COMMENT 'who', at timestamp, id bigint NOT NULL) USING iceberg "
        "PARTITIONED BY (days(at), name) TBLPROPERTIES ('write.parquet.compression-codec'='gzip')"
    )
    rows = ", ".join(
        f"(1, 'a', TIMESTAMP '{hour.start:%Y-%m-%d %H}:00:00', {n})" for n, hour in enumerate((TEN, ELEVEN))
    )
    jvm.sql(f"INSERT INTO {table} VALUES {rows}")
    jvm.sql(f"ALTER TABLE {table} DROP COLUMN extra")
    jvm.sql(f"ALTER TABLE {table} REPLACE PARTITION FIELD days(at) WITH hours(at) AS the_hour")
    spec = spec_of(EVENTS, {"table": f"{name}.events"})
    assert load_table(rest_catalog, spec)
    lake = Lake(rest_catalog, spec.table)
    with pytest.raises(SafetyError, match="earlier partition spec"):
        lake.seal(TEN, [])
    jvm.sql(f"CALL lake.system.rewrite_data_files(table => '{name}.events', options => map('rewrite-all', 'true'))")
    rows_now = events(TEN, [7, 8]).select(["name", "at", "id"])
    lake.replace(sealed_by(lake, TEN, [in_bucket(0, rows_now)]))
    found = jvm.sql(f"SELECT id, name FROM {table} ORDER BY id")
    assert found == [{"id": 1, "name": "a"}, {"id": 7, "name": "event 7"}, {"id": 8, "name": "event 8"}]
    jvm.sql(f"ALTER TABLE {table} DROP PARTITION FIELD name")
    jvm.sql(f"ALTER TABLE {table} ADD PARTITION FIELD bucket(4, id)")
    lake.put(TEN, [9])
    lake.put(ELEVEN, [])
    assert jvm.sql(f"SELECT id FROM {table}") == [{"id": 9}]


def test_what_apply_changes_is_the_jvms(jvm: Jvm, rest_catalog: Catalog) -> None:
    """A table that was brought to its spec by us, with rows from before and after, is read and described alike."""
    lake = Lake.create(rest_catalog)
    lake.put(TEN, [1])
    types = {**EVENTS, "place": "struct<x:float>", "region": "string"}
    keys = {"table": lake.identifier, "partition": ["region"], "sort": ["id desc"], "properties": {"owner": "me"}}
    apply_spec(rest_catalog, spec_of({**EVENTS, "place": "struct<x:float>"}, {"table": lake.identifier}), dry_run=False)
    types["place"] = "struct<x:double,y:list<int>>"
    apply_spec(rest_catalog, spec_of(types, keys), dry_run=False)
    assert load_table(rest_catalog, spec_of(types, keys))
    rows = [{"at": ELEVEN.start, "id": 2, "name": "b", "place": {"x": 0.1, "y": [3]}, "region": "eu"}]
    batch = pa.RecordBatch.from_pylist(rows, schema=arrow_schema_of(columns(types)))
    lake.replace(sealed_by(lake, ELEVEN, [in_bucket(0, batch)]))
    table = f"lake.{lake.identifier}"
    assert jvm.sql(f"SELECT id, place, region FROM {table} ORDER BY id") == [
        {"id": 1, "place": None, "region": None},
        {"id": 2, "place": {"x": 0.1, "y": [3]}, "region": "eu"},
    ]
    jvm.sql(f"INSERT INTO {table} SELECT at, id + 5, name, place, region FROM {table}")
    lake.replace(sealed_by(lake, TEN, []))
    assert [row["id"] for row in jvm.sql(f"SELECT id FROM {table} WHERE region = 'eu' ORDER BY id")] == [2, 7]
    described = {row["col_name"]: row["data_type"] for row in jvm.sql(f"DESCRIBE EXTENDED {table}")}
    assert "sort-order=id DESC NULLS LAST" in described["Table Properties"]

"""Schemas in the spec's words, Iceberg's and Arrow's; rows that are made to fit them at every level."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.schema import Schema
from pyiceberg.types import BinaryType, FixedType, LongType, NestedField, StringType, TimestamptzType

from lakehouse_pipeline.errors import ConfigurationError, DataError
from lakehouse_pipeline.iceberg.conformed import conform
from lakehouse_pipeline.iceberg.manifest_files import sealed_manifest_file
from lakehouse_pipeline.iceberg.schemas import (
    arrow_schema,
    arrow_schema_of,
    columns_of,
    partition_name,
    partition_spec_of,
    schema_of,
    type_name,
    types_of,
)
from lakehouse_pipeline.ledger.records import PartitionBounds, SealedManifest
from tests.iceberg.lake import TEN, Lake, columns, in_bucket, spec_of

NESTED = {
    "at": "timestamptz!",
    "id": "long!",
    "place": "struct<city:string!,at:struct<x:double,y:float!>!,tags:list<string!>>",
    "pairs": "list<struct<a:int!,b:binary>!>!",
    "levels": "map<string,list<decimal(9,2)>!>",
}


def test_nested_types_have_fresh_ids_all_the_way() -> None:
    """Ids are given as Iceberg does: the table's columns first, then what is in them; each id once."""
    schema = schema_of(columns(NESTED))
    assert [field.field_id for field in schema.fields] == [1, 2, 3, 4, 5]
    assert sorted(schema.field_ids) == list(range(1, 18))


def test_nested_types_come_back_as_they_were_said() -> None:
    """From a spec to Iceberg and to Arrow and back; in Arrow's schema of a table's files every part has its id."""
    schema = schema_of(columns(NESTED))
    assert columns_of(schema) == columns(NESTED)
    assert types_of(arrow_schema_of(columns(NESTED))) == {name: kind.removesuffix("!") for name, kind in NESTED.items()}
    place = arrow_schema(schema).field("place")
    assert [part.metadata[b"PARQUET:field_id"] for part in place.type] == [b"6", b"7", b"8"]
    assert {str(field.type) for field in arrow_schema(schema)}.isdisjoint({"large_string", "large_list"})


def test_a_tables_reserved_columns_are_named() -> None:
    """A table that was made elsewhere may have a column that meets one of ours; Spark sees no case."""
    fields = [NestedField(n, name, LongType()) for n, name in enumerate(("id", "_File", "_row", "_rows_"), start=1)]
    with pytest.raises(ConfigurationError, match=r"'_File', '_row' are reserved names; rename them in the table$"):
        columns_of(Schema(*fields))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (pa.large_list(pa.large_string()), "list<string>"),
        (pa.list_(pa.int32(), 3), "list<int>"),
        (pa.list_(pa.field("element", pa.int64(), nullable=False)), "list<long!>"),
        (pa.map_(pa.string(), pa.struct([pa.field("x", pa.date32(), nullable=False)])), "map<string,struct<x:date!>>"),
    ],
    ids=str,
)
def test_files_of_others_have_types_too(kind: pa.DataType, said: str) -> None:
    """Lists of every kind, and what may be null within them, are said in the spec's words."""
    assert types_of(pa.schema([("x", kind)])) == {"x": said}


def test_types_that_specs_do_not_have_are_said() -> None:
    """For messages, at least."""
    assert type_name(FixedType(16)) == "fixed[16]"


@pytest.mark.parametrize(
    ("transform", "taken", "name"),
    [
        ("identity", (), "id"),
        ("bucket[16]", (), "id_bucket"),
        ("truncate[4]", (), "id_trunc"),
        ("day", (), "id_day"),
        ("bucket[16]", ("id_bucket",), "id_bucket_"),
        ("identity", ("id",), "id"),
    ],
)
def test_partition_fields_are_named_as_iceberg_does(transform: str, taken: tuple[str, ...], name: str) -> None:
    """And never like a column, unless they are it."""
    assert partition_name(transform, "id", taken) == name


def test_a_column_may_be_called_as_the_hours_field_would_be(catalog: Catalog) -> None:
    """The field gives way: Iceberg's engines refuse a table where both have the same name."""
    types = {"at": "timestamptz!", "at_hour": "long!"}
    schema = schema_of(columns(types))
    assert [field.name for field in partition_spec_of(schema, spec_of(types, {})).fields] == ["at_hour_"]
    lake = Lake.create(catalog, types)
    assert lake.now.table.spec().fields[0].name == "at_hour_"


# ---------------------------------------------------------------------------------------------------------------------
# Rows that fit
# ---------------------------------------------------------------------------------------------------------------------

ROWS: list[dict[str, Any]] = [
    {
        "at": TEN.start,
        "id": 1,
        "place": {"city": "a", "at": {"x": None, "y": 0.5}, "tags": ["t", "u"]},
        "pairs": [{"a": 1, "b": None}, {"a": 2, "b": b"\0"}],
        "levels": [("k", [None]), ("l", [])],
    },
    {"at": TEN.start, "id": 2, "place": None, "pairs": [], "levels": None},
    {
        "at": TEN.start,
        "id": 3,
        "place": {"city": "c", "at": {"x": 1.0, "y": 1.5}, "tags": None},
        "pairs": [],
        "levels": [],
    },
]
LOOSE = pa.schema(  # as an engine gives it: everything may be null, other names, other widths
    [
        ("levels", pa.map_(pa.large_string(), pa.large_list(pa.decimal128(9, 2)))),
        ("pairs", pa.large_list(pa.struct([("b", pa.binary()), ("a", pa.int16())]))),
        (
            "place",
            pa.struct(
                [
                    ("tags", pa.list_(pa.string())),
                    ("at", pa.struct([("y", pa.float32()), ("x", pa.float32())])),
                    ("city", pa.string()),
                ]
            ),
        ),
        ("id", pa.int32()),
        ("at", pa.timestamp("us", "UTC")),
    ]
)


@pytest.mark.parametrize("given", [arrow_schema_of(columns(NESTED)), LOOSE], ids=["exact", "loose"])
@pytest.mark.parametrize(("start", "stop"), [(0, 3), (1, 3), (1, 2), (2, 2)], ids=["all", "slice", "null", "none"])
def test_nested_rows_are_written(catalog: Catalog, given: pa.Schema, start: int, stop: int) -> None:
    """Required parts within nulls, slices, other orders and widths: the file has the rows, and the table's ids."""
    lake = Lake.create(catalog, NESTED)
    rows = pa.RecordBatch.from_pylist(ROWS, schema=given).slice(start, stop - start)
    assert conform(rows, lake.now.arrow_schema).to_pylist() == ROWS[start:stop]
    for file in lake.write(TEN, [in_bucket(0, rows)]):
        read = pq.read_table(pa.BufferReader(lake.now.files.get(file.path).body))
        assert read.to_pylist() == ROWS[start:stop]
        assert read.schema.field("place").type.field("city").metadata[b"PARQUET:field_id"] == b"6"
        assert not read.schema.field("place").type.field("city").nullable


REFUSED: dict[str, tuple[str, Any, str]] = {
    "in a struct": (
        "place",
        {"city": None, "at": {"x": 1.0, "y": 1.0}, "tags": []},
        "place.city is required, but 1 of 2",
    ),
    "a struct in a struct": ("place", {"city": "c", "at": None, "tags": []}, "place.at is required, but 1 of 2"),
    "deep": ("place", {"city": "c", "at": {"x": 1.0, "y": None}, "tags": []}, "place.at.y is required, but 1 of 2"),
    "in a list": ("place", {"city": "c", "at": {"x": 1.0, "y": 1.0}, "tags": ["a", None]}, "place.tags.element is req"),
    "a list": ("pairs", None, "column pairs is required, but 1 of 3"),
    "an element": ("pairs", [None], "pairs.element is required, but 1 of 3"),
    "in an element": ("pairs", [{"a": None, "b": b""}], "pairs.element.a is required, but 1 of 3"),
    "a map's value": ("levels", [("k", None)], "levels.value is required, but 1 of 3"),
}


@pytest.mark.parametrize(("name", "value", "said"), REFUSED.values(), ids=REFUSED)
def test_nulls_in_required_parts_are_refused(name: str, value: Any, said: str) -> None:
    """By their full name; a part of what is null itself is none."""
    rows = [*ROWS[:2], {**ROWS[2], name: value}]
    batch = pa.RecordBatch.from_pylist(rows, schema=LOOSE)
    with pytest.raises(DataError, match=said):
        conform(batch, arrow_schema_of(columns(NESTED)))


THIRDS = pa.array([[("k", [Decimal("1.234")])]], pa.map_(pa.string(), pa.list_(pa.decimal128(9, 3))))


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("place", pa.array([{"city": "x"}]), "column place is struct<city: string>, without at, tags"),
        ("place", pa.array(["x"]), "column place is string, without city, at, tags"),
        ("pairs", pa.array(["x"]), "column pairs does not fit"),
        ("levels", THIRDS, "levels.value.element"),
    ],
    ids=["field missing", "no struct", "no list", "value"],
)
def test_other_shapes_are_refused(name: str, values: pa.Array, said: str) -> None:
    """By the name of the part that does not fit."""
    row = pa.RecordBatch.from_pylist(ROWS[:1], schema=LOOSE)
    row = row.set_column(row.schema.get_field_index(name), name, values)
    with pytest.raises(DataError, match=said):
        conform(row, arrow_schema_of(columns(NESTED)))


def test_ids_may_be_in_any_order() -> None:
    """Ids are the table's, whatever the order of its columns."""
    schema = Schema(
        NestedField(9, "name", StringType(), required=False),
        NestedField(2, "at", TimestamptzType(), required=True),
        NestedField(5, "raw", BinaryType(), required=False, doc="bytes"),
        NestedField(1, "id", LongType(), required=True),
    )
    assert [field.metadata[b"PARQUET:field_id"] for field in arrow_schema(schema)] == [b"9", b"2", b"5", b"1"]


# ---------------------------------------------------------------------------------------------------------------------
# What a seal keeps
# ---------------------------------------------------------------------------------------------------------------------


def test_seals_keep_the_partitions_bounds() -> None:
    """Through JSON and back to the byte; a seal of an earlier version has the hour's, which was all there was."""
    bounds = (PartitionBounds(lower=b"\x01\0\xff\0", upper=b"\x02\0\xff\0"), PartitionBounds(null=True, nan=True))
    kept = SealedManifest(path="m", length=1, files=1, rows=1, partitions=bounds)
    assert SealedManifest.model_validate_json(kept.model_dump_json()) == kept
    told = sealed_manifest_file(kept, TEN, 0, 7, as_of=None).partitions or ()
    assert [(each.contains_null, each.contains_nan, each.lower_bound, each.upper_bound) for each in told] == [
        (False, False, b"\x01\0\xff\0", b"\x02\0\xff\0"),
        (True, True, None, None),
    ]
    earlier = SealedManifest.model_validate_json('{"path": "m", "length": 1, "files": 1, "rows": 1}')
    (hour,) = sealed_manifest_file(earlier, TEN, 0, 7, as_of=None).partitions or []
    assert hour.lower_bound == hour.upper_bound == TEN.ordinal.to_bytes(4, "little")

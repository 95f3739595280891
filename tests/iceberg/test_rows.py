"""Live rows of files of every age: columns found by their ids, deletes applied, order kept."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.schema import Schema
from pyiceberg.table.update.schema import UpdateSchema
from pyiceberg.types import DecimalType, DoubleType, LongType, StringType

from lakehouse_pipeline.errors import DataError, SafetyError
from lakehouse_pipeline.iceberg import rows as rows_module
from lakehouse_pipeline.iceberg.event_time import HourSpan
from lakehouse_pipeline.iceberg.manifests import DATA, EQUALITY_DELETES, POSITION_DELETES, LiveFile
from lakehouse_pipeline.iceberg.rows import NAME_MAPPING, StoredTable
from lakehouse_pipeline.iceberg.schemas import arrow_schema
from tests.iceberg.lake import TEN, Lake, events, in_bucket

AT = datetime(2013, 1, 1, 10, tzinfo=UTC)
TEN_ONLY = HourSpan(TEN.ordinal, TEN.ordinal, exact=True)
POSITIONS = pa.schema(
    [
        pa.field("file_path", pa.string(), nullable=False, metadata={"PARQUET:field_id": "2147483546"}),
        pa.field("pos", pa.int64(), nullable=False, metadata={"PARQUET:field_id": "2147483545"}),
    ]
)
NESTED = {
    "at": "timestamptz!",
    "id": "long!",
    "place": "struct<city:string,zip:int>",
    "tags": "list<string>",
    "pairs": "list<struct<a:int,b:string>>",
    "levels": "map<string,struct<x:int>>",
}


def put(lake: Lake, name: str, rows: pa.Table, *, row_group: int = 1_000, **told: Any) -> LiveFile:
    """Write a Parquet file by hand, and give what a manifest would tell of it."""
    body, path = io.BytesIO(), f"{lake.now.location}/data/{name}.parquet"
    pq.write_table(rows, body, row_group_size=row_group)
    lake.now.files.put(path, body.getvalue())
    placed = {"content": DATA, "spec_id": lake.now.spec_id, "partition": "p", "values": {"at_hour": TEN.ordinal}}
    size = len(body.getvalue())
    return LiveFile(path=path, rows=rows.num_rows, bytes=size, span=TEN_ONLY, **{**placed, **told})


def put_rows(lake: Lake, name: str, *rows: Mapping[str, Any], **told: Any) -> LiveFile:
    """Write a file of the table's present schema; rows are at ten unless told otherwise."""
    schema = arrow_schema(lake.now.table.schema())
    return put(lake, name, pa.Table.from_pylist([{"at": AT, **row} for row in rows], schema), **told)


def put_positions(lake: Lake, name: str, *rows: tuple[LiveFile, int], **told: Any) -> LiveFile:
    """Write a file of position deletes."""
    content = pa.Table.from_pylist([{"file_path": file.path, "pos": place} for file, place in rows], POSITIONS)
    return put(lake, name, content, content=POSITION_DELETES, **told)


def put_equal(lake: Lake, name: str, columns: Sequence[str], *rows: Sequence[Any], **told: Any) -> LiveFile:
    """Write a file of equality deletes of the table's present columns."""
    schema = lake.now.table.schema()
    ids = tuple(schema.find_field(column).field_id for column in columns)
    keys = arrow_schema(
        Schema(*(schema.find_field(column).model_copy(update={"required": False}) for column in columns))
    )
    content = pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows], keys)
    told = {"sequence_number": 1, **told}
    return put(lake, name, content, content=EQUALITY_DELETES, equality_ids=ids, **told)


def stored(lake: Lake) -> StoredTable:
    """Give the table as it is now."""
    return StoredTable.of(lake.now.table, lake.now.files)


def read(lake: Lake, data: Sequence[LiveFile], deletes: Sequence[LiveFile] = ()) -> list[dict[str, Any]]:
    """Read live rows; every batch is of the table's exact schema."""
    wanted, found = arrow_schema(lake.now.table.schema()), []
    for batch in stored(lake).live_batches(data, deletes):
        batch.validate(full=True)
        assert batch.schema.equals(wanted)
        found += batch.to_pylist()
    return found


def ids(lake: Lake, data: Sequence[LiveFile], deletes: Sequence[LiveFile] = ()) -> list[int]:
    """Read the ids of live rows."""
    return [row["id"] for row in read(lake, data, deletes)]


def evolve(lake: Lake, change: Callable[[UpdateSchema], object]) -> None:
    """Change the table's schema."""
    with lake.now.table.update_schema(allow_incompatible_changes=True) as update:
        change(update)


@pytest.fixture(params=["whole", "in ranges"])
def fetched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Take files for small ones, which are read whole, or for large ones, which are read in ranges."""
    if request.param == "in ranges":
        monkeypatch.setattr(rows_module, "WHOLE_BYTES", 0)
    return str(request.param)


@pytest.mark.usefixtures("fetched")
def test_order_is_kept(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files come as they are named, and rows as they stand, however many row groups and batches they are in."""
    monkeypatch.setattr(rows_module, "ROWS_AT_ONCE", 3)
    numbers = [[*range(20, 40)], [5], [], [*range(19, 5, -1)]]
    files = [
        put_rows(lake, f"f{place}", *({"id": number} for number in part), row_group=7)
        for place, part in enumerate(numbers)
    ]
    assert ids(lake, files) == [number for part in numbers for number in part]
    assert ids(lake, files[::-1]) == [number for part in numbers[::-1] for number in part]


def test_small_and_large_files(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are read whole and those that are read in ranges come in the order that is asked for."""
    files = [put_rows(lake, f"f{n}", *({"id": n, "name": "x" * (n % 2) * 5_000} for _ in range(2))) for n in range(6)]
    monkeypatch.setattr(rows_module, "WHOLE_BYTES", sorted(file.bytes for file in files)[2])
    assert ids(lake, files) == [n for n in range(6) for _ in range(2)]


def test_our_writers_files(lake: Lake) -> None:
    """They are read as they were written."""
    (written,) = lake.write(TEN, [in_bucket(0, events(TEN, [3, 1, 2]))])
    ours = LiveFile(written.path, DATA, written.rows, written.size, TEN_ONLY, 0, "p", values={"at_hour": TEN.ordinal})
    theirs = put_rows(lake, "f", {"id": 9})
    assert [row["name"] for row in read(lake, [theirs, ours])] == [None, "event 3", "event 1", "event 2"]


@pytest.mark.usefixtures("fetched")
def test_position_deletes(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places count from the file's first row, over row groups and batches; twice is once."""
    monkeypatch.setattr(rows_module, "ROWS_AT_ONCE", 3)
    one, two = (put_rows(lake, name, *({"id": n} for n in range(10)), row_group=4) for name in ("one", "two"))
    shared = put_positions(lake, "d1", (one, 0), (one, 3), (one, 4), (two, 9))
    own = put_positions(lake, "d2", (one, 4), (one, 9), refers_to=one.path)
    assert ids(lake, [one, two], [shared, own]) == [1, 2, 5, 6, 7, 8, *range(9)]
    everything = put_positions(lake, "d3", *((two, n) for n in range(10)))
    assert ids(lake, [two], [everything]) == []


@pytest.mark.parametrize(
    ("columns", "keys", "left"),
    [
        pytest.param(["id"], [[1], [3], [9]], [0, 2, 4], id="one column"),
        pytest.param(["name"], [[None]], [0, 1, 2, 3], id="null equals null"),
        pytest.param(["name", "id"], [["b", 1], ["b", 2], ["a", 1]], [0, 3, 4], id="two columns"),
        pytest.param(["id", "name"], [[4, None], [3, None]], [0, 1, 2, 3], id="null in one of two"),
        pytest.param(["id"], [], [0, 1, 2, 3, 4], id="no keys"),
    ],
)
def test_equality_deletes(lake: Lake, columns: list[str], keys: list[list[Any]], left: list[int]) -> None:
    """Rows that equal a key in the columns that the delete file compares are gone."""
    names = ["a", "b", "b", "c", None]
    data = put_rows(lake, "f", *({"id": n, "name": name} for n, name in enumerate(names)), row_group=2)
    assert ids(lake, [data], [put_equal(lake, "d", columns, *keys)]) == left


def test_deletes_are_of_older_rows(lake: Lake) -> None:
    """Each file is held against what is younger than it; positions against what is as old, too."""
    files = [put_rows(lake, f"f{n}", {"id": 1}, {"id": 2}, {"id": n}, sequence_number=n) for n in (10, 20, 30)]
    deletes = [
        put_equal(lake, "d1", ["id"], [1], sequence_number=20),
        put_equal(lake, "d2", ["id"], [2], sequence_number=30),
        put_equal(lake, "d3", ["name"], [None], sequence_number=10),
        put_positions(lake, "d4", *((file, 2) for file in files), sequence_number=20),
    ]
    assert ids(lake, files, deletes) == [1, 1, 2, 30]


def test_every_kind_of_delete_at_once(lake: Lake) -> None:
    """Positions count rows that equality deletes take, too."""
    data = put_rows(lake, "f", *({"id": n, "name": str(n % 2)} for n in range(8)), row_group=3)
    deletes = [
        put_equal(lake, "d1", ["id"], [0], [5]),
        put_equal(lake, "d2", ["id"], [1]),
        put_equal(lake, "d3", ["name", "id"], ["0", 2], ["1", 4]),
        put_positions(lake, "d4", (data, 0), (data, 7), sequence_number=1),
    ]
    assert ids(lake, [data], deletes) == [3, 4, 6]


def test_deletes_that_are_not_of_these_files(lake: Lake) -> None:
    """They are not even read."""
    data = put_rows(lake, "f", {"id": 1}, sequence_number=2)
    gone = replace(put_equal(lake, "d", ["id"], [1], sequence_number=2), path="/nowhere")
    assert ids(lake, [data], [gone]) == [1]


def test_deletes_by_columns_that_changed(catalog: Catalog) -> None:
    """A column is compared that was renamed, made wider or dropped since, of files from before and after."""
    lake = Lake.create(catalog, {"at": "timestamptz!", "id": "long!", "name": "string", "n": "int", "gone": "string"})
    rows = [{"id": n, "name": str(n), "n": n, "gone": str(n)} for n in range(8)]
    before = put_rows(lake, "f1", *rows)
    deletes = [
        put_equal(lake, "d1", ["name"], ["1"], sequence_number=9),
        put_equal(lake, "d2", ["n"], [2], sequence_number=9),
        put_equal(lake, "d3", ["gone", "id"], ["3", 3], ["4", 0], sequence_number=9),
        put_equal(lake, "d4", ["gone"], ["7"], sequence_number=9),
    ]
    evolve(lake, lambda schema: schema.rename_column("name", "title"))
    evolve(lake, lambda schema: schema.update_column("n", LongType()))
    evolve(lake, lambda schema: schema.delete_column("gone"))
    evolve(lake, lambda schema: schema.add_column("gone", LongType()))  # another of its name
    after = put_rows(lake, "f2", *({"id": n, "title": str(n), "n": n + 2**40, "gone": n} for n in range(4)))
    assert ids(lake, [before], deletes) == [0, 4, 5, 6]
    assert ids(lake, [after], deletes) == [0, 2, 3]
    nulls = put(
        lake, "d5", pa.Table.from_pylist([{"gone": None}], _only(lake, deletes[3].equality_ids[0])), **_told(deletes[3])
    )
    assert ids(lake, [after], [nulls]) == []  # the column is not there: it is null
    assert ids(lake, [before], [nulls]) == list(range(8))


def _only(lake: Lake, field_id: int) -> pa.Schema:
    return arrow_schema(Schema(stored(lake).field(field_id)))


def _told(file: LiveFile) -> dict[str, Any]:
    return {name: getattr(file, name) for name in ("content", "equality_ids", "sequence_number")}


def test_deletes_by_what_no_schema_has(lake: Lake) -> None:
    """Rows are not read without deletes that cannot be understood."""
    data, keys = put_rows(lake, "f", {"id": 1}), put_equal(lake, "d", ["id"], [1])
    unknown = replace(keys, equality_ids=(99,))
    with pytest.raises(SafetyError, match="rows are deleted by field 99, which is no column of any schema"):
        read(lake, [data], [unknown])


@pytest.mark.usefixtures("fetched")
def test_schema_evolution(catalog: Catalog) -> None:
    """Columns are found by their ids: renamed, added, dropped, added again, moved, and made wider or optional."""
    types = {
        "at": "timestamptz!",
        "id": "long!",
        "n": "int!",
        "x": "float",
        "p": "decimal(9,2)",
        "a": "string",
        "b": "string",
    }
    lake = Lake.create(catalog, types)
    old = {"id": 1, "n": -(2**31), "x": 0.1, "p": Decimal("-1234567.89"), "a": "a", "b": "b"}
    before = put_rows(lake, "f1", old)

    def change(schema: UpdateSchema) -> None:
        schema.rename_column("a", "c")
        schema.delete_column("b")
        schema.update_column("n", LongType(), required=False)
        schema.update_column("x", DoubleType())
        schema.update_column("p", DecimalType(38, 2))
        schema.add_column("new", StringType())
        schema.move_first("x")

    evolve(lake, change)
    evolve(lake, lambda schema: schema.add_column("b", LongType()))
    after = put_rows(lake, "f2", {"id": 2, "n": None, "x": 1e300, "p": Decimal("1e30"), "c": "c", "new": "n", "b": 5})
    single = pa.scalar(0.1, pa.float32()).cast(pa.float64()).as_py()
    assert read(lake, [before, after]) == [
        {"x": single, "at": AT, "id": 1, "n": -(2**31), "p": Decimal("-1234567.89"), "c": "a", "new": None, "b": None},
        {"x": 1e300, "at": AT, "id": 2, "n": None, "p": Decimal("1e30"), "c": "c", "new": "n", "b": 5},
    ]


NESTED_ROWS: list[dict[str, Any]] = [
    {
        "place": {"city": "Köln", "zip": 1},
        "tags": ["a", None, ""],
        "pairs": [{"a": 1, "b": "x"}, None, {"a": None, "b": None}],
        "levels": [("one", {"x": 1}), ("none", None)],
    },
    {"place": {"city": None, "zip": None}, "tags": [], "pairs": [], "levels": []},
    {"place": None, "tags": None, "pairs": None, "levels": None},
    {"place": {"city": "", "zip": 2}, "tags": [None], "pairs": [None], "levels": [("", {"x": None})]},
]


@pytest.mark.usefixtures("fetched")
def test_nested_values_as_they_are(catalog: Catalog) -> None:
    """Null is null and empty is empty, at every level, also behind rows that are deleted."""
    lake = Lake.create(catalog, NESTED)
    rows = [{"id": n, **row} for n, row in enumerate(NESTED_ROWS)]
    data = put_rows(lake, "f", *rows, row_group=3)
    assert read(lake, [data]) == [{"at": AT, **row} for row in rows]
    gone = put_positions(lake, "d", (data, 0))
    assert read(lake, [data], [gone]) == [{"at": AT, **row} for row in rows[1:]]


@pytest.mark.usefixtures("fetched")
def test_nested_evolution(catalog: Catalog) -> None:
    """Parts are found by their ids, too; a null list does not become an empty one, nor a null struct one of nulls."""
    lake = Lake.create(catalog, NESTED)
    data = put_rows(lake, "f", *({"id": n, **row} for n, row in enumerate(NESTED_ROWS)), row_group=3)

    def change(schema: UpdateSchema) -> None:
        schema.rename_column("place.city", "town")
        schema.update_column("place.zip", LongType())
        schema.add_column(("place", "country"), StringType())
        schema.delete_column("pairs.element.b")
        schema.add_column(("pairs", "c"), StringType())
        schema.rename_column("pairs.element.a", "number")
        schema.update_column("levels.value.x", LongType())
        schema.add_column(("levels", "y"), StringType())

    evolve(lake, change)
    expected: list[dict[str, Any]] = [
        {
            "place": {"town": "Köln", "zip": 1, "country": None},
            "tags": ["a", None, ""],
            "pairs": [{"number": 1, "c": None}, None, {"number": None, "c": None}],
            "levels": [("one", {"x": 1, "y": None}), ("none", None)],
        },
        {"place": {"town": None, "zip": None, "country": None}, "tags": [], "pairs": [], "levels": []},
        {"place": None, "tags": None, "pairs": None, "levels": None},
        {
            "place": {"town": "", "zip": 2, "country": None},
            "tags": [None],
            "pairs": [None],
            "levels": [("", {"x": None, "y": None})],
        },
    ]
    assert read(lake, [data]) == [{"at": AT, "id": n, **row} for n, row in enumerate(expected)]
    gone = put_positions(lake, "d", (data, 0), (data, 1))
    assert read(lake, [data], [gone]) == [{"at": AT, "id": n, **row} for n, row in enumerate(expected)][2:]


def test_partition_constants(catalog: Catalog) -> None:
    """A column that a file does not have is what its partition says, where that is the value itself."""
    types = {"at": "timestamptz!", "id": "long!", "kind": "string", "day": "date", "n": "int"}
    lake = Lake.create(catalog, types, partition=["kind", "day", "bucket(4, n)"])
    schema = arrow_schema(lake.now.table.schema())
    rows = pa.Table.from_pylist([{"at": AT, "id": 1}, {"at": AT, "id": 2}], pa.schema(list(schema)[:2]))
    spec = lake.now.table.spec()
    values = dict(zip([field.name for field in spec.fields], [TEN.ordinal, "a", date(2013, 1, 1), 3], strict=True))
    data = put(lake, "f", rows, values=values)
    told: dict[str, Any] = {"at": AT, "kind": "a", "day": date(2013, 1, 1), "n": None}
    assert read(lake, [data]) == [{**told, "id": 1}, {**told, "id": 2}]
    assert read(lake, [data], [put_equal(lake, "d", ["kind"], ["a"])]) == []
    nulls = put(lake, "g", rows, values={**values, "kind": None, "day": None})
    assert [row["kind"] for row in read(lake, [nulls])] == [None, None]


def test_name_mapping(catalog: Catalog) -> None:
    """Files without ids are read by the names that the table says they may have."""
    lake = Lake.create(catalog, {"at": "timestamptz!", "id": "long!", "place": "struct<city:string>"})
    fields = {field.name: field for field in lake.now.table.schema().fields}
    city = lake.now.table.schema().find_field("place.city")
    mapping = [
        {"field-id": fields["at"].field_id, "names": ["at"]},
        {"field-id": fields["id"].field_id, "names": ["id", "number"]},
        {
            "field-id": fields["place"].field_id,
            "names": ["place"],
            "fields": [{"field-id": city.field_id, "names": ["town", "city"]}],
        },
    ]
    with lake.now.table.transaction() as change:
        change.set_properties({NAME_MAPPING: json.dumps(mapping)})
    rows = pa.table({"number": pa.array([1, 2]), "at": pa.array([AT, AT]), "place": [{"town": "Köln"}, None]})
    assert read(lake, [put(lake, "f", rows)]) == [
        {"at": AT, "id": 1, "place": {"city": "Köln"}},
        {"at": AT, "id": 2, "place": None},
    ]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        pytest.param("name", pa.array(["a", None]).cast(pa.large_string()), id="large string"),
        pytest.param("name", pa.array(["a", None]).dictionary_encode(), id="dictionary"),
        pytest.param("at", pa.array([AT, AT], pa.timestamp("ns", "UTC")), id="nanoseconds"),
        pytest.param("at", pa.array([AT, AT], pa.timestamp("ms", "UTC")), id="milliseconds"),
        pytest.param("tags", pa.array([["a", "b"], None], pa.large_list(pa.string())), id="large list"),
        pytest.param("tags", pa.array([["a", "b"], None], pa.list_(pa.string(), 2)), id="list of a fixed size"),
    ],
)
def test_types_of_other_writers(catalog: Catalog, name: str, column: pa.Array) -> None:
    """What Arrow's own writers note beside Parquet's types does not matter."""
    lake = Lake.create(catalog, {"at": "timestamptz!", "id": "long!", "name": "string", "tags": "list<string>"})
    rows = [
        {"at": AT, "id": n, "name": value, "tags": tags} for n, value, tags in ((1, "a", ["a", "b"]), (2, None, None))
    ]
    schema = arrow_schema(lake.now.table.schema())
    place, field = schema.get_field_index(name), schema.field(name)
    kind = column.type
    if name == "tags":
        part = field.type.value_field
        kind = pa.list_(part, 2) if pa.types.is_fixed_size_list(kind) else pa.large_list(part)
    told = pa.Table.from_pylist(rows, schema).set_column(place, field.with_type(kind), column.cast(kind))
    assert read(lake, [put(lake, "f", told)]) == rows


@pytest.mark.parametrize("kind", [pa.large_list, lambda part: pa.list_(part, 2)], ids=["large", "of a fixed size"])
def test_evolved_lists_of_other_writers(catalog: Catalog, kind: Callable[[pa.Field], pa.DataType]) -> None:
    """Parts of their elements are found by their ids all the same."""
    lake = Lake.create(catalog, {"at": "timestamptz!", "id": "long!", "pairs": "list<struct<a:int>>"})
    schema = arrow_schema(lake.now.table.schema())
    rows = [{"at": AT, "id": 1, "pairs": [{"a": 1}, {"a": 2}]}, {"at": AT, "id": 2, "pairs": None}]
    field = schema.field("pairs")
    told = schema.set(2, field.with_type(kind(field.type.value_field)))
    data = put(lake, "f", pa.Table.from_pylist(rows, told))
    evolve(lake, lambda schema: schema.rename_column("pairs.element.a", "b"))
    assert [row["pairs"] for row in read(lake, [data])] == [[{"b": 1}, {"b": 2}], None]


def test_a_file_of_no_ids(lake: Lake) -> None:
    """It is refused by its name, where the table does not say how its columns are found."""
    data = put(lake, "bare", pa.table({"at": pa.array([AT]), "id": [1]}))
    with pytest.raises(SafetyError, match=r"bare\.parquet cannot be matched with the table's columns: "):
        read(lake, [data])


def test_a_required_column_that_is_not_there(lake: Lake) -> None:
    """It is refused by its name, not read as null."""
    schema = arrow_schema(lake.now.table.schema())
    rows = pa.Table.from_pylist([{"at": AT}], pa.schema([schema.field("at")]))
    with pytest.raises(SafetyError, match="has no column id, which is required"):
        read(lake, [put(lake, "f", rows)])


def test_a_null_in_a_required_column(lake: Lake) -> None:
    """It is refused by the column's name."""
    schema = arrow_schema(lake.now.table.schema())
    optional = pa.schema([field.with_nullable(True) for field in schema])
    data = put(lake, "f", pa.Table.from_pylist([{"at": AT, "id": None}], optional))
    with pytest.raises(DataError, match="column id is required, but 1 of 1 rows have no value"):
        read(lake, [data])


@pytest.mark.usefixtures("fetched")
def test_a_file_that_is_gone(lake: Lake) -> None:
    """It is an error by its name, not a file without rows; so is a delete file."""
    data, keys = put_rows(lake, "f", {"id": 1}), put_equal(lake, "d", ["id"], [1])
    lake.now.files.delete(keys.path)
    with pytest.raises(SafetyError, match=r"/d\.parquet is gone, and the table still has it"):
        read(lake, [data], [keys])
    lake.now.files.delete(data.path)
    with pytest.raises(SafetyError, match=r"/f\.parquet is gone"):
        read(lake, [data])


@pytest.mark.usefixtures("fetched")
def test_a_file_that_is_no_parquet(lake: Lake) -> None:
    """It is told by its name."""
    data = put_rows(lake, "f", {"id": 1})
    lake.now.files.put(data.path, b"x" * data.bytes)
    with pytest.raises(SafetyError, match=r"/f\.parquet cannot be read: "):
        read(lake, [data])


def test_the_files_of_positions(lake: Lake) -> None:
    """They are those that are named in it, or the one that its metadata tell."""
    one, two = (put_rows(lake, name, {"id": 1}) for name in ("one", "two"))
    assert stored(lake).positions_of([put_positions(lake, "d1", (one, 0), (two, 0), (one, 1))]) == {one.path, two.path}
    assert stored(lake).positions_of([put_positions(lake, "d2", (one, 0), refers_to=one.path)]) == {one.path}
    assert stored(lake).positions_of([]) == set()

"""Structs, lists and maps: as strict as flat columns, a faulty value named by its path, in each format with them."""

import io as streams
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from lakehouse_pipeline.errors import DataError
from lakehouse_pipeline.sources.nested import converted
from lakehouse_pipeline.sources.stored_rows import cast

Read = Callable[..., Any]

TEN = datetime(2013, 1, 1, 10, tzinfo=UTC)
USER = pa.struct(
    [
        pa.field("id", pa.int64(), nullable=False),
        ("seen", pa.timestamp("us", "UTC")),
        ("tags", pa.list_(pa.field("element", pa.string(), nullable=False))),
        ("paid", pa.list_(pa.struct([("amount", pa.decimal128(5, 2)), ("day", pa.date32())]))),
    ]
)
SCHEMA = pa.schema([("n", pa.int64()), ("user", USER)])
LABELS = pa.schema([("n", pa.int64()), ("labels", pa.map_(pa.string(), pa.list_(pa.int32())))])

FULL = {"id": 1, "seen": "2013-01-01T10:00:00Z", "tags": ["a", "ü"], "paid": [{"amount": "1.5"}, None], "other": [1]}
VALUE = {"id": 1, "seen": TEN, "tags": ["a", "ü"], "paid": [{"amount": Decimal("1.50"), "day": None}, None]}


def json_lines(column: str, *given: object) -> bytes:
    """Write rows between two of nulls."""
    rows = [{"n": 0}, *({"n": n, column: value} for n, value in enumerate(given, start=1)), {"n": 9, column: None}]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def stored(form: str, column: str, kind: pa.DataType, *given: object) -> bytes:
    """Write rows between two of nulls, as Parquet or ORC."""
    table = pa.table({"n": list(range(len(given) + 2)), column: pa.array([None, *given, None], kind)})
    body = streams.BytesIO()
    pq.write_table(table, body) if form == "parquet" else orc.write_table(table, body)
    return body.getvalue()


def test_json_values_arrive(read: Read) -> None:
    """Structs take the fields that are wanted, lists their elements; nulls are nulls at every level."""
    found = read("a.jsonl", json_lines("user", FULL, {"id": 2}, {"id": 3, "tags": [], "paid": None}), SCHEMA)
    assert found.faults == []
    rest = {"seen": None, "paid": None}
    assert [row["user"] for row in found.rows] == [
        None,
        VALUE,
        {"id": 2, "tags": None, **rest},
        {"id": 3, "tags": [], **rest},
        None,
    ]


@pytest.mark.parametrize(
    ("given", "path", "reason"),
    [
        pytest.param([], "user", "an array is not a struct", id="list for struct"),
        pytest.param("x", "user", '"x" is not a struct', id="text for struct"),
        pytest.param({}, "user.id", "null, but the column is required", id="missing"),
        pytest.param({"id": None}, "user.id", "null, but the column is required", id="null"),
        pytest.param({"id": "1"}, "user.id", '"1" is not a long', id="another kind"),
        pytest.param({"id": 1, "seen": "late"}, "user.seen", '"late" is not a timestamptz', id="no time"),
        pytest.param({"id": 1, "tags": {}}, "user.tags", "an object is not a list", id="object for list"),
        pytest.param({"id": 1, "tags": ["a", "b", 3]}, "user.tags[2]", "3 is not a string", id="element"),
        pytest.param(
            {"id": 1, "tags": ["a", None]}, "user.tags[1]", "null, but the column is required", id="null element"
        ),
        pytest.param(
            {"id": 1, "paid": [{}, {"amount": 1000}]},
            "user.paid[1].amount",
            "1000 is out of range for a decimal(5, 2)",
            id="field of element",
        ),
        pytest.param(
            {"id": 1, "paid": [{"day": "2013-02-29"}]},
            "user.paid[0].day",
            '"2013-02-29" is not a date',
            id="day of element",
        ),
    ],
)
def test_json_faults_have_a_path(read: Read, given: object, path: str, reason: str) -> None:
    """A wrong value inside makes a bad row that says where; its neighbours stay."""
    found = read("a.jsonl", json_lines("user", FULL, given, {"id": 3}), SCHEMA)
    assert found.faults == [(3, path, reason)]
    assert [row["n"] for row in found.rows] == [0, 1, 3, 9]


def test_json_fields_stand_once(read: Read) -> None:
    """A wanted field that stands twice in an object is a fault, an unwanted one is not."""
    body = b'{"user": {"id": 1, "x": 1, "x": 2}}\n{"user": {"id": 1, "id": 2}}\n{"user": {"id": 3}}\n'
    found = read("a.jsonl", body, SCHEMA)
    assert found.faults == [(2, "user.id", "stands twice in the row")]
    assert [row["user"]["id"] for row in found.rows] == [1, 3]


def test_json_objects_are_maps(read: Read) -> None:
    """A map is an object; its keys are text of their type."""
    found = read("a.jsonl", json_lines("labels", {"a": [1, None], "b": None}, {}), LABELS)
    assert [row["labels"] for row in found.rows] == [None, [("a", [1, None]), ("b", None)], [], None]
    days = pa.schema([("x", pa.map_(pa.date32(), pa.int64()))])
    found = read("a.jsonl", b'{"x": {"2013-01-01": 1}}\n{"x": {"late": 1}}\n{"x": {"2013-01-02": 1.5}}', days)
    assert len(found.rows) == 1
    assert found.faults == [
        (2, "x.key", '"late" is not a date'),
        (3, 'x["2013-01-02"]', "1.5 is not a long"),
    ]


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        pytest.param('{"a": [1, "x"]}', 'labels["a"][1]', '"x" is not an int', id="element"),
        pytest.param('{"a": [], "a": []}', "labels.a", "stands twice in the row", id="key twice"),
        pytest.param("[]", "labels", "an array is not a map", id="array"),
    ],
)
def test_json_faults_in_maps_have_a_path(read: Read, text: str, path: str, reason: str) -> None:
    """A value of a map is named by its key."""
    assert read("a.jsonl", b'{"labels": %b}' % text.encode(), LABELS).faults == [(1, path, reason)]


FORMS = pytest.mark.parametrize("form", ["parquet", "orc"])


@FORMS
def test_stored_values_arrive(read: Read, form: str) -> None:
    """Structs go by name, may hold more, and may have smaller types; nulls are nulls at every level."""
    kind = pa.struct(
        [
            ("more", pa.int64()),
            ("paid", pa.list_(pa.struct([("day", pa.date32()), ("amount", pa.decimal128(4, 2))]))),
            ("tags", pa.list_(pa.string())),
            ("seen", pa.timestamp("ms", "UTC")),
            ("id", pa.int32()),
        ]
    )
    given = [VALUE, {"id": 2}, {"id": 3, "tags": []}]
    found = read(f"a.{form}", stored(form, "user", kind, *given), SCHEMA)
    assert found.faults == []
    rest = {"seen": None, "paid": None}
    assert [row["user"] for row in found.rows] == [
        None,
        VALUE,
        {"id": 2, "tags": None, **rest},
        {"id": 3, "tags": [], **rest},
        None,
    ]


WIDE = pa.struct(
    [
        ("id", pa.int64()),
        ("seen", pa.timestamp("us", "UTC")),
        ("tags", pa.list_(pa.binary())),
        ("paid", pa.list_(pa.struct([("amount", pa.decimal128(9, 2)), ("day", pa.date32())]))),
    ]
)


@FORMS
@pytest.mark.parametrize(
    ("given", "path", "reason"),
    [
        pytest.param({}, "user.id", "null, but the column is required", id="null"),
        pytest.param({"id": 1, "tags": [b"a", None]}, "user.tags[1]", "null, but the column is required", id="element"),
        pytest.param({"id": 1, "tags": [b"\xff"]}, "user.tags[0]", '"\\\\xff" does not fit a string', id="no UTF-8"),
        pytest.param(
            {"id": 1, "paid": [None, {"amount": Decimal("1000.00")}]},
            "user.paid[1].amount",
            '"1000.00" does not fit a decimal(5, 2)',
            id="field of element",
        ),
    ],
)
def test_stored_faults_have_a_path(read: Read, form: str, given: object, path: str, reason: str) -> None:
    """A value inside that does not fit makes a bad row that says where; its neighbours stay."""
    found = read(f"a.{form}", stored(form, "user", WIDE, {"id": 1}, given, {"id": 3}), SCHEMA)
    assert found.faults == [(3, path, reason)]
    assert [row["n"] for row in found.rows] == [0, 1, 3, 4]


@FORMS
def test_stored_maps_arrive(read: Read, form: str) -> None:
    """Keys and values are cast like columns, and named by the key."""
    kind = pa.map_(pa.string(), pa.list_(pa.int64()))
    body = stored(form, "labels", kind, [("a", [1, None]), ("b", None)], [], [("x", []), ("y", [1, 2**40])])
    found = read(f"a.{form}", body, LABELS)
    assert [row["labels"] for row in found.rows] == [None, [("a", [1, None]), ("b", None)], [], None]
    assert found.faults == [(4, 'labels["y"][1]', "1099511627776 does not fit an int")]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        pytest.param(pa.struct([("id", pa.int64())]), r'has no column "user.seen" \(it has user.id\); ', id="missing"),
        pytest.param(
            pa.struct([*(field for field in WIDE if field.name != "tags"), pa.field("tags", pa.list_(pa.int64()))]),
            r'has the column "user.tags\[\]" as int64, which is no string',
            id="element of another kind",
        ),
        pytest.param(pa.list_(pa.int64()), r'has the column "user" as list<.*>, which is no struct', id="list"),
        pytest.param(pa.string(), r'has the column "user" as string, which is no struct', id="text"),
    ],
)
def test_stored_columns_of_another_shape_are_refused(read: Read, kind: pa.DataType, message: str) -> None:
    """A struct without a wanted field, or something else in its place, is a mistake of the whole file."""
    with pytest.raises(DataError, match=rf"a\.parquet {message}"):
        read("a.parquet", stored("parquet", "user", kind), SCHEMA)


@pytest.mark.parametrize("kind", [USER, pa.struct([pa.field("user", USER, nullable=False)])], ids=["flat", "deep"])
def test_required_fields_below_a_null_are_no_nulls(kind: pa.DataType) -> None:
    """Engines look at required fields even where nobody sees them: below a null struct they hold something."""
    loose = pa.struct([("user", WIDE)]) if kind != USER else WIDE
    for given in ([None, None], [None, {"user": {"id": 1}} if kind != USER else {"id": 1}]):
        found = converted(pa.array(given, loose), pa.field("x", kind), cast)
        assert found.null_count == given.count(None)
        inner = found.field(0)
        while pa.types.is_struct(inner.type):
            assert inner.null_count == 0
            inner = inner.field(0)
        assert inner.null_count == 0


def test_sliced_and_null_structs_keep_their_rows(read: Read) -> None:
    """Nulls between values, in batches that begin anywhere, do not shift what is behind them."""
    given = [None if n % 3 == 0 else {"id": n, "tags": None if n % 5 == 0 else ["t"] * (n % 4)} for n in range(100_000)]
    kind = pa.struct([("id", pa.int64()), ("tags", pa.list_(pa.string()))])
    schema = pa.schema([("n", pa.int64()), ("user", kind)])
    found = read("a.parquet", stored("parquet", "user", kind, *given), schema)
    assert [row["user"] for row in found.rows] == [None, *given, None]

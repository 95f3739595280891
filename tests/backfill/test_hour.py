"""One hour from its objects to its snapshot: every format, every kind of transform, read back as PyIceberg reads it."""

import re
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc
from pyiceberg.table import Table

from lakehouse_pipeline.backfill import views
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.events import Event, subscribed
from lakehouse_pipeline.hours import HourWindow
from tests.projects import HOUR, NEXT, Project, Row, json_lines, parquet, row

COLUMNS = "{at: timestamptz!, id: long!, size: double}"
KEY = re.compile(r"[01]{4}/[01]{4}/[01]{4}/[01]{8}/at_hour=2013-01-01-10/\d{5}-[0-9A-Z]{26}-\d+-0\.parquet")
AT = datetime(2013, 1, 1, 10, tzinfo=UTC)
ROWS = [row(HOUR, 1, 1.5), row(HOUR, 2), row(HOUR, 3, -0.25)]
EXPECTED = [
    {"at": AT.replace(minute=1), "id": 1, "size": 1.5},
    {"at": AT.replace(minute=2), "id": 2, "size": None},
    {"at": AT.replace(minute=3), "id": 3, "size": -0.25},
]
WAYS = [pytest.param(views.SMALL_INPUT, id="driver"), pytest.param(0, id="tasks")]


def _csv(rows: list[Row]) -> str:
    lines = (f"{each['at']},{each['id']},{'' if each['size'] is None else each['size']}\n" for each in rows)
    return "at,id,size\n" + "".join(lines)


def _typed(rows: list[Row]) -> pa.Table:
    schema = pa.schema([("at", pa.timestamp("us", "UTC")), ("id", pa.int64()), ("size", pa.float64())])
    return pa.Table.from_pylist([{**each, "at": datetime.fromisoformat(each["at"])} for each in rows], schema)


def _orc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    orc.write_table(table, sink)
    return bytes(sink.getvalue())


def _write_source(project: Project, form: str, rows: list[Row]) -> None:
    """Write the hour's rows in two objects, and describe them."""
    columns = "" if form in {"parquet", "orc"} else f", columns: {COLUMNS}"
    project.describe({"source": f"{{path: raw/%Y/%m/%d/%H-*.{form}{columns}}}", "columns": COLUMNS})
    for name, part in (("a", rows[:1]), ("b", rows[1:])):
        bodies: dict[str, str | bytes] = {
            "csv": _csv(part),
            "jsonl": json_lines(part),
            "parquet": parquet(_typed(part)),
            "orc": _orc(_typed(part)),
        }
        project.write(f"raw/2013/01/01/10-{name}.{form}", bodies[form.removesuffix(".gz")])


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "csv", "csv.gz", "parquet", "orc"])
@pytest.mark.parametrize(
    ("keys", "small"),
    [
        pytest.param({}, 0, id="copied"),
        pytest.param({"sort": "[id desc]"}, views.SMALL_INPUT, id="sorted by the driver's rows"),
        pytest.param({"sort": "[id desc]"}, 0, id="sorted in tasks"),
    ],
)
def test_rows_of_every_format_arrive(
    project: Project, form: str, keys: dict[str, str], small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of two objects are the table's rows, whatever the format, and whoever reads it."""
    monkeypatch.setattr(views, "SMALL_INPUT", small)
    _write_source(project, form, ROWS)
    project.describe(keys)
    result = project.run()
    assert project.rows() == EXPECTED
    assert (result.seal.rows, result.seal.rows_read, result.seal.rejected) == (3, 3, 0)
    assert all(KEY.fullmatch(name) for name in project.files())


def test_columns_of_a_parquet_source_make_the_table(project: Project) -> None:
    """Without columns in the spec, the first hour's Parquet gives them; the hour's column is required."""
    _write_source(project, "parquet", ROWS)
    project.describe({"columns": None})
    project.run()
    assert project.rows() == EXPECTED
    assert [str(field) for field in project.table.table.schema().fields] == [
        "1: at: required timestamptz",
        "2: id: optional long",
        "3: size: optional double",
    ]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        pytest.param(("at", "user.id", "_bucket"), ("columns.user.id: ", "columns._bucket: "), id="no column's name"),
        pytest.param(("at", "id", "size"), ("sort.0: there is no column 'sizes'; did you mean 'size'?",), id="no such"),
        pytest.param(("then", "id", "sizes"), ("hour: there is no column 'at'",), id="no time"),
    ],
)
def test_columns_of_a_parquet_source_are_judged(project: Project, names: list[str], said: list[str]) -> None:
    """A file whose columns no spec could have makes no table, and all that is wrong with them is said."""
    rows = pa.Table.from_arrays([pa.array([AT]), pa.array([1]), pa.array([2])], names=names)
    project.write("raw/2013/01/01/10.parquet", parquet(rows))
    project.describe({"source": "{path: raw/%Y/%m/%d/%H.parquet}", "sort": "[sizes]"})
    with pytest.raises(ConfigurationError) as caught:
        project.run()
    for text in ("events.yaml: ", "10.parquet gives the table its columns", *said):
        assert text in str(caught.value)
    assert not project.catalog.table_exists("lake.events")


@pytest.mark.parametrize("small", WAYS)
def test_sql_joins_its_views(project: Project, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQL sees the source, whole dimensions and those of its hour; a dimension that may be missing is empty then."""
    monkeypatch.setattr(views, "SMALL_INPUT", small)
    project.land(HOUR, ROWS)
    project.land(NEXT, [row(NEXT, 1)])
    project.write("dims/names.parquet", parquet([{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]))
    project.write("dims/2013/01/01/10.csv", "id,weight\n1,2.5\n3,3.5\n")
    join = (
        "{names: dims/names.parquet, "
        "weights: {path: dims/%Y/%m/%d/%H.csv, columns: {id: long!, weight: double}, missing: empty}}"
    )
    columns = "{at: timestamptz!, id: long!, name: string, weight: double}"
    project.describe({"join": join, "transform": "t.sql", "columns": columns, "sort": "[id]"})
    project.write(
        "tables/t.sql",
        "SELECT at, s.id, name, weight FROM source AS s LEFT JOIN names USING (id) LEFT JOIN weights USING (id)",
    )
    project.run()
    project.run(NEXT)
    assert [(each["id"], each["name"], each["weight"]) for each in project.rows()] == [
        (1, "one", 2.5),
        (2, "two", None),
        (3, None, 3.5),
        (1, "one", None),
    ]


FUNCTION = """\
from pyspark.sql import functions as F

import t_helper


@F.udf("string")
def shout(name):
    return name.upper()


def double(source, names):
    joined = source.join(names, "id", "left")
    return joined.select("at", "id", (F.col("size") * t_helper.FACTOR).alias("size"), shout("name").alias("name"))
"""


@pytest.mark.parametrize("small", WAYS)
def test_function_gets_its_views(project: Project, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function beside the spec gets DataFrames; what it sends to Spark's workers, and what it imports, is found."""
    monkeypatch.setattr(views, "SMALL_INPUT", small)
    project.land(HOUR, [row(HOUR, 1, 1.5)])
    project.write("dims/names.parquet", parquet([{"id": 1, "name": "one"}]))
    project.write("tables/t_helper.py", "FACTOR = 2\n")
    project.write("tables/t_function_of_views.py", FUNCTION)
    columns = "{at: timestamptz!, id: long!, size: double, name: string}"
    project.describe({"join": "{names: dims/names.parquet}", "transform": "t_function_of_views:double"})
    project.describe({"columns": columns})
    project.run()
    assert project.rows() == [{"at": AT.replace(minute=1), "id": 1, "size": 3.0, "name": "ONE"}]


def test_function_of_a_package(project: Project) -> None:
    """A module in a folder beside the spec may import its neighbours by their package."""
    project.land(HOUR, ROWS)
    project.write("tables/t_package/limits.py", "LIMIT = 2\n")
    project.write(
        "tables/t_package/events.py",
        "from .limits import LIMIT\n\n\ndef first(source):\n    return source.where(source.id < LIMIT)\n",
    )
    project.describe({"transform": "t_package.events:first", "columns": COLUMNS})
    project.run()
    assert project.ids() == [1]


@pytest.mark.parametrize("small", WAYS)
def test_provenance_is_there_for_who_asks(project: Project, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transform that speaks of `_file` and `_position` gets each row's object and line."""
    monkeypatch.setattr(views, "SMALL_INPUT", small)
    project.land(HOUR, ROWS)
    project.describe({"transform": "t.sql", "columns": "{at: timestamptz!, file: string!, line: long!}"})
    project.write("tables/t.sql", "SELECT at, _file AS file, _position AS line FROM source")
    project.run()
    assert [(each["file"].rpartition("/")[2], each["line"]) for each in project.rows()] == [
        ("10.jsonl", 1),
        ("10.jsonl", 2),
        ("10.jsonl", 3),
    ]


def test_types_arrive_as_they_are(project: Project) -> None:
    """Every type of a spec goes through Spark into Parquet and comes back as the same value."""
    columns = (
        "{at: timestamp!, boolean: boolean, int: int, long: long, float: float, double: double, "
        'decimal: "decimal(20,3)", date: date, timestamptz: timestamptz, string: string, binary: binary}'
    )
    values = {
        "at": "2013-01-01T10:00:00.123456",
        "boolean": True,
        "int": -(2**31),
        "long": 2**63 - 1,
        "float": 0.5,
        "double": 1e300,
        "decimal": "12345678901234567.125",
        "date": "0001-01-01",
        "timestamptz": "1969-12-31T23:59:59.999999+01:00",
        "string": "ü\u0000\U0001f600",
        "binary": "bytes",
    }
    project.describe({"source": f"{{path: raw/%Y/%m/%d/%H.jsonl, columns: {columns}}}", "sort": "[long]"})
    project.land(HOUR, [values, {"at": values["at"]}])
    project.run()
    empty, full = project.rows()
    assert full == {
        "at": datetime(2013, 1, 1, 10, 0, 0, 123456),  # noqa: DTZ001  # the type has no zone
        "boolean": True,
        "int": -(2**31),
        "long": 2**63 - 1,
        "float": 0.5,
        "double": 1e300,
        "decimal": Decimal("12345678901234567.125"),
        "date": date(1, 1, 1),
        "timestamptz": datetime(1969, 12, 31, 22, 59, 59, 999999, tzinfo=UTC),
        "string": "ü\u0000\U0001f600",
        "binary": b"bytes",
    }
    assert empty == {**dict.fromkeys(full), "at": full["at"]}


@pytest.mark.parametrize("form", ["jsonl", "parquet", "orc"])
@pytest.mark.parametrize("keys", [{}, {"sort": "[id]"}], ids=["copied", "sorted"])
def test_nested_values_arrive(project: Project, form: str, keys: dict[str, str]) -> None:
    """Structs, lists and maps go through whole, their nulls in place, whoever carries them."""
    columns = (
        '{at: timestamptz!, id: long!, user: "struct<name:string!,tags:list<string>>", '
        'prices: "map<string,decimal(9,2)>", seen: "list<struct<at:timestamptz,n:int>>"}'
    )
    own = f", columns: {columns}" if form == "jsonl" else ""
    project.describe({"source": f"{{path: raw/%Y/%m/%d/%H.{form}{own}}}", "columns": columns, **keys})
    full = {"user": {"name": "a", "tags": ["x", None]}, "prices": {"eur": "1.50", "usd": None}}
    given = [
        {**row(HOUR, 1), **full, "seen": [{"at": "2013-01-01T10:00:00Z", "n": 7}, None]},
        {**row(HOUR, 2), "user": {"name": "b"}, "prices": {}, "seen": []},
        row(HOUR, 3),
    ]
    expected = [
        {
            "at": AT.replace(minute=1),
            "id": 1,
            "user": {"name": "a", "tags": ["x", None]},
            "prices": [("eur", Decimal("1.50")), ("usd", None)],
            "seen": [{"at": AT, "n": 7}, None],
        },
        {"at": AT.replace(minute=2), "id": 2, "user": {"name": "b", "tags": None}, "prices": [], "seen": []},
        {"at": AT.replace(minute=3), "id": 3, "user": None, "prices": None, "seen": None},
    ]
    instant = pa.timestamp("us", "UTC")
    schema = pa.schema(
        [
            ("at", instant),
            ("id", pa.int64()),
            ("user", pa.struct([("name", pa.string()), ("tags", pa.list_(pa.string()))])),
            ("prices", pa.map_(pa.string(), pa.decimal128(9, 2))),
            ("seen", pa.list_(pa.struct([("at", instant), ("n", pa.int32())]))),
        ]
    )
    table = pa.Table.from_pylist(expected, schema)
    bodies = {"jsonl": json_lines(given), "parquet": parquet(table), "orc": _orc(table)}
    project.write(f"raw/2013/01/01/10.{form}", bodies[form])
    project.run()
    # Not through PyIceberg: 0.12 reads a list of structs that is null as an empty one.
    (file,) = project.table.live(HourWindow.from_key(HOUR))
    assert pq.ParquetFile(file.path.removeprefix("file://")).read().to_pylist() == expected


def test_narrow_types_are_widened(project: Project) -> None:
    """A transform may give a smaller type than the table has; nulls fit every type."""
    project.land(HOUR, [row(HOUR, 1, 1.5)])
    columns = '{at: timestamptz!, id: long!, size: double, price: "decimal(12,4)", note: string}'
    project.describe({"transform": "t.sql", "columns": columns})
    project.write(
        "tables/t.sql",
        "SELECT at, CAST(id AS SMALLINT) AS id, CAST(size AS FLOAT) AS size, 1.25BD AS price, NULL AS note FROM source",
    )
    project.run()
    assert project.rows() == [
        {"at": AT.replace(minute=1), "id": 1, "size": 1.5, "price": Decimal("1.2500"), "note": None}
    ]


@pytest.mark.parametrize("keys", [{}, {"sort": "[id]"}], ids=["copied", "sorted"])
@pytest.mark.parametrize("small", WAYS)
def test_hour_of_an_empty_object_is_empty(
    project: Project, keys: dict[str, str], small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object without rows is an hour without rows: what was there is replaced by nothing."""
    monkeypatch.setattr(views, "SMALL_INPUT", small)
    project.describe({"key": "[id]", **keys})
    project.land(HOUR, ROWS)
    project.run()
    project.land(HOUR, [])
    seal = project.run().seal
    assert (seal.files, seal.rows, seal.rows_read, project.ids()) == (0, 0, 0, [])


@pytest.mark.parametrize("keys", [{}, {"sort": "['dep-delay desc', größe, 1st, select]"}], ids=["copied", "sorted"])
def test_columns_may_have_any_name(project: Project, keys: dict[str, str]) -> None:
    """Blanks, dashes, umlauts, digits and SQL's own words are names like others."""
    columns = "{the time: timestamptz!, dep-delay: long!, größe: double, 1st: string, select: string}"
    source = f"{{path: raw/%Y/%m/%d/%H*.jsonl, columns: {columns}}}"
    project.describe({"source": source, "hour": "the time", "key": "[dep-delay, the time]", **keys})
    given = {"the time": "2013-01-01T10:00:00Z", "dep-delay": 5, "größe": 1.5, "1st": "x", "select": "y"}
    project.land(HOUR, [given])
    project.run()
    assert project.rows() == [{**given, "the time": AT}]
    assert project.run().step == "skip"


def _buckets(project: Project, hour: str = HOUR) -> dict[int, list[str]]:
    """List an hour's live files by bucket, in the order of their numbers."""
    paths = [file.path for file in project.table.live(HourWindow.from_key(hour))]
    found: dict[int, list[str]] = {}
    for path in sorted(paths, key=lambda path: [int(part) for part in _numbers(path)]):
        found.setdefault(int(_numbers(path)[0]), []).append(path)
    return found


def _numbers(path: str) -> tuple[str, str]:
    match = re.search(r"/(\d{5})-[0-9A-Z]{26}-(\d+)-0\.parquet$", path)
    assert match is not None
    return match[1], match[2]


LARGE = 120_000  # rows; about 7 MiB of JSON lines


@pytest.fixture(scope="module")
def many() -> bytes:
    """Give rows of the hour in no order, enough of them for several tasks and files."""
    numbers = ((n * 7919) % LARGE for n in range(LARGE))
    return b"".join(b'{"at": "2013-01-01T10:%02d:00Z", "id": %d, "size": %d.5}\n' % (n % 60, n, n * n) for n in numbers)


def test_large_hour_goes_through_tasks_into_sorted_buckets(project: Project, many: bytes) -> None:
    """Above 4 MiB tasks read; buckets follow each other in the sort order, and so do their rows."""
    assert len(many) > views.SMALL_INPUT
    project.describe({"sort": "[size desc, id]", "file_size": "1MB", "key": "[id]"})
    project.write("raw/2013/01/01/10.jsonl", many)
    result = project.run()
    assert (result.seal.rows, result.seal.rows_read, result.seal.sort_order_id) == (LARGE, LARGE, 1)
    assert project.ids() == list(range(LARGE))
    buckets = _buckets(project)
    assert len(buckets) > 1
    sizes = [
        size
        for number in sorted(buckets)
        for path in buckets[number]
        for size in pq.read_table(path.removeprefix("file://"))["size"].to_pylist()
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert [check.name for check in result.checks] == ["rows_match_source", "keys_are_unique"]
    assert all(KEY.fullmatch(name) for name in project.files())


@pytest.mark.parametrize("order", ["[id, size]", "[id desc]"])
def test_an_hour_is_cut_where_the_one_beside_it_was(project: Project, many: bytes, order: str) -> None:
    """The first hour is sampled; the next has the bounds of its files, which do not overlap, and are as even."""
    project.describe({"sort": order, "file_size": "1MB"})
    heard: list[object] = []

    def hear(event: Event) -> None:
        if event.name == "hour.bounds":
            heard.append(event.fields["bounds"])

    with subscribed(hear):
        for hour in (HOUR, NEXT):
            project.write(f"raw/2013/01/01/{hour[11:13]}.jsonl", many.replace(b"T10:", f"T{hour[11:13]}:".encode()))
            assert project.run(hour).seal.rows == LARGE
    assert heard == ["sampled", "known"]
    ids = [
        pq.read_table(path.removeprefix("file://"))["id"].to_pylist()
        for paths in _buckets(project, NEXT).values()
        for path in paths
    ]
    assert len(ids) > 3
    assert max(map(len, ids)) < 2 * LARGE / len(ids)
    joined = [number for part in ids for number in part]
    assert joined == sorted(joined, reverse="desc" in order)


def test_large_hour_is_copied_in_tasks(project: Project, many: bytes) -> None:
    """Without transform and sort every task writes what it read; files roll at the spec's size."""
    project.describe({"file_size": "1MB"})
    for name in ("a", "b"):
        project.write(f"raw/2013/01/01/10-{name}.jsonl", many)
    result = project.run()
    assert (result.seal.rows, result.seal.rows_read) == (2 * LARGE, 2 * LARGE)
    assert project.ids() == sorted([*range(LARGE), *range(LARGE)])
    assert any(len(files) > 1 for files in _buckets(project).values())


def test_transform_may_use_its_source_twice_or_not_at_all(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Spark did not have to read, or read twice, is no reason to refuse the rows that came out of it."""
    monkeypatch.setattr(views, "SMALL_INPUT", 0)

    project.land(HOUR, ROWS)
    project.describe({"transform": "t.sql", "columns": COLUMNS})
    for sql, ids in (
        ("SELECT * FROM source UNION ALL SELECT at, id + 10, size FROM source", [1, 2, 3, 11, 12, 13]),
        ("SELECT TIMESTAMP '2013-01-01 10:00:00Z' AS at, 5L AS id, 1.0D AS size", [5]),
        ("SELECT * FROM source WHERE false UNION ALL SELECT TIMESTAMP '2013-01-01 10:00:00Z', 6L, 1.0D", [6]),
        ("SELECT * FROM source ORDER BY id LIMIT 1", [1]),
    ):
        project.write("tables/t.sql", sql)
        project.run()
        assert project.ids() == ids


def test_snapshot_says_who_wrote_it(project: Project) -> None:
    """The snapshot's summary counts what was added and removed, and names the engine."""
    project.land(HOUR, ROWS)
    project.run()
    project.land(HOUR, ROWS[:1])
    project.run()
    table: Table = project.table.table
    summaries = [snapshot.summary for snapshot in table.snapshots()]
    said = [
        (str(summary.operation), summary["added-records"], summary["total-records"], summary["engine-name"])
        for summary in summaries
        if summary is not None
    ]
    assert said == [
        ("Operation.APPEND", "3", "3", "lakehouse_pipeline"),
        ("Operation.OVERWRITE", "1", "1", "lakehouse_pipeline"),
    ]

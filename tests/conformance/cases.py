"""The cases: what a spec and its raw files become, the same on every engine.

Every case is a table of one hour. Its rows are those that PyIceberg reads back, in the order of `id`.
"""

import gzip
import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq

HOUR = "2013-01-01-10:00"
AT = datetime(2013, 1, 1, 10, tzinfo=UTC)
TEXT_AT = "2013-01-01T10:00:00Z"

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One table.

    Attributes:
        name: of the table and of its folder below `raw`.
        files: by their path below that folder.
        columns: of csv and jsonl, as YAML; empty for files that bring their own.
        rows: expected, without `at`; None where the hour fails.
        error: what the failure says.
        source: further keys of the source, as YAML.
        keys: further keys of the spec, as YAML.
        texts: further files of the tables' folder.
        refused: what an engine that cannot do it says, by engine.
        differs: the rows of an engine that silently does something else; docs/engines.md names each.
        suffix: of the path, where it is not that of the first file.
    """

    name: str
    files: Mapping[str, bytes]
    columns: str = ""
    rows: list[Row] | None = None
    error: str = ""
    source: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    differs: Mapping[str, list[Row]] = field(default_factory=dict)
    suffix: str = ""

    @property
    def spec(self) -> str:
        """The spec as YAML."""
        name = next(iter(self.files), "10.jsonl")
        columns = f", columns: {{at: timestamptz!, id: long!{self.columns and ', '}{self.columns}}}"
        hour = "" if name.startswith("2013-01-01.") else "-%H"
        path = f"raw/{self.name}/%Y-%m-%d{hour}{self.suffix or name[name.index('.') :]}"
        source = f"{{path: {path}{self.source and ', '}{self.source}"
        keys = {
            "table": f"lake.{self.name}",
            "source": source + ("" if name.endswith((".parquet", ".orc")) else columns) + "}",
            "hour": "at",
            "start": "2013-01-01",
            **({"accepts": "[integer_overflow]"} if "transform" in self.keys else {}),
            **self.keys,
        }
        return "".join(f"{key}: {value}\n" for key, value in keys.items())


def jsonl(rows: list[Row]) -> bytes:
    """Write rows as JSON lines, each with the hour's first instant."""
    return "".join(json.dumps({"at": TEXT_AT, "id": number, **row}) + "\n" for number, row in enumerate(rows)).encode()


def csv(header: str, *lines: str) -> bytes:
    """Write lines as CSV, each with the hour's first instant and its number."""
    body = "".join(f"{TEXT_AT},{number},{line}\n" for number, line in enumerate(lines))
    return f"at,id,{header}\n{body}".encode()


def table(columns: Mapping[str, pa.Array]) -> pa.Table:
    """Make a table of columns, with the hour's first instant and numbers."""
    rows = len(next(iter(columns.values())))
    at = pa.array([AT] * rows, pa.timestamp("us", "UTC"))
    return pa.table({"at": at, "id": pa.array(range(rows), pa.int64()), **columns})


def parquet(rows: pa.Table, rows_a_group: int = 2) -> bytes:
    """Write a table as Parquet, in row groups of two, or of so many rows."""
    sink = io.BytesIO()
    pq.write_table(rows, sink, row_group_size=rows_a_group)
    return sink.getvalue()


def orc(rows: pa.Table) -> bytes:
    """Write a table as ORC."""
    sink = io.BytesIO()
    pa.orc.write_table(rows, sink)
    return sink.getvalue()


def compressed(codec: str) -> Callable[[bytes], bytes]:
    """Give what compresses as one of pyarrow's codecs does, in a file's framing."""

    def write(body: bytes) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, codec) as stream:
            stream.write(body)
        return bytes(sink.getvalue())

    return write


FILE = "2013-01-01-10"
SMALL: list[Row] = [{"size": 1.5}, {"size": None}, {"size": -0.25}]
SMALL_ROWS: list[Row] = [{"id": number, "size": row["size"]} for number, row in enumerate(SMALL)]
SMALL_TABLE = table({"size": pa.array([1.5, None, -0.25])})

PRIMITIVES = {
    "b": pa.array([True, None, False]),
    "i": pa.array([-(2**31), None, 2**31 - 1], pa.int32()),
    "l": pa.array([-(2**63), None, 2**63 - 1], pa.int64()),
    "f": pa.array([-0.5, None, 3.0], pa.float32()),
    "d": pa.array([-1e300, None, 1e-300]),
    "s": pa.array(["", None, "naïve 東京 \U0001f600"]),
    "x": pa.array([b"", None, b"\x00\xff"]),
    "day": pa.array([date(1969, 12, 31), None, date(2262, 4, 12)]),
    "zoned": pa.array(
        [datetime(1900, 1, 1, tzinfo=UTC), None, datetime(2262, 4, 12, 1, 2, 3, 4, tzinfo=UTC)],
        pa.timestamp("us", "UTC"),
    ),
    "local": pa.array(
        [datetime(1900, 1, 1), None, datetime(2013, 3, 10, 2, 30, 0, 1)],  # noqa: DTZ001  # without a zone
        pa.timestamp("us"),
    ),
}
DECIMALS = {
    "small": pa.array([Decimal("-99.99"), None, Decimal("0.01")], pa.decimal128(4, 2)),
    "medium": pa.array([Decimal("-99999999.9999"), None, Decimal(1)], pa.decimal128(12, 4)),
    "large": pa.array([Decimal(10**38 - 1), None, Decimal(-1)], pa.decimal128(38, 0)),
}
NESTED = {
    "who": pa.array(
        [{"name": "a", "age": 1}, None, {"name": None, "age": None}],
        pa.struct([("name", pa.string()), ("age", pa.int32())]),
    ),
    "tags": pa.array([["x", None], [], None], pa.list_(pa.string())),
    "sizes": pa.array([[("a", 1.5)], [], None], pa.map_(pa.string(), pa.float64())),
    "deep": pa.array([[{"n": [1, 2]}], [None], None], pa.list_(pa.struct([("n", pa.list_(pa.int64()))]))),
}
TYPES = "b: boolean, i: int, l: long, f: float, d: double, s: string, day: date, zoned: timestamptz, local: timestamp"


def _rows(columns: Mapping[str, pa.Array]) -> list[Row]:
    return [{"id": n, **{name: values[n].as_py() for name, values in columns.items()}} for n in range(3)]


def _as_text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


_JSON_ROWS: list[Row] = [
    {name: _as_text(value) for name, value in row.items() if name != "x"} for row in _rows(PRIMITIVES)
]
_JSON_TYPED: list[Row] = [{name: value for name, value in row.items() if name != "x"} for row in _rows(PRIMITIVES)]

FORMATS = [
    Case("jsonl_plain", {f"{FILE}.jsonl": jsonl(SMALL)}, "size: double", SMALL_ROWS),
    Case("jsonl_gz", {f"{FILE}.jsonl.gz": gzip.compress(jsonl(SMALL))}, "size: double", SMALL_ROWS),
    *(
        Case(
            f"jsonl_{codec}",
            {f"{FILE}.jsonl{suffix}": compressed(codec)(jsonl(SMALL))},
            "size: double",
            SMALL_ROWS,
        )
        for codec, suffix in (("bz2", ".bz2"), ("zstd", ".zst"), ("lz4", ".lz4"), ("brotli", ".br"))
    ),
    Case("csv_plain", {f"{FILE}.csv": csv("size", "1.5", "", "-0.25")}, "size: double", SMALL_ROWS),
    Case("csv_gz", {f"{FILE}.csv.gz": gzip.compress(csv("size", "1.5", "", "-0.25"))}, "size: double", SMALL_ROWS),
    Case("parquet_plain", {f"{FILE}.parquet": parquet(SMALL_TABLE)}, rows=SMALL_ROWS),
    Case("orc_plain", {f"{FILE}.orc": orc(SMALL_TABLE)}, rows=SMALL_ROWS),
]


def through_sql(case: Case, columns: str, sql: str = "SELECT * FROM source") -> Case:
    """Send a case's rows through the engine: by themselves they are copied without it."""
    return Case(
        f"{case.name}_sql",
        case.files,
        case.columns,
        case.rows,
        case.error,
        case.source,
        {**case.keys, "transform": f"{case.name}.sql", "columns": f"{{at: timestamptz!, id: long!, {columns}}}"},
        {f"{case.name}.sql": sql},
        case.refused,
    )


_PRIMITIVES = Case("types_parquet", {f"{FILE}.parquet": parquet(table(PRIMITIVES))}, rows=_rows(PRIMITIVES))
_DECIMALS = Case("decimals", {f"{FILE}.parquet": parquet(table(DECIMALS))}, rows=_rows(DECIMALS))
_NESTED = Case("nested_parquet", {f"{FILE}.parquet": parquet(table(NESTED))}, rows=_rows(NESTED))
_NESTED_TYPES = (
    "who: 'struct<name:string,age:int>', tags: 'list<string>', sizes: 'map<string,double>', "
    "deep: 'list<struct<n:list<long>>>'"
)
_JSON = Case("types_jsonl", {f"{FILE}.jsonl": jsonl(_JSON_ROWS)}, TYPES, _JSON_TYPED)

TYPED = [
    _PRIMITIVES,
    through_sql(_PRIMITIVES, f"{TYPES.replace('s: string,', 's: string, x: binary,')}"),
    _DECIMALS,
    through_sql(_DECIMALS, 'small: "decimal(4,2)", medium: "decimal(12,4)", large: "decimal(38,0)"'),
    _NESTED,
    through_sql(_NESTED, _NESTED_TYPES),
    _JSON,
    through_sql(_JSON, TYPES),
    Case(
        "nan_and_infinity",
        {f"{FILE}.parquet": parquet(table({"d": pa.array([math.nan, math.inf, -math.inf])}))},
        rows=[{"id": 0, "d": math.nan}, {"id": 1, "d": math.inf}, {"id": 2, "d": -math.inf}],
        keys={"sort": "[d]"},
    ),
]


_OVERFLOW = "SELECT at, id, CAST(2147483647 AS INT) + CAST(id AS INT) AS n FROM source WHERE id < 2"


def sql_case(name: str, sql: str, columns: str, rows: list[Row] | None, **more: Any) -> Case:
    """Make a case of a query over `source` (id, kind, size) and the views `kinds` and `empty`."""
    events: list[Row] = [
        {"kind": kind, "size": size} for kind, size in (("a", 1.0), ("b", 2.0), ("a", None), (None, 4.0))
    ]
    keys = {
        "transform": f"{name}.sql",
        "columns": f"{{at: timestamptz!, id: long!{columns and ', '}{columns}}}",
        "join": "{kinds: raw/kinds.parquet, empty: {path: raw/none.jsonl, missing: empty, "
        "columns: {kind: string, note: string}}}",
        **more.pop("keys", {}),
    }
    return Case(
        name,
        {f"{FILE}.jsonl": jsonl(events)},
        "kind: string, size: double",
        rows,
        keys=keys,
        texts={f"{name}.sql": sql},
        **more,
    )


SHARED = {"raw/kinds.parquet": parquet(pa.table({"kind": ["a", "c"], "label": ["alpha", "gamma"]}))}

QUERIES = [
    sql_case(
        "inner_join",
        "SELECT s.at, s.id, k.label FROM source s JOIN kinds k ON s.kind = k.kind",
        "label: string",
        [{"id": 0, "label": "alpha"}, {"id": 2, "label": "alpha"}],
    ),
    sql_case(
        "left_joins",
        "SELECT s.at, s.id, k.label, e.note FROM source s LEFT JOIN kinds k ON s.kind = k.kind "
        "LEFT JOIN empty e ON s.kind = e.kind",
        "label: string, note: string",
        [{"id": n, "label": label, "note": None} for n, label in enumerate(("alpha", None, "alpha", None))],
    ),
    sql_case(
        "aggregates",
        "SELECT min(at) AS at, count(*) AS id, kind, sum(size) AS total, avg(size) AS mean, count(size) AS known "
        "FROM source GROUP BY kind HAVING kind = 'a'",
        "kind: string, total: double, mean: double, known: long",
        [{"id": 2, "kind": "a", "total": 1.0, "mean": 1.0, "known": 1}],
    ),
    sql_case(
        "windows",
        "SELECT at, id, row_number() OVER (PARTITION BY kind ORDER BY id) AS place, "
        "lag(id) OVER (ORDER BY id) AS before FROM source",
        "place: int, before: long",
        [
            {"id": 0, "place": 1, "before": None},
            {"id": 1, "place": 1, "before": 0},
            {"id": 2, "place": 2, "before": 1},
            {"id": 3, "place": 1, "before": 2},
        ],
    ),
    sql_case("no_rows_read", "SELECT * FROM source WHERE false", "kind: string, size: double", None, error="left none"),
    sql_case(
        "a_cast_that_loses",
        "SELECT at, id, CAST(concat('x', id) AS INT) AS n FROM source",
        "n: int",
        None,
        error="x0|x1|x2|x3",
    ),
    sql_case(
        "an_overflow",
        _OVERFLOW,
        "n: int",
        None,
        error="overflow",
        keys={"accepts": "[]"},
        refused={"sail": r"an_overflow.yaml: transform: on sail, .*accepts: \[integer_overflow\]"},
    ),
    sql_case(
        "an_accepted_overflow",
        _OVERFLOW,
        "n: int",
        None,
        error="overflow",
        differs={"sail": [{"id": 0, "n": 2**31 - 1}, {"id": 1, "n": -(2**31)}]},
    ),
    sql_case("a_division_by_zero", "SELECT at, id, 1 / (id - 1) AS n FROM source", "n: double", None, error="zero"),
    sql_case(
        "instants",
        "SELECT at, id, date_trunc('HOUR', at) AS hour, CAST('2013-03-10 02:30:00' AS TIMESTAMP_NTZ) AS local, "
        "to_timestamp('2013-01-01T10:00:00+02:00') AS zoned FROM source WHERE id = 0",
        "hour: timestamptz, local: timestamp, zoned: timestamptz",
        [
            {
                "id": 0,
                "hour": AT,
                "local": datetime(2013, 3, 10, 2, 30),  # noqa: DTZ001  # without a zone
                "zoned": datetime(2013, 1, 1, 8, tzinfo=UTC),
            }
        ],
    ),
]

_MANY: list[Row] = [
    {"name": f"{(n * 7919) % 1000:04d}" * 50 if n % 97 else None, "size": math.sin(n)} for n in range(12_000)
]
_MANY_ROWS: list[Row] = [{"id": n, **row} for n, row in enumerate(_MANY)]

_DIGESTS = [hashlib.sha256(str(n).encode()).digest() * 2 for n in range(40_000)]

_HOT: list[Row] = [{"name": f"{n if n % 10 == 0 else 'hot'}" * 50, "size": math.sin(n)} for n in range(20_000)]
HOT_KEY = Case(
    "sorted_with_a_hot_key",
    {f"{FILE}.jsonl": jsonl(_HOT)},
    "name: string, size: double",
    [{"id": n, **row} for n, row in enumerate(_HOT)],
    keys={"sort": "[name]", "file_size": "1MB", "check_order": "true"},
)

SORTED = [
    Case("sorted_once", {f"{FILE}.jsonl": jsonl(SMALL)}, "size: double", SMALL_ROWS, keys={"sort": "[size desc, id]"}),
    Case(
        "sorted_into_ranges",
        {f"{FILE}.jsonl": jsonl(_MANY)},
        "name: string, size: double",
        _MANY_ROWS,
        keys={"sort": "[name, size desc]", "file_size": "1MB", "check_order": "true"},
    ),
    Case(
        "sorted_down_into_ranges",
        {f"{FILE}.jsonl.gz": gzip.compress(jsonl(_MANY * 2), 0)},
        "name: string, size: double",
        [{"id": n, **row} for n, row in enumerate(_MANY * 2)],
        keys={"sort": "[name desc, at, id]", "file_size": "1MB", "check_order": "true"},
    ),
    Case(
        "sorted_by_bytes",
        {f"{FILE}.parquet": parquet(table({"digest": pa.array(_DIGESTS)}), rows_a_group=5_000)},
        rows=[{"id": n, "digest": digest} for n, digest in enumerate(_DIGESTS)],
        keys={"sort": "[digest]", "file_size": "1MB", "check_order": "true"},
    ),
    HOT_KEY,
]

_DAY: list[Row] = [
    {"at": f"2013-01-01T{n % 24:02d}:00:00Z", "id": n, "name": f"{(n * 7919) % 1000:04d}" * 50} for n in range(24_000)
]

MANY_HOURS = [
    Case(
        "a_days_file",
        {"2013-01-01.jsonl": jsonl(_DAY)},
        "name: string",
        [{"id": row["id"], "name": row["name"]} for row in _DAY if row["id"] % 24 == 10],  # the hour
    ),
    Case(
        "a_days_file_sorted",
        {"2013-01-01.jsonl": jsonl(_DAY * 4)},
        "name: string",
        [{"id": row["id"], "name": row["name"]} for row in _DAY * 4 if row["id"] % 24 == 10],
        keys={"sort": "[name, id]", "file_size": "1MB"},
    ),
]

_BAD = jsonl([{"size": 1.0}]) + b'{"at": broken\n' + jsonl([{"size": "late"}]) + jsonl([{"size": 2.0}])
_LATE = jsonl([{"size": 1.0}, {"at": "2013-01-01T11:00:00Z", "size": 2.0}])

MALFORMED = [
    Case("bad_row_fails", {f"{FILE}.jsonl": _BAD}, "size: double", None, rf"{FILE}\.jsonl:2: is no JSON"),
    Case(
        "bad_rows_rejected",
        {f"{FILE}.jsonl": _BAD},
        "size: double",
        [{"id": 0, "size": 1.0}, {"id": 0, "size": 2.0}],
        source="bad_rows: reject",
    ),
    Case(
        "bad_rows_rejected_before_sql",
        {f"{FILE}.jsonl": _BAD},
        "size: double",
        [{"id": 0, "size": 2.0}, {"id": 0, "size": 4.0}],
        source="bad_rows: reject",
        keys={"transform": "doubled.sql", "columns": "{at: timestamptz!, id: long!, size: double}"},
        texts={"doubled.sql": "SELECT at, id, size * 2 AS size FROM source"},
    ),
    Case("truncated", {f"{FILE}.jsonl.gz": gzip.compress(jsonl(SMALL * 99))[:-40]}, "size: double", None, "truncated"),
    Case("other_hour_fails", {f"{FILE}.jsonl": _LATE}, "size: double", None, f"{FILE}.jsonl:2"),
    Case(
        "other_hour_rejected",
        {f"{FILE}.jsonl": _LATE},
        "size: double",
        [{"id": 0, "size": 1.0}],
        keys={"other_hours": "reject"},
    ),
    Case("nothing_there", {}, "size: double", None, "no object|there is no|missing: empty"),
    Case("nothing_is_empty", {}, "size: double", [], source="missing: empty"),
    Case("key_twice", {f"{FILE}.jsonl": jsonl([{}]) * 2}, "", None, "id = 0", keys={"key": "[id]"}),
    Case(
        "null_in_required",
        {f"{FILE}.jsonl": jsonl(SMALL)},
        "size: double",
        None,
        "column size is required",
        keys={"transform": "same.sql", "columns": "{at: timestamptz!, id: long!, size: double!}"},
        texts={"same.sql": "SELECT * FROM source"},
    ),
]

FUNCTIONS = [
    Case(
        "function",
        {f"{FILE}.jsonl": jsonl(SMALL)},
        "size: double",
        [{"id": 0, "size": 3.0}, {"id": 2, "size": -0.5}],
        keys={"transform": "doubling:double", "columns": "{at: timestamptz!, id: long!, size: double}"},
        texts={
            "doubling.py": "from pyspark.sql import functions as F\n\n\n"
            "def double(source):\n"
            "    known = source.where(F.col('size').isNotNull())\n"
            "    return known.select('at', 'id', (F.col('size') * 2).alias('size'))\n"
        },
    ),
]

SPARK_READERS = [
    Case(
        f"spark_reader_{form}",
        {f"{FILE}.{form}": body},
        columns,
        SMALL_ROWS,
        source="reader: spark",
        refused={"sail": "sail has no reader for"} if form != "parquet" else {},
    )
    for form, body, columns in (
        ("parquet", parquet(SMALL_TABLE), ""),
        ("orc", orc(SMALL_TABLE), ""),
        ("csv", csv("size", "1.5", "", "-0.25"), "size: double"),
        ("jsonl", jsonl(SMALL), "size: double"),
    )
]

CASES = {
    case.name: case
    for case in (*FORMATS, *TYPED, *QUERIES, *SORTED, *MANY_HOURS, *MALFORMED, *FUNCTIONS, *SPARK_READERS)
}

import pickle
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lakehouse_pipeline.config.table import FILE_SIZE, PartitionField, SortField, TableSpec
from lakehouse_pipeline.config.transform import FunctionTransform
from lakehouse_pipeline.config.types import Column
from lakehouse_pipeline.config.validation import validated
from lakehouse_pipeline.config.yaml_source import parse_document
from lakehouse_pipeline.hours import HourWindow

Read = Callable[[Mapping[str, str | None]], TableSpec]
Problems = Callable[[Mapping[str, str | None]], list[str]]
AT = Column(name="at", type="timestamptz", required=True)
PARQUET = "{path: /raw/%Y/%m/%d/%H.parquet}"


def test_the_defaults(read_spec: Read, tmp_path: Path) -> None:
    """Four keys are enough; nothing is dropped, sorted or scheduled to an end unless the spec says so."""
    spec = read_spec({})
    assert spec.model_dump(exclude={"source", "compact"}) == {
        "name": "events",
        "file": tmp_path / "tables" / "events.yaml",
        "table": "lake.events",
        "description": "",
        "owners": (),
        "join": (),
        "transform": None,
        "columns": None,
        "hour": "at",
        "partition": (),
        "other_hours": "fail",
        "key": (),
        "sort": (),
        "check_order": False,
        "file_size": FILE_SIZE,
        "freshness": None,
        "lag": timedelta(0),
        "late": timedelta(hours=72),
        "start": {"start": HourWindow.from_key("2013-01-01-00:00").start},
        "end": None,
        "staging": "direct",
        "staging_prefix": None,
        "staging_ways": None,
        "accepts": (),
        "properties": {},
    }


@pytest.mark.parametrize(
    ("keys", "field", "value"),
    [
        pytest.param({"table": "a.b-c.d_1"}, "table", "a.b-c.d_1", id="nested namespace"),
        pytest.param({"owners": "[team:x y, a.b@c.org]"}, "owners", ("team:x y", "a.b@c.org"), id="owners"),
        pytest.param(
            {"transform": "my.mod:f"}, "transform", FunctionTransform(module="my.mod", function="f"), id="function"
        ),
        pytest.param({"columns": "{at: timestamptz!}"}, "columns", (AT,), id="columns"),
        pytest.param({"key": "[id, at]"}, "key", ("id", "at"), id="key"),
        pytest.param({"staging": "auto"}, "staging", "auto", id="staging"),
        pytest.param({"staging_prefix": "s3://b/c/"}, "staging_prefix", "s3://b/c", id="staging prefix"),
        pytest.param({"accepts": "[integer_overflow]"}, "accepts", ("integer_overflow",), id="accepts"),
        pytest.param(
            {"sort": "[id desc, at ASC, size]"},
            "sort",
            (SortField(column="id", descending=True), SortField(column="at"), SortField(column="size")),
            id="sort",
        ),
        pytest.param({"sort": "[id]", "check_order": "true"}, "check_order", True, id="check of the order"),
        pytest.param({"other_hours": "reject"}, "other_hours", "reject", id="other hours"),
        pytest.param(
            {"partition": "[bucket(16, id), size]"},
            "partition",
            (PartitionField(transform="bucket[16]", column="id"), PartitionField(transform="identity", column="size")),
            id="partition fields in a line",
        ),
        pytest.param(
            {"partition": "\n- truncate( 4 , id )\n- identity(size)"},
            "partition",
            (PartitionField(transform="truncate[4]", column="id"), PartitionField(transform="identity", column="size")),
            id="partition fields in lines",
        ),
        pytest.param(
            {"columns": "{at: timestamptz!, d: date}", "partition": "[year(d)]"},
            "partition",
            (PartitionField(transform="year", column="d"),),
            id="another date",
        ),
        pytest.param({"file_size": "1MB"}, "file_size", 1_000_000, id="smallest file"),
        pytest.param({"file_size": "5 GB"}, "file_size", 5_000_000_000, id="largest file"),
        pytest.param({"file_size": "64MiB"}, "file_size", 64 * 2**20, id="MiB"),
        pytest.param({"file_size": "1.5gib"}, "file_size", 3 * 2**29, id="part of a GiB"),
        pytest.param({"freshness": "3h"}, "freshness", timedelta(hours=3), id="hours"),
        pytest.param({"freshness": "2d"}, "freshness", timedelta(days=2), id="days"),
        pytest.param({"lag": "15min"}, "lag", timedelta(minutes=15), id="minutes"),
        pytest.param({"late": "never"}, "late", None, id="never"),
        pytest.param({"file_size": "2000KB"}, "file_size", 2_000_000, id="KB"),
        pytest.param({"start": "2013-01-01-10:00"}, "start", HourWindow.from_key("2013-01-01-10:00"), id="hour"),
        pytest.param({"end": "2013-01-02"}, "end", HourWindow.from_key("2013-01-02-00:00"), id="day"),
        pytest.param(
            {"properties": '{format-version: "2", write.format.default: PARQUET}'},
            "properties",
            {"format-version": "2", "write.format.default": "PARQUET"},
            id="properties that are so anyway",
        ),
    ],
)
def test_what_is_read(keys: Mapping[str, str], field: str, value: object, read_spec: Read) -> None:
    """Each key becomes the value that people mean."""
    assert getattr(read_spec(keys), field) == value


_NO_HOUR = "is no hour; write 2013-01-01-10:00 (UTC), or a day as 2013-01-01"
_NO_PARTITION = (
    "is no partition field; write a column, identity(column), bucket(16, column), truncate(4, column), "
    "or year, month, day (column)"
)
_NO_AGE = "is no age; write minutes, hours or days, such as 15min, 3h or 2d"
_NO_SIZE = "is no size; write a number and a unit, such as 256MB or 1GiB"
_ONLY_PARQUET = "no other data files are written"
_V3 = "PyIceberg cannot write v3 yet (apache/iceberg-python#1551)"


@pytest.mark.parametrize(
    ("keys", "problems"),
    [
        pytest.param(
            {"table": None}, ["table: is missing; add the Iceberg table, such as lake.flights"], id="no table"
        ),
        pytest.param({"hour": None}, ["hour: is missing; add the column that holds a row's time"], id="no hour"),
        pytest.param(
            {"start": None},
            ["start: is missing; add the first hour, such as 2013-01-01 or 2013-01-01-10:00"],
            id="no start",
        ),
        pytest.param(
            {"source": None}, ["source: is missing; add where the raw files are: path, format, columns"], id="no source"
        ),
        pytest.param({"sorted": "[id]"}, ["sorted: is no key here; did you mean 'sort'?"], id="unknown key"),
        pytest.param(
            {"name": "x"}, ["name: is no key here; take it out, it follows from where the file is"], id="name"
        ),
        pytest.param(
            {"file": "x"}, ["file: is no key here; take it out, it follows from where the file is"], id="file"
        ),
        pytest.param({"table": "events"}, ["table: 'events' is no Iceberg table; write namespace.name"], id="one part"),
        pytest.param({"table": "a..b"}, ["table: 'a..b' is no Iceberg table; write namespace.name"], id="empty part"),
        pytest.param({"table": "{a: b}"}, ["table: must be text, not a mapping"], id="table of a mapping"),
        pytest.param({"description": "[a]"}, ["description: must be text, not a list"], id="description of a list"),
        pytest.param({"owners": "a@b.org"}, ["owners: must be a list, such as [a, b], not text"], id="one owner"),
        pytest.param(
            {"owners": "[me, a@b.org, 'team:']"},
            [
                "owners[0]: 'me' is no owner; write an e-mail address or team:name",
                "owners[2]: 'team:' is no owner; write an e-mail address or team:name",
            ],
            id="owners",
        ),
        pytest.param({"owners": "[[a]]"}, ["owners[0]: must be text, not a list"], id="owner of a list"),
        pytest.param(
            {"transform": "f"}, ["transform: 'f' is no transform; write a .sql file or module:function"], id="transform"
        ),
        pytest.param(
            {"transform": "{a: b}"},
            ["transform: must be a .sql file or module:function, not a mapping"],
            id="transform of a mapping",
        ),
        pytest.param(
            {"columns": "{at: timestamptz!, _bucket: int, _Row: int, _rows: int, _ELSEWHERE: int, _id: int, x: y}"},
            [
                "columns._bucket: is a reserved name; rename the column",
                "columns._Row: is a reserved name; rename the column",
                "columns._rows: is a reserved name; rename the column",
                "columns._ELSEWHERE: is a reserved name; rename the column",
                (
                    "columns.x: 'y' is no type; write one of boolean, int, long, float, double, date, timestamp, "
                    "timestamptz, string, binary, decimal(p,s)"
                ),
            ],
            id="columns",
        ),
        pytest.param({"hour": "att"}, ["hour: there is no column 'att'; did you mean 'at'?"], id="hour's typo"),
        pytest.param(
            {"hour": "id"}, ["hour: column 'id' is long; name one that is timestamptz! or timestamp!"], id="hour's type"
        ),
        pytest.param(
            {"columns": "{at: timestamp}"},
            ["hour: column 'at' may be null, and such a row has no hour; write timestamp! as its type"],
            id="hour may be null",
        ),
        pytest.param(
            {"columns": "{at: timestamptz!}", "key": "[id]", "sort": "[at, size desc]"},
            ["key[0]: there is no column 'id'; write one of at", "sort[1]: there is no column 'size'; write one of at"],
            id="the target's columns count",
        ),
        pytest.param(
            {"columns": "{at: timestamptz!}", "source": "x", "key": "[id]"},
            [
                "source: must be a mapping of keys to values, not text",
                "key[0]: there is no column 'id'; write one of at",
            ],
            id="the target's columns count beside a wrong source",
        ),
        pytest.param(
            {"source": PARQUET, "key": "[a, a]"}, ["key[1]: 'a' stands twice; take one out"], id="key names one twice"
        ),
        pytest.param(
            {"sort": "[id, id desc]"}, ["sort[1]: 'id' stands twice; take one out"], id="sort names one twice"
        ),
        pytest.param({"key": "id"}, ["key: must be a list, such as [a, b], not text"], id="key of text"),
        pytest.param({"sort": "id"}, ["sort: must be a list, such as [a, b], not text"], id="sort of text"),
        pytest.param(
            {"sort": "[{column: id}]"},
            ["sort: must be a list of columns, such as [id, size desc]; one is a mapping"],
            id="sort of mappings",
        ),
        pytest.param(
            {"check_order": "true"},
            ["check_order: there is no order to check; write `sort`, too, or take it out"],
            id="check of no order",
        ),
        pytest.param(
            {"other_hours": "drop"},
            ["other_hours: 'drop' is not supported; write 'fail' or 'reject'"],
            id="other hours",
        ),
        pytest.param(
            {"staging": "yes", "staging_prefix": "s3://b/%H", "staging_ways": "nowhere.yaml"},
            [
                "staging: 'yes' is not supported; write 'direct', 'copy' or 'auto'",
                "staging_prefix: is no folder; write one without times and globs, such as s3://scratch/flights",
                (
                    "staging_ways: names no file; write the path of a YAML file of ways, relative to the folder of "
                    "lakehouse.yaml"
                ),
            ],
            id="staging",
        ),
        pytest.param(
            {"partition": "[bucket(400, id), bucket(401, at), truncate(401, id)]"},
            [
                (
                    "partition[2]: 'bucket(401, at)': a hash mixes the rows of all 401 buckets whatever their order "
                    "is, and a task writes at most 400 partitions at once; write 400 or less"
                ),
            ],
            id="more buckets than a task can write",
        ),
        pytest.param({"partition": "id"}, ["partition: must be a list, such as [a, b], not text"], id="one partition"),
        pytest.param(
            {"partition": "[{bucket: 16}]"},
            ["partition: must be a list of text, such as [bucket(16, id), region]"],
            id="partition of mappings",
        ),
        pytest.param(
            {"partition": "[bucket(id), bucket(0, id), hour(at), identity(16, id), void(id)]"},
            [
                f"partition[0]: 'bucket(id)' {_NO_PARTITION}",
                f"partition[1]: 'bucket(0, id)' {_NO_PARTITION}",
                "partition[3]: 'hour(at)': the table is partitioned by `hour` already; take it out",
                f"partition[4]: 'identity(16, id)' {_NO_PARTITION}",
                f"partition[6]: 'void(id)' {_NO_PARTITION}",
            ],
            id="no partition fields",
        ),
        pytest.param(
            {"partition": "[day(at), idd, bucket(4, size), truncate(2, id), truncate(4, id)]"},
            [
                "partition[0]: the table is partitioned by hour(at) already; take it out",
                "partition[1]: there is no column 'idd'; did you mean 'id'?",
                (
                    "partition[2]: bucket is not made for double, the type of 'size'; it takes "
                    "binary, date, decimal, int, long, string, timestamp, timestamptz"
                ),
                "partition[4]: truncate[4] of 'id' is redundant beside an earlier field; take it out",
            ],
            id="partition fields that do not fit",
        ),
        pytest.param(
            {
                "columns": "{at: timestamptz!, tags: list<string>}",
                "partition": "[tags]",
                "key": "[tags]",
                "sort": "[tags]",
            },
            [
                "partition[0]: column 'tags' is list<string>; name one of a primitive type",
                "key[0]: column 'tags' is list<string>; name one of a primitive type",
                "sort[0]: column 'tags' is list<string>; name one of a primitive type",
            ],
            id="nested columns",
        ),
        pytest.param({"file_size": "999KB"}, ["file_size: is out of bounds; write 1MB to 5GB"], id="small files"),
        pytest.param({"file_size": "5GiB"}, ["file_size: is out of bounds; write 1MB to 5GB"], id="large files"),
        pytest.param({"freshness": "soon"}, [f"freshness: 'soon' {_NO_AGE}"], id="no age"),
        pytest.param({"late": "72"}, [f"late: '72' {_NO_AGE}"], id="late without a unit"),
        pytest.param({"lag": "never"}, [f"lag: 'never' {_NO_AGE}"], id="no lag"),
        pytest.param({"file_size": "256"}, [f"file_size: '256' {_NO_SIZE}"], id="no unit"),
        pytest.param({"file_size": "1TB"}, [f"file_size: '1TB' {_NO_SIZE}"], id="unknown unit"),
        pytest.param({"file_size": "[1MB]"}, [f"file_size: a list {_NO_SIZE}"], id="size of a list"),
        pytest.param({"start": "2013-01"}, [f"start: '2013-01' {_NO_HOUR}"], id="month"),
        pytest.param({"start": "[2013-01-01]"}, [f"start: a list {_NO_HOUR}"], id="start of a list"),
        pytest.param(
            {"start": "2013-02-30"}, ["start: '2013-02-30-00:00' does not exist in the calendar"], id="no such day"
        ),
        pytest.param(
            {"end": "2013-01-01-10:30"},
            ["end: '2013-01-01-10:30' is not a whole hour; did you mean 2013-01-01-10:00?"],
            id="half an hour",
        ),
        pytest.param(
            {"end": "2013-01-01"},
            ["end: 2013-01-01-00:00 is not after start, 2013-01-01-00:00; end is the first hour that is no more"],
            id="end at start",
        ),
        pytest.param({"start": "x", "end": "2012-01-01"}, [f"start: 'x' {_NO_HOUR}"], id="end after a wrong start"),
        pytest.param({"properties": "[a]"}, ["properties: must be a mapping of keys to values, not a list"], id="list"),
        pytest.param(
            {"properties": "{format-version: 3, write.format.default: orc, a: [b], c: '${D}'}"},
            [
                f"properties.format-version: '3' is not supported; write 2: {_V3}",
                f"properties.write.format.default: 'orc' is not supported; write parquet: {_ONLY_PARQUET}",
                "properties.a: must be text, not a list",
                "properties.c: '${' stays as it is here; variables are expanded in paths and in lakehouse.yaml only",
            ],
            id="properties",
        ),
    ],
)
def test_what_is_refused(keys: Mapping[str, str | None], problems: list[str], problems_of: Problems) -> None:
    """Every problem is reported by its key, and nothing that merely follows from another."""
    assert problems_of(keys) == problems


@pytest.mark.parametrize(
    "key", ["source", "columns", "join", "transform", "hour", "start", "end", "properties", "sort"]
)
def test_a_key_without_a_value_is_one_problem(key: str, problems_of: Problems) -> None:
    """It is not taken for a key left out, and its absence causes no other problem."""
    assert problems_of({key: ""}) == [f'{key}: has no value; write one ("" for empty text), or take it out']


@pytest.mark.parametrize("name", ["Flights", "1a", "a-b", "a.b", "_a"])
def test_the_files_name_is_the_assets(name: str) -> None:
    """A name that Dagster would refuse is refused with the file."""
    placed = {"name": name, "file": Path("/t.yaml")}
    _, problems = validated(TableSpec, parse_document("hour: at\n", "f"), placed, Path("/"))
    message = f"f:1: name: {name!r} is no table's name; rename the file: a-z, then a-z, 0-9 and _"
    assert message in map(str, problems)


@pytest.mark.parametrize(
    ("keys", "columns"),
    [
        pytest.param({"columns": "{at: timestamptz!}"}, (AT,), id="written"),
        pytest.param({"source": "{path: /%Y%m%d%H.csv, columns: {at: timestamptz!}}"}, (AT,), id="the source's"),
        pytest.param({"source": PARQUET, "columns": "{at: timestamptz!}"}, (AT,), id="written beside parquet"),
        pytest.param({"source": PARQUET, "key": "[a]", "sort": "[b]"}, None, id="known to the parquet files only"),
    ],
)
def test_target_columns(keys: Mapping[str, str], columns: tuple[Column, ...] | None, read_spec: Read) -> None:
    """They are those written, else the source's, else not known yet; then names are not checked."""
    assert read_spec(keys).target_columns == columns


@pytest.mark.parametrize("name", ["no", "on", "y", "1e3", "null", "~", "true", "0x1f", "2013-01-01", "key", "a b", "ü"])
def test_odd_names_survive(name: str, read_spec: Read) -> None:
    """What YAML takes for something else stays a column's name, everywhere a column is named."""
    source = f"{{path: /%Y%m%d%H.csv, columns: {{at: timestamptz!, {name}: string}}}}"
    spec = read_spec({"source": source, "key": f"[{name}]", "sort": f"[{name} desc]"})
    assert spec.target_columns == (AT, Column(name=name, type="string"))
    assert spec.key == (name,)
    assert spec.sort == (SortField(column=name, descending=True),)


def test_a_spec_travels_to_other_processes(read_spec: Read) -> None:
    """It is pickled into tasks and subprocesses."""
    spec = read_spec({"transform": "a:f", "end": "2014-01-01", "properties": "{a: b}"})
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301  # our own bytes


def test_a_spec_can_be_made_of_typed_values(read_spec: Read) -> None:
    """Code that has no YAML makes specs of the same models, which are checked alike."""
    spec = read_spec({"join": "{airlines: /a.parquet}", "transform": "a:f", "sort": "[id]", "end": "2014-01-01"})
    fields = {name: getattr(spec, name) for name in TableSpec.model_fields}
    assert TableSpec(**fields) == spec
    with pytest.raises(ValidationError, match="there is no column 'x'"):
        TableSpec(**{**fields, "hour": "x"})


_DECIMALS = st.integers(1, 38).flatmap(lambda p: st.integers(0, p).map(lambda s: f"decimal({p},{s})"))
_TYPES = st.one_of(
    st.sampled_from(["boolean", "int", "long", "float", "double", "date", "string", "binary"]), _DECIMALS
)
_ODD = st.sampled_from(
    ["no", "on", "y", "1e3", "null", "~", "0", "<<", "*a", "&b", "!c", "- d", "#", ":", "{", "%", "'"]
)
_WORDS = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="._`"), min_size=1, max_size=12)
_COLUMNS = st.lists(
    st.builds(Column, name=st.one_of(_ODD, _WORDS), type=_TYPES, required=st.booleans()),
    max_size=6,
    unique_by=lambda column: column.name.casefold(),
).map(lambda columns: (AT, *(column for column in columns if column.name.casefold() != AT.name)))
_TEXT = st.text(st.characters(exclude_categories=["C"], include_characters="\n"), max_size=30)
_HOURS = st.integers(0, 1_000_000).map(HourWindow.from_ordinal)


@st.composite
def _specs(draw: st.DrawFn) -> TableSpec:
    columns = draw(_COLUMNS)
    names = st.sampled_from([column.name for column in columns])
    fields: dict[str, Any] = {
        "name": "events",
        "file": Path("/p/tables/events.yaml"),
        "table": draw(st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,5}){1,3}", fullmatch=True)),
        "description": draw(_TEXT),
        "source": {
            "path": "s3://raw/" + draw(_WORDS).replace("%", "%%").replace("/", "") + "/%Y/%m/%d/%H*",
            "format": draw(st.sampled_from(["csv", "jsonl"])),
            "columns": columns,
            "bad_rows": draw(st.sampled_from(["fail", "reject"])),
            "missing": draw(st.sampled_from(["fail", "empty"])),
        },
        "columns": draw(st.sampled_from([None, columns])),
        "hour": AT.name,
        "key": tuple(draw(st.lists(names, unique=True))),
        "sort": tuple(
            SortField(column=name, descending=draw(st.booleans())) for name in draw(st.lists(names, unique=True))
        ),
        "file_size": draw(st.integers(1, 5_000).map(lambda n: n * 1_000_000)),
        "start": HourWindow.from_ordinal(0),
        "end": draw(st.none() | _HOURS.filter(lambda hour: hour.ordinal > 0)),
        "properties": draw(st.dictionaries(_WORDS, _TEXT.filter(lambda text: "${" not in text), max_size=3)),
    }
    return TableSpec.model_validate(fields)


def _as_written(spec: TableSpec) -> dict[str, Any]:
    def types(columns: tuple[Column, ...]) -> dict[str, str]:
        return {column.name: column.type + ("!" if column.required else "") for column in columns}

    written: dict[str, Any] = {
        "table": spec.table,
        "description": spec.description,
        "source": {**spec.source.model_dump(exclude={"columns"}), "columns": types(spec.source.columns or ())},
        "hour": spec.hour,
        "key": list(spec.key),
        "sort": [f"{field.column} {'desc' if field.descending else 'asc'}" for field in spec.sort],
        "file_size": f"{spec.file_size // 1_000_000}MB",
        "start": spec.start.key,
        "properties": dict(spec.properties),
    }
    if spec.columns is not None:
        written["columns"] = types(spec.columns)
    if spec.end is not None:
        written["end"] = spec.end.key
    return written


@given(spec=_specs(), flow=st.booleans())
def test_a_spec_written_as_yaml_reads_back(spec: TableSpec, flow: bool) -> None:  # noqa: FBT001  # drawn
    """Any valid spec survives YAML, in block and in flow style, whatever its columns are called."""
    text = yaml.safe_dump(_as_written(spec), default_flow_style=flow, allow_unicode=True, sort_keys=False)
    placed = {"name": spec.name, "file": spec.file}
    read, problems = validated(TableSpec, parse_document(text, "events.yaml"), placed, Path("/p"))
    assert problems == ()
    assert read == spec

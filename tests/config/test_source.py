from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import pytest

from lakehouse_pipeline.config.source import Join, Source
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.types import Column
from lakehouse_pipeline.hours import HourWindow

Read = Callable[[Mapping[str, str | None]], TableSpec]
Problems = Callable[[Mapping[str, str | None]], list[str]]
_COLUMNS = "columns: {at: timestamptz!}"


def test_the_defaults_are_the_safe_ones(read_spec: Read, tmp_path: Path) -> None:
    """A source fails on bad rows and missing files; the suffix tells its format; its path is absolute."""
    source = read_spec({"source": f"{{path: raw/%Y/%m/%d/%H.jsonl.gz, {_COLUMNS}}}"}).source
    assert source == Source(
        path=f"file://{tmp_path}/raw/%Y/%m/%d/%H.jsonl.gz",
        format="jsonl",
        columns=(Column(name="at", type="timestamptz", required=True),),
        bad_rows="fail",
        missing="fail",
    )


@pytest.mark.parametrize(
    ("path", "first", "end"),
    [
        pytest.param("/r/%Y/%m/%d/%H.csv", "2012-02-29T10:00", "2012-02-29T11:00", id="hour"),
        pytest.param("/r/%H/%d-%m-%Y.csv", "2012-02-29T10:00", "2012-02-29T11:00", id="hour in another order"),
        pytest.param("/r/%Y/%m/%d.csv", "2012-02-29T00:00", "2012-03-01T00:00", id="day"),
        pytest.param("/r/%Y-%m.csv", "2012-02-01T00:00", "2012-03-01T00:00", id="month"),
        pytest.param("/r/%Y/*.csv", "2012-01-01T00:00", "2013-01-01T00:00", id="year"),
    ],
)
def test_a_path_tells_the_time_that_a_file_covers(path: str, first: str, end: str, read_spec: Read) -> None:
    """It is the smallest unit of the calendar that the path names."""
    source = read_spec({"source": f"{{path: {path}, {_COLUMNS}}}"}).source
    span = source.span(HourWindow.from_key("2012-02-29-10:00"))
    assert span == (datetime.fromisoformat(f"{first}Z"), datetime.fromisoformat(f"{end}Z"))


def test_a_path_without_a_time_covers_any(read_spec: Read) -> None:
    """Its files may hold rows of every hour."""
    source = read_spec({"source": f"{{path: /r/all.csv, {_COLUMNS}}}"}).source
    assert source.span(HourWindow.from_key("2012-02-29-10:00")) is None


def test_a_written_format_wins_over_the_suffix(read_spec: Read) -> None:
    """Some files have odd suffixes."""
    assert read_spec({"source": f"{{path: /r/%Y%m%d%H.json, format: csv, {_COLUMNS}}}"}).source.format == "csv"


_HOUR = "/r/%Y%m%d%H"
_ADD = "where the files are, such as s3://raw/flights/%Y/%m/%d/%H*.jsonl.gz"
_FORMAT = "csv, jsonl, parquet or orc, where the suffix does not tell"
_AS_TEXT = 'write a nested type as text in quotes, such as "struct<a:int!,b:string>"'
_NO_TIME = (
    "which is no time; write %Y %m %d %H for files of an hour, %Y %m %d of a day, %Y %m of a month, %Y of a year, "
    "or none of them"
)


@pytest.mark.parametrize(
    ("source", "problems"),
    [
        pytest.param("x", ["source: must be a mapping of keys to values, not text"], id="text"),
        pytest.param(
            "{}", [f"source.path: is missing; add {_ADD}", f"source.format: is missing; add {_FORMAT}"], id="empty"
        ),
        pytest.param(
            f"{{path: {_HOUR}.csv, columns: {{a: int}}, badrows: fail}}",
            ["source.badrows: is no key here; did you mean 'bad_rows'?"],
            id="unknown key",
        ),
        pytest.param(
            f"{{path: [{_HOUR}.csv], format: parquet}}", ["source.path: must be text, not a list"], id="path of a list"
        ),
        pytest.param(f"{{path: {_HOUR}.avro}}", [f"source.format: is missing; add {_FORMAT}"], id="suffix unknown"),
        pytest.param(
            f"{{path: {_HOUR}.csv, format: avro}}",
            ["source.format: 'avro' is not supported; write 'csv', 'jsonl', 'parquet' or 'orc'"],
            id="format unknown",
        ),
        pytest.param(
            f"{{path: {_HOUR}.csv, format: [csv]}}", ["source.format: must be text, not a list"], id="format of a list"
        ),
        pytest.param(
            f"{{path: {_HOUR}.csv}}",
            ["source.columns: is missing; csv files need the names and types of their columns"],
            id="csv without columns",
        ),
        pytest.param(
            f"{{path: {_HOUR}.parquet, {_COLUMNS}}}",
            ["source.columns: parquet files bring their own columns; take the key out"],
            id="parquet with columns",
        ),
        pytest.param(
            f"{{path: {_HOUR}.csv, columns: {{a: strng, b: {{c: int}}, _d: int, e: int, E: int}}}}",
            [
                "source.columns.a: 'strng' is no type; did you mean 'string'?",
                f"source.columns.b: is a mapping; {_AS_TEXT}",
                "source.columns._d: is a reserved name; rename the column",
                "source.columns.E: differs from 'e' in case only, which Spark does not see; rename one",
            ],
            id="every column",
        ),
        pytest.param(
            f"{{path: {_HOUR}.csv, columns: [a]}}",
            ["source.columns: must be a mapping of column names to types, such as {id: long!}, not a list"],
            id="columns of a list",
        ),
        pytest.param(
            f"{{path: {_HOUR}.csv, columns: {{}}}}",
            ["source.columns: must be a mapping of column names to types, such as {id: long!}, not an empty one"],
            id="no column",
        ),
        pytest.param(
            f"{{path: {_HOUR}.orc, {_COLUMNS}}}",
            ["source.columns: orc files bring their own columns; take the key out"],
            id="orc with columns",
        ),
        pytest.param(f"{{path: /r/%d/%H.csv, {_COLUMNS}}}", [f"source.path: has %d %H, {_NO_TIME}"], id="no month"),
        pytest.param(f"{{path: /r/%Y/%H.csv, {_COLUMNS}}}", [f"source.path: has %Y %H, {_NO_TIME}"], id="no day"),
        pytest.param(
            f"{{path: /r/%%Y/%m.csv, {_COLUMNS}}}", [f"source.path: has %m, {_NO_TIME}"], id="percent sign before Y"
        ),
        pytest.param(
            f"{{path: {_HOUR}.csv, {_COLUMNS}, reader: spark, bad_rows: reject}}",
            [
                (
                    "source.bad_rows: 'reject' takes the place of each row, which Spark's readers do not tell; "
                    "write fail, or take `reader: spark` out"
                )
            ],
            id="rejects of Spark's readers",
        ),
        pytest.param(
            f"{{path: {_HOUR}%M.csv, {_COLUMNS}}}",
            ["source.path: holds a % that begins none of %Y %m %d %H; write %% for a percent sign"],
            id="minutes",
        ),
        pytest.param(
            f"{{path: {_HOUR}.csv, {_COLUMNS}, bad_rows: keep, missing: skip}}",
            [
                "source.missing: 'skip' is not supported; write 'fail' or 'empty'",
                "source.bad_rows: 'keep' is not supported; write 'fail' or 'reject'",
            ],
            id="policies",
        ),
    ],
)
def test_what_is_refused_of_a_source(source: str, problems: list[str], problems_of: Problems) -> None:
    """Every problem of a source is reported by its key, and nothing follows from a source that is wrong."""
    assert problems_of({"source": source}) == problems


def test_joins_are_paths_or_mappings(read_spec: Read, tmp_path: Path) -> None:
    """A path is enough where the suffix tells the format; an hourly dimension names the hour."""
    weather = "{path: w/%Y/%m/%d/%H, format: csv, columns: {origin: string!}, missing: empty}"
    assert read_spec({"join": f"{{airlines: s3://raw/airlines.parquet, weather: {weather}}}"}).join == (
        Join(name="airlines", path="s3://raw/airlines.parquet", format="parquet"),
        Join(
            name="weather",
            path=f"file://{tmp_path}/w/%Y/%m/%d/%H",
            format="csv",
            columns=(Column(name="origin", type="string", required=True),),
            missing="empty",
        ),
    )


@pytest.mark.parametrize(
    ("join", "problems"),
    [
        pytest.param("[a]", ["join: must be a mapping of views to paths, not a list"], id="list"),
        pytest.param("{a: [b]}", ["join.a: must be a mapping of keys to values, not a list"], id="view of a list"),
        pytest.param(
            "{a: /a.csv}",
            ["join.a.columns: is missing; csv files need the names and types of their columns"],
            id="csv in short",
        ),
        pytest.param("{a: /a}", [f"join.a.format: is missing; add {_FORMAT}"], id="suffix unknown"),
        pytest.param(
            "{a: /%m/%d.parquet}",
            [f"join.a.path: has %m %d, {_NO_TIME}"],
            id="no year",
        ),
        pytest.param(
            "{a: {path: /a.parquet, bad_rows: fail}}",
            ["join.a.bad_rows: is no key here; write one of path, format, columns, missing"],
            id="a source's key",
        ),
        pytest.param(
            "{a: {path: /a.parquet, name: b}}",
            ["join.a.name: is no key here; the view's name is the key above"],
            id="name",
        ),
        pytest.param(
            "{Source: /a.parquet, 1a: /b.parquet, v: /c.parquet, V: /d.parquet}",
            [
                "join.Source: is the view of the raw files themselves; write another name",
                "join.1a: is no name of a view; write letters, digits and _, beginning with no digit",
                "join.V: differs from an earlier view in case only, which Spark does not see; rename one",
            ],
            id="every name",
        ),
        pytest.param(
            "{a: {path: /a.csv, columns: {_x: int}}}",
            ["join.a.columns._x: is a reserved name; rename the column"],
            id="reserved column",
        ),
    ],
)
def test_what_is_refused_of_joins(join: str, problems: list[str], problems_of: Problems) -> None:
    """Every problem of every view is reported by its key."""
    assert problems_of({"join": join}) == problems


def test_no_repr_shows_a_path(read_spec: Read) -> None:
    """A path may hold values of variables."""
    spec = read_spec({"join": "{airlines: s3://hunter2/airlines.parquet}", "transform": "a:f"})
    assert "hunter2" not in repr(spec)
    assert "hunter2" not in str(spec.join[0])

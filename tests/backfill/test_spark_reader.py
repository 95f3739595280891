"""`reader: spark`: the same rows and the same rules as our readers, with what only a place could do refused."""

import gzip
import io as streams
from collections.abc import Callable
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from lakehouse_pipeline.backfill.inputs import View
from lakehouse_pipeline.backfill.spark_reader import read_by_spark
from lakehouse_pipeline.errors import ConfigurationError, DataError, LakehouseError
from lakehouse_pipeline.iceberg.data_files import OtherHourError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources.listing import SourceObject
from tests.projects import HOUR, NEXT, Project, Row, json_lines, row

COLUMNS = "{at: timestamptz!, id: long!, size: double}"
AT = datetime(2013, 1, 1, 10, tzinfo=UTC)
ROWS = [row(HOUR, 1, 1.5), row(HOUR, 2), row(HOUR, 3, -0.25)]
EXPECTED = [
    {"at": AT.replace(minute=1), "id": 1, "size": 1.5},
    {"at": AT.replace(minute=2), "id": 2, "size": None},
    {"at": AT.replace(minute=3), "id": 3, "size": -0.25},
]


def _csv(rows: list[Row]) -> bytes:
    lines = (f"{each['at']},{each['id']},{'' if each['size'] is None else each['size']}\n" for each in rows)
    return ("at,id,size\n" + "".join(lines)).encode()


def _typed(rows: list[Row]) -> pa.Table:
    schema = pa.schema([("at", pa.timestamp("us", "UTC")), ("id", pa.int64()), ("size", pa.float64())])
    return pa.Table.from_pylist([{**each, "at": datetime.fromisoformat(each["at"])} for each in rows], schema)


def _parquet(rows: list[Row]) -> bytes:
    body = streams.BytesIO()
    pq.write_table(_typed(rows), body)
    return body.getvalue()


def _orc(rows: list[Row]) -> bytes:
    body = streams.BytesIO()
    orc.write_table(_typed(rows), body)
    return body.getvalue()


BODIES: dict[str, Callable[[list[Row]], bytes]] = {
    "jsonl": json_lines,
    "csv": _csv,
    "csv.gz": lambda rows: gzip.compress(_csv(rows)),
    "parquet": _parquet,
    "orc": _orc,
}


def _describe(project: Project, path: str, columns: str | None = COLUMNS, **keys: str) -> None:
    own = f", columns: {columns}" if columns else ""
    project.describe({"source": f"{{path: {path}, reader: spark{own}}}", "columns": COLUMNS, **keys})


def _land(project: Project, name: str, body: bytes) -> None:
    """Write bytes as they are, compressed or not."""
    project.write(f"{name}.part", body).rename(project.folder / name)


@pytest.mark.parametrize("form", BODIES)
def test_rows_of_every_format_arrive(project: Project, form: str) -> None:
    """Rows of two objects are the table's, whatever their format; names with glob characters are names."""
    own = None if form in {"parquet", "orc"} else COLUMNS
    _describe(project, f"raw/k=1/%Y%m%d%H-*.{form}", own)
    for name, part in (("a", ROWS[:1]), ("{b} 1%[c]", ROWS[1:])):
        _land(project, f"raw/k=1/2013010110-{name}.{form}", BODIES[form](part))
    result = project.run()
    assert project.rows() == EXPECTED
    assert (result.seal.rows, result.seal.rows_read, result.seal.left) == (3, 3, 0)


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_hours_of_a_daily_file_take_their_rows(project: Project, form: str) -> None:
    """Rows of other hours are left to them, and counted; with a sort and a transform, too."""
    _describe(project, f"raw/%Y/%m/%d.{form}", COLUMNS if form == "jsonl" else None, sort="[id desc]")
    project.describe({"transform": "t.sql"})
    project.write("tables/t.sql", "SELECT * FROM source WHERE id > 0")
    _land(project, f"raw/2013/01/01.{form}", BODIES[form]([*ROWS, row(NEXT, 4)]))
    seals = [project.run(hour).seal for hour in (HOUR, NEXT)]
    assert [(seal.rows_read, seal.left) for seal in seals] == [(3, 1), (1, 3)]
    assert (project.ids(HOUR), project.ids(NEXT)) == ([1, 2, 3], [4])


def _malformed(project: Project) -> None:
    _land(project, "raw/2013/01/01/10-b.jsonl", json_lines(ROWS[:1]) + b'{"at": "2013-01-01T10:00:00Z", "id": 2\n')


def _wrong_value(project: Project) -> None:
    _land(project, "raw/2013/01/01/10-b.jsonl", json_lines([{**row(HOUR, 2), "size": "late"}]))


def _null(project: Project) -> None:
    _land(project, "raw/2013/01/01/10-b.jsonl", b'{"at": "2013-01-01T10:00:00Z"}\n')


def _another_hour(project: Project) -> None:
    _land(project, "raw/2013/01/01/10-b.jsonl", json_lines([row(HOUR, 2), row(NEXT, 3)]))


def _other_header(project: Project) -> None:
    _describe(project, "raw/%Y/%m/%d/%H-*.csv")
    _land(project, "raw/2013/01/01/10-b.csv", b"at,size,id\n2013-01-01T10:00:00Z,1,2\n")


def _missing_column(project: Project) -> None:
    _describe(project, "raw/%Y/%m/%d/%H-*.parquet", None)
    _land(project, "raw/2013/01/01/10-a.parquet", _parquet(ROWS))
    body = streams.BytesIO()
    pq.write_table(_typed(ROWS).drop_columns(["size"]), body)
    _land(project, "raw/2013/01/01/10-b.parquet", body.getvalue())


def _codec(project: Project) -> None:
    _describe(project, "raw/%Y/%m/%d/%H-*.csv.zst")
    _land(project, "raw/2013/01/01/10-b.csv.zst", b"")


def _provenance(project: Project) -> None:
    project.describe({"transform": "t.sql"})
    project.write("tables/t.sql", "SELECT at, _position AS id, size FROM source")


def _other_hours_kept(project: Project) -> None:
    project.describe({"other_hours": "reject"})


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        pytest.param(_malformed, DataError, ("10-b.jsonl", "Malformed"), id="malformed"),
        pytest.param(_wrong_value, DataError, ("10-b.jsonl", '"size": "late"'), id="wrong value"),
        pytest.param(_null, DataError, ("10-b.jsonl", '"id": null, but the column is required'), id="null"),
        pytest.param(
            _another_hour, OtherHourError, ("10-b.jsonl: at = 2013-01-01 11:03", f"another hour than {HOUR}"), id="hour"
        ),
        pytest.param(_other_header, DataError, ("10-b.csv", "header"), id="header"),
        pytest.param(_missing_column, DataError, ('10-b.parquet has no column "size"',), id="missing column"),
        pytest.param(_codec, ConfigurationError, ("10-b.csv.zst", "reader: arrow"), id="codec"),
        pytest.param(_provenance, ConfigurationError, ("_position", "reader: arrow"), id="provenance"),
        pytest.param(_other_hours_kept, ConfigurationError, ("other_hours: reject", "reader: arrow"), id="rejects"),
    ],
)
def test_what_is_wrong_is_said(
    project: Project, spoil: Callable[[Project], None], kind: type[LakehouseError], said: tuple[str, ...]
) -> None:
    """Faults of the data name the file and what is wrong; what Spark's readers cannot do is refused."""
    _describe(project, "raw/%Y/%m/%d/%H-*.jsonl")
    _land(project, "raw/2013/01/01/10-a.jsonl", json_lines(ROWS[:1]))
    spoil(project)
    with pytest.raises(kind) as caught:
        project.run()
    for text in said:
        assert text in str(caught.value)
    assert project.ids() == []


def test_required_values_inside_are_judged(project: Project) -> None:
    """What is required in a struct, a list or a map is required of Spark's rows, too."""
    source = '{at: timestamptz!, user: "struct<id:long!,tags:list<string!>>", by: "map<string,long!>"}'
    _describe(project, "raw/%Y/%m/%d/%H-*.jsonl", source, transform="t.sql")
    project.write("tables/t.sql", "SELECT at, user.id AS id, CAST(size(user.tags) AS DOUBLE) AS size FROM source")
    name, at = "raw/2013/01/01/10-a.jsonl", b'{"at": "2013-01-01T10:00:00Z"'
    _land(project, name, at + b', "user": {"id": 1, "tags": ["a"]}, "by": {"a": 1}}\n')
    project.run()
    assert [(each["id"], each["size"]) for each in project.rows()] == [(1, 1.0)]
    for wrong, column in (
        (b', "user": {"tags": []}}', "user"),
        (b', "user": {"id": 1, "tags": [null]}}', "user"),
        (b', "by": {"a": null}}', "by"),
    ):
        _land(project, name, at + wrong)
        with pytest.raises(DataError, match=rf'10-a\.jsonl "{column}": null'):
            project.run()


def test_quoted_empty_text_is_no_null(project: Project) -> None:
    """CSV means the same as with our reader: nothing is null, quotes around nothing are the empty string."""
    columns = "{at: timestamptz!, a: string, b: string, c: string}"
    _describe(project, "raw/%Y/%m/%d/%H-*.csv", columns)
    project.describe({"columns": columns})
    _land(project, "raw/2013/01/01/10-a.csv", b'at,a,b,c\n2013-01-01T10:00:00Z,,"","x ""y"", z"\n')
    project.run()
    assert project.rows() == [{"at": AT, "a": None, "b": "", "c": 'x "y", z'}]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param(b'3,1,"b', "a quote that is not closed on its line", id="cut off in quotes"),
        pytest.param(b'3,1,"b""\n', "a quote that is not closed on its line", id="open behind a doubled quote"),
        pytest.param(b'3,1,"b\n4,1,c"\n', "a quote that is not closed on its line", id="two lines that look like rows"),
        pytest.param(b'3,1,"x"y\n', "text behind a closed one", id="text behind a quote"),
        pytest.param(b'3,1,"x\0y"\n', "NUL in quotes", id="NUL"),
        pytest.param(b"3,1,a\r4,1,b\n", "a carriage return that ends no line", id="lone carriage return"),
        pytest.param(b"3\n", "Malformed", id="too few fields"),
        pytest.param(b"3,1,a,b\n", "Malformed", id="too many fields"),
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_lines_that_spark_would_misread_are_refused(project: Project, line: bytes, said: str, *, packed: bool) -> None:
    """Spark alone gives rows for each of them, without a word: the file is named, whatever columns are asked for."""
    suffix = "csv.gz" if packed else "csv"
    _describe(project, f"raw/%Y/%m/%d/%H-*.{suffix}", "{id: long!, m: int, s: string}", transform="t.sql")
    project.write(
        "tables/t.sql",
        "SELECT TIMESTAMP '2013-01-01 10:00:00' AS at, id, CAST(NULL AS DOUBLE) AS size FROM source",
    )
    for name, body in (("a", b'id,m,s\n1,1,"a ""b"", c"\n'), ("b", b"id,m,s\n2,1,a\n" + line)):
        _land(project, f"raw/2013/01/01/10-{name}.{suffix}", gzip.compress(body) if packed else body)
    with pytest.raises(DataError, match=said) as caught:
        project.run()
    assert f"10-b.{suffix}" in str(caught.value)
    assert project.ids() == []


@pytest.mark.parametrize("reader", ["spark", "arrow"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_good_quotes_are_the_same_text_with_both_readers(project: Project, reader: str, end: str) -> None:
    """Fields in quotes, and quotes within others, arrive alike, whatever ends the lines; the last one has no end."""
    columns = "{at: timestamptz!, s: string, u: string}"
    project.describe({"source": f"{{path: raw/%Y/%m/%d/%H.csv, reader: {reader}, columns: {columns}}}"})
    project.describe({"columns": columns})
    expected = {
        '"a ""b"", c",x': ('a "b", c', "x"),
        '"","\'"': ("", "'"),
        '"""",d"e': ('"', 'd"e'),
        ' "f",""""""': (' "f"', '""'),
        '"g\t",\u00e9': ("g\t", "\u00e9"),
        ',"\\"': (None, "\\"),
        '"#h"",i",': ('#h",i', None),
    }
    lines = [f"2013-01-01T10:00:0{n}Z,{line}" for n, line in enumerate(expected)]
    _land(project, "raw/2013/01/01/10.csv", end.join(['"at","s","u"', *lines]).encode())
    project.run()
    found = sorted(project.rows(), key=lambda each: each["at"])
    assert [(each["s"], each["u"]) for each in found] == list(expected.values())


def test_stores_that_spark_does_not_reach_are_refused(project: Project) -> None:
    """Spark from PyPI has no s3a:// file system: the error says so, and the way out."""
    view = View("jsonl", (SourceObject("s3://raw/a.jsonl", 1, "e"),), pa.schema([("n", pa.int64())]), reader="spark")
    with pytest.raises(ConfigurationError, match=r"s3://raw/a\.jsonl: .* no s3a:// file system.*reader: arrow"):
        read_by_spark(project.session(), LakehouseFileIO(), view)

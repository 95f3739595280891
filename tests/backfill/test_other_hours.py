"""Rows of other hours: left to their hour where the file holds many, else refused or kept aside; nothing is lost."""

import io as streams
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from lakehouse_pipeline.backfill import views
from lakehouse_pipeline.backfill.hour_result import HourResult
from lakehouse_pipeline.errors import ConfigurationError, DataError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.data_files import OtherHourError
from tests.projects import HOUR, NEXT, THIRD, Project, Row, json_lines, row

COLUMNS = "{at: timestamptz!, id: long!, size: double}"
NEXT_DAY = "2013-01-02-10:00"
WAYS = {
    "direct": (None, 0),
    "driver": ("SELECT * FROM source", views.SMALL_INPUT),
    "tasks": ("SELECT * FROM source", 0),
}


FORMS = pytest.mark.parametrize(
    ("way", "form"),
    [
        ("direct", "jsonl"),
        ("direct", "csv"),
        ("direct", "parquet"),
        ("direct", "orc"),
        ("driver", "orc"),
        ("tasks", "csv"),
    ],
    indirect=["way"],
)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a project whose source is read in each of the ways that there are."""
    sql, small = WAYS[request.param]
    monkeypatch.setattr(views, "SMALL_INPUT", small)
    project.describe({"columns": COLUMNS})
    if sql:
        project.describe({"transform": "t.sql"})
        project.write("tables/t.sql", sql)
    return project


def _describe(project: Project, path: str, **keys: str) -> None:
    columns = "" if path.endswith(("parquet", "orc")) else f", columns: {COLUMNS}"
    missing = f", bad_rows: {keys.pop('bad_rows')}" if "bad_rows" in keys else ""
    project.describe({"source": f"{{path: {path}{columns}{missing}}}", **keys})


def _body(form: str, rows: list[Row]) -> bytes:
    if form == "jsonl":
        return json_lines(rows)
    if form == "csv":
        lines = (f"{each['at']},{each['id']},{'' if each['size'] is None else each['size']}\n" for each in rows)
        return ("at,id,size\n" + "".join(lines)).encode()
    schema = pa.schema([("at", pa.timestamp("us", "UTC")), ("id", pa.int64()), ("size", pa.float64())])
    table = pa.Table.from_pylist([{**each, "at": datetime.fromisoformat(each["at"])} for each in rows], schema)
    body = streams.BytesIO()
    pq.write_table(table, body, row_group_size=2) if form == "parquet" else orc.write_table(table, body)
    return body.getvalue()


def _rejects(project: Project, result: HourResult) -> list[tuple[str, int, str]]:
    folder = project.table.ledger.rejects_url(result.hour, result.attempt)
    kept = pq.read_table(folder.removeprefix("file://")).to_pylist()
    return [(each["file"].rpartition("/")[2], each["position"], each["reason"]) for each in kept]


DAY = [row(HOUR, 1), row(NEXT, 2), row(HOUR, 3), row(NEXT, 4), row(NEXT, 5)]


@FORMS
def test_every_hour_of_a_daily_file_takes_its_rows(way: Project, form: str) -> None:
    """Each row of a file of a day comes to its hour; the others are counted, in an hour without rows, too."""
    _describe(way, f"raw/%Y/%m/%d.{form}")
    way.write(f"raw/2013/01/01.{form}", _body(form, DAY))
    seals = [way.run(hour).seal for hour in (HOUR, NEXT, THIRD)]
    assert [(seal.rows, seal.rows_read, seal.left, seal.rejected) for seal in seals] == [
        (2, 2, 3, 0),
        (3, 3, 2, 0),
        (0, 0, 5, 0),
    ]
    assert (way.ids(HOUR), way.ids(NEXT)) == ([1, 3], [2, 4, 5])
    assert [name for name in way.files("_lakehouse") if "rejects" in name] == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        pytest.param("raw/%Y/%m.jsonl", "raw/2013/01.jsonl", id="month"),
        pytest.param("raw/%Y.jsonl", "raw/2013.jsonl", id="year"),
        pytest.param("raw/all.jsonl", "raw/all.jsonl", id="all time"),
    ],
)
def test_longer_files_are_shared_as_well(project: Project, path: str, name: str) -> None:
    """Files of a month, of a year and of all time hold the rows of many days."""
    _describe(project, path)
    project.write(name, json_lines([row(HOUR, 1), row(NEXT_DAY, 2)]))
    seal = project.run().seal
    assert (project.ids(), seal.left) == ([1], 1)


@pytest.mark.parametrize(
    ("way", "form"), [("direct", "jsonl"), ("driver", "parquet"), ("tasks", "orc")], indirect=["way"]
)
def test_rows_outside_of_the_file_are_refused(way: Project, form: str) -> None:
    """A row of another day than its file's path says fails every hour of the file, with file, place and instant."""
    _describe(way, f"raw/%Y/%m/%d.{form}")
    way.write(f"raw/2013/01/01.{form}", _body(form, [*DAY, row(NEXT_DAY, 6), row(HOUR, 7)]))
    with pytest.raises(OtherHourError) as caught:
        way.run(THIRD)
    for said in (
        f"01.{form}:6: at = 2013-01-02 10:06",
        "not within 2013-01-01-00:00 to 2013-01-02-00:00 UTC",
        "`other_hours: reject`",
    ):
        assert said in str(caught.value)
    assert way.ids() == []


def test_rows_outside_of_the_file_are_kept_aside(way: Project) -> None:
    """`other_hours: reject`: every hour of the file keeps such rows, with their place and reason, and goes on."""
    _describe(way, "raw/%Y/%m/%d.jsonl", other_hours="reject")
    way.write("raw/2013/01/01.jsonl", json_lines([*DAY, row(NEXT_DAY, 6)]))
    result = way.run()
    assert (result.seal.rows, result.seal.left, result.seal.rejected) == (2, 3, 1)
    ((file, position, reason),) = _rejects(way, result)
    assert (file, position) == ("01.jsonl", 6)
    assert reason.startswith("at = 2013-01-02 10:06:00+00:00 is not within 2013-01-01-00:00 to")


def test_rows_of_another_hour_are_kept_aside(way: Project) -> None:
    """In a file of one hour, a row of the next is not that hour's to fetch: it is a reject."""
    _describe(way, "raw/%Y/%m/%d/%H*.jsonl", other_hours="reject")
    way.land(HOUR, [row(HOUR, 1), row(NEXT, 2)])
    result = way.run()
    assert (way.ids(), result.seal.rows_read, result.seal.left, result.seal.rejected) == ([1], 1, 0, 1)
    reason = f"at = 2013-01-01 11:02:00+00:00 is of another hour than {HOUR} UTC"
    assert _rejects(way, result) == [("10.jsonl", 2, reason)]


def test_both_kinds_of_rejects_lie_together(way: Project) -> None:
    """Bad rows and rows of other hours of one task are kept in one object and counted together."""
    _describe(way, "raw/%Y/%m/%d/%H*.jsonl", other_hours="reject", bad_rows="reject")
    way.write("raw/2013/01/01/10.jsonl", json_lines([row(HOUR, 1), row(NEXT, 2)]) + b"{\n")
    result = way.run()
    assert (way.ids(), result.seal.rejected) == ([1], 2)
    assert sorted(position for _, position, _ in _rejects(way, result)) == [2, 3]


def test_bad_rows_fail_though_other_hours_are_rejected(way: Project) -> None:
    """One policy does not stand for the other."""
    _describe(way, "raw/%Y/%m/%d/%H*.jsonl", other_hours="reject")
    way.write("raw/2013/01/01/10.jsonl", json_lines([row(HOUR, 1), row(NEXT, 2)]) + b"{\n")
    with pytest.raises(DataError, match=r"10\.jsonl:3: is no JSON"):
        way.run()


def test_a_row_without_a_time_is_bad(project: Project) -> None:
    """A null in the hour's column belongs to no hour, whatever the spec says of the raw column."""
    columns = "{at: timestamptz, id: long!, size: double}"
    project.describe({"source": f"{{path: raw/%Y/%m/%d.jsonl, columns: {columns}}}", "columns": COLUMNS})
    project.write("raw/2013/01/01.jsonl", json_lines([row(HOUR, 1), {**row(HOUR, 2), "at": None}]))
    with pytest.raises(DataError, match=r'01\.jsonl:2 "at": null, but the column is required'):
        project.run()


def test_an_hour_of_nothing_but_rejects_fails(project: Project) -> None:
    """A file of which every row is of another hour was named wrongly: the hour stays as it was."""
    _describe(project, "raw/%Y/%m/%d/%H*.jsonl", other_hours="reject")
    project.land(HOUR, [row(NEXT, 1), row(NEXT, 2)])
    with pytest.raises(DataError, match="all 2 rows of the source were rejected"):
        project.run()


@pytest.mark.parametrize(
    ("source", "keys", "said"),
    [
        pytest.param("raw/%Y/%m/%d.jsonl", {}, "source.path without %H: ", id="daily"),
        pytest.param("raw/%Y/%m/%d/%H.jsonl", {"other_hours": "reject"}, "`other_hours: reject`: ", id="reject"),
    ],
)
def test_times_that_the_transform_makes_cannot_be_judged(
    project: Project, source: str, keys: dict[str, str], said: str
) -> None:
    """What takes the time of each raw row is refused where the source does not have it, with the way out."""
    project.describe({"source": f"{{path: {source}, columns: {{seen: string!, id: long!}}}}", **keys})
    project.describe({"columns": "{at: timestamptz!, id: long!}", "transform": "t.sql"})
    project.write("tables/t.sql", "SELECT CAST(seen AS TIMESTAMP) AS at, id FROM source")
    project.write("raw/2013/01/01.jsonl", b'{"seen": "2013-01-01T10:00:00Z", "id": 1}\n')
    project.write("raw/2013/01/01/10.jsonl", b'{"seen": "2013-01-01T10:00:00Z", "id": 1}\n')
    with pytest.raises(ConfigurationError, match=rf"events\.yaml: {said}.* no timestamp column at \(it has seen, id\)"):
        project.run()


def test_the_writer_judges_times_that_the_transform_makes(project: Project) -> None:
    """Where the source has no such column, a row of another hour still fails its hour."""
    project.describe({"source": "{path: raw/%Y/%m/%d/%H.jsonl, columns: {seen: string!, id: long!}}"})
    project.describe({"columns": "{at: timestamptz!, id: long!}", "transform": "t.sql"})
    project.write("tables/t.sql", "SELECT CAST(seen AS TIMESTAMP) AS at, id FROM source")
    project.write("raw/2013/01/01/10.jsonl", b'{"seen": "2013-01-01T11:00:00Z", "id": 1}\n')
    with pytest.raises(OtherHourError, match="rows are of another hour than 2013-01-01-10:00"):
        project.run()


def test_sorted_daily_files_are_sampled_by_their_hour(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sorted table of several buckets takes the bounds from rows of the hour, and leaves the others."""
    monkeypatch.setattr(views, "SMALL_INPUT", 0)
    _describe(project, "raw/%Y/%m/%d.jsonl", sort="[id desc]", file_size="1MB")
    rows = [row(NEXT if n % 2 else HOUR, n) for n in range(40_000)]
    project.write("raw/2013/01/01.jsonl", json_lines(rows))
    seal = project.run().seal
    assert (seal.rows, seal.left, seal.sort_order_id) == (20_000, 20_000, 1)
    assert project.ids() == list(range(0, 40_000, 2))


def test_the_hour_tells_what_it_left(project: Project) -> None:
    """The checks that held and the hour's record have the counts."""
    _describe(project, "raw/%Y/%m/%d.jsonl")
    project.write("raw/2013/01/01.jsonl", json_lines(DAY))
    (check,) = project.run().checks
    assert check.figures == {"rows_read": 2, "rows": 2, "rejected": 0, "left": 3}
    committed = project.record().committed
    assert committed is not None
    assert committed.seal.left == 3
    assert HourWindow.from_key(HOUR).start == datetime(2013, 1, 1, 10, tzinfo=UTC)

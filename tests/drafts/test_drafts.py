"""From a raw file to the draft of a spec, whatever the file is and wherever it lies."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv as pv
from pyarrow import orc
from pyarrow import parquet as pq

from lakehouse_pipeline.config.lakehouse import Lakehouse, load_lakehouse
from lakehouse_pipeline.demo.project import init_project
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.drafts.spec import Draft, draft_spec
from lakehouse_pipeline.drafts.text import next_commands, notes, spec_text, sql_text, write_draft
from lakehouse_pipeline.errors import ConfigurationError, DataError, LakehouseError, SafetyError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

HOURS = (4, 5, 7)
ROWS = pa.table(
    {
        "at": pa.array([datetime(2024, 1, 31, 5, minute, tzinfo=UTC) for minute in (1, 2)], pa.timestamp("us", "UTC")),
        "id": ["007", "x"],
        "size": [1.5, None],
    }
)


@pytest.fixture
def lakehouse(tmp_path: Path) -> Lakehouse:
    """Make an empty project."""
    init_project(tmp_path / "lake", None)
    return load_lakehouse(tmp_path / "lake" / "lakehouse.yaml", {})


def _draft(lakehouse: Lakehouse, path: str) -> Draft:
    return draft_spec(lakehouse, LakehouseFileIO({}), "events", path, lakehouse.folder)


def _land(
    folder: Path, name: str, hours: tuple[int, ...] = HOURS, data: bytes = b"at,id\n2024-01-31T05:00Z,1\n"
) -> str:
    """Write a file for each hour; gives the path of that of 5 o'clock."""
    for hour in hours:
        file = folder / name.format(hour)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return name.format(5)


def _csv(file: Path) -> None:
    pv.write_csv(ROWS, file)


def _json(file: Path) -> None:
    lines = [json.dumps({**row, "at": row["at"].isoformat()}) for row in ROWS.to_pylist()]
    file.write_bytes(gzip.compress("\n".join(lines).encode()))


@pytest.mark.parametrize(
    ("name", "write", "columns"),
    [
        pytest.param(
            "05.csv", _csv, ["  columns: # of the raw files; ! means required", "    at: timestamptz!"], id="csv"
        ),
        pytest.param(
            "05.jsonl.gz", _json, ["  columns: # of the raw files; ! means required", "    at: timestamptz!"], id="json"
        ),
        pytest.param(
            "05.parquet",
            lambda file: pq.write_table(ROWS, file),
            ["  # The files bring their columns: at timestamptz, id string, size double"],
            id="parquet",
        ),
        pytest.param(
            "05.orc",
            lambda file: orc.write_table(ROWS, file),
            ["  # The files bring their columns: at timestamptz, id string, size double"],
            id="orc",
        ),
    ],
)
def test_every_format(name: str, write: Callable[[Path], None], columns: list[str], lakehouse: Lakehouse) -> None:
    """The draft of a file is a spec that loads, with its columns, its hour and its start."""
    folder = lakehouse.folder / "raw" / "2024" / "01" / "31"
    folder.mkdir(parents=True)
    write(folder / name)
    draft = _draft(lakehouse, f"raw/2024/01/31/{name}")
    [file] = write_draft(draft, lakehouse.tables)
    lines = file.read_text().splitlines()
    assert [line for line in columns if line not in lines] == []
    spec = load_lakehouse(lakehouse.file, {}).spec("events")
    assert spec.source.path == f"file://{lakehouse.folder}/raw/%Y/%m/%d/{name.replace('05', '%H')}"
    assert (spec.hour, spec.start.key) == ("at", "2024-01-31-05:00")
    assert notes(draft) == []


def test_the_whole_text_of_a_draft(lakehouse: Lakehouse) -> None:
    """What was guessed, from how many rows and files, and what else could be said."""
    path = _land(
        lakehouse.folder,
        "raw/2024-01-31/events_{:02d}.csv",
        data=b"_n,event at,zip,Zip,note\n1,2024-01-31T05:00:00,0123,1,\n2,2024-01-31T05:59:59,4567,2,\n",
    )
    [file] = write_draft(_draft(lakehouse, path), lakehouse.tables)
    assert (
        file.read_text()
        == """\
# yaml-language-server: $schema=.schema.json
# Drafted from the first 2 rows of "raw/2024-01-31/events_05.csv": read it, and correct what is wrong.
table: lake.events
# description: what a row is

source:
  path: raw/%Y-%m-%d/events_%H.csv # 3 files fit; the time is UTC
  columns: # of the raw files; ! means required
    # "_n" # left out: names that begin with _ are reserved
    event at: timestamp! # has no time zone; write timestamptz if it is UTC
    zip: string
    # "Zip" # left out: differs from another column in case only
    note: string # only nulls in the sample: is it a string?
  # bad_rows: reject # keeps rows that do not parse, with file, position and reason; `fail` stops there
  # missing: empty # an hour without a file has no rows; `fail` stops there

# transform: events.sql # Spark SQL over `source`; without it the table has the source's columns
hour: event at # the table is partitioned by its hour; all 2 values of the sample lie in the time that the path tells
# key: [] # columns that tell rows apart: checked before every commit
# sort: [] # columns that files are sorted by, as `name` or `name desc`
start: 2024-01-31-04:00 # the first hour there is
# end: 2024-01-31-08:00 # the first hour that is no more; without it the table goes on, on a schedule
"""
    )
    assert load_lakehouse(lakehouse.file, {}).spec("events").hour == "event at"


def test_an_hour_that_has_to_be_computed(lakehouse: Lakehouse) -> None:
    """A transform is drafted, too, and the table has its column."""
    data = b"t,event_time\n1706677200,x\n1706677260,y\n"
    draft = _draft(lakehouse, _land(lakehouse.folder, "raw/20240131T{:02d}.csv", data=data))
    written = write_draft(draft, lakehouse.tables)
    assert [file.name for file in written] == ["events.yaml", "events.sql"]
    assert sql_text(draft) == (
        "SELECT\n  timestamp_seconds(`t`) AS event_time_utc,\n  `t`,\n  `event_time`\nFROM source\n"
    )
    spec = load_lakehouse(lakehouse.file, {}).spec("events")
    assert spec.hour == "event_time_utc"
    assert [column.type for column in spec.target_columns or ()] == ["timestamptz", "long", "string"]


@pytest.mark.parametrize("name", ["a\nb: 'c", "it's\u2028so", "a\x85b", "\ud800"])
def test_a_name_with_a_line_break_stays_in_its_comment(name: str, lakehouse: Lakehouse) -> None:
    """A key of JSON may hold anything; what cannot be a column is named on one line."""
    data = json.dumps({"at": "2024-01-31T05:00:00Z", name: 1}).encode()
    path = _land(lakehouse.folder, "raw/2024-01-31/{:02d}.jsonl", data=data)
    [file] = write_draft(_draft(lakehouse, path), lakehouse.tables)
    assert f"    # {json.dumps(name)} # left out: engines would misread its name" in file.read_text().split("\n")
    assert [column.name for column in load_lakehouse(lakehouse.file, {}).spec("events").source.columns or ()] == ["at"]


def test_a_file_name_with_a_line_break_stays_in_its_comment(lakehouse: Lakehouse) -> None:
    """The draft's first lines are readable, whatever the file is called."""
    text = spec_text(replace(_draft(lakehouse, _land(lakehouse.folder, "raw/2024-01-31/{:02d}.csv")), file="a\nb"))
    assert '# Drafted from the first 1 rows of "a\\nb": read it, and correct what is wrong.' in text.split("\n")


def test_a_number_in_a_name_is_no_hour_if_the_rows_say_so(lakehouse: Lakehouse) -> None:
    """`part-05` of a day's folder holds rows of other hours of the day."""
    data = b"at,id\n2024-01-31T11:00Z,1\n2024-01-31T12:00Z,2\n"
    draft = _draft(lakehouse, _land(lakehouse.folder, "raw/2024-01-31/part-{:02d}.csv", data=data))
    assert draft.place.template == "raw/%Y-%m-%d/part-*.csv"
    assert str(draft.hours) == "24 hours: 2024-01-31-00:00 to 2024-01-31-23:00 UTC"


def test_what_to_look_at_and_to_type_next(lakehouse: Lakehouse) -> None:
    """Gaps, rows outside, and the commands with the hours that are there."""
    data = b"at,id\n2024-01-31T05:00Z,1\n2024-01-31T06:00Z,2\n"
    draft = _draft(lakehouse, _land(lakehouse.folder, "raw/2024-01-31-{:02d}.csv", data=data))
    assert notes(draft) == [
        (
            "hour: 1 of 2 values of the sample lie in the time that the path tells; "
            "is 'at' the right column, and the path in UTC?"
        ),
        "missing: 1 hours between the first and the last have no file; `empty` if that is so",
    ]
    assert next_commands(draft) == [
        "lakehouse check events --hour 2024-01-31-04:00",
        "lakehouse backfill events 2024-01-31-04:00...2024-01-31-07:00",
    ]


def test_what_nothing_tells_is_left_to_people(lakehouse: Lakehouse) -> None:
    """Neither the path nor a column tells the time: the draft says so, and so does its check."""
    draft = _draft(lakehouse, _land(lakehouse.folder, "raw/all.csv", (5,), b"a,b\nx,y\n"))
    write_draft(draft, lakehouse.tables)
    assert [note.partition(":")[0] for note in notes(draft)] == ["hour", "start"]
    assert next_commands(draft) == ["lakehouse check events"]
    with pytest.raises(ConfigurationError) as refused:
        load_lakehouse(lakehouse.file, {})
    assert [line.split(": ")[1] for line in str(refused.value).splitlines()] == ["hour", "start"]


def test_a_file_outside_of_the_project(lakehouse: Lakehouse, tmp_path: Path) -> None:
    """Its path is absolute then."""
    _land(tmp_path, "else/2024-01-31-{:02d}.csv")
    template = f"{tmp_path}/else/%Y-%m-%d-%H.csv"
    assert _draft(lakehouse, "../else/2024-01-31-05.csv").place.template == template
    assert _draft(lakehouse, f"file://{tmp_path}/else/2024-01-31-05.csv").place.template == template


def test_a_file_on_s3(lakehouse: Lakehouse, seaweed: SeaweedServer) -> None:
    """It is read through the lakehouse's own store, and its neighbours are listed."""
    files = LakehouseFileIO(
        {
            "s3.endpoint": seaweed.endpoint,
            "s3.access-key-id": seaweed.access_key_id,
            "s3.secret-access-key": seaweed.secret_access_key,
            "s3.region": "us-east-1",
        }
    )
    for hour in HOURS:
        files.put(f"s3://raw/drafts/2024/01/31/{hour:02d}-ab{hour}.csv", b"at,id\n2024-01-31T05:00Z,1\n")
    draft = draft_spec(lakehouse, files, "events", "s3://raw/drafts/2024/01/31/05-ab5.csv", lakehouse.folder)
    assert draft.place.template == "s3://raw/drafts/%Y/%m/%d/%H-*.csv"
    assert (draft.files, str(draft.hours)) == (3, "4 hours: 2024-01-31-04:00 to 2024-01-31-07:00 UTC")


@pytest.mark.parametrize(
    ("name", "data", "kind", "said"),
    [
        pytest.param("nothing.csv", None, ConfigurationError, "there is no file nothing.csv; name one", id="no file"),
        pytest.param("a.txt", b"x", ConfigurationError, "the suffix tells no format", id="no format"),
        pytest.param("a.csv", b"", DataError, "is empty", id="empty"),
        pytest.param("a.csv", b"at;id\n1;2\n", ConfigurationError, "separated by ';'", id="semicolons"),
        pytest.param("a.csv", b"1,2.5\n3,4.5\n", ConfigurationError, "seems to hold values, not names", id="no header"),
        pytest.param("a.jsonl", b"[1]\nx\n", DataError, "holds no JSON object", id="no objects"),
        pytest.param("a.parquet", b"PAR1", DataError, "a.parquet", id="damaged"),
    ],
)
def test_files_that_no_draft_is_made_of(
    name: str, data: bytes | None, kind: type[LakehouseError], said: str, lakehouse: Lakehouse
) -> None:
    """Each says what is wrong and what to land or to name instead."""
    if data is not None:
        (lakehouse.folder / name).write_bytes(data)
    with pytest.raises(kind, match=said):
        _draft(lakehouse, name)


def test_nothing_is_overwritten(lakehouse: Lakehouse) -> None:
    """A spec that somebody has worked on stays, and its transform, too."""
    data = b"t\n1706677200\n"
    draft = _draft(lakehouse, _land(lakehouse.folder, "raw/20240131T{:02d}.csv", data=data))
    (lakehouse.tables / "events.sql").write_text("mine")
    with pytest.raises(SafetyError, match=r"nothing was written: .*events\.sql exist already"):
        write_draft(draft, lakehouse.tables)
    assert not (lakehouse.tables / "events.yaml").exists()

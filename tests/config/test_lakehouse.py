from collections.abc import Callable
from pathlib import Path

import pytest

from lakehouse_pipeline.config.lakehouse import Lakehouse, find_lakehouse, load_lakehouse
from lakehouse_pipeline.config.paths import render
from lakehouse_pipeline.config.transform import SqlTransform
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.hours import HourWindow

Write = Callable[[str, str], Path]

LAKEHOUSE = """\
tables: tables/
catalog: {type: sql, uri: "sqlite:///catalog.db", warehouse: warehouse, s3.secret-access-key: "${SECRET}"}
engine: local[4]
"""
FLIGHTS = """\
# yaml-language-server: $schema=.schema.json
table: lake.flights
description: "Departures from New York in 2013: weather, carrier and plane"
owners: [team:flights]

source:
  path: ${RAW}/flights/%Y/%m/%d/%H*.jsonl.gz
  format: jsonl
  columns:
    time_hour: timestamptz!
    carrier: string!
    dep_delay: double
  bad_rows: reject
  missing: empty

join:
  airlines: ${RAW}/airlines.parquet
  weather: {path: "${RAW}/weather/%Y/%m/%d/%H.csv", columns: {origin: string!, temp: double}, missing: empty}

transform: flights.sql

columns:
  time_hour: timestamptz!
  carrier: string!
  dep_delay: int
hour: time_hour
sort: [carrier, dep_delay desc]
start: 2013-01-01
end: 2014-01-01
properties: {write.parquet.compression-level: "3"}
"""
EVENTS = """\
table: lake.events
source: {path: raw/%Y/%m/%d/%H.csv, columns: {at: timestamptz!}}
hour: at
start: 2013-01-01
"""
ENVIRON = {"SECRET": "hunter2", "RAW": "s3://raw/50%"}


@pytest.fixture
def project(write: Write) -> Path:
    """Write a project of two tables; gives its lakehouse.yaml."""
    write("tables/flights.yaml", FLIGHTS)
    write("tables/flights.sql", "SELECT time_hour, carrier, CAST(dep_delay AS INT) AS dep_delay FROM source\n")
    write("tables/events.yaml", EVENTS)
    write("tables/.schema.json", "{}")
    write("tables/.draft.yaml", "nothing: yet")
    write("tables/old/flights.yaml", "nothing: any more")
    return write("lakehouse.yaml", LAKEHOUSE)


def _problems(file: Path) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        load_lakehouse(file, ENVIRON)
    return str(refused.value).replace(f"{file.parent}/", "").splitlines()


def test_a_lakehouse_is_read(project: Path) -> None:
    """Both kinds of files become one frozen value, local paths absolute and specs by name."""
    lakehouse = load_lakehouse(project, ENVIRON)
    folder = project.parent
    assert (lakehouse.file, lakehouse.folder, lakehouse.tables) == (project, folder, folder / "tables")
    assert lakehouse.engine == "local[4]"
    assert lakehouse.catalog == {
        "type": "sql",
        "uri": f"sqlite:///{folder}/catalog.db",
        "warehouse": f"file://{folder}/warehouse",
        "s3.secret-access-key": "hunter2",
    }
    assert [spec.name for spec in lakehouse.specs] == ["events", "flights"]


def test_a_table_is_found_by_name(project: Path) -> None:
    """A wrong name is answered with the nearest."""
    lakehouse = load_lakehouse(project, ENVIRON)
    assert lakehouse.spec("flights").table == "lake.flights"
    with pytest.raises(ConfigurationError, match=r"^there is no table 'flihgts'; did you mean 'flights'\?$"):
        lakehouse.spec("flihgts")


def test_variables_of_paths_are_literal(project: Path) -> None:
    """A percent sign in a variable is no directive."""
    spec = load_lakehouse(project, ENVIRON).spec("flights")
    rendered = render(spec.source.path, HourWindow.from_key("2013-01-01-05:00"))
    assert rendered == "s3://raw/50%/flights/2013/01/01/05*.jsonl.gz"
    assert [join.path for join in spec.join] == [
        "s3://raw/50%%/airlines.parquet",
        "s3://raw/50%%/weather/%Y/%m/%d/%H.csv",
    ]


def test_relative_paths_begin_in_their_own_places(project: Path) -> None:
    """Data is sought from the folder of lakehouse.yaml, SQL from that of the spec."""
    lakehouse = load_lakehouse(project, ENVIRON)
    assert lakehouse.spec("events").source.path == f"file://{project.parent}/raw/%Y/%m/%d/%H.csv"
    transform = lakehouse.spec("flights").transform
    assert isinstance(transform, SqlTransform)
    assert transform.file == project.parent / "tables" / "flights.sql"


def test_tables_and_engine_may_be_left_out(write: Write) -> None:
    """They are `tables` and all cores; a lakehouse without a table is one too."""
    file = write("lakehouse.yaml", "catalog: {name: prod}\n")
    write("tables/README.md", "")
    lakehouse = load_lakehouse(file, {})
    assert (lakehouse.tables, lakehouse.engine, lakehouse.specs) == (file.parent / "tables", "local[*]", ())


def test_the_folder_is_absolute_when_the_file_is_not(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later change of the current folder changes no path."""
    monkeypatch.chdir(project.parent / "tables")
    assert load_lakehouse(Path("../lakehouse.yaml"), ENVIRON) == load_lakehouse(project, ENVIRON)


def test_neither_repr_nor_str_shows_a_value_of_the_catalog(project: Path) -> None:
    """Credentials stand there; logs and tracebacks print reprs."""
    lakehouse = load_lakehouse(project, ENVIRON)
    for text in (repr(lakehouse), str(lakehouse), f"{lakehouse}"):
        assert not any(value in text for value in lakehouse.catalog.values() if value != "sql")
        assert "raw/50" not in text


_NO_ENGINE = "is no engine; write local[*], local[N], spark://…, yarn, k8s://…, sc://… or sail"


def test_all_problems_of_all_files_are_one_error(project: Path, write: Write) -> None:
    """The whole text: lakehouse.yaml first, then the specs by name, each from top to bottom, one line each."""
    write("lakehouse.yaml", "catalog:\n  uri: ${CATALOG_URI}\n  auth: {type: basic}\nengin: sail\nengine: flink\n")
    write(
        "tables/clicks.yaml",
        """\
table: lake.flights
owners: [someone]
source:
  path: ${RAW_CLICKS}/%Y/%m/%d/%H*.jsonl
  columns:
    no: timestamptz
    price: decimal(40,2)
    tags: list<strng>
  bad_row: reject
  bad_rows: skip
join:
  airlines: gs://raw/airlines.parquet
transform: clicks.sql
columns:
  at: timestamptz
  price: {precision: 10}
hour: no
hour: at
key:
sort: [at,
  prize]
start: 2013-01-01
end: 2012-01-01
file_size: 10TB
properties:
  format-version: 3
""",
    )
    write("tables/flights.yaml", FLIGHTS.replace("carrier: string!", "carrier: strng!"))
    write("tables/views.yaml", "table: lake.views\nsource: *events\n")
    write("tables/Visits.yaml", EVENTS)
    write("tables/visitors.yml", EVENTS)
    assert _problems(project) == [
        "lakehouse.yaml:2: catalog.uri: the variable CATALOG_URI is not set; set it, or write the value",
        "lakehouse.yaml:3: catalog.auth: must be text, not a mapping",
        "lakehouse.yaml:4: engin: is no key here; did you mean 'engine'?",
        f"lakehouse.yaml:5: engine: {_NO_ENGINE}",
        "tables/Visits.yaml:1: name: 'Visits' is no table's name; rename the file: a-z, then a-z, 0-9 and _",
        "tables/clicks.yaml:2: owners[0]: 'someone' is no owner; write an e-mail address or team:name",
        "tables/clicks.yaml:4: source.path: the variable RAW_CLICKS is not set; set it, or write the value",
        (
            "tables/clicks.yaml:7: source.columns.price: decimal(40,2) does not exist; "
            "the precision is 1 to 38, the scale 0 to the precision"
        ),
        "tables/clicks.yaml:8: source.columns.tags: 'strng' is no type; did you mean 'string'?",
        "tables/clicks.yaml:9: source.bad_row: is no key here; did you mean 'bad_rows'?",
        "tables/clicks.yaml:10: source.bad_rows: 'skip' is not supported; write 'fail' or 'reject'",
        (
            "tables/clicks.yaml:12: join.airlines.path: is no path that is supported; "
            "write s3://bucket/…, file:///… or a local path"
        ),
        (
            "tables/clicks.yaml:13: transform: 'clicks.sql' cannot be read (No such file or directory); "
            "it is sought beside the spec"
        ),
        (
            "tables/clicks.yaml:16: columns.price: is a mapping; "
            'write a nested type as text in quotes, such as "struct<a:int!,b:string>"'
        ),
        "tables/clicks.yaml:18: hour: stands twice, on lines 17 and 18; keep one",
        'tables/clicks.yaml:19: key: has no value; write one ("" for empty text), or take it out',
        (
            "tables/clicks.yaml:23: end: 2012-01-01-00:00 is not after start, 2013-01-01-00:00; "
            "end is the first hour that is no more"
        ),
        "tables/clicks.yaml:24: file_size: '10TB' is no size; write a number and a unit, such as 256MB or 1GiB",
        (
            "tables/clicks.yaml:26: properties.format-version: '3' is not supported; write 2: "
            "PyIceberg cannot write v3 yet (apache/iceberg-python#1551)"
        ),
        "tables/events.yaml:1: table: 'lake.events' is the table of tables/Visits.yaml:1 too; give each its own",
        "tables/flights.yaml:2: table: 'lake.flights' is the table of tables/clicks.yaml:1 too; give each its own",
        "tables/flights.yaml:11: source.columns.carrier: 'strng' is no type; did you mean 'string'?",
        "tables/flights.yaml:24: columns.carrier: 'strng' is no type; did you mean 'string'?",
        "tables/views.yaml:2: the alias *events is not supported; write the value out, or quote it",
        "tables/visitors.yml:1: is not read; rename it to end in .yaml",
    ]


def test_ten_mistakes_are_ten_lines_with_their_way_out(project: Path, write: Write) -> None:
    """Whoever wrote a spec sees everything that is wrong with it at once, and what to write instead."""
    write(
        "tables/events.yaml",
        """\
table: events
owner: team:data
source:
  path: raw/%Y/%d/%H.csv
  columns: {at: timestamptz!, id: bigint, tags: "list<strng>"}
  reader: spark
  bad_rows: reject
hour: att
partition: [bucket(0, id)]
file_size: 10TB
start: 2013-01-01-10:30
properties: {write.target-file-size-bytes: "1000"}
""",
    )
    assert _problems(project) == [
        "tables/events.yaml:1: table: 'events' is no Iceberg table; write namespace.name",
        "tables/events.yaml:2: owner: is no key here; did you mean 'owners'?",
        (
            "tables/events.yaml:4: source.path: has %Y %d %H, which is no time; write %Y %m %d %H for files of an "
            "hour, %Y %m %d of a day, %Y %m of a month, %Y of a year, or none of them"
        ),
        "tables/events.yaml:5: source.columns.id: 'bigint' is no type; did you mean 'long'?",
        "tables/events.yaml:5: source.columns.tags: 'strng' is no type; did you mean 'string'?",
        (
            "tables/events.yaml:7: source.bad_rows: 'reject' takes the place of each row, which Spark's readers do "
            "not tell; write fail, or take `reader: spark` out"
        ),
        (
            "tables/events.yaml:9: partition[0]: 'bucket(0, id)' is no partition field; write a column, "
            "identity(column), bucket(16, column), truncate(4, column), or year, month, day (column)"
        ),
        "tables/events.yaml:10: file_size: '10TB' is no size; write a number and a unit, such as 256MB or 1GiB",
        "tables/events.yaml:11: start: '2013-01-01-10:30' is not a whole hour; did you mean 2013-01-01-10:00?",
        (
            "tables/events.yaml:12: properties.write.target-file-size-bytes: is not honoured here; "
            "write the key `file_size` of the spec"
        ),
    ]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        pytest.param(
            "tables: tables\n",
            [
                (
                    "lakehouse.yaml:1: catalog: is missing; add PyIceberg's properties, "
                    "such as {type: sql, uri: 'sqlite:///catalog.db', warehouse: warehouse}"
                )
            ],
            id="no catalog",
        ),
        pytest.param(
            "catalog: {}\n",
            [
                (
                    "lakehouse.yaml:1: catalog: is empty; "
                    "add PyIceberg's properties, or {name: …} for a catalog of .pyiceberg.yaml"
                )
            ],
            id="empty catalog",
        ),
        pytest.param(
            "catalog: prod\n",
            ["lakehouse.yaml:1: catalog: must be a mapping of keys to values, not text"],
            id="catalog of text",
        ),
        pytest.param(
            "catalog: {name: prod}\n\ntables: specs\n",
            [
                (
                    "lakehouse.yaml:3: tables: the folder cannot be listed (No such file or directory); "
                    "create it, or name another"
                )
            ],
            id="no folder",
        ),
        pytest.param(
            "catalog: {name: prod}\ntables: [a]\n",
            ["lakehouse.yaml:2: tables: must be text, not a list"],
            id="tables of a list",
        ),
        pytest.param(
            "catalog: {name: prod}\ntables: ./\n",
            ["lakehouse.yaml:2: tables: is the folder of lakehouse.yaml itself; name one that holds the specs only"],
            id="tables beside lakehouse.yaml",
        ),
        pytest.param(
            "catalog: {name: prod}\nspecs: x\n",
            ["lakehouse.yaml:2: specs: is no key here; take it out, it follows from where the file is"],
            id="a field that is no key",
        ),
        pytest.param(
            "catalog: {name: prod}\nmaintenance:\n  orphans_after: 23h\n",
            [
                (
                    "lakehouse.yaml:3: maintenance.orphans_after: is less than 24h: "
                    "a file as young may be one that somebody is about to commit"
                )
            ],
            id="young orphans",
        ),
        pytest.param(
            "catalog: {name: prod\n",
            [
                (
                    "lakehouse.yaml:2: is not YAML: while parsing a flow mapping, expected ',' or '}', "
                    "but got '<stream end>'; quote a value that holds special characters, and indent with spaces"
                )
            ],
            id="no YAML",
        ),
    ],
)
def test_what_is_refused_of_lakehouse_yaml(text: str, problems: list[str], project: Path, write: Write) -> None:
    """Every problem is reported on its line; specs that are right add none."""
    write("lakehouse.yaml", text)
    assert _problems(project) == problems


@pytest.mark.parametrize(
    "engine",
    ["local[*]", "local[4]", "spark://h:7077", "yarn", "k8s://https://h:6443", "sc://h:15002/;token=t", "sail"],
)
def test_engines(engine: str, project: Path, write: Write) -> None:
    """Spark on this machine or on a cluster, Spark Connect, and Sail."""
    write("lakehouse.yaml", f"catalog: {{name: prod}}\nengine: '{engine}'\n")
    assert load_lakehouse(project, ENVIRON).engine == engine


@pytest.mark.parametrize(
    "engine", ["local", "local[0]", "local[a]", "spark://", "sc://", "sc:///", "yarn-client", "flink"]
)
def test_other_engines_are_refused(engine: str, project: Path, write: Write) -> None:
    """Only what names an engine and where it is."""
    write("lakehouse.yaml", f"catalog: {{name: prod}}\nengine: {engine}\n")
    assert _problems(project) == [f"lakehouse.yaml:2: engine: {_NO_ENGINE}"]


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    """As any other, and nothing is said about its tables."""
    assert _problems(tmp_path / "lakehouse.yaml") == ["lakehouse.yaml:1: cannot be read: No such file or directory"]


@pytest.mark.parametrize(
    ("lakehouse", "source"),
    [
        pytest.param("catalog: {name: a}\ntables: ${X}\n", "/%Y%m%d%H.csv", id="tables"),
        pytest.param("catalog: {name: a}\nengine: ${X}\n", "/%Y%m%d%H.csv", id="engine"),
        pytest.param("catalog: {name: a, b: {c: '${X}'}}\n", "/%Y%m%d%H.csv", id="catalog"),
        pytest.param("catalog: {name: a}\n", "${X}", id="path"),
        pytest.param("catalog: {name: a}\n", "ftp://${X}/%Y%m%d%H.csv", id="scheme"),
        pytest.param("catalog: {name: a}\n", "s3://${X}/%s.csv", id="directive"),
        pytest.param("catalog: {name: a}\n", "s3://b/${X}/%Y%m%d%H", id="format"),
    ],
)
def test_no_error_shows_a_value_of_a_variable(lakehouse: str, source: str, write: Write) -> None:
    """Neither its text nor the exceptions that it came from."""
    file = write("lakehouse.yaml", lakehouse)
    write("tables/events.yaml", EVENTS.replace("raw/%Y/%m/%d/%H.csv", f'"{source}"'))
    with pytest.raises(ConfigurationError) as refused:
        load_lakehouse(file, {"X": "hunter2"})
    assert "hunter2" not in str(refused.value)
    assert refused.value.__context__ is None


def test_a_tables_folder_from_a_variable_is_named_by_the_variable(write: Write, tmp_path: Path) -> None:
    """Problems of its specs do not show where it is."""
    file = write("lakehouse.yaml", "catalog: {name: prod}\ntables: ${SPECS}/\n")
    write("hunter2/events.yaml", EVENTS.replace("hour: at", "hour: ad"))
    with pytest.raises(ConfigurationError) as refused:
        load_lakehouse(file, {"SPECS": str(tmp_path / "hunter2")})
    assert str(refused.value) == "${SPECS}/events.yaml:3: hour: there is no column 'ad'; write one of at"


def test_a_problem_is_named_by_the_path_as_given(project: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that terminals and editors can open `file:line`."""
    write("tables/events.yaml", "")
    monkeypatch.chdir(project.parent)
    with pytest.raises(ConfigurationError, match=r"^tables/events\.yaml:1: is empty"):
        load_lakehouse(Path("lakehouse.yaml"), ENVIRON)


def test_a_lakehouse_is_frozen(project: Path) -> None:
    """It is read once and handed around."""
    lakehouse: Lakehouse = load_lakehouse(project, ENVIRON)
    with pytest.raises(ValueError, match="frozen"):
        lakehouse.engine = "local[1]"  # type: ignore[misc]  # what is tested


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        pytest.param({}, "lakehouse.yaml", id="current folder"),
        pytest.param({"LAKEHOUSE_CONFIG": ""}, "lakehouse.yaml", id="set to nothing"),
        pytest.param({"LAKEHOUSE_CONFIG": "tables/events.yaml"}, "tables/events.yaml", id="named, relative"),
    ],
)
def test_find_lakehouse(environ: dict[str, str], found: str, project: Path) -> None:
    """The variable comes first, then the current folder."""
    assert find_lakehouse(environ, project.parent) == project.parent / found


def test_an_absolute_path_is_found_from_anywhere(project: Path) -> None:
    """The current folder does not matter then."""
    assert find_lakehouse({"LAKEHOUSE_CONFIG": str(project)}, Path("/")) == project


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        pytest.param(
            {},
            "there is no lakehouse.yaml in {cwd}; change to its folder, or set LAKEHOUSE_CONFIG to its path",
            id="none",
        ),
        pytest.param(
            {"LAKEHOUSE_CONFIG": "x.yaml"},
            "LAKEHOUSE_CONFIG names {cwd}/x.yaml, which is no file; set it to the path of a lakehouse.yaml",
            id="named",
        ),
        pytest.param(
            {"LAKEHOUSE_CONFIG": "."},
            "LAKEHOUSE_CONFIG names {cwd}, which is no file; set it to the path of a lakehouse.yaml",
            id="folder",
        ),
    ],
)
def test_a_lakehouse_that_is_not_found_has_a_way_out(environ: dict[str, str], message: str, tmp_path: Path) -> None:
    """The message names where it was sought and what to do."""
    with pytest.raises(ConfigurationError) as refused:
        find_lakehouse(environ, tmp_path)
    assert str(refused.value) == message.format(cwd=tmp_path)

"""What an hour cannot be made of leaves the table as it was, and the error says where, what, and the way out."""

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform
from pyiceberg.types import DoubleType, LongType, NestedField, StringType, TimestamptzType

from lakehouse_pipeline.backfill import views
from lakehouse_pipeline.backfill.checks import CheckFailedError
from lakehouse_pipeline.backfill.plan import NoSourceError
from lakehouse_pipeline.errors import ConfigurationError, DataError, LakehouseError, TransientError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg import tables
from lakehouse_pipeline.iceberg.data_files import OtherHourError
from lakehouse_pipeline.retry import retry_call
from tests.projects import HOUR, NEXT, Project, json_lines, row

CSV = "{path: raw/%Y/%m/%d/%H*.csv, columns: {at: timestamptz!, id: long!, size: double}}"
COLUMNS = "{at: timestamptz!, id: long!, size: double}"
REJECTING = (
    "{path: raw/%Y/%m/%d/%H*.jsonl, columns: {at: timestamptz!, id: long!, size: double}, "
    "bad_rows: reject, missing: empty}"
)


def _truncated_gzip(project: Project) -> None:
    project.describe({"source": CSV.replace("csv,", "csv.gz,")})
    body = gzip.compress(b"at,id,size\n" + b"".join(b"2013-01-01T10:00:00Z,%d,1.5\n" % n for n in range(1000)))
    project.write("raw/2013/01/01/10.csv.gz.part", body).rename(project.folder / "raw/2013/01/01/10.csv.gz")
    (project.folder / "raw/2013/01/01/10.csv.gz").write_bytes(body[: len(body) // 2])


def _malformed_json(project: Project) -> None:
    project.write("raw/2013/01/01/10.jsonl", json_lines([row(HOUR, 1)]) + b'{"at": "2013-01-01T10:00:00Z", "id": 2\n')


def _wrong_value(project: Project) -> None:
    project.write("raw/2013/01/01/10.jsonl", json_lines([row(HOUR, 1), {**row(HOUR, 2), "size": "late"}]))


def _csv_without_column(project: Project) -> None:
    project.describe({"source": CSV})
    project.write("raw/2013/01/01/10.csv", "at,id\n2013-01-01T10:00:00Z,1\n")


def _row_of_another_hour(project: Project) -> None:
    project.land(HOUR, [row(HOUR, 1), row(NEXT, 2)])


def _null_in_required(project: Project) -> None:
    project.describe({"transform": "t.sql", "columns": COLUMNS})
    project.write("tables/t.sql", "SELECT at, IF(id = 2, NULL, id) AS id, size FROM source")
    project.land(HOUR, [row(HOUR, 1), row(HOUR, 2)])


def _null_in_required_source(project: Project) -> None:
    project.write("raw/2013/01/01/10.jsonl", json_lines([row(HOUR, 1), {"at": "2013-01-01T10:00:00Z", "size": 1.0}]))


def _missing_source(project: Project) -> None:
    (project.folder / "raw/2013/01/01/10.jsonl").unlink()


def _missing_dimension(project: Project) -> None:
    project.describe({"join": "{sizes: dims/sizes.parquet}", "transform": "t.sql", "columns": COLUMNS})
    project.write("tables/t.sql", "SELECT source.* FROM source JOIN sizes USING (id)")


def _missing_empty_dimension_without_columns(project: Project) -> None:
    join = "{sizes: {path: dims/sizes.parquet, missing: empty}}"
    project.describe({"join": join, "transform": "t.sql", "columns": COLUMNS})
    project.write("tables/t.sql", "SELECT source.* FROM source JOIN sizes USING (id)")


def _duplicate_key(project: Project) -> None:
    project.describe({"key": "[id]"})
    project.land(HOUR, [row(HOUR, 1), row(HOUR, 7), row(HOUR, 7), row(HOUR, 7)])


def _all_rows_lost(project: Project) -> None:
    project.describe({"transform": "t.sql", "columns": COLUMNS})
    project.write("tables/t.sql", "SELECT * FROM source WHERE id < 0")


def _wrong_columns(project: Project) -> None:
    project.describe({"transform": "t.sql", "columns": COLUMNS})
    project.write("tables/t.sql", "SELECT at, CAST(id AS STRING) AS id, 1 AS length FROM source")


def _syntax_error(project: Project) -> None:
    project.describe({"transform": "t.sql", "columns": COLUMNS})
    project.write("tables/t.sql", "SELECT at, id, size FRM source")


def _unknown_column(project: Project) -> None:
    project.describe({"transform": "t.sql", "columns": COLUMNS})
    project.write("tables/t.sql", "SELECT at, idd, size FROM source")


def _overflow(project: Project) -> None:
    project.describe({"transform": "t.sql", "columns": COLUMNS})
    project.write("tables/t.sql", "SELECT at, id + 9223372036854775807L AS id, size FROM source")
    project.land(HOUR, [row(HOUR, 1)])


def _cast(project: Project) -> None:
    project.describe({"transform": "t.sql", "columns": COLUMNS})
    project.write("tables/t.sql", "SELECT at, CAST(CONCAT('x', id) AS BIGINT) AS id, size FROM source")
    project.land(HOUR, [row(HOUR, 1)])


def _udf_that_crashes(project: Project) -> None:
    project.describe({"transform": "t_crash:f", "columns": COLUMNS})
    project.write(
        "tables/t_crash.py",
        "import os\nfrom pyspark.sql import functions as F\n\n\n"
        "def f(source):\n    return source.withColumn('id', F.udf(lambda number: os._exit(1), 'bigint')('id'))\n",
    )


def _subquery_of_many_rows(project: Project) -> None:
    project.describe({"transform": "t.sql", "columns": COLUMNS})
    project.write("tables/t.sql", "SELECT at, (SELECT id FROM source) AS id, size FROM source")


def _no_parquet(project: Project) -> None:
    project.describe({"source": "{path: raw/%Y/%m/%d/%H.parquet}", "columns": COLUMNS})
    project.write("raw/2013/01/01/10.parquet", b"PAR1 and then nothing of the kind")


def _no_such_module(project: Project) -> None:
    project.describe({"transform": "nowhere:f", "columns": COLUMNS})


def _no_such_package(project: Project) -> None:
    project.describe({"transform": "nowhere.transforms:f", "columns": COLUMNS})


def _no_such_function(project: Project) -> None:
    project.describe({"transform": "t_named:f", "columns": COLUMNS})
    project.write("tables/t_named.py", "def g(source):\n    return source\n")


def _module_with_a_syntax_error(project: Project) -> None:
    project.describe({"transform": "t_syntax:f", "columns": COLUMNS})
    project.write("tables/t_syntax.py", "def f(source)\n    return source\n")


def _module_that_fails(project: Project) -> None:
    project.describe({"transform": "t_fails:f", "columns": COLUMNS})
    project.write("tables/t_fails.py", "import nowhere\n")


def _function_that_fails(project: Project) -> None:
    project.describe({"transform": "t_function:f", "columns": COLUMNS})
    project.write("tables/t_function.py", "def f(source):\n    return {}['size']\n")


def _function_without_a_frame(project: Project) -> None:
    project.describe({"transform": "t_nothing:f", "columns": COLUMNS})
    project.write("tables/t_nothing.py", "def f(source):\n    pass\n")


def _udf_that_fails(project: Project) -> None:
    project.describe({"transform": "t_udf:f", "columns": COLUMNS})
    project.write(
        "tables/t_udf.py",
        "from pyspark.sql import functions as F\n\n\n"
        "def divide(number):\n    return number // 0\n\n\n"
        "def f(source):\n    return source.withColumn('id', F.udf(divide, 'bigint')('id'))\n",
    )


WAYS = {
    "direct": (None, 0),
    "driver": ("SELECT * FROM source", views.SMALL_INPUT),
    "tasks": ("SELECT * FROM source", 0),
}


@pytest.fixture
def ran(project: Project) -> Project:
    """Give a project whose table holds an hour of two rows."""
    project.land(HOUR, [row(HOUR, 1), row(HOUR, 2)])
    project.run()
    return project


def _fails(project: Project, kind: type[LakehouseError], said: tuple[str, ...]) -> None:
    """Run the hour, which fails in these words and changes nothing."""
    table = project.table
    before = table.head, project.files(), project.files("metadata"), table.rows(("at", "id"))
    with pytest.raises(LakehouseError) as caught:
        project.run()
    assert type(caught.value) is kind
    for text in said:
        assert text in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert "\n\tat " not in str(caught.value)
    table = replace(table, table=table.table.refresh())
    assert (table.head, project.files(), project.files("metadata"), table.rows(("at", "id"))) == before
    assert table.ledger.hour(HourWindow.from_key(HOUR)).record.state == "idle"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(_truncated_gzip, ("raw/2013/01/01/10.csv.gz",), id="truncated gzip"),
        pytest.param(_malformed_json, ("raw/2013/01/01/10.jsonl:2", "bad_rows: reject"), id="malformed line"),
        pytest.param(_wrong_value, ("10.jsonl:2", '"size"', '"late" is not a double'), id="wrong value"),
        pytest.param(_csv_without_column, ("10.csv", '"size"', "it has at, id"), id="no such column"),
        pytest.param(_no_parquet, ("10.parquet",), id="no Parquet"),
        pytest.param(_null_in_required_source, ("10.jsonl:2", '"id"', "required"), id="null"),
        pytest.param(_row_of_another_hour, (HOUR, "10.jsonl:2: ", "at = 2013-01-01 11:02"), id="another hour"),
    ],
)
def test_bad_source_changes_nothing(
    ran: Project,
    spoil: Callable[[Project], None],
    said: tuple[str, ...],
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows, snapshot and files stay as they were, in whatever process the source is read, with the same words."""
    sql, small = WAYS[way]
    monkeypatch.setattr(views, "SMALL_INPUT", small)
    spoil(ran)
    if sql:
        ran.describe({"transform": "t.sql", "columns": COLUMNS})
        ran.write("tables/t.sql", sql)
    _fails(ran, OtherHourError if spoil is _row_of_another_hour else DataError, said)


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        pytest.param(_null_in_required, DataError, ("column id", "1 of 2 rows", '"!"'), id="null"),
        pytest.param(_missing_source, NoSourceError, ("raw/2013/01/01/10*.jsonl", "missing: empty"), id="no source"),
        pytest.param(_missing_dimension, DataError, ("join sizes", "dims/sizes.parquet"), id="no dimension"),
        pytest.param(
            _missing_empty_dimension_without_columns,
            ConfigurationError,
            ("join.sizes", "dims/sizes.parquet", "`columns`"),
            id="empty dimension of unknown columns",
        ),
        pytest.param(
            _duplicate_key,
            CheckFailedError,
            ("id = 7 (3 rows)", "correct `key`", "stays as it was"),
            id="duplicate key",
        ),
        pytest.param(_all_rows_lost, CheckFailedError, ("2 rows were read", "the transform left none"), id="lost rows"),
        pytest.param(
            _wrong_columns,
            ConfigurationError,
            ("no column size", "column length is not in the table: add it", "`lakehouse apply", "CAST(id AS BIGINT)"),
            id="wrong columns",
        ),
        pytest.param(_syntax_error, ConfigurationError, ("tables/t.sql", "Syntax error", "line 1"), id="SQL syntax"),
        pytest.param(_unknown_column, ConfigurationError, ("tables/t.sql", "`idd`"), id="unknown column"),
        pytest.param(_overflow, DataError, (HOUR, "overflow"), id="overflow"),
        pytest.param(_cast, DataError, (HOUR, "'x1'"), id="cast"),
        pytest.param(_no_such_module, ConfigurationError, ("no module nowhere",), id="no module"),
        pytest.param(_no_such_package, ConfigurationError, ("no module nowhere.transforms",), id="no package"),
        pytest.param(_no_such_function, ConfigurationError, ("t_named", "no function f"), id="no function"),
        pytest.param(_module_with_a_syntax_error, ConfigurationError, ("t_syntax.py, line 1",), id="module's syntax"),
        pytest.param(_module_that_fails, ConfigurationError, ("'nowhere'", "t_fails.py, line 1"), id="module fails"),
        pytest.param(_function_that_fails, DataError, ("KeyError: 'size'", "t_function.py, line 2"), id="function"),
        pytest.param(_function_without_a_frame, ConfigurationError, ("gave no DataFrame: None",), id="no frame"),
        pytest.param(_udf_that_fails, DataError, (HOUR, "ZeroDivisionError", "t_udf.py, line 5"), id="UDF"),
        pytest.param(_udf_that_crashes, LakehouseError, (HOUR, "Python worker exited unexpectedly"), id="crash"),
        pytest.param(_subquery_of_many_rows, DataError, (HOUR, "More than one row"), id="subquery"),
    ],
)
def test_bad_transform_or_setting_changes_nothing(
    ran: Project, spoil: Callable[[Project], None], kind: type[LakehouseError], said: tuple[str, ...]
) -> None:
    """The error is of the class that says what to do next, and names the file, the line or the key at fault."""
    spoil(ran)
    _fails(ran, kind, said)


@pytest.mark.parametrize(
    ("wanted", "given", "said"),
    [
        pytest.param(
            "struct<lat:double,lon:double>",
            "named_struct('lon', 10.5D, 'lat', 50.5D)",
            "struct<lon:double,lat:double>, the table wants struct<lat:double,lon:double>: build it anew",
            id="fields in another order",
        ),
        pytest.param("list<int>", "array(1.7D, 2.2D)", "array<double>, the table wants array<int>", id="elements"),
        pytest.param("map<string,int>", "map('a', 1.7D)", "wants map<string,int>", id="values of a map"),
    ],
)
def test_nested_values_are_not_bent(project: Project, wanted: str, given: str, said: str) -> None:
    """Spark would cast structs by place and numbers to what is narrower: neither happens without a word."""
    project.describe({"transform": "t.sql", "columns": f"{{at: timestamptz!, v: '{wanted}'}}"})
    project.write("tables/t.sql", f"SELECT at, {given} AS v FROM source")
    project.land(HOUR, [row(HOUR, 1)])
    with pytest.raises(ConfigurationError) as caught:
        project.run()
    assert said in str(caught.value)
    assert project.table.head is None


def _partitioned_by_day(project: Project) -> None:
    columns = (NestedField(1, "at", TimestamptzType(), required=True), NestedField(2, "id", LongType(), required=True))
    schema = Schema(*columns, NestedField(3, "size", DoubleType(), required=False))
    project.catalog.create_table(
        "lake.events", schema, partition_spec=PartitionSpec(PartitionField(1, 1000, DayTransform(), "day"))
    )


def _without_partitions(project: Project) -> None:
    project.catalog.create_table("lake.events", pa.schema([("at", pa.timestamp("us", "UTC")), ("id", pa.string())]))


def _with_another_column(project: Project) -> None:
    project.run()
    with project.table.table.update_schema() as update:
        update.add_column("weight", StringType())


@pytest.mark.parametrize(
    ("differ", "said"),
    [
        pytest.param(_partitioned_by_day, ("partitioned by day(at), the spec by hour(at)",), id="by day"),
        pytest.param(
            _without_partitions,
            (
                "partitioned by nothing",
                "column id is string in the table, long in the spec",
                "size is not in the table",
            ),
            id="unpartitioned",
        ),
        pytest.param(_with_another_column, ("column weight of the table is not in the spec",), id="another column"),
    ],
)
def test_table_that_differs_from_its_spec_is_left_alone(
    project: Project, differ: Callable[[Project], None], said: tuple[str, ...]
) -> None:
    """A table of another shape is not written to; the error lists every difference, and the way out."""
    project.land(HOUR, [row(HOUR, 1)])
    project.catalog.create_namespace("lake")
    differ(project)
    before = project.catalog.load_table("lake.events").metadata_location
    with pytest.raises(ConfigurationError) as caught:
        project.run(force=True)
    for text in (*said, "events.yaml: the table lake.events differs from its spec", "so that they agree"):
        assert text in str(caught.value)
    assert project.catalog.load_table("lake.events").metadata_location == before


@contextmanager
def _hanging_up() -> Iterator[tuple[int, list[object]]]:
    """Give the port of a server that takes connections and closes them, and whose they were."""
    taken: list[object] = []

    def hang_up() -> None:
        with suppress(OSError):  # it is shut
            while True:
                connection, address = server.accept()
                connection.close()
                taken.append(address)

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(hang_up)
        try:
            yield server.getsockname()[1], taken
        finally:
            server.shutdown(socket.SHUT_RDWR)


def test_unreachable_catalog_is_said_at_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalog that does not answer costs seconds, and the error names its address, without its password."""
    waited = list[float]()
    timed = partial(retry_call, sleep=waited.append, clock=lambda: sum(waited))
    monkeypatch.setattr(tables, "retry_call", timed)
    with _hanging_up() as (port, taken):
        uri = f"http://me:secret@127.0.0.1:{port}"
        catalog = f"{{type: rest, uri: '{uri}', credential: 'a:b', oauth2-server-uri: '{uri}/v1/oauth/tokens'}}"
        project.write("lakehouse.yaml", f"catalog: {catalog}\n")
        with pytest.raises(TransientError, match=f"127.0.0.1:{port}.*lakehouse.yaml") as caught:
            project.bench()
    assert 0 < sum(waited) < 10
    assert len(taken) == len(waited) + 1  # nobody below tries again
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("way", WAYS)
def test_rejected_rows_are_kept(project: Project, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`bad_rows: reject`: good rows are committed, others lie below the ledger with file, position and reason."""
    sql, small = WAYS[way]
    monkeypatch.setattr(views, "SMALL_INPUT", small)
    project.describe({"source": REJECTING})
    if sql:
        project.describe({"transform": "t.sql", "columns": COLUMNS})
        project.write("tables/t.sql", sql)
    lines = [
        *json_lines([row(HOUR, 1), {**row(HOUR, 2), "size": "late"}]).splitlines(),
        b"{",
        b'{"at": "soon", "id": 3}',
    ]
    project.write("raw/2013/01/01/10.jsonl", b"\n".join(lines))
    seal = project.run().seal
    assert (seal.rows, seal.rows_read, seal.rejected, project.ids()) == (1, 1, 3, [1])
    committed = project.record().committed
    assert committed is not None
    folder = project.table.ledger.rejects_url(HourWindow.from_key(HOUR), committed.attempt)
    kept = pq.read_table(folder.removeprefix("file://")).to_pylist()
    assert [(each["file"].rpartition("/")[2], each["position"], each["column"]) for each in kept] == [
        ("10.jsonl", 2, "size"),
        ("10.jsonl", 3, None),
        ("10.jsonl", 4, "at"),
    ]
    assert kept[0]["reason"] == '"late" is not a double'
    assert json.loads(kept[0]["raw"])["id"] == 2


def test_failed_attempt_takes_its_rejects_along(project: Project) -> None:
    """Rows that an attempt rejected before it failed are removed with it: only committed hours have rejects."""
    project.describe({"source": REJECTING})
    project.write("raw/2013/01/01/10.jsonl", json_lines([row(HOUR, 1), {}, row(NEXT, 2)]))
    with pytest.raises(DataError, match=r"10.jsonl:3: .*another hour"):
        project.run()
    assert [name for name in project.files("_lakehouse") if "rejects" in name] == []


def test_failed_hour_takes_its_rejects_along(project: Project) -> None:
    """The same where all rows were read and rejects were put, and a check failed after that."""
    project.describe({"source": REJECTING, "key": "[id]"})
    project.write("raw/2013/01/01/10.jsonl", json_lines([row(HOUR, 1), row(HOUR, 1), {}]))
    with pytest.raises(CheckFailedError):
        project.run()
    assert [name for name in project.files("_lakehouse") if "rejects" in name] == []

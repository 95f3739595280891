"""The flights example on a real S3 server and a real REST catalog, as the demo runs it."""

import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from pyspark.sql import SparkSession

from lakehouse_pipeline.config.lakehouse import Lakehouse, load_lakehouse
from lakehouse_pipeline.demo.landing import land, raw_files
from lakehouse_pipeline.demo.project import init_project
from lakehouse_pipeline.demo.run import LAKEHOUSE_YAML, delay_by_carrier
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.errors import ConfigurationError, SafetyError
from lakehouse_pipeline.hours import parse_range
from lakehouse_pipeline.iceberg.hourly import store_of
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.orchestration.assets import build_defs
from tests.projects import strays

HOURS = parse_range("2013-01-01-09:00...2013-01-01-11:00")  # the first has no flights
KEY = re.compile(
    r"s3://lake/lake/flights/data/[01]{4}/[01]{4}/[01]{4}/[01]{8}/time_hour_hour=2013-01-01-1[01]/"
    r"00000-[0-9A-Z]{26}-0-0\.parquet"
)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def lakehouse(tmp_path: Path, seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lakehouse]:
    """Make the demo's folder, with the session's server in place of its own."""
    init_project(tmp_path / "flights", "flights", raw="s3://raw")
    file = tmp_path / "flights" / "lakehouse.yaml"
    # Spark's workers have the environment that the test run's JVM was started with: the keys travel with the tasks.
    keys = "  s3.access-key-id: ${AWS_ACCESS_KEY_ID}\n  s3.secret-access-key: ${AWS_SECRET_ACCESS_KEY}\n"
    file.write_text(LAKEHOUSE_YAML.replace("engine:", f"{keys}engine:"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.secret_access_key)
    environment = {
        "AWS_ACCESS_KEY_ID": seaweed.access_key_id,
        "AWS_SECRET_ACCESS_KEY": seaweed.secret_access_key,
        "S3_ENDPOINT": seaweed.endpoint,
        "CATALOG_URI": seaweed.catalog_uri,
    }
    return iter([load_lakehouse(file, environment)])


def materialize(lakehouse: Lakehouse, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """Run the hours in one Dagster run."""
    tags = {
        "dagster/asset_partition_range_start": HOURS.first.key,
        "dagster/asset_partition_range_end": HOURS.last.key,
    }
    job = build_defs(lakehouse).resolve_job_def("flights_job")
    return job.execute_in_process(instance=instance, tags=tags)


def test_the_demo_from_raw_files_to_a_query(
    lakehouse: Iterator[Lakehouse], spark: SparkSession, seaweed: SeaweedServer
) -> None:
    """Flights land, three hours are committed at entropy keys, a query answers, and a second run skips them all."""
    (house,) = lakehouse
    landed = land(store_of(house.catalog), "s3://raw", HOURS)
    assert (landed.files, landed.kept) == (7, 0)  # two hours of flights, three of weather, two dimensions
    assert land(store_of(house.catalog), "s3://raw", HOURS).files == 0
    with dg.instance_for_test() as instance:
        assert materialize(house, instance).success
        table = Warehouse.open(house.catalog).table(house.spec("flights"))
        assert table is not None
        files = [file for hour in HOURS for file in table.live(hour)]
        assert [file.rows for file in files] == [6, 52]
        assert all(KEY.fullmatch(file.path) for file in files)
        rows = table.rows(["carrier", "carrier_name", "dep_delay", "temp", "model"])
        assert rows.num_rows == 58
        assert rows.column("temp").null_count == 0
        delays = {row["carrier"]: row["minutes"] for row in delay_by_carrier(rows).to_pylist()}
        assert list(delays.values()) == sorted(delays.values())
        assert "UA" in delays
        assert strays(table) == set()
        result = materialize(house, instance)
        steps = [event.materialization.metadata["step"].value for event in result.get_asset_materialization_events()]
        assert steps == ["skip"] * 3
        for event in instance.all_logs(result.run_id):
            assert seaweed.secret_access_key not in str(event)
    assert seaweed.secret_access_key not in str(spark.sparkContext.getConf().getAll())


def test_raw_files_are_the_same_every_time() -> None:
    """Names and bytes are a function of the hours: landing twice writes nothing new."""
    first, second = ({name: make() for name, make in raw_files(HOURS)} for _ in range(2))
    assert first == second
    assert "flights/2013/01/01/10.jsonl.gz" in first
    assert "flights/2013/01/01/09.jsonl.gz" not in first


def test_what_is_there_stays(tmp_path: Path) -> None:
    """Landing leaves existing objects alone: overwriting them would make every hour run again."""
    files, raw = LakehouseFileIO({}), f"file://{tmp_path}"
    land(files, raw, HOURS)
    files.put(f"{raw}/flights/2013/01/01/10.jsonl.gz", b"mine")
    assert land(files, raw, HOURS).files == 0
    assert files.get(f"{raw}/flights/2013/01/01/10.jsonl.gz").body == b"mine"


def test_a_project_folder_loads(tmp_path: Path) -> None:
    """What `lakehouse init --example flights` writes is a lakehouse without problems."""
    init_project(tmp_path, "flights")
    assert [spec.name for spec in load_lakehouse(tmp_path / "lakehouse.yaml", {}).specs] == ["flights"]


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    """Nothing is written where one of the files exists."""
    (tmp_path / "lakehouse.yaml").write_text("mine")
    with pytest.raises(SafetyError, match="nothing was written"):
        init_project(tmp_path, "flights")
    assert [path.name for path in tmp_path.iterdir()] == ["lakehouse.yaml"]


def test_an_unknown_example_is_refused(tmp_path: Path) -> None:
    """The message names those that there are."""
    with pytest.raises(ConfigurationError, match="there is: flights"):
        init_project(tmp_path, "trains")


@pytest.mark.parametrize("name", ["dagster.yaml", "workspace.yaml"])
def test_this_folder_is_set_up_as_a_project_is(name: str) -> None:
    """The top-level files and those that `init` copies are the same."""
    example = ROOT / "lakehouse_pipeline" / "demo" / "flights"
    assert (ROOT / name).read_text() == (example / name).read_text()

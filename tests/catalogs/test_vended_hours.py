"""Hours outlive their credentials: a catalog vends those of three seconds, and S3 refuses them from then on."""

import json
import logging
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyspark.sql import SparkSession

from lakehouse_pipeline.cli.main import main
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from tests.catalogs.vending import LIFE_S, ROLES, VendingProxy, VendingSeaweed
from tests.iceberg.lake import TEN, Lake, events, in_bucket, sealed_by
from tests.projects import HOUR, Project, row
from tests.security.written import files_below, holding, objects_in

GIVE_UP_S = 60.0
SLOW = """\
import time


def slowly(source):
    def later(batches):
        time.sleep({seconds})  # the work of a task that its credentials do not outlive
        yield from batches

    return source.mapInArrow(later, source.schema)
"""


@pytest.fixture(scope="module")
def vending_seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VendingSeaweed]:
    """Run SeaweedFS with roles."""
    with VendingSeaweed(tmp_path_factory.mktemp("vending")) as server:
        yield server


@pytest.fixture
def proxy(vending_seaweed: VendingSeaweed) -> Iterator[VendingProxy]:
    """Run a catalog that vends and renews."""
    running = VendingProxy(vending_seaweed)
    yield running
    running.stop()


def test_an_attempt_outlasts_its_credentials(proxy: VendingProxy) -> None:
    """Written for three lifetimes, sealed and committed through one loaded table: renewed every time."""
    lake = Lake.create(open_catalog(proxy.properties()))
    written: list[int] = []

    def batches() -> Iterator[pa.RecordBatch]:
        before, until = proxy.renewals, time.monotonic() + GIVE_UP_S
        while proxy.renewals < before + 3 and time.monotonic() < until:
            lake_files.put(f"{location}/data/{uuid.uuid4().hex}", b"x")
            written.append(len(written))
        yield in_bucket(0, events(TEN, written[:100]))

    lake_files, location = lake.now.files, lake.now.location
    lake.replace(sealed_by(lake, TEN, batches()))
    assert proxy.renewals >= 3
    assert lake.rows() == {TEN.key: written[:100]}


def test_without_an_endpoint_they_end(proxy: VendingProxy) -> None:
    """The server does refuse: credentials that nobody renews stop working, and the message says why."""
    proxy.names_endpoint = False
    lake = Lake.create(open_catalog(proxy.properties()))
    url, until = f"{lake.now.location}/data/x", time.monotonic() + GIVE_UP_S

    done: list[str] = []

    def put_until_refused() -> None:
        files = lake.now.files
        while time.monotonic() < until:
            files.put(url, b"x")
            done.append(url)

    while not done:  # a busy machine may take longer than they live before it uses them
        with pytest.raises(ConfigurationError, match="check the credentials"):
            put_until_refused()
    assert proxy.renewals == 0


def test_an_hour_on_spark_outlasts_its_credentials(proxy: VendingProxy, project: Project) -> None:
    """Driver and tasks: each task's credentials have expired before its first write, the driver's before the seal."""
    project.write("lakehouse.yaml", f"catalog: {json.dumps(proxy.properties())}\nengine: local[2]\n")
    project.write("tables/t_slow.py", SLOW.format(seconds=LIFE_S + 1))
    table, columns = f"n{uuid.uuid4().hex[:8]}.events", "{at: timestamptz!, id: long!, size: double}"
    project.describe({"table": table, "transform": "t_slow:slowly", "columns": columns})
    project.land(HOUR, [row(HOUR, number) for number in range(10)])
    assert project.run().seal.rows == 10
    assert project.ids() == list(range(10))
    assert proxy.renewals >= 2


def test_what_is_lent_is_written_nowhere(
    proxy: VendingProxy,
    vending_seaweed: VendingSeaweed,
    project: Project,
    sail: SparkSession,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither by a command, from DEBUG on, nor into the project's folder, nor beside the table's own files."""
    project.write("dagster.yaml", (Path(__file__).parents[2] / "dagster.yaml").read_text())
    project.write("lakehouse.yaml", f"catalog: {json.dumps(proxy.properties())}\nengine: sail\n")
    project.describe({"table": f"n{uuid.uuid4().hex[:8]}.events"})
    project.land(HOUR, [row(HOUR, number) for number in range(10)])
    caplog.set_level(logging.DEBUG, "lakehouse_pipeline")
    said = {}
    for command in (("backfill", "events", HOUR), ("compact", "events"), ("status", "events", "--json")):
        done = CliRunner().invoke(main, [*command, "-c", str(project.folder)])
        assert done.exit_code == 0, done.output
        said[command[0]] = f"{done.output}\n{done.stderr}".encode()
    said["log"] = caplog.text.encode()
    files = LakehouseFileIO(vending_seaweed.s3_properties())
    places = {**said, **files_below(project.folder), **objects_in(files, [vending_seaweed.table_bucket])}
    assert len(proxy.lent) > 2
    assert holding({secret: secret for secret in proxy.lent}, places) == set()


def test_a_role_is_taken_on(vending_seaweed: VendingSeaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    """`s3.role-arn` with keys of a user: a real STS lends the role, and its session signs the requests."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", vending_seaweed.endpoint)
    file_io = LakehouseFileIO({**vending_seaweed.s3_properties(), "s3.role-arn": ROLES["user"]})
    file_io.put("s3://raw/x", b"body")
    assert file_io.get("s3://raw/x").body == b"body"
    stranger = LakehouseFileIO({**vending_seaweed.s3_properties(), "s3.role-arn": "arn:aws:iam::role/Nobody"})
    with pytest.raises(ConfigurationError, match="not authorized to assume role"):
        stranger.get("s3://raw/x")

"""What there is to do about a table as a whole: each planted fault is shown, with who does something about it."""

import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from pyiceberg.catalog import Catalog

from lakehouse_pipeline.config.health import HealthSettings
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.maintenance.audit import SweepRules
from lakehouse_pipeline.maintenance.lease import maintaining
from lakehouse_pipeline.maintenance.sweep import audit_table, sweep
from lakehouse_pipeline.status.health import OF_WHOLE, REMEDIES, examine, finding_line, health_of_whole
from lakehouse_pipeline.status.upkeep import LEAKED_AFTER, Upkeep, measure
from tests.iceberg.conftest import catalog, lake
from tests.iceberg.lake import ELEVEN, EVENTS, TEN, Lake, events, spec_of

__all__ = ["catalog", "lake"]

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FINE = Upkeep(100, 0, 0.0, 3, 5, None, 0, 0)


def the_spec(table: str = "lake.events") -> TableSpec:
    """Give the table's spec."""
    return spec_of(EVENTS, {"table": table})


@pytest.mark.parametrize(
    ("check", "broken"),
    [
        ("small_files", replace(FINE, small=51)),
        ("delete_ratio", replace(FINE, delete_ratio=0.11)),
        ("manifests", replace(FINE, manifests=1001)),
        ("snapshots", replace(FINE, snapshots=1001)),
        ("quarantine_bytes", replace(FINE, quarantine_bytes=10**11 + 1)),
        ("open_uploads", replace(FINE, uploads=1)),
    ],
)
def test_a_broken_threshold_says_what_will_be_done(check: str, broken: Upkeep) -> None:
    """And nothing else is broken by it; where all is well nothing has to be done."""
    findings = {each.check: each for each in health_of_whole(the_spec(), HealthSettings(), broken)}
    assert tuple(findings) == OF_WHOLE
    assert [name for name, each in findings.items() if not each.passed] == [check]
    assert findings[check].then == REMEDIES[check].format(the_spec().name)
    assert "then: " in finding_line(findings[check])
    for each in health_of_whole(the_spec(), HealthSettings(), FINE):
        assert (each.passed, each.then) == (True, "")


def measured(lake: Lake) -> Upkeep:
    """Measure the table."""
    return measure(the_spec(lake.identifier), lake.now, datetime.now(UTC))


def test_small_files_are_those_that_compaction_could_take(lake: Lake) -> None:
    """Five in an hour; an hour's only file is as large as it can be."""
    lake.put(TEN, [1])
    assert (measured(lake).files, measured(lake).small) == (1, 0)
    for number in range(5):
        lake.append(events(ELEVEN, [number]))
    assert (measured(lake).files, measured(lake).small) == (6, 5)
    found = measured(lake)
    assert (found.manifests, found.snapshots, found.delete_ratio) == (6, 6, 0.0)


def test_orphans_that_were_found_and_those_that_were_moved(lake: Lake) -> None:
    """The last audit is remembered; what a sweep has moved is in the quarantine, and no orphan any more."""
    lake.put(TEN, [1])
    path = Path(f"{lake.now.location}/data/x.parquet".removeprefix("file://"))
    path.write_bytes(b"orphan")
    os.utime(path, (time.time() - 7 * 24 * 3600,) * 2)
    assert measured(lake).audit is None
    spec, rules, table = the_spec(lake.identifier), SweepRules(timedelta(days=3)), lake.now
    warehouse = Warehouse(lake.catalog, table.files)
    with maintaining(table, "sweep", "x") as held:
        audit_table(warehouse, spec, table, rules, held)
    settings = HealthSettings(swept_bytes="5 KB", quarantine_bytes="5 KB")
    found = measured(lake)
    assert found.audit is not None
    assert (found.audit.orphans, found.audit.orphan_bytes) == (1, 6)
    exact = settings.model_copy(update={"swept_bytes": 5, "quarantine_bytes": 5})
    assert [each.check for each in health_of_whole(spec, exact, found) if not each.passed] == ["swept_bytes"]
    with maintaining(table, "sweep", "x") as held:
        sweep(warehouse, spec, table, rules, held, delete=False)
    found = measured(lake)
    assert found.audit is not None
    assert (found.audit.orphan_bytes, found.quarantine_bytes) == (0, 6)
    assert [each.check for each in health_of_whole(spec, exact, found) if not each.passed] == ["quarantine_bytes"]


@pytest.fixture
def s3_catalog(seaweed: SeaweedServer, tmp_path: Path) -> Iterator[Catalog]:
    """Give a SQL catalog of tables in a bucket."""
    place = {"type": "sql", "uri": f"sqlite:///{tmp_path}/s3.db", "warehouse": f"s3://plain/{uuid.uuid4().hex}"}
    opened = open_catalog({**place, **seaweed.s3_properties()})
    yield opened
    opened.close()


def test_uploads_that_are_open_for_long(s3_catalog: Catalog, seaweed: SeaweedServer) -> None:
    """One that was begun just now is somebody's."""
    place = f"s3://plain/{uuid.uuid4().hex}/elsewhere"
    lake = Lake.create(s3_catalog, properties={"write.data.path": place})
    lake.put(TEN, [1])
    client = boto3.client(
        "s3",
        endpoint_url=seaweed.endpoint,
        region_name="us-east-1",
        aws_access_key_id=seaweed.access_key_id,
        aws_secret_access_key=seaweed.secret_access_key,
    )
    key = f"{place.removeprefix('s3://plain/')}/x.parquet"
    client.create_multipart_upload(Bucket="plain", Key=key)
    assert measured(lake).uploads == 0
    tomorrow = datetime.now(UTC) + LEAKED_AFTER + timedelta(minutes=1)
    assert measure(the_spec(lake.identifier), lake.now, tomorrow).uploads == 1


def test_what_cannot_be_measured_is_broken(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says why, and the other checks go on."""
    lake.put(TEN, [1])

    def gone(*_: object) -> Upkeep:
        raise FileNotFoundError("a manifest is gone")

    monkeypatch.setattr("lakehouse_pipeline.status.health.measure", gone)
    _, findings = examine(the_spec(lake.identifier), HealthSettings(), lake.now)
    assert [each.check for each in findings if not each.passed] == list(OF_WHOLE)
    assert findings[-1].said == "cannot be measured: FileNotFoundError: a manifest is gone"

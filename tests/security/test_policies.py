"""The least-privilege policies of docs/policies: what each role needs, no more; on a server that enforces them."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.config.health import HealthSettings
from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.demo.seaweed import REGION, SeaweedServer
from lakehouse_pipeline.errors import ConfigurationError, DataError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.maintenance import expiry, manifests
from lakehouse_pipeline.maintenance.audit import SweepRules
from lakehouse_pipeline.maintenance.compaction import compact, look
from lakehouse_pipeline.maintenance.lease import maintaining
from lakehouse_pipeline.maintenance.sweep import purge, restore, sweep
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.status.health import examine
from lakehouse_pipeline.testing.faults import FaultServer
from tests.backfill.hands import opened
from tests.iceberg.lake import Lake, events
from tests.projects import HOUR, NEXT, SPEC, THIRD, Project, json_lines, row

POLICIES = Path(__file__).parents[2] / "docs" / "policies"
ROLES = ("writer", "maintainer", "reader")
TABLES, RAW = "plain", "raw"  # buckets
PREFIX, LANDED = "lakehouse", "landed"
KEYS = {"admin": "admin-secret", **{role: f"{role}-secret" for role in ROLES}}
DAY = timedelta(days=1)

Sent = Mapping[str, set[tuple[str, str]]]  # by role: rights, each with its bucket

# By S3's operation the right that it asks for (AWS, "Actions, resources, and condition keys for Amazon S3").
RIGHTS = {
    "HeadObject": "s3:GetObject",
    "GetObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CopyObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "UploadPartCopy": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "GetBucketVersioning": "s3:GetBucketVersioning",
}


def policy(role: str) -> Mapping[str, Any]:
    """Read a role's document, for the buckets and folders of these tests."""
    text = (POLICIES / f"{role}.json").read_text(encoding="utf-8")
    places = {"TABLE_BUCKET": TABLES, "TABLE_PREFIX": PREFIX, "RAW_BUCKET": RAW, "RAW_PREFIX": LANDED}
    for name, value in places.items():
        text = text.replace(name, value)
    found: Mapping[str, Any] = json.loads(text)
    return found


def allowed(role: str) -> set[tuple[str, str]]:
    """Name the rights that a document gives, each with its bucket."""
    return {
        (action, statement["Resource"].rpartition(":")[2].partition("/")[0])
        for statement in policy(role)["Statement"]
        for action in statement["Action"]
    }


class Guarded(SeaweedServer):
    """The server, with the roles' policies."""

    def _arguments(self) -> list[str]:
        named = [{"name": role, "content": json.dumps(policy(role))} for role in ROLES]
        told = [
            {"name": name, "credentials": [{"accessKey": name, "secretKey": secret}], "policyNames": [name]}
            for name, secret in KEYS.items()
        ]
        told[0] |= {"policyNames": [], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        file = self._data_dir / "s3.json"
        file.write_text(json.dumps({"identities": told, "policies": named}))
        return [*super()._arguments(), f"-s3.config={file}"]


@dataclass(frozen=True)
class Role:
    """Who asks for what.

    Attributes:
        name: of the role.
        endpoint: of the store.
        folder: of the catalog, which all roles share.
    """

    name: str
    endpoint: str
    folder: Path

    @property
    def properties(self) -> dict[str, str]:
        """The catalog's."""
        return {
            "type": "sql",
            "uri": f"sqlite:///{self.folder}/catalog.db",
            "warehouse": f"s3://{TABLES}/{PREFIX}",
            "s3.endpoint": self.endpoint,
            "s3.region": REGION,
            "s3.access-key-id": self.name,
            "s3.secret-access-key": KEYS[self.name],
        }

    @property
    def files(self) -> LakehouseFileIO:
        """The store."""
        return LakehouseFileIO({key: value for key, value in self.properties.items() if key.startswith("s3.")})

    @property
    def project(self) -> Project:
        """The project with the role's keys."""
        made = Project(self.folder, lambda: None)  # type: ignore[arg-type, return-value]  # who runs hours gives one
        made.write("lakehouse.yaml", f"catalog: {json.dumps(self.properties)}\nengine: sail\n")
        source = SPEC["source"].replace("raw/", f"s3://{RAW}/{LANDED}/")
        made.describe({"source": source, "compact": "{min_input_files: 2}"})
        return made

    @property
    def lake(self) -> Lake:
        """The table."""
        return Lake(self.project.catalog, "lake.events")

    def upload(self, name: str) -> None:
        """Begin an upload below the table's location that nobody goes on with."""
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.name,
            aws_secret_access_key=KEYS[self.name],
        )
        key = f"{self.lake.now.location.removeprefix(f's3://{TABLES}/')}/data/{name}"
        client.create_multipart_upload(Bucket=TABLES, Key=key)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    """Run a store that enforces the policies."""
    folder = tmp_path_factory.mktemp("guarded")
    keys = {"access_key_id": "admin", "secret_access_key": KEYS["admin"]}
    with Guarded(folder, buckets=(RAW, TABLES), **keys) as started:
        yield started


@pytest.fixture(scope="module")
def sent(
    server: SeaweedServer, sail: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, set[tuple[str, str]]]:
    """Let each role do its work; gives the rights that it asked for, each with its bucket."""
    folder = tmp_path_factory.mktemp("project")
    admin, found = Role("admin", server.endpoint, folder).files, {}
    for hour, body in ((HOUR, json_lines([row(HOUR, 1)])), (NEXT, json_lines([row(NEXT, 2)])), (THIRD, b"{")):
        admin.put(f"s3://{RAW}/{LANDED}/2013/01/01/{hour[11:13]}.jsonl", body)
    for name, works in (("writer", writes), ("maintainer", maintains), ("reader", reads)):
        with FaultServer(server.endpoint) as proxy:
            works(Role(name, proxy.endpoint, folder), sail)
            verbs = {(RIGHTS[each.verb], each.path.split("/")[1].partition("?")[0]) for each in proxy.exchanges}
            refused = [f"{each.verb} {each.path}" for each in proxy.exchanges if each.status == 403]
            assert refused == []
            found[name] = verbs
    return found


def writes(role: Role, sail: SparkSession) -> None:
    """Backfill hours, one anew and one of bad rows; close what a killed run left, a begun upload included."""
    project = replace(role.project, session=lambda: sail)
    project.run(HOUR)
    project.run(NEXT)
    project.run(HOUR, force=True)
    with pytest.raises(DataError):
        project.run(THIRD)
    assert project.ids() == [1, 2]
    left = opened(role.lake, HourWindow.from_key(THIRD), "killed")
    role.upload(f"00000-{left.attempt.id}-0-0.parquet")
    close_attempts(project.table, lambda _run: True, grace=timedelta(0))
    assert list(project.table.files.list_uploads(f"{project.table.location}/")) == []
    columns = project.table.arrow_schema
    for number in (3, 4):
        batch = events(HourWindow.from_key(NEXT), [number]).select(["at", "id"])
        role.lake.now.table.append(_as(batch, columns))


def _as(batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    return pa.Table.from_batches([batch]).append_column("size", pa.array([1.0])).cast(schema)


def maintains(role: Role, _: SparkSession) -> None:
    """Compact, rewrite manifests, expire, sweep, put back, sweep for good, purge."""
    project = role.project
    spec, warehouse, table = project.lakehouse.spec("events"), project.warehouse, project.table
    plan = look(MaintenanceSettings(), spec, table)
    assert [each.committed is not None for each in compact(warehouse, spec, plan, "maintainer")] == [True]
    with maintaining(project.table, "manifests", "maintainer") as held:
        manifests.rewrite_manifests(project.table, manifests.look(project.table), held)
    with maintaining(project.table, "expiry", "maintainer") as held:
        expired = expiry.run_expiry(project.table, expiry.look(project.table, None, datetime.now(UTC) + 6 * DAY), held)
    assert expired.files.removed
    rules = SweepRules(older_than=3 * DAY, moment=datetime.now(UTC) + 4 * DAY)
    project.table.files.put(f"{table.location}/data/orphan.parquet", b"orphan")
    role.upload("orphan.parquet")
    with maintaining(project.table, "sweep", "maintainer") as held:
        done = sweep(warehouse, spec, project.table, rules, held, delete=False)
        assert (done.files, done.uploads) == (1, 1)
        assert restore(project.table, done.sweep, held).files == 1
        assert sweep(warehouse, spec, project.table, rules, held, delete=True).files == 1
        assert purge(project.table, timedelta(0), held).sweeps
    assert project.ids() == [1, 2, 3, 4]


def reads(role: Role, _: SparkSession) -> None:
    """Read the table, its hours' states and its health."""
    project = role.project
    assert project.ids() == [1, 2, 3, 4]
    status, findings = examine(project.lakehouse.spec("events"), HealthSettings(), project.table)
    assert status.hours
    assert findings


@pytest.mark.parametrize("role", ROLES)
def test_a_role_does_its_work_with_the_rights_of_its_policy(
    sent: Mapping[str, set[tuple[str, str]]], role: str
) -> None:
    """It sends nothing that the document does not allow, and the document allows nothing that it does not send."""
    assert sent[role] == allowed(role)


INSIDE, TWIN, ELSEWHERE = (f"s3://{TABLES}/{name}/x" for name in (PREFIX, f"{PREFIX}_v2", "other"))
LANDED_FILE = f"s3://{RAW}/{LANDED}/2013/01/01/10.jsonl"
DEEDS: Mapping[str, Callable[[LakehouseFileIO, str], object]] = {
    "put": lambda files, url: files.put(url, b"x"),
    "get": lambda files, url: files.get(url),
    "delete": lambda files, url: files.delete(url),
    "delete many": lambda files, url: files.delete_objects([url]),
    "list": lambda files, url: list(files.list_objects(f"{url.rpartition('/')[0]}/")),
    "copy there": lambda files, url: files.copy(INSIDE, f"{url}-copy"),
}
REFUSED = [
    *((role, deed, url) for role in ROLES for deed in DEEDS for url in (TWIN, ELSEWHERE)),
    *(("writer", deed, LANDED_FILE) for deed in ("put", "delete", "delete many", "copy there")),
    *((role, deed, LANDED_FILE) for role in ("maintainer", "reader") for deed in DEEDS),
    *(("reader", deed, INSIDE) for deed in ("put", "delete", "delete many", "copy there")),
]


@pytest.fixture(scope="module")
def places(server: SeaweedServer) -> tuple[str, ...]:
    """Put an object everywhere."""
    admin = Role("admin", server.endpoint, Path()).files
    for url in (INSIDE, TWIN, ELSEWHERE, LANDED_FILE):
        admin.put(url, b"there")
    return (INSIDE, TWIN, ELSEWHERE, LANDED_FILE)


@pytest.mark.parametrize(("role", "deed", "url"), REFUSED)
def test_nothing_else_is_allowed(
    server: SeaweedServer, places: tuple[str, ...], role: str, deed: str, url: str
) -> None:
    """Not beside the table's folder, nor in one whose name begins with its name, nor among the raw files."""
    with pytest.raises(ConfigurationError, match=r"AccessDenied|403"):
        DEEDS[deed](Role(role, server.endpoint, Path()).files, url)
    admin = Role("admin", server.endpoint, Path()).files
    assert all(admin.head(each) for each in places)

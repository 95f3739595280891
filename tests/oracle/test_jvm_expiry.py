"""The JVM's `expire_snapshots` and ours, of the same folder: the same snapshots, refs and files are left."""

import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog

from lakehouse_pipeline.maintenance.expiry import look, run_expiry
from lakehouse_pipeline.maintenance.lease import maintaining
from tests.iceberg.lake import ELEVEN, TEN, Lake, events
from tests.oracle.jvm import Jvm

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(1200)]  # the first test may have to install Spark

DAY_MS = 24 * 3600 * 1000
SNAPSHOTS = 9
ALL_YOUNG = {"max-snapshot-age-ms": str(100 * DAY_MS)}


@dataclass(frozen=True)
class Left:
    """What an expiry leaves.

    Attributes:
        snapshots: their ids.
        refs: what branches and tags stand on.
        files: of the data and metadata folders, without what each catalog names in its own way: metadata files, the
            Hadoop catalog's hint of the newest one, and its file system's checksums. (The JVM's expiry removes no
            metadata file; ours removes those that fell out of the log meanwhile.)
    """

    snapshots: set[int]
    refs: Mapping[str, int]
    files: set[str]


@pytest.mark.parametrize(
    "properties",
    [
        pytest.param({}, id="iceberg's own"),
        pytest.param({"max-snapshot-age-ms": "0"}, id="no age"),
        pytest.param({"max-snapshot-age-ms": str(int(2.5 * DAY_MS)), "min-snapshots-to-keep": "2"}, id="the last two"),
        pytest.param({"max-ref-age-ms": str(int(4.5 * DAY_MS))}, id="old refs"),
        pytest.param(ALL_YOUNG, id="all young"),
    ],
)
@pytest.mark.parametrize("main", [{}, {"min-snapshots-to-keep": 2, "max-snapshot-age-ms": DAY_MS}], ids=["", "main's"])
def test_the_same_is_left(
    jvm: Jvm, local_catalog: Catalog, tmp_path: Path, properties: dict[str, str], main: dict[str, int]
) -> None:
    """With branches and tags that have ages of their own, one that is of no line any more, and files of every kind."""
    lake = made(local_catalog, properties)
    folder = Path(lake.now.location.removeprefix("file://"))
    age(lake, main)
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept)

    plan = look(lake.now, None, datetime.now(UTC))
    with maintaining(lake.now, "expiry", "ours") as held:
        run_expiry(lake.now, plan, held)
    metadata = lake.now.table.metadata
    ours = Left(
        {each.snapshot_id for each in metadata.snapshots},
        {name: ref.snapshot_id for name, ref in metadata.refs.items()},
        files_in(folder),
    )
    rows = sorted(number for hour in lake.rows().values() for number in hour)
    assert lake.missing() == set()
    assert lake.unreached() == set()

    current = Path(plan.history.metadata_url.removeprefix("file://")).name
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)
    shutil.copy(folder / "metadata" / current, folder / "metadata" / "v1.metadata.json")
    (folder / "metadata" / "version-hint.text").write_text("1")
    catalog = f"c{uuid.uuid4().hex[:8]}"
    jvm.sql(f"SET spark.sql.catalog.{catalog}=org.apache.iceberg.spark.SparkCatalog")
    jvm.sql(f"SET spark.sql.catalog.{catalog}.type=hadoop")
    jvm.sql(f"SET spark.sql.catalog.{catalog}.warehouse=file://{folder.parents[1]}")
    (counts,) = jvm.sql(f"CALL {catalog}.system.expire_snapshots(table => '{lake.identifier}')")
    newest = max((folder / "metadata").glob("v*.metadata.json"), key=lambda file: int(file.name[1:].split(".")[0]))
    told = json.loads(newest.read_text())
    theirs = Left(
        {each["snapshot-id"] for each in told["snapshots"]},
        {name: ref["snapshot-id"] for name, ref in told["refs"].items()},
        files_in(folder),
    )
    assert ours == theirs
    assert [each["id"] for each in jvm.sql(f"SELECT id FROM {catalog}.{lake.identifier} ORDER BY id")] == rows
    assert bool(counts["deleted_manifest_lists_count"]) == bool(plan.retention.expired)
    assert plan.retention.expired or properties == ALL_YOUNG


def made(catalog: Catalog, properties: dict[str, str]) -> Lake:
    """Make a table of several lines, and of refs of every kind."""
    lake = Lake.create(catalog, properties={f"history.expire.{name}": said for name, said in properties.items()})
    for number in range(SNAPSHOTS - 4):
        lake.put(TEN, [number, number + 10])
        if number == 1:
            branch(lake, "short", max_ref_age_ms=3 * DAY_MS)
            branch(lake, "long", min_snapshots_to_keep=2, max_snapshot_age_ms=DAY_MS)
    lake.append(events(ELEVEN, [70]), branch="long")
    lake.append(events(ELEVEN, [71]), branch="long")
    lake.append(events(ELEVEN, [72]), branch="short")
    first, _, third, *_ = lake.now.table.metadata.snapshots
    lake.now.table.manage_snapshots().create_tag(first.snapshot_id, "ever").commit()
    lake.now.table.manage_snapshots().create_tag(third.snapshot_id, "once", max_ref_age_ms=DAY_MS).commit()
    lake.put(TEN, [50])
    before = lake.now.head
    assert before is not None
    lake.append(events(ELEVEN, [73]))
    lake.now.table.manage_snapshots().rollback_to_snapshot(before).commit()
    assert len(lake.now.table.metadata.snapshots) == SNAPSHOTS + 1
    return lake


def branch(lake: Lake, name: str, **told: int) -> None:
    """Begin a branch where `main` is."""
    head = lake.now.head
    assert head is not None
    lake.now.table.manage_snapshots().create_branch(head, name, **told).commit()


def age(lake: Lake, main: dict[str, int]) -> None:
    """Make the table's snapshots a day older each, and give `main` what it says of its own."""
    file = Path(lake.now.metadata_url.removeprefix("file://"))
    told: dict[str, Any] = json.loads(file.read_text())
    now = datetime.now(UTC) - timedelta(hours=1)
    times = {}
    for days, snapshot in enumerate(reversed(told["snapshots"])):
        snapshot["timestamp-ms"] = times[snapshot["snapshot-id"]] = int(now.timestamp() * 1000) - days * DAY_MS
    newest = 0
    for entry in told["snapshot-log"]:  # goes forward, though `main` went back
        newest = entry["timestamp-ms"] = max(newest, times[entry["snapshot-id"]])
    told["refs"]["main"] |= main
    file.write_text(json.dumps(told))


def files_in(folder: Path) -> set[str]:
    """Name the files of a table, but those that `Left` leaves out."""
    found = {file for name in ("data", "metadata") for file in (folder / name).rglob("*") if file.is_file()}
    own = (".metadata.json", ".crc", "version-hint.text")
    return {str(file.relative_to(folder)) for file in found if not file.name.endswith(own)}

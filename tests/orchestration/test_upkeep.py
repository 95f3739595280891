"""Sweeps, expiry, manifest rewrites and purges in Dagster: asked for, reported first, done, and one at a time."""

import json
import os
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lakehouse_pipeline import events
from lakehouse_pipeline.maintenance.lease import MAINTENANCE, maintaining
from lakehouse_pipeline.orchestration.upkeep import CHORES
from tests.projects import HOUR, NEXT, Project, row

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine

WEEK_S = 7 * 24 * 3600
REMOVING = [chore.name for chore in CHORES if chore.removes]


@pytest.fixture
def instance() -> Any:
    """Give a history of runs in memory."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def project(project: Project) -> Project:
    """Give a table with something to do for each chore, of snapshots and orphans that are old at once."""
    project.write("lakehouse.yaml", (project.folder / "lakehouse.yaml").read_text() + MAINTENANCE_OF_TESTS)
    project.describe({"properties": '{history.expire.max-snapshot-age-ms: "1"}'})
    project.land(HOUR, [row(HOUR, 1)])
    project.run(HOUR)
    project.land(NEXT, [row(NEXT, 2)])
    project.run(NEXT)
    project.land(HOUR, [row(HOUR, 3)])
    project.run(HOUR)
    orphan(project)
    return project


MAINTENANCE_OF_TESTS = "\nmaintenance: {quarantine_keep: 1min, sweep_max_share: 90%}\n"


def orphan(project: Project) -> Path:
    """Give a file that nobody knows of, written a week ago."""
    path = Path(f"{project.table.location}/data/orphan.parquet".removeprefix("file://"))
    if not path.exists():
        path.write_bytes(b"orphan")
        os.utime(path, (time.time() - WEEK_S,) * 2)
    return path


def tick(project: Project, instance: dg.DagsterInstance, chore: str, cursor: str | None = None) -> Any:
    """Let a sensor look."""
    definitions = project.definitions()
    context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=definitions)
    return definitions.resolve_sensor_def(f"events_{chore}_watch").evaluate_tick(context)


def run(project: Project, instance: dg.DagsterInstance, chore: str, *, dry_run: bool = False) -> dict[str, Any]:
    """Materialize a chore's asset; gives what it told."""
    definitions, name = project.definitions(), f"events_{chore}"
    assets = [asset for asset in definitions.assets or () if isinstance(asset, dg.AssetsDefinition)]
    config = {"ops": {name: {"config": {"dry_run": dry_run}}}} if chore != "compaction" else {}
    done = dg.materialize(assets, instance=instance, selection=name, resources=definitions.resources, run_config=config)
    (told,) = done.asset_materializations_for_node(name)
    return {key: value.value for key, value in told.metadata.items()}


def there(project: Project) -> set[str]:
    """Name all files of the table but the ledger's."""
    found = project.table.files.list_objects(f"{project.table.location}/")
    return {item.url for item in found if "/_lakehouse/" not in item.url}


def by_hand(project: Project, instance: dg.DagsterInstance, chore: str) -> None:
    """Give a chore something to do that only comes after another."""
    if chore == "purge":
        assert run(project, instance, "sweep")["removed_files"] == 1
        for record in Path(project.table.location.removeprefix("file://")).rglob("sweep.json"):
            os.utime(record, (time.time() - WEEK_S,) * 2)


@pytest.mark.parametrize("chore", REMOVING)
def test_the_first_request_is_for_a_report(project: Project, instance: dg.DagsterInstance, chore: str) -> None:
    """Which removes nothing; the next one, when its time has come, does."""
    by_hand(project, instance, chore)
    first = tick(project, instance, chore)
    (request,) = first.run_requests
    assert request.run_config == {"ops": {f"events_{chore}": {"config": {"dry_run": True}}}}
    assert ":report:" in request.run_key
    before, kept = there(project), purgeable(project)
    assert run(project, instance, chore, dry_run=True)["dry_run"] is True
    assert (there(project), purgeable(project)) == (before, kept)
    waits = tick(project, instance, chore, first.cursor)
    assert "asked for at" in waits.skip_message
    cursor = json.dumps({"asked": (datetime.now(UTC) - timedelta(days=2)).isoformat()})
    (again,) = tick(project, instance, chore, cursor).run_requests
    assert again.run_config == {"ops": {f"events_{chore}": {"config": {"dry_run": False}}}}
    assert again.run_key != request.run_key
    run(project, instance, chore)
    assert (there(project), purgeable(project)) != (before, kept)
    assert project.ids() == [2, 3]


def purgeable(project: Project) -> set[str]:
    """Name what is in the quarantine."""
    return {item.url for item in project.table.files.list_objects(f"{project.table.ledger.folder}/quarantine/")}


def test_a_sensor_is_stopped_until_somebody_starts_it(project: Project) -> None:
    """All of those that remove something, or cost anything."""
    definitions = project.definitions()
    for chore in CHORES:
        sensor = definitions.resolve_sensor_def(f"events_{chore.name}_watch")
        assert sensor.default_status == dg.DefaultSensorStatus.STOPPED


def test_a_sweep_tells_what_it_found_and_kept(project: Project, instance: dg.DagsterInstance) -> None:
    """As figures that Dagster's page plots, and the id with which it is undone."""
    told = run(project, instance, "sweep")
    assert (told["orphans"], told["removed_files"], told["removed_bytes"], told["quarantined"]) == (1, 1, 6, True)
    assert told["listed_files"] > 1
    assert re.fullmatch(r"\d+ files, [0-9.]+ KB", told["kept"]["reached"])
    assert len(told["sweep"]) == 26
    assert not Path(f"{project.table.location}/data/orphan.parquet".removeprefix("file://")).exists()
    again = run(project, instance, "sweep")
    assert (again["orphans"], again["sweep"]) == (0, "none")


def test_expiry_tells_what_went(project: Project, instance: dg.DagsterInstance) -> None:
    """Snapshots, and files by kind."""
    told = run(project, instance, "expiry")
    assert told["expired"] == 2
    assert told["removed"]["data"] == 1
    assert len(project.table.table.metadata.snapshots) == 1
    assert "0 snapshots are old enough" in tick(project, instance, "expiry").skip_message


def test_manifests_are_left_alone_where_they_are_well_placed(project: Project, instance: dg.DagsterInstance) -> None:
    """With what was seen; a rewrite leaves nothing to do."""
    request = tick(project, instance, "manifests")
    if request.run_requests:
        run(project, instance, "manifests")
    assert "0 manifests are worth writing anew" in tick(project, instance, "manifests").skip_message
    assert project.ids() == [2, 3]


@pytest.mark.parametrize("chore", [chore.name for chore in CHORES])
def test_who_finds_another_at_work_leaves_it(project: Project, instance: dg.DagsterInstance, chore: str) -> None:
    """The run ends with the reason, and so does the tick."""
    by_hand(project, instance, chore)
    with maintaining(project.table, "compaction", "somebody"):
        assert "run somebody has the maintenance lease (compaction" in run(project, instance, chore)["skipped"]
        assert "run somebody has the maintenance lease" in tick(project, instance, chore).skip_message


def test_a_dead_runs_lease_is_taken_over(project: Project, instance: dg.DagsterInstance) -> None:
    """At once where Dagster knows that it has ended, with a higher epoch."""
    dead = instance.create_run_for_job(dg.job(name="dead")(lambda: None), status=dg.DagsterRunStatus.FAILURE)
    turn = project.table.ledger.turn(MAINTENANCE, f"{dead.run_id}/expiry")
    assert turn.take(lambda _: False, "expiry")
    assert run(project, instance, "sweep")["removed_files"] == 1
    now = project.table.ledger.turn(MAINTENANCE, "").read()
    assert (now.epoch, now.run_id) == (turn.record.epoch + 1, "")


def until_done(project: Project, chore: str) -> dict[str, Any]:
    """Run a chore again until nobody else is at work."""
    with dg.DagsterInstance.ephemeral() as own:
        while "skipped" in (told := run(project, own, chore)):
            time.sleep(0.1)
        return told


def test_chores_that_start_together_are_never_two_at_work(project: Project, instance: dg.DagsterInstance) -> None:
    """Each has an epoch of its own, and ends before the next one begins; who comes second leaves it, and says so."""
    heard: list[tuple[str, int]] = []
    begun = threading.Barrier(3)

    def subscriber(event: events.Event) -> None:
        if event.name in {"maintenance.began", "maintenance.ended"}:
            heard.append((event.name, int(str(event.fields["epoch"]))))
            if event.name == "maintenance.began":
                time.sleep(0.3)  # so that the others come meanwhile

    told: dict[str, dict[str, Any]] = {}

    def start(chore: str) -> None:
        begun.wait()
        told[chore] = until_done(project, chore)

    threads = [threading.Thread(target=start, args=[chore]) for chore in ("sweep", "expiry", "compaction")]
    with events.subscribed(subscriber):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    names, epochs = [name for name, _ in heard], [epoch for _, epoch in heard]
    assert names == ["maintenance.began", "maintenance.ended"] * 3
    assert epochs == sorted(epochs)
    assert len(set(epochs)) == 3
    assert set(told) == {"sweep", "expiry", "compaction"}
    assert told["sweep"]["removed_files"] == 1
    assert told["expiry"]["expired"] == 2
    assert project.ids() == [2, 3]

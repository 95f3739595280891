"""A table's health on Dagster's page: reported by runs, by a sensor, and by whoever materializes it."""

import base64
import threading
import time
from typing import Any

import dagster as dg
import pytest

from lakehouse_pipeline.orchestration import assets
from lakehouse_pipeline.status.drawing import MOST_BYTES
from lakehouse_pipeline.status.health import OF_WHOLE
from tests.orchestration.runs import materialize
from tests.projects import HOUR, NEXT, THIRD, Project, row

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine

WITHIN_S = 60.0  # the machine may be busy
HEALTH = dg.AssetKey("events_health")


@pytest.fixture
def landed(project: Project) -> Project:
    """Give a project of three hours, of which the second has a bad line."""
    for place, hour in enumerate((HOUR, NEXT, THIRD)):
        project.land(hour, [row(hour, place)])
    project.write("raw/2013/01/01/11.jsonl", "{")
    return project


def observations(instance: dg.DagsterInstance) -> list[dict[str, Any]]:
    """Give the metadata of all observations, the last first."""
    found = instance.fetch_observations(HEALTH, limit=100).records
    return [dict(record.asset_observation.metadata) for record in found if record.asset_observation]


def checks(instance: dg.DagsterInstance) -> dict[str, bool]:
    """Give the last evaluation of each check."""
    found = {}
    for name in ("failed_hours", "stalled_hours", "sealed_for", "throttle_share", "orphan_bytes"):
        records = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(HEALTH, name), limit=1)
        for record in records:
            assert record.evaluation is not None
            found[name] = record.evaluation.passed
    return found


def test_a_run_reports_how_it_ended(landed: Project, instance: dg.DagsterInstance) -> None:
    """With a picture that is small enough for Dagster's events, and the check that the failed hour breaks."""
    assert not materialize(landed, instance, HOUR, THIRD).success
    (told,) = observations(instance)
    assert (told["hours_committed"].value, told["hours_failed"].value, told["files"].value) == (2, 1, 2)
    assert told["unfinished"].value == {"failed": [NEXT]}
    drawn = base64.b64decode(told["hours"].value.partition("base64,")[2].partition(")")[0])
    assert drawn.startswith(b"\x89PNG")
    assert len(drawn) <= MOST_BYTES
    assert "- **1** DataError: `" in told["hours"].value
    assert checks(instance) == {
        "failed_hours": False,
        "stalled_hours": True,
        "sealed_for": True,
        "throttle_share": True,
    }


def test_an_hour_alone_is_no_picture(landed: Project, instance: dg.DagsterInstance) -> None:
    """A run of one hour that is soon over leaves it to the sensor."""
    assert materialize(landed, instance, HOUR).success
    assert observations(instance) == []


def test_a_run_says_how_far_it_is(
    landed: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line in its log and an observation, again and again while hours are open."""
    monkeypatch.setattr(assets, "SAID_EVERY_S", 0.2)
    monkeypatch.setattr(assets, "LOOK_EVERY_S", 0.5)
    go = landed.folder / "go"  # polled, since hours and observations are told by files and a database alone
    waits = f"    while not Path({str(go)!r}).exists():\n        time.sleep(0.1)\n"
    head = "import time\nfrom pathlib import Path\n\n"
    landed.write("tables/slow.py", f"{head}def slowly(source):\n{waits}    return source\n")
    columns = "{at: timestamptz!, id: long!, size: double}"
    landed.describe({"transform": "slow:slowly", "columns": columns, "accepts": "[integer_overflow]"})

    def let_go() -> None:
        until = time.monotonic() + WITHIN_S
        while len(observations(instance)) < 2 and time.monotonic() < until:
            time.sleep(0.1)
        go.touch()

    lets_go = threading.Thread(target=let_go)
    lets_go.start()
    done = materialize(landed, instance, HOUR, THIRD)
    lets_go.join()
    lines = [entry.user_message for entry in instance.all_logs(done.run_id) if "done" in entry.user_message]
    assert any("0/3 done · " in line and "writing" in line for line in lines)
    told = observations(instance)
    assert len(told) > 2
    assert any(each["hours_running"].value for each in told)
    assert told[0]["hours_running"].value == 0


def tick(project: Project, instance: dg.DagsterInstance, cursor: str | None = None) -> Any:
    """Let the sensor look."""
    definitions = project.definitions()
    context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=definitions)
    return definitions.resolve_sensor_def("events_health_watch").evaluate_tick(context)


def test_the_sensor_looks_as_long_as_anything_changes(landed: Project, instance: dg.DagsterInstance) -> None:
    """It reports what commands have done, too, and then is quiet until a record is another."""
    assert tick(landed, instance).skip_message == "the table does not exist yet"
    landed.run(HOUR)
    first = tick(landed, instance)
    observed, *evaluated = first.asset_events
    assert observed.metadata["hours_committed"].value == 1
    assert {each.check_name: each.passed for each in evaluated} == dict.fromkeys(
        ("failed_hours", "stalled_hours", "sealed_for", "throttle_share", "orphan_bytes", *OF_WHOLE), True
    )
    assert tick(landed, instance, first.cursor).skip_message == "no hour has changed, and none is open"
    with pytest.raises(ValueError, match="is no JSON"):
        landed.run(NEXT)
    again = tick(landed, instance, first.cursor)
    assert [each.check_name for each in again.asset_events[1:] if not each.passed] == ["failed_hours"]


def test_the_asset_is_beside_its_table(landed: Project) -> None:
    """It depends on it, in its group; and a table that is called like another's health is refused."""
    spec = {asset.key: asset for asset in landed.definitions().resolve_all_asset_specs()}[HEALTH]
    assert [dep.asset_key for dep in spec.deps] == [dg.AssetKey("events")]
    assert spec.group_name == "lake"
    landed.write(
        "tables/events_health.yaml",
        (landed.folder / "tables" / "events.yaml").read_text().replace("lake.events", "lake.others"),
    )
    with pytest.raises(ValueError, match=r"is called as an asset beside events\.yaml; rename one of them"):
        landed.definitions()


def test_freshness_is_a_check_where_a_spec_asks(landed: Project, instance: dg.DagsterInstance) -> None:
    """A table of 2013 whose last hour is missing is not fresh; its age counts every hour anew."""
    landed.describe({"freshness": "2h"})
    landed.run(HOUR)
    first = tick(landed, instance)
    assert [each.check_name for each in first.asset_events[1:] if not each.passed] == ["freshness"]

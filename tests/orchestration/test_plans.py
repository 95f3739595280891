"""A table's plan on Dagster's page: what it tells, and runs that apply it."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pytest

from lakehouse_pipeline.backfill.range import run_range
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.object_store.settings import read_settings
from lakehouse_pipeline.orchestration.assets import build_defs
from tests.orchestration.runs import hours_materialized, materialize
from tests.projects import HOUR, NEXT, THIRD, Project, row

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine

PLAN = "events_plan"
ASKED = {"hours": f"{HOUR}...{THIRD}", "bytes": "12MB", "files": 3, "seconds": 2.5, "at_most": 2}


@pytest.fixture
def landed(project: Project) -> Project:
    """Land three hours, none of which was run."""
    for place, hour in enumerate((HOUR, NEXT, THIRD)):
        project.land(hour, [row(hour, place)])
    return project


def look(project: Project, instance: dg.DagsterInstance, asked: Mapping[str, object]) -> dg.ExecuteInProcessResult:
    """Run the job of the plan, as its page does."""
    job = build_defs(project.lakehouse).resolve_job_def(f"{PLAN}_job")  # which needs no Spark
    config = {"ops": {PLAN: {"config": dict(asked)}}}
    return job.execute_in_process(instance=instance, run_config=config, raise_on_error=False)


def told(project: Project, instance: dg.DagsterInstance, asked: Mapping[str, object] = ASKED) -> dict[str, Any]:
    """Give what the plan's page shows."""
    done = look(project, instance, asked)
    assert done.success
    (found,) = done.asset_materializations_for_node(PLAN)
    return {key: value.value for key, value in found.metadata.items()}


def said(done: dg.ExecuteInProcessResult, node: str) -> str:
    """Give the words with which a run failed."""
    assert not done.success
    failure = done.failure_data_for_node(node)
    assert failure is not None
    assert failure.user_failure_data is not None
    return failure.user_failure_data.description or ""


def test_a_plan_is_told_in_words_pictures_and_figures(landed: Project, instance: dg.DagsterInstance) -> None:
    """The recommendation, where each figure is from, pictures in the page itself; no hour is run for it."""
    found = told(landed, instance)
    assert found["plan"].startswith("**2 hours in flight; 32 tries within 10 min ")
    assert "bytes of an hour: 12 MB (as said)" in found["plan"]
    assert "| 2 hours in flight (recommended) |" in found["plan"]
    assert "- tables are files here: no store throttles them" in found["plan"]
    assert found["pictures"].startswith("![plan of events](data:image/png;base64,")
    drawn = base64.b64decode(found["pictures"].partition("base64,")[2].removesuffix(")"))
    assert drawn.startswith(b"\x89PNG")
    assert (found["hours_in_flight"], found["predicted_503_share"]) == (2, 0)
    assert found["predicted_hours"] > 0
    assert found["predicted_requests"] == 9
    assert landed.warehouse.find(landed.lakehouse.spec("events")) is None
    assert hours_materialized(instance) == []


def test_all_hours_that_are_over_are_meant(landed: Project, instance: dg.DagsterInstance) -> None:
    """Where no range is given: from the table's start to its end."""
    config = told(landed, instance, {})["run_config"]["ops"]["events"]["config"]["plan"]
    assert (config["first"], config["last"]) == ("2013-01-01-00:00", "2013-01-01-23:00")


def test_a_plans_run_config_runs_the_tables_job(
    landed: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pasted as it is told, by way of JSON: hours are run as it says, and all of them are there."""
    config = json.loads(json.dumps(told(landed, instance)["run_config"]))
    plan = config["ops"]["events"]["config"]["plan"] | {"apart_s": 7.5, "tries": 40}
    used: dict[str, Any] = {}

    def watched(bench: Any, hours: Any, settings: Any, heard: Any, **more: Any) -> None:
        used.update(bench=bench, settings=settings, apart_s=more["apart_s"])
        run_range(bench, hours, settings, heard, **more)

    monkeypatch.setattr("lakehouse_pipeline.backfill.range.run_range", watched)
    done = materialize(landed, instance, HOUR, THIRD, {"ops": {"events": {"config": {"plan": plan}}}})
    assert done.success
    assert hours_materialized(instance) == [HOUR, NEXT, THIRD]
    assert landed.ids() == [0, 1, 2]
    assert (used["settings"].hours_in_flight, used["apart_s"], used["bench"].spec.file_size) == (
        2,
        7.5,
        256_000_000,
    )
    assert read_settings(used["bench"].warehouse.catalog.properties).policy.tries == 40


def test_a_plan_whose_inputs_changed_runs_no_hour(landed: Project, instance: dg.DagsterInstance) -> None:
    """The run fails as a whole, says why and how to make another."""
    config = told(landed, instance)["run_config"]
    landed.land(NEXT, [row(NEXT, 7)])
    done = materialize(landed, instance, HOUR, THIRD, config)
    assert not done.success
    assert hours_materialized(instance) == []
    assert landed.warehouse.find(landed.lakehouse.spec("events")) is None
    words = said(done, "events")
    assert f"events: the objects of 1 of 3 hours have changed since the plan was made ({NEXT})" in words
    assert f"Make another: lakehouse plan events {HOUR}...{THIRD}" in words


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"colour": "red"}, "events: no plan of a backfill: table: Field required"),
        ({"table": 7}, "table: Input should be a valid string"),
    ],
)
def test_what_is_no_plan_runs_no_hour(
    landed: Project, instance: dg.DagsterInstance, plan: dict[str, object], words: str
) -> None:
    """Every key is named that is wrong."""
    done = materialize(landed, instance, HOUR, config={"ops": {"events": {"config": {"plan": plan}}}})
    assert words in said(done, "events")
    assert hours_materialized(instance) == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"hours": "soon"}, "'soon' is no range; write an hour"),
        ({"hours": "2014-01-01"}, "reaches beyond events's start and end"),
        ({"bytes": "12"}, "'12' is no size"),
        ({"files": 0}, "files: 0 is out of bounds"),
        ({"seconds": -2.5}, "seconds: -2.5 is out of bounds"),
        ({"at_most": 0}, "at most: 0 is out of bounds"),
    ],
)
def test_what_cannot_be_planned_fails_in_our_words(
    landed: Project, instance: dg.DagsterInstance, asked: dict[str, object], words: str
) -> None:
    """With the table and the error's class, and no stack of ours."""
    done = look(landed, instance, asked)
    assert said(done, PLAN).startswith("lake.events: ConfigurationError: ")
    assert words in said(done, PLAN)


def test_a_table_without_an_hour_that_is_over(project: Project, instance: dg.DagsterInstance) -> None:
    """It has to be told which hours are meant."""
    project.describe({"start": "2999-01-01", "end": "2999-01-02"})
    assert "no hour of events is over yet; give `hours`" in said(look(project, instance, {}), PLAN)


def test_a_spec_may_not_be_called_as_a_plan(project: Project) -> None:
    """Two assets of one name: the file to rename is named, before Dagster finds none of them."""
    spec = (project.folder / "tables/events.yaml").read_text()
    project.write("tables/events_plan.yaml", spec.replace("lake.events", "lake.plans"))
    with pytest.raises(
        ConfigurationError, match=r"events_plan\.yaml: is called as an asset beside events\.yaml; rename one"
    ):
        build_defs(project.lakehouse)

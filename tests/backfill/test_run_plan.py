"""Plans as runs take them: written, read back, and refused where what they were made from is another."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lakehouse_pipeline.backfill.figures import Asked
from lakehouse_pipeline.backfill.forecast import Forecast, forecast
from lakehouse_pipeline.backfill.forecast_text import as_json, read_plan
from lakehouse_pipeline.backfill.run_plan import RunPlan
from lakehouse_pipeline.config.backfill import BackfillSettings
from lakehouse_pipeline.errors import ConfigurationError, SafetyError
from lakehouse_pipeline.hours import parse_range
from lakehouse_pipeline.object_store.settings import read_settings
from tests.projects import HOUR, NEXT, THIRD, Project, parquet, row

RANGE = f"{HOUR}...{THIRD}"
SAID = Asked(bytes_=12_000_000, files=3, etl_s=2.5)
COLUMNS = "{at: timestamptz!, id: long!, size: double}"


@pytest.fixture
def project(project: Project) -> Project:
    """Give a table of three hours with two views, one of each hour and one of all; nothing is run."""
    joins = "{sizes: dims/sizes.parquet, late: {path: late/%Y-%m-%d-%H.jsonl, columns: {id: long!}}}"
    project.describe({"join": joins, "transform": "t.sql", "columns": COLUMNS})
    project.write("tables/t.sql", "SELECT source.* FROM source LEFT JOIN sizes USING (id) LEFT JOIN late USING (id)")
    project.write("dims/sizes.parquet", parquet([{"id": 1}]))
    for place, hour in enumerate((HOUR, NEXT, THIRD)):
        project.land(hour, [row(hour, place)])
        project.write(f"late/{hour[:-3]}.jsonl", '{"id": 1}\n')
    return project


def look(project: Project, hours: str = RANGE) -> Forecast:
    """Look at hours; what they cost is said."""
    lakehouse = project.lakehouse
    return forecast(lakehouse, lakehouse.spec("events"), project.warehouse, parse_range(hours), asked=SAID)


def check(project: Project, plan: RunPlan, hours: str = RANGE) -> None:
    """Hold a plan against the project as it is now."""
    lakehouse = project.lakehouse
    plan.check(lakehouse.spec("events"), lakehouse, project.warehouse.files, parse_range(hours))


def write(project: Project, told: object) -> Path:
    """Write a plan file."""
    return project.write("plan.json", json.dumps(told))


def test_a_plan_is_what_its_file_says(project: Project) -> None:
    """From a look over the file to a run: the same plan, and it holds."""
    told = look(project)
    plan = read_plan(write(project, as_json(told)), "events")
    assert plan == told.run
    assert RunPlan.read(plan.model_dump(mode="json")) == plan
    assert plan.hours == told.hours
    check(project, plan)


def test_a_plan_is_good_for_some_of_its_hours(project: Project) -> None:
    """Each hour is held against its own objects; those of others may be whatever they are."""
    plan = look(project).run
    project.land(NEXT, [row(NEXT, 7)])
    for hour in (HOUR, THIRD):
        check(project, plan, hour)
    with pytest.raises(SafetyError):
        check(project, plan, NEXT)


def _other_spec(project: Project) -> None:
    project.describe({"sort": "[id]"})


def _other_table(project: Project) -> None:
    project.describe({"table": "lake.elsewhere"})


def _other_file_size(project: Project) -> None:
    project.describe({"file_size": "64MB"})


def _other_properties(project: Project) -> None:
    project.describe({"properties": '{write.object-storage.enabled: "false"}'})


def _other_transform(project: Project) -> None:
    project.write("tables/t.sql", "SELECT * FROM source")


@pytest.mark.parametrize("change", [_other_spec, _other_table, _other_file_size, _other_properties, _other_transform])
def test_another_spec_is_refused(project: Project, change: Callable[[Project], None]) -> None:
    """What its hours are made of, where they go, and how; the spec is named, and how to make another plan."""
    plan = look(project).run
    change(project)
    with pytest.raises(SafetyError) as refused:
        check(project, plan)
    assert str(refused.value) == (
        f"{project.folder}/tables/events.yaml or its transform has changed since the plan was made. "
        f"Make another: lakehouse plan events {RANGE} -o plan.json"
    )


@pytest.mark.parametrize("change", [{"description": "flights"}, {"freshness": "3h"}, {"owners": "['team:lake']"}])
def test_what_no_hour_is_made_of_may_change(project: Project, change: dict[str, str]) -> None:
    """A plan holds on to what its figures depend on, and to nothing else."""
    plan = look(project).run
    project.describe(change)
    check(project, plan)


def test_another_engine_is_refused(project: Project) -> None:
    """Its address is not told: it may hold a token."""
    plan = look(project).run
    file = project.folder / "lakehouse.yaml"
    file.write_text(file.read_text().replace("local[2]", "sc://there/;token=secret"))
    with pytest.raises(SafetyError, match=r"made for another engine than lakehouse.yaml has now\. Make another:") as no:
        check(project, plan)
    assert "secret" not in str(no.value)
    assert "local" not in str(plan.model_dump(mode="json"))


def test_a_renewed_token_is_no_other_engine(project: Project) -> None:
    """Nor does a plan tell it."""
    file = project.folder / "lakehouse.yaml"
    file.write_text(file.read_text().replace("local[2]", "sc://there/;token=secret"))
    plan = look(project).run
    file.write_text(file.read_text().replace("secret", "renewed"))
    check(project, plan)


@pytest.mark.parametrize("changed", [{"warehouse": "s3://lake/w"}, {"s3.multipart.part-size-bytes": "8388608"}])
def test_another_store_is_refused(project: Project, changed: dict[str, str]) -> None:
    """Where tables are, and how files are uploaded, is what 503s were predicted for."""
    plan, lakehouse = look(project).run, project.lakehouse
    other = lakehouse.model_copy(update={"catalog": {**lakehouse.catalog, **changed}})
    with pytest.raises(SafetyError, match="made for another catalog or store"):
        plan.check(lakehouse.spec("events"), other, project.warehouse.files, parse_range(RANGE))


def test_a_part_of_a_plan(project: Project) -> None:
    """A run of some of its hours is given what is about them, and refuses as the whole does."""
    plan = look(project).run
    part = plan.of(parse_range(f"{NEXT}...{THIRD}"))
    assert (part.first, part.last, len(part.sources)) == (NEXT, THIRD, 2 * len(plan.sources) // 3)
    check(project, part, f"{NEXT}...{THIRD}")
    _rewritten(project)
    check(project, part, NEXT)
    with pytest.raises(SafetyError, match=THIRD):
        check(project, part, f"{NEXT}...{THIRD}")


def _landed(project: Project) -> list[str]:
    project.land(NEXT, [row(NEXT, 5)], name="-late.jsonl")
    return [NEXT]


def _rewritten(project: Project) -> list[str]:
    project.land(THIRD, [row(THIRD, 8)])
    return [THIRD]


def _gone(project: Project) -> list[str]:
    (project.folder / "raw/2013/01/01/10.jsonl").unlink()
    return [HOUR]


def _view(project: Project) -> list[str]:
    project.write(f"late/{NEXT[:-3]}.jsonl", '{"id": 2}\n')
    return [NEXT]


def _dimension(project: Project) -> list[str]:
    project.write("dims/sizes.parquet", parquet([{"id": 2}]))
    return [HOUR, NEXT, THIRD]


@pytest.mark.parametrize("change", [_landed, _rewritten, _gone, _view, _dimension])
def test_other_objects_are_refused(project: Project, change: Callable[[Project], list[str]]) -> None:
    """Those of an hour, or of one of its views: exactly the hours that they are of are named."""
    plan = look(project).run
    changed = change(project)
    with pytest.raises(SafetyError) as refused:
        check(project, plan)
    assert str(refused.value) == (
        f"the objects of {len(changed)} of 3 hours have changed since the plan was made ({', '.join(changed)}). "
        f"Make another: lakehouse plan events {RANGE} -o plan.json"
    )


def test_many_changed_hours_are_counted(project: Project) -> None:
    """Three of them are named."""
    hours = f"{HOUR}...2013-01-01-14:00"
    plan = look(project, hours).run
    project.write("dims/sizes.parquet", parquet([{"id": 2}]))
    with pytest.raises(SafetyError, match=rf"the objects of 5 of 5 hours .* \({HOUR}, {NEXT}, {THIRD}, \.\.\.\)\."):
        check(project, plan, hours)


def test_other_hours_are_refused(project: Project) -> None:
    """Whatever is known of those of the plan."""
    plan = look(project).run
    with pytest.raises(SafetyError) as refused:
        check(project, plan, f"{THIRD}...2013-01-01-14:00")
    assert str(refused.value) == (
        "2 of 3 hours are not in the plan, 3 hours: 2013-01-01-10:00 to 2013-01-01-12:00 UTC; "
        "the first is 2013-01-01-13:00. "
        "Make another: lakehouse plan events 2013-01-01-12:00...2013-01-01-14:00 -o plan.json"
    )


def test_the_plan_of_another_table_is_refused(project: Project) -> None:
    """Though all else were the same."""
    plan = look(project).run.model_copy(update={"table": "flights"})
    with pytest.raises(SafetyError, match="this plan is one of flights, and not of events"):
        check(project, plan)


def test_an_unseen_plan_holds_on_to_no_object(project: Project) -> None:
    """Nobody looked at them; the spec still counts."""
    lakehouse = project.lakehouse
    plan = forecast(lakehouse, lakehouse.spec("events"), None, parse_range(RANGE), asked=SAID).run
    _rewritten(project)
    check(project, plan)
    _other_spec(project)
    with pytest.raises(SafetyError):
        check(project, plan)


def test_hours_that_were_run_since_do_not_spoil_a_plan(project: Project) -> None:
    """What is left of a backfill goes on with the plan that it began with."""
    plan = look(project).run
    project.run(HOUR)
    check(project, plan)
    again = look(project)
    assert (again.there, again.run.sources, again.run.spec) == (1, plan.sources, plan.spec)


def test_what_a_plan_sets(project: Project) -> None:
    """Hours in flight, patience and file size take the place of the lakehouse's; everything else stays."""
    plan = look(project).run.model_copy(
        update={"hours_in_flight": 9, "apart_s": 60.0, "tries": 40, "retry_s": 900.5, "file_size": 5}
    )
    settings = BackfillSettings(hours_in_flight=4, hours_per_run=24)
    assert plan.backfill(settings) == BackfillSettings(hours_in_flight=9, hours_per_run=24)
    own = {"type": "sql", "s3.retry.num-retries": "3", "s3.retry.min-wait-ms": "500"}
    policy = read_settings(plan.catalog(own)).policy
    assert (policy.tries, policy.total_s, policy.min_wait_s) == (40, 900.5, 0.5)
    patient = {"s3.retry.num-retries": "98", "s3.retry.total-timeout-ms": "5000000"}
    assert read_settings(plan.catalog(patient)).policy == read_settings(patient).policy
    spec = project.lakehouse.spec("events")
    assert plan.table_spec(spec) == spec.model_copy(update={"file_size": 5})


WAY_OUT = "lakehouse plan"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "no JSON"),
        ("\xff".encode("latin-1"), "no JSON"),
        ("[]", "is no plan"),
        ("null", "is no plan"),
        ('"text"', "is no plan"),
        ('{"version": 1}', "is no plan"),
        ('{"run_config": {"ops": 7}}', "is no plan"),
        ('{"run_config": {"ops": "events"}}', "is no plan"),
        ('{"run_config": {"ops": {}}}', "is no plan"),
        ('{"run_config": {"ops": {"events": null}}}', "is no plan"),
        ('{"run_config": {"ops": {"events": {"config": {"force": true}}}}}', "is no plan"),
        ('{"run_config": {"ops": {"events": {"config": {"plan": 7}}}}}', "no plan of a backfill: Input should be"),
    ],
)
def test_what_is_no_plan_file(project: Project, content: str | bytes, said: str) -> None:
    """The file is named, and what writes one."""
    file = project.write("plan.json", content)
    with pytest.raises(ConfigurationError) as refused:
        read_plan(file, "events")
    assert str(refused.value).startswith(str(file))
    assert said in str(refused.value)
    assert WAY_OUT in str(refused.value)


@pytest.mark.parametrize("name", ["nowhere.json", "tables"])
def test_no_plan_file(project: Project, name: str) -> None:
    """None at all, or a folder."""
    file = project.folder / name
    with pytest.raises(ConfigurationError) as refused:
        read_plan(file, "events")
    assert str(refused.value).startswith(f"{file}: ")
    assert f"`lakehouse plan events RANGE -o {file}` writes it" in str(refused.value)


def test_the_plan_file_of_another_table(project: Project) -> None:
    """It says whose it is."""
    file = write(project, as_json(look(project)))
    with pytest.raises(ConfigurationError, match=r"plan\.json is a plan of events, and not of flights; `lakehouse"):
        read_plan(file, "flights")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("colour", "red", "colour: Extra inputs are not permitted"),
        ("hours_in_flight", 0, "hours_in_flight: Input should be greater than or equal to 1"),
        ("hours_in_flight", "many", "hours_in_flight: Input should be a valid integer"),
        ("tries", 0, "tries: "),
        ("retry_s", -1, "retry_s: "),
        ("retry_s", float("inf"), "retry_s: "),
        ("apart_s", -1, "apart_s: "),
        ("apart_s", float("nan"), "apart_s: "),
        ("file_size", 10, "file_size: "),
        ("file_size", 10**13, "file_size: "),
        ("first", "soon", "first: Value error, 'soon' is not an hour"),
        ("last", "2013-01-01-09:00", "last: Value error, the range is reversed"),
        ("spec", None, "spec: "),
    ],
)
def test_a_plan_file_with_a_wrong_value(project: Project, key: str, value: object, said: str) -> None:
    """Its key is named, and what writes a right one; a run would fail over it later, with less to say."""
    told: dict[str, Any] = as_json(look(project))
    told["run_config"]["ops"]["events"]["config"]["plan"][key] = value
    file = write(project, told)
    with pytest.raises(ConfigurationError) as refused:
        read_plan(file, "events")
    assert str(refused.value).startswith(f"{file}: no plan of a backfill: {said}")
    assert str(refused.value).endswith("; `lakehouse plan -o` writes one")


@pytest.mark.parametrize(
    "key", ["table", "first", "spec", "engine", "hours_in_flight", "tries", "retry_s", "file_size"]
)
def test_a_plan_file_without_a_key(project: Project, key: str) -> None:
    """Nothing of what a run is told is guessed."""
    told: dict[str, Any] = as_json(look(project))
    del told["run_config"]["ops"]["events"]["config"]["plan"][key]
    with pytest.raises(ConfigurationError, match=f"{key}: Field required"):
        read_plan(write(project, told), "events")

"""The skin: partition keys, per-hour events, failures, checks and what Dagster's page shows."""

from datetime import timedelta
from typing import cast

import dagster as dg
import pytest

from lakehouse_pipeline.orchestration.assets import build_defs
from tests.orchestration.runs import hours_materialized, is_stale, materializations, materialize
from tests.projects import HOUR, NEXT, THIRD, Project, parquet, row

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine


@pytest.fixture
def events(project: Project) -> Project:
    """Land three hours of two rows each."""
    for place, hour in enumerate((HOUR, NEXT, THIRD)):
        project.land(hour, [row(hour, 10 * place + 1, 1.5), row(hour, 10 * place + 2)])
    return project


def asset_of(project: Project) -> dg.AssetsDefinition:
    """Give the project's asset."""
    asset, *_ = build_defs(project.lakehouse).assets or ()
    assert isinstance(asset, dg.AssetsDefinition)
    return asset


def test_each_hour_of_a_range_is_reported_once(events: Project, instance: dg.DagsterInstance) -> None:
    """A range is one run; every hour has exactly one materialization, of its own partition, with its figures."""
    result = materialize(events, instance, HOUR, THIRD)
    assert result.success
    assert hours_materialized(instance) == [HOUR, NEXT, THIRD]
    found = materializations(instance)[HOUR]
    assert found.metadata["dagster/row_count"].value == 2
    assert found.metadata["rows_read"].value == 2
    assert found.metadata["rejected_rows"].value == 0
    assert found.metadata["step"].value == "run"
    assert found.metadata["snapshot_id"].value == str(events.record().committed.snapshot_id)  # type: ignore[union-attr]
    assert {"etl_seconds", "seal_seconds", "commit_seconds", "sample_keys", "files"} < found.metadata.keys()
    assert events.ids() == [1, 2, 11, 12, 21, 22]


def test_a_skipped_hour_is_reported_with_its_earlier_snapshot(events: Project, instance: dg.DagsterInstance) -> None:
    """Dagster counts what was materialized: a skipped hour is reported, marked so, with the snapshot it stands on."""
    materialize(events, instance, HOUR)
    first = materializations(instance)[HOUR].metadata
    materialize(events, instance, HOUR)
    second = materializations(instance)[HOUR].metadata
    assert second["step"].value == "skip"
    assert second["snapshot_id"].value == first["snapshot_id"].value


def test_force_runs_an_unchanged_hour(events: Project, instance: dg.DagsterInstance) -> None:
    """`force` in the run's configuration runs what would be skipped."""
    materialize(events, instance, HOUR)
    materialize(events, instance, HOUR, config={"ops": {"events": {"config": {"force": True}}}})
    assert materializations(instance)[HOUR].metadata["step"].value == "run"


def test_a_failed_hour_does_not_stop_the_others(events: Project, instance: dg.DagsterInstance) -> None:
    """The other hours are committed and reported; the run fails, names the hour and its file, and is not retried."""
    bad = events.write("raw/2013/01/01/11.jsonl", b'{"at": "2013-01-01T11:00:00Z", "id": "late"}\n')
    result = materialize(events, instance, HOUR, THIRD)
    assert not result.success
    assert hours_materialized(instance) == [HOUR, THIRD]
    assert events.ids() == [1, 2, 21, 22]
    failure = result.failure_data_for_node("events")
    assert failure is not None
    assert failure.user_failure_data is not None
    description = failure.user_failure_data.description or ""
    assert "1 hour failed" in description
    assert f"{NEXT}: DataError: file://{bad}:1" in description
    assert list(cast("dict[str, str]", failure.user_failure_data.metadata["failed_hours"].value)) == [NEXT]
    assert failure.user_failure_data.label == "intentional-failure"


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        pytest.param("2013-01-01-10:30", None, "did you mean 2013-01-01-10:00?", id="half an hour"),
        pytest.param(THIRD, HOUR, "is the range reversed?", id="reversed range"),
    ],
)
def test_keys_that_are_no_hours_are_refused(
    events: Project, instance: dg.DagsterInstance, first: str, last: str | None, said: str
) -> None:
    """Dagster 1.13 takes both without a word, as the hour after and as no hour: nothing runs or is reported."""
    result = materialize(events, instance, first, last)
    assert not result.success
    failure = result.failure_data_for_node("events")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert said in (failure.user_failure_data.description or "")
    assert hours_materialized(instance) == []
    assert not (events.folder / "warehouse").exists()


def test_checks_are_evaluated(events: Project, instance: dg.DagsterInstance) -> None:
    """A run evaluates each check of the table; the one that failed names its hour, and the hour has no files."""
    events.describe({"key": "[id]", "sort": "[id]", "check_order": "true"})
    events.land(NEXT, [row(NEXT, 7), row(NEXT, 7)])
    result = materialize(events, instance, HOUR, NEXT)
    evaluated = {each.check_name: each for each in result.get_asset_check_evaluations()}
    assert {name: each.passed for name, each in evaluated.items()} == {
        "rows_match_source": True,
        "keys_are_unique": False,
        "files_are_in_order": True,
    }
    assert "id = 7 (2 rows)" in str(evaluated["keys_are_unique"].metadata["failed_hours"].value)
    assert hours_materialized(instance) == [HOUR]
    assert events.ids() == [1, 2]


def test_the_asset_says_what_the_table_is(project: Project) -> None:
    """Kinds, owners, description, columns, hours and pool come from the spec."""
    project.describe({"description": "What happened", "owners": "[team:events]"})
    asset = asset_of(project)
    (spec,) = asset.specs
    assert spec.description == "What happened"
    assert spec.owners == ["team:events"]
    assert spec.kinds == {"pyspark", "iceberg", "parquet"}
    assert [column.name for column in spec.metadata["dagster/column_schema"].columns] == ["at", "id", "size"]
    assert spec.metadata["dagster/table_name"] == "lake.events"
    assert spec.partitions_def == dg.HourlyPartitionsDefinition(
        "2013-01-01-00:00", end_date="2013-01-02-00:00", timezone="UTC"
    )
    assert asset.op.pool == "lakehouse_events"
    assert asset.backfill_policy == dg.BackfillPolicy.single_run()
    assert asset.op.retry_policy is None


@pytest.mark.parametrize(("end", "names"), [("2013-01-02", []), (None, ["events_hourly"])], ids=["with end", "without"])
def test_only_a_table_without_end_has_a_schedule(project: Project, end: str | None, names: list[str]) -> None:
    """A table that goes on gets an hourly schedule, stopped until somebody starts it."""
    project.describe({"end": end})
    schedules = list(build_defs(project.lakehouse).schedules or ())
    assert [each.name for each in schedules] == names
    resolved = build_defs(project.lakehouse).get_repository_def().schedule_defs
    assert all(each.default_status == dg.DefaultScheduleStatus.STOPPED for each in resolved)
    assert all(each.cron_schedule == "0 * * * *" for each in resolved)


def test_a_changed_dimension_marks_old_hours_and_runs_nothing(events: Project, instance: dg.DagsterInstance) -> None:
    """Its code version changes with the dimension's objects: Dagster then calls old hours outdated, and that is all."""
    events.write("names.parquet", parquet([{"id": 1, "name": "one"}]))
    events.describe({"join": "{names: names.parquet}", "transform": "events.sql", "accepts": "[integer_overflow]"})
    events.write("tables/events.sql", "SELECT s.at, s.id, s.size FROM source s LEFT JOIN names n ON n.id = s.id")
    materialize(events, instance, HOUR)
    before = events.record()
    assert not is_stale(events, instance, HOUR)
    events.write("names.parquet", parquet([{"id": 1, "name": "uno"}]))
    assert is_stale(events, instance, HOUR)
    assert events.record() == before
    materialize(events, instance, HOUR)
    assert materializations(instance)[HOUR].metadata["why"].value == "the transform, the spec or a dimension changed"
    assert not is_stale(events, instance, HOUR)


@pytest.mark.parametrize(("asked", "hours"), [(None, None), ("3h", 3)], ids=["not asked", "asked"])
def test_freshness_is_watched_only_where_a_spec_asks(project: Project, asked: str | None, hours: int | None) -> None:
    """Without the key Dagster has no opinion about the age of the newest hour."""
    if asked:
        project.describe({"freshness": asked})
    (spec,) = asset_of(project).specs
    assert spec.freshness_policy == (dg.FreshnessPolicy.time_window(timedelta(hours=hours)) if hours else None)


def test_the_choice_of_staging_is_told(events: Project, instance: dg.DagsterInstance) -> None:
    """Whether the raw objects were copied first, and why; what the key leaves at reading says nothing."""
    events.describe({"staging": "auto"})
    materialize(events, instance, HOUR)
    assert "direct: auto, the objects are in the bucket" in str(
        materializations(instance)[HOUR].metadata["staging"].value
    )
    events.describe({"staging": "direct"})
    materialize(events, instance, NEXT)
    assert "staging" not in materializations(instance)[NEXT].metadata

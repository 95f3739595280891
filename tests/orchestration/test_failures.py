"""What becomes of hours that fail: the others go on, Dagster learns which and why, and whether to try again."""

from collections.abc import Callable

import dagster as dg
import pyarrow as pa
import pytest

from lakehouse_pipeline import events
from tests.orchestration.runs import hours_materialized, materialize
from tests.projects import HOUR, NEXT, THIRD, Project, parquet, row

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine

RANGE = {"dagster/asset_partition_range_start": HOUR, "dagster/asset_partition_range_end": THIRD}


@pytest.fixture
def landed(project: Project) -> Project:
    """Land three hours of one row each."""
    for place, hour in enumerate((HOUR, NEXT, THIRD)):
        project.land(hour, [row(hour, place)])
    return project


def _failure(project: Project, instance: dg.DagsterInstance) -> dg.Failure:
    """Run all three hours, and give what the run failed with."""
    job = project.definitions().resolve_job_def("events_job")
    with pytest.raises(dg.Failure) as caught:
        job.execute_in_process(instance=instance, tags=RANGE)
    return caught.value


def _bad_line(project: Project) -> None:
    project.write("raw/2013/01/01/11.jsonl", b"{")


def _changed_source(project: Project) -> None:
    project.land(NEXT, [row(NEXT, 9)])


def _fault(_: Project) -> None:
    raise ZeroDivisionError("a fault of ours")


def _rival(project: Project) -> None:
    project.run(NEXT, others_are_over=True)  # or it would wait for the run that it is to be a rival of


@pytest.mark.parametrize(
    ("moment", "happens", "said", "retries"),
    [
        pytest.param("", _bad_line, "DataError: file://", False, id="data"),
        pytest.param("attempt.opened", _changed_source, "TransientError: file://", True, id="transient"),
        pytest.param("attempt.sealed", _rival, "CommitConflictError: another run took", True, id="conflict"),
        pytest.param("hour.planned", _fault, "UnexpectedError: ZeroDivisionError: a fault of ours", True, id="fault"),
    ],
)
def test_failed_hour_is_one_hour(  # noqa: PLR0917  # a case and its fixtures
    landed: Project,
    instance: dg.DagsterInstance,
    moment: str,
    happens: Callable[[Project], None],
    said: str,
    retries: bool,  # noqa: FBT001  # a case
) -> None:
    """Whatever an hour fails of, the others are committed; only what another run may cure allows Dagster's retries."""
    todo = [happens] if moment else []

    def heard(event: events.Event) -> None:
        if todo and (event.name, event.hour) == (moment, NEXT):
            todo.pop()(landed)

    if not moment:
        happens(landed)
    with events.subscribed(heard):
        failure = _failure(landed, instance)
    assert todo == []
    assert failure.allow_retries is retries
    description = failure.description or ""
    assert description.startswith("events: 1 hour failed\n")
    assert f"{NEXT}: {said}" in description
    assert "Traceback" not in description
    assert hours_materialized(instance) == [HOUR, THIRD]
    assert (landed.ids(HOUR), landed.ids(THIRD)) == ([0], [2])


def test_hour_of_another_shape_does_not_stop_the_others(project: Project, instance: dg.DagsterInstance) -> None:
    """A Parquet hour whose columns fit neither spec nor table fails alone: later hours do not wait for it."""
    columns = "{at: timestamptz!, id: long!}"
    project.describe({"source": "{path: raw/%Y/%m/%d/%H.parquet}", "columns": columns, "sort": "[id]"})
    for place, (hour, kind) in enumerate(((HOUR, pa.int64()), (NEXT, pa.string()), (THIRD, pa.int64()))):
        at = pa.array([f"{hour[:10]}T{hour[11:]}:00"]).cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
        table = pa.table({"at": at, "id": pa.array([place]).cast(kind)})
        project.write(f"raw/{hour[:10].replace('-', '/')}/{hour[11:13]}.parquet", parquet(table))
    failure = _failure(project, instance)
    assert failure.allow_retries is False
    assert hours_materialized(instance) == [HOUR, THIRD]


def test_hours_that_fail_alike_share_a_line(landed: Project, instance: dg.DagsterInstance) -> None:
    """A fault of the transform is said once, with every hour that it cost."""
    columns = "{at: timestamptz!, id: long!, size: double}"
    landed.describe({"transform": "t.sql", "columns": columns, "accepts": "[integer_overflow]"})
    landed.write("tables/t.sql", "SELECT at, id, sise AS size FROM source")
    failure = _failure(landed, instance)
    heading, line = (failure.description or "").splitlines()
    assert heading == "events: 3 hours failed"
    assert line.startswith(f"{HOUR}, {NEXT}, {THIRD}: ConfigurationError: ")
    assert "sise" in line.partition("tables/t.sql: ")[2]
    assert hours_materialized(instance) == []


def test_check_that_no_hour_came_to_is_not_passed(landed: Project, instance: dg.DagsterInstance) -> None:
    """Where every hour failed before it was checked, no check is reported as held."""
    for hour in ("10", "11", "12"):
        landed.write(f"raw/2013/01/01/{hour}.jsonl", b"{")
    result = materialize(landed, instance, HOUR, THIRD)
    assert not result.success
    assert result.get_asset_check_evaluations() == []


def test_unreachable_catalog_fails_the_run_at_once(landed: Project, instance: dg.DagsterInstance) -> None:
    """No hour is tried; another run may help."""
    landed.write("lakehouse.yaml", "catalog: {type: rest, uri: 'http://127.0.0.1:9'}\nengine: sail\n")
    failure = _failure(landed, instance)
    assert failure.allow_retries is True
    assert "the catalog at http://127.0.0.1:9 cannot be reached" in (failure.description or "")


def test_rerun_of_a_failed_range_skips_what_is_there(landed: Project, instance: dg.DagsterInstance) -> None:
    """The same range again: what landed is skipped, what failed runs; each is reported."""
    _bad_line(landed)
    materialize(landed, instance, HOUR, THIRD)
    landed.land(NEXT, [row(NEXT, 1)])
    result = materialize(landed, instance, HOUR, THIRD)
    assert result.success
    found = [event.materialization for event in result.get_asset_materialization_events()]
    assert sorted((each.partition, each.metadata["step"].value) for each in found) == [
        (HOUR, "skip"),
        (NEXT, "run"),
        (THIRD, "skip"),
    ]

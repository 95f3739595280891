"""A true backfill, by the daemon's own code, in this process."""

import gc

import dagster as dg
import pytest

from tests.orchestration.runs import Backfills, hours_materialized
from tests.projects import Project, row

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine

HOURS = [f"2013-01-01-{hour:02d}:00" for hour in range(8, 14)]


# The daemon's code calls what Dagster itself deprecated, and leaves coroutines of its own behind.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:dagster")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_only_what_failed_runs_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six hours in one run, one of which has bad input: five land. Re-execution from failure then runs that one."""
    monkeypatch.setenv("LAKEHOUSE_CONFIG", str(project.folder / "lakehouse.yaml"))
    project.session()
    for place, hour in enumerate(HOURS):
        project.land(hour, [row(hour, place)])
    project.write("raw/2013/01/01/10.jsonl", b"no JSON\n")
    with (
        dg.instance_for_test(synchronous_run_launcher=True, synchronous_run_coordinator=True) as instance,
        Backfills.of(instance) as backfills,
    ):
        first = backfills.ask(HOURS)
        assert backfills.run(first) == {"MATERIALIZED": 5, "IN_PROGRESS": 0, "FAILED": 1}
        assert len(instance.get_runs()) == 1
        assert hours_materialized(instance) == [*HOURS[:2], *HOURS[3:]]
        project.land(HOURS[2], [row(HOURS[2], 2)])
        assert backfills.run(backfills.ask_again(first)) == {"MATERIALIZED": 1, "IN_PROGRESS": 0, "FAILED": 0}
        assert hours_materialized(instance) == HOURS
    assert project.ids() == [0, 1, 2, 3, 4, 5]
    gc.collect()

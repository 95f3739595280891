"""`lakehouse backfill`, `status` and `why`: what people type, and what they are told."""

import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill.attempts import HourInHand, note_failure
from lakehouse_pipeline.backfill.halt import Halt, HaltedError
from lakehouse_pipeline.backfill.hour import run_hour, seal_hour
from lakehouse_pipeline.backfill.hour_result import HourResult
from lakehouse_pipeline.backfill.plan import NoSourceError
from lakehouse_pipeline.backfill.pulse import STALLED_AFTER
from lakehouse_pipeline.cli.main import main
from lakehouse_pipeline.errors import ConfigurationError, LakehouseError, TransientError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg import commit as commit_loop
from lakehouse_pipeline.iceberg import tables
from lakehouse_pipeline.ledger.leases import LEASE
from lakehouse_pipeline.object_store.objects import RequestFailedError
from lakehouse_pipeline.orchestration import assets, reports
from lakehouse_pipeline.retry import RetryPolicy
from lakehouse_pipeline.status import picture
from tests.backfill.hands import new_attempt
from tests.projects import HOUR, NEXT, SPEC, THIRD, Project, json_lines, row, strays

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine

FOURTH, FIFTH, SIXTH, SEVENTH, EIGHTH = (f"2013-01-01-{hour}:00" for hour in range(13, 18))
RANGE = f"{HOUR}...{THIRD}"
KEY = dg.AssetKey("events")


def command(project: Project, *words: str) -> Result:
    """Run a command as somebody types it."""
    return CliRunner().invoke(main, [*words, "-c", str(project.folder / "lakehouse.yaml")])


def read(project: Project, *words: str) -> Any:
    """Give what a command says as JSON."""
    return json.loads(command(project, *words, "--json").stdout)


@pytest.fixture
def landed(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a project whose second hour has a bad line, with an instance of Dagster beside it."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    shutil.copy(Path(__file__).parents[2] / "dagster.yaml", project.folder)
    for place, hour in enumerate((HOUR, NEXT, THIRD)):
        project.land(hour, [row(hour, place)])
    project.write("raw/2013/01/01/11.jsonl", "{")
    project.session()
    return project


@pytest.fixture
def history(landed: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """Give the instance whose history the page shows."""
    monkeypatch.chdir(landed.folder)
    with dg.DagsterInstance.from_config(str(landed.folder)) as instance:
        yield instance


def test_ctrl_c_ended_one_run_and_began_the_next(landed: Project) -> None:
    """Ctrl-C ends a command of several runs with 130, says how to go on, and no hour of a later run is begun."""
    landed.write("tables/t_stopped.py", "def f(source):\n    raise KeyboardInterrupt\n")
    columns = "{at: timestamptz!, id: long!, size: double}"
    landed.describe({"transform": "t_stopped:f", "columns": columns, "accepts": "[integer_overflow]"})
    settings = (landed.folder / "lakehouse.yaml").read_text()
    landed.write("lakehouse.yaml", f"{settings}backfill: {{hours_per_run: 1}}\n")
    done = command(landed, "backfill", "events", RANGE)
    assert done.exit_code == 130
    assert "  3 hours did not come to an end: cancelled\n" in done.stdout
    assert done.stdout.endswith(f"Next: the same command once more: lakehouse backfill events {RANGE}\n")
    assert read(landed, "status", "events", "--hours", RANGE)["tables"][0]["counts"] == {
        "cancelled": 1,
        "not requested": 2,
    }


@contextmanager
def no_catalog(project: Project) -> Iterator[None]:
    """Keep everybody else out of the catalog's database."""
    with closing(sqlite3.connect(project.folder / "catalog.db", check_same_thread=False)) as database:
        database.execute("BEGIN EXCLUSIVE")
        yield


@pytest.fixture
def impatient(landed: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give the project with a catalog that is given up soon, and without a bad line."""
    settings = (landed.folder / "lakehouse.yaml").read_text()
    landed.write("lakehouse.yaml", settings.replace("catalog.db", "catalog.db?timeout=0.1"))
    landed.land(NEXT, [row(NEXT, 1)])
    monkeypatch.setattr(tables, "ASKING", RetryPolicy(2, 60, 0, 0))
    monkeypatch.setattr(commit_loop, "COMMIT_RETRIES", RetryPolicy(2, 60, 0, 0))
    return landed


def test_an_outage_is_survived_by_what_is_known(impatient: Project) -> None:
    """Hours that failed before any record could say so are told, and the command that is proposed runs them."""
    settings = (impatient.folder / "lakehouse.yaml").read_text()
    impatient.write("lakehouse.yaml", f"{settings}backfill: {{hours_per_run: 1}}\n")
    assert command(impatient, "backfill", "events", HOUR).exit_code == 0
    with ExitStack() as outage:

        def begin(event: events.Event) -> None:
            if event.name == "attempt.sealed":
                outage.enter_context(no_catalog(impatient))

        with events.subscribed(begin):
            first = command(impatient, "backfill", "events", RANGE, "--force")
    assert first.exit_code == 1, first.output
    assert "events: 0 of 3 hours are there (0 committed in 0 snapshots, 0 skipped), 1 failed\n" in first.stdout
    assert "  2 hours did not come to an end: " in first.stdout
    assert "  what their records say cannot be read: TransientError: " in first.stdout
    assert "  of 3 no record tells, so that --only-failed does not find them\n" in first.stdout
    following = f"lakehouse backfill events {RANGE} --force"
    assert first.stdout.endswith(f"Next: the same command once more: {following}\n")
    assert read(impatient, "status", "events", "--hours", RANGE)["tables"][0]["counts"] == {
        "sealed": 1,
        "not requested": 2,
    }
    assert command(impatient, *following.split()[1:]).exit_code == 0
    assert impatient.ids() == [0, 1, 2]


def test_what_was_forced_is_forced_again(landed: Project) -> None:
    """An hour that fails when it is forced has what it had before: without `--force` it would be skipped."""
    landed.land(NEXT, [row(NEXT, 1)])
    assert command(landed, "backfill", "events", RANGE).exit_code == 0
    landed.write("raw/2013/01/01/11.jsonl", "{")
    first = command(landed, "backfill", "events", RANGE, "--force")
    following = first.stdout.splitlines()[-1]
    assert following.startswith(f"Next: lakehouse backfill events {RANGE} --only-failed --force ")
    landed.land(NEXT, [row(NEXT, 1)])  # what it was
    done = command(landed, "backfill", "events", RANGE, "--only-failed", "--force")
    assert "events: 1 of 1 hours are there (1 committed in 1 snapshot, 0 skipped)\n" in done.stdout


def test_an_outage_is_noted_where_the_table_was_known(impatient: Project) -> None:
    """The ledger lies in the store: `--only-failed` finds an hour of a run that had loaded the table before."""
    bench = impatient.bench()
    hours = [HourWindow.from_key(key) for key in (HOUR, NEXT)]
    run_hour(bench, hours[0])
    with no_catalog(impatient), pytest.raises(TransientError):
        run_hour(bench, hours[1])
    assert read(impatient, "status", "events", "--hours", RANGE)["tables"][0]["counts"] == {
        "committed": 1,
        "failed": 1,
        "not requested": 1,
    }
    assert command(impatient, "why", "events", NEXT).stdout.endswith(f"\nNow: lakehouse backfill events {NEXT}\n")
    assert read(impatient, "backfill", "events", RANGE, "--only-failed", "--dry-run")["hours"] == [NEXT]


@pytest.mark.parametrize("error", [RequestFailedError, ConfigurationError])
def test_why_says_whether_anything_is_to_be_mended(landed: Project, error: type[LakehouseError]) -> None:
    """What may pass by itself is run again; anything else is to be mended first."""
    landed.run(HOUR)
    note_failure(landed.table, HourWindow.from_key(FOURTH), "run", error("what it said"))
    told = command(landed, "why", "events", FOURTH).stdout.splitlines()
    mend = "Mend what it says; then" if error is ConfigurationError else "Now"
    assert told[-1] == f"{mend}: lakehouse backfill events {FOURTH}"


def test_only_what_failed_runs_again(landed: Project, history: dg.DagsterInstance) -> None:
    """A failed hour is named with its cause and the next command, which runs it alone; Dagster's history has it all."""
    first = command(landed, "backfill", "events", RANGE)
    assert first.exit_code == 1
    heading, summary, cause, hours, following = first.stdout.splitlines()
    assert heading == "3 hours: 2013-01-01-10:00 to 2013-01-01-12:00 UTC"
    assert summary == "events: 2 of 3 hours are there (2 committed in 1 snapshot, 0 skipped), 1 failed"
    assert "11.jsonl:1: is no JSON" in cause
    assert hours.split() == [NEXT]
    assert following.startswith(f"Next: lakehouse backfill events {RANGE} --only-failed")
    landed.land(NEXT, [row(NEXT, 1)])
    second = command(landed, "backfill", "events", RANGE, "--only-failed")
    assert second.exit_code == 0
    assert second.stdout.splitlines() == [
        "3 hours: 2013-01-01-10:00 to 2013-01-01-12:00 UTC, of which 1 failed or did not end",
        "events: 1 of 1 hours are there (1 committed in 1 snapshot, 0 skipped)",
    ]
    assert landed.ids() == [0, 1, 2]
    records = history.fetch_materializations(KEY, limit=100).records
    assert sorted(str(record.partition_key) for record in records) == [HOUR, NEXT, THIRD]
    assert len(history.get_runs()) == 2
    why = command(landed, "why", "events", HOUR).stdout
    committed = landed.table.ledger.hour(HourWindow.from_key(HOUR)).record.committed
    assert committed
    assert f", in snapshot {committed.snapshot_id}, at {committed.at:%Y-%m-%d %H:%M} UTC.\n" in why
    third = command(landed, "backfill", "events", RANGE)
    assert "(0 committed in 0 snapshots, 3 skipped)" in third.stdout
    assert command(landed, "why", "events", HOUR).stdout == why


def test_only_what_has_changed_runs_again(landed: Project) -> None:
    """A file that landed late, in an hour of whatever age, is asked for by `--changed`."""
    landed.land(NEXT, [row(NEXT, 1)])
    assert command(landed, "backfill", "events", RANGE).exit_code == 0
    landed.land(THIRD, [row(THIRD, 9)], name="-late.jsonl")
    assert read(landed, "backfill", "events", RANGE, "--changed", "--dry-run")["hours"] == [THIRD]
    told = command(landed, "backfill", "events", RANGE, "--changed")
    assert told.stdout.splitlines()[0].endswith(", of which 1 have changed")
    assert landed.ids() == [0, 1, 2, 9]


def test_a_dry_run_runs_nothing(landed: Project) -> None:
    """It names the hours."""
    assert read(landed, "backfill", "events", RANGE, "--dry-run") == {"table": "events", "hours": [HOUR, NEXT, THIRD]}
    assert landed.warehouse.find(landed.lakehouse.spec("events")) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing", HOUR], "there is no table 'nothing'"),
        (["events", "2013-01-02"], "24 of 24 hours: 2013-01-02-00:00 to 2013-01-02-23:00 UTC lie outside"),
        (["events", "2013-13"], "does not exist in the calendar"),
    ],
)
def test_what_cannot_be_asked_for(landed: Project, words: list[str], said: str) -> None:
    """A table, an hour or a range that is none: nothing runs, and the exit code says configuration."""
    refused = command(landed, "backfill", *words)
    assert refused.exit_code == 2
    assert said in refused.stderr


def test_hours_to_come_are_refused(landed: Project) -> None:
    """A table without an end has no hours beyond now: they are named before anything runs."""
    landed.describe({"end": None})
    said = command(landed, "backfill", "events", "2999-01-01")
    assert said.exit_code == 2
    assert "24 of 24 hours: 2999-01-01-00:00 to 2999-01-01-23:00 UTC have not begun yet" in said.stderr


def test_rejected_rows_are_told(landed: Project) -> None:
    """By the backfill that rejects them, by the status, and of their hour, with how to look at some."""
    landed.describe({"source": SPEC["source"].replace("}}", "}, bad_rows: reject}")})
    landed.write("raw/2013/01/01/11.jsonl", json_lines([row(NEXT, 1)]) + b"{")
    said = command(landed, "backfill", "events", RANGE)
    assert f"  rows rejected: 1, of 1 hour\n       {NEXT}\n" in said.stdout
    assert f"  rows rejected: 1, of 1 hour\n       {NEXT}\n" in command(landed, "status", "events").stdout
    assert f"and rejected 1 (lakehouse check events --hour {NEXT} shows some)" in (
        command(landed, "why", "events", NEXT).stdout
    )
    assert "rejected" not in command(landed, "why", "events", HOUR).stdout


def test_an_hour_that_is_no_longer_the_tables_is_refused(landed: Project) -> None:
    """Also one that was run before `end` was set, and what its start and its end are is said."""
    assert command(landed, "backfill", "events", THIRD).exit_code == 0
    landed.describe({"end": THIRD})
    refused = command(landed, "backfill", "events", THIRD)
    assert refused.exit_code == 2
    assert f"whose end is {THIRD}: {THIRD} to {THIRD}. Ask for others" in refused.stderr


def test_without_an_instance_nothing_runs(landed: Project) -> None:
    """Dagster needs a place for its history; where to get one is said."""
    (landed.folder / "dagster.yaml").unlink()
    refused = command(landed, "backfill", "events", HOUR)
    assert refused.exit_code == 2
    assert "`lakehouse init` writes one" in refused.stderr


def test_a_run_that_fails_as_a_whole_says_so(landed: Project) -> None:
    """A check of Dagster's own, before the first hour, is no silent success."""
    landed.write("lakehouse.yaml", "catalog: {type: rest, uri: 'http://127.0.0.1:9'}\nengine: sail\n")
    refused = command(landed, "backfill", "events", HOUR)
    assert refused.exit_code == 1
    assert "the catalog at http://127.0.0.1:9 cannot be reached" in refused.stderr


def test_a_run_that_dies_midway_is_no_success(landed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours that it did not come to are counted, and why; the exit code says failed."""
    report, told = reports.of_result, list[str]()

    def dies(key: str, result: HourResult, code_version: str) -> dg.AssetMaterialization:
        if told:
            raise RuntimeError("Dagster's storage is gone")
        told.append(result.hour.key)
        return report(key, result, code_version)

    monkeypatch.setattr(assets, "of_result", dies)
    landed.land(NEXT, [row(NEXT, 1)])
    settings = "backfill: {hours_in_flight: 1, commit_every: {hours: 1}}\n"
    landed.write("lakehouse.yaml", (landed.folder / "lakehouse.yaml").read_text() + settings)
    died = command(landed, "backfill", "events", RANGE)
    assert died.exit_code == 1
    assert "1 hour did not come to an end: " in died.stdout
    assert "Dagster's storage is gone" in died.stdout


def test_sealed_hours_are_said_to_be(landed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the commit failed, the summary tells that no ETL runs again."""

    def away(*_: object) -> None:
        raise TransientError("the store is away")

    landed.land(NEXT, [row(NEXT, 1)])
    with monkeypatch.context() as patched:
        patched.setattr(commit_loop, "COMMIT_RETRIES", RetryPolicy(1, 1, 0, 0))
        patched.setattr(commit_loop, "build_replacement", away)
        failed = command(landed, "backfill", "events", RANGE)
    assert failed.exit_code == 1
    assert "  3 of them are sealed: their ETL does not run again" in failed.stdout.splitlines()
    assert read(landed, "status", "events")["tables"][0]["counts"]["sealed"] == 3
    assert command(landed, "backfill", "events", RANGE, "--only-failed").exit_code == 0
    assert landed.ids() == [0, 1, 2]
    assert strays(landed.table) == set()


@pytest.fixture
def every_state(landed: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a table with an hour in each state."""
    for place, hour in enumerate((THIRD, FOURTH, FIFTH, SIXTH, SEVENTH), start=2):
        landed.land(hour, [row(hour, place)])
    landed.run(HOUR)
    with pytest.raises(ValueError, match="is no JSON"):
        landed.run(NEXT)

    def ended(event: events.Event) -> None:
        if event.name == "attempt.sealed":
            raise KeyboardInterrupt

    with events.subscribed(ended), pytest.raises(KeyboardInterrupt):
        landed.run(THIRD)
    table = landed.table
    for key in (FOURTH, FIFTH, SEVENTH):
        window = HourWindow.from_key(key)
        hand = HourInHand(table, window, table.ledger.hour(window), f"run of {key}")
        hand.open(new_attempt(table, window))
        hand.held.renew(hand.attempt.id, "etl", STALLED_AFTER if key == SEVENTH else timedelta(0))
    with pytest.raises(NoSourceError):
        landed.run(EIGHTH)

    halt = Halt()

    def stopped(event: events.Event) -> None:
        if event.name == "attempt.opened":
            halt.set()

    with events.subscribed(stopped), pytest.raises(HaltedError):
        seal_hour(landed.bench(), HourWindow.from_key(SIXTH), halt=halt)
    interrupted = HourWindow.from_key(FIFTH)
    under_way = picture._under_way
    lapsed = LEASE * 2
    monkeypatch.setattr(
        picture, "_under_way", lambda record, age: under_way(record, lapsed if record.hour == interrupted.key else age)
    )
    return landed


def test_all_that_tells_agrees(every_state: Project) -> None:
    """Commands and the asset, hour by hour, and with the table: what is said to be committed is there, and no more."""
    (told,) = read(every_state, "status", "events")["tables"]
    states = {each["hour"]: each["state"] for each in told["hours"] if each["state"] != "not requested"}
    assert states == {
        HOUR: "committed",
        NEXT: "failed",
        THIRD: "sealed",
        FOURTH: "running",
        FIFTH: "interrupted",
        SIXTH: "cancelled",
        SEVENTH: "stalled",
        EIGHTH: "no source",
    }
    assert told["counts"] == dict.fromkeys(states.values(), 1) | {"not requested": 16}
    assert every_state.ids() == [0]
    for hour, state in states.items():
        assert read(every_state, "why", "events", hour)["state"] == state
        said = command(every_state, "why", "events", hour).stdout
        assert said.startswith(f"{hour}: {state}")
        assert "lakehouse " in said.splitlines()[1]
    metadata = looked_at(every_state)
    assert metadata["unfinished"].value == {state: [hour] for hour, state in states.items() if state != "committed"}
    counts = {name.removeprefix("hours_").replace("_", " "): value.value for name, value in metadata.items()}
    assert {state: counts[state] for state in told["counts"]} == told["counts"]


def looked_at(project: Project) -> Mapping[str, Any]:
    """Materialize the asset of the table's health; gives its metadata."""
    definitions = project.definitions()
    assets = [asset for asset in definitions.assets or () if isinstance(asset, dg.AssetsDefinition)]
    done = dg.materialize(assets, selection="events_health", resources=definitions.resources)
    (materialization,) = done.asset_materializations_for_node("events_health")
    return materialization.metadata


def test_the_picture(every_state: Project) -> None:
    """A day is a line of 24 marks; what went wrong is below it, with the next command."""
    told = command(every_state, "status", "events", "--hours", "2013-01-01").stdout
    heading, legend, day, *causes = told.splitlines()
    name, _, counts = heading.partition(" UTC: ")
    assert name.startswith("events (lake.events), as of ")
    assert counts.split(" · ") == [
        "24 hours, 1 committed",
        *(
            f"1 {state}"
            for state in ("running", "stalled", "sealed", "interrupted", "failed", "no source", "cancelled")
        ),
        "16 not requested",
    ]
    marks = "█ committed  ▶ running  ‖ stalled  ◆ sealed  ! interrupted  ✗ failed  ∅ no source  c cancelled"
    assert legend == f"  {marks}  · not requested"
    assert day == "  2013-01-01  ··········█✗ ◆▶!c‖∅······"
    assert any("DataError: file://" in line for line in causes)
    assert causes[-2] == "Next: lakehouse backfill events 2013-01-01 --only-failed"


def test_hours_outside_are_said_to_be(landed: Project) -> None:
    """Asking why an hour is not there that never can be."""
    said = command(landed, "why", "events", "2014-01-01-00:00").stdout
    assert said == "2014-01-01-00:00: outside of the table's start and end: change them in the spec of events first.\n"


def test_a_failure_before_the_table_exists_is_kept(landed: Project) -> None:
    """A backfill may begin with an hour that has no object; its failure has to be somewhere to be looked up."""
    with pytest.raises(NoSourceError):
        landed.run(EIGHTH)
    assert read(landed, "why", "events", EIGHTH)["state"] == "no source"
    assert read(landed, "backfill", "events", "2013-01-01", "--only-failed", "--dry-run")["hours"] == [EIGHTH]

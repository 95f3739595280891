"""`lakehouse plan`, `backfill --plan` and `ways`, as somebody types them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from lakehouse_pipeline.backfill.forecast_text import read_plan
from lakehouse_pipeline.backfill.halt import Halt, HaltedError
from lakehouse_pipeline.backfill.hour import seal_hour
from lakehouse_pipeline.cli.main import main
from lakehouse_pipeline.hours import HourWindow
from tests.projects import HOUR, NEXT, THIRD, Project, row

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine

RANGE = f"{HOUR}...{THIRD}"
FIGURES = ("--bytes", "12MB", "--files", "3", "--seconds", "2.5")
PNG = b"\x89PNG\r\n\x1a\n"


def run(*words: str) -> Result:
    """Run a command."""
    return CliRunner().invoke(main, [*words])


@pytest.fixture
def landed(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a project of three hours, none of which was run, with an instance of Dagster, and go there."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.delenv("LAKEHOUSE_CONFIG", raising=False)
    monkeypatch.chdir(project.folder)
    shutil.copy(Path(__file__).parents[1] / "dagster.yaml", project.folder)
    for place, hour in enumerate((HOUR, NEXT, THIRD)):
        project.land(hour, [row(hour, place)])
    return project


def planned(project: Project, hours: str = RANGE) -> Path:
    """Write the plan file of hours."""
    done = run("plan", "events", hours, *FIGURES, "-o", "plan.json")
    assert done.exit_code == 0, done.output
    return project.folder / "plan.json"


def is_untouched(project: Project) -> bool:
    """Tell whether there is no table."""
    return project.warehouse.find(project.lakehouse.spec("events")) is None


def test_a_plan_is_told(landed: Project) -> None:
    """What was found, each setting that was considered, one recommendation, and what to type next; nothing is run."""
    done = run("plan", "events", RANGE, "--bytes", "12 MB", "--at-most", "2")
    assert done.exit_code == 0, done.output
    first, found, size, files, seconds, heading, *rows = done.output.splitlines()
    assert first == "3 hours: 2013-01-01-10:00 to 2013-01-01-12:00 UTC"
    assert found.startswith("events: 3 hours to run, ")
    assert size == "bytes of an hour: 12 MB (as said)"
    assert files == "files of an hour: 1 (as many as files of the spec's size)"
    assert seconds.startswith("seconds of an hour: 5 s (assumed: ")
    assert heading.split() == ["takes", "writes", "of", "data", "files", "503s", "share", "costs", "orphan", "bytes"]
    settings, (recommended, *notes, following) = rows[:3], rows[3:]
    assert [each.partition(" in flight")[0] for each in settings] == ["1 hour", "2 hours", "3 hours"]
    assert [each.partition("  ")[0].endswith("(recommended)") for each in settings] == [False, True, False]
    assert recommended == ("recommended: 2 hours in flight; 32 tries within 10 min for a request; files of 256 MB")
    assert notes == [
        "note: tables are files here: no store throttles them",
        "note: nobody has run an hour yet: run one or two, or say --seconds, and plan again before relying on it",
    ]
    assert following == (
        f"Next: lakehouse plan events {RANGE} --bytes '12 MB' --at-most 2 -o plan.json, "
        f"then lakehouse backfill events {RANGE} --plan plan.json"
    )
    assert is_untouched(landed)
    assert not (landed.folder / "plan.json").exists()


def test_a_plan_for_programs(landed: Project) -> None:
    """Standard output is one JSON object, and it is what the plan file holds."""
    file = planned(landed)
    done = run("plan", "events", RANGE, *FIGURES, "--json")
    told = json.loads(done.stdout)
    assert told == json.loads(file.read_text())
    assert told["hours"] == {"first": HOUR, "last": THIRD, "asked": 3}
    assert (told["to_run"], told["there"], told["missing"], told["throttles"]) == (3, 0, [], False)
    assert told["hour"]["files"] == {"value": 3.0, "origin": "as said", "assumed": False}
    assert list(told["run_config"]["ops"]) == ["events"]
    assert told["recommended"]["hours_in_flight"] in [each["hours_in_flight"] for each in told["considered"]]


def test_a_plan_is_written_and_drawn(landed: Project) -> None:
    """With what applies it as the next command."""
    done = run("plan", "events", RANGE, *FIGURES, "-o", "plan.json", "--plot", "plan.png")
    assert done.exit_code == 0, done.output
    assert read_plan(landed.folder / "plan.json", "events").file_size == 256_000_000
    assert (landed.folder / "plan.png").read_bytes().startswith(PNG)
    assert done.output.splitlines()[-1] == f"Next: lakehouse backfill events {RANGE} --plan plan.json"


def test_a_plan_on_s3_shows_what_else_was_simulated(landed: Project) -> None:
    """Other keys and the other client; with everything said, no store has to answer."""
    landed.write("lakehouse.yaml", "catalog: {type: rest, uri: 'http://127.0.0.1:9', warehouse: lake}\n")
    done = run("plan", "events", RANGE, *FIGURES, "--unseen")
    assert done.exit_code == 0, done.output
    assert ", base-64 keys  " in done.output
    assert ", Iceberg S3FileIO, no ledger  " in done.output
    seen = run("plan", "events", RANGE, *FIGURES)
    assert (seen.exit_code, "cannot be reached" in seen.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing", HOUR], "there is no table 'nothing'"),
        (["events", "2013-01-02"], "reaches beyond events's start and end"),
        (["events", "2013-13"], "does not exist in the calendar"),
        (["events", HOUR, "--bytes", "12"], "--bytes: '12' is no size"),
        (["events", HOUR, "--files", "0"], "--files"),
        (["events", HOUR, "--seconds", "0"], "--seconds"),
        (["events", HOUR, "--unseen"], "--bytes, --files and --seconds have to be given"),
        (["events", HOUR, "-o", "nowhere/plan.json"], "nowhere/plan.json cannot be written: No such file"),
        (["events", HOUR, "--plot", "tables"], "tables cannot be written: Is a directory"),
    ],
)
def test_what_cannot_be_planned_exits_with_2(landed: Project, words: list[str], said: str) -> None:
    """With what is wrong on standard error, and no stack."""
    done = run("plan", *words)
    assert (done.exit_code, said in done.stderr) == (2, True), done.output
    assert "Traceback" not in done.output


def test_a_plan_is_applied(landed: Project) -> None:
    """Its hours are committed, by a run whose config is that of the plan file; then there is nothing left to plan."""
    landed.session()
    file = planned(landed)
    done = run("backfill", "events", RANGE, "--plan", "plan.json")
    assert done.exit_code == 0, done.output
    assert "events: 3 of 3 hours are there (3 committed in " in done.output
    assert landed.ids() == [0, 1, 2]
    with dg.DagsterInstance.from_config(str(landed.folder)) as instance:
        (done_run,) = instance.get_runs()
    told = json.loads(file.read_text())["run_config"]["ops"]["events"]["config"]["plan"]
    config: Any = done_run.run_config
    assert config["ops"]["events"]["config"]["plan"] == told
    again = run("plan", "events", RANGE)
    assert (again.exit_code, "there is nothing to run" in again.output) == (0, True)


def test_what_did_not_end_goes_on_with_the_plan(landed: Project) -> None:
    """Some hours were run since it was made, and one was cancelled: `--only-failed` takes that one, as planned."""
    landed.session()
    planned(landed)
    for hour in (HOUR, NEXT):
        landed.run(hour)
    cancelled = Halt()
    cancelled.set()
    with pytest.raises(HaltedError):
        seal_hour(landed.bench(), HourWindow.from_key(THIRD), halt=cancelled)
    done = run("backfill", "events", RANGE, "--only-failed", "--plan", "plan.json")
    assert done.exit_code == 0, done.output
    assert "events: 1 of 1 hours are there" in done.output
    assert landed.ids() == [0, 1, 2]


def _other_object(project: Project) -> str:
    project.land(NEXT, [row(NEXT, 7)])
    return f"SafetyError: the objects of 1 of 3 hours have changed since the plan was made ({NEXT}). Make another: "


def _other_spec(project: Project) -> str:
    project.describe({"sort": "[id]"})
    file = project.folder / "tables/events.yaml"
    return f"SafetyError: {file} or its transform has changed since the plan was made. Make another: "


def _other_engine(project: Project) -> str:
    file = project.folder / "lakehouse.yaml"
    file.write_text(file.read_text().replace("sail", "local[1]"))
    return "SafetyError: the plan was made for another engine than lakehouse.yaml has now. Make another: "


@pytest.mark.parametrize("change", [_other_object, _other_spec, _other_engine])
@pytest.mark.parametrize("words", [[], ["--dry-run"]])
def test_a_plan_whose_inputs_changed_exits_with_3(
    landed: Project, change: Callable[[Project], str], words: list[str]
) -> None:
    """Before anything is run; what makes another is said."""
    planned(landed)
    said = change(landed)
    done = run("backfill", "events", RANGE, "--plan", "plan.json", *words)
    assert (done.exit_code, done.stderr) == (3, f"{said}lakehouse plan events {RANGE} -o plan.json\n")
    assert is_untouched(landed)


def test_hours_that_are_not_the_plans_exit_with_3(landed: Project) -> None:
    """One of them is enough."""
    planned(landed, f"{HOUR}...{NEXT}")
    done = run("backfill", "events", RANGE, "--plan", "plan.json")
    assert (done.exit_code, "1 of 3 hours are not in the plan" in done.stderr) == (3, True), done.output
    assert is_untouched(landed)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "plan.json: No such file or directory; `lakehouse plan events RANGE -o plan.json` writes it"),
        ("{", "plan.json: no JSON: "),
        ('{"version": 1}', "plan.json is no plan; `lakehouse plan events RANGE -o plan.json` writes one"),
        ('{"run_config": {"ops": {"flights": {}}}}', "plan.json is a plan of flights, and not of events"),
        ('{"run_config": {"ops": {"events": {"config": {"plan": {"a": 1}}}}}}', "no plan of a backfill: "),
    ],
)
def test_what_is_no_plan_exits_with_2(landed: Project, content: str | None, said: str) -> None:
    """And nothing is run."""
    if content is not None:
        landed.write("plan.json", content)
    done = run("backfill", "events", RANGE, "--plan", "plan.json")
    assert (done.exit_code, said in done.stderr) == (2, True), done.output
    assert is_untouched(landed)


# ---------------------------------------------------------------------------------------------------------------------
# Ways to move bytes
# ---------------------------------------------------------------------------------------------------------------------

ACROSS = ("--from", "eu-west-1=2TB/20000", "--compute", "us-east-1")
BOOK = """\
ways:
  pigeons:
    moves: [reads, sources]
    bandwidth: 100 Gb/s
    fixed: $1
    needs: [two regions]
    source: a loft
    date: "2025"
"""


def test_ways_are_explained() -> None:
    """The choice, the runner-up, and why the others are not feasible; no lakehouse is needed."""
    done = run("ways", *ACROSS)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0] == "cheapest of 2 feasible ways: read by inter-region read"
    assert lines[2].startswith("  read 2 TB eu-west-1 -> us-east-1 by inter-region read: $40")
    assert lines[3] == "runner-up: move first by inter-region copy, then read by same-region read"
    assert any("no private link for private link" in line for line in lines[4:])


def test_ways_for_programs() -> None:
    """With the question as it was understood."""
    told = json.loads(
        run("ways", *ACROSS, "--result", "300GB", "--to", "eu-west-1", "--deadline", "2d", "--json").stdout
    )
    question = told["question"]
    assert question["origins"] == [{"region": "eu-west-1", "bytes": 2 * 10**12, "objects": 20_000}]
    assert (question["destination"], question["result_bytes"], question["deadline_s"]) == (
        "eu-west-1",
        3 * 10**11,
        172_800,
    )
    assert told["chosen"]["name"].startswith("read by ")


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ([], "read by inter-region read"),
        (["--fastest"], "move first by inter-region copy, then read by same-region read"),
        (["--reads", "0"], "move first by inter-region copy"),
        (["--reads", "5"], "move first by inter-region copy, then read by same-region read"),
        (["--compute-moves"], "read by same-region read"),
        (["--book", "own.yaml"], "read by pigeons"),
    ],
)
def test_the_question_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], chosen: str) -> None:
    """What is wanted, how often it is read, where it may run, and what ways there are."""
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(BOOK)
    done = run("ways", *ACROSS, *words, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["chosen"]["name"] == chosen


def test_what_a_way_needs_may_be_there() -> None:
    """Then it is feasible."""
    without, has = (
        json.loads(run("ways", *ACROSS, *words, "--json").stdout) for words in ([], ["--has", "private link"])
    )
    problems = [
        next(each["problems"] for each in told["others"] if each["name"] == "read by private link")
        for told in (without, has)
    ]
    assert problems == [["no private link for private link"], []]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "eu-west-1"], "--from eu-west-1: write REGION=SIZE or REGION=SIZE/OBJECTS"),
        (["--from", "=2TB"], "--from =2TB: write REGION=SIZE"),
        (["--from", "eu-west-1=2TB/many"], "--from eu-west-1=2TB/many: write REGION=SIZE"),
        (["--from", "eu-west-1=2XB"], "--from: '2XB' is no size"),
        (["--from", "a=1TB", "--from", "a=2TB"], "a region is twice among the origins: a, a"),
        (["--from", "a=1TB", "--result", "lots"], "--result: 'lots' is no size"),
        (["--from", "a=1TB", "--deadline", "soon"], "'soon' is no age"),
        (["--from", "a=1TB", "--deadline", "1min"], "longer than the deadline of 1 min"),
        (["--from", "a=1TB", "--book", "nowhere.yaml"], "nowhere.yaml:1: cannot be read"),
        ([], "--from"),
    ],
)
def test_what_cannot_be_asked_of_ways_exits_with_2(words: list[str], said: str) -> None:
    """With what to write instead; where no way is feasible, with why."""
    done = run("ways", *words, "--compute", "us-east-1")
    assert (done.exit_code, said in done.stderr) == (2, True), done.output

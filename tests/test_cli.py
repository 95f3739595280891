"""The command line: what it says and how it exits."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lakehouse_pipeline.cli.main import main
from lakehouse_pipeline.config.schema import table_schema
from lakehouse_pipeline.demo.project import EXAMPLES
from tests.projects import HOUR, Project, row

ROWS = "at,id\n2024-01-31T05:00:00Z,1\n2024-01-31T05:01:00Z,2\n"


def run(*arguments: str, env: Mapping[str, str] | None = None) -> Result:
    """Run a command as somebody types it."""
    return CliRunner().invoke(main, [*arguments], env=dict(env or {}))


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a project with two hours of raw files, and go there."""
    folder = tmp_path / "lake"
    run("init", str(folder))
    (folder / "raw").mkdir()
    for hour in (5, 6):
        (folder / "raw" / f"2024-01-31-{hour:02d}.csv").write_text(ROWS.replace("T05", f"T{hour:02d}"))
    monkeypatch.chdir(folder)
    monkeypatch.delenv("LAKEHOUSE_CONFIG", raising=False)
    return folder


@pytest.mark.parametrize("example", [None, *EXAMPLES])
def test_init_makes_a_project(example: str | None, tmp_path: Path) -> None:
    """It names every file that it wrote; without an example, too, the project has nothing wrong with it."""
    folder = tmp_path / "lake"
    done = run("init", str(folder), *(["--example", example] if example else []))
    assert done.exit_code == 0
    written = {line.removeprefix("wrote ") for line in done.output.splitlines()}
    assert written == {str(path) for path in folder.rglob("*") if path.is_file()}
    assert json.loads((folder / "tables" / ".schema.json").read_text()) == table_schema()
    if example is None:
        checked = run("check", "-c", str(folder))
        assert (checked.exit_code, checked.output) == (0, "0 tables: no problem was found\n")


def test_from_a_raw_file_to_a_spec_without_a_problem(lake: Path) -> None:
    """`new` says what it wrote and what to type next; `check` finds nothing to correct."""
    done = run("new", "events", "--from", "raw/2024-01-31-05.csv")
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "wrote tables/events.yaml",
        "next: lakehouse check events --hour 2024-01-31-05:00",
        "      lakehouse backfill events 2024-01-31-05:00...2024-01-31-06:00",
    ]
    assert run("check").output.splitlines() == [
        "1 table: no problem was found",
        "  neither engine nor rows were looked at: lakehouse check events --hour 2024-01-31-05:00 does",
    ]


def test_check_makes_no_catalog(lake: Path) -> None:
    """A mistyped path is said, and nothing lies there afterwards; one that is there is not spoken of."""
    run("new", "events", "--from", "raw/2024-01-31-05.csv")
    file = lake / "lakehouse.yaml"
    file.write_text(file.read_text().replace(".lakehouse/catalog.db", "mistyped/catalog.db"))
    assert "  there is no catalog at mistyped/catalog.db yet: the next command makes it\n" in run("check").output
    assert not (lake / "mistyped").exists()
    run("status", "events")
    assert "no catalog" not in run("check").output


def test_every_problem_is_a_line_of_standard_error(lake: Path) -> None:
    """Of the files first; they begin with `file:line`, as terminals and editors open them."""
    (lake / "tables" / "events.yaml").write_text("table: events\nhour: at\n")
    done = run("check")
    assert (done.exit_code, done.stdout) == (2, "")
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == [
        "tables/events.yaml:1",
        "tables/events.yaml:1",
        "tables/events.yaml:1",
    ]


def test_problems_outside_of_the_files(lake: Path) -> None:
    """What the store knows is told in the same way, of one table if one is named."""
    run("new", "events", "--from", "raw/2024-01-31-05.csv")
    (lake / "raw" / "2024-01-31-05.csv").unlink()
    done = run("check", "events")
    assert done.exit_code == 2
    assert done.stderr.startswith("tables/events.yaml:7: source.path: there is no object at ")


@pytest.mark.usefixtures("sail")
def test_an_hour_is_shown(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten rows at most, and that nothing was written."""
    monkeypatch.chdir(project.folder)
    project.session()
    project.land(HOUR, [row(HOUR, 1)])
    done = run("check", "events", "--hour", HOUR)
    assert done.exit_code == 0
    assert done.output.splitlines()[0] == f"{HOUR} UTC: 1 object, 1 row read, 1 row for the table"
    assert done.output.splitlines()[-1] == "nothing was written"
    told = json.loads(run("check", "events", "--hour", HOUR, "--json").stdout)
    assert told["rows"] == [{"at": "2013-01-01 10:01:00+00:00", "id": 1, "size": None}]


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        pytest.param(["init", "new"], {"written"}, id="init"),
        pytest.param(
            ["new", "events", "--from", "raw/2024-01-31-05.csv"],
            {"written", "rows", "files", "look_at", "next"},
            id="new",
        ),
        pytest.param(["check"], {"problems", "tables", "notes"}, id="check"),
        pytest.param(
            ["schema"],
            {"$schema", "title", "type", "additionalProperties", "required", "properties"},
            id="schema",
        ),
    ],
)
def test_json_for_programs(arguments: list[str], keys: set[str], lake: Path) -> None:
    """Standard output is one JSON object, and nothing else."""
    done = run(*arguments, "--json")
    assert done.exit_code == 0
    assert set(json.loads(done.stdout)) == keys


def test_problems_for_programs(lake: Path) -> None:
    """Each with its file, line, key and message; the exit code is as ever."""
    (lake / "tables" / "events.yaml").write_text("nonsense: 1\n")
    done = run("check", "--json")
    assert done.exit_code == 2
    assert {
        "file": "tables/events.yaml",
        "line": 1,
        "key": "nonsense",
        "message": "is no key here; write one of table, description, owners, source, join, transform, columns, hour, "
        "partition, other_hours, key, sort, …",
    } in json.loads(done.stdout)["problems"]


def test_the_lakehouse_may_be_named(lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its file, by its folder, or by a variable; the option comes first."""
    monkeypatch.chdir(tmp_path)
    for named in (lake, lake / "lakehouse.yaml"):
        assert run("check", "-c", str(named), env={"LAKEHOUSE_CONFIG": "nowhere"}).exit_code == 0
    assert run("check", env={"LAKEHOUSE_CONFIG": str(lake / "lakehouse.yaml")}).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        pytest.param(["init", "{tmp}/new", "--example", "trains"], 2, "there is no example 'trains'", id="wrong words"),
        pytest.param(["init", "{tmp}"], 3, "exist already", id="would overwrite"),
        pytest.param(["nonsense"], 2, "No such command", id="no such command"),
        pytest.param(["check", "trains"], 2, "there is no table 'trains'", id="no such table"),
        pytest.param(["check", "-c", "{tmp}/no.yaml"], 2, "does not exist", id="no such lakehouse"),
        pytest.param(["check", "--hour", "2013-01-01-10:00"], 2, "takes a table's name", id="hour of no table"),
        pytest.param(["new", "a", "--from", "no.csv"], 2, "there is no file no.csv", id="no such file"),
        pytest.param(["new", "A-B", "--from", "raw/2024-01-31-05.csv"], 2, "is no table's name", id="no table's name"),
    ],
)
def test_errors_are_exit_codes(lake: Path, arguments: list[str], code: int, said: str) -> None:
    """2 is for configuration, 3 for what a guard refused; a message goes to standard error, and no stack is shown."""
    done = run(*(argument.format(tmp=lake) for argument in arguments))
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.output


def test_new_overwrites_nothing(lake: Path) -> None:
    """A spec that is there is somebody's work."""
    run("new", "events", "--from", "raw/2024-01-31-05.csv")
    spec = lake / "tables" / "events.yaml"
    spec.write_text(f"{spec.read_text()}# mine\n")
    done = run("new", "events", "--from", "raw/2024-01-31-05.csv")
    assert (done.exit_code, done.stdout) == (3, "")
    assert "nothing was written: " in done.stderr
    assert spec.read_text().endswith("# mine\n")


def test_quiet_is_quiet_about_the_jvm_only() -> None:
    """A log warning is told; what goes past Python is not."""
    code = (
        "import logging, os\n"
        "from lakehouse_pipeline.cli.common import quiet\n"
        "with quiet():\n"
        "    os.write(2, b'WARN of the JVM\\n')\n"
        "    logging.getLogger('lakehouse_pipeline').warning('ours')\n"
        "logging.getLogger('lakehouse_pipeline').warning('afterwards')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "ours\nafterwards\n"


def test_commands_are_documented() -> None:
    """The page has every command, every argument and option, and which of them take --json and -c."""
    page = (Path(__file__).parents[1] / "docs/configuration.md").read_text().partition("## Commands")[2]
    rows = re.findall(r"^\| `lakehouse (\w+)(.*)$", page, re.MULTILINE)
    assert {name for name, _ in rows} == set(main.commands)
    has = {"as_json": set[str](), "config": set[str]()}
    for name, command in main.commands.items():
        told = " ".join(text for each, text in rows if each == name)
        for parameter in command.params:
            if str(parameter.name) in has:
                has[str(parameter.name)].add(name)
            else:
                named = str(getattr(parameter, "metavar", None) or parameter.name).upper()
                word = parameter.opts[-1] if parameter.param_type_name == "option" else named
                assert word in told, (name, word)
    for text, names in (
        (r"(.*) take `--json`", has["as_json"]),
        (r"need\sa\slakehouse, (.*), take\s`-c FILE`", has["config"]),
    ):
        found = re.search(text, page)
        assert found
        assert set(re.findall(r"`(\w+)`", found[1])) == names

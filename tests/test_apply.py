"""`lakehouse apply`: what it says, what it changes, and how it exits."""

import json

import pytest
from click.testing import CliRunner, Result

from lakehouse_pipeline.cli.main import main
from lakehouse_pipeline.errors import ConfigurationError
from tests.projects import HOUR, Project, row


def apply(project: Project, *options: str) -> Result:
    """Run the command as somebody types it."""
    return CliRunner().invoke(main, ["apply", "events", "-c", str(project.folder / "lakehouse.yaml"), *options])


def created(project: Project) -> None:
    """Create the project's table, with no hour in it."""
    spec = project.lakehouse.spec("events")
    project.warehouse.create(spec, spec.target_columns or ())


def test_a_table_is_brought_to_its_spec(project: Project) -> None:
    """First shown, then done, then nothing is left; and the next hour runs."""
    created(project)
    project.describe({"properties": "{owner: me}", "sort": "[id]"})
    changes = [
        "it is sorted by nothing, the spec by id asc: sort new files so",
        "property owner is not set in the table, 'me' in the spec: set it to 'me'",
    ]
    shown = apply(project, "--dry-run")
    assert (shown.exit_code, shown.output.splitlines()) == (
        0,
        ["lake.events differs from its spec", *(f"  to do: {change}" for change in changes)],
    )
    done = apply(project, "--json")
    assert json.loads(done.output) == {"table": "lake.events", "exists": True, "changes": changes}
    assert apply(project).output == "lake.events agrees with its spec\n"


def test_a_description_is_set_and_stops_no_hour(project: Project) -> None:
    """What a table is said to be is shown by engines as its comment; hours run, whatever it is."""
    created(project)
    project.describe({"description": "Events, as they came"})
    project.land(HOUR, [row(HOUR, 1)])
    assert project.run().step == "run"
    assert "it has no description: set it to 'Events, as they came'" in apply(project, "--dry-run").output
    apply(project)
    assert project.table.table.properties["comment"] == "Events, as they came"
    assert apply(project).output == "lake.events agrees with its spec\n"


def test_a_table_that_is_not_there_is_no_failure(project: Project) -> None:
    """Its first hour creates it."""
    done = apply(project)
    assert (done.exit_code, done.output) == (0, "lake.events does not exist yet; its first hour creates it\n")


@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=["apply", "dry run"])
def test_what_is_refused_is_a_configuration_error(project: Project, options: tuple[str, ...]) -> None:
    """All of it is listed on standard error, with the way out."""
    project.land(HOUR, [row(HOUR, 1)])
    project.run()
    project.describe({"columns": '{at: timestamptz!, id: "int!"}'})
    refused = apply(project, *options)
    assert refused.exit_code == 2
    assert "lake.events cannot be brought to its spec; nothing was changed:" in refused.stderr
    assert "  column id is long in the table, int in the spec: Iceberg does not change it so" in refused.stderr


def test_a_mistake_in_a_first_spec_is_corrected(project: Project) -> None:
    """A type that the rows do not have leaves an empty table of it: corrected in the spec, it is applied, and runs."""
    project.land(HOUR, [row(HOUR, 1)])
    project.describe({"columns": "{at: timestamptz!, id: binary, size: double}"})
    with pytest.raises(ConfigurationError, match="binary"):
        project.run()
    project.describe({"columns": "{at: timestamptz!, id: long!, size: double}"})
    with pytest.raises(ConfigurationError, match="`lakehouse apply events` brings the table to its spec"):
        project.run()
    said = apply(project).output
    assert "column id is binary in the table, long in the spec: make it long!, as the table has never had a row" in said
    assert project.run().step == "run"
    assert project.ids() == [1]

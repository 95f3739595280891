"""What a look around a spec finds: its catalog, its table, its transform, its first hour."""

import json
from pathlib import Path

import pytest

from lakehouse_pipeline.backfill.survey import survey
from lakehouse_pipeline.errors import ConfigurationError
from tests.projects import HOUR, Project, row


def _survey(project: Project) -> list[str]:
    return [str(problem) for problem in survey(project.lakehouse, ("events",), lambda file: file.name)]


def test_nothing_is_wrong(project: Project) -> None:
    """The first hour is there, and the table agrees with the spec or does not exist yet."""
    project.describe({"start": HOUR})
    project.land(HOUR, [row(HOUR, 1)])
    assert _survey(project) == []
    project.run()
    assert _survey(project) == []


def test_everything_around_a_spec_is_looked_at_at_once(project: Project) -> None:
    """Its module, its raw files and its dimensions, each on its line."""
    project.describe({"transform": "nowhere:clean", "join": "{sizes: raw/sizes.parquet}"})
    raw = f"file://{project.folder}/raw"
    first = ", for the first hour, 2013-01-01-00:00; land it, correct the path or `start`, or write `missing: empty`"
    other = "; land it, correct the path, or write `missing: empty`"
    assert _survey(project) == [
        f"events.yaml:2: source.path: there is no object at {raw}/2013/01/01/00*.jsonl{first}",
        ("events.yaml:6: transform: there is no module nowhere (looked beside the spec and on the Python path)"),
        f"events.yaml:7: join.sizes: there is no object at {raw}/sizes.parquet{other}",
    ]


def test_an_hour_that_may_be_empty_needs_no_file(project: Project) -> None:
    """`missing: empty` says so."""
    project.describe({"source": project.keys["source"].replace("}}", "}, missing: empty}")})
    assert _survey(project) == []


def test_a_table_needs_a_folder(project: Project) -> None:
    """A catalog in a database does not know of one; a run says the same before it makes the table."""
    project.describe({"start": HOUR})
    project.land(HOUR, [row(HOUR, 1)])
    file = project.folder / "lakehouse.yaml"
    catalog = json.dumps({"type": "sql", "uri": "sqlite:///catalog.db"})
    file.write_text(f"catalog: {catalog}\nengine: sail\n")
    said = "the catalog has no folder for a new table: write `warehouse` under `catalog` in lakehouse.yaml"
    [problem] = _survey(project)
    assert problem.startswith(f"events.yaml:1: table: {said}")
    with pytest.raises(ConfigurationError, match=said):
        project.run()
    project.warehouse.catalog.create_namespace("lake", {"location": f"file://{project.folder}/there"})
    assert _survey(project) == []


def test_what_an_engine_does_otherwise_is_said_before_a_run(project: Project) -> None:
    """On the line of the transform."""
    project.describe({"start": HOUR, "transform": "t.sql", "columns": "{at: timestamptz!, id: long!, size: double}"})
    project.land(HOUR, [row(HOUR, 1)])
    project.write("tables/t.sql", "SELECT * FROM source")
    file = project.folder / "lakehouse.yaml"
    file.write_text(file.read_text().replace("engine: local[2]", "engine: sail"))
    [problem] = _survey(project)
    assert problem.startswith("events.yaml:")
    assert ": transform: on sail, " in problem
    assert "write accepts: [integer_overflow]" in problem


def test_a_table_that_differs(project: Project) -> None:
    """The difference stands on the line of the table."""
    project.describe({"start": HOUR})
    project.land(HOUR, [row(HOUR, 1)])
    project.run()
    project.describe({"columns": "{at: timestamptz!, id: string!, size: double}"})
    [problem] = _survey(project)
    assert problem.startswith("events.yaml:1: table: ")
    assert "id is long in the table, string in the spec" in problem


@pytest.mark.parametrize(
    ("catalog", "said"),
    [
        pytest.param("{type: rest, uri: 'http://127.0.0.1:9'}", "cannot be reached", id="no server"),
        pytest.param("{type: nonsense}", "nonsense", id="no such catalog"),
    ],
)
def test_a_catalog_that_does_not_open(catalog: str, said: str, project: Project) -> None:
    """Nothing else can be looked at then."""
    project.write("lakehouse.yaml", f"tables: tables\ncatalog: {catalog}\n")
    [problem] = _survey(project)
    assert problem.startswith("lakehouse.yaml:2: catalog: ")
    assert said in problem


def test_a_store_out_of_reach_is_soon_said(project: Project, tmp_path: Path) -> None:
    """Who only looks does not wait for the minutes that an hour's run would."""
    place = {"type": "sql", "uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"file://{tmp_path}/w"}
    keys = {"s3.endpoint": "http://127.0.0.1:9", "s3.access-key-id": "a", "s3.secret-access-key": "b"}
    project.write("lakehouse.yaml", f"tables: tables\ncatalog: {json.dumps({**place, **keys})}\n")
    project.describe({"source": "{path: s3://raw/%Y/%m/%d/%H.jsonl, columns: {at: timestamptz!, id: long!}}"})
    [problem] = _survey(project)
    assert problem.startswith("events.yaml:")
    assert "source.path: " in problem
    assert "Could not connect to the endpoint URL" in problem

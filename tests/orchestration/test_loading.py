"""Loading the definitions: names that Dagster takes, versions of the recipe, and a store that is away."""

from typing import cast

import dagster as dg
import pytest

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.orchestration.assets import build_defs, code_versions
from tests.projects import Project, parquet

COLUMNS = "{at: timestamptz!, id: long!, size: double}"


def _spec(project: Project) -> dg.AssetSpec:
    asset, *_ = build_defs(project.lakehouse).assets or ()
    return next(iter(cast("dg.AssetsDefinition", asset).specs))


@pytest.mark.parametrize(
    ("table", "group"),
    [("lake.events", "lake"), ("my-lake.events", "my_lake"), ("a.b-c.events", "a_b_c"), ("2013.events", "2013")],
)
def test_group_is_the_namespace(project: Project, table: str, group: str) -> None:
    """Whatever an Iceberg namespace may be called, its assets stand in a group that Dagster takes."""
    project.describe({"table": table})
    assert _spec(project).group_name == group
    assert build_defs(project.lakehouse).resolve_asset_graph()


def test_names_that_dagster_refuses_are_said(project: Project) -> None:
    """A file whose name is a word of Dagster's, or that of another table's job, is named, with all others at once."""
    text = (project.folder / "tables/events.yaml").read_text()
    for name in ("config", "events_job"):
        project.write(f"tables/{name}.yaml", text.replace("lake.events", f"lake.{name}"))
    with pytest.raises(ConfigurationError) as caught:
        build_defs(project.lakehouse)
    first, second = str(caught.value).splitlines()
    assert "tables/config.yaml: " in first
    assert first.endswith("reserved keyword.; rename the file")
    assert "tables/events_job.yaml: is called as the job of events.yaml; rename one of them" in second


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("tables/t.sql", "SELECT at, id, size FROM source JOIN names USING (id)", id="SQL"),
        pytest.param("dims/names.parquet", parquet([{"id": 2}]), id="dimension"),
        pytest.param("dims/more.parquet", parquet([{"id": 2}]), id="another object of the dimension"),
    ],
)
def test_code_version_is_the_recipe(project: Project, name: str, content: str | bytes) -> None:
    """What shapes every hour changes the version; loading the same again does not."""
    project.describe({"join": "{names: dims/*.parquet}", "transform": "t.sql", "columns": COLUMNS})
    project.write("tables/t.sql", "SELECT at, id, size FROM source LEFT JOIN names USING (id)")
    project.write("dims/names.parquet", parquet([{"id": 1}]))
    before = code_versions(project.lakehouse)["events"]
    assert _spec(project).code_version == before
    assert code_versions(project.lakehouse)["events"] == before
    project.write(name, content)
    assert code_versions(project.lakehouse)["events"] != before


def test_code_version_of_a_function_is_its_module(project: Project) -> None:
    """The module's text counts, and is read without running it."""
    project.describe({"transform": "t_never_run:f", "columns": COLUMNS})
    project.write("tables/t_never_run.py", "raise RuntimeError('loading runs nothing')\n")
    before = code_versions(project.lakehouse)["events"]
    project.write("tables/t_never_run.py", "raise RuntimeError('loading runs nothing, still')\n")
    assert code_versions(project.lakehouse)["events"] != before


def test_missing_module_is_said_at_load(project: Project) -> None:
    """A transform that is not there is a problem of the spec, and no hour has to fail of it."""
    project.describe({"transform": "nowhere.at.all:f", "columns": COLUMNS})
    with pytest.raises(ConfigurationError, match=r"events.yaml: transform: there is no module nowhere.at.all"):
        build_defs(project.lakehouse)


def test_store_that_is_away_is_asked_once(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    """Tables with dimensions in an unreachable store load; it is asked for the first, not for each again."""
    project.write(
        "lakehouse.yaml",
        'catalog: {type: sql, uri: "sqlite:///catalog.db", warehouse: "s3://lake", s3.endpoint: "http://127.0.0.1:9", '
        "s3.region: us-east-1, s3.access-key-id: key, s3.secret-access-key: hidden}\nengine: local[2]\n",
    )
    project.describe({"join": "{names: s3://lake/names.parquet}", "transform": "t.sql", "columns": COLUMNS})
    project.write("tables/t.sql", "SELECT at, id, size FROM source")
    for name in ("more", "most"):
        (project.folder / f"tables/{name}.yaml").write_bytes((project.folder / "tables/events.yaml").read_bytes())
        file = project.folder / f"tables/{name}.yaml"
        file.write_text(file.read_text().replace("lake.events", f"lake.{name}"))
    assert len(list(build_defs(project.lakehouse).assets or ())) == 3 * 8  # each table, and what stands beside it
    (said,) = [record for record in caplog.records if record.name.endswith("orchestration.assets")]
    assert "events: its dimensions do not count for its code version" in said.getMessage()
    assert "hidden" not in caplog.text

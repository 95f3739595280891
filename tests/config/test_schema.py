import json
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
import yaml

from lakehouse_pipeline.config.compaction import CompactSettings
from lakehouse_pipeline.config.schema import FIRST_LINE, SCHEMA_FILE, table_schema
from lakehouse_pipeline.config.source import Join, Source
from lakehouse_pipeline.config.table import TableSpec

FLIGHTS = files("lakehouse_pipeline.demo").joinpath("flights", "tables", "flights.yaml").read_text(encoding="utf-8")
SMALLEST = {"table": "a.b", "source": {"path": "r.parquet"}, "hour": "at", "start": "2013-01-01"}


def _problems(spec: Any) -> list[str]:
    validator = jsonschema.Draft7Validator(table_schema())
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(spec)]


def test_it_is_a_json_schema() -> None:
    """It is written as JSON and follows the draft that it names."""
    jsonschema.Draft7Validator.check_schema(json.loads(json.dumps(table_schema())))


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        pytest.param(TableSpec, table_schema()["properties"], id="table"),
        pytest.param(Source, table_schema()["properties"]["source"]["properties"], id="source"),
        pytest.param(CompactSettings, table_schema()["properties"]["compact"]["properties"], id="compact"),
        pytest.param(
            Join,
            table_schema()["properties"]["join"]["additionalProperties"]["anyOf"][1]["properties"],
            id="join",
        ),
    ],
)
def test_every_key_that_people_write_is_in_it(model: Any, keys: dict[str, Any]) -> None:
    """With its description, and nothing that follows from where the file is."""
    described = {name: field.description for name, field in model.model_fields.items() if field.description}
    assert {key: value["description"] for key, value in keys.items()} == described


def test_the_example_fits() -> None:
    """As editors read it, too, which take `3` for a number and a day for a date."""
    assert FLIGHTS.startswith(FIRST_LINE)
    assert SCHEMA_FILE in FIRST_LINE
    assert _problems(json.loads(json.dumps(yaml.safe_load(FLIGHTS), default=str))) == []


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"source": {"path": "r.csv", "columns": {"a": "decimal(9,2)!", "b": "list<long>"}}}, id="types"),
        pytest.param({"join": {"a": "/a.parquet", "b": {"path": "/b.csv", "columns": {"x": "int"}}}}, id="joins"),
        pytest.param({"compact": {"strategy": "zorder", "columns": ["a"], "min_file_size": "1MB"}}, id="compact"),
        pytest.param({"compact": {"min_input_files": 2, "delete_ratio_threshold": "10%"}}, id="numbers of compact"),
        pytest.param({"properties": {"a": 3, "b": True}}, id="scalars of any kind"),
        pytest.param({"partition": ["bucket(16", "id)"], "key": [1e3], "sort": ["id desc"]}, id="lists"),
    ],
)
def test_what_fits(keys: dict[str, Any]) -> None:
    """Whatever our own reader may take."""
    assert _problems({**SMALLEST, **keys}) == []


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        pytest.param({"sorted": ["id"]}, ": Additional properties are not allowed ('sorted' was unexpected)", id="key"),
        pytest.param(
            {"source": {"path": "r", "bad_row": "fail"}},
            "source: Additional properties are not allowed ('bad_row' was unexpected)",
            id="key of the source",
        ),
        pytest.param({"other_hours": "drop"}, "other_hours: 'drop' is not one of ['fail', 'reject']", id="word"),
        pytest.param({"key": "id"}, "key: 'id' is not of type 'array'", id="shape"),
        pytest.param(
            {"compact": {"strategy": "binpack"}},
            "compact.strategy: 'binpack' is not one of ['copy', 'rewrite', 'sort', 'zorder', 'merge']",
            id="word of compact",
        ),
        pytest.param({"source": {}}, "source: 'path' is a required property", id="missing"),
    ],
)
def test_what_an_editor_marks(keys: dict[str, Any], problem: str) -> None:
    """Misspelt keys and words, and values of another shape."""
    assert _problems({**SMALLEST, **keys}) == [problem]

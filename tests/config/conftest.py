"""Specs as text: what the tests of this folder read, without a file where none is needed."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.validation import validated
from lakehouse_pipeline.config.yaml_source import parse_document

SMALLEST = {
    "table": "lake.events",
    "source": "{path: /raw/%Y/%m/%d/%H.csv, columns: {at: timestamptz!, id: long!, size: double}}",
    "hour": "at",
    "start": "2013-01-01",
}
Keys = Mapping[str, str | None]


def _read(keys: Keys, folder: Path) -> tuple[TableSpec | None, list[str]]:
    text = "\n".join(f"{key}: {value}" for key, value in {**SMALLEST, **keys}.items() if value is not None)
    placed = {"name": "events", "file": folder / "tables" / "events.yaml"}
    spec, problems = validated(TableSpec, parse_document(text, "events.yaml"), placed, folder)
    return spec, [f"{problem.key}: {problem.message}" for problem in problems]


@pytest.fixture
def read_spec(tmp_path: Path) -> Callable[[Keys], TableSpec]:
    """Read a spec of the smallest keys and those given, each with its value as YAML; None takes a key out."""

    def read(keys: Keys) -> TableSpec:
        spec, problems = _read(keys, tmp_path)
        assert problems == []
        assert spec is not None
        return spec

    return read


@pytest.fixture
def problems_of(tmp_path: Path) -> Callable[[Keys], list[str]]:
    """Give the problems, `key: message`, of a spec of the smallest keys and those given."""
    return lambda keys: _read(keys, tmp_path)[1]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a file of a project, by its path below the project's folder."""

    def put(name: str, text: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
        return file

    return put

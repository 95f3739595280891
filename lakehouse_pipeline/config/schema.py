"""The JSON Schema of a table's spec, as people write it in YAML, so that editors complete keys and tell misspelt ones.

Made from the models: their keys, words and descriptions. It says the shape only; `config.table` judges the rest.
"""

from collections.abc import Mapping
from typing import Any, get_args

from lakehouse_pipeline.config.compaction import CompactSettings, Strategy
from lakehouse_pipeline.config.model import SpecModel
from lakehouse_pipeline.config.source import Join, Source
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.types import PRIMITIVES

SCHEMA_FILE = ".schema.json"  # beside the specs
FIRST_LINE = f"# yaml-language-server: $schema={SCHEMA_FILE}"  # what editors look for at the top of a spec

_Schema = dict[str, Any]

# Every scalar is read as text: an editor that takes `no` for a boolean and 2013 for a number has nothing to say.
_TEXT: _Schema = {"type": ["string", "number", "boolean"]}
_TEXTS: _Schema = {"type": "array", "items": _TEXT}
_TYPE: _Schema = {
    "anyOf": [
        {"enum": [name + mark for name in PRIMITIVES for mark in ("", "!")]},
        {"type": "string", "pattern": r"^ *(decimal *\(|struct *<|list *<|map *<|[a-z]+ *!? *$)"},
    ]
}
_WRITTEN: dict[str, _Schema] = {  # keys whose models hold something else than what is written
    "columns": {"type": "object", "minProperties": 1, "additionalProperties": _TYPE},
    "transform": _TEXT,
    "partition": _TEXTS,
    "sort": _TEXTS,
    "file_size": {**_TEXT, "default": "256MB"},
    "freshness": _TEXT,
    "lag": _TEXT,
    "late": _TEXT,
    "start": _TEXT,
    "end": _TEXT,
    "properties": {"type": "object", "additionalProperties": _TEXT},
}
_WRITTEN_IN_COMPACT: dict[str, _Schema] = {"strategy": {"enum": list(get_args(Strategy))}}
_TOLD_BY_THE_SUFFIX = "format"


def table_schema() -> dict[str, Any]:
    """Give the JSON Schema (draft 7) of a table's spec."""
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "A table's spec", **_mapping(TableSpec)}


def _mapping(model: type[SpecModel], as_written: Mapping[str, _Schema] = _WRITTEN) -> _Schema:
    made = model.model_json_schema()["properties"]
    written = {name: field for name, field in model.model_fields.items() if field.description}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [key for key, field in written.items() if field.is_required() and key != _TOLD_BY_THE_SUFFIX],
        "properties": {
            key: _value(key, made[key], as_written) | {"description": made[key]["description"]} for key in written
        },
    }


def _value(key: str, made: _Schema, as_written: Mapping[str, _Schema]) -> _Schema:
    if key == "source":
        return _mapping(Source)
    if key == "compact":
        return _mapping(CompactSettings, _WRITTEN_IN_COMPACT)
    if key == "join":
        return {"type": "object", "additionalProperties": {"anyOf": [_TEXT, _mapping(Join)]}}
    if key in as_written:
        return as_written[key]
    if "enum" in made:
        return {name: made[name] for name in ("enum", "default") if name in made}
    return _TEXTS if made.get("type") == "array" else _TEXT

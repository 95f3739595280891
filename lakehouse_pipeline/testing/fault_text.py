"""Faults as people write them: `EFFECT NAME=VALUE …` in a command, a list in a YAML or JSON file."""

import dataclasses
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pydantic
import yaml

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.testing.schedule import Effect, Fault

_FIELDS = {field.name: field for field in dataclasses.fields(Fault)}
_FAULTS = pydantic.TypeAdapter(list[Fault])


def parse_fault(text: str) -> Fault:
    """Read a fault such as `slow-down verb=PutObject times=3`; values with spaces are quoted as in a shell.

    Raises:
        ConfigurationError: it is no such text, or no such fault.
    """
    try:
        effect, *settings = shlex.split(text)
        pairs = dict(setting.split("=", 1) for setting in settings)
    except ValueError as error:
        raise ConfigurationError(f"fault {text!r}: write EFFECT NAME=VALUE …") from error
    written = {name: None if value == "null" else value for name, value in pairs.items()}
    return _checked([{"effect": effect, **written}], repr(text))[0]


def read_faults(file: Path) -> list[Fault]:
    """Read a list of faults, each a mapping of `Fault`'s attributes, in the order in which they are asked.

    Raises:
        ConfigurationError: every problem of the file.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))  # JSON is YAML
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{file}: {error}") from error
    return _checked(content, str(file))


def _checked(content: Any, where: str) -> list[Fault]:
    problems = list(_unknown(content if isinstance(content, list) else ()))
    try:
        faults = _FAULTS.validate_python(content)
    except pydantic.ValidationError as error:
        problems += [f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}" for found in error.errors()]
    if problems:
        raise ConfigurationError(f"{where}: " + "; ".join(problems))
    return faults


def _unknown(items: Iterable[Any]) -> Iterable[str]:
    for number, item in enumerate(items):
        for name in item if isinstance(item, dict) else ():
            if name not in _FIELDS:
                yield f"{number}.{name}: no such name; there are {', '.join(_FIELDS)}"
            elif name == "effect" and item[name] not in tuple(Effect):
                yield f"{number}.effect: {item[name]!r} is none of {', '.join(Effect)}"

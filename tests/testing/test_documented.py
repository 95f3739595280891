"""The page of the fault server names what people can write."""

import dataclasses
from pathlib import Path

import pytest

from lakehouse_pipeline.testing.faults import main
from lakehouse_pipeline.testing.schedule import Effect, Fault

PAGE = (Path(__file__).parents[2] / "docs" / "fault-server.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("effect", list(Effect))
def test_every_effect_is_in_its_table(effect: Effect) -> None:
    """One row an effect."""
    assert f"\n| `{effect}` |" in PAGE


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Fault)])
def test_every_attribute_of_a_fault_is_explained(name: str) -> None:
    """By its name."""
    assert name == "effect" or f"`{name}`" in PAGE or f"`{name}:" in PAGE


@pytest.mark.parametrize("option", [option.opts[0] for option in main.params if option.name not in ("host",)])
def test_every_option_is_named(option: str) -> None:
    """Where it matters."""
    assert option in PAGE

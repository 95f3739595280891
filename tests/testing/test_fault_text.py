"""Faults as people write them."""

import json
from pathlib import Path

import pytest

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.testing.fault_text import parse_fault, read_faults
from lakehouse_pipeline.testing.schedule import Effect, Fault


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("reset", Fault(effect=Effect.RESET), id="effect-only"),
        pytest.param(
            "internal-error verb=PutObject landed=true probability=0.5",
            Fault(effect=Effect.INTERNAL_ERROR, verb="PutObject", landed=True, probability=0.5),
            id="settings",
        ),
        pytest.param("slow delay_s=0.2 times=null", Fault(effect=Effect.SLOW, delay_s=0.2, times=None), id="always"),
        pytest.param("reset path='a b='", Fault(effect=Effect.RESET, path="a b="), id="quoted"),
    ],
)
def test_a_fault_is_one_argument(text: str, expected: Fault) -> None:
    """The effect first, then what is set."""
    assert parse_fault(text) == expected


@pytest.mark.parametrize(
    "text", ["", "explode", "reset verb", "reset colour=red", "reset times=often", "reset path='a"]
)
def test_a_wrong_text_is_refused(text: str) -> None:
    """With the text in the message."""
    with pytest.raises(ConfigurationError, match=r"reset|explode|''"):
        parse_fault(text)


@pytest.mark.parametrize("name", ["faults.yaml", "faults.json"])
def test_a_file_is_a_list(tmp_path: Path, name: str) -> None:
    """YAML or JSON; the order is kept."""
    listed = [{"effect": "reset", "times": None}, {"effect": "refused", "header": "If-None-Match", "landed": True}]
    (tmp_path / name).write_text(json.dumps(listed))
    assert read_faults(tmp_path / name) == [
        Fault(effect=Effect.RESET, times=None),
        Fault(effect=Effect.REFUSED, header="If-None-Match", landed=True),
    ]


def test_all_problems_of_a_file_are_reported(tmp_path: Path) -> None:
    """By position and name."""
    file = tmp_path / "faults.yaml"
    file.write_text("[{effect: explode}, {effect: reset, colour: red}, {effect: reset, after: many}]")
    with pytest.raises(ConfigurationError, match=r"(?s)0\.effect.*1\.colour.*2\.after"):
        read_faults(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """As a mistake of whoever wrote the command."""
    with pytest.raises(ConfigurationError, match=r"absent\.yaml"):
        read_faults(tmp_path / "absent.yaml")

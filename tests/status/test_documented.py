"""The runbook names what alarms."""

from pathlib import Path

import pytest

from lakehouse_pipeline.backfill.checks import KEYS, ORDER, ROWS
from lakehouse_pipeline.cli import common
from lakehouse_pipeline.status.health import CHECKS
from lakehouse_pipeline.testing.crash import VARIABLE

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("check", [*CHECKS, ROWS, KEYS, ORDER])
def test_every_check_has_its_row(check: str) -> None:
    """Whoever is woken by one finds it by its name."""
    assert f"\n| `{check}`" in PAGE


@pytest.mark.parametrize(
    "code",
    [0, common.FAILED, common.CONFIGURATION, common.REFUSED, common.LEASE_HELD, common.CANCELLED],
)
def test_every_exit_code_has_its_row(code: int) -> None:
    """By its number."""
    assert f"\n| {code} | " in PAGE.partition("## Exit codes")[2]


def test_rehearsals_are_named_as_they_are_read() -> None:
    """The variable that kills a process."""
    assert f"`{VARIABLE}`" in PAGE

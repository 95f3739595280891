"""The command line: what it says and how it exits."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from lakehouse_pipeline.cli import main


def test_init_makes_a_project(tmp_path: Path) -> None:
    """It names every file that it wrote, and exits with 0."""
    done = CliRunner().invoke(main, ["init", str(tmp_path / "lake"), "--example", "flights"])
    assert done.exit_code == 0
    written = {line.removeprefix("wrote ") for line in done.output.splitlines()}
    assert written == {str(path) for path in (tmp_path / "lake").rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        pytest.param(["init", "{tmp}/new", "--example", "trains"], 2, "there is no example 'trains'", id="wrong words"),
        pytest.param(["init", "{tmp}"], 3, "exist already", id="would overwrite"),
        pytest.param(["nonsense"], 2, "No such command", id="no such command"),
    ],
)
def test_errors_are_exit_codes(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    """2 is for configuration, 3 for what a guard refused; no stack is shown."""
    (tmp_path / "lakehouse.yaml").write_text("mine")
    done = CliRunner().invoke(main, [argument.format(tmp=tmp_path) for argument in arguments])
    assert done.exit_code == code
    assert said in done.output
    assert "Traceback" not in done.output

"""What the commands share: options, errors turned into exit codes, the lakehouse, and how they speak."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import click

from lakehouse_pipeline.errors import ConfigurationError, LakehouseError, SafetyError
from lakehouse_pipeline.ledger.leases import LeaseHeldError

if TYPE_CHECKING:
    from lakehouse_pipeline.config.lakehouse import Lakehouse

P = ParamSpec("P")

FAILED, CONFIGURATION, REFUSED, LEASE_HELD, CANCELLED = 1, 2, 3, 4, 130

as_json = click.option("--json", "as_json", is_flag=True, help="Say it as JSON, for programs.")
config = click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path, exists=True),
    help="lakehouse.yaml, or its folder; else LAKEHOUSE_CONFIG, else the current folder.",
)


def exits(command: Callable[P, int | None]) -> Callable[P, None]:
    """Turn what a command raises into a message and an exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = command(*args, **kwargs) or 0
        except KeyboardInterrupt:
            click.echo("cancelled", err=True)
            code = CANCELLED
        except LakehouseError as error:
            # Problems of files begin with `file:line`, for terminals and editors to open.
            told = str(error) if hasattr(error, "problems") else f"{type(error).__name__}: {error}"
            click.echo(told, err=True)
            code = _code(error)
        sys.exit(code)

    return run


def _code(error: LakehouseError) -> int:
    if isinstance(error, ConfigurationError):
        return CONFIGURATION
    if isinstance(error, LeaseHeldError):
        return LEASE_HELD
    return REFUSED if isinstance(error, SafetyError) else FAILED


def load(named: Path | None) -> "Lakehouse":
    """Load the lakehouse that a command is about; its files are named as somebody in the current folder would."""
    from lakehouse_pipeline.config.lakehouse import FILE_NAME, find_lakehouse, load_lakehouse
    from lakehouse_pipeline.testing.crash import crash_where_told

    crash_where_told(os.environ)
    file = (named / FILE_NAME if named.is_dir() else named) if named else find_lakehouse(os.environ, Path.cwd())
    return load_lakehouse(shown(file), os.environ)


def shown(file: Path) -> Path:
    """Name a file as somebody in the current folder would."""
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the JVM writes to standard error, below Python's reach, from a command's own words.

    What Python says, such as a warning of a retry, still comes out.
    """
    sys.stderr.flush()
    before = os.dup(2)
    with Path(os.devnull).open("ab") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        with _on(before) if _is_stderr() else nullcontext():
            yield
    finally:
        os.dup2(before, 2)
        os.close(before)


@contextmanager
def _on(descriptor: int) -> Iterator[None]:
    """Let Python's standard error, which log handlers look up as they write, go on where it went."""
    with os.fdopen(os.dup(descriptor), "w", buffering=1, errors="backslashreplace") as err, redirect_stderr(err):
        yield


def _is_stderr() -> bool:
    """Tell whether Python's standard error is the process's: whoever runs a command in their own may have another."""
    try:
        return sys.stderr.fileno() == 2  # noqa: PLR2004  # POSIX's number
    except OSError:
        return False


def say(value: Any, lines: list[str], *, as_json: bool) -> None:
    """Say what came of a command, for programs or for people."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str) if as_json else "\n".join(lines))

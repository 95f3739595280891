"""The command line. A command parses, calls one function and says what came of it; errors become exit codes here."""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import click

from lakehouse_pipeline.errors import ConfigurationError, LakehouseError, SafetyError

P = ParamSpec("P")

FAILED, CONFIGURATION, REFUSED, CANCELLED = 1, 2, 3, 130


def _exits(command: Callable[P, int | None]) -> Callable[P, None]:
    """Turn what a command raises into a message and an exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = command(*args, **kwargs) or 0
        except KeyboardInterrupt:
            click.echo("cancelled", err=True)
            code = CANCELLED
        except LakehouseError as error:
            click.echo(f"{type(error).__name__}: {error}", err=True)
            code = _code(error)
        sys.exit(code)

    return run


def _code(error: LakehouseError) -> int:
    if isinstance(error, ConfigurationError):
        return CONFIGURATION
    return REFUSED if isinstance(error, SafetyError) else FAILED


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lakehouse-pipeline")
def main() -> None:
    """Backfill hourly partitions into Apache Iceberg: Dagster orchestrates, Spark moves rows, Arrow writes bytes."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option("--example", metavar="NAME", help="Copy an example's tables, too: flights.")
@_exits
def init(folder: Path, example: str | None) -> None:
    """Make a project folder: lakehouse.yaml, tables/, dagster.yaml, workspace.yaml."""
    from lakehouse_pipeline.demo.project import init_project

    for path in init_project(folder, example):
        click.echo(f"wrote {path}")


@main.command()
@click.option("--land", is_flag=True, help="Only write the raw files of the local example, to .lakehouse/raw.")
@_exits
def demo(*, land: bool) -> None:
    """Two days of flights into Iceberg on a real S3 server, from nothing to a query."""
    from lakehouse_pipeline.demo.landing import land as land_files
    from lakehouse_pipeline.demo.project import LOCAL_RAW
    from lakehouse_pipeline.demo.run import run_demo
    from lakehouse_pipeline.hours import parse_range
    from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

    if not land:
        run_demo()
        return
    raw = Path(LOCAL_RAW).absolute()
    landed = land_files(LakehouseFileIO({}), f"file://{raw}", parse_range("2013-01...2013-12"))
    click.echo(f"landed {landed.files} raw files of 2013 in {raw} ({landed.kept} were there already)")


@main.command()
@click.option("--port", default=3000, show_default=True, help="Of Dagster's page, on loopback.")
@_exits
def dev(port: int) -> int:
    """Open the demo's lakehouse in Dagster's page."""
    from lakehouse_pipeline.demo.run import run_dev

    return run_dev(port)

"""Commands of the example: flights of 2013 on a server of this machine."""

from pathlib import Path

import click

from lakehouse_pipeline.cli.common import exits


@click.command()
@click.option("--land", is_flag=True, help="Only write the raw files of the local example, to .lakehouse/raw.")
@click.option("--storm", is_flag=True, help="Run all hours while S3 throttles, fails and resets.")
@exits
def demo(*, land: bool, storm: bool) -> None:
    """Two days of flights into Iceberg on a real S3 server, from nothing to a query."""
    from lakehouse_pipeline.demo.landing import land as land_files
    from lakehouse_pipeline.demo.project import LOCAL_RAW
    from lakehouse_pipeline.demo.run import run_demo
    from lakehouse_pipeline.hours import parse_range
    from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

    if not land:
        run_demo(storm=storm)
        return
    raw = Path(LOCAL_RAW).absolute()
    landed = land_files(LakehouseFileIO({}), f"file://{raw}", parse_range("2013-01...2013-12"))
    click.echo(f"landed {landed.files} raw files of 2013 in {raw} ({landed.kept} were there already)")


@click.command()
@click.option("--port", default=3000, show_default=True, help="Of Dagster's page, on loopback.")
@exits
def dev(port: int) -> int:
    """Open the demo's lakehouse in Dagster's page."""
    from lakehouse_pipeline.demo.run import run_dev

    return run_dev(port)

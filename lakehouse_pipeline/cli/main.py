"""The command line. A command parses, calls one function and says what came of it; errors become exit codes here."""

import click

from lakehouse_pipeline.cli.demo import demo, dev
from lakehouse_pipeline.cli.expiry import expire
from lakehouse_pipeline.cli.files import apply, check, init, new, schema
from lakehouse_pipeline.cli.hours import abandon, backfill, commit, health, status, why
from lakehouse_pipeline.cli.manifests import manifests
from lakehouse_pipeline.cli.plans import plan, ways
from lakehouse_pipeline.cli.sweeps import purge, restore, sweep
from lakehouse_pipeline.cli.tables import compact

COMMANDS = (
    *(init, new, check, apply, plan, ways, backfill, status, why, health, commit, abandon),
    *(compact, manifests, expire, sweep, restore, purge),
    *(schema, demo, dev),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lakehouse-pipeline")
def main() -> None:
    """Backfill hourly partitions into Apache Iceberg: Dagster orchestrates, Spark moves rows, Arrow writes bytes."""


for command in COMMANDS:
    main.add_command(command)

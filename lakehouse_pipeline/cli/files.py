"""Commands about the files that somebody writes: a project, a table's spec, and whether they are right."""

import json
from dataclasses import asdict
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING

import click

from lakehouse_pipeline.cli.common import CONFIGURATION, FAILED, as_json, config, exits, load, quiet, say, shown
from lakehouse_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from lakehouse_pipeline.config.lakehouse import Lakehouse

WIDTH = 160  # characters of a line where there is no terminal


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option("--example", metavar="NAME", help="Copy an example's tables, too: flights.")
@as_json
@exits
def init(folder: Path, example: str | None, *, as_json: bool) -> None:
    """Make a project folder: lakehouse.yaml, tables/, dagster.yaml, workspace.yaml."""
    from lakehouse_pipeline.demo.project import init_project

    written = [str(path) for path in init_project(folder, example)]
    say({"written": written}, [f"wrote {path}" for path in written], as_json=as_json)


@click.command()
@click.argument("table")
@click.option("--from", "path", required=True, metavar="PATH", help="One raw file: s3://…, or a local path.")
@config
@as_json
@exits
def new(table: str, path: str, config: Path | None, *, as_json: bool) -> None:
    """Look at a raw file, and at the names beside it, and draft tables/TABLE.yaml."""
    from lakehouse_pipeline.drafts.spec import draft_spec
    from lakehouse_pipeline.drafts.text import next_commands, notes, write_draft
    from lakehouse_pipeline.iceberg.warehouse import Warehouse

    lakehouse = load(config)
    files = Warehouse.open(lakehouse.catalog, patient=False).files
    draft = draft_spec(lakehouse, files, table, path, Path.cwd())
    written = [str(shown(file)) for file in write_draft(draft, lakehouse.tables)]
    look_at, go_on = notes(draft), next_commands(draft)
    say(
        {"written": written, "rows": draft.sample.rows, "files": draft.files, "look_at": look_at, "next": go_on},
        [
            *(f"wrote {file}" for file in written),
            *(f"look at {note}" for note in look_at),
            *(f"{'' if place else 'next:':<6}{command}" for place, command in enumerate(go_on)),
        ],
        as_json=as_json,
    )


@click.command()
@click.argument("table", required=False)
@click.option("--hour", metavar="HOUR", help="Read and transform this hour, such as 2013-01-01-10:00; write nothing.")
@config
@as_json
@exits
def check(table: str | None, hour: str | None, config: Path | None, *, as_json: bool) -> int:
    """Find every problem of the files, and of what they name; with an hour, show ten of its rows."""
    from lakehouse_pipeline.config.problems import SpecError
    from lakehouse_pipeline.planning.units import show_count

    try:
        lakehouse = load(config)
        if hour is not None:
            return _preview(lakehouse, table, hour, as_json=as_json)
        count, notes = _survey(lakehouse, table)
    except SpecError as error:
        if not as_json:
            raise
        say({"problems": [vars(problem) for problem in error.problems]}, [], as_json=True)
        return CONFIGURATION
    say(
        {"problems": [], "tables": count, "notes": notes},
        [f"{show_count(count, 'table')}: no problem was found", *(f"  {note}" for note in notes)],
        as_json=as_json,
    )
    return 0


def _survey(lakehouse: "Lakehouse", table: str | None) -> tuple[int, list[str]]:
    from lakehouse_pipeline.backfill.survey import notes, survey
    from lakehouse_pipeline.config.problems import SpecError

    names = (lakehouse.spec(table).name,) if table else tuple(spec.name for spec in lakehouse.specs)
    if problems := survey(lakehouse, names, lambda file: str(shown(file))):
        raise SpecError(problems)
    return len(names), notes(lakehouse, names, lambda file: str(shown(file)))


def _preview(lakehouse: "Lakehouse", table: str | None, hour: str, *, as_json: bool) -> int:
    from lakehouse_pipeline.backfill.preview import preview_hour
    from lakehouse_pipeline.backfill.preview_text import preview_lines
    from lakehouse_pipeline.engines.sessions import LazySession
    from lakehouse_pipeline.hours import HourWindow
    from lakehouse_pipeline.iceberg.warehouse import Warehouse

    if table is None:
        raise ConfigurationError("--hour takes a table's name before it: lakehouse check TABLE --hour HOUR")
    window, spec = HourWindow.from_key(hour), lakehouse.spec(table)
    session = LazySession(lakehouse.engine, "lakehouse check")
    with quiet():
        try:
            preview = preview_hour(spec, Warehouse.open(lakehouse.catalog), window, session.get)
        finally:
            session.close()
    told = {**asdict(preview), "hour": preview.hour.key, "columns": {item.name: item.type for item in preview.columns}}
    say(told, preview_lines(preview, get_terminal_size((WIDTH, 0)).columns), as_json=as_json)
    return FAILED if preview.elsewhere or preview.missing else 0


@click.command()
@click.argument("table")
@click.option("--dry-run", is_flag=True, help="Say what would be changed, and change nothing.")
@config
@as_json
@exits
def apply(table: str, config: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Bring the Iceberg table to its spec by Iceberg's evolution rules, all of it or nothing."""
    from lakehouse_pipeline.iceberg.warehouse import Warehouse

    lakehouse = load(config)
    spec = lakehouse.spec(table)
    plan = Warehouse.open(lakehouse.catalog).apply(spec, dry_run=dry_run)
    changes = [str(difference) for difference in plan.differences] if plan else []
    says = "differs from" if changes and dry_run else "agrees with"
    first = f"{spec.table} {says} its spec" if plan else f"{spec.table} does not exist yet; its first hour creates it"
    lines = [first, *(f"  {'to do' if dry_run else 'done'}: {change}" for change in changes)]
    say({"table": spec.table, "exists": plan is not None, "changes": changes}, lines, as_json=as_json)


@click.command()
@as_json
@exits
def schema(*, as_json: bool) -> None:
    """Print the JSON Schema of a table's spec, with which editors complete its keys."""
    from lakehouse_pipeline.config.schema import table_schema

    made = table_schema()
    say(made, [json.dumps(made, indent=2)], as_json=as_json)

"""The command line. A command parses, calls one function and says what came of it; errors become exit codes here."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, ParamSpec

import click

from lakehouse_pipeline.errors import ConfigurationError, LakehouseError, SafetyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lakehouse_pipeline.backfill.sealed import SealedAttempt
    from lakehouse_pipeline.config.lakehouse import Lakehouse
    from lakehouse_pipeline.hours import HourWindow
    from lakehouse_pipeline.iceberg.hourly import HourlyTable
    from lakehouse_pipeline.status.picture import TableStatus

P = ParamSpec("P")

_WIDTH = 160  # characters of a line where there is no terminal

WATCH_EVERY_S = 5.0

FAILED, CONFIGURATION, REFUSED, CANCELLED = 1, 2, 3, 130

as_json = click.option("--json", "as_json", is_flag=True, help="Say it as JSON, for programs.")
config = click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path, exists=True),
    help="lakehouse.yaml, or its folder; else LAKEHOUSE_CONFIG, else the current folder.",
)


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
            # Problems of files begin with `file:line`, for terminals and editors to open.
            told = str(error) if hasattr(error, "problems") else f"{type(error).__name__}: {error}"
            click.echo(told, err=True)
            code = _code(error)
        sys.exit(code)

    return run


def _code(error: LakehouseError) -> int:
    if isinstance(error, ConfigurationError):
        return CONFIGURATION
    return REFUSED if isinstance(error, SafetyError) else FAILED


def _load(named: Path | None) -> "Lakehouse":
    """Load the lakehouse that a command is about; its files are named as somebody in the current folder would."""
    from lakehouse_pipeline.config.lakehouse import FILE_NAME, find_lakehouse, load_lakehouse

    file = (named / FILE_NAME if named.is_dir() else named) if named else find_lakehouse(os.environ, Path.cwd())
    return load_lakehouse(_shown(file), os.environ)


def _shown(file: Path) -> Path:
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


@contextmanager
def _quiet() -> Iterator[None]:
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


def _say(value: Any, lines: list[str], *, as_json: bool) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, default=str) if as_json else "\n".join(lines))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lakehouse-pipeline")
def main() -> None:
    """Backfill hourly partitions into Apache Iceberg: Dagster orchestrates, Spark moves rows, Arrow writes bytes."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option("--example", metavar="NAME", help="Copy an example's tables, too: flights.")
@as_json
@_exits
def init(folder: Path, example: str | None, *, as_json: bool) -> None:
    """Make a project folder: lakehouse.yaml, tables/, dagster.yaml, workspace.yaml."""
    from lakehouse_pipeline.demo.project import init_project

    written = [str(path) for path in init_project(folder, example)]
    _say({"written": written}, [f"wrote {path}" for path in written], as_json=as_json)


@main.command()
@click.argument("table")
@click.option("--from", "path", required=True, metavar="PATH", help="One raw file: s3://…, or a local path.")
@config
@as_json
@_exits
def new(table: str, path: str, config: Path | None, *, as_json: bool) -> None:
    """Look at a raw file, and at the names beside it, and draft tables/TABLE.yaml."""
    from lakehouse_pipeline.drafts.spec import draft_spec
    from lakehouse_pipeline.drafts.text import next_commands, notes, write_draft
    from lakehouse_pipeline.iceberg.hourly import Warehouse

    lakehouse = _load(config)
    draft = draft_spec(lakehouse, Warehouse.open(lakehouse.catalog).files, table, path, Path.cwd())
    written = [str(_shown(file)) for file in write_draft(draft, lakehouse.tables)]
    look_at, go_on = notes(draft), next_commands(draft)
    _say(
        {"written": written, "rows": draft.sample.rows, "files": draft.files, "look_at": look_at, "next": go_on},
        [
            *(f"wrote {file}" for file in written),
            *(f"look at {note}" for note in look_at),
            *(f"{'' if place else 'next:':<6}{command}" for place, command in enumerate(go_on)),
        ],
        as_json=as_json,
    )


@main.command()
@click.argument("table", required=False)
@click.option("--hour", metavar="HOUR", help="Read and transform this hour, such as 2013-01-01-10:00; write nothing.")
@config
@as_json
@_exits
def check(table: str | None, hour: str | None, config: Path | None, *, as_json: bool) -> int:
    """Find every problem of the files, and of what they name; with an hour, show ten of its rows."""
    from lakehouse_pipeline.config.problems import SpecError

    try:
        lakehouse = _load(config)
        if hour is not None:
            return _preview(lakehouse, table, hour, as_json=as_json)
        count = _survey(lakehouse, table)
    except SpecError as error:
        if not as_json:
            raise
        _say({"problems": [vars(problem) for problem in error.problems]}, [], as_json=True)
        return CONFIGURATION
    _say(
        {"problems": [], "tables": count}, [f"{count} table{'s' * (count != 1)}: no problem was found"], as_json=as_json
    )
    return 0


def _survey(lakehouse: "Lakehouse", table: str | None) -> int:
    from lakehouse_pipeline.backfill.survey import survey
    from lakehouse_pipeline.config.problems import SpecError

    names = (lakehouse.spec(table).name,) if table else tuple(spec.name for spec in lakehouse.specs)
    if problems := survey(lakehouse, names, lambda file: str(_shown(file))):
        raise SpecError(problems)
    return len(names)


def _preview(lakehouse: "Lakehouse", table: str | None, hour: str, *, as_json: bool) -> int:
    from lakehouse_pipeline.backfill.preview import preview_hour
    from lakehouse_pipeline.backfill.preview_text import preview_lines
    from lakehouse_pipeline.engines.sessions import LazySession
    from lakehouse_pipeline.hours import HourWindow
    from lakehouse_pipeline.iceberg.hourly import Warehouse

    if table is None:
        raise ConfigurationError("--hour takes a table's name before it: lakehouse check TABLE --hour HOUR")
    window, spec = HourWindow.from_key(hour), lakehouse.spec(table)
    session = LazySession(lakehouse.engine, "lakehouse check")
    with _quiet():
        try:
            preview = preview_hour(spec, Warehouse.open(lakehouse.catalog), window, session.get)
        finally:
            session.close()
    told = {**asdict(preview), "hour": preview.hour.key, "columns": {item.name: item.type for item in preview.columns}}
    _say(told, preview_lines(preview, get_terminal_size((_WIDTH, 0)).columns), as_json=as_json)
    return 0


@main.command()
@click.argument("table")
@click.option("--dry-run", is_flag=True, help="Say what would be changed, and change nothing.")
@config
@as_json
@_exits
def apply(table: str, config: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Bring the Iceberg table to its spec by Iceberg's evolution rules, all of it or nothing."""
    from lakehouse_pipeline.iceberg.hourly import Warehouse

    lakehouse = _load(config)
    spec = lakehouse.spec(table)
    plan = Warehouse.open(lakehouse.catalog).apply(spec, dry_run=dry_run)
    changes = [str(difference) for difference in plan.differences] if plan else []
    says = "differs from" if changes and dry_run else "agrees with"
    first = f"{spec.table} {says} its spec" if plan else f"{spec.table} does not exist yet; its first hour creates it"
    lines = [first, *(f"  {'to do' if dry_run else 'done'}: {change}" for change in changes)]
    _say({"table": spec.table, "exists": plan is not None, "changes": changes}, lines, as_json=as_json)


@main.command()
@click.argument("table")
@click.argument("hours", metavar="RANGE")
@click.option("--only-failed", is_flag=True, help="Only the hours that failed, were cancelled, or wait for a commit.")
@click.option("--changed", is_flag=True, help="Only committed hours whose source has changed since.")
@click.option("--force", is_flag=True, help="Run hours that are unchanged, too.")
@click.option("--dry-run", is_flag=True, help="Say which hours would be run, and run none.")
@config
@as_json
@_exits
def backfill(  # a command's options
    table: str,
    hours: str,
    config: Path | None,
    *,
    only_failed: bool,
    changed: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Run hours in this process, as runs of Dagster: `2013-01-01...2013-01-19`, a month, a day, an hour.

    Hours that are unchanged are skipped. A failed hour never stops another, and costs nothing that was sealed.
    """
    from lakehouse_pipeline.hours import parse_range
    from lakehouse_pipeline.status.picture import UNFINISHED

    lakehouse, asked = _load(config), parse_range(hours)
    before = _status(lakehouse, table, asked)
    if outside := before.of(frozenset({"outside start...end"})):
        raise ConfigurationError(
            f"{len(outside)} of {asked} lie outside of {table}'s start and end: {outside[0]} to {outside[-1]}"
        )
    todo, said = list(asked), ""
    if only_failed or changed:
        failed = before.of(UNFINISHED) if only_failed else []
        since = _changed(lakehouse, table, asked) if changed else []
        todo = sorted({*failed, *since})
        named = [f"{len(failed)} failed or did not end"] * only_failed + [f"{len(since)} have changed"] * changed
        said = f", of which {' and '.join(named)}"
    if not as_json:
        click.echo(f"{asked}{said}")
    if dry_run or not todo:
        _say({"table": table, "hours": [hour.key for hour in todo]}, [hour.key for hour in todo], as_json=as_json)
        return 0
    return _backfill(lakehouse, table, hours, todo, force=force, as_json=as_json)


def _backfill(
    lakehouse: "Lakehouse", table: str, asked: str, todo: "list[HourWindow]", *, force: bool, as_json: bool
) -> int:
    from lakehouse_pipeline import events
    from lakehouse_pipeline.orchestration.in_process import run_job
    from lakehouse_pipeline.status.progress import Progress
    from lakehouse_pipeline.status.text import cause_lines, group_causes

    progress = Progress(len(todo), lambda line: click.echo(line, err=True))
    with progress, events.subscribed(progress.heard), _quiet():
        ended = run_job(lakehouse, table, todo, force=force)
    after = _status(lakehouse, table, todo)
    causes = group_causes((hour, *told) for hour, told in ended.failed.items())
    snapshots = len({result.snapshot_id for result in ended.committed.values()} - {None})
    missing = [hour for hour in todo if hour not in ended.finished and hour not in ended.failed]
    done = f"{table}: {len(ended.finished)} of {len(todo)} hours are there"
    done += f" ({len(ended.committed)} committed in {snapshots} snapshot{'s' * (snapshots != 1)}, "
    done += f"{len(ended.finished) - len(ended.committed)} skipped)"
    sealed = len(after.of(frozenset({"sealed"})))
    lines = [f"{done}, {len(ended.failed)} failed" if ended.failed else done, *cause_lines(causes)]
    if missing:
        hours_ = f"{len(missing)} hour{'s' * (len(missing) != 1)}"
        lines.append(f"  {hours_} did not come to an end: {'; '.join(ended.problems)}")
    if ended.failed:
        lines += [f"  {sealed} of them are sealed: their ETL does not run again"] if sealed else []
        lines.append(
            f"Next: lakehouse backfill {table} {asked} --only-failed      "
            "(on Dagster's page: the backfill's menu, \"Re-execute from failure\")"
        )
    told = {
        "table": table,
        "finished": [hour.key for hour in ended.finished],
        "failed": {hour.key: {"error": error, "message": said} for hour, (error, said) in ended.failed.items()},
        "missing": [hour.key for hour in missing],
        "problems": ended.problems,
        "sealed": [hour.key for hour in after.of(frozenset({"sealed"}))],
        "snapshots": snapshots,
        "runs": ended.runs,
    }
    _say(told, lines, as_json=as_json)
    return FAILED if ended.failed or missing else 0


def _changed(lakehouse: "Lakehouse", table: str, hours: "Sequence[HourWindow]") -> "list[HourWindow]":
    from lakehouse_pipeline.backfill.late import changed_hours
    from lakehouse_pipeline.iceberg.hourly import Warehouse

    spec, warehouse = lakehouse.spec(table), Warehouse.open(lakehouse.catalog)
    found = warehouse.find(spec)
    return list(changed_hours(spec, found, warehouse.files, hours)) if found else []


def _status(lakehouse: "Lakehouse", table: str, hours: "Sequence[HourWindow]") -> "TableStatus":
    from lakehouse_pipeline.iceberg.hourly import Warehouse
    from lakehouse_pipeline.status.picture import table_status

    spec = lakehouse.spec(table)
    return table_status(spec, Warehouse.open(lakehouse.catalog).find(spec), hours)


@main.command()
@click.argument("table", required=False)
@click.option("--hours", metavar="RANGE", help="Only these, such as 2013-01 or 2013-01-01...2013-01-19.")
@click.option("--watch", is_flag=True, help="Look again every few seconds, until Ctrl-C.")
@config
@as_json
@_exits
def status(table: str | None, hours: str | None, config: Path | None, *, watch: bool, as_json: bool) -> None:
    """Say which hours are in what state."""
    from lakehouse_pipeline.hours import parse_range
    from lakehouse_pipeline.status.picture import hours_of
    from lakehouse_pipeline.status.text import as_json as picture
    from lakehouse_pipeline.status.text import status_lines

    lakehouse = _load(config)
    asked = parse_range(hours) if hours else None
    specs = [lakehouse.spec(table)] if table else lakehouse.specs
    while True:
        found = [_status(lakehouse, spec.name, asked or hours_of(spec)) for spec in specs]
        lines = [line for each in found for line in status_lines(each)]
        if watch and not as_json:
            click.clear()
        _say({"tables": [picture(each) for each in found]}, lines, as_json=as_json)
        if not watch:
            return
        time.sleep(WATCH_EVERY_S)


@main.command()
@click.argument("table")
@click.argument("hour")
@config
@as_json
@_exits
def why(table: str, hour: str, config: Path | None, *, as_json: bool) -> None:
    """Say why an hour is as it is, and what to type next."""
    from lakehouse_pipeline.hours import HourWindow
    from lakehouse_pipeline.status.text import hour_json, why_lines

    (told,) = _status(_load(config), table, [HourWindow.from_key(hour)]).hours
    _say(hour_json(told), why_lines(table, told), as_json=as_json)


@main.command()
@click.argument("table")
@click.option("--hour", metavar="HOUR", help="Only this hour's, such as 2013-01-01-10:00.")
@config
@as_json
@_exits
def commit(table: str, hour: str | None, config: Path | None, *, as_json: bool) -> int:
    """Commit the sealed attempts that no run is left to commit; needs no engine."""
    from lakehouse_pipeline.backfill.sealed import commit_sealed
    from lakehouse_pipeline.hours import HourWindow

    window = HourWindow.from_key(hour) if hour else None
    found = commit_sealed(_found(_load(config), table), lambda _run_id: False, hour=window)
    lines = [_sealed_line(each) for each in found] or [f"{table}: no attempt waits for its commit"]
    told = [_sealed_json(each) for each in found]
    _say({"table": table, "attempts": told}, lines, as_json=as_json)
    return FAILED if any(each.error for each in found) else 0


@main.command()
@click.argument("table")
@click.option("--hour", required=True, metavar="HOUR", help="Of the attempt, such as 2013-01-01-10:00.")
@click.option("--dry-run", is_flag=True, help="Say what would be given up, and change nothing.")
@config
@as_json
@_exits
def abandon(table: str, hour: str, config: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Give a sealed attempt up: its files are removed, unless it turns out to be in the table."""
    from lakehouse_pipeline.backfill.sealed import abandon_sealed
    from lakehouse_pipeline.hours import HourWindow

    found = _found(_load(config), table)
    told = abandon_sealed(found, lambda _run_id: False, HourWindow.from_key(hour), dry_run=dry_run)
    if told.committed:
        line = _sealed_line(told)
    else:
        what = f"attempt {told.attempt} with {told.rows} rows in {told.files} files"
        line = f"{told.hour}: {what} {'would be' if dry_run else 'is'} abandoned"
    _say({"table": table, "dry_run": dry_run, **_sealed_json(told)}, [line], as_json=as_json)


def _found(lakehouse: "Lakehouse", table: str) -> "HourlyTable":
    from lakehouse_pipeline.iceberg.hourly import Warehouse

    spec = lakehouse.spec(table)
    found = Warehouse.open(lakehouse.catalog).find(spec)
    if found is None:
        raise ConfigurationError(f"{spec.table} does not exist yet: its first hour creates it")
    return found


def _sealed_line(told: "SealedAttempt") -> str:
    what = f"{told.hour}: attempt {told.attempt}"
    if told.error:
        return f"{what} is not committed: {type(told.error).__name__}: {told.error}"
    return f"{what} is committed: {told.rows} rows, {told.files} files"


def _sealed_json(told: "SealedAttempt") -> dict[str, Any]:
    return {
        "hour": told.hour.key,
        "attempt": told.attempt,
        "rows": told.rows,
        "files": told.files,
        "committed": told.committed is not None,
        "snapshot_id": told.committed.snapshot_id if told.committed else None,
        "error": str(told.error) if told.error else None,
    }


@main.command()
@as_json
@_exits
def schema(*, as_json: bool) -> None:
    """Print the JSON Schema of a table's spec, with which editors complete its keys."""
    from lakehouse_pipeline.config.schema import table_schema

    made = table_schema()
    _say(made, [json.dumps(made, indent=2)], as_json=as_json)


@main.command()
@click.option("--land", is_flag=True, help="Only write the raw files of the local example, to .lakehouse/raw.")
@click.option("--storm", is_flag=True, help="Run all hours while S3 throttles, fails and resets.")
@_exits
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


@main.command()
@click.option("--port", default=3000, show_default=True, help="Of Dagster's page, on loopback.")
@_exits
def dev(port: int) -> int:
    """Open the demo's lakehouse in Dagster's page."""
    from lakehouse_pipeline.demo.run import run_dev

    return run_dev(port)

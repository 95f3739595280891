"""Commands about hours: run them, look at them, and decide about sealed ones."""

import shlex
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakehouse_pipeline.cli.common import CANCELLED, FAILED, as_json, config, exits, load, quiet, say
from lakehouse_pipeline.errors import ConfigurationError, LakehouseError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lakehouse_pipeline.backfill.run_plan import RunPlan
    from lakehouse_pipeline.backfill.sealed import SealedAttempt
    from lakehouse_pipeline.config.lakehouse import Lakehouse
    from lakehouse_pipeline.config.table import TableSpec
    from lakehouse_pipeline.hours import HourWindow
    from lakehouse_pipeline.iceberg.hourly import HourlyTable
    from lakehouse_pipeline.iceberg.warehouse import Warehouse
    from lakehouse_pipeline.orchestration.in_process import Ended

WATCH_EVERY_S = 5.0


@click.command()
@click.argument("table")
@click.argument("hours", metavar="RANGE")
@click.option("--only-failed", is_flag=True, help="Only the hours that failed, were cancelled, or wait for a commit.")
@click.option("--changed", is_flag=True, help="Only committed hours whose source has changed since.")
@click.option("--force", is_flag=True, help="Run hours that are unchanged, too.")
@click.option(
    "--plan",
    type=click.Path(path_type=Path),
    help="Run them as a file of `lakehouse plan -o` recommends; refused if what it was made from has changed.",
)
@click.option("--dry-run", is_flag=True, help="Say which hours would be run, and run none.")
@config
@as_json
@exits
def backfill(  # a command's options
    table: str,
    hours: str,
    plan: Path | None,
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
    from lakehouse_pipeline.iceberg.warehouse import Warehouse
    from lakehouse_pipeline.status.picture import UNFINISHED, is_inside, table_status

    lakehouse, asked = load(config), parse_range(hours)
    spec, warehouse = lakehouse.spec(table), Warehouse.open(lakehouse.catalog)
    if future := [each for each in asked if each.start > datetime.now(UTC)]:
        raise ConfigurationError(
            f"{len(future)} of {asked} have not begun yet: {future[0]} to {future[-1]}. Hours are UTC, and it is "
            f"{datetime.now(UTC):%Y-%m-%d %H:%M}"
        )
    before = table_status(spec, warehouse.find(spec), asked)
    if outside := [each for each in asked if not is_inside(spec, each)]:  # whatever was recorded of them before
        raise ConfigurationError(
            f"{len(outside)} of {asked} lie outside of {table}, whose start is {spec.start} and whose end is "
            f"{spec.end or 'open'}: {outside[0]} to {outside[-1]}. Ask for others, or change the spec"
        )
    todo, said = list(asked), ""
    if only_failed or changed:
        failed = before.of(UNFINISHED) if only_failed else []
        since = _changed(warehouse, spec, [each.hour for each in before.live]) if changed else []
        todo = sorted({*failed, *since})
        named = [f"{len(failed)} failed or did not end"] * only_failed + [f"{len(since)} have changed"] * changed
        said = f", of which {' and '.join(named)}"
    if not as_json:
        click.echo(f"{asked}{said}")
    run_plan = _planned(lakehouse, spec, warehouse, todo, plan)
    if dry_run or not todo:
        say({"table": table, "hours": [hour.key for hour in todo]}, [hour.key for hour in todo], as_json=as_json)
        return 0
    ended = _run(lakehouse, table, todo, run_plan, force=force)
    told = {**_told(table, todo, ended), **_recorded(spec, warehouse, todo, ended)}
    options = [*["--only-failed"] * only_failed, *["--changed"] * changed, *["--force"] * force]
    options += ["--plan", str(plan)] if plan else []
    say(told, _summary(told, hours, ended, options), as_json=as_json)
    if ended.cancelled:
        return CANCELLED
    return FAILED if ended.failed or told["missing"] else 0


def _planned(
    lakehouse: "Lakehouse", spec: "TableSpec", warehouse: "Warehouse", todo: "list[HourWindow]", file: Path | None
) -> "RunPlan | None":
    """Read the plan, and refuse it here already: the run would, after its start."""
    from lakehouse_pipeline.backfill.forecast_text import read_plan

    if file is None:
        return None
    plan = read_plan(file, spec.name)
    plan.check(spec, lakehouse, warehouse.files, todo)
    return plan


def _run(
    lakehouse: "Lakehouse", table: str, todo: "list[HourWindow]", plan: "RunPlan | None", *, force: bool
) -> "Ended":
    from lakehouse_pipeline import events
    from lakehouse_pipeline.backfill.every import Every
    from lakehouse_pipeline.orchestration.in_process import run_job
    from lakehouse_pipeline.status.progress import SAID_EVERY_S, Progress

    progress = Progress(lakehouse.spec(table).table, len(todo))
    line = Every(SAID_EVERY_S, lambda: click.echo(progress.line, err=True), "status line")
    with line, events.subscribed(progress.heard), quiet():
        return run_job(lakehouse, table, todo, force=force, plan=plan)


def _recorded(spec: "TableSpec", warehouse: "Warehouse", todo: "list[HourWindow]", ended: "Ended") -> dict[str, Any]:
    """Tell what the hours' records have of it: what fails an hour may keep that from its record, and from us."""
    from lakehouse_pipeline.status.picture import UNFINISHED, table_status

    unfinished = [hour for hour in todo if hour not in ended.finished]
    try:
        after = table_status(spec, warehouse.find(spec), todo)
    except LakehouseError as error:
        said = f"{type(error).__name__}: {error}"
        return {"sealed": [], "unrecorded": [hour.key for hour in unfinished], "unread": said}
    known = {*after.of(UNFINISHED)}
    return {
        "sealed": [hour.key for hour in after.of(frozenset({"sealed"}))],
        "unrecorded": [hour.key for hour in unfinished if hour not in known],
        "unread": "",
    }


def _told(table: str, todo: "list[HourWindow]", ended: "Ended") -> dict[str, Any]:
    return {
        "table": table,
        "finished": [hour.key for hour in ended.finished],
        "failed": {hour.key: {"error": error, "message": said} for hour, (error, said) in ended.failed.items()},
        "missing": [hour.key for hour in todo if hour not in ended.finished and hour not in ended.failed],
        "problems": ended.problems,
        "snapshots": len({result.snapshot_id for result in ended.committed.values()} - {None}),
        "rejected_rows": sum(result.seal.rejected for result in ended.committed.values()),
        "runs": ended.runs,
    }


def _summary(told: "Mapping[str, Any]", asked: str, ended: "Ended", options: "Sequence[str]") -> list[str]:
    from lakehouse_pipeline.planning.units import show_count
    from lakehouse_pipeline.status.text import cause_lines, group_causes, rejected_lines

    forced = "--force" in options
    table, there, snapshots = told["table"], len(ended.finished), told["snapshots"]
    done = f"{table}: {there} of {there + len(told['failed']) + len(told['missing'])} hours are there"
    done += f" ({len(ended.committed)} committed in {show_count(snapshots, 'snapshot')}, "
    done += f"{there - len(ended.committed)} skipped)"
    lines = [f"{done}, {len(ended.failed)} failed" if ended.failed else done]
    lines += cause_lines(group_causes((hour, *said) for hour, said in ended.failed.items()))
    lines += rejected_lines({hour: each.seal.rejected for hour, each in ended.committed.items() if each.seal.rejected})
    if missing := len(told["missing"]):
        lines.append(f"  {show_count(missing, 'hour')} did not come to an end: {'; '.join(ended.problems)}")
    sealed = len(told["sealed"])
    if sealed and (ended.failed or ended.cancelled):
        commits = f"lakehouse commit {table} commits them, and a forced run does them anew"
        lines.append(f"  {sealed} of them are sealed: {commits if forced else 'their ETL does not run again'}")
    if told["unread"]:
        lines.append(f"  what their records say cannot be read: {told['unread']}")
    again = f"the same command once more: lakehouse backfill {table} {shlex.join([asked, *options])}"
    if ended.cancelled:
        lines.append(f"Next: {again}")
    elif unrecorded := len(told["unrecorded"]):
        lines.append(f"  of {unrecorded} no record tells, so that --only-failed does not find them")
        lines.append(f"Next: {again}")
    elif ended.failed:
        lines.append(
            f"Next: lakehouse backfill {table} {asked} --only-failed{' --force' * forced}      "
            "(on Dagster's page: the backfill's menu, \"Re-execute from failure\")"
        )
    return lines


def _changed(warehouse: "Warehouse", spec: "TableSpec", hours: "Sequence[HourWindow]") -> "list[HourWindow]":
    from lakehouse_pipeline.backfill.late import changed_hours

    found = warehouse.find(spec)
    return list(changed_hours(spec, found, warehouse.files, hours)) if found else []


@click.command()
@click.argument("table", required=False)
@click.option("--hours", metavar="RANGE", help="Only these, such as 2013-01 or 2013-01-01...2013-01-19.")
@click.option("--watch", is_flag=True, help="Look again every few seconds, until Ctrl-C.")
@config
@as_json
@exits
def status(table: str | None, hours: str | None, config: Path | None, *, watch: bool, as_json: bool) -> None:
    """Say which hours are in what state."""
    from lakehouse_pipeline.hours import parse_range
    from lakehouse_pipeline.iceberg.warehouse import Warehouse
    from lakehouse_pipeline.status.picture import TableWatch, hours_of
    from lakehouse_pipeline.status.text import as_json as picture
    from lakehouse_pipeline.status.text import status_lines

    lakehouse = load(config)
    asked = parse_range(hours) if hours else None
    specs = [lakehouse.spec(table)] if table else lakehouse.specs
    warehouse, watches = Warehouse.open(lakehouse.catalog), {spec.name: TableWatch(spec) for spec in specs}
    while True:
        found = [watches[spec.name].look(warehouse.find(spec), asked or hours_of(spec)) for spec in specs]
        lines = [line for each in found for line in status_lines(each)]
        if watch and not as_json:
            click.clear()
        say({"tables": [picture(each) for each in found]}, lines, as_json=as_json)
        if not watch:
            return
        time.sleep(WATCH_EVERY_S)


@click.command()
@click.argument("table")
@click.argument("hour")
@config
@as_json
@exits
def why(table: str, hour: str, config: Path | None, *, as_json: bool) -> None:
    """Say why an hour is as it is, and what to type next."""
    from lakehouse_pipeline.hours import HourWindow
    from lakehouse_pipeline.iceberg.warehouse import Warehouse
    from lakehouse_pipeline.status.picture import table_status
    from lakehouse_pipeline.status.text import hour_json, why_lines

    lakehouse = load(config)
    spec = lakehouse.spec(table)
    found = Warehouse.open(lakehouse.catalog).find(spec)
    (told,) = table_status(spec, found, [HourWindow.from_key(hour)]).hours
    say(hour_json(told), why_lines(table, told), as_json=as_json)


@click.command()
@click.argument("table")
@config
@as_json
@exits
def health(table: str, config: Path | None, *, as_json: bool) -> int:
    """Hold a table against the thresholds of lakehouse.yaml's `health`."""
    from lakehouse_pipeline.iceberg.warehouse import Warehouse
    from lakehouse_pipeline.status.health import examine, finding_json, finding_line

    lakehouse = load(config)
    spec = lakehouse.spec(table)
    status, findings = examine(spec, lakehouse.health, Warehouse.open(lakehouse.catalog).find(spec))
    broken = [each for each in findings if not each.passed]
    said = f"{len(broken)} of {len(findings)} checks are broken" if broken else f"{len(findings)} checks hold"
    told = {"table": table, "as_of": status.as_of.isoformat(), "checks": [finding_json(each) for each in findings]}
    say(told, [f"{table}: {said}", *map(finding_line, findings)], as_json=as_json)
    return FAILED if broken else 0


@click.command()
@click.argument("table")
@click.option("--hour", metavar="HOUR", help="Only this hour's, such as 2013-01-01-10:00.")
@config
@as_json
@exits
def commit(table: str, hour: str | None, config: Path | None, *, as_json: bool) -> int:
    """Commit the sealed attempts that no run is left to commit; needs no engine."""
    from lakehouse_pipeline.backfill.sealed import commit_sealed
    from lakehouse_pipeline.hours import HourWindow

    window = HourWindow.from_key(hour) if hour else None
    sealed = commit_sealed(find(load(config), table), lambda _run_id: False, hour=window)
    lines = [_sealed_line(each) for each in sealed] or [f"{table}: no attempt waits for its commit"]
    told = [_sealed_json(each) for each in sealed]
    say({"table": table, "attempts": told}, lines, as_json=as_json)
    return FAILED if any(each.error for each in sealed) else 0


@click.command()
@click.argument("table")
@click.option("--hour", required=True, metavar="HOUR", help="Of the attempt, such as 2013-01-01-10:00.")
@click.option("--dry-run", is_flag=True, help="Say what would be given up, and change nothing.")
@config
@as_json
@exits
def abandon(table: str, hour: str, config: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Give a sealed attempt up: its files are removed, unless it turns out to be in the table."""
    from lakehouse_pipeline.backfill.sealed import abandon_sealed
    from lakehouse_pipeline.hours import HourWindow
    from lakehouse_pipeline.planning.units import show_count

    found = find(load(config), table)
    told = abandon_sealed(found, lambda _run_id: False, HourWindow.from_key(hour), dry_run=dry_run)
    if told.committed:
        line = _sealed_line(told)
    else:
        what = f"attempt {told.attempt} with {show_count(told.rows, 'row')} in {show_count(told.files, 'file')}"
        line = f"{told.hour}: {what} {'would be' if dry_run else 'is'} abandoned"
    say({"table": table, "dry_run": dry_run, **_sealed_json(told)}, [line], as_json=as_json)


def found(warehouse: "Warehouse", spec: "TableSpec") -> "HourlyTable":
    """Load a table that has to be there."""
    table = warehouse.find(spec)
    if table is None:
        raise ConfigurationError(f"{spec.table} does not exist yet: its first hour creates it")
    return table


def find(lakehouse: "Lakehouse", table: str) -> "HourlyTable":
    """Open the catalog, and load a table that has to be there."""
    from lakehouse_pipeline.iceberg.warehouse import Warehouse

    return found(Warehouse.open(lakehouse.catalog), lakehouse.spec(table))


def _sealed_line(told: "SealedAttempt") -> str:
    from lakehouse_pipeline.planning.units import show_count

    what = f"{told.hour}: attempt {told.attempt}"
    if told.error:
        return f"{what} is not committed: {type(told.error).__name__}: {told.error}"
    return f"{what} is committed: {show_count(told.rows, 'row')}, {show_count(told.files, 'file')}"


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

"""Commands about orphans: look for them, move them away, put them back, and remove them for good."""

import uuid
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakehouse_pipeline.cli.common import as_json, config, exits, load, say
from lakehouse_pipeline.cli.hours import find, found
from lakehouse_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from lakehouse_pipeline.iceberg.hourly import HourlyTable
    from lakehouse_pipeline.maintenance.audit import Amount, AuditReport, SweepRules
    from lakehouse_pipeline.maintenance.lease import Held
    from lakehouse_pipeline.maintenance.quarantine import Restored
    from lakehouse_pipeline.maintenance.sweep import Swept


@click.command()
@click.argument("table")
@click.option("--dry-run", is_flag=True, help="Say what is an orphan, and why the rest is none; move nothing.")
@click.option("--delete", is_flag=True, help="For good: without the quarantine this cannot be undone.")
@click.option("--older-than", metavar="AGE", help="Orphans are at least so old, such as 7d; never less than 24h.")
@click.option("--max-files", type=click.IntRange(min=1), help="Refuse to take more.")
@click.option("--max-share", metavar="SHARE", help="Refuse to take more of the bytes that lie there, such as 50%.")
@click.option(
    "--prefix-mismatch",
    type=click.Choice(["error", "ignore", "delete"]),
    default="error",
    help="Of files that the table reaches by another scheme or bucket: take nothing at all, keep them, or take them.",
)
@click.option("--equal-scheme", multiple=True, metavar="A=B", help="A is another spelling of B, as s3a is of s3.")
@click.option("--equal-authority", multiple=True, metavar="A=B", help="A is another name of the bucket B.")
@click.option("--former", multiple=True, metavar="UUID", help="Of a table that is no more, whose files lie there, too.")
@click.option("--list", "listed", metavar="FILE", help="An S3 Inventory or another list of what lies there.")
@config
@as_json
@exits
def sweep(table: str, config: Path | None, *, dry_run: bool, delete: bool, as_json: bool, **told: Any) -> None:
    """Move old files that nothing reaches into the quarantine; abort uploads that nobody goes on with."""
    from lakehouse_pipeline.iceberg.warehouse import Warehouse
    from lakehouse_pipeline.maintenance.audit import SweepRules
    from lakehouse_pipeline.maintenance.sweep import Swept, audit_table
    from lakehouse_pipeline.maintenance.sweep import sweep as run

    lakehouse = load(config)
    rules = _rules(SweepRules.of(lakehouse.maintenance), told)
    warehouse, spec = Warehouse.open(lakehouse.catalog), lakehouse.spec(table)
    loaded, delete = found(warehouse, spec), delete or lakehouse.maintenance.delete
    with _held(loaded, "sweep") as held:
        if dry_run:
            done = Swept(audit_table(warehouse, spec, loaded, rules, held))
        else:
            done = run(warehouse, spec, loaded, rules, held, delete=delete)
    say({"dry_run": dry_run, **_json(done)}, _lines(table, done, dry_run=dry_run), as_json=as_json)


def _rules(rules: "SweepRules", told: dict[str, Any]) -> "SweepRules":
    from lakehouse_pipeline.config.maintenance import YOUNGEST_ORPHAN
    from lakehouse_pipeline.config.quantities import read_age, read_share

    aliases = replace(
        rules.aliases,
        schemes={**rules.aliases.schemes, **_pairs(told["equal_scheme"])},
        authorities=_pairs(told["equal_authority"]),
    )
    age = read_age(told["older_than"]) if told["older_than"] else rules.older_than
    if age < YOUNGEST_ORPHAN:
        raise ConfigurationError("--older-than is less than 24h: a file as young may be one of a writer at work")
    return replace(
        rules,
        older_than=age,
        max_files=told["max_files"] or rules.max_files,
        max_share=read_share(told["max_share"]) if told["max_share"] else rules.max_share,
        prefix_mismatch=told["prefix_mismatch"],
        aliases=aliases,
        former=frozenset(told["former"]),
        listed=_url(told["listed"]) if told["listed"] else "",
    )


def _url(named: str) -> str:
    return named if "://" in named else str(Path(named).absolute())


def _pairs(told: tuple[str, ...]) -> dict[str, str]:
    for each in told:
        if not all(each.partition("=")):
            raise ConfigurationError(f"{each!r} is no pair; write A=B")
    return dict(each.split("=", 1) for each in told)


@click.command()
@click.argument("table")
@click.argument("sweep_id")
@config
@as_json
@exits
def restore(table: str, sweep_id: str, config: Path | None, *, as_json: bool) -> None:
    """Undo a sweep: what it has moved is where it was."""
    from lakehouse_pipeline.maintenance.sweep import restore as run

    loaded = find(load(config), table)
    with _held(loaded, "restore") as held:
        done = run(loaded, sweep_id, held)
    lines = [f"{table}: put back: {_amount(done)}"]
    lines += [f"  left alone, since something else stands there: {url}" for url in done.there]
    lines += [f"  {done.gone} are in the quarantine no more"] if done.gone else []
    say({"table": table, "sweep": sweep_id, **asdict(done)}, lines, as_json=as_json)


@click.command()
@click.argument("table")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@config
@as_json
@exits
def purge(table: str, config: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Remove from the quarantine for good what was moved there longer ago than `maintenance.quarantine_keep`."""
    from lakehouse_pipeline.maintenance.sweep import purge as run
    from lakehouse_pipeline.planning.units import show_bytes, show_count

    lakehouse = load(config)
    loaded = find(lakehouse, table)
    with _held(loaded, "purge") as held:
        done = run(loaded, lakehouse.maintenance.quarantine_keep, held, dry_run=dry_run)
    swept = f"{show_count(len(done.sweeps), 'sweep')} of {show_bytes(done.bytes)}"
    lines = [f"{table}: {'would be ' if dry_run else ''}gone for good: {swept}"]
    lines += [f"  {sweep}" for sweep in done.sweeps]
    lines += [f"  {sweep} can still be undone: lakehouse restore {table} {sweep}" for sweep in done.kept]
    say({"table": table, "dry_run": dry_run, **asdict(done)}, lines, as_json=as_json)


def _held(table: "HourlyTable", doing: str) -> AbstractContextManager["Held"]:
    from lakehouse_pipeline.maintenance.lease import maintaining

    return maintaining(table, doing, f"command-{uuid.uuid4().hex[:8]}")


def _lines(table: str, done: "Swept", *, dry_run: bool) -> list[str]:
    report = done.report
    first = f"{table}: orphans: {_amount(report.orphans)}, of {_amount(report.listed)}"
    lines = [first, *(f"  kept: {_amount(amount)} {why}" for why, amount in sorted(report.kept.items()))]
    if report.uploads or report.uploads_kept:
        lines.append(f"  {len(report.uploads)} open uploads are leaked, {report.uploads_kept} may go on")
    lines += [f"  such as {url}" for url in report.examples] if dry_run else []
    if report.refused:
        lines.append(f"  a sweep would be refused: {report.refused}")
    if not done.sweep:
        return lines
    gone = _amount(done)
    if not done.quarantined:
        return [*lines, f"  deleted: {gone} (sweep {done.sweep})"]
    return [*lines, f"  moved to the quarantine: {gone}; to undo it: lakehouse restore {table} {done.sweep}"]


def _amount(amount: "Amount | Swept | Restored") -> str:
    from lakehouse_pipeline.planning.units import show_bytes, show_count

    return f"{show_count(amount.files, 'file')} of {show_bytes(amount.bytes)}"


def _json(done: "Swept") -> dict[str, Any]:
    return {**_report_json(done.report), **{name: value for name, value in vars(done).items() if name != "report"}}


def _report_json(report: "AuditReport") -> dict[str, Any]:
    return {
        "table": report.table,
        "as_of": report.as_of.isoformat(),
        "folders": report.folders,
        "listed": asdict(report.listed),
        "orphans": asdict(report.orphans),
        "kept": {why: asdict(amount) for why, amount in report.kept.items()},
        "uploads": [each.url for each in report.uploads],
        "uploads_kept": report.uploads_kept,
        "examples": report.examples,
        "refused": report.refused,
    }

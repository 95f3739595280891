"""The command that expires snapshots."""

import uuid
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakehouse_pipeline.cli.common import as_json, config, exits, load, say
from lakehouse_pipeline.cli.hours import find

if TYPE_CHECKING:
    from lakehouse_pipeline.maintenance.expiry import Expired, Files


@click.command()
@click.argument("table")
@click.option("--dry-run", is_flag=True, help="Say what would expire, and which files would go; change nothing.")
@config
@as_json
@exits
def expire(table: str, config: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Take old snapshots, branches and tags out of a table, and remove the files that they alone reached."""
    from lakehouse_pipeline.maintenance.expiry import EXPIRY, look, preview_expiry, run_expiry
    from lakehouse_pipeline.maintenance.lease import maintaining

    lakehouse = load(config)
    settings = lakehouse.maintenance
    loaded = find(lakehouse, table)
    plan = look(loaded, settings.snapshots)
    if dry_run:
        told = preview_expiry(loaded, plan)
    else:
        with maintaining(loaded, EXPIRY, f"expire-{uuid.uuid4()}") as held:
            told = run_expiry(loaded, plan, held, wait=settings.expiry_wait or timedelta(0))
    say(_json(table, told, dry_run=dry_run), _lines(table, told, dry_run=dry_run), as_json=as_json)


def _lines(table: str, told: "Expired", *, dry_run: bool) -> list[str]:
    from lakehouse_pipeline.planning.units import show_count

    retention = told.plan.retention
    gone, kept = len(retention.expired), len(retention.kept)
    first = f"{table}: {show_count(gone, 'snapshot')} {'to expire' if dry_run else 'expired'}, {kept} kept"
    lines = [first if gone else f"{table}: no snapshot is old enough to expire, {kept} kept"]
    lines += [f"  {ref}  {'to go' if dry_run else 'gone'}: too old" for ref in retention.refs_removed]
    lines += [
        f"  kept {count}: {f'{ref}, ' if ref else ''}{why}" for (why, ref), count in sorted(told.plan.reasons.items())
    ]
    lines += [f"  put back: {ref}, which was made meanwhile" for ref in told.put_back]
    lines += _file_lines(told.files, "to remove" if dry_run else "removed")
    if told.finished:
        lines.append(f"  an earlier expiry {'is to be' if dry_run else 'was'} finished, from {told.finished}")
        lines += [f"  {line}" for line in _file_lines(told.files_of_earlier, "removed")]
    return lines


def _file_lines(files: "Files", verb: str) -> list[str]:
    from lakehouse_pipeline.planning.units import show_bytes, show_count

    removed = [
        f"{show_count(each.files, f'{each.kind} file')}{f' of {show_bytes(each.bytes)}' if each.bytes else ''}"
        for each in files.removed
    ]
    return [
        *(f"  {verb}: {told}" for told in removed),
        *(f"  left where they are: {show_count(count, 'file')} {why}" for why, count in sorted(files.left.items())),
    ]


def _json(table: str, told: "Expired", *, dry_run: bool) -> dict[str, Any]:
    retention = told.plan.retention
    return {
        "table": table,
        "dry_run": dry_run,
        "committed": told.committed,
        "expired": list(retention.expired),
        "kept": [asdict(each) for each in retention.kept],
        "refs_removed": [str(ref) for ref in retention.refs_removed],
        "put_back": list(told.put_back),
        **_files_json(told.files),
        "finished": told.finished or None,
        "finished_files": _files_json(told.files_of_earlier),
    }


def _files_json(files: "Files") -> dict[str, Any]:
    return {"removed": [asdict(each) for each in files.removed], "left": dict(files.left)}

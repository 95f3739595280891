"""Commands about tables as wholes: what keeps them in shape."""

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakehouse_pipeline.cli.common import FAILED, as_json, config, exits, load, say
from lakehouse_pipeline.cli.hours import found

if TYPE_CHECKING:
    from lakehouse_pipeline.maintenance.compaction import Compacted
    from lakehouse_pipeline.maintenance.plan import CompactionPlan


@click.command()
@click.argument("table")
@click.argument("hours", metavar="RANGE", required=False)
@click.option("--dry-run", is_flag=True, help="Say which hours would be compacted, and why; change nothing.")
@config
@as_json
@exits
def compact(table: str, hours: str | None, config: Path | None, *, dry_run: bool, as_json: bool) -> int:
    """Write the rows of hours with many small files into fewer files, and prove that they are the same."""
    from lakehouse_pipeline.hours import parse_range
    from lakehouse_pipeline.iceberg.hourly import Warehouse
    from lakehouse_pipeline.maintenance.compaction import compact as run
    from lakehouse_pipeline.maintenance.compaction import look

    lakehouse = load(config)
    warehouse, spec = Warehouse.open(lakehouse.catalog), lakehouse.spec(table)
    asked = list(parse_range(hours)) if hours else None
    plan = look(lakehouse.maintenance, found(warehouse, spec), asked)
    done = [] if dry_run else run(warehouse, spec, plan, f"compact-{uuid.uuid4()}")
    told = {"table": table, "dry_run": dry_run, **_planned_json(plan), "compacted": [_json(each) for each in done]}
    say(told, [*_plan_lines(table, plan), *map(_line, done)], as_json=as_json)
    return FAILED if any(each.error for each in done) else 0


def _plan_lines(table: str, plan: "CompactionPlan") -> list[str]:
    size, outputs = sum(each.bytes for each in plan.hours), sum(each.outputs for each in plan.hours)
    files = sum(len(each.files) for each in plan.hours)
    count = f"{len(plan.hours)} hour{'s' * (len(plan.hours) != 1)}"
    first = f"{table}: {count} to compact, {files} files of {size / 1e6:.1f} MB into about {outputs}"
    lines = [first if plan.hours else f"{table}: no hour has files that are worth compacting"]
    lines += [f"  {each.hour}  {len(each.files):>6} files into {each.outputs}: {each.why}" for each in plan.hours]
    return [*lines, *(f"  {hour}  left alone: {why}" for hour, why in plan.left.items())]


def _line(told: "Compacted") -> str:
    if told.committed is None:
        return f"  {told.hour}  not compacted: {type(told.error).__name__}: {told.error}"
    seal = told.committed.seal
    before = f"{told.files_before} files of {told.bytes_before / 1e6:.3f} MB"
    after = f"{seal.files} of {seal.bytes / 1e6:.3f} MB"
    return f"  {told.hour}  {before} are {after} now, in snapshot {told.committed.snapshot_id}"


def _planned_json(plan: "CompactionPlan") -> dict[str, Any]:
    return {
        "hours": [
            {
                "hour": each.hour.key,
                "files": len(each.files),
                "bytes": each.bytes,
                "outputs": each.outputs,
                "why": each.why,
            }
            for each in plan.hours
        ],
        "left": {hour.key: why for hour, why in plan.left.items()},
    }


def _json(told: "Compacted") -> dict[str, Any]:
    seal = told.committed.seal if told.committed else None
    return {
        "hour": told.hour.key,
        "files_before": told.files_before,
        "bytes_before": told.bytes_before,
        "files": seal.files if seal else None,
        "bytes": seal.bytes if seal else None,
        "snapshot_id": told.committed.snapshot_id if told.committed else None,
        "error": str(told.error) if told.error else None,
    }

"""Commands about tables as wholes: what keeps them in shape."""

import uuid
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakehouse_pipeline.cli.common import FAILED, as_json, config, exits, load, say
from lakehouse_pipeline.cli.hours import found

if TYPE_CHECKING:
    from lakehouse_pipeline.maintenance.compaction import Compacted
    from lakehouse_pipeline.maintenance.compaction_plan import CompactionPlan


@click.command()
@click.argument("table")
@click.argument("hours", metavar="[RANGE]", required=False)
@click.option("--dry-run", is_flag=True, help="Say what would be compacted, how, and why; change nothing.")
@config
@as_json
@exits
def compact(table: str, hours: str | None, config: Path | None, *, dry_run: bool, as_json: bool) -> int:
    """Write files that are too small, too large or full of deleted rows anew, and prove that no row changed."""
    from lakehouse_pipeline.hours import parse_range
    from lakehouse_pipeline.iceberg.warehouse import Warehouse
    from lakehouse_pipeline.maintenance.compaction import compact as run
    from lakehouse_pipeline.maintenance.compaction import look, workers_of
    from lakehouse_pipeline.maintenance.lease import maintaining

    lakehouse = load(config)
    warehouse, spec = Warehouse.open(lakehouse.catalog), lakehouse.spec(table)
    asked = list(parse_range(hours)) if hours else None
    loaded, run_id, done = found(warehouse, spec), f"compact-{uuid.uuid4()}", []
    if dry_run:
        plan = look(lakehouse.maintenance, spec, loaded, asked)
    else:
        with ExitStack() as ends, maintaining(loaded, "compaction", run_id) as held:
            plan = look(lakehouse.maintenance, spec, loaded, asked)
            workers = workers_of(lakehouse.maintenance, cache(lambda: _session(lakehouse.engine, ends)))
            for each in run(warehouse, spec, plan, run_id, workers):
                held.check()
                done.append(each)
    told = {"table": table, "dry_run": dry_run, **_planned_json(plan), "compacted": [_json(each) for each in done]}
    say(told, [*_plan_lines(table, plan), *map(_line, done)], as_json=as_json)
    # Who stepped aside for a writer has not failed: the next look plans its hour again.
    return FAILED if any(each.error and not each.stepped_aside for each in done) else 0


def _session(engine: str, ends: ExitStack) -> Any:
    """Start a session that ends with the command, or join the one of this process; most commands need none."""
    from lakehouse_pipeline.engines.sessions import LazySession

    session = LazySession(engine, "lakehouse_pipeline")
    ends.callback(session.close)
    return session.get()


def _plan_lines(table: str, plan: "CompactionPlan") -> list[str]:
    from lakehouse_pipeline.planning.units import show_bytes, show_count, show_dollars, show_seconds

    size, outputs = sum(each.bytes for each in plan.hours), sum(each.outputs for each in plan.hours)
    files = sum(each.files for each in plan.hours)
    count = show_count(len(plan.hours), "hour")
    first = (
        f"{table}: {count} to compact, {show_count(files, 'file')} of {show_bytes(size)} into about {outputs:,}; "
        f"about {show_seconds(plan.seconds)} of one core, and {show_dollars(plan.dollars)} of requests on S3"
    )
    lines = [first if plan.hours else f"{table}: no hour has files that are worth compacting"]
    lines += [f"  {each.hour}  {each}" for each in plan.hours]
    return [*lines, *(f"  {hour}  left alone: {why}" for hour, why in plan.left.items())]


def _line(told: "Compacted") -> str:
    from lakehouse_pipeline.planning.units import show_bytes, show_count

    if told.committed is None:
        return f"  {told.hour}  not compacted: {type(told.error).__name__}: {told.error}"
    before = f"{show_count(told.files_before, 'file')} of {show_bytes(told.bytes_before)}"
    how = ", ".join(strategy for strategy, _ in told.strategies) or "deletes of nothing removed"
    after = f"{told.files:,} of {show_bytes(told.bytes)}"
    return f"  {told.hour}  {before} are {after} now ({how}), in snapshot {told.committed.snapshot_id}"


def _planned_json(plan: "CompactionPlan") -> dict[str, Any]:
    return {
        "hours": [
            {
                "hour": each.hour.key,
                "files": each.files,
                "bytes": each.bytes,
                "outputs": each.outputs,
                "why": str(each),
                "groups": [
                    {
                        "files": len(group.files),
                        "deletes": len(group.deletes),
                        "bytes": group.bytes,
                        "strategy": group.strategy,
                        "reason": group.reason,
                        "why": group.why,
                    }
                    for group in each.groups
                ],
            }
            for each in plan.hours
        ],
        "seconds": round(plan.seconds, 1),
        "dollars": round(plan.dollars, 4),
        "left": {hour.key: why for hour, why in plan.left.items()},
    }


def _json(told: "Compacted") -> dict[str, Any]:
    return {
        "hour": told.hour.key,
        "files_before": told.files_before,
        "bytes_before": told.bytes_before,
        "files": told.files if told.committed else None,
        "bytes": told.bytes if told.committed else None,
        "bytes_apart": told.bytes_apart,
        "strategies": [{"strategy": strategy, "reason": reason} for strategy, reason in told.strategies],
        "snapshot_id": told.committed.snapshot_id if told.committed else None,
        "error": str(told.error) if told.error else None,
    }

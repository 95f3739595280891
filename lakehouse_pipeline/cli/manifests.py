"""The command that keeps a table's manifests in order."""

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakehouse_pipeline.cli.common import as_json, config, exits, load, say
from lakehouse_pipeline.cli.hours import find

if TYPE_CHECKING:
    from lakehouse_pipeline.maintenance.manifests import ManifestPlan, ManifestsRewritten


@click.command()
@click.argument("table")
@click.option("--dry-run", is_flag=True, help="Say which manifests would be written anew, and why; change nothing.")
@config
@as_json
@exits
def manifests(table: str, config: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Write the table's manifests anew where that lets an hour be found in fewer of them; no data file is touched."""
    from lakehouse_pipeline.maintenance.lease import maintaining
    from lakehouse_pipeline.maintenance.manifests import look, rewrite_manifests

    lakehouse = load(config)
    at_hand = find(lakehouse, table)
    plan = look(at_hand)
    done = None
    if not dry_run:
        with maintaining(at_hand, "manifests", f"manifests-{uuid.uuid4()}") as held:
            done = rewrite_manifests(at_hand, plan, held)
    told = {"table": table, "dry_run": dry_run, **_planned_json(plan), **(_json(done) if done else {})}
    say(told, [*_plan_lines(table, plan), *(_lines(done) if done else [])], as_json=as_json)


def _plan_lines(table: str, plan: "ManifestPlan") -> list[str]:
    from lakehouse_pipeline.planning.units import show_bytes, show_count

    if not plan.groups:
        return [f"{table}: all manifests are well placed ({plan.kept})"]
    first = (
        f"{table}: {show_count(plan.manifests, 'manifest')} of {show_bytes(plan.bytes)}, with {plan.entries:,} "
        f"entries, into about {plan.outputs}; {plan.kept} stay as they are"
    )
    return [first, *(f"  {len(group.manifests)} into about {group.outputs}: {group.why}" for group in plan.groups)]


def _lines(done: "ManifestsRewritten") -> list[str]:
    lines = [f"  removed {url}, which an earlier run had left" for url in done.left_removed]
    if done.commit:
        made = done.commit
        lines.append(
            f"  {made.replaced} manifests are {made.created} now, {made.kept} are as they were, "
            f"in snapshot {made.snapshot_id}"
        )
    return lines


def _planned_json(plan: "ManifestPlan") -> dict[str, Any]:
    return {
        "manifests": plan.manifests,
        "outputs": plan.outputs,
        "entries": plan.entries,
        "bytes": plan.bytes,
        "kept": plan.kept,
        "groups": [
            {"manifests": len(group.manifests), "outputs": group.outputs, "why": group.why} for group in plan.groups
        ],
    }


def _json(done: "ManifestsRewritten") -> dict[str, Any]:
    return {
        "snapshot_id": done.commit.snapshot_id if done.commit else None,
        "created": done.commit.created if done.commit else 0,
        "replaced": done.commit.replaced if done.commit else 0,
        "left_removed": list(done.left_removed),
    }

"""What keeps a table in shape, as assets beside it: sweeps, expiry, manifest rewrites and purges of the quarantine.

Each has a job, and a sensor that asks for it where metadata say that there is something to do. The sensors are stopped
until somebody starts them on Dagster's page, and of those whose runs remove something the first request is for a report
only. One run maintains a table at a time: who finds another at work leaves it to the next tick.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from lakehouse_pipeline.config.lakehouse import Lakehouse
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.errors import LakehouseError
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.manifests import digest
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.ledger.leases import LeaseHeldError
from lakehouse_pipeline.maintenance import expiry, manifests, sweep
from lakehouse_pipeline.maintenance.audit import Amount, SweepRules
from lakehouse_pipeline.maintenance.lease import Held, at_work, maintaining
from lakehouse_pipeline.orchestration.resources import RunLog
from lakehouse_pipeline.planning.units import show_bytes, show_count

LOOK_EVERY_S = 600
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class ChoreConfig(dg.Config):
    """What a run of a chore is told.

    Attributes:
        dry_run: look and report, and change nothing.
    """

    dry_run: bool = False


@dataclass(frozen=True)
class AtTable:
    """What a chore is done with.

    Attributes:
        lakehouse: whose settings count.
        spec: the table's.
        warehouse: where it is.
        table: loaded now.
        held: the maintenance lease.
        dry_run: change nothing.
    """

    lakehouse: Lakehouse
    spec: TableSpec
    warehouse: Warehouse
    table: HourlyTable
    held: Held
    dry_run: bool


@dataclass(frozen=True)
class Seen:
    """What a sensor has seen.

    Attributes:
        said: for people.
        due: names what there is to do; empty where there is nothing.
    """

    said: str
    due: str = ""


@dataclass(frozen=True)
class Chore:
    """One of the things that keep a table in shape.

    Attributes:
        name: ends the asset's.
        description: of the asset.
        every: the least time between two runs that a sensor asks for.
        removes: whether it removes anything: the sensor's first request is for a report then.
        look: what there is to do, from metadata and the ledger alone.
        run: does it, and gives what is told of it.
    """

    name: str
    description: str
    every: timedelta
    removes: bool
    look: Callable[[Lakehouse, HourlyTable], Seen]
    run: Callable[[AtTable], Mapping[str, Any]]

    def of(self, spec: TableSpec) -> str:
        """Name the asset."""
        return f"{spec.name}_{self.name}"


def unmaintained(lakehouse: Lakehouse, spec: TableSpec, instance: dg.DagsterInstance) -> HourlyTable | dg.SkipReason:
    """Load a table for a sensor, or say why there is nothing to ask for: it does not exist, or is being maintained."""
    table = Warehouse.open(lakehouse.catalog, patient=False).find(spec)
    if table is None:
        return dg.SkipReason("the table does not exist yet")
    holder = at_work(table, RunLog(instance).is_over)
    return dg.SkipReason(holder) if holder else table


def chore_names(spec: TableSpec) -> Sequence[str]:
    """Name the assets of a table's upkeep."""
    return [chore.of(spec) for chore in CHORES]


def chore_assets(lakehouse: Lakehouse, spec: TableSpec, group: str) -> list[dg.AssetsDefinition]:
    """Make the assets of a table's upkeep; to materialize one is to do it now."""
    return [_asset(chore, lakehouse, spec, group) for chore in CHORES]


def chore_jobs(lakehouse: Lakehouse, spec: TableSpec) -> tuple[list[Any], list[dg.SensorDefinition]]:
    """Make the jobs of a table's upkeep, and the sensors that ask for them."""
    jobs = [
        dg.define_asset_job(f"{chore.of(spec)}_job", selection=dg.AssetSelection.assets(chore.of(spec)))
        for chore in CHORES
    ]
    return jobs, [_sensor(chore, lakehouse, spec, job) for chore, job in zip(CHORES, jobs, strict=True)]


def _asset(chore: Chore, lakehouse: Lakehouse, spec: TableSpec, group: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=chore.of(spec),
        description=chore.description.format(spec.table),
        deps=[spec.name],
        group_name=group,
        owners=list(spec.owners),
        kinds={"iceberg"},
    )
    def asset(context: dg.AssetExecutionContext, config: ChoreConfig) -> dg.MaterializeResult[None]:
        try:
            warehouse = Warehouse.open(lakehouse.catalog)
            table = warehouse.find(spec)
            if table is None:
                return dg.MaterializeResult(metadata={"skipped": "the table does not exist yet"})
            is_over = RunLog(context.instance).is_over
            with maintaining(table, chore.name, context.run.run_id, is_over) as held:
                told = chore.run(AtTable(lakehouse, spec, warehouse, table, held, config.dry_run))
        except LeaseHeldError as error:
            context.log.warning("left to the next run: %s", error)
            return dg.MaterializeResult(metadata={"skipped": str(error)})
        except LakehouseError as error:
            raise dg.Failure(f"{spec.table}: {type(error).__name__}: {error}") from None
        return dg.MaterializeResult(metadata={"dry_run": config.dry_run, **told})

    return asset


def _sensor(chore: Chore, lakehouse: Lakehouse, spec: TableSpec, job: Any) -> dg.SensorDefinition:
    first = " The first request is for a report only." if chore.removes else ""

    @dg.sensor(
        name=f"{chore.of(spec)}_watch",
        description=f"Asks for {chore.of(spec)} where there is something to do.{first}",
        minimum_interval_seconds=LOOK_EVERY_S,
        job=job,
    )
    def watch(context: dg.SensorEvaluationContext) -> Any:
        table = unmaintained(lakehouse, spec, context.instance)
        if isinstance(table, dg.SkipReason):
            return table
        seen, now = chore.look(lakehouse, table), datetime.now(UTC)
        asked = datetime.fromisoformat(json.loads(context.cursor)["asked"]) if context.cursor else None
        if not seen.due:
            return dg.SkipReason(seen.said)
        if asked and now - asked < chore.every:
            return dg.SkipReason(f"{seen.said}; asked for at {asked:%Y-%m-%d %H:%M} UTC, again after {chore.every}")
        report = chore.removes and asked is None
        request = dg.RunRequest(
            # Once, whatever becomes of the tick; again when the time has come, and not before.
            run_key=f"{chore.of(spec)}:{'report' if report else asked or 'first'}:{seen.due}",
            run_config={"ops": {chore.of(spec): {"config": {"dry_run": report}}}},
        )
        return dg.SensorResult(run_requests=[request], cursor=json.dumps({"asked": now.isoformat()}))

    return watch


# ---------------------------------------------------------------------------------------------------------------------
# The chores
# ---------------------------------------------------------------------------------------------------------------------


def _look_for_orphans(_: Lakehouse, table: HourlyTable) -> Seen:
    last = sweep.last_audit(table)
    if last is None:
        return Seen("the folders were never audited", "first")
    return Seen(
        f"the audit of {last.as_of:%Y-%m-%d %H:%M} UTC left "
        f"{show_count(last.orphans, 'orphan')} of {show_bytes(last.orphan_bytes)}",
        last.as_of.isoformat(),
    )


def _sweep(at: AtTable) -> Mapping[str, Any]:
    settings, rules = at.lakehouse.maintenance, SweepRules.of(at.lakehouse.maintenance)
    if at.dry_run:
        done = sweep.Swept(sweep.audit_table(at.warehouse, at.spec, at.table, rules, at.held))
    else:
        done = sweep.sweep(at.warehouse, at.spec, at.table, rules, at.held, delete=settings.delete)
    report = done.report
    return {
        "listed_files": report.listed.files,
        "listed_bytes": report.listed.bytes,
        "orphans": report.orphans.files,
        "orphan_bytes": report.orphans.bytes,
        "kept": dg.MetadataValue.json({why: _said(amount) for why, amount in report.kept.items()}),
        "examples": dg.MetadataValue.json(list(report.examples)),
        "would_be_refused": report.refused or "no",
        "sweep": done.sweep or "none",
        "quarantined": done.quarantined,
        "removed_files": done.files,
        "removed_bytes": done.bytes,
        "spared": done.spared,
        "leaked_uploads": len(report.uploads),
        "aborted_uploads": done.uploads,
    }


def _said(amount: Amount) -> str:
    return f"{show_count(amount.files, 'file')}, {show_bytes(amount.bytes)}"


def _look_for_snapshots(lakehouse: Lakehouse, table: HourlyTable) -> Seen:
    if left := expiry.unfinished(table):
        return Seen("an expiry was not ended", left)
    retention = expiry.look(table, lakehouse.maintenance.snapshots).retention
    said = f"{len(retention.expired)} snapshots are old enough to expire, {len(retention.kept)} are kept"
    return Seen(said, digest(map(str, retention.expired)) if retention.expired or retention.refs_removed else "")


def _expire(at: AtTable) -> Mapping[str, Any]:
    settings = at.lakehouse.maintenance
    plan = expiry.look(at.table, settings.snapshots)
    if at.dry_run:
        done = expiry.preview_expiry(at.table, plan)
    else:
        done = expiry.run_expiry(at.table, plan, at.held, wait=settings.expiry_wait or timedelta(0))
    retention = done.plan.retention
    return {
        "expired": len(retention.expired),
        "kept": dg.MetadataValue.json(
            {f"{ref}: {why}" if ref else why: count for (why, ref), count in sorted(done.plan.reasons.items())}
        ),
        "refs_removed": dg.MetadataValue.json([str(ref) for ref in retention.refs_removed]),
        "refs_put_back": dg.MetadataValue.json(list(done.put_back)),
        "removed": dg.MetadataValue.json({each.kind: each.files for each in done.files.removed}),
        "removed_bytes": sum(each.bytes for each in done.files.removed),
        "left": dg.MetadataValue.json(dict(done.files.left)),
    }


def _look_at_manifests(_: Lakehouse, table: HourlyTable) -> Seen:
    plan = manifests.look(table)
    said = f"{plan.manifests} manifests are worth writing anew, {plan.kept} are well placed"
    return Seen(said, str(table.head) if plan.groups else "")


def _rewrite_manifests(at: AtTable) -> Mapping[str, Any]:
    plan = manifests.look(at.table)
    told = {"manifests_before": plan.manifests + plan.kept, "worth_it": plan.manifests}
    if at.dry_run:
        return told
    done = manifests.rewrite_manifests(at.table, plan, at.held)
    return {
        **told,
        "created": done.commit.created if done.commit else 0,
        "replaced": done.commit.replaced if done.commit else 0,
        "left_removed": len(done.left_removed),
    }


def _look_into_quarantine(lakehouse: Lakehouse, table: HourlyTable) -> Seen:
    old, kept = sweep.purgeable(table, lakehouse.maintenance.quarantine_keep)
    said = f"{len(kept)} sweeps can still be undone, {len(old)} are old enough to be purged"
    return Seen(said, old[-1].sweep if old else "")


def _purge(at: AtTable) -> Mapping[str, Any]:
    age = at.lakehouse.maintenance.quarantine_keep
    done = sweep.purge(at.table, age, at.held, dry_run=at.dry_run)
    return {
        "purged_sweeps": dg.MetadataValue.json(list(done.sweeps)),
        "purged_bytes": done.bytes,
        "kept_sweeps": dg.MetadataValue.json(list(done.kept)),
        "kept_bytes": done.kept_bytes,
    }


CHORES = (
    Chore(
        "sweep",
        "Files in the folders of {} that nothing reaches, moved into the quarantine; and leaked uploads, aborted",
        DAY,
        removes=True,
        look=_look_for_orphans,
        run=_sweep,
    ),
    Chore(
        "expiry",
        "Snapshots of {} that its retention gives up, and the files that only they reached",
        HOUR,
        removes=True,
        look=_look_for_snapshots,
        run=_expire,
    ),
    Chore(
        "manifests",
        "Manifests of {}, written anew in the order of its hours",
        HOUR,
        removes=False,
        look=_look_at_manifests,
        run=_rewrite_manifests,
    ),
    Chore(
        "purge",
        "What sweeps of {} have moved into the quarantine long ago, removed for good",
        DAY,
        removes=True,
        look=_look_into_quarantine,
        run=_purge,
    ),
)

"""Compaction as an asset beside each table, and the sensor that asks for it where its metadata say that it pays."""

import time
from typing import Any

import dagster as dg

from lakehouse_pipeline.config.lakehouse import Lakehouse
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.errors import LakehouseError
from lakehouse_pipeline.iceberg.manifests import digest
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.ledger.leases import LeaseHeldError
from lakehouse_pipeline.maintenance.compaction import Compacted, compact, look, tries_of, workers_of
from lakehouse_pipeline.maintenance.compaction_plan import CompactionPlan
from lakehouse_pipeline.maintenance.lease import maintaining
from lakehouse_pipeline.maintenance.windows import window_at
from lakehouse_pipeline.orchestration.resources import OneSession, RunLog
from lakehouse_pipeline.orchestration.upkeep import unmaintained

LOOK_EVERY_S = 600


def compaction_name(spec: TableSpec) -> str:
    """Name the asset of a table's compaction."""
    return f"{spec.name}_compaction"


def compaction_asset(lakehouse: Lakehouse, spec: TableSpec, group: str) -> dg.AssetsDefinition:
    """Make the asset of a table's compaction; to materialize it is to compact what is worth it now."""

    @dg.asset(
        name=compaction_name(spec),
        description=f"Hours of many small files of {spec.table}, rewritten into few; proved to hold the same rows",
        deps=[spec.name],
        group_name=group,
        owners=list(spec.owners),
        kinds={"iceberg", "parquet", "arrow"},
    )
    def compaction(
        context: dg.AssetExecutionContext, spark: dg.ResourceParam[OneSession]
    ) -> dg.MaterializeResult[None]:
        began = time.monotonic()
        try:
            warehouse = Warehouse.open(lakehouse.catalog)
            table, done = warehouse.find(spec), list[Compacted]()
            if table is None:
                return dg.MaterializeResult(metadata=_metadata(CompactionPlan((), {}), done, 0.0))
            workers = workers_of(lakehouse.maintenance, lambda: spark.lazy().get())
            run_id, is_over = context.run.run_id, RunLog(context.instance).is_over
            with maintaining(table, "compaction", run_id, is_over) as held:
                plan = look(lakehouse.maintenance, spec, table)
                for each in compact(warehouse, spec, plan, run_id, workers):
                    context.log.info("%s: %s", each.hour, each.error or "compacted")
                    done.append(each)
                    held.check()
        except LeaseHeldError as error:
            context.log.warning("left to the next run: %s", error)
            return dg.MaterializeResult(metadata={"skipped": str(error)})
        except LakehouseError as error:
            raise dg.Failure(f"{spec.table}: {type(error).__name__}: {error}") from None
        # Who stepped aside for a writer has not failed: the next look plans its hour again.
        failed = [each for each in done if each.error and not each.stepped_aside]
        if failed:
            raise dg.Failure(
                "\n".join(f"{each.hour}: {type(each.error).__name__}: {each.error}" for each in failed),
                metadata=_metadata(plan, done, time.monotonic() - began),
            )
        return dg.MaterializeResult(metadata=_metadata(plan, done, time.monotonic() - began))

    return compaction


def compaction_job(spec: TableSpec) -> Any:
    """Make the job that compacts a table."""
    return dg.define_asset_job(
        f"{compaction_name(spec)}_job", selection=dg.AssetSelection.assets(compaction_name(spec))
    )


def compaction_sensor(lakehouse: Lakehouse, spec: TableSpec, job: Any) -> dg.SensorDefinition:
    """Make the sensor that asks for compaction. It is stopped until somebody starts it on Dagster's page."""

    @dg.sensor(
        name=f"{compaction_name(spec)}_watch",
        description=f"Asks for {compaction_name(spec)} where hours have files that are worth it; reads metadata only.",
        minimum_interval_seconds=LOOK_EVERY_S,
        job=job,
    )
    def watch(context: dg.SensorEvaluationContext) -> Any:
        table = unmaintained(lakehouse, spec, context.instance)
        if isinstance(table, dg.SkipReason):
            return table
        window, cursor = window_at(table, context.cursor)  # goes round: a large table takes several ticks
        plan = look(lakehouse.maintenance, spec, table, window)
        if not plan.hours:
            left = "".join(f"; {hour} {why}" for hour, why in list(plan.left.items())[:3])
            of = f" from {window[0]} to {window[-1]}" if window else ""
            said = f"no hour{of} has files that are worth compacting: {plan.seen}{left}"
            return dg.SensorResult(skip_reason=said, cursor=cursor)
        # The same files are asked for once, and again after a try of theirs that came to nothing.
        tries = tries_of(table, plan)
        request = dg.RunRequest(run_key=f"compact:{digest([*plan.paths(), tries])}")
        return dg.SensorResult(run_requests=[request], cursor=cursor)

    return watch


def _metadata(plan: CompactionPlan, done: list[Compacted], seconds: float) -> dict[str, Any]:
    compacted = [each for each in done if each.committed]
    strategies = sorted({f"{strategy}: {reason}" for each in compacted for strategy, reason in each.strategies})
    return {
        "hours": len(compacted),
        "hours_left": dg.MetadataValue.json({hour.key: why for hour, why in plan.left.items()}),
        "stepped_aside": sum(each.stepped_aside for each in done),
        "strategies": dg.MetadataValue.json(strategies),
        "files_before": sum(each.files_before for each in compacted),
        "files_after": sum(each.files for each in compacted),
        "bytes_before": sum(each.bytes_before for each in compacted),
        "bytes_after": sum(each.bytes for each in compacted),
        "bytes_never_downloaded": sum(each.bytes_apart for each in compacted),
        "requests": sum(each.requests for each in compacted),
        "seconds": dg.MetadataValue.float(round(seconds, 3)),
    }

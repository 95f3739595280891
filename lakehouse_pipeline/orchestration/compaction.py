"""Compaction as an asset beside each table, and the sensor that asks for it where its metadata say that it pays."""

import time
from typing import Any

import dagster as dg

from lakehouse_pipeline.config.lakehouse import Lakehouse
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.errors import CommitConflictError, LakehouseError
from lakehouse_pipeline.iceberg.hourly import Warehouse
from lakehouse_pipeline.iceberg.manifests import digest
from lakehouse_pipeline.maintenance.compaction import Compacted, compact, look
from lakehouse_pipeline.maintenance.plan import CompactionPlan
from lakehouse_pipeline.orchestration.resources import IMPATIENT

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
    def compaction(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        began = time.monotonic()
        try:
            warehouse = Warehouse.open(lakehouse.catalog)
            table = warehouse.find(spec)
            plan = look(lakehouse.maintenance, table) if table else CompactionPlan((), {})
            done = compact(warehouse, spec, plan, context.run.run_id)
        except LakehouseError as error:
            raise dg.Failure(f"{spec.table}: {type(error).__name__}: {error}") from None
        for each in done:
            context.log.info("%s: %s", each.hour, each.error or "compacted")
        # Who stepped aside for a writer has not failed: the next look plans its hour again.
        failed = [each for each in done if each.error and not isinstance(each.error, CommitConflictError)]
        if failed:
            raise dg.Failure(
                "\n".join(f"{each.hour}: {type(each.error).__name__}: {each.error}" for each in failed),
                metadata=_metadata(plan, done, time.monotonic() - began),
            )
        return dg.MaterializeResult(metadata=_metadata(plan, done, time.monotonic() - began))

    return compaction


def compaction_sensor(lakehouse: Lakehouse, spec: TableSpec) -> dg.SensorDefinition:
    """Make the sensor that asks for compaction. It is stopped until somebody starts it on Dagster's page."""

    @dg.sensor(
        name=f"{compaction_name(spec)}_watch",
        description=f"Asks for {compaction_name(spec)} where hours have files that are worth it; reads metadata only.",
        minimum_interval_seconds=LOOK_EVERY_S,
        asset_selection=dg.AssetSelection.assets(compaction_name(spec)),
    )
    def watch(_: dg.SensorEvaluationContext) -> Any:
        table = Warehouse.open({**lakehouse.catalog, **IMPATIENT}).find(spec)
        if table is None:
            return dg.SkipReason("the table does not exist yet")
        plan = look(lakehouse.maintenance, table)
        if not plan.hours:
            left = "".join(f"; {hour} {why}" for hour, why in list(plan.left.items())[:3])
            return dg.SkipReason(f"no hour has files that are worth compacting{left}")
        # The same files are asked for once: whatever became of it is on the page.
        return dg.RunRequest(run_key=f"compact:{digest(file.path for hour in plan.hours for file in hour.files)}")

    return watch


def _metadata(plan: CompactionPlan, done: list[Compacted], seconds: float) -> dict[str, Any]:
    seals = [each.committed.seal for each in done if each.committed]
    compacted = [each for each in done if each.committed]
    return {
        "hours": len(compacted),
        "hours_left": dg.MetadataValue.json({hour.key: why for hour, why in plan.left.items()}),
        "stepped_aside": sum(each.error is not None for each in done),
        "strategy": "rewrite",
        "files_before": sum(each.files_before for each in compacted),
        "files_after": sum(seal.files for seal in seals),
        "bytes_before": sum(each.bytes_before for each in compacted),
        "bytes_after": sum(seal.bytes for seal in seals),
        "seconds": dg.MetadataValue.float(round(seconds, 3)),
    }

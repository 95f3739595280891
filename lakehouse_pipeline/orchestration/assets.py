"""Specs as Dagster assets: one asset a table, one partition an hour. A skin: no decision about data is made here.

An asset body turns partition keys into hours, runs each, reports each to Dagster by itself as soon as it is committed,
and fails at the end with the hours that failed. The framework's own materialization event is not used (the output is
not required and never yielded): it would come after all hours, without their figures, and count each hour twice.
"""

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC
from itertools import count
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill.checks import CheckFailedError, checks_of
from lakehouse_pipeline.backfill.every import Every
from lakehouse_pipeline.backfill.plan import dimensions_of, recipe_of
from lakehouse_pipeline.backfill.run_plan import RunPlan
from lakehouse_pipeline.config.backfill import BackfillSettings
from lakehouse_pipeline.config.lakehouse import Lakehouse
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.transform import SqlTransform
from lakehouse_pipeline.errors import ConfigurationError, DataError, LakehouseError, SafetyError, TransientError
from lakehouse_pipeline.hours import HourWindow, canonical
from lakehouse_pipeline.iceberg.hourly import store_of
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.object_store.settings import IMPATIENT
from lakehouse_pipeline.orchestration.compaction import (
    compaction_asset,
    compaction_job,
    compaction_name,
    compaction_sensor,
)
from lakehouse_pipeline.orchestration.health import LOOK_EVERY_S, HealthReport, health_asset, health_name, health_sensor
from lakehouse_pipeline.orchestration.plans import plan_asset, plan_job, plan_name
from lakehouse_pipeline.orchestration.reports import VERSION, line_of, of_result
from lakehouse_pipeline.orchestration.resources import OneSession, RunLog, spark_resource
from lakehouse_pipeline.orchestration.sensors import JOB, closing, late_files
from lakehouse_pipeline.orchestration.upkeep import chore_assets, chore_jobs, chore_names
from lakehouse_pipeline.sources.listing import SourceObject
from lakehouse_pipeline.status.progress import SAID_EVERY_S, Progress

if TYPE_CHECKING:
    from lakehouse_pipeline.backfill.hour_result import HourResult

logger = logging.getLogger(__name__)

PARTITION_TAGS = ("dagster/partition", "dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


class HourConfig(dg.Config):
    """What a run of a table can be told.

    Attributes:
        force: run the ETL of hours that are unchanged, too.
        plan: what `lakehouse plan` recommends, as its file has it under `run_config`; without it, what lakehouse.yaml
            says.
    """

    force: bool = False
    plan: dict[str, Any] = Field(default={}, description="a plan, as the file of `lakehouse plan -o` has it")


def build_defs(lakehouse: Lakehouse, *, resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Make fresh Dagster definitions of a lakehouse; nothing is read but the dimensions' listings.

    Args:
        lakehouse: its tables.
        resource_overrides: resources by name that take the place of ours, for tests.

    Raises:
        ConfigurationError: a table's name is none for Dagster, or its transform's module is not to be found.
    """
    with warnings.catch_warnings():
        # Backfill policies and code references; whoever loads definitions can do nothing about it.
        warnings.simplefilter("ignore", dg.BetaWarning)
        assets = _assets(lakehouse)
        beside = [
            make(lakehouse, spec, _group(spec))
            for spec in lakehouse.specs
            for make in (health_asset, plan_asset, compaction_asset)
        ]
        beside += [asset for spec in lakehouse.specs for asset in chore_assets(lakehouse, spec, _group(spec))]
    jobs = {
        spec.name: dg.define_asset_job(f"{spec.name}_job", selection=[asset])
        for spec, asset in zip(lakehouse.specs, assets, strict=True)
    }
    closing_job, sensors = closing(lakehouse)
    late = (late_files(lakehouse, spec, jobs[spec.name]) for spec in lakehouse.specs)
    compacting = [(spec, compaction_job(spec)) for spec in lakehouse.specs]
    watching = [health_sensor(lakehouse, spec) for spec in lakehouse.specs]
    watching += [compaction_sensor(lakehouse, spec, job) for spec, job in compacting]
    chores = list[Any]()
    for spec in lakehouse.specs:
        more, asking = chore_jobs(lakehouse, spec)
        chores += more
        watching += asking
    return dg.Definitions(
        assets=[*assets, *beside],
        jobs=[*jobs.values(), *map(plan_job, lakehouse.specs), *(job for _, job in compacting), *chores, closing_job],
        sensors=[*sensors, *filter(None, late), *watching],
        schedules=[_hourly(spec, jobs[spec.name]) for spec in lakehouse.specs if spec.end is None],
        resources={"spark": spark_resource(lakehouse.engine), **(resource_overrides or {})},
        # One process, one Spark session, for all hours of a run.
        executor=dg.in_process_executor,
    )


def _assets(lakehouse: Lakehouse) -> list[dg.AssetsDefinition]:
    versions = code_versions(lakehouse)
    jobs = {f"{spec.name}_job": spec for spec in lakehouse.specs}
    beside = {
        name: spec
        for spec in lakehouse.specs
        for name in (health_name(spec), plan_name(spec), compaction_name(spec), *chore_names(spec))
    }
    assets, problems = [], []
    for spec in lakehouse.specs:
        if spec.name == JOB:
            problems.append(f"{spec.file}: is called as the job that closes attempts; rename it")
        if spec.name in beside:
            problems.append(
                f"{spec.file}: is called as an asset beside {beside[spec.name].file.name}; rename one of them"
            )
        if spec.name in jobs:
            problems.append(f"{spec.file}: is called as the job of {jobs[spec.name].file.name}; rename one of them")
        try:
            assets.append(table_asset(lakehouse, spec, versions[spec.name]))
        except dg.DagsterInvalidDefinitionError as error:
            problems.append(f"{spec.file}: {error}; rename the file")
    if problems:
        raise ConfigurationError("\n".join(problems))
    return assets


def _hourly(spec: TableSpec, job: Any) -> dg.ScheduleDefinition:
    """Run each hour once it is over, and as long again as the spec's `lag`."""
    hours, minutes = divmod(int(spec.lag.total_seconds()) // 60, 60)

    @dg.schedule(name=f"{spec.name}_hourly", cron_schedule=f"{minutes} * * * *", job=job, execution_timezone="UTC")
    def hourly(context: dg.ScheduleEvaluationContext) -> Any:
        over = context.scheduled_execution_time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        hour = HourWindow.from_ordinal(HourWindow(over).ordinal - 1 - hours)
        if hour < spec.start:
            return dg.SkipReason(f"{hour} is before the table's start")
        return dg.RunRequest(run_key=hour.key, partition_key=hour.key)

    return hourly


def partitions_of(spec: TableSpec) -> dg.HourlyPartitionsDefinition:
    """Give the hours of a table, from its start to its end or to now."""
    return dg.HourlyPartitionsDefinition(
        start_date=spec.start.key, end_date=spec.end.key if spec.end else None, timezone="UTC"
    )


def code_versions(lakehouse: Lakehouse) -> dict[str, str]:
    """Give each table's recipe as a short hash: Dagster marks hours of another recipe as outdated, and runs none.

    The definitions have to load while the store is away, or nobody could look at what happened. Dimensions that could
    not be listed do not count then, until the definitions are loaded again.
    """
    files = store_of({**lakehouse.catalog, **IMPATIENT})
    versions, away = {}, False
    for spec in lakehouse.specs:
        dimensions: dict[str, tuple[SourceObject, ...]] = {}
        try:
            dimensions = {} if away else dimensions_of(spec, files)
        except LakehouseError as error:
            away = isinstance(error, TransientError)
            logger.warning("%s: its dimensions do not count for its code version: %s", spec.name, error)
        versions[spec.name] = recipe_of(spec, dimensions)[:VERSION]
    return versions


def table_asset(lakehouse: Lakehouse, spec: TableSpec, code_version: str) -> dg.AssetsDefinition:
    """Make the asset of a table."""

    @dg.asset(
        name=spec.name,
        description=spec.description or None,
        partitions_def=partitions_of(spec),
        backfill_policy=_policy(lakehouse.backfill),
        output_required=False,
        code_version=code_version,
        kinds=_kinds(lakehouse, spec),
        owners=list(spec.owners),
        freshness_policy=dg.FreshnessPolicy.time_window(spec.freshness) if spec.freshness else None,
        group_name=_group(spec),
        metadata=_definition_metadata(spec),
        pool=f"lakehouse_{spec.name}",  # limits the writers of a table where somebody sets its limit
        check_specs=[
            dg.AssetCheckSpec(name, asset=spec.name, description=text) for name, text in checks_of(spec).items()
        ],
    )
    def asset(
        context: dg.AssetExecutionContext, config: HourConfig, spark: dg.ResourceParam[OneSession]
    ) -> Iterator[Any]:
        # Definitions are loaded by every tick and command: pyspark is not imported before an hour needs it.
        from lakehouse_pipeline.backfill.hour_run import Bench  # noqa: PLC0415
        from lakehouse_pipeline.backfill.range import run_range  # noqa: PLC0415

        failed: dict[HourWindow, Exception] = {}
        try:
            canonical(_asked_for(context))
            hours = canonical(context.partition_keys)
            plan = RunPlan.read(config.plan) if config.plan else None
            catalog = plan.catalog(lakehouse.catalog) if plan else lakehouse.catalog
            warehouse, runs = Warehouse.open(catalog), RunLog(context.instance)
            if plan:
                plan.check(spec, lakehouse, warehouse.files, hours)
            session = spark.lazy()
            planned = plan.table_spec(spec) if plan else spec
            bench = Bench(planned, warehouse, session.get, context.run.run_id, runs.is_over)
        except LakehouseError as error:
            raise _failure(spec, {}, error) from None
        place = count(1)

        def heard(hour: HourWindow, outcome: "HourResult | LakehouseError") -> None:
            told = f"{hour} ({next(place)} of {len(hours)})"
            if isinstance(outcome, LakehouseError):
                failed[hour] = outcome
                context.log.error("%s failed: %s", told, outcome)
            else:
                context.log_event(of_result(spec.name, outcome, code_version))
                context.log.info("%s %s", told, line_of(outcome))

        progress = Progress(spec.table, len(hours))
        health = HealthReport(lakehouse, spec, progress)
        with (
            events.subscribed(progress.heard),
            Every(SAID_EVERY_S, lambda: context.log.info(progress.line), "status line"),
            Every(LOOK_EVERY_S, lambda: health.to(context), health_name(spec)) as reports,
            contextlib.closing(health),
        ):
            settings = plan.backfill(lakehouse.backfill) if plan else lakehouse.backfill
            apart_s = plan.apart_s if plan else 0.0
            run_range(bench, hours, settings, heard, apart=session.apart, force=config.force, apart_s=apart_s)
            if len(hours) > 1:
                reports.now()
        yield from _check_results(spec, failed, len(hours))
        if failed:
            raise _failure(spec, failed, next(iter(failed.values())))

    return asset


def _group(spec: TableSpec) -> str:
    return re.sub(r"\W", "_", spec.table.rpartition(".")[0])


def _policy(settings: BackfillSettings) -> dg.BackfillPolicy:
    """Take one run for a whole range, unless told otherwise: a Spark session costs more than an hour of most tables."""
    if settings.hours_per_run == "all":
        return dg.BackfillPolicy.single_run()
    return dg.BackfillPolicy.multi_run(settings.hours_per_run)


def _asked_for(context: dg.AssetExecutionContext) -> list[str]:
    """Give the partition keys as somebody wrote them: Dagster 1.13 takes `…-10:30` for the hour after it."""
    return [context.run.tags[tag] for tag in PARTITION_TAGS if tag in context.run.tags]


def _kinds(lakehouse: Lakehouse, spec: TableSpec) -> set[str]:
    kinds = {"pyspark", "iceberg", "parquet"}
    if lakehouse.catalog.get("warehouse", "").startswith("s3") or spec.source.path.startswith("s3"):
        kinds.add("s3")
    if isinstance(spec.transform, SqlTransform):
        kinds.add("sql")
    return kinds


def _definition_metadata(spec: TableSpec) -> dict[str, Any]:
    columns = [
        dg.TableColumn(column.name, column.type, constraints=dg.TableColumnConstraints(nullable=not column.required))
        for column in spec.target_columns or ()
    ]
    references: list[Any] = [dg.LocalFileCodeReference(file_path=str(spec.file), line_number=1, label="table spec")]
    if isinstance(spec.transform, SqlTransform):
        references.append(
            dg.LocalFileCodeReference(file_path=str(spec.transform.file), line_number=1, label="transform")
        )
    return {
        "dagster/table_name": spec.table,
        "dagster/storage_kind": "iceberg",
        "dagster/column_schema": dg.TableSchema(columns),
        "dagster/code_references": dg.CodeReferencesMetadataValue(code_references=references),
    }


def _check_results(
    spec: TableSpec, failed: Mapping[HourWindow, Exception], hours: int
) -> Iterator[dg.AssetCheckResult]:
    """Tell how the checks went; one that no hour came to is left out."""
    for name in checks_of(spec):
        broken = {
            hour.key: str(error)
            for hour, error in failed.items()
            if isinstance(error, CheckFailedError) and error.check == name
        }
        if broken or len(failed) < hours:
            yield dg.AssetCheckResult(
                check_name=name,
                passed=not broken,
                metadata={"hours": hours, "failed_hours": dg.MetadataValue.json(broken)},
            )


def _failure(spec: TableSpec, failed: Mapping[HourWindow, Exception], error: Exception) -> dg.Failure:
    """Say errors in Dagster's words; only what another run may cure allows Dagster's retries."""
    hours_of: dict[str, list[str]] = {}
    for hour, caught in sorted(failed.items(), key=lambda item: item[0]):
        hours_of.setdefault(f"{type(caught).__name__}: {caught}", []).append(hour.key)
    lines = [f"{', '.join(hours)}: {said}" for said, hours in hours_of.items()]
    final = any(
        isinstance(caught, (DataError, ConfigurationError, SafetyError)) for caught in (*failed.values(), error)
    )
    count = f"{len(failed)} hour{'s' if len(failed) > 1 else ''} failed"
    return dg.Failure(
        description="\n".join([f"{spec.name}: {count}", *lines]) if failed else f"{spec.name}: {error}",
        metadata={"failed_hours": dg.MetadataValue.json({hour.key: str(caught) for hour, caught in failed.items()})},
        allow_retries=not final,
    )

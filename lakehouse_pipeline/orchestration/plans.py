"""A table's plan as an asset beside it: to materialize it is to look at a backfill before it begins.

Its page shows the prediction, the pictures, and the run config that the table's own launchpad takes.
"""

from datetime import UTC, datetime
from typing import Any

import dagster as dg
from pydantic import Field

from lakehouse_pipeline.config.lakehouse import Lakehouse
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.errors import ConfigurationError, LakehouseError
from lakehouse_pipeline.hours import HourRange, parse_range
from lakehouse_pipeline.iceberg.warehouse import Warehouse


class PlanConfig(dg.Config):
    """What a plan is made for.

    Attributes:
        hours: a range, such as 2013-01-01...2013-01-19; empty: all of the table's that are over.
        bytes: of an hour's files in the table, such as 1.2TB; empty: as far as is known.
        files: of an hour.
        seconds: that an hour takes by itself.
        at_most: hours at once that the engine has room for.
        force: unchanged hours are run, too.
    """

    hours: str = Field(default="", description="a range, such as 2013-01-01...2013-01-19; empty: all that are over")
    bytes: str = Field(default="", description="of an hour's files in the table, such as 1.2TB; empty: as far as known")
    files: int | None = Field(default=None, description="data files of an hour")
    seconds: float | None = Field(default=None, description="that an hour takes by itself")
    at_most: int | None = Field(default=None, description="hours at once that the engine has room for")
    force: bool = Field(default=False, description="unchanged hours are run, too")


def plan_name(spec: TableSpec) -> str:
    """Name the asset of a table's plan."""
    return f"{spec.name}_plan"


def plan_job(spec: TableSpec) -> Any:
    """Make the job that plans a backfill of a table."""
    return dg.define_asset_job(f"{plan_name(spec)}_job", selection=dg.AssetSelection.assets(plan_name(spec)))


def plan_asset(lakehouse: Lakehouse, spec: TableSpec, group: str) -> dg.AssetsDefinition:
    """Make the asset of a table's plan."""

    @dg.asset(
        name=plan_name(spec),
        description=(
            f"What a backfill of {spec.table} would come to: hours, requests, 503s, and what to set. Nothing is run"
        ),
        group_name=group,
        owners=list(spec.owners),
    )
    def plan(config: PlanConfig) -> dg.MaterializeResult[None]:
        # Definitions are loaded by every tick and command: simulator and drawing library are not, before they are used.
        from lakehouse_pipeline.backfill.figures import Asked  # noqa: PLC0415
        from lakehouse_pipeline.backfill.forecast import NothingToRunError, forecast  # noqa: PLC0415
        from lakehouse_pipeline.backfill.forecast_text import markdown, run_config  # noqa: PLC0415
        from lakehouse_pipeline.planning.units import read_bytes  # noqa: PLC0415
        from lakehouse_pipeline.status.markdown import embedded  # noqa: PLC0415
        from lakehouse_pipeline.status.plan_drawing import draw_plan  # noqa: PLC0415

        try:
            size = read_bytes(config.bytes) if config.bytes else None
            asked = Asked(size, config.files, config.seconds, config.at_most, config.force)
            told = forecast(lakehouse, spec, Warehouse.open(lakehouse.catalog), _hours(spec, config), asked=asked)
        except NothingToRunError as error:
            return dg.MaterializeResult(metadata={"skipped": str(error)})
        except LakehouseError as error:
            raise dg.Failure(f"{spec.table}: {type(error).__name__}: {error}") from None
        predicted = told.advice.recommended.predicted
        return dg.MaterializeResult(
            metadata={
                "plan": dg.MetadataValue.md(markdown(told)),
                "pictures": dg.MetadataValue.md(embedded(f"plan of {spec.name}", draw_plan(told))),
                "run_config": dg.MetadataValue.json(run_config(told.run)),
                "hours_in_flight": told.advice.in_flight,
                "predicted_hours": dg.MetadataValue.float(round(predicted.hours, 3)),
                "predicted_requests": round(predicted.requests),
                "predicted_503_share": dg.MetadataValue.float(round(predicted.throttle_share, 4)),
            }
        )

    return plan


def _hours(spec: TableSpec, config: PlanConfig) -> HourRange:
    if config.hours:
        return parse_range(config.hours)
    over = spec.hours_over(datetime.now(UTC))
    if over is None:
        raise ConfigurationError(f"no hour of {spec.name} is over yet; give `hours`")
    return over

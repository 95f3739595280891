"""A table's health as an asset beside it: pictures and figures as observations, thresholds as checks.

Whoever looks reports the same: a run while it has hours open, a sensor as long as anything changes, and somebody who
materializes the asset.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from lakehouse_pipeline.config.lakehouse import Lakehouse
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.errors import LakehouseError
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.status.health import CHECKS, Finding, checks_for, examine, health_of, throttle_share
from lakehouse_pipeline.status.picture import STATES, TableStatus, TableWatch, hours_of

if TYPE_CHECKING:
    from lakehouse_pipeline.status.progress import Progress

LOOK_EVERY_S = 300
AT_REST = ("committed", "compacted", "not requested", "outside start...end")
PLOTTED = ("orphan_bytes", "swept_bytes", "quarantine_bytes", "manifests", "snapshots", "open_uploads")
MOST_NAMED = 200  # hours of a state
ENDS_WITHIN_S = 5.0  # a look, where its run is stopped


def health_name(spec: TableSpec) -> str:
    """Name the asset of a table's health."""
    return f"{spec.name}_health"


def health_asset(lakehouse: Lakehouse, spec: TableSpec, group: str) -> dg.AssetsDefinition:
    """Make the asset of a table's health; to materialize it is to look now."""

    @dg.asset(
        name=health_name(spec),
        description=f"Which hours of {spec.table} are in what state, and whether that is healthy",
        deps=[spec.name],
        group_name=group,
        owners=list(spec.owners),
        check_specs=[
            dg.AssetCheckSpec(check, asset=health_name(spec), description=text)
            for check, text in checks_for(spec).items()
        ],
    )
    def health() -> Iterator[Any]:
        try:
            table = Warehouse.open(lakehouse.catalog).find(spec)
            status, findings = examine(spec, lakehouse.health, table)
        except LakehouseError as error:
            raise dg.Failure(f"{spec.table}: {type(error).__name__}: {error}") from None
        yield dg.MaterializeResult(metadata=_metadata(status, findings))
        for found in findings:
            yield dg.AssetCheckResult(check_name=found.check, passed=found.passed, metadata=_of(found))

    return health


class HealthReport:
    """Reports a table's health while a run has hours of it open. Of two looks at once the later is reported last.

    It has a store of its own, which is soon given up where it is away: nobody waits for a picture.
    """

    def __init__(self, lakehouse: Lakehouse, spec: TableSpec, progress: "Progress") -> None:
        """Look when asked to."""
        self._lakehouse, self._spec, self._progress = lakehouse, spec, progress
        self._watch = TableWatch(spec)
        self._lock = threading.Lock()
        self._ended = False

    def to(self, context: dg.AssetExecutionContext) -> None:
        """Look, and report it."""
        with self._lock:
            spec, table = self._spec, Warehouse.open(self._lakehouse.catalog, patient=False).find(self._spec)
            if table is None:
                return
            status = self._watch.look(table, hours_of(spec))
            findings = health_of(spec, self._lakehouse.health, status, None)
            if self._ended:
                return
            left = self._progress.seconds_left
            more = {
                "requests_per_s": dg.MetadataValue.float(round(self._progress.requests_per_s, 3)),
                **({} if left is None else {"minutes_left": dg.MetadataValue.float(round(left / 60, 2))}),
            }
            context.log_event(_observation(spec, status, findings, more))
            for evaluation in _evaluations(spec, findings):
                context.instance.report_runless_asset_event(evaluation)

    def close(self) -> None:
        """Report nothing any more; a look that is under way is waited for, but not for long."""
        self._ended = True
        if self._lock.acquire(timeout=ENDS_WITHIN_S):
            self._lock.release()


def health_sensor(lakehouse: Lakehouse, spec: TableSpec) -> dg.SensorDefinition:
    """Make the sensor that reports a table's health as long as its hours change, or are open; and every hour."""
    seen = TableWatch(spec)  # kept between ticks by the code server: records that did not change are not read again

    @dg.sensor(
        name=f"{health_name(spec)}_watch",
        description=f"Reports {health_name(spec)}, and its checks, as long as anything changes.",
        minimum_interval_seconds=LOOK_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        asset_selection=dg.AssetSelection.assets(health_name(spec)),
    )
    def watch(context: dg.SensorEvaluationContext) -> Any:
        table = Warehouse.open(lakehouse.catalog, patient=False).find(spec)
        if table is None:
            return dg.SkipReason("the table does not exist yet")
        version = _version(table)
        if version == context.cursor and not table.ledger.is_marked():
            return dg.SkipReason("no hour has changed, and none is open")
        status, findings = examine(spec, lakehouse.health, table, seen)
        said: list[Any] = [_observation(spec, status, findings, {}), *_evaluations(spec, findings)]
        return dg.SensorResult(asset_events=said, cursor=version)

    return watch


def _version(table: HourlyTable) -> str:
    """Name what the picture is of: all records as they are now, in this hour: some figures change with time alone."""
    known = sorted((hour.key, version) for hour, version in table.ledger.known().items())
    return hashlib.sha256(json.dumps([f"{datetime.now(UTC):%Y-%m-%d-%H}", known]).encode()).hexdigest()


def _observation(
    spec: TableSpec, status: TableStatus, findings: Sequence[Finding], more: dict[str, Any]
) -> dg.AssetObservation:
    return dg.AssetObservation(asset_key=health_name(spec), metadata={**_metadata(status, findings), **more})


def _evaluations(spec: TableSpec, findings: Sequence[Finding]) -> list[dg.AssetCheckEvaluation]:
    return [
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(health_name(spec)),
            check_name=found.check,
            passed=found.passed,
            metadata=_of(found),
            description=CHECKS[found.check],
        )
        for found in findings
    ]


def _of(found: Finding) -> dict[str, dg.MetadataValue[Any]]:
    told = {"found": dg.MetadataValue.text(found.said), "value": dg.MetadataValue.float(float(found.value))}
    return {**told, "then": dg.MetadataValue.text(found.then)} if found.then else told


def _metadata(status: TableStatus, findings: Sequence[Finding]) -> dict[str, Any]:
    """Give the picture, and the figures that the page plots over time, under names that stay."""
    # Definitions are loaded by every tick and command: the drawing library is not, before somebody draws.
    from lakehouse_pipeline.status.markdown import status_markdown  # noqa: PLC0415

    counts, live = status.counts, status.live
    files, size = sum(each.live_files for each in live), sum(each.live_bytes for each in live)
    return {
        "hours": dg.MetadataValue.md(status_markdown(status, findings)),
        "as_of": dg.MetadataValue.timestamp(status.as_of),
        "unfinished": dg.MetadataValue.json(_unfinished(status)),
        **{
            f"hours_{state.replace(' ', '_')}": counts.get(state, 0)
            for state in STATES
            if state != "outside start...end"
        },
        "files": files,
        "mean_file_mb": dg.MetadataValue.float(round(size / files / 1e6, 3) if files else 0.0),
        "total_mb": dg.MetadataValue.float(round(size / 1e6, 3)),
        "s3_throttle_share": dg.MetadataValue.float(round(throttle_share(status), 4)),
        **{found.check: int(found.value) for found in findings if found.check in PLOTTED},
    }


def _unfinished(status: TableStatus) -> dict[str, list[str]]:
    """Name the hours that somebody has begun and that are not committed, by state; of very many the first."""
    by_state = {state: status.of(frozenset({state})) for state in STATES if state not in AT_REST}
    return {state: [hour.key for hour in hours[:MOST_NAMED]] for state, hours in by_state.items() if hours}

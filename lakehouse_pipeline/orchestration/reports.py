"""Hours as Dagster is told of them: what its page plots over partitions, and shows of one."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.ledger.records import Committed, Seal
from lakehouse_pipeline.planning.units import show_bytes, show_count

if TYPE_CHECKING:
    from lakehouse_pipeline.backfill.hour_result import HourResult

VERSION = 16  # digits of a recipe


def of_result(asset: str, result: "HourResult", code_version: str) -> dg.AssetMaterialization:
    """Report an hour by its own run. Skipped hours are reported, too: a backfill counts what was materialized."""
    more: dict[str, Any] = {
        "dagster/uri": result.location,
        **{f"{stage}_seconds": dg.MetadataValue.float(seconds) for stage, seconds in result.seconds.items()},
        **_requests(result),
    }
    if result.sample_keys:
        more["sample_keys"] = dg.MetadataValue.md("\n".join(f"- `{path}`" for path in result.sample_keys))
    if result.staging:
        more["staging"] = dg.MetadataValue.md("\n".join(f"    {line}" for line in result.staging))
    told = {"step": result.step, "why": result.why, "attempt": result.attempt, **_snapshot(result.snapshot_id), **more}
    return _materialization(asset, result.hour, result.seal, code_version, told)


def of_commit(asset: str, hour: HourWindow, committed: Committed, why: str) -> dg.AssetMaterialization:
    """Report an hour that another run committed than its own: the page shows it as failed until then."""
    told = {"step": "resume", "why": why, "attempt": committed.attempt, **_snapshot(committed.snapshot_id)}
    return _materialization(asset, hour, committed.seal, committed.recipe[:VERSION], told)


def line_of(result: "HourResult") -> str:
    """Say in a line how an hour ended."""
    seal = result.seal
    if result.step == "skip":
        return f"skipped: {result.why}"
    rows, files = show_count(seal.rows, "row"), show_count(seal.files, "file")
    return f"committed: {rows}, {files}, {show_bytes(seal.bytes)}, {result.seconds}"


def _materialization(
    asset: str, hour: HourWindow, seal: Seal, code_version: str, told: dict[str, Any]
) -> dg.AssetMaterialization:
    counts: dict[str, Any] = {
        "dagster/row_count": seal.rows,
        "dagster/size_bytes": seal.bytes,
        "files": seal.files,
        "rejected_rows": seal.rejected,
        **({} if seal.left is None else {"rows_left_to_other_hours": seal.left}),
        **({} if seal.rows_read is None else {"rows_read": seal.rows_read}),
    }
    return dg.AssetMaterialization(
        asset_key=asset,
        partition=hour.key,
        metadata={**counts, **told},
        tags={"dagster/code_version": code_version, "dagster/data_version": seal.digest},
    )


def _snapshot(snapshot_id: int | None) -> dict[str, Any]:
    """Give it as text: of its 63 bits a number would lose the last digits in the page."""
    return {} if snapshot_id is None else {"snapshot_id": str(snapshot_id)}


def _requests(result: "HourResult") -> dict[str, Any]:
    """Tell what S3 was asked, and how it answered; nothing where the hour lies on a disk."""
    sent = result.requests
    if not sent.requests:
        return {}
    return {
        "s3_requests": sent.requests,
        "s3_retries": sent.retries,
        "s3_throttles": sent.throttles,
        "s3_wait_seconds": dg.MetadataValue.float(round(sent.rate_wait_s + sent.retry_wait_s, 3)),
    }

"""A forecast as people read it, as Markdown, and as JSON: the plan file is that JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lakehouse_pipeline.backfill.figures import Figure
from lakehouse_pipeline.backfill.forecast import Forecast
from lakehouse_pipeline.backfill.run_plan import RunPlan
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.planning import transfer_text
from lakehouse_pipeline.planning.advice import PUT_DOLLARS
from lakehouse_pipeline.planning.simulation import Simulation
from lakehouse_pipeline.planning.units import show_bytes, show_count, show_dollars, show_seconds

VERSION = 1
HEADINGS = ("", "takes", "writes of data files", "503s", "share", "costs", "orphan bytes")
HOUR_S = 3600.0

Row = tuple[str, ...]


def lines(told: Forecast) -> tuple[str, ...]:
    """Give the lines of a terminal."""
    return tuple(_lines(told))


def markdown(told: Forecast) -> str:
    """Give what Dagster's page shows."""
    table = [_pipes(HEADINGS), "|:--|" + "--:|" * (len(HEADINGS) - 1), *map(_pipes, rows(told))]
    parts = [f"**{recommendation(told)}**", *_hour(told), "\n".join(table), *(f"- {note}" for note in told.notes)]
    if told.ways:
        parts += ["```text\n" + "\n".join(transfer_text.explain(told.ways)) + "\n```"]
    return "\n\n".join(parts)


def as_json(told: Forecast) -> dict[str, Any]:
    """Give the forecast, and the run config that is what it recommends, in JSON's types."""
    advice, predicted = told.advice, told.advice.recommended.predicted
    return {
        "version": VERSION,
        "table": told.table,
        "hours": {"first": told.hours.first.key, "last": told.hours.last.key, "asked": len(told.hours)},
        "to_run": told.load.hours,
        "there": told.there,
        "sealed": told.sealed,
        "missing": [hour.key for hour in told.missing],
        "source_bytes": told.source_bytes,
        "hour": {name: asdict(each) for name, each in _figures(told).items()},
        "throttles": told.on_s3,
        "recommended": {
            "hours_in_flight": advice.in_flight,
            "apart_s": told.run.apart_s,
            "tries": advice.tries,
            "retry_s": advice.retry_s,
            "file_size": told.run.file_size,
            "predicted": _simulated(predicted),
        },
        "considered": [
            {"hours_in_flight": each.in_flight, "apart_s": each.apart_s, "predicted": _simulated(each.predicted)}
            for each in advice.settings
        ],
        "alternatives": [{"name": each.name, "predicted": _simulated(each.predicted)} for each in advice.alternatives],
        "ways": transfer_text.as_json(told.ways) if told.ways else None,
        "notes": list(told.notes),
        "run_config": run_config(told.run),
    }


def run_config(run: RunPlan) -> dict[str, Any]:
    """Give the config of a run of Dagster that applies a plan."""
    return {"ops": {run.table: {"config": {"plan": run.model_dump(mode="json")}}}}


def read_plan(file: Path, table: str) -> RunPlan:
    """Read the plan of a table from a plan file.

    Raises:
        ConfigurationError: it is none, or one of another table.
    """
    command = f"`lakehouse plan {table} RANGE -o {file}`"
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}; {command} writes it") from None
    except ValueError as error:
        raise ConfigurationError(f"{file}: no JSON: {error}; {command} writes it") from None
    if isinstance(told, dict) and told.get("version", VERSION) != VERSION:
        raise ConfigurationError(
            f"{file} is of another version of this software ({told['version']}, not {VERSION}); {command} writes one"
        )
    try:
        ops: Mapping[str, Any] = told["run_config"]["ops"]
        if ops and table not in ops:
            raise ConfigurationError(f"{file} is a plan of {', '.join(ops)}, and not of {table}; {command} writes one")
        config = ops[table]["config"]["plan"]
    except (KeyError, TypeError):
        raise ConfigurationError(f"{file} is no plan; {command} writes one") from None
    try:
        return RunPlan.read(config)
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from None


def recommendation(told: Forecast) -> str:
    """Say what to set in one sentence."""
    advice = told.advice
    begin = f", the first of them begun {show_seconds(told.run.apart_s)} apart" if told.run.apart_s else ""
    return (
        f"{show_count(advice.in_flight, 'hour')} in flight{begin}; {advice.tries} tries within "
        f"{show_seconds(advice.retry_s)} for a request; files of {show_bytes(told.run.file_size)}"
    )


def rows(told: Forecast) -> list[Row]:
    """Give the table: every number of hours in flight that was considered, then what else was."""
    advice = told.advice
    found = []
    for each in advice.settings:
        mark = " (recommended)" if each.in_flight == advice.in_flight else ""
        found.append((f"{show_count(each.in_flight, 'hour')} in flight{mark}", *_row(told, each.predicted)))
    if not told.on_s3:
        return found
    others = (
        (f"{advice.in_flight} in flight, {each.name}", *_row(told, each.predicted)) for each in advice.alternatives
    )
    return [*found, *others]


def _lines(told: Forecast) -> Iterator[str]:
    yield from _hour(told)
    shown = [HEADINGS, *rows(told)]
    widths = [max(len(row[place]) for row in shown) for place in range(len(HEADINGS))]
    for first, *rest in shown:
        yield "  ".join(
            [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        )
    yield f"recommended: {recommendation(told)}"
    yield from (f"note: {note}" for note in told.notes)
    if told.ways:
        yield from transfer_text.explain(told.ways)


def _hour(told: Forecast) -> Iterator[str]:
    read = f", {show_bytes(told.source_bytes)} of source" if told.source_bytes else ""
    there = f"; {told.there} are in the table, unchanged" if told.there else ""
    there += f"; {told.sealed} wait for their commit" if told.sealed else ""
    yield f"{told.table}: {show_count(told.load.hours, 'hour')} to run{read}{there}"
    if told.missing:
        what = "which fail" if told.missing_fail else "which are empty"
        yield f"{show_count(len(told.missing), 'hour')} more without any object, {what}, the first {told.missing[0]}"
    said = {
        "bytes": show_bytes(told.load.bytes_),
        "files": f"{told.load.files:,}",
        "seconds": show_seconds(told.load.etl_s),
    }
    for name, figure in _figures(told).items():
        yield f"{name} of an hour: {said[name]} ({figure.origin})"


def _figures(told: Forecast) -> dict[str, Figure]:
    return {"bytes": told.bytes_, "files": told.files, "seconds": told.etl_s}


def _row(told: Forecast, found: Simulation) -> Row:
    given_up = f", {show_count(found.jobs_given_up, 'hour')} given up" if found.jobs_given_up else ""
    longer = "over " if found.jobs_done + found.jobs_given_up < told.load.hours else ""  # the simulation ended before
    return (
        f"{longer}{show_seconds(HOUR_S * found.hours)}{given_up}",
        f"{found.requests:,.0f}",
        f"{found.throttles:,.0f}",
        f"{found.throttle_share:.1%}",
        show_dollars(found.succeeded * PUT_DOLLARS) if told.on_s3 else "-",
        show_bytes(found.orphan_bytes),
    )


def _simulated(found: Simulation) -> dict[str, Any]:
    return {name: figure for name, figure in asdict(found).items() if name != "minutes"} | {
        "throttle_share": found.throttle_share,
        "dollars": found.succeeded * PUT_DOLLARS,
    }


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

"""A preview of an hour as people read it: a table of its rows, and what became of all the others."""

from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table

from lakehouse_pipeline.backfill.preview import HourPreview
from lakehouse_pipeline.planning.units import show_count

_CELL = 40  # characters of a value


def preview_lines(preview: HourPreview, width: int) -> list[str]:
    """Draw a preview for a terminal of so many columns."""
    lines = [f"{preview.hour} UTC: {_counts(preview)}"]
    if preview.rows:
        lines += ["", *_drawn(preview, width)]
    lines += [f"rejected: {reason}" for reason in preview.rejects]
    if preview.elsewhere:
        lines.append(f"a run fails: {preview.elsewhere:,} rows behind the transform are of other hours")
    for name, count in preview.missing.items():
        lines.append(f"a run fails: {count:,} rows behind the transform without a value in {name}, which is required")
    if preview.key:
        lines.append(
            f"not looked at: whether the key is unique ({', '.join(preview.key)}); a run does, before its commit"
        )
    if not preview.counted:
        lines.append(
            "not known: rows that were read, left to other hours and rejected; this engine's tasks run elsewhere, "
            "and a preview lets them write nothing"
        )
    return [*lines, "nothing was written"]


def _counts(preview: HourPreview) -> str:
    counts = {
        "read": preview.rows_read,
        "left to other hours": preview.left or None,
        "rejected": preview.rejected or None,
        "for the table": preview.rows_out,
    }
    told = [f"{show_count(count, 'row')} {what}" for what, count in counts.items() if count is not None]
    return ", ".join([show_count(preview.objects, "object"), *told])


def _drawn(preview: HourPreview, width: int) -> list[str]:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in preview.columns:
        is_number = column.type.partition("(")[0] in {"int", "long", "float", "double", "decimal"}
        table.add_column(f"{column.name}\n{column.type}", justify="right" if is_number else "left", overflow="ellipsis")
    for row in preview.rows:
        table.add_row(*(_cell(row[column.name]) for column in preview.columns))
    drawn = StringIO()
    Console(file=drawn, width=width, color_system=None, markup=False, highlight=False).print(table)
    return [line.rstrip() for line in drawn.getvalue().splitlines() if line.strip()]


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"

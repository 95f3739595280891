"""Pictures of tables as Markdown: what Dagster's page shows, and what may be put into a ticket."""

import base64
from collections.abc import Sequence

from lakehouse_pipeline.status.drawing import heat_map
from lakehouse_pipeline.status.health import Finding
from lakehouse_pipeline.status.picture import TableStatus
from lakehouse_pipeline.status.text import MOST_MESSAGE, causes_of, hours_text, most_frequent


def status_markdown(status: TableStatus, findings: Sequence[Finding]) -> str:
    """Draw a table: its heat map, what went wrong, and its thresholds."""
    return "\n\n".join(filter(None, (picture_markdown(status), _causes(status), _findings(findings))))


def picture_markdown(status: TableStatus) -> str:
    """Give the heat map, with itself in the text."""
    return embedded(f"hours of {status.name} by state", heat_map(status))


def embedded(name: str, png: bytes) -> str:
    """Give a picture with itself in the text."""
    return f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})"


def _causes(status: TableStatus) -> str:
    # No table: a long address in it would leave no room for the hours.
    shown, others = most_frequent(causes_of(status))
    lines = [
        f"- **{len(hours)}** {error}: {_line(message)}  \n  {hours_text(hours)}" for (error, message), hours in shown
    ]
    return "\n".join([*lines, f"- **{sum(map(len, others))}** of {len(others)} other causes"] if others else lines)


def _findings(findings: Sequence[Finding]) -> str:
    rows = [f"| {'ok' if each.passed else '**broken**'} | {each.check} | {each.said} |" for each in findings]
    return "\n".join(["| | check | |", "|:--|:--|:--|", *rows]) if rows else ""


def _line(text: str) -> str:
    """Write text in one line, as code: so that nothing in it is taken for Markdown."""
    return f"`{' '.join(text[:MOST_MESSAGE].split()).replace('`', chr(39))}`"

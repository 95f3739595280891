"""Pictures of tables as Markdown: what Dagster's page shows, and what may be put into a ticket."""

import base64
from collections.abc import Sequence

from lakehouse_pipeline.status.drawing import heat_map
from lakehouse_pipeline.status.health import Finding
from lakehouse_pipeline.status.picture import TableStatus
from lakehouse_pipeline.status.text import MOST_MESSAGE, causes_of, hours_text


def status_markdown(status: TableStatus, findings: Sequence[Finding]) -> str:
    """Draw a table: its heat map, what went wrong, and its thresholds."""
    return "\n\n".join(filter(None, (picture_markdown(status), _causes(status), _findings(findings))))


def picture_markdown(status: TableStatus) -> str:
    """Give the heat map, with itself in the text."""
    return f"![hours of {status.name} by state](data:image/png;base64,{base64.b64encode(heat_map(status)).decode()})"


def _causes(status: TableStatus) -> str:
    rows = [
        f"| {len(hours)} | {error} | {_cell(message)} | {hours_text(hours)} |"
        for (error, message), hours in causes_of(status).items()
    ]
    return "\n".join(["| hours | error | the first of them said | |", "|--:|:--|:--|:--|", *rows]) if rows else ""


def _findings(findings: Sequence[Finding]) -> str:
    rows = [f"| {'ok' if each.passed else '**broken**'} | {each.check} | {_cell(each.said)} |" for each in findings]
    return "\n".join(["| | check | |", "|:--|:--|:--|", *rows]) if rows else ""


def _cell(text: str) -> str:
    """Write text as a cell of a table: in one line, and without what would end the cell."""
    return " ".join(text[:MOST_MESSAGE].split()).replace("|", "\\|")

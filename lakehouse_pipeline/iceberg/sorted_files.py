"""The sorted files of an hour, as manifests tell of them: with what values of the leading sort column each begins.

Bounds of long texts are cut there, which does where they only say about where to cut.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyiceberg.conversions import from_bytes
from pyiceberg.table import Table
from pyiceberg.table.sorting import SortDirection
from pyiceberg.types import NestedField, PrimitiveType

from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.commit_writing import head
from lakehouse_pipeline.iceberg.event_time import EventTime
from lakehouse_pipeline.iceberg.manifests import live_entries


@dataclass(frozen=True)
class SortedFile:
    """A live data file whose rows are in the table's order.

    Attributes:
        path: where it lies.
        rows: records in it.
        first: the least value of the leading sort column, the greatest where that descends; a moment is a number, as
            Iceberg has it. None where it is not told.
    """

    path: str
    rows: int
    first: Any


def sorted_files(table: Table, event_time: str, hour: HourWindow) -> list[SortedFile] | None:
    """List an hour's live files; None where some of them are not in the table's present order, or have deletes.

    Args:
        table: with a sort order.
        event_time: the column that tells a row's hour.
        hour: the hour.
    """
    told, wanted = EventTime.of(table.metadata, event_time), {hour.ordinal}
    order, schema = table.sort_order(), table.schema()
    leading = order.fields[0]
    column = schema.find_field(leading.source_id)
    bounds = "upper_bounds" if leading.direction == SortDirection.DESC else "lower_bounds"
    found = []
    for entry, _, _ in live_entries(table.metadata, table.io, head(table), told, wanted):
        file = entry["data_file"]
        if file.get("content") or file.get("sort_order_id") != order.order_id:
            return None
        values = {item["key"]: item["value"] for item in file.get(bounds) or ()}
        found.append(SortedFile(file["file_path"], file["record_count"], _value(values, column)))
    return found


def _value(bounds: Mapping[int, bytes], column: NestedField) -> Any:
    kind, body = column.field_type, bounds.get(column.field_id)
    if body is None or not isinstance(kind, PrimitiveType):
        return None
    try:
        return from_bytes(kind, body)
    except (struct.error, ValueError):  # written when the column's type was a narrower one
        return None

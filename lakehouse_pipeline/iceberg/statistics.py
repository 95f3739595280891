"""What Iceberg knows of a data file's columns: sizes, counts and bounds, taken from the Parquet footer.

PyIceberg reads the footer; here stands what it needs beside it, and where its answer would be wrong.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import (
    MetricModeTypes,
    MetricsMode,
    StatisticsCollector,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.schema import Schema
from pyiceberg.table import TableProperties
from pyiceberg.types import NestedField, PrimitiveType, StructType

# An upper bound is cut by counting its last character up; after this one come the surrogates, which are no characters.
BEFORE_SURROGATES = "\ud7ff"


def column_statistics(
    footer: pq.FileMetaData, schema: Schema, properties: Mapping[str, str], nans: Mapping[int, int]
) -> dict[str, Any]:
    """Give a file's statistics by the spec's names, as far as the table's metrics modes ask for them.

    Args:
        footer: of the file.
        schema: of the table.
        properties: of the table.
        nans: NaN values by field id, which Parquet does not count.
    """
    plan = _plan(schema, properties)
    field_ids = parquet_path_to_id_mapping(schema)
    for path in _without_bounds(footer):
        wanted = plan[field_ids[path]]
        if wanted.mode.type != MetricModeTypes.NONE:
            plan[field_ids[path]] = replace(wanted, mode=MetricsMode(MetricModeTypes.COUNTS))
    statistics: dict[str, Any] = data_file_statistics_from_parquet_metadata(
        parquet_metadata=footer, stats_columns=plan, parquet_column_mapping=field_ids
    ).to_serialized_dict()
    counted = statistics["value_counts"]  # a column whose metrics mode is `none` has no counts at all
    return {**statistics, "nan_value_counts": {key: count for key, count in nans.items() if key in counted}}


def _plan(schema: Schema, properties: Mapping[str, str]) -> dict[int, StatisticsCollector]:
    """Plan the statistics of columns in structs as if they stood beside the structs, and none within lists and maps.

    So do Iceberg's own writers. PyIceberg gives no bounds to any column with a parent, and counts within lists.
    """
    plan = compute_statistics_plan(schema, dict(properties))
    nothing = {key: replace(wanted, mode=MetricsMode(MetricModeTypes.NONE)) for key, wanted in plan.items()}
    prefix = f"{TableProperties.METRICS_MODE_COLUMN_CONF_PREFIX}."
    fields, modes = [], {key: value for key, value in properties.items() if not key.startswith(prefix)}
    for field in (leaf for column in schema.fields for leaf in _leaves(column)):
        flat = f"c{field.field_id}"
        fields.append(NestedField(field.field_id, flat, field.field_type, required=False))
        mode = properties.get(f"{prefix}{schema.find_column_name(field.field_id)}")
        modes |= {f"{prefix}{flat}": mode} if mode else {}
    return {**nothing, **compute_statistics_plan(Schema(*fields), modes)}


def _leaves(field: NestedField) -> Iterator[NestedField]:
    """Give the primitive columns that a column is or that it has in structs, but not those in lists and maps."""
    if isinstance(field.field_type, StructType):
        for part in field.field_type.fields:
            yield from _leaves(part)
    elif isinstance(field.field_type, PrimitiveType):
        yield field


def _without_bounds(footer: pq.FileMetaData) -> set[str]:
    """Find the columns of which a row group does not tell the bounds.

    PyIceberg would fail at them, or take the bounds of the other row groups for the file's.
    """
    groups = [footer.row_group(place) for place in range(footer.num_row_groups)]
    columns = [group.column(place) for group in groups for place in range(footer.num_columns)]
    return {column.path_in_schema for column in columns if not _tells_bounds(column.statistics)}


def _tells_bounds(statistics: pq.Statistics) -> bool:
    if not statistics.has_min_max:  # nothing but null or NaN; or text above 4 KiB, which Parquet leaves out
        return bool(statistics.physical_type != "BYTE_ARRAY" or statistics.num_values == 0)
    try:
        bounds = (statistics.min, statistics.max)
    except OverflowError:  # a time outside of the years 1 to 9999, the only ones that Python has
        return False
    return not (isinstance(bounds[1], str) and BEFORE_SURROGATES in bounds[1])

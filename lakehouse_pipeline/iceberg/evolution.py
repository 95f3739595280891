"""Where a table and its spec differ, and what of that Iceberg's evolution rules let us bring about.

All of it is pure. What is refused says the way out; what is not is a change (`iceberg.changes`).

Source: https://iceberg.apache.org/spec/#schema-evolution, https://iceberg.apache.org/spec/#partition-evolution
"""

from collections.abc import Iterator
from dataclasses import replace

import pyiceberg.types as iceberg
from pyiceberg.schema import Schema
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.sorting import SortDirection
from pyiceberg.table.sorting import SortField as TableSortField
from pyiceberg.transforms import IdentityTransform, UnknownTransform

from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.iceberg.changes import (
    AddColumn,
    AddPartitionField,
    ChangePlan,
    Difference,
    MakeOptional,
    Path,
    ReplaceColumn,
    SetProperty,
    SetSortOrder,
    WidenColumn,
)
from lakehouse_pipeline.iceberg.manifest_files import codec_of
from lakehouse_pipeline.iceberg.manifest_lists import FORMAT_VERSION
from lakehouse_pipeline.iceberg.schemas import schema_of, type_name

DESCRIPTION = "comment"  # the property that engines show as a table's description


def plan_changes(metadata: TableMetadata, spec: TableSpec) -> ChangePlan:
    """Hold a table against its spec. Pure."""
    differences = (
        *_unwritable(metadata),
        *_column_differences(metadata, spec),
        *_partition_differences(metadata, spec),
        *_sort_differences(metadata, spec),
        *_property_differences(metadata, spec),
        *_description_differences(metadata, spec),
    )
    return ChangePlan(spec.name, f"{spec.file}: the table {spec.table}", differences)


def check_agrees(metadata: TableMetadata, spec: TableSpec) -> None:
    """Hold a table against its spec.

    Raises:
        ConfigurationError: lists every difference that stops an hour, one a line.
    """
    plan = plan_changes(metadata, spec)
    stopping = [each for each in plan.differences if each.stops]
    if not stopping:
        return
    lines = [f"{plan.spec} differs from its spec:", *(f"  {each}" for each in stopping)]
    if plan.refused:
        lines.append("Change the spec, or the table, so that they agree")
    else:
        lines.append(f"`lakehouse apply {spec.name}` brings the table to its spec; or change the spec")
    raise ConfigurationError("\n".join(lines))


def check_writable(name: str, metadata: TableMetadata) -> None:
    """Hold a table against what can be written at all.

    Raises:
        ConfigurationError: it is of another format version, or its properties cannot be honoured.
    """
    for difference in _unwritable(metadata):
        raise ConfigurationError(f"{name}: {difference}")


def _unwritable(metadata: TableMetadata) -> Iterator[Difference]:
    version = metadata.format_version
    if version < FORMAT_VERSION:
        yield Difference(
            f"its format version is {version}; only version 2 can be written",
            way_out="upgrade it, in Spark: ALTER TABLE ... SET TBLPROPERTIES ('format-version'='2')",
        )
    elif version > FORMAT_VERSION:
        yield Difference(
            f"its format version is {version}; only version 2 can be written (apache/iceberg-python#1551)",
            way_out="name a table of version 2, or one that does not exist yet",
        )
    try:
        load_location_provider(metadata.location, metadata.properties)
        codec_of(metadata.properties)
    except ValueError as error:
        yield Difference(f"its properties cannot be honoured: {error}", way_out="change or remove the property")


# ---------------------------------------------------------------------------------------------------------------------
# Columns
# ---------------------------------------------------------------------------------------------------------------------


def _column_differences(metadata: TableMetadata, spec: TableSpec) -> Iterator[Difference]:
    if spec.target_columns is None:
        return
    schema = metadata.schema()
    keys = frozenset(filter(None, map(schema.find_column_name, schema.identifier_field_ids)))
    wanted = {field.name: field for field in schema_of(spec.target_columns).fields}
    there = {field.name: field for field in schema.fields}
    for name in dict.fromkeys([*wanted, *there]):
        given, asked = there.get(name), wanted.get(name)
        found = [
            difference
            for difference in _field_differences((), (given,) if given else (), (asked,) if asked else (), keys)
            # The writer refuses null there whatever the table says, so a table whose event time is optional will do:
            # Spark makes every column so, and Iceberg does not let it be changed.
            if difference.text != _optional((spec.hour,))
        ]
        is_stuck = any(difference.change is None for difference in found)
        if not is_stuck or _had_rows(metadata):
            yield from found
        elif name in _bound_columns(metadata):
            yield from (_droppable(difference) for difference in found)
        else:
            said = "; ".join(difference.text for difference in found)
            type_ = type_name(asked.field_type) if asked else ""
            yield Difference(said, ReplaceColumn((name,), type_, asked is not None and asked.required, bool(given)))


def _had_rows(metadata: TableMetadata) -> bool:
    """Tell whether a table can ever have had a row: one that never had a snapshot has not."""
    return bool(metadata.snapshots) or getattr(metadata, "last_sequence_number", 0) > 0  # version 1 has none


def _bound_columns(metadata: TableMetadata) -> frozenset[str]:
    """Name the columns that more of the table than its schema speaks of."""
    fields = [field for spec in metadata.specs().values() for field in spec.fields]
    ids = {field.source_id for field in fields} | set(metadata.schema().identifier_field_ids)
    ids |= {field.source_id for order in metadata.sort_orders for field in order.fields}
    names = filter(None, map(metadata.schema().find_column_name, ids))
    return frozenset(name.partition(".")[0] for name in names)


def _droppable(difference: Difference) -> Difference:
    if difference.change:
        return difference
    drop = (
        "or drop the table, which has never had a row, by hand (PyIceberg: catalog.drop_table(…)): "
        "the next run makes it anew"
    )
    return replace(difference, way_out=f"{difference.way_out}; {drop}")


def _field_differences(
    parent: Path,
    given: tuple[iceberg.NestedField, ...],
    wanted: tuple[iceberg.NestedField, ...],
    keys: frozenset[str],
) -> Iterator[Difference]:
    there = {field.name: field for field in given}
    for field in wanted:
        path = (*parent, field.name)
        if field.name in there:
            yield from _nullability(path, keys, given=there[field.name].required, wanted=field.required)
            yield from _type_differences(path, there[field.name].field_type, field.field_type, keys)
        else:
            yield _missing(path, field)
    names = {field.name for field in wanted}
    for name in (field.name for field in given if field.name not in names):
        yield Difference(
            f"{_said((*parent, name))} of the table is not in the spec",
            way_out=(
                "add it to the spec's columns, or drop it by hand (PyIceberg: "
                f"table.update_schema().delete_column({'.'.join((*parent, name))!r}).commit())"
            ),
        )


def _missing(path: Path, field: iceberg.NestedField) -> Difference:
    text = f"{_said(path)} is not in the table"
    if field.required:
        return Difference(text, way_out="rows that are there have no value for it; write its type without !")
    return Difference(text, AddColumn(path, type_name(field.field_type)))


def _optional(path: Path) -> str:
    return f"{_said(path)} is optional in the table, but not in the spec"


def _nullability(path: Path, keys: frozenset[str], *, given: bool, wanted: bool) -> Iterator[Difference]:
    if wanted and not given:
        yield Difference(_optional(path), way_out="rows that are there may have no value; write its type without !")
    elif given and not wanted:
        text = f"{_said(path)} is required in the table, but not in the spec"
        if ".".join(path) in keys:
            yield Difference(text, way_out="it identifies the table's rows; write its type with !")
        else:
            yield Difference(text, MakeOptional(path))


def _type_differences(
    path: Path, given: iceberg.IcebergType, wanted: iceberg.IcebergType, keys: frozenset[str]
) -> Iterator[Difference]:
    if isinstance(given, iceberg.StructType) and isinstance(wanted, iceberg.StructType):
        yield from _field_differences(path, given.fields, wanted.fields, keys)
    elif isinstance(given, iceberg.ListType) and isinstance(wanted, iceberg.ListType):
        inner = (*path, "element")
        yield from _nullability(inner, keys, given=given.element_required, wanted=wanted.element_required)
        yield from _type_differences(inner, given.element_type, wanted.element_type, keys)
    elif isinstance(given, iceberg.MapType) and isinstance(wanted, iceberg.MapType):
        yield from _map_differences(path, given, wanted, keys)
    elif type_name(given) != type_name(wanted):
        text = f"{_said(path)} is {type_name(given)} in the table, {type_name(wanted)} in the spec"
        if _widens(given, wanted):
            yield Difference(text, WidenColumn(path, type_name(wanted)))
        else:
            yield Difference(text, way_out=f"Iceberg does not change it so; write {type_name(given)}")


def _map_differences(
    path: Path, given: iceberg.MapType, wanted: iceberg.MapType, keys: frozenset[str]
) -> Iterator[Difference]:
    one, other = type_name(given.key_type), type_name(wanted.key_type)
    if one != other:
        yield Difference(
            f"{_said((*path, 'key'))} is {one} in the table, {other} in the spec",
            way_out=f"Iceberg does not change the keys of maps; write {one}",
        )
    inner = (*path, "value")
    yield from _nullability(inner, keys, given=given.value_required, wanted=wanted.value_required)
    yield from _type_differences(inner, given.value_type, wanted.value_type, keys)


def _widens(given: iceberg.IcebergType, wanted: iceberg.IcebergType) -> bool:
    if isinstance(given, iceberg.DecimalType) and isinstance(wanted, iceberg.DecimalType):
        return given.scale == wanted.scale and given.precision < wanted.precision
    return (type(given), type(wanted)) in {
        (iceberg.IntegerType, iceberg.LongType),
        (iceberg.FloatType, iceberg.DoubleType),
    }


def _said(path: Path) -> str:
    return f"column {'.'.join(path)}"


# ---------------------------------------------------------------------------------------------------------------------
# Partition spec, sort order, properties
# ---------------------------------------------------------------------------------------------------------------------


def _partition_differences(metadata: TableMetadata, spec: TableSpec) -> Iterator[Difference]:
    schema, fields = metadata.schema(), metadata.spec().fields
    there = {(str(field.transform), schema.find_column_name(field.source_id)) for field in fields}
    parts = ", ".join(f"{field.transform}({schema.find_column_name(field.source_id)})" for field in fields) or "nothing"
    if ("hour", spec.hour) not in there:
        yield Difference(
            f"it is partitioned by {parts}, the spec by hour({spec.hour})",
            way_out=f"its hours cannot be replaced alone. Add hour({spec.hour}) to its partition spec and rewrite its "
            "files (in Spark: ALTER TABLE ... ADD PARTITION FIELD hours(...), then rewrite_data_files), or name "
            "another table",
        )
    for field in fields:
        if isinstance(field.transform, UnknownTransform):
            yield Difference(
                f"its partition field {field.name} has the transform {field.transform}, which cannot be computed",
                way_out="drop that field from its partition spec",
            )
    for wanted in spec.partition:
        if (wanted.transform, wanted.column) not in there:
            yield Difference(f"it is not partitioned by {wanted.transform}({wanted.column})", AddPartitionField(wanted))


def _sort_differences(metadata: TableMetadata, spec: TableSpec) -> Iterator[Difference]:
    schema = metadata.schema()
    given = [_order_text(schema, field) for field in metadata.sort_order_by_id(metadata.default_sort_order_id).fields]  # type: ignore[union-attr]  # the default is one of them
    wanted = [f"{field.column} {'desc' if field.descending else 'asc'}" for field in spec.sort]
    if given != wanted:
        yield Difference(
            f"it is sorted by {', '.join(given) or 'nothing'}, the spec by {', '.join(wanted) or 'nothing'}",
            SetSortOrder(spec.sort),
        )


def _order_text(schema: Schema, field: TableSortField) -> str:
    """Say a field of a sort order as a spec does; what no spec can say is said in full."""
    name = schema.find_column_name(field.source_id)
    descends = field.direction == SortDirection.DESC
    text = name if isinstance(field.transform, IdentityTransform) else f"{field.transform}({name})"
    usual = "nulls-last" if descends else "nulls-first"
    nulls = "" if field.null_order.value == usual else f" {field.null_order.value}"
    return f"{text} {'desc' if descends else 'asc'}{nulls}"


def _property_differences(metadata: TableMetadata, spec: TableSpec) -> Iterator[Difference]:
    for key, value in spec.properties.items():
        given = metadata.properties.get(key)
        if given != value and key != "format-version":  # that is none of its properties once the table is made
            said = "is not set in the table" if given is None else f"is {given!r} in the table"
            yield Difference(f"property {key} {said}, {value!r} in the spec", SetProperty(key, value))


def _description_differences(metadata: TableMetadata, spec: TableSpec) -> Iterator[Difference]:
    given = metadata.properties.get(DESCRIPTION)
    if spec.description and given != spec.description and DESCRIPTION not in spec.properties:
        said = "has no description" if given is None else f"is described as {given!r}"
        yield Difference(f"it {said}", SetProperty(DESCRIPTION, spec.description), stops=False)

"""A table and its spec: what differs is shown, what Iceberg lets be changed is changed in one commit, and no more."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.sorting import NullOrder, SortDirection, SortField, SortOrder
from pyiceberg.transforms import BucketTransform, HourTransform, IdentityTransform
from pyiceberg.types import LongType, NestedField, StringType, StructType, TimestamptzType, UUIDType

from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.errors import CommitConflictError, CommitStateUnknownError, ConfigurationError, TransientError
from lakehouse_pipeline.events import Event, subscribed
from lakehouse_pipeline.iceberg.changes import ChangePlan, run_changes
from lakehouse_pipeline.iceberg.evolution import plan_changes
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.schemas import columns_of
from lakehouse_pipeline.iceberg.tables import apply_spec, create_table, load_table
from tests.backfill.hands import in_hand, opened, seal
from tests.iceberg.lake import EVENTS, TEN, Lake, columns, events, spec_of

NAME = "lake.events"
RICH = {
    **EVENTS,
    "small": "int!",
    "ratio": "float",
    "money": "decimal(9,2)",
    "place": "struct<city:string!,x:float>",
    "tags": "list<int!>",
    "pairs": "map<string,struct<a:int>!>",
}


def described(types: Mapping[str, str], keys: Mapping[str, Any] | None = None) -> TableSpec:
    """Read the spec of the one table."""
    return spec_of(types, {"table": NAME, **(keys or {})})


def made(catalog: Catalog, types: Mapping[str, str] = RICH, keys: Mapping[str, Any] | None = None) -> Table:
    """Create the one table."""
    return create_table(catalog, described(types, keys), columns(types))


def filled(catalog: Catalog, types: Mapping[str, str] = RICH) -> Table:
    """Create the one table, and commit to it."""
    table = made(catalog, types)
    table.append(table.scan().to_arrow())
    return table


def lines(plan: ChangePlan) -> list[str]:
    """Give the differences without what is said about them."""
    return [difference.text for difference in plan.differences]


CHANGES: dict[str, tuple[dict[str, str], list[str]]] = {
    "nothing": ({}, []),
    "a column": ({"new": "string"}, ["column new is not in the table"]),
    "a nested column": ({"new": "struct<a:int!,b:list<long!>>"}, ["column new is not in the table"]),
    "int to long": ({"small": "long!"}, ["column small is int in the table, long in the spec"]),
    "float to double": ({"ratio": "double"}, ["column ratio is float in the table, double in the spec"]),
    "precision": ({"money": "decimal(12,2)"}, ["column money is decimal(9,2) in the table, decimal(12,2) in the spec"]),
    "optional": ({"small": "int"}, ["column small is required in the table, but not in the spec"]),
    "optional and wider": (
        {"small": "long"},
        [
            "column small is required in the table, but not in the spec",
            "column small is int in the table, long in the spec",
        ],
    ),
    "in a struct": (
        {"place": "struct<city:string,x:double,y:struct<z:int>>"},
        [
            "column place.city is required in the table, but not in the spec",
            "column place.x is float in the table, double in the spec",
            "column place.y is not in the table",
        ],
    ),
    "in a list": (
        {"tags": "list<long>"},
        [
            "column tags.element is required in the table, but not in the spec",
            "column tags.element is int in the table, long in the spec",
        ],
    ),
    "in a map": (
        {"pairs": "map<string,struct<a:long,b:string>>"},
        [
            "column pairs.value is required in the table, but not in the spec",
            "column pairs.value.a is int in the table, long in the spec",
            "column pairs.value.b is not in the table",
        ],
    ),
}


@pytest.mark.parametrize(("changed", "said"), CHANGES.values(), ids=CHANGES)
def test_columns_evolve(catalog: Catalog, changed: dict[str, str], said: list[str]) -> None:
    """What Iceberg's rules allow is done, at every level, and then the table agrees with its spec."""
    before = made(catalog)
    spec = described({**RICH, **changed})
    plan = apply_spec(catalog, spec, dry_run=False)
    assert plan
    assert (lines(plan), len(plan.changes)) == (said, len(said))
    table = load_table(catalog, spec)
    assert table
    assert columns_of(table.schema()) == columns({**RICH, **changed})
    for field in before.schema().fields:
        assert table.schema().find_field(field.name).field_id == field.field_id


REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "dropped": ({"ratio": ""}, "column ratio of the table is not in the spec: add it"),
    "dropped within": ({"place": "struct<city:string!>"}, "column place.x of the table is not in the spec: add it"),
    "narrowed": ({"id": "int!"}, "column id is long in the table, int in the spec: Iceberg does not .* write long"),
    "other type": ({"name": "binary"}, "column name is string in the table, binary in the spec: Iceberg does not"),
    "other scale": ({"money": "decimal(12,3)"}, r"column money is decimal\(9,2\) in the table, decimal\(12,3\)"),
    "no struct": ({"place": "string"}, "column place is struct<city:string!,x:float> in the table, string in the spec"),
    "required": ({"name": "string!"}, "column name is optional in the table, but not in the spec: rows .* without !"),
    "new and required": ({"new": "int!"}, "column new is not in the table: rows .* without !"),
    "required within": (
        {"place": "struct<city:string!,x:float!>"},
        "column place.x is optional in the table, but not in the spec: rows",
    ),
    "keys of a map": ({"pairs": "map<int,struct<a:int>!>"}, "column pairs.key is string in the table, int in the spec"),
}


@pytest.mark.parametrize(("changed", "said"), REFUSED.values(), ids=REFUSED)
def test_what_would_lose_data_is_refused(catalog: Catalog, changed: dict[str, str], said: str) -> None:
    """The way out is said, and of all that the spec asks for nothing is done."""
    filled(catalog)
    types = {name: kind for name, kind in {**RICH, **changed, "more": "int"}.items() if kind}
    before = catalog.load_table(NAME).metadata
    with pytest.raises(ConfigurationError, match=f"nothing was changed:\n(.*\n)*  {said}"):
        apply_spec(catalog, described(types), dry_run=False)
    assert catalog.load_table(NAME).metadata == before


@pytest.mark.parametrize("changed", [change for change, _ in REFUSED.values()], ids=REFUSED)
def test_a_table_without_rows_is_corrected(catalog: Catalog, changed: dict[str, str]) -> None:
    """A mistake in a table's first spec costs nothing: until there was a row, its columns are replaced."""
    made(catalog)
    types = {name: kind for name, kind in {**RICH, **changed, "more": "int"}.items() if kind}
    with pytest.raises(ConfigurationError, match="\n`lakehouse apply events` brings the table to its spec"):
        load_table(catalog, described(types))
    plan = apply_spec(catalog, described(types), dry_run=False)
    assert plan
    assert any("as the table has never had a row" in str(difference) for difference in plan.differences)
    table = load_table(catalog, described(types))
    assert table
    assert {column.name: column for column in columns_of(table.schema())} == {
        column.name: column for column in columns(types)
    }
    table.append(table.scan().to_arrow())
    with pytest.raises(ConfigurationError, match="nothing was changed"):
        apply_spec(catalog, described({**types, "id": "string!", "more": "string"}), dry_run=False)


def test_what_more_than_the_schema_speaks_of_stays(catalog: Catalog) -> None:
    """A column that the table is sorted by is not replaced even before there was a row: the way out is said."""
    made(catalog, EVENTS, {"sort": ["id"]})
    with pytest.raises(ConfigurationError, match="write long; or drop the table, which has never had a row"):
        apply_spec(catalog, described({**EVENTS, "id": "string!"}, {"sort": ["id"]}), dry_run=False)


@pytest.mark.parametrize("changed", [{"name": "long"}, {"more": "int!"}], ids=["replaced", "required"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "after another"])
def test_files_of_replaced_columns_are_not_committed(catalog: Catalog, changed: dict[str, str], *, first: bool) -> None:
    """What was sealed before its columns were replaced would be read as null: it is refused, to be run again."""
    made(catalog, EVENTS)
    lake = Lake(catalog, NAME)
    hand = seal(lake, opened(lake, TEN), [1, 2])
    apply_spec(catalog, described({**EVENTS, **changed}), dry_run=False)
    if not first:
        table = catalog.load_table(NAME)
        table.append(table.scan().to_arrow())
    with pytest.raises(CommitConflictError, match=r"before columns of events were replaced; run the hour again"):
        hand.commit()
    assert len(catalog.load_table(NAME).snapshots()) == (0 if first else 1)
    assert hand.held.record.attempt is None


def test_columns_are_not_replaced_once_a_commit_has_landed(catalog: Catalog) -> None:
    """Somebody's first commit lands between our look at the table and the change: its rows would lose the column."""
    table = made(catalog, EVENTS)
    spec = described({**EVENTS, "name": "long"})
    plan = plan_changes(table.metadata, spec)
    Lake(catalog, NAME).put(TEN, [1, 2])
    with pytest.raises(CommitConflictError, match="run `lakehouse apply events` again"):
        run_changes(table, plan)
    assert Lake(catalog, NAME).rows() == {TEN.key: [1, 2]}


def test_columns_are_replaced_while_a_commit_is_sent(catalog: Catalog) -> None:
    """The catalog refuses it, since it asserts the columns; the hour's next run finds that it did not land."""
    made(catalog, EVENTS)
    lake = Lake(catalog, NAME)
    hand = seal(lake, opened(lake, TEN), [1, 2])

    def replaced(event: Event) -> None:
        if event.name == "commit.sent":
            apply_spec(catalog, described({**EVENTS, "name": "long"}), dry_run=False)

    with subscribed(replaced), pytest.raises(CommitStateUnknownError, match=r"before columns of events were replaced"):
        hand.commit()
    assert catalog.load_table(NAME).snapshots() == []
    assert in_hand(lake, TEN).abandon("its columns are gone") is None
    assert lake.rows() == {}


ADD_IT = (
    "add it to the spec's columns, or drop it by hand (PyIceberg: table.update_schema().delete_column('name').commit())"
)


def test_every_difference_is_shown_on_its_line(catalog: Catalog) -> None:
    """A run stops before it does anything, and shows what differs, with what `lakehouse apply` does about it."""
    filled(catalog, EVENTS)
    spec = described(
        {"at": "timestamptz!", "id": "int!", "new": "long"}, {"sort": ["id"], "properties": {"owner": "me"}}
    )
    with pytest.raises(ConfigurationError) as caught:
        load_table(catalog, spec)
    assert str(caught.value).splitlines()[1:] == [
        "  column id is long in the table, int in the spec: Iceberg does not change it so; write long",
        "  column new is not in the table: add it, as long",
        "  column name of the table is not in the spec: " + ADD_IT,
        "  it is sorted by nothing, the spec by id asc: sort new files so",
        "  property owner is not set in the table, 'me' in the spec: set it to 'me'",
        "Change the spec, or the table, so that they agree",
    ]


def test_what_apply_can_do_is_said(catalog: Catalog) -> None:
    """Where nothing is refused the command is named."""
    made(catalog, EVENTS)
    with pytest.raises(ConfigurationError, match="\n`lakehouse apply events` brings the table to its spec"):
        load_table(catalog, described({**EVENTS, "new": "long"}))


def test_all_of_a_spec_is_applied_in_one_commit(catalog: Catalog) -> None:
    """Columns, partition fields and a sort order of new columns, and properties change together, and old ones stay."""
    before = made(catalog, EVENTS, {"properties": {"owner": "me", "kept": "yes"}})
    spec = described(
        {**EVENTS, "region": "string"},
        {"partition": ["region", "bucket(4, id)"], "sort": ["region desc", "id"], "properties": {"owner": "you"}},
    )
    apply_spec(catalog, spec, dry_run=False)
    table = load_table(catalog, spec)
    assert table
    assert [(str(field.transform), field.name) for field in table.spec().fields] == [
        ("hour", "at_hour"),
        ("identity", "region"),
        ("bucket[4]", "id_bucket"),
    ]
    assert [(field.source_id, field.direction.name, field.null_order.name) for field in table.sort_order().fields] == [
        (4, "DESC", "NULLS_LAST"),
        (2, "ASC", "NULLS_FIRST"),
    ]
    assert {"owner": "you", "kept": "yes"}.items() <= table.properties.items()
    assert len(table.metadata.metadata_log) == len(before.metadata.metadata_log) + 1


def test_a_dry_run_changes_nothing(catalog: Catalog) -> None:
    """It says what would be done."""
    made(catalog)
    before = catalog.load_table(NAME).metadata
    plan = apply_spec(catalog, described({**RICH, "new": "int"}), dry_run=True)
    assert plan
    assert lines(plan) == ["column new is not in the table"]
    assert catalog.load_table(NAME).metadata == before


def test_there_may_be_no_table(catalog: Catalog) -> None:
    """The first hour creates it."""
    assert apply_spec(catalog, described(EVENTS), dry_run=False) is None


def test_a_sort_order_may_go(catalog: Catalog) -> None:
    """A spec without `sort` makes the table unsorted, and again sorted as it was before."""
    made(catalog, EVENTS, {"sort": ["id", "name desc"]})
    for sort in ([], ["id", "name desc"], ["name"]):
        apply_spec(catalog, described(EVENTS, {"sort": sort} if sort else {}), dry_run=False)
        assert len(catalog.load_table(NAME).sort_order().fields) == len(sort)


def with_rival(catalog: Catalog) -> tuple[Table, ChangePlan]:
    """Plan a change of a table that somebody else changes then."""
    made(catalog)
    table = catalog.load_table(NAME)
    plan = plan_changes(table.metadata, described({**RICH, "new": "int"}))
    with catalog.load_table(NAME).update_schema() as update:
        update.add_column("rival", LongType())
    return table, plan


def test_somebody_else_may_be_faster(catalog: Catalog) -> None:
    """A plan is for the table as it was; the other's change stays and ours is refused."""
    table, plan = with_rival(catalog)
    with pytest.raises(CommitConflictError, match="run `lakehouse apply events` again"):
        run_changes(table, plan)
    assert catalog.load_table(NAME).schema().find_type("rival") == LongType()


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (CommitFailedException("409"), CommitConflictError),
        (TransientError("reset"), CommitStateUnknownError),
        (OSError("reset"), CommitStateUnknownError),
        (ValueError("no"), ConfigurationError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_failures_are_told_apart(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, raised: Exception, said: type[Exception]
) -> None:
    """A conflict, a lost reply and a refusal of Iceberg's each ask for something else."""
    made(catalog)

    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(catalog, "commit_table", fail)
    with pytest.raises(said, match="events"):
        apply_spec(catalog, described({**RICH, "new": "int"}), dry_run=False)


# ---------------------------------------------------------------------------------------------------------------------
# Tables that others made
# ---------------------------------------------------------------------------------------------------------------------

THEIRS = Schema(
    NestedField(7, "name", StringType(), required=False, doc="who"),
    NestedField(3, "at", TimestamptzType(), required=False, doc="when"),
    NestedField(12, "id", LongType(), required=True),
)


def adopted(
    catalog: Catalog, *fields: PartitionField, properties: Mapping[str, str] | None = None, schema: Schema = THEIRS
) -> HourlyTable:
    """Make a table as others do, and take it for ours."""
    catalog.create_namespace("lake")
    table = catalog.create_table(NAME, schema, partition_spec=PartitionSpec(*fields), properties=dict(properties or {}))
    return HourlyTable(catalog, table, "at")


HOUR = PartitionField(3, 1000, HourTransform(), "when_it_was")
BUCKET = PartitionField(12, 1001, BucketTransform(4), "b")
NAMED = PartitionField(7, 1002, IdentityTransform(), "name")


@pytest.mark.parametrize(
    "fields", [(HOUR,), (BUCKET, HOUR), (NAMED, HOUR, BUCKET)], ids=["hour alone", "hour second", "hour amid"]
)
@pytest.mark.parametrize(
    "properties",
    [{}, {"write.object-storage.enabled": "true", "write.object-storage.partitioned-paths": "false"}],
    ids=["plain", "no paths"],
)
def test_a_table_with_the_hour_is_adopted(
    catalog: Catalog, fields: tuple[PartitionField, ...], properties: dict[str, str]
) -> None:
    """Whatever its fields are called and in which order they, its columns and its ids come: hours are replaced."""
    adopted(catalog, *fields, properties=properties)
    with catalog.load_table(NAME).update_schema() as update:
        update.add_column("later", StringType()).add_column("gone", StringType())
    with catalog.load_table(NAME).update_schema() as update:
        update.delete_column("gone")
    spec = described({**EVENTS, "later": "string"})
    assert load_table(catalog, spec)
    lake = Lake(catalog, NAME)
    with catalog.load_table(NAME).update_schema() as update:
        update.delete_column("later")
    lake.append(events(TEN, [1, 2, 3]).select(["name", "at", "id"]))
    lake.put(TEN, [4, 5, 6, 7])
    assert lake.rows() == {TEN.key: [4, 5, 6, 7]}
    lake.put(TEN, [])
    assert lake.rows() == {}


def test_an_optional_event_time_will_do(catalog: Catalog) -> None:
    """Spark makes every column optional and Iceberg keeps it so; null is refused by the writer instead."""
    adopted(catalog, HOUR)
    spec = described(EVENTS)
    assert plan_changes(catalog.load_table(NAME).metadata, spec).differences == ()


REFUSED_TABLES: dict[str, tuple[tuple[PartitionField, ...], str]] = {
    "unpartitioned": ((), r"it is partitioned by nothing, the spec by hour\(at\): its hours cannot be replaced alone"),
    "another field": ((NAMED,), r"it is partitioned by identity\(name\), the spec by hour\(at\)"),
}


@pytest.mark.parametrize(("fields", "said"), REFUSED_TABLES.values(), ids=REFUSED_TABLES)
def test_a_table_without_the_hour_is_refused(catalog: Catalog, fields: tuple[PartitionField, ...], said: str) -> None:
    """It says how it is partitioned, and what can be done about it, which `lakehouse apply` does not."""
    adopted(catalog, *fields)
    for doing in (load_table, lambda *given: apply_spec(*given, dry_run=False)):
        with pytest.raises(ConfigurationError, match=said):
            doing(catalog, described(EVENTS))


def test_a_table_of_version_3_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    """PyIceberg reads such tables and cannot write them; nothing but its metadata is looked at."""
    table = made(catalog, EVENTS)
    metadata = json.loads(Path(table.metadata_location.removeprefix("file://")).read_text())
    location = tmp_path / "v3.metadata.json"
    location.write_text(json.dumps({**metadata, "format-version": 3, "next-row-id": 0}))
    catalog.drop_table(NAME)
    catalog.register_table(NAME, f"file://{location}")
    for doing in (load_table, lambda *given: apply_spec(*given, dry_run=False)):
        with pytest.raises(ConfigurationError, match=r"its format version is 3; .*python#1551"):
            doing(catalog, described(EVENTS))


def test_a_table_of_version_1_is_refused(catalog: Catalog) -> None:
    """It can be upgraded, which is left to its owner."""
    catalog.create_namespace("lake")
    catalog.create_table(NAME, THEIRS, partition_spec=PartitionSpec(HOUR), properties={"format-version": "1"})
    with pytest.raises(ConfigurationError, match=r"its format version is 1; only version 2 .*: upgrade it"):
        load_table(catalog, described(EVENTS))


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"write.avro.compression-codec": "snappy"}, "its properties cannot be honoured: write.avro.compression-codec"),
    ],
    ids=["manifests in snappy"],
)
def test_properties_that_cannot_be_honoured_are_said(catalog: Catalog, properties: dict[str, str], said: str) -> None:
    """Before the ETL, not at the seal."""
    adopted(catalog, HOUR, properties=properties)
    with pytest.raises(ConfigurationError, match=said):
        load_table(catalog, described(EVENTS))


def test_a_type_that_no_spec_has_is_said(catalog: Catalog) -> None:
    """Such a column differs from any spec; where the spec names no columns the table's cannot be read."""
    schema = Schema(*THEIRS.fields, NestedField(13, "u", StructType(NestedField(14, "x", UUIDType()))))
    table = adopted(catalog, HOUR, schema=schema)
    with pytest.raises(ConfigurationError, match="column u of the table is not in the spec"):
        load_table(catalog, described(EVENTS))
    with pytest.raises(ConfigurationError, match=r"columns that cannot be written: .*uuid"):
        _ = table.columns


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (SortField(12, IdentityTransform(), SortDirection.ASC, NullOrder.NULLS_LAST), "id asc nulls-last"),
        (SortField(12, BucketTransform(4), SortDirection.DESC, NullOrder.NULLS_LAST), r"bucket\[4\]\(id\) desc"),
    ],
    ids=["nulls", "transform"],
)
def test_a_sort_order_that_no_spec_has_is_a_difference(catalog: Catalog, order: SortField, said: str) -> None:
    """Files claim the table's order, so it has to be exactly the one that we write."""
    catalog.create_namespace("lake")
    catalog.create_table(NAME, THEIRS, partition_spec=PartitionSpec(HOUR), sort_order=SortOrder(order))
    with pytest.raises(ConfigurationError, match=f"it is sorted by {said}, the spec by id"):
        load_table(catalog, described(EVENTS, {"sort": ["id"]}))


def test_rows_that_identify_stay_required(catalog: Catalog) -> None:
    """Identifier fields are never null in Iceberg."""
    schema = Schema(*THEIRS.fields, identifier_field_ids=[12])
    adopted(catalog, HOUR, schema=schema)
    with pytest.raises(ConfigurationError, match=r"column id is required .*: it identifies the table's rows"):
        apply_spec(catalog, described({**EVENTS, "id": "long"}), dry_run=False)


def test_the_format_version_is_no_property(catalog: Catalog) -> None:
    """A spec may say it; the table does not keep it."""
    spec = described(EVENTS, {"properties": {"format-version": "2"}})
    made(catalog, EVENTS, {"properties": {"format-version": "2"}})
    assert plan_changes(catalog.load_table(NAME).metadata, spec).differences == ()


def test_a_plan_is_pure(catalog: Catalog) -> None:
    """The same table and spec, the same plan."""
    metadata = made(catalog).metadata
    spec = described({**RICH, "new": "int"})
    assert plan_changes(metadata, spec) == replace(plan_changes(metadata, spec))

"""Changes of a table by Iceberg's evolution rules, and the one commit that makes them.

Which changes a table needs is `iceberg.evolution`'s to find. Nothing here drops, narrows, renames or reorders what has
ever had a row, and no data file is read or written.
"""

import logging
from dataclasses import dataclass

import requests
import sqlalchemy.exc
from pyiceberg.exceptions import CommitFailedException, RESTError, ValidationError
from pyiceberg.table import Table, Transaction
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, UNSORTED_SORT_ORDER_ID
from pyiceberg.table.update import (
    AddSortOrderUpdate,
    AssertDefaultSortOrderId,
    AssertRefSnapshotId,
    SetDefaultSortOrderUpdate,
)
from pyiceberg.table.update.schema import UpdateSchema

from lakehouse_pipeline.config.table import PartitionField, SortField
from lakehouse_pipeline.errors import (
    CommitConflictError,
    CommitStateUnknownError,
    ConfigurationError,
    LakehouseError,
    TransientError,
)
from lakehouse_pipeline.iceberg.schemas import iceberg_type, partition_name, sort_field

logger = logging.getLogger(__name__)

Path = tuple[str, ...]  # of a column; the parts of lists and maps are `element`, `key` and `value`


@dataclass(frozen=True)
class AddColumn:
    """Add an optional column, at the end of the table or of a struct."""

    path: Path
    type: str

    def __str__(self) -> str:
        """Say what it does."""
        return f"add it, as {self.type}"


@dataclass(frozen=True)
class WidenColumn:
    """Give a column a type that holds all values of its old one."""

    path: Path
    type: str

    def __str__(self) -> str:
        """Say what it does."""
        return f"widen it to {self.type}"


@dataclass(frozen=True)
class MakeOptional:
    """Let a column be null."""

    path: Path

    def __str__(self) -> str:
        """Say what it does."""
        return "make it optional"


@dataclass(frozen=True)
class ReplaceColumn:
    """Put a column in the place of one of its name, or drop that, in a table that has never had a row.

    Attributes:
        path: of the column.
        type: that it gets; empty where it is dropped.
        required: whether it may not be null.
        is_there: whether the table has a column of its name.
    """

    path: Path
    type: str
    required: bool
    is_there: bool

    def __str__(self) -> str:
        """Say what it does."""
        does = f"make it {self.type}{'!' * self.required}" if self.type else "drop it"
        return f"{does}, as the table has never had a row"


@dataclass(frozen=True)
class AddPartitionField:
    """Partition new files by one more field."""

    field: PartitionField

    def __str__(self) -> str:
        """Say what it does."""
        return "partition new files by it, too"


@dataclass(frozen=True)
class SetSortOrder:
    """Sort new files by these columns; by none of them they are unsorted."""

    fields: tuple[SortField, ...]

    def __str__(self) -> str:
        """Say what it does."""
        return "sort new files so" if self.fields else "leave new files unsorted"


@dataclass(frozen=True)
class SetProperty:
    """Set a property of the table."""

    key: str
    value: str

    def __str__(self) -> str:
        """Say what it does."""
        return f"set it to {self.value!r}"


Change = AddColumn | WidenColumn | MakeOptional | ReplaceColumn | AddPartitionField | SetSortOrder | SetProperty


@dataclass(frozen=True)
class Difference:
    """One point in which a table is not what its spec says.

    Attributes:
        text: what differs.
        change: what brings the table to its spec; None where Iceberg, or care for the data, forbids it.
        way_out: what to do instead, for a difference without a change.
        stops: whether no hour runs until it is gone; what only describes the table stops none.
    """

    text: str
    change: Change | None = None
    way_out: str = ""
    stops: bool = True

    def __str__(self) -> str:
        """Say the difference and what can be done about it, in one line."""
        return f"{self.text}: {self.change or self.way_out}"


@dataclass(frozen=True)
class ChangePlan:
    """All differences between a table and its spec.

    Attributes:
        name: of the spec.
        spec: its file and the table, as messages begin.
        differences: none where the two agree.
    """

    name: str
    spec: str
    differences: tuple[Difference, ...]

    @property
    def changes(self) -> tuple[Change, ...]:
        """What can be done about them."""
        return tuple(each.change for each in self.differences if each.change)

    @property
    def refused(self) -> tuple[Difference, ...]:
        """What nothing can be done about here."""
        return tuple(each for each in self.differences if not each.change)


def refuse_impossible(plan: ChangePlan) -> None:
    """Hold a plan against the rule that all of it is done, or nothing.

    Raises:
        ConfigurationError: lists every difference that nothing can be done about here, with the way out.
    """
    if plan.refused:
        lines = (f"  {each}" for each in plan.refused)
        first = f"{plan.spec} cannot be brought to its spec; nothing was changed:"
        raise ConfigurationError("\n".join([first, *lines]))


def run_changes(table: Table, plan: ChangePlan) -> None:
    """Make a plan's changes in one commit; the table is then as its spec says.

    Args:
        table: as it was when the plan was made.
        plan: of differences that can all be settled.

    Raises:
        ConfigurationError: a difference has no change, or Iceberg refuses one; nothing was changed.
        CommitConflictError: somebody else changed the table since it was loaded; nothing was changed.
        CommitStateUnknownError: the reply was lost.
    """
    refuse_impossible(plan)
    if not plan.changes:
        return
    try:
        with table.transaction() as transaction:
            _stage(transaction, plan.changes)
    except CommitFailedException as error:
        raise CommitConflictError(
            f"{plan.spec} was changed by somebody else meanwhile ({error}): run `lakehouse apply {plan.name}` again"
        ) from None
    except LakehouseError as error:
        raise (_unknown(plan, error) if isinstance(error, TransientError) else error) from None
    except (ValidationError, ValueError) as error:
        raise ConfigurationError(f"{plan.spec} cannot be brought to its spec; nothing was changed: {error}") from None
    except (RESTError, requests.RequestException, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
        raise _unknown(plan, error) from None
    logger.info("%s: brought to its spec by %d changes", plan.spec, len(plan.changes))


def _unknown(plan: ChangePlan, error: Exception) -> CommitStateUnknownError:
    return CommitStateUnknownError(
        f"{plan.spec}: whether the changes landed is not known ({type(error).__name__}: {error}): "
        f"run `lakehouse apply {plan.name}` again, it does what is left"
    )


def _stage(transaction: Transaction, changes: tuple[Change, ...]) -> None:
    """Columns come first: partition fields and the sort order may be of new ones."""
    of_columns = [each for each in changes if isinstance(each, AddColumn | WidenColumn | MakeOptional | ReplaceColumn)]
    if of_columns:
        replaces = any(isinstance(each, ReplaceColumn) for each in of_columns)
        if replaces:  # not once somebody's first commit has landed
            transaction._apply((), (AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=None),))  # noqa: SLF001
        with transaction.update_schema(allow_incompatible_changes=replaces) as update:
            for each in of_columns:
                _stage_column(update, each)
    schema = transaction.table_metadata.schema()
    added = [each.field for each in changes if isinstance(each, AddPartitionField)]
    if added:
        fields_there = transaction.table_metadata.spec().fields
        taken = {*(column.name for column in schema.fields), *(field.name for field in fields_there)}
        with transaction.update_spec() as fields:
            for field in added:
                name = partition_name(field.transform, field.column, taken)
                taken.add(name)
                fields.add_field(field.column, field.transform, name)
    for change in changes:
        if isinstance(change, SetSortOrder):
            _stage_sort_order(transaction, change)
    properties = {each.key: each.value for each in changes if isinstance(each, SetProperty)}
    if properties:
        transaction.set_properties(properties)


def _stage_column(update: UpdateSchema, change: AddColumn | WidenColumn | MakeOptional | ReplaceColumn) -> None:
    if isinstance(change, ReplaceColumn):
        if change.is_there:
            update.delete_column(change.path)
        if change.type:
            update.add_column(change.path, iceberg_type(change.type), required=change.required)
    elif isinstance(change, AddColumn):
        update.add_column(change.path, iceberg_type(change.type))
    elif isinstance(change, WidenColumn):
        update.update_column(change.path, field_type=iceberg_type(change.type))
    else:
        update.make_column_optional(change.path)


def _stage_sort_order(transaction: Transaction, change: SetSortOrder) -> None:
    metadata = transaction.table_metadata
    if not change.fields and metadata.sort_order_by_id(UNSORTED_SORT_ORDER_ID) is None:
        # PyIceberg's own builder takes the order added last for that of the greatest id, and refuses.
        transaction._apply(  # noqa: SLF001
            (
                AddSortOrderUpdate(sort_order=UNSORTED_SORT_ORDER),
                SetDefaultSortOrderUpdate(sort_order_id=UNSORTED_SORT_ORDER_ID),
            ),
            (AssertDefaultSortOrderId(default_sort_order_id=metadata.default_sort_order_id),),
        )
        return
    schema = metadata.schema()
    with transaction.update_sort_order() as order:
        for field in change.fields:
            wanted = sort_field(schema, field)
            add = order.desc if field.descending else order.asc
            add(field.column, wanted.transform, wanted.null_order)

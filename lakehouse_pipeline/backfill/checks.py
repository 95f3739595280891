"""What must hold of an hour's files before they are sealed; Dagster shows the same as asset checks.

That every row is of the hour, that required columns have values and that sorted files are sorted is checked by the
writer on every row; here stands what needs the whole hour.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.errors import DataError

ROWS = "rows_match_source"
KEYS = "keys_are_unique"
ORDER = "files_are_in_order"


class CheckFailedError(DataError):
    """A check did not hold; `check` is its name."""

    def __init__(self, check: str, message: str) -> None:
        """Say which check failed and why."""
        super().__init__(f"{message}. The hour stays as it was, and the files that were written for it are removed")
        self.check = check


@dataclass(frozen=True)
class Check:
    """One check that held.

    Attributes:
        name: `rows_match_source`, `keys_are_unique` or `files_are_in_order`.
        figures: what it compared.
    """

    name: str
    figures: Mapping[str, int] = field(default_factory=dict)


def checks_of(spec: TableSpec) -> Mapping[str, str]:
    """Name the checks that a table's hours go through, with what they say."""
    rows = (
        "Rows written are rows read: nothing was lost or doubled on the way."
        if spec.transform is None
        else "The transform made rows of the rows read, or there were none to read."
    )
    keys = {KEYS: f"No two rows of an hour have the same {', '.join(spec.key)}."} if spec.key else {}
    sorted_ = "Files are sorted, none begins before the end of the one ahead of it, and no row changed on its way."
    order = {ORDER: sorted_} if spec.check_order else {}
    return {ROWS: rows, **keys, **order}


def check_rows(spec: TableSpec, rows: int, rows_read: int | None, rejected: int, left: int | None = 0) -> Check:
    """Hold the rows written against the rows read: equal where nothing transforms them, else not all gone.

    Args:
        spec: the table's spec.
        rows: that were written.
        rows_read: good rows of the hour; None where that is not known.
        rejected: rows that were kept aside.
        left: rows that were left to other hours; None where that is not known.

    Raises:
        CheckFailedError: rows were lost or doubled, or the source holds nothing but rejected ones.
    """
    if spec.transform is None and rows_read is not None and rows != rows_read:
        raise CheckFailedError(ROWS, f"{spec.name}: {rows_read} rows were read and {rows} written")
    if rejected and rows_read == 0 and left == 0:  # None is not zero: what an engine did not count may be there
        raise CheckFailedError(
            ROWS,
            f"{spec.name}: all {rejected} rows of the source were rejected: are `columns` and `hour` right?",
        )
    if rows_read and not rows:
        raise CheckFailedError(
            ROWS, f"{spec.name}: {rows_read} rows were read, and the transform left none (is a join or filter wrong?)"
        )
    known = {"rows_read": rows_read, "rows": rows, "rejected": rejected, "left": left}
    return Check(ROWS, {name: count for name, count in known.items() if count is not None})

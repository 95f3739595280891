"""What an hour's row counts say, and what they do not."""

from pathlib import Path

import pytest

from lakehouse_pipeline.backfill.checks import CheckFailedError, check_rows
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.transform import SqlTransform
from tests.iceberg.lake import EVENTS, spec_of


@pytest.fixture
def transformed() -> TableSpec:
    """Give the spec of a table with a transform."""
    return spec_of(EVENTS, {}).model_copy(update={"transform": SqlTransform(file=Path("t.sql"), text="SELECT 1")})


def test_what_is_not_known_is_not_zero(transformed: TableSpec) -> None:
    """An engine that need not read every row counts none: rejects among those it read say nothing of the others."""
    check = check_rows(transformed, rows=100, rows_read=None, rejected=1, left=None)
    assert check.figures == {"rows": 100, "rejected": 1}


def test_a_source_of_nothing_but_rejects_is_refused(transformed: TableSpec) -> None:
    """The columns are more likely wrong than every row."""
    with pytest.raises(CheckFailedError, match="all 3 rows of the source were rejected"):
        check_rows(transformed, rows=0, rows_read=0, rejected=3)


def test_rows_of_other_hours_are_rows(transformed: TableSpec) -> None:
    """A file whose good rows are all of other hours is read as it should be."""
    assert check_rows(transformed, rows=0, rows_read=0, rejected=3, left=2).figures["left"] == 2


@pytest.mark.parametrize("rows", [9, 11], ids=["lost", "doubled"])
def test_rows_that_were_lost_or_doubled_are_refused(rows: int) -> None:
    """Where nothing transforms them, as many are written as were read."""
    with pytest.raises(CheckFailedError, match=f"10 rows were read and {rows} written"):
        check_rows(spec_of(EVENTS, {}), rows=rows, rows_read=10, rejected=0)


def test_a_transform_that_leaves_nothing_is_refused(transformed: TableSpec) -> None:
    """An hour whose rows all go is more likely a wrong join than an empty hour."""
    with pytest.raises(CheckFailedError, match="10 rows were read, and the transform left none"):
        check_rows(transformed, rows=0, rows_read=10, rejected=0)

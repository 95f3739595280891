"""Rows are sorted as `OrderCheck` wants them, in any memory, and nothing stays on disk."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.errors import TransientError
from lakehouse_pipeline.iceberg.sorted_rows import OrderCheck
from lakehouse_pipeline.iceberg.sorting import ROWS_AT_ONCE, sorted_batches
from tests.maintenance.streams import Rows, batches_of, key, left_in, rows_of, streams

MEMORY = st.sampled_from([1, 300, 2_000, 10**9])  # a run for every row, some runs, and none


def numbers(rows: int, *, per_batch: int = 100, distinct: int = 10**6) -> Iterator[pa.RecordBatch]:
    """Give batches of numbers in no order, and where each row is from."""
    for start in range(0, rows, per_batch):
        places = range(start, min(start + per_batch, rows))
        yield pa.RecordBatch.from_pydict({"n": [place * 7_919 % distinct for place in places], "place": list(places)})


@given(streams(), MEMORY, st.data())
def test_rows_come_in_order_and_none_is_lost(stream: Rows, memory: int, data: st.DataObject) -> None:
    """Whatever the memory: the same rows, as Python's own sort has them, which the check of the writer passes, too."""
    columns = tuple((name, data.draw(st.booleans())) for name in stream.names)
    with TemporaryDirectory() as folder:
        given = list(sorted_batches(batches_of(stream), columns, memory=memory, folder=Path(folder)))
        assert left_in(folder) == []
    rows = rows_of(given)
    assert Counter(row[-1] for row in rows) == Counter(range(len(stream.rows)))
    expected = list(stream.rows)
    for place in reversed(range(len(columns))):
        expected.sort(key=lambda row: key(row[place]), reverse=columns[place][1])
    assert [[key(value) for value in row[:-1]] for row in rows] == [[key(value) for value in row] for row in expected]
    check = OrderCheck(1, columns)
    for batch in given:
        check.feed(batch)


@pytest.mark.parametrize("memory", [20_000, 10**9], ids=["on disk", "in memory"])
@pytest.mark.parametrize("columns", [(("n", False),), (("n", True),), (("n", False), ("place", True))])
def test_many_rows(tmp_path: Path, memory: int, columns: tuple[tuple[str, bool], ...]) -> None:
    """Rows of many ranges are in order, in either direction."""
    given = list(sorted_batches(numbers(5_000, distinct=500), columns, memory=memory, folder=tmp_path))
    place = [-1 if descending else 1 for _, descending in columns]
    names = [name for name, _ in columns]
    sorts = [
        tuple(row[name] * way for name, way in zip(names, place, strict=True)) for b in given for row in b.to_pylist()
    ]
    assert sorts == sorted(sorts)
    assert len(sorts) == 5_000


def test_a_key_of_more_rows_than_fit(tmp_path: Path) -> None:
    """Rows of one key are more than the memory takes; they need no sort, and come between the others."""
    rows = [pa.RecordBatch.from_pydict({"n": [1, 5, 5, 5, 9] * 20, "place": list(range(100))})] * 50
    given = list(sorted_batches(rows, (("n", False),), memory=10_000, folder=tmp_path))
    assert [row["n"] for batch in given for row in batch.to_pylist()] == [1] * 1_000 + [5] * 3_000 + [9] * 1_000


def test_what_fits_is_not_spilled(tmp_path: Path) -> None:
    """Rows that fit into memory do not ask for a folder."""
    given = list(sorted_batches(numbers(1_000), (("n", False),), memory=10**6, folder=tmp_path / "missing"))
    assert sum(batch.num_rows for batch in given) == 1_000


def test_arrow_holds_no_more_than_the_memory(tmp_path: Path) -> None:
    """Of rows that are ten times the memory, Arrow never holds more than that; what is mapped is on disk."""
    memory, before, most = 4_000_000, pa.total_allocated_bytes(), 0
    for _ in sorted_batches(
        numbers(2_500_000, per_batch=10_000), (("n", False), ("place", True)), memory=memory, folder=tmp_path
    ):
        most = max(most, pa.total_allocated_bytes() - before)
    assert most <= memory


def test_batches_are_not_too_large(tmp_path: Path) -> None:
    """However many rows come at once, they go in batches."""
    rows = [pa.RecordBatch.from_pydict({"n": list(range(3 * ROWS_AT_ONCE))})]
    given = list(sorted_batches(rows, (("n", True),), memory=10**9, folder=tmp_path))
    assert [batch.num_rows for batch in given] == [ROWS_AT_ONCE] * 3


def test_no_columns_are_no_order(tmp_path: Path) -> None:
    """Without columns rows pass as they come."""
    rows = list(numbers(300))
    assert list(sorted_batches(rows, (), memory=1, folder=tmp_path)) == rows
    assert list(sorted_batches([], (("n", False),), memory=1, folder=tmp_path)) == []


def test_who_stops_early_leaves_nothing(tmp_path: Path) -> None:
    """A reader that has enough closes the rows, and the folder is empty."""
    rows = sorted_batches(numbers(5_000), (("n", False),), memory=10_000, folder=tmp_path)
    first = next(rows)
    assert left_in(tmp_path)
    rows.close()  # type: ignore[attr-defined]  # an iterator, and a generator
    assert left_in(tmp_path) == []
    assert first.column("n")[0].as_py() == 0  # what was given is still there


def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """An error of the source passes as it is, and the folder is empty."""

    def failing() -> Iterator[pa.RecordBatch]:
        yield from numbers(5_000)
        assert left_in(tmp_path)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(sorted_batches(failing(), (("n", False),), memory=10_000, folder=tmp_path))
    assert left_in(tmp_path) == []


def test_a_folder_that_takes_nothing(tmp_path: Path) -> None:
    """Where rows cannot be spilled, the error names the folder, and it can be tried again."""
    with pytest.raises(TransientError, match="missing"):
        list(sorted_batches(numbers(5_000), (("n", False),), memory=10_000, folder=tmp_path / "missing"))

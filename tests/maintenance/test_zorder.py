"""Rows on a curve: files of neighbours, of which filters on the columns open no more than after Iceberg's z-order."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.maintenance import zorder
from lakehouse_pipeline.maintenance.zorder import BITS, Bounds, Sample, curve_values, sample_bounds, z_ordered
from tests.maintenance.streams import Rows, batches_of, key, left_in, rows_of, streams

ROWS = 40_000
FILES = (16, 50, 64)
Numbers = npt.NDArray[np.int64]
Column = Callable[[np.random.Generator], pa.Array]

COLUMNS: dict[str, Column] = {
    "ints": lambda random: pa.array(random.integers(0, 1_000_000, ROWS)),
    "all longs": lambda random: pa.array(random.integers(-(2**63), 2**63 - 1, ROWS)),
    "skewed ints": lambda random: pa.array((random.pareto(1.2, ROWS) * 100).astype(np.int64)),
    "few ints": lambda random: pa.array(random.integers(0, 7, ROWS)),
    "doubles": lambda random: pa.array(random.normal(0, 1, ROWS)),
    "an hour's instants": lambda random: pa.array(
        1_357_034_400_000_000 + random.integers(0, 3_600_000_000, ROWS), pa.timestamp("us", "UTC")
    ),
    "prefixed text": lambda random: pa.array([f"customer-{i:09}" for i in random.integers(0, 10**6, ROWS)]),
    "hexadecimal text": lambda random: pa.array([f"{i:016x}" for i in random.integers(0, 2**62, ROWS)]),
}


def icebergs_form(values: pa.Array) -> bytes:
    """Give eight bytes of each value, as `ZOrderByteUtils` does; instants are seconds, as Spark casts them."""
    if pa.types.is_string(values.type):
        return b"".join(text.encode()[:8].ljust(8, b"\0") for text in values.to_pylist())
    if pa.types.is_floating(values.type):
        bits = (values.to_numpy() + 0.0).view(np.int64)
        return bytes((bits ^ ((bits >> 63) | np.int64(-(2**63)))).astype(">i8").tobytes())
    numbers = values.cast(pa.int64()).to_numpy() // (1_000_000 if pa.types.is_timestamp(values.type) else 1)
    return bytes((numbers ^ np.int64(-(2**63))).astype(">i8").tobytes())


def icebergs_order(columns: list[pa.Array]) -> Numbers:
    """Sort rows by the interleaved bits of their columns' bytes, as Iceberg's Spark action does."""
    bits = [np.unpackbits(np.frombuffer(icebergs_form(each), np.uint8)).reshape(ROWS, 64) for each in columns]
    words = np.packbits(np.stack(bits, axis=2).reshape(ROWS, -1), axis=1).view(">u8")
    return np.lexsort(words.T[::-1])


def opened(column: pa.Array, order: Numbers, files: int) -> float:
    """Give the share of files that a filter on a value opens, in the mean of the values of all rows."""
    values = column.to_numpy(zero_copy_only=False)
    ranks = np.unique(values.astype(str) if values.dtype == object else values, return_inverse=True)[1]
    sizes = [len(part) for part in np.array_split(ranks, files)]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    low, high = (each.reduceat(ranks[order], starts) for each in (np.minimum, np.maximum))
    ordered = np.sort(ranks)
    covered = np.searchsorted(ordered, high, "right") - np.searchsorted(ordered, low, "left")
    return float(covered.sum() / ROWS / files)


def compared(*names: str) -> Iterator[tuple[list[float], list[float]]]:
    """Give what filters on each column open, ours and Iceberg's, for some numbers of files."""
    random = np.random.default_rng(7)
    columns = [COLUMNS[name](random) for name in names]
    table = pa.table(columns, names=[f"c{place}" for place in range(len(columns))])
    ours = np.argsort(curve_values(table, sample_bounds(table.to_batches(5_000), table.column_names)).to_numpy())
    theirs = icebergs_order(columns)
    for files in FILES:
        yield [opened(each, ours, files) for each in columns], [opened(each, theirs, files) for each in columns]


@pytest.mark.parametrize("name", ["ints", "all longs", "skewed ints", "few ints"])
def test_no_column_opens_more_files_than_with_iceberg(name: str) -> None:
    """Columns of one kind: a filter on either opens no more files than after Iceberg's z-order."""
    for ours, theirs in compared(name, name):
        assert all(one <= other for one, other in zip(ours, theirs, strict=True)), (ours, theirs)


@pytest.mark.parametrize(
    "names",
    [
        ("ints", "an hour's instants"),
        ("an hour's instants", "prefixed text"),
        ("skewed ints", "an hour's instants"),
        ("few ints", "all longs"),
        ("all longs", "doubles"),
        ("hexadecimal text", "doubles"),
        ("prefixed text", "prefixed text"),
        ("all longs", "all longs", "all longs"),
        ("ints", "skewed ints", "an hour's instants"),
    ],
    ids=" ".join,
)
def test_fewer_files_in_the_mean_of_the_columns(names: tuple[str, ...]) -> None:
    """Columns of different kinds, of which Iceberg's favours some: in their mean, filters open fewer files."""
    for ours, theirs in compared(*names):
        assert np.mean(ours) < np.mean(theirs), (ours, theirs)
        assert max(ours) < max(theirs)


@pytest.mark.parametrize(("columns", "bits"), [(1, 5), (2, 4), (3, 3), (4, 2)])
def test_the_curve_goes_from_neighbour_to_neighbour(columns: int, bits: int) -> None:
    """The curve goes through every point once, and always to one that is next to it."""
    points = np.stack(np.meshgrid(*[np.arange(2**bits)] * columns, indexing="ij"), -1).reshape(-1, columns)
    axes = points.T.astype(np.uint16)
    zorder._bend(axes, bits)
    places = np.sum([zorder._spread(bits, columns, place)[axis] for place, axis in enumerate(axes)], axis=0)
    assert sorted(places.tolist()) == list(range(len(points)))
    steps = np.abs(np.diff(points[np.argsort(places)], axis=0)).sum(axis=1)
    assert set(steps.tolist()) == {1}


@given(streams(), st.sampled_from([1, 2_000, 10**9]), st.booleans())
def test_no_row_is_lost_and_equal_rows_are_side_by_side(stream: Rows, memory: int, known: bool) -> None:  # noqa: FBT001
    """Whatever types and memory, with bounds or without: the same rows, of which those on one place are not apart."""
    batches = batches_of(stream)
    bounds = sample_bounds(batches, stream.names) if known else None
    with TemporaryDirectory() as folder:
        given = list(z_ordered(batches, stream.names, memory=memory, folder=Path(folder), bounds=bounds))
        assert left_in(folder) == []
    rows = rows_of(given)
    assert sorted(row[-1] for row in rows) == list(range(len(stream.rows)))
    assert all(batch.schema == batches[0].schema for batch in given)
    if rows:
        bounds = sample_bounds(batches, stream.names)
        places = pa.concat_arrays([curve_values(batch, bounds) for batch in given]).to_pylist()
        assert places == sorted(places)


@given(streams(most=1))
def test_one_column_is_in_its_order(stream: Rows) -> None:
    """A curve through one column is its order, with nulls beside the least value."""
    with TemporaryDirectory() as folder:
        rows = rows_of(z_ordered(batches_of(stream), stream.names, memory=10**9, folder=Path(folder)))
    values = [key(row[0]) for row in rows if row[0] is not None]
    assert values == sorted(values)


def many(rows: int = 20_000) -> Iterator[pa.RecordBatch]:
    """Give batches of rows in no order."""
    for start in range(0, rows, 500):
        places = range(start, start + 500)
        yield pa.RecordBatch.from_pydict({"a": [place * 7_919 % 10_007 for place in places], "b": list(places)})


def test_bounds_of_a_sample_are_good_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many rows some are picked, from all of the stream, and divide it nearly as all of them would."""
    monkeypatch.setattr(zorder, "SAMPLE_ROWS", 2_000)
    sample = Sample(["b"])
    for batch in many(40_000):
        sample.feed(batch)
    assert sample.picked is not None
    assert 1_500 < sample.picked.num_rows <= 4_000
    ((_, limits),) = sample.bounds().columns
    assert limits[len(limits) // 2].as_py() == pytest.approx(20_000, rel=0.1)


def test_what_bounds_have_not_seen_has_a_place() -> None:
    """Values beyond the bounds are in the first part or the last; where there are none, all are in the first."""
    known = sample_bounds([pa.RecordBatch.from_pydict({"a": list(range(100))})], ["a"])
    places = curve_values(pa.table({"a": [-5, 0, 99, 10**9, None]}), known).to_pylist()
    assert places[0] == places[1] == places[4] == 0
    assert places[2] < places[3] == 2**BITS - 1
    none = Bounds((("a", pa.array([], pa.int64())),))
    assert curve_values(pa.table({"a": [1, 2]}), none).to_pylist() == [0, 0]


def test_who_stops_early_leaves_nothing(tmp_path: Path) -> None:
    """A reader that has enough closes the rows, and the folder is empty."""
    rows = z_ordered(many(), ["a", "b"], memory=50_000, folder=tmp_path)
    next(rows)
    assert left_in(tmp_path)
    rows.close()  # type: ignore[attr-defined]  # an iterator, and a generator
    assert left_in(tmp_path) == []


def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """An error of the source passes as it is, and the folder is empty."""

    def failing() -> Iterator[pa.RecordBatch]:
        yield from many()
        assert left_in(tmp_path)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(z_ordered(failing(), ["a"], memory=50_000, folder=tmp_path))
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("bounds", [None, Bounds(())], ids=["sampled", "given"])
def test_nested_and_missing_columns_are_refused(tmp_path: Path, bounds: Bounds | None) -> None:
    """What is no plain column is named, and every one of them."""
    rows: list[Any] = [pa.RecordBatch.from_pydict({"list": [[1]], "a": [1]})]
    with pytest.raises(ConfigurationError, match=r"gone is missing; list is nested"):
        list(z_ordered(rows, ["a", "list", "gone"], memory=1, folder=tmp_path, bounds=bounds))
    with pytest.raises(ConfigurationError, match="none is given"):
        list(z_ordered(rows, [], memory=1, folder=tmp_path, bounds=bounds))


def test_no_rows(tmp_path: Path) -> None:
    """Of nothing there is nothing."""
    assert list(z_ordered([], ["a"], memory=1, folder=tmp_path)) == []

"""Which rows delete files take: by metadata, by position, and by equality as the JVM's Iceberg has it."""

import math
import struct
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.iceberg.deletes import DeletedKeys, DeleteIndex, kept, positions_by_file
from lakehouse_pipeline.iceberg.event_time import ANY
from lakehouse_pipeline.iceberg.manifests import DATA, EQUALITY_DELETES, POSITION_DELETES, LiveFile

HOURLY, NOWHERE = 0, 7  # partition specs; NOWHERE has no fields


def live(path: str, content: int, number: int, **told: Any) -> LiveFile:
    """Make a file of a sequence number, in partition p of the hourly spec unless told otherwise."""
    told = {"spec_id": HOURLY, "partition": "p", **told}
    return LiveFile(path=path, content=content, rows=1, bytes=1, span=ANY, sequence_number=number, **told)


def of_age(keys: pa.Table, age: int = 1) -> DeletedKeys:
    """Give keys of one delete file."""
    return DeletedKeys(keys, np.full(keys.num_rows, age, np.int64))


@pytest.mark.parametrize(
    ("delete", "applies"),
    [
        pytest.param(live("d", POSITION_DELETES, 5), True, id="positions, as old"),
        pytest.param(live("d", POSITION_DELETES, 6), True, id="positions, younger"),
        pytest.param(live("d", POSITION_DELETES, 4), False, id="positions, older"),
        pytest.param(live("d", EQUALITY_DELETES, 5), False, id="equality, as old"),
        pytest.param(live("d", EQUALITY_DELETES, 6), True, id="equality, younger"),
        pytest.param(live("d", POSITION_DELETES, 6, partition="q"), False, id="positions of another partition"),
        pytest.param(live("d", EQUALITY_DELETES, 6, partition="q"), False, id="equality of another partition"),
        pytest.param(live("d", EQUALITY_DELETES, 6, spec_id=1), False, id="equality of another spec"),
        pytest.param(live("d", POSITION_DELETES, 6, refers_to="f"), True, id="positions of the file"),
        pytest.param(
            live("d", POSITION_DELETES, 6, refers_to="f", spec_id=1, partition="q"), True, id="wherever these lie"
        ),
        pytest.param(live("d", POSITION_DELETES, 4, refers_to="f"), False, id="positions of the file, older"),
        pytest.param(live("d", POSITION_DELETES, 6, refers_to="g"), False, id="positions of another file"),
        pytest.param(live("d", EQUALITY_DELETES, 6, spec_id=NOWHERE, partition="()"), True, id="equality of all"),
        pytest.param(
            live("d", EQUALITY_DELETES, 5, spec_id=NOWHERE, partition="()"), False, id="equality of all, as old"
        ),
        pytest.param(
            live("d", POSITION_DELETES, 6, spec_id=NOWHERE, partition="()"), False, id="positions of no partition"
        ),
        pytest.param(live("d", DATA, 6), False, id="data"),
    ],
)
def test_what_can_apply(delete: LiveFile, *, applies: bool) -> None:
    """By sequence number, partition, and the file that positions are of."""
    index = DeleteIndex.of([delete, live("f", DATA, 5)], {NOWHERE})
    assert [each.path for each in index.applying_to(live("f", DATA, 5))] == ["d"] * applies


def test_all_that_can_apply() -> None:
    """Every kind, once each."""
    found = [
        live("global", EQUALITY_DELETES, 9, spec_id=NOWHERE, partition="()"),
        live("equal", EQUALITY_DELETES, 9),
        live("positions", POSITION_DELETES, 9),
        live("own", POSITION_DELETES, 9, refers_to="f"),
    ]
    index = DeleteIndex.of(found, {NOWHERE})
    assert {each.path for each in index.applying_to(live("f", DATA, 1))} == {each.path for each in found}
    assert not list(DeleteIndex.of([], ()).applying_to(live("f", DATA, 1)))


NAN, OTHER_NAN = (struct.unpack("<d", struct.pack("<Q", bits))[0] for bits in (0x7FF8 << 48, 0xFFF8 << 48 | 1))
DOUBLES = st.sampled_from([0.0, -0.0, 1.5, NAN, OTHER_NAN, math.inf])
VALUES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "long": (pa.int64(), st.sampled_from([-(2**63), -1, 0, 1, 2**63 - 1])),
    "int": (pa.int32(), st.integers(-2, 2)),
    "boolean": (pa.bool_(), st.booleans()),
    "double": (pa.float64(), DOUBLES),
    "float": (pa.float32(), DOUBLES),
    "string": (pa.string(), st.text("ab\0é", max_size=2)),
    "binary": (pa.binary(), st.binary(max_size=1)),
    "fixed": (pa.binary(2), st.sampled_from([b"ab", b"\0\0"])),
    "uuid": (pa.uuid(), st.sampled_from([bytes(16), bytes(range(16))])),
    "decimal": (pa.decimal128(38, 2), st.sampled_from([Decimal("-1.10"), Decimal(0), Decimal("1e34")])),
    "date": (pa.date32(), st.dates(date(1969, 12, 31), date(1970, 1, 1))),
    "timestamptz": (
        pa.timestamp("us", "UTC"),
        st.sampled_from([datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), datetime(2013, 1, 1, tzinfo=UTC)]),
    ),
}
Rows = list[tuple[Any, ...]]


@st.composite
def keys_and_rows(draw: st.DrawFn) -> tuple[list[str], Rows, Rows]:
    """Draw the types of some columns, keys of them, and rows to look up."""
    types = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=4))
    row = st.tuples(*(st.none() | VALUES[each][1] for each in types))
    return types, draw(st.lists(row, max_size=8)), draw(st.lists(row, max_size=12))


def arrays(types: Sequence[str], rows: Rows) -> list[pa.Array]:
    """Put rows into columns."""
    return [pa.array([row[place] for row in rows], VALUES[each][0]) for place, each in enumerate(types)]


def table(columns: Sequence[pa.Array]) -> pa.Table:
    """Make a table of columns."""
    return pa.table({f"c{place}": column for place, column in enumerate(columns)})


def comparable(row: Sequence[Any]) -> tuple[Any, ...]:
    """Give what rows are equal by: null equals null, NaN equals NaN, and zeros of two signs are two."""
    return tuple(
        ("float", "nan" if math.isnan(value) else struct.pack("<d", value)) if isinstance(value, float) else value
        for value in row
    )


@given(keys_and_rows())
def test_keys_against_a_model(drawn: tuple[list[str], Rows, Rows]) -> None:
    """A row is taken if it equals a key in every column, whatever these hold."""
    types, keys, rows = drawn
    named = {comparable(row) for row in keys}
    taken = of_age(table(arrays(types, keys))).takes(arrays(types, rows), 0)
    assert taken.tolist() == [comparable(row) in named for row in rows]


def test_keys_of_many_values_in_many_columns() -> None:
    """Numbers of rows stay small: ten thousand values in each of eight columns are 10^32 possible rows."""
    count, width = 10_000, 8
    chance = np.random.default_rng(7)
    columns = [chance.permutation(count).astype(np.int64) for _ in range(width)]
    keys = of_age(table([pa.array(column) for column in columns]))
    assert keys.takes([pa.array(column) for column in columns], 0).all()
    for place in range(width):  # each value is some key's, but no row is one
        others = [np.roll(column, 1) if at == place else column for at, column in enumerate(columns)]
        assert not keys.takes([pa.array(column) for column in others], 0).any()
    assert all(known.max() < count * count for known in keys.rows)


def test_keys_of_several_files() -> None:
    """Keys may come in chunks; nulls in one and values in another."""
    parts = [table([pa.array([None, 1], pa.int64())]), table([pa.array([2, 1], pa.int64())])]
    keys = of_age(pa.concat_tables(parts))
    assert keys.takes([pa.array([None, 1, 2, 3], pa.int64())], 0).tolist() == [True, True, True, False]


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_no_keys(rows: int) -> None:
    """A delete file without rows takes none; nor is any taken of no rows."""
    none = table([pa.array([], pa.int64()), pa.array([], pa.string())])
    assert (
        of_age(none).takes([pa.array([1] * rows, pa.int64()), pa.array(["a"] * rows, pa.string())], 0).tolist()
        == [False] * rows
    )


def test_a_slice_of_rows() -> None:
    """Rows that begin within a larger array are looked up as what they are."""
    rows = pa.array([1.0, None, 2.0, math.nan, -0.0])
    keys = of_age(table([pa.array([2.0, math.nan, 0.0])]))
    assert keys.takes([rows.slice(2)], 0).tolist() == [True, True, False]
    assert keys.takes([rows.slice(1, 2)], 0).tolist() == [False, True]


@pytest.mark.parametrize(
    ("positions", "first", "left"),
    [
        pytest.param(None, 0, None, id="none at all"),
        pytest.param([], 0, None, id="an empty list"),
        pytest.param([9, 14], 10, None, id="before and behind"),
        pytest.param([10], 10, [False, True, True, True], id="the first row"),
        pytest.param([13], 10, [True, True, True, False], id="the last row"),
        pytest.param([3, 10, 11, 12, 13, 99], 10, [False] * 4, id="all rows"),
    ],
)
def test_rows_that_positions_leave(positions: list[int] | None, first: int, left: list[bool] | None) -> None:
    """Of four rows from `first` on; None where all are left."""
    found = kept(None if positions is None else np.array(positions, np.int64), first, 4)
    assert (None if found is None else found.to_pylist()) == left


@given(st.sets(st.integers(0, 30)), st.lists(st.integers(1, 9), max_size=8))
def test_positions_across_batches(positions: set[int], sizes: list[int]) -> None:
    """However a file's rows are cut, the same are left."""
    total, first, left = sum(sizes), 0, list[int]()
    for size in sizes:
        mask = kept(np.array(sorted(positions), np.int64), first, size)
        left += [first + place for place in range(size) if mask is None or mask[place].as_py()]
        first += size
    assert left == [place for place in range(total) if place not in positions]


def positions_of(*rows: tuple[str, int]) -> pa.Table:
    """Make the content of a file of position deletes."""
    return pa.table({"file_path": [path for path, _ in rows], "pos": pa.array([pos for _, pos in rows], pa.int64())})


def test_positions_by_file() -> None:
    """Those of several files come together, in order and once each; those of files of no interest do not."""
    tables = [
        (3, positions_of(("b", 7), ("a", 5), ("a", 1), ("x", 0))),
        (4, positions_of(("a", 3), ("a", 5))),
        (9, positions_of()),
    ]
    found = positions_by_file(tables, {"a": 3, "b": 2, "c": 1})
    assert {path: each.tolist() for path, each in found.items()} == {"a": [1, 3, 5], "b": [7]}


def test_positions_of_older_deletes() -> None:
    """A file that is younger than a delete file is not its concern, although it is named."""
    assert positions_by_file([(3, positions_of(("a", 1)))], {"a": 4}) == {}


def test_paths_as_large_strings() -> None:
    """However Arrow holds the paths: in chunks, wide, or as a dictionary."""
    paths = pa.chunked_array([["a"], ["b", "a"]]).cast(pa.large_string())
    wide = pa.table({"file_path": paths, "pos": pa.array([2, 1, 0], pa.int64())})
    coded = wide.set_column(0, "file_path", paths.dictionary_encode().unify_dictionaries())
    for each in (wide, coded):
        found = positions_by_file([(1, each)], {"a": 1, "b": 1})
        assert {path: places.tolist() for path, places in found.items()} == {"a": [0, 2], "b": [1]}


def test_keys_take_rows_of_older_files_only() -> None:
    """Of a key that several delete files have, the youngest counts."""
    keys = DeletedKeys(table([pa.array([1, 2, 1])]), np.array([3, 5, 7]))
    rows = [pa.array([1, 2, 3])]
    assert [keys.takes(rows, age).tolist() for age in (2, 5, 6, 7)] == [
        [True, True, False],
        [True, False, False],
        [True, False, False],
        [False, False, False],
    ]

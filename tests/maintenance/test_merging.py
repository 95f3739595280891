"""Of the rows of a key the latest stays, as a dict would have it, in any memory, and nothing stays on disk."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.iceberg.keys import hashes
from lakehouse_pipeline.maintenance import merging
from lakehouse_pipeline.maintenance.merging import Counts, Merge, latest_by_key
from tests.maintenance.streams import Rows, batches_of, key, left_in, rows_of, streams

MEMORY = st.sampled_from([1, 1_000, 4_000, 10**9])  # beyond every row, some rows, and none


def latest(stream: Rows, keys: Sequence[int], version: int | None) -> dict[tuple[Any, ...], int]:
    """Find the places of the latest rows, one row after the other."""
    found: dict[tuple[Any, ...], int] = {}
    for place, row in enumerate(stream.rows):
        name = tuple(key(row[column]) for column in keys)
        before = found.get(name)
        if before is None or version is None or key(row[version]) >= key(stream.rows[before][version]):
            found[name] = place
    return found


def changes(rows: int, keys: int, *, per_batch: int = 500) -> Iterator[pa.RecordBatch]:
    """Give batches of rows in turns of so many keys, each row newer than those before it."""
    for start in range(0, rows, per_batch):
        places = range(start, min(start + per_batch, rows))
        yield pa.RecordBatch.from_pydict({"id": [place % keys for place in places], "at": list(places)})


@given(streams(least=2), MEMORY, st.data())
def test_the_latest_row_of_each_key_stays(stream: Rows, memory: int, data: st.DataObject) -> None:
    """Whatever types and memory: the rows and the counts are those of a dict that is filled row by row."""
    columns = list(range(len(stream.types)))
    keys = data.draw(st.lists(st.sampled_from(columns), min_size=1, unique=True))
    version = data.draw(st.none() | st.sampled_from(columns))
    flags = [column for column in columns if pa.types.is_boolean(stream.types[column])]
    deleted = data.draw(st.sampled_from([None, *flags]))
    names = [None if column is None else f"c{column}" for column in (version, deleted)]
    with TemporaryDirectory() as folder:
        merge = latest_by_key(
            batches_of(stream), [f"c{column}" for column in keys], *names, memory=memory, folder=Path(folder)
        )
        places = [row[-1] for row in rows_of(merge.rows())]
        assert left_in(folder) == []
    found = latest(stream, keys, version)
    expected = [place for place in found.values() if deleted is None or stream.rows[place][deleted] is not True]
    assert sorted(places) == sorted(expected)
    if memory == 10**9:
        assert places == sorted(places)
    assert merge.counts == Counts(len(stream.rows), len(found), len(found) - len(expected), len(expected))


@pytest.mark.parametrize("keys", [1, 7, 3_000, 20_000], ids="{} keys".format)
def test_many_rows(tmp_path: Path, keys: int) -> None:
    """Of rows that are many times the memory the last of each key stays, whether keys fit into it or not."""
    merge = latest_by_key(changes(20_000, keys), ["id"], "at", None, memory=30_000, folder=tmp_path)
    rows = rows_of(merge.rows())
    assert sorted(rows) == [
        (place % keys, place) for place in sorted(range(20_000 - keys, 20_000), key=lambda p: p % keys)
    ]
    assert merge.counts == Counts(20_000, keys, 0, keys)
    assert left_in(tmp_path) == []


def test_what_fits_when_reduced_is_not_spilled(tmp_path: Path) -> None:
    """Rows of few keys are reduced before they would be spilled, and do not ask for a folder."""
    merge = latest_by_key(changes(20_000, 7), ["id"], None, None, memory=200_000, folder=tmp_path / "missing")
    assert rows_of(merge.rows()) == [(place % 7, place) for place in range(19_993, 20_000)]


@pytest.mark.parametrize("memory", [1, 10**9], ids=["on disk", "in memory"])
def test_a_tombstone_takes_older_rows_and_no_newer_one(tmp_path: Path, memory: int) -> None:
    """A key whose latest row is deleted is gone wherever that row stands; one that came back is not; null is false."""
    rows = pa.RecordBatch.from_pydict(
        {
            "id": ["gone", "gone", "back", "back", "null", "older"],
            "at": [2, 1, 1, 2, 1, 1],
            "deleted": [True, False, True, False, None, False],
        }
    )
    merge = latest_by_key([rows], ["id"], "at", "deleted", memory=memory, folder=tmp_path)
    assert sorted(row[0] for row in rows_of(merge.rows())) == ["back", "null", "older"]
    assert merge.counts == Counts(rows=6, keys=4, deleted=1, winners=3)


@pytest.mark.parametrize(
    ("versions", "winner"),
    [
        pytest.param(pa.array([1.0, float("nan"), float("inf")]), 1, id="NaN is highest"),
        pytest.param(pa.array([0.0, -0.0]), 1, id="zeros tie: the last"),
        pytest.param(pa.array([-(2**63), None], pa.int64()), 0, id="null is below the least number"),
        pytest.param(pa.array([None, None], pa.int64()), 1, id="nulls tie: the last"),
        pytest.param(pa.array([2**64 - 1, 2**63], pa.uint64()), 0, id="unsigned"),
        pytest.param(pa.array(["b", "a\uffff", "a😀", None]), 0, id="text"),
        pytest.param(pa.array([b"a", b"a\x00", b"a"]), 1, id="binary"),
        pytest.param(pa.array(["b", "a", "b"]).dictionary_encode(), 2, id="dictionary"),
        pytest.param(pa.nulls(2), 1, id="nulls of no type"),
    ],
)
def test_versions(tmp_path: Path, versions: pa.Array, winner: int) -> None:
    """Versions of any plain type have their order, and the last of equal ones wins."""
    rows = pa.RecordBatch.from_pydict({"id": [1] * len(versions), "v": versions, "place": list(range(len(versions)))})
    merge = latest_by_key([rows], ["id"], "v", None, memory=10**9, folder=tmp_path)
    assert [batch.column("place").to_pylist() for batch in merge.rows()] == [[winner]]


def test_keys_that_share_a_hash_stay_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where different keys come to one hash, they are hashed anew, and none is taken for the other."""

    def few(rows: pa.RecordBatch, names: Sequence[str], seed: int = 0) -> Any:
        return hashes(rows, names, seed) & np.uint64(2 ** (8 * seed) - 1)

    monkeypatch.setattr(merging, "hashes", few)
    merge = latest_by_key(changes(5_000, 1_000), ["id"], None, None, memory=20_000, folder=tmp_path)
    assert sorted(rows_of(merge.rows())) == [(place - 4_000, place) for place in range(4_000, 5_000)]


def test_nested_and_missing_columns_are_refused(tmp_path: Path) -> None:
    """What is no plain column is named, and every one of them."""
    rows = [pa.RecordBatch.from_pydict({"id": [1], "list": [[1]], "struct": [{"a": 1}]})]

    def merge(keys: Sequence[str], version: str | None = None, deleted: str | None = None) -> Merge:
        return latest_by_key(rows, keys, version, deleted, memory=1, folder=tmp_path)

    with pytest.raises(ConfigurationError, match=r"gone is missing; list is nested \(list.*; struct is nested"):
        list(merge(["id", "list", "struct", "gone"]).rows())
    with pytest.raises(ConfigurationError, match="list is nested"):
        list(merge(["id"], "list").rows())
    with pytest.raises(ConfigurationError, match="id, is not boolean"):
        list(merge(["id"], None, "id").rows())
    with pytest.raises(ConfigurationError, match="none is given"):
        list(merge([]).rows())


def test_no_rows(tmp_path: Path) -> None:
    """Of nothing there is nothing, and it is counted."""
    merge = latest_by_key([], ["id"], "at", None, memory=1, folder=tmp_path)
    assert list(merge.rows()) == []
    assert merge.counts == Counts(0, 0, 0, 0)


def test_counts_come_with_the_end(tmp_path: Path) -> None:
    """Before all rows are read there are no counts; who stops early finds none, and leaves nothing on disk."""
    merge = latest_by_key(changes(20_000, 20_000), ["id"], None, None, memory=30_000, folder=tmp_path)
    rows = merge.rows()
    next(rows)
    rows.close()  # type: ignore[attr-defined]  # an iterator, and a generator
    assert left_in(tmp_path) == []
    with pytest.raises(RuntimeError, match="to their end"):
        _ = merge.counts


def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """An error of the source passes as it is, and the folder is empty."""

    def failing() -> Iterator[pa.RecordBatch]:
        yield from changes(20_000, 20_000)
        assert left_in(tmp_path)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(latest_by_key(failing(), ["id"], None, None, memory=30_000, folder=tmp_path).rows())
    assert left_in(tmp_path) == []

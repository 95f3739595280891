"""Files that should be sorted, read again: order within and between them, counts and content."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.types import LongType, NestedField

from lakehouse_pipeline.iceberg.checksum import checksum
from lakehouse_pipeline.iceberg.sorted_check import Stretch, out_of_order, read_stretch
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

ORDER = (("n", False),)


def _read(folder: Path, *files: list[int | None]) -> list[Stretch]:
    stretches = []
    for place, values in enumerate(files):
        path = folder / f"{place}.parquet"
        pq.write_table(pa.table({"n": pa.array(values, pa.int64()), "other": pa.array(range(len(values)))}), path)
        stretches.append(read_stretch(LakehouseFileIO({}), f"file://{path}", ORDER, size=path.stat().st_size))
    return stretches


@pytest.mark.parametrize(
    ("files", "wrong"),
    [
        pytest.param([[1, 2], [3], [4, 9]], "", id="apart"),
        pytest.param([[None, 2], [2, 2], [2, 5]], "", id="touching"),
        pytest.param([[1, 2], [], [2, 3]], "", id="an empty one"),
        pytest.param([], "", id="none"),
        pytest.param([[1, 2], [4, 3]], r"1\.parquet: .*'n': '3'.* after .*'n': '4'", id="out of order within"),
        pytest.param(
            [[1, 5], [], [4, 9]],
            r"2\.parquet begins with .*'4'.* before the end of \S*0\.parquet, .*'5'",
            id="overlapping",
        ),
        pytest.param([[4], [None, 9]], r"1\.parquet begins with .*None", id="null behind a number"),
    ],
)
def test_files_are_held_against_their_order(tmp_path: Path, files: list[list[int | None]], wrong: str) -> None:
    """Rows follow each other within files and from one to the next; equal ones may stand on both sides."""
    said = out_of_order(_read(tmp_path, *files), ORDER)
    assert re.search(wrong, said) if wrong else said == ""


def test_a_descending_order(tmp_path: Path) -> None:
    """Down is the other way round."""
    (one,) = _read(tmp_path, [1, 2])
    path = tmp_path / "0.parquet"
    down = read_stretch(LakehouseFileIO({}), f"file://{path}", (("n", True),), size=path.stat().st_size)
    assert (one.wrong, bool(down.wrong)) == ("", True)


def test_rows_and_content_are_added_up(tmp_path: Path) -> None:
    """A stretch counts its rows, and adds up the columns that are asked for."""
    path, columns = tmp_path / "0.parquet", (NestedField(1, "n", LongType()), NestedField(2, "other", LongType()))
    rows = pa.table({"n": range(100_000), "other": range(100_000, 0, -1)})
    pq.write_table(rows, path)
    found = read_stretch(LakehouseFileIO({}), f"file://{path}", ORDER, size=path.stat().st_size, checked=columns)
    assert found.rows == 100_000
    assert found.content == checksum(rows.to_batches()[0], columns)

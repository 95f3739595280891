"""The two policies for bad rows: the first one ends the hour, or all are kept aside."""

import io as streams
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse_pipeline.errors import DataError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources.bad_rows import BadRow, Rejects, fail, failing
from lakehouse_pipeline.sources.listing import SourceObject
from lakehouse_pipeline.sources.readers import read_split
from lakehouse_pipeline.sources.splits import plan_splits

LATE = BadRow(
    "s3://raw/flights/2013/01/11/14.jsonl.gz", 1423, '"late" is not a double', "dep_delay", '{"dep_delay": "late"}'
)
SCHEMA = pa.schema([("n", pa.int64())])


@pytest.mark.parametrize(
    ("row", "text"),
    [
        pytest.param(
            LATE,
            's3://raw/flights/2013/01/11/14.jsonl.gz:1423 "dep_delay": "late" is not a double',
            id="a value",
        ),
        pytest.param(BadRow("s3://raw/a", 2, "is no JSON", None, "x"), "s3://raw/a:2: is no JSON", id="a whole line"),
        pytest.param(
            BadRow("s3://raw/a", 2, "is no JSON", None, "x", at_byte=True),
            "s3://raw/a:byte 2: is no JSON",
            id="in a split file",
        ),
    ],
)
def test_a_bad_row_says_where_and_what(row: BadRow, text: str) -> None:
    """The text has the file, the position, the column and the reason."""
    assert str(row) == text


def test_fail_names_the_first_row_and_the_way_out() -> None:
    """The policy `fail` raises for the first row and says what else could be done."""
    with pytest.raises(DataError) as raised:
        fail([LATE, BadRow("b", 1, "", None, "")])
    assert str(raised.value) == f"{LATE} (bad_rows: reject keeps such rows aside)"


def test_fail_counts_lines_only_where_they_are_not_known() -> None:
    """A row at a byte of a split file gets its line's number, too; nobody counts for a row whose line is known."""
    asked: list[int] = []

    def line_of(position: int) -> int:
        asked.append(position)
        return 7

    policy = failing(line_of)
    with pytest.raises(DataError, match=r"a:byte 90: is no JSON \(line 7; bad_rows: reject"):
        policy([BadRow("s3://raw/a", 90, "is no JSON", None, "x", at_byte=True)])
    with pytest.raises(DataError, match=r"gz:1423 .*is not a double \(bad_rows: reject"):
        policy([LATE])
    policy([])
    assert asked == [90]


def test_fail_has_nothing_against_no_rows() -> None:
    """Without a bad row nothing is raised."""
    fail([])


def test_fail_keeps_a_block_back(io: LakehouseFileIO, land: Callable[[str, bytes], SourceObject]) -> None:
    """A bad row is heard of before the rows of its block are handed on."""
    source = land("a.jsonl", b'{"n": 1}\n{"n": "x"}\n')
    (split,) = plan_splits(io, [source], "jsonl", target_bytes=100)
    with pytest.raises(DataError, match=r'a\.jsonl:2 "n": "x" is not a long'):
        next(read_split(io, split, SCHEMA, provenance=False, on_bad=fail))


def test_rejects_are_kept_as_parquet(io: LakehouseFileIO, tmp_path: Path) -> None:
    """Bad rows become one object with their file, position, column, reason and text, in the order they came."""
    rejects = Rejects(io, f"file://{tmp_path}/rejects/14.parquet")
    rejects([LATE])
    rejects([])
    rejects([BadRow("s3://raw/a", 2, "is no JSON", None, "{")])
    assert rejects.close() == f"file://{tmp_path}/rejects/14.parquet"
    assert rejects.count == 2
    kept = pq.read_table(streams.BytesIO((tmp_path / "rejects/14.parquet").read_bytes()))
    assert kept.to_pydict() == {
        "file": [LATE.url, "s3://raw/a"],
        "position": [1423, 2],
        "column": ["dep_delay", None],
        "reason": ['"late" is not a double', "is no JSON"],
        "raw": ['{"dep_delay": "late"}', "{"],
    }


def test_no_rejects_are_no_object(io: LakehouseFileIO, tmp_path: Path) -> None:
    """Where every row was good, nothing is written."""
    assert Rejects(io, f"file://{tmp_path}/rejects.parquet").close() is None
    assert list(tmp_path.iterdir()) == []


def test_closing_twice_writes_once(io: LakehouseFileIO, tmp_path: Path) -> None:
    """The second close has nothing left to do."""
    rejects = Rejects(io, f"file://{tmp_path}/rejects.parquet")
    rejects([LATE])
    rejects.close()
    (tmp_path / "rejects.parquet").unlink()
    assert rejects.close() is None
    assert list(tmp_path.iterdir()) == []


def test_rejects_take_any_row_that_readers_find(
    io: LakehouseFileIO, land: Callable[[str, bytes], SourceObject], tmp_path: Path
) -> None:
    """Broken text, lone surrogates and zero characters reach the object, escaped where no text holds them."""
    body = b'{"n": "\\ud800"}\n{"n": "\xff"}\n{"n": "\\u0000"}\n\x00\n'
    (split,) = plan_splits(io, [land("a.jsonl", body)], "jsonl", target_bytes=100)
    rejects = Rejects(io, f"file://{tmp_path}/rejects.parquet")
    list(read_split(io, split, SCHEMA, provenance=False, on_bad=rejects))
    rejects.close()
    kept = pq.read_table(streams.BytesIO((tmp_path / "rejects.parquet").read_bytes()))
    kept.validate(full=True)
    assert kept["raw"].to_pylist() == ['{"n": "\\ud800"}', '{"n": "\\xff"}', '{"n": "\\u0000"}', "\x00"]

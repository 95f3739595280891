"""One split as batches: sizes, provenance, what may be asked for, and the same rows however a file is split."""

import gzip
import io as streams
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources.listing import SourceObject
from lakehouse_pipeline.sources.readers import BATCH_BYTES, BATCH_ROWS, batch_schema, read_split
from lakehouse_pipeline.sources.splits import Split, plan_splits

Land = Callable[[str, bytes], SourceObject]
Read = Callable[..., Any]

SCHEMA = pa.schema([pa.field("n", pa.int64(), nullable=False), ("s", pa.string())])
ROWS = [{"n": n, "s": None if n % 5 == 0 else f"s{n}" * (n % 9)} for n in range(3_000)]


def written(name: str, rows: list[dict[str, Any]]) -> bytes:
    """Write rows in the format that the name tells."""
    body = streams.BytesIO()
    if "orc" in name:
        orc.write_table(pa.Table.from_pylist(rows), body, stripe_size=1_000, batch_size=100)
        return body.getvalue()
    if "parquet" in name:
        pq.write_table(pa.Table.from_pylist(rows), body, row_group_size=100)
        return body.getvalue()
    if "jsonl" in name:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        text = "n,s\n" + "".join(f"{row['n']},{'' if row['s'] is None else json.dumps(row['s'])}\n" for row in rows)
    return gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()


NAMES = pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.csv.gz", "a.parquet", "a.orc"])


@NAMES
@pytest.mark.parametrize("target_bytes", [1 << 40, 7_000])
def test_every_format_gives_the_same_rows(read: Read, name: str, target_bytes: int) -> None:
    """However a file is written and split, its rows are the same, in the same order."""
    found = read(name, written(name, ROWS), SCHEMA, target_bytes=target_bytes)
    assert found.rows == ROWS
    assert found.table.schema == SCHEMA


@NAMES
def test_provenance_tells_file_and_position(read: Read, name: str) -> None:
    """Each row says its file and its line or row number."""
    found = read(name, written(name, ROWS), SCHEMA, provenance=True)
    assert set(found.table["_file"].to_pylist()) == {found.rows[0]["_file"]}
    assert found.rows[0]["_file"].endswith(f"/{name}")
    first = 2 if "csv" in name else 1
    assert found.table["_position"].to_pylist() == list(range(first, first + len(ROWS)))


def test_positions_in_a_split_file_are_byte_offsets(read: Read) -> None:
    """All rows of a split text file, of its first range too, are placed by the offset of their line."""
    body = written("a.jsonl", ROWS)
    found = read("a.jsonl", body, SCHEMA, provenance=True, target_bytes=7_000)
    lines = [json.loads(body[at:].partition(b"\n")[0]) for at in found.table["_position"].to_pylist()]
    assert lines == ROWS


def test_bad_rows_of_a_split_file_are_at_bytes(read: Read) -> None:
    """A bad row says that its position is a byte."""
    body = b'{"n": 1}\n{"n": "x"}\n{"n": 2}\n'
    (bad,) = read("a.jsonl", body, SCHEMA, target_bytes=10).bad
    assert str(bad).endswith('a.jsonl:byte 9 "n": "x" is not a long')


@NAMES
def test_batches_are_bounded(io: LakehouseFileIO, land: Land, name: str) -> None:
    """A batch has at most 65,536 rows and about 4 MiB."""
    rows = [{"n": n, "s": "x" if n % 1000 else "y" * 30_000} for n in range(200_000)]
    (split,) = plan_splits(io, [land(name, written(name, rows))], name.split(".")[1], target_bytes=1 << 40)
    batches = list(read_split(io, split, SCHEMA, provenance=True, on_bad=print))
    assert sum(map(len, batches)) == len(rows)
    assert max(map(len, batches)) <= BATCH_ROWS
    assert max(batch.nbytes for batch in batches) <= 1.25 * BATCH_BYTES


def test_batches_have_the_schema_that_is_told(io: LakehouseFileIO, land: Land) -> None:
    """`batch_schema` is what every batch has, required columns included."""
    (split,) = plan_splits(io, [land("a.jsonl", b'{"n": 1}')], "jsonl", target_bytes=100)
    for provenance in (False, True):
        (batch,) = read_split(io, split, SCHEMA, provenance=provenance, on_bad=print)
        assert batch.schema == batch_schema(SCHEMA, provenance=provenance)


def test_columns_that_cannot_be_read_are_refused_at_once(io: LakehouseFileIO) -> None:
    """Before anything is read, every column at fault is named."""
    schema = pa.schema(
        [("a", pa.list_(pa.int8())), ("b", pa.timestamp("ns")), ("c", pa.int8()), ("d", pa.int32()), ("d", pa.int32())]
    )
    split = Split("file:///nowhere/a.csv", "e", 1, "csv", None, 0, 1, None)
    with pytest.raises(ConfigurationError) as raised:
        read_split(io, split, schema, provenance=False, on_bad=print)
    for part in (
        '"a" has the type list',
        '"b" has the type timestamp[ns]',
        '"c" has the type int8',
        '"d" is wanted tw',
    ):
        assert part in str(raised.value)


def test_csv_holds_no_nested_values(io: LakehouseFileIO) -> None:
    """Nested columns of CSV are a mistake of the spec, all of them named."""
    schema = pa.schema([("a", pa.list_(pa.int64())), ("b", pa.int64()), ("c", pa.struct([("d", pa.int64())]))])
    split = Split("file:///nowhere/a.csv", "e", 1, "csv", None, 0, 1, None)
    with pytest.raises(ConfigurationError, match=r'CSV holds no nested values: "a" has .*; "c" has .*Land JSON lines'):
        read_split(io, split, schema, provenance=False, on_bad=print)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        pytest.param(pa.schema([]), "no column is wanted", id="none"),
        pytest.param(pa.schema([("_file", pa.string())]), '"_file" is the name of a provenance column', id="reserved"),
    ],
)
def test_schemas_without_sense_are_refused(io: LakehouseFileIO, schema: pa.Schema, message: str) -> None:
    """A column that would hide the provenance, or no column at all, is a mistake of the spec."""
    split = Split("file:///nowhere/a.csv", "e", 1, "csv", None, 0, 1, None)
    with pytest.raises(ConfigurationError, match=message):
        read_split(io, split, schema, provenance=True, on_bad=print)

"""Splits cover every object once, and are spread evenly."""

import io as streams
import pickle
from collections.abc import Callable
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import orc

from lakehouse_pipeline.errors import ConfigurationError, DataError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources.listing import SourceObject
from lakehouse_pipeline.sources.splits import Split, balance, plan_splits

Land = Callable[[str, bytes], SourceObject]

SPLITS = st.builds(
    Split,
    url=st.text("abc", min_size=1, max_size=4),
    etag=st.just("e"),
    size=st.just(10_000),
    format=st.just("jsonl"),
    compression=st.sampled_from([None, "gzip"]),
    start=st.integers(0, 1000),
    length=st.integers(0, 1000),
    row_groups=st.none(),
)


def parquet(rows: int, row_group_size: int) -> bytes:
    """Make a Parquet file of incompressible rows."""
    body = streams.BytesIO()
    table = pa.table({"n": [hash((n, "salt")) for n in range(rows)]})
    pq.write_table(table, body, row_group_size=row_group_size, compression=None, use_dictionary=False)
    return body.getvalue()


@pytest.mark.parametrize(
    ("size", "ranges"),
    [
        pytest.param(0, [(0, 0)], id="empty"),
        pytest.param(99, [(0, 99)], id="small"),
        pytest.param(100, [(0, 100)], id="exactly the target"),
        pytest.param(250, [(0, 100), (100, 100), (200, 50)], id="large"),
    ],
)
def test_plain_text_is_cut_into_ranges(io: LakehouseFileIO, size: int, ranges: list[tuple[int, int]]) -> None:
    """Byte ranges of the target size cover the object; nothing is read for it."""
    source = SourceObject("s3://raw/14.csv", size, "e")
    splits = plan_splits(io, [source], "csv", target_bytes=100)
    assert [(split.start, split.length) for split in splits] == ranges
    assert [split.is_range for split in splits] == [size > 100] * len(ranges)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".gz", "gzip"), (".bz2", "bz2"), (".zst", "zstd"), (".lz4", "lz4"), (".br", "brotli"), ("", None)],
)
def test_suffixes_name_codecs(io: LakehouseFileIO, suffix: str, codec: str | None) -> None:
    """Compression goes by the suffix; what is compressed is one split, however large."""
    (split, *more) = plan_splits(io, [SourceObject(f"s3://raw/14.jsonl{suffix}", 250, "e")], "jsonl", target_bytes=100)
    assert split.compression == codec
    assert len(more) == (0 if codec else 2)


def test_unknown_codecs_are_refused_together(io: LakehouseFileIO) -> None:
    """Compression that cannot be read is a mistake of the source, with every file named."""
    sources = [SourceObject(f"s3://raw/{n}.csv.snappy", 1, "e") for n in range(2)]
    with pytest.raises(ConfigurationError, match=r"0\.csv\.snappy; s3://raw/1\.csv\.snappy"):
        plan_splits(io, sources, "csv", target_bytes=100)


def test_unknown_formats_are_refused(io: LakehouseFileIO) -> None:
    """The message says which formats there are."""
    with pytest.raises(ConfigurationError, match=r"'xml' is no format .* jsonl, csv, parquet, orc"):
        plan_splits(io, [], "xml", target_bytes=100)


def test_splits_that_hold_nothing_are_refused(io: LakehouseFileIO) -> None:
    """A target of no bytes would never end."""
    with pytest.raises(ConfigurationError, match="splits of 0 bytes"):
        plan_splits(io, [], "csv", target_bytes=0)


@pytest.mark.parametrize(
    ("target_bytes", "groups"),
    [
        pytest.param(1, [(0,), (1,), (2,), (3,), (4,)], id="each row group"),
        pytest.param(2_000, [(0, 1), (2, 3), (4,)], id="two at a time"),
        pytest.param(4_000, [(0, 1, 2, 3), (4,)], id="four"),
    ],
)
def test_large_parquet_is_cut_between_row_groups(
    io: LakehouseFileIO, land: Land, target_bytes: int, groups: list[tuple[int, ...]]
) -> None:
    """Neighbouring row groups share a split up to the target size."""
    source = land("a.parquet", parquet(500, 100))
    splits = plan_splits(io, [source], "parquet", target_bytes=target_bytes)
    assert [split.row_groups for split in splits] == groups


def test_large_orc_is_cut_between_stripes(io: LakehouseFileIO, land: Land) -> None:
    """Every stripe belongs to one split, and the splits' bytes are the stripes'."""
    body = streams.BytesIO()
    table = pa.table({"n": [hash((n, "salt")) for n in range(300_000)]})
    orc.write_table(table, body, stripe_size=100_000)
    source = land("a.orc", body.getvalue())
    stripes = orc.ORCFile(body).nstripes
    splits = plan_splits(io, [source], "orc", target_bytes=source.size // 2)
    assert len(splits) > 1
    assert [part for split in splits for part in split.row_groups or ()] == list(range(stripes))
    assert 0.9 * source.size < sum(split.length for split in splits) < source.size


@pytest.mark.parametrize("form", ["parquet", "orc"])
def test_small_files_with_parts_are_one_split_unread(io: LakehouseFileIO, form: str) -> None:
    """No footer is read of an object up to the target size: this one does not even exist."""
    (split,) = plan_splits(io, [SourceObject(f"file:///nowhere/a.{form}", 100, "e")], form, target_bytes=100)
    assert (split.row_groups, split.length) == (None, 100)


def test_a_parquet_file_without_row_groups_has_no_splits(io: LakehouseFileIO, land: Land) -> None:
    """A footer alone holds no rows to read."""
    body = streams.BytesIO()
    pq.ParquetWriter(body, pa.schema([("n", pa.int64())])).close()
    source = land("a.parquet", body.getvalue())
    assert plan_splits(io, [source], "parquet", target_bytes=1) == ()


def test_a_footer_that_is_none_names_the_file(io: LakehouseFileIO, land: Land) -> None:
    """Planning meets a broken file before any task does."""
    with pytest.raises(DataError, match=r"a\.parquet is no Parquet"):
        plan_splits(io, [land("a.parquet", b"x" * 200)], "parquet", target_bytes=100)


def test_splits_are_small_and_travel(io: LakehouseFileIO, tmp_path: Path) -> None:
    """Thousands of splits go to tasks: one is a few hundred bytes pickled, and comes back equal."""
    source = SourceObject(f"file://{tmp_path}/2013/01/11/14.jsonl", 10**12, "d41d8cd98f00b204e9800998ecf8427e")
    split = plan_splits(io, [source], "jsonl", target_bytes=10**12)[0]
    pickled = pickle.dumps(split)
    assert pickle.loads(pickled) == split  # noqa: S301  # made here
    assert len(pickled) < 600


@given(st.lists(SPLITS, max_size=30), st.integers(1, 8))
def test_tasks_hold_every_split_once(splits: list[Split], tasks: int) -> None:
    """Nothing is lost or doubled, no task is empty, and there are no more tasks than asked for."""
    bins = balance(splits, tasks)
    assert sorted(map(repr, splits)) == sorted(repr(split) for task in bins for split in task)
    assert all(bins)
    assert len(bins) == min(tasks, len(splits))


@given(st.lists(SPLITS, min_size=1, max_size=30), st.integers(1, 8), st.randoms())
def test_tasks_do_not_depend_on_the_order(splits: list[Split], tasks: int, random: Random) -> None:
    """The same splits make the same tasks, so that a task that is run again reads the same."""
    shuffled = list(splits)
    random.shuffle(shuffled)
    assert balance(shuffled, tasks) == balance(splits, tasks)


@given(st.lists(SPLITS, min_size=1, max_size=30), st.integers(1, 8))
def test_tasks_are_even(splits: list[Split], tasks: int) -> None:
    """No task has more than its share and one split."""
    works = [max(split.work, 1) for split in splits]
    heaviest = max(sum(max(split.work, 1) for split in task) for task in balance(splits, tasks))
    assert heaviest <= sum(works) / tasks + max(works)


def test_compressed_bytes_weigh_more(io: LakehouseFileIO) -> None:
    """A gzipped file is more work than a plain one of its size."""
    sources = [SourceObject(f"s3://raw/{name}", 100, "e") for name in ("a.csv", "b.csv.gz", "c.csv", "d.csv")]
    first, second = balance(plan_splits(io, sources, "csv", target_bytes=100), 2)
    assert [split.url for split in first] == ["s3://raw/b.csv.gz"]
    assert len(second) == 3

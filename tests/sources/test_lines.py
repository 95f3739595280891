"""Text comes in blocks of complete lines, from whole and split objects, or not at all if the file is broken."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from typing import Any, Self

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakehouse_pipeline.errors import DataError, TransientError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources.lines import BLOCK_BYTES, LINE_LIMIT, Block, blocks, line_of
from lakehouse_pipeline.sources.listing import SourceObject
from lakehouse_pipeline.sources.splits import Split, plan_splits

Land = Callable[[str, bytes], SourceObject]

TEXT = b"".join(b'{"n": %d, "s": "%s"}\n' % (n, b"x" * (n % 50)) for n in range(1000))
WHOLE = 1 << 40


def compressed(codec: str, text: bytes) -> bytes:
    """Compress as the command-line tools do."""
    if codec == "gz":
        return gzip.compress(text)
    if codec == "bz2":
        return bz2.compress(text)
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, {"zst": "zstd", "lz4": "lz4", "br": "brotli"}[codec]) as stream:
        stream.write(text)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def read_blocks(io: LakehouseFileIO, source: SourceObject, target_bytes: int = WHOLE) -> list[list[Block]]:
    """Read the blocks of each split."""
    splits = plan_splits(io, [source], "jsonl", target_bytes=target_bytes)
    return [list(blocks(io, split)) for split in splits]


def text_of(read: list[list[Block]]) -> bytes:
    """Join the blocks."""
    return b"".join(block.data for split in read for block in split)


CODECS = pytest.mark.parametrize("codec", ["gz", "bz2", "zst", "lz4", "br"])


@CODECS
def test_compressed_text_is_read(io: LakehouseFileIO, land: Land, codec: str) -> None:
    """Each codec gives the text back, its lines counted."""
    (read,) = read_blocks(io, land(f"a.jsonl.{codec}", compressed(codec, TEXT)))
    assert text_of([read]) == TEXT
    assert sum(block.count for block in read) == 1000


@CODECS
def test_joined_compressed_files_are_read(io: LakehouseFileIO, land: Land, codec: str) -> None:
    """Files that were joined with `cat`, as log shippers do, are read to the end."""
    body = compressed(codec, TEXT) + compressed(codec, TEXT)
    assert text_of(read_blocks(io, land(f"a.jsonl.{codec}", body))) == TEXT * 2


@CODECS
@pytest.mark.parametrize("kept", [0, 1, 5, -200, -9, -4, -1])
def test_truncated_files_are_named(io: LakehouseFileIO, land: Land, codec: str, kept: int) -> None:
    """A compressed file that ends early is an error wherever it ends, never fewer rows."""
    with pytest.raises(DataError, match=rf"a\.jsonl\.{codec} is (truncated|empty).*: land it again"):
        read_blocks(io, land(f"a.jsonl.{codec}", compressed(codec, TEXT)[:kept]))


def test_truncation_says_how_far_the_text_goes(io: LakehouseFileIO, land: Land) -> None:
    """The message tells how much text came before the end."""
    body = gzip.compress(TEXT * 200)
    with pytest.raises(DataError, match=r"is truncated after [4-9],\d{3},\d{3} bytes of text: land it again"):
        read_blocks(io, land("a.jsonl.gz", body[:-9]))


@pytest.mark.parametrize("position", [0, 10, 500, -6], ids=["magic", "header", "data", "checksum"])
def test_damaged_gzip_is_named(io: LakehouseFileIO, land: Land, position: int) -> None:
    """A flipped bit fails, in the header, the data or the checksum."""
    body = bytearray(gzip.compress(TEXT, mtime=0))
    body[position] ^= 0x10
    with pytest.raises(DataError, match=r"a\.jsonl\.gz is (damaged or no gzip file|truncated)"):
        read_blocks(io, land("a.jsonl.gz", bytes(body)))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(gzip.compress(TEXT), "is gzip in spite of its name", id="gzip"),
        pytest.param(bz2.compress(TEXT), "is bzip2 in spite of its name", id="bzip2"),
        pytest.param(lzma.compress(TEXT), "is xz, which is not read", id="xz"),
        pytest.param(compressed("zst", TEXT), "is Zstandard in spite of its name", id="zstd"),
        pytest.param(compressed("lz4", TEXT), "is LZ4 in spite of its name", id="lz4"),
        pytest.param(b"PAR1....PAR1", "is Parquet in spite of its format", id="parquet"),
        pytest.param(b"ORC\x08\x03\x10\x00", "is ORC in spite of its format", id="orc"),
        pytest.param(TEXT.decode().encode("utf-16"), "is UTF-16", id="utf-16 with mark"),
        pytest.param(TEXT.decode().encode("utf-16-le"), "is no UTF-8 text", id="utf-16 without mark"),
        pytest.param(TEXT.decode().encode("utf-32-be"), "is no UTF-8 text", id="utf-32"),
    ],
)
def test_other_kinds_of_files_are_named(io: LakehouseFileIO, land: Land, body: bytes, message: str) -> None:
    """A whole file that is no text is one error, not a million bad rows."""
    with pytest.raises(DataError, match=rf"a\.jsonl {message}"):
        read_blocks(io, land("a.jsonl", body))


def test_gzip_within_gzip_is_named(io: LakehouseFileIO, land: Land) -> None:
    """A file that was compressed twice is seen through."""
    with pytest.raises(DataError, match="is gzip in spite of its name"):
        read_blocks(io, land("a.jsonl.gz", gzip.compress(gzip.compress(TEXT))))


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("target_bytes", [pytest.param(WHOLE, id="whole"), pytest.param(32 * 1024 * 1024, id="split")])
def test_endless_lines_are_named(io: LakehouseFileIO, land: Land, suffix: str, target_bytes: int) -> None:
    """A line above 64 MiB is no line; reading stops there, with the memory of one."""
    body = b'{"n": 1}\n' + b"x" * (LINE_LIMIT + 1) + b"\n"
    source = land("a.jsonl" + suffix, gzip.compress(body, 1) if suffix else body)
    with pytest.raises(DataError, match="has a line longer than 67,108,864 bytes at byte 9 of the text"):
        read_blocks(io, source, target_bytes)


def test_the_longest_line_is_read(io: LakehouseFileIO, land: Land) -> None:
    """A line of exactly 64 MiB is one."""
    body = b"a\n" + b"x" * LINE_LIMIT + b"\nb"
    assert text_of(read_blocks(io, land("a.jsonl", body))) == body


def test_blocks_end_with_lines(io: LakehouseFileIO, land: Land) -> None:
    """A large file comes in blocks of about 4 MiB, each of whole lines, numbered through."""
    (read,) = read_blocks(io, land("a.jsonl", TEXT * 200))
    assert all(block.data.endswith(b"\n") for block in read)
    assert max(len(block.data) for block in read) <= BLOCK_BYTES + 100
    assert len(read) == -(-len(TEXT) * 200 // BLOCK_BYTES)
    assert [block.first for block in read[1:]] == [block.first + block.count for block in read[:-1]]


def test_memory_does_not_grow_with_the_file(io: LakehouseFileIO, land: Land) -> None:
    """Text is decompressed as it is read: 300 MB of it never stand in memory."""
    source = land("a.jsonl.gz", gzip.compress(TEXT, 1) * 7_000)
    (split,) = plan_splits(io, [source], "jsonl", target_bytes=WHOLE)
    sizes = [(len(block.data), pa.total_allocated_bytes()) for block in blocks(io, split)]
    assert sum(size for size, _ in sizes) == len(TEXT) * 7_000
    assert max(allocated for _, allocated in sizes) < 16 * 1024 * 1024


def test_a_byte_order_mark_is_no_text(io: LakehouseFileIO, land: Land) -> None:
    """The mark at the start of a file is skipped; the offsets of the lines count it."""
    source = land("a.jsonl", b"\xef\xbb\xbfa\nb\n")
    assert [list(block.lines()) for block in read_blocks(io, source)[0]] == [[(1, b"a"), (2, b"b")]]
    split = read_blocks(io, source, 3)
    assert [list(block.lines()) for found in split for block in found] == [[(3, b"a")], [(5, b"b")]]


def test_a_file_of_a_mark_only_is_empty(io: LakehouseFileIO, land: Land) -> None:
    """No text is no line."""
    assert read_blocks(io, land("a.jsonl", b"\xef\xbb\xbf")) == [[]]


LINES = st.lists(st.sampled_from([b"", b"a", b"bc\r", b"defghijk"]), max_size=12).map(b"\n".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=LINES, target_bytes=st.integers(1, 20))
def test_splits_share_the_lines(io: LakehouseFileIO, land: Land, text: bytes, target_bytes: int) -> None:
    """Every line belongs to the split that its first byte is in, at its offset, and to no other."""
    source = land("a.jsonl", text)
    read = [line for split in read_blocks(io, source, target_bytes) for block in split for line in block.lines()]
    expected = text.split(b"\n")[: text.count(b"\n") + (not text.endswith(b"\n"))] if text else []
    assert [line for _, line in read] == [line.removesuffix(b"\r") for line in expected]
    if len(text) > target_bytes:
        assert [text[at : at + len(line)] for at, line in read] == [line for _, line in read]
    for split, found in zip(
        plan_splits(io, [source], "jsonl", target_bytes=target_bytes),
        read_blocks(io, source, target_bytes),
        strict=True,
    ):
        starts = [at for block in found for at, _ in block.lines()]
        assert not split.is_range or all(split.start <= at < split.start + split.length for at in starts)


@given(text=LINES.filter(bool), at_byte=st.booleans())
def test_positions_are_those_of_the_lines(text: bytes, at_byte: bool) -> None:  # noqa: FBT001  # a case
    """All at once or one by one, lines have the same positions."""
    block = Block(text, text.count(b"\n") + (not text.endswith(b"\n")), 7, at_byte)
    assert list(block.positions()) == [position for position, _ in block.lines()]


@given(text=LINES.filter(lambda text: b"\n" in text[:-1]), at_byte=st.booleans())
def test_halves_are_the_block(text: bytes, at_byte: bool) -> None:  # noqa: FBT001  # a case
    """Two halves have the lines and the positions of the whole."""
    block = Block(text, text.count(b"\n") + (not text.endswith(b"\n")), 7, at_byte)
    halves = block.halves()
    assert [line for half in halves for line in half.lines()] == list(block.lines())
    assert [half.count for half in halves] == [block.count // 2, block.count - block.count // 2]


def test_a_text_that_begins_like_orc_is_text(io: LakehouseFileIO, land: Land) -> None:
    """Three letters do not make a file an ORC file."""
    assert text_of(read_blocks(io, land("a.csv", b"ORC,id\n1,2\n"))) == b"ORC,id\n1,2\n"


@given(text=LINES.filter(bool))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_line_is_found_by_its_byte(io: LakehouseFileIO, land: Land, text: bytes) -> None:
    """The line at a byte offset has the number that an editor shows."""
    source = land("a.jsonl", text)
    (split, *_) = plan_splits(io, [source], "jsonl", target_bytes=1)
    block = Block(text, text.count(b"\n") + (not text.endswith(b"\n")), 0, at_byte=True)
    found = [line_of(io, split, position) for position, _ in block.lines()]
    assert found == list(range(1, block.count + 1))


def test_a_changed_object_is_not_read(io: LakehouseFileIO, land: Land) -> None:
    """What was listed is read, or nothing: another ETag is for the next attempt."""
    source = land("a.jsonl", b"a\n")
    (split,) = plan_splits(io, [source], "jsonl", target_bytes=WHOLE)
    land("a.jsonl", b"b\n")
    with pytest.raises(TransientError, match=r"a\.jsonl"):
        list(blocks(io, split))


def test_a_gone_object_is_transient(io: LakehouseFileIO, land: Land) -> None:
    """An object that was removed after it was listed is for the next attempt, too."""
    source = land("a.jsonl", b"a\n")
    io.delete(source.url)
    with pytest.raises(TransientError, match=r"a\.jsonl was listed but is gone"):
        read_blocks(io, source)


class FailingStream:
    """A store whose reads fail after some bytes."""

    def __init__(self, body: bytes, error: Exception) -> None:
        """Give the body, then raise."""
        self.body = body
        self.error = error
        self.closed = False

    def open_read(self, url: str, *, etag: str | None = None, size: int | None = None) -> Any:  # noqa: ARG002  # its face
        """Give itself as the stream."""
        return self

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.close()

    def close(self) -> None:
        """End."""
        self.closed = True

    def read(self, size: int = -1) -> bytes:
        """Give what is left, then raise."""
        if not self.body:
            raise self.error
        body, self.body = self.body[:size], self.body[size:]
        return body


@pytest.mark.parametrize(
    "error", [TransientError("503"), OSError(5, "Input/output error")], ids=["translated", "local disk"]
)
@pytest.mark.parametrize("codec", ["gzip", None])
def test_errors_of_the_store_stay_as_they_are(error: Exception, codec: str | None) -> None:
    """A failing read is not taken for a damaged file, whatever it passes through."""
    store = FailingStream(gzip.compress(TEXT)[:100] if codec else TEXT, error)
    with pytest.raises(type(error)) as raised:
        list(blocks(store, Split("s3://raw/a", "e", 200, "jsonl", codec, 0, 200, None)))
    assert raised.value is error or raised.value.args == error.args
    assert store.closed

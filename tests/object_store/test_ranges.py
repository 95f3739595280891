"""A stream over ranges reads what a file would, in few requests."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.object_store.ranges import KIB, MIB, RangeReader, ReadAhead

SMALL = ReadAhead(first=4, most=32, tail=8, whole=16, longest=24)
BODY = bytes(range(256))

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("seek"), st.integers(0, 300), st.just(io.SEEK_SET)),
        st.tuples(st.just("seek"), st.integers(-256, 20), st.just(io.SEEK_END)),
        st.tuples(st.sampled_from(["read", "readinto"]), st.integers(0, 300), st.just(0)),
        st.tuples(st.sampled_from(["rest", "line", "tell"]), st.just(0), st.just(0)),
    ),
    max_size=30,
)


class Source:
    """Bytes served by ranges, remembering which were asked for."""

    def __init__(self, body: bytes) -> None:
        """Serve `body`."""
        self.body = body
        self.asked: list[range] = []

    def fetch(self, span: range) -> bytes:
        """Give the bytes of a span."""
        assert len(span) > 0
        assert span.start >= 0
        assert span.stop <= len(self.body)
        self.asked.append(span)
        return self.body[span.start : span.stop]


def step(stream: io.BufferedIOBase, what: str, number: int, whence: int) -> object:
    """Do one step and give what it shows."""
    if what == "seek":
        return stream.seek(number, whence)
    if what == "readinto":
        buffer = bytearray(number)
        return stream.readinto(buffer), bytes(buffer)
    if what == "line":
        return stream.readline()
    if what == "tell":
        return stream.tell()
    return stream.read(number if what == "read" else -1)


@given(length=st.integers(0, 256), steps=STEPS)
def test_any_sequence_of_steps_reads_like_a_file(length: int, steps: list[tuple[str, int, int]]) -> None:
    """Seeks, reads, lines and positions are those of `BytesIO`, whatever the order."""
    body = BODY[::-1][:length]
    with RangeReader(Source(body).fetch, length, SMALL) as ours, io.BytesIO(body) as model:
        for what, number, whence in steps:
            if what == "seek" and whence == io.SEEK_END and length + number < 0:
                continue
            assert step(ours, what, number, whence) == step(model, what, number, whence)


def test_reading_on_and_on_needs_few_requests() -> None:
    """A sequential reader's windows grow to 8 MiB; no byte is fetched twice."""
    source = Source(bytes(40 * MIB))
    with RangeReader(source.fetch, len(source.body)) as stream:
        while stream.read(128 * KIB):
            pass
    assert [len(span) for span in source.asked] == [256 * KIB, MIB, 4 * MIB, *[8 * MIB] * 4, 40 * MIB - 37.25 * MIB]
    assert sum(map(len, source.asked)) == 40 * MIB


def test_a_parquet_footer_costs_one_request() -> None:
    """Opening a Parquet file of some MB through pyarrow fetches the tail once."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": pa.array(range(1_000_000))}), sink, compression="none", use_dictionary=False)
    source = Source(sink.getvalue())
    with RangeReader(source.fetch, len(source.body)) as stream:
        assert pq.ParquetFile(stream).metadata.num_rows == 1_000_000
    assert source.asked == [range(len(source.body) - 256 * KIB, len(source.body))]


def test_a_small_object_is_fetched_whole() -> None:
    """Up to 1 MiB, one request serves every seek."""
    source = Source(bytes(MIB))
    with RangeReader(source.fetch, MIB) as stream:
        for place in (500, 0, MIB - 1):
            stream.seek(place)
            assert len(stream.read(1)) == 1
    assert source.asked == [range(MIB)]


def test_a_random_read_fetches_little_more_than_it_wants() -> None:
    """A column chunk in the middle costs itself, a tiny read 64 KiB."""
    source = Source(bytes(10 * MIB))
    with RangeReader(source.fetch, 10 * MIB) as stream:
        stream.seek(2 * MIB)
        stream.read(3 * MIB)
        stream.seek(1)
        stream.read(1)
    assert source.asked == [range(2 * MIB, 5 * MIB), range(1, 1 + 64 * KIB)]


def test_a_long_read_is_split() -> None:
    """One read of 70 MiB is three requests, so that a reset costs 32 MiB at most."""
    source = Source(bytes(70 * MIB))
    with RangeReader(source.fetch, 70 * MIB) as stream:
        assert len(stream.read()) == 70 * MIB
    assert [len(span) for span in source.asked] == [32 * MIB, 32 * MIB, 6 * MIB]


def test_a_closed_stream_refuses() -> None:
    """Reads, seeks and positions of a closed stream raise ValueError, as a file's do."""
    stream = RangeReader(Source(b"abc").fetch, 3)
    stream.close()
    for use in (stream.read, stream.tell, lambda: stream.seek(0)):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_a_position_before_the_start_is_refused() -> None:
    """A seek to a negative position raises ValueError and moves nothing."""
    with RangeReader(Source(b"abc").fetch, 3) as stream:
        stream.seek(2)
        with pytest.raises(ValueError, match="-1"):
            stream.seek(-4, io.SEEK_END)
        assert stream.read() == b"c"

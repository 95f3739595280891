"""An output stream puts all or nothing, from memory or from disk."""

import gc
from typing import BinaryIO

import pytest

from lakehouse_pipeline.errors import TransientError
from lakehouse_pipeline.object_store.spool import SPOOL_BYTES, SpooledWriter


class Kept:
    """Remembers what was put."""

    def __init__(self, failure: Exception | None = None) -> None:
        """Fail with `failure`, if there is one."""
        self.bodies: list[bytes] = []
        self.failure = failure

    def put(self, body: BinaryIO) -> None:
        """Read the whole body."""
        body.seek(0)
        self.bodies.append(body.read())
        if self.failure:
            raise self.failure


@pytest.mark.parametrize("size", [0, 10, SPOOL_BYTES + 1], ids=["empty", "memory", "disk"])
def test_all_bytes_are_put_once_at_close(size: int) -> None:
    """Nothing is put before the close, and nothing by a second one."""
    kept = Kept()
    stream = SpooledWriter(kept.put)
    stream.write(bytes(size))
    assert (stream.tell(), kept.bodies) == (size, [])
    stream.close()
    stream.close()
    assert (kept.bodies, stream.closed) == ([bytes(size)], True)


def test_a_block_that_raises_puts_nothing() -> None:
    """Half a file is dropped."""
    kept = Kept()
    stream = SpooledWriter(kept.put)
    with pytest.raises(ZeroDivisionError), stream:
        stream.write(bytes([1 // 0]))
    assert (kept.bodies, stream.closed) == ([], True)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_forgotten_stream_puts_nothing() -> None:
    """Collecting a stream that nobody closed is no close; Python warns of it."""
    kept = Kept()
    SpooledWriter(kept.put).write(b"half")
    gc.collect()
    assert kept.bodies == []


def test_a_failed_put_is_said_and_not_repeated() -> None:
    """What the put raises comes through the close, and the stream is closed then."""
    kept = Kept(TransientError("no"))
    stream = SpooledWriter(kept.put)
    with pytest.raises(TransientError, match="no"):
        stream.close()
    stream.close()
    assert len(kept.bodies) == 1

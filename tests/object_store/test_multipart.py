"""Uploads in parts and reads by ranges, side by side, against a real server with faults before it."""

import hashlib
import random
import threading
import uuid
from collections.abc import Iterator
from io import BytesIO

import pytest

from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.errors import TransientError
from lakehouse_pipeline.object_store import s3
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.multipart import MOST_PARTS, Pieces
from lakehouse_pipeline.testing.faults import FaultServer
from lakehouse_pipeline.testing.schedule import Effect, Fault

MIB = 1024 * 1024
BODY = random.Random(1).randbytes(21 * MIB)  # noqa: S311  # 5 parts of 5 MiB, the last of 1


@pytest.fixture
def server(seaweed: SeaweedServer) -> Iterator[FaultServer]:
    """Run a fault server without faults."""
    with FaultServer(seaweed.endpoint) as server:
        yield server


@pytest.fixture
def file_io(seaweed: SeaweedServer, server: FaultServer) -> LakehouseFileIO:
    """Give a FileIO with small parts, four at a time, and tiny waits."""
    return LakehouseFileIO(
        seaweed.s3_properties()
        | {
            "s3.endpoint": server.endpoint,
            "s3.multipart.part-size-bytes": str(5 * MIB),
            "s3.multipart.threshold": "1",
            "s3.retry.num-retries": "3",
            "s3.retry.min-wait-ms": "1",
            "s3.retry.max-wait-ms": "2",
        }
    )


@pytest.fixture
def url() -> str:
    """Give a URL where nothing is."""
    return f"s3://raw/{uuid.uuid4().hex}/x"


def verbs(server: FaultServer) -> list[str]:
    """Give what was asked, in the order of the ends."""
    return [each.verb for each in server.exchanges]


def test_parts_go_side_by_side(server: FaultServer, file_io: LakehouseFileIO, url: str) -> None:
    """Four of the five parts are on their way before the first is answered; the object is whole."""
    held = server.add(Fault(effect=Effect.HOLD, verb="UploadPart", times=4))
    putting = threading.Thread(target=file_io.put, args=(url, BODY))
    putting.start()
    held.wait_held(4)
    assert verbs(server).count("UploadPart") == 0
    held.release()
    putting.join()
    assert hashlib.sha256(file_io.get(url).body).digest() == hashlib.sha256(BODY).digest()
    assert verbs(server).count("UploadPart") == 5


@pytest.mark.parametrize("effect", [Effect.SLOW_DOWN, Effect.RESET, Effect.FLIP_REQUEST])
def test_a_failed_part_is_sent_again_alone(
    server: FaultServer, file_io: LakehouseFileIO, url: str, effect: Effect
) -> None:
    """A throttle, a reset, or a bit that flipped on its way cost one part; the object is what was put."""
    server.add(Fault(effect=effect, verb="UploadPart", after=2))
    file_io.put(url, BytesIO(BODY))
    assert (verbs(server).count("UploadPart"), file_io.counts().retries) == (6, 1)
    assert hashlib.sha256(file_io.get(url).body).digest() == hashlib.sha256(BODY).digest()


def test_a_flipped_bit_is_refused(server: FaultServer, file_io: LakehouseFileIO, url: str) -> None:
    """Every body goes with its checksum: the store takes no damaged one, and the put is sent again."""
    server.add(Fault(effect=Effect.FLIP_REQUEST, verb="PutObject"))
    file_io.put(url, b"body" * 1000)
    assert [each.status for each in server.exchanges] == [400, 200]
    assert file_io.get(url).body == b"body" * 1000


def test_a_failed_upload_leaves_nothing_open(server: FaultServer, file_io: LakehouseFileIO, url: str) -> None:
    """One part that fails for good: the others end first, then the abort is sent, and no upload is open."""
    server.add(Fault(effect=Effect.SLOW_DOWN, verb="UploadPart", times=None))
    with pytest.raises(TransientError):
        file_io.put(url, BODY)
    asked = verbs(server)
    assert asked.index("AbortMultipartUpload") == len(asked) - 1
    assert list(file_io.list_uploads(url)) == []


def test_open_uploads_are_found_and_aborted(server: FaultServer, file_io: LakehouseFileIO, url: str) -> None:
    """An upload whose abort failed is listed with its URL below every prefix of it, and gone after an abort."""
    server.add(Fault(effect=Effect.REFUSED, verb="UploadPart", times=None, status=403, code="AccessDenied"))
    server.add(Fault(effect=Effect.REFUSED, verb="AbortMultipartUpload", status=403, code="AccessDenied"))
    with pytest.raises(ValueError, match="AccessDenied"):
        file_io.put(url, BODY)
    (found,) = file_io.list_uploads(url.removesuffix("x"))
    assert (found.url, list(file_io.list_uploads(url + "/other"))) == (url, [])
    file_io.abort_upload(found.url, found.upload)
    file_io.abort_upload(found.url, found.upload)
    assert list(file_io.list_uploads(url)) == []


def test_small_puts_have_no_threads(file_io: LakehouseFileIO, url: str) -> None:
    """One PUT is sent by whoever asks."""
    before = set(threading.enumerate())
    file_io.put(url, b"body")
    assert set(threading.enumerate()) <= before


def test_a_large_object_is_read_by_ranges(
    server: FaultServer, file_io: LakehouseFileIO, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first request brings the beginning and the size, ranges of the same version bring the rest."""
    monkeypatch.setattr(s3, "RANGE_BYTES", 8 * MIB)
    put = file_io.put(url, BODY)
    server.clear()
    server.add(Fault(effect=Effect.CUT, verb="GetObject", after=1))
    content = file_io.get(url)
    assert (content.body == BODY, content.info.etag, content.info.size) == (True, put.etag, len(BODY))
    assert verbs(server).count("GetObject") == 4


def test_a_read_by_ranges_mixes_no_versions(
    server: FaultServer, file_io: LakehouseFileIO, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object that is replaced after the first range is not read to its end."""
    monkeypatch.setattr(s3, "RANGE_BYTES", 8 * MIB)
    file_io.put(url, BODY)
    held = server.add(Fault(effect=Effect.HOLD, verb="GetObject", after=1, times=None))
    errors = list[str]()

    def read() -> None:
        with pytest.raises(TransientError) as caught:
            file_io.get(url)
        errors.append(str(caught.value))

    reading = threading.Thread(target=read)
    reading.start()
    held.wait_held(2)
    file_io.put(url, BODY[::-1])
    held.release()
    reading.join()
    assert [f"{url} is not the version" in error for error in errors] == [True]


@pytest.mark.parametrize(("size", "piece", "count"), [(10, 4, 3), (8, 4, 2), (1, 4, 1)])
def test_pieces_are_the_body(size: int, piece: int, count: int) -> None:
    """In order, all of one length but the last."""
    body = bytes(range(size))
    pieces = Pieces(BytesIO(body), size, piece)
    assert len(pieces) == count
    assert b"".join(pieces.take(number) for number in range(1, count + 1)) == body


def test_pieces_grow_where_there_were_too_many() -> None:
    """S3 takes 10,000 parts."""
    assert len(Pieces(BytesIO(), 100_001, 1)) <= MOST_PARTS

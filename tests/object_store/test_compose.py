"""Objects made of ranges of others: on both stores, and on an S3 that vouches for its copies, or does not."""

import itertools
import random
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.errors import ConfigurationError, TransientError
from lakehouse_pipeline.object_store import parts
from lakehouse_pipeline.object_store.checksums import ChecksumMismatchError, crc64nvme, from_text, joined, to_text
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.multipart import MOST_PARTS
from lakehouse_pipeline.object_store.objects import ObjectRange, PreconditionFailedError
from lakehouse_pipeline.object_store.parts import COPIED_PART_BYTES, Part, coalesced, copied_parts, planned
from tests.object_store.scripted_s3 import RESET, Answer, ScriptedS3, body, error
from tests.object_store.vouching_s3 import SMALLEST, VouchingS3

MIB = 1024 * 1024
BODY = random.Random(1).randbytes(24 * MIB)  # noqa: S311  # no secret
HEAD, TAIL = b"PAR1", b"a footer"
SOURCE, TARGET = "s3://bucket/source", "s3://bucket/target"
ONE_BY_ONE = {"s3.multipart.num-threads": "1", "s3.read.num-threads": "1"}
SLOW_DOWN = error(503, "SlowDown")


def ranged(url: str, etag: str, start: int, stop: int, *, known: bool = True) -> ObjectRange:
    """Name a range of an object that is `BODY`."""
    return ObjectRange(url, etag, range(start, stop), crc64nvme(BODY[start:stop]) if known else None)


# ---------------------------------------------------------------------------------------------------------------------
# Both stores


@pytest.fixture(params=["file", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give a prefix where nothing is."""
    return f"file://{tmp_path}/" if request.param == "file" else f"s3://raw/{uuid.uuid4().hex}/"


@pytest.fixture
def file_io(seaweed: SeaweedServer) -> LakehouseFileIO:
    """Give a FileIO with small parts."""
    small = {"s3.multipart.part-size-bytes": str(SMALLEST), "s3.multipart.threshold": "1"}
    return LakehouseFileIO(seaweed.s3_properties() | small)


@pytest.mark.parametrize("known", ["sums", "no-sums"])
@pytest.mark.parametrize(
    "spans",
    [
        pytest.param([(4, 20 * MIB), (21 * MIB, 24 * MIB)], id="large"),
        pytest.param([(4, 6 * MIB), (6 * MIB, 7 * MIB), (MIB, 2 * MIB), (0, 3)], id="small"),
        pytest.param([(0, 1), (1, 2), (5, 9)], id="tiny"),
        pytest.param([(7, 7)], id="nothing"),
    ],
)
def test_the_object_is_its_content(
    file_io: LakehouseFileIO, root: str, spans: list[tuple[int, int]], known: str
) -> None:
    """Bytes and ranges in their order, whoever moves them; the answer is what a HEAD says, and nothing is left open."""
    etag = file_io.put(root + "source", BODY).etag
    ranges = [ranged(root + "source", etag, *span, known=known == "sums") for span in spans]
    made = file_io.compose(root + "target", [HEAD, *ranges, TAIL])
    content = file_io.get(root + "target")
    assert content.body == HEAD + b"".join(BODY[start:stop] for start, stop in spans) + TAIL
    assert (made.size, made.etag) == (content.info.size, content.info.etag)
    assert list(file_io.list_uploads(root)) == []


def test_seaweedfs_copies_and_vouches(file_io: LakehouseFileIO) -> None:
    """Its sums of what it copied are the recorded ones, and under odd names, too, only the beginning passes through."""
    root = f"s3://raw/{uuid.uuid4().hex}/a b/ü%20/"
    etag = file_io.put(root + "c+d", BODY).etag
    before = file_io.counts()
    file_io.compose(root + "target", [HEAD, ranged(root + "c+d", etag, 4, 24 * MIB), TAIL])
    spent = file_io.counts() - before
    assert spent.bytes_copied == 24 * MIB - SMALLEST
    assert (spent.bytes_received, spent.bytes_sent) == (SMALLEST - len(HEAD), SMALLEST + len(TAIL))


def test_content_of_several_objects(file_io: LakehouseFileIO, root: str) -> None:
    """The ranges may be of as many objects as there are, with odd names."""
    urls = [f"{root}{name}" for name in ("a b", "ü%20", "c+d")]
    etags = [file_io.put(url, BODY).etag for url in urls]
    ranges = [ranged(url, etag, place, 6 * MIB) for place, (url, etag) in enumerate(zip(urls, etags, strict=True))]
    file_io.compose(root + "target", ranges)
    assert file_io.get(root + "target").body == b"".join(BODY[place : 6 * MIB] for place in range(3))


@pytest.mark.parametrize("stop", [100, 20 * MIB], ids=["small", "large"])
def test_damage_is_refused(file_io: LakehouseFileIO, root: str, stop: int) -> None:
    """A range that is not what its sum says makes no object: the error names it, and nothing is left open."""
    etag = file_io.put(root + "source", BODY).etag
    wrong = ObjectRange(root + "source", etag, range(4, stop), 1)
    with pytest.raises(ChecksumMismatchError, match=f"source, bytes 4 to {stop - 1}: .* AAAAAAAAAAE=") as caught:
        file_io.compose(root + "target", [HEAD, wrong, TAIL])
    assert to_text(crc64nvme(BODY[4:stop])) in str(caught.value)
    assert [info.url for info in file_io.list_objects(root)] == [root + "source"]
    assert list(file_io.list_uploads(root)) == []


@pytest.mark.parametrize("size", [100, 20 * MIB], ids=["small", "large"])
def test_another_version_is_refused(file_io: LakehouseFileIO, root: str, size: int) -> None:
    """A source that was replaced is not copied, whatever its bytes."""
    etag = file_io.put(root + "source", BODY).etag
    file_io.put(root + "source", BODY[::-1])
    with pytest.raises(TransientError, match="source is not the version"):
        file_io.compose(root + "target", [HEAD, ranged(root + "source", etag, 0, size)])
    assert file_io.head(root + "target") is None


def test_a_missing_source_is_said(file_io: LakehouseFileIO, root: str) -> None:
    """By its URL."""
    with pytest.raises(FileNotFoundError) as caught:
        file_io.compose(root + "target", [HEAD, ranged(root + "missing", "e", 0, 9)])
    assert caught.value.filename == root + "missing"


@pytest.mark.parametrize("stop", [100, 20 * MIB], ids=["small", "large"])
def test_an_object_is_not_replaced_where_asked(file_io: LakehouseFileIO, root: str, stop: int) -> None:
    """With `if_absent` what stands there stays; without, it is replaced."""
    etag = file_io.put(root + "source", BODY).etag
    file_io.put(root + "target", b"old")
    content: list[bytes | ObjectRange] = [HEAD, ranged(root + "source", etag, 0, stop)]
    with pytest.raises(PreconditionFailedError):
        file_io.compose(root + "target", content, if_absent=True)
    assert file_io.get(root + "target").body == b"old"
    file_io.compose(root + "target", content)
    assert file_io.get(root + "target").body == HEAD + BODY[:stop]


def test_content_of_another_store_is_refused(seaweed: SeaweedServer, tmp_path: Path) -> None:
    """No store can read another's objects."""
    with pytest.raises(ConfigurationError, match="different stores"):
        LakehouseFileIO(seaweed.s3_properties()).compose(f"file://{tmp_path}/x", [ranged("s3://raw/x", "e", 0, 9)])


# ---------------------------------------------------------------------------------------------------------------------
# An S3 that vouches for what it copied


def vouching(server: ScriptedS3, says: str = "right", **faults: list[Answer]) -> VouchingS3:
    """Put a store with a source behind the server."""
    store = VouchingS3({"/bucket/source": BODY}, says, faults)
    store.serve(server)
    return store


CONTENT: list[bytes | ObjectRange] = [
    HEAD,
    ranged(SOURCE, "e1", 4, 12 * MIB),
    ranged(SOURCE, "e1", 12 * MIB, 23 * MIB),
    TAIL,
]
MADE = HEAD + BODY[4 : 23 * MIB] + TAIL


def test_the_store_copies_what_it_can(s3: ScriptedS3) -> None:
    """Of 23 MiB the first five pass through here, with the magic, and the rest is copied under one checksum."""
    store = vouching(s3)
    file_io = s3.file_io(**ONE_BY_ONE)
    file_io.compose(TARGET, CONTENT)
    assert store.objects["/bucket/target"] == MADE
    assert store.verbs == {"create": 1, "get": 1, "part": 2, "copy": 1, "complete": 1}
    assert store.checksums == {"CRC64NVME"}
    counts = file_io.counts()
    assert counts.bytes_copied == 23 * MIB - SMALLEST
    assert (counts.bytes_received, counts.bytes_sent) == (SMALLEST - len(HEAD), SMALLEST + len(TAIL))


def test_the_object_is_completed_with_its_own_sum(s3: ScriptedS3) -> None:
    """The store is told what all parts together add up to, and that it is of the whole object."""
    vouching(s3)
    s3.file_io(**ONE_BY_ONE).compose(TARGET, CONTENT)
    told = s3.asked[-1].headers
    assert told["x-amz-checksum-crc64nvme"] == to_text(crc64nvme(MADE))
    assert told["x-amz-checksum-type"] == s3.asked[0].headers["x-amz-checksum-type"] == "FULL_OBJECT"


def test_a_wrong_copy_makes_no_object(s3: ScriptedS3) -> None:
    """The store's own sum differs from the recorded one: the upload is aborted."""
    store = vouching(s3, "wrong")
    with pytest.raises(ChecksumMismatchError, match="s3://bucket/source, bytes 4 to"):
        s3.file_io(**ONE_BY_ONE).compose(TARGET, CONTENT)
    assert (store.verbs["complete"], store.verbs["abort"], "/bucket/target" in store.objects) == (0, 1, False)


@pytest.mark.parametrize("says", ["nothing", "unknown"])
def test_a_store_that_does_not_vouch_copies_nothing(
    s3: ScriptedS3, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked once, and said once; all bytes pass through here, under the checksum that every store knows."""
    store = vouching(s3, says)
    for _ in range(2):
        file_io = s3.file_io(**ONE_BY_ONE)
        file_io.compose(TARGET, CONTENT)
        assert store.objects["/bucket/target"] == MADE
    assert (store.verbs["copy"], store.verbs["abort"], store.verbs["complete"]) == (1, 1, 2)
    assert store.checksums == {"CRC64NVME", "CRC32"}
    assert file_io.counts().bytes_copied == 0
    assert [record.levelname for record in caplog.records if "pass through this process" in record.getMessage()] == [
        "WARNING"
    ]


def test_a_store_without_the_checksum_copies_nothing(s3: ScriptedS3) -> None:
    """An upload with CRC64NVME that is refused is begun again without."""
    store = vouching(s3, create=[error(400, "InvalidRequest")])
    s3.file_io(**ONE_BY_ONE).compose(TARGET, CONTENT)
    assert store.objects["/bucket/target"] == MADE
    assert store.checksums == {"CRC32"}


def test_missing_rights_are_said(s3: ScriptedS3) -> None:
    """A copy that is refused for its rights is read instead; where that is refused, too, nothing is hidden."""
    denied = error(403, "AccessDenied")
    vouching(s3, copy=[denied], get=[body(BODY[4:SMALLEST]), denied])
    with pytest.raises(ConfigurationError, match="AccessDenied"):
        s3.file_io(**ONE_BY_ONE).compose(TARGET, CONTENT)


@pytest.mark.parametrize("fault", [SLOW_DOWN, RESET, error(500, "InternalError")], ids=["slow-down", "reset", "500"])
@pytest.mark.parametrize("verb", ["create", "get", "part", "copy", "complete"])
def test_a_curable_fault_costs_one_request(s3: ScriptedS3, verb: str, fault: Answer) -> None:
    """Each request is sent again alone."""
    store = vouching(s3)
    store.faults[verb] = [fault]
    file_io = s3.file_io(**ONE_BY_ONE)
    file_io.compose(TARGET, CONTENT)
    assert store.objects["/bucket/target"] == MADE
    assert file_io.counts().retries == 1
    assert store.verbs == {"create": 1, "get": 1, "part": 2, "copy": 1, "complete": 1, verb: store.verbs[verb]}


def test_a_copy_that_fails_for_good_is_aborted(s3: ScriptedS3) -> None:
    """Tries end, and the upload with them."""
    store = vouching(s3, copy=[error(500, "InternalError")] * 3)
    with pytest.raises(TransientError, match="InternalError"):
        s3.file_io(**ONE_BY_ONE, **{"s3.retry.num-retries": "2"}).compose(TARGET, CONTENT)
    assert (store.verbs["copy"], store.verbs["abort"], store.verbs["complete"]) == (3, 1, 0)


def test_a_dropped_upload_is_begun_again(s3: ScriptedS3) -> None:
    """With all of its parts."""
    store = vouching(s3, copy=[error(404, "NoSuchUpload")])
    s3.file_io(**ONE_BY_ONE).compose(TARGET, CONTENT)
    assert store.objects["/bucket/target"] == MADE
    assert store.verbs["create"] == 2


def test_a_source_that_went_away_is_said(s3: ScriptedS3) -> None:
    """By its URL, not the target's, though the request is the target's."""
    vouching(s3, copy=[error(404, "NoSuchKey")])
    with pytest.raises(FileNotFoundError) as caught:
        s3.file_io(**ONE_BY_ONE).compose(TARGET, CONTENT)
    assert caught.value.filename == SOURCE


def test_the_condition_holds_at_completion(s3: ScriptedS3) -> None:
    """An object that stands there is refused as the parts are there, and the upload is aborted."""
    store = vouching(s3)
    store.objects["/bucket/target"] = b"old"
    with pytest.raises(PreconditionFailedError):
        s3.file_io(**ONE_BY_ONE).compose(TARGET, CONTENT, if_absent=True)
    assert (store.objects["/bucket/target"], store.verbs["abort"]) == (b"old", 1)


def test_ranges_without_a_sum_are_not_copied(s3: ScriptedS3) -> None:
    """What nobody can check afterwards passes through here."""
    store = vouching(s3)
    s3.file_io(**ONE_BY_ONE).compose(TARGET, [HEAD, ranged(SOURCE, "e1", 4, 23 * MIB, known=False), TAIL])
    assert store.objects["/bucket/target"] == MADE
    assert store.verbs["copy"] == 0


def test_keys_of_encryption_go_with_every_copy(s3: ScriptedS3) -> None:
    """SSE-C's key opens the source and closes the part."""
    store = vouching(s3)
    key = {"s3.sse.type": "custom", "s3.sse.key": "A" * 43 + "="}
    s3.file_io(**ONE_BY_ONE, **key).compose(TARGET, CONTENT)
    (copy,) = (asked.headers for asked in s3.asked if "x-amz-copy-source" in asked.headers)
    for name in ("server-side", "copy-source-server-side"):
        assert copy[f"x-amz-{name}-encryption-customer-key"] == key["s3.sse.key"]
    assert store.verbs["copy"] == 1


# ---------------------------------------------------------------------------------------------------------------------
# The plan


SIZES = st.integers(1, 40) | st.integers(1, 6000)
SOURCES = st.lists(st.tuples(st.sampled_from(["bytes", "known", "unknown"]), SIZES), min_size=1, max_size=12)


def pieces_of(found: Sequence[Part]) -> list[tuple[int, int]]:
    """Give source and position of every byte, in the order of the parts."""
    return [(piece.source, at) for part in found for piece in part.pieces for at in piece.span]


@given(drawn=SOURCES, most=st.sampled_from([10_000, 8]))
def test_every_plan_keeps_to_the_limits(drawn: list[tuple[str, int]], most: int) -> None:
    """All bytes, in order and once; no part but the last is too small, nor are there too many; a copy is one range."""
    sources = [
        b"x" * size if kind == "bytes" else ObjectRange("s3://b/x", "e", range(size), 1 if kind == "known" else None)
        for kind, size in drawn
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "SMALLEST_PART_BYTES", 10)
        patch.setattr(parts, "COPIED_PART_BYTES", 100)
        patch.setattr(parts, "MOST_PARTS", most)
        found = planned(sources, 16, copying=True)
    assert pieces_of(found) == [(place, at) for place, (_, size) in enumerate(drawn) for at in range(size)]
    assert all(part.size >= 10 for part in found[:-1])
    assert len(found) <= most
    assert all(len(part.pieces) == 1 and drawn[part.pieces[0].source][0] == "known" for part in found if part.copied)


def test_what_follows_in_one_object_is_one_range() -> None:
    """Row groups that stand side by side are copied together, and their sum is that of both."""
    both = coalesced([b"", ranged(SOURCE, "e1", 4, 9), ranged(SOURCE, "e1", 9, 30), ranged(SOURCE, "e2", 30, 31)])
    assert both == [ranged(SOURCE, "e1", 4, 30), ranged(SOURCE, "e2", 30, 31)]


@given(first=st.binary(), second=st.binary())
def test_sums_of_pieces_make_the_sum_of_the_whole(first: bytes, second: bytes) -> None:
    """However it was cut; and S3's text of a sum is read back."""
    whole = crc64nvme(first + second)
    assert joined(crc64nvme(first), crc64nvme(second), len(second)) == crc64nvme(second, crc64nvme(first)) == whole
    assert from_text(to_text(whole)) == whole


def test_the_sum_is_crc64nvme() -> None:
    """The check value of https://reveng.sourceforge.io/crc-catalogue/17plus.htm#crc.cat.crc-64-nvme."""
    assert crc64nvme(b"123456789") == 0xAE8B14860A799888


@pytest.mark.parametrize("text", ["", "AAAA", "no base64!", "AAAAAAAAAAAA"])
def test_what_is_no_sum_is_refused(text: str) -> None:
    """Eight bytes in base64, and nothing else."""
    with pytest.raises(ValueError, match="is no CRC64NVME"):
        from_text(text)


@pytest.mark.parametrize("size", [5 * 2**30 + 1, 10_000 * COPIED_PART_BYTES + 1, 5 * 2**40, 48 * 2**40])
def test_a_large_copy_has_no_more_parts_than_s3_takes(size: int) -> None:
    """However large: all of it, in order, and no part of more than 5 GiB."""
    spans = copied_parts(size)
    assert len(spans) <= MOST_PARTS
    assert max(map(len, spans)) <= 5 * 2**30
    assert (spans[0].start, spans[-1].stop) == (0, size)
    assert all(before.stop == after.start for before, after in itertools.pairwise(spans))

"""Every verb means the same on local disk and on a real S3 server."""

import contextlib
import hashlib
import io
import os
import pickle
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.errors import ConfigurationError, TransientError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import ObjectInfo, PreconditionFailedError

ODD_KEYS = [
    "a b/c d.txt",
    "plus+and%20percent%2F.txt",
    "hour=2013-01-01-10:00/part.parquet",
    "ünïcödé/日本語/🛫.json",
    "quote'\"<&>.txt",
    "#hash?query=1&b;c.txt",
    ".hidden/_underscore/~tilde",
    "...dots..",
    "a" * 200,
]
RACES = 2  # SeaweedFS lets the losers of a race wait for whole seconds


@pytest.fixture(params=["file", "s3"])
def file_io(request: pytest.FixtureRequest) -> LakehouseFileIO:
    """Give a FileIO of each store."""
    properties = request.getfixturevalue("seaweed").s3_properties() if request.param == "s3" else {}
    return LakehouseFileIO(properties)


@pytest.fixture
def root(file_io: LakehouseFileIO, tmp_path: Path) -> str:
    """Give a URL for objects of that store: it ends with a slash, and nothing is there."""
    return f"s3://raw/{uuid.uuid4().hex}/" if file_io.properties else f"file://{tmp_path}/"


def race(put: Callable[[bytes], ObjectInfo]) -> list[ObjectInfo]:
    """Put sixteen bodies at the same moment; give what the winners got."""
    barrier = threading.Barrier(16)

    def run(number: int) -> ObjectInfo | None:
        barrier.wait()
        try:
            return put(uuid.uuid4().bytes * number)
        except PreconditionFailedError:
            return None

    with ThreadPoolExecutor(16) as pool:
        return [info for info in pool.map(run, range(1, 17)) if info]


def test_what_is_put_is_got(file_io: LakehouseFileIO, root: str) -> None:
    """Body, size, ETag and time of a put come back from get, head and listing alike."""
    put = file_io.put(root + "x", b"body")
    content = file_io.get(root + "x")
    assert (content.body, put.url, put.size) == (b"body", root + "x", 4)
    assert file_io.head(root + "x") == content.info
    assert list(file_io.list_objects(root)) == [content.info]
    assert content.info.etag == put.etag
    assert content.info.modified <= put.modified <= content.answered


def test_times_are_the_stores_and_aware(file_io: LakehouseFileIO, root: str) -> None:
    """An object's time and the answer's are UTC, between the request and its answer; S3 leaves out the fractions."""
    asked = datetime.now(UTC).replace(microsecond=0)
    file_io.put(root + "x", b"body")
    content = file_io.get(root + "x")
    for moment in (content.info.modified, content.answered):
        assert moment.tzinfo == UTC
        assert asked <= moment <= datetime.now(UTC)
    assert content.answered - content.info.modified > timedelta(seconds=-1)


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_names_survive(file_io: LakehouseFileIO, root: str, key: str) -> None:
    """Spaces, percent signs, unicode and XML's own characters are neither decoded nor encoded."""
    url = root + key
    file_io.put(url, key.encode())
    assert file_io.get(url).body == key.encode()
    assert [info.url for info in file_io.list_objects(root)] == [url]
    assert [info.url for info in file_io.list_objects(url[:-1])] == [url]
    file_io.delete_objects([url])
    assert file_io.head(url) is None


def test_an_empty_object_is_an_object(file_io: LakehouseFileIO, root: str) -> None:
    """Nothing at all can be put, listed, read by range and got."""
    file_io.put(root + "empty", b"")
    assert file_io.get(root + "empty").body == b""
    assert [info.size for info in file_io.list_objects(root)] == [0]
    with file_io.open_read(root + "empty") as stream:
        assert stream.read() == b""


def test_a_file_is_put_from_its_start(file_io: LakehouseFileIO, root: str) -> None:
    """A body that is a file is sent whole wherever it stands, and stays open."""
    with io.BytesIO(b"0123456789") as body:
        body.seek(7)
        assert file_io.put(root + "x", body).size == 10
        assert not body.closed
    assert file_io.get(root + "x").body == b"0123456789"


def test_a_missing_object_is_said_by_its_url(file_io: LakehouseFileIO, root: str) -> None:
    """Get and open raise FileNotFoundError with the URL; head gives None."""
    url = root + "missing"
    for read in (lambda: file_io.get(url), lambda: file_io.open_read(url), file_io.new_input(url).open):
        with pytest.raises(FileNotFoundError) as caught:
            read()
        assert caught.value.filename == url
    assert file_io.head(url) is None


def test_deleting_is_idempotent(file_io: LakehouseFileIO, root: str) -> None:
    """A missing object, and one deleted twice, are fine, alone and in a batch."""
    url = root + "folder/x"
    file_io.put(url, b"1")
    file_io.delete(url)
    file_io.delete(url)
    file_io.delete_objects([url, root + "never/was", url])
    file_io.delete_objects([])
    assert list(file_io.list_objects(root)) == []


def test_a_folder_is_no_object(file_io: LakehouseFileIO, root: str) -> None:
    """The name above an object has no head and cannot be deleted."""
    file_io.put(root + "folder/x", b"1")
    file_io.delete(root + "folder")
    assert file_io.head(root + "folder") is None
    assert [info.url for info in file_io.list_objects(root)] == [root + "folder/x"]


def test_a_prefix_is_a_string(file_io: LakehouseFileIO, root: str) -> None:
    """Listing goes by the URL's beginning, not by folders, and a prefix that nothing has is empty."""
    for key in ("data/1", "data/deep/er/2", "data-3", "date", "other"):
        file_io.put(root + key, b"1")

    def keys(prefix: str) -> set[str]:
        return {info.url.removeprefix(root) for info in file_io.list_objects(root + prefix)}

    assert keys("dat") == {"data/1", "data/deep/er/2", "data-3", "date"}
    assert keys("data/") == {"data/1", "data/deep/er/2"}
    assert keys("data/deep/er/2") == {"data/deep/er/2"}
    assert keys("nothing/") == set()


def test_more_objects_than_a_page_are_listed_and_deleted(file_io: LakehouseFileIO, root: str) -> None:
    """1,005 objects: two pages of a listing, five pages of a batch delete."""
    urls = [f"{root}{number:05d}" for number in range(1005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda url: file_io.put(url, b"1"), urls))
    assert [info.url for info in file_io.list_objects(root)] == urls
    before = file_io.counts().requests
    file_io.delete_objects(urls)
    assert file_io.counts().requests - before == (5 if root.startswith("s3") else 0)
    assert list(file_io.list_objects(root)) == []


def test_another_body_has_another_etag(file_io: LakehouseFileIO, root: str) -> None:
    """A replaced object is seen by its ETag."""
    etags = {file_io.put(root + "x", bytes([number])).etag for number in range(20)}
    assert len(etags) == 20


@pytest.mark.parametrize(
    "condition", [{"if_absent": True}, {"if_match": "0123456789abcdef0123456789abcdef"}], ids=["there", "other"]
)
def test_a_put_whose_condition_fails_changes_nothing(
    file_io: LakehouseFileIO, root: str, condition: dict[str, Any]
) -> None:
    """An object that is there, or is another version, stays; and the refusal knows that no try landed."""
    file_io.put(root + "x", b"old")
    with pytest.raises(PreconditionFailedError) as caught:
        file_io.put(root + "x", b"new", **condition)
    assert not caught.value.maybe_landed
    assert file_io.get(root + "x").body == b"old"


def test_a_missing_object_matches_nothing(file_io: LakehouseFileIO, root: str) -> None:
    """Replacing a version of an object that is not there is refused, and makes none."""
    with pytest.raises(PreconditionFailedError):
        file_io.put(root + "x", b"new", if_match="0123456789abcdef0123456789abcdef")
    assert file_io.head(root + "x") is None


def test_a_put_whose_condition_holds_lands(file_io: LakehouseFileIO, root: str) -> None:
    """An object is created where there is none, and replaced by whoever knows its version."""
    created = file_io.put(root + "x", b"old", if_absent=True)
    replaced = file_io.put(root + "x", b"new", if_match=created.etag)
    content = file_io.get(root + "x")
    assert (content.body, content.info.etag) == (b"new", replaced.etag)


def test_two_conditions_exclude_each_other(file_io: LakehouseFileIO, root: str) -> None:
    """Absent and matching cannot both be asked for."""
    with pytest.raises(ConfigurationError, match="exclude"):
        file_io.put(root + "x", b"", if_absent=True, if_match="e")


def test_of_sixteen_creators_one_wins(file_io: LakehouseFileIO, root: str) -> None:
    """Racing puts with `if_absent` have exactly one winner, and its body stands."""
    for number in range(RACES):
        winners = race(partial(file_io.put, f"{root}{number}", if_absent=True))
        assert [info.etag for info in winners] == [file_io.get(f"{root}{number}").info.etag]


def test_of_sixteen_replacers_one_wins(file_io: LakehouseFileIO, root: str) -> None:
    """Racing puts with `if_match` on the same version have exactly one winner, round after round."""
    etag = file_io.put(root + "x", b"0").etag
    for _ in range(RACES):
        winners = race(partial(file_io.put, root + "x", if_match=etag))
        etag = file_io.get(root + "x").info.etag
        assert [info.etag for info in winners] == [etag]


def test_parts_become_one_object(file_io: LakehouseFileIO, root: str) -> None:
    """A body above the threshold goes in parts and comes back whole, by get and by ranges."""
    body = bytes(range(251)) * 50_000  # 12.5 MB, no two parts alike
    small_parts = {"s3.multipart.part-size-bytes": "5242880", "s3.multipart.threshold": "1"}
    file_io = LakehouseFileIO(file_io.properties | small_parts)
    put = file_io.put(root + "big", body, if_absent=True)
    assert file_io.counts().requests == (5 if root.startswith("s3") else 0)
    assert file_io.get(root + "big").body == body
    with file_io.open_read(root + "big", etag=put.etag, size=put.size) as stream:
        stream.seek(-10, io.SEEK_END)
        assert stream.read() == body[-10:]
        stream.seek(5_242_870)
        assert stream.read(20) == body[5_242_870:5_242_890]
    with pytest.raises(PreconditionFailedError):
        file_io.put(root + "big", body[::-1], if_absent=True)
    assert file_io.put(root + "big", body[::-1], if_match=put.etag).etag != put.etag


def test_a_copy_is_the_object(file_io: LakehouseFileIO, root: str) -> None:
    """The bytes of the source, under odd names, too; the source stays, and the answer is what a HEAD says."""
    source, target = root + ODD_KEYS[1], root + ODD_KEYS[3]
    file_io.put(source, b"body")
    copied = file_io.copy(source, target)
    assert (file_io.get(target).body, file_io.get(source).body) == (b"body", b"body")
    there = file_io.head(target)
    assert there
    assert (copied.url, copied.size, copied.etag) == (there.url, there.size, there.etag)


def test_a_large_copy_is_made_in_parts(seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the store, under the same conditions; nothing of an upload stays where it is refused."""
    monkeypatch.setattr("lakehouse_pipeline.object_store.s3.COPIED_AT_ONCE_BYTES", 1)
    monkeypatch.setattr("lakehouse_pipeline.object_store.parts.COPIED_PART_BYTES", 6 * 2**20)
    files, root = LakehouseFileIO(seaweed.s3_properties()), f"s3://plain/{uuid.uuid4().hex}/"
    body = os.urandom(18 * 2**20)
    files.put(root + "source", body)
    before = files.counts()
    copied = files.copy(root + "source", root + "target", if_absent=True)
    assert files.counts().bytes_copied - before.bytes_copied == len(body) == copied.size
    assert files.counts().bytes_sent == before.bytes_sent
    assert files.get(root + "target").body == body
    listed = files.head(root + "source")
    assert listed
    files.put(root + "source", body[::-1])
    with pytest.raises(PreconditionFailedError):
        files.copy(root + "source", root + "target", if_absent=True)
    with pytest.raises(TransientError, match="source is not the version"):
        files.copy(root + "source", root + "target", etag=listed.etag, size=listed.size)
    assert files.get(root + "target").body == body
    assert list(files.list_uploads(root)) == []
    files.copy(root + "source", root + "target")
    assert files.get(root + "target").body == body[::-1]


def test_a_copy_onto_an_object_is_refused_where_asked(file_io: LakehouseFileIO, root: str) -> None:
    """With `if_absent` what stands there stays; without, it is replaced."""
    file_io.put(root + "source", b"new")
    file_io.put(root + "target", b"old")
    with pytest.raises(PreconditionFailedError):
        file_io.copy(root + "source", root + "target", if_absent=True)
    assert file_io.get(root + "target").body == b"old"
    file_io.copy(root + "source", root + "target")
    assert file_io.get(root + "target").body == b"new"


def test_a_copy_of_nothing_is_said(file_io: LakehouseFileIO, root: str) -> None:
    """A missing source raises FileNotFoundError with its URL."""
    with pytest.raises(FileNotFoundError) as caught:
        file_io.copy(root + "missing", root + "x")
    assert caught.value.filename == root + "missing"


def test_a_copy_of_one_version(file_io: LakehouseFileIO, root: str) -> None:
    """The version that is named is copied, or none; with its size, the store is not asked for it before."""
    earlier = file_io.put(root + "source", b"old")
    assert file_io.copy(root + "source", root + "target", etag=earlier.etag, size=earlier.size).size == 3
    file_io.put(root + "source", b"new")
    for size in (None, 3):
        with pytest.raises(TransientError, match="source is not the version"):
            file_io.copy(root + "source", root + "target", etag=earlier.etag, size=size)
    assert file_io.get(root + "target").body == b"old"


def test_what_an_etag_is(seaweed: SeaweedServer, file_io: LakehouseFileIO, root: str) -> None:
    """The MD5 of what S3 took at once; nothing of the kind for parts, and for files."""
    put = file_io.put(root + "x", b"body")
    assert file_io.is_md5(root + "x") == (put.etag == hashlib.md5(b"body", usedforsecurity=False).hexdigest())
    in_parts = LakehouseFileIO(seaweed.s3_properties() | {"s3.multipart.part-size-bytes": str(5 * 2**20)})
    url = f"s3://plain/{uuid.uuid4().hex}"
    in_parts.put(url, b"x" * 8 * 2**20)
    assert not in_parts.is_md5(url)


def test_the_region_of_a_disk(tmp_path: Path) -> None:
    """It has none."""
    assert LakehouseFileIO({}).region_of(f"file://{tmp_path}/x") is None


def test_a_copy_between_stores_is_refused(seaweed: SeaweedServer, tmp_path: Path) -> None:
    """No store can read another's objects."""
    with pytest.raises(ConfigurationError, match="different stores"):
        LakehouseFileIO(seaweed.s3_properties()).copy("s3://raw/x", f"file://{tmp_path}/x")


def test_a_changed_object_is_not_opened_as_the_old_one(file_io: LakehouseFileIO, root: str) -> None:
    """Opening by an ETag that is gone raises a transient error with the URL, at once or at the first read."""
    url = root + "x"
    old = file_io.put(url, b"old")
    file_io.put(url, b"new")
    for size in (None, old.size):
        with pytest.raises(TransientError, match="x is not the version"):
            file_io.open_read(url, etag=old.etag, size=size).read()


def test_an_open_stream_never_mixes_versions(file_io: LakehouseFileIO, root: str) -> None:
    """An object that is replaced while it is read is read on as it was, or the read raises; never a mix."""
    url, size = root + "x", 3 * 1024 * 1024
    file_io.put(url, b"a" * size)
    with file_io.open_read(url) as stream:
        head = stream.read(1024)
        file_io.put(url, b"b" * size)
        with contextlib.suppress(TransientError):
            assert set(head + stream.read()) == {ord("a")}


def test_a_file_io_travels(file_io: LakehouseFileIO, root: str) -> None:
    """A pickled FileIO works in its new place, has its own counts, and takes along no client."""
    file_io.put(root + "x", b"1")
    travelled = pickle.loads(pickle.dumps(file_io))  # noqa: S301  # our own pickle
    assert travelled.counts().requests == 0
    assert travelled.get(root + "x").body == b"1"


def test_pyicebergs_face_writes_and_reads(file_io: LakehouseFileIO, root: str) -> None:
    """Output, input, length, existence and delete as PyIceberg calls them."""
    output = file_io.new_output(root + "m/x.avro")
    assert not output.exists()
    with output.create() as stream:
        stream.write(b"ab")
        stream.write(b"c")
        assert stream.tell() == 3
    assert (output.exists(), len(output), len(output.to_input_file())) == (True, 3, 3)
    with output.to_input_file().open() as source:
        assert source.read() == b"abc"
    file_io.delete(output)
    assert not output.to_input_file().exists()
    with pytest.raises(FileNotFoundError):
        len(output)


def test_creating_what_exists_is_refused_early_and_late(file_io: LakehouseFileIO, root: str) -> None:
    """Without `overwrite`, an object that is there, or that came while the stream was open, is not replaced."""
    output = file_io.new_output(root + "x")
    stream = output.create()
    stream.write(b"late")
    with output.create() as first:
        first.write(b"first")
    with pytest.raises(FileExistsError):
        stream.close()
    with pytest.raises(FileExistsError):
        output.create()
    with output.create(overwrite=True) as other:
        other.write(b"other")
    assert file_io.get(root + "x").body == b"other"


def test_half_an_object_is_never_put(file_io: LakehouseFileIO, root: str) -> None:
    """A `with` block that raises leaves nothing behind."""
    output = file_io.new_output(root + "x")
    with contextlib.suppress(ZeroDivisionError), output.create() as stream:
        stream.write(b"half")
        raise ZeroDivisionError
    assert list(file_io.list_objects(root)) == []


@pytest.mark.parametrize("scheme", ["s3a", "s3n"])
def test_hadoops_names_for_s3_mean_the_same(seaweed: SeaweedServer, scheme: str) -> None:
    """`s3a://` and `s3n://` reach the same objects, and listings keep the caller's way of writing."""
    file_io, key = LakehouseFileIO(seaweed.s3_properties()), f"raw/{uuid.uuid4().hex}/x"
    file_io.put(f"s3://{key}", b"1")
    assert file_io.get(f"{scheme}://{key}").body == b"1"
    assert [info.url for info in file_io.list_objects(f"{scheme}://{key}")] == [f"{scheme}://{key}"]
    file_io.delete_objects([f"{scheme}://{key}", f"s3://{key}"])
    assert file_io.head(f"s3://{key}") is None


@pytest.mark.parametrize("url", ["gs://bucket/x", "relative/x", "", "file://host/x", "s3://"])
def test_an_unknown_url_is_refused(url: str) -> None:
    """Schemes that we do not know, relative paths and hosts are configuration errors that name the URL."""
    with pytest.raises(ConfigurationError, match=url or "''"):
        LakehouseFileIO({"s3.region": "us-east-1"}).head(url)


def test_a_missing_bucket_is_said(seaweed: SeaweedServer) -> None:
    """Listing and reading a bucket that is not there raise FileNotFoundError."""
    file_io = LakehouseFileIO(seaweed.s3_properties())
    with pytest.raises(FileNotFoundError):
        next(file_io.list_objects("s3://no-such-bucket/"), None)
    with pytest.raises(FileNotFoundError):
        file_io.get("s3://no-such-bucket/x")


def test_wrong_credentials_name_the_way_out(seaweed: SeaweedServer) -> None:
    """A refused signature is a configuration error that says what to check and shows no secret."""
    file_io = LakehouseFileIO(seaweed.s3_properties() | {"s3.secret-access-key": "wRoNgSeCrEt"})
    with pytest.raises(ConfigurationError, match="check the credentials") as caught:
        file_io.get("s3://raw/x")
    assert "wRoNgSeCrEt" not in str(caught.value)
    assert file_io.counts().requests == 1

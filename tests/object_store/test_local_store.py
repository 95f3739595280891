"""What is special about objects on local disk: paths, temporary files, ETags and locks between processes."""

import contextlib
import itertools
import os
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.errors import ConfigurationError, TransientError
from lakehouse_pipeline.object_store import local
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.local import _names, _walk
from lakehouse_pipeline.object_store.objects import ObjectInfo, PreconditionFailedError
from tests.full_disk import full_disk

NAMES = st.text("ab-.0é", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
COUNT_UP = """
import sys
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import PreconditionFailedError
file_io, url, left = LakehouseFileIO(), sys.argv[1], 50
while left:
    content = file_io.get(url)
    try:
        file_io.put(url, b"%d" % (int(content.body) + 1), if_match=content.info.etag)
        left -= 1
    except PreconditionFailedError:
        pass
"""


@pytest.fixture
def file_io() -> LakehouseFileIO:
    """Give a FileIO without properties."""
    return LakehouseFileIO()


def test_three_ways_to_write_a_path_mean_one_file(file_io: LakehouseFileIO, tmp_path: Path) -> None:
    """`file:///a`, Hadoop's `file:/a` and `/a` are the same file, and listings keep the caller's way."""
    (tmp_path / "x").write_bytes(b"1")
    for start in ("file://", "file:", ""):
        assert file_io.get(f"{start}{tmp_path}/x").body == b"1"
        assert [info.url for info in file_io.list_objects(f"{start}{tmp_path}/")] == [f"{start}{tmp_path}/x"]


def test_listings_go_in_the_order_of_s3_keys(file_io: LakehouseFileIO, tmp_path: Path) -> None:
    """By the whole path's characters, where `-` and `.` come before the slash."""
    for name in ("a/x", "a/y/z", "a-b", "a.c", "a0"):
        file_io.put(f"{tmp_path}/{name}", b"")
    assert [info.url.removeprefix(f"{tmp_path}/") for info in file_io.list_objects(f"{tmp_path}/")] == [
        "a-b",
        "a.c",
        "a/x",
        "a/y/z",
        "a0",
    ]


@given(st.sets(st.lists(NAMES, min_size=1, max_size=3).map("/".join)))
def test_any_tree_is_listed_in_order(tmp_path_factory: pytest.TempPathFactory, paths: set[str]) -> None:
    """Whatever the names, files come sorted by their whole path, each once."""
    folder = tmp_path_factory.mktemp("tree")
    for path in paths:
        with contextlib.suppress(ConfigurationError):  # `a` and `a/b` exclude each other on a disk
            LakehouseFileIO().put(f"{folder}/{path}", b"")
    listed = [info.url for info in LakehouseFileIO().list_objects(f"{folder}/")]
    assert listed == sorted(str(path) for path in folder.rglob("*") if path.is_file())


def test_temporary_files_are_no_objects(file_io: LakehouseFileIO, tmp_path: Path) -> None:
    """What a killed writer leaves is not listed, while names that only look like it are."""
    (tmp_path / f".x.{'0123456789abcdef' * 2}.tmp").touch()
    (tmp_path / ".x.tmp").touch()
    assert [info.url for info in file_io.list_objects(f"{tmp_path}/")] == [f"{tmp_path}/.x.tmp"]


def test_a_put_leaves_only_the_object(file_io: LakehouseFileIO, tmp_path: Path) -> None:
    """No temporary and no lock file stays behind, of puts that land and of those that are refused."""
    etag = file_io.put(f"{tmp_path}/x", b"1", if_absent=True).etag
    for condition in ({"if_absent": True}, {"if_match": "other"}):
        with pytest.raises(Exception, match="x"):
            file_io.put(f"{tmp_path}/x", b"2", **condition)
    file_io.put(f"{tmp_path}/x", b"3", if_match=etag)
    file_io.put(f"{tmp_path}/x", b"4")
    assert os.listdir(tmp_path) == ["x"]  # noqa: PTH208  # names, hidden ones too


def test_no_etag_comes_back(file_io: LakehouseFileIO, tmp_path: Path) -> None:
    """The same bytes put, replaced and put anew as fast as can be never have an ETag twice, inodes or not."""
    url, etags = f"{tmp_path}/x", []
    for number in range(300):
        etags.append(file_io.put(url, b"same").etag)
        if number % 3 == 0:
            file_io.delete(url)
    assert len(set(etags)) == len(etags)


def test_a_clock_that_went_back_still_changes_the_etag(file_io: LakehouseFileIO, tmp_path: Path) -> None:
    """An object from the future is replaced by a later one."""
    url, future = f"{tmp_path}/x", time.time_ns() + 3600 * 10**9
    file_io.put(url, b"1")
    os.utime(url, ns=(future, future))
    before = file_io.get(url).info
    after = file_io.put(url, b"2", if_match=before.etag)
    assert after.modified >= before.modified
    assert Path(url).stat().st_mtime_ns == future + 1


def test_replacing_holds_between_processes(file_io: LakehouseFileIO, tmp_path: Path) -> None:
    """Four processes that count up through `if_match` lose no step."""
    url = f"{tmp_path}/count"
    file_io.put(url, b"0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT_UP, url]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert file_io.get(url).body == b"200"


def test_a_replacer_waits_for_the_one_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gets in between the look at what is there and the move into its place."""
    files, url = LakehouseFileIO(), f"file://{tmp_path}/x"
    etag, stamped, begun = files.put(url, b"0").etag, local._stamped, list[bool]()
    with ThreadPoolExecutor(1) as pool:

        def while_a_rival_tries(temporary: Path, url: str, modified_ns: int) -> ObjectInfo:
            if not begun:
                begun.append(True)
                rivals.append(pool.submit(files.put, url, b"rival", if_match=etag))
                wait(rivals, timeout=0.5)  # it has to wait; were nothing in its way, it would be done by then
            return stamped(temporary, url, modified_ns)

        rivals = list[Future[ObjectInfo]]()
        monkeypatch.setattr(local, "_stamped", while_a_rival_tries)
        files.put(url, b"1", if_match=etag)
        with pytest.raises(PreconditionFailedError):
            rivals[0].result()
    assert files.get(url).body == b"1"


@pytest.mark.parametrize("size", [-1, 500_000], ids=["rest", "some"])
def test_a_file_that_is_written_to_while_it_is_read_is_noticed(
    file_io: LakehouseFileIO, tmp_path: Path, size: int
) -> None:
    """Appending to a file that is open here ends its reading with a transient error."""
    path = tmp_path / "x"
    path.write_bytes(b"a" * 1_000_000)
    with file_io.open_read(str(path)) as stream:
        stream.read(10)
        with path.open("ab") as other:
            other.write(b"b")
        with pytest.raises(TransientError, match=str(path)):
            stream.read(size)


@pytest.mark.parametrize("name", ["file/below", "folder"])
def test_what_a_disk_cannot_hold_is_refused(file_io: LakehouseFileIO, tmp_path: Path, name: str) -> None:
    """A file below a file, or in the place of a folder, is a configuration error: S3 would take both."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match=name):
        file_io.put(f"{tmp_path}/{name}", b"1")


def test_a_full_disk_ended_the_whole_run(file_io: LakehouseFileIO, tmp_path: Path) -> None:
    """A put that does not fit is one of our errors, which fails its hour and no other; nothing of it stays."""
    with full_disk(100_000), pytest.raises(TransientError, match=f"{tmp_path}/x cannot be written: .*more room"):
        file_io.put(f"{tmp_path}/x", b"a" * 200_000)
    assert list(tmp_path.iterdir()) == []
    assert file_io.put(f"{tmp_path}/x", b"a" * 200_000).size == 200_000


def test_links_are_followed(file_io: LakehouseFileIO, tmp_path: Path) -> None:
    """A linked folder of sources is listed through its link; a broken link is no object."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").touch()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "in" / "broken").symlink_to(tmp_path / "nothing")
    assert [info.url for info in file_io.list_objects(f"{tmp_path}/in/")] == [f"{tmp_path}/in/link/x"]


def test_a_listing_goes_folder_by_folder(tmp_path: Path) -> None:
    """The first object is there before the second folder is read: a listing never holds the tree."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").touch()
    walk = _walk(f"{tmp_path}/", "")
    assert next(walk) == f"{tmp_path}/a/x"
    (tmp_path / "b" / "late").touch()
    assert list(itertools.islice(walk, 2)) == [f"{tmp_path}/b/late", f"{tmp_path}/b/x"]
    assert _names(f"{tmp_path}/", "") == ["a/", "b/"]

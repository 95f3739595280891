"""An hour's objects are found by pattern, and a fingerprint tells them apart from their successors."""

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.errors import ConfigurationError, DataError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources.listing import FolderSourceError, SourceObject, fingerprint, list_objects_of

NAMES = [
    "2013/01/11/14.jsonl",
    "2013/01/11/14-a.jsonl",
    "2013/01/11/14-b.jsonl",
    "2013/01/11/14-b.jsonl.gz",
    "2013/01/11/15.jsonl",
    "2013/01/11/_SUCCESS",
    "2013/01/11/.14.jsonl.crc",
    "2013/01/11/_temporary/14.jsonl",
    "2013/01/11/part[1].jsonl",
    "2013/01/12/14.jsonl",
    "2013/01/12/14.jsonl/odd",
]
OBJECTS = st.builds(SourceObject, st.text(), st.integers(0), st.text())


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        pytest.param("2013/01/11/14.jsonl", ["2013/01/11/14.jsonl"], id="no glob"),
        pytest.param("2013/01/11/16.jsonl", [], id="no glob, no object"),
        pytest.param("2013/01/13/*", [], id="no folder"),
        pytest.param("2013/01/11/14*.jsonl", [NAMES[1], NAMES[2], NAMES[0]], id="star, sorted"),
        pytest.param("2013/01/11/14-?.jsonl*", [NAMES[1], NAMES[2], NAMES[3]], id="question mark"),
        pytest.param("2013/01/11/1[4-5].jsonl", [NAMES[0], NAMES[4]], id="range"),
        pytest.param("2013/01/11/1[!4].jsonl", [NAMES[4]], id="negated"),
        pytest.param("2013/01/11/*.jsonl", [NAMES[1], NAMES[2], NAMES[0], NAMES[4], NAMES[8]], id="hidden are skipped"),
        pytest.param("2013/01/11/_*", ["2013/01/11/_SUCCESS"], id="hidden when asked for"),
        pytest.param("2013/01/*/14.jsonl", [NAMES[0], NAMES[9]], id="folder"),
        pytest.param("2013/01/1*4.jsonl", [], id="a glob stays within its segment"),
        pytest.param("2013/01/11/part[[]1].jsonl", [NAMES[8]], id="bracket as itself"),
        pytest.param("2013/01/11/[^a]4.jsonl", [], id="caret is a character"),
        pytest.param("2013.01.11.14*", [], id="dots are dots"),
    ],
)
def test_patterns_find_objects(io: LakehouseFileIO, tmp_path: Path, pattern: str, expected: list[str]) -> None:
    """A pattern finds the objects of its form, sorted by URL, and nothing in a folder that is not there."""
    for name in NAMES:
        if not name.endswith("/odd"):
            io.put(f"file://{tmp_path}/{name}", b"x")
    found = list_objects_of(io, f"file://{tmp_path}/{pattern}")
    assert [source.url.removeprefix(f"file://{tmp_path}/") for source in found] == expected


def test_absolute_paths_are_patterns_too(io: LakehouseFileIO, tmp_path: Path) -> None:
    """A pattern without a scheme lists as the store does."""
    io.put(f"{tmp_path}/a.csv", b"x")
    assert [source.url for source in list_objects_of(io, f"{tmp_path}/*.csv")] == [f"{tmp_path}/a.csv"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        pytest.param("s3://raw/**/14.csv", r"`\*\*` is not supported", id="two stars"),
        pytest.param("s3://ra*/14.csv", "not to the bucket", id="glob in the bucket"),
        pytest.param("s3://raw/2013/", r"write s3://raw/2013/\*", id="folder"),
    ],
)
def test_patterns_of_other_kinds_are_refused(io: LakehouseFileIO, pattern: str, message: str) -> None:
    """What cannot be matched is a mistake in the spec, said before anything is asked of the store."""
    with pytest.raises(ConfigurationError, match=message):
        list_objects_of(io, pattern)


class FlatStore:
    """A store of keys, as S3 is one: markers of folders are objects."""

    def __init__(self, urls: list[str]) -> None:
        """Hold empty objects."""
        self.urls = urls
        self.prefixes: list[str] = []

    def list_objects(self, prefix: str) -> Iterator[SourceObject]:
        """Give them, and remember what was asked for."""
        self.prefixes.append(prefix)
        return (SourceObject(url, 0, "e") for url in self.urls if url.startswith(prefix))

    def head(self, url: str) -> SourceObject | None:
        """Give one."""
        return SourceObject(url, 0, "e") if url in self.urls else None


def test_folder_markers_are_no_sources() -> None:
    """The empty object that consoles put in the place of a folder is not a file of the hour."""
    store = FlatStore(["s3://raw/h/", "s3://raw/h/14.csv"])
    assert [source.url for source in list_objects_of(store, "s3://raw/h/*")] == ["s3://raw/h/14.csv"]


def test_listing_asks_for_the_longest_literal_prefix() -> None:
    """The store is asked for no more than what comes before the first glob."""
    store = FlatStore([])
    list_objects_of(store, "s3://raw/2013/01/11/14-?/*.csv")
    assert store.prefixes == ["s3://raw/2013/01/11/14-"]


@pytest.mark.parametrize("pattern", ["14.jsonl", "*.jsonl", "1[4]*.jsonl"])
def test_a_folder_named_like_a_file_is_told(io: LakehouseFileIO, tmp_path: Path, pattern: str) -> None:
    """Where nothing but a folder has the name, as Spark writes one, the way out is said; it is no empty hour."""
    io.put(f"file://{tmp_path}/14.jsonl/part-00000", b"x")
    with pytest.raises(FolderSourceError, match=r"/14\.jsonl is a folder, no object; write .*jsonl/\* for the objects"):
        list_objects_of(io, f"file://{tmp_path}/{pattern}")


@pytest.mark.parametrize(("pattern", "expected"), [("*.jsonl", ["15.jsonl"]), ("14*", []), ("14.json", [])])
def test_folders_beside_files_are_passed_over(
    io: LakehouseFileIO, tmp_path: Path, pattern: str, expected: list[str]
) -> None:
    """A folder is told only where a file is named and there is none."""
    io.put(f"file://{tmp_path}/14.jsonl/part-00000", b"x")
    io.put(f"file://{tmp_path}/15.jsonl", b"x")
    found = list_objects_of(io, f"file://{tmp_path}/{pattern}")
    assert [source.url.removeprefix(f"file://{tmp_path}/") for source in found] == expected


def test_markers_of_folders_are_no_folder_in_the_way() -> None:
    """An empty object whose key ends in a slash holds no rows that could be missed."""
    assert list_objects_of(FlatStore(["s3://raw/14.csv/"]), "s3://raw/*.csv") == ()


def test_a_name_that_is_no_text_is_told(io: LakehouseFileIO, tmp_path: Path) -> None:
    """A file's name in another encoding, which no fingerprint and no manifest takes, is one error."""
    Path(os.fsdecode(bytes(tmp_path) + b"/14-\xff.jsonl")).write_bytes(b"x")
    with pytest.raises(DataError, match=r"14-.udcff\.jsonl': the name of this file is no UTF-8; rename it"):
        list_objects_of(io, f"file://{tmp_path}/14*.jsonl")


@given(st.lists(OBJECTS, unique=True), st.randoms())
def test_the_fingerprint_knows_no_order(objects: list[SourceObject], random: Random) -> None:
    """However the store lists the objects, they are the same hour."""
    shuffled = list(objects)
    random.shuffle(shuffled)
    assert fingerprint(shuffled) == fingerprint(objects)


@given(st.sets(OBJECTS), st.sets(OBJECTS))
def test_the_fingerprint_tells_hours_apart(one: set[SourceObject], other: set[SourceObject]) -> None:
    """Another URL, size or ETag, or one object more, is another hour."""
    assert (fingerprint(one) == fingerprint(other)) == (one == other)

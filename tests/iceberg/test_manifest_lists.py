"""Manifest lists: whoever wrote one, a commit's own has its lines as they were, and new ones."""

from collections.abc import Iterable
from typing import Any

import pytest
from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestContent, ManifestFile, PartitionFieldSummary, read_manifest_list
from pyiceberg.manifest import write_manifest_list as write_with_pyiceberg

from lakehouse_pipeline.iceberg import manifest_lists
from lakehouse_pipeline.iceberg.manifest_lists import ListedManifest, body_of, read_list, write_list
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from tests.iceberg.conftest import catalog, lake
from tests.iceberg.lake import ELEVEN, TEN, TWELVE, Lake

__all__ = ["catalog", "lake"]

COMMIT, UNASSIGNED = 7, -1
SYNC, SHORT = 16, 100  # bytes: a marker that is random, and what is before the last one


@pytest.fixture
def files() -> FileIO:
    """Give a store."""
    return LakehouseFileIO()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give a folder, whose lists nobody has read yet."""
    return f"file://{tmp_path_factory.mktemp('lists')}"


def listed(name: str, content: ManifestContent = ManifestContent.DATA, sequence_number: int = 3) -> ManifestFile:
    """Make a list's line; with its commit's number if it is of `COMMIT`."""
    return ManifestFile.from_args(
        manifest_path=name,
        manifest_length=1000,
        partition_spec_id=1,
        content=content,
        sequence_number=sequence_number,
        min_sequence_number=sequence_number,
        added_snapshot_id=COMMIT,
        added_files_count=1,
        existing_files_count=0,
        deleted_files_count=2,
        added_rows_count=10,
        existing_rows_count=0,
        deleted_rows_count=20,
        partitions=[
            PartitionFieldSummary(False, None, b"\x01\x00\x00\x00", b"\x02\x00\x00\x00"),
            PartitionFieldSummary(True, True, None, None),
        ],
        key_metadata=None,
    )


def write(files: FileIO, url: str, manifests: list[ManifestFile], sequence_number: int = 5) -> None:
    """Write a list."""
    write_list(
        files.new_output(url), manifests, snapshot_id=COMMIT, parent=None, sequence_number=sequence_number, codec="null"
    )


def told(files: FileIO, url: str) -> list[ManifestFile]:
    """Read a list with PyIceberg's own reader."""
    return list(read_manifest_list(files.new_input(url)))


def values(manifests: Iterable[ManifestFile]) -> list[list[Any]]:
    """Give all that lines say: PyIceberg's manifests are equal if their paths are."""
    return [[repr(value) if isinstance(value, list) else value for value in each._data] for each in manifests]


LINES = [listed("a"), listed("b", ManifestContent.DELETES), listed("c", sequence_number=4)]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("codec", ["gzip", "zstd", "null"])
def test_lists_are_read_as_pyiceberg_reads_them(files: FileIO, folder: str, version: int, codec: str) -> None:
    """Of either version and of any codec."""
    url = f"{folder}/list.avro"
    lines = [line for line in LINES if version > 1 or line.content == ManifestContent.DATA]
    with write_with_pyiceberg(version, files.new_output(url), COMMIT, None, 5, codec) as writer:  # type: ignore[arg-type]
        writer.add_manifests(lines)
    assert values(read_list(files, url)) == values(told(files, url))
    assert len(read_list(files, url)) == len(lines)


@pytest.mark.parametrize("version", [1, 2])
def test_lines_that_stay_are_as_they_were(files: FileIO, folder: str, version: int) -> None:
    """Beside new ones, which get the commit's number; those of another schema are encoded anew."""
    earlier, url = f"{folder}/earlier.avro", f"{folder}/list.avro"
    with write_with_pyiceberg(version, files.new_output(earlier), COMMIT, None, 5, "gzip") as writer:  # type: ignore[arg-type]
        writer.add_manifests([LINES[0], LINES[2]])
    kept = read_list(files, earlier)
    assert [bool(each.line) for each in kept if isinstance(each, ListedManifest)] == [version == 2] * 2
    write(files, url, [listed("new", sequence_number=UNASSIGNED), kept[1]], 8)
    new, stays = told(files, url)
    assert (new.manifest_path, new.sequence_number, new.min_sequence_number) == ("new", 8, 8)
    assert values([stays]) == values(told(files, earlier)[1:])


def test_a_list_of_a_chain_is_what_pyiceberg_writes(files: FileIO, folder: str) -> None:
    """Byte by byte but for what is random: lines do not change as they go from list to list."""
    chain: list[ManifestFile] = []
    for place, line in enumerate(LINES):
        url = f"{folder}/{place}.avro"
        write(files, url, [line, *chain])
        chain = list(read_list(files, url))
    assert values(chain) == values(LINES[::-1])
    write(files, f"{folder}/ours.avro", chain)
    write(files, f"{folder}/theirs.avro", LINES[::-1])
    ours, theirs = (body_of(files, f"{folder}/{name}.avro")[:-SYNC] for name in ("ours", "theirs"))
    assert ours[-SHORT:] == theirs[-SHORT:]
    assert len(ours) == len(theirs)


def test_a_number_without_a_commit_is_refused(files: FileIO, folder: str) -> None:
    """As by PyIceberg: what another commit has added has a number."""
    with pytest.raises(ValueError, match="unassigned sequence number"):
        write_list(
            files.new_output(f"{folder}/list.avro"),
            [listed("new", sequence_number=UNASSIGNED)],
            snapshot_id=COMMIT + 1,
            parent=None,
            sequence_number=9,
            codec="deflate",
        )


def test_only_the_newest_lists_are_remembered(files: FileIO, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as they have not too many lines together; the others are read again."""
    monkeypatch.setattr(manifest_lists, "LINES_KEPT", 2 * len(LINES))
    urls = [f"{folder}/{place}.avro" for place in range(3)]
    for url in urls:
        write(files, url, LINES)
    first, *newer = (read_list(files, url) for url in urls)
    assert [read_list(files, url) is each for url, each in zip(urls[1:], newer, strict=True)] == [True, True]
    again = read_list(files, urls[0])
    assert again is not first
    assert again == first


def test_a_line_that_is_known_is_not_decoded_again(files: FileIO, folder: str) -> None:
    """A list that has it as an earlier one had it gives the same; one that has another of the path does not."""
    urls = [f"{folder}/{place}.avro" for place in range(3)]
    write(files, urls[0], LINES)
    first = read_list(files, urls[0])
    write(files, urls[1], [listed("n" * 200, sequence_number=UNASSIGNED), *first[1:]], 8)
    assert [new is old for new, old in zip(read_list(files, urls[1])[1:], first[1:], strict=True)] == [True, True]
    write(files, urls[2], [listed("b", sequence_number=UNASSIGNED), first[0], LINES[2]], 9)
    for url in urls:
        assert values(read_list(files, url)) == values(told(files, url))
    assert [each.sequence_number for each in read_list(files, urls[2])] == [9, 3, 4]


def test_commits_to_many_hours_keep_every_line(lake: Lake) -> None:
    """Hours that are put, replaced and emptied leave the lists that PyIceberg reads the same rows from."""
    for place, hour in enumerate((TEN, ELEVEN, TWELVE, TEN)):
        lake.put(hour, [place])
    lake.put(ELEVEN, [])
    assert lake.rows() == {TEN.key: [3], TWELVE.key: [2]}
    assert lake.missing() == set()

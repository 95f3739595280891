"""Paths that a table reaches, on disk, at several moments."""

from pathlib import Path

from lakehouse_pipeline.iceberg.reachability import ReachedFiles, reached
from tests.iceberg.lake import ELEVEN, TEN, Lake


def paths_of(found: ReachedFiles, place: int) -> list[str]:
    """Give the paths of a round, each once."""
    rows = found.database.execute("SELECT DISTINCT path FROM reached WHERE round = ? ORDER BY path", (place,))
    return [path for (path,) in rows]


def test_all_that_snapshots_reach_and_the_log_is_there(any_lake: Lake, tmp_path: Path) -> None:
    """The same as in memory, and the metadata files beside it, on every catalog."""
    any_lake.put(TEN, [1, 2])
    any_lake.put(ELEVEN, [3])
    any_lake.put(TEN, [4])
    table = any_lake.now.table
    with ReachedFiles(tmp_path) as found:
        first = found.collect(table)
        again = found.collect(table)
        paths = paths_of(found, first)
        assert paths_of(found, again) == paths
        assert list(found.gone(first, again)) == []
    logged = {entry.metadata_file for entry in table.metadata.metadata_log}
    assert sorted(paths) == sorted(reached(table) | logged | {table.metadata_location})


def test_two_moments_are_told_apart(lake: Lake, tmp_path: Path) -> None:
    """What only the later one reaches is none of the earlier one's, and the other way round."""
    lake.put(TEN, [1])
    earlier = lake.now.table
    lake.put(TEN, [2])
    later = lake.now.table
    with ReachedFiles(tmp_path) as found:
        before = found.collect(earlier)
        assert set(found.added()) == set(paths_of(found, before))
        after = found.collect(later)
        new = {file.path for file in found.gone(after, before)}
        assert set(found.added()) >= new
        assert set(found.added()) == set()
        assert list(found.gone(before, after)) == []
        assert new == (reached(later) - reached(earlier)) | {later.metadata_location}

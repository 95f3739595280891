"""What lies in a table's folders and no snapshot reaches."""

from tests.iceberg.lake import ELEVEN, TEN, Lake


def test_what_some_snapshot_reaches_is_no_stray(any_lake: Lake) -> None:
    """Files that were replaced belong to the snapshots of before, on every catalog."""
    any_lake.put(TEN, [1, 2])
    any_lake.put(ELEVEN, [3])
    any_lake.put(TEN, [4])
    assert any_lake.now.strays() == []


def test_what_no_snapshot_reaches_is_a_stray(lake: Lake) -> None:
    """What was written for an hour and not committed is listed with its size, data file and manifest both."""
    lake.put(TEN, [1])
    lake.seal(ELEVEN, [2, 3])
    found = lake.now.strays()
    assert {item.url for item in found} == lake.unreached()
    assert sorted(item.url.rpartition(".")[2] for item in found) == ["avro", "parquet"]
    assert all(item.size > 0 for item in found)


def test_folders_of_a_table_without_a_snapshot_hold_strays_only(lake: Lake) -> None:
    """A first hour that never came to its commit."""
    lake.seal(TEN, [1])
    assert {item.url for item in lake.now.strays()} == lake.unreached()
    assert len(lake.unreached()) == 2

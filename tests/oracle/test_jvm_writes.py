"""Apache Iceberg's JVM implementation writes, deletes and maintains beside us, and neither loses the other's rows."""

import re

import mmh3
import pytest
from pyiceberg.catalog import Catalog

from lakehouse_pipeline.errors import CommitConflictError
from lakehouse_pipeline.hours import HourWindow
from tests.iceberg.lake import ELEVEN, TEN, TWELVE, Lake
from tests.oracle.jvm import Jvm

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(1200)]  # the first test may have to install Spark


def name_of(lake: Lake) -> str:
    """Give the table's name in Spark."""
    return f"{Jvm.catalog}.{lake.identifier}"


def value(hour: HourWindow, number: int) -> str:
    """Write one event as a row of SQL."""
    return f"(TIMESTAMP '{hour.start:%Y-%m-%d %H}:00:{number:02d}', {number}, 'jvm {number}')"


def jvms_rows(jvm: Jvm, lake: Lake) -> dict[str, list[int]]:
    """Read the ids by hour, with the JVM's reader."""
    found: dict[str, list[int]] = {}
    query = f"SELECT date_format(at, 'yyyy-MM-dd-HH:00') AS hour, id FROM {name_of(lake)} ORDER BY id"
    for row in jvm.sql(query):
        found.setdefault(row["hour"], []).append(row["id"])
    return found


def assert_both_read(jvm: Jvm, lake: Lake, rows: dict[HourWindow, list[int]]) -> None:
    """The JVM's reader and PyIceberg's see the same rows."""
    expected = {hour.key: sorted(ids) for hour, ids in rows.items()}
    assert (jvms_rows(jvm, lake), lake.rows()) == (expected, expected)


@pytest.fixture
def begun(lake: Lake) -> Lake:
    """Give a table with two hours of ours."""
    lake.put(TEN, [1, 2])
    lake.put(ELEVEN, [3, 4])
    return lake


def test_an_hour_that_the_jvm_added_to_is_replaced(jvm: Jvm, begun: Lake) -> None:
    """Rows that Spark inserted into an hour are the hour's: an attempt opened afterwards replaces them too."""
    jvm.sql(f"INSERT INTO {name_of(begun)} VALUES {value(TEN, 5)}, {value(TWELVE, 6)}")
    assert len(begun.files(TEN)) == 2
    begun.put(TEN, [7])
    assert_both_read(jvm, begun, {TEN: [7], ELEVEN: [3, 4], TWELVE: [6]})


def test_an_hour_that_the_jvm_overwrote_is_replaced(jvm: Jvm, begun: Lake) -> None:
    """The same of an hour that Spark replaced."""
    jvm.sql("SET spark.sql.sources.partitionOverwriteMode = dynamic")
    jvm.sql(f"INSERT OVERWRITE {name_of(begun)} VALUES {value(TEN, 5)}")
    jvm.sql("RESET spark.sql.sources.partitionOverwriteMode")
    assert_both_read(jvm, begun, {TEN: [5], ELEVEN: [3, 4]})
    begun.put(TEN, [6])
    begun.put(ELEVEN, [])
    assert_both_read(jvm, begun, {TEN: [6]})


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("INSERT INTO {table} VALUES {row}", id="insert"),
        pytest.param("DELETE FROM {table} WHERE id = 1", id="delete"),
        pytest.param("UPDATE {table} SET name = 'new' WHERE id = 1", id="update"),
    ],
)
@pytest.mark.parametrize("mode", ["copy-on-write", "merge-on-read"])
def test_what_the_jvm_did_meanwhile_is_not_lost(jvm: Jvm, begun: Lake, mode: str, statement: str) -> None:
    """A change of the hour after the attempt was opened supersedes the attempt, be it by new files or by deletes."""
    modes = ", ".join(f"'write.{verb}.mode'='{mode}'" for verb in ("delete", "update", "merge"))
    jvm.sql(f"ALTER TABLE {name_of(begun)} SET TBLPROPERTIES ({modes})")
    sealed = begun.seal(TEN, [9])
    jvm.sql(statement.format(table=name_of(begun), row=value(TEN, 5)))
    before = jvms_rows(jvm, begun)
    with pytest.raises(CommitConflictError):
        begun.replace(sealed)
    assert jvms_rows(jvm, begun) == before


def test_the_jvm_gets_in_between(jvm: Jvm, begun: Lake) -> None:
    """A commit of Spark's to another hour, between building ours and sending it, costs a try; both land."""
    tries: list[int] = []

    def let_the_jvm_in(_base: int | None, snapshot_id: int) -> None:
        if not tries:
            jvm.sql(f"INSERT INTO {name_of(begun)} VALUES {value(TWELVE, 5)}")
        tries.append(snapshot_id)

    begun.replace(begun.seal(TEN, [6]), before_send=let_the_jvm_in)
    assert len(tries) == 2
    assert_both_read(jvm, begun, {TEN: [6], ELEVEN: [3, 4], TWELVE: [5]})


@pytest.mark.parametrize("granularity", ["file", "partition"])
def test_position_deletes_of_the_hour_go_and_others_stay(jvm: Jvm, begun: Lake, granularity: str) -> None:
    """Replacing an hour removes its delete files with its data files; the neighbour's deletes still apply."""
    jvm.sql(
        f"ALTER TABLE {name_of(begun)} SET TBLPROPERTIES "
        f"('write.delete.mode'='merge-on-read', 'write.delete.granularity'='{granularity}')"
    )
    jvm.sql(f"DELETE FROM {name_of(begun)} WHERE id IN (1, 3)")
    assert_both_read(jvm, begun, {TEN: [2], ELEVEN: [4]})
    assert [file.content for hour in (TEN, ELEVEN) for file in begun.now.live(hour)] == [0, 1, 0, 1]
    begun.put(TEN, [1, 8])
    assert_both_read(jvm, begun, {TEN: [1, 8], ELEVEN: [4]})
    deletes = jvm.sql(f"SELECT partition, record_count FROM {name_of(begun)}.delete_files")
    assert deletes == [{"partition": {"at_hour": ELEVEN.ordinal}, "record_count": 1}]
    (summary,) = jvm.sql(f"SELECT summary FROM {name_of(begun)}.snapshots WHERE snapshot_id = {begun.now.head}")
    figures = {name: summary["summary"].get(name) for name in SUMMARY}
    assert figures == SUMMARY
    begun.put(ELEVEN, [])
    assert_both_read(jvm, begun, {TEN: [1, 8]})
    assert jvm.sql(f"SELECT count(*) AS n FROM {name_of(begun)}.delete_files") == [{"n": 0}]


SUMMARY = {
    "operation": None,  # it stands beside the summary
    "added-records": "2",
    "deleted-data-files": "1",
    "deleted-records": "2",
    "removed-delete-files": "1",
    "removed-position-deletes": "1",
    "total-data-files": "2",
    "total-delete-files": "1",
    "total-position-deletes": "1",
    "total-records": "4",
}

MAINTENANCE = {
    "compaction": "rewrite_data_files(table => '{table}', options => map('rewrite-all', 'true'))",
    "compaction of deletes": "rewrite_position_delete_files(table => '{table}', options => map('rewrite-all', 'true'))",
    "manifests": "rewrite_manifests(table => '{table}', use_caching => false)",
    "expiry": "expire_snapshots(table => '{table}', older_than => TIMESTAMP '2999-01-01', retain_last => 1)",
}


@pytest.mark.parametrize("call", MAINTENANCE.values(), ids=MAINTENANCE)
def test_hours_are_replaced_after_the_jvms_maintenance(jvm: Jvm, begun: Lake, call: str) -> None:
    """Maintenance changes no row, and attempts opened afterwards replace hours as before."""
    jvm.sql(f"ALTER TABLE {name_of(begun)} SET TBLPROPERTIES ('write.delete.mode'='merge-on-read')")
    jvm.sql(f"DELETE FROM {name_of(begun)} WHERE id = 4")
    begun.put(TEN, [1, 2, 5])
    jvm.sql(f"CALL {Jvm.catalog}.system.{call.format(table=begun.identifier)}")
    assert_both_read(jvm, begun, {TEN: [1, 2, 5], ELEVEN: [3]})
    begun.put(TEN, [6])
    begun.put(TWELVE, [7])
    assert_both_read(jvm, begun, {TEN: [6], ELEVEN: [3], TWELVE: [7]})
    begun.put(ELEVEN, [8])
    assert_both_read(jvm, begun, {TEN: [6], ELEVEN: [8], TWELVE: [7]})


def test_an_attempt_opened_before_the_jvms_compaction_is_superseded(jvm: Jvm, begun: Lake) -> None:
    """Files that are not those it was opened on are not replaced, even where they hold the same rows."""
    sealed = begun.seal(TEN, [9])
    jvm.sql(f"CALL {Jvm.catalog}.system.{MAINTENANCE['compaction'].format(table=begun.identifier)}")
    with pytest.raises(CommitConflictError):
        begun.replace(sealed)
    assert_both_read(jvm, begun, {TEN: [1, 2], ELEVEN: [3, 4]})


def test_hours_in_the_jvms_shared_manifests_are_replaced(jvm: Jvm, lake: Lake) -> None:
    """Of a manifest that Spark wrote for three hours, ours become DELETED and the JVM's entries stay what they were."""
    hours = (TEN, ELEVEN, TWELVE)
    jvm.sql(f"INSERT INTO {name_of(lake)} VALUES " + ", ".join(value(hour, place) for place, hour in enumerate(hours)))
    asked = f"SELECT * FROM {name_of(lake)}.entries WHERE data_file.partition.at_hour = {TWELVE.ordinal}"
    (before,) = jvm.sql(asked)
    lake.put(ELEVEN, [5])
    lake.put(TEN, [6])
    (after,) = jvm.sql(asked)
    assert after == {**before, "status": 0}
    assert_both_read(jvm, lake, {TEN: [6], ELEVEN: [5], TWELVE: [2]})


def test_the_jvms_keys_are_hashed_like_ours(jvm: Jvm, lake: Lake) -> None:
    """Both writers spread the same table's files by the same hash of the whole relative name."""
    jvm.sql(f"INSERT INTO {name_of(lake)} VALUES {value(TEN, 1)}, {value(ELEVEN, 2)}")
    lake.put(TWELVE, [3])
    for file in jvm.sql(f"SELECT file_path FROM {name_of(lake)}.files"):
        folders, name = re.fullmatch(r".*/data/([01]{4}/[01]{4}/[01]{4}/[01]{8})/(.*)", file["file_path"]).groups()  # type: ignore[union-attr]  # it matches
        bits = f"{mmh3.hash(name, signed=False) | 0x80000000:032b}"[-20:]
        assert folders == f"{bits[:4]}/{bits[4:8]}/{bits[8:12]}/{bits[12:]}"


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_manifests_of_the_jvms_codec_are_read(jvm: Jvm, rest_catalog: Catalog, codec: str) -> None:
    """Manifests that Spark compressed as the table says are read and replaced."""
    lake = Lake.create(rest_catalog, properties={"write.avro.compression-codec": codec})
    jvm.sql(f"INSERT INTO {name_of(lake)} VALUES {value(TEN, 1)}, {value(ELEVEN, 2)}")
    lake.put(TEN, [3])
    assert_both_read(jvm, lake, {TEN: [3], ELEVEN: [2]})

"""The JVM's Iceberg reads manifests that were written anew, of tables that it made, too, and goes on with them."""

import pytest
from pyiceberg.catalog import Catalog

from tests.iceberg.lake import ELEVEN, TEN, Lake, events
from tests.maintenance.lone_manifests import live_entries, rewritten
from tests.oracle.foreign import SHAPES, rows_of, sql_name
from tests.oracle.jvm import Jvm, Row

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(1200)]  # the first test may have to install Spark


def files_of(jvm: Jvm, lake: Lake) -> list[Row]:
    """Give all that the JVM's metadata tables say of live entries, but their status."""
    return jvm.sql(
        f"SELECT snapshot_id, sequence_number, file_sequence_number, to_json(data_file) AS file "
        f"FROM {sql_name(lake)}.entries WHERE status < 2 ORDER BY data_file.file_path"
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_others(jvm: Jvm, rest_catalog: Catalog, shape: str) -> None:
    """Rows, and what each entry says, are the same before and after, deletes of every kind included; so is the past."""
    made = SHAPES[shape](jvm, rest_catalog)
    lake, name = made.lake, sql_name(made.lake)
    entries, before, head = live_entries(lake), files_of(jvm, lake), lake.now.head
    done = rewritten(lake)
    assert done.commit is not None
    assert rows_of(jvm, lake) == made.rows
    assert files_of(jvm, lake) == before
    assert live_entries(lake) == entries
    assert jvm.sql(f"SELECT count(*) AS n FROM {name} VERSION AS OF {head}")[0]["n"] == len(made.rows)
    (last,) = jvm.sql(f"SELECT operation, summary FROM {name}.snapshots ORDER BY committed_at DESC LIMIT 1")
    assert last["operation"] == "replace"
    assert rewritten(lake).commit is None


def test_the_jvm_goes_on(jvm: Jvm, rest_catalog: Catalog) -> None:
    """It deletes from, adds to, rewrites the manifests of and expires a table whose manifests were written anew."""
    lake = Lake.create(rest_catalog, properties={"write.delete.mode": "merge-on-read"})
    name = sql_name(lake)
    for number, hour in enumerate((TEN, ELEVEN, TEN, ELEVEN)):
        lake.append(events(hour, [number, number + 10]))
    assert rewritten(lake).commit is not None
    jvm.sql(f"DELETE FROM {name} WHERE id = 10")
    jvm.sql(f"INSERT INTO {name} SELECT at, 20, name FROM {name} WHERE id = 1")
    rows = f"SELECT id FROM {name} ORDER BY id"
    expected = [{"id": number} for number in (0, 1, 2, 3, 11, 12, 13, 20)]
    assert jvm.sql(rows) == expected
    assert rewritten(lake).commit is not None
    assert jvm.sql(rows) == expected
    jvm.sql(f"CALL {jvm.catalog}.system.rewrite_manifests(table => '{lake.identifier}', use_caching => false)")
    assert jvm.sql(rows) == expected
    jvm.sql(
        f"CALL {jvm.catalog}.system.expire_snapshots(table => '{lake.identifier}', "
        "older_than => TIMESTAMP '2100-01-01 00:00:00', retain_last => 1)"
    )
    assert jvm.sql(rows) == expected
    assert lake.missing() == set()

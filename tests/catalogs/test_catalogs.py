"""Every catalog is created in, committed to and asked alike; the tests are one, the catalogs PyIceberg's."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pyiceberg.catalog import Catalog

from lakehouse_pipeline.errors import CommitConflictError, ConfigurationError, LakehouseError, TransientError
from lakehouse_pipeline.iceberg import tables
from lakehouse_pipeline.iceberg.hourly import store_of
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from tests.iceberg.lake import ELEVEN, TEN, TWELVE, Lake
from tests.postgres import PostgresServer

Opens = Callable[[], Catalog]


@pytest.fixture
def opens(properties: dict[str, str]) -> Iterator[Opens]:
    """Open the catalog as another process would, as often as a test asks."""
    opened: list[Catalog] = []

    def open_once_more() -> Catalog:
        opened.append(open_catalog(properties))
        return opened[-1]

    yield open_once_more
    for catalog in opened:
        catalog.close()


@pytest.fixture
def lake(opens: Opens) -> Lake:
    """Give an empty table of events."""
    return Lake.create(opens())


def test_a_table_is_found_by_others(opens: Opens, lake: Lake) -> None:
    """Who opens the catalog anew loads the same table, partitioned and laid out as it was created."""
    found = opens().load_table(lake.identifier)
    assert str(found.metadata.table_uuid) == lake.now.uuid
    assert [str(field.transform) for field in found.spec().fields] == ["hour"]
    assert found.properties["write.object-storage.enabled"] == "true"


def test_an_hour_is_replaced_alone(opens: Opens, lake: Lake) -> None:
    """Committed, replaced and emptied: the hour has its newest rows, its neighbour its own, nothing is left."""
    lake.put(TEN, [1, 2])
    lake.put(ELEVEN, [3])
    assert lake.rows() == {TEN.key: [1, 2], ELEVEN.key: [3]}
    lake.put(TEN, [4])
    assert Lake(opens(), lake.identifier).rows() == {TEN.key: [4], ELEVEN.key: [3]}
    lake.put(TEN, [])
    assert lake.rows() == {ELEVEN.key: [3]}
    assert [snapshot.summary.operation.value for snapshot in lake.now.table.snapshots() if snapshot.summary] == [
        "append",
        "append",
        "overwrite",
        "overwrite",
    ]
    assert lake.unreached() == set()


def test_two_hours_at_once_both_land(opens: Opens, lake: Lake) -> None:
    """Two committers on one base: the catalog refuses the second, who commits again, on top."""
    sealed = [lake.seal(TEN, [1]), lake.seal(ELEVEN, [2]), lake.seal(TWELVE, [3])]
    lakes = [Lake(opens(), lake.identifier) for _ in sealed]
    barrier = threading.Barrier(len(sealed))
    met = [False] * len(sealed)

    def commit(place: int) -> None:
        def meet(_base: int | None, _snapshot_id: int) -> None:
            if not met[place]:  # at the first try all stand on the same base
                met[place] = True
                barrier.wait()

        lakes[place].replace(sealed[place], before_send=meet)

    with ThreadPoolExecutor(len(sealed)) as pool:
        list(pool.map(commit, range(len(sealed))))
    assert lake.rows() == {TEN.key: [1], ELEVEN.key: [2], TWELVE.key: [3]}
    assert lake.unreached() == set()


def test_the_older_of_two_attempts_gives_way(opens: Opens, lake: Lake) -> None:
    """An hour that changed since an attempt was opened is not replaced by it."""
    older = lake.seal(TEN, [1])
    Lake(opens(), lake.identifier).put(TEN, [2])
    with pytest.raises(CommitConflictError):
        lake.replace(older)
    assert lake.rows() == {TEN.key: [2]}


def test_the_store_goes_with_the_catalog(properties: dict[str, str], lake: Lake) -> None:
    """The catalog's own properties reach the table's files, and no secret of the catalog's is among them."""
    lake.put(TEN, [1])
    warehouse = Warehouse.open(properties)
    found = list(warehouse.files.list_objects(f"{lake.now.location}/data/"))
    assert [item.url for item in found] == sorted(lake.files(TEN))
    assert {name for name in lake.now.files.properties if not name.startswith(("s3.", "client."))} == set()


@pytest.mark.parametrize("wrong", ["password", "port"])
def test_a_database_that_lets_nobody_in_is_said(postgres: PostgresServer, wrong: str) -> None:
    """Wrong password or no server: one of our errors, which names the address and not the password."""
    password, port = postgres.password, postgres.uri.rpartition(":")[2].partition("/")[0]
    uri = postgres.uri.replace(password, "wRoNg") if wrong == "password" else postgres.uri.replace(port, "1")
    with pytest.raises(LakehouseError, match=r"127\.0\.0\.1") as caught:
        open_catalog({"type": "sql", "uri": uri, "warehouse": "s3://plain/w"})
    assert isinstance(caught.value, TransientError | ConfigurationError)
    assert [secret for secret in (password, "wRoNg") if secret in str(caught.value)] == []


def test_hives_properties_pass_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hive's Thrift server is PyIceberg's to talk to: it gets every property as it was written, and our FileIO."""
    passed: dict[str, Any] = {}

    def load_catalog(name: str, **given: Any) -> None:
        passed.update(given, opened=name)

    monkeypatch.setattr(tables, "load_catalog", load_catalog)
    hive = {
        "type": "hive",
        "uri": "thrift://metastore:9083,thrift://metastore2:9083",
        "ugi": "lakehouse:users",
        "hive.hive2-compatible": "true",
        "hive.kerberos-authentication": "true",
        "s3.endpoint": "http://s3:9000",
    }
    open_catalog({"name": "prod", **hive})
    assert passed == {"opened": "prod", "py-io-impl": tables.FILE_IO, **hive}
    assert store_of(hive).properties == {"s3.endpoint": "http://s3:9000"}

"""The table behind a spec: made once, checked against its spec, and a catalog whose failures speak our language."""

import multiprocessing
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import ServiceUnavailableError
from pyiceberg.transforms import DayTransform

from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.demo.seaweed import SeaweedServer, free_ports
from lakehouse_pipeline.errors import ConfigurationError, TransientError
from lakehouse_pipeline.iceberg import tables
from lakehouse_pipeline.iceberg.schemas import arrow_schema_of, columns_of, types_of
from lakehouse_pipeline.iceberg.tables import ask, create_table, load_table, open_catalog
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.retry import RetryPolicy
from tests.iceberg.lake import EVENTS, columns, spec_of

SPEC = {"table": "lake.events", "sort": ["name", "id desc"]}


def made(catalog: Catalog, keys: Mapping[str, Any] = SPEC, types: Mapping[str, str] = EVENTS) -> TableSpec:
    """Create a spec's table and give the spec."""
    spec = spec_of(types, keys)
    create_table(catalog, spec, columns(types))
    return spec


def test_a_new_table_is_as_its_spec_says(catalog: Catalog) -> None:
    """Format 2, partitioned by the hour, sorted, with entropy in its keys, and the spec's properties above ours."""
    made(catalog, {**SPEC, "properties": {"write.parquet.compression-codec": "snappy", "owner": "x"}})
    table = catalog.load_table("lake.events")
    assert table.metadata.format_version == 2
    assert [(str(field.transform), field.name) for field in table.spec().fields] == [("hour", "at_hour")]
    assert [(field.source_id, field.direction.name, field.null_order.name) for field in table.sort_order().fields] == [
        (3, "ASC", "NULLS_FIRST"),
        (2, "DESC", "NULLS_LAST"),
    ]
    wanted = {"write.object-storage.enabled": "true", "write.parquet.compression-codec": "snappy", "owner": "x"}
    assert wanted.items() <= table.properties.items()
    assert columns_of(table.schema()) == columns(EVENTS)


def test_a_table_that_is_not_there_is_none(catalog: Catalog) -> None:
    """The first hour creates it; until then there is none."""
    assert load_table(catalog, spec_of(EVENTS, SPEC)) is None


def test_of_racing_creators_one_creates(catalog: Catalog) -> None:
    """All who create the same table, in a namespace that is not there yet either, get the same table."""
    spec = spec_of(EVENTS, {})
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda _: create_table(catalog, spec, columns(EVENTS)), range(4)))
    assert len({table.metadata.table_uuid for table in tables}) == 1


@pytest.mark.parametrize(
    ("types", "said"),
    [
        pytest.param({**EVENTS, "new": "int"}, "column new is not in the table", id="column more"),
        pytest.param({"at": "timestamptz!", "id": "long!"}, "column name of the table is not in the", id="less"),
        pytest.param({**EVENTS, "id": "int!"}, "column id is long in the table, int in the spec", id="type"),
        pytest.param({**EVENTS, "id": "long"}, "column id is required in the table, but not", id="optional"),
        pytest.param({**EVENTS, "name": "string!"}, "column name is optional in the table", id="required"),
    ],
)
def test_a_table_that_differs_from_its_spec_is_refused(catalog: Catalog, types: dict[str, str], said: str) -> None:
    """Every difference is named, with the spec's file."""
    made(catalog)
    with pytest.raises(
        ConfigurationError, match=f"events.yaml: the table lake.events differs from its spec:\n(.*\n)*.*{said}"
    ):
        load_table(catalog, spec_of(types, {"table": "lake.events"}))


def test_another_partition_spec_is_refused(catalog: Catalog) -> None:
    """A table by days cannot have its hours replaced."""
    spec = made(catalog)
    with catalog.load_table("lake.events").update_spec() as update:
        update.remove_field("at_hour").add_field("at", DayTransform(), "at_day")
    with pytest.raises(ConfigurationError, match=r"it is partitioned by day\(at\), the spec by hour\(at\)"):
        load_table(catalog, spec)


def test_types_of_arrow_and_back() -> None:
    """An Arrow schema's columns, and the schema that these columns have in memory, are the same."""
    types = {"at": "timestamptz!", "a": "decimal(9,2)", "b": "binary", "c": "float", "d": "date", "e": "timestamp"}
    schema = arrow_schema_of(columns(types))
    assert types_of(schema) == {**types, "at": "timestamptz"}
    assert [str(field.type) for field in schema] == [
        *("timestamp[us, tz=UTC]", "decimal128(9, 2)", "binary", "float", "date32[day]", "timestamp[us]")
    ]
    assert [field.nullable for field in schema] == [False] + [True] * 5
    assert pa.string() in arrow_schema_of(columns(EVENTS)).types


def test_the_catalogs_folder_is_made(tmp_path: Path) -> None:
    """SQLite's file may lie in a folder that is not there yet."""
    with open_catalog({"type": "sql", "uri": f"sqlite:///{tmp_path}/a/b/c.db", "warehouse": str(tmp_path)}) as catalog:
        assert catalog.list_namespaces() == []


def _open(folder: str, start: float) -> None:
    time.sleep(max(0.0, start - time.time()))
    open_catalog({"type": "sql", "uri": f"sqlite:///{folder}/catalog.db", "warehouse": folder}).close()


def test_processes_may_open_a_new_catalog_at_once(tmp_path: Path) -> None:
    """The first runs of a backfill start together; whoever comes second finds the tables made, or being made."""
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_open, [str(tmp_path / "warm")] * 4, [0.0] * 4))
        for number in range(3):
            list(pool.map(_open, [str(tmp_path / f"{number}")] * 4, [time.time() + 0.05] * 4))


def test_an_unknown_catalog_is_said() -> None:
    """A type that PyIceberg does not know is a configuration error."""
    with pytest.raises(ConfigurationError, match=r"the catalog: .*nonsense"):
        open_catalog({"type": "nonsense"})


def test_refused_credentials_are_said(seaweed: SeaweedServer) -> None:
    """The message names the catalog and not the secret."""
    tokens = {"oauth2-server-uri": f"{seaweed.catalog_uri}/v1/oauth/tokens", "credential": "lakehouse:wRoNg"}
    with pytest.raises(ConfigurationError, match="refuses the credentials") as caught:
        Warehouse.open({**seaweed.catalog_properties(), **tokens})
    assert "wRoNg" not in str(caught.value)


def test_tokens_are_asked_for_where_the_catalog_is(seaweed: SeaweedServer) -> None:
    """Without `oauth2-server-uri`; PyIceberg's warning of its default, which has the whole URI, is not heard."""
    properties = {**seaweed.catalog_properties(), "uri": seaweed.catalog_uri.replace("//", "//me:p4ssw0rd@")}
    del properties["oauth2-server-uri"]
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        open_catalog(properties).list_namespaces()
    assert "p4ssw0rd" not in str([str(each.message) for each in heard])


def test_an_unreachable_catalog_is_transient() -> None:
    """A server that is not running may run later; the message asks whether it does."""
    uri = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(TransientError, match=f"the catalog at {uri} cannot be reached .*is it running"):
        open_catalog({"type": "rest", "uri": uri})


def test_a_catalog_in_trouble_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as that may be; a URI may hold a password, and the message leaves user and password out."""
    asked = []

    def refuse() -> None:
        asked.append(1)
        raise ServiceUnavailableError("503")

    monkeypatch.setattr(tables, "ASKING", RetryPolicy(3, 60, 0, 0))
    with pytest.raises(TransientError, match=r"the catalog at postgresql://db:5432/lake answered") as caught:
        ask("load lake.t", {"uri": "postgresql://me:p@ssw0rd@db:5432/lake"}, refuse)
    assert len(asked) == 3
    assert "ssw0rd" not in str(caught.value)

"""Apache Iceberg's JVM implementation reads what we wrote as we meant it."""

import math
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import chain
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.iceberg.schemas import arrow_schema_of
from lakehouse_pipeline.iceberg.tables import open_catalog
from tests.iceberg.lake import ELEVEN, TEN, TWELVE, Lake, columns, events, in_bucket, sealed_by
from tests.oracle.jvm import Jvm, Row

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(1200)]  # the first test may have to install Spark

TYPES = {
    "at": "timestamptz!",
    "id": "long!",
    "flag": "boolean",
    "small": "int",
    "big": "long",
    "single": "float",
    "double": "double",
    "day": "date",
    "moment": "timestamp",
    "instant": "timestamptz",
    "text": "string",
    "carrier": "string",
    "bytes": "binary",
    "money": "decimal(9,2)",
    "rate": "decimal(18,4)",
    "huge": "decimal(38,10)",
}
AS_TOLD = {  # how a column is asked of Spark, so that JSON can carry it to the bit
    "at": "unix_micros(at)",
    "day": "unix_date(day)",
    "moment": "unix_micros(CAST(moment AS timestamp))",
    "instant": "unix_micros(instant)",
    "bytes": "hex(bytes)",
    "money": "CAST(money AS string)",
    "rate": "CAST(rate AS string)",
    "huge": "CAST(huge AS string)",
}
EDGES: dict[str, list[Any]] = {
    "flag": [True, False],
    "small": [-(2**31), 0, 2**31 - 1],
    "big": [-(2**63), 0, 2**63 - 1],
    "single": [0.0, -0.0, 1.5, math.inf, -math.inf, math.nan],
    "double": [0.0, -0.0, 0.1, math.inf, -math.inf, math.nan],
    "day": [date(1, 1, 1), date(1969, 12, 31), date(9999, 12, 31)],
    "moment": [datetime(1900, 1, 1, 0, 0, 0, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999)],  # noqa: DTZ001
    "instant": [datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), datetime(2262, 5, 1, tzinfo=UTC)],
    "text": ["", "a", "ü日本😀", "x" * 17, "z" * 5000],
    "carrier": ["UA", "AA", "B6"],
    "bytes": [b"", b"\0\xff", b"\xff" * 17],
    "money": [Decimal("-9999999.99"), Decimal("0.00"), Decimal("9999999.99")],
    "rate": [Decimal("-99999999999999.9999"), Decimal("0.0001")],
    "huge": [Decimal("-9999999999999999999999999999.9999999999"), Decimal("1.0000000001")],
}
COUNT = 3000


def wide_rows() -> list[Row]:
    """Make rows of every type: edges and nulls among random values, so that pages of all encodings are written."""
    random.seed(11)
    rows = []
    for number in range(COUNT):
        row: Row = {"at": TEN.start + timedelta(microseconds=number * 1_199_999), "id": number}
        row |= {name: random.choice([None, *values]) for name, values in EDGES.items()}  # noqa: S311
        row |= {"big": random.getrandbits(62), "double": random.random()} if number % 3 else {}  # noqa: S311
        row |= {"text": random.randbytes(9).hex()} if number > COUNT // 2 else {}  # noqa: S311
        rows.append(row)
    return rows


def told(row: Row) -> Row:
    """Give a row as `AS_TOLD` asks for it."""
    said = dict(row)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    for name, value in row.items():
        if isinstance(value, datetime):
            said[name] = (value.replace(tzinfo=UTC) - epoch) // timedelta(microseconds=1)
        elif isinstance(value, date):
            said[name] = (value - epoch.date()).days
        elif isinstance(value, bytes):
            said[name] = value.hex().upper()
        elif isinstance(value, Decimal):
            said[name] = str(value)
    return said


@pytest.fixture(scope="module")
def wide(seaweed: SeaweedServer) -> Iterator[tuple[Lake, list[Row]]]:
    """Give a table of every type, in several files and row groups, and its rows."""
    tokens = {"oauth2-server-uri": f"{seaweed.catalog_uri}/v1/oauth/tokens"}
    catalog = open_catalog({**tokens, **seaweed.catalog_properties()})
    lake = Lake.create(catalog, TYPES, properties={"write.parquet.row-group-limit": "450"})
    rows = wide_rows()
    batch = pa.RecordBatch.from_pylist(rows, schema=arrow_schema_of(columns(TYPES)))
    half = COUNT // 2
    batches = [in_bucket(0, batch.slice(0, half)), in_bucket(1, batch.slice(half))]
    lake.replace(sealed_by(lake, TEN, batches))
    yield lake, rows
    catalog.close()


@pytest.mark.parametrize("vectorized", [True, False], ids=["vectorized", "row by row"])
def test_every_type_is_read_to_the_bit(jvm: Jvm, wide: tuple[Lake, list[Row]], *, vectorized: bool) -> None:
    """Both of the JVM's Parquet readers give our rows, whatever their pages are encoded as."""
    lake, rows = wide
    asked = ", ".join(f"{AS_TOLD.get(name, name)} AS {name}" for name in TYPES)
    jvm.sql(f"SET spark.sql.iceberg.vectorization.enabled = {str(vectorized).lower()}")
    found = jvm.sql(f"SELECT {asked} FROM lake.{lake.identifier} ORDER BY id")
    jvm.sql("RESET spark.sql.iceberg.vectorization.enabled")
    assert repr(found) == repr([told(row) for row in rows])


def literal(name: str, value: Any) -> str:
    """Write a value as SQL that Spark folds into a constant, so that it reaches Iceberg's filters."""
    if isinstance(value, str):
        return f"'{value}'"
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    types = {"instant": "timestamp", "moment": "timestamp_ntz", "big": "bigint"}
    return f"CAST('{value}' AS {types.get(name, TYPES[name])})"


def test_no_row_is_lost_to_a_filter(jvm: Jvm, rest_catalog: Catalog) -> None:
    """With one row in each file, all of whose bounds are tight, the JVM's pruning keeps the rows that match."""
    lake = Lake.create(rest_catalog, TYPES)
    rows: list[Row] = [{"at": TEN.start, "id": place} for place in range(8)]
    for name, values in EDGES.items():
        for row, value in zip(rows, values, strict=False):
            row[name] = value
    schema = arrow_schema_of(columns(TYPES))
    batches = [in_bucket(place, pa.RecordBatch.from_pylist([row], schema=schema)) for place, row in enumerate(rows)]
    lake.replace(sealed_by(lake, TEN, batches))
    expected, queries = {}, []
    for name, values in EDGES.items():
        for place, value in enumerate(values):
            what, condition = f"{name} {place}", f"{name} = {literal(name, value)}"
            queries.append(f"SELECT '{what}' AS what, count(*) AS n FROM lake.{lake.identifier} WHERE {condition}")
            expected[what] = sum(other == value or repr(other) == repr(value) for other in values)
    assert {row["what"]: row["n"] for row in jvm.sql(" UNION ALL ".join(queries))} == expected


def test_metadata_tables_agree(jvm: Jvm, lake: Lake) -> None:
    """Files, entries, manifests and partitions are to the JVM what they are to PyIceberg."""
    lake.append(events(TEN, [1, 2]), events(ELEVEN, [3]), events(TWELVE, [4]))
    lake.put(ELEVEN, [5, 6, 7])
    lake.put(TWELVE, [])
    table = lake.now.table
    live = [file for hour in (TEN, ELEVEN, TWELVE) for file in lake.now.live(hour)]
    files = jvm.sql(f"SELECT * FROM lake.{lake.identifier}.files ORDER BY partition")
    assert [(f["file_path"], f["record_count"], f["file_size_in_bytes"], f["partition"]["at_hour"]) for f in files] == [
        (file.path, file.rows, file.bytes, file.hour) for file in live
    ]
    entries = jvm.sql(f"SELECT * FROM lake.{lake.identifier}.all_entries WHERE snapshot_id = {lake.now.head}")
    assert [(entry["status"], entry["sequence_number"]) for entry in entries] == [(2, 1)]
    current = {
        (entry["status"], entry["snapshot_id"], entry["sequence_number"], entry["data_file"]["file_path"])
        for entry in jvm.sql(f"SELECT * FROM lake.{lake.identifier}.entries")
    }
    assert current == {
        (entry.status.value, entry.snapshot_id, entry.sequence_number, entry.data_file.file_path)
        for entry in lake.entries()
    }
    manifests = {row["path"]: row for row in jvm.sql(f"SELECT * FROM lake.{lake.identifier}.manifests")}
    snapshot = table.current_snapshot()
    assert snapshot
    for manifest in snapshot.manifests(table.io):
        told = manifests.pop(manifest.manifest_path)
        counts = (manifest.added_files_count, manifest.existing_files_count, manifest.deleted_files_count)
        assert tuple(told[f"{kind}_data_files_count"] for kind in ("added", "existing", "deleted")) == counts
        assert (told["length"], told["added_snapshot_id"]) == (manifest.manifest_length, manifest.added_snapshot_id)
    assert manifests == {}
    partitions = jvm.sql(f"SELECT * FROM lake.{lake.identifier}.partitions ORDER BY partition")
    assert [(row["partition"]["at_hour"], row["record_count"], row["file_count"]) for row in partitions] == [
        (TEN.ordinal, 2, 1),
        (ELEVEN.ordinal, 3, 1),
    ]


def test_statistics_are_read_as_they_were_meant(jvm: Jvm, rest_catalog: Catalog) -> None:
    """Counts, bounds, split offsets and the sort order of a file mean to the JVM what they mean to us."""
    lake = Lake.create(rest_catalog, sort=["id"], properties={"write.parquet.row-group-limit": "2"})
    lake.put(TEN, [1, 2, 3])
    (file,) = jvm.sql(f"SELECT * FROM lake.{lake.identifier}.files")
    told = file["readable_metrics"]
    assert {name: (told[name]["lower_bound"], told[name]["upper_bound"]) for name in told} == {
        "at": ("2013-01-01 10:00:01", "2013-01-01 10:00:03"),
        "id": (1, 3),
        "name": ("event 1", "event 3"),
    }
    assert {(told[name]["value_count"], told[name]["null_value_count"]) for name in told} == {(3, 0)}
    assert (file["sort_order_id"], len(file["split_offsets"]), file["file_format"]) == (1, 2, "PARQUET")


def test_time_travel_agrees(jvm: Jvm, lake: Lake) -> None:
    """Every snapshot is to the JVM what it is to PyIceberg."""
    snapshots = [lake.put(hour, ids).snapshot_id for hour, ids in [(TEN, [1]), (ELEVEN, [2]), (TEN, [3]), (ELEVEN, [])]]
    for snapshot_id in snapshots:
        found = jvm.sql(f"SELECT id FROM lake.{lake.identifier} VERSION AS OF {snapshot_id} ORDER BY id")
        assert [row["id"] for row in found] == sorted(chain(*lake.rows(snapshot_id).values()))


@pytest.mark.parametrize(
    "properties",
    [
        pytest.param({}, id="as it is"),
        pytest.param({"write.avro.compression-codec": "zstd"}, id="zstd manifests"),
        pytest.param({"write.avro.compression-codec": "uncompressed"}, id="plain manifests"),
        pytest.param({"write.parquet.compression-codec": "gzip"}, id="gzip files"),
        pytest.param({"write.object-storage.partitioned-paths": "false"}, id="partition not in the key"),
        pytest.param({"write.object-storage.enabled": "false"}, id="no entropy"),
    ],
)
def test_a_table_on_local_disk_is_read(jvm: Jvm, local_catalog: Catalog, properties: dict[str, str]) -> None:
    """Without a catalog, from its metadata file alone, the JVM reads the table in all its forms."""
    lake = Lake.create(local_catalog, properties=properties)
    lake.put(TEN, [1, 2])
    lake.put(ELEVEN, [3])
    lake.put(TEN, [4])
    view = jvm.view(lake.now.table.metadata_location)
    assert [row["id"] for row in jvm.sql(f"SELECT id FROM {view} ORDER BY id")] == [3, 4]


@pytest.mark.parametrize("hour", ["event time", "2nd", "time-of-event", "zeit_ü"])
def test_any_name_of_the_hours_column_is_read(jvm: Jvm, local_catalog: Catalog, hour: str) -> None:
    """Partition fields whose names Avro does not take have the names in our manifests that the JVM gives them."""
    lake = Lake.create(local_catalog, {hour: "timestamptz!", "id": "long!", "name": "string"})
    for ids in ([1], [2, 3]):
        lake.replace(sealed_by(lake, TEN, [in_bucket(0, events(TEN, ids).rename_columns([hour, "id", "name"]))]))
    location = lake.now.table.metadata_location
    rows, files = jvm.view(location), jvm.view(f"{location}#files")
    assert jvm.sql(f"SELECT count(*) AS n FROM {rows}") == [{"n": 2}]
    assert jvm.sql(f"SELECT partition FROM {files}") == [{"partition": {f"{hour}_hour": TEN.ordinal}}]

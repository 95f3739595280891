"""Files: their keys, names, sizes and rows, and the rows that never get into one."""

import pickle
import random
import struct
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import mmh3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table.locations import load_location_provider

from lakehouse_pipeline.errors import DataError, SafetyError, TransientError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg import data_files
from lakehouse_pipeline.iceberg.conformed import conform
from lakehouse_pipeline.iceberg.data_files import BUCKET, WrittenFile
from lakehouse_pipeline.iceberg.schemas import arrow_schema, arrow_schema_of
from tests.full_disk import full_disk
from tests.iceberg.entries import decode_entry
from tests.iceberg.lake import ELEVEN, MEGABYTE, TEN, Lake, columns, events, in_bucket

ENTROPY = "write.object-storage.enabled"
PARTITIONED = "write.object-storage.partitioned-paths"
SPARKS_NAME = "ts_hour=2024-01-01-01/00000-11-f6a900e9-dada-4d04-8cd3-f44a6895f3ee-0-00001.parquet"


def entropy(name: str) -> str:
    """Hash a name into the folders of Iceberg's object-store layout, as its documentation describes it."""
    bits = f"{mmh3.hash(name, signed=False) | 0x80000000:032b}"[-20:]
    return f"{bits[0:4]}/{bits[4:8]}/{bits[8:12]}/{bits[12:]}"


def entry_of(lake: Lake, file: WrittenFile) -> dict[str, Any]:
    """Decode the manifest entry of a file."""
    table = lake.now.table
    return decode_entry(file.entry, table.spec(), table.schema())


def parquet(lake: Lake, file: WrittenFile) -> pq.ParquetFile:
    """Open a file's Parquet."""
    return pq.ParquetFile(pa.BufferReader(lake.now.files.get(file.path).body))


class TestKeys:
    """Where files lie."""

    @pytest.mark.parametrize(
        ("name", "folders"),
        [
            ("a", "0101/0110/1001/10110010"),
            ("b", "1110/0111/1110/00000011"),
            ("c", "0010/1101/0110/01011111"),
            ("d", "1001/0001/0100/01110011"),
            ("test.parquet", "0110/1010/0011/11101000"),
            ("", "0000/0000/0000/00000000"),
            pytest.param(SPARKS_NAME, "0001/0011/0000/10000100", id="written by Spark"),
        ],
    )
    def test_the_hash_is_icebergs(self, name: str, folders: str) -> None:
        """The hash that these tests go by gives the vectors of Iceberg's own tests (`TestLocationProvider`)."""
        assert entropy(name) == folders
        provider = load_location_provider("file:///t", {ENTROPY: "true"})
        assert provider.new_data_location(name) == f"file:///t/data/{folders}/{name}"

    @pytest.mark.parametrize(
        ("properties", "key"),
        [
            pytest.param({}, "data/{full}/{partition}/{name}", id="entropy by default"),
            pytest.param({PARTITIONED: "true"}, "data/{full}/{partition}/{name}", id="with the partition"),
            pytest.param({PARTITIONED: "false"}, "data/{short}-{name}", id="without the partition"),
            pytest.param({PARTITIONED: "FALSE"}, "data/{short}-{name}", id="false in capitals"),
            pytest.param({ENTROPY: "TRUE", PARTITIONED: "false"}, "data/{short}-{name}", id="true in capitals"),
            pytest.param({ENTROPY: "false"}, "data/{partition}/{name}", id="no entropy"),
            pytest.param({ENTROPY: "false", PARTITIONED: "false"}, "data/{partition}/{name}", id="no entropy at all"),
        ],
    )
    def test_keys_follow_the_tables_properties(self, catalog: Catalog, properties: dict[str, str], key: str) -> None:
        """The folders are the hash of the whole relative name; without partitioned paths, of the file's alone."""
        table = Lake.create(catalog, properties=properties).now
        name, partition = "00007-ATTEMPT-3-1.parquet", "at_hour=2013-01-01-10"
        expected = key.format(name=name, partition=partition, full=entropy(f"{partition}/{name}"), short=entropy(name))
        assert table.target(TEN, "ATTEMPT", MEGABYTE).file_url(7, 3, 1) == f"{table.location}/{expected}"

    def test_the_data_path_is_the_tables(self, catalog: Catalog) -> None:
        """A table whose data lies elsewhere gets its files there."""
        lake = Lake.create(catalog, properties={"write.data.path": "s3://elsewhere/data/"})
        url = lake.now.target(TEN, "A", MEGABYTE).file_url(0, 0, 0)
        assert url.startswith("s3://elsewhere/data/")
        assert url.endswith("/at_hour=2013-01-01-10/00000-A-0-0.parquet")

    def test_names_say_bucket_attempt_file_and_try(self, lake: Lake) -> None:
        """A task's files are numbered by bucket, in the order of the buckets."""
        batches = [in_bucket(bucket, events(TEN, [bucket])) for bucket in (12, 3, 12, 100_000)]
        names = [file.path.rpartition("/")[2] for file in lake.write(TEN, batches, "A")]
        assert names == ["00003-A-0-0.parquet", "00012-A-0-0.parquet", "100000-A-0-0.parquet"]

    def test_a_taken_name_is_never_overwritten(self, lake: Lake) -> None:
        """Tasks that write the same bucket again take the next try's name; the first file stays as it is."""
        written = [lake.write(TEN, [in_bucket(0, events(TEN, [number]))], "A")[0] for number in range(3)]
        assert [file.path.rpartition("/")[2] for file in written] == [f"00000-A-0-{n}.parquet" for n in range(3)]
        assert [parquet(lake, file).read()["id"].to_pylist() for file in written] == [[0], [1], [2]]

    def test_names_run_out(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        """A writer that finds all names of a file taken gives up and says which."""
        monkeypatch.setattr(data_files, "TRIES", 2)
        for _ in range(2):
            lake.write(TEN, [in_bucket(0, events(TEN, [1]))], "A")
        with pytest.raises(SafetyError, match="2 names of file 0 in bucket 0 are taken"):
            lake.write(TEN, [in_bucket(0, events(TEN, [1]))], "A")


def hexadecimal(count: int) -> pa.Array:
    """Make texts of which half the bytes are random."""
    return pa.array([random.randbytes(16).hex() for _ in range(count)])  # noqa: S311


def few(count: int) -> pa.Array:
    """Make texts that repeat."""
    return pa.array([f"a rather long name of carrier {random.randrange(40)}" for _ in range(count)])  # noqa: S311


def noise(count: int) -> pa.Array:
    """Make texts that no codec makes shorter."""
    return pa.array([random.randbytes(64).decode("latin-1").translate(NO_CONTROLS) for _ in range(count)])  # noqa: S311


NO_CONTROLS = {code: 0x4E00 + code for code in range(256)}
TEXTS = {"half random": hexadecimal, "repeating": few, "random": noise}


def long_hour(texts: str, rows: int, batch: int, hour: HourWindow = TEN) -> Iterator[pa.RecordBatch]:
    """Make an hour of so many events, in small batches as engines send them."""
    random.seed(7)
    for start in range(0, rows, batch):
        ids = [random.getrandbits(40) for _ in range(min(batch, rows - start))]
        rows_ = events(hour, ids)
        yield in_bucket(0, rows_.set_column(2, rows_.schema.field(2), TEXTS[texts](rows_.num_rows)))


class TestSizes:
    """How large files and row groups become, and how much memory that takes."""

    @pytest.mark.parametrize("batch", [500, 4_000, 100_000])
    @pytest.mark.parametrize(("texts", "rows"), [("half random", 130_000), ("repeating", 500_000), ("random", 30_000)])
    def test_files_roll_near_their_size(self, lake: Lake, texts: str, rows: int, batch: int) -> None:
        """Each file but the last is within a quarter of the target, in bytes on storage, whatever compresses how."""
        written = lake.write(TEN, long_hour(texts, rows, batch))
        sizes = [file.size for file in written[:-1]]
        assert len(sizes) >= 2
        assert all(abs(size - MEGABYTE) <= MEGABYTE / 4 for size in sizes), sizes
        assert sum(file.rows for file in written) == rows
        assert [file.size for file in written] == [len(lake.now.files.get(file.path).body) for file in written]

    def test_no_sliver_is_left_at_the_end(self, lake: Lake) -> None:
        """Rows that end right behind a file's target make no file without rows."""
        assert all(file.rows for file in lake.write(TEN, long_hour("half random", 20_000, 1000), file_size=1))

    @pytest.mark.parametrize(
        ("properties", "rows", "megabytes"),
        [
            pytest.param({"write.parquet.row-group-limit": "700"}, 700, 100, id="by rows"),
            pytest.param({"write.parquet.row-group-size-bytes": "500000"}, 10**9, 0.7, id="by bytes"),
        ],
    )
    def test_row_groups_are_bounded(
        self, catalog: Catalog, properties: dict[str, str], rows: int, megabytes: float
    ) -> None:
        """No row group is larger than the table's properties say, by less than a batch."""
        lake = Lake.create(catalog, properties=properties)
        footer = parquet(lake, lake.write(TEN, long_hour("random", 20_000, 1500), file_size=100 * MEGABYTE)[0]).metadata
        groups = [footer.row_group(place) for place in range(footer.num_row_groups)]
        assert len(groups) > 2
        assert max(group.num_rows for group in groups) <= rows
        assert max(group.total_byte_size for group in groups) <= megabytes * MEGABYTE

    def test_at_most_about_a_row_group_is_buffered(self, catalog: Catalog) -> None:
        """While 30 MB of rows go through a task with row groups of 1 MB, it holds no more than a few MB."""
        lake = Lake.create(catalog, properties={"write.parquet.row-group-size-bytes": str(MEGABYTE)})
        held = []

        def watched() -> Iterator[pa.RecordBatch]:
            before = pa.total_allocated_bytes()
            for batch in long_hour("random", 240_000, 1000):
                held.append(pa.total_allocated_bytes() - before)
                yield batch

        written = lake.write(TEN, watched(), file_size=20 * MEGABYTE)
        assert sum(file.size for file in written) > 25 * MEGABYTE
        assert max(held) < 4 * MEGABYTE

    def test_a_task_keeps_the_files_of_all_its_buckets_open(self, lake: Lake) -> None:
        """Rows of several buckets, mixed in every batch, end up in files of their own buckets."""
        rows = events(TEN, range(300))
        buckets = pa.array([number % 3 for number in range(300)], pa.int32())
        written = lake.write(
            TEN,
            [
                rows.slice(0, 100).append_column(BUCKET, buckets[:100]),
                rows.slice(100).append_column(BUCKET, buckets[100:]),
            ],
        )
        found = [parquet(lake, file).read()["id"].to_pylist() for file in written]
        assert found == [list(range(bucket, 300, 3)) for bucket in range(3)]


class TestParquet:
    """What a file says of itself."""

    def test_columns_carry_icebergs_field_ids(self, lake: Lake) -> None:
        """Readers find columns by id, not by name."""
        schema = parquet(lake, lake.write(TEN, [in_bucket(0, events(TEN, [1]))])[0]).schema_arrow
        assert [(field.name, field.metadata[b"PARQUET:field_id"]) for field in schema] == [
            ("at", b"1"),
            ("id", b"2"),
            ("name", b"3"),
        ]

    @pytest.mark.parametrize(
        ("properties", "codec"),
        [
            ({}, "ZSTD"),
            ({"write.parquet.compression-codec": "uncompressed"}, "UNCOMPRESSED"),
            ({"write.parquet.compression-codec": "SNAPPY"}, "SNAPPY"),
            ({"write.parquet.compression-codec": "gzip", "write.parquet.compression-level": "9"}, "GZIP"),
            ({"write.parquet.compression-codec": "lz4"}, "LZ4"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_the_codec_is_the_tables(self, catalog: Catalog, properties: dict[str, str], codec: str) -> None:
        """Iceberg's names of codecs, and its level, are those of the files."""
        lake = Lake.create(catalog, properties=properties)
        footer = parquet(lake, lake.write(TEN, [in_bucket(0, events(TEN, [1]))])[0]).metadata
        assert footer.row_group(0).column(0).compression == codec

    def test_dictionaries_are_for_columns_that_repeat(self, lake: Lake) -> None:
        """A column of unique values gets no dictionary, one that repeats does."""
        rows = events(TEN, range(1000))
        rows = rows.set_column(2, rows.schema.field(2), pa.array([f"carrier {n % 9}" for n in range(1000)]))
        group = parquet(lake, lake.write(TEN, [in_bucket(0, rows)])[0]).metadata.row_group(0)
        assert [group.column(place).has_dictionary_page for place in range(3)] == [False, False, True]

    def test_no_arrow_schema_is_stored(self, lake: Lake) -> None:
        """Files say no more than Iceberg's readers need, and what the bytes of their row groups add up to."""
        file = parquet(lake, lake.write(TEN, [in_bucket(0, events(TEN, [1]))])[0])
        assert list(file.metadata.metadata) == [b"lakehouse.row-groups"]

    def test_a_small_batch_list_is_one_row_group(self, lake: Lake) -> None:
        """Small batches are gathered: pyarrow would make a row group of each."""
        batches = [in_bucket(0, events(TEN, [number])) for number in range(50)]
        assert parquet(lake, lake.write(TEN, batches)[0]).metadata.num_row_groups == 1


class TestOrder:
    """The sort order that files claim."""

    @pytest.mark.parametrize(("sort", "order"), [(("name", "-id"), 1), ((), 0)], ids=["sorted", "unsorted"])
    def test_the_claim_is_the_tables(self, catalog: Catalog, sort: tuple[str, ...], order: int) -> None:
        """Files of a sorted table carry its sort order's id, those of another 0."""
        lake = Lake.create(catalog, sort=sort)
        assert (
            entry_of(lake, lake.write(TEN, [in_bucket(0, events(TEN, [1]))])[0])["data_file"]["sort_order_id"] == order
        )

    def test_wrong_order_is_refused(self, catalog: Catalog) -> None:
        """Rows out of order are an error wherever a batch or a file ends, and nothing of the task is uploaded."""
        lake = Lake.create(catalog, sort=["id"])
        batches = [in_bucket(0, events(TEN, ids)) for ids in ([1, 2], [3, 9], [8])]
        with pytest.raises(SafetyError, match=r"'8'.* after .*'9'"):
            lake.write(TEN, batches)
        assert lake.stored("data") == set()

    def test_each_bucket_has_an_order_of_its_own(self, catalog: Catalog) -> None:
        """Buckets whose rows come mixed are each in order."""
        lake = Lake.create(catalog, sort=["id"])
        batches = [in_bucket(bucket, events(TEN, [number])) for number, bucket in [(5, 1), (1, 0), (6, 1), (2, 0)]]
        assert [file.rows for file in lake.write(TEN, batches)] == [2, 2]


class TestRowsThatDoNotFit:
    """Rows that must not get into the hour's files."""

    @pytest.mark.parametrize(
        "seconds",
        [pytest.param(-0.000001, id="before"), pytest.param(3600, id="after"), pytest.param(86_400, id="a day later")],
    )
    def test_a_row_of_another_hour_is_refused(self, lake: Lake, seconds: float) -> None:
        """One row outside of the hour fails the task and is shown."""
        rows = events(TEN, [1, 2, 3])
        moments = [TEN.start, TEN.start + timedelta(seconds=seconds), TEN.end - timedelta(microseconds=1)]
        rows = rows.set_column(0, rows.schema.field(0), pa.array(moments, rows.schema.field(0).type))
        with pytest.raises(DataError, match=r"1 of 3 rows are of another hour than 2013-01-01-10:00 UTC.*'id': '2'"):
            lake.write(TEN, [in_bucket(0, rows)])

    def test_a_row_of_the_year_20000_is_refused_too(self, lake: Lake) -> None:
        """Milliseconds taken for seconds make an instant that Python has no date for; it is shown as a number."""
        rows = events(TEN, [1])
        late = pa.array([1_357_034_400_000_000_000]).cast(rows.schema.field(0).type)
        with pytest.raises(DataError, match="the first has at = 1357034400000000000"):
            lake.write(TEN, [in_bucket(0, rows.set_column(0, rows.schema.field(0), late))])

    @pytest.mark.parametrize("hour", ["1970-01-01-00:00", "1969-12-31-23:00", "1905-02-03-04:00"])
    def test_the_edges_of_an_hour_are_in_it(self, lake: Lake, hour: str) -> None:
        """The first microsecond and the last belong to the hour, before 1970 too."""
        window = HourWindow.from_key(hour)
        rows = events(window, [1, 2])
        moments = pa.array([window.start, window.end - timedelta(microseconds=1)], rows.schema.field(0).type)
        written = lake.write(window, [in_bucket(0, rows.set_column(0, rows.schema.field(0), moments))])
        assert entry_of(lake, written[0])["data_file"]["partition"] == {"at_hour": window.ordinal}

    def test_a_null_in_a_required_column_is_refused(self, lake: Lake) -> None:
        """The column and the number of rows are named, with the way out."""
        rows = events(TEN, [1, 2, 3])
        nulls = rows.set_column(1, pa.field("id", pa.int64()), pa.array([None, 2, None], pa.int64()))
        with pytest.raises(DataError, match="column id is required, but 2 of 3 rows have no value"):
            lake.write(TEN, [in_bucket(0, nulls)])

    @pytest.mark.parametrize(
        ("column", "values"),
        [
            pytest.param("id", pa.array([2**63], pa.uint64()), id="integer"),
            pytest.param("at", pa.array([1], pa.timestamp("ns", "UTC")), id="nanoseconds"),
            pytest.param("name", pa.array([b"\xff"]), id="no UTF-8"),
        ],
    )
    def test_a_value_that_does_not_fit_is_refused(self, lake: Lake, column: str, values: pa.Array) -> None:
        """No value is changed to fit the table's type."""
        rows = events(TEN, [1])
        place = rows.schema.get_field_index(column)
        with pytest.raises(DataError, match=f"column {column} does not fit"):
            lake.write(TEN, [in_bucket(0, rows.set_column(place, column, values))])

    def test_a_string_that_is_no_text_was_written(self, lake: Lake) -> None:
        """Spark casts any bytes to a string, also as one that is neither the least nor the greatest."""
        offsets, body = pa.py_buffer(struct.pack("<4i", 0, 1, 3, 4)), pa.py_buffer(b"ab\xffz")
        rows = events(TEN, [1, 2, 3])
        broken = pa.Array.from_buffers(pa.string(), 3, [None, offsets, body])
        rows = rows.set_column(rows.schema.names.index("name"), "name", broken)
        with pytest.raises(DataError, match=r"column name holds what its type cannot: Invalid UTF8 .*decode it"):
            lake.write(TEN, [in_bucket(0, rows)])
        assert lake.stored("data") == set()

    @pytest.mark.parametrize(
        ("most", "rows"),
        [
            pytest.param(0, 1, id="first bytes"),
            pytest.param(100_000, 20_000, id="row group"),
            pytest.param(1_000, 1, id="footer"),
        ],
    )
    def test_a_full_disk_was_taken_for_bad_data(self, lake: Lake, most: int, rows: int) -> None:
        """Rows that the local disk has no room for are fine: another try, with more room, writes them."""
        with full_disk(most), pytest.raises(TransientError, match=r"could not be kept in .*more room"):
            lake.write(TEN, long_hour("random", rows, rows))
        assert lake.stored("data") == set()

    def test_nothing_is_nothing(self, lake: Lake) -> None:
        """A task without rows, or with empty batches only, makes no file."""
        assert lake.write(TEN, []) == []
        assert lake.write(TEN, [in_bucket(0, events(TEN, []))]) == []
        assert lake.stored("data") == set()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        pytest.param(pa.array([1], pa.int32()), "long", id="int to long"),
        pytest.param(pa.array([1.5], pa.float32()), "double", id="float to double"),
        pytest.param(pa.array(["x"], pa.large_string()), "string", id="large string"),
        pytest.param(pa.array([Decimal("1.50")], pa.decimal128(5, 2)), "decimal(9,2)", id="wider decimal"),
    ],
)
def test_conform_gives_the_tables_types(given: pa.Array, wanted: str) -> None:
    """Types that hold the same values are cast, columns come in the table's order, and others are left out."""
    schema = arrow_schema_of(columns({"x": wanted, "y": "string"}))
    rows = pa.RecordBatch.from_pydict({"z": [1], "y": ["y"], "x": given})
    assert conform(rows, schema).schema == schema
    assert conform(rows, schema).to_pylist() == [{"x": given[0].as_py(), "y": "y"}]


def test_written_rows_are_read_by_hour(lake: Lake) -> None:
    """Two hours written by their own attempts are read as the rows they are."""
    lake.put(TEN, [1, 2])
    lake.put(ELEVEN, [3])
    assert lake.now.table.scan(row_filter="at >= '2013-01-01T11:00:00+00:00'").to_arrow()["id"].to_pylist() == [3]


def test_a_target_travels(lake: Lake) -> None:
    """What tasks get is small, picklable, and holds no catalog."""
    target = lake.now.target(TEN, "A", MEGABYTE)
    travelled = pickle.loads(pickle.dumps(target))  # noqa: S301  # our own pickle
    assert travelled.file_url(0, 0, 0) == target.file_url(0, 0, 0)
    assert arrow_schema(travelled.schema) == lake.now.arrow_schema
    assert len(pickle.dumps(target)) < 10_000

"""Row groups copied into one file are read as if they stood in their own, by two engines, with what prunes them."""

import io
import itertools
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.catalog import Catalog

from lakehouse_pipeline.errors import DataError
from lakehouse_pipeline.iceberg.footer import Chunk, Column, File, Footer, Group, Wanted, chunks_of, read_footer
from lakehouse_pipeline.iceberg.row_groups import Merged, merged
from lakehouse_pipeline.iceberg.statistics import column_statistics
from lakehouse_pipeline.iceberg.thrift_compact import BINARY, I32, I64, LIST, STRUCT, Elements, Struct, decode, encode
from lakehouse_pipeline.object_store.checksums import crc64nvme
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import ObjectInfo
from tests.iceberg.lake import TEN, Lake, events, in_bucket

FIELDS = [
    ("id", pa.int64()),
    ("small", pa.int32()),
    ("flag", pa.bool_()),
    ("share", pa.float64()),
    ("text", pa.string()),
    ("raw", pa.binary()),
    ("fixed", pa.binary(4)),
    ("price", pa.decimal128(20, 3)),
    ("day", pa.date32()),
    ("at", pa.timestamp("us", "UTC")),
    ("none", pa.string()),
    ("list", pa.list_(pa.int64())),
    ("struct", pa.struct([("x", pa.int32()), ("y", pa.struct([("z", pa.string())]))])),
    ("map", pa.map_(pa.string(), pa.float32())),
]
ids = itertools.count(1)


def with_ids(field: pa.Field) -> pa.Field:
    """Give a field, and the fields in it, ids."""
    kind = field.type
    if pa.types.is_struct(kind):
        kind = pa.struct([with_ids(part) for part in kind])
    elif pa.types.is_list(kind):
        kind = pa.list_(with_ids(kind.value_field))
    elif pa.types.is_map(kind):
        kind = pa.map_(with_ids(kind.key_field), with_ids(kind.item_field))
    return pa.field(field.name, kind, field.nullable, {"PARQUET:field_id": str(next(ids))})


SCHEMA = pa.schema([with_ids(pa.field(*field)) for field in FIELDS])


def row(number: int) -> dict[str, Any]:
    """Make a row of every type; nulls, NaN and empty lists come again and again."""
    return {
        "id": number,
        "small": number % 7,
        "flag": number % 3 == 0,
        "share": [number / 7, math.nan, None, -0.0][number % 4],
        "text": None if number % 11 == 0 else f"text {number % 50}",
        "raw": number.to_bytes(4, "big"),
        "fixed": number.to_bytes(4, "little"),
        "price": Decimal(number).scaleb(-3),
        "day": number,
        "at": datetime.fromtimestamp(number, UTC),
        "none": None,
        "list": [[], None, [number, None], list(range(number % 5))][number % 4],
        "struct": None if number % 5 == 0 else {"x": number, "y": {"z": f"z{number}"}},
        "map": {f"k{number % 3}": float(number)},
    }


def rows(start: int, stop: int) -> pa.Table:
    """Make rows by their ids."""
    return pa.Table.from_pylist([row(number) for number in range(start, stop)], schema=SCHEMA)


def written(table: pa.Table, **options: Any) -> bytes:
    """Write a file as pyarrow does: several row groups, several pages in each, page indexes."""
    out = io.BytesIO()
    usual = {"row_group_size": 400, "write_page_index": True, "data_page_size": 512, "write_batch_size": 50}
    pq.write_table(table, out, **{**usual, "store_schema": False, **options})
    return out.getvalue()


def footer_of(file: bytes, name: str = "file") -> Footer:
    """Read a footer as from storage."""
    return read_footer(name, len(file), lambda count: file[-count:])


def merge(*files: bytes) -> bytes:
    """Copy the row groups of files into one."""
    return assembled(merged([footer_of(file, f"file {place}") for place, file in enumerate(files)]), files)


def assembled(made: Merged, files: Sequence[bytes]) -> bytes:
    """Put a file together."""
    groups = [files[part.source][part.span.start : part.span.stop] for part in made.copied]
    whole = b"".join([b"PAR1", *groups, made.tail])
    assert (len(whole), pq.read_metadata(io.BytesIO(whole)).num_rows) == (made.size, made.rows)
    return whole


def table_of(file: bytes) -> pa.Table:
    """Read a file with pyarrow."""
    return pq.ParquetFile(io.BytesIO(file)).read()


def cells(table: pa.Table) -> str:
    """Give values as text, in which NaN is equal to itself, and -0.0 is not 0.0."""
    return str(table.to_pydict())


def counts_by_duckdb(files: Sequence[bytes], folder: Path, condition: str) -> tuple[Any, ...]:
    """Count the rows of files that meet a condition, and add up their ids, with DuckDB."""
    paths = []
    for place, file in enumerate(files):
        paths.append(str(folder / f"{place}.parquet"))
        Path(paths[-1]).write_bytes(file)
    with duckdb.connect() as connection:
        query = f"SELECT count(*), sum(id), min(text), max(price) FROM read_parquet(?) WHERE {condition}"
        found = connection.execute(query, [paths]).fetchone()
    assert found
    return found


CONDITIONS = [
    "true",
    "id BETWEEN 390 AND 410",
    "id = 1203",
    "text = 'text 17'",
    "text = 'nowhere'",
    "fixed = '\\x01\\x02\\x00\\x00'::BLOB",
    "price > 1.19",
    "\"at\" < TIMESTAMPTZ '1970-01-01 00:02:00+00'",
    "share IS NULL",
    "isnan(share)",
    "struct.y.z = 'z777'",
    "none IS NOT NULL",
]
WRITERS = {
    "plain": {"use_dictionary": False, "compression": "none"},
    "dictionaries": {"compression": "zstd"},
    "snappy": {"compression": "snappy", "data_page_version": "2.0"},
    "gzip": {"compression": {field: "gzip" if field in ("id", "text") else "lz4" for field, _ in FIELDS}},
    "no-page-index": {"write_page_index": False},
    "deltas": {"use_dictionary": False, "column_encoding": {"id": "DELTA_BINARY_PACKED", "raw": "DELTA_BYTE_ARRAY"}},
    "page-sums": {"write_page_checksum": True, "store_schema": True},
    "one-group": {"row_group_size": 10_000},
}


@pytest.mark.parametrize("options", WRITERS.values(), ids=list(WRITERS))
def test_two_engines_read_the_same(options: dict[str, Any], tmp_path: Path) -> None:
    """Whatever codec, encoding and page: the rows of the sources in their order, and as many of each filter."""
    tables = [rows(0, 1000), rows(1000, 1300), rows(1300, 1301)]
    files = [written(table, **options) for table in tables]
    whole = merge(*files)
    assert cells(table_of(whole)) == cells(pa.concat_tables(tables))
    assert table_of(whole).schema.equals(table_of(files[0]).schema, check_metadata=True)
    (tmp_path / "sources").mkdir()
    for condition in CONDITIONS:
        expected = counts_by_duckdb(files, tmp_path / "sources", condition)
        assert counts_by_duckdb([whole], tmp_path, condition) == expected, condition


def test_a_copy_of_a_copy_is_the_copy_of_all() -> None:
    """Merging what was merged gives the very bytes of merging everything at once."""
    files = [written(rows(start, start + 500)) for start in (0, 500, 1000)]
    assert merge(merge(*files[:2]), files[2]) == merge(*files) == merge(merge(*files))


def test_field_ids_and_statistics_are_kept() -> None:
    """Each row group says what it said, under ids that are the same; only places differ."""
    files = [written(rows(0, 1000)), written(rows(1000, 1300))]
    before = [pq.read_metadata(io.BytesIO(file)) for file in files]
    after = pq.read_metadata(io.BytesIO(merge(*files)))
    told = [each.row_group(place) for each in before for place in range(each.num_row_groups)]
    assert after.schema.to_arrow_schema().equals(before[0].schema.to_arrow_schema(), check_metadata=True)
    assert (after.created_by, after.num_row_groups) == (before[0].created_by, len(told))
    for place, group in enumerate(told):
        assert [_said(group, column) for column in range(group.num_columns)] == [
            _said(after.row_group(place), column) for column in range(group.num_columns)
        ]


def _said(group: pq.RowGroupMetaData, column: int) -> dict[str, Any]:
    told = group.column(column).to_dict()
    return {name: value for name, value in told.items() if "offset" not in name}


def test_pyarrow_prunes_row_groups() -> None:
    """A filter of a dataset reads the rows that it reads of the sources."""
    files = [written(rows(0, 1000)), written(rows(1000, 1300))]
    fragment = ds.ParquetFileFormat().make_fragment(pa.BufferReader(merge(*files)))
    wanted = (pc.field("id") >= 1100) & (pc.field("id") < 1120)
    assert [group.id for group in fragment.subset(wanted).row_groups] == [3]
    assert fragment.to_table(filter=wanted).column("id").to_pylist() == list(range(1100, 1120))


def offset_indexes(file: bytes) -> list[list[tuple[int, int]]]:
    """Give position and size of the pages of every chunk, as the offset indexes say."""
    chunks = [chunk for group in footer_of(file).row_groups for chunk, _ in chunks_of(group.metadata)]
    places = [(chunk.whole(Chunk.OFFSET_INDEX), chunk.whole(Chunk.OFFSET_INDEX_BYTES)) for chunk in chunks]
    return [
        [(page.whole(1), page.whole(2)) for page in decode(file[at : at + length]).structs(1)] for at, length in places
    ]


def column_indexes(file: bytes) -> list[bytes]:
    """Give the column index of every chunk."""
    footer = footer_of(file)
    found = [
        footer.cut(chunk.number(Chunk.COLUMN_INDEX), chunk.number(Chunk.COLUMN_INDEX_BYTES))
        for group in footer.row_groups
        for chunk, _ in chunks_of(group.metadata)
    ]
    return [each for each in found if each is not None]


def test_page_indexes_lead_to_the_same_pages() -> None:
    """The offset indexes of the new file hold the bytes of the sources' pages, the column indexes are the sources'."""
    files = [written(rows(0, 1000)), written(rows(1000, 1300))]
    whole = merge(*files)
    pages = [[file[at : at + size] for at, size in chunk] for file in files for chunk in offset_indexes(file)]
    assert [[whole[at : at + size] for at, size in chunk] for chunk in offset_indexes(whole)] == pages
    assert max(map(len, pages)) > 3
    assert column_indexes(whole) == [each for file in files for each in column_indexes(file)]
    assert len(column_indexes(whole)) == len(pages)


def duckdb_file(path: Path, start: int, stop: int) -> bytes:
    """Have DuckDB write a file with field ids, Bloom filters and several row groups."""
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT i AS id, 'text ' || (i % 50) AS text, (i / 1000)::DECIMAL(20, 3) AS price, [i] AS list,"
            f" {{'x': i}} AS struct FROM range({start}, {stop}) t(i)) TO '{path}'"
            " (FORMAT parquet, FIELD_IDS 'auto', ROW_GROUP_SIZE 2048)"
        )
    return path.read_bytes()


def test_files_of_duckdb_are_copied_too(tmp_path: Path) -> None:
    """Both engines read the same, and its Bloom filters still tell what is not there."""
    files = [duckdb_file(tmp_path / "a", 0, 5000), duckdb_file(tmp_path / "b", 5000, 9000)]
    whole = merge(*files)
    assert table_of(whole).equals(pa.concat_tables(map(table_of, files)))
    (tmp_path / "sources").mkdir()
    for condition in ("true", "text = 'text 17'", "text = 'nowhere'", "id = 7001"):
        expected = counts_by_duckdb(files, tmp_path / "sources", condition)
        assert counts_by_duckdb([whole], tmp_path, condition) == expected
    with duckdb.connect() as connection:
        for text, excluded in (("nowhere", True), ("text 17", False)):
            probe = "SELECT DISTINCT bloom_filter_excludes FROM parquet_bloom_probe(?, 'text', ?)"
            assert connection.execute(probe, [str(tmp_path / "0.parquet"), text]).fetchall() == [(excluded,)]


def test_a_file_without_rows_adds_none() -> None:
    """Its row group is empty, and the next one's offsets are right."""
    files = [written(rows(0, 0)), written(rows(0, 500)), written(rows(0, 0))]
    assert cells(table_of(merge(*files))) == cells(rows(0, 500))


def test_key_values_that_all_agree_on_are_kept() -> None:
    """Others are dropped: of which file would they be?"""
    schemas = [SCHEMA.with_metadata({"same": "1", "other": place}) for place in "ab"]
    files = [written(rows(0, 9).cast(schema), store_schema=True) for schema in schemas]
    found = pq.read_metadata(io.BytesIO(merge(*files))).metadata
    assert found == {b"same": b"1"}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        pytest.param(
            written(rows(0, 9).rename_columns(["ID", *SCHEMA.names[1:]])), "column ID of the schema", id="name"
        ),
        pytest.param(written(rows(0, 9).drop_columns("map")), "column schema of the schema", id="fewer"),
        pytest.param(
            written(rows(0, 9).set_column(1, SCHEMA.field(1).with_type(pa.int64()), pa.array(range(9), "int64"))),
            "column small of the schema",
            id="type",
        ),
        pytest.param(
            written(rows(0, 9).cast(SCHEMA.set(0, SCHEMA.field(0).with_metadata({"PARQUET:field_id": "99"})))),
            "column id of the schema",
            id="field-id",
        ),
        pytest.param(
            written(rows(0, 9), compression="gzip"), "column id is compressed with gzip, not zstd", id="codec"
        ),
        pytest.param(written(rows(0, 9), compression="zstd", version="1.0"), "file 1 cannot share", id="version"),
    ],
)
def test_other_files_are_refused(other: bytes, said: str) -> None:
    """Files that do not declare the same columns, or compress them otherwise: the error names both and what differs."""
    with pytest.raises(DataError, match=f"file 1 cannot share a file with file 0: |{said}") as caught:
        merge(written(rows(0, 9), compression="zstd"), other)
    assert said in str(caught.value)


def test_files_of_other_writers_are_refused(tmp_path: Path) -> None:
    """Readers judge statistics and bugs by who wrote the bytes, which one footer can say of one writer only."""
    file = duckdb_file(tmp_path / "a", 0, 10)
    footer = footer_of(file)
    other = rewritten(file, footer.metadata.changed({File.CREATED_BY: (BINARY, b"parquet-mr version 1.8.0")}))
    with pytest.raises(DataError, match=r"created_by is 'parquet-mr version 1.8.0', not 'DuckDB"):
        merge(file, other)


def test_no_file_and_too_many_row_groups_are_refused() -> None:
    """A row group's ordinal has 15 bits."""
    with pytest.raises(DataError, match="no file"):
        merged([])
    footer = footer_of(written(rows(0, 64), row_group_size=1, write_page_index=False))
    with pytest.raises(DataError, match="32768 row groups do not fit"):
        merged([footer] * 512)


def rewritten(file: bytes, metadata: Struct) -> bytes:
    """Give a file another footer."""
    length = int.from_bytes(file[-8:-4], "little")
    footer = encode(metadata)
    return file[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1"


SOUND = written(rows(0, 500))


def chunk(fields: dict[int, Any]) -> bytes:
    """Change the first column chunk of the sound file's footer."""
    metadata = footer_of(SOUND).metadata
    group, *groups = metadata.structs(File.GROUPS)
    first, *others = group.structs(Group.CHUNKS)
    group = group.changed({Group.CHUNKS: (LIST, Elements(STRUCT, [first.changed(fields), *others]))})
    return rewritten(SOUND, metadata.changed({File.GROUPS: (LIST, Elements(STRUCT, [group, *groups]))}))


def column(fields: dict[int, Any]) -> bytes:
    """Change the ColumnMetaData of the first column chunk."""
    first = footer_of(SOUND).metadata.structs(File.GROUPS)[0].structs(Group.CHUNKS)[0]
    metadata = first.struct(Chunk.METADATA)
    assert metadata is not None
    return chunk({Chunk.METADATA: (STRUCT, metadata.changed(fields))})


@pytest.mark.parametrize(
    ("file", "said"),
    [
        pytest.param(b"", "0 bytes are no Parquet file", id="empty"),
        pytest.param(b"PAR1" * 2, "8 bytes are no Parquet file", id="short"),
        pytest.param(SOUND[:-1], "it ends with", id="cut"),
        pytest.param(SOUND[:-8] + b"\xff\xff\xff\x7fPAR1", "a footer of 2147483655 bytes", id="length"),
        pytest.param(SOUND[:-8] + b"\x09\0\0\0PAR1", "", id="half-a-footer"),
        pytest.param(SOUND[:-4] + b"PARE", "encrypted", id="encrypted-footer"),
        pytest.param(
            rewritten(SOUND, footer_of(SOUND).metadata.changed({File.ENCRYPTION: (STRUCT, Struct())})),
            "encrypted",
            id="encrypted",
        ),
        pytest.param(chunk({Chunk.CRYPTO: (STRUCT, Struct())}), "encrypted", id="encrypted-column"),
        pytest.param(chunk({Chunk.FILE: (BINARY, b"x.parquet")}), "another file, 'x.parquet'", id="elsewhere"),
        pytest.param(chunk({Chunk.METADATA: None}), "no metadata", id="no-metadata"),
        pytest.param(column({Column.COMPRESSED_BYTES: (I64, 2000)}), "leave a gap at byte", id="gap"),
        pytest.param(column({Column.COMPRESSED_BYTES: (I64, 9999)}), "overlap at byte", id="overlap"),
        pytest.param(column({Column.DICTIONARY: (I64, 1)}), "a gap at byte", id="at-1"),
        pytest.param(column({Column.DATA: (BINARY, b"x")}), "field 9 is no integer", id="kind"),
        pytest.param(column({Column.COMPRESSED_BYTES: (I64, -1)}), "field 7 is negative", id="negative"),
    ],
)
def test_what_cannot_be_copied_is_refused(file: bytes, said: str) -> None:
    """No Parquet file, a damaged or an encrypted one, or columns that are no range: the error says so."""
    with pytest.raises(DataError, match="data/x: its row groups cannot be copied: ") as caught:
        Footer.read("data/x", file, len(file))
    assert said in str(caught.value)


@given(at=st.integers(0, 10_000), bits=st.integers(1, 255))
@settings(max_examples=300)
def test_damage_is_a_data_error_or_unseen(at: int, bits: int) -> None:
    """Whatever byte of the footer flips, reading and merging end, with a DataError if with one."""
    footer = int.from_bytes(SOUND[-8:-4], "little") + 8
    place = len(SOUND) - 1 - at % footer
    damaged = SOUND[:place] + bytes([SOUND[place] ^ bits]) + SOUND[place + 1 :]
    try:
        found = Footer.read("x", damaged, len(damaged))
        if isinstance(found, Footer):
            merged([found, found])
    except DataError:
        pass


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({Column.BLOOM: (I64, len(SOUND) - 500)}, id="of-unknown-length"),
        pytest.param({Column.BLOOM: (I64, 100), Column.BLOOM_BYTES: (I32, 50)}, id="among-row-groups"),
    ],
)
def test_bloom_filters_that_would_have_to_be_read_are_dropped(fields: dict[int, Any]) -> None:
    """Where their length is not known, or they are not with the footer: readers do without."""
    (_, found), *_ = chunks_of(footer_of(merge(column(fields))).row_groups[0].metadata)
    assert (Column.BLOOM in found, Column.BLOOM_BYTES in found) == (False, False)


def test_fields_that_are_not_known_are_kept_or_refused() -> None:
    """What a later format says of a chunk stays with it; what it says of a file must be said of all."""
    news = {99: (BINARY, b"news")}
    (later, _), *_ = chunks_of(footer_of(merge(SOUND, chunk(news))).row_groups[2].metadata)
    assert later[99] == news[99]
    with pytest.raises(DataError, match="a field that is not known here"):
        merge(SOUND, rewritten(SOUND, footer_of(SOUND).metadata.changed(news)))


def test_more_of_the_file_is_asked_for() -> None:
    """First the trailer, then the footer, then what stands between it and the row groups; never more than that."""
    trailer = Footer.read("x", b"", len(SOUND))
    assert trailer == Wanted(8)
    footer = Footer.read("x", SOUND[-8:], len(SOUND))
    assert footer == Wanted(int.from_bytes(SOUND[-8:-4], "little") + 8)
    assert isinstance(footer, Wanted)
    indexes = Footer.read("x", SOUND[-footer.last_bytes :], len(SOUND))
    assert indexes == Wanted(len(SOUND) - footer_of(SOUND).row_groups[-1].span.stop)


# ---------------------------------------------------------------------------------------------------------------------
# Our own files, whose row groups have checksums


@pytest.fixture
def own(catalog: Catalog) -> tuple[Lake, list[ObjectInfo], list[bytes]]:
    """Write three files of a table, each of several row groups."""
    lake = Lake.create(catalog, properties={"write.parquet.row-group-limit": "70"})
    files = [
        lake.write(TEN, [in_bucket(0, events(TEN, range(place * 200, place * 200 + 200)))])[0] for place in range(3)
    ]
    infos = [lake.now.files.head(file.path) for file in files]
    assert all(infos)
    return lake, [info for info in infos if info], [lake.now.files.get(file.path).body for file in files]


def test_checksums_are_of_the_row_groups(own: tuple[Lake, list[ObjectInfo], list[bytes]]) -> None:
    """What our footers record is what the bytes of each row group add up to; so does what a copy records."""
    _, _, files = own
    for file in [*files, merge(*files)]:
        groups = footer_of(file).row_groups
        assert [group.crc64nvme for group in groups] == [
            crc64nvme(file[group.span.start : group.span.stop]) for group in groups
        ]
        assert len(groups) in (3, 9)


def test_checksums_of_other_row_groups_are_left_alone(own: tuple[Lake, list[ObjectInfo], list[bytes]]) -> None:
    """Who rewrites a file may take its key-value metadata along: they tell nothing then."""
    table = table_of(own[2][0])
    footer = footer_of(written(table, store_schema=True))
    assert [group.crc64nvme for group in footer.row_groups] == [None] * len(footer.row_groups)


def test_copies_are_composed_on_storage(own: tuple[Lake, list[ObjectInfo], list[bytes]]) -> None:
    """From the sources' objects, with their checksums; Iceberg is told what it was told of the files together."""
    lake, infos, files = own
    made = merged([footer_of(file) for file in files])
    url = infos[0].url.replace(".parquet", "-merged.parquet")
    assert lake.now.files.compose(url, made.content(infos), if_absent=True).size == made.size
    body = LakehouseFileIO().get(url).body
    assert body == assembled(made, files)
    assert table_of(body).equals(pa.concat_tables(map(table_of, files)))
    told = column_statistics(pq.read_metadata(io.BytesIO(body)), lake.now.table.schema(), {}, {})
    assert (told["value_counts"][1], told["split_offsets"][0], len(told["split_offsets"])) == (600, 4, 9)

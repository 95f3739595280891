import pytest

from lakehouse_pipeline.config.properties import property_problems
from lakehouse_pipeline.config.types import Column

COLUMNS = (Column(name="id", type="long"), Column(name="point", type="struct<x:int,y:int>"))
_ONE_OR_MORE = "is no number of one or more; write one, such as 1048576"
_LAYOUT = "is not honoured here; take it out: keys of files are those of Iceberg's own object-storage layout"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("write.parquet.compression-codec", "ZSTD"),
        ("write.parquet.compression-codec", "uncompressed"),
        ("write.parquet.compression-level", "22"),
        ("write.parquet.row-group-size-bytes", "134217728"),
        ("write.metadata.metrics.default", "truncate(32)"),
        ("write.metadata.metrics.column.id", "full"),
        ("write.metadata.metrics.column.point.x", "none"),
        ("write.object-storage.enabled", "False"),
        ("write.data.path", "s3://data/events"),
        ("write.delete.mode", "merge-on-read"),
        ("my.own", "anything"),
    ],
)
def test_what_may_be_set(key: str, value: str) -> None:
    """Values that we honour, and properties that only other writers read."""
    assert property_problems({key: value}, COLUMNS) == []


@pytest.mark.parametrize(
    ("properties", "problem"),
    [
        pytest.param(
            {"write.parquet.compression-codec": "lzo"},
            "'lzo' is not supported; write zstd, gzip, brotli, lz4, snappy or uncompressed",
            id="codec",
        ),
        pytest.param(
            {"write.parquet.compression-level": "23"}, "'23' is no level of zstd; write 1 to 22", id="level too high"
        ),
        pytest.param(
            {"write.parquet.compression-level": "best"}, "'best' is no level of zstd; write 1 to 22", id="level of text"
        ),
        pytest.param(
            {"write.parquet.compression-level": "10", "write.parquet.compression-codec": "gzip"},
            "'10' is no level of gzip; write 1 to 9",
            id="level of another codec",
        ),
        pytest.param(
            {"write.parquet.compression-level": "1", "write.parquet.compression-codec": "snappy"},
            "snappy has no levels; take it out, or write write.parquet.compression-codec: zstd",
            id="no levels",
        ),
        pytest.param({"write.parquet.row-group-size-bytes": "128MB"}, f"'128MB' {_ONE_OR_MORE}", id="size with a unit"),
        pytest.param({"write.parquet.row-group-limit": "0"}, f"'0' {_ONE_OR_MORE}", id="no rows"),
        pytest.param(
            {"write.metadata.metrics.default": "truncate"},
            "'truncate' is no metrics mode; write none, counts, truncate(16) or full",
            id="metrics mode",
        ),
        pytest.param(
            {"write.metadata.metrics.column.idd": "full"},
            "there is no column 'idd'; did you mean 'id'?",
            id="metrics of no column",
        ),
        pytest.param(
            {"write.object-storage.enabled": "yes please"},
            "'yes please' is not supported; write true or false",
            id="switch",
        ),
        pytest.param(
            {"write.target-file-size-bytes": "1"},
            "is not honoured here; write the key `file_size` of the spec",
            id="file size",
        ),
        pytest.param({"write.py-location-provider.impl": "a.B"}, _LAYOUT, id="location provider"),
        pytest.param(
            {"write.parquet.bloom-filter-enabled.column.id": "true"},
            "is not honoured here; take it out, and sort by the column: bloom filters are not written",
            id="bloom filter",
        ),
        pytest.param(
            {"write.wap.enabled": "true"},
            "'true' is not supported; write false: hours are committed to main",
            id="write, audit, publish",
        ),
        pytest.param(
            {"encryption.key-id": "k"},
            "is not honoured here; take it out, and let the bucket encrypt: encrypted files are not written",
            id="encryption",
        ),
    ],
)
def test_what_is_refused(properties: dict[str, str], problem: str) -> None:
    """A value that would fail or be passed over in the middle of an hour is a problem of the spec, with the way out."""
    assert property_problems(properties, COLUMNS) == [((next(iter(properties)),), problem)]


def test_a_wrong_codec_is_one_problem() -> None:
    """Its level is not judged by another codec."""
    wrong = {"write.parquet.compression-codec": "lzo", "write.parquet.compression-level": "99"}
    assert [path for path, _ in property_problems(wrong, COLUMNS)] == [("write.parquet.compression-codec",)]


def test_columns_that_are_not_known_yet_are_not_judged() -> None:
    """Only the Parquet files of the source know them then."""
    assert property_problems({"write.metadata.metrics.column.idd": "full"}, None) == []

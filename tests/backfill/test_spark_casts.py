"""Which stored columns Spark's own readers are given."""

import pyarrow as pa
import pytest

from lakehouse_pipeline.backfill.spark_casts import is_taken

UTC_US = pa.timestamp("us", "UTC")


@pytest.mark.parametrize(
    ("stored", "wanted", "taken"),
    [
        (pa.int64(), pa.int64(), "both"),
        (pa.int8(), pa.int32(), "both"),
        (pa.null(), pa.decimal128(9, 2), "both"),
        (pa.dictionary(pa.int32(), pa.string()), pa.string(), "both"),
        (pa.timestamp("ms", "UTC"), UTC_US, "both"),
        (pa.int32(), pa.int64(), "wider"),
        (pa.float32(), pa.float64(), "wider"),
        (pa.decimal128(5, 1), pa.decimal128(9, 2), "wider"),
        (pa.timestamp("us"), UTC_US, "wider"),
        (pa.uint8(), pa.int32(), "wider"),
        (pa.int64(), pa.int32(), ""),
        (pa.int64(), pa.float64(), ""),
        (pa.float64(), pa.int64(), ""),
        (pa.float64(), pa.float32(), ""),
        (pa.binary(), pa.string(), ""),
        (pa.decimal128(9, 2), pa.decimal128(9, 1), ""),
        (pa.decimal128(9, 2), pa.decimal128(9, 3), ""),
        (pa.uint64(), pa.int64(), ""),
        (pa.float16(), pa.float32(), ""),
        (pa.timestamp("ns", "UTC"), UTC_US, ""),
        (pa.date32(), UTC_US, ""),
        (pa.duration("us"), pa.int64(), ""),
    ],
    ids=str,
)
def test_what_loses_nothing_is_taken(stored: pa.DataType, wanted: pa.DataType, taken: str) -> None:
    """The same type always, a wider one where the engine widens, and nothing that could lose a value."""
    assert is_taken(stored, wanted, source_format="parquet", widens=False) == (taken == "both")
    assert is_taken(stored, wanted, source_format="parquet", widens=True) == (taken != "")


def test_orc_has_nanoseconds_always() -> None:
    """What pyarrow calls nanoseconds there is ORC's only timestamp."""
    assert is_taken(pa.timestamp("ns", "UTC"), UTC_US, source_format="orc", widens=True)

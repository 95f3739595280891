"""The foreign tables are what they say: many small files in the hour, and the delete files that others write."""

import pytest
from pyiceberg.catalog import Catalog

from lakehouse_pipeline.iceberg.reachability import reached
from tests.iceberg.lake import TEN
from tests.oracle.foreign import SHAPES, rows_of, sql_name
from tests.oracle.jvm import EQUALITY_DELETES, POSITION_DELETES, Jvm

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(1200)]  # the first test may have to install Spark

DELETES = {
    "merge_on_read": {POSITION_DELETES},
    "equality_deletes": {EQUALITY_DELETES},
    "unpartitioned_deletes": {EQUALITY_DELETES},
    "spec_evolution": {POSITION_DELETES},
    "deletes_of_two_specs": {POSITION_DELETES, EQUALITY_DELETES},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape(jvm: Jvm, rest_catalog: Catalog, shape: str) -> None:
    """It is made, has small files enough to compact, and delete files of the expected kinds; we reach all of them."""
    foreign = SHAPES[shape](jvm, rest_catalog)
    name = sql_name(foreign.lake)
    (files,) = jvm.sql(f"SELECT count(*) AS n FROM {name}.data_files WHERE partition.at_hour = {TEN.ordinal}")
    assert files["n"] >= 5
    assert jvm.sql(f"SELECT * FROM {name} WHERE hour(at) = 11")
    deletes = jvm.sql(f"SELECT content, count(*) AS n FROM {name}.delete_files GROUP BY content")
    assert {row["content"] for row in deletes} == DELETES.get(shape, set())
    assert rows_of(jvm, foreign.lake) == foreign.rows
    assert reached(foreign.lake.now.table) == foreign.lake.reached()

"""The JVM's Iceberg reads what every engine made of the conformance suite's cases."""

import pytest

from tests.conformance.cases import CASES
from tests.conformance.engines import ENGINES, Engines
from tests.oracle.jvm import Jvm

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("engine", ENGINES)
def test_every_table_is_read(jvm: Jvm, conformance: Engines, engine: str) -> None:
    """Of each table the rows, the sum of their ids, and the values of every column that are there."""
    ran = conformance.ran(engine)
    queries, expected = [], {}
    for name, case in CASES.items():
        if case.rows and engine not in case.refused:
            table = ran.catalog.load_table(f"lake.{name}")
            columns = [field.name for field in table.schema().fields]
            counts = " || ',' || ".join(f"count({column})" for column in columns)
            view = jvm.view(table.metadata_location)
            queries.append(f"SELECT '{name}' AS name, sum(id) AS ids, {counts} AS counts FROM {view}")
            rows = [{"at": True, **row} for row in case.rows]
            there = ",".join(str(sum(row[column] is not None for row in rows)) for column in columns)
            expected[name] = (sum(row["id"] for row in rows), there)
    read = {row["name"]: (row["ids"], row["counts"]) for row in jvm.sql(" UNION ALL ".join(queries))}
    assert read == expected

"""Every case on every engine: the same rows, or the same error."""

import math
import re

import pytest

from tests.conformance.cases import HOT_KEY, Case
from tests.conformance.engines import ENGINES, Engines
from tests.conformance.odd_inputs import CASES


def same(one: object, other: object) -> bool:
    """Compare values; NaN is itself."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and one == other


@pytest.mark.timeout(900)  # the first one waits for all cases of its engine
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("engine", ENGINES)
def test_case(conformance: Engines, engine: str, case: Case) -> None:
    """The table holds the case's rows, value by value; or the hour failed with the case's words."""
    ran = conformance.ran(engine)
    result = ran.results[case.name]
    wanted_rows = case.differs.get(engine, case.rows)
    said = case.refused.get(engine) or (case.error if wanted_rows is None else None)
    if said is not None:
        assert re.search(said, result["error"]), result["error"]
        return
    assert result["error"] == ""
    expected = sorted(wanted_rows or [], key=lambda row: (row["id"], str(row)))
    rows = ran.rows(case)
    assert len(rows) == len(expected) == result["rows"]
    wrong = [(row, wanted) for row, wanted in zip(rows, expected, strict=True) if not same(row, wanted)]
    assert wrong == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("engine", ENGINES)
def test_one_hot_key_is_no_giant_task(conformance: Engines, engine: str) -> None:
    """Of an hour that is one key for the most part, no bucket has twice its share of the rows."""
    buckets = conformance.ran(engine).rows_by_bucket(HOT_KEY)
    assert len(buckets) > 3
    assert max(buckets.values()) < 2 * sum(buckets.values()) / len(buckets)

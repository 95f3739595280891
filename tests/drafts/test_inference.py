from datetime import UTC, datetime

import pytest

from lakehouse_pipeline.drafts.inference import Guess, columns_of, instants, type_of_json, type_of_texts

_NO_ZONE = "has no time zone; write timestamptz if it is UTC"
_NULLS = "only nulls in the sample: is it a string?"
_MIXED = "left out: its values are of several kinds, which no type reads"
_LARGE = "numbers that are too large for a long"


@pytest.mark.parametrize(
    ("texts", "guess"),
    [
        pytest.param(["1", "-20", "0"], Guess("long"), id="whole numbers"),
        pytest.param(["1", "2.5", "-.5", "1e3"], Guess("double"), id="numbers"),
        pytest.param(["1", "007"], Guess("string"), id="leading zeros"),
        pytest.param(["+4930123"], Guess("string"), id="plus sign"),
        pytest.param(["9223372036854775808"], Guess("string", _LARGE), id="too large for a long"),
        pytest.param(["1e999"], Guess("string"), id="too large for a double"),
        pytest.param(["0x10"], Guess("string"), id="hexadecimal"),
        pytest.param(["nan", "1.0"], Guess("string"), id="no number"),
        pytest.param(["true", "False"], Guess("boolean"), id="truths"),
        pytest.param(["0", "1"], Guess("long"), id="zeros and ones"),
        pytest.param(["2024-01-31"], Guess("date"), id="days"),
        pytest.param(["2024-01-31T05:00:00Z", "2024-01-31 05:00:00+01:00"], Guess("timestamptz"), id="with a zone"),
        pytest.param(["2024-01-31T05:00:00", "2024-01-31"], Guess("timestamp", _NO_ZONE), id="without a zone"),
        pytest.param(["2024-02-30"], Guess("string"), id="no day of the calendar"),
        pytest.param(["31/01/2024 05:00"], Guess("string"), id="another form"),
        pytest.param(["a", "1"], Guess("string"), id="words"),
        pytest.param([""], Guess("string"), id="empty string"),
        pytest.param([], Guess("string", _NULLS), id="nulls"),
    ],
)
def test_types_of_texts(texts: list[str], guess: Guess) -> None:
    """The narrowest type that reads every value and gives it back as it was."""
    assert type_of_texts(texts) == guess


@pytest.mark.parametrize(
    ("values", "guess"),
    [
        pytest.param([1, None, 2], Guess("long"), id="whole numbers"),
        pytest.param([1, 2.5], Guess("double"), id="numbers"),
        pytest.param([2**63], Guess("decimal(38,0)", _LARGE), id="large numbers"),
        pytest.param([True, False], Guess("boolean"), id="truths"),
        pytest.param(["1", "2"], Guess("string"), id="strings are no numbers"),
        pytest.param(["2024-01-31T05:00:00Z"], Guess("timestamptz"), id="timestamps"),
        pytest.param([1, "a"], Guess(None, _MIXED), id="numbers and strings"),
        pytest.param([1, True], Guess(None, _MIXED), id="numbers and truths"),
        pytest.param([None], Guess("string", _NULLS), id="nulls"),
        pytest.param([[1], [], [2, None]], Guess("list<long>"), id="lists"),
        pytest.param([[]], Guess("list<string>", _NULLS), id="empty lists"),
        pytest.param([[1, "a"]], Guess(None, _MIXED), id="lists of several kinds"),
        pytest.param([{"a": 1}, {"b": {"c": ["x"]}}], Guess("struct<a:long,b:struct<c:list<string>>>"), id="objects"),
        pytest.param(
            [{"a": 1, "b.c": 2, "d:e": 3, "A": 4, "f": [1, "x"]}],
            Guess("struct<a:long>", "without 'b.c', 'd:e', 'A', 'f'"),
            id="objects with names that no type holds",
        ),
        pytest.param([{}], Guess(None, "left out: an empty object"), id="empty objects"),
    ],
)
def test_types_of_json(values: list[object], guess: Guess) -> None:
    """JSON tells kinds apart; what is of several kinds is no column."""
    assert type_of_json(values) == guess


def test_columns_of_rows_that_differ() -> None:
    """Every name that a row has is a column."""
    assert columns_of([{"a": 1}, {"b": "x", "a": None}]) == {"a": Guess("long"), "b": Guess("string")}


def test_instants_are_utc() -> None:
    """An offset is taken off; what has none is UTC, as the readers take it."""
    assert instants(["2024-01-31T05:00:00+01:00", "2024-01-31T05:00"]) == (
        datetime(2024, 1, 31, 4, tzinfo=UTC),
        datetime(2024, 1, 31, 5, tzinfo=UTC),
    )

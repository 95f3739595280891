import pytest
from pydantic import ValidationError

from lakehouse_pipeline.config.model import SpecModel, sentences
from lakehouse_pipeline.config.table import SortField, TableSpec
from lakehouse_pipeline.config.types import Column


class _Parent(SpecModel):
    columns: tuple[Column, ...]
    number: int = 0


def _refused(data: object) -> ValidationError:
    with pytest.raises(ValidationError) as refused:
        _Parent.model_validate(data)
    return refused.value


def test_a_problem_of_a_part_keeps_its_path_and_its_sentence() -> None:
    """Models explain themselves once, however deep they stand in others."""
    error = _refused({"columns": [{"name": "a", "type": "strng"}, {"name": "b"}]})
    assert sentences(error) == [
        (("columns", 0, "type"), "'strng' is no type; did you mean 'string'?"),
        (("columns", 1, "type"), "is missing; add it"),
    ]


def test_no_error_shows_the_value() -> None:
    """Not even pydantic's own text of it, which tracebacks print."""
    assert "hunter2" not in str(_refused({"columns": (), "number": "hunter2"}))


def test_models_are_frozen() -> None:
    """A spec never changes after it was read."""
    field = SortField(column="a")
    with pytest.raises(ValidationError, match="frozen"):
        field.column = "b"  # type: ignore[misc]  # what is tested


def test_every_key_that_people_write_says_what_it_is() -> None:
    """Only what follows from the file's place has no description, and so is no key."""
    silent = [name for name, field in TableSpec.model_fields.items() if not field.description]
    assert silent == ["name", "file"]

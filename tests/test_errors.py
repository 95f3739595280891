"""The error tree is the one that its module draws."""

import inspect
import re

import pytest

from lakehouse_pipeline import errors
from lakehouse_pipeline.errors import ConfigurationError, DataError, LakehouseError

DRAWN = re.findall(r"^     [|`]- (\w+)", errors.__doc__ or "", re.MULTILINE)


def test_the_tree_is_as_drawn() -> None:
    """The docstring names every class of the module, all of them right below the root."""
    classes = [item for _, item in inspect.getmembers(errors, inspect.isclass)]
    assert sorted([*DRAWN, "LakehouseError"]) == sorted(item.__name__ for item in classes)
    assert {item.__mro__[1] for item in classes if item is not LakehouseError} == {LakehouseError}


@pytest.mark.parametrize("kind", [DataError, ConfigurationError])
def test_wrong_input_is_a_value_error_too(kind: type[LakehouseError]) -> None:
    """Libraries that call us, such as pydantic, know what a ValueError means."""
    assert issubclass(kind, ValueError)


def test_no_other_error_is_a_value_error() -> None:
    """A handler of ValueError does not catch what has to be retried or read back."""
    others = [getattr(errors, name) for name in DRAWN if name not in {"DataError", "ConfigurationError"}]
    assert len(others) == 4
    assert not any(issubclass(kind, ValueError) for kind in others)

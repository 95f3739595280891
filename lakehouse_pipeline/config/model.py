"""The base of our pydantic models: frozen, no unknown keys, and errors as short sentences.

A validator raises `ConfigurationError` for one problem and `several` for many. No message holds pydantic's wording,
and none echoes a value unless the validator chose to.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from lakehouse_pipeline.config.problems import KeyPath, did_you_mean

_SENTENCE = "sentence"  # pydantic's type of an error whose message is ours already
_KINDS: dict[type, str] = {dict: "a mapping", list: "a list", str: "text"}
_MAPPING = "a mapping of keys to values"
_SHAPES = {
    "dict_type": _MAPPING,
    "literal_error": "text",
    "mapping_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "model_type": _MAPPING,
    "path_type": "text",
    "string_type": "text",
    "tuple_type": "a list, such as [a, b]",
}


class SpecModel(BaseModel):
    """A part of a YAML file. A field with a description is a key that people write; one without is filled in."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="wrap")
    @classmethod
    def _in_sentences(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            found = [(detail["loc"], _sentence(cls, detail)) for detail in error.errors(include_url=False)]
        raise several(found)


def several(found: Iterable[tuple[KeyPath, str]]) -> ValidationError:
    """Make one error of many problems, each at its path below the field or model that is validated."""
    return ValidationError.from_exception_data(
        "spec",
        [InitErrorDetails(type=PydanticCustomError(_SENTENCE, text), loc=path, input=None) for path, text in found],
        hide_input=True,
    )


def sentences(error: ValidationError) -> list[tuple[KeyPath, str]]:
    """Give the problems of an error that a `SpecModel` raised, each with its path."""
    return [(detail["loc"], detail["msg"]) for detail in error.errors(include_url=False)]


def kind(value: object) -> str:
    """Name the shape of a value without showing it."""
    return _KINDS.get(type(value), type(value).__name__)


def _sentence(model: type[BaseModel], detail: ErrorDetails) -> str:
    code, value, key = detail["type"], detail["input"], str(detail["loc"][-1]) if detail["loc"] else ""
    if code == "literal_error" and isinstance(value, str):
        return f"{value!r} is not supported; write {detail['ctx']['expected']}"
    if code in _SHAPES:
        return f"must be {_SHAPES[code]}, not {kind(value)}"
    if code == "missing":
        return f"is missing; add {_written(model).get(key, 'it')}"
    if code == "extra_forbidden":
        return f"is no key here; {did_you_mean(key, _written(model))}"
    return str(detail["ctx"]["error"]) if code == "value_error" else detail["msg"]


def _written(model: type[BaseModel]) -> Mapping[str, str]:
    return {name: field.description for name, field in model.model_fields.items() if field.description}

"""Transforms: Spark SQL in a file, or a Python function, as a spec names them.

The SQL's text is read here, since it is part of what a table is; nothing is parsed, imported or run.
"""

import keyword
import re
from pathlib import Path

from pydantic import Field

from lakehouse_pipeline.config.model import SpecModel, kind
from lakehouse_pipeline.errors import ConfigurationError

_NAME = "[A-Za-z_][A-Za-z0-9_]*"
_FUNCTION = re.compile(rf"({_NAME}(?:\.{_NAME})*):({_NAME})")


class SqlTransform(SpecModel):
    """Spark SQL over `source` and the joined views.

    Attributes:
        file: absolute.
        text: of the file.
    """

    file: Path = Field(repr=False)
    text: str = Field(repr=False)


class FunctionTransform(SpecModel):
    """A Python function over DataFrames.

    Attributes:
        module: dotted.
        function: a name in the module.
    """

    module: str
    function: str


Transform = SqlTransform | FunctionTransform


def read_transform(value: object, folder: Path) -> Transform:
    """Read `transform` of a spec that stands in `folder`.

    Raises:
        ConfigurationError: it is neither `….sql` nor `module:function`, or the file cannot be read or is empty.
    """
    if isinstance(value, Transform):
        return value
    if not isinstance(value, str):
        raise ConfigurationError(f"must be a .sql file or module:function, not {kind(value)}")
    if value.lower().endswith(".sql"):
        return _read_sql(value, folder)
    match = _FUNCTION.fullmatch(value)
    if not match or any(map(keyword.iskeyword, (*match[1].split("."), match[2]))):
        raise ConfigurationError(f"{value!r} is no transform; write a .sql file or module:function")
    return FunctionTransform(module=match[1], function=match[2])


def _read_sql(name: str, folder: Path) -> SqlTransform:
    file = folder / name
    try:
        text = file.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{name!r} cannot be read ({error.strerror}); it is sought beside the spec") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{name!r} is not UTF-8; save the file as UTF-8") from None
    if not text.strip():
        raise ConfigurationError(f"{name!r} is empty; write a SELECT over source, or take the key out")
    return SqlTransform(file=file, text=text)

"""Functions of transforms: their module is found beside the spec or on the Python path, and run as its file is now.

What a process imported earlier may be older than the file that the recipe speaks of, so nothing is taken from there.
The module is found without being run, and without Spark.
"""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.transform import FunctionTransform
from lakehouse_pipeline.errors import ConfigurationError

_MODULES_KEPT = 64


def module_file(spec: TableSpec, transform: FunctionTransform) -> Path:
    """Find the module's source: beside the spec, else on the Python path.

    Raises:
        ConfigurationError: there is none.
    """
    beside = spec.file.parent.joinpath(*transform.module.split("."))
    for file in (beside.with_suffix(".py"), beside / "__init__.py"):
        if file.is_file():
            return file
    try:
        found = importlib.util.find_spec(transform.module)
    except (ImportError, ValueError):  # of a parent, or a module without a spec such as __main__
        found = None
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        raise ConfigurationError(
            f"{spec.file}: transform: there is no module {transform.module} "
            "(looked beside the spec and on the Python path)"
        )
    return Path(found.origin)


def load_function(spec: TableSpec, transform: FunctionTransform) -> tuple[ModuleType, Callable[..., Any]]:
    """Give the function, with its module.

    Raises:
        ConfigurationError: the module cannot be run, or has no such function.
    """
    file = module_file(spec, transform)
    try:
        module = _module(transform.module, file, file.read_text(encoding="utf-8"), spec.file.parent)
    except Exception as error:
        raise ConfigurationError(
            f"{spec.file}: transform: {transform.module} cannot be imported: {fault(error, file)}"
        ) from error
    function = getattr(module, transform.function, None)
    if not callable(function):
        raise ConfigurationError(f"{spec.file}: transform: {transform.module} has no function {transform.function}")
    return module, function


def fault(error: Exception, file: Path) -> str:
    """Say an exception that a module raised, with the line of its file."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    line = error.lineno if isinstance(error, SyntaxError) else (lines or [None])[-1]
    said = error.msg if isinstance(error, SyntaxError) else next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {said} ({file}, line {line})"


@lru_cache(maxsize=_MODULES_KEPT)
def _module(name: str, file: Path, text: str, folder: Path) -> ModuleType:
    with _importable(folder):
        if parent := name.rpartition(".")[0]:
            importlib.import_module(parent)
        found = importlib.util.spec_from_file_location(name, file)
        if found is None:
            raise ImportError(f"{file} is no Python")
        module = importlib.util.module_from_spec(found)
        sys.modules[name] = module
        exec(compile(text, str(file), "exec"), vars(module))  # noqa: S102  # a spec's author may run any code
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let modules in a folder be imported."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))

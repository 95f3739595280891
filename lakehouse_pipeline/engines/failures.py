"""What Spark says when something failed, in our own errors.

One of ours that a task raised comes out as itself. Engines word their failures alike: a Python traceback, the JVM's
stack, or a sentence.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from py4j.protocol import Py4JError
from pyspark.errors import AnalysisException, PySparkException

from lakehouse_pipeline import errors
from lakehouse_pipeline.errors import ConfigurationError, DataError, LakehouseError

SPARK_ERRORS = (PySparkException, Py4JError)  # the second where PySpark has no class for what the JVM raised

_END = r"(?=\n\s*\n|\n\s+at |\nTraceback|\n SQLSTATE|\Z)"
_OURS = re.compile(rf"^lakehouse_pipeline\.[\w.]+\.(\w+): (.*?){_END}", re.DOTALL | re.MULTILINE)
_PYTHON = re.compile(
    rf'^  File "([^"]+)", line (\d+), in [^\n]+\n(?:    [^\n]*\n)*(?! )(.*?){_END}', re.DOTALL | re.MULTILINE
)
_CAUSE = re.compile(r"^(?:: |Caused by: )(org\.apache\.spark\..+)$", re.MULTILINE)
_READING = re.compile(r"\[FAILED_READ_FILE[.\w]*\] Encountered error while reading file (.+?)\.\s+SQLSTATE")
_CLASSES = re.compile(r"^.*\b[\w.]+(?:Exception|Error): (?=.)")
# SQL's classes of cardinality, data, constraints, syntax, and what raise_error raises.
_OF_THE_DATA = re.compile(
    r"SQLSTATE: (?:21|22|23|42|P0)|\[(?:CAST|NUMERIC|DIVIDE|ARITHMETIC|INVALID)_|CSV header does not conform"
    r"|Number of column in CSV header"
)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Say Spark's failures in our own errors: one of ours that a task raised comes out as itself.

    Raises:
        ConfigurationError: Spark does not understand the query.
        DataError: an expression or a function of the user's met a value that it cannot take.
        LakehouseError: what a task raised; or Spark itself failed.
        KeyboardInterrupt: it is what Spark failed of: PySpark asks for a job's result once more on its way out.
    """
    try:
        yield
    except AnalysisException as error:
        raise ConfigurationError(f"{doing}: {_said(str(error))}") from None
    except SPARK_ERRORS as error:
        raise _interruption(error) or _from_task(doing, str(error)) from error


def _interruption(error: BaseException) -> BaseException | None:
    """Find what interrupted this process while an error came up."""
    found: BaseException | None = error
    while isinstance(found, Exception):
        found = found.__context__
    return found


def _from_task(doing: str, text: str) -> LakehouseError:
    if found := _OURS.findall(text):
        name, message = found[-1]
        return _class_named(name)(message.strip())
    if found := _PYTHON.findall(text):
        file, line, message = found[-1]
        # In our own code it is no fault of the data.
        kind = LakehouseError if Path(errors.__file__).parent in Path(file).parents else DataError
        return kind(f"{doing}: {message.strip()} ({file}, line {line})")
    kind = DataError if _OF_THE_DATA.search(text) else LakehouseError
    return kind(f"{doing}: {_said(text)}")


def _said(text: str) -> str:
    """Give the sentence of an error, which Spark says with its query, or PySpark with the JVM's stack."""
    causes = _CAUSE.findall(text) or text.strip().splitlines()[:1] or ["Spark gave no reason"]
    file = _READING.search(text)
    return (f"{file[1]}: " if file else "") + _CLASSES.sub("", causes[-1]).strip(" :")


def _class_named(name: str) -> type[LakehouseError]:
    """Give the class of the error tree that stands for `name`.

    It is the class itself where a message is all that it is made of, else the one that it refines.
    """
    seen = [LakehouseError]
    for kind in seen:
        if kind.__name__ == name:
            refines = next(place for place, base in enumerate(kind.__mro__) if base.__module__ == errors.__name__)
            plain = not any("__init__" in vars(base) for base in kind.__mro__[:refines])
            return kind if plain else kind.__mro__[refines]
        seen += kind.__subclasses__()
    return LakehouseError

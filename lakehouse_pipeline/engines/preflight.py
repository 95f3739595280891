"""Before an hour starts on tasks that run elsewhere: whether these have what our package stands on, and see the store.

Everything that is wrong is said at once, with the host that it is wrong on.
"""

import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from weakref import WeakKeyDictionary

import pyarrow as pa
from pyspark import cloudpickle
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from lakehouse_pipeline.engines.capabilities import capabilities
from lakehouse_pipeline.engines.sessions import cores_of
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

# What tasks import; docs/engines.md names them, too.
LIBRARIES = ("pyarrow", "pyiceberg", "fastavro", "pydantic", "pyyaml", "numpy", "boto3", "anycrc", "tenacity")
# What is pickled here is read there.
_SAME_RELEASE = {"pyiceberg": 2, "pydantic": 1, "pyarrow": 0}  # parts of the version that have to agree

# The module whose functions tasks run: with it they import all that they need. By name, as it stands in a layer above.
_WORK = "lakehouse_pipeline.backfill.etl"

_TASKS_A_CORE = 2  # more than cores, so that every executor gets one
_COLUMNS = "host string, problem string"

Task = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
Objects = Sequence[tuple[LakehouseFileIO, str]]

# What was found good. Neither a FileIO nor a metadata file's URL will do for a key: both are new at every commit, and
# a FileIO holds credentials. Sessions that ended take their places along.
_checked: WeakKeyDictionary[SparkSession, set[str]] = WeakKeyDictionary()


def check_tasks(session: SparkSession, place: str, objects: Objects) -> None:
    """Run a small task on every executor, and ask it for its libraries and the stores; once for a place.

    Nothing is asked where tasks run here.

    Args:
        session: where the tasks run.
        place: what the objects stand for, such as a table's location; one that was found good is not asked for again.
        objects: that are there, one a store, each with the store as tasks get it.

    Raises:
        ConfigurationError: names what is wrong, and on which host.
    """
    if not capabilities(session).ships or place in _checked.get(session, ()):
        return
    _check(session, objects)
    _checked.setdefault(session, set()).add(place)


def _check(session: SparkSession, objects: Objects) -> None:
    tasks = cores_of(session) * _TASKS_A_CORE
    here = {name: importlib.metadata.version(name) for name in LIBRARIES}
    try:
        answers = session.range(0, tasks, 1, tasks).mapInArrow(question(here, _SAME_RELEASE, objects), _COLUMNS)
        rows = answers.toArrow().to_pylist()
    except PySparkException as error:
        raise ConfigurationError(f"engine: its tasks cannot do the work: {_said(error)}") from None
    problems = sorted({(row["problem"], row["host"]) for row in rows if row["problem"]})
    if problems:
        found = "".join(f"\n  {problem} (on {host})" for problem, host in problems)
        raise ConfigurationError(f"engine: its tasks cannot do the work:{found}")


def _said(error: PySparkException) -> str:
    said = str(error)
    if "PYTHON_VERSION_MISMATCH" not in said:
        return said.strip().partition("\n")[0]
    mine = f"{sys.version_info.major}.{sys.version_info.minor}"
    return (
        f"their Python is not the driver's {mine}; point PYSPARK_PYTHON there to a Python {mine}, "
        "or run the driver with theirs"
    )


def question(here: dict[str, str], same: dict[str, int], objects: Objects) -> Task:
    """Make the task that asks.

    Args:
        here: the driver's versions, by library.
        same: how many parts of a version have to agree; 0 for those that are not named.
        objects: that are there, each with its store.
    """
    look = cloudpickle.dumps(partial(seen, objects))  # type: ignore[no-untyped-call]

    # It travels by value, and imports where it is: whether our package is there is one of its questions.
    def ask(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import importlib.metadata as installed  # noqa: PLC0415
        import pickle  # noqa: PLC0415
        import socket  # noqa: PLC0415

        import pyarrow  # noqa: PLC0415, ICN001

        problems = []
        for name, wanted in here.items():
            try:
                there = installed.version(name)
            except installed.PackageNotFoundError:
                problems.append(f"{name} is not installed: install {name}=={wanted}, the driver's")
                continue
            if there.split(".")[: same.get(name, 0)] != wanted.split(".")[: same.get(name, 0)]:
                problems.append(f"{name} is {there}, the driver's is {wanted}: install the same")
        if not problems:
            try:
                problems = pickle.loads(look)()  # noqa: S301  # from the driver
            except Exception as error:  # noqa: BLE001  # whatever it is, the driver says it
                missed = f"our package cannot be imported ({type(error).__name__}: {error})"
                problems = [f"{missed}: install what it misses there"]
        for _ in batches:
            pass
        answers = [{"host": socket.gethostname(), "problem": problem} for problem in problems or [""]]
        fields = [("host", pyarrow.string()), ("problem", pyarrow.string())]
        yield pyarrow.RecordBatch.from_pylist(answers, schema=pyarrow.schema(fields))

    return ask


def seen(objects: Objects) -> list[str]:
    """Say in a task what is wrong with its view of the stores.

    Raises:
        Exception: something that our package stands on is not there.
    """
    importlib.import_module(_WORK)
    problems = []
    for files, url in objects:
        try:
            if files.head(url) is None:
                problems.append(f"{url} is not there: the store has to be one that every task sees")
        except Exception as error:  # noqa: BLE001  # whatever it is, the driver says it
            problems.append(f"{url} cannot be reached ({type(error).__name__}: {error})")
    return problems

"""Who does pieces of work that need no engine: threads of this process, tasks of a Spark session, or Ray.

One small interface: a picklable function of a picklable task. What fails in our own words is an answer; a worker that
is lost is the engine's to replace, which then begins its task anew.
"""

import os
import pickle
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from importlib.util import find_spec
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pyarrow as pa

from lakehouse_pipeline import errors
from lakehouse_pipeline.errors import ConfigurationError, LakehouseError, TransientError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Task = TypeVar("Task")
Result = TypeVar("Result")
Answers = Generator[tuple[int, Result | LakehouseError], None, None]

THREADS = 2
RAY_RETRIES = 3  # of a task whose worker was lost
RAY_ENDS_WITHIN_S = 30.0  # a task that was cancelled; where its machine does not answer it is left to the second pass
RAY_BEYOND_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # so in ray/_private/ray_constants.py, for Linux too
_ANSWER = pa.schema([("place", pa.int64()), ("answer", pa.binary())])

_check: ContextVar[Callable[[], object]] = ContextVar("check", default=lambda: None)


def check_wanted() -> None:
    """Raise, where nobody waits any more for the task that runs here; long ones call it now and then.

    Raises:
        LakehouseError: it is so.
    """
    _check.get()()


class Workers(Protocol):
    """Does work piece by piece.

    Attributes:
        remote: whether tasks may go on after this process has ended.
    """

    @property
    def remote(self) -> bool: ...  # noqa: D102  # above

    def run(self, call: Callable[[Task], Result], tasks: Sequence[Task]) -> Answers[Result]:
        """Give what `call` makes of each task, with the task's place, in the order in which they end.

        An error of ours is given in the place of a result; others, and an interruption, end all. No task goes on once
        the answers have ended, or are closed: whoever may stop in the middle of them closes them.
        """


@dataclass(frozen=True)
class ThreadWorkers:
    """Threads of this process.

    Attributes:
        threads: how many.
        remote: they end with this process.
    """

    threads: int = THREADS
    remote: bool = False

    def run(self, call: Callable[[Task], Result], tasks: Sequence[Task]) -> Answers[Result]:
        """Run as many at once as there are threads."""
        begun, ended = Event(), Event()

        def check() -> None:
            if ended.is_set():
                raise LakehouseError("nobody waits for it any more")

        def one(task: Task) -> Result | LakehouseError:
            begun.wait()  # until all threads are there: of one whose start is interrupted the pool does not know
            check()
            return _answered(call, task, check)

        pool = ThreadPoolExecutor(self.threads)
        try:
            futures = {pool.submit(copy_context().run, one, task): place for place, task in enumerate(tasks)}
            begun.set()
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            ended.set()
            begun.set()
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class SparkWorkers:
    """Tasks of a Spark session, each with one piece; a lost one is tried again as `spark.task.maxFailures` has it.

    Attributes:
        session: gives it, when there is work.
    """

    session: "Callable[[], SparkSession]"

    @property
    def remote(self) -> bool:
        """Whether they are on other machines."""
        from lakehouse_pipeline.engines.capabilities import capabilities  # noqa: PLC0415  # Spark, where it is used

        return not capabilities(self.session()).local_tasks

    def run(self, call: Callable[[Task], Result], tasks: Sequence[Task]) -> Answers[Result]:
        """Run all in one job, and give the answers when it has ended."""
        from lakehouse_pipeline.engines.failures import translated  # noqa: PLC0415  # Spark, where it is used
        from lakehouse_pipeline.engines.tasks import current_hold, ended_with, run_tasks  # noqa: PLC0415

        session = self.session()
        with ended_with(session, f"workers-{id(tasks)}"), translated("compact"):
            hold = current_hold()

            def one(number: int) -> Iterator[pa.RecordBatch]:
                answer = pickle.dumps(_portable(_answered(call, tasks[number], hold.check)))
                yield pa.RecordBatch.from_arrays([pa.array([number]), pa.array([answer])], schema=_ANSWER)

            answers = run_tasks(session, len(tasks), one, _ANSWER).toArrow().to_pylist() if tasks else []
        for row in answers:
            yield row["place"], pickle.loads(row["answer"])  # noqa: S301  # our own tasks wrote it


@dataclass(frozen=True)
class RayWorkers:
    """Tasks of a Ray cluster (extra `ray`), or of one on this machine where none is named by RAY_ADDRESS.

    Our package is there already, as Ray has it for whatever its tasks import.

    Attributes:
        remote: they may be on other machines.
        options: of Ray's `init`.

    Raises:
        ConfigurationError: Ray is not installed.
    """

    remote: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse before anything is begun."""
        if find_spec("ray") is None:
            raise ConfigurationError("Ray is not installed: pip install 'lakehouse-pipeline[ray]'")

    def run(self, call: Callable[[Task], Result], tasks: Sequence[Task]) -> Answers[Result]:
        """Run as many at once as the cluster has processors; the task alone fails whose worker is lost every time.

        Raises:
            TransientError: the cluster does not answer.
            LakehouseError: a task failed, not with an error of ours.
        """
        _keep_to_loopback(self.options)
        import ray  # noqa: PLC0415  # an extra

        try:
            if not ray.is_initialized():
                ray.init(**{"include_dashboard": False, "log_to_driver": False, **self.options})
        except ConnectionError as error:
            raise TransientError(f"Ray does not answer: {error}") from None
        answered: Any = ray.remote(max_retries=RAY_RETRIES)(_answered_portably)
        waiting: dict[Any, int] = {}
        try:
            for place, task in enumerate(tasks):
                waiting[answered.remote(call, task)] = place
            while waiting:
                (done,), _ = ray.wait(list(waiting))
                yield waiting.pop(done), _of_ray(done)
        finally:
            for left in waiting:
                ray.cancel(left, force=True)
            if waiting:  # a task that is cancelled has ended when its answer is there
                ray.wait(list(waiting), num_returns=len(waiting), timeout=RAY_ENDS_WITHIN_S)


def _keep_to_loopback(options: dict[str, Any]) -> None:
    """Keep a cluster that is started here to this machine: Ray would open its ports, which ask for no password, to all.

    Said before Ray is imported, which reads it then; what somebody has said stays. It is how Ray is on macOS anyway.
    """
    if not (options.get("address") or os.environ.get("RAY_ADDRESS")):
        os.environ.setdefault(RAY_BEYOND_LOOPBACK, "0")


def _of_ray(answer: Any) -> Any:
    import ray  # noqa: PLC0415  # an extra

    try:
        return ray.get(answer)
    except ray.exceptions.RayTaskError as error:
        raise LakehouseError(f"a task of Ray's failed: {error.cause!r}") from error
    except ray.exceptions.RayError as error:
        return LakehouseError(f"Ray lost a task {1 + RAY_RETRIES} times: {error}")


def _answered(
    call: Callable[[Task], Result], task: Task, check: Callable[[], object] = lambda: None
) -> Result | LakehouseError:
    token = _check.set(check)
    try:
        return call(task)
    except LakehouseError as error:
        return error
    finally:
        _check.reset(token)


def _answered_portably(call: Callable[[Task], Result], task: Task) -> Result | LakehouseError:
    return _portable(_answered(call, task))


def _portable(answer: Result | LakehouseError) -> Result | LakehouseError:
    """Give an answer that another process can read: an error that is made of more than words is left its words."""
    if not isinstance(answer, LakehouseError):
        return answer
    with suppress(Exception):  # whatever pickle has against it
        if str(pickle.loads(pickle.dumps(answer))) == str(answer):  # noqa: S301  # our own
            return answer
    kind = next(kind for kind in type(answer).__mro__ if kind.__module__ == errors.__name__)
    return kind(str(answer))  # type: ignore[no-any-return]  # the tree's errors are LakehouseErrors

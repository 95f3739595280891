"""Several calls side by side: as many at a time as there are threads, the rest not begun once one has failed.

Bounded, and over when it returns: no thread goes on behind the caller's back. The caller's context holds in them.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def side_by_side(call: Callable[[Argument], Result], arguments: Iterable[Argument], threads: int) -> list[Result]:
    """Call with each argument and give the results in their order; one argument or one thread needs no pool.

    Raises:
        Exception: the first failure in the arguments' order, after every call that had begun has ended.
    """
    told = list(arguments)
    if min(threads, len(told)) <= 1:
        return [call(argument) for argument in told]
    with ThreadPoolExecutor(min(threads, len(told))) as pool:
        futures = [pool.submit(copy_context().run, call, argument) for argument in told]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # also where the caller was interrupted
            pool.shutdown(wait=True, cancel_futures=True)
    # A call that failed was begun, so whatever stands before it ran, too: only later ones were cancelled.
    return [future.result() for future in futures]

"""What a block of code asks a local folder for, counted as the requests that S3 would get."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from lakehouse_pipeline.object_store.local import LocalStore

PAGE = 1_000  # objects of a listing
REQUESTS = {"head": 1, "get": 1, "put": 1, "delete": 1, "open_read": 2}  # the last asks for a size first


class Asked:
    """Requests so far."""

    def __init__(self) -> None:
        """Begin at none."""
        self._lock = threading.Lock()
        self.requests = 0

    def add(self, more: int) -> None:
        """Count some."""
        with self._lock:
            self.requests += more


@contextmanager
def asking() -> Iterator[Asked]:
    """Count what is asked for meanwhile, by all threads."""
    asked = Asked()
    with ExitStack() as patches:
        for name, each in REQUESTS.items():
            patches.enter_context(patch.object(LocalStore, name, _counted(getattr(LocalStore, name), asked, each)))
        for name in ("list_objects", "list_level"):
            patches.enter_context(patch.object(LocalStore, name, _listed(getattr(LocalStore, name), asked)))
        yield asked


def _counted(method: Callable[..., Any], asked: Asked, requests: int) -> Callable[..., Any]:
    def counted(*given: Any, **named: Any) -> Any:
        asked.add(requests)
        return method(*given, **named)

    return counted


def _listed(method: Callable[..., Iterator[Any]], asked: Asked) -> Callable[..., Iterator[Any]]:
    def listed(*given: Any) -> Iterator[Any]:
        asked.add(1)
        for place, item in enumerate(method(*given)):
            asked.add(1 if place and place % PAGE == 0 else 0)
            yield item

    return listed

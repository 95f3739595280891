"""What the sources ask of a store: four verbs, one protocol each. The store's errors pass through untouched."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol

from lakehouse_pipeline.errors import TransientError


class ObjectInfo(Protocol):
    """What a store knows of one object."""

    @property
    def url(self) -> str:
        """Where it is."""

    @property
    def size(self) -> int:
        """Its bytes."""

    @property
    def etag(self) -> str:
        """What changes with its content."""


class Lists(Protocol):
    """A store that can be looked at."""

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Give every object whose URL begins with `prefix`; a folder that does not exist holds none."""

    def head(self, url: str) -> ObjectInfo | None:
        """Give the object at `url`; None where there is none."""


class Reads(Protocol):
    """A store whose objects can be read."""

    def open_read(self, url: str, *, etag: str | None = None, size: int | None = None) -> BinaryIO:
        """Open the object, seekable and buffered; with `etag`, a changed object is a `TransientError`."""


@contextmanager
def listed(url: str) -> Iterator[None]:
    """Translate the absence of an object that was listed: its source changed, so that another attempt may succeed."""
    try:
        yield
    except FileNotFoundError as error:
        raise TransientError(f"{url} was listed but is gone: list again") from error

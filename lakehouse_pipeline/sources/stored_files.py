"""Files that bring their own columns, Parquet and ORC, before any row is judged: opening, parts, errors.

A part is what is read at once and alone: a row group of Parquet, a stripe of ORC.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import pyarrow as pa

from lakehouse_pipeline.errors import DataError
from lakehouse_pipeline.sources.stores import Reads, listed


class StoredFile(Protocol):
    """An open file.

    Attributes:
        schema: its columns in its own types.
        rows: rows of each part.
        sizes: bytes of each part on storage.
    """

    schema: pa.Schema
    rows: tuple[int, ...]
    sizes: tuple[int, ...]

    def batches(self, part: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Read columns of a part as they are stored, in the order of the file."""

    def bounds(self, part: int, name: str) -> tuple[int, int] | None:
        """Give the least and the greatest instant of a column in microseconds; None where it is not known for sure.

        None, too, where any value is null.
        """


class Opens(Protocol):
    """How files of one format are opened."""

    def __call__(self, io: Reads, url: str, etag: str, size: int) -> AbstractContextManager[StoredFile]:
        """Open an object and read its footer.

        Raises:
            DataError: it is no such file, truncated or damaged.
        """


@contextmanager
def in_our_words(url: str, what: str) -> Iterator[None]:
    """Translate Arrow's errors about a file that is no `what`.

    Raises:
        DataError: the file is no such file, truncated or damaged.
    """
    try:
        with listed(url):
            yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the store's, not the file's
        said = str(error).partition("\n")[0]
        raise DataError(f"{url} is no {what}, truncated or damaged ({said}): land it again") from error

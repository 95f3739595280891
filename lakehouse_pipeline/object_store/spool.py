"""An output stream that becomes an object as it is closed, and never before.

Bytes wait in memory, then in a temporary file, so that a failed request can send them again.
"""

import tempfile
from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO, Self, cast

SPOOL_BYTES = 8 * 1024 * 1024  # above this, a temporary file


class SpooledWriter:
    """Writes that are put at `close`; dropped where the `with` block raised or the stream is forgotten.

    Deliberately no `io.IOBase`: that closes forgotten streams as they are collected, which would put half an object.
    """

    def __init__(self, put: Callable[[BinaryIO], object]) -> None:
        """Hand all bytes to `put` at the end."""
        self._put = put
        self._spool = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115  # closed by discard

    @property
    def closed(self) -> bool:
        """Tell whether it was closed or discarded."""
        return self._spool.closed

    def readable(self) -> bool:
        """Tell that it cannot be read."""
        return False

    def writable(self) -> bool:
        """Tell that it can be written."""
        return True

    def seekable(self) -> bool:
        """Tell that it cannot be sought."""
        return False

    def write(self, b: bytes) -> int:
        """Take bytes."""
        return self._spool.write(b)

    def flush(self) -> None:
        """Do nothing: an object is written whole."""

    def tell(self) -> int:
        """Give the number of bytes taken."""
        return self._spool.tell()

    def close(self) -> None:
        """Put the object; a second close does nothing.

        Raises:
            LakehouseError: the put failed; what it raises comes through, and the bytes are dropped.
        """
        if self.closed:
            return
        try:
            self._put(cast("BinaryIO", self._spool))
        finally:
            self.discard()

    def discard(self) -> None:
        """Drop all bytes; nothing is put."""
        self._spool.close()

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the object, or drop it where the block raised."""
        if error is None:
            self.close()
        else:
            self.discard()

"""Rows that do not fit into memory, on local disk: uncompressed Arrow IPC streams in a folder that goes with them.

What is read here and there is mapped: its pages are the kernel's to keep or drop, and only what is copied out of them
takes memory. What is spilled, and how it is put together again, is up to who spills.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import pyarrow as pa

from lakehouse_pipeline.errors import TransientError


class Spill:
    """A folder of spilled rows: made with the first of them, and deleted at the end of the `with`."""

    def __init__(self, folder: Path) -> None:
        """Spill into a folder of its own within a folder that exists."""
        self._within = folder
        self._folder: TemporaryDirectory[str] | None = None
        self._files = 0

    def __enter__(self) -> Self:
        """Nothing is written yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delete whatever was spilled."""
        if self._folder is not None:
            self._folder.cleanup()

    def file(self, schema: pa.Schema) -> "SpillFile":
        """Begin a file.

        Raises:
            TransientError: the disk does not take it.
        """
        try:
            if self._folder is None:
                self._folder = TemporaryDirectory(prefix="spill-", dir=self._within)
            self._files += 1
            return SpillFile(Path(self._folder.name) / f"{self._files}.arrow", schema)
        except OSError as error:
            raise _refused(self._within, error) from error

    def table(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> pa.Table:
        """Write rows and map them.

        Raises:
            TransientError: the disk does not take them.
        """
        file = self.file(schema)
        for batch in batches:
            file.write(batch)
        return file.mapped()


class SpillFile:
    """One file of spilled rows."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        """Open it for writing."""
        self._path = path
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_stream(self._sink, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows.

        Raises:
            TransientError: the disk does not take them.
        """
        try:
            self._writer.write_batch(batch)
        except OSError as error:
            raise _refused(self._path.parent.parent, error) from error

    def mapped(self) -> pa.Table:
        """Close it, and give its rows where they are: for reading here and there.

        Raises:
            TransientError: the disk did not take the last of them.
        """
        self._close()
        return pa.ipc.open_stream(pa.memory_map(str(self._path))).read_all()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Close it, and read it once, from the beginning to the end; then it is deleted.

        Raises:
            TransientError: the disk did not take the last of its rows.
        """
        self._close()
        with pa.OSFile(str(self._path)) as source:
            yield from pa.ipc.open_stream(source)
        self._path.unlink()

    def _close(self) -> None:
        try:
            self._writer.close()
            self._sink.close()
        except OSError as error:
            raise _refused(self._path.parent.parent, error) from error


def _refused(folder: Path, error: OSError) -> TransientError:
    return TransientError(f"rows beyond the memory limit could not be kept in {folder}: {error}; give it more room")

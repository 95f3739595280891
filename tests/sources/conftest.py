"""Raw objects on local disk, and their rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources.bad_rows import BadRow
from lakehouse_pipeline.sources.listing import SourceObject, list_objects_of
from lakehouse_pipeline.sources.readers import batch_schema, read_split
from lakehouse_pipeline.sources.splits import plan_splits

WHOLE = 1 << 40  # bytes of a split that no test file has


@dataclass(frozen=True)
class Found:
    """What reading an object gave.

    Attributes:
        table: the good rows.
        bad: the bad rows.
    """

    table: pa.Table
    bad: Sequence[BadRow]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The good rows as Python values."""
        rows: list[dict[str, Any]] = self.table.to_pylist()
        return rows

    @property
    def faults(self) -> list[tuple[int, str | None, str]]:
        """Position, column and reason of each bad row."""
        return [(row.position, row.column, row.reason) for row in self.bad]


@pytest.fixture
def io() -> LakehouseFileIO:
    """Give a FileIO for local files."""
    return LakehouseFileIO()


@pytest.fixture
def land(io: LakehouseFileIO, tmp_path: Path) -> Callable[[str, bytes], SourceObject]:
    """Write an object, and list it."""

    def write(name: str, body: bytes) -> SourceObject:
        url = f"file://{tmp_path}/{name}"
        io.put(url, body)
        return list_objects_of(io, url)[0]

    return write


@pytest.fixture
def read(io: LakehouseFileIO, land: Callable[[str, bytes], SourceObject]) -> Callable[..., Found]:
    """Write an object and read it: the format is the first suffix of its name."""

    def read_body(
        name: str, body: bytes, schema: pa.Schema, *, provenance: bool = False, target_bytes: int = WHOLE
    ) -> Found:
        bad: list[BadRow] = []
        splits = plan_splits(io, [land(name, body)], name.split(".")[1], target_bytes=target_bytes)
        batches = [
            batch
            for split in splits
            for batch in read_split(io, split, schema, provenance=provenance, on_bad=bad.extend)
        ]
        return Found(pa.Table.from_batches(batches, batch_schema(schema, provenance=provenance)), bad)

    return read_body

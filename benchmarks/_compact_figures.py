"""The figures of `compact.py`: what is known of a table and of a writer's run, and how it is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Self

import numpy as np
import pyarrow.parquet as pq
from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFileContent, ManifestEntryStatus
from pyiceberg.types import PrimitiveType

from lakehouse_pipeline.iceberg.manifests import DATA
from tests.iceberg.lake import Lake

FILTERS = 50  # values of a column
COLUMNS = ("s", "of first", "CPU s", "of first", "peak MB", "of first", "others' CPU s")
OF_TABLE = ("files", "deletes", "row groups", "MB", "rows", "scan CPU s")


@dataclass(frozen=True)
class Size:
    """What a table is like.

    Attributes:
        files: of data.
        deletes: delete files.
        row_groups: as footers tell.
        bytes: on storage.
        rows: of the data files, deleted ones included.
        scan: seconds of processors that a reader of all of it takes; None where deletes would have to be applied.
        opened: files that filters on a value of a column open, in the mean, by column.
    """

    files: int
    deletes: int
    row_groups: int
    bytes: int
    rows: int
    scan: float | None = None
    opened: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, lake: Lake, scan: float | None, filters: Sequence[str]) -> Self:
        """Read it from the live files."""
        table = lake.now
        files = list(table.all_live())
        data = [file for file in files if file.content == DATA]
        groups = 0
        for file in data:
            with table.files.open_read(file.path, size=file.bytes) as body:
                groups += pq.read_metadata(body).num_row_groups
        sums = sum(file.bytes for file in files), sum(file.rows for file in data)
        return cls(len(data), len(files) - len(data), groups, *sums, scan, _opened(lake, filters))


def _opened(lake: Lake, names: Sequence[str]) -> dict[str, float]:
    """Count the files whose bounds do not rule out a value, for some values that are there."""
    table = lake.now.table
    files = [
        entry.data_file
        for entry in (lake.entries() if names else ())
        if entry.status != ManifestEntryStatus.DELETED and entry.data_file.content == DataFileContent.DATA
    ]
    found = {}
    for name in names:
        column = table.schema().find_field(name)
        kind = column.field_type
        assert isinstance(kind, PrimitiveType)
        values = np.sort(table.scan(selected_fields=(name,)).to_arrow()[name].to_numpy())  # the same for each writer
        picked = np.random.default_rng(0).choice(values, FILTERS)
        low, high = (
            np.array([from_bytes(kind, bounds[column.field_id]) for bounds in every])
            for every in ([file.lower_bounds for file in files], [file.upper_bounds for file in files])
        )
        within = (low[None, :] <= picked[:, None]) & (picked[:, None] <= high[None, :])
        found[name] = float(within.sum(axis=1).mean())
    return found


@dataclass(frozen=True)
class Measured:
    """A writer's compaction.

    Attributes:
        seconds: by the clock.
        cpu: of the processors that its processes took.
        others: of the processors that all others took meanwhile, the server's among them.
        peak: bytes.
        strategies: ours: how it was done.
        after: the table then.
    """

    seconds: float
    cpu: float
    others: float
    peak: int
    strategies: Sequence[str]
    after: Size

    @classmethod
    def typical(cls, runs: Sequence["Measured"]) -> "Measured":
        """Take the median seconds, the least to scan, and the most memory."""
        seconds = {name: median(getattr(run, name) for run in runs) for name in ("seconds", "cpu", "others")}
        after = min((run.after for run in runs), key=lambda size: size.scan or 0.0)
        return cls(**seconds, peak=max(run.peak for run in runs), strategies=runs[0].strategies, after=after)


def heading(filters: Sequence[str]) -> str:
    """Give the table's first two lines."""
    opened = [f"opened by {name}" for name in (*filters, "mean")] if filters else []
    names = ["writer", *COLUMNS, *OF_TABLE, *opened]
    return f"| {' | '.join(names)} |\n| --- |{' ---: |' * (len(names) - 1)}"


def before_row(size: Size) -> str:
    """Show the table that all begin with."""
    return f"| before | {' | '.join([''] * len(COLUMNS) + _cells(size))} |"


def row(writer: str, run: Measured, first: Measured) -> str:
    """Show a writer's run, and what it took beside the first's."""
    cells = (
        f"{run.seconds:.2f}",
        f"{run.seconds / first.seconds:.2f}",
        f"{run.cpu:.2f}",
        f"{run.cpu / first.cpu:.2f}",
        f"{run.peak / 1e6:.0f}",
        f"{run.peak / first.peak:.2f}",
        f"{run.others:.1f}",
        *_cells(run.after),
    )
    how = f" ({', '.join(run.strategies)})" if run.strategies else ""
    return f"| {writer}{how} | {' | '.join(cells)} |"


def _cells(size: Size) -> list[str]:
    scan = "" if size.scan is None else f"{size.scan:.2f}"
    whole = [size.files, size.deletes, size.row_groups, f"{size.bytes / 1e6:.0f}", f"{size.rows:,}", scan]
    opened = [*size.opened.values()]
    mean = [float(np.mean(opened))] if opened else []
    return [*map(str, whole), *(f"{each:.1f}" for each in (*opened, *mean))]

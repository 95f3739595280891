"""What an hour of a table is taken to be: its bytes, its files, its seconds.

Figures come from whoever asks, else from hours of the table that were run before, else they are assumed; each says
which.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lakehouse_pipeline.backfill.known_hours import KnownHours
from lakehouse_pipeline.backfill.placement import bucket_count, share_of
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.ledger.records import began_at

ASSUMED_LEAST_S, ASSUMED_BYTES_PER_S = 5.0, 25e6  # of an hour's ETL where nothing is known; ours, and said so
LEAST_S = 1e-3


@dataclass(frozen=True)
class Asked:
    """What somebody says, in place of what can be found out.

    Attributes:
        bytes_: of an hour's files in the table.
        files: of an hour.
        etl_s: seconds of an hour.
        at_most: hours at once that the engine has room for.
        force: unchanged hours are run, too.
    """

    bytes_: int | None = None
    files: int | None = None
    etl_s: float | None = None
    at_most: int | None = None
    force: bool = False

    def __post_init__(self) -> None:
        """Refuse what no hour has."""
        for name, said, least in (
            ("bytes", self.bytes_, 0),
            ("files", self.files, 1),
            ("seconds", self.etl_s, LEAST_S),
            ("at most", self.at_most, 1),
        ):
            if said is not None and not least <= said < math.inf:
                raise ConfigurationError(f"{name}: {said} is out of bounds; {least} is the least")

    @property
    def all(self) -> bool:
        """Tell whether nothing is left to find out."""
        return None not in (self.bytes_, self.files, self.etl_s)


NOTHING_SAID = Asked()


@dataclass(frozen=True)
class Figure:
    """A figure of an hour, and where it is from.

    Attributes:
        value: the figure.
        origin: in words.
        assumed: neither said nor measured.
    """

    value: float
    origin: str
    assumed: bool = False


def figures(
    spec: TableSpec, known: KnownHours, todo: Sequence[HourWindow], asked: Asked
) -> tuple[Figure, Figure, Figure]:
    """Give bytes, files and seconds of an hour."""
    source = statistics.fmean(_source_bytes(spec, known, hour) for hour in todo)
    run = [each for each in known.measured.values() if each.seal.files and not each.rewritten]
    sizes = Figure(float(asked.bytes_), "as said") if asked.bytes_ is not None else _bytes(spec, known, source)
    return (
        sizes,
        _files(spec, sizes, asked, [each.seal.files for each in run], (todo[0], source)),
        _seconds(
            source, asked, [(each.seal.at - began_at(each.attempt)).total_seconds() for each in run if each.seal.at]
        ),
    )


def _files(
    spec: TableSpec, sizes: Figure, asked: Asked, measured: Sequence[int], source: tuple[HourWindow, float]
) -> Figure:
    if asked.files is not None:
        return Figure(float(asked.files), "as said")
    if measured and asked.bytes_ is None:
        return Figure(statistics.fmean(measured), f"the mean of {_were_run(len(measured))}")
    hour, read = source
    by_size = math.ceil(sizes.value / spec.file_size)
    planned = bucket_count(spec, hour, round(read / share_of(spec, hour)), 1) if spec.sort else 1
    if planned > by_size:
        return Figure(float(planned), "as many as its source has bytes for: buckets are planned before it is read")
    return Figure(float(by_size), "as many as files of the spec's size")


def _seconds(source: float, asked: Asked, measured: Sequence[float]) -> Figure:
    if asked.etl_s is not None:
        return Figure(asked.etl_s, "as said")
    if measured:
        return Figure(statistics.median(measured), f"the median of {_were_run(len(measured))}")
    assumed = ASSUMED_LEAST_S + source / ASSUMED_BYTES_PER_S
    said = f"assumed: {ASSUMED_LEAST_S:.0f} s, and {ASSUMED_BYTES_PER_S / 1e6:.0f} MB of its source a second"
    return Figure(assumed, said, assumed=True)


def _bytes(spec: TableSpec, known: KnownHours, source: float) -> Figure:
    written = {hour: each.seal.bytes for hour, each in known.measured.items() if each.seal.files}
    read = sum(_source_bytes(spec, known, hour) for hour in written)
    if read and source:
        ratio = sum(written.values()) / read
        return Figure(ratio * source, f"{ratio:.2f} for each of its source, as in {_were_run(len(written))}")
    if written:
        return Figure(statistics.fmean(written.values()), f"the mean of {_were_run(len(written))}")
    return Figure(source, "assumed: as many as its source has", assumed=True)


def _were_run(hours: int) -> str:
    return f"{hours} hours that were run" if hours > 1 else "an hour that was run"


def _source_bytes(spec: TableSpec, known: KnownHours, hour: HourWindow) -> float:
    """Give the bytes of an hour's source that are the hour's own; 0 where nobody looked."""
    return known.inputs[hour].bytes * share_of(spec, hour) if hour in known.inputs else 0.0

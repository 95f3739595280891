"""Splits: the pieces of an hour's objects that one task reads. Planned on the driver, small enough to ship."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.sources import orc_files, parquet_files
from lakehouse_pipeline.sources.listing import SourceObject
from lakehouse_pipeline.sources.stored_files import Opens
from lakehouse_pipeline.sources.stores import Reads

OPENS: Mapping[str, Opens] = {"parquet": parquet_files.opened, "orc": orc_files.opened}  # formats with parts
FORMATS = ("jsonl", "csv", *OPENS)

_CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4", ".br": "brotli"}
_REFUSED = (".snappy", ".xz", ".zip", ".7z")
# Work per stored byte, against plain text: what text shrinks to, times what the codec costs to undo.
_WEIGHTS = {None: 1, "gzip": 6, "bz2": 12, "zstd": 6, "lz4": 3, "brotli": 8}
_STORED_WEIGHT = 2


@dataclass(frozen=True)
class Split:
    """A piece of one object, with everything that a task needs to read it.

    Attributes:
        url: the object.
        etag: the object as it was listed; a changed one is not read.
        size: bytes of the whole object.
        format: `jsonl`, `csv`, `parquet` or `orc`.
        compression: `gzip`, `bz2`, `zstd`, `lz4` or `brotli`; None for plain text, and for Parquet and ORC.
        start: first byte of the range.
        length: bytes of the range; text owns the lines that start in it.
        row_groups: the row groups of Parquet, or the stripes of ORC, to read; None: all.
    """

    url: str
    etag: str
    size: int
    format: str
    compression: str | None
    start: int
    length: int
    row_groups: tuple[int, ...] | None

    @property
    def is_range(self) -> bool:
        """Whether this is a byte range of a text object, whose lines are known by their byte offsets."""
        return self.length < self.size and self.row_groups is None

    @property
    def work(self) -> int:
        """Estimated effort, in bytes of plain text."""
        weight = _STORED_WEIGHT if self.format in OPENS else _WEIGHTS[self.compression]
        return self.length * weight


def plan_splits(
    io: Reads, objects: Sequence[SourceObject], source_format: str, *, target_bytes: int
) -> tuple[Split, ...]:
    """Cut the objects: Parquet by row groups, ORC by stripes, plain text by byte ranges, compressed text not at all.

    Only footers are read, and only those of Parquet and ORC objects larger than `target_bytes`.

    Raises:
        ConfigurationError: the format or a suffix's compression is not known; names every object at fault.
        DataError: an object is no Parquet, or no ORC.
    """
    if source_format not in FORMATS:
        raise ConfigurationError(f"{source_format!r} is no format that is read here; there are {', '.join(FORMATS)}")
    if target_bytes < 1:
        raise ConfigurationError(f"splits of {target_bytes} bytes cannot be made")
    refused = [o.url for o in objects if o.url.endswith(_REFUSED)]
    if refused and source_format not in OPENS:
        codecs = ", ".join(_CODECS)
        raise ConfigurationError(f"this compression cannot be read, only {codecs}: {'; '.join(refused)}")
    return tuple(split for o in objects for split in _splits_of(io, o, source_format, target_bytes))


def balance(splits: Sequence[Split], tasks: int) -> tuple[tuple[Split, ...], ...]:
    """Spread the splits over at most `tasks` tasks of about the same work, largest first; no task is empty.

    The same splits give the same tasks, in whatever order they come.
    """
    bins: list[list[Split]] = [[] for _ in range(min(tasks, len(splits)))]
    loads = [(0, number) for number in range(len(bins))]
    for split in sorted(splits, key=lambda s: (-s.work, s.url, s.start, s.row_groups or ())):
        load, number = heapq.heappop(loads)
        bins[number].append(split)
        heapq.heappush(loads, (load + max(split.work, 1), number))
    return tuple(tuple(content) for content in bins)


def _splits_of(io: Reads, source: SourceObject, source_format: str, target_bytes: int) -> Iterator[Split]:
    if source_format in OPENS:
        yield from _stored_splits(io, source, source_format, target_bytes)
        return
    compression = next((codec for suffix, codec in _CODECS.items() if source.url.endswith(suffix)), None)
    step = max(source.size, 1) if compression else target_bytes
    for start in range(0, max(source.size, 1), step):
        length = min(step, source.size - start)
        yield Split(source.url, source.etag, source.size, source_format, compression, start, length, None)


def _stored_splits(io: Reads, source: SourceObject, source_format: str, target_bytes: int) -> Iterator[Split]:
    if source.size <= target_bytes:
        yield Split(source.url, source.etag, source.size, source_format, None, 0, source.size, None)
        return
    with OPENS[source_format](io, source.url, source.etag, source.size) as file:
        sizes = file.sizes
    for start, length, parts in _grouped(sizes, target_bytes):
        yield Split(source.url, source.etag, source.size, source_format, None, start, length, parts)


def _grouped(sizes: Sequence[int], target_bytes: int) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Join neighbours up to the target; each is given with the bytes before it, its bytes and its row groups."""
    start = 0
    groups: list[int] = []
    for group, size in enumerate(sizes):
        length = sum(sizes[n] for n in groups)
        if groups and length + size > target_bytes:
            yield start, length, tuple(groups)
            start, groups = start + length, []
        groups.append(group)
    if groups:
        yield start, sum(sizes[n] for n in groups), tuple(groups)

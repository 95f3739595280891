"""What is to be compacted: groups of files, hour by hour, with how, why, and about what it takes.

Which files, and why, is `plan`'s to decide; who compacts them reads nothing else.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from lakehouse_pipeline.config.compaction import Strategy
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.manifests import LiveFile
from lakehouse_pipeline.planning.units import show_count

# Bytes on storage that one worker gets through in a second, measured (docs/performance.md), and what S3 asks for
# requests in us-east-1 (https://aws.amazon.com/s3/pricing/): for a plan's estimates only.
BYTES_PER_S: Mapping[Strategy, float] = {"copy": 150e6, "rewrite": 40e6, "sort": 25e6, "zorder": 20e6, "merge": 25e6}
DOLLARS_PER_PUT, DOLLARS_PER_GET = 5e-6, 4e-7
PART_BYTES, RANGE_BYTES = 32 * 1024**2, 8 * 1024**2
COMMIT_PUTS = 12  # of the ledger, manifests and the snapshot


@dataclass(frozen=True)
class FileGroup:
    """Files of an hour that are compacted together.

    Attributes:
        files: data files, the oldest first.
        deletes: delete files that may apply to them.
        strategy: how.
        reason: why so.
        why: says what makes them worth it.
        outputs: files that they become, about.
    """

    files: tuple[LiveFile, ...]
    deletes: tuple[LiveFile, ...]
    strategy: Strategy
    reason: str
    why: str
    outputs: int

    @property
    def bytes(self) -> int:
        """Bytes on storage of the data files."""
        return sum(file.bytes for file in self.files)

    @property
    def seconds(self) -> float:
        """What it takes one worker, about."""
        return (self.bytes + sum(file.bytes for file in self.deletes)) / BYTES_PER_S[self.strategy]

    @property
    def dollars(self) -> float:
        """What its requests cost on S3, about."""
        gets = sum(max(1, math.ceil(file.bytes / RANGE_BYTES)) for file in (*self.files, *self.deletes))
        puts = max(self.outputs, math.ceil(self.bytes / PART_BYTES)) + len(self.files) + len(self.deletes)
        return gets * DOLLARS_PER_GET + (puts + COMMIT_PUTS) * DOLLARS_PER_PUT


@dataclass(frozen=True)
class HourToCompact:
    """An hour, some of whose files are written anew.

    Attributes:
        hour: the hour.
        groups: of its files.
        dangling: delete files that then apply to no data file, by their metadata: they go, too.
    """

    hour: HourWindow
    groups: tuple[FileGroup, ...]
    dangling: tuple[LiveFile, ...] = ()

    @property
    def files(self) -> int:
        """Data files that are compacted."""
        return sum(len(group.files) for group in self.groups)

    @property
    def bytes(self) -> int:
        """Bytes on storage that are read, and about as many are written."""
        return sum(group.bytes for group in self.groups)

    @property
    def outputs(self) -> int:
        """Files that they become, about."""
        return sum(group.outputs for group in self.groups)

    def __str__(self) -> str:
        """Say what is done, how and why."""
        said = [f"{each.strategy} {each.why} into {each.outputs} ({each.reason})" for each in self.groups]
        return "; ".join(said) or f"remove {show_count(len(self.dangling), 'delete file')} without effect"


@dataclass(frozen=True)
class CompactionPlan:
    """What is to be compacted.

    Attributes:
        hours: in time order.
        left: hours that are left alone although they have files that are worth it, and why.
        seen: says what was looked at.
    """

    hours: tuple[HourToCompact, ...]
    left: Mapping[HourWindow, str]
    seen: str = ""

    @classmethod
    def of_parts(cls, plans: Iterable[Self]) -> Self:
        """Join the plans of a table's parts, which are in time order."""
        told = list(plans)
        left = {hour: why for plan in told for hour, why in plan.left.items()}
        return cls(tuple(hour for plan in told for hour in plan.hours), left, "; ".join(plan.seen for plan in told))

    @property
    def seconds(self) -> float:
        """What it takes one worker, about."""
        return sum(group.seconds for hour in self.hours for group in hour.groups)

    @property
    def dollars(self) -> float:
        """What its requests cost on S3, about."""
        return sum(group.dollars for hour in self.hours for group in hour.groups)

    def paths(self) -> Iterator[str]:
        """Name all files that go."""
        for hour in self.hours:
            yield from (file.path for group in hour.groups for file in group.files)
            yield from (file.path for file in hour.dangling)

"""Which hours are worth compacting: from Iceberg's metadata alone, by Iceberg's own rules and defaults.

Source: apache/iceberg's SizeBasedFileRewritePlanner, as `rewrite_data_files` uses it: its options' names and defaults.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.manifests import LiveFile

TARGET_BYTES = 512 * 1024**2
LEAST, MOST = 0.75, 1.8  # of the target
MIN_INPUT_FILES = 5
MAX_GROUP_BYTES = 100 * 1024**3
DELETE_RATIO = 0.3
DATA, EQUALITY_DELETES = 0, 2  # kinds of files


@dataclass(frozen=True)
class Rules:
    """When files are worth compacting.

    Attributes:
        target_bytes: of a file that is written.
        min_bytes: a smaller file is compacted.
        max_bytes: a larger one, too.
        min_files: so many have to come together, unless they are more than a file.
        max_group_bytes: an hour of more is left alone.
        delete_ratio: of a partition's rows, which position deletes take: from here on they are written away.
    """

    target_bytes: int = TARGET_BYTES
    min_bytes: int = int(LEAST * TARGET_BYTES)
    max_bytes: int = int(MOST * TARGET_BYTES)
    min_files: int = MIN_INPUT_FILES
    max_group_bytes: int = MAX_GROUP_BYTES
    delete_ratio: float = DELETE_RATIO

    @classmethod
    def of(cls, properties: Mapping[str, str]) -> Self:
        """Take the target from a table's `write.target-file-size-bytes`, and the rest from that.

        Raises:
            ConfigurationError: it is no size.
        """
        text = properties.get("write.target-file-size-bytes", str(TARGET_BYTES))
        if not text.isdecimal() or not int(text):
            raise ConfigurationError(
                f"the table's write.target-file-size-bytes is {text!r}; set it to a number of bytes"
            )
        target = int(text)
        return cls(target, int(LEAST * target), int(MOST * target))


@dataclass(frozen=True)
class HourToCompact:
    """An hour whose files are written anew.

    Attributes:
        hour: the hour.
        files: all of its live files.
        why: says which of them are worth it.
        outputs: files that they become, about.
    """

    hour: HourWindow
    files: tuple[LiveFile, ...]
    why: str
    outputs: int

    @property
    def bytes(self) -> int:
        """Bytes on storage that are read, and about as many are written."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class CompactionPlan:
    """What is to be compacted.

    Attributes:
        hours: in time order.
        left: hours that are left alone although they have files that are worth it, and why.
    """

    hours: tuple[HourToCompact, ...]
    left: Mapping[HourWindow, str]


def plan_compaction(
    files: Iterable[LiveFile], busy: Collection[HourWindow], rules: Rules, now: datetime, after: timedelta
) -> CompactionPlan:
    """Decide; nothing is read or changed.

    Args:
        files: live ones of the table, delete files included.
        busy: hours that have an attempt under way.
        rules: when files are worth it.
        now: in UTC.
        after: how long an hour has to be over.

    Files that may be of several hours are left alone.
    """
    of_hour = defaultdict[HourWindow, list[LiveFile]](list)
    for file in files:
        if file.hour is not None:
            of_hour[HourWindow.from_ordinal(file.hour)].append(file)
    chosen, left = [], dict[HourWindow, str]()
    for hour, found in sorted(of_hour.items()):
        why = _worth(found, rules)
        if not why:
            continue
        if reason := _obstacle(hour, found, busy, rules, now - after):
            left[hour] = reason
        else:
            outputs = sum(math.ceil(_data_bytes(part) / rules.target_bytes) for part in _partitions(found))
            chosen.append(HourToCompact(hour, tuple(sorted(found, key=lambda file: file.path)), why, outputs))
    return CompactionPlan(tuple(chosen), left)


def _worth(files: list[LiveFile], rules: Rules) -> str:
    """Say what is worth it: files of the wrong size that come together in a partition, or many deleted rows."""
    count = size = deleted = 0
    for part in _partitions(files):
        data = [file for file in part if file.content == DATA]
        wrong = [file.bytes for file in data if not rules.min_bytes <= file.bytes <= rules.max_bytes]
        together, total = len(wrong), sum(wrong)
        if (together > 1 and (together >= rules.min_files or total > rules.target_bytes)) or total > rules.max_bytes:
            count, size = count + together, size + total
        gone = sum(file.rows for file in part if file.content != DATA)
        deleted += gone if gone and gone >= rules.delete_ratio * sum(file.rows for file in data) else 0
    said = [f"{count} files of {size / count / 1e6:.3f} MB on average"] if count else []
    return " and ".join([*said, *([f"{deleted} deleted rows"] if deleted else [])])


def _obstacle(
    hour: HourWindow, files: list[LiveFile], busy: Collection[HourWindow], rules: Rules, settled: datetime
) -> str:
    if hour.end > settled:
        return "is not over for long enough (maintenance.compact_after)"
    if hour in busy:
        return "has an attempt under way"
    if deletes := sum(file.content == EQUALITY_DELETES for file in files):
        return f"has {deletes} files of equality deletes, which are not applied yet"
    if (total := sum(file.bytes for file in files)) > rules.max_group_bytes:
        return f"has {total / 1e6:.0f} MB, more than a group may have"
    return ""


def _partitions(files: list[LiveFile]) -> list[list[LiveFile]]:
    parts = defaultdict[tuple[int, str], list[LiveFile]](list)
    for file in files:
        parts[file.spec_id, file.partition].append(file)
    return list(parts.values())


def _data_bytes(files: list[LiveFile]) -> int:
    return sum(file.bytes for file in files if file.content == DATA)

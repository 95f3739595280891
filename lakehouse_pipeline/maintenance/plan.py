"""Which files are worth compacting, and how: from Iceberg's metadata alone, by Iceberg's own rules and defaults.

Source: apache/iceberg's SizeBasedFileRewritePlanner and BinPackRewriteFilePlanner, as `rewrite_data_files` uses them.
Where delete files are of several data files their rows are shared out, so that they count, too; Iceberg's planner
leaves them out.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Self

from lakehouse_pipeline.config.compaction import CompactSettings, Strategy
from lakehouse_pipeline.config.table import FILE_SIZE
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.copied_files import packed
from lakehouse_pipeline.iceberg.deletes import DeleteIndex, Place
from lakehouse_pipeline.iceberg.manifests import DATA, POSITION_DELETES, LiveFile
from lakehouse_pipeline.maintenance.compaction_plan import CompactionPlan, FileGroup, HourToCompact
from lakehouse_pipeline.planning.units import show_bytes, show_count

LEAST, MOST = 0.75, 1.8  # of the target


@dataclass(frozen=True)
class Rules:
    """When files are worth compacting, and how.

    Attributes:
        settings: of the table's spec.
        target_bytes: of a file that is written.
        sort_order_id: the table's sort order; 0 where it has none.
        spec_id: the partition spec that files are written for.
        unpartitioned: specs without fields.
    """

    settings: CompactSettings = field(default_factory=CompactSettings)
    target_bytes: int = FILE_SIZE
    sort_order_id: int = 0
    spec_id: int = 0
    unpartitioned: frozenset[int] = frozenset()

    @classmethod
    def of(
        cls,
        settings: CompactSettings,
        file_size: int,
        properties: Mapping[str, str],
        **of_table: Any,
    ) -> Self:
        """Take the target from a table's `write.target-file-size-bytes`, and the other attributes as they are.

        Args:
            settings: of the table's spec.
            file_size: the spec's, which is the target where the table tells none: backfills write files of that size.
            properties: of the table.
            of_table: the other attributes.

        Raises:
            ConfigurationError: it is no size, or files of that size would be compacted again and again.
        """
        text = properties.get("write.target-file-size-bytes", str(file_size))
        if not text.isdecimal() or not int(text):
            raise ConfigurationError(
                f"the table's write.target-file-size-bytes is {text!r}; set it to a number of bytes"
            )
        rules = cls(settings, int(text), **of_table)
        for name, bound, fits in (
            ("min_file_size", rules.min_bytes, rules.min_bytes < rules.target_bytes),
            ("max_file_size", rules.max_bytes, rules.max_bytes > rules.target_bytes),
        ):
            if not fits:
                raise ConfigurationError(
                    f"compact.{name} is {bound} bytes, and files are written of {rules.target_bytes}, the table's "
                    "target: they would be compacted again and again; write one on the other side of it"
                )
        return rules

    @property
    def min_bytes(self) -> int:
        """A smaller file is compacted."""
        least = self.settings.min_file_size
        return int(LEAST * self.target_bytes) if least is None else least

    @property
    def max_bytes(self) -> int:
        """A larger file is compacted."""
        most = self.settings.max_file_size
        return int(MOST * self.target_bytes) if most is None else most

    @property
    def keeps_order(self) -> bool:
        """Whether files are to be in the table's sort order."""
        own = self.settings.strategy in {None, "sort"} and not self.settings.columns
        return bool(self.sort_order_id) and own


def plan_compaction(
    files: Iterable[LiveFile], busy: Collection[HourWindow], rules: Rules, settled: datetime, *, whole: bool = True
) -> CompactionPlan:
    """Decide; nothing is read or changed.

    Args:
        files: live ones of the table, delete files included.
        busy: hours that have an attempt under way.
        rules: when files are worth it, and how they are compacted.
        settled: hours that were over by then may be compacted; in UTC.
        whole: whether the files are all that the table has.

    Data files that may be of several hours are left alone.
    """
    found = list(files)
    of_hour, far = _by_hour(found)
    chosen, left = [], dict[HourWindow, str]()
    for hour, own in sorted(of_hour.items()):
        data = [file for file in own if file.content == DATA]
        near = [file for file in own if file.content != DATA]
        near += [file for file in far if file.span.meets((hour.ordinal,))]
        index = DeleteIndex.of(near, rules.unpartitioned)
        groups = tuple(_groups(data, near, index, rules))
        rewritten = {file.path for group in groups for file in group.files}
        stay = [file for file in data if file.path not in rewritten]
        dangling = tuple(dangling_beside(hour, stay, near, index))
        if not groups and not dangling:
            continue
        if reason := _obstacle(hour, groups, busy, settled):
            left[hour] = reason
        else:
            chosen.append(HourToCompact(hour, groups, dangling))
    gone = _far_dangling(found, far, rules) if whole and far else ()
    # They go with one of the hours: a commit is always of hours.
    if gone and chosen:
        chosen[-1] = replace(chosen[-1], dangling=(*chosen[-1].dangling, *gone))
    elif gone and (free := [hour for hour in of_hour if not _obstacle(hour, (), busy, settled)]):
        chosen.append(HourToCompact(max(free), (), gone))
    return CompactionPlan(tuple(chosen), left, _seen(found, len(of_hour), rules))


def _by_hour(files: Iterable[LiveFile]) -> tuple[Mapping[HourWindow, list[LiveFile]], list[LiveFile]]:
    """Part files by their hour; beside them, the delete files of more than one."""
    of_hour, far = defaultdict[HourWindow, list[LiveFile]](list), list[LiveFile]()
    for file in files:
        if file.hour is not None:
            of_hour[HourWindow.from_ordinal(file.hour)].append(file)
        elif file.content != DATA:
            far.append(file)
    return of_hour, far


def _seen(files: Sequence[LiveFile], hours: int, rules: Rules) -> str:
    data = [file for file in files if file.content == DATA]
    deletes = show_count(len(files) - len(data), "delete file")
    small = sum(file.bytes < rules.min_bytes for file in data)
    size = sum(file.bytes for file in data) / max(1, len(data))
    return (
        f"{show_count(hours, 'hour')} with {show_count(len(data), 'file')} of {show_bytes(size)} on average, "
        f"{small:,} of them below {show_bytes(rules.min_bytes)}, and {deletes}"
    )


def _far_dangling(files: Iterable[LiveFile], far: Iterable[LiveFile], rules: Rules) -> tuple[LiveFile, ...]:
    """Find the delete files of more than one hour that apply to no data file of the table."""
    left, index = {file.path: file for file in far}, DeleteIndex.of(far, rules.unpartitioned)
    for file in files:
        if file.content == DATA:
            for each in index.applying_to(file):
                left.pop(each.path, None)
    return tuple(left.values())


def _groups(data: list[LiveFile], near: list[LiveFile], index: DeleteIndex, rules: Rules) -> Iterator[FileGroup]:
    shares = _Shares.of(data, near)
    for part in _partitions(data, rules):
        candidates = [_Candidate.of(file, index, shares, rules) for file in part]
        candidates.sort(key=lambda each: (each.file.sequence_number, each.file.path))
        picked = [each for each in candidates if each.why]
        if rules.settings.strategy == "merge":  # a key may be in any file
            packs = [candidates] if any(_pays(part, rules) for part in _by_partition(picked)) else []
        else:
            packs = [pack for pack in _packed(picked, rules.settings.max_file_group_size) if _pays(pack, rules)]
        yield from (_group(pack, rules) for pack in packs)


def _by_partition(candidates: Iterable["_Candidate"]) -> list[list["_Candidate"]]:
    """Part candidates as files are written again: what is one file each of many partitions is that afterwards, too."""
    parts = defaultdict[Place, list[_Candidate]](list)
    for each in candidates:
        parts[each.file.spec_id, each.file.partition].append(each)
    return list(parts.values())


@dataclass(frozen=True)
class _Shares:
    """How many rows deletes take.

    Attributes:
        of_place: as a share of a partition's, where nothing tells of which files.
        of_file: of a data file.
    """

    of_place: Mapping[Place, float]
    of_file: Mapping[str, int]

    @classmethod
    def of(cls, data: Iterable[LiveFile], near: Iterable[LiveFile]) -> Self:
        rows, gone, of_file = defaultdict[Place, int](int), defaultdict[Place, int](int), defaultdict[str, int](int)
        for file in data:
            rows[file.spec_id, file.partition] += file.rows
        for file in near:
            if file.content == POSITION_DELETES and file.refers_to:
                of_file[file.refers_to] += file.rows
            else:
                gone[file.spec_id, file.partition] += file.rows
        return cls({place: count / rows[place] for place, count in gone.items() if rows.get(place)}, of_file)

    def deleted(self, file: LiveFile) -> float:
        """Give about how many rows of a file are deleted."""
        return self.of_file.get(file.path, 0) + file.rows * self.of_place.get((file.spec_id, file.partition), 0.0)


@dataclass(frozen=True)
class _Candidate:
    file: LiveFile
    deletes: tuple[LiveFile, ...]
    deleted: float
    why: str

    @classmethod
    def of(cls, file: LiveFile, index: DeleteIndex, shares: _Shares, rules: Rules) -> Self:
        deletes = tuple(index.applying_to(file))
        deleted = shares.deleted(file) if deletes else 0.0
        threshold = rules.settings.delete_file_threshold
        many = threshold is not None and len(deletes) >= threshold
        if many or (deletes and deleted >= rules.settings.delete_ratio_threshold * file.rows):
            why = "deletes"
        elif rules.keeps_order and file.sort_order_id != rules.sort_order_id:
            why = "order"
        elif not rules.min_bytes <= file.bytes <= rules.max_bytes or file.spec_id != rules.spec_id:
            why = "size"
        else:
            why = ""
        return cls(file, deletes, deleted, why)


def _packed(candidates: list[_Candidate], most: int) -> list[list[_Candidate]]:
    """Cut files into groups of a size at most, in their order; one that is larger is a group of its own."""
    of_path = {each.file.path: each for each in candidates}
    return [[of_path[file.path] for file in pack] for pack in packed([each.file for each in candidates], most, most)]


def _pays(pack: list[_Candidate], rules: Rules) -> bool:
    total = sum(each.file.bytes for each in pack)
    together = len(pack) > 1 and (len(pack) >= rules.settings.min_input_files or total > rules.target_bytes)
    return together or total > rules.max_bytes or any(each.why in {"deletes", "order"} for each in pack)


def _group(pack: list[_Candidate], rules: Rules) -> FileGroup:
    files = tuple(each.file for each in pack)
    deletes = {file.path: file for each in pack for file in each.deletes}
    total = sum(file.bytes for file in files)
    said = [f"{show_count(len(files), 'file')} of {show_bytes(total / len(files))} on average"]
    if deletes:
        gone = sum(each.deleted for each in pack)
        said.append(f"{show_count(len(deletes), 'delete file')} of about {gone:.0f} rows")
    if any(each.why == "order" for each in pack):
        said.append("not in the table's order")
    strategy, reason = _strategy(files, bool(deletes), rules)
    copied = strategy == "copy"
    outputs = len(packed(files, rules.min_bytes, rules.max_bytes)) if copied else math.ceil(total / rules.target_bytes)
    return FileGroup(files, tuple(deletes.values()), strategy, reason, " and ".join(said), outputs)


def _strategy(files: Sequence[LiveFile], has_deletes: bool, rules: Rules) -> tuple[Strategy, str]:  # noqa: FBT001  # private
    wanted = rules.settings.strategy
    if wanted is not None and wanted != "copy":
        return wanted, "as the spec has it"
    obstacle = _not_copied(files, has_deletes, rules)
    if not obstacle:
        return "copy", f"row groups have {show_bytes(_row_group_bytes(files))} on average"
    return ("sort", "the table is sorted") if rules.sort_order_id else ("rewrite", obstacle)


def _not_copied(files: Sequence[LiveFile], has_deletes: bool, rules: Rules) -> str:  # noqa: FBT001, PLR0911  # a list
    """Say why row groups cannot be copied as they are; what only footers tell is found out later."""
    if has_deletes:
        return "rows are deleted"
    if any(file.spec_id != rules.spec_id for file in files):
        return "files are of another partition spec"
    if rules.sort_order_id:
        return "the table is sorted"
    if any(file.bytes > rules.max_bytes for file in files):
        return "files are too large"
    if any(not file.row_groups for file in files):
        return "manifests do not tell how many row groups there are"
    *packs, _ = packed(files, rules.min_bytes, rules.max_bytes)
    if any(sum(file.bytes for file in pack) < rules.min_bytes for pack in packs):
        return "whole files do not fit together"
    size, least = _row_group_bytes(files), rules.settings.copy_row_groups
    return f"row groups have {show_bytes(size)} on average, less than {show_bytes(least)}" if size < least else ""


def _row_group_bytes(files: Sequence[LiveFile]) -> float:
    return sum(file.bytes for file in files) / max(1, sum(file.row_groups for file in files))


def dangling_beside(
    hour: HourWindow, data: Iterable[LiveFile], near: Iterable[LiveFile], index: DeleteIndex
) -> Iterator[LiveFile]:
    """Find delete files of the hour that apply to none of these data files, by their metadata alone.

    (One that names its data file applies to that alone. Of others only reading them tells more.)
    """
    applying = {each.path for file in data for each in index.applying_to(file)}
    for file in near:
        if file.content != DATA and file.hour == hour.ordinal and file.path not in applying:
            yield file


def _obstacle(hour: HourWindow, groups: Iterable[FileGroup], busy: Collection[HourWindow], settled: datetime) -> str:
    if hour.end > settled:
        return "is not over for long enough (maintenance.compact_after)"
    if hour in busy:
        return "has an attempt under way"
    formats = {file.file_format for group in groups for file in (*group.files, *group.deletes)} - {"PARQUET"}
    return f"has files of {', '.join(sorted(formats))}, and only Parquet is compacted" if formats else ""


def _partitions(files: Iterable[LiveFile], rules: Rules) -> Iterator[list[LiveFile]]:
    """Part files by partition; those of earlier specs come together, since they are written for the current one.

    So does all of an hour where it is merged: rows of one key may be of several partitions.
    """
    parts = defaultdict[str | None, list[LiveFile]](list)
    for file in files:
        apart = file.spec_id == rules.spec_id and rules.settings.strategy != "merge"
        parts[file.partition if apart else None].append(file)
    yield from parts.values()

"""The manifest rewrite: which of a table's manifests are worth writing anew, and the run that does it.

Told from the manifest list alone. Manifests of a partition spec, of data or of deletes, are in the order of their
hours; of these are written anew, together:

- those that meet an hour that more than two of them meet, but for full ones of that hour alone: the hour is large;
- one that is larger than 1.8 times the target, as Iceberg's planner of data files has it;
- small ones beside each other, below 0.75 of the target, where fewer would do;

and whatever small ones lie right beside these. All others are well placed, and stay as they are. Manifests without
live entries are left out of the list whenever one is written.
"""

import heapq
import logging
import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from lakehouse_pipeline import events
from lakehouse_pipeline.errors import CommitConflictError, ConfigurationError, SafetyError, TransientError
from lakehouse_pipeline.iceberg.commit import ManifestsRegrouped, fence, regroup_manifests
from lakehouse_pipeline.iceberg.commit_writing import manifest_copy_url, manifest_list_url
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.regrouping import HeadManifest, head_manifests
from lakehouse_pipeline.ledger.records import ULID, new_attempt_id
from lakehouse_pipeline.ledger.turns import Turn
from lakehouse_pipeline.maintenance.lease import Held
from lakehouse_pipeline.maintenance.plan import LEAST, MOST
from lakehouse_pipeline.object_store.places import SPELLINGS

logger = logging.getLogger(__name__)

MANIFESTS_PER_HOUR = 2  # its own, and the one that it shares with its neighbour
NOTE = "manifests"  # in the lease's record: the batch at work, and the snapshots that its commits assert
_NOTE = re.compile(rf"{ULID}( -?\d+)*")


@dataclass(frozen=True)
class ManifestGroup:
    """Manifests whose entries are written anew together.

    Attributes:
        manifests: in the order of their hours.
        why: says what makes them worth it.
        outputs: manifests that they become, about.
    """

    manifests: tuple[HeadManifest, ...]
    why: str
    outputs: int

    @property
    def paths(self) -> frozenset[str]:
        """Where they lie."""
        return frozenset(each.path for each in self.manifests)


@dataclass(frozen=True)
class ManifestPlan:
    """Which manifests are to be written anew.

    Attributes:
        groups: each of one partition spec, and of data or of deletes.
        kept: how many are well placed.
    """

    groups: tuple[ManifestGroup, ...]
    kept: int

    @property
    def manifests(self) -> int:
        """How many are written anew."""
        return sum(len(group.manifests) for group in self.groups)

    @property
    def outputs(self) -> int:
        """How many they become, about."""
        return sum(group.outputs for group in self.groups)

    @property
    def entries(self) -> int:
        """Live entries of these."""
        return sum(each.live for group in self.groups for each in group.manifests)

    @property
    def bytes(self) -> int:
        """Bytes on storage that are read."""
        return sum(each.bytes for group in self.groups for each in group.manifests)


@dataclass(frozen=True)
class ManifestsRewritten:
    """How a manifest rewrite ended.

    Attributes:
        commit: what it did; None where nothing was worth it, or a rival had done it.
        left_removed: files that an earlier one had left.
    """

    commit: ManifestsRegrouped | None
    left_removed: tuple[str, ...] = ()


def look(table: HourlyTable) -> ManifestPlan:
    """Plan the rewrite of a table's manifests; reads the manifest list, and changes nothing.

    Raises:
        SafetyError: the table is of a format version that cannot be written.
    """
    try:
        table.check_writable()
    except ConfigurationError as error:
        raise SafetyError(str(error)) from error
    return plan_manifests(head_manifests(table.table, table.hour))


def plan_manifests(manifests: Iterable[HeadManifest]) -> ManifestPlan:
    """Plan which manifests are written anew, by the rule at the top. Pure."""
    kinds, count = defaultdict[tuple[int, bool], list[HeadManifest]](list), 0
    for each in manifests:
        kinds[each.spec_id, each.deletes].append(each)
        count += 1
    found = [_Kind(kinds[key]) for key in sorted(kinds)]
    groups = tuple(group for kind in found for group in kind.groups())
    return ManifestPlan(groups, count - sum(len(group.manifests) for group in groups))


class _Kind:
    """The manifests of a partition spec, of data or of deletes."""

    def __init__(self, manifests: Collection[HeadManifest]) -> None:
        self._ordered = sorted(manifests, key=lambda each: (each.span.low, each.span.high, each.path))
        self._crowds, self._most = _crowds(self._ordered)
        self._crowded = {each.path for crowd in self._crowds for each in crowd}

    def groups(self) -> list[ManifestGroup]:
        """Join what is crowded together, and what lies side by side; keep what is worth it."""
        joined = _Joined(each.path for each in self._ordered)
        for crowd in self._crowds:
            for each in crowd:
                joined.join(crowd[0].path, each.path)
        before: HeadManifest | None = None
        for each in self._ordered:
            if before and self._is_loose(before) and self._is_loose(each):
                joined.join(before.path, each.path)
            before = each
        groups = defaultdict[str, list[HeadManifest]](list)
        for each in self._ordered:
            if self._is_loose(each):
                groups[joined.of(each.path)].append(each)
        planned = [(tuple(group), _outputs(group)) for group in groups.values()]
        told = [ManifestGroup(group, self._why(group, outputs), outputs) for group, outputs in planned]
        return [group for group in told if group.why]

    def _is_loose(self, each: HeadManifest) -> bool:
        small = each.header + each.live_bytes < LEAST * each.target
        return small or _is_large(each) or each.path in self._crowded

    def _why(self, group: Sequence[HeadManifest], outputs: int) -> str:
        if any(each.path in self._crowded for each in group):
            return f"an hour is in up to {self._most} of them"
        if any(map(_is_large, group)):
            return "one is too large"
        return f"{outputs} would do" if outputs < len(group) else ""


def _is_large(each: HeadManifest) -> bool:
    return each.bytes > MOST * each.target and each.live > 1  # one entry cannot be shared out


def _outputs(group: Sequence[HeadManifest]) -> int:
    """Say how many manifests a group becomes: each but the last has the target, at least."""
    room = group[0].target - group[0].header
    return max(1, math.ceil(sum(each.live_bytes for each in group) / room))


def _crowds(ordered: Sequence[HeadManifest]) -> tuple[list[list[HeadManifest]], int]:
    """Find the manifests that meet an hour which too many meet, and how many meet one at most.

    An hour that too many meet is met by no more than the hour in which the last of them begins: these are looked at.
    """
    crowds, most = list[list[HeadManifest]](), 0
    highs, fresh, until = list[float](), list[HeadManifest](), -math.inf
    for each in ordered:
        low, high = each.span.low, each.span.high
        alone = low == high and each.bytes >= LEAST * each.target
        if math.isinf(low) or alone:  # of no hour, of whatever hours, or full of one
            continue
        while highs and highs[0] < low:
            heapq.heappop(highs)
        heapq.heappush(highs, high)
        most = max(most, len(highs))
        fresh = [*(other for other in fresh if other.span.high >= low), each]
        if len(highs) > MANIFESTS_PER_HOUR:
            if until < low:
                crowds.append([])
            crowds[-1] += fresh
            until = max(until, *(other.span.high for other in fresh))
            fresh = []
    return crowds, most


class _Joined:
    """Names that belong together: a union-find."""

    def __init__(self, names: Iterable[str]) -> None:
        self._above = {name: name for name in names}

    def of(self, name: str) -> str:
        """Give the one that stands for all that a name belongs to."""
        while self._above[name] != name:
            self._above[name] = name = self._above[self._above[name]]
        return name

    def join(self, one: str, other: str) -> None:
        """Let all of both belong together."""
        self._above[self.of(other)] = self.of(one)


def rewrite_manifests(table: HourlyTable, plan: ManifestPlan, held: Held) -> ManifestsRewritten:
    """Write manifests anew as a plan says; first, remove what an earlier run has left.

    Where rivals have changed what was planned, that is planned again; none of them fails because of it.

    Args:
        table: loaded at any time.
        plan: see `look`.
        held: the maintenance lease.

    Raises:
        CommitConflictError: rivals won every try, or another run has taken the lease over; nothing was changed.
        CommitStateUnknownError: it may have landed; the next run finds out.
        SafetyError: a manifest has other entries than the manifest list says.
        TransientError: the store or the local disk did not answer.
    """
    removed = remove_left_manifests(table, held.turn)
    events.emit("manifests.planned", table.identifier, manifests=plan.manifests, outputs=plan.outputs)
    done = _regrouped(table, plan, held) if plan.groups else None
    return ManifestsRewritten(done, removed)


def _regrouped(table: HourlyTable, plan: ManifestPlan, held: Held) -> ManifestsRegrouped | None:
    batch, bases = new_attempt_id(), list[str]()

    def choose(now: Sequence[HeadManifest]) -> list[frozenset[str]]:
        there = {each.path for each in now}
        holds = all(group.paths <= there for group in plan.groups)
        return [group.paths for group in (plan if holds else plan_manifests(now)).groups]

    def before_send(base: int | None, _snapshot_id: int) -> None:
        held.check()
        bases.append(str(base))
        held.turn.note(**{NOTE: " ".join([batch, *bases])})

    held.turn.note(**{NOTE: batch})
    done = regroup_manifests(
        table.catalog, table.identifier, choose, event_time=table.hour, batch=batch, before_send=before_send
    )
    with suppress(CommitConflictError, TransientError):  # else whoever comes next finds that nothing was left
        held.turn.note(**{NOTE: ""})
    return done


def remove_left_manifests(table: HourlyTable, turn: Turn) -> tuple[str, ...]:
    """Remove what a manifest rewrite that did not come to its end has left; what landed stays.

    Args:
        table: loaded at any time.
        turn: of maintenance, held by the caller: whoever held it before can send no commit any more that it did not
            note, and `main` is moved off what it noted.

    Returns:
        The files that were removed.

    Raises:
        CommitConflictError: another run has taken the lease over, or rivals won every try to move `main`.
        CommitStateUnknownError: it is not known whether `main` has moved; nothing was removed.
        SafetyError: the note is none that a rewrite leaves; nothing was removed.
        TransientError: the store did not answer.
    """
    batch, *bases = turn.record.notes.get(NOTE, "").split() or [""]
    if not batch:
        return ()
    if not _NOTE.fullmatch(turn.record.notes[NOTE]):
        raise SafetyError(
            f"{turn.url} notes {turn.record.notes[NOTE]!r} of a manifest rewrite, which none has written: somebody has "
            "changed it. Nothing is removed"
        )
    if bases:
        own = f"{batch}-{turn.record.epoch}"  # begins with what is noted, too; of this holder alone
        fence(table.catalog, table.identifier, set(map(int, bases)), batch=own)
    there = [item.url for begin in _beginnings(table, batch) for item in table.files.list_objects(begin)]
    known = {SPELLINGS.name(url) for url in table.reached_metadata()} if there else set[str]()
    left = tuple(sorted(url for url in there if SPELLINGS.name(url) not in known))
    for url in left:
        logger.info("%s: an earlier manifest rewrite has left %s, which nothing reaches", table.identifier, url)
        table.files.delete(url)
    turn.note(**{NOTE: ""})
    return left


def _beginnings(table: HourlyTable, batch: str) -> list[str]:
    """Give what the names of a batch's files begin with, of whichever of its commits."""
    locations = table.table.location_provider()
    urls = (manifest_copy_url(locations, batch, 0), manifest_list_url(locations, batch))
    return [url[: url.rindex(batch) + len(batch)] for url in urls]

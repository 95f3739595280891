"""Which snapshots, branches and tags a table keeps: Iceberg's rules, as the JVM's `RemoveSnapshots` applies them.

Pure. Source: https://iceberg.apache.org/spec/#snapshot-retention-policy and org.apache.iceberg.RemoveSnapshots.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from lakehouse_pipeline.errors import ConfigurationError, SafetyError
from lakehouse_pipeline.iceberg.folders import GC_ENABLED, collects_garbage
from lakehouse_pipeline.iceberg.history import MAIN, History, RefSeen, SnapshotSeen

MAX_AGE = "history.expire.max-snapshot-age-ms"
MIN_SNAPSHOTS = "history.expire.min-snapshots-to-keep"
MAX_REF_AGE = "history.expire.max-ref-age-ms"

ICEBERGS_AGE = timedelta(days=5)
_MILLISECOND = timedelta(milliseconds=1)

HEAD, YOUNG, AMONG_LAST, ALONE = "stands on it", "young", "among the last", "young, of no branch or tag"


@dataclass(frozen=True)
class Rules:
    """What holds where a branch or a tag says nothing else.

    Attributes:
        snapshot_age_ms: a snapshot as old as this is kept, and an older one is not.
        min_snapshots: of a branch, from its head on, that are kept whatever their age.
        ref_age_ms: of the snapshot that a branch or tag stands on, the same; None is for ever. `main` stays anyway.
    """

    snapshot_age_ms: int = ICEBERGS_AGE // _MILLISECOND
    min_snapshots: int = 1
    ref_age_ms: int | None = None

    @classmethod
    def of(cls, properties: Mapping[str, str], age: timedelta | None) -> "Rules":
        """Read a table's properties.

        Args:
            properties: the table's.
            age: of snapshots, where the properties do not say it; None is Iceberg's.

        Raises:
            SafetyError: the table's files may belong to others as well.
            ConfigurationError: a property is no number.
        """
        if not collects_garbage(properties):
            raise SafetyError(
                f"{GC_ENABLED} is {properties[GC_ENABLED]}: the table's files may belong to other tables as well, so "
                "that nothing of it is expired"
            )
        oldest, least = _number(properties, MAX_AGE), _number(properties, MIN_SNAPSHOTS)
        return cls(
            snapshot_age_ms=(age or ICEBERGS_AGE) // _MILLISECOND if oldest is None else oldest,
            min_snapshots=1 if least is None else least,
            ref_age_ms=_number(properties, MAX_REF_AGE),
        )


def _number(properties: Mapping[str, str], name: str) -> int | None:
    try:
        said = properties.get(name)
        return None if said is None else int(said)
    except ValueError:
        raise ConfigurationError(
            f"the table's property {name} is {properties[name]!r}, and has to be a whole number"
        ) from None


@dataclass(frozen=True)
class Kept:
    """A snapshot that stays.

    Attributes:
        snapshot_id: its id.
        why: one of this module's reasons.
        ref: the branch or tag that keeps it; empty where none does.
    """

    snapshot_id: int
    why: str
    ref: str = ""


@dataclass(frozen=True)
class Retention:
    """What stays and what goes.

    Attributes:
        kept: each snapshot that stays, once; by its foremost reason.
        expired: the others' ids, in the table's order.
        refs_removed: branches and tags that go.
    """

    kept: tuple[Kept, ...]
    expired: tuple[int, ...]
    refs_removed: tuple[RefSeen, ...]


def retained(history: History, rules: Rules, now_ms: int) -> Retention:
    """Apply the rules.

    Args:
        history: of the table.
        rules: where refs have none of their own.
        now_ms: since 1970; snapshots' ages are counted from it.
    """
    snapshots = {each.id: each for each in history.snapshots}
    stay = [ref for ref in history.refs if _stays(ref, snapshots, rules, now_ms)]
    kept: dict[int, Kept] = {}
    for reason in (
        *(Kept(ref.snapshot_id, HEAD, str(ref)) for ref in stay),
        *(reason for ref in stay if ref.is_branch for reason in _of_branch(ref, snapshots, rules, now_ms)),
        *_of_none(snapshots, stay, rules, now_ms),
    ):
        if reason.snapshot_id in snapshots:
            kept.setdefault(reason.snapshot_id, reason)
    return Retention(
        kept=tuple(kept[each] for each in snapshots if each in kept),
        expired=tuple(each for each in snapshots if each not in kept),
        refs_removed=tuple(ref for ref in history.refs if ref not in stay),
    )


def _stays(ref: RefSeen, snapshots: Mapping[int, SnapshotSeen], rules: Rules, now_ms: int) -> bool:
    if ref.name == MAIN:
        return True
    snapshot = snapshots.get(ref.snapshot_id)
    if snapshot is None:
        return False
    most = rules.ref_age_ms if ref.max_ref_age_ms is None else ref.max_ref_age_ms
    return most is None or now_ms - snapshot.timestamp_ms <= most


def _of_branch(branch: RefSeen, snapshots: Mapping[int, SnapshotSeen], rules: Rules, now_ms: int) -> Iterator[Kept]:
    """Go back from the head up to the first that is too old, however young those behind it are."""
    age = rules.snapshot_age_ms if branch.max_snapshot_age_ms is None else branch.max_snapshot_age_ms
    least = rules.min_snapshots if branch.min_snapshots_to_keep is None else branch.min_snapshots_to_keep
    for place, snapshot in enumerate(_ancestors(branch.snapshot_id, snapshots)):
        if place < least:
            yield Kept(snapshot.id, AMONG_LAST, str(branch))
        elif snapshot.timestamp_ms >= now_ms - age:
            yield Kept(snapshot.id, YOUNG, str(branch))
        else:
            return


def _of_none(
    snapshots: Mapping[int, SnapshotSeen], refs: Iterable[RefSeen], rules: Rules, now_ms: int
) -> Iterator[Kept]:
    """Give those that no ref reaches, and that are young: somebody may be about to publish them."""
    reached = set[int]()
    for ref in refs:
        if ref.is_branch:
            reached.update(each.id for each in _ancestors(ref.snapshot_id, snapshots))
        else:
            reached.add(ref.snapshot_id)
    for snapshot in snapshots.values():
        if snapshot.id not in reached and snapshot.timestamp_ms >= now_ms - rules.snapshot_age_ms:
            yield Kept(snapshot.id, ALONE)


def _ancestors(head: int, snapshots: Mapping[int, SnapshotSeen]) -> Iterator[SnapshotSeen]:
    """Go from a snapshot to its parents, up to one that is gone."""
    at: int | None = head
    while at is not None and at in snapshots:
        yield snapshots[at]
        at = snapshots[at].parent

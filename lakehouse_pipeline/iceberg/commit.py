"""The one commit loop: a snapshot that replaces exactly the hours or the manifests that it was given, or nothing.

It sends what `replacement` and `regrouping` build, asserting the snapshot that `main` stood on. Rules that must not be
bent:

- A commit whose outcome is unknown is decided by finding its snapshot, or by `main` having moved off its base. Until
  then nothing is deleted, and the same commit is sent again.
- Only a commit that certainly did not land has its own manifest list and manifest copies removed.
- No clock fences a commit: one that was held in flight lands whenever it arrives, unless `main` has moved off its base
  by then. A fence moves it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRef, SnapshotRefType
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertCurrentSchemaId,
    AssertRefSnapshotId,
    AssertTableUUID,
    SetSnapshotRefUpdate,
    TableRequirement,
)

from lakehouse_pipeline import events
from lakehouse_pipeline.errors import (
    CommitConflictError,
    CommitStateUnknownError,
    LakehouseError,
    SafetyError,
    TransientError,
)
from lakehouse_pipeline.iceberg.commit_writing import Built, head, remove_own
from lakehouse_pipeline.iceberg.regrouping import Choice, build_regrouping
from lakehouse_pipeline.iceberg.replacement import build_fence, build_replacement
from lakehouse_pipeline.iceberg.sealed_hours import SealedHour
from lakehouse_pipeline.iceberg.tables import find_table
from lakehouse_pipeline.retry import RetryPolicy, retry_call

# A conflict costs one manifest list; committers of other hours are the only rivals, so patience is cheap.
COMMIT_RETRIES = RetryPolicy(tries=32, total_s=600.0, min_wait_s=0.1, max_wait_s=10.0)

REGROUPS = 8  # times that a group of hours goes on without those that it has lost; the rest waits for the next commit

BeforeSend = Callable[[int | None, int], None]


@dataclass(frozen=True)
class Replaced:
    """What a commit did.

    Attributes:
        snapshot_id: the new snapshot; None where empty hours replaced nothing and there was nothing to commit.
        files_removed: data files that are no longer live.
        tries: how many times a commit was sent.
    """

    snapshot_id: int | None
    files_removed: int
    tries: int


def replace_hours(
    catalog: Catalog,
    identifier: str,
    hours: Sequence[SealedHour],
    *,
    event_time: str,
    batch: str,
    before_send: BeforeSend,
    places: Iterator[int] | None = None,
) -> Replaced:
    """Make the hours' live files exactly those of their seals, in one snapshot.

    Args:
        catalog: where the table is.
        identifier: `namespace.name`.
        hours: each at most once, of one table.
        event_time: the column that tells a row's hour.
        batch: begins the names of the commits' own files (see `batch_name`); used once and never again.
        before_send: called with the base and the new snapshot's id before every commit that is sent for the first
            time; it records them, and by raising keeps the commit from being sent.
        places: counts the commits that are built under the name of the batch, where it was used before.

    Raises:
        HoursLostError: hours were changed by somebody else since their attempts were opened.
        RivalsWonError: rivals won every try.
        CommitStateUnknownError: whether the last commit landed could not be found out; nothing was deleted.
        SafetyError: the seal is of another table, or files of earlier partition specs straddle the hours.
    """

    def build(table: Table, name: str, _earlier: Built | None) -> Built | None:
        return build_replacement(table, hours, event_time, name)

    return _CommitLoop(catalog, identifier, batch, build, before_send, places or count()).run()


def fence(catalog: Catalog, identifier: str, bases: Collection[int | None], *, batch: str) -> None:
    """Move `main` off these snapshots: no commit that asserts one of them can land any more.

    One that has landed before is not undone. An empty snapshot moves it; a property update would not.

    Raises:
        CommitConflictError: rivals won every try.
        CommitStateUnknownError: it is not known whether `main` has moved.
    """

    def build(table: Table, name: str, _earlier: Built | None) -> Built | None:
        return build_fence(table, name) if head(table) in bases else None

    _CommitLoop(catalog, identifier, batch, build, lambda _base, _snapshot_id: None, count()).run()


@dataclass(frozen=True)
class ManifestsRegrouped:
    """What a commit did to the manifests of a table.

    Attributes:
        snapshot_id: the new snapshot.
        created: manifests that it has written.
        replaced: manifests that it does not have any more, those without live entries included.
        kept: manifests that it has from before.
        entries: live ones that were written anew.
        tries: how many times a commit was sent.
    """

    snapshot_id: int
    created: int
    replaced: int
    kept: int
    entries: int
    tries: int


def regroup_manifests(
    catalog: Catalog, identifier: str, choose: Choice, *, event_time: str, batch: str, before_send: BeforeSend
) -> ManifestsRegrouped | None:
    """Write the entries of some of the head's manifests anew, in one snapshot; None where none is worth it.

    No rival fails because of it. As long as the manifests that were chosen are all in the head, a rival's commit costs
    one manifest list; of those that are not, the rest is chosen and written again.

    Args:
        catalog: where the table is.
        identifier: `namespace.name`.
        choose: see `build_regrouping`; asked again where rivals have changed what was chosen.
        event_time: the column that tells a row's hour.
        batch: begins the names of the commits' own files (see `batch_name`); used once and never again.
        before_send: see `replace_hours`.

    Raises:
        RivalsWonError: rivals won every try.
        CommitStateUnknownError: whether the last commit landed could not be found out; nothing was deleted.
        SafetyError: a manifest has other entries than the manifest list says.
    """

    def build(table: Table, name: str, earlier: Built | None) -> Built | None:
        return build_regrouping(table, event_time, choose, name, earlier)

    loop = _CommitLoop(catalog, identifier, batch, build, before_send, count())
    landed = loop.run().snapshot_id
    for built in loop.sent:
        if built.snapshot.snapshot_id == landed and built.snapshot.summary:
            told = built.snapshot.summary.additional_properties
            names = ("manifests-created", "manifests-replaced", "manifests-kept", "entries-processed")
            created, replaced, kept, entries = (int(told[name]) for name in names)
            return ManifestsRegrouped(landed, created, replaced, kept, entries, loop.tries)
    return None


def _new_branch(snapshot_id: int) -> SnapshotRef:
    return SnapshotRef(
        snapshot_id=snapshot_id,
        snapshot_ref_type=SnapshotRefType.BRANCH,
        min_snapshots_to_keep=None,
        max_snapshot_age_ms=None,
        max_ref_age_ms=None,
    )


def set_ref(name: str, ref: SnapshotRef, snapshot_id: int) -> SetSnapshotRefUpdate:
    """Give the update that puts a branch or tag onto a snapshot and keeps its retention: what is not said is lost."""
    return SetSnapshotRefUpdate(
        ref_name=name,
        type=ref.snapshot_ref_type,
        snapshot_id=snapshot_id,
        max_ref_age_ms=ref.max_ref_age_ms,
        max_snapshot_age_ms=ref.max_snapshot_age_ms,
        min_snapshots_to_keep=ref.min_snapshots_to_keep,
    )


def batch_name(batch: str, place: int) -> str:
    """Name one of the commits that a holder of an attempt builds, counted from 0."""
    return f"{batch}-{place}"


class RivalsWonError(CommitConflictError):
    """A rival moved the table: the same hours can be committed on the new head."""


@dataclass
class _CommitLoop:
    catalog: Catalog
    identifier: str
    batch: str
    build: Callable[[Table, str, Built | None], Built | None]
    before_send: BeforeSend
    places: Iterator[int]
    sent: list[Built] = field(default_factory=list)
    tries: int = 0

    def run(self) -> Replaced:
        """Try until it has landed, or certainly will not."""
        patiently = (RivalsWonError, CommitStateUnknownError, TransientError)
        try:
            return retry_call(COMMIT_RETRIES, self.once, on=patiently, name="commit")
        except (CommitConflictError, CommitStateUnknownError, TransientError) as error:
            return self.settle(error)

    def once(self) -> Replaced:
        """Read the table, decide what became of earlier sends, and send again if need be."""
        table = load(self.catalog, self.identifier)
        for earlier in self.sent:
            if table.metadata.snapshot_by_id(earlier.snapshot.snapshot_id) is not None:
                return self._landed(table, earlier)
        built = self._current(table) or self._build(table)
        if built is None:
            # `main` is off the bases of all of them: of a fence that was to be so, and else there would be more to do.
            remove_own(table, sorted(_files_of(self.sent)))
            return Replaced(None, 0, self.tries)
        self._send(table, built)
        return self._landed(table, built)

    def _current(self, table: Table) -> Built | None:
        """Give the last commit sent, if it still fits the table."""
        if not self.sent or self.sent[-1].snapshot.sequence_number != table.metadata.next_sequence_number():
            return None
        last = self.sent[-1]
        if last.base is None and last.snapshot.schema_id != table.metadata.current_schema_id:
            return None
        return last if (last.base, last.table_uuid) == (head(table), str(table.metadata.table_uuid)) else None

    def _build(self, table: Table) -> Built | None:
        built = self.build(table, batch_name(self.batch, next(self.places)), self.sent[-1] if self.sent else None)
        if built is None:
            return None
        try:
            self.before_send(built.base, built.snapshot.snapshot_id)
        except BaseException:
            # What it has from an earlier one goes with that one: the next try may take it over again.
            self._remove(table, built, _files_of(self.sent))
            raise
        self.sent.append(built)
        return built

    def _send(self, table: Table, built: Built) -> None:
        self.tries += 1
        events.emit("commit.sent", self.identifier, snapshot_id=built.snapshot.snapshot_id, base=built.base)
        snapshot_id = built.snapshot.snapshot_id
        main = table.metadata.refs.get(MAIN_BRANCH) or _new_branch(snapshot_id)
        updates = (AddSnapshotUpdate(snapshot=built.snapshot), set_ref(MAIN_BRANCH, main, snapshot_id))
        requirements: tuple[TableRequirement, ...] = (
            AssertTableUUID(uuid=table.metadata.table_uuid),
            AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=built.base),
        )
        if built.base is None and built.snapshot.schema_id is not None:  # until it lands, columns may be replaced
            requirements += (AssertCurrentSchemaId(current_schema_id=built.snapshot.schema_id),)
        try:
            # The one face that sends prepared updates and also honours write.metadata.delete-after-commit.enabled.
            table._do_commit(updates=updates, requirements=requirements)  # noqa: SLF001
        except (CommitFailedException, ValueError) as error:
            # Not proof that it did not land (a reply may be lost and the request sent again): once() reads back.
            # ValueError is PyIceberg's word where a commit to another branch took the sequence number.
            if isinstance(error, LakehouseError):
                raise
            raise RivalsWonError(f"{self.identifier}: {error}") from None
        except Exception as error:
            # Whatever else a catalog's client raises: the request may have left before it did.
            if isinstance(error, LakehouseError) and not isinstance(error, TransientError):
                raise
            raise CommitStateUnknownError(
                f"{self.identifier}: whether snapshot {built.snapshot.snapshot_id} landed is not known "
                f"({type(error).__name__}: {error})"
            ) from None

    def _landed(self, table: Table, built: Built) -> Replaced:
        events.emit("commit.landed", self.identifier, snapshot_id=built.snapshot.snapshot_id, tries=self.tries)
        for other in self.sent:
            if other is not built:  # `main` moved off its base when `built` landed
                self._remove(table, other, built.own_files)
        removed = sum(file.content == 0 for file in built.removed)
        return Replaced(built.snapshot.snapshot_id, removed, self.tries)

    @staticmethod
    def _remove(table: Table, built: Built, but: Collection[str]) -> None:
        remove_own(table, [path for path in built.own_files if path not in but])

    def settle(self, error: LakehouseError) -> Replaced:
        """Find out, once no more tries are left, what became of the commits that were sent.

        Raises:
            CommitStateUnknownError: one of them may still land; nothing was deleted.
            LakehouseError: `error`, since none of them landed or can.
        """
        if not self.sent:
            raise error
        try:
            table = load(self.catalog, self.identifier)
            reached = _reached_since(table, self.sent[0])
        except Exception as unreachable:  # noqa: BLE001  # whatever catalog or store raise, the answer is: not known
            raise CommitStateUnknownError(
                f"{error}; the table could not be read back ({type(unreachable).__name__}: {unreachable})"
            ) from error
        for built in self.sent:
            if table.metadata.snapshot_by_id(built.snapshot.snapshot_id) is not None:
                return self._landed(table, built)
        if any(built.base == head(table) for built in self.sent):
            raise CommitStateUnknownError(f"{error}; it may still land, so nothing was removed") from error
        # A commit that landed may have been expired since, but not what later snapshots took over from it.
        remove_own(table, sorted(_files_of(self.sent) - reached))
        raise error


def _files_of(sent: Iterable[Built]) -> set[str]:
    return {path for built in sent for path in built.own_files}


def load(catalog: Catalog, identifier: str) -> Table:
    """Load a table that is known to have been there.

    Raises:
        SafetyError: it is gone.
        TransientError: the catalog cannot be reached.
    """
    table = find_table(catalog, identifier)
    if table is None:
        raise SafetyError(f"{identifier} was dropped or renamed while an attempt was under way")
    return table


def _reached_since(table: Table, built: Built) -> set[str]:
    """Give the manifests of all snapshots that are not older than a commit."""
    since = built.snapshot.sequence_number or 0
    snapshots = [snapshot for snapshot in table.metadata.snapshots if (snapshot.sequence_number or 0) >= since]
    return {manifest.manifest_path for snapshot in snapshots for manifest in snapshot.manifests(table.io)}

"""Replacing hours: atomic, idempotent, commutative, and of no effect on the neighbours."""

from dataclasses import replace
from itertools import permutations

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import ManifestEntryStatus
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import SetSnapshotRefUpdate
from pyiceberg.transforms import IdentityTransform

from lakehouse_pipeline.errors import CommitConflictError, SafetyError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.manifests import digest
from lakehouse_pipeline.iceberg.sealed_hours import SealedHour
from tests.iceberg.lake import ELEVEN, TEN, TWELVE, Lake, events, in_bucket
from tests.iceberg.test_hourly import attempt_of, commit


def newest(lake: Lake) -> Snapshot:
    """Give the snapshot that the table stands on."""
    snapshot = lake.now.table.current_snapshot()
    assert snapshot is not None
    return snapshot


def summary(lake: Lake) -> dict[str, str]:
    """Give the current snapshot's summary with its operation."""
    found = newest(lake).summary
    assert found is not None
    return {"operation": found.operation.value, **found.additional_properties}


class TestReplaceHours:
    """What holds on every catalog."""

    def test_an_hour_becomes_what_was_sealed(self, any_lake: Lake) -> None:
        """One commit makes one snapshot, and PyIceberg's own reader sees the new rows and no others."""
        any_lake.put(TEN, [1, 2, 3])
        before = any_lake.now.head
        replaced = any_lake.put(TEN, [3, 4])
        assert (newest(any_lake).snapshot_id, newest(any_lake).parent_snapshot_id) == (replaced.snapshot_id, before)
        assert len(any_lake.now.table.metadata.snapshots) == 2
        assert any_lake.rows() == {TEN.key: [3, 4]}

    def test_neighbours_are_untouched(self, any_lake: Lake) -> None:
        """The files of other hours are the same files before and after."""
        any_lake.put(TEN, [1])
        any_lake.put(TWELVE, [2])
        before = any_lake.files(TEN), any_lake.files(TWELVE)
        any_lake.put(ELEVEN, [3])
        any_lake.put(ELEVEN, [4])
        assert (any_lake.files(TEN), any_lake.files(TWELVE)) == before
        assert any_lake.rows() == {TEN.key: [1], ELEVEN.key: [4], TWELVE.key: [2]}

    def test_an_empty_hour_empties(self, any_lake: Lake) -> None:
        """An attempt without rows removes the hour's files in a snapshot of operation `overwrite`."""
        any_lake.put(TEN, [1, 2])
        any_lake.put(ELEVEN, [3])
        replaced = any_lake.put(TEN, [])
        assert (replaced.files_removed, summary(any_lake)["operation"]) == (1, "overwrite")
        assert any_lake.rows() == {ELEVEN.key: [3]}

    def test_nothing_to_change_is_no_snapshot(self, any_lake: Lake) -> None:
        """An empty attempt of an hour without files sends nothing, on a new table and on one with snapshots."""
        assert any_lake.put(TEN, []).snapshot_id is None
        any_lake.put(ELEVEN, [1])
        assert any_lake.put(TEN, []).tries == 0
        assert len(any_lake.now.table.metadata.snapshots) == 1

    def test_of_two_attempts_on_one_base_one_wins(self, any_lake: Lake) -> None:
        """The second attempt of an hour, opened on the same files as the first, conflicts; its rows never appear."""
        any_lake.put(TEN, [0])
        first, second = any_lake.seal(TEN, [1]), any_lake.seal(TEN, [2])
        any_lake.replace(first)
        with pytest.raises(CommitConflictError, match="2013-01-01-10:00 was changed by somebody else"):
            any_lake.replace(second)
        assert any_lake.rows() == {TEN.key: [1]}

    def test_the_first_attempt_of_an_hour_conflicts_too(self, any_lake: Lake) -> None:
        """Two attempts on a table without snapshots: the second finds that the hour is no longer empty."""
        first, second = any_lake.seal(TEN, [1]), any_lake.seal(TEN, [2])
        any_lake.replace(first)
        with pytest.raises(CommitConflictError):
            any_lake.replace(second)
        assert any_lake.rows() == {TEN.key: [1]}

    @pytest.mark.parametrize("rival", ["ours", "pyiceberg"])
    @pytest.mark.parametrize("began", [True, False], ids=["table with snapshots", "new table"])
    def test_a_commit_to_another_hour_gets_in_between(self, any_lake: Lake, rival: str, *, began: bool) -> None:
        """A rival commit after ours was built costs a second try, and no data file is written or touched for it."""
        if began:
            any_lake.put(TEN, [0])
        sealed = any_lake.seal(TEN, [1])
        data, sends = any_lake.stored("data"), list[int]()

        def let_the_rival_in(_base: int | None, snapshot_id: int) -> None:
            if not sends:
                any_lake.put(ELEVEN, [2]) if rival == "ours" else any_lake.append(events(ELEVEN, [2]))
            sends.append(snapshot_id)

        replaced = any_lake.replace(sealed, before_send=let_the_rival_in)
        assert (replaced.tries, replaced.snapshot_id) == (2, sends[1])
        assert any_lake.rows() == {TEN.key: [1], ELEVEN.key: [2]}
        assert len(any_lake.stored("data") - data) == 1
        assert any_lake.unreached() == set()

    def test_a_commit_to_the_same_hour_supersedes(self, any_lake: Lake) -> None:
        """Rows that a rival put into the hour after ours was built are not lost: ours conflicts and leaves no file."""
        sealed = any_lake.seal(TEN, [1])
        with pytest.raises(CommitConflictError, match="superseded"):
            any_lake.replace(sealed, before_send=lambda _base, _id: any_lake.append(events(TEN, [2])))
        assert any_lake.rows() == {TEN.key: [2]}
        assert any_lake.unreached() == {*sealed_paths(any_lake, sealed)}

    def test_several_hours_share_a_snapshot(self, any_lake: Lake) -> None:
        """Hours given together, an empty one included, become theirs in one snapshot."""
        any_lake.put(ELEVEN, [1])
        any_lake.replace(any_lake.seal(TEN, [2]), any_lake.seal(ELEVEN, []), any_lake.seal(TWELVE, [3]))
        assert any_lake.rows() == {TEN.key: [2], TWELVE.key: [3]}
        assert len(any_lake.now.table.metadata.snapshots) == 2
        assert summary(any_lake)["lakehouse.hours"] == "3"


def sealed_paths(lake: Lake, *hours: SealedHour) -> set[str]:
    """Name the manifests of seals and the data files in them."""
    manifests = {manifest.path for sealed in hours for manifest in sealed.seal.manifests}
    return manifests | {path for path in lake.stored("data") if any(sealed.attempt in path for sealed in hours)}


@pytest.mark.parametrize(
    ("before", "after", "operation"),
    [
        pytest.param([], [1], "append", id="nothing was live"),
        pytest.param([1], [2], "overwrite", id="rows for rows"),
        pytest.param([1], [], "overwrite", id="nothing for rows"),
    ],
)
def test_the_operation_says_whether_files_went(lake: Lake, before: list[int], after: list[int], operation: str) -> None:
    """Readers that follow appends only must not follow a replacement."""
    lake.put(ELEVEN, [9])
    lake.put(TEN, before)
    lake.put(TEN, after)
    assert summary(lake)["operation"] == operation


@pytest.mark.parametrize(
    "order", list(permutations([TEN, ELEVEN, TWELVE])), ids=lambda order: " ".join(map(str, order))
)
def test_hours_commute(lake: Lake, order: tuple[HourWindow, ...]) -> None:
    """Three attempts opened at the same time give the same table in every order of their commits."""
    lake.replace(*(lake.seal(hour, [1]) for hour in order))
    sealed = {hour: lake.seal(hour, [hour.ordinal]) for hour in sorted(order)}
    for hour in order:
        lake.replace(sealed[hour])
    assert lake.rows() == {hour.key: [hour.ordinal] for hour in order}
    assert all(sealed[hour].attempt in path for hour in order for path in lake.files(hour))


def test_a_commit_is_idempotent(lake: Lake) -> None:
    """Committing a sealed attempt again finds its own files live, and makes no snapshot."""
    sealed = lake.seal(TEN, [1, 2])
    for epoch in (1, 2):
        commit(lake, attempt_of(sealed), epoch)
    assert lake.rows() == {TEN.key: [1, 2]}
    assert len(lake.now.table.metadata.snapshots) == 1


def test_totals_equal_reality(lake: Lake) -> None:
    """After appends, replacements and emptyings, the summary's totals are those of the live files."""
    for count, hour in enumerate([TEN, ELEVEN, TEN, TWELVE, ELEVEN, TEN, TWELVE]):
        lake.put(hour, range(3 * count % 7))
        live = [file for each in (TEN, ELEVEN, TWELVE) for file in lake.now.live(each)]
        found = summary(lake) if lake.now.head else {}
        figures = [int(found.get(f"total-{name}", 0)) for name in ("data-files", "records", "files-size")]
        assert figures == [len(live), sum(file.rows for file in live), sum(file.bytes for file in live)]


def test_every_snapshot_stays_readable(lake: Lake) -> None:
    """Time travel to each commit shows the table as it was then."""
    states = []
    for hour, ids in [(TEN, [1]), (ELEVEN, [2, 3]), (TEN, [4]), (ELEVEN, []), (TEN, [5, 6])]:
        states.append((lake.put(hour, ids).snapshot_id, lake.rows()))
    assert [lake.rows(snapshot_id) for snapshot_id, _ in states] == [rows for _, rows in states]


def test_one_hour_of_a_shared_manifest_is_replaced(lake: Lake) -> None:
    """Of a manifest with three hours, one becomes DELETED; the others keep sequence number and snapshot id."""
    lake.append(events(TEN, [1]), events(ELEVEN, [2]), events(TWELVE, [3]))
    appended = newest(lake)
    lake.put(ELEVEN, [4])
    replaced = newest(lake)
    lake.put(TEN, [5])
    newer = newest(lake)
    found = {
        (entry.data_file.partition[0], entry.status): (entry.snapshot_id, entry.sequence_number)
        for entry in lake.entries()
    }
    assert found == {
        (TEN.ordinal, ManifestEntryStatus.DELETED): (newer.snapshot_id, 1),
        (TEN.ordinal, ManifestEntryStatus.ADDED): (newer.snapshot_id, 3),
        (ELEVEN.ordinal, ManifestEntryStatus.ADDED): (replaced.snapshot_id, 2),
        (TWELVE.ordinal, ManifestEntryStatus.EXISTING): (appended.snapshot_id, 1),
    }
    assert lake.rows() == {TEN.key: [5], ELEVEN.key: [4], TWELVE.key: [3]}


def test_a_rollback_supersedes(lake: Lake) -> None:
    """An attempt opened before the table was rolled back conflicts, and the rolled-back rows stay."""
    first = lake.put(TEN, [1]).snapshot_id
    assert first is not None
    lake.put(TEN, [2])
    sealed = lake.seal(TEN, [3])
    lake.now.table.manage_snapshots().rollback_to_snapshot(first).commit()
    with pytest.raises(CommitConflictError):
        lake.replace(sealed)
    assert lake.rows() == {TEN.key: [1]}


def test_a_commit_to_another_branch_gets_in_between(lake: Lake) -> None:
    """A rival on another branch takes the sequence number; ours is built anew, and the branch is as it was."""
    lake.put(TEN, [0])
    head = lake.now.head
    assert head is not None
    lake.now.table.manage_snapshots().create_branch(head, "audit").commit()
    sealed, bases = lake.seal(TEN, [1]), list[int | None]()

    def let_the_rival_in(base: int | None, _snapshot_id: int) -> None:
        if not bases:
            lake.append(events(TEN, [2]), branch="audit")
        bases.append(base)

    lake.replace(sealed, before_send=let_the_rival_in)
    assert bases == [head, head]
    assert lake.rows() == {TEN.key: [1]}
    audit = lake.now.table.metadata.refs["audit"].snapshot_id
    assert lake.rows(audit) == {TEN.key: [0, 2]}
    assert lake.unreached() == set()


def test_hours_of_a_finer_spec_are_replaced(lake: Lake) -> None:
    """Files written while the table was also partitioned by name belong to their hour like all others."""
    with lake.now.table.update_spec() as update:
        update.add_field("name", IdentityTransform(), "by name")
    lake.append(events(TEN, [1, 2]), events(ELEVEN, [3]))
    with lake.now.table.update_spec() as update:
        update.remove_field("by name")
    assert len(lake.files(TEN)) == 2
    lake.put(TEN, [4])
    assert lake.rows() == {TEN.key: [4], ELEVEN.key: [3]}
    lake.put(ELEVEN, [])
    assert lake.rows() == {TEN.key: [4]}


def test_metadata_grows_with_the_commit_alone(lake: Lake) -> None:
    """A first commit writes a manifest list beside the seal's manifest; a replacement one manifest copy more."""
    lake.put(TEN, [1])
    assert len(lake.stored("metadata")) == 2
    lake.put(TEN, [2])
    assert len(lake.stored("metadata")) == 5
    assert lake.unreached() == set()


def test_a_seal_of_another_table_is_refused(catalog: Catalog) -> None:
    """A table made again under the same name does not get the files of the old one."""
    lake = Lake.create(catalog)
    sealed = lake.seal(TEN, [1])
    table = lake.now.table
    catalog.drop_table(lake.identifier)
    catalog.create_table(
        lake.identifier, table.schema(), partition_spec=table.spec(), properties=dict(table.properties)
    )
    with pytest.raises(SafetyError, match="another table of this name"):
        lake.replace(sealed)


def test_a_seal_of_a_spec_that_is_gone_is_refused(lake: Lake) -> None:
    """Nobody could tell of which hours its files are."""
    sealed = lake.seal(TEN, [1])
    other = replace(sealed, seal=sealed.seal.model_copy(update={"spec_id": 99}))
    with pytest.raises(SafetyError, match="was written for a partition spec that is gone"):
        lake.replace(other)
    assert lake.rows() == {}


@pytest.mark.parametrize("hour", ["event time", "2nd", "time-of-event", "zeit_ü", "時刻"])
def test_any_name_of_the_hours_column_works(catalog: Catalog, hour: str) -> None:
    """Names that Avro does not take are written and replaced like all others."""
    lake = Lake.create(catalog, {hour: "timestamptz!", "id": "long!", "name": "string"})
    for ids in ([1], [2, 3]):
        table = lake.now
        batch = events(TEN, ids).rename_columns([hour, "id", "name"])
        written = lake.write(TEN, [in_bucket(0, batch)], f"attempt{ids[0]}")
        seal = table.seal(f"attempt{ids[0]}", written, rows_read=None, rejected=0)
        live = [file.path for file in table.live(TEN)]
        lake.replace(SealedHour(TEN, f"attempt{ids[0]}", digest(live), seal))
    assert lake.now.table.scan().to_arrow()["id"].to_pylist() == [2, 3]
    assert [file.hour for file in lake.now.live(TEN)] == [TEN.ordinal]


def test_what_main_keeps_of_its_own_stays(any_lake: Lake) -> None:
    """A commit moves the branch, and leaves how long it keeps its snapshots as it is."""
    any_lake.put(TEN, [1])
    table = any_lake.now.table
    said = SetSnapshotRefUpdate(
        ref_name=MAIN_BRANCH,
        type=SnapshotRefType.BRANCH,
        snapshot_id=table.metadata.refs[MAIN_BRANCH].snapshot_id,
        max_ref_age_ms=None,
        max_snapshot_age_ms=77,
        min_snapshots_to_keep=3,
    )
    table._do_commit(updates=(said,), requirements=())
    any_lake.put(TEN, [2])
    ref = any_lake.now.table.metadata.refs[MAIN_BRANCH]
    assert (ref.max_snapshot_age_ms, ref.min_snapshots_to_keep) == (77, 3)

"""Snapshot expiry: what has had its time goes with its files, and nothing that anything still reaches."""

import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from pyiceberg.catalog import Catalog
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.metadata import TableMetadataV2
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.statistics import StatisticsFile
from pyiceberg.table.update import AddSnapshotUpdate, RemoveSnapshotsUpdate

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill.sealed import commit_sealed
from lakehouse_pipeline.cli.main import main
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.errors import CommitConflictError, CommitStateUnknownError, SafetyError
from lakehouse_pipeline.iceberg import dropped_refs
from lakehouse_pipeline.iceberg import expiry as iceberg_expiry
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.ledger import leases
from lakehouse_pipeline.maintenance import expiry, lease
from lakehouse_pipeline.maintenance.expiry import (
    ELSEWHERE,
    UNDER_WAY,
    Expired,
    look,
    preview_expiry,
    run_expiry,
    unfinished,
)
from lakehouse_pipeline.maintenance.lease import Held, maintaining
from lakehouse_pipeline.retry import RetryPolicy
from lakehouse_pipeline.testing.faults import FaultServer
from lakehouse_pipeline.testing.schedule import Effect, Fault
from tests.backfill.hands import in_hand, sealed
from tests.iceberg.answers import CASES, TRIES, fault_server
from tests.iceberg.lake import ELEVEN, TEN, Lake
from tests.iceberg.lake import events as rows_of
from tests.iceberg.scripted import ScriptedCatalog, honest, lost, refused
from tests.projects import HOUR, LAKEHOUSE, Project, row, strays

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine

LATER = timedelta(days=6)  # later than Iceberg's five


@pytest.fixture
def lake(any_lake: Lake) -> Lake:
    """Give a table with an hour of four snapshots, the oldest first, and another hour beside it."""
    return filled(any_lake)


@pytest.fixture
def local(catalog: Any) -> Lake:
    """Give the same in a SQL catalog."""
    return filled(Lake.create(catalog))


def filled(lake: Lake) -> Lake:
    """Put them there."""
    lake.put(ELEVEN, [7])
    for number in range(3):
        lake.put(TEN, [number, number + 10])
    return lake


ROWS = {TEN.key: [2, 12], ELEVEN.key: [7]}


def ids(lake: Lake) -> list[int]:
    """Give the table's snapshots, the oldest first."""
    return [each.snapshot_id for each in lake.now.table.metadata.snapshots]


def expired(lake: Lake, after: timedelta = LATER, **told: Any) -> Expired:
    """Plan and run, so much later."""
    plan = look(lake.now, None, datetime.now(UTC) + after)
    with maintaining(lake.now, "expiry", "expiring", lambda _run_id: True) as held:
        return run_expiry(lake.now, plan, held, **told)


def expired_while(lake: Lake, moment: str, does: Callable[[], object], nth: int = 1, **told: Any) -> Expired:
    """Plan and run, while somebody does something, once, when it is said for the `nth` time that something happens."""
    heard = 0

    def hear(event: events.Event) -> None:
        nonlocal heard
        if event.name == moment:
            heard += 1
            if heard == nth:
                does()

    with events.subscribed(hear):
        done = expired(lake, **told)
    assert heard >= nth
    return done


def tagged(lake: Lake, snapshot_id: int, name: str = "kept", kind: str = "tag") -> None:
    """Tag a snapshot, or make a branch of it."""
    refs = lake.now.table.manage_snapshots()
    (refs.create_tag if kind == "tag" else refs.create_branch)(snapshot_id, name).commit()


def assert_whole(lake: Lake, rows: dict[str, list[int]] | None = None) -> None:
    """All that is reached is there and can be read in every snapshot, nothing else is, and the next commit fits."""
    table = lake.now.table
    assert lake.missing() == set()
    assert lake.unreached() == set()
    assert lake.rows() == (rows or ROWS)
    for snapshot in table.metadata.snapshots:
        lake.rows(snapshot.snapshot_id)
    for url in (table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)):
        assert table.io.new_input(url).exists(), url
    last = last_number(lake)
    assert last >= max(snapshot.sequence_number or 0 for snapshot in table.metadata.snapshots)
    lake.append(rows_of(ELEVEN, [99]))
    assert lake.rows()[ELEVEN.key][-1] == 99


def last_number(lake: Lake) -> int:
    """Give the sequence number that the table counts on from."""
    metadata = lake.now.table.metadata
    assert isinstance(metadata, TableMetadataV2)
    return metadata.last_sequence_number


def count(done: Iterable[expiry.FilesOf]) -> int:
    """Sum up all kinds."""
    return sum(each.files for each in done)


def test_what_only_old_snapshots_reached_goes(lake: Lake) -> None:
    """With their manifests and lists; what is told is what is gone, and a dry run had told the same."""
    before = {item.url: item.size for folder in ("data", "metadata") for item in listed(lake, folder)}
    told = preview_expiry(lake.now, look(lake.now, None, datetime.now(UTC) + LATER))
    assert set(ids(lake)) == {*told.plan.retention.expired, lake.now.head}
    assert before.keys() == {item.url for folder in ("data", "metadata") for item in listed(lake, folder)}
    old = ids(lake)[:-1]
    done = expired(lake)
    assert done.committed
    assert done.plan.retention.expired == tuple(old)
    assert ids(lake) == [lake.now.head]
    after = {item.url for folder in ("data", "metadata") for item in listed(lake, folder)}
    gone = before.keys() - after
    assert done.files == told.files
    assert count(done.files.removed) == len(gone)
    assert done.files.left == {}
    by_kind = {each.kind: each for each in done.files.removed}
    data = [path for path in gone if path.endswith(".parquet")]
    assert (by_kind["data"].files, by_kind["data"].bytes) == (len(data), sum(before[path] for path in data))
    assert by_kind["manifest list"].files == len(old)
    avro = sum(before[path] for path in gone if path.endswith(".avro") and "/snap-" not in path)
    assert by_kind["manifest"].bytes == avro > 0
    assert_whole(lake)


def listed(lake: Lake, folder: str) -> list[Any]:
    """List a folder of the table without the catalog's own files."""
    table = lake.now
    found = table.files.list_objects(f"{table.location}/{folder}/")
    return [item for item in found if not item.url.endswith(".metadata.json")]


def test_nothing_is_old_enough(lake: Lake) -> None:
    """Nothing is committed, and nothing is noted."""
    before = lake.now.metadata_url
    done = expired(lake, timedelta(days=1))
    assert (done.committed, done.files.removed, done.plan.retention.expired) == (False, (), ())
    assert lake.now.metadata_url == before
    assert unfinished(lake.now) == ""
    assert_whole(lake)


def test_an_empty_table(any_lake: Lake) -> None:
    """It has nothing that could expire."""
    assert not expired(any_lake).committed


def test_tags_and_branches_keep_what_they_reach(lake: Lake) -> None:
    """A tag its snapshot, a branch its head; their files stay, too."""
    first, second, third, _ = ids(lake)
    tagged(lake, first)
    tagged(lake, third, "line", "branch")
    done = expired(lake)
    assert done.plan.retention.expired == (second,)
    assert set(ids(lake)) == {first, third, lake.now.head}
    assert lake.rows(first) == {ELEVEN.key: [7]}
    assert lake.rows(third) == {TEN.key: [1, 11], ELEVEN.key: [7]}
    assert_whole(lake)


def test_refs_that_are_too_old_go(lake: Lake) -> None:
    """With the snapshots that they alone kept; `main` stays."""
    first, _, third, _ = ids(lake)
    tagged(lake, third)
    lake.now.table.manage_snapshots().create_tag(first, "old", max_ref_age_ms=1000).commit()
    done = expired(lake)
    assert [str(ref) for ref in done.plan.retention.refs_removed] == ["tag old"]
    assert set(lake.now.table.metadata.refs) == {"main", "kept"}
    assert set(ids(lake)) == {third, lake.now.head}
    assert_whole(lake)


def test_a_ref_alone_goes(lake: Lake) -> None:
    """Where no snapshot goes with it."""
    lake.now.table.manage_snapshots().create_tag(ids(lake)[-1], "old", max_ref_age_ms=1000).commit()
    lake.now.table.manage_snapshots().create_tag(ids(lake)[0], "a").create_tag(ids(lake)[1], "b").create_tag(
        ids(lake)[2], "c"
    ).commit()
    done = expired(lake)
    assert done.committed
    assert (done.plan.retention.expired, done.files.removed) == ((), ())
    assert set(lake.now.table.metadata.refs) == {"main", "a", "b", "c"}
    assert unfinished(lake.now) == ""
    assert_whole(lake)


@pytest.mark.parametrize("kind", ["tag", "branch"])
@pytest.mark.parametrize("place", [0, 2])
def test_a_ref_that_is_made_meanwhile_survives(lake: Lake, kind: str, place: int) -> None:
    """A SQL catalog refuses the commit then; a REST catalog drops the ref, which is put back before files are removed.

    The table's sequence numbers go on as if nothing had been: an old snapshot that is put back does not set them back.
    """
    snapshot = ids(lake)[place]
    rows, last = lake.rows(snapshot), last_number(lake)
    done = expired_while(lake, "expiry.sent", lambda: tagged(lake, snapshot, kind=kind))
    ref = lake.now.table.metadata.refs["kept"]
    assert (ref.snapshot_id, ref.snapshot_ref_type.value) == (snapshot, kind)
    assert set(ids(lake)) >= {snapshot, lake.now.head}
    assert lake.rows(snapshot) == rows
    assert last_number(lake) >= last
    assert done.put_back == ((f"{kind} kept",) if is_rest(lake) else ())
    assert unfinished(lake.now) == ""
    assert_whole(lake)


def is_rest(lake: Lake) -> bool:
    """Tell of which kind the table's catalog is."""
    return str(lake.catalog.properties["type"]) == "rest"


def test_everything_is_tagged_meanwhile(local: Lake) -> None:
    """Nothing is left to expire: the run ends, and leaves nothing for the next one to finish."""

    def meanwhile() -> None:
        for place, snapshot in enumerate(ids(local)[:-1]):
            tagged(local, snapshot, f"t{place}")

    done = expired_while(local, "expiry.sent", meanwhile)
    assert (done.committed, done.plan.retention.expired) == (False, ())
    assert len(ids(local)) == 4
    assert unfinished(local.now) == ""
    assert_whole(local)


def test_several_refs_are_put_back_with_what_they_say(lake: Lake) -> None:
    """Several of one snapshot and of several, with ages of their own; `main` keeps its own, too."""
    first, second, third, _ = ids(lake)

    def meanwhile() -> None:
        refs = lake.now.table.manage_snapshots()
        refs.create_branch(second, "line", max_snapshot_age_ms=77, min_snapshots_to_keep=3).commit()
        lake.now.table.manage_snapshots().create_tag(second, "two", max_ref_age_ms=10**12).commit()
        tagged(lake, first, "one")

    expired_while(lake, "expiry.sent", meanwhile)
    refs = lake.now.table.metadata.refs
    assert {name: refs[name].snapshot_id for name in ("line", "one", "two")} == {
        "line": second,
        "one": first,
        "two": second,
    }
    assert refs["line"].snapshot_ref_type is SnapshotRefType.BRANCH
    assert (refs["line"].max_snapshot_age_ms, refs["line"].min_snapshots_to_keep) == (77, 3)
    assert refs["two"].max_ref_age_ms == 10**12
    assert third not in ids(lake)
    assert_whole(lake)


def test_a_ref_that_is_dropped_meanwhile_is_not_put_back(lake: Lake) -> None:
    """Somebody wanted it gone; the expiry is planned again without it."""
    tagged(lake, ids(lake)[0])
    expired_while(lake, "expiry.sent", lambda: lake.now.table.manage_snapshots().remove_tag("kept").commit())
    assert set(lake.now.table.metadata.refs) == {"main"}
    assert ids(lake) == [lake.now.head]
    assert_whole(lake)


@pytest.mark.parametrize("moment", ["expiry.sent", "expiry.committed", "expiry.deleting"])
def test_an_append_meanwhile(lake: Lake, moment: str) -> None:
    """The expiry is planned again, or goes on; both are there."""
    done = expired_while(lake, moment, lambda: lake.append(rows_of(TEN, [50])))
    assert done.committed
    assert len(ids(lake)) == (2 if moment != "expiry.sent" else 2 - (ids(lake)[0] == lake.now.head))
    assert_whole(lake, {**ROWS, TEN.key: [2, 12, 50]})


def test_a_rollback_meanwhile_is_planned_again(lake: Lake) -> None:
    """What `main` stands on now stays, though it was to go."""
    first = ids(lake)[0]
    expired_while(lake, "expiry.sent", lambda: lake.now.table.manage_snapshots().rollback_to_snapshot(first).commit())
    assert lake.now.head == first
    assert_whole(lake, {ELEVEN.key: [7]})


def test_files_that_others_may_own(lake: Lake) -> None:
    """Nothing is changed."""
    with lake.now.table.transaction() as change:
        change.set_properties({"gc.enabled": "false"})
    before = lake.now.metadata_url
    with pytest.raises(SafetyError, match=r"gc\.enabled is false"):
        expired(lake)
    assert lake.now.metadata_url == before
    assert_whole(lake)


def test_files_that_others_may_own_from_now_on(lake: Lake) -> None:
    """A table that says so between the plan and the commit is left alone as well."""

    def meanwhile() -> None:
        with lake.now.table.transaction() as change:
            change.set_properties({"gc.enabled": "false"})
        lake.append(rows_of(TEN, [50]))

    with pytest.raises(SafetyError, match=r"gc\.enabled is false"):
        expired_while(lake, "expiry.sent", meanwhile)
    assert len(ids(lake)) == 5
    assert_whole(lake, {**ROWS, TEN.key: [2, 12, 50]})


KILLED = {  # of two data files, three manifests and three lists, one at a time
    "before the commit": ("expiry.sent", 1),
    "after the commit": ("expiry.committed", 1),
    "at the wait": ("expiry.waiting", 1),
    "before any file": ("expiry.deleting", 1),
    "between data files": ("expiry.deleted", 1),
    "between data files and manifests": ("expiry.deleted", 2),
    "between manifests": ("expiry.deleted", 4),
    "between lists": ("expiry.deleted", 7),
    "before the last file": ("expiry.deleting", 8),
    "before it says so": ("expiry.finished", 1),
}


@pytest.mark.parametrize("stage", KILLED)
def test_killed_at_each_stage(lake: Lake, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """The next expiry does what is left, exactly; nothing that is reached is ever gone meanwhile."""
    monkeypatch.setattr(expiry, "BATCH", 1)

    def dies() -> None:
        raise KeyboardInterrupt

    at, nth = KILLED[stage]
    with pytest.raises(KeyboardInterrupt):
        expired_while(lake, at, dies, nth, wait=timedelta(seconds=1), sleep=lambda _seconds: None)
    assert lake.missing() == set()
    assert lake.rows() == ROWS
    begun = stage not in {"before the commit", "before it says so"}
    assert bool(lake.unreached()) == begun
    assert bool(unfinished(lake.now)) == (stage != "before it says so")
    done = expired(lake)
    assert bool(done.finished) == (stage != "before it says so")
    assert (count(done.files_of_earlier.removed) > 0) == begun
    assert unfinished(lake.now) == ""
    assert ids(lake) == [lake.now.head]
    assert_whole(lake)


def test_a_ref_that_was_dropped_is_put_back_by_the_next_run(lake: Lake) -> None:
    """Killed after the commit: nothing had been removed, and others have committed since."""
    snapshot = ids(lake)[0]

    def hear(event: events.Event) -> None:
        if event.name == "expiry.sent" and "kept" not in lake.now.table.metadata.refs:
            tagged(lake, snapshot)
        if event.name == "expiry.committed":
            raise KeyboardInterrupt

    with events.subscribed(hear), pytest.raises(KeyboardInterrupt):
        expired(lake)
    lake.append(rows_of(TEN, [50]))
    done = expired(lake, timedelta(0))
    assert done.put_back == (("tag kept",) if is_rest(lake) else ())
    assert lake.now.table.metadata.refs["kept"].snapshot_id == snapshot
    assert_whole(lake, {**ROWS, TEN.key: [2, 12, 50]})


def test_the_metadata_file_of_an_earlier_run_is_gone(lake: Lake) -> None:
    """Its files are left to the sweep; the lease's note goes, and later expiries are as ever."""

    def dies() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        expired_while(lake, "expiry.committed", dies)
    left = lake.unreached()
    lake.now.table.io.delete(unfinished(lake.now))
    expired(lake, timedelta(0))
    assert unfinished(lake.now) == ""
    assert lake.unreached() == left != set()
    assert lake.missing() == set()


def test_a_log_that_does_not_go_back_far_enough(catalog: Catalog) -> None:
    """Killed after the commit, and others have committed since: which refs went with it nobody can tell any more."""
    keep = {"write.metadata.delete-after-commit.enabled": "false", "write.metadata.previous-versions-max": "1"}
    lake = filled(Lake.create(catalog, properties=keep))

    def dies() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        expired_while(lake, "expiry.committed", dies)
    for number in range(3):
        lake.append(rows_of(TEN, [50 + number]))
    before = lake.unreached()
    with pytest.raises(SafetyError, match="the metadata log does not tell what the expiry replaced"):
        expired(lake, timedelta(0))
    assert lake.unreached() == before != set()


def test_another_run_takes_the_lease(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the next renewal on no file is removed; the next run removes them all."""
    monkeypatch.setattr(leases, "RENEW_EVERY", timedelta(milliseconds=50))
    before = lake.stored("data") | lake.stored("metadata")

    def taken() -> None:
        """Take it between two renewals, of which one may come first, and wait until the holder was told."""
        turn, deadline = lake.now.ledger.turn("maintenance", "another run"), time.monotonic() + 60
        while not turn.take(lambda _run_id: True):
            assert time.monotonic() < deadline
        while not told.is_set() and time.monotonic() < deadline:
            time.sleep(0.01)

    told = threading.Event()
    monkeypatch.setattr(lease, "Held", lambda turn, run_id, epoch: Held(turn, run_id, epoch, told))
    with pytest.raises(CommitConflictError, match="another run has taken"):
        expired_while(lake, "expiry.committed", taken)
    assert before <= lake.stored("data") | lake.stored("metadata")
    monkeypatch.undo()
    done = expired(lake)
    assert count(done.files_of_earlier.removed) == len(before - lake.stored("data") - lake.stored("metadata")) == 8
    assert_whole(lake)


def test_readers_are_waited_for(lake: Lake) -> None:
    """All files are there for as long as it takes; those of a snapshot that is tagged in the last moment, for good."""
    old, waited = ids(lake)[:-1], list[float]()
    held = {snapshot: lake.now.table.scan(snapshot_id=snapshot) for snapshot in old}

    def sleeps(seconds: float) -> None:
        waited.append(seconds)
        assert ids(lake) == [lake.now.head]
        for scan in held.values():
            assert scan.to_arrow().num_rows > 0

    expired(lake, wait=timedelta(minutes=10), sleep=sleeps)
    assert waited == [600]
    with pytest.raises(FileNotFoundError):
        held[old[1]].to_arrow()
    assert_whole(lake)


def test_snapshots_that_somebody_puts_back_while_files_go(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing goes after the batch that is under way."""
    monkeypatch.setattr(expiry, "BATCH", 1)
    first, last = local.now.table.metadata.snapshots[0], last_number(local)

    def put_back() -> None:
        table = local.now.table
        again = first.model_copy(update={"parent_snapshot_id": None, "sequence_number": last})
        table._do_commit(updates=(AddSnapshotUpdate(snapshot=again),), requirements=())

    before = local.stored("data") | local.stored("metadata")
    with pytest.raises(CommitConflictError, match="there again"):
        expired_while(local, "expiry.deleting", put_back)
    assert len(before - local.stored("data") - local.stored("metadata")) == 1


def test_files_from_elsewhere_are_left(lake: Lake, tmp_path: Path) -> None:
    """What `add_files` took from another folder is nobody's to remove but its owner's; it is counted."""
    table = lake.now
    elsewhere = f"s3://plain/{uuid.uuid4()}/a.parquet" if is_rest(lake) else f"file://{tmp_path}/elsewhere/a.parquet"
    pq.write_table(pa.Table.from_batches([rows_of(TEN, [5])]), tmp_path / "a.parquet")
    table.files.put(elsewhere, (tmp_path / "a.parquet").read_bytes())
    table.table.add_files([elsewhere])
    assert lake.rows()[TEN.key] == [2, 5, 12]
    lake.put(TEN, [2, 12])
    done = expired(lake)
    assert done.files.left == {ELSEWHERE: 1}
    assert lake.now.files.head(elsewhere) is not None
    assert_whole(lake)


def test_a_path_that_leads_out_of_the_folders_is_left(local: Lake, tmp_path: Path) -> None:
    """It begins as those of the table do, and is a file of another folder's."""
    elsewhere = tmp_path / "warehouse" / "elsewhere.parquet"
    pq.write_table(pa.Table.from_batches([rows_of(TEN, [5])]), elsewhere)
    folder = local.now.location.removeprefix("file://")
    up = "../" * len(Path(folder).relative_to(tmp_path / "warehouse").parts)
    local.now.table.add_files([f"{local.now.location}/{up}elsewhere.parquet"])
    assert local.rows()[TEN.key] == [2, 5, 12]
    local.put(TEN, [2, 12])
    assert expired(local).files.left == {ELSEWHERE: 1}
    assert elsewhere.exists()


def test_a_manifest_that_is_reached_is_gone(any_lake: Lake) -> None:
    """No file is removed for what is missing: an old manifest names what the one that is gone keeps alive."""
    any_lake.append(rows_of(TEN, [1]), rows_of(ELEVEN, [7]))
    any_lake.put(TEN, [2])  # the other hour's file stands in a copy of the manifest now
    (live,) = any_lake.files(ELEVEN)
    table = any_lake.now
    snapshot = table.table.current_snapshot()
    assert snapshot is not None
    holds = [
        manifest.manifest_path
        for manifest in snapshot.manifests(table.table.io)
        if live in {entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.table.io)}
    ]
    content = table.files.get(holds[0]).body
    table.files.delete(holds[0])
    with pytest.raises(CommitConflictError, match="is gone, which the table reaches"):
        expired(any_lake)
    assert live in any_lake.stored("data")
    table.files.put(holds[0], content)
    expired(any_lake)
    assert_whole(any_lake, {TEN.key: [2], ELEVEN.key: [7]})


def test_a_sealed_attempt_outlives_the_snapshots_that_it_was_opened_on(lake: Lake) -> None:
    """No snapshot reaches its files, so that none of them is removed; it is committed as if nothing had been."""
    hand = sealed(lake, TEN, [60, 61])
    assert hand.attempt.seal is not None
    files = lake.now.sealed_files(hand.attempt.seal)
    lake.put(ELEVEN, [8])
    expired(lake)
    assert files <= lake.stored("data")
    commit_sealed(lake.now, lambda _run_id: True)
    assert lake.rows() == {TEN.key: [60, 61], ELEVEN.key: [8]}
    assert lake.missing() == set()


def test_an_attempt_under_way_keeps_what_was_rolled_back(lake: Lake) -> None:
    """Its commit landed, its run was killed before it said so, and somebody rolled it back: it is committed again.

    The snapshot expires, of no branch any more; the files are the attempt's, and stay.
    """
    before = lake.now.head
    assert before is not None
    hand = sealed(lake, TEN, [60, 61])
    assert hand.attempt.seal is not None
    files = lake.now.sealed_files(hand.attempt.seal)

    def dies(event: events.Event) -> None:
        if event.name == "commit.landed":
            raise KeyboardInterrupt

    with events.subscribed(dies), pytest.raises(KeyboardInterrupt):
        hand.commit()
    assert lake.rows()[TEN.key] == [60, 61]
    lake.now.table.manage_snapshots().rollback_to_snapshot(before).commit()
    done = expired(lake)
    assert done.files.left[UNDER_WAY] > 1
    assert files <= lake.stored("data")
    assert lake.missing() == set()
    commit_sealed(lake.now, lambda _run_id: True)
    assert lake.missing() == set()
    assert lake.rows()[TEN.key] in ([60, 61], [2, 12])
    assert in_hand(lake, TEN).held.record.attempt is None


def test_statistics_go_with_their_snapshots(lake: Lake) -> None:
    """Those of a snapshot that stays, stay."""
    old, head = ids(lake)[0], ids(lake)[-1]
    paths = {}
    for snapshot in (old, head):
        paths[snapshot] = f"{lake.now.location}/metadata/{snapshot}-{uuid.uuid4()}.stats"
        lake.now.files.put(paths[snapshot], b"PFA1")
        file = StatisticsFile(
            snapshot_id=snapshot,
            statistics_path=paths[snapshot],
            file_size_in_bytes=4,
            file_footer_size_in_bytes=4,
            blob_metadata=[],
        )
        with lake.now.table.update_statistics() as update:
            update.set_statistics(file)
    done = expired(lake)
    assert [each.snapshot_id for each in lake.now.table.metadata.statistics] == [head]
    assert {each.kind: (each.files, each.bytes) for each in done.files.removed}["statistics"] == (1, 4)
    assert lake.unreached() == {paths[head]}  # which this counts as nobody's
    assert lake.missing() == set()


def test_metadata_files_that_the_log_has_dropped_go(catalog: Any) -> None:
    """Where the table does not have them removed with every commit; those that the log names stay."""
    keep = {"write.metadata.delete-after-commit.enabled": "false", "write.metadata.previous-versions-max": "3"}
    lake = filled(Lake.create(catalog, properties=keep))
    logged = {entry.metadata_file for entry in lake.now.table.metadata.metadata_log}
    done = expired(lake)
    now = {entry.metadata_file for entry in lake.now.table.metadata.metadata_log}
    assert {each.kind: each.files for each in done.files.removed}["metadata"] == len(logged - now) == 1
    for url in logged - now:
        assert lake.now.files.head(url) is None
    assert_whole(lake)


# ---------------------------------------------------------------------------------------------------------------------
# Answers that are lost
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterable[ScriptedCatalog]:
    """Give a SQL catalog that answers as a test says, and little patience."""
    patience = RetryPolicy(tries=3, min_wait_s=0, max_wait_s=0)
    monkeypatch.setattr(iceberg_expiry, "COMMIT_RETRIES", patience)
    monkeypatch.setattr(dropped_refs, "PUT_BACK_RETRIES", patience)
    catalog = ScriptedCatalog(
        "scripted",
        uri=f"sqlite:///{tmp_path}/c.db",
        warehouse=f"file://{tmp_path}/w",
        **{"py-io-impl": "lakehouse_pipeline.object_store.file_io.LakehouseFileIO"},
    )
    yield catalog
    catalog.close()


def test_an_answer_that_is_lost(scripted: ScriptedCatalog) -> None:
    """The table is read back, and files are removed once it is known that the commit landed."""
    lake = filled(Lake.create(scripted))
    scripted.script = [lost(OSError("no answer"))]
    assert expired(lake).committed
    assert ids(lake) == [lake.now.head]
    assert_whole(lake)


def test_an_answer_that_never_comes(scripted: ScriptedCatalog) -> None:
    """Nothing is removed while it may still land; the next run plans, commits and removes."""
    lake = filled(Lake.create(scripted))
    before = lake.stored("data") | lake.stored("metadata")
    scripted.script, scripted.forever = [refused(OSError("no answer"))], True
    with pytest.raises(CommitStateUnknownError, match="may still land"):
        expired(lake)
    assert lake.stored("data") | lake.stored("metadata") == before
    scripted.script, scripted.forever = [honest], False
    assert unfinished(lake.now) != ""
    assert expired(lake).committed
    assert_whole(lake)


def test_a_lost_lease_sends_no_second_expiry(scripted: ScriptedCatalog) -> None:
    """Taken while the first was on its way: the next holder finishes what may have begun."""
    lake = filled(Lake.create(scripted))

    def taken(_send: Any) -> Any:
        assert lake.now.ledger.turn("maintenance", "another run").take(lambda _run_id: True)
        raise OSError("no answer")

    scripted.script, scripted.commits = [taken], 0
    with pytest.raises(CommitStateUnknownError, match="may still land"):
        expired(lake)
    assert scripted.commits == 1
    assert len(ids(lake)) == 4


def test_an_answer_that_comes_when_nobody_waits(scripted: ScriptedCatalog) -> None:
    """A commit that lands after its run gave up, and drops nothing, has its files removed by the next run."""
    lake = filled(Lake.create(scripted))
    held: list[Any] = []

    def holds_back(send: Any) -> Any:
        held.append(send)
        raise OSError("no answer")

    scripted.script, scripted.forever = [holds_back], True
    with pytest.raises(CommitStateUnknownError):
        expired(lake)
    scripted.script, scripted.forever = [], False
    held[0]()
    assert ids(lake) == [lake.now.head]
    done = expired(lake)
    assert (done.committed, bool(done.finished)) == (False, True)
    assert count(done.files_of_earlier.removed) > 0
    assert_whole(lake)


@pytest.fixture
def far(seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FaultServer, Lake]]:
    """Give a table in a REST catalog, and the fault server before it; tries follow each other at once."""
    patience = RetryPolicy(tries=TRIES, min_wait_s=0, max_wait_s=0)
    monkeypatch.setattr(iceberg_expiry, "COMMIT_RETRIES", patience)
    monkeypatch.setattr(dropped_refs, "PUT_BACK_RETRIES", patience)
    with fault_server(seaweed) as server, open_catalog(seaweed.catalog_properties() | {"uri": server.endpoint}) as made:
        yield server, filled(Lake.create(made))


@pytest.mark.parametrize(
    "case", ["409-first", "409-second", "500-first", "500-last", "reset-every", "half an answer-first"]
)
def test_answers_of_a_real_catalog_that_are_wrong(far: tuple[FaultServer, Lake], case: str) -> None:
    """The commit landed, whatever was said of it: the table is read back, and files are removed."""
    server, lake = far
    for fault in CASES[case].faults():
        server.add(fault)
    done = expired(lake)
    server.clear()
    assert done.committed
    assert count(done.files.removed) == 8
    assert_whole(lake)


def test_a_ref_that_cannot_be_put_back(far: tuple[FaultServer, Lake]) -> None:
    """No file is removed, and what to do is said; the next run puts it back."""
    server, lake = far
    first = ids(lake)[0]
    before = lake.stored("data") | lake.stored("metadata")

    def meanwhile() -> None:
        tagged(lake, first)
        server.add(Fault(effect=Effect.INTERNAL_ERROR, verb="updateTable", landed=False, times=None, after=1))

    with pytest.raises(SafetyError, match=f"tag kept on snapshot {first} was made while .* could not be put back"):
        expired_while(lake, "expiry.sent", meanwhile)
    server.clear()
    assert "kept" not in lake.now.table.metadata.refs
    assert before <= lake.stored("data") | lake.stored("metadata")
    assert expired(lake).put_back == ("tag kept",)
    assert lake.now.table.metadata.refs["kept"].snapshot_id == first
    assert lake.missing() == set()
    assert lake.rows(first) == {ELEVEN.key: [7]}


def test_a_commit_that_lands_late_takes_no_ref_along(rest_catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent, not answered, and sent again as the table was by then: with a tag that the first one knows nothing of."""
    lake = filled(Lake.create(rest_catalog))
    first, send = ids(lake)[0], rest_catalog.commit_table
    late: list[Callable[[], object]] = []

    def holds_back(table: Table, requirements: Any, updates: Any) -> CommitTableResponse:
        if not late and any(isinstance(update, RemoveSnapshotsUpdate) for update in updates):
            late.append(lambda: send(table, requirements, updates))
            tagged(lake, first)
            raise OSError("no answer")
        return send(table, requirements, updates)

    def lands(_seconds: float) -> None:
        assert lake.now.table.metadata.refs["kept"].snapshot_id == first
        late[0]()
        assert "kept" not in lake.now.table.metadata.refs

    monkeypatch.setattr(rest_catalog, "commit_table", holds_back)
    done = expired(lake, wait=timedelta(seconds=1), sleep=lands)
    assert done.put_back == ("tag kept",)
    assert lake.now.table.metadata.refs["kept"].snapshot_id == first
    assert_whole(lake)


# ---------------------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------------------


def typed(project: Project, *words: str, code: int = 0) -> str:
    """Type the command."""
    done = CliRunner().invoke(main, ["expire", "events", *words, "-c", str(project.folder / "lakehouse.yaml")])
    assert done.exit_code == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture
def old(project: Project) -> Project:
    """Give a project whose hour was written twice, and whose snapshots are kept for no time at all."""
    for number in (1, 2):
        project.land(HOUR, [row(HOUR, number)])
        project.run(HOUR)
    with project.table.table.transaction() as change:
        change.set_properties({"history.expire.max-snapshot-age-ms": "0"})
    return project


def test_the_command(old: Project) -> None:
    """It says what it would do, then what it did and why the rest stays; then there is nothing to do."""
    first, *lines = typed(old, "--dry-run").splitlines()
    assert first == "events: 1 snapshot to expire, 1 kept"
    assert "  kept 1: branch main, stands on it" in lines
    assert any(re.fullmatch(r"  to remove: 1 data file of [0-9.]+ K?B", line) for line in lines)
    first, *lines = typed(old).splitlines()
    assert first == "events: 1 snapshot expired, 1 kept"
    assert any(re.fullmatch(r"  removed: 1 data file of [0-9.]+ K?B", line) for line in lines)
    assert "  removed: 1 manifest list file" in lines
    assert typed(old).splitlines()[0] == "events: no snapshot is old enough to expire, 1 kept"
    assert old.ids() == [2]
    assert strays(old.table) == set()
    assert old.run(HOUR).step == "skip"


def test_the_command_as_json(old: Project) -> None:
    """The same for programs."""
    before = [each.snapshot_id for each in old.table.table.metadata.snapshots]
    planned = json.loads(typed(old, "--dry-run", "--json"))
    assert (planned["table"], planned["dry_run"], planned["committed"]) == ("events", True, False)
    assert planned["expired"] == before[:-1]
    assert planned["kept"] == [{"snapshot_id": before[-1], "why": "stands on it", "ref": "branch main"}]
    done = json.loads(typed(old, "--json"))
    assert (done["committed"], done["finished"], done["put_back"], done["left"]) == (True, None, [], {})
    assert done["removed"] == planned["removed"]
    assert {each["kind"]: each["files"] for each in done["removed"]}["data"] == 1


def test_the_command_is_refused(old: Project) -> None:
    """Where another run maintains the table, and where files may be others'."""
    with maintaining(old.table, "compaction", "another"):
        assert "run another has the maintenance lease (compaction" in typed(old, code=4)
    with old.table.table.transaction() as change:
        change.set_properties({"gc.enabled": "false"})
    assert "gc.enabled is false" in typed(old, code=3)


def test_the_settings_of_the_lakehouse(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """An age, where the table says none, and a wait for readers."""
    waited = list[float]()
    monkeypatch.setattr(expiry, "run_expiry", partial(run_expiry, sleep=waited.append))
    for number in (1, 2):
        project.land(HOUR, [row(HOUR, number)])
        project.run(HOUR)
    file = Path(project.table.metadata_url.removeprefix("file://"))
    told = json.loads(file.read_text())
    for entry in (*told["snapshots"], *told["snapshot-log"]):
        entry["timestamp-ms"] -= 24 * 3600 * 1000
    file.write_text(json.dumps(told))
    assert typed(project) == (
        "events: no snapshot is old enough to expire, 2 kept\n"
        "  kept 1: branch main, stands on it\n"
        "  kept 1: branch main, young\n"
    )
    assert waited == []
    project.write("lakehouse.yaml", f"{LAKEHOUSE}maintenance: {{snapshots: 23h, expiry_wait: 10min}}\n")
    assert typed(project).splitlines()[0] == "events: 1 snapshot expired, 1 kept"
    assert waited == [600]
    assert strays(project.table) == set()

"""Compaction: fewer files with the same rows, or the table as it was and nothing beside it."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.backfill.sealed import commit_sealed
from lakehouse_pipeline.cli.main import main
from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.errors import CommitConflictError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.data_files import WrittenFile, write_files
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.maintenance import rewrite
from lakehouse_pipeline.maintenance.compaction import Compacted, compact, look
from lakehouse_pipeline.maintenance.rewrite import ProofError
from lakehouse_pipeline.status.picture import hour_status
from tests.backfill.hands import in_hand, new_attempt, opened, seal
from tests.iceberg.lake import ELEVEN, EVENTS, MEGABYTE, TEN, Lake, in_bucket, spec_of
from tests.iceberg.lake import events as rows_of
from tests.projects import HOUR, Project, row, strays

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine

FILES = 6
IDS = list(range(FILES))
WITHIN_TEN = "at >= '2013-01-01T10:00:00+00:00' and at < '2013-01-01T11:00:00+00:00'"


@pytest.fixture
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Give a table in a SQLite catalog of its own, with an hour of small files and one of a single one."""
    return made(tmp_path_factory)


def made(tmp_path_factory: pytest.TempPathFactory, **told: Any) -> Lake:
    """Make such a table."""
    folder = tmp_path_factory.mktemp("lake")
    catalog = open_catalog({"type": "sql", "uri": f"sqlite:///{folder}/c.db", "warehouse": f"file://{folder}/w"})
    lake = Lake.create(catalog, **told)
    put(lake, TEN, [[number] for number in reversed(IDS)])
    put(lake, ELEVEN, [[7]])
    return lake


def put(lake: Lake, hour: HourWindow, files: Iterable[list[int]]) -> None:
    """Commit an hour of these files, as a run does that has as many tasks."""
    put_rows(lake, hour, [rows_of(hour, ids) for ids in files])


def put_rows(lake: Lake, hour: HourWindow, files: Iterable[pa.RecordBatch], file_size: int = MEGABYTE) -> None:
    """Commit an hour of files of these rows, each of which rolls at a size."""
    buckets = [in_bucket(place, rows) for place, rows in enumerate(files)]
    hand = in_hand(lake, hour)
    hand.open(new_attempt(hand.table, hour, buckets=len(buckets)))
    written = lake.write(hour, buckets, hand.attempt.id, file_size)
    hand.seal(hand.table.seal(hand.attempt.id, written, rows_read=None, rejected=0))
    hand.commit()


def ran(lake: Lake, *, key: Sequence[str] = (), types: Mapping[str, str] = EVENTS, **settings: Any) -> list[Compacted]:
    """Plan and run, with these of the spec's `compact`, and a key for `merge`; gives each part of an hour."""
    keys = {"table": lake.identifier, "compact": settings, "key": key}
    spec, table = spec_of(types, {name: value for name, value in keys.items() if value}), lake.now
    plan = look(MaintenanceSettings(), spec, table)
    return list(compact(Warehouse(lake.catalog, table.files), spec, plan, "compactor"))


def compacted(lake: Lake, **told: Any) -> dict[HourWindow, Compacted]:
    """Plan and run, as `ran`; gives the last of each hour."""
    return {each.hour: each for each in ran(lake, **told)}


MOMENTS = ["planned", "attempt.opened", "attempt.sealed"]  # nothing is read yet, either; all is written


def compacted_while(lake: Lake, moment: str, does: Callable[[], object], **settings: Any) -> Compacted:
    """Plan and run, while somebody does something at a moment."""

    def heard(event: events.Event) -> None:
        if event.name == moment:
            does()

    spec, table = spec_of(EVENTS, {"table": lake.identifier, "compact": settings}), lake.now
    plan = look(MaintenanceSettings(), spec, table)
    if moment == "planned":
        does()
    with events.subscribed(heard):
        (done,) = compact(Warehouse(lake.catalog, table.files), spec, plan, "compactor")
    return done


def data(lake: Lake, hour: HourWindow = TEN) -> list[str]:
    """Name the hour's live files."""
    return sorted(file.path for file in lake.now.live(hour))


def left_over(lake: Lake) -> set[str]:
    """Name what no snapshot reaches, once everything is closed."""
    close_attempts(lake.now, lambda _run_id: True, grace=timedelta(0))
    return {item.url for item in lake.now.strays()}


def test_small_files_become_one(lake: Lake) -> None:
    """In a snapshot that says that no row changed; the hour is unchanged for a backfill, and its neighbours, too."""
    neighbour, before = data(lake, ELEVEN), in_hand(lake, TEN).held.record.committed
    done = compacted(lake)
    assert list(done) == [TEN]
    assert done[TEN].error is None
    assert len(data(lake)) == 1
    assert data(lake, ELEVEN) == neighbour
    assert lake.rows() == {TEN.key: IDS, ELEVEN.key: [7]}
    snapshot = lake.now.table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    assert snapshot.summary.operation.value == "replace"
    held = in_hand(lake, TEN).held
    after = held.record.committed
    assert before is not None
    assert after is not None
    assert (after.source, after.recipe, after.rewritten) == (before.source, before.recipe, True)
    assert (hour_status(held).state, hour_status(held).live_files) == ("compacted", 1)
    assert compacted(lake) == {}
    assert left_over(lake) == set()


def test_rejected_rows_stay_those_of_the_run(lake: Lake) -> None:
    """A compaction keeps them, and so does one after another; the hour's next run drops them."""
    ledger, files, held = lake.now.ledger, lake.now.files, in_hand(lake, TEN).held
    before = held.record.committed
    assert before is not None
    held.advance(committed=before.model_copy(update={"attempt": "an earlier compaction", "rewritten": True}))
    rejected = f"{ledger.rejects_url(TEN, before.attempt)}/0.parquet"
    files.put(rejected, b"bad rows")
    assert compacted(lake)[TEN].error is None
    after = in_hand(lake, TEN).held.record.committed
    assert after is not None
    assert (after.rewritten, after.rejects) == (True, before.attempt)
    assert left_over(lake) == set()
    assert files.head(rejected)
    put(lake, TEN, [[1]])
    assert files.head(rejected) is None


def test_older_snapshots_are_read_as_before(lake: Lake) -> None:
    """Time travel sees the files that the hour had then."""
    before = lake.now.head
    compacted(lake)
    assert lake.rows(before) == {TEN.key: IDS, ELEVEN.key: [7]}


def test_a_sorted_table_stays_sorted(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Rows of all files are in one order then, nulls first and where it descends last."""
    lake = made(tmp_path_factory, sort=["-id"])
    assert compacted(lake)[TEN].error is None
    ((entry),) = [entry for entry in lake.entries() if entry.data_file.file_path in data(lake)]
    assert entry.data_file.sort_order_id == lake.now.table.sort_order().order_id
    assert [
        each.as_py() for batch in lake.now.stored.live_batches(lake.now.live(TEN), []) for each in batch["id"]
    ] == IDS[::-1]


def test_who_loses_the_hour_steps_aside(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else has replaced the hour while it was written: that stays, and nothing of the compaction does."""

    def meanwhile(*told: Any) -> list[WrittenFile]:
        lake.now.table.overwrite(pa.Table.from_batches([rows_of(TEN, [99])]), WITHIN_TEN)
        return write_files(*told)

    monkeypatch.setattr(rewrite, "write_files", meanwhile)
    done = compacted(lake)[TEN]
    assert done.stepped_aside
    assert "6 of the 6 files that it rewrites are live no more" in str(done.error)
    assert lake.rows()[TEN.key] == [99]
    assert left_over(lake) == set()


def test_an_append_to_the_hour_is_no_rival(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not of the files that are rewritten, and stays beside them."""

    def meanwhile(*told: Any) -> list[WrittenFile]:
        lake.append(rows_of(TEN, [99]))
        return write_files(*told)

    monkeypatch.setattr(rewrite, "write_files", meanwhile)
    assert compacted(lake)[TEN].error is None
    assert lake.rows()[TEN.key] == [*IDS, 99]
    assert len(data(lake)) == 2
    assert left_over(lake) == set()


def test_what_changed_since_the_plan_is_left(lake: Lake) -> None:
    """Before anything is written."""
    spec = spec_of(EVENTS, {"table": lake.identifier})
    plan = look(MaintenanceSettings(), spec, lake.now)
    put(lake, TEN, [[50]])
    (done,) = compact(Warehouse(lake.catalog, lake.now.files), spec, plan, "compactor")
    assert isinstance(done.error, CommitConflictError)
    assert "has changed since the plan was made" in str(done.error)
    assert lake.rows()[TEN.key] == [50]


def test_an_hour_that_a_run_has_begun_is_left(lake: Lake) -> None:
    """Since the plan; its attempt goes on."""
    spec = spec_of(EVENTS, {"table": lake.identifier})
    plan = look(MaintenanceSettings(), spec, lake.now)
    hand = opened(lake, TEN)
    (done,) = compact(Warehouse(lake.catalog, lake.now.files), spec, plan, "compactor")
    assert "has changed since the plan was made" in str(done.error)
    seal(lake, hand, [50]).commit()
    assert lake.rows()[TEN.key] == [50]


@pytest.mark.parametrize("moment", MOMENTS)
def test_rows_that_are_deleted_meanwhile_stay_so(tmp_path_factory: pytest.TempPathFactory, moment: str) -> None:
    """By a delete that writes files anew, with an append after it."""
    lake = made(tmp_path_factory)
    put(lake, TEN, [[number, number + 10] for number in IDS])

    def deletes() -> None:
        lake.now.table.delete("id = 3")
        lake.append(rows_of(TEN, [99]))

    assert compacted_while(lake, moment, deletes).stepped_aside
    assert lake.rows()[TEN.key] == [*(number for number in [*IDS, *range(10, 10 + FILES)] if number != 3), 99]
    assert left_over(lake) == set()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("file", ["of the group", "of none"])
def test_what_is_rolled_back_meanwhile_stays_so(lake: Lake, moment: str, file: str) -> None:
    """The table is set back to before an append: a file of the hour's that is rewritten, or another hour's."""
    before = lake.now.head
    assert before is not None
    lake.append(rows_of(TEN if file == "of the group" else ELEVEN, [99]))
    done = compacted_while(
        lake, moment, lambda: lake.now.table.manage_snapshots().rollback_to_snapshot(before).commit()
    )
    assert done.stepped_aside == (file == "of the group")
    assert lake.rows() == {TEN.key: IDS, ELEVEN.key: [7]}
    assert len(data(lake)) == (FILES if done.stepped_aside else 1)
    assert lake.missing() == set()


def test_files_of_others_are_compacted_too(lake: Lake) -> None:
    """A backfill finds the hour changed afterwards, as it would have before."""
    lake.append(rows_of(TEN, [99]))
    assert compacted(lake)[TEN].error is None
    assert lake.rows()[TEN.key] == [*IDS, 99]
    committed = in_hand(lake, TEN).held.record.committed
    assert committed is not None
    assert (committed.source, committed.recipe) == ("", "")
    assert left_over(lake) == set()


def test_an_appending_neighbour_is_no_rival(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is committed to other hours meanwhile."""

    def meanwhile(*told: Any) -> list[WrittenFile]:
        lake.append(rows_of(ELEVEN, [8]))
        return write_files(*told)

    monkeypatch.setattr(rewrite, "write_files", meanwhile)
    assert compacted(lake)[TEN].error is None
    assert lake.rows() == {TEN.key: IDS, ELEVEN.key: [7, 8]}


@pytest.mark.parametrize("lost", ["row", "cell"])
def test_rows_that_are_not_the_same_are_not_committed(lake: Lake, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    """A row less, or a cell that is another, is found by the proof, and leaves nothing."""

    def bent(rows: pa.RecordBatch) -> pa.RecordBatch:
        if lost == "row":
            return rows.slice(0, rows.num_rows - 1)
        return rows.set_column(2, rows.schema.field(2), pa.array(["bent"] * rows.num_rows))

    monkeypatch.setattr(
        rewrite, "write_files", lambda target, batches, *more: write_files(target, map(bent, batches), *more)
    )
    error = compacted(lake)[TEN].error
    assert isinstance(error, ProofError)
    assert len(data(lake)) == FILES
    assert left_over(lake) == set()


@pytest.mark.parametrize("at", ["attempt.opened", "attempt.sealed", "attempt.committed"])
def test_killed_at_each_stage(lake: Lake, at: str) -> None:
    """What was sealed is committed by whoever comes next, and what was not leaves nothing."""

    def dies(event: events.Event) -> None:
        if event.name == at:
            raise KeyboardInterrupt

    with events.subscribed(dies), pytest.raises(KeyboardInterrupt):
        compacted(lake)
    commit_sealed(lake.now, lambda _run_id: True)
    assert left_over(lake) == set()
    assert lake.rows() == {TEN.key: IDS, ELEVEN.key: [7]}
    assert len(data(lake)) == (FILES if at == "attempt.opened" else 1)


def test_the_command(project: Project) -> None:
    """It says what it would do, and then what it did; a backfill finds the hour unchanged."""

    def typed(*words: str) -> str:
        done = CliRunner().invoke(main, ["compact", "events", *words, "-c", str(project.folder / "lakehouse.yaml")])
        assert done.exit_code == 0, done.stderr
        return done.stdout

    project.land(HOUR, [row(HOUR, number) for number in IDS])
    project.run(HOUR)
    assert typed() == "events: no hour has files that are worth compacting\n"
    split(project.table, HourWindow.from_key(HOUR))
    first, hour = typed("2013-01-01", "--dry-run").splitlines()
    assert first.startswith("events: 1 hour to compact, 6 files of ")
    assert re.match(r"  2013-01-01-10:00  rewrite 6 files of \d+ B on average into 1 \(row groups have \d+ B on", hour)
    assert typed("2013-01-02") == "events: no hour has files that are worth compacting\n"
    *_, told = typed().splitlines()
    assert re.search(r"  6 files of [0-9.]+ KB are 1 of \d+ B now \(rewrite\), in snapshot \d+", told)
    assert project.ids() == IDS
    assert project.run(HOUR).step == "skip"
    assert strays(project.table) == set()


def test_the_command_as_json(project: Project) -> None:
    """What it would do, by groups, with estimates; what it did, how and why; and what it leaves alone."""

    def typed(*words: str) -> Any:
        told = ["compact", "events", *words, "--json", "-c", str(project.folder / "lakehouse.yaml")]
        done = CliRunner().invoke(main, told)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    project.land(HOUR, [row(HOUR, number) for number in IDS])
    project.run(HOUR)
    split(project.table, HourWindow.from_key(HOUR))
    before = project.table.head
    planned = typed("--dry-run")
    assert (planned["table"], planned["dry_run"], planned["compacted"], planned["left"]) == ("events", True, [], {})
    assert project.table.head == before
    ((hour),) = planned["hours"]
    assert (hour["hour"], hour["files"], hour["outputs"]) == (HOUR, FILES, 1)
    (group,) = hour["groups"]
    assert (group["files"], group["deletes"], group["bytes"], group["strategy"]) == (FILES, 0, hour["bytes"], "rewrite")
    assert re.fullmatch(r"row groups have \d+ B on average, less than 33\.6 MB", group["reason"])
    assert re.fullmatch(r"6 files of \d+ B on average", group["why"])
    assert planned["seconds"] >= 0
    assert planned["dollars"] > 0
    done = typed()
    assert (done["dry_run"], done["hours"]) == (False, planned["hours"])
    (told,) = done["compacted"]
    assert (told["hour"], told["files_before"], told["bytes_before"]) == (HOUR, FILES, hour["bytes"])
    assert (told["files"], told["bytes_apart"], told["error"]) == (1, 0, None)
    assert told["bytes"] < hour["bytes"]
    assert told["strategies"] == [{"strategy": "rewrite", "reason": group["reason"]}]
    assert told["snapshot_id"] == project.table.head
    assert typed()["hours"] == []


def test_the_command_fails_where_an_hour_does(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the exit code, and with why."""
    project.land(HOUR, [row(HOUR, number) for number in IDS])
    project.run(HOUR)
    split(project.table, HourWindow.from_key(HOUR))
    monkeypatch.setattr(rewrite, "write_files", lambda *_: [])
    done = CliRunner().invoke(main, ["compact", "events", "-c", str(project.folder / "lakehouse.yaml")])
    assert done.exit_code == 1
    assert f"  {HOUR}  not compacted: ProofError: " in done.stdout
    assert project.ids() == IDS


def split(table: HourlyTable, hour: HourWindow) -> None:
    """Make an hour's rows a file each, as a run with as many tasks would have."""
    lake = Lake(table.catalog, table.identifier, "at")
    rows = pa.Table.from_batches(table.stored.live_batches(table.live(hour), [])).combine_chunks()
    hand = in_hand(lake, hour)
    committed = hand.held.record.committed
    assert committed is not None
    attempt = new_attempt(table, hour, buckets=rows.num_rows, source=committed.source, recipe=committed.recipe)
    hand.open(attempt)
    parts = [in_bucket(place, rows.slice(place, 1).to_batches()[0]) for place in range(rows.num_rows)]
    hand.seal(table.seal(hand.attempt.id, lake.write(hour, parts, hand.attempt.id), rows_read=None, rejected=0))
    hand.commit()

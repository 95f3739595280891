"""Compaction: fewer files with the same rows, or the table as it was and nothing beside it."""

from collections.abc import Iterable, Iterator
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
from lakehouse_pipeline.iceberg.data_files import write_batches
from lakehouse_pipeline.iceberg.hourly import HourlyTable, Warehouse
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.maintenance import compaction
from lakehouse_pipeline.maintenance.compaction import Compacted, ProofError, compact, look
from lakehouse_pipeline.status.picture import hour_status
from tests.backfill.hands import in_hand, new_attempt
from tests.iceberg.lake import ELEVEN, EVENTS, TEN, Lake, in_bucket, spec_of
from tests.iceberg.lake import events as rows_of
from tests.projects import HOUR, Project, row, strays

FILES = 6
IDS = list(range(FILES))


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
    buckets = [in_bucket(place, rows_of(hour, ids)) for place, ids in enumerate(files)]
    hand = in_hand(lake, hour)
    hand.open(new_attempt(hand.table, hour, buckets=len(buckets)))
    hand.seal(hand.table.seal(hand.attempt.id, lake.write(hour, buckets, hand.attempt.id), rows_read=None, rejected=0))
    hand.commit()


def compacted(lake: Lake) -> dict[HourWindow, Compacted]:
    """Plan and run."""
    spec, table = spec_of(EVENTS, {"table": lake.identifier}), lake.now
    plan = look(MaintenanceSettings(), table)
    done = compact(Warehouse(lake.catalog, table.files), spec, plan, "compactor")
    return {each.hour: each for each in done}


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
    assert [each.as_py() for batch in lake.now.batches(data(lake), TEN) for each in batch["id"]] == IDS[::-1]


def test_who_loses_the_hour_steps_aside(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hour was run again while it was written: that stays, and nothing of the compaction does."""

    def meanwhile(*told: Any) -> Iterator[pa.RecordBatch]:
        lake.append(rows_of(TEN, [99]))
        return write_batches(*told)

    monkeypatch.setattr(compaction, "write_batches", meanwhile)
    assert isinstance(compacted(lake)[TEN].error, CommitConflictError)
    assert lake.rows()[TEN.key] == [*IDS, 99]
    assert left_over(lake) == set()


def test_what_changed_since_the_plan_is_left(lake: Lake) -> None:
    """Before anything is written."""
    spec, plan = spec_of(EVENTS, {"table": lake.identifier}), look(MaintenanceSettings(), lake.now)
    put(lake, TEN, [[50]])
    (done,) = compact(Warehouse(lake.catalog, lake.now.files), spec, plan, "compactor")
    assert isinstance(done.error, CommitConflictError)
    assert "has changed since the plan was made" in str(done.error)
    assert lake.rows()[TEN.key] == [50]


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

    def meanwhile(*told: Any) -> Iterator[pa.RecordBatch]:
        lake.append(rows_of(ELEVEN, [8]))
        return write_batches(*told)

    monkeypatch.setattr(compaction, "write_batches", meanwhile)
    assert compacted(lake)[TEN].error is None
    assert lake.rows() == {TEN.key: IDS, ELEVEN.key: [7, 8]}


@pytest.mark.parametrize("lost", ["row", "cell"])
def test_rows_that_are_not_the_same_are_not_committed(lake: Lake, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    """A row less, or a cell that is another, is found by the proof, and leaves nothing."""

    def bent(rows: pa.RecordBatch) -> pa.RecordBatch:
        if lost == "row":
            return rows.slice(0, rows.num_rows - 1)
        return rows.set_column(2, rows.schema.field(2), pa.array(["bent"] * rows.num_rows))

    monkeypatch.setattr(compaction, "write_batches", lambda target, batches: write_batches(target, map(bent, batches)))
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
    assert hour.endswith(" files into 1: 6 files of 0.001 MB on average")
    assert typed("2013-01-02") == "events: no hour has files that are worth compacting\n"
    *_, told = typed().splitlines()
    assert "6 files of 0.00" in told
    assert " are 1 of 0.00" in told
    assert project.ids() == IDS
    assert project.run(HOUR).step == "skip"
    assert strays(project.table) == set()


def split(table: HourlyTable, hour: HourWindow) -> None:
    """Make an hour's rows a file each, as a run with as many tasks would have."""
    lake = Lake(table.catalog, table.identifier, "at")
    rows = pa.Table.from_batches(table.batches([file.path for file in table.live(hour)], hour)).combine_chunks()
    hand = in_hand(lake, hour)
    committed = hand.held.record.committed
    assert committed is not None
    attempt = new_attempt(table, hour, buckets=rows.num_rows, source=committed.source, recipe=committed.recipe)
    hand.open(attempt)
    parts = [in_bucket(place, rows.slice(place, 1).to_batches()[0]) for place in range(rows.num_rows)]
    hand.seal(table.seal(hand.attempt.id, lake.write(hour, parts, hand.attempt.id), rows_read=None, rejected=0))
    hand.commit()

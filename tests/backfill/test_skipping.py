"""An hour is skipped only while its objects, its recipe and its live files are those of its last commit."""

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.table.snapshots import Operation

from lakehouse_pipeline.backfill.hour import run_hour
from lakehouse_pipeline.backfill.plan import HourInputs, observe_inputs
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.events import Event, subscribed
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.manifests import digest
from lakehouse_pipeline.iceberg.tables import load_table
from tests.projects import HOUR, NEXT, Project, parquet, row

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine

SQL = "SELECT s.at, s.id, s.size * d.factor AS size FROM source AS s JOIN sizes AS d ON d.id <= s.id"
MODULE = "def keep(source, sizes):\n    return source.where('id < {limit}')\n"
COLUMNS = "{at: timestamptz!, id: long!, size: double}"
OVERFLOWS = {"accepts": "[integer_overflow]"}  # as Sail asks of any transform


@pytest.fixture
def ran(project: Project) -> Project:
    """Give a project of two hours that were committed: two objects each, a dimension, a SQL transform."""
    project.describe(
        {"join": "{sizes: dims/sizes*.parquet}", "transform": "events.sql", "columns": COLUMNS, **OVERFLOWS}
    )
    project.write("tables/events.sql", SQL)
    project.write("dims/sizes.parquet", parquet([{"id": 0, "factor": 2.0}]))
    for hour in (HOUR, NEXT):
        project.land(hour, [row(hour, 1, 1.0), row(hour, 2, 1.0)], "-a.jsonl")
        project.land(hour, [row(hour, 3, 1.0)], "-b.jsonl")
        assert project.run(hour).step == "run"
    return project


def _edit_sql(project: Project) -> None:
    project.write("tables/events.sql", f"{SQL} WHERE s.id < 3")


def _edit_object(project: Project) -> None:
    project.land(HOUR, [row(HOUR, 7, 1.0)], "-b.jsonl")


def _add_object(project: Project) -> None:
    project.land(HOUR, [row(HOUR, 4, 1.0)], "-c.jsonl")


def _remove_object(project: Project) -> None:
    (project.folder / "raw/2013/01/01/10-b.jsonl").unlink()


def _edit_dimension(project: Project) -> None:
    project.write("dims/sizes.parquet", parquet([{"id": 2, "factor": 2.0}]))


def _add_to_dimension(project: Project) -> None:
    project.write("dims/sizes-2.parquet", parquet([{"id": 3, "factor": 1.0}]))


def _edit_spec(project: Project) -> None:
    project.describe({"sort": "[id desc]"})
    project.catalog.drop_table("lake.events")


def _roll_back(project: Project) -> None:
    project.write("tables/events.sql", f"{SQL} WHERE s.id < 2")
    for hour in (NEXT, HOUR):
        assert project.run(hour).seal.rows == 1
    table = project.table.table
    parent = table.current_snapshot().parent_snapshot_id  # type: ignore[union-attr]
    assert parent is not None
    table.manage_snapshots().rollback_to_snapshot(parent).commit()


def _append(project: Project) -> None:
    at = HourWindow.from_key(HOUR).start
    project.table.table.append(
        pa.Table.from_pylist([{"at": at, "id": 9, "size": 9.0}], schema=project.table.arrow_schema)
    )
    assert project.ids(HOUR) == [1, 2, 3, 9]


def _delete_rows(project: Project) -> None:
    project.table.table.delete("id = 2 AND at < '2013-01-01T11:00:00+00:00'")


def _create_anew(project: Project) -> None:
    project.catalog.drop_table("lake.events")


def _lose_record(project: Project) -> None:
    (project.folder / project.table.ledger.folder.removeprefix("file://") / "hours/2013-01-01-10.json").unlink()


@pytest.mark.parametrize(
    ("change", "ids", "why"),
    [
        pytest.param(_edit_sql, [1, 2], "the transform, the spec or a dimension changed", id="SQL edited"),
        pytest.param(_edit_object, [1, 2, 7], "its source objects changed", id="object changed"),
        pytest.param(_add_object, [1, 2, 3, 4], "its source objects changed", id="object added"),
        pytest.param(_remove_object, [1, 2], "its source objects changed", id="object removed"),
        pytest.param(_edit_dimension, [2, 3], "the transform, the spec or a dimension changed", id="dimension changed"),
        pytest.param(_add_to_dimension, [1, 2, 3, 3], "the transform, the spec or a dimension changed", id="dimension"),
        pytest.param(_roll_back, [1], "no longer holds the files of its last commit", id="rolled back"),
        pytest.param(_append, [1, 2, 3], "no longer holds the files of its last commit", id="appended by another"),
        pytest.param(_delete_rows, [1, 2, 3], "no longer holds the files of its last commit", id="deleted by another"),
        pytest.param(_create_anew, [1, 2, 3], "never committed", id="table created anew"),
        pytest.param(_edit_spec, [1, 2, 3], "never committed", id="sort order and table"),
        pytest.param(_lose_record, [1, 2, 3], "never committed", id="record lost"),
    ],
)
def test_change_runs_the_hour_again(ran: Project, change: Callable[[Project], None], ids: list[int], why: str) -> None:
    """Whatever changed under an hour, its next run makes it what its objects say: replaced, never doubled."""
    assert ran.run().step == "skip"
    change(ran)
    result = ran.run()
    assert (result.step, ran.ids(HOUR)) == ("run", ids)
    assert why in result.why
    assert ran.run().step == "skip"


@pytest.mark.parametrize("change", [_edit_object, _append, _lose_record], ids=["object", "append", "record"])
def test_neighbour_stays_skipped(ran: Project, change: Callable[[Project], None]) -> None:
    """What changed one hour is no reason to run another, whose files stay the very same."""
    before = digest(file.path for file in ran.table.live(HourWindow.from_key(NEXT)))
    change(ran)
    ran.run()
    assert ran.run(NEXT).step == "skip"
    assert digest(file.path for file in ran.table.live(HourWindow.from_key(NEXT))) == before


def test_skip_tells_of_the_earlier_commit(ran: Project) -> None:
    """A skipped hour's result has the snapshot, the attempt and the counts of the commit that it stands on."""
    committed = ran.record().committed
    assert committed is not None
    result = ran.run()
    assert (result.snapshot_id, result.attempt, result.seal) == (
        committed.snapshot_id,
        committed.attempt,
        committed.seal,
    )
    assert result.why == f"unchanged since attempt {committed.attempt}"


def test_skip_writes_nothing(ran: Project) -> None:
    """The record of a skipped hour stays as it is: two runs that skip at once are no rivals."""
    before = ran.record()
    ran.run()
    assert ran.record() == before


def test_force_runs_what_is_unchanged(ran: Project) -> None:
    """Asked to, an unchanged hour is written again, and replaced by the same rows."""
    before = ran.rows()
    result = ran.run(force=True)
    assert (result.step, result.why) == ("run", "asked to run again")
    assert ran.rows() == before


def test_edited_module_runs_the_hour_again(project: Project) -> None:
    """The source of a transform's module counts, and what runs is what it says now, in the same process too."""
    project.describe(
        {"join": "{sizes: dims/sizes.parquet}", "transform": "events_keep:keep", "columns": COLUMNS, **OVERFLOWS}
    )
    project.write("dims/sizes.parquet", parquet([{"id": 0}]))
    project.land(HOUR, [row(HOUR, n) for n in range(4)])
    for limit in (3, 2):
        project.write("tables/events_keep.py", MODULE.format(limit=limit))
        assert project.run().step == "run"
        assert project.ids() == list(range(limit))
        assert project.run().step == "skip"


def test_vanished_source_empties_the_hour(ran: Project) -> None:
    """`missing: empty`: an hour whose objects are gone has no rows afterwards; its neighbour keeps its own."""
    source = "{path: raw/%Y/%m/%d/%H*.jsonl, columns: {at: timestamptz!, id: long!, size: double}, missing: empty}"
    ran.describe({"source": source})
    for name in ("a", "b"):
        (ran.folder / f"raw/2013/01/01/10-{name}.jsonl").unlink()
    result = ran.run()
    assert (result.step, result.seal.rows, result.seal.files) == ("run", 0, 0)
    assert (ran.ids(HOUR), ran.ids(NEXT)) == ([], [1, 2, 3])
    summary = ran.table.table.current_snapshot().summary  # type: ignore[union-attr]
    assert summary is not None
    assert summary.operation is Operation.OVERWRITE
    assert ran.run().step == "skip"


def test_empty_hour_that_replaces_nothing_makes_no_snapshot(project: Project) -> None:
    """An hour without objects in a table without its rows is committed without a snapshot, and skipped next time."""
    source = "{path: raw/%Y/%m/%d/%H*.jsonl, columns: {at: timestamptz!, id: long!, size: double}, missing: empty}"
    project.describe({"source": source})
    result = project.run()
    assert (result.step, result.snapshot_id, result.seal.rows) == ("run", None, 0)
    assert project.table.head is None
    assert project.run().step == "skip"


def test_record_is_plain_json(ran: Project) -> None:
    """An hour's record is an object that people can read: hour, state, counts, fingerprints."""
    record = json.loads(
        (ran.folder / ran.table.ledger.folder.removeprefix("file://") / "hours/2013-01-01-10.json").read_text()
    )
    assert (record["hour"], record["state"], record["committed"]["seal"]["rows"]) == (HOUR, "idle", 3)


def test_a_plan_sees_what_was_committed_since_the_table_was_loaded(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run commits the hour between our look at the table and ours at the record: there is nothing to do."""
    project.land(NEXT, [row(NEXT, 2)])
    project.run(NEXT)  # makes the table
    project.land(HOUR, [row(HOUR, 1)])
    others: list[str] = []

    def observed(*arguments: Any) -> HourInputs:
        if not others:
            others.append("begun")
            others.append(project.run().step)
        return observe_inputs(*arguments)

    monkeypatch.setattr("lakehouse_pipeline.backfill.hour.observe_inputs", observed)
    assert project.run().step == "skip"
    assert others == ["begun", "run"]
    assert project.ids() == [1, 2]


@pytest.mark.parametrize("hour", [HOUR, NEXT], ids=["a new hour", "a committed one"])
def test_a_plan_loads_the_table_once(project: Project, monkeypatch: pytest.MonkeyPatch, hour: str) -> None:
    """Where the record knows of nothing that the table does not have, one look at the catalog is enough."""
    project.land(NEXT, [row(NEXT, 2)])
    project.run(NEXT)
    project.land(HOUR, [row(HOUR, 1)])
    bench = project.bench()
    asked: list[object] = []

    def counted(catalog: object, spec: TableSpec) -> Any:
        asked.append(catalog)
        return load_table(catalog, spec)  # type: ignore[arg-type]

    monkeypatch.setattr("lakehouse_pipeline.iceberg.warehouse.load_table", counted)
    planned = {"asked": 0}

    def heard(event: Event) -> None:
        if event.name == "hour.planned":
            planned["asked"] = len(asked)

    with subscribed(heard):
        run_hour(bench, HourWindow.from_key(hour))
    assert planned == {"asked": 1}

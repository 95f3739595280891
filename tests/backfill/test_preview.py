import tempfile
from pathlib import Path

import pytest

from lakehouse_pipeline.backfill import preview as preview_module
from lakehouse_pipeline.backfill import views
from lakehouse_pipeline.backfill.preview import HourPreview, preview_hour
from lakehouse_pipeline.backfill.preview_text import preview_lines
from lakehouse_pipeline.engines.capabilities import ENGINES
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.hours import HourWindow
from tests.projects import HOUR, NEXT, Project, json_lines, row


def _preview(project: Project, hour: str = HOUR) -> HourPreview:
    spec = project.lakehouse.spec("events")
    return preview_hour(spec, project.warehouse, HourWindow.from_key(hour), project.session)


def test_ten_rows_and_all_counts(project: Project) -> None:
    """As many rows as a terminal takes, and the counts of all; neither a table nor a file comes of it."""
    project.land(HOUR, [row(HOUR, number) for number in range(25)])
    project.describe({"sort": "[id desc]"})
    preview = _preview(project)
    assert [each["id"] for each in preview.rows] == list(range(10))
    assert (preview.objects, preview.rows_read, preview.rows_out, preview.rejected) == (1, 25, 25, 0)
    assert project.warehouse.table(project.lakehouse.spec("events")) is None
    assert not (project.folder / "warehouse").exists()


def test_rejected_rows_are_counted_and_told(project: Project) -> None:
    """Where they stand and why; they are kept nowhere."""
    file = project.land(HOUR, [row(HOUR, 1)])
    file.write_bytes(file.read_bytes() + b'{"at": "late", "id": 2}\n')
    source = project.keys["source"].replace("}}", "}, bad_rows: reject}")
    project.describe({"source": source})
    preview = _preview(project)
    assert (preview.rows_read, preview.rejected, preview.rows_out) == (1, 1, 1)
    assert preview.rejects == (f'file://{file}:2 "at": "late" is not a timestamptz',)
    assert not (project.folder / "warehouse").exists()


def test_a_table_that_exists_stays_as_it_is(project: Project) -> None:
    """Neither its metadata nor its ledger nor its data has another file behind it."""
    project.land(HOUR, [row(HOUR, 1)])
    project.run()
    project.land(HOUR, [row(HOUR, 1), row(HOUR, 2)])
    before = project.files(".")
    assert _preview(project).rows_out == 2
    assert project.files(".") == before


def test_rows_of_other_hours(project: Project) -> None:
    """Those that a day's file holds are left to their hours; those that a transform makes would fail the hour."""
    project.write("raw/2013-01-01.jsonl", json_lines([row(HOUR, 1), row(NEXT, 2), row(NEXT, 3)]))
    path = "{path: raw/%Y-%m-%d.jsonl, columns: {at: timestamptz!, id: long!, size: double}}"
    project.describe({"source": path})
    preview = _preview(project)
    assert (preview.rows_read, preview.left, preview.elsewhere) == (1, 2, 0)
    project.write("tables/later.sql", "SELECT at + INTERVAL 1 HOUR AS at, id, size FROM source")
    project.describe({"transform": "later.sql"})
    assert _preview(project).elsewhere == 1


def test_what_a_run_would_refuse_behind_the_transform(project: Project) -> None:
    """Rows without a required value are counted; what only a run looks at is said."""
    project.land(HOUR, [row(HOUR, 1), row(HOUR, 2), row(HOUR, 3)])
    project.write("tables/none.sql", "SELECT at, CASE WHEN id > 1 THEN id END AS id, size FROM source WHERE id < 3")
    project.describe({"transform": "none.sql", "columns": "{at: timestamptz!, id: long!, size: double}", "key": "[id]"})
    preview = _preview(project)
    assert (preview.rows_out, preview.elsewhere, preview.missing) == (2, 0, {"id": 1})
    assert preview_lines(preview, 80)[-3:] == [
        "a run fails: 1 rows behind the transform without a value in id, which is required",
        "not looked at: whether the key is unique (id); a run does, before its commit",
        "nothing was written",
    ]


def test_an_hour_without_objects_needs_no_engine(project: Project) -> None:
    """It is an hour without rows where the spec says so."""
    project.describe({"source": project.keys["source"].replace("}}", "}, missing: empty}")})
    project.session = lambda: (_ for _ in ()).throw(AssertionError("Spark was asked for"))
    preview = _preview(project)
    assert (preview.objects, preview.rows_out, preview.rows) == (0, 0, ())


def test_it_is_drawn_as_a_table(project: Project) -> None:
    """Names, types, values and counts, in as many columns as the terminal has."""
    project.land(HOUR, [row(HOUR, 1, 2.5), row(HOUR, 2)])
    assert preview_lines(_preview(project), 80) == [
        f"{HOUR} UTC: 1 object, 2 rows read, 2 rows for the table",
        "",
        " at                            id     size",
        " timestamptz                 long   double",
        " " + "─" * 41,
        " 2013-01-01 10:01:00+00:00      1      2.5",
        " 2013-01-01 10:02:00+00:00      2",
        "nothing was written",
    ]


def _with_a_bad_row(project: Project) -> None:
    file = project.land(HOUR, [row(HOUR, 1)])
    file.write_bytes(file.read_bytes() + b'{"at": "late", "id": 2}\n')
    project.describe({"source": project.keys["source"].replace("}}", "}, bad_rows: reject}")})


def test_what_tasks_elsewhere_met_is_not_known(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It is said, not taken for nothing; a bad row is passed over, as the run keeps it, and no task writes."""
    _with_a_bad_row(project)
    session = project.session()
    written = tmp_path_factory.mktemp("aside")
    monkeypatch.setattr(preview_module, "capabilities", lambda _: ENGINES["cluster"])
    monkeypatch.setattr(tempfile, "TemporaryDirectory", lambda **_: _Kept(written))
    for module in (preview_module, views):
        monkeypatch.setattr(module, "SMALL_INPUT", 0)
    project.session = lambda: session
    preview = _preview(project)
    assert (preview.rows_out, preview.counted) == (1, False)
    assert (preview.rows_read, preview.left, preview.rejected, preview.rejects) == (None, None, None, ())
    first, *_, said, _ = preview_lines(preview, 80)
    assert first == f"{HOUR} UTC: 1 object, 1 row for the table"
    assert said.startswith("not known: rows that were read, left to other hours and rejected;")
    assert not list(written.iterdir())


class _Kept:
    """A folder that stays, to be looked at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> str:
        return str(self.folder)

    def __exit__(self, *_: object) -> None:
        return


def test_what_the_driver_reads_is_known_on_every_engine(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small inputs never reach a task."""
    _with_a_bad_row(project)
    monkeypatch.setattr(preview_module, "capabilities", lambda _: ENGINES["cluster"])
    preview = _preview(project)
    assert (preview.counted, preview.rows_read, preview.rejected, len(preview.rejects)) == (True, 1, 1, 1)


def test_tasks_are_asked_before_anything_is_read(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """For an object of the source, and for the table's metadata file as soon as there is one."""
    raw = f"file://{project.land(HOUR, [row(HOUR, 1)])}"
    asked: list[tuple[str, list[str]]] = []

    def refuse(_: object, place: str, objects: list[tuple[object, str]]) -> None:
        asked.append((place, [url for _, url in objects]))
        raise ConfigurationError("engine: its tasks cannot do the work")

    with monkeypatch.context() as patched:
        patched.setattr(preview_module, "check_tasks", refuse)
        with pytest.raises(ConfigurationError, match="its tasks cannot do the work"):
            _preview(project)
        project.run()
        with pytest.raises(ConfigurationError, match="its tasks cannot do the work"):
            _preview(project)
    table = project.table
    path = project.lakehouse.spec("events").source.path
    assert asked == [(path, [raw]), (table.location, [table.metadata_url, raw])]

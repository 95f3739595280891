"""A backfill looked at before it begins: figures and where they are from, which hours count, what is simulated."""

import json
import statistics
import uuid

import pytest

from lakehouse_pipeline.backfill.figures import ASSUMED_BYTES_PER_S, ASSUMED_LEAST_S, Asked
from lakehouse_pipeline.backfill.forecast import Forecast, NothingToRunError, forecast
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.hours import HourWindow, parse_range
from lakehouse_pipeline.ledger.records import began_at
from lakehouse_pipeline.planning.layouts import BASE_2, BY_HOUR, Layout
from lakehouse_pipeline.planning.s3_scaling import Scaling
from lakehouse_pipeline.retry import RetryPolicy
from tests.projects import HOUR, NEXT, THIRD, Project, row

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine

RANGE = f"{HOUR}...{THIRD}"
NOTHING, SAID = Asked(), Asked(bytes_=12_000_000, files=3, etl_s=2.5)
ON_S3 = 'catalog: {type: sql, uri: "sqlite:///catalog.db", warehouse: "s3://lake/w"}\nengine: sc://spark\n'


def look(project: Project, hours: str = RANGE, asked: Asked = NOTHING) -> Forecast:
    """Look at hours, at their sources and at the table."""
    return forecast(
        project.lakehouse, project.lakehouse.spec("events"), project.warehouse, parse_range(hours), asked=asked
    )


def unseen(project: Project, hours: str = RANGE, asked: Asked = SAID, scaling: Scaling | None = None) -> Forecast:
    """Believe what is said, without a look."""
    lakehouse = project.lakehouse
    return forecast(lakehouse, lakehouse.spec("events"), None, parse_range(hours), asked=asked, scaling=scaling)


def on_s3(project: Project) -> Project:
    """Let the tables be on S3, where nobody looks."""
    project.write("lakehouse.yaml", ON_S3)
    return project


def keys(hours: tuple[HourWindow, ...]) -> list[str]:
    """Give the keys of hours."""
    return [hour.key for hour in hours]


def test_figures_as_said(project: Project) -> None:
    """Nothing is looked at: neither store nor catalog, though both are there; what is simulated is what was said."""
    told = unseen(project)
    assert {each.origin for each in (told.bytes_, told.files, told.etl_s)} == {"as said"}
    assert (told.load.bytes_, told.load.files, told.load.etl_s, told.load.hours) == (12e6, 3, 2.5, 3)
    assert (told.source_bytes, told.there, told.missing, told.run.sources) == (0, 0, (), "")
    assert not (project.folder / "catalog.db").exists()


def test_figures_that_are_assumed(project: Project) -> None:
    """Of hours of which only the source is known: as many bytes, files of the spec's size, seconds of ours."""
    sizes = [
        project.land(hour, [row(hour, n) for n in range(4**place)]).stat().st_size
        for place, hour in enumerate((HOUR, NEXT, THIRD))
    ]
    told = look(project)
    mean = statistics.fmean(sizes)
    assert (told.source_bytes, told.bytes_.value, told.load.files) == (sum(sizes), mean, 1)
    assert told.etl_s.value == ASSUMED_LEAST_S + mean / ASSUMED_BYTES_PER_S
    assert told.bytes_.origin == "assumed: as many as its source has"
    assert told.files.origin == "as many as files of the spec's size"
    assert told.etl_s.origin == "assumed: 5 s, and 25 MB of its source a second"


def test_figures_of_hours_that_were_run(project: Project) -> None:
    """Files and seconds are theirs; bytes grow with the source. Hours that are there and unchanged are not counted."""
    project.land(HOUR, [row(HOUR, 1), row(HOUR, 2)])
    project.run(HOUR)
    project.land(NEXT, [row(NEXT, n) for n in range(200)])
    told = look(project, f"{HOUR}...{NEXT}")
    committed = project.record(HOUR).committed
    assert committed
    assert committed.seal.at
    assert (told.there, told.load.hours) == (1, 1)
    assert told.files.value == committed.seal.files == 1
    assert told.etl_s.value == (committed.seal.at - began_at(committed.attempt)).total_seconds() > 0
    read, waits = (project.folder / f"raw/2013/01/01/{hour}.jsonl" for hour in (10, 11))
    ratio = committed.seal.bytes / read.stat().st_size
    assert told.bytes_.value == pytest.approx(ratio * waits.stat().st_size)
    assert told.source_bytes == waits.stat().st_size
    assert told.bytes_.origin == f"{ratio:.2f} for each of its source, as in an hour that was run"
    assert told.etl_s.origin == "the median of an hour that was run"


def test_figures_of_hours_beside_those_that_are_asked_for(project: Project) -> None:
    """Where none of them was run: the last ones of the table. What is said comes first, one by one."""
    project.land(HOUR, [row(HOUR, 1)])
    project.run(HOUR)
    project.land(NEXT, [row(NEXT, 1)])
    told = look(project, NEXT)
    committed = project.record(HOUR).committed
    assert committed
    assert (told.there, told.bytes_.value) == (0, committed.seal.bytes)
    assert told.bytes_.origin == "the mean of an hour that was run"
    said = look(project, NEXT, Asked(etl_s=7))
    assert (said.etl_s.value, said.etl_s.origin, said.bytes_) == (7, "as said", told.bytes_)


def test_nothing_to_plan_until_something_changes(project: Project) -> None:
    """All hours are there and unchanged; one whose object is another runs, and so do all once the recipe is another."""
    for hour in (HOUR, NEXT):
        project.land(hour, [row(hour, 1)])
        project.run(hour)
    with pytest.raises(NothingToRunError, match=r"nothing to run of 2 hours: .* 2 are in the table, and unchanged"):
        look(project, f"{HOUR}...{NEXT}")
    assert look(project, f"{HOUR}...{NEXT}", Asked(force=True)).load.hours == 2
    project.land(NEXT, [row(NEXT, 1), row(NEXT, 2)])
    told = look(project, f"{HOUR}...{NEXT}")
    assert (told.there, told.load.hours) == (1, 1)
    project.describe({"sort": "[id]"})
    told = look(project, f"{HOUR}...{NEXT}")
    assert (told.there, told.load.hours) == (0, 2)


def test_hours_without_a_source(project: Project) -> None:
    """They are named: they fail, or are empty, and neither takes an hour's time."""
    file = project.land(NEXT, [row(NEXT, 1)])
    told = look(project)
    assert keys(told.missing) == [HOUR, THIRD]
    assert (told.load.hours, told.source_bytes, told.missing_fail) == (1, file.stat().st_size, True)


def test_hours_that_the_table_has_lost_run_again(project: Project) -> None:
    """As a backfill sees them: records alone do not tell whether files are there."""
    for hour in (HOUR, NEXT):
        project.land(hour, [row(hour, 1)])
        project.run(hour)
    table = project.table.table
    table.manage_snapshots().rollback_to_snapshot(table.metadata.snapshots[0].snapshot_id).commit()
    told = look(project, f"{HOUR}...{NEXT}")
    assert (told.there, told.load.hours) == (1, 1)


@pytest.mark.parametrize("hours", ["2012-12-31-23:00...2013-01-01", "2013-01-01-23:00...2013-01-02-00:00"])
def test_hours_that_are_not_the_tables(project: Project, hours: str) -> None:
    """Before its start, or from its end on."""
    with pytest.raises(ConfigurationError, match="reaches beyond events's start and end"):
        look(project, hours)


@pytest.mark.parametrize(
    "asked", [Asked(), Asked(bytes_=1, files=1), Asked(files=1, etl_s=1), Asked(bytes_=1, etl_s=1)]
)
def test_without_a_look_everything_has_to_be_said(project: Project, asked: Asked) -> None:
    """Half of it is refused."""
    with pytest.raises(ConfigurationError, match="--bytes, --files and --seconds have to be given"):
        unseen(project, asked=asked)


@pytest.mark.parametrize(
    "asked", [{"files": 0}, {"etl_s": 0.0}, {"etl_s": -1.0}, {"etl_s": float("inf")}, {"at_most": 0}, {"bytes_": -1}]
)
def test_what_no_hour_has_is_refused(asked: dict[str, float]) -> None:
    """Whoever asks: the command, or Dagster's launchpad."""
    with pytest.raises(ConfigurationError, match="is out of bounds"):
        Asked(**asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(("said", "layout"), [("true", BASE_2), ("false", BY_HOUR), ("False", BY_HOUR)])
def test_keys_are_those_of_the_spec(project: Project, said: str, layout: Layout) -> None:
    """Iceberg's object storage has hashes in its keys; without it an hour's are beside each other."""
    assert unseen(project).load.layout == BASE_2
    project.describe({"properties": f'{{write.object-storage.enabled: "{said}"}}'})
    assert unseen(project).load.layout == layout


def test_files_are_not_throttled(project: Project) -> None:
    """Where tables are files there are no 503s, and a note that says so."""
    told = unseen(project, asked=Asked(bytes_=10**12, files=100_000, etl_s=10))
    assert not told.on_s3
    assert {each.predicted.throttles for each in told.advice.settings} == {0}
    assert "tables are files here: no store throttles them" in told.notes


def test_s3_throttles(project: Project) -> None:
    """A range that takes little: hours begin apart, which the run is told."""
    asked = Asked(bytes_=10**8, files=300, etl_s=60)
    told = unseen(
        on_s3(project),
        "2013-01-01-00:00...2013-01-01-07:00",
        asked,
        Scaling(write_rate=30, heat_window_s=6, detect_s=30, split_s=10),
    )
    assert told.on_s3
    assert told.run.apart_s == told.advice.apart_s == 60 / told.advice.in_flight
    assert 1 < told.run.hours_in_flight == told.advice.in_flight


@pytest.mark.parametrize("catalog", ["{type: rest, uri: 'http://127.0.0.1:9', warehouse: lake}", "{name: prod}"])
def test_where_a_catalog_places_tables_by_itself_s3_is_assumed(project: Project, catalog: str) -> None:
    """A REST catalog's warehouse is a name, and no path of this machine."""
    project.write("lakehouse.yaml", f"catalog: {catalog}\nengine: sc://spark\n")
    told = unseen(project)
    assert told.on_s3
    assert "where the table will be is its catalog's to say: S3 is assumed" in told.notes


def test_a_table_of_a_rest_catalog_is_on_s3(project: Project, seaweed: SeaweedServer) -> None:
    """Before its first hour, when only the warehouse is known, and after; its objects' fingerprints are the same."""
    project.describe({"table": f"n{uuid.uuid4().hex[:8]}.events"})
    project.write("lakehouse.yaml", f"catalog: {json.dumps(seaweed.catalog_properties())}\nengine: local[2]\n")
    project.land(HOUR, [row(HOUR, 1)])
    project.land(NEXT, [row(NEXT, 2)])
    before = look(project, f"{HOUR}...{NEXT}")
    project.run(HOUR)
    after = look(project, f"{HOUR}...{NEXT}")
    assert [(each.on_s3, each.there, each.load.hours) for each in (before, after)] == [(True, 0, 2), (True, 1, 1)]
    assert before.run.sources == after.run.sources


def test_patience_is_never_less_than_the_lakehouse_has(project: Project) -> None:
    """What lakehouse.yaml says of retries is where the recommendation begins."""
    usual = unseen(on_s3(project)).run
    assert (usual.tries, usual.retry_s) == (RetryPolicy().tries, RetryPolicy().total_s)
    more = '"s3.retry.num-retries": "98", "s3.retry.total-timeout-ms": "7200000"'
    project.write("lakehouse.yaml", ON_S3.replace("type: sql", f"type: sql, {more}"))
    patient = unseen(project).run
    assert (patient.tries, patient.retry_s) == (99, 7_200)


def test_room_is_what_is_set_by_hand_or_said(project: Project) -> None:
    """No recommendation goes beyond it; where it is not said, a note tells what was taken."""
    day = "2013-01-01"
    project.write("lakehouse.yaml", f"{ON_S3}backfill: {{hours_in_flight: 3}}\n")
    by_hand = unseen(project, day)
    assert (by_hand.run.hours_in_flight, by_hand.notes) == (
        3,
        ("no more than lakehouse.yaml's hours_in_flight, 3, were considered",),
    )
    said = unseen(project, day, Asked(12_000_000, 3, 2.5, at_most=6))
    assert (said.run.hours_in_flight, said.notes) == (6, ())
    guessed = unseen(on_s3(project), day)
    assert guessed.run.hours_in_flight == 24
    assert "--at-most says how many it has" in guessed.notes[0]


def test_files_are_as_many_as_was_said(project: Project) -> None:
    """What is said of files is believed; it does not change how they are written."""
    few = unseen(on_s3(project), asked=Asked(bytes_=900_000_000, files=30, etl_s=1))
    assert (few.load.files, few.run.file_size) == (30, project.lakehouse.spec("events").file_size)
    assert "files of 256 MB" in {each.name for each in few.advice.alternatives}


def test_one_hour_that_fills_a_range_gets_larger_files(project: Project) -> None:
    """As far as that saves requests; those of the spec's size are simulated beside them."""
    on_s3(project).describe({"file_size": "4MB"})
    project.land(HOUR, [row(HOUR, 1)])
    spec = project.lakehouse.spec("events")
    scaling = Scaling(write_rate=200, detect_s=None)
    asked = Asked(bytes_=1_000_000_000, etl_s=4, at_most=1)
    told = forecast(project.lakehouse, spec, project.warehouse, parse_range(HOUR), asked=asked, scaling=scaling)
    assert told.run.file_size == 8_000_000
    assert told.load.files == 125
    assert "files of 4 MB" in {each.name for each in told.advice.alternatives}
    assert told.files.origin == "as many as files of 8 MB"
    assert any("file_size: 8MB" in note for note in told.notes)


def test_keys_of_a_table_that_is_there_are_its_own(project: Project) -> None:
    """An adopted table need not have a hash in them, whatever a new one would have."""
    project.land(HOUR, [row(HOUR, 1)])
    project.run(HOUR)
    project.land(NEXT, [row(NEXT, 1)])
    assert look(project, NEXT).load.layout == BASE_2
    with project.table.table.transaction() as change:
        change.remove_properties("write.object-storage.enabled")
    assert look(project, NEXT).load.layout == BY_HOUR


def test_assumed_seconds_do_not_hold_hours_back(project: Project) -> None:
    """Where nobody knows how long an hour takes, hours begin at once, and a note says what would help."""
    on_s3(project).land(HOUR, [row(HOUR, 1)])
    spec = project.lakehouse.spec("events")
    day = parse_range("2013-01-01")
    for hour in day:
        project.land(hour.key, [row(hour.key, 1)])
    tight = Scaling(write_rate=8, heat_window_s=2, detect_s=20, split_s=20)
    asked = Asked(bytes_=90_000_000, files=20, at_most=16)
    warehouse = project.warehouse
    guess = forecast(project.lakehouse, spec, warehouse, day, asked=asked, scaling=tight)
    assert guess.etl_s.assumed
    assert guess.run.apart_s == 0
    assert any("nobody has run an hour yet" in note for note in guess.notes)


def test_a_run_has_no_more_than_its_hours(project: Project) -> None:
    """`hours_per_run` bounds what a run can do at once."""
    project.write("lakehouse.yaml", f"{ON_S3}backfill: {{hours_per_run: 2}}\n")
    told = unseen(project, "2013-01-01", Asked(12_000_000, 3, 2.5, at_most=6))
    assert told.run.hours_in_flight == 2
    assert told.notes[0] == "a run of Dagster has no more than lakehouse.yaml's hours_per_run, 2"

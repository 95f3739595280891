from datetime import UTC, datetime

import pytest

from lakehouse_pipeline.drafts.places import fitting, place_of


@pytest.mark.parametrize(
    ("path", "template"),
    [
        pytest.param("r/2024/01/31/05.csv", "r/%Y/%m/%d/%H.csv", id="folders"),
        pytest.param("r/2024-01-31-05.csv.gz", "r/%Y-%m-%d-%H.csv.gz", id="dashes"),
        pytest.param("r/2024_01_31_05.csv", "r/%Y_%m_%d_%H.csv", id="underscores"),
        pytest.param("r/2024013105.csv", "r/%Y%m%d%H.csv", id="digits"),
        pytest.param("r/20240131T05.csv", "r/%Y%m%dT%H.csv", id="ISO basic"),
        pytest.param("r/20240131T0530.csv", "r/%Y%m%dT%H*.csv", id="with minutes"),
        pytest.param("r/x-2024-01-31T05-30-00Z.csv", "r/x-%Y-%m-%dT%H*Z.csv", id="with seconds"),
        pytest.param("r/dt=2024-01-31/hour=05/a.parquet", "r/dt=%Y-%m-%d/hour=%H/a.parquet", id="Hive's keys"),
        pytest.param(
            "r/year=2024/month=01/day=31/hr=05/a.orc", "r/year=%Y/month=%m/day=%d/hr=%H/a.orc", id="a key each"
        ),
        pytest.param("r/2024-01-31/events_05.csv", "r/%Y-%m-%d/events_%H.csv", id="hour in the name"),
        pytest.param("r/2024-01-31/h05/a.csv", "r/%Y-%m-%d/h%H/a.csv", id="hour with its letter"),
        pytest.param("r/2024/01/31/20240131T05.csv", "r/%Y/%m/%d/%Y%m%dT%H.csv", id="twice"),
        pytest.param("r/2024/2024-01/2024-01-31.csv", "r/%Y/%Y-%m/%Y-%m-%d.csv", id="thrice"),
        pytest.param("lake2024/2024/01/31/05.csv", "lake2024/%Y/%m/%d/%H.csv", id="a year that is a name"),
        pytest.param("r/2023-12-01/2024-01-31-05.csv", "r/2023-12-01/%Y-%m-%d-%H.csv", id="another time"),
        pytest.param("r/2024-01-31.csv", "r/%Y-%m-%d.csv", id="day"),
        pytest.param("r/2024-01-31/a-05-06.csv", "r/%Y-%m-%d/a-05-06.csv", id="which is the hour?"),
        pytest.param("r/2024-01.csv", "r/%Y-%m.csv", id="month"),
        pytest.param("r/sales-2024.csv", "r/sales-%Y.csv", id="year"),
        pytest.param("r/2024-02-30-05.csv", "r/2024-02-30-05.csv", id="no day of the calendar"),
        pytest.param("r/a12345678.csv", "r/a12345678.csv", id="a number"),
        pytest.param("r/100%/2024-01-31.csv", "r/100%%/%Y-%m-%d.csv", id="percent sign"),
    ],
)
def test_the_time_in_a_path(path: str, template: str) -> None:
    """The parts of a path that tell its time become directives, in whatever way they are written."""
    place = place_of(path)
    assert place.template == template
    assert "".join(text for text, _ in place.pieces) == path


@pytest.mark.parametrize(
    ("path", "unit", "start"),
    [
        ("r/2024/01/31/05.csv", "H", datetime(2024, 1, 31, 5, tzinfo=UTC)),
        ("r/2024-01-31.csv", "d", datetime(2024, 1, 31, tzinfo=UTC)),
        ("r/2024-02.csv", "m", datetime(2024, 2, 1, tzinfo=UTC)),
        ("r/2024.csv", "Y", datetime(2024, 1, 1, tzinfo=UTC)),
        ("r/all.csv", "", None),
    ],
)
def test_what_the_path_tells(path: str, unit: str, start: datetime | None) -> None:
    """The smallest unit that is there, and where it begins."""
    place = place_of(path)
    assert (place.unit, place.start) == (unit, start)


def test_a_lone_number_need_not_be_the_hour() -> None:
    """Whoever has seen the rows knows better."""
    assert place_of("r/2024-01-31/part-03.csv", lone_hour=False).template == "r/%Y-%m-%d/part-03.csv"


@pytest.mark.parametrize(
    ("path", "others", "template"),
    [
        pytest.param("r/2024/01/31/05.csv", ["r/2024/01/31/06.csv"], "r/%Y/%m/%d/%H.csv", id="nothing else differs"),
        pytest.param(
            "r/2024/01/31/05-host1.csv", ["r/2024/01/31/05-host2.csv"], "r/%Y/%m/%d/%H-*.csv", id="parts of an hour"
        ),
        pytest.param(
            "r/2024/01/31/05/part-0001-a3-f00d.csv",
            ["r/2024/01/31/05/part-0002-b4-d00f.csv"],
            "r/%Y/%m/%d/%H/part-*.csv",
            id="words that follow each other",
        ),
        pytest.param(
            "r/2024/01/31/05-clicks1.csv", ["r/2024/01/31/05-views.csv"], "r/%Y/%m/%d/%H-clicks1.csv", id="another kind"
        ),
        pytest.param("r/events_1.csv", ["r/events_2.csv"], "r/events_*.csv", id="without a time"),
        pytest.param("r/2024-01-31T0530.csv", ["r/2024-01-31T06.csv"], "r/%Y-%m-%dT%H*.csv", id="minutes"),
    ],
)
def test_words_that_differ_become_globs(path: str, others: list[str], template: str) -> None:
    """Files of the same make differ in words that hold a digit; a word without one tells another kind of file."""
    assert fitting(place_of(path), [path, *others])[0].template == template


def test_files_of_the_same_make_tell_their_time() -> None:
    """What is no day, or another kind of file, is not among them."""
    others = ["r/2024-01-30.csv", "r/2024-02-30.csv", "r/2024-01-30.json"]
    assert fitting(place_of("r/2024-01-31.csv"), others)[1] == {"r/2024-01-30.csv": datetime(2024, 1, 30, tzinfo=UTC)}


@pytest.mark.parametrize(
    ("path", "folder"), [("s3://b/r/x/2024/01.csv", "s3://b/r/x/"), ("s3://b/r/x-2024.csv", "s3://b/r/")]
)
def test_the_folder_of_all(path: str, folder: str) -> None:
    """It ends before the first part that tells the time."""
    assert place_of(path).folder == folder

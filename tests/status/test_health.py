"""Whether a table is healthy, and the pictures of it: the same in every form."""

import base64
import io
import logging
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill import pulse
from lakehouse_pipeline.backfill.leftovers import Orphans
from lakehouse_pipeline.backfill.pulse import Pulse
from lakehouse_pipeline.cli.main import main
from lakehouse_pipeline.config.health import HealthSettings
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.ledger import leases
from lakehouse_pipeline.status import picture as status_picture
from lakehouse_pipeline.status.drawing import COLOURS, MOST_BYTES, MOST_DAYS, heat_map
from lakehouse_pipeline.status.health import Finding, health_of
from lakehouse_pipeline.status.markdown import status_markdown
from lakehouse_pipeline.status.picture import STATES, HourStatus, State, TableStatus
from lakehouse_pipeline.status.progress import Progress
from lakehouse_pipeline.status.text import MARKS
from tests.iceberg.lake import hours_after
from tests.projects import HOUR, Project, row

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine

FIRST = HourWindow.from_key("2013-01-01-00:00")
NOW = datetime(2013, 1, 3, tzinfo=UTC)


def picture(*told: HourStatus) -> TableStatus:
    """Give a picture of these hours."""
    return TableStatus("events", "lake.events", NOW, told, 1)


def hours(*states: State) -> tuple[HourStatus, ...]:
    """Give hours in these states, from the first on."""
    return tuple(HourStatus(hour, state) for hour, state in zip(hours_after(FIRST, len(states)), states, strict=True))


def found(project: Project, status: TableStatus, orphans: Orphans | None = None, **limits: Any) -> dict[str, Finding]:
    """Give the findings, by check."""
    spec = project.lakehouse.spec("events")
    return {each.check: each for each in health_of(spec, HealthSettings(**limits), status, orphans)}


def broken(project: Project, status: TableStatus, orphans: Orphans | None = None, **limits: Any) -> set[str]:
    """Give the checks that do not hold."""
    return {name for name, each in found(project, status, orphans, **limits).items() if not each.passed}


@pytest.mark.parametrize("state", ["failed", "no source", "interrupted", "cancelled"])
def test_hours_that_came_to_nothing(project: Project, state: State) -> None:
    """One is too many, unless somebody allows it; it is named."""
    status = picture(*hours("committed", state, "not requested"))
    assert broken(project, status) == {"failed_hours"}
    assert found(project, status)["failed_hours"].said == "1, at most 0: 2013-01-01-01:00"
    assert broken(project, status, failed_hours="1") == set()


def test_stalled_hours(project: Project) -> None:
    """Hours that run are fine; one that does not get on is not."""
    assert broken(project, picture(*hours("running", "running"))) == set()
    assert broken(project, picture(*hours("running", "stalled"))) == {"stalled_hours"}


def test_sealed_hours_that_wait_long(project: Project) -> None:
    """By the age of the oldest."""
    young, old = hours("sealed", "running")  # that runs which commits it, or tries to
    sealed = (
        replace(young, sealed_at=NOW - timedelta(minutes=59)),
        replace(old, sealed_at=NOW - timedelta(minutes=61)),
    )
    status = picture(*sealed)
    assert broken(project, picture(sealed[0])) == set()
    assert broken(project, status) == {"sealed_for"}
    assert broken(project, status, sealed_for="2h") == set()


def test_throttles_of_a_day(project: Project) -> None:
    """The share of all requests of that day; what was long ago does not count."""
    (hour,) = hours("committed")
    recent, old = replace(hour, requests=100, throttles=30), replace(hour, requests=100, age=timedelta(days=2))
    assert found(project, picture(recent, old))["throttle_share"].said == "30.0%, at most 20.0%"
    assert broken(project, picture(recent)) == {"throttle_share"}
    assert broken(project, picture(recent), throttle_share="30%") == set()
    assert broken(project, picture(replace(recent, age=timedelta(days=2)))) == set()


def test_what_is_left_over(project: Project) -> None:
    """In bytes, with the count of files and attempts."""
    orphans = Orphans(attempts=2, measured=2, files=3, bytes=1_000_000_001)
    assert broken(project, picture(), orphans) == {"orphan_bytes"}
    said = found(project, picture(), orphans)["orphan_bytes"].said
    assert said == "1 GB, at most 1 GB: 3 files of 2 attempts"
    assert broken(project, picture(), Orphans()) == set()
    assert "orphan_bytes" not in found(project, picture(), None)


def test_freshness_of_the_newest_hour(project: Project) -> None:
    """It is asked for by the spec; a table that has ended gets no older than its end."""
    assert "freshness" not in found(project, picture())
    project.describe({"freshness": "3h", "end": "2013-01-04"})
    first = HourStatus(FIRST, "committed", is_live=True)
    assert "freshness" in broken(project, picture(first))
    assert "freshness" in broken(project, picture())
    last = HourStatus(HourWindow(NOW - timedelta(hours=3)), "running", is_live=True)  # again
    assert broken(project, picture(last)) == set()
    project.describe({"freshness": "3h", "end": "2013-01-01-04:00"})
    assert (
        broken(project, picture(first, HourStatus(HourWindow.from_key("2013-01-01-03:00"), "committed", is_live=True)))
        == set()
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{failed_hours: some}", "write a whole number from 0 on"),
        ("{throttle_share: 120%}", "write per cent from 0% to 100%"),
        ("{throttle_share: few}", "write per cent from 0% to 100%"),
        ("{orphan_bytes: much}", "is no size"),
        ("{sealed_for: long}", "is no age"),
        ("{files: 1}", "health.files: is no key here"),
    ],
)
def test_thresholds_are_read(project: Project, text: str, said: str) -> None:
    """What is none is told with its line."""
    project.write("lakehouse.yaml", (project.folder / "lakehouse.yaml").read_text() + f"health: {text}\n")
    refused = health(project)
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert "lakehouse.yaml:3: health" in refused.stderr


def health(project: Project, *words: str) -> Result:
    """Type `lakehouse health`."""
    return typed(project, "health", "events", *words)


def typed(project: Project, *words: str) -> Result:
    """Type a command."""
    return CliRunner().invoke(main, [*words, "-c", str(project.folder / "lakehouse.yaml")])


def test_a_table_that_does_not_exist_yet_is_healthy(project: Project) -> None:
    """Nothing has failed."""
    done = health(project)
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "events: 5 checks hold")


# ---------------------------------------------------------------------------------------------------------------------
# Pictures
# ---------------------------------------------------------------------------------------------------------------------


def test_every_state_has_a_mark_and_a_colour() -> None:
    """No two share one."""
    assert set(MARKS) == set(COLOURS) == set(STATES)
    assert len(set(MARKS.values())) == len(set(COLOURS.values())) == len(STATES)


def test_the_heat_map_shows_each_hour_in_its_colour() -> None:
    """A PNG that is small; every state has its colour in it, however many days there are."""
    told = hours(*(STATES[place % (len(STATES) - 1)] for place in range(24 * (MOST_DAYS + 10))))
    drawn = heat_map(picture(*told))
    assert len(drawn) <= MOST_BYTES
    image = Image.open(io.BytesIO(drawn)).convert("RGB")
    seen = {f"#{red:02X}{green:02X}{blue:02X}" for _, (red, green, blue) in image.getcolors(1_000) or ()}  # type: ignore[misc]
    assert {COLOURS[state] for state in STATES} <= seen


def test_markdown_has_all_of_it(project: Project) -> None:
    """The picture, causes and findings; text is not taken for Markdown."""
    failed = replace(hours("failed")[0], error="DataError", message="line 1:\n a `b` <c>")
    status = picture(failed)
    text = status_markdown(status, list(found(project, status).values()))
    drawn, causes, findings = text.split("\n\n")
    assert base64.b64decode(drawn.partition("base64,")[2][:-1]) == heat_map(status)
    assert causes == "- **1** DataError: `line 1: a 'b' <c>`  \n  2013-01-01-00:00"
    assert findings.splitlines()[2] == "| **broken** | failed_hours | 1, at most 0: 2013-01-01-00:00 |"


# ---------------------------------------------------------------------------------------------------------------------
# Hours that do not get on
# ---------------------------------------------------------------------------------------------------------------------


def test_a_pulse_tells_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """When it has stopped, with the stacks of all threads, and when it goes on."""
    clock, signs, told = [0.0], [0], list[timedelta]()
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    looked = Pulse("lake.events 2013", lambda: signs[0], told.append)
    with caplog.at_level(logging.WARNING):
        for at, sign in [(0, 1), (599, 1), (600, 1), (1200, 1), (1201, 2), (1800, 2), (1801, 2)]:
            clock[0], signs[0] = at, sign
            looked.look()
    assert told == [timedelta(seconds=600), timedelta(0), timedelta(seconds=600)]
    first, _ = [record.getMessage() for record in caplog.records]
    assert first.startswith("lake.events 2013: no progress for 600 s. Threads:")
    assert "test_a_pulse_tells_once" in first
    assert looked.idle == timedelta(seconds=600)


SLOW = """\
import time
from pathlib import Path

def slowly(source):
    for _ in range(600):
        if Path(__file__).with_name("go").exists():
            return source
        time.sleep(0.1)
    raise TimeoutError
"""


def test_an_hour_that_does_not_get_on(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told by its record to whoever looks, and is committed once it does."""
    for module in (pulse, status_picture):
        monkeypatch.setattr(module, "STALLED_AFTER", timedelta(seconds=1))
    monkeypatch.setattr(leases, "RENEW_EVERY", timedelta(seconds=0.2))
    monkeypatch.setattr(pulse, "LOOK_EVERY_S", 0.2)
    project.write("tables/slow.py", SLOW)
    columns = "{at: timestamptz!, id: long!, size: double}"
    project.describe({"transform": "slow:slowly", "columns": columns, "accepts": "[integer_overflow]"})
    project.land(HOUR, [row(HOUR, 1)])
    project.session()
    told = Progress("lake.events", 1)
    with events.subscribed(told.heard):
        run = threading.Thread(target=project.run, args=(HOUR,))
        run.start()
        until = time.monotonic() + 60
        while (said := typed(project, "why", "events", HOUR)).stdout.partition(": ")[2].partition(":")[0] != "stalled":
            assert time.monotonic() < until, said.stdout
            time.sleep(0.2)
        assert "is at etl, and has not got on for" in said.stdout
        assert told.line == "0/1 done · 1 stalled"
        broke = health(project)
        assert broke.exit_code == 1
        assert "BROKEN  stalled_hours     1, at most 0: 2013-01-01-10:00" in broke.stdout
        project.write("tables/go", "")
        run.join()
    assert told.line.startswith("1/1 done")
    assert health(project).exit_code == 0
    assert project.ids() == [1]

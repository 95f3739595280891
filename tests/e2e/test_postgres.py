"""Dagster on PostgreSQL, set up as docs/how-to/large-backfills.md says: the real webserver and daemon, many runs."""

import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from lakehouse_pipeline.hours import HourWindow
from tests.e2e.page import dagster_dev
from tests.iceberg.lake import hours_after
from tests.postgres import PostgresServer
from tests.projects import Project, row
from tests.security.written import files_below, holding

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "large-backfills.md"
HOURS = hours_after(HourWindow.from_key("2013-01-01-00:00"), 12)
OTHERS = {"weather": HOURS[:4], "planes": HOURS[:4]}  # tables of one run each: they run beside that of 12 hours
WITHIN_S = 240.0

EVENTS = """
SELECT run_id, dagster_event_type, asset_key, partition, timestamp FROM event_logs
WHERE dagster_event_type IN ('PIPELINE_STARTING', 'PIPELINE_SUCCESS')
   OR dagster_event_type = 'ASSET_MATERIALIZATION' AND partition IS NOT NULL
"""


@dataclass(frozen=True)
class Run:
    """One run, as PostgreSQL tells it.

    Attributes:
        table: whose hours it made.
        hours: their keys, each as often as it was reported.
        begin: when it left the queue.
        end: when it had succeeded.
    """

    table: str
    hours: tuple[str, ...]
    begin: datetime
    end: datetime


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[sa.Engine]:
    """Give a database of the test's own."""
    engine = sa.create_engine(postgres.database())
    yield engine
    engine.dispose()


@pytest.fixture
def served(project: Project, database: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a project on Sail with three tables over the same raw files, and the page's dagster.yaml."""
    for hour in HOURS:
        project.land(hour.key, [row(hour.key, HOURS.index(hour))])
    text = (project.folder / "lakehouse.yaml").read_text().replace("local[2]", "sail")
    project.write("lakehouse.yaml", f"{text}backfill: {{hours_per_run: 4}}\n")
    for name in OTHERS:
        keys = {**project.keys, "table": f"lake.{name}"}
        project.write(f"tables/{name}.yaml", "".join(f"{key}: {value}\n" for key, value in keys.items()))
    (told,) = re.findall(r"```yaml\n(# dagster\.yaml.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    written = yaml.safe_load((ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    project.write("dagster.yaml", yaml.safe_dump(written | yaml.safe_load(told)))
    shutil.copy(ROOT / "workspace.yaml", project.folder)
    monkeypatch.setenv("DAGSTER_PG_URL", database.url.render_as_string(hide_password=False))
    return project


def test_a_backfill_in_many_runs(served: Project, database: sa.Engine) -> None:
    """Every event is in PostgreSQL, and never are two runs of a table, or three in all, at once."""
    with dagster_dev(served.folder) as page:
        asked = [page.launch(_keys(HOURS)), *(page.launch(_keys(hours), table) for table, hours in OTHERS.items())]
        counts = [page.ended(backfill, WITHIN_S)["materialized"] for backfill in asked]
        assert [path.name for path in served.folder.rglob("*.db")] == ["catalog.db"]  # Iceberg's
    assert counts == [12, 4, 4]
    runs = _runs(database)
    made = Counter((run.table, hour) for run in runs for hour in run.hours)
    assert made == Counter((table, hour.key) for table, hours in {"events": HOURS, **OTHERS}.items() for hour in hours)
    assert Counter(run.table for run in runs) == {"events": 3, "weather": 1, "planes": 1}
    assert _at_once([run for run in runs if run.table == "events"]) == 1
    assert _at_once(runs) <= 2
    assert served.ids() == list(range(12))
    assert holding({"password": str(database.url.password)}, files_below(served.folder)) == set()


def _keys(hours: Sequence[HourWindow]) -> list[str]:
    return [hour.key for hour in hours]


def _runs(database: sa.Engine) -> list[Run]:
    """Give every run that made an hour."""
    told: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    with database.connect() as connection:
        for run, event, asset, hour, moment in connection.execute(sa.text(EVENTS)):
            told[run][event].append((*json.loads(asset), hour) if asset else moment)
    runs = []
    for events in told.values():
        tables = {table for table, _ in events["ASSET_MATERIALIZATION"]}
        if tables:
            (table,), (begin,), (end,) = tables, events["PIPELINE_STARTING"], events["PIPELINE_SUCCESS"]
            runs.append(Run(table, tuple(hour for _, hour in events["ASSET_MATERIALIZATION"]), begin, end))
    return runs


def _at_once(runs: Sequence[Run]) -> int:
    """Count the runs that were out of the queue at once, at most."""
    return max(sum(run.begin <= moment < run.end for run in runs) for moment in (run.begin for run in runs))

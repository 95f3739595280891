"""A thousand small hours in a storm: every one of them ends well with nobody's help, and is there once."""

import json
import logging
import os
import uuid
from contextlib import ExitStack

import pytest

from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.hourly import store_of
from lakehouse_pipeline.planning.s3_scaling import Scaling
from lakehouse_pipeline.testing.asked import Dialect
from lakehouse_pipeline.testing.faults import FaultServer
from lakehouse_pipeline.testing.schedule import Effect, Fault
from tests.backfill.lone_runs import Lone
from tests.backfill.sail_runs import SailRun
from tests.crashes.flows import close_all
from tests.iceberg.lake import hours_after
from tests.projects import Project, json_lines, row, strays
from tests.storms import OF_S3

logger = logging.getLogger(__name__)

HOURS = int(os.environ.get("LAKEHOUSE_STORM_HOURS", "1000"))
RUNS = 4
ROWS = 3  # of an hour
SEED = 11
WITHIN_S = 3600
# Writes a second that a range of keys takes, and seconds until it is split: S3's 3,500 and minutes, made small.
SCALING = Scaling(write_rate=15.0, read_rate=25.0, detect_s=5.0, split_s=5.0, heat_window_s=2.0)
OF_CATALOG = (
    Fault(effect=Effect.CONFLICT, verb="updateTable", probability=0.1, times=None),
    Fault(effect=Effect.CONFLICT, verb="updateTable", probability=0.1, times=None, landed=True),
    Fault(effect=Effect.INTERNAL_ERROR, verb="updateTable", probability=0.1, times=None, landed=True),
    Fault(effect=Effect.INTERNAL_ERROR, probability=0.02, times=None),
    Fault(effect=Effect.RESET, probability=0.01, times=None),
)


@pytest.mark.full
@pytest.mark.timeout(WITHIN_S)
def test_a_thousand_hours_in_a_storm(project: Project, seaweed: SeaweedServer) -> None:
    """All of them committed at the first run, by four processes; each row is there once, and nothing beside them."""
    hours = hours_after(HourWindow.from_key("2013-01-01-00:00"), HOURS)
    raw, files = f"s3://raw/{uuid.uuid4().hex}", store_of(seaweed.s3_properties())
    for place, hour in enumerate(hours):
        rows = [row(hour.key, place * ROWS + number) for number in range(ROWS)]
        files.put(f"{raw}/{hour.start:%Y/%m/%d/%H}.jsonl", json_lines(rows))
    columns = "{at: timestamptz!, id: long!, size: double}"
    project.describe(
        {
            "table": f"n{uuid.uuid4().hex[:8]}.events",
            "source": f"{{path: '{raw}/%Y/%m/%d/%H.jsonl', columns: {columns}}}",
            "end": HourWindow(hours[-1].end).key,
        }
    )
    quiet = f"catalog: {json.dumps(seaweed.catalog_properties())}\nengine: sail\n"
    with (
        FaultServer(seaweed.endpoint, faults=OF_S3, scaling=SCALING, seed=SEED) as s3,
        FaultServer(seaweed.catalog_uri, faults=OF_CATALOG, dialect=Dialect.ICEBERG, seed=SEED) as catalog,
    ):
        stormy = {"s3.endpoint": s3.endpoint, "s3.request-timeout": "5", "uri": catalog.endpoint}
        properties = {**seaweed.catalog_properties(), **stormy}
        project.write("lakehouse.yaml", f"catalog: {json.dumps(properties)}\nengine: sail\n")
        with ExitStack() as running:
            work = [SailRun(project.folder, hours[place::RUNS], 4, f"run {place}") for place in range(RUNS)]
            runs = [running.enter_context(Lone(each)) for each in work]
            failed = [told for run in runs for told in run.ended(WITHIN_S).items()]
        throttled = sum(each.status == 503 for each in s3.exchanges)
        spoiled = sum(each.fault not in {None, "throttle"} for each in (*s3.exchanges, *catalog.exchanges))
    done = HOURS - len(failed)
    logger.info("%d of %d hours, %d throttled and %d spoiled requests, seed %d", done, HOURS, throttled, spoiled, SEED)
    assert failed == []
    assert min(throttled, spoiled) > HOURS / 10
    project.write("lakehouse.yaml", quiet)
    assert project.ids() == list(range(HOURS * ROWS))
    close_all(project.table)
    assert strays(project.table) == set()

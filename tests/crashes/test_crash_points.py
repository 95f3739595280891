"""Every crash point of every flow: killed there, nothing that is reached is missing, and the next run ends it.

Which occurrence of an event a seed strikes is drawn of all that a flow has which goes to its end. The way to S3 leads
through a fault server that loses answers and throttles, by the same seed.
"""

import os
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog

from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.testing.faults import FaultServer
from lakehouse_pipeline.testing.schedule import Effect, Fault
from tests.backfill.lone_runs import WITHIN_S, Lone
from tests.crashes.flows import FLOWS, Doing, close_all
from tests.iceberg.lake import Lake

SEEDS = range(int(os.environ.get("LAKEHOUSE_CRASH_SEEDS", "1")))
POINTS = [(flow, event) for flow, told in FLOWS.items() for event in told.events]
# Of each way of going on one flow; those that go on like another take their turn in `make test-full`.
LIKE_OTHERS = dict.fromkeys(
    ("hour", "superseding", "hour in parts", "rewrite", "sweep for good", "restore", "purge"), pytest.mark.full
)
LONE = ("upload.aborted",)  # that no other flow says
# On the way of a file that is uploaded in parts: what is held then, and how many uploads a kill leaves open.
UPLOAD = {
    "created": (Fault(effect=Effect.HOLD, verb="CreateMultipartUpload", landed=True), 1),
    "between parts": (Fault(effect=Effect.HOLD, verb="UploadPart", after=1), 1),
    "before it is completed": (Fault(effect=Effect.HOLD, verb="CompleteMultipartUpload"), 1),
    "completed": (Fault(effect=Effect.HOLD, verb="CompleteMultipartUpload", landed=True), 0),
    "before another's is aborted": (Fault(effect=Effect.HOLD, verb="AbortMultipartUpload"), 1),
}
KEPT = ("hours/", "quarantine/", "maintenance.json", "committer.json", "audit.json")  # of the ledger


@dataclass(frozen=True)
class Bay:
    """A table that a flow is about to be done to.

    Attributes:
        flow: its name.
        lake: the table, as it is reached without faults.
        catalog: the properties of a catalog whose way to S3 has faults.
        before: the snapshots of the table before the flow.
    """

    flow: str
    lake: Lake
    catalog: Mapping[str, str]
    before: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        """Look at the table before the flow begins."""
        object.__setattr__(self, "before", frozenset(each.snapshot_id for each in self.lake.now.table.snapshots()))

    @property
    def commits(self) -> int:
        """Count the snapshots that were made since, but for those that only keep an earlier commit from landing."""
        made = [each for each in self.lake.now.table.snapshots() if each.snapshot_id not in self.before]
        return sum(not (each.summary and "lakehouse.fence" in each.summary.additional_properties) for each in made)

    def doing(self, crash_at: str = "") -> Doing:
        """Describe it, and where it is killed."""
        return Doing(self.flow, self.catalog, self.lake.identifier, crash_at)


@pytest.fixture
def faults(seaweed: SeaweedServer, seed: int) -> Iterator[FaultServer]:
    """Give a way to S3 on which answers are lost and requests throttled."""
    slow, lost = (Fault(effect=effect, probability=0.03, times=None) for effect in (Effect.SLOW_DOWN, Effect.RESET))
    landed = Fault(effect=Effect.RESET, verb="PutObject", landed=True, probability=0.03, times=None)
    with FaultServer(seaweed.endpoint, faults=[slow, lost, landed], seed=seed) as server:
        yield server


@pytest.fixture
def seed() -> int:
    """Give the one of a flow that is not struck."""
    return 0


@pytest.fixture
def made(flow: str, seaweed: SeaweedServer, faults: FaultServer, tmp_path: Path) -> Iterator[Callable[[], Bay]]:
    """Give what makes a table for a flow, as it is at the flow's beginning."""
    if FLOWS[flow].plain:
        place = {"type": "sql", "uri": f"sqlite:///{tmp_path}/s3.db", "warehouse": f"s3://plain/{uuid.uuid4().hex}"}
        properties = {**place, **seaweed.s3_properties()}
    else:
        properties = seaweed.catalog_properties()
    properties |= FLOWS[flow].settings
    catalog: Catalog = open_catalog(properties)

    def make() -> Bay:
        lake = Lake.create(catalog)
        FLOWS[flow].begins(lake)
        return Bay(flow, lake, {**properties, "s3.endpoint": faults.endpoint})

    yield make
    catalog.close()


_said: dict[str, Counter[str]] = {}  # by flow: what is said on the way to its end


def said(made: Callable[[], Bay], flow: str) -> Counter[str]:
    """Do a flow to its end, and give what it said; once in a process."""
    if flow not in _said:
        bay = made()
        with Lone(bay.doing()) as going:
            _said[flow] = going.ended()
        holds(bay)
    return _said[flow]


def holds(bay: Bay) -> None:
    """Hold the table against what it has to be at the end: rows, snapshots, all that is reached, and nothing else."""
    flow, lake = FLOWS[bay.flow], bay.lake
    assert lake.rows() == flow.after
    assert bay.commits == flow.commits
    close_all(lake.now)
    reached, stored = lake.reached(), lake.stored("metadata") | lake.stored("data")
    assert reached - stored == set()
    assert len(stored - reached) == flow.orphans
    assert list(lake.now.files.list_uploads(f"{lake.now.location}/")) == []
    ledger = lake.now.ledger.folder
    hidden = [item.url.removeprefix(f"{ledger}/") for item in lake.now.files.list_objects(f"{ledger}/")]
    assert [name for name in hidden if not name.startswith(KEPT)] == []
    assert {lake.now.ledger.hour(hour).record.state for hour in lake.now.ledger.known()} == {"idle"}


@pytest.mark.parametrize("flow", [pytest.param(flow, marks=LIKE_OTHERS.get(flow, ())) for flow in FLOWS])
def test_a_flow_says_what_is_listed(made: Callable[[], Bay], flow: str) -> None:
    """Each event that is said on the way is a point at which a process is killed."""
    assert set(FLOWS[flow].events) == set(said(made, flow)) - {"request.retried"}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("flow", "event"),
    [
        pytest.param(flow, event, id=f"{flow}-{event}", marks=() if event in LONE else LIKE_OTHERS.get(flow, ()))
        for flow, event in POINTS
    ],
)
def test_killed_at(made: Callable[[], Bay], flow: str, event: str, seed: int) -> None:
    """Each hour is the old one or the new one, all snapshots are whole, and the next run takes it to its end."""
    chance = random.Random(f"{flow} {event} {seed}")  # noqa: S311  # no secret
    nth, bay = chance.randint(1, said(made, flow)[event]), made()
    with Lone(bay.doing(f"{event}:{nth}")) as struck:
        struck.killed()
    goes_on(bay)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("flow", ["hour in parts"])
@pytest.mark.parametrize("where", UPLOAD)
def test_killed_in_an_upload(made: Callable[[], Bay], faults: FaultServer, where: str) -> None:
    """No event is said of its requests: one is held on its way, or its answer is, until the process is dead."""
    fault, left = UPLOAD[where]
    bay, held = made(), faults.add(fault)
    with Lone(bay.doing()) as struck:
        held.wait_held(timeout_s=WITHIN_S)
        struck.kill()
    held.remove()
    assert len(list(bay.lake.now.files.list_uploads(f"{bay.lake.now.location}/"))) == left
    goes_on(bay)


def goes_on(bay: Bay) -> None:
    """Look at what a kill has left: each hour is the old or the new one, and whole; then do the flow again."""
    lake, told = bay.lake, FLOWS[bay.flow]
    reached = lake.reached()
    assert reached - lake.stored("metadata") - lake.stored("data") == set()
    rows, before = lake.rows(), told.before or told.after
    for hour in rows.keys() | told.after.keys():
        assert rows.get(hour) in (before.get(hour), told.after.get(hour))
    for path in reached:
        if path.endswith(".parquet"):
            pq.read_table(pa.BufferReader(lake.now.files.get(path).body))
    told.does(lake)
    holds(bay)

"""Every stage of a table's way, under every fault that can meet it there: what was promised of a cell is what happens.

A cell is a stage and a fault. The stage says which requests of which flow are struck, the fault how; `docs/promises.md`
shows the matrix. Processes that are killed are `test_crash_points`', those that are stopped and go on later
`tests/backfill/test_kills`' and `tests/maintenance/test_sweep`'s.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from lakehouse_pipeline import events
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.errors import LakehouseError, TransientError
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.testing.asked import Dialect
from lakehouse_pipeline.testing.faults import FaultServer
from lakehouse_pipeline.testing.schedule import Effect, Fault
from tests.backfill.lone_runs import Lone
from tests.crashes.flows import FLOWS, Doing, Rival
from tests.crashes.test_crash_points import Bay, holds
from tests.iceberg.answers import tries
from tests.iceberg.lake import Lake

PATIENT = {"s3.retry.min-wait-ms": "1", "s3.retry.max-wait-ms": "20"}
IMPATIENT = {**PATIENT, "s3.retry.num-retries": "2"}
HASTY = {**PATIENT, "s3.request-timeout": "1"}


@dataclass(frozen=True)
class Stage:
    """Requests of a flow.

    Attributes:
        flow: its name.
        path: regular expression of their paths; of a catalog's there is none.
        verb: of their verbs.
        after: so many of them pass first.
    """

    flow: str
    path: str | None = None
    verb: str = "PutObject"
    after: int = 0

    def struck(self, fault: Fault) -> Fault:
        """Let a fault be for these requests."""
        return replace(fault, path=self.path, verb=self.verb, after=self.after)


STAGES = {
    "plan": Stage("hour", r"/(open|hours)/"),
    "write": Stage("hour", r"/data/.*\.parquet$"),
    "seal": Stage("hour", r"/metadata/\w+-m\d+\.avro$"),
    "commit": Stage("hour", r"/metadata/snap-"),
    "ack": Stage("hour", r"/hours/", after=3),
    "compaction": Stage("copy", r"/(data|metadata)/"),
    "manifests": Stage("manifests", r"/metadata/"),
    "expiry": Stage("expiry", verb="PutObject|DeleteObjects|DeleteObject|GetObject"),
    "sweep": Stage("sweep", verb="PutObject|CopyObject|DeleteObjects"),
}
EVERY = tuple(STAGES)
PUTS = ("plan", "write", "seal", "commit", "ack", "compaction", "manifests")


@dataclass(frozen=True)
class Met:
    """A fault, where it can be met, and how patient the client is.

    Attributes:
        fault: what happens to a request.
        stages: where.
        settings: of the client.
        fails: whether the flow ends with an error, and is done again without the fault; else it goes to its end.
    """

    fault: Fault
    stages: tuple[str, ...] = EVERY
    settings: Mapping[str, str] = field(default_factory=dict)
    fails: bool = False


FAULTS = {
    "503 half the time": Met(Fault(effect=Effect.SLOW_DOWN, probability=0.5, times=None), settings=PATIENT),
    "503 beyond all patience": Met(Fault(effect=Effect.SLOW_DOWN, times=None), settings=IMPATIENT, fails=True),
    "500": Met(Fault(effect=Effect.INTERNAL_ERROR, times=3), settings=PATIENT),
    "reset": Met(Fault(effect=Effect.RESET, times=3), settings=PATIENT),
    "reset after the effect": Met(Fault(effect=Effect.RESET, times=3, landed=True), settings=PATIENT),
    "no answer after the effect": Met(
        Fault(effect=Effect.SILENCE, landed=True), ("write", "commit", "compaction", "sweep"), HASTY
    ),
    "half an answer": Met(Fault(effect=Effect.CUT), ("expiry", "sweep"), PATIENT),
    "409": Met(Fault(effect=Effect.CONFLICT, times=2), ("plan", "write", "seal", "commit", "compaction"), PATIENT),
    "error in a 200": Met(Fault(effect=Effect.ERROR_IN_200, verb="CopyObject"), ("sweep",), PATIENT),
    "a bit flipped on its way": Met(Fault(effect=Effect.FLIP_REQUEST, times=2), PUTS, PATIENT),
    "some keys refused": Met(Fault(effect=Effect.KEYS_REFUSED, times=2), ("expiry", "sweep"), PATIENT),
}
CELLS = [(stage, name) for name, met in FAULTS.items() for stage in met.stages]
MANY = {"compaction", "manifests", "expiry"}  # requests of several kinds: they take their turn in `make test-full`


@pytest.fixture
def begun(seaweed: SeaweedServer, tmp_path: Path) -> Iterator[Callable[[str], tuple[Bay, dict[str, str]]]]:
    """Give what makes the table of a flow; gives with it the properties of its catalog."""
    opened = []

    def begin(flow: str) -> tuple[Bay, dict[str, str]]:
        place = {"type": "sql", "uri": f"sqlite:///{tmp_path}/s3.db", "warehouse": f"s3://plain/{uuid.uuid4().hex}"}
        plain = {**place, **seaweed.s3_properties()}
        properties = plain if FLOWS[flow].plain else seaweed.catalog_properties()
        opened.append(catalog := open_catalog(properties))
        lake = Lake.create(catalog)
        FLOWS[flow].begins(lake)
        return Bay(flow, lake, properties), properties

    yield begin
    for catalog in opened:
        catalog.close()


def reached_by(bay: Bay, properties: Mapping[str, str]) -> Lake:
    """Open the same table by other properties."""
    return Lake(open_catalog(properties), bay.lake.identifier)


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        pytest.param(stage, name, id=f"{stage}-{name}", marks=[pytest.mark.full] * (stage in MANY))
        for stage, name in CELLS
    ],
)
def test_of_the_store(
    begun: Callable[[str], tuple[Bay, dict[str, str]]], seaweed: SeaweedServer, stage: str, name: str
) -> None:
    """The flow goes to its end, or ends with an error that says try again, and then does: nothing is lost or left."""
    struck, met = STAGES[stage], FAULTS[name]
    bay, properties = begun(struck.flow)
    with FaultServer(seaweed.endpoint, seed=7) as server:
        fault = met.fault if met.fault.verb else struck.struck(met.fault)
        armed = server.add(fault)
        lake = reached_by(bay, {**properties, **met.settings, "s3.endpoint": server.endpoint})
        if met.fails:
            with tries(), pytest.raises(TransientError):
                FLOWS[struck.flow].does(lake)
            assert bay.lake.missing() == set()
            FLOWS[struck.flow].does(bay.lake)
        else:
            FLOWS[struck.flow].does(lake)
        armed.wait_fired(timeout_s=0)
    holds(bay)


CATALOG = {"commit": "hour", "compaction": "copy", "manifests": "manifests", "expiry": "expiry"}
ANSWERS = {
    "409": Fault(effect=Effect.CONFLICT, times=2),
    "409 that landed": Fault(effect=Effect.CONFLICT, landed=True),
    "500": Fault(effect=Effect.INTERNAL_ERROR, times=2),
    "500 that landed": Fault(effect=Effect.INTERNAL_ERROR, landed=True),
    "reset": Fault(effect=Effect.RESET),
    "reset after the effect": Fault(effect=Effect.RESET, landed=True),
    "half an answer": Fault(effect=Effect.CUT),
}
OF_CATALOG = [(stage, name) for name in ANSWERS for stage in CATALOG]


@pytest.mark.parametrize(("stage", "name"), OF_CATALOG, ids=[f"{stage}-{name}" for stage, name in OF_CATALOG])
def test_of_the_catalog(
    begun: Callable[[str], tuple[Bay, dict[str, str]]], seaweed: SeaweedServer, stage: str, name: str
) -> None:
    """Whatever is said of a commit, it is there once, at once or when the flow is done again."""
    flow = FLOWS[CATALOG[stage]]
    bay, properties = begun(CATALOG[stage])
    with FaultServer(seaweed.catalog_uri, dialect=Dialect.ICEBERG) as server:
        armed = server.add(replace(ANSWERS[name], verb="updateTable"))
        lake = reached_by(bay, {**properties, "uri": server.endpoint})
        try:
            flow.does(lake)
        except LakehouseError:
            assert bay.lake.missing() == set()
            flow.does(bay.lake)
        armed.wait_fired(timeout_s=0)
    holds(bay)


TWICE = {"plan": "object.put", "write": "attempt.opened", "seal": "attempt.sealed", "commit": "commit.sent"}


@pytest.mark.parametrize("stage", TWICE)
def test_the_same_hour_twice(begun: Callable[[str], tuple[Bay, dict[str, str]]], stage: str) -> None:
    """One run stops there, another goes by it to the end: the first gives way when it goes on, to one commit."""
    bay, properties = begun("hour")
    doing = Doing("hour", properties, bay.lake.identifier)
    with Lone(Rival(doing, stops_at=TWICE[stage])) as slow:
        slow.stopped()
        with Lone(Rival(doing)) as fast:
            assert fast.ended() == ""
        slow.go_on()
        assert slow.ended() in {"CommitConflictError", "TakenError"}
    FLOWS["hour"].does(bay.lake)
    holds(bay)


MOMENTS = {"plan": ("object.put", "/hours/"), "write": ("object.put", ".parquet"), "commit": ("commit.sent", "")}


@pytest.mark.parametrize("stage", MOMENTS)
def test_the_server_is_killed(tmp_path: Path, stage: str) -> None:
    """And comes back: all that was acknowledged is there, and the run goes to its end without anybody's help."""
    with SeaweedServer(tmp_path / "seaweed", buckets=("raw", "plain"), table_bucket="lake") as server:
        lake = Lake.create(open_catalog({**server.catalog_properties(), **PATIENT}))
        FLOWS["hour"].begins(lake)
        (moment, where), struck = MOMENTS[stage], list[events.Event]()

        def strike(event: events.Event) -> None:
            if event.name == moment and where in str(event) and not struck:
                struck.append(event)
                assert server._process
                server._process.kill()
                server._process.wait()
                server.start()

        with events.subscribed(strike):
            bay = Bay("hour", lake, server.catalog_properties())
            FLOWS["hour"].does(lake)
        assert struck
        holds(bay)

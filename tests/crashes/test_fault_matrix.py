"""Every stage of a table's way, under every fault that can meet it there: what was promised of a cell is what happens.

A cell is a stage and a fault. The stage says which requests of which flow are struck, the fault how; `docs/promises.md`
shows the matrix. Processes that are killed are `test_crash_points`', those that are stopped and go on later
`tests/backfill/test_kills`' and `tests/maintenance/test_sweep`'s.
"""

import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from itertools import product
from pathlib import Path
from urllib.parse import unquote

import pytest

from lakehouse_pipeline import events
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.errors import LakehouseError, TransientError
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.testing.asked import Dialect
from lakehouse_pipeline.testing.faults import FaultServer
from lakehouse_pipeline.testing.schedule import Armed, Effect, Fault
from tests.backfill.lone_runs import WITHIN_S, Lone
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
        verb: of the requests; a regular expression of all of it.
        path: of theirs; a regular expression that is found in it.
        since: the event after which they are struck; empty: from the flow's beginning.
        until: the event at which that ends; empty: the flow's end.
    """

    flow: str
    verb: str
    path: str
    since: str = ""
    until: str = ""


@dataclass
class Strike:
    """A fault that strikes requests of one stage, armed and taken out by what the flow says.

    Attributes:
        server: which does it.
        stage: what is struck.
        fault: how.
        armed: once the stage has begun.
    """

    server: FaultServer
    stage: Stage
    fault: Fault
    armed: Armed | None = None

    def __post_init__(self) -> None:
        """Arm it at once where the stage begins with the flow."""
        if not self.stage.since:
            self._arm()

    def __call__(self, event: events.Event) -> None:
        """Hear what the flow says."""
        if event.name == self.stage.since:
            self._arm()
        if self.armed and event.name == self.stage.until:
            self.armed.remove()

    def hit(self) -> None:
        """Hold what was struck against the stage: some requests were, and all of them are the stage's."""
        struck = [each for each in self.server.exchanges if each.fault]
        assert struck != []
        for each in struck:
            assert re.fullmatch(self.stage.verb, each.verb)
            assert re.search(self.stage.path, unquote(each.path))

    def urls(self) -> set[str]:
        """Name the objects that were struck."""
        return {f"s3:/{unquote(each.path).partition('?')[0]}" for each in self.server.exchanges if each.fault}

    def _arm(self) -> None:
        if not self.armed:
            self.armed = self.server.add(replace(self.fault, verb=self.stage.verb, path=self.stage.path))


DATA, LEDGER, BUCKET = r"/data/[^?]*\.parquet(\?|$)", r"/_lakehouse/[^/]+/", r"^/\w+/?(\?delete)?$"
STAGES = {
    "plan": Stage("hour", "PutObject", rf"{LEDGER}(open|hours)/", until="attempt.opened"),
    "write": Stage("hour", "PutObject", DATA, "attempt.opened", "attempt.sealed"),
    "upload create": Stage("hour in parts", "CreateMultipartUpload", DATA, "attempt.opened", "attempt.sealed"),
    "upload part": Stage("hour in parts", "UploadPart", DATA, "attempt.opened", "attempt.sealed"),
    "upload complete": Stage("hour in parts", "CompleteMultipartUpload", DATA, "attempt.opened", "attempt.sealed"),
    "upload abort": Stage("hour in parts", "AbortMultipartUpload", DATA, "attempt.opened", "attempt.sealed"),
    "seal": Stage("hour", "PutObject", r"/metadata/\w+-m\d+\.avro$", "attempt.opened", "attempt.sealed"),
    "commit": Stage("hour", "PutObject", r"/metadata/snap-[^/]+$", "attempt.sealed", "commit.sent"),
    "ack": Stage("hour", "PutObject", rf"{LEDGER}hours/", "commit.landed", "attempt.committed"),
    "compaction": Stage("copy", "PutObject", r"/(data|metadata)/[^?]+$", "attempt.opened"),
    "manifests": Stage("manifests", "PutObject", r"/metadata/[^?]+$", "manifests.planned", "commit.sent"),
    "expiry read": Stage("expiry", "GetObject", r"/metadata/[^?]+\.avro$", "expiry.committed", "expiry.finished"),
    "expiry delete": Stage("expiry", "DeleteObjects", BUCKET, "expiry.deleting", "expiry.finished"),
    "lease": Stage("sweep", "PutObject", rf"{LEDGER}maintenance\.json$"),
    "sweep record": Stage("sweep", "PutObject", rf"{LEDGER}quarantine/", "maintenance.began", "maintenance.ended"),
    "sweep copy": Stage("sweep", "CopyObject", rf"{LEDGER}quarantine/\w+/objects/", "sweep.began", "sweep.copied"),
    "sweep delete": Stage("sweep", "DeleteObjects", BUCKET, "sweep.copied", "sweep.removed"),
    "restore copy": Stage("restore", "CopyObject", r"/(data|metadata)/[^/]+$", "sweep.restored"),
}
EVERY = tuple(STAGES)
READS, DELETES = ("expiry read",), ("expiry delete", "sweep delete")
CHANGES = tuple(stage for stage in EVERY if stage not in READS)
NEEDED = tuple(stage for stage in EVERY if stage != "upload abort")  # which the next pass makes good
NAMED = ("write", "upload complete", "seal", "commit")  # what landed unheard of is known again: no other name is taken
AFRESH = ("upload complete", "409 of If-None-Match")  # S3 asks for a new upload
BODIES = tuple(stage for stage, asked in STAGES.items() if asked.verb in {"PutObject", "UploadPart"})


@dataclass(frozen=True)
class Met:
    """A fault, where it can be met, and how patient the client is.

    Attributes:
        fault: what happens to a request.
        stages: where.
        settings: of the client.
        fails: where the flow ends with an error, and is done again without the fault; else it goes to its end.
    """

    fault: Fault
    stages: tuple[str, ...] = EVERY
    settings: Mapping[str, str] = field(default_factory=dict)
    fails: tuple[str, ...] = ()


FAULTS = {
    "503 half the time": Met(Fault(effect=Effect.SLOW_DOWN, probability=0.5, times=None), settings=PATIENT),
    "503 beyond all patience": Met(Fault(effect=Effect.SLOW_DOWN, times=None), settings=IMPATIENT, fails=NEEDED),
    "500": Met(Fault(effect=Effect.INTERNAL_ERROR, times=3), settings=PATIENT),
    "reset": Met(Fault(effect=Effect.RESET, times=3), settings=PATIENT),
    "reset after the effect": Met(Fault(effect=Effect.RESET, times=3, landed=True), CHANGES, PATIENT),
    "no answer after the effect": Met(Fault(effect=Effect.SILENCE, landed=True), CHANGES, HASTY),
    "half an answer": Met(
        Fault(effect=Effect.CUT),
        ("upload create", "upload complete", *READS, *DELETES, "sweep copy", "restore copy"),
        PATIENT,
    ),
    "409 of If-None-Match": Met(
        Fault(effect=Effect.CONFLICT, header="If-None-Match", times=2),
        ("write", "upload complete", "seal", "commit", "compaction", "manifests", "lease", "restore copy"),
        PATIENT,
    ),
    "409 of If-Match": Met(
        Fault(effect=Effect.CONFLICT, header="If-Match", times=2), ("plan", "ack", "lease"), PATIENT
    ),
    "412 of another version": Met(
        Fault(effect=Effect.REFUSED, header="x-amz-copy-source-if-match"), ("sweep copy",), PATIENT, ("sweep copy",)
    ),
    "412 after the effect": Met(
        Fault(effect=Effect.REFUSED, header="If-None-Match", landed=True), ("restore copy",), PATIENT
    ),
    "error in a 200": Met(
        Fault(effect=Effect.ERROR_IN_200), ("upload complete", "sweep copy", "restore copy", *DELETES), PATIENT
    ),
    "a bit flipped on its way": Met(Fault(effect=Effect.FLIP_REQUEST, times=2), BODIES, PATIENT),
    "some keys refused": Met(Fault(effect=Effect.KEYS_REFUSED, times=2), DELETES, PATIENT),
}
CELLS = [(stage, name) for name, met in FAULTS.items() for stage in met.stages]
# Of what is handled alike, one takes its turn in CI; the others in `make test-full`.
LATER = {"compaction", "manifests", "expiry read", "expiry delete", "restore copy"}
LATER_CELLS = {
    *product(("upload create", "upload complete", "upload abort", "lease"), ("503 half the time", "500", "reset")),
    *product(("upload part", "sweep record", "sweep copy", "sweep delete"), ("500",)),
    *product(("upload create", "upload abort", "sweep record"), ("no answer after the effect",)),
}
LATER_TWICE = LATER | {"ack", "sweep copy", "upload part"}


@pytest.fixture
def begun(seaweed: SeaweedServer, tmp_path: Path) -> Iterator[Callable[[str], tuple[Bay, dict[str, str]]]]:
    """Give what makes the table of a flow; gives with it the properties of its catalog."""
    opened = []

    def begin(flow: str) -> tuple[Bay, dict[str, str]]:
        place = {"type": "sql", "uri": f"sqlite:///{tmp_path}/s3.db", "warehouse": f"s3://plain/{uuid.uuid4().hex}"}
        plain = {**place, **seaweed.s3_properties()}
        properties = {**(plain if FLOWS[flow].plain else seaweed.catalog_properties()), **FLOWS[flow].settings}
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
        pytest.param(*cell, id="-".join(cell), marks=[pytest.mark.full] * (cell[0] in LATER or cell in LATER_CELLS))
        for cell in CELLS
    ],
)
def test_of_the_store(
    begun: Callable[[str], tuple[Bay, dict[str, str]]], seaweed: SeaweedServer, stage: str, name: str
) -> None:
    """The flow goes to its end, or ends with an error that says try again, and then does: nothing is lost or left."""
    struck, met = STAGES[stage], FAULTS[name]
    bay, properties = begun(struck.flow)
    with FaultServer(seaweed.endpoint, seed=7) as server:
        strike = Strike(server, struck, met.fault)
        lake = reached_by(bay, {**properties, **met.settings, "s3.endpoint": server.endpoint})
        if stage in met.fails:
            with tries(), events.subscribed(strike), pytest.raises(TransientError):
                FLOWS[struck.flow].does(lake)
            assert bay.lake.missing() == set()
            FLOWS[struck.flow].does(bay.lake)
        else:
            with events.subscribed(strike):
                FLOWS[struck.flow].does(lake)
        strike.hit()
        created = Counter(each.verb for each in server.exchanges)["CreateMultipartUpload"]
    holds(bay)
    if met.fault.landed and stage in NAMED:
        assert strike.urls() <= bay.lake.reached()
    if (stage, name) == AFRESH:
        assert created == 1 + (met.fault.times or 0)


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


TWICE = {
    "plan": ("hour", "object.put"),
    "write": ("hour", "attempt.opened"),
    "seal": ("hour", "attempt.sealed"),
    "commit": ("hour", "commit.sent"),
    "ack": ("hour", "commit.landed"),
    "compaction": ("copy", "commit.sent"),
    "manifests": ("manifests", "commit.sent"),
    "expiry delete": ("expiry", "expiry.deleting"),
    "sweep copy": ("sweep", "sweep.began"),
    "sweep delete": ("sweep", "sweep.copied"),
    "restore copy": ("restore", "sweep.restored"),
}
NOTHING_LEFT = {"manifests", "restore copy"}  # whoever comes second finds it done, and ends


@pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=[pytest.mark.full] * (stage in LATER_TWICE)) for stage in TWICE]
)
def test_twice_at_once(begun: Callable[[str], tuple[Bay, dict[str, str]]], stage: str) -> None:
    """One run stops there, another goes by it to the end: the first gives way when it goes on, to one commit."""
    flow, stops_at = TWICE[stage]
    bay, properties = begun(flow)
    doing = Doing(flow, properties, bay.lake.identifier)
    with Lone(Rival(doing, stops_at=stops_at)) as slow:
        slow.stopped()
        with Lone(Rival(doing)) as fast:
            assert fast.ended() == ""
        slow.go_on()
        assert slow.ended() in ({""} if stage in NOTHING_LEFT else {"CommitConflictError", "TakenError"})
    FLOWS[flow].does(bay.lake)
    holds(bay)


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param(stage, marks=[pytest.mark.full] * (stage in LATER_TWICE))
        for stage in ("upload part", "upload complete")
    ],
)
def test_an_upload_that_another_run_aborts(
    begun: Callable[[str], tuple[Bay, dict[str, str]]], seaweed: SeaweedServer, stage: str
) -> None:
    """Its request is late, and the other run ends meanwhile: the first gives way, and leaves no file and no upload."""
    struck = STAGES[stage]
    bay, properties = begun(struck.flow)
    with FaultServer(seaweed.endpoint) as server:
        late = server.add(Fault(effect=Effect.HOLD, verb=struck.verb, path=struck.path))
        doing = Doing(struck.flow, {**properties, **PATIENT, "s3.endpoint": server.endpoint}, bay.lake.identifier)
        with Lone(Rival(doing)) as slow:
            late.wait_held(timeout_s=WITHIN_S)
            with Lone(Rival(replace(doing, catalog=properties))) as fast:
                assert fast.ended() == ""
            late.release()
            assert slow.ended() == "CommitConflictError"
        assert [each for each in server.exchanges if each.fault and each.upstream_status == HTTPStatus.NOT_FOUND]
    FLOWS[struck.flow].does(bay.lake)
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

"""Commits to a real REST catalog that land and are answered wrongly, at every try: cases, and their making."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from lakehouse_pipeline.backfill.attempts import HourInHand
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.iceberg import commit
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.retry import RetryPolicy
from lakehouse_pipeline.testing.asked import Dialect
from lakehouse_pipeline.testing.faults import FaultServer
from lakehouse_pipeline.testing.schedule import Effect, Fault
from tests.backfill.hands import sealed
from tests.iceberg.lake import ELEVEN, TEN, TWELVE, Lake, events

TRIES = 3
ROWS = {TEN.key: [1, 2], ELEVEN.key: [9], TWELVE.key: [7]}  # of every case's table, once its commit is through


@dataclass(frozen=True)
class Answered:
    """One case.

    Attributes:
        effect: what the client sees of the commit that lands, and of those before it, which do not.
        place: which try lands, from 0; None: any, and all are answered so.
    """

    effect: Effect
    place: int | None

    def faults(self) -> Iterator[Fault]:
        """Give what the fault server has to do."""
        if self.place:
            yield Fault(effect=self.effect, verb="updateTable", times=self.place)
        landed = self.effect is not Effect.CUT  # which always does
        yield Fault(effect=self.effect, verb="updateTable", landed=landed, times=None if self.place is None else 1)


EFFECTS = {
    "409": Effect.CONFLICT,
    "500": Effect.INTERNAL_ERROR,
    "reset": Effect.RESET,
}
PLACES = {"first": 0, "second": 1, "last": TRIES - 1, "every": None}
CASES = {
    **{f"{name}-{at}": Answered(effect, place) for name, effect in EFFECTS.items() for at, place in PLACES.items()},
    "half an answer-first": Answered(Effect.CUT, 0),
    "half an answer-every": Answered(Effect.CUT, None),
}


@contextmanager
def tries() -> Iterator[None]:
    """Let commits be tried so often, at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commit, "COMMIT_RETRIES", RetryPolicy(tries=TRIES, min_wait_s=0, max_wait_s=0))
        yield


@dataclass
class Answers:
    """A table of a case: hours of one manifest, and an attempt of one of them that waits for its commit.

    Attributes:
        server: the fault server before the catalog.
        lake: the table, through it.
        hand: sealed.
    """

    server: FaultServer
    lake: Lake
    hand: HourInHand

    def commit(self, case: Answered) -> HourInHand:
        """Commit it, answered as the case says."""
        self.server.clear()
        for fault in case.faults():
            self.server.add(fault)
        with tries():
            self.hand.commit()
        return self.hand

    @property
    def sent(self) -> int:
        """Tell how many commits were sent since."""
        return sum(said.verb == "updateTable" for said in self.server.exchanges)


def silence_after_landing(server: FaultServer) -> None:
    """Let the next commit land and, from then on, nothing about the table be answered."""
    server.add(Fault(effect=Effect.RESET, verb="updateTable", landed=True))
    server.add(Fault(effect=Effect.RESET, verb="loadTable", times=None, after=1))  # one precedes the commit


@contextmanager
def fault_server(seaweed: SeaweedServer) -> Iterator[FaultServer]:
    """Run a fault server before the catalog."""
    with FaultServer(seaweed.catalog_uri, dialect=Dialect.ICEBERG) as server:
        yield server


@contextmanager
def answers(seaweed: SeaweedServer, server: FaultServer) -> Iterator[Answers]:
    """Make a table whose commits go through a fault server."""
    server.clear()
    with open_catalog(seaweed.catalog_properties() | {"uri": server.endpoint}) as catalog:
        lake = Lake.create(catalog)
        lake.append(events(TEN, [0]), events(ELEVEN, [9]))
        lake.put(TWELVE, [7])
        yield Answers(server, lake, sealed(lake, TEN, [1, 2]))

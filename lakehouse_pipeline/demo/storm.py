"""The demo's storm: a fault server before S3 while the hours run, and what it did and cost, counted.

It throttles as S3 does, at a rate that a laptop exceeds, and spoils a few per cent of requests beside that; luck is
seeded. The catalog has fair weather, and so has whoever reads the table afterwards.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill.hour_result import HourResult
from lakehouse_pipeline.config.lakehouse import Lakehouse
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.object_store.counts import NO_REQUESTS, RequestCounts
from lakehouse_pipeline.planning.s3_scaling import Scaling
from lakehouse_pipeline.testing.exchanges import THROTTLED, Exchange
from lakehouse_pipeline.testing.faults import FaultServer
from lakehouse_pipeline.testing.schedule import Effect, Fault

WRITES_PER_S = 6.0  # S3 takes 3,500; one hour of the demo writes a dozen objects within half a second
SEED = 2013
TIMEOUT_S = 3  # for an answer, in place of 60: some never come
FAULTS = (
    Fault(effect=Effect.SLOW_DOWN, probability=0.015, times=None),
    Fault(effect=Effect.INTERNAL_ERROR, probability=0.008, times=None),
    Fault(effect=Effect.INTERNAL_ERROR, probability=0.008, times=None, landed=True),
    Fault(effect=Effect.RESET, probability=0.008, times=None),
    Fault(effect=Effect.RESET, probability=0.008, times=None, landed=True),
    Fault(effect=Effect.SILENCE, probability=0.002, times=None, landed=True),
)

Count = Callable[[Exchange], bool]
KINDS: dict[str, Count] = {
    "503 above the limit": lambda each: each.fault == THROTTLED,
    "503 at random": lambda each: each.fault == Effect.SLOW_DOWN,
    "500": lambda each: each.fault == Effect.INTERNAL_ERROR,
    "reset": lambda each: each.fault == Effect.RESET,
    "no answer": lambda each: each.fault == Effect.SILENCE,
}


class Storm:
    """A storm for as long as its `with` block, and what is known of it afterwards.

    Attributes:
        lakehouse: the one to run meanwhile.
        log: takes a JSON line a request.
    """

    def __init__(self, lakehouse: Lakehouse, log: Path) -> None:
        """Describe the storm before a lakehouse's S3; nothing is started."""
        self._quiet = lakehouse
        self.log = log
        self._server = FaultServer(
            lakehouse.catalog["s3.endpoint"],
            faults=FAULTS,
            seed=SEED,
            scaling=Scaling(write_rate=WRITES_PER_S, detect_s=None),
            log_file=log,
        )
        self._within = ExitStack()
        self._hours = Counter[str]()
        self._requests: RequestCounts = NO_REQUESTS

    @property
    def lakehouse(self) -> Lakehouse:
        """The lakehouse, whose S3 is the fault server while that runs."""
        weather = {"s3.endpoint": self._server.endpoint, "s3.request-timeout": str(TIMEOUT_S)}
        return self._quiet.model_copy(update={"catalog": {**self._quiet.catalog, **weather}})

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """What the fault server did."""
        return self._server.exchanges

    def __enter__(self) -> Self:
        """Begin."""
        self.log.unlink(missing_ok=True)
        self._within.enter_context(self._server)
        self._within.enter_context(events.subscribed(self._heard))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self._within.close()

    def told(self, table: HourlyTable) -> list[str]:
        """Say what the storm did and what it cost; the table's folders are compared with what its snapshots reach."""
        asked = self.exchanges
        did = {name: sum(map(counts, asked)) for name, counts in KINDS.items()}
        landed = sum(each.fault not in (None, THROTTLED) and each.upstream_status is not None for each in asked)
        spoiled = sum(did.values())
        strays, waited = table.strays(), self._requests.rate_wait_s + self._requests.retry_wait_s
        what = f"{spoiled} of {len(asked)} requests went wrong, {landed} of them after they had their effect"
        cost = f"{self._requests.retries} requests sent again, and {waited:.0f} s of waiting"
        return [
            f"\nThe storm, as the fault server counted it: {what}:\n",
            *(f"  {count:>5}  {name}" for name, count in did.items()),
            f"\nWhat it cost: {cost}. Hours failed: {self._hours['hour.failed']}. Files left over: {len(strays)}.",
            *(f"  {item.url}" for item in strays),
            f"The fault server's log, a line a request: {self.log}",
        ]

    def _heard(self, event: events.Event) -> None:
        self._hours[event.name] += event.name in {"hour.finished", "hour.failed"}
        if event.name == "hour.finished":
            result = event.fields["result"]
            assert isinstance(result, HourResult)  # noqa: S101  # the event's contract
            self._requests += result.requests

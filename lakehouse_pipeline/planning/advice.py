"""Advice for a backfill: how many hours in flight, how they begin and how much patience, each setting simulated.

Hours that begin together write together, in every round: spread over the time that one takes, as many hours meet a
fraction of the 503s. So where there are any, the first of them begin one after the other, evenly; if that is better.

Pure: what a table needs comes in as numbers; a planner reads them from its spec and its ledger.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from lakehouse_pipeline.planning.clients import OURS, S3_FILE_IO, Client
from lakehouse_pipeline.planning.layouts import BASE_2, BASE_64, BY_HOUR, Layout
from lakehouse_pipeline.planning.s3_scaling import Scaling
from lakehouse_pipeline.planning.simulation import Minute, Simulation
from lakehouse_pipeline.planning.simulator import simulate
from lakehouse_pipeline.planning.units import show_bytes
from lakehouse_pipeline.planning.workloads import Backfill, Job

MOST_IN_FLIGHT = 64
WORTH_IT = 4 / 3  # times as fast, at least, that twice the hours in flight have to be
MOST_503_SHARE = 0.05  # of requests, that a recommended setting may meet
WRITE_SHARE = 0.4  # of an hour's ETL: 12.5 of 30 minutes in the public report of a base-2 backfill (docs/amazon-ads.md)
COMPUTE_SPREAD = 0.1  # standard deviation of the logarithm of hours' computing; ours: no two hours are alike
WRITER_ASKS_PER_S = 2.0  # requests of one writer: a file of a dozen MB encoded and sent within half a second
PLACES, STEP_S = 24, 2.0  # of a simulation: more hours in flight are simulated by weight
FEW_503S = 1e-3  # share of requests below which hours may as well begin at once
OPERATOR_DELAY_S = 1_800.0  # until somebody runs a failed job again, with a client that does not resume; ours
PUT_DOLLARS = 0.005 / 1_000  # S3 Standard, us-east-1, 2026-11: https://aws.amazon.com/s3/pricing/
SPREAD = 4.0  # standard deviations of a request's waits that it is given time for
LOSS = 1e-3  # requests out of tries that a retry budget may cost a whole backfill
ROOM = 0.75  # of one range's capacity that a single hour may ask for, before its files are made larger
MOST_FILE_BYTES = 1 << 30  # readers gain nothing from larger files
FEWER_WRITES = 0.9  # as many, at most, that files twice as large have to ask for: those in parts save little


@dataclass(frozen=True)
class Load:
    """What one table's backfill asks for.

    Attributes:
        hours: to fill.
        files: data files of an hour.
        bytes_: of an hour.
        etl_s: seconds that an hour takes by itself.
        layout: of the keys.
        multipart_from: bytes from which a file is uploaded in parts.
        part_bytes: of such a part.
    """

    hours: int
    files: int
    bytes_: float
    etl_s: float
    layout: Layout = BASE_2
    multipart_from: float = math.inf
    part_bytes: float = math.inf

    @property
    def file_bytes(self) -> float:
        """Give the bytes of a file."""
        return self.bytes_ / self.files

    @property
    def requests_per_file(self) -> int:
        """Give 1 for a PUT; else one for each part, and two to begin and to complete the upload."""
        return 1 if self.file_bytes < self.multipart_from else 2 + max(1, math.ceil(self.file_bytes / self.part_bytes))

    @property
    def writes_per_s(self) -> float:
        """Give the writes a second of one hour while it writes."""
        return self.files * self.requests_per_file / (WRITE_SHARE * self.etl_s)

    def in_files_of(self, file_bytes: float) -> "Load":
        """Give the same bytes in files of another size."""
        return replace(self, files=max(1, math.ceil(self.bytes_ / file_bytes)))

    def job(self) -> Job:
        """Give one hour."""
        return Job(
            files=self.files,
            file_bytes=self.file_bytes,
            requests_per_file=self.requests_per_file,
            compute_s=(1 - WRITE_SHARE) * self.etl_s,
            compute_spread=COMPUTE_SPREAD,
            writes_per_s=self.writes_per_s,
            writers=max(1, math.ceil(self.writes_per_s / WRITER_ASKS_PER_S)),
        )


@dataclass(frozen=True)
class Setting:
    """One number of hours in flight, and what it would come to.

    Attributes:
        in_flight: hours at once.
        apart_s: seconds between the begins of the first of them.
        predicted: hours, requests, 503s, orphan bytes and the rest.
    """

    in_flight: int
    apart_s: float
    predicted: Simulation

    @property
    def is_calm(self) -> bool:
        """Tell whether it meets as few 503s as a recommended setting may."""
        return self.predicted.throttle_share <= MOST_503_SHARE


@dataclass(frozen=True)
class Alternative:
    """The recommended setting with one thing changed.

    Attributes:
        name: what is changed, for people.
        predicted: what it would come to.
    """

    name: str
    predicted: Simulation


@dataclass(frozen=True)
class Advice:
    """What to set, and beside which other settings.

    Attributes:
        in_flight: hours at once.
        apart_s: seconds between the begins of the first of them; 0 where it is no worse to begin at once.
        tries: of one request.
        retry_s: seconds of patience with one request.
        settings: those considered, by hours in flight; a quarter, the recommended one and four times as many are among
            them as far as there are so many hours.
        alternatives: the recommended number of hours in flight with other keys, another client, other files.
    """

    in_flight: int
    apart_s: float
    tries: int
    retry_s: float
    settings: tuple[Setting, ...]
    alternatives: tuple[Alternative, ...]

    @property
    def recommended(self) -> Setting:
        """Give the recommended setting."""
        return next(each for each in self.settings if each.in_flight == self.in_flight)


def advise(
    load: Load,
    *,
    client: Client = OURS,
    scaling: Scaling | None = None,
    most_in_flight: int = MOST_IN_FLIGHT,
    other_file_bytes: float | None = None,
    seed: int = 0,
) -> Advice:
    """Recommend the most hours in flight that are worth it.

    Twice as many have to be a third faster, with few 503s; between powers of two likewise. Where compute is the
    bottleneck that is never reached, and the answer is `most_in_flight`.

    Args:
        load: of the table.
        client: whose retries are used.
        scaling: of S3.
        most_in_flight: hours that the engine has room for: so many do not slow each other down.
        other_file_bytes: of files that are simulated beside those of the load.
        seed: of the simulations.
    """
    scaling = scaling or Scaling()
    most = min(most_in_flight, load.hours)
    found: dict[int, Setting] = {}

    def setting(in_flight: int) -> Setting:
        if in_flight not in found:
            # Beyond the engine's room hours share its cores: each takes as much longer as they are too many.
            slowed = replace(load, etl_s=load.etl_s * max(1.0, in_flight / most_in_flight))
            found[in_flight] = _setting(slowed, client, scaling, in_flight, seed)
        return found[in_flight]

    best = _best(setting, setting(1), _ladder(most))
    between = [count for count in (5 * best.in_flight // 4, 3 * best.in_flight // 2) if best.in_flight < count < most]
    best = _best(setting, best, between)
    for in_flight in (max(1, best.in_flight // 4), min(load.hours, 4 * best.in_flight)):
        setting(in_flight)
    settings = tuple(each for _, each in sorted(found.items()))
    tries, retry_s = retry_budget(client, best.predicted)
    alternatives = tuple(
        Alternative(
            name, _predicted(its_load, its_client, scaling, in_flight=best.in_flight, apart_s=best.apart_s, seed=seed)
        )
        for name, its_load, its_client in _changed(load, client, other_file_bytes)
    )
    return Advice(best.in_flight, best.apart_s, tries, retry_s, settings, alternatives)


def _best(setting: Callable[[int], Setting], best: Setting, counts: Iterable[int]) -> Setting:
    """Go up as long as more hours in flight are worth it."""
    for count in counts:
        more = setting(count)
        gain = best.predicted.hours / more.predicted.hours if more.predicted.hours else 1.0
        if gain < WORTH_IT ** math.log2(count / best.in_flight) or not more.is_calm:
            break
        best = more
    return best


def _setting(load: Load, client: Client, scaling: Scaling, in_flight: int, seed: int) -> Setting:
    """Simulate so many hours in flight, begun at once; and begun apart, if there is anything to gain by it."""

    def begun(apart_s: float) -> Setting:
        return Setting(
            in_flight, apart_s, _predicted(load, client, scaling, in_flight=in_flight, apart_s=apart_s, seed=seed)
        )

    at_once = begun(0.0)
    if in_flight == 1 or at_once.predicted.throttle_share <= FEW_503S:
        return at_once
    apart = begun(load.etl_s / in_flight)
    if apart.is_calm != at_once.is_calm:
        return apart if apart.is_calm else at_once
    return min(apart, at_once, key=lambda each: each.predicted.hours)


def _changed(load: Load, client: Client, file_bytes: float | None) -> Iterator[tuple[str, Load, Client]]:
    """Give what is simulated beside the recommended setting."""
    for layout in (BASE_2, BASE_64, BY_HOUR):
        if layout != load.layout:
            yield f"{layout.name} keys", replace(load, layout=layout), client
    yield f"{S3_FILE_IO.name}, no ledger", load, S3_FILE_IO
    if file_bytes is not None and (other := load.in_files_of(file_bytes)).files != load.files:
        yield f"files of {show_bytes(file_bytes)}", other, client


def roomy_file_bytes(load: Load, file_bytes: float, scaling: Scaling) -> float:
    """Give how large files should be: as meant, or larger, until one hour by itself leaves room in one range."""
    while load.in_files_of(file_bytes).writes_per_s > ROOM * scaling.write_rate:
        larger = 2 * file_bytes
        saved = load.in_files_of(larger).writes_per_s <= FEWER_WRITES * load.in_files_of(file_bytes).writes_per_s
        if larger > MOST_FILE_BYTES or not saved:
            break
        file_bytes = larger
    return file_bytes


def retry_budget(client: Client, predicted: Simulation) -> tuple[int, float]:
    """Give tries and seconds with which no request of the backfill should be lost, but no less than the client has.

    The worst minute counts as if it lasted: each try fails with its share of 503s.
    """
    shares = [each.throttled_per_s / (each.throttled_per_s + each.written_per_s) for each in _busy(predicted)]
    worst = min(0.99, max(shares, default=0.0))
    needed = math.log(LOSS / max(predicted.requests, 1)) / math.log(worst) if worst > 0 else 1
    tries = max(client.tries, math.ceil(needed))
    waits = replace(client, tries=tries, total_s=math.inf).waits_s()
    spread_s = math.sqrt(float((waits**2).sum()) / 3)  # each is drawn between none and twice its mean
    return tries, max(client.total_s if math.isfinite(client.total_s) else 0.0, float(waits.sum()) + SPREAD * spread_s)


def _busy(predicted: Simulation) -> list[Minute]:
    return [each for each in predicted.minutes if each.throttled_per_s > 0]


def _ladder(most: int) -> list[int]:
    """Give 2, 4, 8 and so on, and the most."""
    return [*(2**power for power in range(1, most.bit_length()) if 2**power < most), most] if most > 1 else []


def _predicted(
    load: Load, client: Client, scaling: Scaling, *, in_flight: int, apart_s: float, seed: int
) -> Simulation:
    backfill = Backfill(
        load.hours,
        in_flight,
        load.job(),
        stagger_s=apart_s * in_flight,
        operator_delay_s=0.0 if client.resumes else OPERATOR_DELAY_S,
    )
    weight = max(1, round(in_flight / PLACES))
    return simulate(backfill, client, load.layout, scaling, seed, step_s=STEP_S, weight=weight)

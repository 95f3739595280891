"""Advice for a backfill: how many hours in flight, which first wave and how much patience, each setting simulated.

Pure: what a table needs comes in as numbers; a planner reads them from its spec and its ledger.
"""

import math
from dataclasses import dataclass, replace

from lakehouse_pipeline.planning.clients import OURS, Client, Ramp
from lakehouse_pipeline.planning.layouts import BASE_2, Layout
from lakehouse_pipeline.planning.s3_scaling import Scaling
from lakehouse_pipeline.planning.simulation import Minute, Simulation
from lakehouse_pipeline.planning.simulator import simulate
from lakehouse_pipeline.planning.workloads import Backfill, Job

MOST_IN_FLIGHT = 64
WORTH_IT = 4 / 3  # times as fast, at least, that twice the hours in flight have to be
MOST_503_SHARE = 0.05  # of requests, that a recommended setting may meet
WRITE_SHARE = 0.4  # of an hour's ETL: 12.5 of 30 minutes in the public report of a base-2 backfill (docs/amazon-ads.md)
WRITER_ASKS_PER_S = 2.0  # requests of one writer: a file of a dozen MB encoded and sent within half a second
PLACES, STEP_S = 24, 2.0  # of a simulation: more hours in flight are simulated by weight
LOSS = 1e-3  # requests out of tries that a retry budget may cost a whole backfill
FIRST_WAVE_SHARE = 0.75  # of one range's capacity that the first wave asks for


@dataclass(frozen=True)
class Load:
    """What one table's backfill asks for.

    Attributes:
        hours: to fill.
        files: data files of an hour.
        bytes_: of an hour.
        etl_s: seconds that an hour takes by itself.
        requests_per_file: 1, or 3 and more where files are uploaded in parts.
        layout: of the keys.
    """

    hours: int
    files: int
    bytes_: float
    etl_s: float
    requests_per_file: int = 1
    layout: Layout = BASE_2

    @property
    def writes_per_s(self) -> float:
        """Give the writes a second of one hour while it writes."""
        return self.files * self.requests_per_file / (WRITE_SHARE * self.etl_s)

    def job(self) -> Job:
        """Give one hour."""
        return Job(
            files=self.files,
            file_bytes=self.bytes_ / self.files,
            requests_per_file=self.requests_per_file,
            compute_s=(1 - WRITE_SHARE) * self.etl_s,
            writes_per_s=self.writes_per_s,
            writers=max(1, math.ceil(self.writes_per_s / WRITER_ASKS_PER_S)),
        )


@dataclass(frozen=True)
class Setting:
    """One number of hours in flight, and what it would come to.

    Attributes:
        in_flight: hours at once.
        predicted: hours, requests, 503s, orphan bytes and the rest.
    """

    in_flight: int
    predicted: Simulation


@dataclass(frozen=True)
class Advice:
    """What to set, and beside which other settings.

    Attributes:
        in_flight: hours at once.
        first_wave: how they begin; None: all at once, as they stay below one range's capacity.
        tries: of one request.
        retry_s: seconds of patience with one request.
        settings: those considered, by hours in flight; a quarter, the recommended one and four times as many are among
            them as far as there are so many hours.
    """

    in_flight: int
    first_wave: Ramp | None
    tries: int
    retry_s: float
    settings: tuple[Setting, ...]

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
    seed: int = 0,
) -> Advice:
    """Recommend the most hours in flight that are worth it.

    Twice as many have to be a third faster, with few 503s. Where compute is the bottleneck that is never reached, and
    the answer is `most_in_flight`.

    Args:
        load: of the table.
        client: whose retries are used.
        scaling: of S3.
        most_in_flight: hours that the engine has room for.
        seed: of the simulations.
    """
    scaling = scaling or Scaling()
    client = replace(client, ramp=first_wave(load, scaling))
    found: dict[int, Setting] = {}

    def setting(in_flight: int) -> Setting:
        if in_flight not in found:
            found[in_flight] = _predicted(load, client, scaling, in_flight, seed)
        return found[in_flight]

    best = setting(1)
    for in_flight in _ladder(min(most_in_flight, load.hours)):
        more = setting(in_flight)
        gain = best.predicted.hours / more.predicted.hours if more.predicted.hours else 1.0
        wanted = WORTH_IT ** math.log2(in_flight / best.in_flight)
        if gain < wanted or more.predicted.throttle_share > MOST_503_SHARE:
            break
        best = more
    for in_flight in (max(1, best.in_flight // 4), min(load.hours, 4 * best.in_flight)):
        setting(in_flight)
    settings = tuple(each for _, each in sorted(found.items()))
    tries, retry_s = retry_budget(client, best.predicted)
    wave = client.ramp if client.ramp and client.ramp.first < best.in_flight else None
    return Advice(best.in_flight, wave, tries, retry_s, settings)


def first_wave(load: Load, scaling: Scaling) -> Ramp:
    """Begin with as many hours as one range takes, and double while there are few 503s."""
    return Ramp(first=max(1, int(FIRST_WAVE_SHARE * scaling.write_rate / load.writes_per_s)))


def retry_budget(client: Client, predicted: Simulation) -> tuple[int, float]:
    """Give tries and seconds with which no request of the backfill should be lost, but no less than the client has.

    The worst minute counts as if it lasted: each try fails with its share of 503s.
    """
    shares = [each.throttled_per_s / (each.throttled_per_s + each.written_per_s) for each in _busy(predicted)]
    worst = min(0.99, max(shares, default=0.0))
    needed = math.log(LOSS / max(predicted.requests, 1)) / math.log(worst) if worst > 0 else 1
    tries = max(client.tries, math.ceil(needed))
    waits_s = float(replace(client, tries=tries, total_s=math.inf).waits_s().sum())
    return tries, max(client.total_s if math.isfinite(client.total_s) else 0.0, waits_s)


def _busy(predicted: Simulation) -> list[Minute]:
    return [each for each in predicted.minutes if each.throttled_per_s > 0]


def _ladder(most: int) -> list[int]:
    """Give 2, 4, 8 and so on, and the most."""
    return [*(2**power for power in range(1, most.bit_length()) if 2**power < most), most] if most > 1 else []


def _predicted(load: Load, client: Client, scaling: Scaling, in_flight: int, seed: int) -> Setting:
    backfill = Backfill(load.hours, in_flight, load.job())
    weight = max(1, round(in_flight / PLACES))
    found = simulate(backfill, client, load.layout, scaling, seed, step_s=STEP_S, weight=weight)
    return Setting(in_flight, found)

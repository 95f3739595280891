"""The simulator: a backfill against S3's request scaling, by the second where 503s matter and by events elsewhere.

Flows are expected values, so 45 million files cost what a thousand do; what ends a job is drawn, by seed. Time in which
no range is hot and nobody waits is passed in one step, up to whatever ends first.
"""

from dataclasses import replace

import numpy as np

from lakehouse_pipeline.planning.clients import Client
from lakehouse_pipeline.planning.fluid_ranges import Floats, FluidRanges
from lakehouse_pipeline.planning.fluid_requests import FluidRequests
from lakehouse_pipeline.planning.layouts import BASE_2, Layout
from lakehouse_pipeline.planning.running_jobs import RunningJobs
from lakehouse_pipeline.planning.s3_scaling import Scaling
from lakehouse_pipeline.planning.simulation import Minute, Simulation
from lakehouse_pipeline.planning.workloads import Backfill, Job

STEP_S = 1.0
STEPS_A_JOB = 60  # at least: jobs of a few seconds need shorter steps
FINER = 4  # times shorter than asked for, at most, where requests and waits are short: else too few 503s are counted
LEAST_STEP_S = 1e-3
MOST_STEPS = 500_000  # some days of storm: a backfill that does not end is an answer, too
MINUTE_S, HOUR_S = 60.0, 3600.0
STORM_SHARE = 0.99  # of all 503s, after which a storm is over


def simulate(
    backfill: Backfill,
    client: Client,
    layout: Layout = BASE_2,
    scaling: Scaling | None = None,
    seed: int = 0,
    *,
    step_s: float = STEP_S,
    weight: int = 1,
) -> Simulation:
    """Run a backfill in the model.

    Args:
        backfill: jobs, and what they write.
        client: how they take a 503.
        layout: of their keys.
        scaling: of S3; the default parameters unless given.
        seed: of all chance: equal arguments give equal results.
        step_s: seconds of a step while there are 503s, less for short jobs; 2 is good enough for a plan.
        weight: jobs that each simulated one stands for, against a store that is smaller by as much: many jobs in
            flight at the price of few.
    """
    scaling = scaling or Scaling()
    if weight == 1:
        return _Run(backfill, client, layout, scaling, seed=seed, step_s=step_s).run()
    few = replace(backfill, jobs=-(-backfill.jobs // weight), in_flight=-(-backfill.in_flight // weight))
    abreast = backfill.in_flight / few.in_flight
    small = replace(scaling, write_rate=scaling.write_rate / abreast)
    found = _Run(few, client, layout, small, seed=seed, step_s=step_s).run()
    return found.times(backfill.jobs / few.jobs, abreast)


def _step_s(job: Job, client: Client, scaling: Scaling, step_s: float) -> float:
    """Shorten a step to what happens in it: a writer's request, a first wait, a sixtieth of a job."""
    first_waits = [] if client.paced else [float(each) for each in client.waits_s()[:1]]
    moments = [job.writers / job.writes_per_s, *first_waits]
    wanted = max(step_s / FINER, min(step_s, *moments))
    return max(LEAST_STEP_S, min(wanted, job.seconds / STEPS_A_JOB, scaling.heat_window_s))


class _Run:
    def __init__(
        self, backfill: Backfill, client: Client, layout: Layout, scaling: Scaling, *, seed: int, step_s: float
    ) -> None:
        rng = np.random.default_rng(seed)
        self._step_s = _step_s(backfill.job, client, scaling, step_s)
        self._backfill, self._client = backfill, client
        self._jobs = RunningJobs(backfill, client, rng)
        self._ranges = FluidRanges(scaling, layout, self._step_s, rng)
        places = len(self._jobs.phase)
        self._requests = FluidRequests(client, backfill.job, self._ranges, places=places, step_s=self._step_s, rng=rng)
        self._course = _Course()
        self._now = 0.0

    def run(self) -> Simulation:
        for _ in range(MOST_STEPS):
            for place in self._jobs.begin(self._now):
                self._requests.clear(place)
            if self._jobs.over:
                break
            left = self._jobs.writing_left
            steady = self._requests.steady(left)
            steps = self._calm_steps(steady) if steady is not None else 0
            if steady is not None and steps > 1:
                self._pass_calm(steady, steps)
            else:
                self._pass_step(left)
        return self._found()

    def _calm_steps(self, steady: Floats) -> int:
        """Give for how many steps everything goes on as it is."""
        if (most := self._ranges.calm_steps(steady.sum() * self._ranges.shares)) < 1:
            return 0
        events_s = [self._jobs.next_event_s(steady, self._step_s)]
        if (self._jobs.phase == 0).any():
            events_s.append(max(0.0, self._jobs.begins_in - self._now))
        found = min(most, min(events_s) // self._step_s)
        return int(found) if np.isfinite(found) else 0

    def _pass_calm(self, steady: Floats, steps: int) -> None:
        seconds = steps * self._step_s
        self._now += seconds
        self._ranges.pass_calm(steady.sum() * self._ranges.shares, steps)
        self._end_step(steady * steps, np.zeros_like(steady), 0.0, seconds)

    def _pass_step(self, left: Floats) -> None:
        self._now += self._step_s
        flow = self._requests.step(left, self._now)
        for split in self._ranges.pass_step(flow.offered):
            self._requests.split(split)
        self._end_step(flow.succeeded, flow.dead, float(flow.throttled.sum()), self._step_s)

    def _end_step(self, succeeded: Floats, dead: Floats, throttled: float, seconds: float) -> None:
        self._course.add(self._now, float(succeeded.sum()), throttled, len(self._ranges.prefixes))
        for place in self._jobs.answer(succeeded, dead, self._now):
            self._requests.clear(place)
        for place in self._jobs.pass_time(seconds, self._now):
            self._requests.clear(place)

    def _found(self) -> Simulation:
        tally, course = self._jobs.tally, self._course
        minutes = course.minutes()
        succeeded, throttled = course.totals()
        succeeded += tally.rest
        return Simulation(
            hours=self._now / HOUR_S,
            requests=succeeded + throttled,
            succeeded=succeeded,
            throttles=throttled,
            jobs_done=tally.done,
            jobs_rerun=self._jobs.reruns,
            operator_reruns=tally.operator_reruns,
            jobs_given_up=tally.given_up,
            tasks_failed=tally.tasks_failed,
            files_written=tally.files_written,
            files_lost=tally.files_lost,
            orphan_bytes=0.0 if self._client.ledger else tally.lost_bytes,
            table_bytes=tally.files_written * self._backfill.job.file_bytes,
            storm_hours=course.storm_s() / HOUR_S,
            peak_writes_per_s=max((minute.written_per_s for minute in minutes), default=0.0),
            ranges=len(self._ranges.prefixes),
            minutes=minutes,
        )


class _Course:
    """Running totals at the end of each step."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, float, float, int]] = [(0.0, 0.0, 0.0, 1)]

    def add(self, now: float, succeeded: float, throttled: float, ranges: int) -> None:
        _, before, refused, _ = self._seen[-1]
        self._seen.append((now, before + succeeded, refused + throttled, ranges))

    def totals(self) -> tuple[float, float]:
        """Give what succeeded and what was throttled."""
        return self._seen[-1][1], self._seen[-1][2]

    def storm_s(self) -> float:
        """Give when nearly all 503s had come."""
        seen = np.array(self._seen)
        total = seen[-1, 2]
        return float(seen[np.searchsorted(seen[:, 2], STORM_SHARE * total), 0]) if total >= 1 else 0.0

    def minutes(self) -> tuple[Minute, ...]:
        """Give the minutes; what a long step brought is spread over it evenly."""
        seen = np.array(self._seen)
        edges = np.arange(0.0, seen[-1, 0] + MINUTE_S, MINUTE_S)
        succeeded, throttled = (np.diff(np.interp(edges, seen[:, 0], seen[:, column])) for column in (1, 2))
        ranges = seen[np.minimum(np.searchsorted(seen[:, 0], edges[1:], side="right"), len(seen)) - 1, 3]
        return tuple(
            Minute(float(refused) / MINUTE_S, float(taken) / MINUTE_S, int(count))
            for taken, refused, count in zip(succeeded, throttled, ranges, strict=True)
        )

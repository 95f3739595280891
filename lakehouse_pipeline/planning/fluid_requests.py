"""Write requests on their way, as a flow: of each job in flight, by failed tries and by the range that they ask.

Single requests do not matter here but where they end a task: those flows are given as they are, however small, and the
simulator draws from them. Writers take turns as people in a closed loop: one that waits for its next try sends nothing.
"""

from dataclasses import dataclass

import numpy as np

from lakehouse_pipeline.object_store.pace import Pace, Window
from lakehouse_pipeline.object_store.rate import BEGIN_AFTER, WINDOW_S
from lakehouse_pipeline.planning.clients import Client
from lakehouse_pipeline.planning.fluid_ranges import Floats, FluidRanges, Split
from lakehouse_pipeline.planning.workloads import Job

ROUNDS = 12  # of the search for a step's share of requests that get stuck: to 1 in 4,096
TINY = 1e-9


@dataclass(frozen=True)
class Flow:
    """What a step has brought.

    Attributes:
        succeeded: requests, by job.
        throttled: requests, by job.
        dead: requests out of tries, by job.
        offered: writes, by range.
    """

    succeeded: Floats
    throttled: Floats
    dead: Floats
    offered: Floats


@dataclass(frozen=True)
class _Met:
    """How the requests of a step fare.

    Attributes:
        fresh: new ones, by job and range.
        wanted: all, by range.
        sent: share that rate control lets pass, by range.
        succeed: share that is sent and taken, by range.
    """

    fresh: Floats
    wanted: Floats
    sent: Floats
    succeed: Floats


class FluidRequests:
    """The writers of all jobs in flight, under one policy."""

    def __init__(
        self,
        client: Client,
        job: Job,
        ranges: FluidRanges,
        *,
        places: int,
        step_s: float,
        rng: np.random.Generator,
    ) -> None:
        """Begin with nobody who waits.

        Args:
            client: the policy.
            job: each of them.
            ranges: of keys.
            places: jobs in flight at most.
            step_s: seconds of a step.
            rng: draws when rate control begins.
        """
        self._client, self._job, self._ranges, self._step_s, self._rng = client, job, ranges, step_s, rng
        waits = client.waits_s()
        leaves = 1 - np.exp(-step_s / np.maximum(waits, TINY))  # waits are taken as memoryless, with their true means
        self._leaves = np.concatenate([[1.0], leaves])[:, None]  # those without a failed try wait for the pace alone
        self._asks = job.writes_per_s / job.writers * step_s  # requests of a writer in a step, if none is throttled
        self.waiting: Floats = np.zeros((places, len(leaves) + 1, 1))  # by job, failed tries, range
        self._quota: Floats = np.full(places, client.quota or 0.0)  # tokens of each process of a job
        self._paces: list[Pace | None] = [None] * (0 if not client.paced else ranges.lanes().shape[0])
        self._lanes = ranges.lanes() if client.paced else np.zeros((0, 1))
        self._windows = _Windows(len(self._paces))
        self._processes = 1.0

    def clear(self, place: int) -> None:
        """Forget a job's requests: it has ended, or another one begins there."""
        self.waiting[place] = 0.0
        self._quota[place] = self._client.quota or 0.0

    def split(self, split: Split) -> None:
        """Share out who waits at a range that has become two."""
        moved = self.waiting[:, :, split.parent] * split.moved
        self.waiting[:, :, split.parent] -= moved
        self.waiting = np.concatenate([self.waiting, moved[:, :, None]], axis=2)
        if self._client.paced:
            self._lanes = self._ranges.lanes()

    def steady(self, left: Floats) -> Floats | None:
        """Give the requests of each job and step while none is throttled; None: some are waiting."""
        if self.waiting.max() > TINY:
            return None
        return np.where(left > 0, self._job.writers * self._asks, 0.0)

    def step(self, left: Floats, now: float) -> Flow:
        """Send a step's requests.

        Args:
            left: requests that each job has not had an answer to; 0 for one that does not write.
            now: seconds, at the end of the step.
        """
        waiting = self.waiting.sum((1, 2))
        ready = np.maximum(0.0, np.where(left > 0, self._job.writers, 0.0) - waiting)
        due = self.waiting[:, : self._depth()] * self._leaves[: self._depth()]
        met = self._met(ready, np.maximum(0.0, left - waiting), due.sum((0, 1)))
        self._ranges.take(met.wanted * met.sent)
        flow = self._answered(due, met)
        self._windows.add(self._lanes, self._ranges.shares, met, self._step_s)
        self._pace(ready + waiting, now)
        return flow

    def _depth(self) -> int:
        """Give how many of the tries are in use: the others would be multiplied in vain."""
        used = np.flatnonzero(self.waiting.max((0, 2)) > TINY)
        return int(used[-1]) + 1 if len(used) else 1

    def _met(self, ready: Floats, most: Floats, due: Floats) -> "_Met":
        """Find how many new requests are sent in a step, given that those who are refused send no more in it.

        Args:
            ready: writers that do not wait, by job.
            most: requests that nobody has sent yet, by job.
            due: tries whose wait is over, by range.
        """
        shares, room = self._ranges.shares, self._ranges.room
        least, greatest = 0.0, 1.0  # share of new requests that get stuck; what is assumed has to come out
        for _ in range(ROUNDS):
            stuck = (least + greatest) / 2
            fresh = np.minimum(most, ready * self._asks * _turnover(self._asks * stuck))
            wanted = due + fresh.sum() * shares
            sent = self._sent_share(wanted)
            taken = np.minimum(wanted * sent, room)
            succeed = np.divide(taken, wanted, out=np.ones_like(taken), where=wanted > TINY)
            if 1 - succeed @ shares > stuck:
                least = stuck
            else:
                greatest = stuck
        return _Met(fresh[:, None] * shares, wanted, sent, succeed)

    def _answered(self, due: Floats, met: "_Met") -> Flow:
        """Move every request to where its answer sends it."""
        depth, last = due.shape[1], len(self._leaves) - 1
        refuse = np.maximum(0.0, met.sent - met.succeed)
        throttled = due * refuse
        throttled[:, 0] += met.fresh * refuse
        self.waiting[:, :depth] -= due * met.sent
        self.waiting[:, 0] += met.fresh * (1 - met.sent)
        first, retried = met.fresh @ met.succeed, (due[:, 1:] @ met.succeed).sum(1)
        refused = throttled.sum((1, 2))
        dead = throttled[:, last].sum(1) if depth > last else np.zeros(len(refused))
        again = throttled[:, :last]
        if self._client.quota is not None:
            allowed = self._affordable(refused - dead, retried, first)
            dead += (refused - dead) * (1 - allowed)
            again = again * allowed[:, None, None]
        self.waiting[:, 1 : again.shape[1] + 1] += again
        return Flow(first + retried + due[:, 0] @ met.succeed, refused, dead, met.wanted * met.sent)

    def _affordable(self, retries: Floats, retried: Floats, first: Floats) -> Floats:
        """Pay for retries from the quota of each process, and give the share that could be paid."""
        processes = self._job.writers / self._client.writers_per_process
        cost = self._client.quota_cost * retries / processes
        share = np.minimum(1.0, np.divide(self._quota, cost, out=np.ones_like(cost), where=cost > TINY))
        refund = (self._client.quota_cost * retried + first) / processes
        self._quota = np.minimum(self._client.quota or 0.0, self._quota - cost * share + refund)
        return share

    def _sent_share(self, wanted: Floats) -> Floats:
        """Give the share that rate control lets pass, by range."""
        if not any(self._paces):
            return np.ones_like(wanted)
        shares = self._ranges.shares
        asked = self._lanes @ np.divide(wanted, shares, out=np.zeros_like(wanted), where=shares > 0)
        limits = np.array([each.per_s * self._processes * self._step_s if each else np.inf for each in self._paces])
        passed = np.minimum(1.0, np.divide(limits, asked, out=np.ones_like(asked), where=asked > TINY))
        return np.asarray(np.divide(passed @ self._lanes, shares, out=np.ones_like(wanted), where=shares > 0))

    def _pace(self, writers: Floats, now: float) -> None:
        """Judge the windows: every process is taken to see the mean of all."""
        self._processes = max(1.0, float(writers.sum()) / self._client.writers_per_process)
        if not self._paces or self._windows.span_s < WINDOW_S:
            return
        for lane, window in enumerate(self._windows.close(now, self._processes)):
            pace = self._paces[lane]
            if pace:
                pace.judge(window)
                self._paces[lane] = None if pace.is_over(now) else pace
            elif self._begins(window):
                self._paces[lane] = Pace(window)

    def _begins(self, window: Window) -> bool:
        share = min(window.throttled, 1 - TINY)
        throttles = window.admitted_per_s * share / (1 - share) * WINDOW_S
        return bool(self._rng.poisson(throttles) >= BEGIN_AFTER)


class _Windows:
    """What is seen of each lane since the last judgement."""

    def __init__(self, lanes: int) -> None:
        self._seen: Floats = np.zeros((3, lanes))  # wanted, sent, refused
        self.span_s = 0.0

    def add(self, lanes: Floats, shares: Floats, met: _Met, step_s: float) -> None:
        if not lanes.size:
            return
        seen = met.wanted * np.array([np.ones_like(met.sent), met.sent, met.sent - met.succeed])
        self._seen += np.divide(seen, shares, out=np.zeros_like(seen), where=shares > 0) @ lanes.T
        self.span_s += step_s

    def close(self, now: float, processes: float) -> list[Window]:
        wanted, sent, refused = self._seen
        found = [
            Window(
                now,
                (sent[lane] - refused[lane]) / self.span_s / processes,
                min(1.0, refused[lane] / max(sent[lane], TINY)) if refused[lane] > TINY * sent[lane] else 0.0,
                bool(sent[lane] < wanted[lane] * (1 - TINY)),
            )
            for lane in range(len(wanted))
        ]
        self._seen[:] = 0.0
        self.span_s = 0.0
        return found


def _turnover(exposed: float) -> float:
    """Give the mean share of a step that a writer is not stuck, if it gets stuck at this rate."""
    return float(-np.expm1(-exposed) / exposed) if exposed > TINY else 1.0

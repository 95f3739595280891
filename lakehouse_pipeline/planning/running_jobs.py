"""Jobs in flight: phases, tasks that fail and are run again, and which jobs wait for a place.

No request is sent here (`fluid_requests`), and no time passes but what the simulator says.
"""

import heapq
from dataclasses import dataclass

import numpy as np

from lakehouse_pipeline.planning.clients import Client
from lakehouse_pipeline.planning.fluid_ranges import Floats
from lakehouse_pipeline.planning.workloads import Backfill

IDLE, COMPUTE, WRITE, COMMIT = range(4)
DONE, DONE_SHARE = 0.5, 1e-3  # of a request, and of a job's: with less than either left, the last was answered


@dataclass
class Tally:
    """What has become of jobs, tasks and files."""

    done: int = 0
    given_up: int = 0
    operator_reruns: int = 0
    tasks_failed: float = 0.0
    rest: float = 0.0  # requests that were left when their job counted as done
    files_written: float = 0.0
    files_lost: float = 0.0
    lost_bytes: float = 0.0


class RunningJobs:
    """Places for jobs in flight, and the queue before them.

    Attributes:
        tally: so far.
        phase: of each place.
        rest_s: of a phase that does not write, by place.
        left: requests without an answer yet, by place and by how often their task has failed.
    """

    def __init__(self, backfill: Backfill, client: Client, rng: np.random.Generator) -> None:
        """Begin with every job in the queue, those of the first wave as they are staggered."""
        self._backfill, self._client, self._rng = backfill, client, rng
        job, places = backfill.job, min(backfill.in_flight, backfill.jobs)
        self.tally = Tally()
        self.phase = np.zeros(places, dtype=int)
        self._done_at = min(DONE, DONE_SHARE * job.requests)
        self.rest_s: Floats = np.zeros(places)
        self.left: Floats = np.zeros((places, job.task_failures))
        self._succeeded: Floats = np.zeros(places)  # requests of this run that were not lost since
        self._fails_in_s: Floats = np.full(places, np.inf)  # for a reason of its own
        self._number = np.zeros(places, dtype=int)
        self._runs = np.zeros(backfill.jobs, dtype=int)
        begins = np.linspace(0, backfill.stagger_s, places, endpoint=False)
        self._queue = [(float(begins[each]) if each < places else 0.0, each) for each in range(backfill.jobs)]
        heapq.heapify(self._queue)
        if backfill.stagger_s:
            later = [(max(at, float(begins[-1])) if each >= places else at, each) for at, each in self._queue]
            self._queue = sorted(later)

    @property
    def reruns(self) -> int:
        """Count the jobs that were run more than once."""
        return int((self._runs > 1).sum())

    @property
    def over(self) -> bool:
        """Tell whether nothing runs or waits."""
        return not self._queue and not self.phase.any()

    @property
    def begins_in(self) -> float:
        """Give when the next job may begin; infinite if none waits."""
        return self._queue[0][0] if self._queue else np.inf

    @property
    def writing_left(self) -> Floats:
        """Give the requests left of those that write, 0 for others."""
        return np.asarray(np.where(self.phase == WRITE, self.left.sum(1), 0.0))

    def begin(self, now: float) -> list[int]:
        """Begin jobs that are due as places are free. Gives their places."""
        begun = []
        while self._queue and self._queue[0][0] <= now and (self.phase == IDLE).any():
            place = int(np.flatnonzero(self.phase == IDLE)[0])
            self._begin(place, heapq.heappop(self._queue)[1])
            begun.append(place)
        return begun

    def _begin(self, place: int, number: int) -> None:
        job = self._backfill.job
        self._number[place], self.phase[place] = number, COMPUTE
        self._runs[number] += 1
        self.rest_s[place] = job.compute_s * self._rng.lognormal(0.0, job.compute_spread)
        self.left[place] = 0.0
        self.left[place, 0] = job.requests
        self._succeeded[place] = 0.0
        fails = self._rng.random() < self._backfill.failure_chance
        self._fails_in_s[place] = self._rng.uniform(0, job.seconds) if fails else np.inf

    def next_event_s(self, per_step: Floats, step_s: float) -> float:
        """Give seconds until a phase ends if so many requests of each job succeed by the step."""
        resting = np.where((self.phase == COMPUTE) | (self.phase == COMMIT), self.rest_s, np.inf)
        writing = np.divide(self.writing_left, per_step, out=np.full(len(per_step), np.inf), where=per_step > 0)
        failing = np.where(self.phase > IDLE, self._fails_in_s, np.inf)
        return float(min(resting.min(), writing.min() * step_s, failing.min()))

    def pass_time(self, seconds: float, now: float) -> list[int]:
        """Let time pass in all phases that do not write. Gives the places whose job has ended."""
        resting = (self.phase == COMPUTE) | (self.phase == COMMIT)
        self.rest_s[resting] -= seconds
        self._fails_in_s[self.phase > IDLE] -= seconds
        ended = []
        for place in np.flatnonzero(self.phase):
            if self._fails_in_s[place] <= 0:
                self._fail(int(place), now)
            elif self.phase[place] == COMMIT and self.rest_s[place] <= 0:
                self._done(int(place))
            elif self.phase[place] == COMPUTE and self.rest_s[place] <= 0:
                self.phase[place] = WRITE
            if self.phase[place] == IDLE:
                ended.append(int(place))
        return ended

    def answer(self, succeeded: Floats, dead: Floats, now: float) -> list[int]:
        """Take what a step has brought. Gives the places that write no more: their job failed by it, or has written."""
        total = self.left.sum(1)
        parts = np.divide(self.left, total[:, None], out=np.zeros_like(self.left), where=total[:, None] > 0)
        self._succeeded += succeeded
        self.left = np.maximum(0.0, self.left - succeeded[:, None] * parts)
        ended = []
        if dead.any():
            ended = self._tasks_failed(dead[:, None] * parts, now)
        for place in np.flatnonzero((self.phase == WRITE) & (self.left.sum(1) < self._done_at)):
            self.tally.rest += float(self.left[place].sum())
            self._succeeded[place] = self._backfill.job.requests
            ended.append(int(place))
            self.phase[place], self.rest_s[place] = COMMIT, self._backfill.job.commit_s
        return ended

    def _tasks_failed(self, dead: Floats, now: float) -> list[int]:
        """Send the tasks of dead requests back; one that has failed too often ends its job."""
        job = self._backfill.job
        task = job.files_per_task * job.requests_per_file
        done = np.minimum((task - 1) / 2, self._succeeded[:, None] / np.maximum(dead.sum(1)[:, None], DONE))
        last = dead.shape[1] - 1
        again = dead[:, :last]
        moved = np.minimum(self.left[:, :last], again * (task - done))
        self.left[:, 1:] += moved + again * done
        self.left[:, :last] -= moved
        lost = (again * done).sum(1)
        self._succeeded -= lost
        self.tally.tasks_failed += float(dead.sum())
        self._lose(float(lost.sum()))
        hazard = -np.expm1(-dead[:, last])
        dying = np.flatnonzero(hazard > 0)
        failed = [int(place) for place in dying[self._rng.random(len(dying)) < hazard[dying]]]
        for place in failed:
            self._fail(place, now)
        return failed

    def _lose(self, requests: float) -> None:
        files = requests / self._backfill.job.requests_per_file
        self.tally.files_lost += files
        self.tally.lost_bytes += files * self._backfill.job.file_bytes

    def _fail(self, place: int, now: float) -> None:
        if self.phase[place] == COMMIT and self._client.resumes:
            self.rest_s[place], self._fails_in_s[place] = self._backfill.job.commit_s, np.inf
            self._runs[self._number[place]] += 1
            return
        number = int(self._number[place])
        self._lose(float(self._succeeded[place]))
        self.phase[place] = IDLE
        if self._runs[number] >= self._backfill.most_runs:
            self.tally.given_up += 1
            return
        delay_s = 0.0
        if not self._client.resumes:
            delay_s = self._backfill.operator_delay_s * self._rng.uniform(0.5, 1.5)
            self.tally.operator_reruns += 1
        heapq.heappush(self._queue, (now + delay_s, number))

    def _done(self, place: int) -> None:
        self.tally.done += 1
        self.tally.files_written += self._backfill.job.files
        self.phase[place] = IDLE

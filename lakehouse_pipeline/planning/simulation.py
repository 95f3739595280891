"""What a simulated backfill came to."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Minute:
    """A minute of a backfill.

    Attributes:
        throttled_per_s: 503s a second.
        written_per_s: writes a second that succeeded.
        ranges: of keys, at its end.
    """

    throttled_per_s: float
    written_per_s: float
    ranges: int


@dataclass(frozen=True)
class Simulation:
    """A backfill, simulated: expected flows, with drawn failures of jobs.

    Requests and files of jobs are shares of a flow, so they need not be whole numbers.

    Attributes:
        hours: from the first job's begin to the last one's end.
        requests: sent, each try of one.
        succeeded: of them.
        throttles: of them: 503s.
        jobs_done: that were committed.
        jobs_rerun: that failed and were run again, or resumed, at least once.
        operator_reruns: runs that somebody had to start.
        jobs_given_up: that failed too often.
        tasks_failed: lost to a request without tries left.
        files_written: that were committed.
        files_lost: that were written, but not committed: of failed jobs and tasks.
        orphan_bytes: of lost files that stay behind.
        table_bytes: of committed files.
        storm_hours: until 99 % of all 503s had come; 0 without any.
        peak_writes_per_s: of the best minute.
        ranges: of keys, at the end.
        minutes: each minute.
    """

    hours: float
    requests: float
    succeeded: float
    throttles: float
    jobs_done: int
    jobs_rerun: int
    operator_reruns: int
    jobs_given_up: int
    tasks_failed: float
    files_written: float
    files_lost: float
    orphan_bytes: float
    table_bytes: float
    storm_hours: float
    peak_writes_per_s: float
    ranges: int
    minutes: tuple[Minute, ...]

    @property
    def throttle_share(self) -> float:
        """Give the share of requests that were answered 503."""
        return self.throttles / self.requests if self.requests else 0.0

    def times(self, total: float, abreast: float) -> "Simulation":
        """Give the same course with so many times the jobs, and so many times the jobs in flight."""
        return replace(
            self,
            requests=self.requests * total,
            succeeded=self.succeeded * total,
            throttles=self.throttles * total,
            jobs_done=round(self.jobs_done * total),
            jobs_rerun=round(self.jobs_rerun * total),
            operator_reruns=round(self.operator_reruns * total),
            jobs_given_up=round(self.jobs_given_up * total),
            tasks_failed=self.tasks_failed * total,
            files_written=self.files_written * total,
            files_lost=self.files_lost * total,
            orphan_bytes=self.orphan_bytes * total,
            table_bytes=self.table_bytes * total,
            peak_writes_per_s=self.peak_writes_per_s * abreast,
            minutes=tuple(
                Minute(each.throttled_per_s * abreast, each.written_per_s * abreast, each.ranges)
                for each in self.minutes
            ),
        )

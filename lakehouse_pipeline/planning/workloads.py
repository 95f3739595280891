"""Workloads: what a backfill asks of S3 if nothing goes wrong, and what else may. No policy of a client: `clients`."""

from dataclasses import dataclass, field

from lakehouse_pipeline.errors import ConfigurationError


@dataclass(frozen=True)
class Job:
    """The ETL of one hour: it computes, then its writers write files, then it commits.

    Attributes:
        files: data files that it writes.
        file_bytes: of each.
        requests_per_file: write requests: 1, a PUT; 3, a multipart upload of one part.
        compute_s: seconds before the first write.
        compute_spread: standard deviation of the logarithm of `compute_s` from run to run.
        writes_per_s: write requests a second of all writers, if none is throttled.
        writers: that write side by side, one request each at a time.
        files_per_task: that one task writes: those of a failed task are written again.
        task_failures: of one task that end the job; Spark's `spark.task.maxFailures` is 4.
        commit_s: seconds of the commit.
    """

    files: int
    file_bytes: float
    requests_per_file: int = 1
    compute_s: float = 0.0
    compute_spread: float = 0.0
    writes_per_s: float = 400.0
    writers: int = 200
    files_per_task: int = 1
    task_failures: int = 4
    commit_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a job that never ends."""
        least = (self.files, self.requests_per_file, self.writers, self.files_per_task, self.task_failures)
        if min(least) < 1 or self.writes_per_s <= 0 or min(self.compute_s, self.commit_s, self.file_bytes) < 0:
            raise ConfigurationError(f"{self}: counts and rates have to be above 0, seconds and bytes not below")

    @property
    def requests(self) -> int:
        """Give its write requests, if each succeeds."""
        return self.files * self.requests_per_file

    @property
    def seconds(self) -> float:
        """Give how long it takes by itself, without a throttle."""
        return self.compute_s + self.requests / self.writes_per_s + self.commit_s


@dataclass(frozen=True)
class Backfill:
    """Many jobs, some of them at once.

    Attributes:
        jobs: to run.
        in_flight: at once.
        job: each of them.
        stagger_s: seconds over which the begins of those that are in flight at first are spread, evenly.
        operator_delay_s: seconds until somebody notices a failed job and runs it again, half to one and a half times.
        failure_chance: of a run that fails at some moment for a reason that has nothing to do with S3.
        most_runs: of a job; then it is given up.
    """

    jobs: int
    in_flight: int
    job: Job = field(default_factory=lambda: Job(1_000, 16e6))
    stagger_s: float = 0.0
    operator_delay_s: float = 0.0
    failure_chance: float = 0.0
    most_runs: int = 20

    def __post_init__(self) -> None:
        """Refuse a backfill of nothing."""
        if min(self.jobs, self.in_flight, self.most_runs) < 1 or not 0 <= self.failure_chance < 1:
            raise ConfigurationError(f"{self}: needs a job, one in flight and one run, and a chance below 1")

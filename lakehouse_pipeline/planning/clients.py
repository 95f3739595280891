"""Clients: how those who write to S3 take a 503. Policies as data; what comes of them is the simulator's."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.retry import QUEUED_HALVINGS, RetryPolicy


@dataclass(frozen=True)
class Client:
    """A policy for throttled requests, and for what fails in spite of it.

    Attributes:
        name: for reports.
        tries: of one request, the first included.
        min_wait_s: upper bound of the first wait, which doubles with each.
        max_wait_s: upper bound of every wait.
        equal_jitter: waits are drawn from the upper half of their bound; else from all of it.
        total_s: seconds of waits of one request at most.
        quota: retry tokens of each process; None: retries cost nothing. A retry costs `quota_cost`, which a success
            gives back; a success at the first try gives one.
        quota_cost: of a retry.
        writers_per_process: that share quota and rate control.
        paced: throttled requests queue at the pace of `object_store.pace`, for each lane of each process.
        resumes: a job that fails after its last file resumes at its commit, and no operator has to run it again.
        ledger: files of failed jobs and tasks are removed by name; else they are orphans.
    """

    name: str
    tries: int
    min_wait_s: float = 1.0
    max_wait_s: float = 20.0
    equal_jitter: bool = False
    total_s: float = float("inf")
    quota: float | None = None
    quota_cost: float = 5.0
    writers_per_process: int = 1
    paced: bool = False
    resumes: bool = False
    ledger: bool = False

    def __post_init__(self) -> None:
        """Refuse a client that never tries or waits backwards."""
        if min(self.tries, self.writers_per_process) < 1 or not 0 <= self.min_wait_s <= self.max_wait_s:
            raise ConfigurationError(f"{self}: needs a try, a writer, and 0 <= min_wait_s <= max_wait_s")

    def waits_s(self) -> NDArray[np.float64]:
        """Give the mean wait after the n-th failed try, n from 1; as many as tries and `total_s` admit."""
        bounds = np.minimum(self.max_wait_s, self.min_wait_s * 2.0 ** np.minimum(np.arange(self.tries - 1), 60))
        if self.paced:  # as `retry` does with what is queued: short waits for the first half of the tries
            half = self.tries // 2
            short = self.min_wait_s * 2.0 ** (np.minimum(np.arange(half), QUEUED_HALVINGS) - QUEUED_HALVINGS)
            bounds[:half] = short[: len(bounds)]
        waits = bounds * (0.75 if self.equal_jitter else 0.5)
        return np.asarray(waits[np.cumsum(waits) <= self.total_s])


NO_RETRIES = Client("no retries", tries=1)
# apache/iceberg S3FileIOProperties: 5 retries, EqualJitter of 2 to 20 s on throttles, which cost no token.
S3_FILE_IO = Client("Iceberg S3FileIO", tries=6, min_wait_s=2.0, max_wait_s=20.0, equal_jitter=True)
# botocore retryhandler.py: random * 2^(n-1) s, without a quota; the bound is its fourth wait.
BOTOCORE_LEGACY = Client("botocore legacy", tries=5, min_wait_s=1.0, max_wait_s=8.0)
# botocore retries/standard.py and quota.py: 3 attempts, 500 tokens, 5 a retry.
BOTOCORE_STANDARD = Client("botocore standard", tries=3, quota=500.0, writers_per_process=10)
_POLICY = RetryPolicy()
# What this project does: on Spark each writer is a process of its own, in which rate control hardly ever sees the three
# throttles in a second that it waits for, so it is left out; on Sail a job is one process.
OURS = Client(
    "ours",
    tries=_POLICY.tries,
    min_wait_s=_POLICY.min_wait_s,
    max_wait_s=_POLICY.max_wait_s,
    total_s=_POLICY.total_s,
    resumes=True,
    ledger=True,
)
OURS_PACED = replace(OURS, name="ours, a process a job", paced=True, writers_per_process=200)

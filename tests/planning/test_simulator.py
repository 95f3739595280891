"""The simulator: what it must conserve, which way figures have to move, and that it agrees with requests one by one."""

import heapq
import random
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.planning.clients import (
    BOTOCORE_LEGACY,
    BOTOCORE_STANDARD,
    NO_RETRIES,
    OURS,
    OURS_PACED,
    S3_FILE_IO,
    Client,
)
from lakehouse_pipeline.planning.layouts import BASE_2, BASE_64, Layout
from lakehouse_pipeline.planning.s3_scaling import Admitted, KeySpace, Scaling
from lakehouse_pipeline.planning.simulation import Simulation
from lakehouse_pipeline.planning.simulator import simulate
from lakehouse_pipeline.planning.workloads import Backfill, Job
from lakehouse_pipeline.testing.faults import FaultServer
from tests.testing.echo import Echo

TIGHT = Scaling(write_rate=30, heat_window_s=6, detect_s=10, split_s=5)
BROAD = replace(TIGHT, write_rate=150)  # enough for chance to even out, as in S3's 3,500
JOB = Job(200, 1e6, requests_per_file=3, compute_s=5, writes_per_s=20, writers=10)
STORM = Backfill(8, 4, JOB, operator_delay_s=10)
CLIENTS = (NO_RETRIES, S3_FILE_IO, BOTOCORE_LEGACY, BOTOCORE_STANDARD, OURS, OURS_PACED)

clients = st.sampled_from(CLIENTS)
jobs = st.builds(
    Job,
    files=st.integers(1, 300),
    file_bytes=st.just(1e6),
    requests_per_file=st.integers(1, 3),
    compute_s=st.floats(0, 10),
    compute_spread=st.floats(0, 0.5),
    writes_per_s=st.floats(1, 50),
    writers=st.integers(1, 20),
    files_per_task=st.integers(1, 5),
    task_failures=st.integers(1, 4),
    commit_s=st.floats(0, 5),
)
backfills = st.builds(
    Backfill,
    jobs=st.integers(1, 6),
    in_flight=st.integers(1, 4),
    job=jobs,
    stagger_s=st.floats(0, 20),
    operator_delay_s=st.floats(0, 20),
    failure_chance=st.floats(0, 0.5),
    most_runs=st.integers(1, 4),
)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_seed_gives_the_same_backfill_again(client: Client) -> None:
    """Each figure and each minute."""
    storm = replace(STORM, failure_chance=0.3)
    assert simulate(storm, client, BASE_2, TIGHT, 7) == simulate(storm, client, BASE_2, TIGHT, 7)


@settings(max_examples=40, deadline=None)
@given(backfills, clients, st.sampled_from([BASE_2, BASE_64]), st.integers(0, 99))
def test_nothing_is_lost_that_is_not_counted(backfill: Backfill, client: Client, layout: Layout, seed: int) -> None:
    """Requests are successes and throttles, jobs are done or given up, files written or lost, bytes theirs."""
    found = simulate(backfill, client, layout, TIGHT, seed)
    job = backfill.job
    assert found.requests == pytest.approx(found.succeeded + found.throttles)
    assert found.jobs_done + found.jobs_given_up == backfill.jobs
    assert found.files_written == found.jobs_done * job.files
    assert found.table_bytes == pytest.approx(found.files_written * job.file_bytes)
    assert found.orphan_bytes == pytest.approx(0 if client.ledger else found.files_lost * job.file_bytes)
    files = found.files_written + found.files_lost
    assert found.succeeded == pytest.approx(files * job.requests_per_file, rel=1e-6, abs=1e-3)
    assert sum(each.throttled_per_s * 60 for each in found.minutes) == pytest.approx(found.throttles, abs=1e-6)
    assert sum(each.written_per_s * 60 for each in found.minutes) == pytest.approx(found.succeeded, abs=0.5 * 24)


@settings(max_examples=30, deadline=None)
@given(backfills, clients, st.integers(0, 99))
def test_who_stays_below_the_capacity_sees_no_503(backfill: Backfill, client: Client, seed: int) -> None:
    """However jobs overlap."""
    enough = Scaling(write_rate=backfill.in_flight * backfill.job.writes_per_s * 1.01)
    found = simulate(backfill, client, BASE_2, enough, seed)
    assert found.throttles == 0
    assert found.tasks_failed == 0


@settings(max_examples=30, deadline=None)
@given(jobs, st.floats(5, 60), st.floats(1.5, 4))
def test_more_capacity_means_no_more_503s(job: Job, rate: float, times: float) -> None:
    """Where nothing fails, splits or waits for a place: a single job of a patient client."""
    patient = replace(S3_FILE_IO, tries=60)
    still = replace(job, compute_spread=0.0)
    less, more = (
        simulate(Backfill(1, 1, still), patient, BASE_2, Scaling(write_rate=each, detect_s=None))
        for each in (rate, rate * times)
    )
    assert more.throttles <= less.throttles * 1.01 + 1e-3


@settings(max_examples=30, deadline=None)
@given(backfills, st.integers(0, 99))
def test_a_capacity_ceiling_bounds_what_is_written(backfill: Backfill, seed: int) -> None:
    """Without splits no minute brings more than the rate and the burst."""
    found = simulate(backfill, S3_FILE_IO, BASE_2, replace(TIGHT, detect_s=None), seed)
    assert found.peak_writes_per_s <= TIGHT.write_rate * (1 + TIGHT.burst_s / 60) + 0.1
    assert found.ranges == 1


def test_more_tries_lose_fewer_jobs() -> None:
    """In the same storm."""
    failed = [simulate(STORM, replace(S3_FILE_IO, tries=tries), BASE_2, TIGHT).tasks_failed for tries in (1, 3, 6, 30)]
    assert failed == sorted(failed, reverse=True)
    assert failed[0] > 100
    assert failed[-1] < 0.01


def test_a_quota_ends_retries_that_a_client_without_one_has_left() -> None:
    """In a storm that lasts the tokens of botocore's standard mode run out."""
    long = Backfill(1, 1, replace(JOB, files=1_200, requests_per_file=1, task_failures=100))
    still = replace(TIGHT, detect_s=None, write_rate=5)
    with_quota, without = (
        simulate(long, replace(BOTOCORE_STANDARD, tries=20, quota=quota), BASE_2, still) for quota in (500.0, None)
    )
    assert with_quota.tasks_failed > 20 * max(1.0, without.tasks_failed)


def test_our_client_leaves_no_orphans_and_needs_no_operator() -> None:
    """A third of the runs fail for reasons of their own: files of theirs are removed by name."""
    found = simulate(replace(STORM, failure_chance=0.3, jobs=40), OURS, BASE_2, TIGHT)
    assert found.jobs_rerun > 0
    assert found.files_lost > 0
    assert (found.orphan_bytes, found.operator_reruns, found.jobs_done) == (0, 0, 40)


def test_a_sealed_job_resumes_at_its_commit() -> None:
    """Of jobs that do little but commit, failures lose hardly a file; without resuming, nearly all of them."""
    slow = Backfill(40, 4, replace(JOB, files=10, compute_s=0, commit_s=600), failure_chance=0.4)
    resumed, again = (simulate(slow, replace(OURS, resumes=resumes), BASE_2, TIGHT) for resumes in (True, False))
    assert resumed.jobs_rerun > 5
    assert resumed.files_lost < 0.1 * again.files_lost


def test_binary_digits_split_sooner_than_digits_of_64() -> None:
    """The same storm is over sooner."""
    long = Backfill(12, 4, replace(JOB, files=600))
    binary, of_64 = (simulate(long, S3_FILE_IO, layout, TIGHT) for layout in (BASE_2, BASE_64))
    assert binary.hours < of_64.hours
    assert binary.throttles < 0.8 * of_64.throttles


def test_hours_that_begin_apart_meet_fewer_503s() -> None:
    """Spread over the time that one takes, they do not all write at once."""
    at_once = Backfill(16, 4, Job(80, 1e6, compute_s=7, writes_per_s=16, writers=10))
    apart = replace(at_once, stagger_s=at_once.job.seconds)
    spread, together = (simulate(each, OURS, BASE_2, TIGHT) for each in (apart, at_once))
    assert spread.throttles < 0.5 * together.throttles
    assert spread.hours < together.hours


def test_weight_changes_the_price_and_not_the_answer() -> None:
    """16 jobs in flight as 4 of weight 4."""
    many = Backfill(64, 16, JOB)
    whole, weighted = (
        simulate(many, S3_FILE_IO, BASE_2, replace(TIGHT, write_rate=120), weight=weight) for weight in (1, 4)
    )
    assert weighted.jobs_done == whole.jobs_done
    assert weighted.hours == pytest.approx(whole.hours, rel=0.05)
    assert weighted.throttles == pytest.approx(whole.throttles, rel=0.1)


def test_shorter_steps_change_little() -> None:
    """A step is for the reader's patience, not for the answer."""
    long = Backfill(12, 4, replace(JOB, files=600))
    coarse, fine = (simulate(long, S3_FILE_IO, BASE_2, TIGHT, step_s=step_s) for step_s in (1.0, 0.2))
    assert coarse.hours == pytest.approx(fine.hours, rel=0.05)
    assert coarse.throttles == pytest.approx(fine.throttles, rel=0.15)


@pytest.mark.parametrize("wrong", [{"files": 0}, {"writers": 0}, {"writes_per_s": 0.0}, {"compute_s": -1.0}], ids=str)
def test_a_job_that_never_ends_is_refused(wrong: dict[str, float]) -> None:
    """Before anything is simulated."""
    with pytest.raises(ConfigurationError):
        replace(JOB, **wrong)  # type: ignore[arg-type]


# -- Requests one by one ---------------------------------------------------------------------------------------------


@dataclass
class Counted:
    """What single requests came to."""

    seconds: float = 0.0
    succeeded: int = 0
    throttled: int = 0
    ranges: int = 0


def one_by_one(
    job: Job, writers: int, client: Client, layout: Layout, *, offer: Callable[[str, float], bool], seed: int
) -> Counted:
    """Run a single wave of writers, request by request; `offer` tells whether a key is taken at a time.

    Requests take random times: with equal ones, writers fall into step with the tokens, and those in step keep all.
    """
    luck, found = random.Random(seed), Counted()  # noqa: S311  # chance, not cryptography
    keys = layout.keys("", 4_096, np.random.default_rng(seed))
    left = job.requests * writers // job.writers
    asks_s = job.writers / job.writes_per_s
    queue = [(luck.expovariate(1 / asks_s), each, 0, luck.choice(keys)) for each in range(writers)]
    heapq.heapify(queue)
    while queue:
        now, writer, failed, key = heapq.heappop(queue)
        if not failed:
            if not left:
                continue
            left -= 1
        if offer(key, now):
            found.succeeded += 1
            heapq.heappush(queue, (now + luck.expovariate(1 / asks_s), writer, 0, luck.choice(keys)))
        else:
            found.throttled += 1
            bound = min(client.max_wait_s, client.min_wait_s * 2**failed)
            wait_s = luck.uniform(bound / 2 if client.equal_jitter else 0, bound)
            heapq.heappush(queue, (now + wait_s, writer, failed + 1, key))
        found.seconds = now
    return found


def on_the_model(job: Job, writers: int, client: Client, layout: Layout, *, scaling: Scaling, seed: int) -> Counted:
    """Offer the requests to the model that the fault server uses."""
    space = KeySpace(scaling)

    def offer(key: str, now: float) -> bool:
        return isinstance(space.offer(key, write=True, now=now), Admitted)

    found = one_by_one(job, writers, client, layout, offer=offer, seed=seed)
    found.ranges = len(space.ranges(found.seconds))
    return found


@pytest.mark.parametrize("layout", [BASE_2, BASE_64], ids=lambda layout: layout.name)
@pytest.mark.parametrize("client", [replace(S3_FILE_IO, tries=60), OURS], ids=["equal", "full"])
def test_the_flow_agrees_with_requests_one_by_one(layout: Layout, client: Client) -> None:
    """Four jobs at once: seconds within 10 %, 503s within 25 % of the mean of two runs, ranges within two."""
    job = replace(JOB, files=3_000, compute_s=0, writes_per_s=100, writers=50)
    flow = simulate(Backfill(4, 4, job), client, layout, BROAD)
    singly = [on_the_model(job, 200, client, layout, scaling=BROAD, seed=seed) for seed in range(2)]
    assert {each.succeeded for each in singly} == {round(flow.succeeded)}
    assert flow.hours * 3600 == pytest.approx(sum(each.seconds for each in singly) / 2, rel=0.1)
    assert flow.throttles == pytest.approx(sum(each.throttled for each in singly) / 2, rel=0.25)
    assert flow.ranges == pytest.approx(sum(each.ranges for each in singly) / 2, abs=2)


def test_the_live_fault_server_answers_as_the_model_with_which_the_flow_agrees() -> None:
    """The same requests at the same times, sent over HTTP: as many 503s, and as many ranges."""
    job, client = Job(320, 1.0, writes_per_s=80, writers=8), Client("patient", tries=60, min_wait_s=0.2, max_wait_s=0.4)
    scaling = Scaling(write_rate=20, heat_window_s=1, detect_s=1, split_s=1)
    now, upstream = 0.0, Echo()

    def offer(key: str, at: float) -> bool:
        nonlocal now
        now = at
        return put(f"{server.endpoint}/raw/{key}") == 200

    try:
        with FaultServer(upstream.url, scaling=scaling, clock=lambda: now) as server:
            live = one_by_one(job, job.writers, client, BASE_2, offer=offer, seed=0)
            live.ranges = len(server.ranges("raw"))
    finally:
        upstream.stop()
    assert live.throttled > 50
    assert live.ranges > 2
    assert live == on_the_model(job, job.writers, client, BASE_2, scaling=scaling, seed=0)


def put(url: str) -> int:
    """Put an object, and give the status."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, b"x", method="PUT"), timeout=20) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_backfill_without_writes_to_wait_for_is_quick_to_tell() -> None:
    """A year of hours without a 503 is passed event by event: one range, and as many hours as jobs in turn."""
    found: Simulation = simulate(Backfill(8_760, 4, replace(JOB, compute_s=1_790, files=100)), OURS)
    assert found.jobs_done == 8_760
    assert found.hours == pytest.approx(8_760 / 4 * 1_805 / 3_600, rel=0.02)

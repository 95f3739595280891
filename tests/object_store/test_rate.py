"""Rate control keeps a store busy, neither hammers it nor loses a request: simulated, and behind a proxy."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.errors import TransientError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.pace import LEAST_PER_S
from lakehouse_pipeline.object_store.rate import Judgement, RateControl, Turn
from lakehouse_pipeline.planning.s3_scaling import Scaling
from lakehouse_pipeline.retry import RetryPolicy
from lakehouse_pipeline.testing.faults import FaultServer
from tests.object_store.virtual_store import Load
from tests.object_store.virtual_time import VirtualTime


def hashed(number: int) -> str:
    """Give a URL as Iceberg's object store layout has it."""
    bits = f"{number:020b}"
    return f"s3://bucket/t/data/{bits[:4]}/{bits[4:8]}/{bits[8:12]}/{bits[12:]}/h=1/x.parquet"


@pytest.mark.parametrize("writers", [2, 4, 48, 200])
def test_a_hard_limit_is_used_up(writers: int) -> None:
    """At 10/s, however many writers: all succeed with few tries, and 95 % of what is allowed is done."""
    load = Load(rate=lambda _: 10, writers=writers).run()
    assert load.admitted(0, 60) >= 0.95 * (10 * 60 + 10)
    assert load.tries <= 8
    assert load.throttled(10, 60) < 0.2


def test_a_large_limit_is_used_up() -> None:
    """At 400/s the same: nothing in here is made for small figures."""
    load = Load(rate=lambda _: 300, writers=60, seconds=10, latency_s=0.02).run()
    assert load.admitted(0, 10) >= 0.95 * 300 * 10
    assert load.throttled(5, 10) < 0.1


def test_hash_digits_share_a_limit() -> None:
    """Eight lanes behind one limit of 10/s keep it busy together."""
    load = Load(rate=lambda _: 10, url=hashed).run()
    assert load.admitted(0, 60) >= 0.95 * 10 * 60


@pytest.mark.parametrize(("chance", "least"), [(0.15, 0.6), (0.5, 0.6), (0.6, 0.4)])
def test_throttles_by_chance_are_no_limit(chance: float, least: float) -> None:
    """A minute of random 503s: the last 20 s bring as much as chance leaves of the writers' full speed, or nearly."""
    load = Load(chance=lambda _: chance, latency_s=0.25).run()
    assert load.admitted(40, 60) >= least * (1 - chance) * (48 / 0.25) * 20
    assert load.tries < RetryPolicy().tries


def test_chance_beside_a_limit_leaves_the_limit_in_use() -> None:
    """Half of what a limit of 50/s would take is refused at random: what is left stays in use."""
    load = Load(rate=lambda _: 50, chance=lambda now: 0.5 if now < 30 else 0.0, latency_s=0.05).run()
    assert load.admitted(45, 60) >= 0.95 * 50 * 15


def test_four_processes_share_a_limit() -> None:
    """Together they do 95 % of it while all of them write, and none gets less than a quarter of its share."""
    load = Load(rate=lambda _: 10, processes=4).run()
    assert load.admitted(0, 60) >= 0.95 * 10 * 60
    assert min(load.admitted(0, 60, process) for process in range(4)) >= 10 * 60 / 4 / 4


def test_a_limit_that_rises_is_followed() -> None:
    """S3 splits a prefix, 10/s become 40/s: five seconds later all of it is in use."""
    load = Load(rate=lambda now: 10 if now < 30 else 40).run()
    assert load.admitted(35, 60) >= 0.95 * 40 * 25


def test_a_limit_that_falls_is_followed() -> None:
    """100/s become 10/s: nobody fails, and ten seconds later there are few 503s."""
    load = Load(rate=lambda now: 100 if now < 30 else 10).run()
    assert load.throttled(40, 60) < 0.2
    assert load.admitted(31, 60) >= 0.95 * 10 * 29


def test_an_outage_is_survived() -> None:
    """For 20 s everything is refused: nobody fails, and five seconds after its end the limit is in use again."""
    load = Load(rate=lambda _: 50, chance=lambda now: float(20 < now < 40)).run()
    assert load.admitted(45, 60) >= 0.95 * 50 * 15
    assert load.tries < 16


def test_calm_ends_control() -> None:
    """A minute after the last throttle there is no pace, and no wait, any more."""
    load = Load(rate=lambda now: 20 if now < 5 else 1e9, latency_s=1.0, seconds=120).run()
    assert load.admitted(80, 120) >= 0.95 * 48 * 40


def test_tries_and_time_still_end_it() -> None:
    """Where nothing is ever admitted, a request ends with its policy, queue or no queue."""
    load = Load(chance=lambda _: 1.0, policy=RetryPolicy(tries=32, total_s=60))
    with pytest.raises(TransientError) as caught:
        load.run()
    assert load.answers[-1][0] <= 61 + load.latency_s
    assert "gave up after" in caught.value.__notes__[0]


def test_waits_are_counted() -> None:
    """Seconds in the queue and seconds before retries, of all writers."""
    counts = Load(rate=lambda _: 10, seconds=20).run().counts[0]
    assert counts.rate_wait_s > 0.7 * 48 * 20
    assert 0 < counts.retry_wait_s < 0.3 * 48 * 20
    assert counts.throttles == counts.retries > 0


def test_without_a_throttle_nobody_waits() -> None:
    """Turns are given at once and leave no trace."""
    control = RateControl()
    for _ in range(1000):
        control.answered(control.wait(), admitted=1)
    assert (control.wait(), control.per_s, control.moves) == (Turn(), None, False)


def test_a_few_throttles_are_normal() -> None:
    """AWS: a small share of 503s belongs to normal use; two in a second begin nothing."""
    time = VirtualTime()
    control = RateControl(clock=time.clock, sleep=time.sleep)

    def live() -> None:
        for number in range(100):
            control.answered(control.wait(), admitted=number % 50 > 0, throttled=number % 50 == 0)
            time.sleep(0.05)

    time.run(live)
    assert control.per_s is None


def paced(time: VirtualTime, judged: list[Judgement] | None = None) -> RateControl:
    """Give a control that has just found a limit of 10/s."""
    control = RateControl(clock=time.clock, sleep=time.sleep, judged=(judged if judged is not None else []).append)

    def live() -> None:
        for number in range(15):
            control.answered(Turn(), admitted=number % 3 > 0, throttled=number % 3 == 0)
            time.sleep(1 / 14)
        control.answered(Turn(), throttled=1)

    time.run(live)
    return control


def test_the_pace_begins_at_what_was_admitted() -> None:
    """Measured from the first throttle on for a second; the judgement tells it."""
    judged = list[Judgement]()
    control = paced(VirtualTime(), judged)
    assert control.per_s == pytest.approx(10, abs=1.5)
    assert [found.next_per_s for found in judged] == [control.per_s]


def test_turns_are_given_in_order() -> None:
    """Ten who ask together go one after the other, at the pace, the first at once."""
    time = VirtualTime()
    control, went = paced(time), list[tuple[int, float]]()
    began = time.clock()
    time.run(*(lambda n=n: went.append((n, control.wait().waited_s)) for n in range(10)))
    assert [n for n, _ in went] == list(range(10))
    assert control.per_s
    assert [at for _, at in went] == pytest.approx([n / control.per_s for n in range(10)], abs=0.06)
    assert time.clock() - began == pytest.approx(9 / control.per_s, abs=0.06)


def test_a_page_of_deletes_weighs_its_keys() -> None:
    """Behind a page of 50 keys the next request waits as long as 50 requests take."""
    time = VirtualTime()
    control = paced(time)
    waits = list[float]()
    time.run(lambda: waits.extend(control.wait(weight).waited_s for weight in (50, 1)))
    assert control.per_s
    assert waits == pytest.approx([0, 50 / control.per_s], abs=0.1)


def test_patience_ends_a_wait() -> None:
    """Who may not wait longer goes at once, once."""
    time = VirtualTime()
    control = paced(time)
    waits = list[float]()
    time.run(lambda: waits.extend(control.wait(1000, 0.5).waited_s for _ in range(2)))
    assert waits == [0, 0.5]


def test_an_outage_leaves_a_probe() -> None:
    """Nothing admitted for a minute: one request a second still asks."""
    time = VirtualTime()
    control = paced(time)

    def live() -> None:
        while time.clock() < 60:
            control.answered(control.wait(), throttled=1)

    time.run(live)
    assert control.per_s == LEAST_PER_S


def test_virtual_time_repeats_itself() -> None:
    """Two runs of the same load are the same, answer by answer."""
    first, second = (Load(rate=lambda _: 10, seconds=5).run().answers for _ in range(2))
    assert first == second


def test_real_threads_behind_a_real_limit(seaweed: SeaweedServer) -> None:
    """48 threads on a proxy that takes 20 writes a second: all land, after few refusals, which are counted.

    How much of the limit they use is for benchmarks/throttle.py to say: it depends on what else the machine does.
    """
    scaling = Scaling(write_rate=20, detect_s=None)
    with FaultServer(seaweed.endpoint, scaling=scaling) as server, ThreadPoolExecutor(48) as pool:
        file_io = LakehouseFileIO(seaweed.s3_properties() | {"s3.endpoint": server.endpoint})
        file_io.head("s3://raw/nothing")  # a client costs a second where cores are few
        folder = uuid.uuid4().hex
        list(pool.map(lambda n: file_io.put(f"s3://raw/{folder}/{n}", b"1"), range(120)))
        writes = [each for each in server.exchanges if each.method == "PUT"]
    assert sum(each.status == 200 for each in writes) == 120
    assert file_io.counts().throttles == sum(each.status == 503 for each in writes) < 5 * 120

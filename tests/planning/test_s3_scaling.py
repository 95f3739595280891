"""S3's request scaling: what is throttled, what counts as heat, and where a range splits."""

import itertools

import pytest

from lakehouse_pipeline.planning.s3_scaling import Admitted, KeyRange, KeySpace, Scaling, Throttled, boundary

SMALL = Scaling(write_rate=10, read_rate=20, heat_window_s=6, detect_s=10, split_s=5)
BASE_2 = [f"t/data/{digits:04b}/f" for digits in range(16)]
BASE_64 = [f"t/data/{chr(48 + digit)}/f" for digit in range(64)]


def taken(space: KeySpace, keys: list[str], *, rate: float, begin: float, end: float, write: bool = True) -> int:
    """Offer evenly spread requests, and count those that were taken."""
    every = [begin + n / rate for n in range(int((end - begin) * rate))]
    asked = zip(every, itertools.cycle(keys), strict=False)
    return sum(isinstance(space.offer(key, write=write, now=now), Admitted) for now, key in asked)


def prefixes(space: KeySpace, now: float) -> list[str]:
    """Give the ranges' prefixes."""
    return [found.prefix for found in space.ranges(now)]


def only(space: KeySpace, now: float) -> KeyRange:
    """Give the one range that there is."""
    (found,) = space.ranges(now)
    return found


@pytest.mark.parametrize(("write", "rate"), [(True, 3_500), (False, 5_500)], ids=["writes", "reads"])
def test_a_range_takes_what_aws_states(write: bool, rate: int) -> None:  # noqa: FBT001  # a table's column
    """After the burst of its first second, twice the capacity is answered half with 503."""
    space = KeySpace(Scaling())
    assert taken(space, ["a", "b"], rate=2 * rate, begin=0, end=1, write=write) == pytest.approx(2 * rate, abs=2)
    assert taken(space, ["a", "b"], rate=2 * rate, begin=1, end=2, write=write) == pytest.approx(rate, abs=2)


def test_reads_and_writes_have_capacities_of_their_own() -> None:
    """When no write is taken any more, reads still are."""
    space = KeySpace(SMALL)
    while isinstance(space.offer("a", write=True, now=0), Admitted):
        pass
    assert isinstance(space.offer("a", write=False, now=0), Admitted)


def test_a_throttle_says_when_to_come_back() -> None:
    """An empty range of 10/s takes the next write a tenth of a second later, and not before."""
    space = KeySpace(SMALL)
    space.offer("a", write=True, now=0, weight=10)
    answer = space.offer("a", write=True, now=0)
    assert isinstance(answer, Throttled)
    assert answer.wait_s == pytest.approx(0.1)
    assert isinstance(space.offer("a", write=True, now=0.99 * answer.wait_s), Throttled)
    assert isinstance(space.offer("a", write=True, now=answer.wait_s), Admitted)


def test_a_prefix_brings_no_capacity() -> None:
    """Two folders that nobody has split share one range."""
    space = KeySpace(SMALL)
    assert taken(space, ["a/x", "b/x"], rate=100, begin=0, end=10) == pytest.approx(110, abs=2)


def test_a_prefix_split_beforehand_brings_capacity() -> None:
    """The same folders, one of them with a range of its own: twice as much."""
    space = KeySpace(SMALL, prefixes=["b/"])
    assert taken(space, ["a/x", "b/x"], rate=100, begin=0, end=10) == pytest.approx(220, abs=4)


def test_a_delete_of_many_keys_counts_each() -> None:
    """30 keys at 10/s: taken by a full range, which then takes nothing for three seconds."""
    space = KeySpace(SMALL)
    assert isinstance(space.offer("a", write=True, now=0, weight=30), Admitted)
    assert isinstance(space.offer("a", write=True, now=2, weight=1), Throttled)
    assert isinstance(space.offer("a", write=True, now=2.1, weight=1), Admitted)


def test_keys_of_several_ranges_are_taken_together_or_not_at_all() -> None:
    """One range of two is empty: the other is not charged."""
    space = KeySpace(SMALL, prefixes=["b"])
    assert space.offer_all(["b"] * 10, write=True, now=0) == Admitted("b")
    assert isinstance(space.offer_all(["a", "b"], write=True, now=0), Throttled)
    assert space.offer_all(["a"] * 10, write=True, now=0) == Admitted("")


def test_refused_requests_are_heat() -> None:
    """Ten times the capacity heats ten times as much as is taken."""
    space = KeySpace(SMALL)
    taken(space, ["a", "b"], rate=100, begin=0, end=9)
    assert only(space, 9).write_heat == pytest.approx(100, rel=0.05)


def test_sustained_heat_splits_a_range_and_doubles_what_is_taken() -> None:
    """Base-2 keys at four times the capacity: a window, detection and split later twice as much is taken."""
    space = KeySpace(SMALL)
    taken(space, BASE_2, rate=40, begin=0, end=2)
    assert taken(space, BASE_2, rate=40, begin=2, end=12) == pytest.approx(100, abs=2)
    taken(space, BASE_2, rate=40, begin=12, end=20)
    assert prefixes(space, 20) == ["", "t/data/0"]
    assert taken(space, BASE_2, rate=40, begin=20, end=30) == pytest.approx(200, abs=4)


def test_the_halves_split_again() -> None:
    """Two rounds later four ranges have a quarter of the keys each."""
    space = KeySpace(SMALL)
    taken(space, BASE_2, rate=80, begin=0, end=45)
    assert [len(prefix) for prefix in prefixes(space, 45)] == [0, len("t/data/0"), len("t/data/00"), len("t/data/10")]


def test_of_base_64_digits_one_moves_and_the_rest_stays_hot() -> None:
    """The first round leaves 63 of 64 parts of the heat where they were."""
    space = KeySpace(SMALL)
    taken(space, BASE_64, rate=40, begin=0, end=30)
    assert prefixes(space, 30) == ["", "t/data/0"]
    assert space.ranges(30)[0].write_heat > 30


@pytest.mark.parametrize("pauses", [True, False], ids=["with-a-gap", "without"])
def test_a_gap_begins_detection_anew(pauses: bool) -> None:  # noqa: FBT001  # a table's column
    """Heat that stops for longer than the window in between never lasts for `detect_s`."""
    space = KeySpace(SMALL)
    for begin in range(0, 60, 15):
        taken(space, BASE_2, rate=40, begin=begin, end=begin + (4 if pauses else 15))
    assert (len(space.ranges(60)) == 1) is pauses


def test_a_decided_split_comes_although_it_cools() -> None:
    """Between decision and effect nobody has to ask for anything."""
    space = KeySpace(SMALL)
    taken(space, BASE_2, rate=40, begin=0, end=12)
    due = only(space, 12).split_at
    assert due is not None
    assert prefixes(space, due - 0.1) == [""]
    assert prefixes(space, due) == ["", "t/data/0"]


def test_splitting_can_be_switched_off() -> None:
    """Without `detect_s` a range stays hot, and whole, for an hour."""
    space = KeySpace(Scaling(write_rate=10, detect_s=None))
    taken(space, BASE_2, rate=20, begin=0, end=3_600)
    found = only(space, 3_600)
    assert found.hot_since is not None
    assert found.split_at is None


def test_reads_split_a_range_too() -> None:
    """Heat is judged against the capacity of its own kind."""
    space = KeySpace(SMALL)
    taken(space, BASE_2, rate=40, begin=0, end=30, write=False)
    assert len(space.ranges(30)) == 2


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param(BASE_2, "t/data/0", id="base-2"),
        pytest.param(["t/1", "t/1", "t/0"], "t/1", id="the-hottest-child"),
        pytest.param([*BASE_2 * 4, "t/metadata/x"], "t/data/0", id="a-few-strays-are-ignored"),
        pytest.param(["one"] * 9, None, id="one-key-has-no-boundary"),
        pytest.param([*["hot"] * 99, "cold"], "h", id="one-hot-key-leaves-its-neighbours"),
        pytest.param(["a", "a", "ab", "ac"], "ab", id="a-key-that-ends-at-the-boundary-stays"),
        pytest.param([], None, id="nobody-asked"),
    ],
)
def test_a_boundary_is_a_character_of_the_keys(keys: list[str], expected: str | None) -> None:
    """A split moves the hottest child below whatever prefix the requests have in common."""
    assert boundary(keys, "", 0.9) == expected

"""Ranges under a flow, beside the same ranges asked request by request."""

import itertools

import numpy as np
import pytest

from lakehouse_pipeline.planning.fluid_ranges import Floats, FluidRanges
from lakehouse_pipeline.planning.layouts import BASE_2, BASE_64, Layout
from lakehouse_pipeline.planning.s3_scaling import Admitted, KeySpace, Scaling

SMALL = Scaling(write_rate=50, heat_window_s=6, detect_s=10, split_s=5)


def flow(ranges: FluidRanges, rate: float, seconds: int) -> list[tuple[float, int]]:
    """Offer writes evenly; gives what was taken, and the ranges, by the second."""
    seen = []
    for _ in range(seconds):
        offered: Floats = rate * ranges.shares
        taken = ranges.take(offered)
        ranges.pass_step(offered)
        seen.append((float(taken.sum()), len(ranges.prefixes)))
    return seen


@pytest.mark.parametrize("rate", [40, 48, 90, 300], ids=["cool", "hot", "twice", "six-times"])
@pytest.mark.parametrize("layout", [BASE_2, BASE_64], ids=lambda layout: layout.name)
def test_a_flow_fares_as_its_requests_do(layout: Layout, rate: int) -> None:
    """Evenly spaced requests to drawn keys for 80 s: taken within 5 %, and as many ranges at every second but a few."""
    keys = itertools.cycle(layout.keys("", 20_000, np.random.default_rng(3)))
    space, taken, counts = KeySpace(SMALL), 0, []
    for second in range(80):
        for n in range(rate):
            taken += isinstance(space.offer(next(keys), write=True, now=second + n / rate), Admitted)
        counts.append(len(space.ranges(second + 1)))
    seen = flow(FluidRanges(SMALL, layout, 1.0, np.random.default_rng(4)), rate, 80)
    assert sum(each for each, _ in seen) == pytest.approx(taken, rel=0.05)
    assert sum(ranges != count for (_, ranges), count in zip(seen, counts, strict=True)) <= 8


@pytest.mark.parametrize("layout", [BASE_2, BASE_64], ids=lambda layout: layout.name)
def test_shares_add_up_after_every_split(layout: Layout) -> None:
    """Of ranges, and of lanes in ranges."""
    ranges = FluidRanges(SMALL, layout, 1.0, np.random.default_rng(5))
    flow(ranges, 2_000, 200)
    assert len(ranges.prefixes) > 8
    assert ranges.shares.sum() == pytest.approx(1)
    assert (ranges.shares > 0).all()
    assert ranges.lanes().sum(0) == pytest.approx(ranges.shares)


def test_calm_passes_at_once_as_step_by_step() -> None:
    """Half a minute below the heat: afterwards both take a burst, heat up and split alike."""
    by_step, at_once = (FluidRanges(SMALL, BASE_2, 1.0, np.random.default_rng(6)) for _ in range(2))
    flow(by_step, 20, 30)
    assert at_once.calm_steps(np.array([20.0])) >= 30
    at_once.pass_calm(np.array([20.0]), 30)
    assert flow(by_step, 200, 60) == flow(at_once, 200, 60)


def test_a_hot_range_is_not_calm() -> None:
    """Nor is one that is asked for more than the heat's limit."""
    ranges = FluidRanges(SMALL, BASE_2, 1.0, np.random.default_rng(7))
    assert ranges.calm_steps(np.array([46.0])) == 0
    flow(ranges, 100, 6)
    assert ranges.calm_steps(np.array([1.0])) == 0

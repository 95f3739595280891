"""Layouts as templates: how much of the keys a prefix holds, and that the fault server's keys look like them."""

import numpy as np
import pytest

from lakehouse_pipeline.object_store.lanes import Lanes
from lakehouse_pipeline.planning.layouts import BASE_2, BASE_64, Layout


@pytest.mark.parametrize(
    ("layout", "prefix", "share"),
    [
        pytest.param(BASE_2, "", 1, id="all"),
        pytest.param(BASE_2, "data/", 1, id="what-all-have-in-common"),
        pytest.param(BASE_2, "data/01", 1 / 4, id="two-binary-digits"),
        pytest.param(BASE_2, "data/0101/1", 1 / 32, id="a-folder-is-no-digit"),
        pytest.param(BASE_64, "data/A", 1 / 64, id="one-digit-of-64"),
        pytest.param(BASE_2, "metadata/", 0, id="other-keys"),
        pytest.param(BASE_2, "data/2", 0, id="no-digit"),
    ],
)
def test_a_prefix_holds_a_share_of_the_keys(layout: Layout, prefix: str, share: float) -> None:
    """By its digits."""
    assert layout.measure(prefix) == share


def test_drawn_keys_begin_with_their_prefix_and_are_spread_evenly() -> None:
    """A thousand below one digit: half of them have a 1 next."""
    keys = BASE_2.keys("data/0", 1_000, np.random.default_rng(1))
    assert all(key.startswith("data/0") and len(key) == len(BASE_2.template) for key in keys)
    assert sum(key.startswith("data/01") for key in keys) == pytest.approx(500, abs=60)


def test_lanes_are_those_of_our_client() -> None:
    """Keys of one of the eight lanes share a rate control, keys of two do not; of base-64 keys there is one lane."""
    lanes, rng = Lanes(), np.random.default_rng(1)
    controls = [
        {lanes.of("", "put", f"s3://raw/t/{key}") for key in BASE_2.keys(lane, 20, rng)} for lane in BASE_2.lanes()
    ]
    assert [len(each) for each in controls] == [1] * 8
    assert len(set.union(*controls)) == 8
    assert len({lanes.of("", "put", f"s3://raw/t/{key}") for key in BASE_64.keys("", 20, rng)}) == 1

"""Which keys a request touches, and whether their ranges take it."""

import pytest

from lakehouse_pipeline.planning.s3_scaling import Scaling
from lakehouse_pipeline.testing.asked import Asked
from lakehouse_pipeline.testing.throttle import Throttle

DELETE = Asked("POST", "/raw?delete")


def admitted(throttle: Throttle, *asked: Asked) -> list[bool]:
    """Ask at one moment."""
    return [throttle.admits(one, b"", 0) for one in asked]


@pytest.fixture
def throttle() -> Throttle:
    """Give one of two requests a second, of each kind."""
    return Throttle(Scaling(write_rate=2, read_rate=2))


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_writes_share_a_capacity(throttle: Throttle, method: str) -> None:
    """Two are taken, the third is not, and a read still is."""
    asked = [Asked(method, "/raw/a")] * 3 + [Asked("GET", "/raw/a"), Asked("HEAD", "/raw/a")]
    assert admitted(throttle, *asked) == [True, True, False, True, True]


def test_each_bucket_has_its_own(throttle: Throttle) -> None:
    """What one bucket takes does not slow another."""
    asked = [Asked("PUT", "/raw/a")] * 3 + [Asked("PUT", "/plain/a")]
    assert admitted(throttle, *asked) == [True, True, False, True]


def test_a_listing_reads_where_its_prefix_is() -> None:
    """Its heat is that of the keys it lists."""
    throttle = Throttle(Scaling(read_rate=1, heat_window_s=1, detect_s=1, split_s=1))
    for tenth in range(60):
        throttle.admits(Asked("GET", f"/raw?list-type=2&prefix=data%2F{tenth % 2}"), b"", tenth / 10)
    assert [found.prefix for found in throttle.ranges("raw", 6)][:2] == ["", "data/0"]


def test_a_delete_of_many_keys_writes_each(throttle: Throttle) -> None:
    """Two keys at once are a second's capacity."""
    body = b"<Delete><Object><Key>a&amp;b</Key></Object><Object><Key>c</Key></Object></Delete>"
    assert throttle.needs_body(DELETE)
    assert [throttle.admits(DELETE, body, now) for now in (0, 0.9, 1)] == [True, False, True]

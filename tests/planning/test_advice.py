"""Advice: what is recommended, beside what else was considered."""

import pytest

from lakehouse_pipeline.planning.advice import MOST_503_SHARE, Advice, Load, advise
from lakehouse_pipeline.planning.clients import OURS
from lakehouse_pipeline.planning.s3_scaling import Scaling

FLIGHTS = Load(hours=456, files=2, bytes_=1e6, etl_s=0.2)
TIGHT = Scaling(write_rate=30, heat_window_s=6, detect_s=10, split_s=5)


def considered(advice: Advice) -> list[int]:
    """Give the hours in flight of its table."""
    return [each.in_flight for each in advice.settings]


def test_a_small_table_takes_all_the_room_there_is() -> None:
    """The flights of the demo meet no limit of S3: as many as the engine takes, beside other settings."""
    advice = advise(FLIGHTS, most_in_flight=8)
    assert (advice.in_flight, advice.first_wave, advice.tries) == (8, None, OURS.tries)
    assert {2, 8, 32} <= set(considered(advice))
    assert all(each.predicted.throttles == 0 and each.predicted.jobs_done == 456 for each in advice.settings)


def test_hours_beyond_the_store_are_not_worth_it() -> None:
    """Where nothing ever splits, the recommendation stays near what one range takes, and meets few 503s."""
    load = Load(hours=64, files=300, bytes_=1e6, etl_s=60)  # 12.5 writes/s of 30
    advice = advise(load, scaling=Scaling(write_rate=30, detect_s=None), most_in_flight=64)
    assert 2 <= advice.in_flight <= 8
    assert advice.recommended.predicted.throttle_share <= MOST_503_SHARE
    assert max(considered(advice)) >= 4 * advice.in_flight
    assert advice.first_wave is not None
    assert advice.first_wave.first == 1


def test_tries_grow_with_the_share_of_503s() -> None:
    """Never below the client's own; a store that refuses nearly all asks for more patience than 32 tries."""
    calm = advise(FLIGHTS, most_in_flight=2)
    crowd = Load(hours=4, files=2_000, bytes_=1e6, etl_s=60)
    storm = advise(crowd, scaling=Scaling(write_rate=1, detect_s=None), most_in_flight=1)
    assert (calm.tries, calm.retry_s) == (OURS.tries, OURS.total_s)
    assert storm.tries > calm.tries
    assert storm.retry_s > 0


@pytest.mark.parametrize("hours", [1, 2, 3])
def test_few_hours_are_advised_on_too(hours: int) -> None:
    """No setting has more in flight than there are."""
    assert max(considered(advise(Load(hours=hours, files=10, bytes_=1e6, etl_s=1), scaling=TIGHT))) == hours


def test_advice_repeats() -> None:
    """Equal arguments, equal advice."""
    load = Load(hours=16, files=300, bytes_=1e6, etl_s=60, requests_per_file=3)
    assert advise(load, scaling=TIGHT, most_in_flight=8) == advise(load, scaling=TIGHT, most_in_flight=8)

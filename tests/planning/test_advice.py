"""Advice: what is recommended, beside what else was considered."""

import math

import pytest

from lakehouse_pipeline.planning.advice import MOST_503_SHARE, MOST_FILE_BYTES, Advice, Load, advise, roomy_file_bytes
from lakehouse_pipeline.planning.clients import OURS, S3_FILE_IO
from lakehouse_pipeline.planning.layouts import BASE_2, BASE_64, BY_HOUR, Layout
from lakehouse_pipeline.planning.s3_scaling import Scaling
from lakehouse_pipeline.planning.simulation import Simulation

FLIGHTS = Load(hours=96, files=2, bytes_=1e6, etl_s=0.2)
TIGHT = Scaling(write_rate=30, heat_window_s=6, detect_s=10, split_s=5)


def considered(advice: Advice) -> list[int]:
    """Give the hours in flight of its table."""
    return [each.in_flight for each in advice.settings]


def test_a_small_table_takes_all_the_room_there_is() -> None:
    """The flights of the demo meet no limit of S3: as many as the engine takes, beside other settings."""
    advice = advise(FLIGHTS, most_in_flight=8)
    assert (advice.in_flight, advice.tries) == (8, OURS.tries)
    assert {2, 8, 32} <= set(considered(advice))
    assert all(each.predicted.throttles == 0 and each.predicted.jobs_done == 96 for each in advice.settings)


def test_hours_beyond_the_store_are_not_worth_it() -> None:
    """Where nothing ever splits, the recommendation stays near what one range takes, and meets few 503s."""
    load = Load(hours=64, files=300, bytes_=1e6, etl_s=60)  # 12.5 writes/s of 30
    advice = advise(load, scaling=Scaling(write_rate=30, detect_s=None), most_in_flight=64)
    assert 2 <= advice.in_flight <= 8
    assert advice.recommended.predicted.throttle_share <= MOST_503_SHARE
    assert max(considered(advice)) >= 4 * advice.in_flight
    assert advice.apart_s == 60 / advice.in_flight


@pytest.fixture(scope="module")
def storm() -> Advice:
    """Give advice for an hour that a range refuses most of."""
    load = Load(hours=1, files=2_000, bytes_=1e6, etl_s=10)
    return advise(load, scaling=Scaling(write_rate=40, detect_s=None), most_in_flight=1)


def test_tries_grow_with_the_share_of_503s(storm: Advice) -> None:
    """Never below the client's own; a store that refuses nearly all asks for more patience than 32 tries."""
    calm = advise(Load(hours=1, files=2, bytes_=1e6, etl_s=1))
    assert (calm.tries, calm.retry_s) == (OURS.tries, OURS.total_s)
    assert storm.tries > OURS.tries
    assert OURS.total_s <= storm.retry_s < math.inf


@pytest.mark.parametrize("hours", [1, 2, 3])
def test_few_hours_are_advised_on_too(hours: int) -> None:
    """No setting has more in flight than there are."""
    assert max(considered(advise(Load(hours=hours, files=10, bytes_=1e6, etl_s=1), scaling=TIGHT))) == hours


def test_advice_repeats() -> None:
    """Equal arguments, equal advice."""
    load = Load(hours=4, files=100, bytes_=1e6, etl_s=20, multipart_from=0)
    assert advise(load, scaling=TIGHT, most_in_flight=8) == advise(load, scaling=TIGHT, most_in_flight=8)


@pytest.mark.parametrize(("file_bytes", "requests"), [(99, 1), (100, 5), (120, 5), (121, 6), (4_000, 2 + 100)])
def test_requests_of_a_file(file_bytes: float, requests: int) -> None:
    """A PUT below the threshold; from it on each part, and two for the upload."""
    load = Load(hours=1, files=3, bytes_=3 * file_bytes, etl_s=1, multipart_from=100, part_bytes=40)
    assert (load.requests_per_file, load.job().requests) == (requests, 3 * requests)


def test_the_same_bytes_in_other_files() -> None:
    """As many as it takes, one at least; nothing else changes."""
    load = Load(hours=7, files=10, bytes_=1e9, etl_s=60, layout=BY_HOUR, multipart_from=5, part_bytes=5)
    other = load.in_files_of(300e6)
    assert (other.files, other.bytes_, other.hours, other.layout) == (4, 1e9, 7, BY_HOUR)
    assert load.in_files_of(1e12).files == 1


def test_files_grow_until_one_hour_leaves_room_in_a_range() -> None:
    """Twice, and again; not where an hour leaves room already."""
    load = Load(hours=1, files=1, bytes_=100e9, etl_s=10)
    assert roomy_file_bytes(load, 4e6, Scaling(write_rate=3_500)) == 16e6
    assert load.in_files_of(16e6).writes_per_s <= 0.75 * 3_500 < load.in_files_of(8e6).writes_per_s
    assert roomy_file_bytes(load, 32e6, Scaling(write_rate=3_500)) == 32e6


@pytest.mark.parametrize(
    ("load", "meant", "found"),
    [
        pytest.param(Load(1, 1, 1e15, 1), MOST_FILE_BYTES / 4, MOST_FILE_BYTES, id="readers gain no more"),
        pytest.param(Load(1, 1, 1e12, 10, multipart_from=8e6, part_bytes=8e6), 32e6, 64e6, id="parts save little"),
        pytest.param(Load(1, 1, 1e15, 1), 5e9, 5e9, id="meant to be larger"),
    ],
)
def test_files_do_not_grow_for_nothing(load: Load, meant: float, found: float) -> None:
    """Though the range stays full."""
    assert roomy_file_bytes(load, meant, Scaling()) == found


def alternatives(load: Load, scaling: Scaling, **told: float) -> dict[str, Simulation]:
    """Give what was simulated beside the recommended setting, with one hour in flight."""
    found = advise(load, scaling=scaling, most_in_flight=1, **told)  # type: ignore[arg-type]
    return {each.name: each.predicted for each in found.alternatives}


@pytest.mark.parametrize(
    ("layout", "others"),
    [
        (BASE_2, ["base-64 keys", "hour by hour keys"]),
        (BASE_64, ["base-2 keys", "hour by hour keys"]),
        (BY_HOUR, ["base-2 keys", "base-64 keys"]),
    ],
)
def test_alternatives_are_what_the_load_is_not(layout: Layout, others: list[str]) -> None:
    """Other keys, the other client, and files of another size where that makes another number of them."""
    load = Load(hours=1, files=4, bytes_=4e6, etl_s=1, layout=layout)
    client = f"{S3_FILE_IO.name}, no ledger"
    assert list(alternatives(load, Scaling())) == [*others, client]
    assert list(alternatives(load, Scaling(), other_file_bytes=1e6)) == [*others, client]
    more = alternatives(load, Scaling(), other_file_bytes=0.5e6)
    assert list(more) == [*others, client, "files of 500 KB"]
    assert (more["files of 500 KB"].files_written, more[client].files_written) == (8, 4)


def test_keys_by_hour_stay_hot() -> None:
    """Where ranges of hashed keys split, those of one folder never do: the same hour takes longer."""
    load = Load(hours=1, files=2_000, bytes_=1e6, etl_s=60)
    split = Scaling(write_rate=20, heat_window_s=4, detect_s=4, split_s=2)
    advice = advise(load, scaling=split, most_in_flight=1)
    by_hour = next(each.predicted for each in advice.alternatives if each.name == "hour by hour keys")
    assert advice.recommended.predicted.ranges > by_hour.ranges == 1
    assert by_hour.hours > 1.5 * advice.recommended.predicted.hours


def test_the_other_client_loses_tasks(storm: Advice) -> None:
    """Six tries are few where a range refuses most; with other keys it is the same client that writes."""
    lost = {each.name: each.predicted.tasks_failed for each in storm.alternatives}
    assert lost.pop("Iceberg S3FileIO, no ledger") > 10
    assert max(lost.values()) < 1e-3


def test_hours_beyond_the_engines_room_are_not_faster() -> None:
    """They share its cores: four times as many take no less time in all, and are not recommended."""
    advice = advise(Load(hours=16, files=2, bytes_=1e6, etl_s=10), most_in_flight=2)
    assert advice.in_flight == 2
    assert max(considered(advice)) == 8
    crowded = advice.settings[-1].predicted
    assert crowded.hours >= 0.95 * advice.recommended.predicted.hours  # hours are not all alike

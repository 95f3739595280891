"""Units: what is made of what, and that nothing is lost on the way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.planning import units

amounts = st.floats(1e-3, 1e21)


@given(amounts, st.floats(1e-3, 1e12))
def test_conversions_can_be_undone(amount: float, seconds: float) -> None:
    """Bytes and bits, days and seconds, rates and times."""
    assert units.to_bytes(units.to_bits(amount)) == amount
    assert units.to_days(units.to_seconds(amount)) == pytest.approx(amount)
    assert units.seconds_for(amount, units.rate_of(amount, seconds)) == pytest.approx(seconds)


@given(st.integers(0, 10**6), st.sampled_from(sorted(units.BYTES)))
def test_sizes_are_read_as_they_are_written(count: int, unit: str) -> None:
    """Exactly, and in either kind of unit."""
    assert units.read_bytes(f"{count:,} {unit}") == count * units.BYTES[unit]


@given(st.integers(0, 10**6), st.sampled_from(sorted(units.BITS_PER_SECOND)))
def test_rates_are_read_as_they_are_written(count: int, unit: str) -> None:
    """Bits as bits, and bytes as eight of them."""
    assert units.read_rate(f"{count} {unit}") == float(count * units.BITS_PER_SECOND[unit])


@given(st.floats(1e-9, 1e21))
def test_dollars_that_are_shown_can_be_read(amount: float) -> None:
    """To two digits at least: an hour's objects may cost a fraction of a cent."""
    assert units.read_dollars(units.show_dollars(amount)) == pytest.approx(amount, rel=5e-2)


@given(amounts)
def test_what_is_shown_can_be_read(amount: float) -> None:
    """To the three digits that are shown."""
    assert units.read_bytes(units.show_bytes(amount)) == pytest.approx(amount, rel=6e-3, abs=1)
    assert units.read_rate(units.show_rate(amount)) == pytest.approx(amount, rel=6e-3, abs=0.01)
    assert units.read_dollars(units.show_dollars(amount)) == pytest.approx(amount, rel=6e-3, abs=0.01)


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (units.show_seconds(90), "1.5 min"),
        (units.show_seconds(86_400), "1 d"),
        (units.show_bytes(2 * 10**12), "2 TB"),
        (units.show_rate(6.614e12), "6,614 Gb/s"),
        (units.show_dollars(80e6), "$80,000,000"),
        (units.show_dollars(0.19), "$0.19"),
        (units.show_dollars(0.0024), "$0.00240"),
        (units.show_dollars(0), "$0.00"),
    ],
)
def test_shown(shown: str, text: str) -> None:
    """As people write it."""
    assert shown == text


@pytest.mark.parametrize("value", ["8", "8 gb", "8 Gb/s", "-1 GB", "GB", ["1 GB"]])
def test_no_size(value: object) -> None:
    """A number without a unit, or a unit that is none."""
    with pytest.raises(ConfigurationError, match="is no size; write a number and a unit"):
        units.read_bytes(value)


def test_prices() -> None:
    """For bytes, and for so many requests."""
    assert units.read_dollars_per_byte("$0.02/GB") == pytest.approx(2e-11)
    assert units.read_dollars_per_byte("$80,000,000/EB") == pytest.approx(8e-11)
    assert units.read_dollars_each("$0.005/1,000") == pytest.approx(5e-6)
    assert units.read_dollars("$2,250,000") == 2.25e6
    for read in (units.read_dollars_per_byte, units.read_dollars_each, units.read_dollars):
        with pytest.raises(ConfigurationError):
            read("2 cents")

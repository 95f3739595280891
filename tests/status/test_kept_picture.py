"""What records have said is kept for whoever looks next: the picture is the same, and fewer records are read."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from lakehouse_pipeline.errors import TransientError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.ledger.hours import HourLedger, Ledger
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.status import picture
from lakehouse_pipeline.status.picture import KEPT, HourStatus, TableWatch
from tests.backfill.hands import opened, sealed
from tests.iceberg.conftest import catalog, lake
from tests.iceberg.lake import EVENTS, TEN, Lake, hours_after, spec_of

__all__ = ["catalog", "lake"]

HOURS = hours_after(TEN, 4)
Look = Callable[[], list[HourStatus]]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[HourWindow]:
    """Name the hours whose records are read, and let it pay to keep three of them."""
    found: list[HourWindow] = []
    read = Ledger.hour

    def told(self: Ledger, hour: HourWindow) -> HourLedger:
        found.append(hour)
        return read(self, hour)

    monkeypatch.setattr(Ledger, "hour", told)
    monkeypatch.setattr(picture, "PAYS", 3)
    return found


@pytest.fixture
def look(lake: Lake, reads: list[HourWindow]) -> Look:
    """Look at three committed hours and at one that nobody has begun, as a process does that has never looked."""
    for place, hour in enumerate(HOURS[:3]):
        sealed(lake, hour, [place]).commit()
    spec = spec_of(EVENTS, {"table": lake.identifier})

    def looked() -> list[HourStatus]:
        reads.clear()
        return [replace(each, age=timedelta(0)) for each in TableWatch(spec).look(lake.now, HOURS).hours]

    return looked


def kept(lake: Lake) -> str:
    """Say where it is kept."""
    return f"{lake.now.ledger.folder}/{KEPT}"


def test_a_second_process_reads_no_record_again(look: Look, reads: list[HourWindow]) -> None:
    """And has the same picture; the first has read all there are."""
    first = look()
    assert sorted(reads) == HOURS[:3]
    assert [each.state for each in first] == ["committed"] * 3 + ["not requested"]
    assert look() == first
    assert reads == []


def test_hours_age_while_they_are_kept(lake: Lake, look: Look) -> None:
    """How old a record is counts from when it was written, whoever has read it."""
    look()
    spec = spec_of(EVENTS, {"table": lake.identifier})
    first, second = (TableWatch(spec).look(lake.now, HOURS).hours[0].age for _ in range(2))
    assert timedelta(0) < first < second


def test_records_that_were_written_since_are_read(lake: Lake, look: Look, reads: list[HourWindow]) -> None:
    """They alone: what was kept tells of which version it speaks."""
    first = look()
    again = sealed(lake, HOURS[1], [7, 8])
    again.commit()
    told = look()
    assert reads == [HOURS[1]]
    assert (told[1].attempt, told[1].rows) == (again.held.record.committed and again.held.record.committed.attempt, 2)
    assert [told[0], told[2]] == [first[0], first[2]]


def test_hours_under_way_are_read_each_time(lake: Lake, look: Look, reads: list[HourWindow]) -> None:
    """What they are depends on how long ago their holder was heard of."""
    opened(lake, HOURS[3])
    for _ in range(2):
        assert look()[3].state == "running"
        assert HOURS[3] in reads
    assert reads == [HOURS[3]]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"form": 2, "hours": {}}', b'{"hours": {}}', b'{"form": 1, "hours": {"2013-01-01-10:00": [1]}}'],
)
def test_what_cannot_be_read_is_as_if_it_were_lost(
    lake: Lake, look: Look, reads: list[HourWindow], body: bytes
) -> None:
    """Records are read, and it is written anew."""
    first = look()
    lake.now.files.put(kept(lake), body)
    assert look() == first
    assert sorted(reads) == HOURS[:3]
    assert look() == first
    assert reads == []


def test_who_may_not_write_looks_all_the_same(
    lake: Lake, look: Look, reads: list[HourWindow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is kept then."""

    def refused(*_: object, **__: object) -> None:
        raise TransientError("403")

    with monkeypatch.context() as patched:
        patched.setattr(LakehouseFileIO, "put", refused)
        first = look()
    assert [each.state for each in first] == ["committed"] * 3 + ["not requested"]
    assert lake.now.files.head(kept(lake)) is None
    assert look() == first
    assert sorted(reads) == HOURS[:3]


def test_few_records_are_read_and_not_kept(
    lake: Lake, look: Look, reads: list[HourWindow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes as long."""
    monkeypatch.setattr(picture, "PAYS", 4)
    assert look() == look()
    assert sorted(reads) == HOURS[:3]
    assert lake.now.files.head(kept(lake)) is None

"""The ledger: of two writers one is told that it lost, and what is written is read again, on disk and on S3."""

import secrets
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.errors import CommitConflictError, SafetyError, TransientError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.ledger.hours import Ledger
from lakehouse_pipeline.ledger.records import (
    Attempt,
    Committed,
    HourRecord,
    Marker,
    Outcome,
    Seal,
    SealedManifest,
    new_attempt_id,
)
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

TEN = HourWindow.from_key("2013-01-01-10:00")
NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
SEAL = Seal(
    manifests=(SealedManifest(path="s3://lake/t/metadata/A-m0.avro", length=7, files=2, rows=3),),
    files=2,
    rows=3,
    bytes=4,
    rows_read=None,
    rejected=0,
    digest="d",
    table_uuid="u",
    schema_id=0,
    spec_id=0,
    sort_order_id=1,
)
ATTEMPT = Attempt(
    id=new_attempt_id(), run_id="run", opened_at=NOW, opened_on=None, replaces="r", source="s", recipe="e", buckets=3
)
RECORDS = {
    "open on a new table": {"state": "open", "epoch": 1, "attempt": ATTEMPT},
    "sealed": {"state": "sealed", "attempt": ATTEMPT.model_copy(update={"seal": SEAL, "opened_on": 2**62})},
    "committing": {"state": "committing", "attempt": ATTEMPT.model_copy(update={"seal": SEAL, "snapshot_id": 9})},
    "committed, empty": {
        "committed": Committed(attempt="A", at=NOW, snapshot_id=None, source="s", recipe="e", seal=SEAL)
    },
    "failed": {"outcome": Outcome(kind="failed", at=NOW, run_id="run", error="DataError", message="line 3\nü")},
}


@pytest.fixture(params=["file", "s3"])
def book(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    """Give the ledger of a table on each store."""
    if request.param == "s3":
        properties = request.getfixturevalue("seaweed").s3_properties()
        return Ledger(LakehouseFileIO(properties), f"s3://raw/{uuid.uuid4().hex}/events/", "uuid")
    return Ledger(LakehouseFileIO(), f"file://{tmp_path}/events", "uuid")


def test_an_hour_without_a_record_is_idle(book: Ledger) -> None:
    """Nothing is written by looking."""
    assert book.hour(TEN).record == book.hour(TEN).record == HourRecord(hour="2013-01-01-10:00")


@pytest.mark.parametrize("changes", RECORDS.values(), ids=RECORDS)
def test_records_come_back(book: Ledger, changes: dict[str, object]) -> None:
    """Whatever a record says, with or without optional facts, another process reads the same."""
    written = book.hour(TEN).advance(**changes)
    assert book.hour(TEN).record == written == HourRecord(hour=TEN.key, version=1).model_copy(update=changes)


def test_a_record_that_nobody_else_wrote_goes_on(book: Ledger) -> None:
    """One holder writes as often as it likes; the version counts the writes."""
    held = book.hour(TEN)
    for version in range(1, 4):
        assert held.advance(epoch=version).version == version
    assert book.hour(TEN).record == held.record


@pytest.mark.parametrize("began", [False, True], ids=["no record", "a record"])
def test_of_two_holders_one_wins(book: Ledger, *, began: bool) -> None:
    """The second to write what both have read is told that the hour was taken, and changes nothing."""
    if began:
        book.hour(TEN).advance(epoch=1)
    one, two = book.hour(TEN), book.hour(TEN)
    one.advance(state="open", epoch=2)
    for _ in range(2):
        with pytest.raises(
            CommitConflictError, match=r"another run took 2013-01-01-10:00 over, or its record .*10\.json was removed"
        ):
            two.advance(state="open", epoch=2)
    assert book.hour(TEN).record == one.record
    assert two.record.version == int(began)


def test_the_same_words_are_another_version(book: Ledger) -> None:
    """Two holders that write the same facts do not take each other's record for theirs."""
    book.hour(TEN).advance(epoch=1)
    one, two = book.hour(TEN), book.hour(TEN)
    one.advance(epoch=1)
    with pytest.raises(CommitConflictError):
        two.advance(epoch=1)


def test_a_record_that_was_removed_is_lost_to_its_holder(book: Ledger) -> None:
    """A run whose record is gone stops; the next one begins anew."""
    held = book.hour(TEN)
    held.advance(epoch=1)
    LakehouseFileIO.delete(held._objects, held.url)  # type: ignore[arg-type]  # the store of both
    with pytest.raises(CommitConflictError):
        held.advance(epoch=2)
    assert book.hour(TEN).record.version == 0


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"hour": "2013', id="cut off"),
        pytest.param(b'{"version": 1}', id="no hour"),
        pytest.param(b'{"hour": "2013-01-01-10:00", "lease": 5}', id="of a newer version"),
        pytest.param(b'{"hour": "2013-01-01-10:00", "state": "lost"}', id="unknown state"),
        pytest.param(b"\xff\xfe", id="no text"),
    ],
)
def test_a_damaged_record_is_said(tmp_path: Path, body: bytes) -> None:
    """It names the object, and that removing it is safe."""
    files = LakehouseFileIO()
    book = Ledger(files, str(tmp_path), "uuid")
    files.put(book.hour(TEN).url, body)
    with pytest.raises(SafetyError, match=r"2013-01-01-10\.json is no hour record .* Removing the object is safe"):
        book.hour(TEN)


def test_every_table_and_hour_has_its_own_place() -> None:
    """Records lie in a hidden folder beside the table, by its uuid: a table made again begins without records."""
    files = LakehouseFileIO()
    book = Ledger(files, "file:///lake/events/", "u1")
    assert book.hour(TEN).url == "file:///lake/events/_lakehouse/u1/hours/2013-01-01-10.json"
    assert book.rejects_url(TEN, "A") == "file:///lake/events/_lakehouse/u1/rejects/2013-01-01-10/A"
    assert Ledger(files, "file:///lake/events", "u2").folder != book.folder


def test_attempt_ids_are_ulids() -> None:
    """26 characters of Crockford's alphabet, no two alike, that sort by time."""
    ids = []
    for _ in range(5):
        ids += [new_attempt_id() for _ in range(100)]
        time.sleep(0.002)
    assert {len(each) for each in ids} == {26}
    assert set("".join(ids)) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
    assert len(set(ids)) == len(ids)
    firsts = ids[::100]
    assert firsts == sorted(firsts)


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**80 - 1))
def test_an_attempt_id_holds_its_time(milliseconds: int, noise: int) -> None:
    """The first ten characters are the milliseconds since 1970, as ULIDs have them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: milliseconds * 1_000_000)
        patch.setattr(secrets, "randbits", lambda _bits: noise)
        found = new_attempt_id()
    number = 0
    for character in found:
        number = number * 32 + "0123456789ABCDEFGHJKMNPQRSTVWXYZ".index(character)
    assert divmod(number, 2**80) == (milliseconds, noise)


def test_a_lost_answer_does_not_lose_the_hour(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wrote the record without an answer finds what it wrote, and goes on from there."""
    held = book.hour(TEN)
    held.advance(state="open", attempt=ATTEMPT)
    put = LakehouseFileIO.put

    def lost(files: LakehouseFileIO, url: str, body: bytes, **conditions: Any) -> None:
        put(files, url, body, **conditions)
        raise TransientError("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(LakehouseFileIO, "put", lost)
        with pytest.raises(TransientError):
            held.renew(ATTEMPT.id, "etl")
    assert held.renew(ATTEMPT.id, "check")
    assert book.hour(TEN).record == held.record
    assert (held.record.version, held.record.stage) == (3, "check")


def test_a_lost_answer_does_not_win_the_hour_back(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wrote the record without an answer, and finds another's there, has lost the hour."""
    held = book.hour(TEN)

    def away(*_: object, **__: object) -> None:
        raise TransientError("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(LakehouseFileIO, "put", away)
        with pytest.raises(TransientError):
            held.advance(state="open", epoch=1)
    rival = book.hour(TEN)
    rival.advance(state="open", epoch=2)
    with pytest.raises(CommitConflictError):
        held.advance(state="idle")
    assert book.hour(TEN).record == rival.record


def test_a_lease_is_of_one_attempt(book: Ledger) -> None:
    """It is not renewed for one that is under way no more."""
    held = book.hour(TEN)
    held.advance(state="open", attempt=ATTEMPT)
    assert not held.renew("another", "etl")
    assert book.hour(TEN).record.version == 1


def test_markers_tell_their_attempt_and_age(book: Ledger) -> None:
    """Of one hour or of all; a marker that was removed is not met."""
    book.mark(Marker(hour=TEN.key, attempt=ATTEMPT))
    (found,) = book.marked()
    assert (found.hour, found.marker.attempt, found.marker.closed) == (TEN, ATTEMPT, False)
    assert abs(found.age.total_seconds()) < 3600
    assert len(list(book.marked(TEN))) == 1
    assert list(book.marked(HourWindow.from_key("2013-01-01-11:00"))) == []
    book.unmark(TEN, ATTEMPT.id)
    assert list(book.marked()) == []

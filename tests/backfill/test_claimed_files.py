"""Files of attempts are removed by their names alone: those that are planned, and those that their writers claimed."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER

from lakehouse_pipeline.backfill.attempts import HourInHand
from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.errors import TransientError
from lakehouse_pipeline.iceberg import data_files
from lakehouse_pipeline.iceberg.claims import claims_in
from lakehouse_pipeline.iceberg.data_files import WrittenFile, put_new, write_batches, written_files
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.schemas import partition_spec_of, schema_of
from lakehouse_pipeline.iceberg.tables import NEW_TABLE_PROPERTIES, open_catalog
from lakehouse_pipeline.object_store import s3 as s3_store
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.requests import DELETE_PAGE_KEYS
from tests.backfill.hands import in_hand, new_attempt, opened, sealed
from tests.backfill.memory import MemoryAccess, MemoryCatalog, MemoryS3, Weather
from tests.iceberg.lake import EVENTS, MEGABYTE, TEN, Lake, columns, events, in_bucket, spec_of

LOCATION = "s3://lake/events"
OF_THE_LEDGER = 4  # the record and the marker are written, claims and rejects are listed


@pytest.fixture
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Give a table in a SQLite catalog of its own."""
    folder = tmp_path_factory.mktemp("lake")
    return Lake.create(
        open_catalog({"type": "sql", "uri": f"sqlite:///{folder}/c.db", "warehouse": f"file://{folder}/w"})
    )


@pytest.fixture
def a_file_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let buckets roll over at every row."""
    monkeypatch.setattr(data_files, "SMALLEST_ROW_GROUP", 1)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryS3:
    """Give a store in this process."""
    store = MemoryS3(Weather())
    monkeypatch.setattr(s3_store, "s3_access", lambda _connection: MemoryAccess(store))
    return store


@pytest.fixture
def counted(store: MemoryS3) -> tuple[HourlyTable, Callable[[], int]]:
    """Give a table in the store, and what tells how many requests that has had."""
    assert not store.objects
    schema = schema_of(columns(EVENTS))
    spec = partition_spec_of(schema, spec_of(EVENTS, {}))
    metadata = new_table_metadata(schema, spec, UNSORTED_SORT_ORDER, LOCATION, dict(NEW_TABLE_PROPERTIES))
    catalog = MemoryCatalog(Weather(), metadata, MemoryS3(Weather()))
    table = HourlyTable(catalog, catalog.load_table("lake.events"), "at")
    return table, lambda: table.files.counts().requests


def write(lake: Lake, attempt: str, files: int, bucket: int = 0) -> list[WrittenFile]:
    """Write a bucket as one task does, in so many files."""
    return lake.write(TEN, [in_bucket(bucket, events(TEN, range(files)))], attempt, file_size=1)


def claims(lake: Lake, attempt: str) -> list[str]:
    """Name what the attempt's writers claimed."""
    folder = lake.now.ledger.claims_url(TEN, attempt)
    return sorted(item.url.removeprefix(f"{folder}/") for item in lake.now.files.list_objects(f"{folder}/"))


def second_pass(lake: Lake) -> None:
    """Make the second pass, at once."""
    close_attempts(lake.now, lambda _run_id: True, grace=timedelta(0))


def assert_nothing_left(lake: Lake) -> None:
    """Neither a file of an attempt nor a claim or a marker is left."""
    assert lake.unreached() == set()
    assert [url for url in lake.stored("_lakehouse") if "/hours/" not in url] == []


@pytest.mark.parametrize("files", [1, 250, 251, 1000])
def test_a_failed_attempt_is_closed_with_few_requests(
    store: MemoryS3, counted: tuple[HourlyTable, Callable[[], int]], files: int
) -> None:
    """One asks for its first manifest, one lists uploads; each page of a delete takes 250 names. Nothing is left."""
    table, requests = counted
    hand = HourInHand(table, TEN, table.ledger.hour(TEN), "run")
    hand.open(new_attempt(table, TEN, buckets=files))
    target = table.target(TEN, hand.attempt.id, MEGABYTE)
    for bucket in range(files):
        table.files.put(target.file_url(bucket, 0, 0), b"rows", if_absent=True)
    before = requests()
    hand.close(RuntimeError("failed"))
    assert requests() - before == 2 + -(-files // DELETE_PAGE_KEYS) + OF_THE_LEDGER
    assert store.urls(f"{LOCATION}/data/") == set()


def test_an_ordinary_bucket_claims_nothing(store: MemoryS3, counted: tuple[HourlyTable, Callable[[], int]]) -> None:
    """A file is one request on the way of an hour."""
    table, _ = counted
    target = table.target(TEN, "A", MEGABYTE)
    (sent,) = write_batches(target, [in_bucket(bucket, events(TEN, [1])) for bucket in range(3)])
    assert (len(written_files([sent])), data_files.requests_sent([sent]).requests) == (3, 3)
    assert len(store.urls(LOCATION)) == 3


@pytest.mark.usefixtures("a_file_each_row")
@pytest.mark.parametrize(("files", "claimed"), [(1, 0), (2, 1), (3, 2), (5, 3), (100, 7)])
def test_a_bucket_claims_files_in_powers_of_two(lake: Lake, files: int, claimed: int) -> None:
    """A bucket of a hundred files makes seven claims; each file is claimed before it is there."""
    assert len(write(lake, "A", files)) == files
    assert claims(lake, "A") == sorted(f"00000-{2**step}-1.json" for step in range(1, claimed + 1))


@pytest.mark.usefixtures("a_file_each_row")
def test_files_are_claimed_before_they_are_put(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever a task dies, be it the first or one that runs again, its files are among the names that are known."""
    attempt = new_attempt(lake.now, TEN)
    put, seen = LakehouseFileIO.put, list[str]()

    def watched(self: LakehouseFileIO, url: str, *given: Any, **named: Any) -> Any:
        if url.endswith(".parquet"):
            seen.append(url)
            assert url in lake.now.files_of(TEN, attempt)._named(None)
        return put(self, url, *given, **named)

    monkeypatch.setattr(LakehouseFileIO, "put", watched)
    for files in (3, 5, 2):
        write(lake, attempt.id, files)
    assert len(seen) == 3 + (3 + 5) + 2 * 3


@pytest.mark.parametrize("arrived", [True, False], ids=["arrived", "lost"])
def test_nothing_is_put_where_a_claim_was_not_answered(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, *, arrived: bool
) -> None:
    """Whether or not the claim is there, the file is not; a claim without a file goes with its attempt."""
    hand = opened(lake, TEN)
    put = LakehouseFileIO.put

    def refuse(self: LakehouseFileIO, url: str, *given: Any, **named: Any) -> Any:
        if "/claims/" in url:
            if arrived:
                put(self, url, *given, **named)
            raise TransientError(url)
        return put(self, url, *given, **named)

    target = hand.table.target(TEN, hand.attempt.id, MEGABYTE)
    with monkeypatch.context() as patched:
        patched.setattr(LakehouseFileIO, "put", refuse)
        with pytest.raises(TransientError):
            put_new(target, (0, 1, ""), lambda url: target.files.put(url, b"", if_absent=True), target.new_claims())
    assert (lake.stored("data"), len(claims(lake, hand.attempt.id))) == (set(), int(arrived))
    hand.close(RuntimeError("failed"))
    second_pass(lake)
    assert_nothing_left(lake)


@pytest.mark.usefixtures("a_file_each_row")
def test_a_writer_that_rolls_over_after_the_first_pass_leaves_nothing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it claims then is known to the second pass."""
    hand = opened(lake, TEN)
    put, late = LakehouseFileIO.put, list[str]()

    def closed_meanwhile(self: LakehouseFileIO, url: str, *given: Any, **named: Any) -> Any:
        if url.endswith("-1-0.parquet"):  # the bucket's second file
            in_hand(lake, TEN, "run").close(RuntimeError("failed"))
            assert lake.stored("data") == set()
        late.append(url)
        return put(self, url, *given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(LakehouseFileIO, "put", closed_meanwhile)
        write(lake, hand.attempt.id, 5)
    assert len(lake.stored("data")) == 4
    second_pass(lake)
    assert_nothing_left(lake)


@pytest.mark.usefixtures("a_file_each_row")
def test_what_an_earlier_writing_put_goes_when_another_lands(lake: Lake) -> None:
    """Of a task that ran twice the files of one writing are the table's; the others go, even if they are more."""
    hand = opened(lake, TEN)
    write(lake, hand.attempt.id, 6)
    written = write(lake, hand.attempt.id, 3)
    assert all(file.path.endswith("-1.parquet") for file in written)
    hand.seal(hand.table.seal(hand.attempt.id, written, rows_read=None, rejected=0))
    hand.commit()
    assert (lake.files(TEN), lake.rows()) == ({file.path for file in written}, {TEN.key: [0, 1, 2]})
    assert_nothing_left(lake)


@pytest.mark.usefixtures("a_file_each_row")
@pytest.mark.parametrize("named", [True, False], ids=["of this version", "of an earlier one"])
def test_an_abandoned_attempt_of_several_files_leaves_nothing(lake: Lake, *, named: bool) -> None:
    """Nor one that an earlier version has opened, and sealed."""
    sealed(lake, TEN, [8]).commit()
    hand = in_hand(lake, TEN)
    hand.open(new_attempt(lake.now, TEN).model_copy(update={"named": named}))
    written = [*write(lake, hand.attempt.id, 2), *write(lake, hand.attempt.id, 5)]
    hand.seal(hand.table.seal(hand.attempt.id, written[2:], rows_read=None, rejected=0))
    assert hand.abandon("not wanted") is None
    second_pass(lake)
    second_pass(lake)
    assert (lake.rows(), lake.missing()) == ({TEN.key: [8]}, set())
    assert_nothing_left(lake)


def test_an_earlier_versions_claims_are_understood(lake: Lake) -> None:
    """It said that a bucket was written twice, and neither how often nor in how many files."""
    hand = in_hand(lake, TEN)
    hand.open(new_attempt(lake.now, TEN).model_copy(update={"named": False}))
    target = hand.table.target(TEN, hand.attempt.id, MEGABYTE)
    body = b'{"bucket":0,"paths":[],"again":true,"fence":"","replaces":[]}'
    target.files.put(f"{target.claims}/00000-{'0' * 32}.json", body)
    for file, attempt_try in ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2)):
        target.files.put(target.file_url(0, file, attempt_try), b"rows")
    assert claims_in(target.files, target.claims)[0].is_of_several
    (written,) = lake.write(TEN, [in_bucket(0, events(TEN, [1]))], hand.attempt.id)
    hand.seal(hand.table.seal(hand.attempt.id, [written], rows_read=None, rejected=0))
    hand.commit()
    assert lake.files(TEN) == {written.path}
    assert_nothing_left(lake)


@pytest.mark.parametrize("marked", [True, False], ids=["marked", "not marked"])
@pytest.mark.parametrize("by", ["the sensor", "the next run"])
def test_a_record_that_comes_back_costs_the_table_nothing(lake: Lake, by: str, *, marked: bool) -> None:
    """A late write may say of an attempt that it is open that has landed since: its files are the table's."""
    hand = opened(lake, TEN)
    stale, marker = hand.held.record, next(iter(lake.now.ledger.marked())).marker
    (written,) = lake.write(TEN, [in_bucket(0, events(TEN, [1, 2]))], hand.attempt.id)
    hand.seal(hand.table.seal(hand.attempt.id, [written], rows_read=None, rejected=0))
    hand.commit()
    lake.now.files.put(hand.held.url, stale.model_dump_json().encode())
    if marked:
        lake.now.ledger.mark(marker)
    if by == "the next run":
        opened(lake, TEN, "next").close(RuntimeError("failed"))
    for _ in range(2):
        second_pass(lake)
    assert (lake.rows(), lake.missing()) == ({TEN.key: [1, 2]}, set())

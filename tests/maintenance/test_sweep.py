"""Sweeps: exactly the orphans go, whatever else lies beside them; each guard stops what it is there for."""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import pyarrow as pa
import pytest
from pyarrow import csv, parquet
from pyiceberg.catalog import Catalog
from pyiceberg.table.statistics import BlobMetadata, PartitionStatisticsFile, StatisticsFile
from pyiceberg.table.update import SetPartitionStatisticsUpdate

from lakehouse_pipeline import events
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.errors import CommitConflictError, ConfigurationError, LakehouseError, SafetyError
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.ledger.leases import LeaseHeldError
from lakehouse_pipeline.ledger.records import new_attempt_id
from lakehouse_pipeline.maintenance.audit import Audit, AuditReport, SweepRules
from lakehouse_pipeline.maintenance.lease import maintaining
from lakehouse_pipeline.maintenance.listing import list_side_by_side
from lakehouse_pipeline.maintenance.quarantine import Quarantine
from lakehouse_pipeline.maintenance.sweep import Swept, audit_table, last_audit, purge, restore, sweep
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import ObjectInfo
from lakehouse_pipeline.object_store.places import Aliases
from tests.backfill.hands import in_hand, new_attempt, opened, seal
from tests.iceberg.lake import ELEVEN, EVENTS, TEN, TWELVE, Lake, spec_of
from tests.iceberg.lake import events as events_of

DAY = timedelta(days=1)
RULES = SweepRules(older_than=3 * DAY)


@pytest.fixture
def s3_catalog(seaweed: SeaweedServer, tmp_path: Path) -> Iterator[Catalog]:
    """Give a SQL catalog of tables in a plain bucket: in a table bucket SeaweedFS refuses odd names."""
    place = {"type": "sql", "uri": f"sqlite:///{tmp_path}/s3.db", "warehouse": f"s3://plain/{uuid.uuid4().hex}"}
    opened_one = open_catalog({**place, **seaweed.s3_properties()})
    yield opened_one
    opened_one.close()


@pytest.fixture(params=["file", "s3"])
def wide(request: pytest.FixtureRequest) -> Lake:
    """Give an empty table of events by hour and name, in a folder and in a bucket."""
    found: Catalog = request.getfixturevalue("s3_catalog" if request.param == "s3" else "catalog")
    return Lake.create(found, partition=["name"])


def later(lake: Lake, after: timedelta = 4 * DAY) -> datetime:
    """Give a time by the store's clock at which what lies there is old."""
    return lake.now.files.put(f"{lake.now.location}/_clock", b"").modified + after


def spec(lake: Lake) -> TableSpec:
    """Give the table's spec."""
    return spec_of(EVENTS, {"table": lake.identifier})


def swept(lake: Lake, rules: SweepRules = RULES, *, delete: bool = False, run_id: str = "sweeper") -> Swept:
    """Sweep, days later."""
    table = lake.now
    rules = rules if rules.moment else replace(rules, moment=later(lake))
    with maintaining(table, "sweep", run_id) as held:
        return sweep(Warehouse(lake.catalog, table.files), spec(lake), table, rules, held, delete=delete)


def audited(lake: Lake, rules: SweepRules = RULES) -> AuditReport:
    """Look, days later."""
    table = lake.now
    rules = rules if rules.moment else replace(rules, moment=later(lake))
    with maintaining(table, "sweep", "auditor") as held:
        return audit_table(Warehouse(lake.catalog, table.files), spec(lake), table, rules, held)


def litter(lake: Lake, *names: str) -> set[str]:
    """Put files that are nobody's; gives their URLs."""
    urls = {f"{lake.now.location}/{name}" for name in names}
    for url in urls:
        lake.now.files.put(url, url.encode())
    return urls


def there(lake: Lake) -> set[str]:
    """Name all that lies in the table's folder, and in those whose names begin with its name, but for the ledger."""
    found = {item.url for item in lake.now.files.list_objects(lake.now.location)}
    return {url for url in found if "/_lakehouse/" not in url and not url.endswith("/_clock")}


def in_quarantine(lake: Lake) -> set[str]:
    """Name the moved files' copies."""
    listed = lake.now.files.list_objects(f"{lake.now.ledger.folder}/quarantine/")
    return {item.url for item in listed if "/objects/" in item.url}


def boto(seaweed: SeaweedServer) -> Any:
    """Give a client of a stranger's."""
    return boto3.client(
        "s3",
        endpoint_url=seaweed.endpoint,
        region_name="us-east-1",
        aws_access_key_id=seaweed.access_key_id,
        aws_secret_access_key=seaweed.secret_access_key,
    )


# ---------------------------------------------------------------------------------------------------------------------
# What goes, and what stays
# ---------------------------------------------------------------------------------------------------------------------

ORPHANS = [
    "data/foreign.parquet",
    "data/0101/1100/0011/00001111/at_hour=2026-01-01-10/foreign.parquet",
    "data/xY_z1-/at_hour=2026-01-01-10/00000-base64.parquet",
    "data/ä b%20c+&=#?*~'\"().parquet",
    "data/at_hour=_hidden_?/x.parquet",
    "metadata/snap-1-2-foreign.avro",
    "metadata/foreign-m0.avro",
    "metadata/foreign.stats",
    "stray-at-the-root.txt",
]
HIDDEN = ["data/_temporary/0/x.parquet", "data/.staging/x.parquet", "data/_SUCCESS", ".hidden", "_delta_log/0.json"]


def with_history(lake: Lake) -> set[str]:
    """Fill a table: hours that were replaced, a branch, a tag, an expired snapshot, statistics; gives the orphans."""
    lake.put(TEN, [1, 2])
    lake.put(ELEVEN, [3])
    first = lake.now.table.current_snapshot()
    assert first is not None
    lake.put(TEN, [4])
    lost = lake.now.table.current_snapshot()
    assert lost is not None
    lake.put(TEN, [5, 6])
    table = lake.now.table
    table.manage_snapshots().create_tag(first.snapshot_id, "year end").create_branch(first.snapshot_id, "dev").commit()
    lake.append(events_of(TWELVE, [7]), branch="dev")
    before = lake.reached()
    lake.now.table.maintenance.expire_snapshots().by_id(lost.snapshot_id).commit()
    only_lost = before - lake.reached()
    assert only_lost
    statistics = f"{lake.now.location}/metadata/{first.snapshot_id}.stats"
    of_partitions = f"{lake.now.location}/metadata/partition-stats-{first.snapshot_id}.parquet"
    for url in (statistics, of_partitions):
        lake.now.files.put(url, b"statistics")
    told = StatisticsFile(
        snapshot_id=first.snapshot_id,
        statistics_path=statistics,
        file_size_in_bytes=10,
        file_footer_size_in_bytes=4,
        blob_metadata=[
            BlobMetadata(
                type="apache-datasketches-theta-v1", snapshot_id=first.snapshot_id, sequence_number=1, fields=[1]
            )
        ],
    )
    with lake.now.table.update_statistics() as update:
        update.set_statistics(told)
    lake.now.table._do_commit(  # PyIceberg has no face for these
        updates=(
            SetPartitionStatisticsUpdate(
                partition_statistics=PartitionStatisticsFile(
                    snapshot_id=first.snapshot_id, statistics_path=of_partitions, file_size_in_bytes=10
                )
            ),
        ),
        requirements=(),
    )
    return only_lost


def test_exactly_the_orphans_go(wide: Lake) -> None:
    """Beside each kind of file that must stay; what went is in the quarantine, and comes back byte for byte."""
    lake = wide
    orphans = with_history(lake) | litter(lake, *ORPHANS)
    kept = litter(lake, *HIDDEN)
    running = seal(lake, opened(lake, TWELVE), [8, 9])  # sealed long ago, and not committed yet
    forgotten = lake.write(ELEVEN, [])  # nothing
    assert forgotten == []
    lost = lake.seal(ELEVEN, [10])  # of an attempt that no ledger knows
    orphans |= {url for url in there(lake) if lost.attempt in url}
    twin = f"{lake.now.location}_v2/data/x.parquet"
    lake.now.files.put(twin, b"another table's")
    before = there(lake)
    contents = {url: lake.now.files.get(url).body for url in orphans}

    told = swept(lake)
    assert before - there(lake) == orphans
    assert told.report.orphans.files == told.files == len(orphans)
    assert told.bytes == sum(map(len, contents.values()))
    assert told.spared == 0
    assert told.report.kept["of an attempt in the ledger"].files == len([u for u in before if running.attempt.id in u])
    assert kept <= there(lake)
    assert twin in there(lake)
    assert lake.missing() == set()
    assert lake.rows() == {TEN.key: [5, 6], ELEVEN.key: [3]}
    tag = lake.now.table.metadata.refs["year end"].snapshot_id
    assert lake.rows(tag) == {TEN.key: [1, 2], ELEVEN.key: [3]}
    running.commit()
    assert lake.rows()[TWELVE.key] == [8, 9]

    assert audited(lake).orphans.files == 0
    with maintaining(lake.now, "restore", "somebody") as held:
        restored = restore(lake.now, told.sweep, held)
    assert (restored.files, restored.bytes, restored.there) == (len(orphans), told.bytes, ())
    assert {url: lake.now.files.get(url).body for url in orphans} == contents
    assert in_quarantine(lake) == set()


def test_for_good(wide: Lake) -> None:
    """Nothing is kept of what is deleted, but the record that it was."""
    wide.put(TEN, [1])
    orphans = litter(wide, *ORPHANS)
    told = swept(wide, delete=True)
    assert there(wide) & orphans == set()
    assert in_quarantine(wide) == set()
    with maintaining(wide.now, "restore", "x") as held, pytest.raises(SafetyError, match=r"no sweep .* \(deleted\)"):
        restore(wide.now, told.sweep, held)


def test_a_table_without_orphans_is_left_alone(wide: Lake) -> None:
    """Nothing is written but what the audit found."""
    wide.put(TEN, [1])
    told = swept(wide)
    assert (told.sweep, told.files) == ("", 0)
    found = last_audit(wide.now)
    assert found is not None
    assert (found.orphans, found.orphan_bytes, found.uploads) == (0, 0, 0)


def test_an_audit_removes_nothing_and_says_what_a_sweep_would(wide: Lake) -> None:
    """It is remembered for `lakehouse health`."""
    wide.put(TEN, [1])
    orphans = litter(wide, *ORPHANS)
    report = audited(wide)
    assert report.orphans.files == len(orphans)
    assert set(report.examples) <= orphans
    assert orphans <= there(wide)
    found = last_audit(wide.now)
    assert found is not None
    assert (found.orphans, found.orphan_bytes) == (len(orphans), report.orphans.bytes)


def test_what_is_young_stays(lake: Lake) -> None:
    """By the store's clock: the age counts from when the store wrote the file."""
    lake.put(TEN, [1])
    litter(lake, "data/x.parquet")
    rules = replace(RULES, moment=later(lake, timedelta(days=2, hours=23)))
    assert swept(lake, rules).files == 0
    assert audited(lake, rules).kept["too young"].files >= 1
    assert swept(lake, replace(RULES, moment=later(lake, timedelta(days=3, minutes=1)))).files == 1


def test_many_files_are_swept_by_the_page(lake: Lake) -> None:
    """More than one answer of a listing, more than one batch of deletes, in folders of every depth."""
    lake.put(TEN, [1])
    names = [f"data/{number % 7:04b}/{number % 3}/{number}.parquet" for number in range(620)]
    orphans = litter(lake, *names)
    told = swept(lake)
    assert told.files == len(orphans)
    assert there(lake) & orphans == set()
    assert len(in_quarantine(lake)) == len(orphans)


def test_uploads_that_nobody_goes_on_with_end(s3_catalog: Catalog, seaweed: SeaweedServer) -> None:
    """Those of the table alone, and none of an attempt that the ledger knows."""
    lake = Lake.create(s3_catalog)
    lake.put(TEN, [1])
    client, key = boto(seaweed), lake.now.location.removeprefix("s3://plain/")
    running = opened(lake, ELEVEN)

    def begin(name: str) -> str:
        return str(client.create_multipart_upload(Bucket="plain", Key=name)["UploadId"])

    leaked = begin(f"{key}/data/leaked.parquet")
    kept = {begin(f"{key}_v2/data/x.parquet"), begin(f"{key}/data/00000-{running.attempt.id}-0-0.parquet")}

    def uploads() -> set[str]:
        listed = client.list_multipart_uploads(Bucket="plain").get("Uploads", [])
        return {each["UploadId"] for each in listed} & {leaked, *kept}

    assert swept(lake, replace(RULES, moment=later(lake, 2 * DAY))).uploads == 0
    assert uploads() == {leaked, *kept}
    told = swept(lake)
    assert (told.uploads, told.report.uploads_kept) == (1, 1)
    assert uploads() == kept


# ---------------------------------------------------------------------------------------------------------------------
# Guards: each stands in the way of a loss that somebody has had
# ---------------------------------------------------------------------------------------------------------------------


def refused(lake: Lake, saying: str, rules: SweepRules = RULES) -> None:
    """Sweep in vain: nothing is removed, and the error says why."""
    before = there(lake)
    with pytest.raises(SafetyError, match=saying):
        swept(lake, rules)
    assert there(lake) == before


def test_a_table_that_shares_its_files_is_not_swept(lake: Lake) -> None:
    """By its own word."""
    lake.put(TEN, [1])
    litter(lake, "data/x.parquet")
    with lake.now.table.transaction() as transaction:
        transaction.set_properties({"gc.enabled": "false"})
    refused(lake, "gc.enabled=false")


@pytest.mark.parametrize("where", ["below", "above", "data"])
def test_a_table_with_another_in_its_folders_is_not_swept(catalog: Catalog, where: str) -> None:
    """One in the catalog, whose files it does not reach: below it, around it, or with the same data path."""
    lake = Lake.create(catalog)
    lake.put(TEN, [1])
    litter(lake, "data/x.parquet")
    location = lake.now.location
    others = {
        "below": (f"{location}/other", {}),
        "above": (location.rpartition("/")[0], {}),
        "data": (f"{location}_v2", {"write.data.path": f"{location}/data"}),
    }
    place, properties = others[where]
    catalog.create_namespace_if_not_exists("another")
    catalog.create_table("another.other", lake.now.table.schema(), location=place, properties=properties)
    refused(lake, "another.other has files in")


def test_a_neighbour_whose_name_begins_alike_is_no_obstacle(catalog: Catalog) -> None:
    """`events_v2` is not in `events`."""
    lake = Lake.create(catalog)
    lake.put(TEN, [1])
    orphans = litter(lake, "data/x.parquet")
    catalog.create_table(f"{lake.identifier}_v2", lake.now.table.schema(), location=f"{lake.now.location}_v2")
    assert swept(lake).files == len(orphans)


def test_metadata_of_a_table_that_the_catalog_does_not_know_stop_a_sweep(catalog: Catalog) -> None:
    """Another catalog may have it; whoever knows that it is no more says so."""
    lake = Lake.create(catalog)
    catalog.create_namespace_if_not_exists("another")
    other = catalog.create_table("another.other", lake.now.table.schema(), location=f"{lake.now.location}/other")
    catalog.drop_table("another.other")
    lake.put(TEN, [1])
    former = str(other.metadata.table_uuid)
    refused(lake, f"metadata of other tables: {former}")
    told = swept(lake, replace(RULES, former=frozenset({former})))
    assert told.files == 1
    assert other.metadata_location not in there(lake)


def test_young_metadata_of_another_table_stop_a_sweep_too(catalog: Catalog) -> None:
    """Its files are older than they are."""
    lake = Lake.create(catalog)
    lake.put(TEN, [1])
    catalog.create_namespace_if_not_exists("another")
    catalog.create_table("another.other", lake.now.table.schema(), location=f"{lake.now.location}/other")
    catalog.drop_table("another.other")
    (orphan,) = litter(lake, "data/x.parquet")
    old = time.time() - 7 * 24 * 3600
    os.utime(orphan.removeprefix("file://"), (old, old))
    refused(lake, "metadata of other tables", replace(RULES, moment=later(lake, timedelta(0))))


def test_what_a_catalog_names_outside_of_metadata_stays(lake: Lake) -> None:
    """A Hadoop catalog finds its table by this file."""
    lake.put(TEN, [1])
    litter(lake, "metadata/version-hint.text")
    told = swept(lake)
    assert (told.files, told.report.kept["named by the catalog"].files) == (0, 1)


def test_an_upload_of_an_attempt_that_has_begun_meanwhile_goes_on(s3_catalog: Catalog, seaweed: SeaweedServer) -> None:
    """It is asked for again, as files are."""
    lake = Lake.create(s3_catalog)
    lake.put(TEN, [1])
    litter(lake, "data/x.parquet")
    hand, attempt = in_hand(lake, ELEVEN), new_attempt_id()
    key = lake.now.location.removeprefix("s3://plain/")
    boto(seaweed).create_multipart_upload(Bucket="plain", Key=f"{key}/data/00000-{attempt}-0-0.parquet")

    def begin() -> None:
        hand.open(new_attempt(hand.table, ELEVEN).model_copy(update={"id": attempt}))

    with events.subscribed(heard("sweep.began", begin)):
        told = swept(lake)
    assert (len(told.report.uploads), told.uploads) == (1, 0)


def test_a_lost_lease_ends_a_sweep_before_its_uploads(
    s3_catalog: Catalog, seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is aborted by who no longer holds it."""
    lake = Lake.create(s3_catalog)
    lake.put(TEN, [1])
    key = lake.now.location.removeprefix("s3://plain/")
    boto(seaweed).create_multipart_upload(Bucket="plain", Key=f"{key}/data/leaked.parquet")
    look = Audit.look

    def and_then(audit: Audit) -> None:
        look(audit)
        assert len(audit.report.uploads) == 1
        assert lake.now.ledger.turn("maintenance", "another").take(lambda _: True)

    monkeypatch.setattr(Audit, "look", and_then)
    with pytest.raises(CommitConflictError, match="taken the maintenance lease"):
        swept(lake)
    assert len(list(lake.now.files.list_uploads(f"{lake.now.location}/"))) == 1


@pytest.mark.parametrize(
    "does",
    [
        pytest.param(lambda table, told, held: restore(table, told.sweep, held), id="restore"),
        pytest.param(lambda table, _, held: purge(table, timedelta(0), held), id="purge"),
    ],
)
def test_a_lost_lease_ends_what_is_done_with_the_quarantine(lake: Lake, does: Callable[..., object]) -> None:
    """Before it begins."""
    lake.put(TEN, [1])
    litter(lake, "data/x.parquet")
    told = swept(lake)
    before = in_quarantine(lake)
    with maintaining(lake.now, "quarantine", "x") as held:
        assert lake.now.ledger.turn("maintenance", "another").take(lambda _: True)
        with pytest.raises(CommitConflictError, match="taken the maintenance lease"):
            does(lake.now, told, held)
    assert in_quarantine(lake) == before


def test_a_listing_that_misses_what_is_reached_is_not_relied_on(lake: Lake) -> None:
    """Be it that the file is lost, or that the store did not say all."""
    lake.put(TEN, [1])
    litter(lake, "data/x.parquet")
    (path,) = lake.files(TEN)
    body = lake.now.files.get(path).body
    lake.now.files.delete(path)
    refused(lake, "of the files that .* reaches 1 were not listed")
    lake.now.files.put(path, body)
    assert swept(lake).files == 1


def test_a_bucket_that_keeps_versions_is_not_swept(seaweed: SeaweedServer, tmp_path: Path) -> None:
    """There a delete frees nothing."""
    bucket = f"versions-{uuid.uuid4().hex[:8]}"
    client = boto(seaweed)
    client.create_bucket(Bucket=bucket)
    place = {"type": "sql", "uri": f"sqlite:///{tmp_path}/v.db", "warehouse": f"s3://{bucket}/w"}
    lake = Lake.create(open_catalog({**place, **seaweed.s3_properties()}))
    lake.put(TEN, [1])
    litter(lake, "data/x.parquet")
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    refused(lake, "keeps versions")
    lake.catalog.close()


def respelled(lake: Lake, old: str, new: str) -> None:
    """Put one more file into the table, by another spelling of its URL."""
    source = next(iter(lake.files(TEN)))
    url = f"{lake.now.location}/data/respelled.parquet"
    lake.now.files.copy(source, url)
    lake.now.table.add_files([url.replace(old, new, 1)])


@pytest.mark.parametrize("spelling", ["s3a", "s3n"])
def test_hadoops_spellings_of_s3_are_the_same(s3_catalog: Catalog, spelling: str) -> None:
    """As Iceberg has it: `equal_schemes`."""
    lake = Lake.create(s3_catalog)
    lake.put(TEN, [1])
    respelled(lake, "s3://", f"{spelling}://")
    assert swept(lake).files == 0
    assert lake.rows() == {TEN.key: [1, 1]}


def test_a_file_that_is_reached_by_another_bucket_is_doubtful(s3_catalog: Catalog, seaweed: SeaweedServer) -> None:
    """Nothing is swept until somebody says what that means: the same, to be kept, or to be taken."""
    alias = f"alias-{uuid.uuid4().hex[:8]}"
    boto(seaweed).create_bucket(Bucket=alias)
    lake = Lake.create(s3_catalog)
    lake.put(TEN, [1])
    source = next(iter(lake.files(TEN)))
    url = f"{lake.now.location}/data/respelled.parquet"
    other = url.replace("s3://plain/", f"s3://{alias}/")
    for place in (url, other):
        lake.now.files.put(place, lake.now.files.get(source).body)
    lake.now.table.add_files([other])
    refused(lake, "is s3://alias-.* in the metadata")
    assert swept(lake, replace(RULES, prefix_mismatch="ignore")).files == 0
    assert swept(lake, replace(RULES, aliases=Aliases(authorities={alias: "plain"}))).files == 0
    told = swept(lake, replace(RULES, prefix_mismatch="delete"))
    assert told.files == 1
    assert url not in there(lake)
    assert lake.rows() == {TEN.key: [1, 1]}


def test_too_much_is_refused(lake: Lake) -> None:
    """By count, and by share of the bytes; the audit tells it without an error."""
    lake.put(TEN, [1])
    litter(lake, "data/x.parquet", "data/y.parquet")
    refused(lake, "2 orphans are more than the 1", replace(RULES, max_files=1))
    refused(lake, "of the bytes", replace(RULES, max_share=0.001))
    assert audited(lake, replace(RULES, max_files=1)).refused


@pytest.mark.parametrize("state", ["open", "sealed", "closed"])
def test_files_of_an_attempt_that_the_ledger_knows_stay(lake: Lake, state: str) -> None:
    """However old: a paused backfill may go on; what a failed one left is the ledger's to remove."""
    lake.put(TEN, [1])
    hand = opened(lake, ELEVEN)
    lake.write(ELEVEN, [], hand.attempt.id)
    name = f"data/00000-{hand.attempt.id}-0-0.parquet"
    if state == "sealed":
        seal(lake, hand, [2])
    elif state == "closed":
        hand.close(ValueError("it failed"))
    late = litter(lake, name)  # in time, or after it was closed
    assert swept(lake).files == 0
    assert late <= there(lake)


def heard(name: str, does: Callable[[], object]) -> events.Subscriber:
    """Give a subscriber that does something at the first event of a name."""
    done: list[bool] = []

    def subscriber(event: events.Event) -> None:
        if event.name == name and not done:
            done.append(True)
            does()

    return subscriber


def test_an_attempt_that_lands_between_ledger_and_table_is_met(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger is asked first: whoever is in it no more is in the table by then."""
    lake.put(TEN, [1])
    hand = seal(lake, opened(lake, ELEVEN), [2])
    asked: list[bool] = []

    def and_then_lands(what: str) -> None:
        ask = getattr(Audit, what)

        def asks(audit: Audit) -> Any:
            found = ask(audit)
            if not asked:
                asked.append(True)
                hand.commit()
            return found

        monkeypatch.setattr(Audit, what, asks)

    for what in ("_at_work", "_loaded"):  # after whichever comes first
        and_then_lands(what)
    assert swept(lake).report.orphans.files == 0
    assert lake.rows() == {TEN.key: [1], ELEVEN.key: [2]}


def test_a_table_that_was_replaced_while_it_was_listed_is_not_swept(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the new one reaches is not what was listed."""
    lake.put(TEN, [1])
    litter(lake, "data/x.parquet")
    schema, location = lake.now.table.schema(), lake.now.location

    def and_then(*args: Any) -> None:
        list_side_by_side(*args)
        lake.catalog.drop_table(lake.identifier)
        lake.catalog.create_table(lake.identifier, schema, location=location)

    monkeypatch.setattr("lakehouse_pipeline.maintenance.audit.list_side_by_side", and_then)
    with pytest.raises(SafetyError, match="was dropped or replaced while its folders were listed"):
        swept(lake)


def test_a_table_that_cannot_be_loaded_may_share_the_folders(lake: Lake) -> None:
    """So that nothing is swept."""
    lake.put(TEN, [1])
    lake.catalog.create_namespace_if_not_exists("another")
    broken = lake.catalog.create_table("another.broken", lake.now.table.schema())
    lake.now.files.put(broken.metadata_location, b"{")
    refused(lake, "whether another.broken shares a folder with .* cannot be told")


def test_metadata_that_name_what_is_gone_are_said(lake: Lake) -> None:
    """Somebody else may expire snapshots just now: it is no crash."""
    lake.put(TEN, [1])
    lake.put(TEN, [2])
    lake.now.files.delete(lake.now.table.metadata.snapshots[0].manifest_list)
    with pytest.raises(CommitConflictError, match="is gone, which the table reaches"):
        swept(lake)


def test_what_is_committed_after_the_audit_is_spared(lake: Lake) -> None:
    """By a writer without a ledger, whose files had lain there for days: each batch asks the table again."""
    lake.put(TEN, [1])
    late = lake.seal(ELEVEN, [2, 3])
    litter(lake, "data/x.parquet")
    with events.subscribed(heard("sweep.began", lambda: lake.replace(late))):
        told = swept(lake)
    assert told.spared == 2  # a data file and its manifest
    assert told.files == 1
    assert lake.missing() == set()
    assert lake.rows() == {TEN.key: [1], ELEVEN.key: [2, 3]}


def test_a_file_that_is_committed_while_the_folders_are_listed_is_reached(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is loaded again after the listing."""
    lake.put(TEN, [1])
    late = lake.seal(ELEVEN, [2, 3])

    def and_then(*args: Any) -> None:
        list_side_by_side(*args)
        if not lake.files(ELEVEN):
            lake.replace(late)

    monkeypatch.setattr("lakehouse_pipeline.maintenance.audit.list_side_by_side", and_then)
    told = swept(lake)
    assert (told.files, told.spared, told.report.orphans.files) == (0, 0, 0)
    assert lake.rows() == {TEN.key: [1], ELEVEN.key: [2, 3]}


def test_a_lease_that_is_lost_while_the_folders_are_listed_ends_the_audit(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing takes long: what the next holder does meanwhile is not in it, and nothing is told of it."""
    lake.put(TEN, [1])

    def and_then(*args: Any) -> None:
        list_side_by_side(*args)
        assert lake.now.ledger.turn("maintenance", "another").take(lambda _: True)

    monkeypatch.setattr("lakehouse_pipeline.maintenance.audit.list_side_by_side", and_then)
    with pytest.raises(CommitConflictError, match="taken the maintenance lease"):
        audited(lake)
    assert last_audit(lake.now) is None


def test_an_attempt_that_begins_after_the_audit_is_spared(lake: Lake) -> None:
    """A file of its name that lay there before it: it may be its own, put before its marker was met."""
    lake.put(TEN, [1])
    hand = in_hand(lake, ELEVEN)
    begun: list[str] = []
    attempt = new_attempt_id()
    litter(lake, f"data/00000-{attempt}-0-0.parquet")

    def begin() -> None:
        hand.open(new_attempt(hand.table, ELEVEN).model_copy(update={"id": attempt}))
        begun.append(attempt)

    with events.subscribed(heard("sweep.began", begin)):
        told = swept(lake)
    assert begun
    assert (told.files, told.spared) == (0, 1)


# ---------------------------------------------------------------------------------------------------------------------
# Several at once, and killed ones
# ---------------------------------------------------------------------------------------------------------------------


class KilledError(BaseException):
    """What ends a sweep where it is."""


def killed_at(name: str, times: int = 1) -> events.Subscriber:
    """Give a subscriber that ends a sweep at an event."""
    left = [times]

    def subscriber(event: events.Event) -> None:
        if event.name == name:
            left[0] -= 1
            if not left[0]:
                raise KilledError

    return subscriber


def test_two_sweepers_do_not_meet(lake: Lake) -> None:
    """The second is told who is at it."""
    lake.put(TEN, [1])
    litter(lake, "data/x.parquet")

    def second() -> None:
        with pytest.raises(LeaseHeldError, match="run sweeper has the maintenance lease"):
            swept(lake, run_id="another")

    with events.subscribed(heard("sweep.began", second)):
        assert swept(lake).files == 1


def test_a_sweeper_that_was_stopped_finds_its_lease_gone(lake: Lake) -> None:
    """Stopped between copy and delete, while the next one took the lease and was killed: no file is lost."""
    lake.put(TEN, [1])
    (orphan,) = litter(lake, "data/x.parquet")
    table, rules = lake.now, replace(RULES, moment=later(lake))

    def beside() -> None:
        with (
            pytest.raises(KilledError),
            events.subscribed(killed_at("sweep.began")),
            maintaining(table, "sweep", "another", lambda _: True) as held,
        ):
            sweep(Warehouse(lake.catalog, table.files), spec(lake), table, rules, held, delete=False)

    with events.subscribed(heard("sweep.copied", beside)), pytest.raises(CommitConflictError, match="another run has"):
        swept(lake)
    assert orphan in there(lake)
    assert swept(lake).files == 1
    assert lake.rows() == {TEN.key: [1]}


def test_a_sweep_that_the_next_one_has_ended_deletes_nothing(lake: Lake) -> None:
    """Whatever it believes of its lease."""
    lake.put(TEN, [1])
    (orphan,) = litter(lake, "data/x.parquet")

    def settle() -> None:
        quarantine = Quarantine(lake.now.files, lake.now.ledger.folder)
        ((record, _),) = quarantine.sweeps()
        quarantine.settle(record)

    with events.subscribed(heard("sweep.copied", settle)), pytest.raises(CommitConflictError, match="was ended by the"):
        swept(lake)
    assert orphan in there(lake)


def test_what_is_committed_while_a_batch_is_copied_is_spared(lake: Lake) -> None:
    """Copies of large files take long: it is asked again before anything is deleted."""
    lake.put(TEN, [1])
    late = lake.seal(ELEVEN, [2])
    litter(lake, "data/x.parquet")
    with events.subscribed(heard("sweep.copied", lambda: lake.replace(late))):
        told = swept(lake)
    assert (told.files, told.spared) == (1, 2)
    assert lake.missing() == set()
    assert lake.rows() == {TEN.key: [1], ELEVEN.key: [2]}


def test_what_came_back_while_it_was_copied_stays(lake: Lake) -> None:
    """Gone when it was to be copied, and there again afterwards: nothing is deleted of which there is no copy."""
    lake.put(TEN, [1])
    (orphan,) = litter(lake, "data/x.parquet")

    def meanwhile(event: events.Event) -> None:
        if event.name == "sweep.began":
            lake.now.files.delete(orphan)
        if event.name == "sweep.copied":
            lake.now.files.put(orphan, b"written again")

    with events.subscribed(meanwhile):
        assert swept(lake).files == 0
    assert lake.now.files.get(orphan).body == b"written again"


@pytest.mark.parametrize(("event", "moved"), [("sweep.began", 0), ("sweep.removed", 250)])
@pytest.mark.parametrize("delete", [False, True])
def test_a_killed_sweep_is_ended_by_the_next_one(lake: Lake, event: str, moved: int, *, delete: bool) -> None:
    """What the first has moved can be put back, and the second takes the rest."""
    lake.put(TEN, [1])
    orphans = litter(lake, *(f"data/{number}.parquet" for number in range(300)))
    with pytest.raises(KilledError), events.subscribed(killed_at(event)):
        swept(lake, delete=delete)
    assert len(there(lake) & orphans) == 300 - moved
    told = swept(lake, delete=delete)
    assert told.files == 300 - moved
    assert there(lake) & orphans == set()
    if not delete:
        assert len(in_quarantine(lake)) == 300


def test_a_sweep_that_is_killed_between_copy_and_delete_keeps_both(lake: Lake) -> None:
    """The next one decides about the file again: it may be reached by then."""
    lake.put(TEN, [1])
    late = lake.seal(ELEVEN, [2])
    with pytest.raises(KilledError), events.subscribed(killed_at("sweep.copied")):
        swept(lake)
    assert len(in_quarantine(lake)) == 2
    lake.replace(late)
    assert swept(lake).files == 0
    assert lake.rows() == {TEN.key: [1], ELEVEN.key: [2]}
    assert len(in_quarantine(lake)) == 2  # until they are purged


def test_what_was_moved_by_a_killed_sweep_can_come_back(lake: Lake) -> None:
    """Though somebody has put another file under its name since."""
    lake.put(TEN, [1])
    (orphan,) = litter(lake, "data/x.parquet")
    was = lake.now.files.get(orphan).body
    with pytest.raises(KilledError), events.subscribed(killed_at("sweep.removed")):
        swept(lake)
    lake.now.files.put(orphan, b"another export, under the same name")
    swept(lake)
    assert was in {lake.now.files.get(url).body for url in in_quarantine(lake)}


def test_a_lost_lease_ends_a_sweep_before_the_next_batch(lake: Lake) -> None:
    """Nothing is removed by who no longer holds it."""
    lake.put(TEN, [1])
    orphans = litter(lake, "data/x.parquet")
    table = lake.now
    rules = replace(RULES, moment=later(lake))
    with maintaining(table, "sweep", "sweeper") as held:

        def lose() -> None:
            held._lost.set()  # as its renewal does when it is refused

        with events.subscribed(heard("sweep.began", lose)), pytest.raises(CommitConflictError, match="taken the main"):
            sweep(Warehouse(lake.catalog, table.files), spec(lake), table, rules, held, delete=True)
    assert orphans <= there(lake)


def test_a_lost_lease_ends_no_other_sweep(lake: Lake) -> None:
    """Which may be at work under the lease that was taken."""
    lake.put(TEN, [1])
    litter(lake, "data/x.parquet")
    with pytest.raises(KilledError), events.subscribed(killed_at("sweep.copied")):
        swept(lake)
    table = lake.now
    with maintaining(table, "sweep", "stopped") as held:
        assert table.ledger.turn("maintenance", "another").take(lambda _: True)
        with pytest.raises(CommitConflictError, match="taken the maintenance lease"):
            sweep(Warehouse(lake.catalog, table.files), spec(lake), table, RULES, held, delete=False)
    ((record, _),) = Quarantine(table.files, table.ledger.folder).sweeps()
    assert record.state == "moving"


# ---------------------------------------------------------------------------------------------------------------------
# The quarantine
# ---------------------------------------------------------------------------------------------------------------------


def test_a_sweep_that_was_killed_is_not_purged(lake: Lake) -> None:
    """Before the next one has ended it."""
    lake.put(TEN, [1])
    litter(lake, "data/x.parquet")
    with pytest.raises(KilledError), events.subscribed(killed_at("sweep.copied")):
        swept(lake)
    with maintaining(lake.now, "purge", "x") as held:
        assert purge(lake.now, timedelta(0), held).sweeps == ()
    swept(lake)
    with maintaining(lake.now, "purge", "x") as held:
        assert len(purge(lake.now, timedelta(0), held).sweeps) == 2


def test_what_stands_where_a_file_was_is_left_alone(lake: Lake) -> None:
    """It is somebody's; the copy stays until it is purged."""
    lake.put(TEN, [1])
    (orphan,) = litter(lake, "data/x.parquet")
    told = swept(lake)
    lake.now.files.put(orphan, b"something else")
    with maintaining(lake.now, "restore", "x") as held:
        assert restore(lake.now, told.sweep, held).there == (orphan,)
    assert lake.now.files.get(orphan).body == b"something else"
    assert len(in_quarantine(lake)) == 1


def test_a_file_that_comes_back_as_another_keeps_its_copy(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that copies half of it is told by the size of what it made; the copy in the quarantine stays."""
    lake.put(TEN, [1])
    litter(lake, "data/x.parquet")
    told = swept(lake)
    before, put = in_quarantine(lake), LakehouseFileIO.put

    def half(files: LakehouseFileIO, source: str, url: str, *, if_absent: bool = False) -> ObjectInfo:
        body = files.get(source).body
        return put(files, url, body[: len(body) // 2], if_absent=if_absent)

    monkeypatch.setattr(LakehouseFileIO, "copy", half)
    with maintaining(lake.now, "restore", "x") as held, pytest.raises(LakehouseError, match="came back with"):
        restore(lake.now, told.sweep, held)
    assert in_quarantine(lake) == before


def test_restoring_goes_on_where_it_was_killed(lake: Lake) -> None:
    """Twice is once."""
    lake.put(TEN, [1])
    orphans = litter(lake, "data/x.parquet", "data/y.parquet")
    told = swept(lake)
    with maintaining(lake.now, "restore", "x") as held:
        restore(lake.now, told.sweep, held)
        assert restore(lake.now, told.sweep, held).files == 0
        with pytest.raises(SafetyError, match=rf"no sweep nothing.*{told.sweep} \(restored\)"):
            restore(lake.now, "nothing", held)
    assert orphans <= there(lake)


def test_the_quarantine_is_purged_of_what_is_old(lake: Lake) -> None:
    """And of nothing else."""
    lake.put(TEN, [1])
    litter(lake, "data/x.parquet")
    told = swept(lake)
    with maintaining(lake.now, "purge", "x") as held:
        assert purge(lake.now, timedelta(hours=1), held).kept == (told.sweep,)
        assert purge(lake.now, timedelta(0), held, dry_run=True).sweeps == (told.sweep,)
        assert len(in_quarantine(lake)) == 1
        assert purge(lake.now, timedelta(0), held).bytes == told.bytes
    assert in_quarantine(lake) == set()
    assert there(lake) == lake.reached() | {item for item in there(lake) if item.endswith(".metadata.json")}


# ---------------------------------------------------------------------------------------------------------------------
# A list in the place of a listing
# ---------------------------------------------------------------------------------------------------------------------


def as_list(lake: Lake, file: Path, kind: str, but: Sequence[str] = ()) -> str:
    """Write down what lies there, as an inventory does."""
    found = [item for item in lake.now.files.list_objects(lake.now.location) if item.url not in but]
    split = [item.url.removeprefix("s3://").partition("/") for item in found]
    columns = {
        "bucket": [bucket for bucket, _, _ in split],
        "key": [key for _, _, key in split],
        "size": [item.size for item in found],
        "last_modified_date": [item.modified for item in found],
    }
    table = pa.table(columns)
    if kind == "parquet":
        parquet.write_table(table, file.with_suffix(".parquet"))
        return str(file.with_suffix(".parquet"))
    csv.write_csv(table, file.with_suffix(".csv"))
    return str(file.with_suffix(".csv"))


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_an_inventory_is_as_good_as_a_listing(s3_catalog: Catalog, tmp_path: Path, kind: str) -> None:
    """Though it is older: what came after it is asked for, and what has changed since stays."""
    lake = Lake.create(s3_catalog)
    lake.put(TEN, [1])
    orphans = litter(lake, "data/x.parquet", "data/gone.parquet", "data/written-again.parquet")
    listed = as_list(lake, tmp_path / "inventory", kind)
    lake.put(ELEVEN, [2])
    later_one = litter(lake, "data/y.parquet")
    lake.now.files.delete(f"{lake.now.location}/data/gone.parquet")
    time.sleep(1.1)  # HTTP's dates are of whole seconds
    litter(lake, "data/written-again.parquet")
    told = swept(lake, replace(RULES, listed=listed))
    assert (told.report.orphans.files, told.files, told.spared) == (3, 1, 2)
    assert there(lake) & orphans == {f"{lake.now.location}/data/written-again.parquet"}
    assert later_one <= there(lake)
    assert lake.rows() == {TEN.key: [1], ELEVEN.key: [2]}


def test_a_list_that_lacks_what_is_lost_is_refused(s3_catalog: Catalog, tmp_path: Path) -> None:
    """What it does not have is asked for, and has to be there."""
    lake = Lake.create(s3_catalog)
    lake.put(TEN, [1])
    (path,) = lake.files(TEN)
    listed = as_list(lake, tmp_path / "inventory", "csv", but=[path])
    assert swept(lake, replace(RULES, listed=listed)).files == 0
    lake.now.files.delete(path)
    refused(lake, "were not listed", replace(RULES, listed=listed))


def test_a_list_may_be_of_a_whole_bucket(s3_catalog: Catalog, tmp_path: Path) -> None:
    """What lies outside of its folders is no orphan of the table; keys of CSV are encoded, as an inventory has them."""
    lake = Lake.create(s3_catalog)
    lake.put(TEN, [1])
    orphans = litter(lake, "data/ä b%20c+&=#?.parquet")
    foreign = f"{lake.now.location}_v2/data/x.parquet"
    lake.now.files.put(foreign, b"another table's")
    listed = tmp_path / "inventory.csv"
    rows = ["bucket,key,size,last_modified_date"]
    for item in lake.now.files.list_objects(lake.now.location):
        bucket, _, key = item.url.removeprefix("s3://").partition("/")
        rows.append(f'"{bucket}","{quote(key)}",{item.size},{item.modified:%Y-%m-%dT%H:%M:%SZ}')
    listed.write_text("\n".join(rows))
    told = swept(lake, replace(RULES, listed=str(listed)))
    assert told.report.orphans.files == told.files == 1
    assert there(lake) & orphans == set()
    assert lake.now.files.head(foreign)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "url,size,last_modified\ns3://plain/x,many,now\n"])
def test_what_is_no_list_is_refused(lake: Lake, tmp_path: Path, text: str) -> None:
    """With what one has to be."""
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ConfigurationError, match=r"list.csv is no list of objects"):
        swept(lake, replace(RULES, listed=str(tmp_path / "list.csv")))


# ---------------------------------------------------------------------------------------------------------------------
# Clocks, and commits that are on their way
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [timedelta(hours=-1), timedelta(hours=1)], ids=["behind", "ahead"])
@pytest.mark.parametrize(("older", "taken"), [(timedelta(minutes=30), 1), (timedelta(minutes=-30), 0)])
def test_ages_are_the_stores(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, off: timedelta, older: timedelta, taken: int
) -> None:
    """A sweeper's own clock, an hour off the store's either way, makes no file older or younger."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Clock":
            return cls.fromtimestamp(time.time() + off.total_seconds(), tz)

    monkeypatch.setattr("lakehouse_pipeline.object_store.local.datetime", Clock)
    lake.put(TEN, [1])
    (orphan,) = litter(lake, "data/x.parquet")
    written = datetime.now(UTC) + off - RULES.older_than - older
    os.utime(orphan.removeprefix("file://"), (written.timestamp(),) * 2)
    table = lake.now
    with maintaining(table, "sweep", "sweeper") as held:
        told = sweep(Warehouse(lake.catalog, table.files), spec(lake), table, RULES, held, delete=False)
    assert told.files == taken


def test_a_commit_that_is_on_its_way_lands_on_all_of_its_files(lake: Lake) -> None:
    """However long it was stopped: a sweep finds it in the ledger."""
    lake.put(TEN, [1])
    hand = seal(lake, opened(lake, ELEVEN), [2, 3])
    litter(lake, "data/x.parquet")
    told = list[Swept]()
    with events.subscribed(heard("commit.sent", lambda: told.append(swept(lake)))):
        hand.commit()
    assert [each.files for each in told] == [1]
    assert told[0].report.kept["of an attempt in the ledger"].files >= 3  # data, manifest, manifest list
    assert lake.missing() == set()
    assert lake.rows() == {TEN.key: [1], ELEVEN.key: [2, 3]}

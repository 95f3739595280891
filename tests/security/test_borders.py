"""What removes files stays in the table's own folders, whatever names, lists, records and notes say."""

import copy
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.partitioning import PartitionKey
from pyiceberg.table.locations import LocationProvider

from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.errors import ConfigurationError, SafetyError
from lakehouse_pipeline.iceberg.claims import Claim, claim
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.ledger.records import Marker
from lakehouse_pipeline.maintenance import expiry, manifests
from lakehouse_pipeline.maintenance.audit import SweepRules
from lakehouse_pipeline.maintenance.lease import MAINTENANCE, maintaining
from lakehouse_pipeline.maintenance.sweep import Swept, purge, restore, sweep
from lakehouse_pipeline.object_store.places import SPELLINGS
from tests.backfill.hands import new_attempt
from tests.iceberg.lake import ELEVEN, EVENTS, TEN, Lake, spec_of

DAY = timedelta(days=1)


@pytest.fixture(scope="module", params=["file", "s3"])
def catalog(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """Open a SQL catalog of tables in a folder, and in a bucket."""
    folder = tmp_path_factory.mktemp("catalog")
    place = {"type": "sql", "uri": f"sqlite:///{folder}/c.db", "warehouse": f"file://{folder}/w"}
    if request.param == "s3":
        seaweed: SeaweedServer = request.getfixturevalue("seaweed")
        place |= {"warehouse": f"s3://plain/{uuid.uuid4().hex}", **seaweed.s3_properties()}
    with open_catalog(place) as opened:
        yield opened


@dataclass(frozen=True)
class Neighbourhood:
    """A table with two hours, and what lies around it.

    Attributes:
        lake: the table.
        around: URLs of files that are not its own.
    """

    lake: Lake
    around: frozenset[str]

    @property
    def above(self) -> str:
        """The folder that the table's is in."""
        return self.lake.now.location.rpartition("/")[0]

    def contents(self) -> dict[str, bytes]:
        """Read whatever lies around the table, and is in it but for its ledger."""
        files = self.lake.now.files
        inside = {item.url for item in files.list_objects(f"{self.lake.now.location}/")}
        urls = self.around | {url for url in inside if "/_lakehouse/" not in url}
        return {url: files.get(url).body for url in urls if files.head(url)}


@pytest.fixture(scope="module")
def town(catalog: Catalog) -> Neighbourhood:
    """Give a table whose neighbours' names begin with its own, or lie beside it, or in another bucket.

    One for all tests: each finds it as the last has left it, which is as it was.
    """
    lake = Lake.create(catalog)
    lake.put(TEN, [1, 2])
    lake.put(ELEVEN, [3])
    location, files = lake.now.location, lake.now.files
    above = location.rpartition("/")[0]
    around = {f"{location}_v2/data/x.parquet", f"{location}.old/data/x.parquet", f"{above}/other/data/x.parquet"}
    if location.startswith("s3://"):
        around.add(f"s3://raw/{uuid.uuid4().hex}/data/x.parquet")
    for url in around:
        files.put(url, url.encode())
    return Neighbourhood(lake, frozenset(around))


# ---------------------------------------------------------------------------------------------------------------------
# Names
# ---------------------------------------------------------------------------------------------------------------------

EVENTS_URL = "s3://lake/ns/events"


@pytest.mark.parametrize(
    ("url", "inside"),
    [
        pytest.param(f"{EVENTS_URL}/data/a", True, id="a file"),
        pytest.param("s3a://lake/ns/events/data/a", True, id="Hadoop's spelling"),
        pytest.param(f"{EVENTS_URL}/data//a", True, id="doubled slash"),
        pytest.param(f"{EVENTS_URL}/data/..a..", True, id="dots of a name"),
        pytest.param(f"{EVENTS_URL}/data/a.", True, id="trailing dot"),
        pytest.param(f"{EVENTS_URL}/%2e%2e/a", True, id="encoded dots are a name"),
        pytest.param(f"{EVENTS_URL}_v2/data/a", False, id="twin"),
        pytest.param(f"{EVENTS_URL}./data/a", False, id="twin with a dot"),
        pytest.param("s3://lake/ns", False, id="above"),
        pytest.param("s3://lake2/ns/events/data/a", False, id="another bucket"),
        pytest.param("s3://lake.evil/ns/events/data/a", False, id="a bucket that begins alike"),
        pytest.param(f"{EVENTS_URL}/../events_v2/a", False, id="dots"),
        pytest.param(f"{EVENTS_URL}/data/..", False, id="dots at the end"),
        pytest.param(f"{EVENTS_URL}/./a", False, id="one dot"),
        pytest.param(f"{EVENTS_URL}/..\\other\\a", False, id="dots and backslashes"),
        pytest.param(f"{EVENTS_URL}\\data\\a", False, id="backslashes"),
        pytest.param("s3://lake/ns/events%2Fdata%2Fa", False, id="encoded slashes"),
        pytest.param("s3://lake/ns//events/data/a", False, id="doubled slash above"),
        pytest.param("s3://lake/ns/\u0435vents/data/a", False, id="Cyrillic e"),
        pytest.param("s3://lake/ns\u2215events/data/a", False, id="division slash"),
        pytest.param(f"{EVENTS_URL}\x00/data/a", False, id="zero byte"),
        pytest.param(f"{EVENTS_URL}\n/data/a", False, id="line break"),
    ],
)
def test_what_is_in_a_folder(url: str, inside: bool) -> None:  # noqa: FBT001  # a table's column
    """To every store: what may be elsewhere to one of them is not told to be here."""
    assert SPELLINGS.contains(EVENTS_URL, url) is inside


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("file:///w/events", "file:///w/other/../events", True),
        ("file:///w/events", "file:///w//events/data", True),
        ("file:///w/events/data/..", "file:///w/events/metadata", True),
        ("file:///w/events", "file:///w/events_v2", False),
        ("file:///w/events", "s3://w/events", False),
    ],
)
def test_which_folders_are_shared(one: str, other: str, shared: bool) -> None:  # noqa: FBT001  # a table's column
    """Dots and doubled slashes are gone after, so that no table is taken to be alone which is not."""
    assert SPELLINGS.overlap(one, other) is SPELLINGS.overlap(other, one) is shared


# ---------------------------------------------------------------------------------------------------------------------
# Sweeps by a list
# ---------------------------------------------------------------------------------------------------------------------


def swept(lake: Lake, by: Path) -> Swept:
    """Sweep for good by a list, days later."""
    table = lake.now
    rules = SweepRules(older_than=3 * DAY, listed=str(by), moment=datetime.now(UTC) + 4 * DAY)
    with maintaining(table, "sweep", "sweeper") as held:
        spec = spec_of(EVENTS, {"table": lake.identifier})
        return sweep(Warehouse(lake.catalog, table.files), spec, table, rules, held, delete=True)


ALIASES: dict[str, Callable[[str, str], str]] = {
    "dots": lambda location, name: f"{location}/x/../{name}",
    "out by dots": lambda location, _: f"{location}/../{location.rpartition('/')[2]}_v2/data/x.parquet",
    "out by encoded dots": lambda location, _: f"{location}/%2e%2e/{location.rpartition('/')[2]}_v2/data/x.parquet",
    "out by backslashes": lambda location, _: f"{location}/..\\{location.rpartition('/')[2]}_v2\\data\\x.parquet",
    "a doubled slash": lambda location, name: f"{location}/{name.replace('/', '//')}",
    "backslashes": lambda location, name: f"{location}/{name.replace('/', chr(92))}",
    "one dot": lambda location, name: f"{location}/./{name}",
    "a doubled slash above": lambda location, name: f"{'//'.join(location.rsplit('/', 1))}/{name}",
    "encoded slashes": lambda location, name: f"{location}/{name.replace('/', '%2F')}",
    "a twin": lambda location, _: f"{location}_v2/data/x.parquet",
    "a trailing dot": lambda location, name: f"{location}/{name}.",
    "look-alikes": lambda location, _: f"{location}/\uff0e\uff0e/other/data/x.parquet",
    "a line break": lambda location, name: f"{location}/{name}\n",
}


def test_no_name_of_a_list_leads_to_a_file_that_is_reached_or_elsewhere(town: Neighbourhood, tmp_path: Path) -> None:
    """A list is somebody else's: each of its lines that some store takes for another file's name removes none."""
    before = town.contents()
    location = town.lake.now.location
    names = [url.removeprefix(f"{location}/") for url in town.lake.reached()]
    hostile = [alias(location, name) for alias in ALIASES.values() for name in names] + list(town.around)
    told = swept(town.lake, listed(tmp_path / "list.csv", dict.fromkeys(hostile)))
    assert told.report.orphans.files  # or nothing of it was held against the store at all
    assert town.contents() == before
    assert town.lake.rows() == {TEN.key: [1, 2], ELEVEN.key: [3]}


def test_a_list_with_a_zero_byte_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    """No store has such a name; nothing is removed, not even what is listed beside it."""
    lake = Lake.create(catalog)
    lake.put(TEN, [1])
    orphan = f"{lake.now.location}/data/orphan.parquet"
    lake.now.files.put(orphan, b"orphan")
    with pytest.raises(ConfigurationError):
        swept(lake, listed(tmp_path / "list.csv", [f"{orphan}\x00", orphan]))
    assert lake.now.files.head(orphan)


def listed(file: Path, urls: Iterable[str]) -> Path:
    """Write a list of objects which says of each that it was written just now."""
    rows = [{"url": url, "size": 1, "last_modified": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:59Z}"} for url in urls]
    quoted = [",".join('"{}"'.format(str(each).replace('"', '""')) for each in row.values()) for row in rows]
    file.write_text("\n".join(["url,size,last_modified", *quoted]), newline="")
    return file


def test_names_that_xml_cannot_say_are_removed_too(seaweed: SeaweedServer, tmp_path: Path) -> None:
    """One such orphan stopped every sweep of its table: DeleteObjects was refused as a whole."""
    place = {"type": "sql", "uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"s3://plain/{uuid.uuid4().hex}"}
    with open_catalog({**place, **seaweed.s3_properties()}) as opened:
        lake = Lake.create(opened)
        lake.put(TEN, [1])
        urls = [f"{lake.now.location}/data/{name}" for name in ("a\x01b", "a\x1bb", "a\nb", "plain")]
        for url in urls:
            lake.now.files.put(url, b"orphan")
        lake.now.files.delete_objects(urls)
        assert [url for url in urls if lake.now.files.head(url)] == []
        assert lake.rows() == {TEN.key: [1]}


# ---------------------------------------------------------------------------------------------------------------------
# Records of the ledger that somebody has changed
# ---------------------------------------------------------------------------------------------------------------------


def closed(lake: Lake) -> None:
    """Close whatever the ledger says is left."""
    for _ in range(2):
        close_attempts(lake.now, lambda _run: True, grace=timedelta(0))


def put_marker(lake: Lake, told: Mapping[str, Any]) -> str:
    """Put a marker that says of a closed attempt what a writer of the ledger's folder likes; gives its URL."""
    honest = new_attempt(lake.now, TEN)
    marker = json.loads(Marker(hour=TEN.key, attempt=honest, closed=True).model_dump_json())
    changed = {**marker, **{key: value for key, value in told.items() if key == "hour"}}
    changed["attempt"] |= {key: value for key, value in told.items() if key != "hour"}
    url = f"{lake.now.ledger.folder}/open/{TEN.start:%Y-%m-%d-%H}/{honest.id}.json"
    lake.now.files.put(url, json.dumps(changed).encode())
    return url


Told = Callable[[Neighbourhood], Mapping[str, Any]]
TAMPERED: dict[str, Told] = {
    "copies in the folder above": lambda town: {"staging": town.above},
    "copies in the table's data": lambda town: {"staging": f"{town.lake.now.location}/data"},
    "copies in another's": lambda town: {"staging": f"{town.above}/other"},
    "copies above by dots": lambda town: {"staging": f"{town.lake.now.ledger.folder}/staging/2013-01-01-10/../../.."},
    "an id with dots": lambda _: {"id": "../../../../other/data"},
    "an empty id": lambda _: {"id": ""},
    "an hour with dots": lambda _: {"hour": "../../other"},
    "another's layout": lambda town: {"layout": {"location": f"{town.above}/other"}},
    "a twin's layout": lambda town: {"layout": {"location": f"{town.lake.now.location}_v2"}},
    "data elsewhere": lambda town: {"layout": {**town.lake.now.layout, "write.data.path": f"{town.above}/other"}},
    "data elsewhere by dots": lambda town: {
        "layout": {**town.lake.now.layout, "write.data.path": f"{town.lake.now.location}/../other"}
    },
    "a class that names files": lambda town: {
        "layout": {**town.lake.now.layout, "write.py-location-provider.impl": "tests.security.test_borders.Loaded"}
    },
}


class Loaded:
    """What must never be imported by a word of the ledger."""

    def __init__(self, *_: object) -> None:
        """Tell."""
        raise AssertionError("a class that the ledger named was loaded")


@pytest.mark.parametrize("told", TAMPERED.values(), ids=TAMPERED)
def test_a_tampered_marker_removes_nothing(town: Neighbourhood, told: Told) -> None:
    """It is refused with what is wrong about it."""
    before, marker = town.contents(), put_marker(town.lake, told(town))
    with pytest.raises(SafetyError, match=r"othing of the attempt is removed|cannot read the markers"):
        closed(town.lake)
    town.lake.now.files.delete(marker)
    assert town.contents() == before


@pytest.mark.parametrize("path", ["../../../../../other/data", "..", "x/../../..", "..\\..\\other"])
def test_a_tampered_claim_removes_nothing(town: Neighbourhood, path: str) -> None:
    """A partition path that leads out of the table is none."""
    attempt = new_attempt(town.lake.now, TEN).model_copy(update={"buckets": 0})
    town.lake.now.ledger.mark(Marker(hour=TEN.key, attempt=attempt, closed=True))
    name = f"00000-{attempt.id}-0-0.parquet"
    victims = {f"{town.above}/{name}", f"{town.above}/other/data/{name}", f"{town.above}/other/{name}"}
    for url in victims:
        town.lake.now.files.put(url, b"another's")
    claim(town.lake.now.files, town.lake.now.ledger.claims_url(TEN, attempt.id), Claim(bucket=0, paths=(path,)))
    with pytest.raises(SafetyError, match="Somebody has changed what it claimed"):
        closed(town.lake)
    assert all(town.lake.now.files.head(url) for url in victims)
    town.lake.now.ledger.unmark(TEN, attempt.id)
    town.lake.now.files.delete_objects(victims)


class OwnLocations(LocationProvider):
    """Puts files where no property of the table says it, as a class of the table's owner may."""

    def new_data_location(self, data_file_name: str, partition_key: PartitionKey | None = None) -> str:
        """Give a file's place, beside the table."""
        beside = f"{self.table_location}-own"
        return f"{beside}/{partition_key.to_path()}/{data_file_name}" if partition_key else f"{beside}/{data_file_name}"


def test_what_a_class_of_the_owners_named_is_removed(catalog: Catalog) -> None:
    """Its files are where it says; but a claim that names them by `..` is refused."""
    impl = f"{OwnLocations.__module__}.{OwnLocations.__qualname__}"
    lake = Lake.create(catalog)
    with lake.now.table.transaction() as transaction:
        transaction.set_properties({"write.py-location-provider.impl": impl})
    lake.put(TEN, [1])
    for path in ("", "../events"):
        attempt = new_attempt(lake.now, ELEVEN).model_copy(update={"buckets": 1})
        lake.now.ledger.mark(Marker(hour=ELEVEN.key, attempt=attempt, closed=True))
        left = lake.now.target(ELEVEN, attempt.id, 1).file_url(0, 0, 0)
        lake.now.files.put(left, b"left over")
        assert "-own/" in left
        if path:
            claims = lake.now.ledger.claims_url(ELEVEN, attempt.id)
            claim(lake.now.files, claims, Claim(bucket=0, paths=(path,)))
        with pytest.raises(SafetyError, match="Somebody has changed what it claimed") if path else nullcontext():
            closed(lake)
        assert bool(lake.now.files.head(left)) is bool(path)
    assert lake.rows() == {TEN.key: [1]}


def test_a_layout_that_the_table_had_is_believed(catalog: Catalog) -> None:
    """An attempt's files lie where the table wrote them then, though that was outside of its present folders."""
    elsewhere = f"{Lake.create(catalog).now.location.rpartition('/')[0]}/elsewhere"
    lake = Lake.create(catalog, properties={"write.data.path": elsewhere})
    lake.put(TEN, [1])
    attempt = new_attempt(lake.now, ELEVEN)
    lake.now.ledger.mark(Marker(hour=ELEVEN.key, attempt=attempt, closed=True))
    left = lake.now.target(ELEVEN, attempt.id, 1).file_url(0, 0, 0)
    lake.now.files.put(left, b"left over")
    with lake.now.table.transaction() as transaction:
        transaction.set_properties({"write.data.path": f"{lake.now.location}/data"})
    closed(lake)
    assert lake.now.files.head(left) is None
    assert lake.rows() == {TEN.key: [1]}


# ---------------------------------------------------------------------------------------------------------------------
# The quarantine
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Undoable:
    """A sweep of one orphan, which can be undone.

    Attributes:
        town: whose.
        sweep: its id.
        orphan: its URL.
    """

    town: Neighbourhood
    sweep: str
    orphan: str

    @contextmanager
    def changed(self, name: str, key: str, value: object) -> Iterator[None]:
        """Change a record of it, for as long as the block runs."""
        files, url = self.town.lake.now.files, f"{self.town.lake.now.ledger.folder}/quarantine/{self.sweep}/{name}"
        honest = files.get(url).body
        record = json.loads(honest)
        (record["files"][0] if name == BATCH else record)[key] = value
        files.put(url, json.dumps(record).encode())
        try:
            yield
        finally:
            files.put(url, honest)


@pytest.fixture(scope="module")
def undoable(town: Neighbourhood) -> Undoable:
    """Sweep an orphan into the quarantine."""
    lake = town.lake
    orphan = f"{lake.now.location}/data/orphan.parquet"
    lake.now.files.put(orphan, b"orphan")
    rules = SweepRules(older_than=3 * DAY, moment=datetime.now(UTC) + 4 * DAY)
    with maintaining(lake.now, "sweep", "x") as held:
        spec, warehouse = spec_of(EVENTS, {"table": lake.identifier}), Warehouse(lake.catalog, lake.now.files)
        done = sweep(warehouse, spec, lake.now, rules, held, delete=False)
    assert (done.files, lake.now.files.head(orphan)) == (1, None)
    return Undoable(town, done.sweep, orphan)


BATCH = "moved/000000.json"
Change = Callable[[Undoable], tuple[str, str, object]]
RECORDS: dict[str, Change] = {
    "back to another's": lambda each: (BATCH, "url", f"{each.town.above}/other/data/new.parquet"),
    "back to a twin's": lambda each: (BATCH, "url", f"{each.town.lake.now.location}_v2/data/new.parquet"),
    "back by dots": lambda each: (BATCH, "url", f"{each.town.lake.now.location}/../other/data/new.parquet"),
    "back by backslashes": lambda each: (BATCH, "url", f"{each.town.lake.now.location}/..\\other\\new.parquet"),
    "back to a bucket": lambda _: (BATCH, "url", "s3://raw/new.parquet"),
    "from the table's data": lambda each: (BATCH, "to", f"../../../../data/{_live(each)}"),
    "from another's": lambda _: (BATCH, "to", "../../../../../other/data/x.parquet"),
    "from its own record": lambda _: (BATCH, "to", "sweep.json"),
    "of another sweep": lambda _: ("sweep.json", "sweep", "../../../../other"),
    "of no batch": lambda _: (BATCH, "size", "many"),
}


def _live(each: Undoable) -> str:
    (path,) = each.town.lake.files(ELEVEN)
    return path.partition("/data/")[2]


@pytest.mark.parametrize("change", RECORDS.values(), ids=RECORDS)
def test_a_tampered_quarantine_restores_nothing(undoable: Undoable, change: Change) -> None:
    """Nothing is written, and nothing removed, anywhere."""
    lake = undoable.town.lake
    before = undoable.town.contents()
    with (
        undoable.changed(*change(undoable)),
        maintaining(lake.now, "restore", "x") as held,
        pytest.raises(SafetyError, match=r"changed|is no record"),
    ):
        restore(lake.now, undoable.sweep, held)
    assert undoable.town.contents() == before
    assert not lake.now.files.head(f"{undoable.town.above}/other/data/new.parquet")
    assert lake.rows() == {TEN.key: [1, 2], ELEVEN.key: [3]}


@pytest.mark.parametrize("sweep_id", ["..", "../..", "", ".", "%2e%2e", "*", "../../../other"])
def test_a_sweep_is_asked_for_by_its_id(undoable: Undoable, sweep_id: str) -> None:
    """No path is one."""
    lake = undoable.town.lake
    with maintaining(lake.now, "restore", "x") as held, pytest.raises(SafetyError, match="there is no sweep"):
        restore(lake.now, sweep_id, held)


def test_a_tampered_quarantine_is_not_purged(undoable: Undoable) -> None:
    """A record that names another folder than its own: purging it would have emptied that one."""
    lake = undoable.town.lake
    other = f"{undoable.town.above}/other"
    lake.now.files.put(f"{other}/objects/x", b"another's")
    with (
        undoable.changed("sweep.json", "sweep", "../../../../other"),
        maintaining(lake.now, "purge", "x") as held,
        pytest.raises(SafetyError, match="somebody has changed it"),
    ):
        purge(lake.now, timedelta(0), held)
    assert lake.now.files.head(f"{other}/objects/x")
    with maintaining(lake.now, "restore", "x") as held:  # as it was before it was tampered with, it can be undone
        assert restore(lake.now, undoable.sweep, held).files == 1
    lake.now.files.delete(undoable.orphan)


# ---------------------------------------------------------------------------------------------------------------------
# Notes of the maintenance lease
# ---------------------------------------------------------------------------------------------------------------------


def noted(lake: Lake, **notes: str) -> None:
    """Leave word in the maintenance lease's record, as a run does that was killed."""
    url = lake.now.ledger.turn(MAINTENANCE, "x").url
    lake.now.files.delete(url)
    lake.now.ledger.turn(MAINTENANCE, "x").take(lambda _run: True)
    record = json.loads(lake.now.files.get(url).body)
    lake.now.files.put(url, json.dumps({**record, "run_id": "", "notes": notes}).encode())


def test_an_expiry_is_not_finished_from_another_tables_metadata(town: Neighbourhood, catalog: Catalog) -> None:
    """All that the other reaches would have been taken for what an expired snapshot had reached."""
    other = Lake.create(catalog)
    other.put(TEN, [7])
    lake, before = town.lake, town.contents()
    noted(lake, expiry=other.now.metadata_url)
    plan = expiry.look(lake.now, None, datetime.now(UTC))
    with maintaining(lake.now, "expiry", "x") as held, pytest.raises(SafetyError, match="is of another table"):
        expiry.run_expiry(lake.now, plan, held)
    assert (town.contents(), other.rows()) == (before, {TEN.key: [7]})


def test_an_expiry_is_not_finished_from_what_is_no_metadata(town: Neighbourhood) -> None:
    """It is said which file it is."""
    lake, before = town.lake, town.contents()
    noted(lake, expiry=f"{town.above}/other/data/x.parquet")
    plan = expiry.look(lake.now, None, datetime.now(UTC))
    with maintaining(lake.now, "expiry", "x") as held, pytest.raises(SafetyError, match="is no metadata file"):
        expiry.run_expiry(lake.now, plan, held)
    assert town.contents() == before


@pytest.mark.parametrize("note", ["0", "w", "plain", "../..", "s3://raw", "01M820ZBHMX2SRX5TD84EAVW1V none"])
def test_a_tampered_note_of_a_manifest_rewrite_removes_nothing(town: Neighbourhood, note: str) -> None:
    """What is noted begins the names of files that are removed: a letter would begin the names of far more."""
    before = town.contents()
    noted(town.lake, manifests=note)
    with maintaining(town.lake.now, "manifests", "x") as held, pytest.raises(SafetyError, match="changed it"):
        manifests.remove_left_manifests(town.lake.now, held.turn)
    assert town.contents() == before


# ---------------------------------------------------------------------------------------------------------------------
# Tables in each other's way
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelled", ["{above}/x/../{name}", "{above}//{name}", "{above}/{name}/data/.."])
def test_a_table_that_is_in_the_same_folder_by_another_path_is_met(tmp_path: Path, spelled: str) -> None:
    """On a disk `x/../events` is `events`: whoever has files there is a neighbour, and nothing is swept."""
    place = {"type": "sql", "uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"file://{tmp_path}/w"}
    with open_catalog(place) as opened:
        lake = Lake.create(opened)
        lake.put(TEN, [1])
        above, _, name = lake.now.location.rpartition("/")
        other = Lake.create(opened)
        other.catalog.drop_table(other.identifier)
        other.catalog.create_table(
            other.identifier, lake.now.table.schema(), location=spelled.format(above=above, name=name)
        )
        with pytest.raises(SafetyError, match="has files in"):
            swept(lake, listed(tmp_path / "list.csv", [f"{above}/x"]))


def test_an_expiry_leaves_what_another_path_of_a_live_file_reached(catalog: Catalog) -> None:
    """`data//x` of an expired snapshot is `data/x` of the present one, to disks and to SeaweedFS."""
    lake = Lake.create(catalog)
    first = lake.seal(TEN, [1, 2])
    lake.replace(first)
    (path,) = lake.files(TEN)
    doubled = path.replace("/data/", "/data//", 1)
    old = next(each for each in lake.entries() if each.data_file.file_path == path).data_file
    new = replace_path(old, path, doubled)
    with lake.now.table.transaction() as transaction, transaction.update_snapshot().overwrite() as overwrite:
        overwrite.delete_data_file(old)
        overwrite.append_data_file(new)
    with lake.now.table.transaction() as transaction, transaction.update_snapshot().overwrite() as overwrite:
        overwrite.delete_data_file(new)
        overwrite.append_data_file(replace_path(old, path, path))
    plan = expiry.look(lake.now, None, datetime.now(UTC) + 6 * DAY)
    with maintaining(lake.now, "expiry", "x") as held:
        expiry.run_expiry(lake.now, plan, held)
    assert lake.rows() == {TEN.key: [1, 2]}


def replace_path(entry: Any, path: str, by: str) -> Any:
    """Give a data file with another path."""
    new = copy.deepcopy(entry)
    new[new._data.index(path)] = by  # a record has no other face
    return new

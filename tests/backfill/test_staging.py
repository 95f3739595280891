"""Copies of an hour's raw objects: read in their place under their names, and gone however the attempt ends."""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from signal import SIGKILL

import pyarrow.parquet as pq
import pytest

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill import close, hour_run, staging, views
from lakehouse_pipeline.backfill.halt import Halt, HaltedError
from lakehouse_pipeline.backfill.hour import seal_hour
from lakehouse_pipeline.backfill.hour_run import HourRun
from lakehouse_pipeline.backfill.leftovers import close_attempts, find_orphans
from lakehouse_pipeline.backfill.staging_choice import times_read
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.engines.tasks import Running
from lakehouse_pipeline.errors import CommitConflictError, ConfigurationError, DataError, TransientError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.ledger.leases import RENEW_EVERY
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import ObjectInfo
from lakehouse_pipeline.sources.listing import SourceObject
from tests.backfill.lone_runs import WITHIN_S, Lone, Run, shorten_leases
from tests.projects import HOUR, Project, json_lines, row

WINDOW = HourWindow.from_key(HOUR)
COLUMNS = "{at: timestamptz!, id: long!, size: double}"
SHORT, AT_ONCE = timedelta(seconds=1), timedelta(0)
OBJECTS = 60  # many more than are copied at once
IDS = list(range(OBJECTS))


@pytest.fixture
def staged(project: Project) -> Project:
    """Give a project whose hour has objects that are copied, on a disk."""
    project.describe({"staging": "copy"})
    for number in IDS:
        project.land(HOUR, [row(HOUR, number)], f"-{number:02d}.jsonl")
    return project


@pytest.fixture
def on_s3(project: Project, seaweed: SeaweedServer) -> Project:
    """Give a project whose hour has objects that are copied, from one bucket to another."""
    project.write("lakehouse.yaml", f"catalog: {json.dumps(seaweed.catalog_properties())}\nengine: sail\n")
    folder = f"s3://raw/{uuid.uuid4().hex}"
    source = f"{{path: {folder}/%Y/%m/%d/%H*.jsonl, columns: {COLUMNS}}}"
    project.describe({"table": f"n{uuid.uuid4().hex[:8]}.events", "source": source, "staging": "copy"})
    files = LakehouseFileIO(seaweed.s3_properties())
    for number in IDS:
        files.put(f"{folder}/2013/01/01/10-{number:02d}.jsonl", json_lines([row(HOUR, number)]))
    return project


def _copies(project: Project) -> list[str]:
    """List the copies that there are."""
    table = project.warehouse.table(project.lakehouse.spec("events"))
    folders = [f"{table.location}/_lakehouse/"] if table else []
    if prefix := project.lakehouse.spec("events").staging_prefix:
        folders.append(f"{prefix}/")
    files = project.warehouse.files
    found = [item.url for folder in folders for item in files.list_objects(folder)]
    uploads = [upload.url for folder in folders for upload in files.list_uploads(folder)]
    return [url for url in (*found, *uploads) if "/staging/" in url or "/_staging/" in url]


class Watched:
    """Sees the copies that there are once all are made, and may do something then."""

    def __init__(self, project: Project, then: Callable[[], object] = lambda: None) -> None:
        """Nothing is copied yet."""
        self.copies: list[str] = []
        self._project, self._then = project, then

    def __call__(self, *asked: object) -> staging.StagedFiles:
        """Copy, look, and do it."""
        files = staging.stage(*asked)  # type: ignore[arg-type]
        self.copies = _copies(self._project)
        self._then()
        return files


@pytest.mark.parametrize("small", [views.SMALL_INPUT, 0], ids=["driver", "tasks"])
@pytest.mark.parametrize("keys", [{}, {"sort": "[id desc]"}], ids=["copied", "sorted"])
def test_copies_are_read(staged: Project, keys: dict[str, str], small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ETL needs the raw objects no more; after the hour no copy is there, and reading it directly is no news."""
    monkeypatch.setattr(views, "SMALL_INPUT", small)
    raw = staged.folder / "raw"
    watched = Watched(staged, lambda: raw.rename(staged.folder / "away"))
    monkeypatch.setattr(hour_run, "stage", watched)
    staged.describe(keys)
    result = staged.run()
    assert staged.ids() == IDS
    assert len(watched.copies) == OBJECTS
    assert "stage" in result.seconds
    assert result.staging == ("copy: the spec says so",)
    assert _copies(staged) == []
    (staged.folder / "away").rename(raw)
    staged.describe({"staging": "direct"})
    assert staged.run().step == "skip"


def test_on_s3_the_store_copies(on_s3: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """No byte of a copy passes through the driver, but those that it reads itself."""
    watched = Watched(on_s3)
    monkeypatch.setattr(hour_run, "stage", watched)
    result = on_s3.run()
    assert on_s3.ids() == IDS
    assert len(watched.copies) == OBJECTS
    assert result.requests.bytes_copied == sum(len(json_lines([row(HOUR, number)])) for number in IDS)
    assert _copies(on_s3) == []


def test_large_objects_are_staged_in_parts(on_s3: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large is a byte here: an ETag of parts is no MD5, and the copy is read by its own."""
    monkeypatch.setattr("lakehouse_pipeline.object_store.s3.COPIED_AT_ONCE_BYTES", 1)
    etags: list[str] = []
    files = on_s3.warehouse.files
    watched = Watched(on_s3, lambda: etags.extend(info.etag for url in watched.copies if (info := files.head(url))))
    monkeypatch.setattr(hour_run, "stage", watched)
    on_s3.run()
    assert on_s3.ids() == IDS
    assert len(etags) == OBJECTS
    assert all(etag.endswith("-1") for etag in etags)
    assert _copies(on_s3) == []


def test_another_prefix(on_s3: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies go where the spec says; what is there is no source, even within the folder of sources."""
    watched = Watched(on_s3)
    monkeypatch.setattr(hour_run, "stage", watched)
    path = on_s3.lakehouse.spec("events").source.path
    prefix = path.partition("/%Y")[0]
    on_s3.describe({"staging_prefix": prefix})
    on_s3.run()
    assert len(watched.copies) == OBJECTS
    assert all(url.startswith(f"{prefix}/_staging/{on_s3.table.uuid}/2013-01-01-10/") for url in watched.copies)
    assert _copies(on_s3) == []


# ---------------------------------------------------------------------------------------------------------------------
# Names
# ---------------------------------------------------------------------------------------------------------------------


def test_a_bad_row_names_its_raw_object(staged: Project) -> None:
    """Not the copy, which is gone by then."""
    bad = staged.write("raw/2013/01/01/10-07.jsonl", b'{"at": "late"}\n')
    with pytest.raises(DataError, match=rf"file://{bad}:1") as caught:
        staged.run()
    assert "staging/" not in str(caught.value)
    assert _copies(staged) == []


def test_rejects_and_provenance_name_raw_objects(staged: Project) -> None:
    """`_file` in the transform, and the file of a rejected row."""
    bad = staged.write("raw/2013/01/01/10-07.jsonl", b'{"at": "late"}\n')
    staged.describe(
        {
            "source": f"{{path: raw/%Y/%m/%d/%H*.jsonl, columns: {COLUMNS}, bad_rows: reject}}",
            "transform": "t.sql",
            "columns": "{at: timestamptz!, id: long!, file: string!}",
        }
    )
    staged.write("tables/t.sql", "SELECT at, id, _file AS file FROM source")
    result = staged.run()
    assert result.seal.rejected == 1
    assert {each["file"] for each in staged.rows()} == {
        f"file://{staged.folder}/raw/2013/01/01/10-{number:02d}.jsonl" for number in IDS if number != 7
    }
    table = staged.table
    (kept,) = table.files.list_objects(f"{table.ledger.rejects_url(WINDOW, result.attempt)}/")
    assert pq.read_table(kept.url.removeprefix("file://"))["file"].to_pylist() == [f"file://{bad}"]


# ---------------------------------------------------------------------------------------------------------------------
# Objects that change
# ---------------------------------------------------------------------------------------------------------------------


def _changes_first(project: Project, change: Callable[[], object]) -> Callable[..., staging.StagedFiles]:
    def stage(*asked: object) -> staging.StagedFiles:
        change()
        return staging.stage(*asked)  # type: ignore[arg-type]

    return stage


def test_a_change_since_the_listing_is_noticed(staged: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copied version is the listed one, or the hour fails as it does when it reads."""
    change = lambda: staged.land(HOUR, [row(HOUR, 99)], "-05.jsonl")  # noqa: E731
    monkeypatch.setattr(hour_run, "stage", _changes_first(staged, change))
    with pytest.raises(TransientError, match=r"10-05\.jsonl is not the version"):
        staged.run()
    assert _copies(staged) == []
    monkeypatch.undo()
    staged.run()
    assert staged.ids() == sorted({*IDS, 99} - {5})


def test_a_change_on_s3_is_noticed(on_s3: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """By If-Match on the listed ETag."""
    url = on_s3.lakehouse.spec("events").source.path.partition("/%Y")[0] + "/2013/01/01/10-05.jsonl"
    change = lambda: on_s3.warehouse.files.put(url, json_lines([row(HOUR, 99)]))  # noqa: E731
    monkeypatch.setattr(hour_run, "stage", _changes_first(on_s3, change))
    with pytest.raises(TransientError, match=r"10-05\.jsonl is not the version"):
        on_s3.run()
    assert _copies(on_s3) == []


def test_an_object_that_is_gone_is_noticed(staged: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was listed: another run may find it again."""
    change = (staged.folder / "raw/2013/01/01/10-05.jsonl").unlink
    monkeypatch.setattr(hour_run, "stage", _changes_first(staged, change))
    with pytest.raises(TransientError, match=r"10-05\.jsonl was listed but is gone"):
        staged.run()
    assert _copies(staged) == []


@pytest.mark.parametrize("wrong", ["size", "etag", "md5"])
def test_copies_are_held_against_the_listing(on_s3: Project, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of another size, another object in its place, or other bytes than those of the source."""
    copy = LakehouseFileIO.copy

    def other(files: LakehouseFileIO, source: str, url: str, **asked: object) -> ObjectInfo:
        info = copy(files, source, url, **asked)  # type: ignore[arg-type]
        if source.endswith("-05.jsonl"):
            body = files.get(url).body
            put = files.put(url, body + b" " if wrong == "size" else b" " * len(body))
            return put if wrong == "md5" else info
        return info

    monkeypatch.setattr(LakehouseFileIO, "copy", other)
    said = "has not the bytes of" if wrong == "md5" else "the copy of"
    with pytest.raises(TransientError, match=said):
        on_s3.run()
    assert _copies(on_s3) == []


def test_etags_that_are_none_are_asked_for_side_by_side(on_s3: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """With KMS no copy has its object's: that is two requests for each."""
    copy, met = LakehouseFileIO.copy, threading.Barrier(2, timeout=WITHIN_S)

    def any_version(files: LakehouseFileIO, source: str, url: str, **_: object) -> ObjectInfo:
        return copy(files, source, url)

    def not_one(_files: LakehouseFileIO, _url: str) -> bool:
        met.wait()  # breaks where they are asked for one by one
        return False

    monkeypatch.setattr(LakehouseFileIO, "copy", any_version)
    monkeypatch.setattr(LakehouseFileIO, "is_md5", not_one)
    files, path = on_s3.warehouse.files, on_s3.lakehouse.spec("events").source.path
    listed = [*files.list_objects(f"{path.partition('/%Y')[0]}/")]
    objects = [SourceObject(item.url, item.size, "0" * 32) for item in listed]
    folder = f"s3://plain/{uuid.uuid4().hex}"
    staged = staging.stage(files, objects, folder, lambda: None)
    with staged.open_read(objects[0].url, etag="0" * 32, size=objects[0].size) as body:
        assert body.read() == files.get(objects[0].url).body
    assert staging.remove_staged(files, folder) == OBJECTS


ODD = [
    "a b",
    "a+b",
    "a%20b",
    "a%2Fb",
    "a?versionId=x",
    "a#b",
    "ü€😀",
    "a=b&c",
    "a'b",
    "~a",
    "x" * 200,
    "😀" * 63,
    "empty",
]


@pytest.mark.parametrize("store", ["disk", "s3"])
def test_odd_names(seaweed: SeaweedServer, store: str, tmp_path: Path) -> None:
    """Nothing in a name is decoded, none is too long, and an object without a byte is one."""
    files = LakehouseFileIO(seaweed.s3_properties())
    root = f"file://{tmp_path}" if store == "disk" else f"s3://raw/{uuid.uuid4().hex}"
    for name in ODD:
        files.put(f"{root}/raw/{name}", b"" if name == "empty" else name.encode())
        files.put(f"{root}/raw/other/{name}", b"another")
    objects = [SourceObject(each.url, each.size, each.etag) for each in files.list_objects(f"{root}/raw/")]
    staged = staging.stage(files, objects, f"{root}/staging", lambda: None)
    files.delete_objects(each.url for each in objects)
    for each in objects:
        with staged.open_read(each.url, etag=each.etag, size=each.size) as body:
            name = each.url.rpartition("/")[2]
            assert body.read() == (b"another" if "/other/" in each.url else b"" if name == "empty" else name.encode())
    assert staging.remove_staged(files, f"{root}/staging") == 2 * len(ODD)


# ---------------------------------------------------------------------------------------------------------------------
# Every end
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["disk", "s3"])
def either(request: pytest.FixtureRequest) -> Project:
    """Give the one or the other."""
    made: Project = request.getfixturevalue("staged" if request.param == "disk" else "on_s3")
    return made


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let leases in this process be short."""
    shorten_leases(monkeypatch, SHORT, RENEW_EVERY)


@pytest.fixture
def copied() -> Iterator[list[str]]:
    """Count copies."""
    heard: list[str] = []

    def hear(event: events.Event) -> None:
        if event.name == "object.copied":
            heard.append(event.attempt)

    with events.subscribed(hear):
        yield heard


def test_nothing_stays_after_a_failure(either: Project, copied: list[str]) -> None:
    """Neither of an ETL that fails."""
    either.describe({"transform": "t.sql", "columns": COLUMNS})
    either.write("tables/t.sql", "SELECT at, CAST(CONCAT('x', id) AS BIGINT) AS id, size FROM source")
    with pytest.raises(DataError):
        either.run()
    assert len(copied) == OBJECTS
    assert _copies(either) == []


def test_nothing_stays_after_a_cancel(either: Project, copied: list[str]) -> None:
    """In the midst of the copies: those under way end, and no others begin."""
    halt = Halt()

    def cancel(event: events.Event) -> None:
        if event.name == "object.copied":
            halt.set()

    with events.subscribed(cancel), pytest.raises(HaltedError):
        seal_hour(either.bench(), WINDOW, halt=halt)
    assert 0 < len(copied) < OBJECTS
    assert _copies(either) == []
    outcome = either.record().outcome
    assert outcome is not None
    assert outcome.kind == "cancelled"


def _takes_over(project: Project) -> bool:
    held = project.table.ledger.hour(WINDOW)
    try:
        held.advance(epoch=held.record.epoch + 1, state="idle", attempt=None)
    except CommitConflictError:
        return False
    return True


def test_copies_end_with_the_lease(on_s3: Project, copied: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has lost the hour to another run pays for no more of them, and none stays."""
    shorten_leases(monkeypatch, SHORT, SHORT / 10)
    lose, taken, lost = HourRun._lost, threading.Lock(), threading.Event()

    def told(run: HourRun, jobs: Running) -> None:
        try:
            lose(run, jobs)
        finally:
            lost.set()

    def take(event: events.Event) -> None:
        if event.name == "object.copied":
            if taken.acquire(blocking=False):
                while not _takes_over(on_s3):  # the run renewed its lease just then
                    pass
            lost.wait(WITHIN_S)

    monkeypatch.setattr(HourRun, "_lost", told)
    with events.subscribed(take), pytest.raises(CommitConflictError):
        on_s3.run()
    assert 0 < len(copied) < OBJECTS
    assert _copies(on_s3) == []


def test_a_sealed_hour_keeps_no_copies(either: Project) -> None:
    """Its commit may be days away, and needs none."""
    work = seal_hour(either.bench(), WINDOW)
    assert either.record().state == "sealed"
    assert _copies(either) == []
    work.lease.close()  # type: ignore[union-attr]
    assert either.run().step == "resume"


def test_what_the_seal_leaves_the_closing_removes(staged: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not answer then costs nothing but time."""

    def fail(*_: object) -> int:
        raise TransientError("no answer")

    monkeypatch.setattr(hour_run, "remove_staged", fail)
    staged.run()
    assert _copies(staged) == []


def test_copies_that_stay_are_measured(staged: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they cannot be removed as their attempt ends, they count as its orphans until they are."""

    def fail(*_: object) -> int:
        raise TransientError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(hour_run, "remove_staged", fail)
        patch.setattr(close, "remove_staged", fail)
        staged.write("raw/2013/01/01/10-07.jsonl", b'{"at": "late"}\n')
        with pytest.raises(DataError):
            staged.run()
    assert len(_copies(staged)) == OBJECTS
    left = find_orphans(staged.table)
    assert (left.attempts, left.files) == (1, OBJECTS)
    assert left.bytes == sum(file.stat().st_size for file in (staged.folder / "raw").rglob("*.jsonl"))
    _second_pass(staged)
    assert _copies(staged) == []


def test_a_large_copy_under_way_goes_too(on_s3: Project, soon: None) -> None:
    """One above 5 GiB is an upload until it is whole, and its parts are billed."""
    with Lone(Run(on_s3.folder, HOUR, at={"object.copied": SIGKILL})) as first:
        first.killed()
    attempt = on_s3.record().attempt
    assert attempt is not None
    files = on_s3.warehouse.files
    files._s3_store()._requests.create_upload(f"{attempt.staging}/00099-large.jsonl", "nonce")
    assert list(files.list_uploads(f"{attempt.staging}/"))
    close_attempts(on_s3.table, lambda _run_id: True)
    assert list(files.list_uploads(f"{attempt.staging}/")) == []


def _second_pass(project: Project) -> None:
    """Remove what was on its way to the store as its run was killed, and came after the first pass."""
    close_attempts(project.table, lambda _run_id: True, grace=AT_ONCE)


@pytest.mark.parametrize("moment", ["object.copied", "attempt.sealed"])
def test_nothing_stays_after_a_kill(on_s3: Project, soon: None, moment: str) -> None:
    """What was copied is found by the attempt's marker, and removed as it is closed."""
    with Lone(Run(on_s3.folder, HOUR, at={moment: SIGKILL})) as first:
        first.killed()
    left = _copies(on_s3)
    killed = on_s3.record().attempt
    assert killed is not None
    assert left
    assert all(f"/{killed.id}/" in url for url in left)
    close_attempts(on_s3.table, lambda _run_id: True, sealed_keep=AT_ONCE if moment == "attempt.sealed" else None)
    _second_pass(on_s3)
    assert _copies(on_s3) == []
    assert on_s3.record().state == "idle"


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note what this process copies."""
    asked: list[str] = []
    copy = LakehouseFileIO.copy

    def noted(files: LakehouseFileIO, source: str, url: str, **how: object) -> ObjectInfo:
        info = copy(files, source, url, **how)  # type: ignore[arg-type]
        asked.append(source)
        return info

    monkeypatch.setattr(LakehouseFileIO, "copy", noted)
    return asked


@pytest.mark.parametrize("keys", [{}, {"staging_prefix": "s3://plain/scratch"}], ids=["ledger", "prefix"])
def test_a_killed_hour_goes_on(on_s3: Project, soon: None, keys: dict[str, str], sources: list[str]) -> None:
    """What the first run has copied is not copied from its source once more, and is removed all the same."""
    on_s3.describe(keys)
    with Lone(Run(on_s3.folder, HOUR, at={"object.copied": SIGKILL})) as first:
        first.killed()
    left = _copies(on_s3)
    assert 0 < len(left) < OBJECTS
    assert on_s3.run(others_are_over=True).step == "run"
    assert on_s3.ids() == IDS
    assert set(left) <= set(sources)
    assert len(sources) == OBJECTS
    _second_pass(on_s3)
    assert _copies(on_s3) == []


def test_what_changed_since_a_kill_is_copied_anew(on_s3: Project, soon: None, sources: list[str]) -> None:
    """A copy of the earlier version is none of what is listed now."""
    with Lone(Run(on_s3.folder, HOUR, at={"object.copied": SIGKILL})) as first:
        first.killed()
    name = _copies(on_s3)[0].rpartition("-")[2]
    number = int(name.partition(".")[0])
    url = f"{on_s3.lakehouse.spec('events').source.path.partition('/%Y')[0]}/2013/01/01/10-{name}"
    on_s3.warehouse.files.put(url, json_lines([row(HOUR, number + OBJECTS)]))
    on_s3.run(others_are_over=True)
    assert on_s3.ids() == sorted({*IDS, number + OBJECTS} - {number})
    assert url in sources


def test_copies_that_go_meanwhile_are_made_anew(
    on_s3: Project, soon: None, monkeypatch: pytest.MonkeyPatch, sources: list[str]
) -> None:
    """Whoever closes the killed attempt may do so just now."""
    with Lone(Run(on_s3.folder, HOUR, at={"object.copied": SIGKILL})) as first:
        first.killed()
    left, listed = _copies(on_s3), staging.staged_in

    def removed(files: LakehouseFileIO, folder: str) -> list[ObjectInfo]:
        found = listed(files, folder)
        files.delete_objects(set(left) & {item.url for item in found})
        return found

    monkeypatch.setattr(staging, "staged_in", removed)
    on_s3.run(others_are_over=True)
    assert on_s3.ids() == IDS
    assert not set(left) & set(sources)


def test_a_missing_bucket_is_not_a_missing_object(on_s3: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is wrong is wrong at the next run, too."""

    def no_bucket(_requests: object, _source: ObjectInfo, url: str, *_: object, **__: object) -> ObjectInfo:
        raise FileNotFoundError(2, "copy_object: no such object or bucket (NoSuchBucket)", url)

    monkeypatch.setattr("lakehouse_pipeline.object_store.requests.S3Requests.copy", no_bucket)
    with pytest.raises(ConfigurationError, match="there is no such bucket"):
        on_s3.run()


def test_a_killed_hour_that_is_sealed_resumes(on_s3: Project, soon: None) -> None:
    """And leaves no copies, though its run had no time to remove them."""
    with Lone(Run(on_s3.folder, HOUR, at={"attempt.sealed": SIGKILL})) as first:
        first.killed()
    assert len(_copies(on_s3)) == OBJECTS
    assert on_s3.run(others_are_over=True).step == "resume"
    assert _copies(on_s3) == []


# ---------------------------------------------------------------------------------------------------------------------
# The choice
# ---------------------------------------------------------------------------------------------------------------------


def test_different_stores_are_refused(project: Project, seaweed: SeaweedServer) -> None:
    """Before anything is written, and with the way out."""
    project.land(HOUR, [row(HOUR, 1)])
    project.describe({"staging": "copy", "staging_prefix": "s3://plain/scratch"})
    with pytest.raises(ConfigurationError, match=r"staging: copy needs source and copies in one store.*staging: dir"):
        project.run()
    assert project.record().epoch == 0
    project.describe({"staging": "auto"})
    assert project.run().staging[0].startswith("direct: auto, source and copies in one store")


def test_other_credentials_are_refused(on_s3: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a table that are not the catalog's may not read the sources; a prefix of one's own may do."""
    own = "lakehouse_pipeline.backfill.staging_choice._access"
    monkeypatch.setattr(own, lambda files: (id(files),))
    with pytest.raises(ConfigurationError, match=r"staging: copy needs one access to .* set `staging_prefix`"):
        on_s3.run()
    on_s3.describe({"staging_prefix": "s3://plain/scratch"})
    on_s3.run()
    assert on_s3.ids() == IDS


def test_spark_s_readers_are_refused(project: Project) -> None:
    """Their messages would name copies."""
    project.describe({"source": f"{{path: raw/%Y.jsonl, columns: {COLUMNS}, reader: spark}}", "staging": "copy"})
    with pytest.raises(ConfigurationError, match=r"events\.yaml:\d+: staging: 'copy' takes our readers"):
        _ = project.lakehouse


@pytest.mark.parametrize(
    ("regions", "sql", "word"),
    [
        pytest.param(("eu-west-1", "us-east-1"), "FROM source JOIN source AS other USING (id)", "copy", id="twice"),
        pytest.param(("eu-west-1", "us-east-1"), "FROM source", "direct", id="once"),
        pytest.param(("eu-west-1", "eu-west-1"), "FROM source JOIN source AS other USING (id)", "direct", id="near"),
        pytest.param((None, "us-east-1"), "FROM source JOIN source AS other USING (id)", "direct", id="unknown"),
    ],
)
def test_auto(  # noqa: PLR0917  # fixtures
    on_s3: Project,
    regions: tuple[str | None, str | None],
    sql: str,
    word: str,
    copied: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is far away and read more than once is copied; the log and the result say why."""
    far, near = regions
    monkeypatch.setattr(LakehouseFileIO, "region_of", lambda _files, url: far if url.startswith("s3://raw/") else near)
    # With the price of its requests a copy pays from 250 kB an object on.
    copy = "{moves: [sources], bandwidth: 1 Gb/s, per_byte: $0.02/GB, needs: [two regions], source: us, date: now}"
    on_s3.write("ways.yaml", f"ways: {{inter-region copy: {copy}}}\n")
    on_s3.describe({"staging_ways": "ways.yaml"})
    on_s3.describe({"staging": "auto", "transform": "t.sql", "columns": "{at: timestamptz!, id: long!}"})
    on_s3.write("tables/t.sql", f"SELECT source.at, id {sql}")
    with caplog.at_level("INFO", "lakehouse_pipeline.backfill.hour_run"):
        result = on_s3.run()
    assert on_s3.ids() == IDS
    assert result.staging[0].startswith(f"{word}: auto")
    assert result.staging[0] in caplog.text
    assert len(copied) == (OBJECTS if word == "copy" else 0)
    assert _copies(on_s3) == []
    if word == "copy":
        assert any("runner-up: read by inter-region read" in line for line in result.staging)


def test_auto_with_own_ways(on_s3: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where reading from afar is free, nothing is copied."""
    monkeypatch.setattr(LakehouseFileIO, "region_of", lambda _files, url: url[:8])
    on_s3.write(
        "ways.yaml",
        "ways: {inter-region read: {moves: [reads], bandwidth: 1 Gb/s, needs: [two regions], source: us, date: now}}\n",
    )
    on_s3.describe({"staging": "auto", "staging_ways": "ways.yaml", "transform": "t.sql", "columns": COLUMNS})
    on_s3.write("tables/t.sql", "SELECT source.* FROM source JOIN (SELECT id FROM source) USING (id)")
    assert on_s3.run().staging[0] == "direct: auto, read 2x"


def test_auto_without_a_way(on_s3: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own rows that are all out of reach are no reason to fail an hour: it is read, and the reason is told."""
    monkeypatch.setattr(LakehouseFileIO, "region_of", lambda _files, url: url[:8])
    rows = [
        f"{name}: {{moves: [{moves}], bandwidth: 1 Gb/s, needs: [two regions, luck], source: us, date: now}}"
        for name, moves in (("inter-region read", "reads"), ("inter-region copy", "sources"))
    ]
    on_s3.write("ways.yaml", f"ways: {{{', '.join(rows)}}}\n")
    on_s3.describe({"staging": "auto", "staging_ways": "ways.yaml"})
    said = on_s3.run().staging[0]
    assert said.startswith("direct: auto, there is no way to move these bytes: ")
    assert "no luck for inter-region copy" in said


def test_auto_on_one_disk(staged: Project) -> None:
    """There is nothing to gain."""
    staged.describe({"staging": "auto"})
    assert staged.run().staging == (
        "direct: auto, the objects are in the bucket, or on the disk, that copies would go to",
    )


@pytest.mark.parametrize(
    ("sql", "times"),
    [
        ("SELECT source.id FROM source", 1),
        ("SELECT 1", 1),
        ("SELECT * FROM source UNION ALL SELECT * FROM `source`", 2),
        ("SELECT * FROM names, source JOIN source s -- FROM source\n /* join source */", 2),
        ("SELECT source.a, source.b FROM source_of", 1),
        ("SELECT id, source, coalesce(source, id, source) FROM source WHERE a IN (1, source) GROUP BY id, source", 1),
        ("SELECT '-- ''source', \"from source, source\" FROM source JOIN source AS other USING (id)", 2),
        ("SELECT * FROM (source) JOIN (SELECT id FROM names AS n, (SELECT 1), Source) USING (id)", 2),
        ("SELECT a FROM x JOIN source s ON f(x.a, s.a) = 1, source", 2),
    ],
)
def test_how_often_sql_reads_its_source(project: Project, sql: str, times: int) -> None:
    """As its text tells: columns, comments and other names are no readings."""
    project.describe({"transform": "t.sql", "columns": COLUMNS})
    project.write("tables/t.sql", sql)
    assert times_read(project.lakehouse.spec("events")) == times

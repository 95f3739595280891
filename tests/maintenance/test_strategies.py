"""How files are compacted: the same rows, in another order, or one of each key; row groups as they are; the proofs."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.types import StringType

from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.errors import SafetyError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.data_files import write_files
from lakehouse_pipeline.iceberg.rows import StoredTable
from lakehouse_pipeline.iceberg.schemas import arrow_schema_of
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.maintenance import rewrite
from lakehouse_pipeline.maintenance.compaction import compact, look
from lakehouse_pipeline.maintenance.merging import latest_by_key
from lakehouse_pipeline.maintenance.rewrite import ProofError
from lakehouse_pipeline.object_store.checksums import ChecksumMismatchError
from lakehouse_pipeline.status.picture import hour_status
from tests.backfill.hands import in_hand
from tests.iceberg.lake import EVENTS, MEGABYTE, TEN, TWELVE, Lake, columns, spec_of
from tests.iceberg.lake import events as rows_of
from tests.maintenance.test_compaction import FILES, IDS, compacted, data, left_over, made, put, put_rows, ran

COPY: dict[str, Any] = {"copy_row_groups": "0KB"}  # however small row groups are
VERSIONS = {"at": "timestamptz!", "id": "long!", "v": "long", "gone": "boolean", "note": "string"}
POINTS = {"at": "timestamptz!", "x": "long!", "y": "long!"}


@pytest.fixture
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Give a table in a SQLite catalog of its own, with an hour of small files and one of a single one."""
    return made(tmp_path_factory)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder that temporary files go to."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def empty(tmp_path_factory: pytest.TempPathFactory, types: dict[str, str], **told: Any) -> Lake:
    """Make a table without rows, in a catalog of its own."""
    made_lake = made(tmp_path_factory)
    return Lake.create(made_lake.catalog, types, **told)


def batch(types: dict[str, str], rows: Iterable[Sequence[Any]], hour: HourWindow = TEN) -> pa.RecordBatch:
    """Make rows of an hour, a second apart, of columns of these types."""
    schema = arrow_schema_of(columns(types))
    told = [
        dict(zip(types, (hour.start + timedelta(seconds=place % 3_600), *row), strict=True))
        for place, row in enumerate(rows)
    ]
    return pa.RecordBatch.from_pylist(told, schema=schema)


def stored(lake: Lake, path: str) -> bytes:
    """Read a file's bytes."""
    return bytes(lake.now.files.get(path).body)


def in_order(lake: Lake) -> list[list[dict[str, Any]]]:
    """Read the rows of each of the hour's files, in their order."""
    return [pq.read_table(pa.BufferReader(stored(lake, path))).to_pylist() for path in data(lake)]


def operation(lake: Lake) -> str:
    """Give what the last snapshot says of itself."""
    snapshot = lake.now.table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    return snapshot.summary.operation.value


def sort_orders(lake: Lake) -> set[int | None]:
    """Give the sort orders that the hour's files are said to be in."""
    return {each.data_file.sort_order_id or 0 for each in lake.entries() if each.data_file.file_path in data(lake)}


@pytest.mark.parametrize("sort", [[], ["id"]], ids=["unsorted table", "sorted table"])
def test_sort_by_columns(tmp_path_factory: pytest.TempPathFactory, sort: list[str]) -> None:
    """Rows are in the order of the spec's columns, not said to be in the table's, and left alone from then on."""
    lake = empty(tmp_path_factory, POINTS, sort=[name.replace("id", "x") for name in sort])
    points = [(number, -number % 4) for number in range(12)]
    put_rows(lake, TEN, [batch(POINTS, points[place : place + 2]) for place in range(0, 12, 2)])
    told = {"types": POINTS, "strategy": "sort", "columns": ["y", "x"]}
    done = compacted(lake, **told)[TEN]
    assert (done.error, done.strategies) == (None, (("sort", "as the spec has it"),))
    (rows,) = in_order(lake)
    assert [(row["y"], row["x"]) for row in rows] == sorted((y, x) for x, y in points)
    assert operation(lake) == "replace"
    assert sort_orders(lake) == {0}
    assert compacted(lake, **told) == {}
    assert left_over(lake) == set()


def test_zorder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same rows, in files each of which spans little of every column."""
    lake, chance = empty(tmp_path_factory, POINTS), np.random.default_rng(7)
    with lake.now.table.transaction() as change:
        change.set_properties({"write.target-file-size-bytes": "400000"})
    points = chance.integers(2**40, size=(120_000, 2)).tolist()
    cuts = range(0, len(points), len(points) // FILES)
    put_rows(lake, TEN, [batch(POINTS, points[place : place + cuts.step]) for place in cuts])
    before = lake.now.table.scan().to_arrow().sort_by("x")
    settings = {"strategy": "zorder", "columns": ["x", "y"], "max_file_size": "450KB"}
    done = compacted(lake, types=POINTS, **settings)[TEN]
    assert (done.error, done.strategies) == (None, (("zorder", "as the spec has it"),))
    assert lake.now.table.scan().to_arrow().sort_by("x").equals(before)
    files = in_order(lake)
    assert len(files) >= 4
    spans = [
        [(max(row[name] for row in rows) - min(row[name] for row in rows)) / 2**40 for name in ("x", "y")]
        for rows in files
    ]
    assert sum(x * y for x, y in spans) / len(spans) < 0.5  # of all points' area, which is what files had before
    assert operation(lake) == "replace"
    assert left_over(lake) == set()


def merged(lake: Lake, **settings: Any) -> Any:
    """Compact by key, two files being enough; gives what became of the hour."""
    return compacted(lake, types=VERSIONS, key=["id"], strategy="merge", min_input_files=2, **settings)


def versions(lake: Lake) -> list[tuple[Any, ...]]:
    """Read the rows, without their time."""
    return sorted(tuple(row.values())[1:] for row in lake.now.table.scan().to_arrow().to_pylist())


def appended(lake: Lake, *files: Sequence[Sequence[Any]]) -> None:
    """Append files one after the other, each younger than the one before."""
    for rows in files:
        lake.append(batch(VERSIONS, rows))


def test_merge_by_version(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The greatest version of each key is left, wherever it is; the snapshot says that rows changed."""
    lake = empty(tmp_path_factory, VERSIONS)
    first = [(1, 5, False, "new"), (2, 1, False, "old"), (3, None, None, "none")]
    put_rows(
        lake,
        TEN,
        [batch(VERSIONS, first), batch(VERSIONS, [(1, 4, None, "old"), (2, 2, None, "new"), (4, 1, None, "")])],
    )
    done = merged(lake, version="v")[TEN]
    assert (done.error, done.strategies) == (None, (("merge", "as the spec has it"),))
    assert versions(lake) == [(1, 5, False, "new"), (2, 2, None, "new"), (3, None, None, "none"), (4, 1, None, "")]
    assert operation(lake) == "overwrite"
    held = in_hand(lake, TEN).held
    assert held.record.committed is not None
    assert held.record.committed.rewritten
    assert hour_status(held).state == "compacted"
    assert merged(lake, version="v") == {}
    assert left_over(lake) == set()


@pytest.mark.parametrize(
    ("version", "left"),
    [
        pytest.param("v", [(1, 2, None, "b"), (2, 1, None, "c"), (3, 9, None, "a")], id="equal versions"),
        pytest.param(None, [(1, 2, None, "b"), (2, 1, None, "c"), (3, 1, None, "c")], id="no version"),
    ],
)
def test_the_youngest_file_breaks_ties(
    tmp_path_factory: pytest.TempPathFactory, version: str | None, left: list[tuple[Any, ...]]
) -> None:
    """Of rows of one version, and where there is none, the one that was committed last is left."""
    lake = empty(tmp_path_factory, VERSIONS)
    appended(
        lake,
        [(1, 2, None, "a"), (2, 1, None, "a"), (3, 9, None, "a")],
        [(1, 2, None, "b"), (2, 1, None, "b")],
        [(2, 1, None, "c"), (3, 1, None, "c")],
    )
    assert merged(lake, **({"version": version} if version else {}))[TEN].error is None
    assert versions(lake) == left


def test_merge_drops_what_is_deleted(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A key whose latest row says so is gone with all its rows; one that came back is not."""
    lake = empty(tmp_path_factory, VERSIONS)
    appended(
        lake,
        [(1, 1, False, "a"), (2, 1, True, "a"), (3, 1, None, "a"), (4, 3, False, "late")],
        [(1, 2, True, "b"), (2, 2, False, "b"), (4, 2, True, "b")],
    )
    assert merged(lake, version="v", deleted="gone")[TEN].error is None
    assert versions(lake) == [(2, 2, False, "b"), (3, 1, None, "a"), (4, 3, False, "late")]
    assert merged(lake, version="v", deleted="gone") == {}


def test_merge_to_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An hour of whose keys all are gone has no file."""
    lake = empty(tmp_path_factory, VERSIONS)
    appended(lake, [(1, 1, False, "a")], [(1, 2, True, "b")])
    done = merged(lake, version="v", deleted="gone")[TEN]
    assert (done.error, done.files, data(lake), versions(lake)) == (None, 0, [], [])
    assert left_over(lake) == set()


def test_merge_by_several_columns(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Null is a value of a key as others are; a sorted table stays sorted."""
    lake = empty(tmp_path_factory, VERSIONS, sort=["-v"])
    appended(lake, [(1, None, None, "a"), (1, 7, None, "a")], [(1, None, None, "b"), (2, 8, None, "b")])
    done = compacted(lake, types=VERSIONS, key=["id", "v"], strategy="merge", min_input_files=2)[TEN]
    assert done.error is None
    (rows,) = in_order(lake)
    assert [(row["id"], row["v"], row["note"]) for row in rows] == [(2, 8, "b"), (1, 7, "a"), (1, None, "b")]
    assert sort_orders(lake) == {lake.now.table.sort_order().order_id}


def test_a_sample_of_keys_is_proved(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are more keys than are held, those are compared that are held of both."""
    monkeypatch.setattr(rewrite._Sample, "most", 40)
    lake = empty(tmp_path_factory, VERSIONS)
    put_rows(lake, TEN, [batch(VERSIONS, [(n, v, None, "n") for n in range(500)]) for v in (1, 2, 3)])
    assert merged(lake, version="v")[TEN].error is None
    assert versions(lake) == [(n, 3, None, "n") for n in range(500)]
    put_rows(lake, TWELVE, [batch(VERSIONS, [(n, v, None, "n") for n in range(500)], TWELVE) for v in (1, 2, 3)])
    bent_on_the_way(monkeypatch, "latest_by_key", lambda rows: rows.slice(0, 300))
    assert "rows kept of them" in str(merged(lake, version="v")[TWELVE].error)


def row_groups(body: bytes) -> list[list[bytes]]:
    """Give the bytes of each row group's columns."""
    footer = pq.read_metadata(pa.BufferReader(body))
    found = []
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        chunks = [group.column(place) for place in range(group.num_columns)]
        starts = [chunk.dictionary_page_offset or chunk.data_page_offset for chunk in chunks]
        found.append(
            [body[start : start + chunk.total_compressed_size] for start, chunk in zip(starts, chunks, strict=True)]
        )
    return found


def test_copy(lake: Lake) -> None:
    """Row groups are those of the old files, byte for byte; rows and the metadata of the new file are right."""
    before = [group for path in data(lake) for group in row_groups(stored(lake, path))]
    done = compacted(lake, **COPY)[TEN]
    assert done.error is None
    ((strategy, reason),) = done.strategies
    assert (strategy, reason.startswith("row groups have ")) == ("copy", True)
    (path,) = data(lake)
    after = row_groups(stored(lake, path))
    assert len(after) == FILES
    assert sorted(after) == sorted(before)
    assert lake.rows()[TEN.key] == IDS
    (entry,) = [each.data_file for each in lake.entries() if each.data_file.file_path == path]
    assert (entry.record_count, entry.file_size_in_bytes, len(entry.split_offsets or ())) == (
        FILES,
        len(stored(lake, path)),
        FILES,
    )
    assert operation(lake) == "replace"
    assert compacted(lake, **COPY) == {}
    assert left_over(lake) == set()


def test_a_copy_within_s3(rest_catalog: Catalog) -> None:
    """The store copies what is large enough by itself: most bytes never come here, and the rows are the same."""
    lake, chance = Lake.create(rest_catalog, POINTS), np.random.default_rng(7)
    rows = 400_000
    moments = pa.array([TEN.start] * rows, pa.timestamp("us", "UTC"))
    points = [[moments, *(pa.array(chance.integers(2**62, size=rows)) for _ in "xy")] for _ in range(3)]
    schema = arrow_schema_of(columns(POINTS))
    put_rows(lake, TEN, [pa.RecordBatch.from_arrays(arrays, schema=schema) for arrays in points], 20 * MEGABYTE)
    before = lake.now.table.scan().to_arrow().sort_by("x")
    done = compacted(lake, types=POINTS, min_input_files=3, **COPY)[TEN]
    assert done.error is None
    assert [strategy for strategy, _ in done.strategies] == ["copy"]
    assert done.requests > 0
    assert done.bytes / 2 < done.bytes_apart < done.bytes
    assert lake.now.table.scan().to_arrow().sort_by("x").equals(before)
    assert left_over(lake) == set()


def test_a_copy_is_copied_again(lake: Lake) -> None:
    """Its row groups go on, with those of younger files."""
    compacted(lake, **COPY)
    lake.append(rows_of(TEN, [90, 91]))
    done = compacted(lake, min_input_files=2, **COPY)[TEN]
    assert [strategy for strategy, _ in done.strategies] == ["copy"]
    (path,) = data(lake)
    assert len(row_groups(stored(lake, path))) == FILES + 1
    assert lake.rows()[TEN.key] == [*IDS, 90, 91]


def test_a_copy_of_files_whose_manifest_lies(lake: Lake) -> None:
    """A file that has other rows than its manifest tells is not copied, and nothing is left."""
    spec, table = spec_of(EVENTS, {"table": lake.identifier, "compact": COPY}), lake.now
    plan = look(MaintenanceSettings(), spec, table)
    (hour,) = plan.hours
    (group,) = hour.groups
    files = (*group.files[:-1], replace(group.files[-1], rows=2))
    lying = replace(plan, hours=(replace(hour, groups=(replace(group, files=files),)),))
    (done,) = compact(Warehouse(lake.catalog, table.files), spec, lying, "compactor")
    assert isinstance(done.error, SafetyError)
    assert "has 1 rows, and 2 by its manifest; nothing was copied" in str(done.error)
    assert len(data(lake)) == FILES
    assert left_over(lake) == set()


def test_a_copy_of_damaged_row_groups(lake: Lake) -> None:
    """A bit that flipped since they were written makes no new file: none of it is decoded, so that sums tell."""
    path = data(lake)[0]
    body = bytearray(stored(lake, path))
    body[40] ^= 1
    lake.now.files.put(path, bytes(body))
    done = compacted(lake, **COPY)[TEN]
    assert isinstance(done.error, ChecksumMismatchError)
    assert path in str(done.error)
    assert len(data(lake)) == FILES
    assert left_over(lake) == set()


def test_files_of_an_earlier_schema_are_rewritten(lake: Lake) -> None:
    """Only footers tell; what was done instead is told with the reason."""
    with lake.now.table.update_schema() as change:
        change.add_column("more", StringType())
    done = compacted(lake, **COPY)[TEN]
    assert (done.error, done.strategies) == (None, (("rewrite", "the files' columns are of an earlier schema"),))
    ((*_, row),) = in_order(lake)
    assert row["more"] is None
    assert lake.rows()[TEN.key] == IDS
    assert compacted(lake, **COPY) == {}
    assert left_over(lake) == set()


@pytest.mark.parametrize("settings", [{}, COPY], ids=["rewrite", "copy"])
@pytest.mark.parametrize(("per_commit", "snapshots"), [(None, 1), (2, 2), (1, 3)])
def test_groups_and_commits(lake: Lake, settings: dict[str, str], per_commit: int | None, snapshots: int) -> None:
    """Groups of so many bytes become a file each; an hour takes as many commits as its groups ask for."""
    before = len(lake.now.table.metadata.snapshots)
    size = max(file.bytes for file in lake.now.live(TEN))
    grouped: dict[str, Any] = {"min_input_files": 2, "max_file_group_size": f"{2.2 * size / 1000:.3f}KB", **settings}
    if per_commit:
        grouped["groups_per_commit"] = per_commit
    done = ran(lake, **grouped)
    assert [each.error for each in done] == [None] * snapshots
    assert (sum(each.files_before for each in done), sum(each.files for each in done)) == (FILES, 3)
    assert len(lake.now.table.metadata.snapshots) == before + snapshots
    assert len(data(lake)) == 3
    assert lake.rows()[TEN.key] == IDS
    assert left_over(lake) == set()


def shorter(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Lose a row."""
    return rows.slice(0, rows.num_rows - 1)


def another(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Change a cell."""
    place = rows.schema.get_field_index("note")
    return rows.set_column(place, rows.schema.field(place), pa.array(["bent"] * rows.num_rows))


def twice(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Have each row twice."""
    return pa.concat_batches([rows, rows])


def bent_on_the_way(monkeypatch: pytest.MonkeyPatch, where: str, bend: Any) -> None:
    """Bend rows as they are read, put in order, reduced, or written."""
    if where == "read":
        whole = StoredTable.live_batches
        monkeypatch.setattr(StoredTable, "live_batches", lambda *told: map(bend, whole(*told)))
    elif where == "written":
        monkeypatch.setattr(rewrite, "write_files", lambda to, rows, *more: write_files(to, map(bend, rows), *more))
    elif where == "latest_by_key":

        class Bent:
            def __init__(self, *told: Any, **more: Any) -> None:
                self.merge = latest_by_key(*told, **more)

            def rows(self) -> Iterator[pa.RecordBatch]:
                return map(bend, self.merge.rows())

        monkeypatch.setattr(rewrite, where, Bent)
    else:
        order = getattr(rewrite, where)
        monkeypatch.setattr(rewrite, where, lambda *told, **more: map(bend, order(*told, **more)))


@pytest.mark.parametrize(
    ("settings", "where", "bend", "said"),
    [
        pytest.param({}, "read", shorter, "the files have 12 rows and", id="rewrite loses a row that it reads"),
        pytest.param({}, "read", twice, "the files have 12 rows and 24 were read", id="rewrite reads rows twice"),
        pytest.param({}, "written", another, "12 rows were read and 12 written", id="rewrite writes another cell"),
        pytest.param({}, "written", shorter, "12 rows were read and", id="rewrite writes a row less"),
        *(
            pytest.param(
                {"strategy": strategy, "columns": ["v"]}, where, bend, "12 rows were read and", id=f"{strategy} {said}"
            )
            for strategy, order in (("sort", "sorted_batches"), ("zorder", "z_ordered"))
            for where, bend, said in (
                (order, shorter, "loses a row"),
                (order, another, "changes a cell"),
                ("written", twice, "writes rows twice"),
            )
        ),
        pytest.param({"strategy": "merge"}, "read", shorter, "the files have 12 rows and", id="merge loses a row"),
        pytest.param(
            {"strategy": "merge", "version": "v"},
            "latest_by_key",
            shorter,
            "6 keys were read and 5 rows kept",
            id="merge loses a key",
        ),
        pytest.param(
            {"strategy": "merge", "version": "v"},
            "latest_by_key",
            twice,
            "6 keys were read and 12 rows kept",
            id="merge keeps rows twice",
        ),
        pytest.param(
            {"strategy": "merge", "version": "v"},
            "written",
            shorter,
            "6 rows were read and 5",
            id="merge writes a row less",
        ),
        pytest.param(
            {"strategy": "merge", "version": "v"},
            "written",
            another,
            "6 rows were read and 6",
            id="merge writes another cell",
        ),
    ],
)
def test_rows_that_are_not_right_are_not_committed(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    disk: Path,
    *,
    settings: dict[str, Any],
    where: str,
    bend: Any,
    said: str,
) -> None:
    """Wherever they are bent: the table is as it was, and nothing is left on storage or on disk."""
    lake = empty(tmp_path_factory, VERSIONS)
    rows = [(number, version, None, "n") for version in (1, 2) for number in IDS]
    put_rows(lake, TEN, [batch(VERSIONS, rows[place : place + 2]) for place in range(0, 12, 2)])
    before, head = versions(lake), lake.now.head
    bent_on_the_way(monkeypatch, where, bend)
    done = compacted(lake, types=VERSIONS, key=["id"], **settings)[TEN]
    assert isinstance(done.error, ProofError)
    assert said in str(done.error)
    assert (versions(lake), lake.now.head) == (before, head)
    assert left_over(lake) == set()
    assert list(disk.iterdir()) == []


def test_one_group_that_fails(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the hour is committed then, and what the other groups wrote is gone; other hours are compacted."""
    put(lake, TWELVE, [[number] for number in IDS])
    size = max(file.bytes for file in lake.now.live(TEN))

    def bent(to: Any, rows: Iterable[pa.RecordBatch], *more: Any) -> Any:
        return write_files(
            to, (each.filter(pc.not_equal(each["id"], 0)) if to.hour == TEN else each for each in rows), *more
        )

    monkeypatch.setattr(rewrite, "write_files", bent)
    done = compacted(lake, min_input_files=2, max_file_group_size=f"{2.2 * size / 1000:.3f}KB")
    assert isinstance(done[TEN].error, ProofError)
    assert done[TWELVE].error is None
    assert (len(data(lake)), len(data(lake, TWELVE))) == (FILES, 3)
    assert lake.rows()[TEN.key] == lake.rows()[TWELVE.key] == IDS
    assert left_over(lake) == set()


@pytest.mark.parametrize("settings", [{}, COPY], ids=["rewrite", "copy"])
@pytest.mark.parametrize("broken", ["gone", "cut off", "something else"])
def test_a_file_that_cannot_be_read(lake: Lake, settings: dict[str, Any], broken: str) -> None:
    """It fails its hour, with its name, and no other; nothing of the hour is left."""
    put(lake, TWELVE, [[number] for number in IDS])
    path = data(lake)[2]
    body = stored(lake, path)
    lake.now.files.delete(path)
    if broken != "gone":
        lake.now.files.put(path, body[: len(body) // 2] if broken == "cut off" else b"x" * len(body))
    done = compacted(lake, **settings)
    assert isinstance(done[TEN].error, SafetyError)
    assert path in str(done[TEN].error)
    assert done[TWELVE].error is None
    assert len(data(lake, TWELVE)) == 1
    assert left_over(lake) == set()

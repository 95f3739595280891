"""The check of a sorted hour's order, on files as they lie on storage."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse_pipeline.backfill import hour_run
from lakehouse_pipeline.backfill.checks import CheckFailedError
from lakehouse_pipeline.backfill.etl import Etl, run_etl
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.data_files import WrittenFile
from tests.backfill.test_hour import LARGE
from tests.projects import HOUR, Project

SORTED = {"sort": "[size, id desc]", "file_size": "1MB", "check_order": "true"}


@pytest.fixture
def large(project: Project) -> Project:
    """Give a project with an hour of several files."""
    line = b'{"at": "2013-01-01T10:%02d:00Z", "id": %d, "size": %d}\n'
    lines = (line % (n % 60, n, n * 7919 % 1000) for n in range(LARGE))
    project.write("raw/2013/01/01/10.jsonl", b"".join(lines))
    return project


@pytest.mark.parametrize("partition", [None, "[bucket(3, id)]"], ids=["by the hour", "by buckets, too"])
def test_a_sorted_hour_passes(large: Project, partition: str | None) -> None:
    """All files are read, and all rows of them; files of different partitions need not follow each other."""
    large.describe(SORTED | ({"partition": partition} if partition else {}))
    result = large.run()
    check = result.checks[-1]
    assert (check.name, dict(check.figures)) == ("files_are_in_order", {"rows": LARGE, "files": result.seal.files})
    assert result.seal.files > 3


def _exchanged(files: Sequence[WrittenFile], project: Project) -> list[WrittenFile]:
    """Exchange the bodies of the first file and the last."""
    one, *middle, two = files
    paths = [Path(file.path.removeprefix("file://")) for file in (one, two)]
    bodies = [path.read_bytes() for path in paths]
    for path, body in zip(paths, reversed(bodies), strict=True):
        path.write_bytes(body)
    infos = [project.table.files.head(file.path) for file in (one, two)]
    swapped = [
        replace(file, size=info.size, etag=info.etag, rows=other.rows)
        for file, info, other in zip((one, two), infos, (two, one), strict=True)
        if info
    ]
    return [swapped[0], *middle, swapped[1]]


def _short(files: Sequence[WrittenFile], _project: Project) -> list[WrittenFile]:
    """Say that a file has a row more than it has, and another one less."""
    one, two, *others = files
    return [replace(one, rows=one.rows + 1), replace(two, rows=two.rows - 1), *others]


def _changed(files: Sequence[WrittenFile], project: Project) -> list[WrittenFile]:
    """Change a value of a row that nothing is sorted by."""
    one, *others = files
    path = one.path.removeprefix("file://")
    rows = pq.ParquetFile(path).read()
    later = pa.concat_arrays([rows["at"].chunk(0)[1:2], *(chunk for chunk in rows["at"].slice(1).chunks)])
    pq.write_table(rows.set_column(0, rows.schema.field("at"), later), path)
    info = project.table.files.head(one.path)
    assert info
    return [replace(one, size=info.size, etag=info.etag), *others]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_exchanged, "begins with .* before the end of"),
        (_short, "has .* rows"),
        (_changed, "rows are not those that were sorted"),
    ],
)
def test_an_hour_that_is_not_sorted_fails(
    large: Project, spoil: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that are not what their writer said end the hour before its commit, and are removed."""
    large.describe(SORTED)

    def spoiled(*given: Any, **more: Any) -> Etl:
        etl = run_etl(*given, **more)
        return replace(etl, files=spoil(etl.files, large))

    monkeypatch.setattr(hour_run, "run_etl", spoiled)
    with pytest.raises(CheckFailedError, match=said) as caught:
        large.run()
    assert caught.value.check == "files_are_in_order"
    assert not large.files()
    assert large.table.live(HourWindow.from_key(HOUR)) == []

"""Splits read one after the other: what is kept aside, and when."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse_pipeline.backfill.inputs import Aside, Counts, View
from lakehouse_pipeline.backfill.views import read_splits, splits_of
from lakehouse_pipeline.errors import TransientError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources.listing import SourceObject

SCHEMA = pa.schema([("id", pa.int64())])
GOOD, BAD = b'{"id": 1}\n', b'{"id": "x"}\n'


def _view(folder: Path, *bodies: bytes) -> View:
    """Land an object for each body, and keep bad rows beside them."""
    files = LakehouseFileIO({})
    objects = []
    for number, body in enumerate(bodies):
        url = f"file://{folder}/raw/{number}.jsonl"
        files.put(url, body)
        (found,) = files.list_objects(url)
        objects.append(SourceObject(found.url, found.size, found.etag))
    return View("jsonl", tuple(objects), SCHEMA, keeps_bad=True, aside=Aside(files, f"file://{folder}/aside"))


def _kept(folder: Path) -> list[str]:
    """Give the names of the files that the kept rows are of."""
    path = folder / "aside" / "00000.parquet"
    return [Path(url).name for url in pq.read_table(path)["file"].to_pylist()] if path.exists() else []


def test_a_reading_that_ends_keeps_what_it_rejected(tmp_path: Path) -> None:
    """Of all its splits, in one object."""
    view, files = _view(tmp_path, GOOD + BAD, GOOD + BAD), LakehouseFileIO({})
    assert len(list(read_splits(files, view, splits_of(files, view), 0, Counts()))) == 2
    assert _kept(tmp_path) == ["0.jsonl", "1.jsonl"]


def test_a_reading_that_is_closed_early_puts_no_part_in_the_place_of_the_whole(tmp_path: Path) -> None:
    """A task may run twice, and the second time be closed below a LIMIT: what the first one put stays."""
    view, files = _view(tmp_path, GOOD + BAD, GOOD + BAD), LakehouseFileIO({})
    splits = splits_of(files, view)
    list(read_splits(files, view, splits, 0, Counts()))
    batches = read_splits(files, view, splits, 0, Counts())
    next(batches)
    batches.close()  # type: ignore[attr-defined]  # it is a generator
    assert _kept(tmp_path) == ["0.jsonl", "1.jsonl"]


def test_a_reading_that_fails_puts_no_part_in_the_place_of_the_whole(tmp_path: Path) -> None:
    """The same where the store or a file ends it."""
    view, files = _view(tmp_path, GOOD + BAD, GOOD + BAD), LakehouseFileIO({})
    splits = splits_of(files, view)
    list(read_splits(files, view, splits, 0, Counts()))
    files.delete(splits[1].url)
    with pytest.raises(TransientError, match="is gone"):
        list(read_splits(files, view, splits, 0, Counts()))
    assert _kept(tmp_path) == ["0.jsonl", "1.jsonl"]

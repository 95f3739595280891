"""Listing a folder from many ends at once: S3 gives 1,000 names an answer, and a table may have millions.

The folder is opened level by level until there are enough folders to be listed side by side; with entropy in the keys
two levels give 256. Whatever lies in it is met once, however it is laid out.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import BinaryIO
from urllib.parse import unquote_plus

import pyarrow as pa
from pyarrow import csv, parquet

from lakehouse_pipeline.errors import ConfigurationError, LakehouseError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import ObjectInfo
from lakehouse_pipeline.object_store.side_by_side import side_by_side

ENOUGH, TOO_MANY = 256, 4096  # folders that are listed side by side
LEVELS = 6
OF_A_LEVEL = 10_000  # names that are held in memory until it is known how to go on; a folder of more is listed flat
LISTED_AT_ONCE = 32
TOLD_TOGETHER = 1000

Heard = Callable[[Sequence[ObjectInfo]], None]


def list_side_by_side(files: LakehouseFileIO, folder: str, heard: Heard, skips: Callable[[str], bool]) -> None:
    """Go through all objects in a folder.

    Args:
        files: the store.
        folder: without its last slash.
        heard: told of objects, some at a time, from several threads.
        skips: tells of a folder's URL whether to leave it out, with all below it. Where it is not met by itself its
            objects are told.

    Raises:
        TransientError: the store did not answer.
    """
    levels, flat = [f"{folder}/"], list[str]()
    for _ in range(LEVELS):
        if not levels or len(levels) >= ENOUGH:
            break
        opened = side_by_side(lambda level: _opened(files, level, skips), levels, LISTED_AT_ONCE)
        if sum(len(each[1]) for each in opened if each) > TOO_MANY:
            break
        flat += [level for level, each in zip(levels, opened, strict=True) if each is None]
        for objects, _ in filter(None, opened):
            heard(objects)
        levels = [below for _, folders in filter(None, opened) for below in folders]

    def list_flat(level: str) -> None:
        objects = files.list_objects(level)
        while some := list(islice(objects, TOLD_TOGETHER)):
            heard(some)

    side_by_side(list_flat, [*flat, *levels], LISTED_AT_ONCE)


def _opened(
    files: LakehouseFileIO, level: str, skips: Callable[[str], bool]
) -> tuple[list[ObjectInfo], list[str]] | None:
    """Give what is right in a folder, objects and folders apart; None if it is too much."""
    objects, folders = list[ObjectInfo](), list[str]()
    for found in files.list_level(level):
        if isinstance(found, ObjectInfo):
            objects.append(found)
        elif not skips(found):
            folders.append(found)
        if len(objects) + len(folders) > OF_A_LEVEL:
            return None
    return objects, folders


def read_list(files: LakehouseFileIO, url: str, heard: Heard) -> None:
    """Go through a list of objects that somebody else has made, such as an S3 Inventory.

    A Parquet file, or CSV with a header: `url`, or `bucket` and `key`; `size`; `last_modified` or, as an inventory has
    it, `last_modified_date`. In CSV keys are percent-encoded, as in an inventory; URLs are not.

    Args:
        files: the store.
        url: of the list.
        heard: told of objects, some at a time.

    Raises:
        ConfigurationError: there is no such list, or it cannot be read, or lacks a column.
    """
    try:
        with files.open_read(url) as stream:
            as_parquet = url.endswith(".parquet")
            for batch in _parquet_batches(stream) if as_parquet else csv.open_csv(stream):
                heard(_objects(batch, encoded=not as_parquet))
    except FileNotFoundError:
        raise ConfigurationError(f"there is no list {url}") from None
    except (pa.ArrowException, KeyError, ValueError) as error:
        if isinstance(error, LakehouseError):
            raise
        raise ConfigurationError(
            f"{url} is no list of objects ({error}); it has to be Parquet or CSV with a header, with the columns "
            "url (or bucket and key), size, and last_modified (or last_modified_date)"
        ) from None


def _parquet_batches(stream: BinaryIO) -> Iterator[pa.RecordBatch]:
    columns = ["url", "bucket", "key", "size", "last_modified", "last_modified_date"]
    file = parquet.ParquetFile(stream)
    known = set(file.schema_arrow.names)
    return file.iter_batches(batch_size=TOLD_TOGETHER, columns=[name for name in columns if name in known])  # type: ignore[no-any-return]


def _objects(batch: pa.RecordBatch, *, encoded: bool) -> list[ObjectInfo]:
    rows = pa.Table.from_batches([batch])
    names = set(rows.column_names)
    if "url" in names:
        urls = rows["url"].to_pylist()
    else:
        keys = [unquote_plus(key) if encoded else key for key in rows["key"].to_pylist()]
        urls = [f"s3://{bucket}/{key}" for bucket, key in zip(rows["bucket"].to_pylist(), keys, strict=True)]
    modified = rows["last_modified" if "last_modified" in names else "last_modified_date"]
    moments = modified.cast(pa.timestamp("us", "UTC")).to_pylist()
    sizes = rows["size"].cast(pa.int64()).to_pylist()
    return [ObjectInfo(url, size, "", moment) for url, size, moment in zip(urls, sizes, moments, strict=True)]

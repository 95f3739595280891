"""Copies of an hour's raw objects, which its ETL reads in their place: made by the store, checked, and removed.

An attempt's copies lie in a folder of its own, which its record and its marker name, so that whoever closes it finds
exactly them. Their names tell which version of which object they are of, and none is there but whole: the attempt that
takes the place of a killed one copies on from what that had copied, beside it, and not across regions once more.
Whether there are any is decided in `staging_choice`.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from lakehouse_pipeline.errors import ConfigurationError, LakehouseError, TransientError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import ObjectInfo
from lakehouse_pipeline.object_store.side_by_side import side_by_side
from lakehouse_pipeline.sources.listing import SourceObject
from lakehouse_pipeline.sources.stores import listed

COPIES_AT_ONCE = 16
_DIGITS = 32  # of SHA-256: 128 bits
_NAME_KEPT = 80  # bytes of an object's name in that of its copy, for people

logger = logging.getLogger(__name__)

_MD5 = re.compile(r"[0-9a-f]{32}")  # the ETag of what was put at once; parts have a hyphen in theirs, files too


@dataclass(frozen=True)
class Copy:
    """Where an object is read in the place of its own.

    Attributes:
        url: of the copy.
        etag: of the copy.
        of: the ETag of the object as it was listed.
    """

    url: str
    etag: str
    of: str


class StagedFiles(LakehouseFileIO):
    """The store of the sources, in which objects that were copied are read from their copies.

    Whoever reads goes on naming the objects: so do messages, rejects and `_file`.
    """

    def __init__(self, properties: Mapping[str, Any], copies: Mapping[str, Copy]) -> None:
        """Take the store's properties, and the copies by the URLs of their objects."""
        super().__init__(properties)
        self._copies = copies

    def __getstate__(self) -> dict[str, Any]:
        """Take the copies along."""
        return {**super().__getstate__(), "copies": self._copies}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin anew in another process."""
        super().__setstate__(state)
        self._copies = state["copies"]

    def open_read(self, url: str, *, etag: str | None = None, size: int | None = None) -> BinaryIO:
        """Open an object, or its copy."""
        copy = self._copies.get(url)
        if copy is None or etag not in (None, copy.of):
            return super().open_read(url, etag=etag, size=size)
        return super().open_read(copy.url, etag=copy.etag, size=size)


def stage(
    files: LakehouseFileIO,
    objects: Sequence[SourceObject],
    folder: str,
    copied: Callable[[], object],
    earlier: str = "",
) -> StagedFiles:
    """Copy objects as they were listed, by the store, and give what reads the copies.

    Args:
        files: the store of the sources.
        objects: as they were listed.
        folder: of the attempt; nothing else is in it.
        copied: called after each copy, in its thread; raises where the hour is to end.
        earlier: folder of an attempt whose place was taken, if it made copies; some may be there.

    Raises:
        TransientError: an object is another version by now, or is gone; or a copy is not what was copied.
        ConfigurationError: the store refuses it.
    """
    found = _found(files, earlier) if earlier else {}

    def copy(source: SourceObject) -> ObjectInfo:
        name = _name_of(source)
        info = _copied_on(files, found.get(name), source, f"{folder}/{name}")
        if info is None:
            with listed(source.url):
                info = files.copy(source.url, f"{folder}/{name}", etag=source.etag, size=source.size)
        copied()
        return info

    made = side_by_side(copy, objects, COPIES_AT_ONCE)
    _check(files, objects, made, folder)
    copies = {source.url: Copy(info.url, info.etag, source.etag) for source, info in zip(objects, made, strict=True)}
    return StagedFiles(files.properties, copies)


def staged_in(files: LakehouseFileIO, folder: str) -> list[ObjectInfo]:
    """List an attempt's copies.

    Raises:
        TransientError: the store did not answer.
    """
    try:
        return list(files.list_objects(f"{folder}/"))
    except FileNotFoundError:  # the bucket is gone
        return []


def remove_staged(files: LakehouseFileIO, folder: str) -> int:
    """Remove an attempt's copies, and what was on its way to become one; gives how much was there.

    Raises:
        TransientError: the store did not answer; what is left is left.
    """
    found = staged_in(files, folder)
    files.delete_objects(item.url for item in found)
    aborted = 0
    try:
        for upload in files.list_uploads(f"{folder}/"):
            files.abort_upload(upload.url, upload.upload)
            aborted += 1
    except FileNotFoundError:
        return 0
    except ConfigurationError as error:  # a right of its own, which copies of up to 5 GiB do not need
        logger.warning("open uploads below %s cannot be listed, and stay: %s", folder, error)
    return len(found) + aborted


def _name_of(source: SourceObject) -> str:
    """Name a copy: unlike that of any other object, or version of it; its end is for people."""
    version = hashlib.sha256(f"{source.url} {source.size} {source.etag}".encode()).hexdigest()[:_DIGITS]
    kept = _name(source.url).encode()[-_NAME_KEPT:].decode(errors="ignore")
    return f"{version}-{kept}"


def _name(url: str) -> str:
    return url.rpartition("/")[2]


def _found(files: LakehouseFileIO, folder: str) -> Mapping[str, ObjectInfo]:
    """Give the copies of an earlier attempt by their names; none is needed."""
    try:
        return {_name(item.url): item for item in staged_in(files, folder)}
    except LakehouseError as error:
        logger.warning("copies in %s cannot be listed, and are made again: %s", folder, error)
        return {}


def _copied_on(files: LakehouseFileIO, made: ObjectInfo | None, source: SourceObject, url: str) -> ObjectInfo | None:
    """Copy what an earlier attempt has copied; None where it has not, or that is removed just now."""
    if made is None or made.size != source.size:
        return None
    try:
        return files.copy(made.url, url, etag=made.etag, size=made.size)
    except (FileNotFoundError, LakehouseError) as error:
        logger.info("%s is copied from its source again: %s", url, error)
        return None


def _check(files: LakehouseFileIO, objects: Sequence[SourceObject], made: Sequence[ObjectInfo], folder: str) -> None:
    """Hold what is there against what was copied: sizes, and the MD5 where the store tells it."""
    there = {item.url: item for item in staged_in(files, folder)}
    doubtful = []
    for source, copy in zip(objects, made, strict=True):
        info = there.get(copy.url)
        if info is None or (info.size, info.etag) != (source.size, copy.etag):
            said = f"{info.size} bytes, ETag {info.etag}" if info else "missing"
            raise TransientError(
                f"{copy.url}, the copy of {source.url}, is {said} in place of {source.size} bytes, ETag {copy.etag}: "
                "run the hour again"
            )
        if source.etag != copy.etag and _MD5.fullmatch(source.etag) and _MD5.fullmatch(copy.etag):
            doubtful.append((source, copy))  # all of them, where the one bucket is encrypted with KMS
    side_by_side(partial(_check_md5, files), doubtful, COPIES_AT_ONCE)


def _check_md5(files: LakehouseFileIO, pair: tuple[SourceObject, ObjectInfo]) -> None:
    """Refuse a copy with another MD5; with KMS, or a key of ours, an ETag is none."""
    source, copy = pair
    with listed(source.url):
        if files.is_md5(source.url) and files.is_md5(copy.url):
            raise TransientError(f"{copy.url} has not the bytes of {source.url}: {copy.etag}, not {source.etag}")

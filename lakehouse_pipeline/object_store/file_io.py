"""One FileIO for everything: PyIceberg's face, and verbs with ETags and conditions beside it.

Dispatches by scheme: `s3`, `s3a`, `s3n`; `file` and absolute paths. URLs are raw, as Iceberg writes them: nothing is
percent-encoded or decoded. Name it in a catalog as `py-io-impl`.
"""

import errno
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, cast

from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream

from lakehouse_pipeline import events
from lakehouse_pipeline.errors import ConfigurationError, LakehouseError
from lakehouse_pipeline.object_store.client import s3_access
from lakehouse_pipeline.object_store.counts import RequestCounter, RequestCounts
from lakehouse_pipeline.object_store.local import LocalStore
from lakehouse_pipeline.object_store.objects import (
    Content,
    ObjectInfo,
    ObjectRange,
    OpenUpload,
    PreconditionFailedError,
    Store,
)
from lakehouse_pipeline.object_store.s3 import S3Store
from lakehouse_pipeline.object_store.settings import read_settings
from lakehouse_pipeline.object_store.spool import SpooledWriter
from lakehouse_pipeline.object_store.vending import ENDPOINT, Vended, portable

logger = logging.getLogger(__name__)

S3_SCHEMES = ("s3://", "s3a://", "s3n://")


class LakehouseFileIO(FileIO):
    """Objects at any URL that we know; safe to share between threads, and picklable.

    Every verb may raise, beside what it names:
        TransientError: tries or time ran out on throttles, resets, timeouts or an unreachable store.
        ConfigurationError: credentials, rights, a property, or a URL of no known scheme.
    """

    def __init__(self, properties: Mapping[str, Any] | None = None) -> None:
        """Take Iceberg's properties (see `settings.read_settings`); they are read at the first use of S3."""
        super().__init__(dict(properties or {}))
        self._begin()

    def __repr__(self) -> str:
        """Name the properties, not their values: some are secrets."""
        return f"{type(self).__name__}({', '.join(sorted(self.properties))})"

    def __getstate__(self) -> dict[str, Any]:
        """Take along the store's own properties: no secret of the catalog's leaves this process."""
        return {"properties": portable(self.properties, self._vended())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin anew in another process."""
        self.properties = state["properties"]
        self._begin()

    def counts(self) -> RequestCounts:
        """Give what this FileIO has sent so far, in this process."""
        return self._counter.snapshot()

    def head(self, url: str) -> ObjectInfo | None:
        """Describe an object, or None if there is none."""
        return self._store(url).head(url)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Go through all objects whose URL begins with `prefix`: flat, recursive, a page at a time.

        The prefix is a string: end it with a slash to mean a folder. The order is the store's: AWS and local folders
        go by key, SeaweedFS folder by folder (`a/x` before `a-b`). An object that is written or removed meanwhile may
        or may not be met.

        Raises:
            FileNotFoundError: there is no such bucket. (A missing folder is empty.)
        """
        return self._store(prefix).list_objects(prefix)

    def list_level(self, folder: str) -> Iterator[ObjectInfo | str]:
        """Go through what is right below a folder, a page at a time: its objects, and the folders below as URLs.

        Args:
            folder: ends with a slash, as those that are given do.

        Raises:
            FileNotFoundError: there is no such bucket. (A missing folder is empty.)
        """
        return self._store(folder).list_level(folder)

    def keeps_versions(self, url: str) -> bool:
        """Tell whether the bucket of an object keeps what is deleted or replaced as a version of it, or once did."""
        return self._store(url).keeps_versions(url)

    def region_of(self, url: str) -> str | None:
        """Name the region of the bucket of an object; None where the store does not tell, and for files."""
        return self._store(url).region_of(url)

    def is_md5(self, url: str) -> bool:
        """Tell whether an object's ETag is the MD5 of its bytes: it was put at once, and without a key of KMS or ours.

        Raises:
            FileNotFoundError: there is none; names the URL.
        """
        return self._store(url).is_md5(url)

    def get(self, url: str) -> Content:
        """Read a whole object.

        Raises:
            FileNotFoundError: there is none; names the URL.
        """
        return self._store(url).get(url)

    def open_read(self, url: str, *, etag: str | None = None, size: int | None = None) -> BinaryIO:
        """Open one version of an object for seeking and reading; close it.

        Not to be shared between threads. Sequential reads are made in ranges of up to 8 MiB, small reads near the end
        in one.

        Args:
            url: the object.
            etag: the version; None takes the one that is met first.
            size: bytes; with it S3 is not asked before the first read.

        Raises:
            TransientError: here or at a read: the object is another version; names the URL.
            FileNotFoundError: here or, if `size` is given, at the first read: there is none; names the URL.
        """
        return self._store(url).open_read(url, etag=etag, size=size)

    def put(
        self, url: str, body: bytes | BinaryIO, *, if_absent: bool = False, if_match: str | None = None
    ) -> ObjectInfo:
        """Write a whole object; nobody ever sees a part of it.

        Args:
            url: the object; the folders above a file are made.
            body: bytes, or a seekable file that is sent from its start and stays open.
            if_absent: only if there is no such object.
            if_match: only if the object's ETag is this.

        Raises:
            PreconditionFailedError: the condition did not hold, and none of this call's tries is what stands there.
            TransientError: as above; whether the object was written is not known.
            FileNotFoundError: there is no such bucket.
        """
        return _put(self._store(url).put(url, body, if_absent=if_absent, if_match=if_match))

    def copy(
        self, source: str, url: str, *, if_absent: bool = False, etag: str | None = None, size: int | None = None
    ) -> ObjectInfo:
        """Write an object with the bytes of another of the same store, which sees to it: no byte passes through here.

        Args:
            source: what is copied; on S3 in parts where it has more than 5 GiB.
            url: the object; the folders above a file are made.
            if_absent: only if there is no such object.
            etag: the version that is copied; None takes the one that is met.
            size: its bytes; with both S3 is not asked before.

        Raises:
            FileNotFoundError: there is no source; names the URL.
            PreconditionFailedError: there is an object, and it is none of this call's tries.
            TransientError: as above, or the source changed meanwhile, or is another version than `etag`.
            ConfigurationError: as above, or there is no bucket for it, or source and object are of different stores.
        """
        if self._store(source) is not self._store(url):
            raise _different_stores(source, url)
        return _put(self._store(url).copy(source, url, if_absent=if_absent, etag=etag, size=size))

    def compose(self, url: str, content: Sequence[bytes | ObjectRange], *, if_absent: bool = False) -> ObjectInfo:
        """Write an object that is made of given bytes and of ranges of other objects of the same store, in this order.

        On S3 ranges of a known checksum are copied by the store, as far as its limits of parts let them; `bytes_copied`
        of the counts tells how many bytes never passed through here. A checksum that is known is held against the
        bytes, whoever moves them, before the object is there.

        Args:
            url: the object; the folders above a file are made.
            content: bytes, and ranges of objects.
            if_absent: only if there is no such object.

        Raises:
            ChecksumMismatchError: a range is not what its checksum says; nothing was written.
            FileNotFoundError: an object of `content` is not there; names its URL.
            PreconditionFailedError: there is an object at `url`, and it is none of this call's tries.
            TransientError: as above, or an object of `content` is another version by now.
            ConfigurationError: as above, or the objects are of different stores.
        """
        store = self._store(url)
        for source in content:
            if isinstance(source, ObjectRange) and self._store(source.url) is not store:
                raise _different_stores(source.url, url)
        return _put(store.compose(url, content, if_absent=if_absent))

    def list_uploads(self, prefix: str) -> Iterator[OpenUpload]:
        """Go through the open multipart uploads of all objects whose URL begins with `prefix`.

        Empty on a store that cannot list them (501), and for files, which have none.

        Raises:
            FileNotFoundError: there is no such bucket.
        """
        return self._store(prefix).list_uploads(prefix)

    def abort_upload(self, url: str, upload: str) -> None:
        """Drop an open multipart upload and its parts; one that is gone is fine.

        A part that is on its way meanwhile may stay: abort again, until `list_uploads` is empty.
        """
        self._store(url).abort_upload(url, upload)
        events.emit("upload.aborted", url=url)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Remove an object; a missing one is fine."""
        url = location if isinstance(location, str) else location.location
        self._store(url).delete(url)
        events.emit("object.deleted", url=url)

    def delete_objects(self, urls: Iterable[str]) -> None:
        """Remove many objects; missing ones are fine.

        Raises:
            LakehouseError: some could not be removed; others were.
        """
        schemes: dict[str, list[str]] = {}
        for url in urls:
            schemes.setdefault(url.partition("://")[0] if "://" in url else "", []).append(url)
        for found in schemes.values():
            self._store(found[0]).delete_objects(found)
            for url in found:
                events.emit("object.deleted", url=url)

    def new_input(self, location: str) -> "ObjectInput":
        """Name an object to read."""
        return ObjectInput(self, location)

    def new_output(self, location: str) -> "ObjectOutput":
        """Name an object to write."""
        return ObjectOutput(self, location)

    def _begin(self) -> None:
        self._counter = RequestCounter()
        self._lock = threading.Lock()
        self._local = LocalStore()
        self._s3: S3Store | None = None

    def _vended(self) -> Vended | None:
        """Give what the catalog vended last, so that a task need not ask at once."""
        if ENDPOINT not in self.properties:
            return None
        try:
            return s3_access(read_settings(self.properties).connection).vended()
        except LakehouseError as error:
            logger.warning("tasks get the credentials that the table was loaded with: %s", error)
            return None

    def _store(self, url: str) -> Store:
        if url.startswith(S3_SCHEMES):
            return self._s3_store()
        if url.startswith(("/", "file:")):
            return self._local
        raise ConfigurationError(f"{url!r} has a scheme that is not known here; use s3://, file:// or an absolute path")

    def _s3_store(self) -> S3Store:
        with self._lock:
            if self._s3 is None:
                self._s3 = S3Store(read_settings(self.properties), self._counter)
            return self._s3


class ObjectInput(InputFile):
    """An object to read, as PyIceberg knows it."""

    def __init__(self, io: LakehouseFileIO, location: str) -> None:
        """Name it; nothing is asked."""
        super().__init__(location)
        self._io = io

    def __len__(self) -> int:
        """Give its size in bytes.

        Raises:
            FileNotFoundError: there is none.
        """
        return _size(self._io, self.location)

    def exists(self) -> bool:
        """Tell whether it is there."""
        return self._io.head(self.location) is not None

    def open(self, seekable: bool = True) -> InputStream:  # noqa: ARG002, FBT001, FBT002  # PyIceberg's signature
        """Open it; every stream can seek.

        Raises:
            FileNotFoundError: there is none.
        """
        return cast("InputStream", self._io.open_read(self.location))


class ObjectOutput(OutputFile):
    """An object to write, as PyIceberg knows it."""

    def __init__(self, io: LakehouseFileIO, location: str) -> None:
        """Name it; nothing is asked."""
        super().__init__(location)
        self._io = io

    def __len__(self) -> int:
        """Give its size in bytes.

        Raises:
            FileNotFoundError: there is none.
        """
        return _size(self._io, self.location)

    def exists(self) -> bool:
        """Tell whether it is there."""
        return self._io.head(self.location) is not None

    def to_input_file(self) -> ObjectInput:
        """Name it to be read."""
        return ObjectInput(self._io, self.location)

    def create(self, overwrite: bool = False) -> OutputStream:  # noqa: FBT001, FBT002  # PyIceberg's signature
        """Begin to write; the object appears as the stream is closed, not at all if its `with` block raises.

        Raises:
            FileExistsError: not `overwrite`, and it is there: now, or as the stream is closed.
        """
        if not overwrite and self.exists():
            raise _exists(self.location)
        return cast("OutputStream", SpooledWriter(lambda body: self._write(body, overwrite=overwrite)))

    def _write(self, body: BinaryIO, *, overwrite: bool) -> None:
        try:
            self._io.put(self.location, body, if_absent=not overwrite)
        except PreconditionFailedError as error:
            raise _exists(self.location) from error


def _put(info: ObjectInfo) -> ObjectInfo:
    events.emit("object.put", url=info.url)
    return info


def _different_stores(source: str, url: str) -> ConfigurationError:
    return ConfigurationError(f"{source} and {url} are of different stores; read the one and write the other")


def _exists(url: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "the object exists", url)


def _size(io: LakehouseFileIO, url: str) -> int:
    info = io.head(url)
    if info is None:
        raise FileNotFoundError(errno.ENOENT, "no such object", url)
    return info.size

"""Objects as every store shows them: what one is, what reading it gives, and the refusal of a conditional write.

No store is known here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Protocol

from lakehouse_pipeline.errors import ConfigurationError, LakehouseError, TransientError


@dataclass(frozen=True)
class ObjectInfo:
    """One version of one object.

    Attributes:
        url: as the caller wrote it, never percent-encoded.
        size: bytes.
        etag: without quotes; changes whenever the object is replaced by other bytes.
        modified: aware, UTC; S3 says whole seconds. After a put on S3: the `Date` of the answer.
    """

    url: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True)
class Content:
    """An object's bytes.

    Attributes:
        body: all of them.
        info: the version that was read.
        answered: the store's own clock when it answered (`Date`; for files this host's); aware, UTC.
    """

    body: bytes
    info: ObjectInfo
    answered: datetime


@dataclass(frozen=True)
class ObjectRange:
    """Bytes of one version of an object, to make another object of.

    Attributes:
        url: the object.
        etag: the version.
        span: its bytes, from 0.
        crc64nvme: their CRC64NVME, as it was recorded when they were written; None if it is not known.
    """

    url: str
    etag: str
    span: range
    crc64nvme: int | None = None

    def __len__(self) -> int:
        """Give the number of bytes."""
        return len(self.span)


@dataclass(frozen=True)
class OpenUpload:
    """A multipart upload that is neither completed nor aborted: listings do not show it, and its parts are billed.

    Attributes:
        url: the object that it would become.
        upload: its id.
        begun: aware, UTC.
    """

    url: str
    upload: str
    begun: datetime


class NotSupportedError(ConfigurationError):
    """The store lacks the verb (501)."""


class PreconditionFailedError(LakehouseError):
    """A conditional put was refused: the object exists, is missing, or is another version than the one named.

    No kind of `CommitConflictError`: whose handler validates and commits again, while here a writer takes another name
    and a record is read again.

    Attributes:
        maybe_landed: an earlier try of the same put had no known outcome. It is not what stands there now, but may
            have stood there and been replaced since.
    """

    def __init__(self, message: str, *, maybe_landed: bool = False) -> None:
        """Keep the message and what is known of earlier tries."""
        super().__init__(message)
        self.maybe_landed = maybe_landed


class RequestFailedError(TransientError):
    """A request failed in a way that another try may cure.

    Attributes:
        code: the store's code such as `SlowDown`, or the class of the connection's error.
        throttled: the store asked for fewer requests.
        retry_after_s: seconds that the store asked to wait, or None.
    """

    def __init__(
        self, message: str, *, code: str = "", throttled: bool = False, retry_after_s: float | None = None
    ) -> None:
        """Keep the message and what the store said."""
        super().__init__(message)
        self.code = code
        self.throttled = throttled
        self.retry_after_s = retry_after_s


class Store(Protocol):
    """The verbs of one scheme; `LakehouseFileIO` documents them and their errors."""

    def head(self, url: str) -> ObjectInfo | None:
        """Describe an object, or None."""

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Go through all objects whose URL begins with `prefix`."""

    def list_level(self, folder: str) -> Iterator[ObjectInfo | str]:
        """Go through the objects and folders right below a folder."""

    def keeps_versions(self, url: str) -> bool:
        """Tell whether what is deleted or replaced stays as a version."""

    def get(self, url: str) -> Content:
        """Read a whole object."""

    def open_read(self, url: str, *, etag: str | None, size: int | None) -> BinaryIO:
        """Open for seeking and reading."""

    def put(self, url: str, body: bytes | BinaryIO, *, if_absent: bool, if_match: str | None) -> ObjectInfo:
        """Write a whole object."""

    def region_of(self, url: str) -> str | None:
        """Name the region of an object's bucket, or None."""

    def is_md5(self, url: str) -> bool:
        """Tell whether an object's ETag is the MD5 of its bytes."""

    def copy(self, source: str, url: str, *, if_absent: bool, etag: str | None, size: int | None) -> ObjectInfo:
        """Write an object with the bytes of another."""

    def compose(self, url: str, content: Sequence[bytes | ObjectRange], *, if_absent: bool) -> ObjectInfo:
        """Write an object with given bytes and the bytes of others."""

    def list_uploads(self, prefix: str) -> Iterator[OpenUpload]:
        """Go through the open multipart uploads of all objects whose URL begins with `prefix`."""

    def abort_upload(self, url: str, upload: str) -> None:
        """Drop an open multipart upload, or do nothing."""

    def delete(self, url: str) -> None:
        """Remove an object, or do nothing."""

    def delete_objects(self, urls: list[str]) -> None:
        """Remove many."""


def changed(url: str) -> TransientError:
    """Say that an object is not the version that was asked for."""
    return TransientError(f"{url} is not the version that was asked for: it changed or went away; list it again")

"""The S3 store: every verb as requests that are tried until they are answered.

Which request means what is `requests`' and `failures`'; how often it is tried is `tries`'.
"""

import contextlib
import errno
import io
import logging
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import BinaryIO, cast

from lakehouse_pipeline.errors import ConfigurationError, TransientError
from lakehouse_pipeline.object_store.client import s3_access
from lakehouse_pipeline.object_store.compose import Composer
from lakehouse_pipeline.object_store.counts import RequestCounter
from lakehouse_pipeline.object_store.lanes import process_lanes
from lakehouse_pipeline.object_store.multipart import MultipartUpload, Pieces
from lakehouse_pipeline.object_store.objects import (
    Content,
    NotSupportedError,
    ObjectInfo,
    ObjectRange,
    OpenUpload,
    PreconditionFailedError,
    changed,
)
from lakehouse_pipeline.object_store.puts import Put
from lakehouse_pipeline.object_store.ranges import RangeReader
from lakehouse_pipeline.object_store.requests import (
    DELETE_PAGE_KEYS,
    Condition,
    ListPage,
    S3Requests,
    UploadsPage,
    split_url,
)
from lakehouse_pipeline.object_store.settings import GIB, S3Settings
from lakehouse_pipeline.object_store.side_by_side import side_by_side
from lakehouse_pipeline.object_store.tries import Tries

RANGE_BYTES = 32 * 1024 * 1024  # one connection of S3 gives about 100 MB/s: from here on several pay

logger = logging.getLogger(__name__)

_UNSAYABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # in XML 1.0, escaped or not
COPIED_AT_ONCE_BYTES = 5 * GIB  # CopyObject takes no more


class S3Store:
    """Objects behind `s3://`, `s3a://` and `s3n://`; safe to share between threads."""

    def __init__(self, settings: S3Settings, counter: RequestCounter) -> None:
        """Reach S3 as `settings` say; count in `counter`."""
        self._settings = settings
        self._requests = S3Requests(lambda: s3_access(settings.connection), counter, settings.options)
        self._tries = Tries(settings.policy, counter, process_lanes, settings.connection.endpoint or "")
        self._composer = Composer(self._requests, self._tries, settings, counter)

    def head(self, url: str) -> ObjectInfo | None:
        """Describe an object, or None."""
        try:
            return self._head(url)
        except FileNotFoundError:
            return None

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Go through all objects whose URL begins with `prefix`, a page of 1,000 per request."""
        for page in self._pages(prefix, one_level=False):
            yield from page.objects

    def list_level(self, folder: str) -> Iterator[ObjectInfo | str]:
        """Go through what is right below a folder, up to 1,000 objects and folders per request."""
        for page in self._pages(folder, one_level=True):
            yield from page.objects
            yield from page.folders

    def keeps_versions(self, url: str) -> bool:
        """Ask the bucket; a store that does not know of versions keeps none."""
        try:
            return self._tries.request("ask about versions of", url, lambda: self._requests.keeps_versions(url))
        except NotSupportedError:
            return False

    def get(self, url: str) -> Content:
        """Read a whole object: in one request, or a large one by ranges that are read side by side."""
        first = self._tries.request("get", url, lambda: self._requests.get(url, at_most=RANGE_BYTES))
        info, found = first.info, len(first.body)
        if found == info.size:
            return first
        spans = [range(at, min(info.size, at + RANGE_BYTES)) for at in range(found, info.size, RANGE_BYTES)]
        read = self._one_version(url, info.etag, info.size)
        return Content(
            first.body + b"".join(side_by_side(read, spans, self._settings.read_threads)), info, first.answered
        )

    def open_read(self, url: str, *, etag: str | None, size: int | None) -> BinaryIO:
        """Open for seeking and reading; a request is sent now only if the size is not known."""
        if size is None:
            info = self._head(url)
            if etag not in (None, info.etag):
                raise changed(url)
            etag, size = info.etag, info.size
        return cast("BinaryIO", RangeReader(self._one_version(url, etag, size), size))

    def put(self, url: str, body: bytes | BinaryIO, *, if_absent: bool, if_match: str | None) -> ObjectInfo:
        """Write a whole object: one PUT, or parts above the threshold."""
        put = Put(self._requests, url, uuid.uuid4().hex, Condition(if_absent, if_match))
        size = len(body) if isinstance(body, bytes) else body.seek(0, io.SEEK_END)
        if size < self._settings.multipart_threshold_bytes:
            return self._tries.request("put", url, lambda: put.whole(body, size))
        source = io.BytesIO(body) if isinstance(body, bytes) else body
        pieces = Pieces(source, size, self._settings.part_size_bytes)
        return MultipartUpload(self._requests, self._tries, put, pieces, threads=self._settings.upload_threads).run()

    def region_of(self, url: str) -> str | None:
        """Ask the bucket; None where it does not say, or may not."""
        try:
            return self._tries.request("ask for the region of", url, lambda: self._requests.region_of(url))
        except (ConfigurationError, FileNotFoundError):
            return None

    def is_md5(self, url: str) -> bool:
        """Ask for the object's encryption, where its ETag is not one of parts."""
        return self._tries.request("head", url, lambda: self._requests.is_md5(url))

    def copy(self, source: str, url: str, *, if_absent: bool, etag: str | None, size: int | None) -> ObjectInfo:
        """Write an object with the bytes of another; unless it is known, the store copies the version that is met now.

        With `if_absent` a refusal is taken for an object that is there, and not for another version of the source.
        """
        if etag is None or size is None:
            info = self._head(source)
            if etag not in (None, info.etag) or size not in (None, info.size):
                raise changed(source)
        else:
            info = ObjectInfo(source, size, etag, datetime.now(UTC))
        put = Put(self._requests, url, uuid.uuid4().hex, Condition(if_absent))
        try:
            if info.size > COPIED_AT_ONCE_BYTES:
                return self._composer.copy(put, info)
            return self._tries.request("copy", url, lambda: put.copied(info))
        except PreconditionFailedError as error:
            if if_absent:
                raise
            raise changed(source) from error
        except FileNotFoundError as error:  # of either: S3 does not say which
            if self.head(source):
                raise ConfigurationError(f"{url}: there is no such bucket ({error}); is its name right?") from error
            raise FileNotFoundError(errno.ENOENT, "no such object", source) from error

    def compose(self, url: str, content: Sequence[bytes | ObjectRange], *, if_absent: bool) -> ObjectInfo:
        """Write an object with given bytes and the bytes of others, which the store copies where it can vouch for."""
        return self._composer.compose(Put(self._requests, url, uuid.uuid4().hex, Condition(if_absent)), content)

    def list_uploads(self, prefix: str) -> Iterator[OpenUpload]:
        """Go through open uploads, a page of 1,000 per request."""
        marker: tuple[str, str] | None = None
        try:
            while True:
                page = self._uploads_page(prefix, marker)
                yield from page.uploads
                if page.following is None:
                    return
                marker = page.following
        except NotSupportedError as error:
            logger.warning("open uploads below %s are left to the store's lifecycle rule: %s", prefix, error)

    def abort_upload(self, url: str, upload: str) -> None:
        """Drop an open upload, or do nothing."""
        with contextlib.suppress(FileNotFoundError):
            self._tries.request("abort upload of", url, lambda: self._requests.abort_upload(url, upload))

    def delete(self, url: str) -> None:
        """Remove an object, or do nothing."""
        self._tries.request("delete", url, lambda: self._requests.delete(url))

    def delete_objects(self, urls: list[str]) -> None:
        """Remove many; of a page, only the keys that failed are sent again.

        A key that XML has no words for goes alone: S3 refuses the whole page in which one stands.
        """
        buckets: dict[str, list[str]] = defaultdict(list)
        for url in dict.fromkeys(urls):
            if _UNSAYABLE.search(url):
                self.delete(url)
            else:
                buckets[split_url(url)[0]].append(url)
        for found in buckets.values():
            for start in range(0, len(found), DELETE_PAGE_KEYS):
                self._delete_page(found[start : start + DELETE_PAGE_KEYS])

    def _head(self, url: str) -> ObjectInfo:
        return self._tries.request("head", url, lambda: self._requests.head(url))[0]

    def _pages(self, prefix: str, *, one_level: bool) -> Iterator[ListPage]:
        token: str | None = None
        while True:
            page = self._tries.request(
                "list", prefix, partial(self._requests.list_page, prefix, token, one_level=one_level)
            )
            yield page
            if page.following is None:
                return
            token = page.following

    def _uploads_page(self, prefix: str, marker: tuple[str, str] | None) -> UploadsPage:
        return self._tries.request("list uploads of", prefix, lambda: self._requests.uploads_page(prefix, marker))

    def _delete_page(self, urls: list[str]) -> None:
        left = urls

        def once() -> None:
            nonlocal left
            refused = self._requests.delete_page(left)
            left = list(refused)
            # What no try can cure comes first: it ends the tries.
            for error in sorted(refused.values(), key=lambda error: isinstance(error, TransientError)):
                raise error

        self._tries.request("delete", urls[0], once, keys=lambda: left)

    def _one_version(self, url: str, etag: str | None, size: int) -> Callable[[range], bytes]:
        """Read ranges of the version `etag`; without one, of the version that the first read meets."""
        version = etag

        def read(span: range) -> bytes:
            nonlocal version
            try:
                content = self._tries.request("get", url, lambda: self._requests.get(url, span=span, etag=version))
            except PreconditionFailedError as error:
                raise changed(url) from error
            version = content.info.etag
            if content.info.size != size or len(content.body) != len(span):
                raise changed(url)
            return content.body

        return read

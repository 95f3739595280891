"""Multipart uploads: parts sent one after another, each on its own tries, completed under the put's condition.

Whatever fails, the upload is aborted: open parts are invisible to listings and billed. An answer lost while the upload
was created, or a process killed, still leaks one.
"""

import logging
from typing import Any, BinaryIO

from lakehouse_pipeline.errors import LakehouseError, TransientError
from lakehouse_pipeline.object_store.objects import ObjectInfo, RequestFailedError
from lakehouse_pipeline.object_store.puts import Put
from lakehouse_pipeline.object_store.requests import S3Requests
from lakehouse_pipeline.object_store.tries import Tries

logger = logging.getLogger(__name__)

MOST_PARTS = 10_000  # S3's limit


class MultipartUpload:
    """One body on its way in parts; not shared between threads."""

    def __init__(
        self, requests: S3Requests, tries: Tries, put: Put, *, body: BinaryIO, size: int, part_size_bytes: int
    ) -> None:
        """Upload `size` bytes of `body`, from its start, for `put`."""
        self._requests = requests
        self._tries = tries
        self._put = put
        self._body = body
        self._size = size
        self._part_size = max(part_size_bytes, -(-size // MOST_PARTS))

    def run(self) -> ObjectInfo:
        """Upload; begin again where the store has dropped the upload."""
        return self._tries.upload(self._put.url, self._once, on=_begins_again)

    def _once(self) -> ObjectInfo:
        url = self._put.url
        upload = self._tries.request("create upload", url, lambda: self._requests.create_upload(url, self._put.nonce))
        try:
            parts = [self._part(upload, number) for number in range(1, -(-self._size // self._part_size) + 1)]
            return self._tries.request(
                "complete upload", url, lambda: self._put.complete(upload, parts, self._size), on=_curable_here
            )
        except BaseException:
            self._abort(upload)
            raise

    def _part(self, upload: str, number: int) -> dict[str, Any]:
        url = self._put.url
        self._body.seek((number - 1) * self._part_size)
        body = self._body.read(self._part_size)
        return self._tries.request(
            "put part", url, lambda: self._requests.put_part(url, upload, number, body), on=_curable_here
        )

    def _abort(self, upload: str) -> None:
        url = self._put.url
        try:
            self._tries.cleanup(url, lambda: self._requests.abort_upload(url, upload))
        except (LakehouseError, FileNotFoundError) as error:
            logger.warning("upload %s of %s is left open: %s", upload, url, error)


def _begins_again(error: BaseException) -> bool:
    """Tell whether only a new upload can help: S3 asks for one after a conflict at completion, too."""
    return isinstance(error, RequestFailedError) and error.code in {"NoSuchUpload", "ConditionalRequestConflict"}


def _curable_here(error: BaseException) -> bool:
    return isinstance(error, TransientError) and not _begins_again(error)

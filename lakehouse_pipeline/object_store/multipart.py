"""Multipart uploads: parts sent side by side, each on its own tries, completed under the put's condition.

Whatever fails, the upload is aborted, after the last part's thread has ended: a part that comes later would stay. Open
parts are invisible to listings and billed. An answer lost while the upload was created, or a process killed, leaves one
open, until somebody lists and aborts it.
"""

import logging
import threading
from typing import Any, BinaryIO

from lakehouse_pipeline.errors import LakehouseError, TransientError
from lakehouse_pipeline.object_store.objects import ObjectInfo, RequestFailedError
from lakehouse_pipeline.object_store.puts import Put
from lakehouse_pipeline.object_store.requests import S3Requests
from lakehouse_pipeline.object_store.side_by_side import side_by_side
from lakehouse_pipeline.object_store.tries import Tries

logger = logging.getLogger(__name__)

MOST_PARTS = 10_000  # S3's limit


class Pieces:
    """A body cut into parts; threads may take pieces at the same time."""

    def __init__(self, body: BinaryIO, size: int, piece_bytes: int) -> None:
        """Cut `size` bytes of `body`, from its start, into pieces of at least `piece_bytes`."""
        self._body, self.size = body, size
        self._piece_bytes = max(piece_bytes, -(-size // MOST_PARTS))
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Give the number of pieces."""
        return (self.size + self._piece_bytes - 1) // self._piece_bytes

    def take(self, number: int) -> bytes:
        """Read one piece, `number` from 1."""
        with self._lock:
            self._body.seek((number - 1) * self._piece_bytes)
            return self._body.read(self._piece_bytes)


class Upload:
    """An object on its way in parts, which the kinds below send; nothing stays if it fails."""

    def __init__(self, requests: S3Requests, tries: Tries, put: Put, *, size: int, parts: int, threads: int) -> None:
        """Send so many parts for `put`, of `size` bytes together, `threads` at a time."""
        self._requests = requests
        self._tries = tries
        self._put = put
        self._size = size
        self._parts = parts
        self._threads = threads

    def run(self) -> ObjectInfo:
        """Upload; begin again where the store has dropped the upload."""
        return self._tries.upload(self._put.url, self._once, on=_begins_again)

    def _begin(self) -> str:
        """Create the upload, once, and give its id."""
        return self._requests.create_upload(self._put.url, self._put.nonce)

    def _part(self, upload: str, number: int) -> dict[str, Any]:
        """Send one part, `number` from 1, until it is answered."""
        raise NotImplementedError

    def _complete(self, upload: str, parts: list[dict[str, Any]]) -> ObjectInfo:
        """Make the parts an object, once."""
        return self._put.complete(upload, parts, self._size)

    def _once(self) -> ObjectInfo:
        url = self._put.url
        upload = self._tries.request("create upload", url, self._begin)
        try:
            numbers = range(1, self._parts + 1)
            parts = side_by_side(lambda number: self._part(upload, number), numbers, self._threads)
            return self._tries.request(
                "complete upload", url, lambda: self._complete(upload, parts), on=curable_in_upload
            )
        except BaseException:
            self._abort(upload)
            raise

    def _abort(self, upload: str) -> None:
        url = self._put.url
        try:
            self._tries.cleanup(url, lambda: self._requests.abort_upload(url, upload))
        except (LakehouseError, FileNotFoundError) as error:
            logger.warning("upload %s of %s is left open: %s", upload, url, error)


class MultipartUpload(Upload):
    """One body on its way in parts; as many parts are in memory as there are threads."""

    def __init__(self, requests: S3Requests, tries: Tries, put: Put, pieces: Pieces, *, threads: int) -> None:
        """Upload `pieces` for `put`, `threads` at a time."""
        super().__init__(requests, tries, put, size=pieces.size, parts=len(pieces), threads=threads)
        self._pieces = pieces

    def _part(self, upload: str, number: int) -> dict[str, Any]:
        url, body = self._put.url, self._pieces.take(number)
        return self._tries.request(
            "put part", url, lambda: self._requests.put_part(url, upload, number, body), on=curable_in_upload
        )


def _begins_again(error: BaseException) -> bool:
    """Tell whether only a new upload can help: S3 asks for one after a conflict at completion, too."""
    return isinstance(error, RequestFailedError) and error.code in {"NoSuchUpload", "ConditionalRequestConflict"}


def curable_in_upload(error: BaseException) -> bool:
    """Tell whether another try of one request of an upload may help."""
    return isinstance(error, TransientError) and not _begins_again(error)

"""One put, from its first try to its decision.

A conditional put whose answer was lost may have landed: the next try then meets its own object and is refused. Every
put therefore carries a nonce, and a refusal after an unknown try is settled by the nonce and size of what stands there.
(Its bytes need no second look: each body went with its checksum, by which the store took or refused it.)
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

from lakehouse_pipeline.object_store.objects import ObjectInfo, PreconditionFailedError, RequestFailedError
from lakehouse_pipeline.object_store.requests import Condition, S3Requests


class Put:
    """A put that may be tried again; not shared between threads.

    Attributes:
        url: where to.
        nonce: unlike that of every other put.
    """

    def __init__(self, requests: S3Requests, url: str, nonce: str, condition: Condition) -> None:
        """Nothing is sent yet."""
        self._requests = requests
        self.url = url
        self.nonce = nonce
        self._condition = condition
        self._maybe_landed = False

    def whole(self, body: bytes | BinaryIO, size: int) -> ObjectInfo:
        """Try it once as one PUT."""
        return self._decided(size, lambda: self._requests.put(self.url, body, size, self.nonce, self._condition))

    def complete(
        self, upload: str, parts: Iterable[Mapping[str, Any]], size: int, *, crc64nvme: str | None = None
    ) -> ObjectInfo:
        """Try once to make uploaded parts the object, and have it held against its CRC64NVME if given."""
        return self._decided(
            size,
            lambda: self._requests.complete_upload(self.url, upload, parts, size, self._condition, crc64nvme=crc64nvme),
        )

    def copied(self, source: ObjectInfo) -> ObjectInfo:
        """Try it once as a copy of this version of another object."""
        return self._decided(
            source.size, lambda: self._requests.copy(source, self.url, self.nonce, if_absent=self._condition.if_absent)
        )

    def _decided(self, size: int, send: Callable[[], ObjectInfo]) -> ObjectInfo:
        try:
            return send()
        except PreconditionFailedError as refusal:
            return self._landed_earlier(size, refusal)
        except RequestFailedError as failure:
            if failure.code == "NoSuchUpload":  # also the answer to a second complete
                return self._landed_earlier(size, failure)
            self._maybe_landed = True
            raise

    def _landed_earlier(self, size: int, refusal: PreconditionFailedError | RequestFailedError) -> ObjectInfo:
        if not self._maybe_landed:
            raise refusal
        try:
            info, nonce = self._requests.head(self.url)
        except FileNotFoundError:
            nonce = None
        if nonce == self.nonce and info.size == size:
            return info
        if isinstance(refusal, PreconditionFailedError):
            refusal.maybe_landed = True
        raise refusal

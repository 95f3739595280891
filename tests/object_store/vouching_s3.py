"""An S3 in this process that copies ranges and vouches for what it copied, as AWS does; or does not."""

import re
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import unquote

from lakehouse_pipeline.object_store.checksums import crc64nvme, to_text
from tests.object_store.scripted_s3 import LATE, MIB, Answer, Asked, ScriptedS3, error

SMALLEST = 5 * MIB
_XML = '<?xml version="1.0"?>'


@dataclass
class VouchingS3:
    """Objects and one upload; for one request at a time.

    Attributes:
        objects: by path, `/bucket/key`; the ETag of each is `e1`.
        says: what it says of a copy: `right`, `wrong` or `nothing`; `unknown` does not know the request.
        faults: answered in the place of the verb's next ones.
        parts: of the upload.
        verbs: what was asked, with how often.
    """

    objects: dict[str, bytes]
    says: str = "right"
    faults: dict[str, list[Answer]] = field(default_factory=dict)
    parts: dict[int, bytes] = field(default_factory=dict)
    verbs: Counter[str] = field(default_factory=Counter)
    checksums: set[str] = field(default_factory=set)

    def serve(self, server: ScriptedS3, requests: int = 100) -> None:
        """Answer the next requests of a server."""
        server.script = [lambda asked: self._answer(asked[-1])] * requests

    def _answer(self, asked: Asked) -> Answer:
        path, _, query = asked.path.partition("?")
        copies = "x-amz-copy-source" in asked.headers
        if "partNumber" in query:
            verb = "copy" if copies else "part"
        elif asked.method == "POST":
            verb = "complete" if "uploadId" in query else "create"
        else:
            verb = {"PUT": "put", "GET": "get", "DELETE": "abort"}[asked.method]
        self.verbs[verb] += 1
        if self.faults.get(verb):
            return self.faults[verb].pop(0)
        answer: Answer = getattr(self, f"_{verb}")(asked, unquote(path), _number(query))
        return answer

    def _create(self, asked: Asked, path: str, _: int) -> Answer:
        self.parts = {}
        self.checksums.add(asked.headers["x-amz-checksum-algorithm"])
        return Answer(body=f"{_XML}<R><Key>{path}</Key><UploadId>u</UploadId></R>".encode())

    def _copy(self, asked: Asked, _: str, number: int) -> Answer:
        if self.says == "unknown":
            return error(501, "NotImplemented")
        source = self.objects.get("/" + unquote(asked.headers["x-amz-copy-source"]).removeprefix("/"))
        if source is None:
            return error(404, "NoSuchKey")
        if asked.headers["x-amz-copy-source-if-match"] != '"e1"':
            return error(412, "PreconditionFailed")
        self.parts[number] = found = _ranged(source, asked.headers["x-amz-copy-source-range"])
        crc = crc64nvme(found) ^ (self.says == "wrong")
        told = "" if self.says == "nothing" else f"<ChecksumCRC64NVME>{to_text(crc)}</ChecksumCRC64NVME>"
        return Answer(body=f"{_XML}<R><ETag>p{number}</ETag>{told}</R>".encode())

    def _part(self, asked: Asked, _: str, number: int) -> Answer:
        self.parts[number] = asked.body
        crc = asked.headers.get("x-amz-checksum-crc64nvme")
        if crc not in (None, to_text(crc64nvme(asked.body))):
            return error(400, "BadDigest")
        return Answer(headers={"ETag": f'"p{number}"'} | ({"x-amz-checksum-crc64nvme": crc} if crc else {}))

    def _complete(self, asked: Asked, path: str, _: int) -> Answer:
        named = [int(number) for number in re.findall(rb"<PartNumber>(\d+)<", asked.body)]
        found = [self.parts[number] for number in named]
        if min(map(len, found[:-1]), default=SMALLEST) < SMALLEST:
            return error(400, "EntityTooSmall")
        if asked.headers.get("x-amz-checksum-crc64nvme") not in (None, to_text(crc64nvme(b"".join(found)))):
            return error(400, "BadDigest")
        return self._stored(asked, path, b"".join(found))

    def _put(self, asked: Asked, path: str, _: int) -> Answer:
        return self._stored(asked, path, asked.body)

    def _stored(self, asked: Asked, path: str, body: bytes) -> Answer:
        if asked.headers.get("if-none-match") and path in self.objects:
            return error(412, "PreconditionFailed")
        self.objects[path] = body
        return Answer(body=f"{_XML}<R><ETag>e1</ETag></R>".encode(), headers={"ETag": '"e1"'})

    def _get(self, asked: Asked, path: str, _: int) -> Answer:
        if path not in self.objects:
            return error(404, "NoSuchKey")
        if asked.headers["if-match"] != '"e1"':
            return error(412, "PreconditionFailed")
        found = _ranged(self.objects[path], asked.headers["range"])
        return Answer(206, found, {"ETag": '"e1"', "Content-Range": f"bytes */{len(self.objects[path])}", **LATE})

    def _abort(self, *_: object) -> Answer:
        self.parts = {}
        return Answer(204)


def _number(query: str) -> int:
    found = re.search(r"partNumber=(\d+)", query)
    return int(found[1]) if found else 0


def _ranged(body: bytes, header: str) -> bytes:
    first, _, last = header.removeprefix("bytes=").partition("-")
    return body[int(first) : int(last) + 1]

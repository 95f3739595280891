"""S3 verbs, one request each: sent once, counted, its failure said in our words.

No retries, no decisions and no state: those are `s3`'s and `multipart`'s. The one exception is an answer that calls the
credentials expired: the request is sent again with fresh ones.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO, Protocol, cast

from botocore.exceptions import ClientError

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.object_store.counts import RequestCounter, RequestCounts
from lakehouse_pipeline.object_store.failures import is_forbidden, maybe_expired, refused, translated
from lakehouse_pipeline.object_store.objects import (
    Content,
    ObjectInfo,
    ObjectRange,
    OpenUpload,
    PreconditionFailedError,
    RequestFailedError,
)
from lakehouse_pipeline.object_store.options import ObjectOptions

NONCE = "lakehouse-nonce"  # S3 user metadata: which call wrote this object
CRC32, CRC64NVME, WHOLE = "CRC32", "CRC64NVME", "FULL_OBJECT"  # S3's checksums, and how the one of parts is said
CHECKSUM_CRC32, CHECKSUM_CRC64NVME = f"Checksum{CRC32}", f"Checksum{CRC64NVME}"  # boto3's names
MD5 = re.compile(r"[0-9a-f]{32}")  # an ETag of parts has a hyphen and their number behind it
DELETE_PAGE_KEYS = 250  # S3 takes 1,000, but each key counts against the prefix's 3,500 writes/s (hadoop-aws)


@dataclass(frozen=True)
class Condition:
    """What must hold for a put.

    Attributes:
        if_absent: there is no such object.
        if_match: the object's ETag is this one.
    """

    if_absent: bool = False
    if_match: str | None = None

    def __post_init__(self) -> None:
        """Refuse a condition that nothing meets."""
        if self.if_absent and self.if_match is not None:
            raise ConfigurationError("if_absent and if_match exclude each other")

    def __bool__(self) -> bool:
        """Tell whether there is a condition at all."""
        return self.if_absent or self.if_match is not None

    def parameters(self) -> dict[str, str]:
        """Give boto3's parameters."""
        if self.if_absent:
            return {"IfNoneMatch": "*"}
        return {} if self.if_match is None else {"IfMatch": _quoted(self.if_match)}


@dataclass(frozen=True)
class ListPage:
    """One page of a listing.

    Attributes:
        objects: in the store's order; S3's is by key.
        following: the token of the next page, None at the end.
        folders: of a listing of one level, the prefixes that end in a slash and have more below.
    """

    objects: tuple[ObjectInfo, ...]
    following: str | None
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class UploadsPage:
    """One page of open multipart uploads.

    Attributes:
        uploads: in the store's order.
        following: key and upload id after which the next page begins, None at the end.
    """

    uploads: tuple[OpenUpload, ...]
    following: tuple[str, str] | None


def split_url(url: str) -> tuple[str, str]:
    """Split `s3://bucket/key` into bucket and key; nothing is decoded, the key may hold any character.

    Raises:
        ConfigurationError: there is no bucket.
    """
    bucket, _, key = url.partition("://")[2].partition("/")
    if not bucket:
        raise ConfigurationError(f"{url!r} names no bucket; write s3://bucket/key")
    return bucket, key


class Access(Protocol):
    """A client of boto3's and what it signs with; see `client.S3Access`."""

    def client(self) -> Any:
        """Give the client."""

    def mark(self) -> object:
        """Name the present credentials."""

    def may_have_ended(self, mark: object) -> bool:
        """Tell whether these credentials may have ended by now."""

    def renew(self, refused: object) -> bool:
        """Get other credentials than those of a mark; tell whether there may be any."""


class S3Requests:
    """One method, one request. Errors: see `failures.translated`."""

    def __init__(
        self, access: Callable[[], Access], counter: RequestCounter, options: ObjectOptions | None = None
    ) -> None:
        """Send through what `access` gives, with `options`; count in `counter`."""
        self._access = access
        self._counter = counter
        self._options = options or ObjectOptions()

    def head(self, url: str) -> tuple[ObjectInfo, str | None]:
        """Describe an object, and give the nonce of the call that wrote it.

        Raises:
            FileNotFoundError: there is none.
        """
        answer = self._send("head_object", url)
        return _info(url, answer), answer.get("Metadata", {}).get(NONCE)

    def get(
        self, url: str, *, span: range | None = None, etag: str | None = None, at_most: int | None = None
    ) -> Content:
        """Read an object, the bytes of `span` of it, or its first `at_most` ones; `info.size` is the whole object's."""
        parameters = {"Range": f"bytes={span.start}-{span.stop - 1}"} if span is not None else {}
        if etag is not None:
            parameters["IfMatch"] = _quoted(etag)
        answer = self._send("get_object", url, **parameters)
        with (
            translated("get_object", url),
            contextlib.closing(answer["Body"]) as stream,
        ):  # `with` itself skips its checks
            body = _read(stream, int(answer.get("ContentLength", 0)), at_most)
        self._counter.add(RequestCounts(bytes_received=len(body)))
        whole = answer.get("ContentRange", "").rpartition("/")[2]
        size = int(whole) if whole.isdigit() else int(answer.get("ContentLength", len(body)))
        return Content(body, _info(url, {**answer, "ContentLength": size}), _answered(answer))

    def list_page(self, prefix: str, token: str | None, *, one_level: bool = False) -> ListPage:
        """List up to 1,000 objects whose URL begins with `prefix`; of one level, up to the next slash in theirs."""
        bucket, start = split_url(prefix)
        root = _root_of(prefix, start)
        parameters = {**({"ContinuationToken": token} if token else {}), **({"Delimiter": "/"} if one_level else {})}
        with translated("list_objects_v2", prefix):
            answer = self._call("list_objects_v2", {"Bucket": bucket, "Prefix": start, **parameters})
        objects = tuple(_info(root + found["Key"], found) for found in answer.get("Contents", ()))
        folders = tuple(root + found["Prefix"] for found in answer.get("CommonPrefixes", ()))
        return ListPage(objects, answer.get("NextContinuationToken") if answer.get("IsTruncated") else None, folders)

    def keeps_versions(self, url: str) -> bool:
        """Ask whether the bucket keeps, or has kept, earlier versions of its objects."""
        bucket, _ = split_url(url)
        with translated("get_bucket_versioning", url):
            return bool(self._call("get_bucket_versioning", {"Bucket": bucket}).get("Status"))

    def region_of(self, url: str) -> str | None:
        """Ask which region the bucket is in; not every store says."""
        bucket, _ = split_url(url)
        with translated("head_bucket", url):
            answer = self._call("head_bucket", {"Bucket": bucket})
        told = answer.get("BucketRegion") or answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
        return str(told) if told else None

    def is_md5(self, url: str) -> bool:
        """Ask how an object is encrypted: that tells whether its ETag is the MD5 of its bytes.

        AWS, "Checking object integrity": true of what was put or copied at once, unencrypted or with SSE-S3.
        """
        answer = self._send("head_object", url)
        by_s3 = answer.get("ServerSideEncryption", "AES256") == "AES256" and "SSECustomerAlgorithm" not in answer
        return by_s3 and MD5.fullmatch(_unquoted(_etag(answer, url))) is not None

    def put(self, url: str, body: bytes | BinaryIO, size: int, nonce: str, condition: Condition) -> ObjectInfo:
        """Write an object; a file is sent from its start.

        Raises:
            PreconditionFailedError: the condition does not hold; also when `if_match` meets no object.
        """
        if not isinstance(body, bytes):
            body.seek(0)
        self._counter.add(RequestCounts(bytes_sent=size))
        with _missing_is_refused(condition):
            answer = self._send(
                "put_object", url, Body=body, ContentLength=size, Metadata={NONCE: nonce}, **condition.parameters()
            )
        return ObjectInfo(url, size, _unquoted(_etag(answer, url)), _answered(answer))

    def copy(self, source: ObjectInfo, url: str, nonce: str, *, if_absent: bool) -> ObjectInfo:
        """Write an object with the bytes of this version of another.

        Raises:
            PreconditionFailedError: there is an object at `url`, or the source is another version by now.
        """
        bucket, key = split_url(source.url)
        answer = self._send(
            "copy_object",
            url,
            CopySource={"Bucket": bucket, "Key": key},
            CopySourceIfMatch=_quoted(source.etag),
            MetadataDirective="REPLACE",  # with the nonce; what we write has no other metadata
            Metadata={NONCE: nonce},
            TaggingDirective="REPLACE",  # with our own: the source's are not read, which is a right of its own
            **Condition(if_absent=if_absent).parameters(),
        )
        etag = _unquoted(_etag(answer.get("CopyObjectResult", {}), url))
        self._counter.add(RequestCounts(bytes_copied=source.size))
        return ObjectInfo(url, source.size, etag, _answered(answer))

    def delete(self, url: str) -> None:
        """Remove an object; a missing one is fine."""
        self._send("delete_object", url)

    def delete_page(self, urls: Sequence[str]) -> Mapping[str, Exception]:
        """Remove objects of one bucket, at most `DELETE_PAGE_KEYS`; give each refused URL its error."""
        bucket = split_url(urls[0])[0]
        by_key = {split_url(url)[1]: url for url in urls}
        asked = {"Objects": [{"Key": key} for key in by_key], "Quiet": True}
        with translated("delete_objects", urls[0]):
            answer = self._call("delete_objects", {"Bucket": bucket, "Delete": asked})
        return {
            by_key[told["Key"]]: refused(told.get("Code", ""), told.get("Message", ""), "delete", by_key[told["Key"]])
            for told in answer.get("Errors", ())
            if told.get("Code") != "NoSuchKey"
        }

    def create_upload(self, url: str, nonce: str, *, crc64nvme: bool = False) -> str:
        """Begin a multipart upload, whose parts go with their CRC32, or CRC64NVME, and give its id."""
        # S3 refuses parts with a checksum that was not announced here.
        checksum = (
            {"ChecksumAlgorithm": CRC64NVME, "ChecksumType": WHOLE} if crc64nvme else {"ChecksumAlgorithm": CRC32}
        )
        answer = self._send("create_multipart_upload", url, Metadata={NONCE: nonce}, **checksum)
        upload: str = answer["UploadId"]
        return upload

    def put_part(
        self, url: str, upload: str, number: int, body: bytes, *, crc64nvme: str | None = None
    ) -> dict[str, Any]:
        """Send one part, `number` from 1, and its CRC64NVME if given; give what completing needs to know of it."""
        self._counter.add(RequestCounts(bytes_sent=len(body)))
        checksum = {CHECKSUM_CRC64NVME: crc64nvme} if crc64nvme else {}
        answer = self._send("upload_part", url, UploadId=upload, PartNumber=number, Body=body, **checksum)
        return _part(number, answer, url)

    def copy_part(self, source: ObjectRange, url: str, upload: str, number: int) -> dict[str, Any]:
        """Have the store make one part of a range of an object; give what completing needs to know of it.

        The part's `ChecksumCRC64NVME` is the store's own, of the bytes that it copied; not every store gives it.

        Raises:
            PreconditionFailedError: the source is another version by now.
            FileNotFoundError: there is no source; names its URL.
        """
        (bucket, key), (source_bucket, source_key) = split_url(url), split_url(source.url)
        asked = {
            "Bucket": bucket,
            "Key": key,
            "UploadId": upload,
            "PartNumber": number,
            "CopySource": {"Bucket": source_bucket, "Key": source_key},
            "CopySourceIfMatch": _quoted(source.etag),
            "CopySourceRange": f"bytes={source.span.start}-{source.span.stop - 1}",
        }
        with translated("upload_part_copy", source.url):
            answer = self._call("upload_part_copy", asked)
        return _part(number, answer.get("CopyPartResult", {}), url)

    def complete_upload(
        self,
        url: str,
        upload: str,
        parts: Iterable[Mapping[str, Any]],
        size: int,
        condition: Condition,
        *,
        crc64nvme: str | None = None,
    ) -> ObjectInfo:
        """Make the parts an object; its CRC64NVME, if given, must be that of its parts.

        Raises:
            PreconditionFailedError: the condition does not hold.
            RequestFailedError: with code `NoSuchUpload`, there is no such upload (any more).
        """
        checksum = {CHECKSUM_CRC64NVME: crc64nvme, "ChecksumType": WHOLE} if crc64nvme else {}
        with _missing_is_refused(condition):
            answer = self._send(
                "complete_multipart_upload",
                url,
                UploadId=upload,
                MultipartUpload={"Parts": list(parts)},
                **checksum,
                **condition.parameters(),
            )
        return ObjectInfo(url, size, _unquoted(_etag(answer, url)), _answered(answer))

    def abort_upload(self, url: str, upload: str) -> None:
        """Drop a multipart upload and its parts; one that is gone is fine."""
        try:
            self._send("abort_multipart_upload", url, UploadId=upload)
        except RequestFailedError as error:
            if error.code != "NoSuchUpload":
                raise

    def uploads_page(self, prefix: str, marker: tuple[str, str] | None) -> UploadsPage:
        """List up to 1,000 open uploads of objects whose URL begins with `prefix`."""
        bucket, start = split_url(prefix)
        root = _root_of(prefix, start)
        parameters = dict(zip(("KeyMarker", "UploadIdMarker"), marker, strict=True)) if marker else {}
        with translated("list_multipart_uploads", prefix):
            answer = self._call("list_multipart_uploads", {"Bucket": bucket, "Prefix": start, **parameters})
        uploads = tuple(
            OpenUpload(root + found["Key"], found["UploadId"], found["Initiated"].astimezone(UTC))
            for found in answer.get("Uploads", ())
            if found["Key"].startswith(start)  # not every server minds the prefix
        )
        following = (answer.get("NextKeyMarker", ""), answer.get("NextUploadIdMarker", ""))
        return UploadsPage(uploads, following if answer.get("IsTruncated") and any(following) else None)

    def _send(self, verb: str, url: str, **parameters: Any) -> Mapping[str, Any]:
        bucket, key = split_url(url)
        with translated(verb, url):
            return self._call(verb, {"Bucket": bucket, "Key": key, **parameters})

    def _call(self, verb: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        access, asked = self._access(), {**parameters, **self._options.parameters(verb)}
        mark = access.mark()
        try:
            return self._sent(access, verb, asked)
        except ClientError as error:
            late = maybe_expired(error) or (is_forbidden(error) and access.may_have_ended(mark))
            if not late or not access.renew(mark):
                raise
        if hasattr(asked.get("Body"), "seek"):
            asked["Body"].seek(0)
        return self._sent(access, verb, asked)

    def _sent(self, access: Access, verb: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        self._counter.add(RequestCounts(requests=1))
        answer: Mapping[str, Any] = getattr(access.client(), verb)(**asked)
        return answer


@contextlib.contextmanager
def _missing_is_refused(condition: Condition) -> Iterator[None]:
    """Read 404 as 412 where `if_match` meets no object: AWS says the one, others the other."""
    try:
        yield
    except FileNotFoundError as error:
        if condition.if_match is None:
            raise
        raise PreconditionFailedError(f"{error.filename}: if_match met no object") from error


def _read(stream: Any, length: int, at_most: int | None) -> bytes:
    """Read a body: whole, which checks its length and checksum, or the beginning of a longer one."""
    if at_most is None or length <= at_most:
        return cast("bytes", stream.read())
    body: bytes = stream.read(at_most)
    if len(body) < at_most:
        raise ConnectionError(f"the body ended after {len(body)} of {length} bytes")
    return body


def _root_of(prefix: str, start: str) -> str:
    """Give what stands before the keys in a listing's URLs."""
    return prefix[: len(prefix) - len(start)] if start else f"{prefix.rstrip('/')}/"


def _info(url: str, told: Mapping[str, Any]) -> ObjectInfo:
    size = told["ContentLength"] if "ContentLength" in told else told["Size"]
    return ObjectInfo(url, size, _unquoted(told["ETag"]), told["LastModified"].astimezone(UTC))


def _answered(answer: Mapping[str, Any]) -> datetime:
    """Read the `Date` of an answer; a server that sends none leaves us this host's clock."""
    said = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(said).astimezone(UTC) if said else datetime.now(UTC)


def _part(number: int, answer: Mapping[str, Any], url: str) -> dict[str, Any]:
    checksums = {name: answer[name] for name in (CHECKSUM_CRC32, CHECKSUM_CRC64NVME) if name in answer}
    return {"PartNumber": number, "ETag": _etag(answer, url), **checksums}


def _etag(answer: Mapping[str, Any], url: str) -> str:
    """Read the ETag that every S3 gives; a proxy's own 200 has none."""
    etag: str = answer.get("ETag", "")
    if not etag:
        raise RequestFailedError(f"{url}: the answer has no ETag: it is not S3's", code="NoETag")
    return etag


def _quoted(etag: str) -> str:
    return f'"{etag}"'


def _unquoted(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')

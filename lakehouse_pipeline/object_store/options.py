"""What goes with a request beside bucket, key and body: encryption, ACL, storage class, tags, and who pays.

Read from Iceberg's properties once; `requests` adds them to every verb that S3 wants them at.
"""

import base64
import binascii
import hashlib
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field

from lakehouse_pipeline.object_store.properties import PropertyReading

MOST_TAGS = 10  # S3's limit per object
CUSTOMER_KEY_BYTES = 32  # AES-256
ACLS = (
    "private", "public-read", "public-read-write", "authenticated-read", "aws-exec-read", "bucket-owner-read",
    "bucket-owner-full-control",
)  # fmt: skip  # S3's canned ACLs for objects
ENCRYPTIONS = {"none": "none", "s3": "AES256", "kms": "aws:kms", "dsse-kms": "aws:kms:dsse", "custom": "custom"}
FSSPEC_ENCRYPTIONS = {"aes256": "AES256", "aws:kms": "aws:kms", "aws:kms:dsse": "aws:kms:dsse"}
UNREADABLE = ("GLACIER", "DEEP_ARCHIVE")  # objects there have to be restored before each read

_MAKES = frozenset({"put_object", "create_multipart_upload", "copy_object"})
_COPIES = frozenset({"copy_object", "upload_part_copy"})
_OPENS = _MAKES | _COPIES | {"head_object", "get_object", "upload_part", "complete_multipart_upload"}


@dataclass(frozen=True)
class ObjectOptions:
    """boto3's parameters by where they belong.

    Attributes:
        every: who pays; of every request.
        opening: SSE-C's key; of every request that writes or reads an object, sources that may not have it included.
        making: encryption, ACL, storage class and tags; of every request that begins an object.
    """

    every: Mapping[str, str] = field(default_factory=dict)
    opening: Mapping[str, str] = field(default_factory=dict, repr=False)
    making: Mapping[str, str] = field(default_factory=dict, repr=False)

    def parameters(self, verb: str) -> dict[str, str]:
        """Give what goes with a verb of boto3's client."""
        found = dict(self.every)
        if verb in _OPENS:
            found |= self.opening
        if verb in _MAKES:
            found |= self.making
        if verb in _COPIES:
            found |= {f"CopySource{name}": value for name, value in self.opening.items()}
        return found


def read_options(reading: PropertyReading) -> ObjectOptions:
    """Read Iceberg's `s3.sse.*`, `s3.acl` and `s3.write.*`, PyIceberg's fsspec names, and `s3.requester-pays`."""
    opening, making = _encryption(reading)
    acl = reading.choice("s3.acl", among={name: name for name in ACLS})
    made = {"ACL": acl, "StorageClass": _storage_class(reading), "Tagging": _tags(reading)}
    return ObjectOptions(
        every={"RequestPayer": "requester"} if reading.flag("s3.requester-pays") else {},
        opening=opening,
        making=making | {name: value for name, value in made.items() if value},
    )


def _encryption(reading: PropertyReading) -> tuple[dict[str, str], dict[str, str]]:
    """Give what SSE-C needs at every opening, and the other kinds where an object is made."""
    kind = reading.choice("s3.sse.type", among=ENCRYPTIONS)
    fsspec = reading.choice("s3.server-side-encryption", among=FSSPEC_ENCRYPTIONS)
    key, md5 = reading.text("s3.sse.key", "s3.sse-kms-key-id"), reading.text("s3.sse.md5")
    if kind == "custom":
        return _customer_key(reading, key, md5), {}
    kind = kind or fsspec
    if kind in (None, "none"):
        if key:
            reading.problems.append("s3.sse.key: it needs s3.sse.type, which is not set")
        return {}, {}
    keyed = {"SSEKMSKeyId": key} if key and kind != "AES256" else {}
    return {}, {"ServerSideEncryption": str(kind), **keyed}


def _customer_key(reading: PropertyReading, key: str | None, md5: str | None) -> dict[str, str]:
    """Check SSE-C's key, which is in base64; no message shows it."""
    try:
        plain = base64.b64decode(key or "", validate=True)
    except binascii.Error:
        plain = b""
    if len(plain) != CUSTOMER_KEY_BYTES:
        reading.problems.append(f"s3.sse.key: SSE-C needs {CUSTOMER_KEY_BYTES} bytes in base64")
        return {}
    digest = base64.b64encode(hashlib.md5(plain, usedforsecurity=False).digest()).decode()
    if md5 is not None and md5 != digest:
        reading.problems.append("s3.sse.md5: it is not the MD5, in base64, of s3.sse.key")
    return {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": str(key), "SSECustomerKeyMD5": digest}


def _storage_class(reading: PropertyReading) -> str | None:
    name = reading.text("s3.write.storage-class")
    if name and name.upper() in UNREADABLE:
        reading.problems.append(f"s3.write.storage-class: objects in {name} cannot be read back; take GLACIER_IR")
    return name and name.upper()


def _tags(reading: PropertyReading) -> str:
    tags = reading.prefixed("s3.write.tags.")
    if len(tags) > MOST_TAGS:
        reading.problems.append(f"s3.write.tags.*: S3 takes {MOST_TAGS} tags an object, these are {len(tags)}")
    return urllib.parse.urlencode(tags)

"""Encryption, ACL, storage class, tags and payer go with every request that S3 wants them at."""

import base64
import hashlib
import uuid

import boto3
import pytest

from lakehouse_pipeline.demo.seaweed import REGION, SeaweedServer
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.options import ObjectOptions
from lakehouse_pipeline.object_store.settings import read_settings
from tests.object_store.scripted_s3 import STORED, URL, Answer, Asked, ScriptedS3, body

KEY = bytes(range(32))
KEY_TEXT = base64.b64encode(KEY).decode()
MD5 = base64.b64encode(hashlib.md5(KEY, usedforsecurity=False).digest()).decode()
CUSTOM = {"s3.sse.type": "custom", "s3.sse.key": KEY_TEXT, "s3.sse.md5": MD5}
CUSTOM_HEADERS = {
    "x-amz-server-side-encryption-customer-algorithm": "AES256",
    "x-amz-server-side-encryption-customer-key": KEY_TEXT,
    "x-amz-server-side-encryption-customer-key-md5": MD5,
}
CREATED = Answer(200, b"<R><UploadId>u</UploadId></R>")
COMPLETED = Answer(200, b"<R><ETag>e1</ETag></R>")
SSE, KMS_KEY = "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id"

MAKING = [
    pytest.param({"s3.sse.type": "s3"}, {SSE: "AES256"}, id="sse-s3"),
    pytest.param({"s3.sse.type": "kms"}, {SSE: "aws:kms"}, id="sse-kms-default-key"),
    pytest.param({"s3.sse.type": "kms", "s3.sse.key": "k"}, {SSE: "aws:kms", KMS_KEY: "k"}, id="sse-kms"),
    pytest.param({"s3.sse.type": "DSSE-KMS"}, {SSE: "aws:kms:dsse"}, id="dsse-kms"),
    pytest.param(
        {"s3.server-side-encryption": "aws:kms", "s3.sse-kms-key-id": "k"}, {SSE: "aws:kms", KMS_KEY: "k"}, id="fsspec"
    ),
    pytest.param({"s3.acl": "bucket-owner-full-control"}, {"x-amz-acl": "bucket-owner-full-control"}, id="acl"),
    pytest.param({"s3.write.storage-class": "STANDARD_IA"}, {"x-amz-storage-class": "STANDARD_IA"}, id="class"),
    pytest.param(
        {"s3.write.tags.team": "a & b", "s3.write.tags.hot": "no"}, {"x-amz-tagging": "team=a+%26+b&hot=no"}, id="tags"
    ),
]


def extra(asked: Asked, names: dict[str, str]) -> dict[str, str]:
    """Give the headers of a request that are named."""
    return {name: asked.headers[name] for name in names if name in asked.headers}


@pytest.mark.parametrize(("properties", "headers"), MAKING)
def test_whatever_makes_an_object_says_how(s3: ScriptedS3, properties: dict[str, str], headers: dict[str, str]) -> None:
    """One PUT and the beginning of a multipart upload alike; its parts, and reading, do without."""
    s3.script = [STORED, CREATED, STORED, COMPLETED, body(b"b")]
    file_io = s3.file_io(**properties)
    file_io.put(URL, b"small")
    file_io.put(URL, bytes(5_242_880))
    file_io.get(URL)
    assert [extra(asked, headers) for asked in s3.asked] == [headers, headers, {}, {}, {}]


def test_a_customers_key_goes_with_every_opening(s3: ScriptedS3) -> None:
    """SSE-C: S3 keeps no key, so put, create, part, complete, get and head carry it; delete does not."""
    head = Answer(headers={"ETag": '"e1"', "Content-Length": "1", "Last-Modified": "Tue, 01 Jan 2013 10:00:00 GMT"})
    s3.script = [STORED, CREATED, STORED, COMPLETED, body(b"b"), head, Answer(204)]
    file_io = s3.file_io(**CUSTOM)
    file_io.put(URL, b"small")
    file_io.put(URL, bytes(5_242_880))
    file_io.get(URL)
    file_io.head(URL)
    file_io.delete(URL)
    assert [extra(asked, CUSTOM_HEADERS) for asked in s3.asked] == [CUSTOM_HEADERS] * 6 + [{}]


def test_who_pays_stands_in_every_request(s3: ScriptedS3) -> None:
    """Reading, listing, writing and deleting in somebody else's bucket: the requester pays."""
    listing = Answer(200, b"<R><IsTruncated>false</IsTruncated></R>")
    s3.script = [STORED, body(b"b"), listing, Answer(200, b"<R></R>"), Answer(204)]
    file_io = s3.file_io(**{"s3.requester-pays": "true"})
    file_io.put(URL, b"small")
    file_io.get(URL)
    assert list(file_io.list_objects("s3://bucket/")) == []
    file_io.delete_objects([URL])
    file_io.delete(URL)
    assert [asked.headers.get("x-amz-request-payer") for asked in s3.asked] == ["requester"] * 5


def test_a_copy_carries_both_keys() -> None:
    """A copy is made like a put, and its source is opened with the customer's key, too."""
    options = read_settings({**CUSTOM, "s3.acl": "private"}).options
    assert options.parameters("copy_object") == {
        "ACL": "private",
        "SSECustomerAlgorithm": "AES256",
        "SSECustomerKey": KEY_TEXT,
        "SSECustomerKeyMD5": MD5,
        "CopySourceSSECustomerAlgorithm": "AES256",
        "CopySourceSSECustomerKey": KEY_TEXT,
        "CopySourceSSECustomerKeyMD5": MD5,
    }


def test_nothing_set_adds_nothing() -> None:
    """`none` is Iceberg's word for no encryption of its own."""
    assert read_settings({"s3.sse.type": "none"}).options == ObjectOptions()


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        pytest.param({"s3.sse.type": "rot13"}, "s3.sse.type: is none of none, s3, kms", id="kind"),
        pytest.param({"s3.sse.type": "custom"}, "s3.sse.key: SSE-C needs 32 bytes", id="no-key"),
        pytest.param({**CUSTOM, "s3.sse.key": "c2hvcnQ="}, "s3.sse.key: SSE-C needs 32 bytes", id="short-key"),
        pytest.param({**CUSTOM, "s3.sse.md5": "x"}, "s3.sse.md5: it is not the MD5", id="md5"),
        pytest.param({"s3.sse.key": "k"}, "s3.sse.key: it needs s3.sse.type", id="key-alone"),
        pytest.param({"s3.acl": "mine"}, "s3.acl: is none of private", id="acl"),
        pytest.param({"s3.write.storage-class": "GLACIER"}, "cannot be read back", id="class"),
        pytest.param({f"s3.write.tags.{n}": "x" for n in range(11)}, "10 tags an object, these are 11", id="tags"),
    ],
)
def test_what_s3_would_refuse_is_said_at_once(properties: dict[str, str], message: str) -> None:
    """Mistakes are found before the first request, and no key is shown."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_settings(properties)
    assert KEY_TEXT not in str(caught.value)


def test_a_customers_key_is_needed_to_read(seaweed: SeaweedServer) -> None:
    """On a real server: small objects and parts come back with the key, by get and by range, and not without."""
    url = f"s3://plain/{uuid.uuid4().hex}"
    small_parts = {"s3.multipart.part-size-bytes": "5242880", "s3.multipart.threshold": "1"}
    keyed = LakehouseFileIO({**seaweed.s3_properties(), **CUSTOM, **small_parts})
    for content in (b"small", bytes(range(256)) * 30_000):
        put = keyed.put(url, content)
        assert keyed.get(url).body == content
        with keyed.open_read(url, etag=put.etag, size=put.size) as stream:
            stream.seek(-3, 2)
            assert stream.read() == content[-3:]
        with pytest.raises(ConfigurationError):
            LakehouseFileIO(seaweed.s3_properties()).get(url)


def test_a_customers_key_opens_no_other_object(s3: ScriptedS3) -> None:
    """A source without SSE-C is refused by S3 where the key comes along; the error says so, and the way out."""
    said = b"<Error><Code>InvalidRequest</Code><Message>The encryption parameters are not applicable to this object."
    s3.script = [Answer(400, said + b"</Message></Error>")]
    with pytest.raises(ConfigurationError, match=r"is not encrypted with the customer's key .*Encrypt it") as caught:
        s3.file_io(**CUSTOM).get(URL)
    assert URL in str(caught.value)
    assert KEY_TEXT not in str(caught.value)


def test_a_server_keeps_what_was_said(seaweed: SeaweedServer) -> None:
    """On a real server: encryption, storage class and tags are the object's, of one PUT and of parts."""
    properties = {
        "s3.sse.type": "s3",
        "s3.write.storage-class": "STANDARD_IA",
        "s3.write.tags.team": "ads",
        "s3.multipart.part-size-bytes": "5242880",
        "s3.multipart.threshold": "1",
    }
    file_io = LakehouseFileIO({**seaweed.s3_properties(), **properties})
    client = boto3.client(
        "s3",
        endpoint_url=seaweed.endpoint,
        region_name=REGION,
        aws_access_key_id=seaweed.access_key_id,
        aws_secret_access_key=seaweed.secret_access_key,
    )
    for size in (5, 5_242_881):
        key = uuid.uuid4().hex
        file_io.put(f"s3://plain/{key}", bytes(size))
        assert file_io.get(f"s3://plain/{key}").body == bytes(size)
        found = client.head_object(Bucket="plain", Key=key)
        assert (found["ServerSideEncryption"], found["StorageClass"]) == ("AES256", "STANDARD_IA")
        tags = client.get_object_tagging(Bucket="plain", Key=key)["TagSet"]
        assert tags == [{"Key": "team", "Value": "ads"}]

"""What a request asks for."""

import pytest

from lakehouse_pipeline.testing.asked import Asked, Dialect

COPY = frozenset({"x-amz-copy-source"})


@pytest.mark.parametrize(
    ("method", "target", "headers", "verb"),
    [
        ("GET", "/", frozenset(), "ListBuckets"),
        ("PUT", "/raw", frozenset(), "CreateBucket"),
        ("HEAD", "/raw/", frozenset(), "HeadBucket"),
        ("GET", "/raw?list-type=2&prefix=a%2F", frozenset(), "ListObjectsV2"),
        ("GET", "/raw?prefix=a", frozenset(), "ListObjects"),
        ("GET", "/raw?versions", frozenset(), "ListObjectVersions"),
        ("GET", "/raw?uploads", frozenset(), "ListMultipartUploads"),
        ("GET", "/raw?location", frozenset(), "GetBucketLocation"),
        ("POST", "/raw?delete", frozenset(), "DeleteObjects"),
        ("GET", "/raw/a/b", frozenset(), "GetObject"),
        ("HEAD", "/raw/a/b", frozenset(), "HeadObject"),
        ("PUT", "/raw/a/b?x-id=PutObject", frozenset(), "PutObject"),
        ("PUT", "/raw/a/b", COPY, "CopyObject"),
        ("PUT", "/raw/a/b?tagging", frozenset(), "PutObjectTagging"),
        ("DELETE", "/raw/a/b", frozenset(), "DeleteObject"),
        ("POST", "/raw/a/b?uploads", frozenset(), "CreateMultipartUpload"),
        ("PUT", "/raw/a/b?partNumber=1&uploadId=u", frozenset(), "UploadPart"),
        ("PUT", "/raw/a/b?partNumber=1&uploadId=u", COPY, "UploadPartCopy"),
        ("GET", "/raw/a/b?uploadId=u", frozenset(), "ListParts"),
        ("POST", "/raw/a/b?uploadId=u", frozenset(), "CompleteMultipartUpload"),
        ("DELETE", "/raw/a/b?uploadId=u", frozenset(), "AbortMultipartUpload"),
    ],
)
def test_a_request_has_s3s_name(method: str, target: str, headers: frozenset[str], verb: str) -> None:
    """Method, path, sub-resource and the copy header decide."""
    assert Asked(method, target, headers).verb == verb


@pytest.mark.parametrize(
    ("method", "target", "verb"),
    [
        ("GET", "/v1/config?warehouse=w", "getConfig"),
        ("POST", "/v1/oauth/tokens", "getToken"),
        ("POST", "/v1/w/namespaces", "createNamespace"),
        ("POST", "/v1/w/namespaces/lake/tables", "createTable"),
        ("GET", "/v1/w/namespaces/lake/tables/events", "loadTable"),
        ("POST", "/v1/w/namespaces/lake/tables/events", "updateTable"),
        ("POST", "/v1/w/transactions/commit", "commitTransaction"),
        ("GET", "/nothing", "unknown"),
    ],
)
def test_a_request_to_a_catalog_has_its_operations_id(method: str, target: str, verb: str) -> None:
    """The names of Iceberg's REST specification."""
    assert Asked(method, target, dialect=Dialect.ICEBERG).verb == verb


def test_bucket_and_key_are_decoded() -> None:
    """Percent-encoding is the wire's, not the key's."""
    asked = Asked("GET", "/raw/time%3D10/%C3%A4?versionId=7")
    assert (asked.bucket, asked.key, asked.query) == ("raw", "time=10/ä", {"versionId": "7"})


def test_a_presigned_urls_secrets_are_not_shown() -> None:
    """Of parameters that are not S3's own, names stay and values go."""
    asked = Asked("GET", "/raw/a?partNumber=1&X-Amz-Signature=beef&X-Amz-Security-Token=cafe&uploads")
    assert asked.shown == "/raw/a?partNumber=1&X-Amz-Signature=…&X-Amz-Security-Token=…&uploads"

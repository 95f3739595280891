"""What boto3 raises, said in our words: which failures another try may cure, and what to do about the others.

Messages name the verb, the URL and the store's code; never a header, a key or a signature.
"""

import contextlib
import errno
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.object_store.objects import NotSupportedError, PreconditionFailedError, RequestFailedError

# botocore's own table (retries/standard.py), and what S3-compatible servers say instead.
THROTTLES = frozenset(
    {
        "BandwidthLimitExceeded", "EC2ThrottledException", "ErrTooManyRequest", "LimitExceededException",
        "PriorRequestNotComplete", "ProvisionedThroughputExceededException", "RequestLimitExceeded",
        "RequestThrottled", "RequestThrottledException", "SlowDown", "SlowDownRead", "SlowDownWrite", "Throttling",
        "ThrottledException", "ThrottlingException", "TooManyRequests", "TooManyRequestsException",
    }
)  # fmt: skip
CURABLE = frozenset(
    {
        "BadDigest", "ConditionalRequestConflict", "IncompleteBody", "InternalError", "MalformedXML", "NoSuchUpload",
        "OperationAborted", "RequestTimeout", "RequestTimeoutException", "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)  # fmt: skip
CREDENTIALS = frozenset({"AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch"})
SKEWED = "RequestTimeTooSkewed"  # beyond 15 minutes; botocore signs by this machine's clock and never corrects it
NOT_IMPLEMENTED = "NotImplemented"
# What is said of a session that has ended; SeaweedFS knows no expired keys, only unknown ones.
EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken", "TokenRefreshRequired"}
)
BARE = frozenset({"400", "403"})  # the same, in the answer to a HEAD, which has no body
MISSING = frozenset({"NoSuchKey", "NoSuchBucket", "NotFound"})

_NOT_ENCRYPTED = "encryption parameters are not applicable"  # S3's words where SSE-C's key opens an object without it

_NOT_CONFIGURATION = (
    boto.HTTPClientError,  # timeouts, resets
    boto.ConnectionError,  # unreachable endpoints, TLS
    boto.ResponseStreamingError,
    boto.IncompleteReadError,
    boto.FlexibleChecksumError,  # the body was damaged on its way
    boto.ChecksumError,
    boto.CredentialRetrievalError,  # an instance's or container's credential service, throttled or restarting
    boto.MetadataRetrievalError,
    ResponseParserError,  # a proxy's page instead of S3's XML
)
_BAD_REQUEST, _FORBIDDEN, _NOT_FOUND, _REQUEST_TIMEOUT, _PRECONDITION, _RANGE = 400, 403, 404, 408, 412, 416
_TOO_MANY, _SERVER_ERROR, _NOT_SUPPORTED, _UNAVAILABLE = 429, 500, 501, 503


@contextlib.contextmanager
def translated(verb: str, url: str) -> Iterator[None]:
    """Raise our errors in place of boto3's.

    Raises:
        RequestFailedError: a throttle, a 5xx, a reset, a timeout, damaged bytes.
        PreconditionFailedError: 412; 416, as the object is then smaller than somebody believes.
        FileNotFoundError: 404; names the URL.
        NotSupportedError: 501; the store lacks the verb.
        ConfigurationError: credentials, region, endpoint, this machine's clock, or what the store does not take.
    """
    try:
        yield
    except boto.ClientError as error:
        raise _answered(error, verb, url) from error
    except (boto.BotoCoreError, ResponseParserError, HTTPError, ConnectionError, TimeoutError) as error:
        raise _unanswered(error, verb, url) from error


def maybe_expired(error: boto.ClientError) -> bool:
    """Tell whether other credentials may be what an answer asks for."""
    return str(error.response.get("Error", {}).get("Code")) in EXPIRED | BARE


def is_forbidden(error: boto.ClientError) -> bool:
    """Tell whether rights are missing; a session that ends while its request is looked at has none left (SeaweedFS)."""
    return bool(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == _FORBIDDEN)


def refused(code: str, message: str, verb: str, url: str) -> Exception:
    """Say what an answer with an S3 error code, but without a status of its own, means: one key of many."""
    return _by_code(code, _BAD_REQUEST, message, verb=verb, url=url, headers={})


def _answered(error: Any, verb: str, url: str) -> Exception:
    told = error.response.get("Error", {})
    metadata = error.response.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode") or 0)
    headers = metadata.get("HTTPHeaders", {})
    code, message = str(told.get("Code", status)), str(told.get("Message", ""))
    return _by_code(code, status, message, verb=verb, url=url, headers=headers)


def _by_code(code: str, status: int, message: str, *, verb: str, url: str, headers: Mapping[str, str]) -> Exception:
    said = f"{verb} {url}: {status} {code}: {message}".rstrip(": ")
    if status == _NOT_SUPPORTED or code == NOT_IMPLEMENTED:
        return NotSupportedError(f"{said}; this store does not know the request")
    throttled = code in THROTTLES or status in (_TOO_MANY, _UNAVAILABLE)
    if throttled or code in CURABLE or status >= _SERVER_ERROR or status in (0, _REQUEST_TIMEOUT):
        return RequestFailedError(said, code=code, throttled=throttled, retry_after_s=_retry_after(headers))
    if status in (_PRECONDITION, _RANGE) or code == "PreconditionFailed":
        return PreconditionFailedError(said)
    if code in MISSING or status == _NOT_FOUND:
        return FileNotFoundError(errno.ENOENT, f"{verb}: no such object or bucket ({code})", url)
    return ConfigurationError(f"{said}; {_way_out(code, status, message, headers)}")


def _way_out(code: str, status: int, message: str, headers: Mapping[str, str]) -> str:
    """Say what to do about an answer that no other try changes."""
    if code == SKEWED:
        return f"{_clock_off(headers)} Signatures hold for 15 minutes: set the clock (NTP)"
    if code in EXPIRED - CREDENTIALS:
        return (
            "check the credentials: their session has ended. Those of a catalog are renewed only if it names "
            "client.refresh-credentials-endpoint, and those in s3.session-token not at all; boto3's chain renews its"
        )
    if code in CREDENTIALS or status == _FORBIDDEN:
        return (
            "check the credentials (s3.access-key-id, s3.secret-access-key, s3.session-token, or boto3's "
            "chain), their rights on this bucket, and this machine's clock"
        )
    if _NOT_ENCRYPTED in message.lower():
        return (
            "the object is not encrypted with the customer's key that goes with every request (s3.sse.type: custom). "
            "Encrypt it with the same key, or write the table with s3.sse.type: kms"
        )
    return "check s3.endpoint, s3.region, the credentials and what the store supports"


def _unanswered(error: Exception, verb: str, url: str) -> Exception:
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return ConfigurationError(
            f"{verb} {url}: no credentials found; set s3.access-key-id and s3.secret-access-key, or AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and check the credentials"
        )
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return ConfigurationError(f"{verb} {url}: {error}; check s3.endpoint and AWS_CA_BUNDLE")
    if isinstance(error, (*_NOT_CONFIGURATION, HTTPError, ConnectionError, TimeoutError)):
        return RequestFailedError(f"{verb} {url}: {error}", code=type(error).__name__)
    return ConfigurationError(f"{verb} {url}: {error}; check the s3.* properties and the AWS profile")


def _clock_off(headers: Mapping[str, str]) -> str:
    """Say how far this machine's clock is from the store's, by the `Date` of its answer."""
    try:
        ahead_s = (datetime.now(UTC) - parsedate_to_datetime(headers["date"])).total_seconds()
    except (KeyError, ValueError, TypeError):
        return "this machine's clock differs from the store's."
    return f"this machine's clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the store's."


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Read `x-amz-retry-after` (milliseconds) or `retry-after` (seconds; its date form is left alone)."""
    for name, unit_s in (("x-amz-retry-after", 0.001), ("retry-after", 1.0)):
        with contextlib.suppress(KeyError, ValueError):
            return max(0.0, float(headers[name]) * unit_s)
    return None

"""S3 settings: Iceberg's property names read into one frozen value.

What is not set falls to boto3's usual chain (environment, profile, instance). Nothing here connects.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.retry import RetryPolicy

Value = TypeVar("Value")
Addressing = Literal["auto", "path", "virtual"]

MIB = 1024 * 1024
PART_SIZE_BYTES = 32 * MIB  # Iceberg's S3FileIOProperties
MULTIPART_THRESHOLD = 1.5  # times the part size; the same source
SMALLEST_PART_BYTES = 5 * MIB  # S3 refuses smaller parts, but for the last
CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 60.0

_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off", "none", "")
_UNKNOWN_TO_US = {
    "s3.signer": "remote signing; ask the catalog for vended credentials",
    "s3.remote-signing-enabled": "remote signing; ask the catalog for vended credentials",
    "s3.role-arn": "roles; name the role in an AWS profile and set s3.profile-name",
    "client.role-arn": "roles; name the role in an AWS profile and set s3.profile-name",
    "s3.proxy-uri": "proxies; set HTTPS_PROXY in the environment",
    "s3.server-side-encryption": "encryption per object; set the bucket's default encryption",
    "s3.sse.type": "encryption per object; set the bucket's default encryption",
}


@dataclass(frozen=True)
class S3Connection:
    """How to reach S3; FileIOs that agree on it share a client.

    Attributes:
        endpoint: URL of an S3-compatible server; None is AWS.
        region: None leaves it to boto3's chain.
        profile: an AWS profile; None leaves it to the chain.
        access_key_id: None leaves all three to the chain.
        secret_access_key: goes with the key.
        session_token: for short-lived credentials.
        anonymous: requests are not signed.
        addressing: `path` puts the bucket into the path, `virtual` into the host.
        connect_timeout_s: seconds to wait for a connection.
        request_timeout_s: seconds to wait for the next bytes of an answer.
    """

    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    anonymous: bool = False
    addressing: Addressing = "auto"
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    request_timeout_s: float = REQUEST_TIMEOUT_S


@dataclass(frozen=True)
class S3Settings:
    """How to reach S3, how patiently, and in what pieces.

    Attributes:
        connection: where S3 is and who asks.
        part_size_bytes: of a multipart upload.
        multipart_threshold_bytes: objects of at least this size are uploaded in parts.
        policy: tries and waits of each request.
    """

    connection: S3Connection = field(default_factory=S3Connection)
    part_size_bytes: int = PART_SIZE_BYTES
    multipart_threshold_bytes: int = int(PART_SIZE_BYTES * MULTIPART_THRESHOLD)
    policy: RetryPolicy = field(default_factory=RetryPolicy)


def read_settings(properties: Mapping[str, Any]) -> S3Settings:
    """Read the properties of a catalog, table or FileIO.

    Beside Iceberg's names there is `s3.retry.total-timeout-ms`, the end of a request's retries by time.

    Raises:
        ConfigurationError: names every property that is wrong, half given or not supported.
    """
    reading = _Reading(properties)
    part_size = reading.number("s3.multipart.part-size-bytes", int, PART_SIZE_BYTES, SMALLEST_PART_BYTES)
    threshold = reading.number("s3.multipart.threshold", float, MULTIPART_THRESHOLD, 1.0)
    settings = S3Settings(
        connection=_connection(reading),
        part_size_bytes=part_size,
        multipart_threshold_bytes=int(part_size * threshold),
        policy=_policy(reading),
    )
    for name, what in _UNKNOWN_TO_US.items():
        if str(properties.get(name) or "").lower() not in _FALSE:
            reading.problems.append(f"{name}: this FileIO knows no {what}")
    reading.finish()
    return settings


def _connection(reading: "_Reading") -> S3Connection:
    endpoint = reading.text("s3.endpoint")
    return S3Connection(
        endpoint=endpoint,
        region=reading.text("s3.region", "client.region"),
        profile=reading.text("s3.profile-name", "client.profile-name"),
        **_credentials(reading),
        anonymous=bool(reading.flag("s3.anonymous")),
        addressing=_addressing(reading, endpoint),
        connect_timeout_s=reading.number("s3.connect-timeout", float, CONNECT_TIMEOUT_S, 0.001),
        request_timeout_s=reading.number("s3.request-timeout", float, REQUEST_TIMEOUT_S, 0.001),
    )


def _credentials(reading: "_Reading") -> dict[str, str | None]:
    key = reading.text("s3.access-key-id", "client.access-key-id")
    secret = reading.text("s3.secret-access-key", "client.secret-access-key")
    if (key is None) != (secret is None):
        reading.problems.append("s3.access-key-id and s3.secret-access-key go together: set both or neither")
    token = reading.text("s3.session-token", "client.session-token")
    return {"access_key_id": key, "secret_access_key": secret, "session_token": token}


def _addressing(reading: "_Reading", endpoint: str | None) -> Addressing:
    path_style, virtual = reading.flag("s3.path-style-access"), reading.flag("s3.force-virtual-addressing")
    if path_style and virtual:
        reading.problems.append("s3.path-style-access and s3.force-virtual-addressing exclude each other")
    if virtual or path_style is False:
        return "virtual"
    return "path" if path_style or endpoint else "auto"


def _policy(reading: "_Reading") -> RetryPolicy:
    usual = RetryPolicy()
    lowest = reading.number("s3.retry.min-wait-ms", float, usual.min_wait_s * 1000, 0) / 1000
    return RetryPolicy(
        tries=1 + reading.number("s3.retry.num-retries", int, usual.tries - 1, 0),
        total_s=reading.number("s3.retry.total-timeout-ms", float, usual.total_s * 1000, 0) / 1000,
        min_wait_s=lowest,
        max_wait_s=max(lowest, reading.number("s3.retry.max-wait-ms", float, usual.max_wait_s * 1000, 0) / 1000),
    )


class _Reading:
    """Properties being read, and what was wrong with them."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self._properties = properties
        self.problems: list[str] = []

    def text(self, *names: str) -> str | None:
        values = (self._properties.get(name) for name in names)
        return next((str(value) for value in values if value not in (None, "")), None)

    def flag(self, name: str) -> bool | None:
        text = self.text(name)
        if text is None:
            return None
        if text.lower() not in _TRUE + _FALSE:
            self.problems.append(f"{name}: {text!r} is neither true nor false")
        return text.lower() in _TRUE

    def number(self, name: str, kind: Callable[[str], Value], default: Value, least: float) -> Value:
        text = self.text(name)
        if text is None:
            return default
        try:
            value = kind(text)
        except ValueError:
            self.problems.append(f"{name}: {text!r} is no number")
            return default
        if not value >= least:  # type: ignore[operator]  # int and float only; also refuses NaN
            self.problems.append(f"{name}: {text} is below {least:g}")
            return default
        return value

    def finish(self) -> None:
        if self.problems:
            raise ConfigurationError("; ".join(self.problems))

"""S3 settings: Iceberg's property names read into one frozen value.

What is not set falls to boto3's usual chain (environment, profile, instance). Nothing here connects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lakehouse_pipeline.object_store.options import ObjectOptions, read_options
from lakehouse_pipeline.object_store.properties import PropertyReading
from lakehouse_pipeline.object_store.vending import Vending, read_vending
from lakehouse_pipeline.retry import RetryPolicy

Addressing = Literal["auto", "path", "virtual"]

MIB = 1024 * 1024
GIB = 1024 * MIB
PART_SIZE_BYTES = 32 * MIB  # Iceberg's S3FileIOProperties
MULTIPART_THRESHOLD = 1.5  # times the part size; the same source
UPLOAD_THREADS = 4  # of one upload; each holds a part in memory (Iceberg: a pool of as many threads as processors)
READ_THREADS = 4  # of one `get` of a large object
SMALLEST_PART_BYTES = 5 * MIB  # S3 refuses smaller parts, but for the last
CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 60.0

MOST_CONNECTIONS = 64  # more threads than this still work; their connections are not kept
SESSION_NAME = "lakehouse"  # of an assumed role, in AWS's logs

# How long somebody who only looks waits for a store: seconds, not the minutes that an hour's run is given.
IMPATIENT: Mapping[str, str] = {
    "s3.retry.num-retries": "2",
    "s3.retry.total-timeout-ms": "3000",
    "s3.connect-timeout": "2",
    "s3.request-timeout": "5",
}


@dataclass(frozen=True)
class AssumedRole:
    """A role that is taken on, by AWS's own names.

    Attributes:
        arn: the role.
        session_name: shows in AWS's logs.
        external_id: what the role's owner asks for, if anything.
    """

    arn: str
    session_name: str = SESSION_NAME
    external_id: str | None = field(default=None, repr=False)


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
        most_connections: kept open; as many threads as this share a client at full speed.
        proxy: URL of a proxy; None leaves it to the environment.
        ca_bundle: file of certificates to trust; None leaves it to the environment.
        role: taken on with the credentials above.
        vending: where fresh credentials come from, in place of all of the above.
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
    most_connections: int = MOST_CONNECTIONS
    proxy: str | None = field(default=None, repr=False)
    ca_bundle: str | None = None
    role: AssumedRole | None = None
    vending: Vending | None = None


@dataclass(frozen=True)
class S3Settings:
    """How to reach S3, how patiently, and in what pieces.

    Attributes:
        connection: where S3 is and who asks.
        part_size_bytes: of a multipart upload.
        multipart_threshold_bytes: objects of at least this size are uploaded in parts.
        upload_threads: parts of one upload that are sent, and held in memory, at the same time.
        read_threads: ranges of one large `get` that are read at the same time.
        policy: tries and waits of each request.
        options: encryption, ACL, storage class, tags, who pays.
    """

    connection: S3Connection = field(default_factory=S3Connection)
    part_size_bytes: int = PART_SIZE_BYTES
    multipart_threshold_bytes: int = int(PART_SIZE_BYTES * MULTIPART_THRESHOLD)
    upload_threads: int = UPLOAD_THREADS
    read_threads: int = READ_THREADS
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    options: ObjectOptions = field(default_factory=ObjectOptions)


def read_settings(properties: Mapping[str, Any]) -> S3Settings:
    """Read the properties of a catalog, table or FileIO.

    Beside Iceberg's names there are `s3.retry.total-timeout-ms`, the end of a request's retries by time,
    `s3.max-connections`, `s3.read.num-threads`, `s3.ca-bundle` and `s3.requester-pays`.

    Raises:
        ConfigurationError: names every property that is wrong, half given or not supported, and every `s3.*` one that
            is not known: who sets it counts on what it says.
    """
    reading = PropertyReading(properties)
    part_size = reading.number("s3.multipart.part-size-bytes", int, PART_SIZE_BYTES, SMALLEST_PART_BYTES)
    threshold = reading.number("s3.multipart.threshold", float, MULTIPART_THRESHOLD, 1.0)
    upload_threads = reading.number("s3.multipart.num-threads", int, UPLOAD_THREADS, 1)
    read_threads = reading.number("s3.read.num-threads", int, READ_THREADS, 1)
    settings = S3Settings(
        connection=_connection(reading, max(upload_threads, read_threads)),
        part_size_bytes=part_size,
        multipart_threshold_bytes=int(part_size * threshold),
        upload_threads=upload_threads,
        read_threads=read_threads,
        policy=_policy(reading),
        options=read_options(reading),
    )
    reading.finish()
    return settings


def _connection(reading: PropertyReading, threads: int) -> S3Connection:
    endpoint = _endpoint(reading)
    vending = read_vending(reading)
    credentials, role = _credentials(reading), _role(reading)
    return S3Connection(
        endpoint=endpoint,
        region=reading.text("s3.region", "client.region"),
        profile=reading.text("s3.profile-name", "client.profile-name"),
        **({} if vending else credentials),
        anonymous=bool(reading.flag("s3.anonymous")),
        addressing=_addressing(reading, endpoint),
        connect_timeout_s=reading.number("s3.connect-timeout", float, CONNECT_TIMEOUT_S, 0.001),
        request_timeout_s=reading.number("s3.request-timeout", float, REQUEST_TIMEOUT_S, 0.001),
        most_connections=max(threads, reading.number("s3.max-connections", int, MOST_CONNECTIONS, 1)),
        proxy=reading.text("s3.proxy-uri"),
        ca_bundle=reading.text("s3.ca-bundle"),
        role=None if vending else role,
        vending=vending,
    )


def _endpoint(reading: PropertyReading) -> str | None:
    """Read where S3 is; botocore says it in its errors, and signs with nothing that stands in it."""
    endpoint = reading.text("s3.endpoint")
    if endpoint and "@" in endpoint:
        reading.problems.append("s3.endpoint: holds a user or a password, which S3 does not ask for: take them out")
        return None
    return endpoint


def _credentials(reading: PropertyReading) -> dict[str, str | None]:
    key = reading.text("s3.access-key-id", "client.access-key-id")
    secret = reading.text("s3.secret-access-key", "client.secret-access-key")
    if (key is None) != (secret is None):
        reading.problems.append("s3.access-key-id and s3.secret-access-key go together: set both or neither")
    token = reading.text("s3.session-token", "client.session-token")
    return {"access_key_id": key, "secret_access_key": secret, "session_token": token}


def _role(reading: PropertyReading) -> AssumedRole | None:
    """Read PyIceberg's names of a role, and Java's."""
    arn = reading.text("s3.role-arn", "client.role-arn", "client.assume-role.arn")
    session = ("s3.role-session-name", "client.role-session-name", "client.assume-role.session-name")
    name, external_id = reading.text(*session), reading.text("client.assume-role.external-id")
    if arn is None and (name or external_id):
        reading.problems.append("s3.role-session-name and an external id need s3.role-arn, which is not set")
    return AssumedRole(arn, name or SESSION_NAME, external_id) if arn else None


def _addressing(reading: PropertyReading, endpoint: str | None) -> Addressing:
    path_style, virtual = reading.flag("s3.path-style-access"), reading.flag("s3.force-virtual-addressing")
    if path_style and virtual:
        reading.problems.append("s3.path-style-access and s3.force-virtual-addressing exclude each other")
    if virtual or path_style is False:
        return "virtual"
    return "path" if path_style or endpoint else "auto"


def _policy(reading: PropertyReading) -> RetryPolicy:
    usual = RetryPolicy()
    lowest = reading.number("s3.retry.min-wait-ms", float, usual.min_wait_s * 1000, 0) / 1000
    return RetryPolicy(
        tries=1 + reading.number("s3.retry.num-retries", int, usual.tries - 1, 0),
        total_s=reading.number("s3.retry.total-timeout-ms", float, usual.total_s * 1000, 0) / 1000,
        min_wait_s=lowest,
        max_wait_s=max(lowest, reading.number("s3.retry.max-wait-ms", float, usual.max_wait_s * 1000, 0) / 1000),
    )

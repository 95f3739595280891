"""Iceberg's property names are read into settings, and every problem is said at once."""

import base64
from pathlib import Path

import pytest

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.object_store import settings
from lakehouse_pipeline.object_store.properties import REFUSED, WITHOUT_EFFECT, PropertyReading
from lakehouse_pipeline.object_store.settings import AssumedRole, S3Connection, S3Settings, read_settings
from lakehouse_pipeline.retry import RetryPolicy

MIB = 1024 * 1024
CUSTOMER_KEY = base64.b64encode(bytes(range(32))).decode()


def test_nothing_set_is_aws_with_icebergs_sizes() -> None:
    """Without properties: boto3's chain, 32 MiB parts from 48 MiB on, 32 tries in ten minutes."""
    found = read_settings({})
    assert found == S3Settings()
    assert (found.part_size_bytes, found.multipart_threshold_bytes) == (32 * MIB, 48 * MIB)
    assert found.policy == RetryPolicy(tries=32, total_s=600, min_wait_s=1, max_wait_s=20)


def test_all_properties_are_read() -> None:
    """Each property lands in its field, from text as catalogs give it."""
    assert read_settings(
        {
            "s3.endpoint": "http://127.0.0.1:8333",
            "s3.region": "eu-west-1",
            "s3.profile-name": "team",
            "s3.access-key-id": "id",
            "s3.secret-access-key": "secret",
            "s3.session-token": "token",
            "s3.connect-timeout": "2.5",
            "s3.request-timeout": "7",
            "s3.max-connections": "200",
            "s3.proxy-uri": "http://proxy:3128",
            "s3.ca-bundle": "/etc/ca.pem",
            "s3.role-arn": "arn:aws:iam::1:role/x",
            "s3.role-session-name": "backfill",
            "s3.multipart.part-size-bytes": str(8 * MIB),
            "s3.multipart.threshold": "2",
            "s3.multipart.num-threads": "3",
            "s3.read.num-threads": "2",
            "s3.retry.num-retries": "4",
            "s3.retry.total-timeout-ms": "30000",
            "s3.retry.min-wait-ms": "10",
            "s3.retry.max-wait-ms": "200",
        }
    ) == S3Settings(
        connection=S3Connection(
            endpoint="http://127.0.0.1:8333",
            region="eu-west-1",
            profile="team",
            access_key_id="id",
            secret_access_key="secret",  # noqa: S106  # a test's
            session_token="token",  # noqa: S106  # a test's
            addressing="path",
            connect_timeout_s=2.5,
            request_timeout_s=7.0,
            most_connections=200,
            proxy="http://proxy:3128",
            ca_bundle="/etc/ca.pem",
            role=AssumedRole("arn:aws:iam::1:role/x", "backfill"),
        ),
        part_size_bytes=8 * MIB,
        multipart_threshold_bytes=16 * MIB,
        upload_threads=3,
        read_threads=2,
        policy=RetryPolicy(tries=5, total_s=30, min_wait_s=0.01, max_wait_s=0.2),
    )


def test_there_are_connections_for_all_threads() -> None:
    """Threads of one upload never wait for a connection, however few are asked for."""
    found = read_settings({"s3.max-connections": "2", "s3.multipart.num-threads": "8", "s3.read.num-threads": "16"})
    assert found.connection.most_connections == 16


@pytest.mark.parametrize(
    ("properties", "addressing"),
    [
        pytest.param({}, "auto", id="aws"),
        pytest.param({"s3.endpoint": "http://x"}, "path", id="endpoint"),
        pytest.param({"s3.endpoint": "http://x", "s3.force-virtual-addressing": "true"}, "virtual", id="forced"),
        pytest.param({"s3.endpoint": "http://x", "s3.path-style-access": "false"}, "virtual", id="java"),
        pytest.param({"s3.path-style-access": "true"}, "path", id="path-on-aws"),
    ],
)
def test_buckets_stand_in_the_path_or_the_host(properties: dict[str, str], addressing: str) -> None:
    """An endpoint means path style, unless a property of Java's or PyIceberg's says otherwise."""
    assert read_settings(properties).connection.addressing == addressing


def test_client_properties_stand_in_for_s3s() -> None:
    """PyIceberg's `client.*` credentials and region are used where `s3.*` has none."""
    connection = read_settings(
        {"client.access-key-id": "id", "client.secret-access-key": "secret", "client.region": "r", "s3.region": "first"}
    ).connection
    assert (connection.access_key_id, connection.secret_access_key, connection.region) == ("id", "secret", "first")


@pytest.mark.parametrize(
    ("properties", "role"),
    [
        pytest.param({"client.role-arn": "r"}, AssumedRole("r", "lakehouse"), id="pyiceberg's"),
        pytest.param(
            {"client.assume-role.arn": "r", "client.assume-role.external-id": "e"},
            AssumedRole("r", "lakehouse", "e"),
            id="java's",
        ),
        pytest.param({}, None, id="none"),
    ],
)
def test_roles_have_several_names(properties: dict[str, str], role: AssumedRole | None) -> None:
    """Both libraries' names of a role mean the same."""
    assert read_settings(properties).connection.role == role


@pytest.mark.parametrize(
    "name",
    [
        "s3.signer",
        "s3.signer.uri",
        "s3.signer.endpoint",
        "s3.remote-signing-enabled",
        "s3.access-points.raw",
        "s3.access-grants.enabled",
        "s3.acceleration-enabled",
        "s3.dualstack-enabled",
        "s3.delete.tags.old",
        "s3.retry-strategy-impl",
        "s3.write.table-tag-enabled",
        "s3.some-day",
        "s3.sse.typ",
        "client.credentials-provider",
        "client.assume-role.timeout-sec",
    ],
)
def test_what_is_not_known_is_refused_by_name(name: str) -> None:
    """Whoever sets a property counts on it: it is honoured or refused, and its value is not shown."""
    with pytest.raises(ConfigurationError, match=f"{name}: ") as caught:
        read_settings({name: "VALUE"})
    assert "VALUE" not in str(caught.value)


@pytest.mark.parametrize(
    "properties",
    [
        pytest.param({"s3.remote-signing-enabled": "false", "s3.signer.uri": "https://catalog"}, id="no-signing"),
        pytest.param({"s3.acceleration-enabled": "false", "s3.delete-enabled": "true"}, id="as-usual"),
        pytest.param({"s3.checksum-enabled": "true", "s3.crt.max-concurrency": "500"}, id="hints-to-java"),
        pytest.param({"client.pool.cache.eviction-interval-ms": "1", "gcs.project-id": "p"}, id="not-s3"),
    ],
)
def test_what_changes_nothing_is_let_pass(properties: dict[str, str]) -> None:
    """Features that are off, hints to other FileIOs and other families' properties are no problem."""
    assert read_settings(properties) == S3Settings()


@pytest.mark.parametrize("value", ["false", "0", "none", ""])
def test_a_misspelt_name_is_refused_whatever_it_says(value: str) -> None:
    """Only a feature that is known can be switched off: else `false` for a typo would pass unseen."""
    with pytest.raises(ConfigurationError, match=r"s3\.path-style-acces: this FileIO knows no such property"):
        read_settings({"s3.path-style-acces": value})


def test_all_problems_are_said_at_once() -> None:
    """Numbers that are none, values out of range, half credentials and unsupported properties, each by name."""
    wrong = {
        "s3.access-key-id": "id",
        "s3.connect-timeout": "soon",
        "s3.request-timeout": "nan",
        "s3.multipart.part-size-bytes": "1024",
        "s3.retry.num-retries": "-1",
        "s3.path-style-access": "perhaps",
        "s3.signer": "S3V4RestSigner",
    }
    with pytest.raises(ConfigurationError) as caught:
        read_settings(wrong)
    assert [name for name in wrong if f"{name}" not in str(caught.value)] == []
    assert len(str(caught.value).split("; ")) >= len(wrong)


def test_a_longer_first_wait_lifts_the_longest() -> None:
    """A minimum above the usual maximum is taken as both."""
    assert read_settings({"s3.retry.min-wait-ms": "60000"}).policy.max_wait_s == 60


def test_secrets_do_not_show() -> None:
    """Neither keys, secrets, tokens nor a proxy's password stand in the settings' repr."""
    more = {
        "s3.proxy-uri": "http://me:PASS@proxy:3128",
        "s3.sse.type": "custom",
        "s3.sse.key": CUSTOMER_KEY,
        "client.refresh-credentials-endpoint": "https://catalog/credentials",
        "token": "BEARER",
    }
    shown = repr(
        read_settings({"s3.access-key-id": "KEY", "s3.secret-access-key": "SEC", "s3.session-token": "TOK", **more})
    )
    assert [secret for secret in ("KEY", "SEC", "TOK", "PASS", CUSTOMER_KEY, "BEARER") if secret in shown] == []


def test_the_documentation_has_every_name() -> None:
    """What is read, let pass or refused stands in docs/s3.md, by its whole name."""
    reading = PropertyReading({})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "PropertyReading", lambda _: reading)
        read_settings({})
    text = (Path(__file__).parents[2] / "docs" / "s3.md").read_text()
    named = {*reading._known, *(name.rstrip(".") for name in (*REFUSED, *WITHOUT_EFFECT))}
    assert "s3.endpoint" in named
    assert sorted(name for name in named if name not in text) == []


def test_an_endpoint_with_a_password_is_refused_without_it() -> None:
    """Errors of botocore name the endpoint."""
    with pytest.raises(ConfigurationError, match=r"s3\.endpoint: holds a user or a password") as caught:
        read_settings({"s3.endpoint": "http://me:PASS@localhost:1"})
    assert "PASS" not in str(caught.value)

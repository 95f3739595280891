"""Iceberg's property names are read into settings, and every problem is said at once."""

import pytest

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.object_store.settings import S3Connection, S3Settings, read_settings
from lakehouse_pipeline.retry import RetryPolicy

MIB = 1024 * 1024


def test_nothing_set_is_aws_with_icebergs_sizes() -> None:
    """Without properties: boto3's chain, 32 MiB parts from 48 MiB on, 32 tries in ten minutes."""
    settings = read_settings({})
    assert settings == S3Settings()
    assert (settings.part_size_bytes, settings.multipart_threshold_bytes) == (32 * MIB, 48 * MIB)
    assert settings.policy == RetryPolicy(tries=32, total_s=600, min_wait_s=1, max_wait_s=20)


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
            "s3.multipart.part-size-bytes": str(8 * MIB),
            "s3.multipart.threshold": "2",
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
        ),
        part_size_bytes=8 * MIB,
        multipart_threshold_bytes=16 * MIB,
        policy=RetryPolicy(tries=5, total_s=30, min_wait_s=0.01, max_wait_s=0.2),
    )


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


def test_all_problems_are_said_at_once() -> None:
    """Numbers that are none, values out of range, half credentials and unsupported properties, each by name."""
    wrong = {
        "s3.access-key-id": "id",
        "s3.connect-timeout": "soon",
        "s3.request-timeout": "nan",
        "s3.multipart.part-size-bytes": "1024",
        "s3.retry.num-retries": "-1",
        "s3.path-style-access": "perhaps",
        "s3.role-arn": "arn:aws:iam::1:role/x",
    }
    with pytest.raises(ConfigurationError) as caught:
        read_settings(wrong)
    assert [name for name in wrong if f"{name}" not in str(caught.value)] == []
    assert len(str(caught.value).split("; ")) >= len(wrong)


def test_a_longer_first_wait_lifts_the_longest() -> None:
    """A minimum above the usual maximum is taken as both."""
    assert read_settings({"s3.retry.min-wait-ms": "60000"}).policy.max_wait_s == 60


def test_secrets_do_not_show() -> None:
    """Neither key, secret nor token stand in the settings' repr."""
    shown = repr(read_settings({"s3.access-key-id": "KEY", "s3.secret-access-key": "SEC", "s3.session-token": "TOK"}))
    assert [secret for secret in ("KEY", "SEC", "TOK") if secret in shown] == []

"""The S3 client: boto3's, with its own retries off so that there is one retry layer.

Clients are shared by all FileIOs of a process that reach S3 in the same way: building one costs about 0.1 s. What
boto3's chain gave a client stays with it, refreshed where the chain can do that.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

import boto3.session
from botocore import UNSIGNED
from botocore.config import Config

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.object_store.failures import translated
from lakehouse_pipeline.object_store.settings import S3Connection

POOL_CONNECTIONS = 64  # more threads than this still work; their connections are not kept
USUAL_REGION = "us-east-1"  # what S3-compatible servers sign with unless told otherwise
_CLIENTS_KEPT = 16


def s3_client(connection: S3Connection) -> Any:
    """Give this process's client for this connection; safe to share between threads.

    Raises:
        ConfigurationError: the profile or the endpoint cannot be used.
    """
    return _client(connection, os.getpid())


@functools.lru_cache(maxsize=_CLIENTS_KEPT)
def _client(connection: S3Connection, pid: int) -> Any:  # noqa: ARG001  # a forked child must not share its parent's sockets
    with translated("connect", connection.endpoint or "s3://"), _bad_endpoint_said():
        session = boto3.session.Session(profile_name=connection.profile)
        return session.client(
            "s3",
            endpoint_url=connection.endpoint,
            region_name=connection.region or session.region_name or (USUAL_REGION if connection.endpoint else None),
            aws_access_key_id=connection.access_key_id,
            aws_secret_access_key=connection.secret_access_key,
            aws_session_token=connection.session_token,
            config=_config(connection),
        )


def _config(connection: S3Connection) -> Config:
    return Config(
        retries={"total_max_attempts": 1},  # `max_attempts` would mean one more
        s3={"addressing_style": connection.addressing},
        connect_timeout=connection.connect_timeout_s,
        read_timeout=connection.request_timeout_s,
        max_pool_connections=POOL_CONNECTIONS,
        tcp_keepalive=True,
        **({"signature_version": UNSIGNED} if connection.anonymous else {}),
    )


@contextlib.contextmanager
def _bad_endpoint_said() -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # botocore's word for an endpoint that is no URL
        raise ConfigurationError(f"s3.endpoint: {error}") from error

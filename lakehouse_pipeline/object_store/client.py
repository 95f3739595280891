"""The S3 client, and whose credentials it signs with: boto3's, its own retries off so that there is one retry layer.

Clients are shared by all FileIOs of a process that reach S3 in the same way: building one costs about 0.1 s. Roles and
what boto3's chain gave are refreshed by boto3, vended credentials by `renewal`; whatever S3 calls expired, once more.
"""

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3.session
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    Credentials,
    DeferredRefreshableCredentials,
    ReadOnlyCredentials,
)
from botocore.utils import parse_timestamp

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.object_store.failures import translated
from lakehouse_pipeline.object_store.renewal import VendedCredentials
from lakehouse_pipeline.object_store.settings import AssumedRole, S3Connection
from lakehouse_pipeline.object_store.vending import Vended

USUAL_REGION = "us-east-1"  # what S3-compatible servers sign with unless told otherwise
_ACCESSES_KEPT = 16


class S3Access:
    """One client, and the way to fresh credentials; safe to share between threads."""

    def __init__(self, connection: S3Connection) -> None:
        """Build nothing yet."""
        self._connection = connection
        self._lock = threading.Lock()
        self._client: Any = None
        self._vended = VendedCredentials(connection.vending) if connection.vending else None

    def client(self) -> Any:
        """Give the client.

        Raises:
            ConfigurationError: the profile, the endpoint or the CA bundle cannot be used.
        """
        with self._lock:
            if self._client is None:
                self._client = _built(self._connection, self._vended)
            return self._client

    def vended(self) -> Vended | None:
        """Give the vended credentials that a request is signed with now, None where none are vended."""
        return self._vended.current() if self._vended else None

    def mark(self) -> object:
        """Name the present credentials, for `renew`."""
        return self.vended() if self._vended else self.client()

    def may_have_ended(self, mark: object) -> bool:
        """Tell whether a mark is of vended credentials that may have ended by now."""
        return isinstance(mark, Vended) and self._vended is not None and self._vended.may_have_ended(mark)

    def renew(self, refused: object) -> bool:
        """Get other credentials than those of a mark; tell whether there may be any.

        Vended ones are asked for, and boto3's chain is read anew: a profile's file may have been written since.
        """
        if isinstance(refused, Vended) and self._vended:
            self._vended.renew(refused)
            return True
        if self._connection.access_key_id or self._connection.anonymous:
            return False
        with self._lock:
            if self._client is refused:
                self._client = None
        return True


def s3_access(connection: S3Connection) -> S3Access:
    """Give this process's access by this connection."""
    return _access(connection, os.getpid())


@functools.lru_cache(maxsize=_ACCESSES_KEPT)
def _access(connection: S3Connection, pid: int) -> S3Access:  # noqa: ARG001  # a forked child must not share its parent's sockets
    return S3Access(connection)


class _VendedToBoto(Credentials):  # type: ignore[misc]  # botocore has no types
    """Vended credentials as botocore's signer asks for them."""

    def __init__(self, vended: VendedCredentials) -> None:
        super().__init__("", "", method="iceberg-vended")
        self._source = vended

    def get_frozen_credentials(self) -> Any:
        """Give what to sign with now."""
        now = self._source.current()
        return ReadOnlyCredentials(now.access_key_id, now.secret_access_key, now.session_token)


class _Only:
    """A credential resolver of botocore's that has one answer."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    def load_credentials(self) -> Any:
        return self._credentials


def _built(connection: S3Connection, vended: VendedCredentials | None) -> Any:
    with translated("connect", connection.endpoint or "s3://"), _bad_endpoint_said():
        core = botocore.session.Session(profile=connection.profile)
        core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
        credentials = _credentials(connection, vended)
        if credentials is not None:
            core.register_component("credential_provider", _Only(credentials))
        session = boto3.session.Session(botocore_session=core)
        return session.client(
            "s3",
            endpoint_url=connection.endpoint,
            region_name=connection.region or session.region_name or (USUAL_REGION if connection.endpoint else None),
            config=_config(connection),
            verify=_ca_bundle(connection),
        )


def _moment(said: Any) -> datetime:
    """Read a time of an answer; a listing has one for each object, and botocore's own way takes 80 times as long."""
    try:
        found = datetime.fromisoformat(said)
    except (TypeError, ValueError):  # as in headers, which have it in words
        found = None
    return found if found and found.tzinfo else parse_timestamp(said)


def _credentials(connection: S3Connection, vended: VendedCredentials | None) -> Any:
    """Give the credentials that the properties ask for; None leaves them to boto3's chain."""
    if vended is not None:
        return _VendedToBoto(vended)
    own = None
    if connection.access_key_id:
        own = Credentials(connection.access_key_id, connection.secret_access_key, connection.session_token)
    return _assumed(connection, connection.role, own) if connection.role else own


def _assumed(connection: S3Connection, role: AssumedRole, own: Any) -> Any:
    """Take on a role with the given credentials or the chain's; AWS_ENDPOINT_URL_STS names another STS than AWS's."""
    core = botocore.session.Session(profile=connection.profile)
    client = functools.partial(
        core.create_client,
        region_name=connection.region or core.get_config_variable("region") or USUAL_REGION,
        config=Config(proxies=_proxies(connection)),
        verify=_ca_bundle(connection),
    )
    asked = {"RoleSessionName": role.session_name, **({"ExternalId": role.external_id} if role.external_id else {})}
    source = own or core.get_credentials()
    if source is None:
        raise ConfigurationError(f"s3.role-arn: no credentials found to assume {role.arn} with")
    fetcher = AssumeRoleCredentialFetcher(client, source, role.arn, extra_args=asked)
    return DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")


def _config(connection: S3Connection) -> Config:
    return Config(
        retries={"total_max_attempts": 1},  # `max_attempts` would mean one more
        s3={"addressing_style": connection.addressing},
        connect_timeout=connection.connect_timeout_s,
        read_timeout=connection.request_timeout_s,
        max_pool_connections=connection.most_connections,
        proxies=_proxies(connection),
        tcp_keepalive=True,
        **({"signature_version": UNSIGNED} if connection.anonymous else {}),
    )


def _proxies(connection: S3Connection) -> dict[str, str] | None:
    return {"http": connection.proxy, "https": connection.proxy} if connection.proxy else None


def _ca_bundle(connection: S3Connection) -> str | None:
    if connection.ca_bundle and not Path(connection.ca_bundle).is_file():
        raise ConfigurationError(f"s3.ca-bundle: there is no file {connection.ca_bundle} on this machine")
    return connection.ca_bundle


@contextlib.contextmanager
def _bad_endpoint_said() -> Iterator[None]:
    try:
        yield
    except ConfigurationError:
        raise
    except ValueError as error:  # botocore's word for an endpoint that is no URL
        raise ConfigurationError(f"s3.endpoint: {error}") from error

"""Credentials that a REST catalog vends for a table: what they are, who may renew them where, and what a task gets.

A task gets the endpoint's full URL and a bearer token; the secret that buys tokens stays in the driver. Renewing itself
is `renewal`'s.
"""

import base64
import json
import logging
import time
import urllib.parse
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import requests
from pyiceberg.exceptions import RESTError

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.object_store.properties import PropertyReading

logger = logging.getLogger(__name__)

ENDPOINT = "client.refresh-credentials-endpoint"
EXPIRES_AT_MS = "s3.session-token-expires-at-ms"
DRIVERS_KEYS = ("uri", "auth.manager", "ssl")  # PyIceberg's: what renewing takes in the driver, beside `ENDPOINT`
RENEW_BEFORE_S = 300.0  # Iceberg's VendedCredentialsProvider
RENEW_BEFORE_SHARE = 0.2  # of the time left, where that is less: credentials may live for less than five minutes
TOKEN_REUSE_S = 60.0  # an hour sends several jobs, seconds apart: one bearer token does for them
TOKEN_REUSE_SHARE = 0.2  # of a token's life, where that is less: what a task gets has to outlast it

_bought: MutableMapping[Any, float] = WeakKeyDictionary()  # by AuthManager: when its present token was bought


@dataclass(frozen=True)
class Authority:
    """What a renewal is allowed by.

    Attributes:
        manager: PyIceberg's AuthManager, in the driver only; None in a task.
        token: a bearer token, in a task.
        verify: a CA bundle for the catalog, None for the usual ones.
        certificate: files of a client certificate and its key.
    """

    manager: Any = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    verify: str | None = None
    certificate: tuple[str, str] | str | None = None

    def header(self) -> str | None:
        """Give the value of `Authorization`."""
        if self.manager is None:
            return self.token and f"Bearer {self.token}"
        header: str | None = self.manager.auth_header()
        return None if header == "Bearer None" else header  # PyIceberg's word for a catalog without authorization

    def renew(self) -> bool:
        """Buy a new token where PyIceberg keeps one until it is refused; tell whether there may be one now."""
        refresh = getattr(self.manager, "_refresh_token", None)  # what RestCatalog calls, too; the others renew alone
        if refresh is not None:
            refresh()
        return refresh is not None

    def portable_token(self, clock: Callable[[], float] = time.time) -> str | None:
        """Give a bearer token for tasks, bought now or just before: it has to outlast them. No password is one."""
        if self.manager is not None and not self._is_fresh(clock()):
            try:
                if self.renew():
                    _bought[self.manager] = clock()
            except (requests.RequestException, RESTError) as error:
                logger.warning("no new token for tasks, they get the present one: %s", type(error).__name__)
        return self._bearer()

    def _bearer(self) -> str | None:
        kind, _, token = (self.header() or "").partition(" ")
        return token if kind == "Bearer" and token else None

    def _is_fresh(self, now: float) -> bool:
        """Tell whether the present token was bought for tasks so shortly before that it is as good as a new one."""
        bought_at = _bought.get(self.manager) if hasattr(self.manager, "_refresh_token") else None
        if bought_at is None:
            return False
        ends_at = _end_of(self._bearer())
        share = TOKEN_REUSE_S if ends_at is None else (ends_at - bought_at) * TOKEN_REUSE_SHARE
        return 0 <= now - bought_at < min(TOKEN_REUSE_S, share)


@dataclass(frozen=True)
class Vended:
    """Credentials as they were vended.

    Attributes:
        expires_at: seconds since 1970; None if nobody said.
        renew_at: the same, when new ones should be asked for.
    """

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(repr=False)
    expires_at: float | None
    renew_at: float | None

    @classmethod
    def read(cls, config: Mapping[str, Any], now: float) -> "Vended":
        """Read a catalog's answer, or the properties of a loaded table.

        Raises:
            KeyError, ValueError: something is missing or no number.
        """
        said = config.get(EXPIRES_AT_MS)
        expires_at = int(said) / 1000 if said else None
        key, secret = config["s3.access-key-id"], config["s3.secret-access-key"]
        return cls(key, secret, config.get("s3.session-token"), expires_at, _renew_at(expires_at, now))

    def properties(self) -> dict[str, str]:
        """Give them as `read` takes them."""
        said = {
            "s3.access-key-id": self.access_key_id,
            "s3.secret-access-key": self.secret_access_key,
            "s3.session-token": self.session_token or "",
            EXPIRES_AT_MS: str(int(self.expires_at * 1000)) if self.expires_at else "",
        }
        return {name: value for name, value in said.items() if value}


def _end_of(token: str | None) -> float | None:
    """Read when a token ends, in seconds since 1970; None if it is no JWT that says so. Nothing is verified here."""
    claims = (token or "").split(".")[1:2]
    try:
        return float(json.loads(base64.urlsafe_b64decode(f"{claims[0]}=="))["exp"])
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def _renew_at(expires_at: float | None, now: float) -> float | None:
    if expires_at is None:
        return None
    return expires_at - min(RENEW_BEFORE_S, max(0.0, expires_at - now) * RENEW_BEFORE_SHARE)


@dataclass(frozen=True)
class Vending:
    """Where a table's credentials come from. Two are equal if they ask the same endpoint as the same principal.

    Attributes:
        url: the endpoint's full URL.
        authority: who asks.
        offered: what came with the table, if anything.
    """

    url: str
    authority: Authority
    offered: Vended | None = field(default=None, compare=False)


def read_vending(reading: PropertyReading) -> Vending | None:
    """Read how to renew; None if the catalog names no endpoint, or `client.refresh-credentials-enabled` is false."""
    endpoint = reading.text(ENDPOINT)
    enabled = reading.flag("client.refresh-credentials-enabled")
    expires = reading.number(EXPIRES_AT_MS, int, 0, 0)
    if endpoint is None or enabled is False:
        return None
    told = reading.properties
    try:
        offered = Vended.read({**told, EXPIRES_AT_MS: expires}, time.time())
    except KeyError:
        offered = None
    try:
        return Vending(full_url(told.get("uri"), endpoint), _authority(told), offered)
    except ConfigurationError as error:
        reading.problems.append(str(error))
        return None


def full_url(catalog: str | None, endpoint: str) -> str:
    """Resolve the endpoint against the catalog's address, as Iceberg's RESTUtil.resolveEndpoint does.

    Raises:
        ConfigurationError: it is another server's. A table's properties reach the FileIO, too, and whoever may set
            them must not learn the catalog's token.
    """
    absolute = endpoint.startswith(("http://", "https://"))
    if catalog is None:
        if not absolute:
            raise ConfigurationError(f"{ENDPOINT}: it is relative, and the catalog's uri is not known here")
        return endpoint
    if not absolute:
        return f"{catalog.rstrip('/')}/{endpoint.lstrip('/')}"
    theirs, ours = urllib.parse.urlsplit(endpoint), urllib.parse.urlsplit(catalog)
    if (theirs.scheme, theirs.netloc) != (ours.scheme, ours.netloc):
        raise ConfigurationError(
            f"{ENDPOINT}: {theirs.scheme}://{theirs.hostname} is not the catalog's address, so it gets no token; "
            "let the catalog name a relative path, or set client.refresh-credentials-enabled to false"
        )
    return endpoint


def portable(properties: Mapping[str, Any], vended: Vended | None) -> dict[str, Any]:
    """Give the properties that may leave the driver: the store's own, and what renewing takes where it is to happen."""
    kept = {name: value for name, value in properties.items() if name.startswith(("s3.", "client."))}
    vending = read_vending(PropertyReading(properties))
    if vending is None:
        return kept
    token = vending.authority.portable_token()
    ssl = {"ssl": properties["ssl"]} if properties.get("ssl") else {}
    newest = vended.properties() if vended else {}
    return {**kept, **newest, **ssl, ENDPOINT: vending.url, **({"token": token} if token else {})}


def _authority(properties: Mapping[str, Any]) -> Authority:
    ssl = properties.get("ssl") or {}
    client = ssl.get("client") or {}
    certificate = (client["cert"], client["key"]) if "key" in client else client.get("cert")
    manager = properties.get("auth.manager")
    return Authority(manager, None if manager else properties.get("token"), ssl.get("cabundle"), certificate)

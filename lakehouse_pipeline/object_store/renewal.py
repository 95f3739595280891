"""Vended credentials of one endpoint, kept good: renewed before they expire, and whenever S3 says that they have.

As Iceberg's VendedCredentialsProvider does it: the credentials endpoint is asked with the catalog's own authorization.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import requests
from pyiceberg.exceptions import RESTError

from lakehouse_pipeline.errors import ConfigurationError, LakehouseError
from lakehouse_pipeline.object_store.objects import RequestFailedError
from lakehouse_pipeline.object_store.vending import Authority, Vended, Vending

logger = logging.getLogger(__name__)

SKEW_S = 60.0  # clocks differ, and ends are rounded: SeaweedFS's sessions end up to a second before they are said to
AGAIN_AFTER_S = 10.0  # a failed early renewal is not repeated at every request
TIMEOUT_S = (5.0, 30.0)  # to connect, to answer
_OK, _UNAUTHORIZED = 200, 401
_SERVER_ERROR, _TOO_MANY, _TIMEOUT = 500, 429, 408


class VendedCredentials:
    """The credentials of one endpoint, shared by all that ask it; safe to share between threads."""

    def __init__(self, vending: Vending, clock: Callable[[], float] = time.time) -> None:
        """Begin with what was offered; nothing is asked yet."""
        self._vending = vending
        self._clock = clock
        self._lock = threading.Lock()
        self._vended = vending.offered
        self._not_before = 0.0

    def current(self) -> Vended:
        """Give credentials that have not expired; one thread renews early while the others go on.

        Raises:
            RequestFailedError: there are none yet or any more, and the catalog cannot be reached now.
            ConfigurationError: the same, and the catalog refuses.
        """
        vended, now = self._vended, self._clock()
        usable = vended is not None and (vended.expires_at is None or now < vended.expires_at)
        if usable and vended is not None and (vended.renew_at is None or now < max(vended.renew_at, self._not_before)):
            return vended
        if not self._lock.acquire(blocking=not usable):
            assert vended is not None  # noqa: S101  # usable
            return vended
        try:
            if self._vended is not vended and self._vended is not None:
                return self._vended
            return self._renewed(vended if usable else None)
        finally:
            self._lock.release()

    def may_have_ended(self, vended: Vended) -> bool:
        """Tell whether credentials have ended by this host's clock, or by one that is a minute ahead of it."""
        return vended.expires_at is not None and self._clock() >= vended.expires_at - SKEW_S

    def renew(self, refused: Vended) -> None:
        """Replace credentials that S3 refused, unless another thread has done so.

        Raises:
            RequestFailedError: the catalog cannot be reached now.
            ConfigurationError: the catalog refuses.
        """
        with self._lock:
            if self._vended is refused or self._vended is None:
                self._renewed(None)

    def _renewed(self, otherwise: Vended | None) -> Vended:
        """Ask the catalog; what is still good serves if it does not answer."""
        try:
            self._vended = self._trusted(self._read(self._answer()))
        except LakehouseError as error:
            if otherwise is None:
                raise
            logger.warning("vended credentials are not renewed yet: %s", error)
        else:
            logger.info("vended credentials renewed from %s", self._vending.url)
            return self._vended
        self._not_before = self._clock() + AGAIN_AFTER_S
        return otherwise

    def _read(self, answer: requests.Response) -> Vended:
        try:
            return Vended.read(_config_of(answer.json()), self._clock())
        except ConfigurationError:
            raise
        except (KeyError, ValueError, TypeError) as error:
            url = self._vending.url
            raise RequestFailedError(f"{url}: its answer vends no credentials", code=type(error).__name__) from None

    def _trusted(self, vended: Vended) -> Vended:
        """Take new credentials that have expired by this host's clock until S3 refuses them: the clock may be wrong."""
        if vended.expires_at is None or vended.expires_at > self._clock():
            return vended
        return Vended(vended.access_key_id, vended.secret_access_key, vended.session_token, None, None)

    def _answer(self) -> requests.Response:
        authority, url = self._vending.authority, self._vending.url
        try:
            answer = _asked(url, authority)
            if answer.status_code == _UNAUTHORIZED and authority.renew():
                answer = _asked(url, authority)
        except (requests.RequestException, RESTError) as error:
            raise RequestFailedError(f"{url}: {type(error).__name__}", code=type(error).__name__) from None
        status = answer.status_code
        if status == _OK:
            return answer
        if status >= _SERVER_ERROR or status in (_TOO_MANY, _TIMEOUT):
            raise RequestFailedError(f"{url}: {status}", code=str(status), throttled=status == _TOO_MANY)
        raise ConfigurationError(
            f"{url}: the catalog answered {status} and renews no credentials; its token has to be valid for longer "
            "than an hour's write takes, and a Spark task can only use a bearer token"
        )


def _asked(url: str, authority: Authority) -> requests.Response:
    header = authority.header()
    headers = {"X-Iceberg-Access-Delegation": "vended-credentials", **({"Authorization": header} if header else {})}
    verify, certificate = authority.verify or True, authority.certificate
    # Redirects are not followed: the token is this server's.
    return requests.get(url, headers=headers, timeout=TIMEOUT_S, verify=verify, cert=certificate, allow_redirects=False)


def _config_of(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give S3's part of an answer.

    Raises:
        KeyError: it has none.
        ConfigurationError: it has several, and nobody here knows which one is for what.
    """
    found = [each for each in answer["storage-credentials"] if each["prefix"].startswith("s3")]
    if len(found) > 1:
        prefixes = ", ".join(each["prefix"] for each in found)
        raise ConfigurationError(f"the catalog vends several credentials for a table ({prefixes}); one is supported")
    config: Mapping[str, Any] = next(iter(found))["config"] if found else answer["config"]
    return config

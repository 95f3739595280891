"""Vended credentials are renewed before they expire and when S3 calls them expired; secrets stay in the driver."""

import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.rest.auth import AuthManager, BasicAuthManager

from lakehouse_pipeline.errors import ConfigurationError, TransientError
from lakehouse_pipeline.object_store.client import s3_access
from lakehouse_pipeline.object_store.counts import RequestCounter
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.properties import PropertyReading
from lakehouse_pipeline.object_store.renewal import VendedCredentials
from lakehouse_pipeline.object_store.requests import Condition, S3Requests
from lakehouse_pipeline.object_store.settings import read_settings
from lakehouse_pipeline.object_store.vending import (
    Authority,
    Vended,
    Vending,
    full_url,
    read_vending,
)
from tests.object_store.scripted_s3 import STORED, URL, Asked, Scripted, ScriptedS3, body, error
from tests.object_store.vendor import Vendor

NOW = 1_000_000.0
JWT = "e30.eyJleHAiOjEwMDAxMDB9."  # {"exp": 1000100}: a hundred seconds after NOW
EXPIRED = error(400, "ExpiredToken")


class Bearer(AuthManager):
    """An AuthManager that keeps its token until it is told to renew it, as PyIceberg's LegacyOAuth2AuthManager does."""

    def __init__(self) -> None:
        """Begin with BEARER0; the secret is what no task may get."""
        self.secret = "cLiEnTsEcReT"  # noqa: S105  # a test's
        self.tokens = 0
        self.prefix = "BEARER"

    def auth_header(self) -> str:
        """Give the present token."""
        return f"Bearer {self.prefix}{self.tokens}"

    def _refresh_token(self) -> None:
        self.tokens += 1


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    """Run a credentials endpoint."""
    running = Vendor()
    yield running
    running.stop()


def offered(life_s: float | None) -> Vended:
    """Give KEY0 with so many seconds to live at NOW."""
    expires = {} if life_s is None else {"s3.session-token-expires-at-ms": str(int((NOW + life_s) * 1000))}
    return Vended.read({"s3.access-key-id": "KEY0", "s3.secret-access-key": "SECRET0", **expires}, NOW)


def credentials(vendor: Vendor, life_s: float | None, at: float = 0.0, manager: Any = None) -> VendedCredentials:
    """Give credentials that were offered at NOW, `at` seconds later; what is vended never expires by that clock."""
    authority = Authority(manager=manager, token=None if manager else "BEARER")
    return VendedCredentials(Vending(vendor.url, authority, offered(life_s)), clock=lambda: NOW + at)


def signed_with(asked: Asked) -> str:
    """Give the key that a request was signed with."""
    return asked.headers["authorization"].partition("Credential=")[2].partition("/")[0]


@pytest.mark.parametrize(
    ("life_s", "at", "key"),
    [
        pytest.param(3600, 0, "KEY0", id="fresh"),
        pytest.param(3600, 3299, "KEY0", id="before-the-last-five-minutes"),
        pytest.param(3600, 3301, "KEY1", id="in-the-last-five-minutes"),
        pytest.param(10, 7.9, "KEY0", id="short-before-its-last-fifth"),
        pytest.param(10, 8.1, "KEY1", id="short-in-its-last-fifth"),
        pytest.param(10, 11, "KEY1", id="expired"),
        pytest.param(-10, 0, "KEY1", id="expired-from-the-start"),
        pytest.param(None, 1e9, "KEY0", id="no-end-named"),
    ],
)
def test_credentials_are_renewed_before_they_expire(vendor: Vendor, life_s: float | None, at: float, key: str) -> None:
    """Five minutes before, as Iceberg's Java does; shorter lives in their last fifth."""
    assert credentials(vendor, life_s, at).current().access_key_id == key
    assert vendor.authorizations == (["Bearer BEARER"] if key == "KEY1" else [])


@pytest.mark.parametrize("status", [500, 403, 0], ids=["down", "refused", "no-json"])
def test_a_failed_early_renewal_waits(vendor: Vendor, status: int) -> None:
    """What is still good goes on being used, and the catalog is not asked at every request."""
    vendor.statuses = [status] * 9
    source = credentials(vendor, 3600, 3400)
    assert [source.current().access_key_id for _ in range(5)] == ["KEY0"] * 5
    assert len(vendor.authorizations) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        pytest.param(503, TransientError, id="down"),
        pytest.param(429, TransientError, id="throttled"),
        pytest.param(0, TransientError, id="a-proxys-page"),
        pytest.param(401, ConfigurationError, id="token-expired"),
        pytest.param(403, ConfigurationError, id="refused"),
        pytest.param(307, ConfigurationError, id="sent-elsewhere"),
    ],
)
def test_without_good_ones_the_failure_is_said(vendor: Vendor, status: int, kind: type[Exception]) -> None:
    """What may pass is for the retries of S3's requests, a refusal for a human; the token is not shown."""
    vendor.statuses = [status]
    with pytest.raises(kind, match="credentials") as caught:
        credentials(vendor, 10, 11).current()
    assert "BEARER" not in str(caught.value)


def test_a_catalog_that_is_away_is_waited_for(vendor: Vendor) -> None:
    """No answer at all is a failure that may pass."""
    source = credentials(vendor, 10, 11)
    vendor.stop()
    with pytest.raises(TransientError):
        source.current()


def test_a_refused_token_is_renewed_in_the_driver(vendor: Vendor) -> None:
    """PyIceberg keeps a token until it is refused; then a new one is bought, once."""
    vendor.statuses = [401]
    assert credentials(vendor, 10, 11, Bearer()).current().access_key_id == "KEY1"
    assert vendor.authorizations == ["Bearer BEARER0", "Bearer BEARER1"]


def test_a_wrong_clock_does_not_ask_at_every_request(vendor: Vendor) -> None:
    """New credentials that have expired by this host's clock are used until S3 refuses them."""
    vendor.life_s = -1e9
    source = credentials(vendor, 10, 11)
    assert [source.current().access_key_id for _ in range(5)] == ["KEY1"] * 5
    source.renew(source.current())
    assert source.current().access_key_id == "KEY2"


def test_many_threads_make_one_renewal(vendor: Vendor) -> None:
    """Whoever comes late to a renewal, early, due or asked for, takes what it gave."""
    barrier = threading.Barrier(16)

    def together(call: Any) -> set[str]:
        def run(_: int) -> str:
            barrier.wait()
            found: str = call()
            return found

        with ThreadPoolExecutor(16) as pool:
            return set(pool.map(run, range(16)))

    source = credentials(vendor, 10, 11)
    assert together(lambda: source.current().access_key_id) == {"KEY1"}
    refused = source.current()

    def renewed() -> str:
        source.renew(refused)
        return source.current().access_key_id

    assert together(renewed) == {"KEY2"}
    assert vendor.vended == 2


@pytest.mark.parametrize(
    ("prefixes", "key"),
    [
        pytest.param(("gs://lake", "s3://lake"), "KEY1", id="of-several-stores"),
        pytest.param((), "KEY1", id="in-config"),
        pytest.param(("s3://lake/data", "s3://lake/metadata"), None, id="several"),
    ],
)
def test_one_s3_credential_is_taken(vendor: Vendor, prefixes: tuple[str, ...], key: str | None) -> None:
    """S3's one is found; several are refused, as nobody says which is for what."""
    vendor.prefixes = prefixes
    source = credentials(vendor, 10, 11)
    if key is None:
        with pytest.raises(ConfigurationError, match="s3://lake/data, s3://lake/metadata"):
            source.current()
    else:
        assert source.current().access_key_id == key


@pytest.mark.parametrize(
    ("catalog", "endpoint", "url"),
    [
        pytest.param("https://c/api/", "/v1/x", "https://c/api/v1/x", id="relative"),
        pytest.param("https://c/api", "https://c/v1/x", "https://c/v1/x", id="absolute"),
        pytest.param(None, "https://c/v1/x", "https://c/v1/x", id="in-a-task"),
        pytest.param("https://c", "https://evil/v1/x", None, id="another-host"),
        pytest.param("https://c", "http://c/v1/x", None, id="another-scheme"),
        pytest.param("https://c", "https://c:8443/v1/x", None, id="another-port"),
        pytest.param(None, "v1/x", None, id="relative-to-nothing"),
    ],
)
def test_the_token_goes_to_the_catalog_only(catalog: str | None, endpoint: str, url: str | None) -> None:
    """A table's properties can name an endpoint, too: another server's is refused before anything is sent."""
    if url is None:
        with pytest.raises(ConfigurationError, match=r"client\.refresh-credentials-endpoint"):
            full_url(catalog, endpoint)
    else:
        assert full_url(catalog, endpoint) == url


@pytest.mark.parametrize(
    "properties",
    [
        pytest.param({}, id="nothing-vended"),
        pytest.param({"s3.session-token-expires-at-ms": "1"}, id="no-endpoint"),
        pytest.param(
            {"client.refresh-credentials-endpoint": "https://c/x", "client.refresh-credentials-enabled": "false"},
            id="switched-off",
        ),
    ],
)
def test_nothing_is_renewed_without_an_endpoint(properties: dict[str, str]) -> None:
    """Then the properties' own keys are used as they are."""
    assert read_vending(PropertyReading(properties)) is None
    keys = {"s3.access-key-id": "K", "s3.secret-access-key": "S"}
    assert read_settings(keys | properties).connection.access_key_id == "K"


def test_tables_of_one_endpoint_share_credentials(vendor: Vendor) -> None:
    """A table that is loaded again comes with other keys, and is the same connection."""
    first, again = vendor.properties(10), {**vendor.properties(20), "s3.access-key-id": "OTHER"}
    manager = Bearer()
    one, two = (read_settings({**each, "auth.manager": manager}).connection for each in (first, again))
    assert one == two
    assert replace(one, vending=None) == replace(two, vending=None)
    assert read_settings({**first, "auth.manager": Bearer()}).connection != one


def renewing(s3: ScriptedS3, vendor: Vendor, life_s: float | None = 3600.0, **more: Any) -> LakehouseFileIO:
    """Give a FileIO on the scripted S3 whose credentials are vended."""
    manager = {"auth.manager": Bearer()}
    return LakehouseFileIO({**s3.file_io().properties, **vendor.properties(life_s), **manager, **more})


def test_an_expired_session_costs_one_request(s3: ScriptedS3, vendor: Vendor) -> None:
    """S3 says ExpiredToken: new credentials are asked for, and the body is sent again from its start."""
    s3.script = [EXPIRED, STORED, STORED]
    file_io = renewing(s3, vendor)
    file_io.put(URL, b"body")
    file_io.put(URL, b"more")
    assert [signed_with(asked) for asked in s3.asked] == ["KEY0", "KEY1", "KEY1"]
    assert [asked.headers["x-amz-security-token"] for asked in s3.asked] == ["TOKEN0", "TOKEN1", "TOKEN1"]
    assert [asked.body for asked in s3.asked] == [b"body", b"body", b"more"]
    assert (file_io.counts().requests, file_io.counts().retries) == (3, 0)


def test_a_file_is_sent_again_from_its_start(s3: ScriptedS3, vendor: Vendor, tmp_path: Path) -> None:
    """A body that was read to its end by the refused request is whole in the next."""
    s3.script = [EXPIRED, STORED]
    (tmp_path / "body").write_bytes(b"0123456789")
    with (tmp_path / "body").open("rb") as stream:
        renewing(s3, vendor).put(URL, stream)
    assert [asked.body for asked in s3.asked] == [b"0123456789"] * 2


@pytest.mark.parametrize(
    ("read", "answers"),
    [
        pytest.param(LakehouseFileIO.get, [EXPIRED], id="aws"),
        pytest.param(LakehouseFileIO.get, [error(403, "InvalidAccessKeyId")], id="seaweedfs"),
        pytest.param(LakehouseFileIO.get, [error(403, "InvalidToken")], id="token"),
        pytest.param(LakehouseFileIO.head, [error(403)], id="head-403"),
        pytest.param(
            LakehouseFileIO.head, [error(400)] * 2, id="head-400"
        ),  # boto3 looks for the bucket's region first
    ],
)
def test_stores_say_expired_in_several_ways(
    s3: ScriptedS3, vendor: Vendor, read: Callable[[LakehouseFileIO, str], object], answers: list[Scripted]
) -> None:
    """AWS names the token, others the key, and the answer to a HEAD says nothing but its status."""
    s3.script = [*answers, body(b"b")]
    assert read(renewing(s3, vendor), URL) is not None
    assert [signed_with(asked) for asked in s3.asked] == ["KEY0"] * len(answers) + ["KEY1"]


def test_a_session_that_stays_expired_is_said(s3: ScriptedS3, vendor: Vendor) -> None:
    """A second refusal is final: the credentials are named, and not shown."""
    s3.script = [EXPIRED, EXPIRED, STORED]
    with pytest.raises(ConfigurationError, match="check the credentials: their session has ended") as caught:
        renewing(s3, vendor).put(URL, b"body")
    assert (len(s3.asked), vendor.vended) == (2, 1)
    assert [secret for secret in ("SECRET", "TOKEN1", "BEARER") if secret in str(caught.value)] == []


def test_denied_is_not_expired(s3: ScriptedS3, vendor: Vendor) -> None:
    """Missing rights are no reason to ask for other credentials."""
    s3.script = [error(403, "AccessDenied"), STORED]
    with pytest.raises(ConfigurationError, match="their rights"):
        renewing(s3, vendor).put(URL, b"body")
    assert (len(s3.asked), vendor.vended) == (1, 0)


class EndsMeanwhile:
    """An access whose first credentials have, or have not, ended when their answer is there."""

    def __init__(self, s3: ScriptedS3, *, ended: bool) -> None:
        """Sign with the scripted server's own keys."""
        self._access = s3_access(read_settings(s3.file_io().properties).connection)
        self._ended = ended
        self.renewed: list[object] = []

    def client(self) -> Any:
        """Give the client."""
        return self._access.client()

    def mark(self) -> object:
        """Name the credentials by their number."""
        return len(self.renewed)

    def may_have_ended(self, mark: object) -> bool:
        """Tell it of the first."""
        return self._ended and mark == 0

    def renew(self, refused: object) -> bool:
        """Note who was refused."""
        self.renewed.append(refused)
        return True


@pytest.mark.parametrize("ended", [True, False])
def test_denied_after_the_end_is_expired(s3: ScriptedS3, *, ended: bool) -> None:
    """A session may end between two looks at one request: SeaweedFS then says that rights are missing."""
    s3.script = [error(403, "AccessDenied"), STORED]
    access = EndsMeanwhile(s3, ended=ended)
    requests = S3Requests(lambda: access, RequestCounter())
    if ended:
        requests.put(URL, b"body", 4, "nonce", Condition())
    else:
        with pytest.raises(ConfigurationError, match="their rights"):
            requests.put(URL, b"body", 4, "nonce", Condition())
    assert access.renewed == ([0] if ended else [])


@pytest.mark.parametrize(("at", "ended"), [(39.9, False), (40.0, True), (101.0, True)])
def test_the_end_is_told_by_the_clock(vendor: Vendor, at: float, *, ended: bool) -> None:
    """Not by the clock of this host alone: the store's may be ahead of it."""
    assert credentials(vendor, 100, at).may_have_ended(offered(100)) is ended


def test_a_catalog_that_restarts_costs_retries(s3: ScriptedS3, vendor: Vendor) -> None:
    """No credentials for the moment is like an S3 that is away for the moment: the request is tried again."""
    s3.script, vendor.statuses = [STORED], [503, 503]
    file_io = renewing(s3, vendor, life_s=-1)
    file_io.put(URL, b"body")
    assert [signed_with(asked) for asked in s3.asked] == ["KEY1"]
    assert file_io.counts().retries == 2


def test_a_task_gets_what_renews_and_no_secret(s3: ScriptedS3, vendor: Vendor) -> None:
    """Pickled: the newest credentials, the endpoint, a new bearer token; nothing that buys more of these."""
    s3.script = [EXPIRED, STORED, EXPIRED, STORED]
    catalogs: dict[str, Any] = {
        "credential": "me:cLiEnTsEcReT",
        "token": "oLd",
        "uri": vendor.uri,
        "other.secret": "oThEr",
    }
    file_io = renewing(s3, vendor, **catalogs)
    file_io.put(URL, b"driver")
    sent = pickle.dumps(file_io)
    assert [secret for secret in (b"cLiEnTsEcReT", b"oThEr", b"oLd", b"KEY0") if secret in sent] == []
    in_task = pickle.loads(sent)  # noqa: S301  # our own
    in_task.put(URL, b"task")
    assert [signed_with(asked) for asked in s3.asked] == ["KEY0", "KEY1", "KEY1", "KEY2"]
    assert vendor.authorizations == ["Bearer BEARER0", "Bearer BEARER1"]
    again = pickle.loads(pickle.dumps(in_task)).properties  # noqa: S301  # our own
    assert (again["token"], again["s3.access-key-id"]) == ("BEARER1", "KEY2")
    assert [text for text in ("BEARER", "KEY", "SECRET", "TOKEN1") if text in repr(in_task)] == []


def test_a_password_is_no_token(vendor: Vendor) -> None:
    """Basic authorization is the catalog's secret: tasks have to do with the credentials that they get."""
    properties = {**vendor.properties(3600), "auth.manager": BasicAuthManager("me", "pAsSwOrD")}
    in_task = pickle.loads(pickle.dumps(LakehouseFileIO(properties)))  # noqa: S301  # our own
    assert "token" not in in_task.properties
    assert in_task.properties["s3.access-key-id"] == "KEY0"


def test_other_stores_take_nothing_of_the_catalog() -> None:
    """Without vending a pickled FileIO has the store's properties only."""
    properties = {"s3.region": "r", "uri": "postgresql://me:pAsS@db", "credential": "c", "token": "t"}
    assert pickle.loads(pickle.dumps(LakehouseFileIO(properties))).properties == {"s3.region": "r"}  # noqa: S301


def test_a_profile_that_was_written_anew_is_read_anew(
    s3: ScriptedS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials of boto3's chain that S3 calls expired are looked up again, once."""
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    text = "[team]\naws_access_key_id = {0}\naws_secret_access_key = s\naws_session_token = t\n"
    own = {"s3.access-key-id", "s3.secret-access-key", "s3.session-token"}
    properties = {name: value for name, value in s3.file_io().properties.items() if name not in own}
    file_io = LakehouseFileIO({**properties, "s3.profile-name": "team"})
    file.write_text(text.format("FIRST"))
    s3.script = [STORED]
    file_io.put(URL, b"1")
    file.write_text(text.format("SECOND"))
    s3.script = [EXPIRED, STORED]
    file_io.put(URL, b"2")
    assert [signed_with(asked) for asked in s3.asked] == ["FIRST", "FIRST", "SECOND"]


@pytest.mark.parametrize(
    ("prefix", "ages", "bought"),
    [
        pytest.param("BEARER", [0, 59, 60, 61, 119, 120], [1, 1, 2, 2, 2, 3], id="a-minute"),
        pytest.param(JWT, [0, 19, 20], [1, 1, 2], id="a-fifth-of-a-short-life"),
        pytest.param("a.b.c", [0, 59, 60], [1, 1, 2], id="no-jwt"),
        pytest.param("BEARER", [0, -1], [1, 2], id="clock-set-back"),
    ],
)
def test_jobs_that_are_sent_together_share_a_token(prefix: str, ages: list[float], bought: list[int]) -> None:
    """A token that was bought just before is as good as a new one, unless its life is short."""
    manager = Bearer()
    manager.prefix = prefix
    tokens = [Authority(manager).portable_token(lambda age=age: NOW + age) for age in ages]  # type: ignore[misc]
    assert tokens == [f"{prefix}{number}" for number in bought]


def test_each_authority_has_its_own_token() -> None:
    """A token that one principal bought says nothing of another's."""
    first, second = Bearer(), Bearer()
    assert [Authority(each).portable_token(lambda: NOW) for each in (first, second)] == ["BEARER1", "BEARER1"]

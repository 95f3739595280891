"""A client's connection through the fault server: bytes pass as they are, and each fault does what it says."""

import asyncio
import http.client
import json
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import pytest

from lakehouse_pipeline.testing.asked import Dialect
from lakehouse_pipeline.testing.faults import FaultServer
from lakehouse_pipeline.testing.schedule import Effect, Fault
from tests.testing.echo import SECRET, Echo

MIB = 1024 * 1024
WITHIN_S = 60.0
Said = tuple[int, bytes]


@contextmanager
def connected(server: FaultServer, timeout_s: float = 10) -> Iterator[http.client.HTTPConnection]:
    """Give a connection that is kept alive."""
    address = urllib.parse.urlsplit(server.endpoint).netloc
    with closing(http.client.HTTPConnection(address, timeout=timeout_s)) as connection:
        yield connection


def ask(server: FaultServer, method: str, path: str, body: bytes = b"", **options: Any) -> Said:
    """Make one request on a connection of its own."""
    with connected(server, **options) as connection:
        connection.request(method, path, body or None)
        answer = connection.getresponse()
        return answer.status, answer.read()


def put(server: FaultServer, body: bytes = b"body", **options: Any) -> Said:
    """Put an object."""
    return ask(server, "PUT", "/raw/a", body, **options)


def say(server: FaultServer, *pieces: bytes, until: bytes) -> bytes:
    """Write raw bytes, and read until the answer holds some."""
    parts = urllib.parse.urlsplit(server.endpoint)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as raw:
        for piece in pieces:
            raw.sendall(piece)
            time.sleep(0.01)
        heard = b""
        while until not in heard:
            more = raw.recv(MIB)
            if not more:
                break
            heard += more
        return heard


def until(happened: Callable[[], object]) -> None:
    """Wait for what happens behind the client's back."""
    end = time.monotonic() + WITHIN_S
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def beside(call: Callable[[], Said]) -> Iterator["Future[Said]"]:
    """Call in another thread."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(call)


# ---------------------------------------------------------------------------------------------------------------------
# What passes
# ---------------------------------------------------------------------------------------------------------------------


def test_a_request_arrives_as_it_was_sent(server: FaultServer, echo: Echo) -> None:
    """Target, order and case of headers, their values and the body are the client's own: SigV4 signs them."""
    head = (
        b"PUT /raw/a%2fb%20c//d?x=%2F&y HTTP/1.1\r\nHost: raw.example:99\r\n"
        b"X-Amz-META-odd: two  spaces\r\nauthorization: AWS4 x\r\nContent-Length: 4\r\n\r\n"
    )
    say(server, head, b"bo", b"dy", until=b"stored")
    (heard,) = echo.heard
    assert heard.line == "PUT /raw/a%2fb%20c//d?x=%2F&y HTTP/1.1"
    assert heard.headers == (
        ("Host", "raw.example:99"),
        ("X-Amz-META-odd", "two  spaces"),
        ("authorization", "AWS4 x"),
        ("Content-Length", "4"),
    )
    assert heard.body == b"body"


def test_an_answer_arrives_as_it_was_sent(server: FaultServer) -> None:
    """Status, headers in their case, and body."""
    heard = say(server, b"GET /bytes/5 HTTP/1.1\r\nHost: h\r\n\r\n", until=b"xxxxx")
    assert heard.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nX-Odd-CASE: kept  as it is\r\n" in heard


def test_a_chunked_body_passes(server: FaultServer, echo: Echo) -> None:
    """What is in the chunks arrives, aws-chunked framing included."""
    framed = b"4;chunk-signature=ab\r\nbody\r\n0;chunk-signature=cd\r\n\r\n"
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(framed), framed)
    say(server, b"PUT /raw/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", chunk, until=b"stored")
    assert echo.bodies == [framed]


def test_a_client_that_waits_is_told_to_go_on(server: FaultServer, echo: Echo) -> None:
    """`Expect: 100-continue` is answered once, before the body, which then arrives."""
    head = b"PUT /raw/a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    assert say(server, head, until=b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert say(server, head, b"body", until=b"stored").count(b"100 Continue") == 1
    assert echo.bodies[-1] == b"body"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("HEAD", "/bytes/7", 200), ("GET", "/status/204", 204), ("GET", "/status/304", 304), ("GET", "/bytes/0", 200)],
)
def test_an_answer_without_body_leaves_the_connection_in_step(
    server: FaultServer, method: str, path: str, status: int
) -> None:
    """The next answer on it is the next request's."""
    with connected(server) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (status, b"")
        connection.request("GET", "/bytes/3")
        assert connection.getresponse().read() == b"xxx"


def test_a_chunked_answer_passes(server: FaultServer) -> None:
    """An answer of unstated length."""
    assert ask(server, "GET", "/chunked/9") == (200, b"x" * 9)


def test_many_requests_share_a_connection(server: FaultServer, echo: Echo) -> None:
    """Keep-alive, with bodies of all sizes."""
    sizes = (0, 1, 65_535, 65_537, MIB, 3)
    with connected(server) as connection:
        for size in sizes:
            connection.request("PUT", "/raw/a", b"b" * size)
            assert connection.getresponse().read() == b"stored"
    assert [len(body) for body in echo.bodies] == list(sizes)


def test_an_upstream_that_answers_before_it_has_read_is_heard(server: FaultServer, echo: Echo) -> None:
    """A refusal that comes before the body's end reaches the client, whose rest is thrown away."""
    echo.eats = False
    assert ask(server, "PUT", "/status/403", b"b" * 8 * MIB) == (403, b"stored")


def test_a_lost_upstream_is_a_reset() -> None:
    """The client sees what a dead server looks like, and the log says that nothing answered."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with FaultServer(f"http://127.0.0.1:{port}") as server:
        with pytest.raises(ConnectionResetError):
            put(server)
        (exchange,) = server.exchanges
    assert (exchange.upstream_status, exchange.status) == (None, None)
    assert str(exchange.error).startswith("no connection to the upstream: ")


def test_a_client_that_breaks_off_leaves_no_request_behind(server: FaultServer, echo: Echo) -> None:
    """Half a body is no body: the upstream is broken off too, and the log says why nothing was answered."""
    say(server, b"PUT /raw/a HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nhalf", until=b"")
    until(lambda: server.exchanges)
    (said,) = server.exchanges
    assert (said.bytes_in, said.upstream_status, said.status) == (4, None, None)
    assert said.error
    assert echo.bodies == []


# ---------------------------------------------------------------------------------------------------------------------
# Faults
# ---------------------------------------------------------------------------------------------------------------------

LANDED = pytest.mark.parametrize("landed", [False, True], ids=["not-landed", "landed"])


@LANDED
@pytest.mark.parametrize(
    ("effect", "status", "code"),
    [
        (Effect.SLOW_DOWN, 503, "SlowDown"),
        (Effect.INTERNAL_ERROR, 500, "InternalError"),
        (Effect.REFUSED, 412, "PreconditionFailed"),
        (Effect.CONFLICT, 409, "ConditionalRequestConflict"),
        (Effect.ERROR_IN_200, 200, "InternalError"),
    ],
)
def test_an_error_is_said_and_the_next_request_passes(
    server: FaultServer, echo: Echo, *, effect: Effect, status: int, code: str, landed: bool
) -> None:
    """S3's status and XML; the request has arrived if the fault says landed; the connection stays in step."""
    server.add(Fault(effect=effect, landed=landed))
    with connected(server) as connection:
        for expected in (status, 200):
            connection.request("PUT", "/raw/a", b"b" * 100_000)
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == expected
            assert (f"<Error><Code>{code}</Code>".encode() in content) is (len(echo.bodies) < 1 + landed)
    assert [(said.fault, said.upstream_status, said.status) for said in server.exchanges] == [
        (effect.value, 200 if landed else None, status),
        (None, 200, 200),
    ]


def test_an_error_to_a_head_has_no_body(server: FaultServer) -> None:
    """As HTTP wants it: botocore then knows the status only."""
    server.add(Fault(effect=Effect.SLOW_DOWN))
    heard = say(server, b"HEAD /raw/a HTTP/1.1\r\nHost: h\r\n\r\n", until=b"never")
    assert heard.startswith(b"HTTP/1.1 503 ")
    assert heard.endswith(b"\r\n\r\n")


def test_an_error_to_a_client_that_waits_comes_without_its_body(server: FaultServer, echo: Echo) -> None:
    """503 in place of `100 Continue`, and the connection is closed."""
    server.add(Fault(effect=Effect.SLOW_DOWN))
    head = b"PUT /raw/a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    heard = say(server, head, until=b"</Error>")
    assert heard.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"Connection: close" in heard
    assert echo.bodies == []


def test_an_error_may_have_a_status_and_code_of_its_own(server: FaultServer) -> None:
    """Whatever S3 can say."""
    server.add(Fault(effect=Effect.REFUSED, status=400, code="ExpiredToken"))
    status, content = put(server)
    assert (status, b"<Code>ExpiredToken</Code>" in content) == (400, True)


def test_a_catalogs_error_is_json(echo: Echo) -> None:
    """As Iceberg's REST specification has it."""
    conflict = Fault(effect=Effect.CONFLICT, verb="updateTable", landed=True)
    with FaultServer(echo.url, faults=[conflict], dialect=Dialect.ICEBERG) as server:
        status, content = ask(server, "POST", "/v1/namespaces/lake/tables/events", b"{}")
    assert (status, json.loads(content)["error"]["type"], echo.bodies) == (409, "CommitFailedException", [b"{}"])


@LANDED
def test_a_reset_is_a_reset(server: FaultServer, echo: Echo, *, landed: bool) -> None:
    """Before the request is forwarded, or after it had its effect."""
    server.add(Fault(effect=Effect.RESET, landed=landed))
    with pytest.raises(ConnectionResetError):
        put(server)
    assert echo.bodies == [b"body"] * landed


@LANDED
def test_silence_lasts_until_the_client_gives_up(server: FaultServer, echo: Echo, *, landed: bool) -> None:
    """No answer ever comes, whether the request has landed or not."""
    server.add(Fault(effect=Effect.SILENCE, landed=landed))
    with pytest.raises(TimeoutError):
        put(server, timeout_s=0.2)
    until(lambda: server.exchanges)
    assert echo.bodies == [b"body"] * landed


@LANDED
def test_a_slow_request_is_late(
    server: FaultServer, echo: Echo, monkeypatch: pytest.MonkeyPatch, *, landed: bool
) -> None:
    """By its delay: before the upstream hears of it, or before the client hears of the answer."""
    server.add(Fault(effect=Effect.SLOW, delay_s=0.3, landed=landed))
    waits, sleep = list[tuple[float, int]](), asyncio.sleep

    async def late(delay_s: float) -> None:
        waits.append((delay_s, len(echo.heard)))
        await sleep(delay_s)

    monkeypatch.setattr(asyncio, "sleep", late)
    assert put(server) == (200, b"stored")
    assert waits == [(0.3, landed)]
    assert server.exchanges[0].seconds >= 0.3


@LANDED
def test_a_held_request_waits_for_its_release(server: FaultServer, echo: Echo, *, landed: bool) -> None:
    """Before it is forwarded, or after it has landed; the answer comes once it is released."""
    held = server.add(Fault(effect=Effect.HOLD, landed=landed))
    with beside(lambda: put(server)) as answer:
        held.wait_held()
        assert (echo.bodies, answer.done()) == ([b"body"] * landed, False)
        held.release()
        assert answer.result() == (200, b"stored")
    assert (echo.bodies, held.held) == ([b"body"], 0)


def test_a_held_request_lands_after_its_client_has_gone(server: FaultServer, echo: Echo) -> None:
    """A zombie's late put."""
    held = server.add(Fault(effect=Effect.HOLD))
    with pytest.raises(TimeoutError):
        put(server, timeout_s=0.1)
    held.wait_held()
    held.release()
    until(lambda: echo.bodies)
    assert echo.bodies == [b"body"]


def test_a_removed_fault_still_holds_what_it_holds(server: FaultServer, echo: Echo) -> None:
    """Only its release lets go."""
    held = server.add(Fault(effect=Effect.HOLD, times=None))
    with beside(lambda: put(server)) as answer:
        held.wait_held()
        held.remove()
        assert put(server) == (200, b"stored")
        assert not answer.done()
        held.release()
        assert answer.result() == (200, b"stored")
    assert len(echo.bodies) == 2


def test_an_answer_is_cut_in_the_middle(server: FaultServer) -> None:
    """Half of its bytes come, then a reset."""
    server.add(Fault(effect=Effect.CUT))
    with connected(server) as connection:
        connection.request("GET", "/bytes/1000")
        answer = connection.getresponse()
        assert answer.read(500) == b"x" * 500
        with pytest.raises(ConnectionResetError):
            answer.read(1)
    assert server.exchanges[0].bytes_out == 500


def flipped(one: bytes, other: bytes) -> int:
    """Count the bits that differ."""
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


@pytest.mark.parametrize("size", [1, 1_000, 3 * MIB])
def test_one_bit_of_a_request_flips(server: FaultServer, echo: Echo, size: int) -> None:
    """Length and all other bits stay."""
    server.add(Fault(effect=Effect.FLIP_REQUEST))
    sent = b"b" * size
    put(server, sent)
    assert len(echo.bodies[0]) == size
    assert flipped(sent, echo.bodies[0]) == 1


@pytest.mark.parametrize("path", ["/bytes/1000", "/chunked/1000"])
def test_one_bit_of_an_answer_flips(server: FaultServer, path: str) -> None:
    """Whether its length is stated or not."""
    server.add(Fault(effect=Effect.FLIP_ANSWER))
    assert flipped(ask(server, "GET", path)[1], b"x" * 1_000) == 1


def test_the_same_seed_flips_the_same_bit(echo: Echo) -> None:
    """A failure that was found can be found again."""
    said = set()
    for _ in range(2):
        with FaultServer(echo.url, faults=[Fault(effect=Effect.FLIP_ANSWER)], seed=3) as server:
            said.add(ask(server, "GET", "/bytes/1000"))
    assert len(said) == 1


# ---------------------------------------------------------------------------------------------------------------------
# The log
# ---------------------------------------------------------------------------------------------------------------------


def test_an_exchange_says_what_happened(server: FaultServer) -> None:
    """Method, path, verb, sizes and both statuses."""
    put(server, b"four")
    (said,) = server.exchanges
    assert (said.method, said.path, said.verb, said.bytes_in, said.bytes_out) == ("PUT", "/raw/a", "PutObject", 4, 6)
    assert (said.fault, said.upstream_status, said.status) == (None, 200, 200)


def test_no_secret_is_in_the_log(server: FaultServer) -> None:
    """Neither a header's value nor a presigned URL's signature."""
    with connected(server) as connection:
        headers = {"Authorization": SECRET, "x-amz-security-token": SECRET, "Cookie": SECRET}
        connection.request("GET", f"/raw/a?X-Amz-Signature={SECRET}&partNumber=1", headers=headers)
        connection.getresponse().read()
    (said,) = server.exchanges
    assert SECRET not in said.line()
    assert re.search(r"X-Amz-Signature=.*partNumber=1", said.path)


def test_what_was_answered_is_in_the_log(server: FaultServer) -> None:
    """Of a client that has its answer, the exchange is there at once, however often one looks."""

    def every() -> None:
        for _ in range(50):
            put(server)

    threads = [threading.Thread(target=every) for _ in range(4)]
    for thread in threads:
        thread.start()
    for count in range(1, 51):
        ask(server, "GET", "/raw/mine")
        assert sum(said.path == "/raw/mine" for said in server.exchanges) == count
    for thread in threads:
        thread.join()
    assert len(server.exchanges) == 250

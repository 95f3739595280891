"""The fault server as a whole: its life, many connections, large bodies, and the command."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.planning.s3_scaling import Scaling
from lakehouse_pipeline.testing.faults import FaultServer
from lakehouse_pipeline.testing.schedule import Effect, Fault
from tests.testing.echo import Echo

MIB = 1024 * 1024
REQUEST = b"PUT /raw/a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"


def open_socket(server: FaultServer) -> socket.socket:
    """Connect."""
    parts = urllib.parse.urlsplit(server.endpoint)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10)


def put(endpoint: str, body: bytes = b"body", key: str = "a") -> int:
    """Put an object, and give the status."""
    request = urllib.request.Request(f"{endpoint}/raw/{key}", body, method="PUT")  # noqa: S310  # our own URL
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # our own URL
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@contextmanager
def command(*arguments: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run the command, and give its process and the endpoint that it says."""
    running = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "lakehouse_pipeline.testing.faults", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout
    with running.stdout:
        yield running, running.stdout.readline().partition(" ")[0]
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 0


def test_stop_is_prompt_and_leaves_nothing(echo: Echo) -> None:
    """With idle, silent and held connections open: the thread ends, clients see the end, nothing held lands."""
    before = threading.active_count()
    faults = [Fault(effect=Effect.HOLD), Fault(effect=Effect.SILENCE), Fault(effect=Effect.SLOW, delay_s=60)]
    server = FaultServer(echo.url, faults=faults)
    with ExitStack() as sockets:
        with server:
            opened = [sockets.enter_context(closing(open_socket(server))) for _ in range(50)]
            for each in opened[:3]:
                each.sendall(REQUEST)
            while len(server.exchanges) < 1:  # the silent one's
                time.sleep(0.01)
            began = time.monotonic()
        assert time.monotonic() - began < 2
        assert threading.active_count() == before
        for each in opened:
            with suppress(ConnectionResetError):
                assert each.recv(1) == b""
    assert echo.bodies == []
    server.stop()


def test_hundreds_of_connections_are_served(server: FaultServer) -> None:
    """400 clients that stay connected make five requests each, and none waits for another."""

    def talk(each: socket.socket) -> int:
        answers = 0
        for _ in range(5):
            each.sendall(REQUEST)
            heard = b""
            while not heard.endswith(b"stored"):
                heard += each.recv(65_536)
            answers += heard.startswith(b"HTTP/1.1 200")
        return answers

    with ExitStack() as sockets, ThreadPoolExecutor(20) as pool:
        opened = [sockets.enter_context(closing(open_socket(server))) for _ in range(400)]
        assert sum(pool.map(talk, opened)) == 2_000
    assert len(server.exchanges) == 2_000


def test_small_requests_are_no_bottleneck(server: FaultServer) -> None:
    """A thousand exchanges, one after the other, take less than two seconds of a core, client and upstream included."""
    with closing(open_socket(server)) as client:
        began = time.process_time()
        for _ in range(1_000):
            client.sendall(REQUEST)
            while not client.recv(65_536).endswith(b"stored"):
                pass
        assert time.process_time() - began < 2


def test_large_bodies_stream(echo: Echo) -> None:
    """A hundred megabytes through the server's own process leave its memory as it was."""
    with command("--upstream", echo.url) as (running, endpoint):
        put(endpoint, b"b" * MIB)
        before = peak_memory(running.pid)
        assert put(endpoint, b"b" * (100 * MIB)) == 200
        assert peak_memory(running.pid) - before < 16 * MIB
    assert len(echo.bodies[-1]) == 100 * MIB


def peak_memory(pid: int) -> int:
    """Give the most bytes that a process has held."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


def test_clear_forgets_and_releases(server: FaultServer) -> None:
    """Between two tests that share a server."""
    held = server.add(Fault(effect=Effect.HOLD, times=None))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(put, server.endpoint)
        held.wait_held()
        server.clear()
        assert answer.result() == 200
    assert put(server.endpoint) == 200
    assert len(server.exchanges) == 2
    server.clear()
    assert len(server.exchanges) == 0


def taken(server: FaultServer, seconds: float) -> int:
    """Put to two halves of the keys as fast as four clients can, and count what was taken."""
    end = time.monotonic() + seconds

    def ask_on(number: int) -> list[int]:
        said = list[int]()
        while time.monotonic() < end:
            said.append(put(server.endpoint, key=f"data/{len(said) % 2}/{number}"))
            time.sleep(0.01)
        return said

    with ThreadPoolExecutor(4) as pool:
        said = [status for part in pool.map(ask_on, range(4)) for status in part]
    assert set(said) <= {200, 503}
    return said.count(200)


def test_ten_a_second_are_ten_a_second(echo: Echo) -> None:
    """The burst, and then 10/s; the rest is 503, and never forwarded."""
    with FaultServer(echo.url, scaling=Scaling(write_rate=10, detect_s=None)) as server:
        said = taken(server, 3)
        throttled = [one for one in server.exchanges if one.fault == "throttle"]
    assert len(echo.heard) == said == pytest.approx(10 + 3 * 10, abs=6)
    assert {(one.status, one.upstream_status) for one in throttled} == {(503, None)}


def test_a_range_that_splits_takes_twice_as_much(echo: Echo) -> None:
    """After sustained heat half of the keys have a range of their own."""
    scaling = Scaling(write_rate=20, burst_s=0.1, heat_window_s=0.5, detect_s=2, split_s=0.5)
    with FaultServer(echo.url, scaling=scaling) as server:
        before = taken(server, 1.5)
        while len(server.ranges("raw")) == 1:
            taken(server, 0.1)
        after = taken(server, 1.5)
    assert before == pytest.approx(30, abs=8)
    assert after == pytest.approx(60, abs=16)


def test_a_port_that_is_taken_is_said(server: FaultServer, echo: Echo) -> None:
    """By name, and without a thread left behind."""
    before = threading.active_count()
    port = urllib.parse.urlsplit(server.endpoint).port
    with pytest.raises(ConfigurationError, match=f":{port}: "):
        FaultServer(echo.url, port=port or 0).start()
    assert threading.active_count() == before


@pytest.mark.parametrize("url", ["127.0.0.1:8333", "ftp://h", "http://h/path", "http://"])
def test_an_upstream_is_a_url_without_path(url: str) -> None:
    """Anything else is refused at once."""
    with pytest.raises(ConfigurationError, match="upstream"):
        FaultServer(url)


def test_the_command_throttles_injects_and_logs(echo: Echo, tmp_path: Path) -> None:
    """A reset first, then S3's limit; each exchange is a line of JSON."""
    log = tmp_path / "log.jsonl"
    (tmp_path / "faults.yaml").write_text("[{effect: conflict, verb: PutObject}]")
    options = ["--write-rate", "3", "--fault", "internal-error landed=true", "--faults", str(tmp_path / "faults.yaml")]
    with command("--upstream", echo.url, "--log", str(log), *options) as (_, endpoint):
        said = [put(endpoint) for _ in range(6)]
    assert said[:2] == [409, 500]
    assert said[2:].count(503) >= 2
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["status"] for line in lines] == said
    assert [line["fault"] for line in lines][:3] == ["conflict", "internal-error", None]


def test_a_wrong_command_says_why(echo: Echo) -> None:
    """One line, and an exit code."""
    arguments = [
        sys.executable,
        "-m",
        "lakehouse_pipeline.testing.faults",
        "--upstream",
        echo.url,
        "--fault",
        "explode",
    ]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "'explode' is none of slow-down," in ended.stderr

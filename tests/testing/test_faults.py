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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import FrameType

import pytest

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.planning.s3_scaling import Scaling
from lakehouse_pipeline.testing.faults import FaultServer
from lakehouse_pipeline.testing.schedule import Effect, Fault
from tests.testing.echo import Echo

MIB = 1024 * 1024
FAR = 1e9  # seconds: longer than anything that a test does
REQUEST = b"PUT /raw/a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"


def open_socket(server: FaultServer) -> socket.socket:
    """Connect."""
    parts = urllib.parse.urlsplit(server.endpoint)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10)


def put(endpoint: str, body: bytes = b"body", key: str = "a") -> int:
    """Put an object, and give the status."""
    return ask(urllib.request.Request(f"{endpoint}/raw/{key}", body, method="PUT"))  # noqa: S310  # our own URL


def ask(request: urllib.request.Request | str) -> int:
    """Make a request, and give the status."""
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
        assert running.wait(60) == 0


@pytest.mark.timeout(60)
def test_stop_is_prompt_and_leaves_nothing(echo: Echo) -> None:
    """Idle, silent, slow and held connections are not waited for: clients see the end, and nothing held lands."""
    before = threading.active_count()
    faults = [Fault(effect=Effect.HOLD), Fault(effect=Effect.SILENCE), Fault(effect=Effect.SLOW, delay_s=FAR)]
    server = FaultServer(echo.url, faults=faults)
    with ExitStack() as sockets:
        with server:
            opened = [sockets.enter_context(closing(open_socket(server))) for _ in range(50)]
            for each in opened[:3]:
                each.sendall(REQUEST)
            while len(server.exchanges) < 1:  # the silent one's
                time.sleep(0.01)
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


@contextmanager
def counted_calls(thread: str) -> Iterator[Callable[[], int]]:
    """Count the calls that threads of that name make which start in the block."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        if threading.current_thread().name != thread:
            sys.setprofile(None)
        elif event == "call":
            calls += 1

    threading.setprofile(count)
    try:
        yield lambda: calls
    finally:
        threading.setprofile(None)


def test_small_requests_are_no_bottleneck(echo: Echo) -> None:
    """A thousand exchanges share a connection; each takes some hundreds of calls, the last as many as the first."""
    after = list[int]()
    with (
        counted_calls("fault-server") as calls,
        FaultServer(echo.url) as server,
        closing(open_socket(server)) as client,
    ):
        for _ in range(1_000):
            client.sendall(REQUEST)
            while not client.recv(65_536).endswith(b"stored"):
                pass
            after.append(calls())
    assert len({heard.client for heard in echo.heard}) == 1
    each = (after[-1] - after[0]) / 999
    assert 100 < each < 1_000  # 650 with Python 3.11
    assert after[-1] - after[-101] < 1.1 * (after[100] - after[0])


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


class Clock:
    """Shows the time that it is set to."""

    now = 0.0

    def __call__(self) -> float:
        """Tell it."""
        return self.now


def taken(server: FaultServer, many: int, clock: Clock, now: float) -> int:
    """Put so often, all at one time, to two halves of the keys from four clients, and count what was taken."""
    clock.now = now
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda number: put(server.endpoint, key=f"data/{number % 2}/{number}"), range(many)))
    assert set(said) <= {200, 503}
    return said.count(200)


def test_ten_a_second_are_ten_a_second(echo: Echo) -> None:
    """The burst, and then 10/s by its clock; the rest is 503, and never forwarded."""
    clock = Clock()
    with FaultServer(echo.url, scaling=Scaling(write_rate=10, detect_s=None), clock=clock) as server:
        said = [taken(server, 15, clock, at) for at in (0, 0.5, 1, 1.5)]
        throttled = [one for one in server.exchanges if one.fault == "throttle"]
    assert said == [10, 5, 5, 5]
    assert (len(echo.heard), len(throttled)) == (25, 35)
    assert {(one.status, one.upstream_status) for one in throttled} == {(503, None)}


def test_a_range_that_splits_takes_twice_as_much(echo: Echo) -> None:
    """After sustained heat half of the keys have a range of their own."""
    scaling = Scaling(write_rate=20, burst_s=0.1, heat_window_s=0.5, detect_s=2, split_s=0.5)
    clock = Clock()
    with FaultServer(echo.url, scaling=scaling, clock=clock) as server:
        looks = [(taken(server, 8, clock, tenth / 10), len(server.ranges("raw"))) for tenth in range(40)]
    assert sorted(set(looks)) == [(2, 1), (4, 2)]
    assert looks == sorted(looks)
    assert 25 <= looks.count((2, 1)) < 35  # detected in two seconds, split half a second later


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
    """A conflict and an error first, then S3's limit; each exchange is a line of JSON."""
    log = tmp_path / "log.jsonl"
    (tmp_path / "faults.yaml").write_text("[{effect: conflict, verb: PutObject}]")
    faults = ["--fault", "internal-error landed=true", "--faults", str(tmp_path / "faults.yaml")]
    with command("--upstream", echo.url, "--log", str(log), "--write-rate", "0.001", *faults) as (_, endpoint):
        said = [put(endpoint), *(ask(f"{endpoint}/raw/a") for _ in range(2)), put(endpoint)]
    assert said == [409, 500, 200, 503]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["status"] for line in lines] == said
    assert [line["fault"] for line in lines] == ["conflict", "internal-error", None, "throttle"]


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

"""An upstream in this process that keeps what it was asked, byte by byte, and answers what the path says."""

import contextlib
import http.server
import threading
import time
from dataclasses import dataclass
from typing import Any

SECRET = "s3cr3t"  # noqa: S105  # what no log may show
LINGER_S = 0.3  # before unread bytes make a close a reset: as Go's server does, and SeaweedFS with it


@dataclass(frozen=True)
class Heard:
    """A request as it arrived, and from where."""

    client: tuple[str, int]
    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1_024  # hundreds connect at once
    daemon_threads = True


class Echo:
    """`/bytes/N` answers N bytes, `/chunked/N` the same in chunks, `/status/N` that status, all else `stored`."""

    def __init__(self) -> None:
        """Listen on a free port."""
        self.heard: list[Heard] = []
        self.eats = True  # whether it reads the bodies
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def bodies(self) -> list[bytes]:
        """Give the bodies that arrived."""
        return [heard.body for heard in self.heard]

    def stop(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        echo = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each small answer is 40 ms late

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle()

            def body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                pieces = []
                while size := int(self.rfile.readline(), 16):
                    pieces.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(pieces)

            def serve(self) -> None:
                body = self.body() if echo.eats else b""
                self.close_connection |= not echo.eats
                echo.heard.append(Heard(self.client_address, self.requestline, tuple(self.headers.items()), body))
                status, framing, content = answer_to(self.path)
                self.send_response(status)
                self.send_header("X-Odd-CASE", "kept  as it is")
                for name, value in framing.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)
                if not echo.eats:
                    time.sleep(LINGER_S)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = serve  # noqa: N815  # http.server's names

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # http.server's signature
                """Say nothing."""

        return Handler


def answer_to(path: str) -> tuple[int, dict[str, str], bytes]:
    """Give status, headers and bytes of an answer."""
    kind, _, number = path.partition("?")[0].strip("/").partition("/")
    content = b"x" * int(number) if kind in ("bytes", "chunked") else b"stored"
    status = int(number) if kind == "status" else 200
    if status in (204, 304):
        return status, {}, b""
    if kind == "chunked":
        return status, {"Transfer-Encoding": "chunked"}, b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
    return status, {"Content-Length": str(len(content))}, content

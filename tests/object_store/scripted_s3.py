"""An S3 in this process that answers what a script says, and keeps what it was asked."""

import contextlib
import http.server
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

KEY_ID, SECRET, TOKEN = "AKIATESTKEYID", "sEcReTsEcReT", "tOkEnToKeN"  # of a server in this process
URL = "s3://bucket/folder/x"
MIB = 1024 * 1024


@dataclass(frozen=True)
class Asked:
    """A request as the scripted server saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def nonce(self) -> str:
        """Give the nonce that a put carries."""
        return self.headers["x-amz-meta-lakehouse-nonce"]


@dataclass(frozen=True)
class Answer:
    """What the scripted server says.

    Attributes:
        status: 0 resets the connection.
        body: of the answer; a HEAD's is not sent.
        headers: beside Content-Length, or in its place.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


Scripted = Answer | Callable[[list[Asked]], Answer]


class ScriptedS3:
    """Answers requests in the order of a script, whatever they ask."""

    def __init__(self, tls: Path | None = None) -> None:
        """Listen on a free port, with a certificate and its key in the file `tls`; the script is empty."""
        self.script: list[Scripted] = []
        self.asked: list[Asked] = []
        self._lock = threading.Lock()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            # The handshake is left to the request's own thread.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def methods(self) -> list[str]:
        """Give what was asked, in order."""
        return [asked.method for asked in self.asked]

    def file_io(self, **properties: str) -> LakehouseFileIO:
        """Give a FileIO with tiny waits; properties have underscores for dots and dashes."""
        return LakehouseFileIO(
            {
                "s3.endpoint": f"http://127.0.0.1:{self._server.server_port}",
                "s3.region": "us-east-1",
                "s3.access-key-id": KEY_ID,
                "s3.secret-access-key": SECRET,
                "s3.session-token": TOKEN,
                "s3.retry.min-wait-ms": "1",
                "s3.retry.max-wait-ms": "2",
                "s3.multipart.part-size-bytes": "5242880",
                "s3.multipart.threshold": "1",
                **properties,
            }
        )

    def stop(self) -> None:
        """End the server and its threads."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, asked: Asked) -> Answer:
        """Take the next answer of the script; past its end everything is refused for good."""
        with self._lock:
            self.asked.append(asked)
            told = self.script.pop(0) if self.script else Answer(418, b"<Error><Code>ScriptEnded</Code></Error>")
        return told if isinstance(told, Answer) else told(self.asked)

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        scripted = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

            def serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = scripted.answer(Asked(self.command, self.path, headers, body))
                self.close_connection = True
                if answer.status:
                    self.say(answer)
                else:
                    # An abortive close: the client sees a reset, not an end.
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()

            def say(self, answer: Answer) -> None:
                (self.send_response_only if "Date" in answer.headers else self.send_response)(answer.status)
                for name, value in ({"Content-Length": str(len(answer.body))} | answer.headers).items():
                    self.send_header(name, value)
                self.send_header("Connection", "close")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = serve  # noqa: N815  # http.server's names

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # http.server's signature
                """Say nothing."""

        return Handler


RESET = Answer(0)
STORED = Answer(headers={"ETag": '"e1"'})
LATE = {"Last-Modified": "Tue, 01 Jan 2013 10:00:00 GMT"}


def error(status: int, code: str = "", **headers: str) -> Answer:
    """Answer with S3's XML of an error, or with no body at all."""
    body = f"<Error><Code>{code}</Code><Message>said so</Message></Error>" if code else ""
    return Answer(status, body.encode(), headers)


def body(content: bytes) -> Answer:
    """Answer a GET."""
    return Answer(200, content, {"ETag": '"e1"', **LATE})


def described(nonce: str, size: int = 4) -> Answer:
    """Answer a HEAD with the nonce of whoever wrote the object."""
    return Answer(headers={"ETag": '"e1"', "Content-Length": str(size), "x-amz-meta-lakehouse-nonce": nonce, **LATE})


def own(asked: list[Asked]) -> Answer:
    """Answer a HEAD with nonce and size of the first put, or of the upload in parts."""
    nonce = next(request.nonce for request in asked if "x-amz-meta-lakehouse-nonce" in request.headers)
    bodies = {request.path: len(request.body) for request in asked if request.method == "PUT"}
    return described(nonce, sum(bodies.values()))

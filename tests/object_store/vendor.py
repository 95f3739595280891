"""A REST catalog's credentials endpoint in this process: it vends what a test scripts, and keeps who asked."""

import http.server
import json
import threading
import time
from collections.abc import Mapping
from typing import Any

PATH = "v1/lake/namespaces/lake/tables/events/credentials"


class Vendor:
    """Answers every GET with the credentials of its number: KEY1, KEY2 and so on.

    Attributes:
        life_s: seconds that credentials live; None names no end.
        statuses: answers to give first, in place of credentials; 0 is no JSON at all.
        authorizations: the header of each request so far.
        prefixes: of the credentials in an answer; none puts them into `config`, as a loaded table does.
    """

    def __init__(self) -> None:
        """Listen on a free port."""
        self.life_s: float | None = 3600.0
        self.statuses: list[int] = []
        self.authorizations: list[str | None] = []
        self.prefixes: tuple[str, ...] = ("s3://lake/events",)
        self.vended = 0
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def uri(self) -> str:
        """Give the catalog's address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        """Give the endpoint's."""
        return f"{self.uri}/{PATH}"

    def properties(self, life_s: float | None = None) -> dict[str, str]:
        """Give what a table is loaded with: KEY0, and how it is renewed."""
        expires = {} if life_s is None else {"s3.session-token-expires-at-ms": str(int((time.time() + life_s) * 1000))}
        return {**_keys(0), **expires, "uri": self.uri, "client.refresh-credentials-endpoint": PATH}

    def stop(self) -> None:
        """End the server and its threads."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, authorization: str | None) -> tuple[int, bytes]:
        """Vend the next credentials, or what `statuses` say."""
        self.authorizations.append(authorization)
        if self.statuses:
            status = self.statuses.pop(0)
            return status or 200, b"<html>" if status == 0 else b"{}"
        self.vended += 1
        config = self._config()
        each: list[Mapping[str, Any]] = [{"prefix": prefix, "config": config} for prefix in self.prefixes]
        return 200, json.dumps({"storage-credentials": each, **({} if each else {"config": config})}).encode()

    def _config(self) -> dict[str, str]:
        if self.life_s is None:
            return _keys(self.vended)
        return {**_keys(self.vended), "s3.session-token-expires-at-ms": str(int((time.time() + self.life_s) * 1000))}

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        vendor = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert self.path == f"/{PATH}"
                status, body = vendor.answer(self.headers.get("Authorization"))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # http.server's signature
                """Say nothing."""

        return Handler


def _keys(number: int) -> dict[str, str]:
    return {
        "s3.access-key-id": f"KEY{number}",
        "s3.secret-access-key": f"SECRET{number}",
        "s3.session-token": f"TOKEN{number}",
    }

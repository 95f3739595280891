"""SeaweedFS's REST catalog that vends credentials of three seconds, and a proxy before it that also renews them.

SeaweedFS 4.48 scopes each session to the table's prefix and ends it for real, but has no credentials endpoint yet: the
proxy makes one of what a table is loaded with, and names it in the table's configuration.
"""

import http.server
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from lakehouse_pipeline.demo.seaweed import HOST, SeaweedServer

LIFE_S = 3
ROLES = {"catalog": "arn:aws:iam::role/Catalog", "user": "arn:aws:iam::role/User"}
IAM = {
    "sts": {"tokenDuration": f"{LIFE_S}s", "maxSessionLength": "12h", "issuer": "tests", "signingKey": "a2V5" * 11},
    "policies": [
        {
            "name": "All",
            "document": {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Action": ["s3:*", "s3tables:*"], "Resource": ["*"]}],
            },
        }
    ],
    "roles": [
        {
            "roleName": arn.rpartition("/")[2],
            "roleArn": arn,
            "attachedPolicies": ["All"],
            "trustPolicy": {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"Federated": "iceberg-catalog"} if who == "catalog" else "*",
                        "Action": ["sts:AssumeRole" if who == "user" else "sts:AssumeRoleWithCredentials"],
                    }
                ],
            },
        }
        for who, arn in ROLES.items()
    ],
}


class VendingSeaweed(SeaweedServer):
    """SeaweedFS with roles: its STS lends one to users, its catalog the other to whoever loads a table."""

    def __init__(self, data_dir: Path) -> None:
        """Write the roles down; nothing is started."""
        super().__init__(data_dir, buckets=("raw",))
        self._iam = data_dir / "iam.json"
        data_dir.mkdir(parents=True, exist_ok=True)
        self._iam.write_text(json.dumps(IAM))

    def _arguments(self) -> list[str]:
        return [
            *super()._arguments(),
            f"-s3.iam.config={self._iam}",
            f"-s3.iceberg.credentialRole={ROLES['catalog']}",
            "-s3.iceberg.credentialDurationSeconds=0",  # the STS's own tokenDuration: the flag takes no less than 900
            f"-s3.externalUrl={self.endpoint}",  # without an address the catalog vends nothing
        ]


class VendingProxy:
    """The catalog with a credentials endpoint.

    Attributes:
        renewals: requests to the endpoint so far.
        names_endpoint: whether loaded tables say where it is.
        lent: secrets that the catalog has given for a table.
    """

    def __init__(self, seaweed: SeaweedServer) -> None:
        """Listen on a free port."""
        self.renewals = 0
        self.names_endpoint = True
        self.lent: set[str] = set()
        self._seaweed = seaweed
        self._server = http.server.ThreadingHTTPServer((HOST, 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def properties(self) -> dict[str, str]:
        """Give the catalog's properties: none of them is a key of S3's."""
        uri = f"http://{HOST}:{self._server.server_port}"
        return {
            "type": "rest",
            "uri": uri,
            "warehouse": f"s3://{self._seaweed.table_bucket}",
            "credential": f"{self._seaweed.access_key_id}:{self._seaweed.secret_access_key}",
            "oauth2-server-uri": f"{uri}/v1/oauth/tokens",
            "s3.retry.total-timeout-ms": "20000",  # a test that fails does not last
        }

    def stop(self) -> None:
        """End the proxy and its threads."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """Pass a request on, and say where a table's credentials are renewed."""
        wanted = path.removesuffix("/credentials")
        passed = {name: value for name, value in headers.items() if name.lower() not in {"host", "accept-encoding"}}
        said = requests.request(method, self._seaweed.catalog_uri + wanted, data=body, headers=passed, timeout=60)
        if not said.ok or not said.content:
            return said.status_code, said.content
        told: dict[str, Any] = said.json()
        for config in (told.get("config", {}), *(each["config"] for each in told.get("storage-credentials") or ())):
            self.lent |= {config[name] for name in ("s3.secret-access-key", "s3.session-token") if name in config}
        if wanted != path:
            self.renewals += 1
            return 200, json.dumps({"storage-credentials": told["storage-credentials"]}).encode()
        if "config" in told and "metadata" in told and self.names_endpoint:
            name = "" if method == "GET" else f"/{json.loads(body)['name']}"
            endpoint = f"{path.partition('?')[0].lstrip('/')}{name}/credentials"
            told["config"]["client.refresh-credentials-endpoint"] = endpoint
        return said.status_code, json.dumps(told).encode()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, answer = proxy.answer(self.command, self.path, dict(self.headers), body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer)

            do_GET = do_POST = do_HEAD = do_DELETE = serve  # noqa: N815  # http.server's names

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # http.server's signature
                """Say nothing."""

        return Handler

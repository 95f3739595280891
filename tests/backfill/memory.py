"""A store and a catalog in this process, with one clock and one kind of weather: requests get lost, late, or kill.

The store stands where boto3's client does, so that our own requests, retries and conditions run above it. Nothing
waits: a request that is in flight arrives when a test lets it.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from botocore.exceptions import ClientError, ConnectionClosedError
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.exceptions import CommitFailedException, ServerError
from pyiceberg.io import FileIO
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import TableRequirement, TableUpdate, update_table_metadata
from pyiceberg.typedef import Identifier

from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

PROPERTIES = {
    "s3.endpoint": "http://memory",
    "s3.access-key-id": "k",
    "s3.secret-access-key": "s",
    "s3.retry.num-retries": "2",
    "s3.retry.min-wait-ms": "0",
    "s3.retry.max-wait-ms": "0",
}

# What may become of a request. `late`: no answer, and it arrives some time; `false 409`: a commit that landed;
# `meanwhile`: it waits until somebody else has done something.
STRIKES = ("lost", "refused", "late", "false 409", "killed before", "killed after", "killed in flight", "meanwhile")


class KilledError(BaseException):
    """The process was killed at this request; so are all that follow, until `Weather.clear`."""


@dataclass
class Weather:
    """What becomes of the next requests.

    Attributes:
        now: the store's clock, seconds since 1970.
        puts: requests to the store that were sent and have not arrived.
        commits: the same of commits.
        sent: requests so far.
        meanwhile: what somebody else does before a request of a `meanwhile` strike.
    """

    now: float = 1.7e9
    puts: list[Callable[[], object]] = field(default_factory=list)
    commits: list[Callable[[], object]] = field(default_factory=list)
    sent: int = 0
    meanwhile: Callable[[], None] = lambda: None  # nothing
    _strikes: dict[int | None, str] = field(default_factory=dict)
    _killed: bool = False

    def strike(self, after: int | None, kind: str) -> None:
        """Let this become of the request after so many, or of the next commit."""
        self._strikes = {None if after is None else self.sent + after: kind}

    def clear(self) -> None:
        """Let all go well, and let a killed process be another one from now on."""
        self._strikes, self._killed = {}, False

    def send(
        self,
        request: Callable[[], Any],
        lost: Callable[[], Exception],
        refused: Callable[[], Exception],
        *,
        queue: list[Callable[[], object]] | None = None,
    ) -> Any:
        """Send a request, or do with it what was planned.

        Args:
            request: what happens when it arrives.
            lost: makes the error of an answer that never came.
            refused: makes the error of a store that does nothing now; of a commit that landed, for `false 409`.
            queue: where it waits while it is in flight; None for what changes nothing.
        """
        if self._killed:
            raise KilledError
        place = None if queue is self.commits and None in self._strikes else self.sent
        kind = self._strikes.pop(place, None)
        self.sent += 1
        if kind == "meanwhile":
            self.meanwhile()
        if kind in {None, "meanwhile"}:
            return request()
        assert kind is not None
        if kind in {"late", "killed in flight"}:
            (queue if queue is not None else []).append(request)
        if kind in {"lost", "killed after", "false 409"}:
            request()
        if kind.startswith("killed"):
            self._killed = True
            raise KilledError
        raise refused() if kind in {"refused", "false 409"} else lost()


@dataclass
class _Object:
    body: bytes
    etag: str
    modified: float
    metadata: Mapping[str, str]


class MemoryS3:
    """The methods of boto3's client that we use.

    Attributes:
        objects: by bucket and key with a slash between.
        written: told of every object as it arrives.
    """

    def __init__(self, weather: Weather) -> None:
        """Begin empty."""
        self.objects: dict[str, _Object] = {}
        self.written: Callable[[str, bytes], object] = lambda _name, _body: None
        self._weather = weather
        self._written = 0

    def put_object(self, *, Bucket: str, Key: str, Body: Any, Metadata: Mapping[str, str], **asked: Any) -> Any:  # noqa: N803  # boto3's names
        """Write an object under its condition."""
        name, body = f"{Bucket}/{Key}", Body if isinstance(Body, bytes) else Body.read()

        def arrive() -> Any:
            there = self.objects.get(name)
            if "IfNoneMatch" in asked and there:
                raise self._error(412, "PreconditionFailed")
            if "IfMatch" in asked and (there is None or f'"{there.etag}"' != asked["IfMatch"]):
                raise self._error(412, "PreconditionFailed")
            return self._answer(ETag=f'"{self._store(name, body, Metadata)}"')

        return self._send(arrive, queue=self._weather.puts)

    def get_object(self, *, Bucket: str, Key: str, **asked: Any) -> Any:  # noqa: N803
        """Read an object, or a range of it."""

        def arrive() -> Any:
            there = self._there(f"{Bucket}/{Key}", asked)
            body = there.body
            if "Range" in asked:
                first, last = asked["Range"].removeprefix("bytes=").split("-")
                body = body[int(first) : int(last) + 1]
            said = {"ContentRange": f"bytes x/{len(there.body)}"}
            return self._answer(Body=io.BytesIO(body), ContentLength=len(body), **self._info(there), **said)

        return self._send(arrive)

    def head_object(self, *, Bucket: str, Key: str, **asked: Any) -> Any:  # noqa: N803
        """Describe an object."""

        def arrive() -> Any:
            there = self._there(f"{Bucket}/{Key}", asked)
            return self._answer(ContentLength=len(there.body), Metadata=there.metadata, **self._info(there))

        return self._send(arrive)

    def list_objects_v2(self, *, Bucket: str, Prefix: str, Delimiter: str = "", **_asked: Any) -> Any:  # noqa: N803
        """List all objects below a prefix in one page, or what is right below it."""
        root = f"{Bucket}/"

        def arrive() -> Any:
            names = sorted(name.removeprefix(root) for name in self.objects if name.startswith(root + Prefix))
            below = {name: name.removeprefix(Prefix).partition(Delimiter or "\0") for name in names}
            found = {name: self.objects[root + name] for name in names if not below[name][1]}
            told = [{"Key": name, "Size": len(each.body), **self._info(each)} for name, each in found.items()]
            folders = sorted({f"{Prefix}{first}{slash}" for first, slash, _ in below.values() if slash})
            common = [{"Prefix": folder} for folder in folders]
            return self._answer(Contents=told, CommonPrefixes=common, IsTruncated=False)

        return self._send(arrive)

    def list_multipart_uploads(self, **_asked: Any) -> Any:
        """Tell that there are none: files here are one PUT."""
        return self._send(lambda: self._answer(Uploads=[], IsTruncated=False))

    def delete_object(self, *, Bucket: str, Key: str, **_asked: Any) -> Any:  # noqa: N803
        """Remove an object."""
        return self._send(
            lambda: self._answer(gone=self.objects.pop(f"{Bucket}/{Key}", None)), queue=self._weather.puts
        )

    def delete_objects(self, *, Bucket: str, Delete: Any, **_asked: Any) -> Any:  # noqa: N803
        """Remove objects."""

        def arrive() -> Any:
            for each in Delete["Objects"]:
                self.objects.pop(f"{Bucket}/{each['Key']}", None)
            return self._answer()

        return self._send(arrive, queue=self._weather.puts)

    def copy_object(self, *, Bucket: str, Key: str, CopySource: Any, Metadata: Mapping[str, str], **asked: Any) -> Any:  # noqa: N803
        """Write an object with the bytes of another."""
        name, source = f"{Bucket}/{Key}", f"{CopySource['Bucket']}/{CopySource['Key']}"

        def arrive() -> Any:
            there = self._there(source, {"IfMatch": asked["CopySourceIfMatch"]})
            if "IfNoneMatch" in asked and name in self.objects:
                raise self._error(412, "PreconditionFailed")
            return self._answer(CopyObjectResult={"ETag": f'"{self._store(name, there.body, Metadata)}"'})

        return self._send(arrive, queue=self._weather.puts)

    def get_bucket_versioning(self, **_asked: Any) -> Any:
        """Tell that no versions are kept."""
        return self._send(self._answer)

    def put_now(self, url: str, body: bytes, age_s: float = 0) -> None:
        """Write an object as somebody else does, who has weather of their own, or did so many seconds ago."""
        name = url.removeprefix("s3://")
        self._store(name, body, {})
        self.objects[name].modified -= age_s

    def _store(self, name: str, body: bytes, metadata: Mapping[str, str]) -> str:
        self._written += 1
        self.objects[name] = _Object(body, f"e{self._written}", self._weather.now, metadata)
        self.written(name, body)
        return f"e{self._written}"

    def at(self, url: str) -> _Object:
        """Give the object at a URL, as it is."""
        return self.objects[url.removeprefix("s3://")]

    def urls(self, prefix: str) -> set[str]:
        """Name the objects below a URL."""
        return {f"s3://{name}" for name in self.objects if f"s3://{name}".startswith(prefix)}

    def _send(self, arrive: Callable[[], Any], *, queue: list[Callable[[], object]] | None = None) -> Any:
        return self._weather.send(
            arrive,
            lambda: ConnectionClosedError(endpoint_url="http://memory"),
            lambda: self._error(503, "SlowDown"),
            queue=queue,
        )

    def _there(self, name: str, asked: Mapping[str, Any]) -> _Object:
        there = self.objects.get(name)
        if there is None:
            raise self._error(404, "NoSuchKey")
        if "IfMatch" in asked and f'"{there.etag}"' != asked["IfMatch"]:
            raise self._error(412, "PreconditionFailed")
        return there

    def _info(self, there: _Object) -> dict[str, Any]:
        return {"ETag": f'"{there.etag}"', "LastModified": datetime.fromtimestamp(there.modified, UTC)}

    def _answer(self, **said: Any) -> dict[str, Any]:
        date = format_datetime(datetime.fromtimestamp(self._weather.now, UTC))
        return {**said, "ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {"date": date}}}

    def _error(self, status: int, code: str) -> ClientError:
        told: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}}}
        return ClientError(told, "request")


@dataclass
class MemoryAccess:
    """What `object_store.client.S3Access` is, with the store in this process behind it."""

    s3: MemoryS3

    def client(self) -> MemoryS3:
        """Give the store."""
        return self.s3

    def mark(self) -> object:
        """Name the credentials: there are none."""
        return None

    def may_have_ended(self, _mark: object) -> bool:
        """Tell that they do not end."""
        return False

    def renew(self, _refused: object) -> bool:
        """Tell that there are no others."""
        return False


class MemoryCatalog(NoopCatalog):
    """One table, each version of whose metadata is a file in the store, too.

    Attributes:
        metadata: as it is.
        committed: told of the metadata as a commit arrives.
    """

    def __init__(self, weather: Weather, metadata: TableMetadata, s3: MemoryS3) -> None:
        """Begin with a table."""
        super().__init__("memory", **PROPERTIES)
        self._weather, self._s3, self._versions = weather, s3, 0
        self.committed: Callable[[TableMetadata], object] = lambda _metadata: None
        self._put(metadata)

    def _put(self, metadata: TableMetadata) -> None:
        """Write a version: the catalog's own request, which is no weather's."""
        self.metadata, self._versions = metadata, self._versions + 1
        self.metadata_url = f"{metadata.location}/metadata/{self._versions:05}.metadata.json"
        self._s3.put_now(self.metadata_url, metadata.model_dump_json().encode())

    def list_namespaces(self, namespace: str | Identifier = ()) -> list[Identifier]:
        """Name the table's."""
        return [] if namespace else [("lake",)]

    def list_tables(self, namespace: str | Identifier) -> list[Identifier]:  # noqa: ARG002
        """Name the table."""
        return [("lake", "events")]

    def load_table(self, identifier: str | Identifier) -> Table:
        """Give the table as it is."""
        name = tuple(identifier.split(".")) if isinstance(identifier, str) else identifier
        metadata, url = self._weather.send(lambda: (self.metadata, self.metadata_url), _lost, _unavailable)
        return Table(name, metadata, url, self._io(), self)

    def commit_table(
        self,
        table: Table,  # noqa: ARG002  # there is one
        requirements: tuple[TableRequirement, ...],
        updates: tuple[TableUpdate, ...],
    ) -> CommitTableResponse:
        """Commit under the requirements, whenever the request arrives."""

        def arrive() -> CommitTableResponse:
            for requirement in requirements:
                requirement.validate(self.metadata)
            self._put(update_table_metadata(self.metadata, updates, metadata_location=self.metadata_url))
            self.committed(self.metadata)
            return CommitTableResponse.model_construct(metadata=self.metadata, metadata_location=self.metadata_url)

        response: CommitTableResponse = self._weather.send(
            arrive, _lost, lambda: CommitFailedException("409"), queue=self._weather.commits
        )
        return response

    @staticmethod
    def _delete_old_metadata(io: FileIO, base: TableMetadata, metadata: TableMetadata) -> None:
        """Keep them, as catalogs do unless they are told otherwise."""

    def _io(self) -> FileIO:
        return LakehouseFileIO(PROPERTIES)


def _lost() -> Exception:
    return ServerError("502")


def _unavailable() -> Exception:
    return ServerError("503")

"""What a request asks for: method, path, query, names of headers, and what S3 or an Iceberg catalog calls it.

Values of headers never come here, so that nothing made of it can show a signature or a token.
"""

import html
import re
import urllib.parse
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

SHOWN = frozenset(
    {
        *("acl", "attributes", "continuation-token", "cors", "delete", "delimiter", "encoding-type", "fetch-owner"),
        *("key-marker", "lifecycle", "list-type", "location", "marker", "max-keys", "max-parts", "max-uploads"),
        *("partNumber", "policy", "prefix", "start-after", "tagging", "upload-id-marker", "uploadId", "uploads"),
        *("versionId", "versioning", "versions", "x-id"),
        *("pageSize", "pageToken", "parent", "purgeRequested", "snapshots", "warehouse"),
    }
)  # parameters of S3 and of an Iceberg catalog whose values are no secret; others may be a presigned URL's

_KEY = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)
_SUB_RESOURCES = {"acl": "Acl", "attributes": "Attributes", "cors": "Cors", "lifecycle": "Lifecycle",
    "location": "Location", "policy": "Policy", "tagging": "Tagging", "versioning": "Versioning"}  # fmt: skip
_TABLE = r"/namespaces/[^/]+/tables/[^/]+"
_CATALOG_VERBS = tuple(
    (re.compile(path + r"/?"), verbs)
    for path, verbs in (
        (r".*/config", {"GET": "getConfig"}),
        (r".*/oauth/tokens", {"POST": "getToken"}),
        (r".*/namespaces", {"GET": "listNamespaces", "POST": "createNamespace"}),
        (
            r".*/namespaces/[^/]+",
            {"GET": "loadNamespaceMetadata", "HEAD": "namespaceExists", "DELETE": "dropNamespace"},
        ),
        (r".*/namespaces/[^/]+/properties", {"POST": "updateProperties"}),
        (r".*/namespaces/[^/]+/tables", {"GET": "listTables", "POST": "createTable"}),
        (
            rf".*{_TABLE}",
            {"GET": "loadTable", "HEAD": "tableExists", "POST": "updateTable", "DELETE": "dropTable"},
        ),
        (rf".*{_TABLE}/credentials", {"GET": "loadCredentials"}),
        (r".*/tables/rename", {"POST": "renameTable"}),
        (r".*/transactions/commit", {"POST": "commitTransaction"}),
    )
)


class Dialect(StrEnum):
    """Whose requests these are: it decides what they are called, and how an error looks."""

    S3 = "s3"
    ICEBERG = "iceberg"


@dataclass(frozen=True)
class Asked:
    """One request.

    Attributes:
        method: of HTTP.
        target: path and query as they came, percent-encoded.
        headers: names, in lower case.
        dialect: whose request it is.
    """

    method: str
    target: str
    headers: frozenset[str] = frozenset()
    dialect: Dialect = Dialect.S3

    @cached_property
    def path(self) -> str:
        """Give the path without the query, decoded."""
        return urllib.parse.unquote(self.target.partition("?")[0])

    @cached_property
    def query(self) -> dict[str, str]:
        """Give the query's parameters, decoded; of several of one name the last."""
        return dict(urllib.parse.parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @property
    def bucket(self) -> str:
        """Give the bucket of a path-style request; empty at the service itself."""
        return self.path.removeprefix("/").partition("/")[0]

    @property
    def key(self) -> str:
        """Give the object's key; empty at a bucket."""
        return self.path.removeprefix("/").partition("/")[2]

    @property
    def shown(self) -> str:
        """Give path and query as a log may have them: unknown parameters keep their names only."""
        path, _, query = self.target.partition("?")
        if not query:
            return path
        parameters = (parameter.partition("=") for parameter in query.split("&"))
        return f"{path}?" + "&".join(
            f"{name}{equals}{value}" if name in SHOWN or not value else f"{name}=…"
            for name, equals, value in parameters
        )

    @cached_property
    def verb(self) -> str:
        """Give S3's name of the operation, or the operation's id in Iceberg's REST specification."""
        if self.dialect is Dialect.ICEBERG:
            found = (verbs for path, verbs in _CATALOG_VERBS if path.fullmatch(self.path))
            return next(found, {}).get(self.method, "unknown")
        if self.key:
            return self._object_verb()
        return self._bucket_verb() if self.bucket else "ListBuckets"

    def _object_verb(self) -> str:
        if sub_resource := self._sub_resource():
            return f"{self.method.capitalize()}Object{sub_resource}"
        copies = "x-amz-copy-source" in self.headers
        if "partNumber" in self.query and self.method == "PUT":
            return "UploadPartCopy" if copies else "UploadPart"
        if "uploadId" in self.query:
            return {
                "GET": "ListParts",
                "POST": "CompleteMultipartUpload",
                "DELETE": "AbortMultipartUpload",
            }.get(self.method, "unknown")
        if "uploads" in self.query and self.method == "POST":
            return "CreateMultipartUpload"
        return "CopyObject" if copies and self.method == "PUT" else f"{self.method.capitalize()}Object"

    def _bucket_verb(self) -> str:
        if sub_resource := self._sub_resource():
            return f"{self.method.capitalize()}Bucket{sub_resource}"
        if self.method == "POST":
            return "DeleteObjects" if "delete" in self.query else "PostObject"
        if self.method != "GET":
            return {"PUT": "CreateBucket"}.get(self.method, f"{self.method.capitalize()}Bucket")
        if "uploads" in self.query:
            return "ListMultipartUploads"
        if "versions" in self.query:
            return "ListObjectVersions"
        return "ListObjectsV2" if "list-type" in self.query else "ListObjects"

    def _sub_resource(self) -> str:
        return next((name for parameter, name in _SUB_RESOURCES.items() if parameter in self.query), "")


def keys_in(body: bytes) -> list[str]:
    """Give the keys that the body of a DeleteObjects names."""
    return [html.unescape(key.decode(errors="replace")) for key in _KEY.findall(body)]

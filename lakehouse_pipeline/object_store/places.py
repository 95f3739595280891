"""Where a URL points, so that two spellings of one object can be told to be one."""

from collections.abc import Mapping
from dataclasses import dataclass, field

S3_SPELLINGS: Mapping[str, str] = {"s3a": "s3", "s3n": "s3"}  # Hadoop's; Iceberg's `equal_schemes` has the same


@dataclass(frozen=True)
class Aliases:
    """Which schemes and authorities mean the same.

    Attributes:
        schemes: by another spelling, the one that is meant.
        authorities: the same for buckets and hosts.
    """

    schemes: Mapping[str, str] = field(default_factory=lambda: S3_SPELLINGS)
    authorities: Mapping[str, str] = field(default_factory=dict)

    def split(self, url: str) -> tuple[str, str]:
        """Split a URL into the store or bucket, in the one spelling of it, and the path there; nothing is decoded."""
        scheme, slashes, rest = url.partition("://")
        if not slashes:
            return "file://", url.removeprefix("file:")
        authority, _, path = rest.partition("/")
        return f"{self.schemes.get(scheme, scheme)}://{self.authorities.get(authority, authority)}", f"/{path}"

    def name(self, url: str) -> str:
        """Give the one spelling of a URL."""
        return "".join(self.split(url))

    def contains(self, folder: str, url: str) -> bool:
        """Tell whether a URL is a folder, or something in it: `events_v2` is not in `events`."""
        (folder_origin, folder_path), (origin, path) = self.split(folder), self.split(url)
        inside = f"{path.rstrip('/')}/".startswith(f"{folder_path.rstrip('/')}/")
        return folder_origin == origin and inside


SPELLINGS = Aliases()

"""Where a URL points, so that two spellings of one object can be told to be one."""

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

S3_SPELLINGS: Mapping[str, str] = {"s3a": "s3", "s3n": "s3"}  # Hadoop's; Iceberg's `equal_schemes` has the same

# Doubled slashes are a folder's one slash to disks and to SeaweedFS, to which a backslash is a slash, too. On AWS they
# are names of their own: there two files are taken for one, of which neither goes as long as one is reached.
_SLASHES = re.compile(r"[/\\]+")
_DOTS = frozenset({".", ".."})


def names_in(path: str) -> list[str]:
    """Split a path into the names of its folders and its file, as the store does that splits most."""
    return _SLASHES.split(path)


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
        """Give one spelling of a URL, for whatever some store takes for the same object."""
        return "".join(self.folded(url))

    def folded(self, url: str) -> tuple[str, str]:
        """Split a URL like `split`, with one slash for all that some store takes for one."""
        origin, path = self.split(url)
        return origin, _SLASHES.sub("/", path)

    def contains(self, folder: str, url: str) -> bool:
        """Tell whether a URL is a folder, or something in it, to every store.

        `events_v2` is not in `events`, nor is `events/../other`: what may be elsewhere is not told to be here.
        """
        (folder_origin, folder_path), (origin, path) = self.split(folder), self.split(url)
        root = f"{folder_path.rstrip('/')}/"
        inside = f"{path.rstrip('/')}/".startswith(root)
        return folder_origin == origin and inside and _DOTS.isdisjoint(names_in(path[len(root) :]))

    def one_contains(self, folders: Iterable[str], url: str) -> bool:
        """Tell whether a URL is in one of some folders; see `contains`."""
        return any(self.contains(folder, url) for folder in folders)

    def overlap(self, one: str, other: str) -> bool:
        """Tell whether one of two folders may be in the other, to any store: where `..` leads is where it leads."""
        (origin, path), (other_origin, other_path) = (self.folded(f"{url}/") for url in (one, other))
        ends = [f"{posixpath.normpath(each).rstrip('/')}/" for each in (path, other_path)]
        return origin == other_origin and (ends[0].startswith(ends[1]) or ends[1].startswith(ends[0]))


SPELLINGS = Aliases()

"""The raw objects of one hour: found by pattern, told apart from their successors by a fingerprint."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from lakehouse_pipeline.errors import ConfigurationError, DataError
from lakehouse_pipeline.sources.stores import Lists, ObjectInfo

_GLOB = re.compile(r"\[!?[^]/]+\]|[*?]")
_BUCKET = re.compile(r"[^/]*://[^/]*")
_HIDDEN = ("_", ".")  # markers, temporary files and checksums of the tools that land data


class FolderSourceError(ConfigurationError):
    """Where the object should be there is a folder of its name, as Spark writes one."""


@dataclass(frozen=True, order=True)
class SourceObject:
    """One raw object as it was listed.

    Attributes:
        url: where it is.
        size: its bytes.
        etag: what changes with its content.
    """

    url: str
    size: int
    etag: str


def list_objects_of(io: Lists, pattern: str) -> tuple[SourceObject, ...]:
    """Find the objects of a URL in which the hour is filled in, sorted by URL.

    `*`, `?` and `[...]` match within one segment of the path, and skip names that begin with `_` or `.`, and folder
    markers. Without globs the pattern is one object. Nothing found is an empty result; the store's errors pass.

    Raises:
        ConfigurationError: the pattern holds `**` or a glob in its bucket, or is a folder.
        FolderSourceError: it names files, and finds nothing but folders.
        DataError: a local file has a name that is no text.
    """
    _check(pattern)
    glob = _GLOB.search(pattern)
    try:
        if glob is None and (found := io.head(pattern)):
            return (_source(found),)
        # A missing bucket and a missing object are one answer to a HEAD: the listing tells them apart.
        return _matching(io.list_objects(pattern[: glob.start()] if glob else pattern), pattern)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{pattern}: there is no such bucket ({error}); is its name right?") from None


def fingerprint(objects: Iterable[SourceObject]) -> str:
    """Give the SHA-256 of the objects' URLs, sizes and ETags, in any order: 64 hex digits."""
    digest = hashlib.sha256()
    for source in sorted(objects):
        digest.update(f"{len(source.url)}:{source.url} {source.size} {len(source.etag)}:{source.etag}\n".encode())
    return digest.hexdigest()


def _check(pattern: str) -> None:
    bucket = _BUCKET.match(pattern)
    if "**" in pattern:
        raise ConfigurationError(f"{pattern}: `**` is not supported; write one `*` for each folder")
    if bucket and _GLOB.search(bucket[0]):
        raise ConfigurationError(f"{pattern}: globs belong to the path, not to the bucket")
    if pattern.endswith("/"):
        raise ConfigurationError(f"{pattern} is a folder; write {pattern}* for the objects in it")


def _matching(listed: Iterable[ObjectInfo], pattern: str) -> tuple[SourceObject, ...]:
    matches = re.compile(_expression(pattern), re.DOTALL)
    # A pattern that ends in a glob names folders as well as files, and passes over them.
    names_files = not pattern.endswith(("*", "?", "]"))
    below = re.compile(f"({_expression(pattern)})/.*[^/]", re.DOTALL) if names_files else None
    found: list[SourceObject] = []
    folder = None
    for info in listed:
        if matches.fullmatch(info.url) and not info.url.endswith("/"):
            found.append(_source(info))
        elif folder is None and below:
            folder = below.fullmatch(info.url)
    if folder and not found:
        raise FolderSourceError(f"{folder[1]} is a folder, no object; write {pattern}/* for the objects in it")
    return tuple(sorted(found))


def _source(info: ObjectInfo) -> SourceObject:
    try:
        info.url.encode()
    except UnicodeEncodeError:
        raise DataError(f"{info.url!a}: the name of this file is no UTF-8; rename it") from None
    return SourceObject(info.url, info.size, info.etag)


def _expression(pattern: str) -> str:
    return "/".join(_segment(segment) for segment in pattern.split("/"))


def _segment(glob: str) -> str:
    """Translate one segment; `fnmatch` would let `*` cross slashes."""
    if not _GLOB.search(glob):
        return re.escape(glob)
    hidden = "" if glob.startswith(_HIDDEN) else "(?![_.])"
    return hidden + "".join(_translated(part) for part in re.split(f"({_GLOB.pattern})", glob))


def _translated(part: str) -> str:
    if part == "*":
        return "[^/]*"
    if part == "?":
        return "[^/]"
    if _GLOB.fullmatch(part):
        negated = part.startswith("[!")
        characters = re.sub(r"([\\^\[&~|])", r"\\\1", part[2 if negated else 1 : -1])
        return f"(?!/)[{'^' if negated else ''}{characters}]"
    return re.escape(part)

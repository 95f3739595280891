"""The local store: S3's verbs on folders, for `file://` URLs and absolute paths.

Writes are atomic, and conditional ones hold between processes, through `flock` on the object's folder and link(2):
there are no lock files. What was written survives its process, not a power cut: nothing is synced to the disk.
"""

import contextlib
import errno
import fcntl
import io
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lakehouse_pipeline.errors import ConfigurationError, TransientError
from lakehouse_pipeline.object_store.checksums import check, crc64nvme
from lakehouse_pipeline.object_store.objects import (
    Content,
    ObjectInfo,
    ObjectRange,
    OpenUpload,
    PreconditionFailedError,
)
from lakehouse_pipeline.object_store.requests import Condition

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{32}\.tmp")
_NAME_KEPT = 40  # characters of an object's name in its temporary file's: names may have 255 bytes
READ_BUFFER_BYTES = 128 * 1024
COPY_BUFFER_BYTES = 1024 * 1024
_SCHEMES = ("file://", "file:")  # the second is Hadoop's
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # of the disk, of a user, of a process or a file system


class LocalStore:
    """Files as objects; safe to share between threads, and between processes of one host."""

    def head(self, url: str) -> ObjectInfo | None:
        """Describe a file, or None; a folder is none."""
        with _translated(url):
            return _described(url)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Go through all files whose path begins with `prefix`, in the order of S3 keys; links are followed."""
        path = _path(prefix)
        folder, _, start = path.rpartition("/")
        root = prefix.removesuffix(path)
        with _translated(prefix):
            for found in _walk(f"{folder}/", start):
                info = _described(root + found)
                if info:
                    yield info

    def list_level(self, folder: str) -> Iterator[ObjectInfo | str]:
        """Go through the files and folders right below a folder."""
        path = _path(folder)
        with _translated(folder):
            for name in _names(path, ""):
                if name.endswith("/"):
                    yield folder + name
                elif info := _described(folder + name):
                    yield info

    def keeps_versions(self, url: str) -> bool:  # noqa: ARG002  # of no file
        """Say no."""
        return False

    def get(self, url: str) -> Content:
        """Read a whole file."""
        with _translated(url), _OneVersion(url) as file:
            return Content(file.readall(), file.info, datetime.now(UTC))

    def open_read(self, url: str, *, etag: str | None, size: int | None) -> BinaryIO:
        """Open for seeking and reading; a file that is replaced later is read on as it was."""
        with _translated(url):
            file = _OneVersion(url)
        if etag not in (None, file.info.etag) or size not in (None, file.info.size):
            file.close()
            raise _changed(url)
        return io.BufferedReader(file, READ_BUFFER_BYTES)

    def put(self, url: str, body: bytes | BinaryIO, *, if_absent: bool, if_match: str | None) -> ObjectInfo:
        """Write a whole file: beside its place first, then moved there at once."""
        condition = Condition(if_absent, if_match)
        return _written(url, lambda file: _fill(file, body), condition)

    def region_of(self, url: str) -> str | None:  # noqa: ARG002  # a disk has none
        """Name none."""
        return None

    def is_md5(self, url: str) -> bool:  # noqa: ARG002  # of no file
        """Say no: a file's ETag tells when it was written."""
        return False

    def copy(self, source: str, url: str, *, if_absent: bool, etag: str | None, size: int | None) -> ObjectInfo:
        """Write a file with the bytes of another."""
        with _translated(source), _OneVersion(source) as body:
            if etag not in (None, body.info.etag) or size not in (None, body.info.size):
                raise _changed(source)
            return self.put(url, body, if_absent=if_absent, if_match=None)

    def compose(self, url: str, content: Sequence[bytes | ObjectRange], *, if_absent: bool) -> ObjectInfo:
        """Write a file with given bytes and the bytes of others."""

        def fill(file: BinaryIO) -> None:
            for source in content:
                if isinstance(source, bytes):
                    file.write(source)
                else:
                    _copy_range(source, file)

        return _written(url, fill, Condition(if_absent))

    def list_uploads(self, prefix: str) -> Iterator[OpenUpload]:  # noqa: ARG002  # files have none
        """Give nothing: a file is written at once."""
        return iter(())

    def abort_upload(self, url: str, upload: str) -> None:
        """Do nothing."""

    def delete(self, url: str) -> None:
        """Remove a file, or do nothing; its folder stays."""
        path = Path(_path(url))
        with (
            _translated(url),
            contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError),
            _locked(path.parent),
        ):
            path.unlink()

    def delete_objects(self, urls: list[str]) -> None:
        """Remove many."""
        for url in urls:
            self.delete(url)


def _path(url: str) -> str:
    path = next((url.removeprefix(scheme) for scheme in _SCHEMES if url.startswith(scheme)), url)
    if not path.startswith("/"):
        raise ConfigurationError(f"{url!r} is no absolute path; write /folder/file or file:///folder/file")
    if "\0" in path:
        raise ConfigurationError(f"{url!r} holds a zero byte, which no path can")
    return path


def _info(url: str, status: os.stat_result) -> ObjectInfo:
    etag = f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"
    return ObjectInfo(url, status.st_size, etag, datetime.fromtimestamp(status.st_mtime_ns / 1e9, UTC))


def _described(url: str) -> ObjectInfo | None:
    try:
        status = os.stat(_path(url))  # noqa: PTH116  # Path would swallow doubled slashes
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _info(url, status) if stat.S_ISREG(status.st_mode) else None


class _OneVersion(io.FileIO):
    """A file that must not be written to while it is read."""

    def __init__(self, url: str) -> None:
        try:
            super().__init__(_path(url), "rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise FileNotFoundError(errno.ENOENT, "no such object", url) from None
        self.info = _info(url, os.fstat(self.fileno()))

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        count = super().readinto(buffer)
        self._check()
        return count

    def readall(self) -> bytes:
        body = super().readall()
        self._check()
        return body

    def _check(self) -> None:
        if _info(self.info.url, os.fstat(self.fileno())) != self.info:
            raise _changed(self.info.url)


def _changed(url: str) -> TransientError:
    return TransientError(f"{url} is not the version that was asked for: it changed as it was read; list it again")


def _walk(folder: str, start: str) -> Iterator[str]:
    for name in _names(folder, start):
        if name.endswith("/"):
            yield from _walk(folder + name, "")
        else:
            yield folder + name


def _names(folder: str, start: str) -> list[str]:
    """Give the names in a folder that begin with `start`, folders with a slash behind: S3's keys sort like that."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                f"{entry.name}/" if entry.is_dir() else entry.name
                for entry in entries
                if entry.name.startswith(start) and not _TEMPORARY.fullmatch(entry.name)
            )
    except (FileNotFoundError, NotADirectoryError):
        return []


def _written(url: str, fill: Callable[[BinaryIO], None], condition: Condition) -> ObjectInfo:
    """Write a file, which `fill` fills, beside its place first."""
    path = Path(_path(url))
    with _translated(url), _folders_said(url), _temporary(path, fill) as temporary:
        return _link(temporary, path, url) if condition.if_absent else _replace(temporary, path, url, condition)


def _fill(file: BinaryIO, body: bytes | BinaryIO) -> None:
    if isinstance(body, bytes):
        file.write(body)
    else:
        body.seek(0)
        shutil.copyfileobj(body, file)


def _copy_range(source: ObjectRange, file: BinaryIO) -> None:
    """Append a range of another file, and hold its checksum, if one is known, against it."""
    crc, left, buffer = 0, len(source), memoryview(bytearray(min(COPY_BUFFER_BYTES, len(source))))
    with _translated(source.url), _OneVersion(source.url) as body:
        if body.info.etag != source.etag:
            raise _changed(source.url)
        body.seek(source.span.start)
        while left:
            found = buffer[: body.readinto(buffer[:left])]
            if not found:
                raise _changed(source.url)
            crc = crc64nvme(found, crc)
            file.write(found)
            left -= len(found)
    if source.crc64nvme is not None:
        check(source.url, source.span, found=crc, recorded=source.crc64nvme)


@contextlib.contextmanager
def _temporary(path: Path, fill: Callable[[BinaryIO], None]) -> Iterator[Path]:
    """Write a file beside `path`; whatever is left of it at the end is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:_NAME_KEPT]}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            fill(file)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _link(temporary: Path, path: Path, url: str) -> ObjectInfo:
    """Give the file its name, which nobody may have."""
    info = _stamped(temporary, url, time.time_ns())
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise PreconditionFailedError(f"{url} exists") from None
    return info


def _replace(temporary: Path, path: Path, url: str, condition: Condition) -> ObjectInfo:
    """Move the file to its name, in place of what is there if the condition holds."""
    with _locked(path.parent):
        there = _described(url)
        if condition.if_match not in (None, there.etag if there else ""):
            raise PreconditionFailedError(f"{url} is {there.etag if there else 'missing'}, not {condition.if_match}")
        earlier_ns = path.stat().st_mtime_ns if there else 0
        # Later than what it replaces, so that no ETag comes back: an inode may, and a clock may go backwards.
        info = _stamped(temporary, url, max(time.time_ns(), earlier_ns + 1))
        temporary.replace(path)
    return info


def _stamped(temporary: Path, url: str, modified_ns: int) -> ObjectInfo:
    os.utime(temporary, ns=(modified_ns, modified_ns))
    return _info(url, temporary.stat())


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other writers, threads or processes, out of a folder."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            raise ConfigurationError(f"{folder} cannot be locked ({error}); use a local disk or s3://") from error
        yield
        fcntl.flock(handle, fcntl.LOCK_UN)  # closing would not do where a child forked meanwhile
    finally:
        os.close(handle)


@contextlib.contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise ConfigurationError(f"{url}: {error}; check the rights of the file and its folder") from error
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise TransientError(f"{url} cannot be written: {error.strerror}; give the disk more room") from error


@contextlib.contextmanager
def _folders_said(url: str) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ConfigurationError(f"{url}: a file cannot stand below a file or in the place of a folder") from error

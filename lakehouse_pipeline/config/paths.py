"""Paths of raw files: templates of an hour, always absolute URLs.

`%Y %m %d %H` stand for the hour in UTC and `%%` for a percent sign, so every path goes through `render`, one without
an hour too. Globs pass through untouched. Nothing is listed or read here.
"""

import os.path
import re
from datetime import datetime, timedelta
from pathlib import Path

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.hours import HourWindow

HOUR_DIRECTIVES = ("%Y", "%m", "%d", "%H")

_DAY, _MONTH = 3, 2  # directives of a path that names days, or months
_LONGER_THAN_A_MONTH = timedelta(days=31)

_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)
_NO_FOLDER = re.compile(r"[%*?\[\]]")
_S3 = re.compile(r"s3://[A-Za-z0-9][A-Za-z0-9._-]*/.+", re.DOTALL)
_FILE = re.compile(r"file:///.+", re.DOTALL)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_COMPRESSIONS = (".gz", ".bz2", ".zst", ".lz4", ".br")
_FORMATS = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".orc": "orc",
}


def render(path: str, hour: HourWindow) -> str:
    """Fill an hour into a path; `%%` becomes `%`."""
    start = hour.start
    values = {
        "Y": f"{start.year:04}",
        "m": f"{start.month:02}",
        "d": f"{start.day:02}",
        "H": f"{start.hour:02}",
        "%": "%",
    }
    return _DIRECTIVE.sub(lambda match: values[match[1]], path)


def uses_hour(path: str) -> bool:
    """Say whether a path differs from hour to hour."""
    return bool(hour_directives(path))


def hour_directives(path: str) -> tuple[str, ...]:
    """Give those of `%Y %m %d %H` that a path holds, in that order."""
    found = {match[0] for match in _DIRECTIVE.finditer(path)}
    return tuple(directive for directive in HOUR_DIRECTIVES if directive in found)


def span(path: str, hour: HourWindow) -> tuple[datetime, datetime] | None:
    """Give the time that the files of an hour cover by their path, UTC and half-open; None without directives.

    `%Y %m %d %H` are the hour, `%Y %m %d` its day, `%Y %m` its month and `%Y` its year.
    """
    held = hour_directives(path)
    start = hour.start
    if held == HOUR_DIRECTIVES:
        return start, hour.end
    if len(held) == _DAY:
        day = start.replace(hour=0)
        return day, day + timedelta(days=1)
    if len(held) == _MONTH:
        month = start.replace(day=1, hour=0)
        return month, (month + _LONGER_THAN_A_MONTH).replace(day=1)
    if held:
        year = start.replace(month=1, day=1, hour=0)
        return year, year.replace(year=year.year + 1)
    return None


def literal(text: str) -> str:
    """Write text so that `render` gives it back as it is."""
    return text.replace("%", "%%")


def resolve(path: str, folder: Path | None) -> str:
    """Turn a path as it is written in a spec into an absolute URL.

    Args:
        path: `s3://bucket/…`, `file:///…`, or a local path.
        folder: what relative paths are relative to; without one they are refused.

    Raises:
        ConfigurationError: another scheme, a folder, or an unknown directive; never shows the path, which may hold
            a secret.
    """
    _check_directives(path)
    if not path or path.endswith("/"):
        raise ConfigurationError("names no file; write the files' names, such as …/*.parquet")
    if _S3.fullmatch(path):
        return path
    if _FILE.fullmatch(path):
        return file_url(path.removeprefix("file://"))
    if _SCHEME.match(path) or path.startswith("~"):
        raise ConfigurationError("is no path that is supported; write s3://bucket/…, file:///… or a local path")
    return file_url(os.path.join(literal(str(_base(path, folder))), path))  # noqa: PTH118  # a template, not a path


def resolve_folder(path: str, folder: Path | None) -> str:
    """Turn a folder as it is written in a spec into an absolute URL, without a slash at its end.

    Raises:
        ConfigurationError: as `resolve`; or it holds a time or a glob, or is a whole bucket.
    """
    if _NO_FOLDER.search(path):
        raise ConfigurationError("is no folder; write one without times and globs, such as s3://scratch/flights")
    return resolve(path.rstrip("/"), folder)


def file_url(path: str) -> str:
    """Write an absolute local path as a URL, without percent-encoding, which PyIceberg and pyarrow do not undo."""
    return "file:///" + os.path.normpath(path).lstrip("/")


def format_of(path: str) -> str | None:
    """Tell csv, jsonl, parquet or orc from a path's suffix, below that of a compression; None where it does not say."""
    name = path.lower()
    for compression in _COMPRESSIONS:
        name = name.removesuffix(compression)
    return next((form for suffix, form in _FORMATS.items() if name.endswith(suffix)), None)


def _base(path: str, folder: Path | None) -> Path:
    if folder is not None:
        return folder
    if path.startswith("/"):
        return Path("/")
    raise ConfigurationError("is relative, and there is no folder to start from; write an absolute path")


def _check_directives(path: str) -> None:
    for match in _DIRECTIVE.finditer(path):
        if match[1] != "%" and match[0] not in HOUR_DIRECTIVES:
            raise ConfigurationError("holds a % that begins none of %Y %m %d %H; write %% for a percent sign")

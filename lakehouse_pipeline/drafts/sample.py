"""The first rows of one raw file: its columns, and the times that are in them.

Read with the readers that will read all files, so that what they cannot read is said here already.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import pyarrow as pa

from lakehouse_pipeline.config.paths import format_of
from lakehouse_pipeline.drafts.inference import Guess, columns_of, instants, type_of_texts
from lakehouse_pipeline.errors import ConfigurationError, DataError
from lakehouse_pipeline.iceberg.schemas import types_of
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources.bad_rows import ignore
from lakehouse_pipeline.sources.lines import Block, blocks
from lakehouse_pipeline.sources.listing import SourceObject
from lakehouse_pipeline.sources.readers import read_split
from lakehouse_pipeline.sources.splits import Split, plan_splits
from lakehouse_pipeline.sources.stored_rows import stored_schema

SAMPLE_ROWS = 5_000
_SAMPLE_BYTES = 64 * 1024**2  # of a split of which the first block is read
_SAMPLE_TEXTS = 500
_TIMES = ("timestamp", "timestamptz")
_TEXTS = ("long", "string")
_DELIMITERS = ";\t|"


@dataclass(frozen=True)
class Sample:
    """What the first rows of a file say.

    Attributes:
        format: `csv`, `jsonl`, `parquet` or `orc`.
        columns: by name, in the order of the file.
        times: of each timestamp column, its values; those without an offset taken as UTC.
        texts: of each column of longs or strings, some of its values as text.
        rows: how many were looked at.
    """

    format: str
    columns: Mapping[str, Guess]
    times: Mapping[str, tuple[datetime, ...]]
    texts: Mapping[str, tuple[str, ...]]
    rows: int


def read_sample(files: LakehouseFileIO, source: SourceObject) -> Sample:
    """Read the first rows of an object.

    Raises:
        ConfigurationError: its suffix tells no format, or its columns are not separated by commas.
        DataError: it is damaged, or no such file.
    """
    form = format_of(source.url)
    if form is None:
        raise ConfigurationError(
            f"{source.url}: the suffix tells no format; name a .csv, .jsonl, .parquet or .orc file, "
            "compressed or not, such as x.csv.gz"
        )
    split = next(iter(plan_splits(files, [source], form, target_bytes=_SAMPLE_BYTES)))
    if form == "csv":
        return _csv(files, split)
    return _json_lines(files, split) if form == "jsonl" else _stored(files, source, split)


def _csv(files: LakehouseFileIO, split: Split) -> Sample:
    names = _header(_first_block(files, split), split.url)
    table = _rows(files, split, pa.schema([(name, pa.string()) for name in names]))
    values = {name: [text for text in table.column(name).to_pylist() if text is not None] for name in names}
    columns = {name: type_of_texts(texts) for name, texts in values.items()}
    return _sample("csv", columns, values, table.num_rows)


def _json_lines(files: LakehouseFileIO, split: Split) -> Sample:
    rows = list(islice(_objects(_first_block(files, split)), SAMPLE_ROWS))
    if not rows:
        raise DataError(f"{split.url} holds no JSON object in its first lines; is it one object a line?")
    columns = columns_of(rows)
    values = {name: [str(row[name]) for row in rows if row.get(name) is not None] for name in columns}
    return _sample("jsonl", columns, values, len(rows))


def _stored(files: LakehouseFileIO, source: SourceObject, split: Split) -> Sample:
    schema = stored_schema(files, source, split.format)
    columns = {name: Guess(kind) for name, kind in types_of(schema).items()}
    wanted = [field.with_nullable(True) for field in schema if columns[field.name].type in {*_TIMES, *_TEXTS}]
    table = _rows(files, split, pa.schema(wanted or list(schema)))
    values = {
        field.name: [str(value) for value in table.column(field.name).to_pylist() if value is not None]
        for field in wanted
    }
    return _sample(split.format, columns, values, table.num_rows)


def _sample(form: str, columns: Mapping[str, Guess], values: Mapping[str, list[str]], rows: int) -> Sample:
    return Sample(
        form,
        columns,
        {name: instants(texts) for name, texts in values.items() if columns[name].type in _TIMES},
        {
            name: tuple(texts[:_SAMPLE_TEXTS])
            for name, texts in values.items()
            if texts and columns[name].type in _TEXTS
        },
        rows,
    )


def _rows(files: LakehouseFileIO, split: Split, schema: pa.Schema) -> pa.Table:
    batches: list[pa.RecordBatch] = []
    for batch in read_split(files, split, schema, provenance=False, on_bad=ignore):
        batches.append(batch)
        if sum(map(len, batches)) >= SAMPLE_ROWS:
            break
    return pa.Table.from_batches(batches, schema).slice(0, SAMPLE_ROWS)


def _first_block(files: LakehouseFileIO, split: Split) -> Block:
    for block in blocks(files, split):
        return block
    raise DataError(f"{split.url} is empty; name a file with some rows")


def _header(block: Block, url: str) -> list[str]:
    line = block.data.partition(b"\n")[0].decode(errors="replace").rstrip("\r")
    names = next(csv.reader([line]), [])
    if len(names) == 1 and (found := [mark for mark in _DELIMITERS if mark in line]):
        raise ConfigurationError(
            f"{url}: its fields seem to be separated by {found[0]!r}; CSV is read with commas only: land it so"
        )
    kinds = [type_of_texts([name]).type for name in names if name]
    if not kinds or {"double", "date", "timestamp", "timestamptz"} & set(kinds) or set(kinds) == {"long"}:
        raise ConfigurationError(
            f"{url}: its first line seems to hold values, not names ({line[:100]}); land it with a header line"
        )
    return names


def _objects(block: Block) -> Iterator[dict[str, object]]:
    for _, line in block.lines():
        try:
            value = json.loads(line)
        except ValueError:
            continue  # a bad row; `lakehouse check --hour` names it
        if isinstance(value, dict):
            yield value

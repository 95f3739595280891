"""Whether an hour's raw objects are copied before they are read: what the spec says, or what the planner finds cheaper.

`auto` is simple. It copies only where the objects lie in another region than the copies would, and where reading them
there, as often as the transform does, costs more than to move them once; the ETL is taken to run where the copies would
be. What it does not know (retries of tasks, how often a function of Python uses its source) it does not count.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lakehouse_pipeline.backfill.plan import HourInputs
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.transform import SqlTransform
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.settings import read_settings
from lakehouse_pipeline.planning.price_book import PriceBook, read_book, shipped_book
from lakehouse_pipeline.planning.transfer import NoWayError, Origin, Question, plan_transfer
from lakehouse_pipeline.planning.transfer_text import explain

_TOKEN = re.compile(  # comments and text in quotes are nothing that is read; names may have several parts
    r"--[^\n]*|/\*.*?\*/|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|(?P<told>(?:`[^`]*`|\w)(?:`[^`]*`|[\w.])*|[(),])",
    re.DOTALL,
)
_TABLES = {"from", "join"}  # what follows is read, and what follows a comma after it
_NO_TABLES = {"select", "where", "group", "having", "order", "sort", "cluster", "distribute", "window", "limit", "set"}
_BUCKET = re.compile(r"s3[an]?://([^/]+)")


@dataclass(frozen=True)
class StagingChoice:
    """The decision.

    Attributes:
        copies: whether objects are copied.
        why: lines for people; those of EXPLAIN where the planner was asked.
    """

    copies: bool
    why: tuple[str, ...] = ()


DIRECT = StagingChoice(copies=False)


def choose_staging(spec: TableSpec, table: HourlyTable, files: LakehouseFileIO, inputs: HourInputs) -> StagingChoice:
    """Decide for an hour, before anything is written.

    Args:
        spec: the table's spec.
        table: as it was loaded.
        files: the store of the sources.
        inputs: the hour's objects.

    Raises:
        ConfigurationError: `staging: copy` cannot be done; or the own ways are wrong.
    """
    if spec.staging == "direct" or not inputs.source:
        return DIRECT
    target = spec.staging_prefix or table.ledger.folder
    problem = _problem(spec, table, files, inputs.source[0].url, target)
    if spec.staging == "auto":
        return _direct(problem) if problem else _planned(spec, files, inputs, target, price_book(spec))
    if problem:
        raise ConfigurationError(f"{spec.file}: staging: copy needs {problem}; write `staging: direct`")
    return StagingChoice(copies=True, why=("copy: the spec says so",))


def times_read(spec: TableSpec) -> int:
    """Count how often the transform reads the hour's own view, as far as its text tells: once, but for SQL."""
    if not isinstance(spec.transform, SqlTransform):
        return 1
    return max(1, sum(_reads(spec.transform.text)))


def _reads(text: str) -> Iterator[bool]:
    """Go through SQL's words, and tell of each whether it is the hour's own view in a list of tables."""
    tables, expected, outer = False, False, list[bool]()
    for match in _TOKEN.finditer(text):
        word = (match["told"] or "").lower()
        if word in _TABLES:
            tables = expected = True
        elif word in _NO_TABLES:
            tables = expected = False
        elif word == "(":
            outer.append(tables)
            tables = expected
        elif word == ")":
            tables, expected = outer.pop() if outer else False, False
        elif word == ",":
            expected = tables
        elif word:
            yield expected and word.strip("`") == "source"
            expected = False


def price_book(spec: TableSpec) -> PriceBook:
    """Give the ways that count for a table: the shipped rows, and its own.

    Raises:
        ConfigurationError: its own are wrong.
    """
    return read_book(spec.staging_ways) if spec.staging_ways else shipped_book()


def _planned(
    spec: TableSpec, files: LakehouseFileIO, inputs: HourInputs, target: str, book: PriceBook
) -> StagingChoice:
    source = inputs.source[0].url
    if _bucket(source) == _bucket(target):
        return _direct("the objects are in the bucket, or on the disk, that copies would go to")
    here, there = files.region_of(source), files.region_of(target)
    if here is None or there is None:
        return _direct(f"the store does not tell the regions of {source} and {target}")
    origin = Origin(here, inputs.bytes, len(inputs.source))
    try:
        plan = plan_transfer(Question((origin,), there, there, reads=times_read(spec)), book)
    except NoWayError as error:  # of own rows: an hour is no place to miss a price
        return _direct(str(error))
    word = "copy" if plan.chosen.copies_first else "direct"
    return StagingChoice(plan.chosen.copies_first, (f"{word}: auto, read {times_read(spec)}x", *explain(plan)))


def _direct(why: str) -> StagingChoice:
    return StagingChoice(copies=False, why=(f"direct: auto, {why}",))


def _problem(spec: TableSpec, table: HourlyTable, files: LakehouseFileIO, source: str, target: str) -> str:
    """Say why the store cannot copy from one place to the other; empty where it can, as far as is known here."""
    if (_bucket(source) is None) != (_bucket(target) is None):
        return f"source and copies in one store, and {source} is in another than {target}"
    if _bucket(target) and spec.staging_prefix is None and _access(files) != _access(table.files):
        return (
            f"one access to {source} and {target}, and the catalog gives the table an endpoint or credentials of its "
            "own; set `staging_prefix` to a place that the catalog's properties reach, too"
        )
    return ""


def _access(files: LakehouseFileIO) -> tuple[object, ...]:
    """Tell who asks which store."""
    at = read_settings(files.properties).connection
    keys = at.access_key_id, at.secret_access_key, at.session_token
    return at.endpoint, at.profile, *keys, at.anonymous, at.role, at.vending


def _bucket(url: str) -> str | None:
    """Name the bucket of an object; None for files."""
    match = _BUCKET.match(url)
    return match[1] if match else None

"""A draft as the files that people go on with: `tables/NAME.yaml`, and a transform where the hour has to be computed.

What was guessed, and what could be said beside it, stands in comments.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError

from lakehouse_pipeline.config.schema import FIRST_LINE
from lakehouse_pipeline.config.types import Column
from lakehouse_pipeline.drafts.spec import LISTED, Draft
from lakehouse_pipeline.errors import SafetyError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.planning.units import show_count

_TEXT_FORMATS = ("csv", "jsonl")
_COMPUTED = "event_time"


def write_draft(draft: Draft, folder: Path) -> list[Path]:
    """Write a draft's files into the folder of the specs; gives their paths.

    Raises:
        SafetyError: one of them exists already; nothing was written.
    """
    texts = {folder / f"{draft.name}.yaml": spec_text(draft)}
    if draft.hour and draft.hour.sql:
        texts[folder / f"{draft.name}.sql"] = sql_text(draft)
    existing = [str(path) for path in texts if path.exists()]
    if existing:
        raise SafetyError(f"nothing was written: {', '.join(existing)} exist already; move them, or name another table")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return list(texts)


def notes(draft: Draft) -> list[str]:
    """Say what somebody should look at before the first run, one line each."""
    found = []
    if draft.hour is None:
        found.append("hour: no column of the file seems to tell a row's time; write `hour`, and a transform if need be")
    elif draft.hour.inside is not None and draft.hour.inside < draft.hour.values:
        found.append(f"hour: {_inside(draft)}; is {draft.hour.column!r} the right column, and the path in UTC?")
    if draft.hours is None:
        found.append("start: neither the path nor the rows tell it; write the first hour")
    if draft.absent:
        found.append(
            f"missing: {draft.absent} hours between the first and the last have no file; `empty` if that is so"
        )
    if not draft.listed_all:
        found.append(f"start: only the first {LISTED:,} names were listed; an earlier hour may be there")
    found += [f"{name}: {why}" for name, (kind, why) in _columns(draft).items() if why and kind is None]
    return found


def next_commands(draft: Draft) -> list[str]:
    """Say what to type next."""
    if draft.hours is None:
        return [f"lakehouse check {draft.name}"]
    return [
        f"lakehouse check {draft.name} --hour {draft.hours.first}",
        f"lakehouse backfill {draft.name} {draft.hours.text}",
    ]


def sql_text(draft: Draft) -> str:
    """Write the transform that computes the hour's column."""
    if draft.hour is None:
        return ""
    names = "".join(f",\n  `{name}`" for name in _readable(draft))
    return f"SELECT\n  {draft.hour.sql} AS {_computed(draft)}{names}\nFROM source\n"


def spec_text(draft: Draft) -> str:
    """Write the spec."""
    return "\n".join(line.rstrip() for line in _lines(draft)) + "\n"


def _lines(draft: Draft) -> Iterator[str]:
    name, sample = draft.name, draft.sample
    yield FIRST_LINE
    yield f"# Drafted from the first {sample.rows:,} rows of {_quoted(draft.file)}: read it, and correct what is wrong."
    yield f"table: lake.{name}"
    yield "# description: what a row is"
    yield ""
    yield "source:"
    yield f"  path: {_scalar(draft.place.template)} # {_fits(draft)}"
    if sample.format in _TEXT_FORMATS:
        yield "  columns: # of the raw files; ! means required"
        yield from _column_lines(draft, "    ")
    else:
        known = ", ".join(f"{key} {kind}" for key, kind in _readable(draft).items())
        yield f"  # The files bring their columns: {known}"
    yield "  # bad_rows: reject # keeps rows that do not parse, with file, position and reason; `fail` stops there"
    yield "  # missing: empty # an hour without a file has no rows; `fail` stops there"
    yield ""
    yield from _transform_lines(draft)
    yield from _hour_lines(draft)
    yield "# key: [] # columns that tell rows apart: checked before every commit"
    yield "# sort: [] # columns that files are sorted by, as `name` or `name desc`"
    yield from _range_lines(draft)


def _transform_lines(draft: Draft) -> Iterator[str]:
    if draft.hour is None or not draft.hour.sql:
        yield f"# transform: {draft.name}.sql # Spark SQL over `source`; without it the table has the source's columns"
        return
    yield f"transform: {draft.name}.sql # makes the hour's column out of {_quoted(draft.hour.column)}"
    yield ""
    yield "columns: # of the Iceberg table"
    yield f"  {_computed(draft)}: timestamptz!"
    yield from _column_lines(draft, "  ")


def _hour_lines(draft: Draft) -> Iterator[str]:
    if draft.hour is None:
        yield "# hour: the column that holds a row's time, a timestamptz! or timestamp! # REQUIRED: none was found"
        return
    column = _computed(draft) if draft.hour.sql else draft.hour.column
    yield f"hour: {_scalar(column)} # the table is partitioned by its hour; {_inside(draft)}"


def _range_lines(draft: Draft) -> Iterator[str]:
    if draft.hours is None:
        yield "# start: 2013-01-01 # REQUIRED: the first hour or day; nothing tells it"
        return
    told = "" if draft.place.unit else ", as far as the sample tells"
    yield f"start: {_hour_or_day(draft.hours.first)} # the first hour there is{told}"
    end = HourWindow.from_ordinal(draft.hours.last.ordinal + 1)
    yield f"# end: {_hour_or_day(end)} # the first hour that is no more; without it the table goes on, on a schedule"


def _column_lines(draft: Draft, indent: str) -> Iterator[str]:
    key = draft.hour.column if draft.hour and not draft.hour.sql else None
    for name, (kind, why) in _columns(draft).items():
        note = f" # {why}" if why else ""
        if kind is None:
            yield f"{indent}# {_quoted(name)}{note}"
        else:
            yield f"{indent}{_scalar(name)}: {kind}{'!' * (name == key)}{note}"


def _readable(draft: Draft) -> dict[str, str]:
    return {name: kind for name, (kind, _) in _columns(draft).items() if kind is not None}


def _columns(draft: Draft) -> Mapping[str, tuple[str | None, str]]:
    """Give each column's type, None where it cannot be one, and a note."""
    columns: dict[str, tuple[str | None, str]] = {}
    for name, guess in draft.sample.columns.items():
        earlier = {other.casefold() for other, (kind, _) in columns.items() if kind is not None}
        refused = _refusal(name, earlier)
        columns[name] = (None, refused) if refused else (guess.type, guess.note)
    return columns


def _refusal(name: str, earlier: set[str]) -> str:
    if name.startswith("_"):
        return "left out: names that begin with _ are reserved"
    if name.casefold() in earlier:
        return "left out: differs from another column in case only"
    try:
        Column(name=name, type="string")
    except ValidationError:
        return "left out: engines would misread its name"
    return ""


def _computed(draft: Draft) -> str:
    name = _COMPUTED
    while name in {other.casefold() for other in draft.sample.columns}:
        name = f"{name}_utc"
    return name


def _fits(draft: Draft) -> str:
    files = f"{show_count(draft.files, 'file')} fit{'s' * (draft.files == 1)}"
    return f"{files}{'' if draft.listed_all else f' of the first {LISTED:,} names'}; the time is UTC"


def _inside(draft: Draft) -> str:
    if draft.hour is None or draft.hour.inside is None:
        return "the path tells no time to compare it with"
    if draft.hour.inside == draft.hour.values:
        return f"all {draft.hour.values:,} values of the sample lie in the time that the path tells"
    return f"{draft.hour.inside:,} of {draft.hour.values:,} values of the sample lie in the time that the path tells"


def _hour_or_day(hour: HourWindow) -> str:
    return hour.key[:10] if hour.start.hour == 0 else hour.key


def _quoted(text: str) -> str:
    """Write text for a comment, which ends where its line does: names of columns and files may hold line breaks."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _scalar(text: str) -> str:
    """Write text as YAML, in quotes where it needs them."""
    dumped: str = yaml.safe_dump(text, allow_unicode=True, width=10_000)
    return dumped.removesuffix("...\n").strip()
